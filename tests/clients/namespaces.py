"""`usersd namespace` beside a running server."""

from harness import EVERY_SCOPE, Postgres, Server, Sqlite, assert_equal, assert_true, database, new_key, run, until
from transports import Canonical, Refused


def reason(transport, method="List", **request):
    """Why a call is refused; None if it is not."""
    try:
        transport.call(method, request)
    except Refused as refused:
        return refused.reason
    return None


def by_command_line(kind):
    """Limited, read, listed and deleted while a server runs, which nobody tells."""
    with database(kind) as db, Server(db.url, key=new_key(db, "*", EVERY_SCOPE)) as server:
        shop, other = Canonical(server, "shop"), Canonical(server, "other")

        def namespace(*arguments, code=0):
            return run("namespace", *arguments, "--database", db.url, code=code)

        for caller in (shop, other):
            assert_equal(reason(caller, "Create", username="ada", password="correct horse"), None, "the first user")
        _, said = namespace("create", "shop", "--max-users", "1")
        assert_true("shop is created" in said, said)
        until(lambda: reason(shop, "Create", username="eve", password="correct horse") == "QUOTA_EXCEEDED", 10, "the limit holds")
        assert_equal(reason(other, "Create", username="eve", password="correct horse"), None, "another namespace has no limit")
        _, said = namespace("create", "shop", code=1)
        assert_true("created before" in said, said)
        namespace("update", "shop", "--max-users", "2")
        out, _ = namespace("list")
        assert_equal(out.splitlines(), ["other\timplicit\t-\t-\t-\t-", "shop\tactive\t2\t-\t-\t-"], "the list")
        read = dict(line.split("\t") for line in namespace("read", "shop")[0].splitlines())
        assert_equal((read["state"], read["max_users"]), ("active", "2"), "what is read")
        # Eve was created if that came before the server knew the limit.
        assert_true(read["users"] in ("1", "2"), read["users"])

        _, said = namespace("delete", "shop", "--confirm", "other", code=64)
        assert_true("--confirm" in said, said)
        namespace("delete", "shop", "--confirm", "shop")
        until(lambda: reason(shop) == "NAMESPACE_BEING_DELETED", 10, "its calls are refused")
        until(lambda: "\nusers\t0\n" in namespace("read", "shop")[0], 30, "its rows are removed")
        assert_equal(reason(other), None, "another namespace goes on")
        _, said = namespace("read", "nowhere", code=1)
        assert_true("no such namespace" in said, said)
    namespaces = ["create", "Shop", "--max-users", "x", "--max-keys", "many"]
    with database(Sqlite) as db:
        _, said = run("namespace", *namespaces, "--database", db.url, code=64)
        assert_true(all(flag in said for flag in ("the name", "--max-users", "--max-keys")), f"every fault is named in:\n{said}")


def tests():
    """Name, function, arguments."""
    for kind in (Sqlite, Postgres):
        yield f"namespaces / {kind.kind} / by the command line, beside a server", by_command_line, kind

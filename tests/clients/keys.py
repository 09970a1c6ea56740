"""API keys by those who use them: the command line, generated clients, grpcurl, curl, the SDKs."""

import base64
import contextlib
import hmac
import json
import os
import pathlib
import secrets
import tempfile
import time

import grpc

import sdks
from harness import EVERY_SCOPE, Postgres, Server, Sqlite, Wrong, database, assert_equal, assert_matches, new_key, run, assert_true, until
from transports import ROUTES, Canonical, Grpcurl, PythonClient, Refused, curl, generate

PASSWORD = "correct horse"


def reason(transport, method="List", **request):
    """Why a call is refused; None if it is not."""
    try:
        transport.call(method, request)
    except Refused as refused:
        return refused.reason
    return None


def by_command_line(kind):
    """Made, used, listed and revoked while a server runs, which nobody tells."""
    with database(kind) as db, Server(db.url) as server:
        assert_true(any("no API key was ever created" in line for line in server.lines), f"open mode is said in:\n{server.log()}")
        nobody = Canonical(server, "shop")
        assert_equal(reason(nobody), None, "a call without a key, while there is none")
        out, said = run("key", "create", "--database", db.url, "--namespace", "shop", "--scopes",
                        "users.read, users.write", "--name", "orders", "--expires", "90d")
        assert_matches(out, r"usk_[0-9a-f]{64}\n", "stdout: the key alone")
        assert_true("users.read users.write" in said and out.strip() not in said, f"what the key may do, and not the key, in:\n{said}")
        until(lambda: reason(nobody) == "KEY_MISSING_OR_UNKNOWN", 10, "the first key ends open mode")
        server.key = out.strip()
        assert_equal(reason(Canonical(server, "shop")), None, "a call with the key")
        assert_equal(reason(Canonical(server, None)), None, "a call with the key that names no namespace")
        assert_equal(reason(Canonical(server, "other")), "NAMESPACE_MISMATCH", "a call in another namespace")
        assert_equal(reason(Canonical(server, "shop"), "Login", username="x", password="x"), "SCOPE_MISSING", "a log-in")

        out, said = run("key", "list", "--database", db.url)
        assert_true(said.startswith("id\tnamespace"), f"what the columns are, on stderr: {said}")
        (id, namespace, name, scopes, created, expires, used, creator), = (line.split("\t") for line in out.splitlines())
        listed = (namespace, name, scopes, used, creator)
        assert_equal(listed, ("shop", "orders", "users.read,users.write", "-", "usersd"), "the key in the list")
        for at in (created, expires):
            assert_matches(at, r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "a time")
        assert_equal(run("key", "list", "--database", db.url, "--namespace", "other")[0], "", "keys of another namespace")
        run("key", "revoke", id, "--database", db.url)
        began = time.monotonic()
        until(lambda: reason(Canonical(server, "shop")) == "KEY_MISSING_OR_UNKNOWN", 10, "a revoked key stops working")
        took = time.monotonic() - began
        assert_true(took < 2, f"a revoked key stops working within a second, and what the question takes: {took:.1f} s")
        _, said = run("key", "revoke", id, "--database", db.url, code=1)
        assert_true(id in said and "key list" in said, f"the way out is named in:\n{said}")
        server.key = None
        assert_equal(reason(Canonical(server, "shop")), "KEY_MISSING_OR_UNKNOWN", "a call without a key, after the last was revoked")


def wrong_use():
    with database(Sqlite) as db:
        arguments = ["--namespace", "Shop", "--scopes", "users.reed", "--name", " ", "--expires", "soon"]
        out, said = run("key", "create", "--database", db.url, *arguments, code=64)
        assert_equal(out, "", "stdout")
        for flag in ("--namespace", "--scopes", "--name", "--expires", "users.read"):
            assert_true(flag in said, f"{flag} is named in:\n{said}")
        assert_equal(db.path.exists(), False, "whether a database was made")
        run("key", "create", "--database", db.url, code=64)
        _, said = run("key", "list", "--database", db.url, "--namespace", "Shop", code=64)
        assert_true("--namespace" in said, f"the flag is named in:\n{said}")


def by_rpc(kind):
    """`service Keys` by a generated client, by grpcurl and by curl."""
    with database(kind) as db, Server(db.url, key=new_key(db, "shop", EVERY_SCOPE)) as server:
        generate()
        import keys_pb2
        import keys_pb2_grpc

        metadata = [("authorization", f"Bearer {server.key}")]
        with grpc.insecure_channel(server.address) as channel:
            stub = keys_pb2_grpc.KeysStub(channel)
            request = keys_pb2.CreateKeyRequest(name="orders", scopes=["users.read"])
            made = stub.Create(request, metadata=metadata, timeout=30)
            assert_matches(made.secret, "usk_[0-9a-f]{64}", "the secret")
            listed = stub.List(keys_pb2.ListKeysRequest(), metadata=metadata, timeout=30).keys
            assert_equal([(key.name, key.namespace) for key in listed], [("a test", "shop"), ("orders", "shop")], "keys")
        orders = Server.__new__(Server)
        orders.__dict__.update(server.__dict__, key=made.secret)
        grpcurl = Grpcurl(orders, None)
        assert_equal(reason(grpcurl), None, "the new key by grpcurl")
        assert_equal(reason(grpcurl, "Create", username="x"), "SCOPE_MISSING", "more than the new key may")
        done = grpcurl.run("-H", f"authorization: Bearer {server.key}", "-d", "{}", server.address, "users.Keys/List")
        assert_equal(len(json.loads(done.stdout)["keys"]), 2, f"keys by grpcurl: {done.stderr}")
        status, _, text = curl("-X", "DELETE", "-H", f"authorization: bearer {server.key}",
                               f"http://{server.address}/v1/keys/{made.key.id}")
        assert_equal((status, json.loads(text)), (200, {"revoked": "1"}), "a key revoked by curl")
        assert_equal(reason(grpcurl), "KEY_MISSING_OR_UNKNOWN", "the revoked key by grpcurl")


def by_sdk(kind, make):
    """A project's key is its project's; what it lacks is said as Appwrite said it."""
    settings = {"USERSD_PASSWORDS_SCREENING": "false"}
    with database(kind) as db, contextlib.ExitStack() as stack:
        own = new_key(db, "shop", EVERY_SCOPE)
        reader = new_key(db, "shop", "users.read")
        other = new_key(db, "other", EVERY_SCOPE)
        server = stack.enter_context(Server(db.url, settings))

        def sdk(project, key):
            return stack.enter_context(contextlib.closing(make(server, project, key)))

        def failure(sdk, method, *arguments):
            try:
                came = sdk.call(method, *arguments)
            except sdks.Failed as failed:
                return failed.code, failed.message
            raise Wrong(f"{method} was answered: {came}")

        user = sdk("shop", own).call("create", "ada@example.com", PASSWORD, "Ada")
        assert_equal(sdk("shop", own).call("get", user["$id"])["email"], "ada@example.com", "the user")
        assert_equal(sdk("shop", reader).call("list")["sum"], 1, "the list by a key that may read")
        host = server.address.partition(":")[0]
        lacking = f"app.shop@service.{host} (role: application) missing scope"
        assert_equal(failure(sdk("shop", reader), "updateStatus", user["$id"], 2), (401, f"{lacking} (users.admin)"), "a scope missing")
        assert_equal(failure(sdk("shop", reader), "delete", user["$id"]), (401, f"{lacking} (users.write)"), "a scope missing")
        guest = (401, "User (role: guest) missing scope (users.read)")
        assert_equal(failure(sdk("shop", "usk_" + "0" * 64), "get", user["$id"]), guest, "an unknown key")
        code, _ = failure(sdk("shop", other), "get", user["$id"])
        assert_equal(code, 403, "the key of another project")
        assert_equal(failure(sdk("other", other), "get", user["$id"]), (404, "User not found"), "the user in another project")


def nothing_is_told(kind):
    """Keys, passwords, tokens, codes and what belongs to second factors, good and bad, go through every way in; no log line and
    no row has them, at any level."""
    with database(kind) as db, tempfile.TemporaryDirectory() as folder:
        admin = new_key(db, "default", EVERY_SCOPE)
        pepper = base64.b64encode(os.urandom(32)).decode()
        (pathlib.Path(folder) / "keys").write_text(f"1 {pepper}\n")
        secrets = {"a key": admin, "the key of TOTP secrets": pepper}
        settings = {
            "USERSD_LOG_LEVEL": "trace", "USERSD_LOG_FORMAT": "json", "USERSD_PASSWORDS_PEPPER": f"{folder}/keys",
            "USERSD_ASSERTIONS_AUDIENCES": "shop",
        }
        with Server(db.url, settings, key=admin) as server:
            told = []
            for number, make in enumerate([PythonClient, Canonical, Grpcurl]):
                with contextlib.closing(make(server, "default")) as over:
                    secrets.update(use_secrets(over, number, told))
                    secrets.update(use_factors(over, number, told))
            for path, body in [("/v1/users", '{"username":"x","password":"canary-broken'), ("/v1/canary-path", "{}")]:
                curl(f"http://{server.address}{path}", "-H", "content-type: application/json", "-d", body,
                     "-H", f"authorization: Bearer {admin}x")
            secrets["a bad key"] = admin + "x"
            secrets["a password in broken JSON"] = "canary-broken"
            status, _, text = curl(f"http://{server.address}/v1/keys", "-H", f"authorization: Bearer {admin}",
                                   "-H", "content-type: application/json", "-d", '{"name":"x","scopes":["users.read"]}')
            assert_equal(status, 200, text)
            secrets["another key"] = json.loads(text)["secret"]
        assert_true(sum("TRACE" in line for line in server.lines) > 100, "the log says everything it can")
        said, stored = "\n".join([*server.lines, *told]), everything(db)
        for what, secret in secrets.items():
            found = [line for line in said.splitlines() if secret in line] if secret in said else []
            assert_equal(found, [], f"log lines and errors with {what}")
            for where, content in stored:
                for form in forms(what, secret):
                    assert_true(form not in content, f"{what} is in {where}")


def forms(what, secret):
    """A secret in the forms that it could be stored in."""
    digits = secret.partition("_")[2]
    raw = [bytes.fromhex(digits)] if len(digits) == 64 else []
    raw += [base64.b32decode(secret)] if "TOTP secret by" in what else []
    plain = [secret.replace("-", "").encode()] if "recovery" in what else []
    return [secret.encode(), *plain, *raw, *(one.hex().encode() for one in raw)]


def use_secrets(over, number, told):
    """Passwords and tokens through everything that takes them, each with what it is; `told` gets what is said of refusals."""
    name, first, second, third = f"user{number}", f"canary-1-{number}", f"canary-2-{number}", f"canary-3-{number}"
    wrong, short = f"canary-wrong-{number}", f"cany-{number}"
    id = over.call("Create", {"username": name, "email": f"{name}@example.com", "password": first})["user"]["id"]
    tokens = [over.call("Login", {"username": name, "password": first})["session"]["id"] for _ in range(2)]
    over.call("ReadSession", {"sessionId": tokens[0]})
    over.call("UpdatePassword", {"userId": id, "oldPassword": first, "newPassword": second, "keepSession": tokens[0]})
    over.call("Logout", {"sessionId": tokens[0]})
    over.call("SetPassword", {"userId": id, "newPassword": third})
    over.call("Update", {"id": id, "password": first})
    over.call("CreateOrRestore", {"email": f"{name}-2@example.com", "password": second})
    codes = use_codes(over, f"{name}-2@example.com", second, told)
    for method, (_, path) in ROUTES.items():
        # The key goes through every RPC, which has nothing to do for it.
        names = {"{id}": "id", "{user_id}": "userId", "{session_id}": "sessionId"}
        try:
            over.call(method, {name: "nobody" for place, name in names.items() if place in path})
        except Refused as refused:
            told.append(str(refused))
    for method, request, why in [
        ("Login", {"username": name, "password": wrong}, "BAD_CREDENTIALS"),
        ("UpdatePassword", {"userId": id, "oldPassword": wrong, "newPassword": first}, "BAD_CREDENTIALS"),
        ("SetPassword", {"userId": id, "newPassword": short}, "FIELD_INVALID"),
        ("Create", {"username": f"{name}x", "password": short}, "FIELD_INVALID"),
        ("ReadSession", {"sessionId": tokens[1]}, "SESSION_NOT_FOUND"),
    ]:
        try:
            over.call(method, request)
        except Refused as refused:
            assert_equal(refused.reason, why, method)
            told.append(str(refused))
        else:
            raise Wrong(f"{method} was answered")
    named = {"first": first, "second": second, "third": third, "wrong": wrong, "short": short}
    return {
        **{f"the {what} password by {over.name}": text for what, text in named.items()},
        **{f"token {at} by {over.name}": token for at, token in enumerate(tokens)},
        **{f"code {at} by {over.name}": code for at, code in enumerate(codes)},
    }


def use_factors(over, number, told):
    """A second factor through everything that takes it, and an assertion. Returns all that was shown and tried."""
    name, password = f"factor{number}", f"canary-factor-{number}"
    id = over.call("Create", {"username": name, "password": password})["user"]["id"]
    secret = over.call("EnrollTotp", {"userId": id, "password": password})["secret"]
    codes = over.call("ConfirmTotp", {"userId": id, "totp": totp(secret, 0)})["recoveryCodes"]
    challenges, wrong = [], {"recovery code": "-".join(["canary"] * 4), "challenge": f"canary-challenge-{number}"}

    def login(**proof):
        try:
            over.call("Login", {"username": name, "password": password})
        except Refused as refused:
            challenges.append(refused.metadata["challenge"])
        return over.call("CompleteLogin", {"challenge": challenges[-1], **proof})["session"]["id"]

    tokens = [login(totp=totp(secret, 1)), login(recoveryCode=codes[0])]
    assertion = over.call("IssueAssertion", {"sessionId": tokens[1], "audience": "shop"})["assertion"]
    for method, request in [
        ("CompleteLogin", {"challenge": challenges[-1], "recoveryCode": codes[1]}),
        ("CompleteLogin", {"challenge": wrong["challenge"], "recoveryCode": codes[1]}),
        ("RemoveTotp", {"userId": id, "recoveryCode": wrong["recovery code"]}),
        ("RemoveTotp", {"userId": id, "recoveryCode": codes[0]}),
        ("IssueAssertion", {"sessionId": tokens[1], "audience": assertion}),
    ]:
        try:
            over.call(method, request)
        except Refused as refused:
            told.append(str(refused))
        else:
            raise Wrong(f"{method} was answered")
    codes += over.call("CreateRecoveryCodes", {"userId": id, "recoveryCode": codes[2]})["recoveryCodes"]
    return {
        f"the TOTP secret by {over.name}": secret, f"an assertion by {over.name}": assertion,
        **{f"recovery code {at} by {over.name}": code for at, code in enumerate(codes)},
        **{f"challenge {at} by {over.name}": challenge for at, challenge in enumerate(challenges)},
        **{f"the token of a second factor {at} by {over.name}": token for at, token in enumerate(tokens)},
        **{f"a wrong {what} by {over.name}": text for what, text in wrong.items()},
    }


def totp(secret, steps):
    """The code that an app with the secret shows, so many steps of 30 seconds from now (RFC 6238)."""
    counter = int(time.time() // 30) + steps
    digest = hmac.digest(base64.b32decode(secret), counter.to_bytes(8, "big"), "sha1")
    at = digest[-1] & 15
    return f"{(int.from_bytes(digest[at:at + 4], 'big') & 0x7fffffff) % 10**6:06}"


def use_codes(over, email, password, told):
    """Codes through everything that takes them, right, used and wrong ones. Returns all that were made and tried (R17)."""
    codes = ["code_" + secrets.token_hex(32), f"{secrets.randbelow(10**10):010}"]
    for purpose, method, more in [
        ("EMAIL_VERIFICATION", "VerifyEmail", {}),
        ("PASSWORD_RESET", "ResetPassword", {"newPassword": password}),
        ("LOGIN", "LoginWithCode", {}),
        ("EMAIL_CHANGE", "ConfirmEmailChange", {}),
    ]:
        for form in ["LINK", "DIGITS"]:
            request = {"email": email, "purpose": f"CODE_PURPOSE_{purpose}", "form": f"CODE_FORM_{form}"}
            request |= {"length": 10} if form == "DIGITS" else {}
            request |= {"newEmail": email} if purpose == "EMAIL_CHANGE" else {}
            made = over.call("CreateCode", request)["code"]
            wrong = codes[form == "DIGITS"]
            codes.append(made)
            for code, refused in [(wrong, True), (made, False), (made, True)]:
                try:
                    over.call(method, {"code": code, "email": email, **more})
                    assert_true(not refused, f"{method} took a wrong code")
                except Refused as error:
                    assert_equal((refused, error.reason), (True, "BAD_CODE"), method)
                    told.append(str(error))
    return codes


def everything(db):
    """Every byte of the database, with where it is."""
    if db.kind == "sqlite":
        return [(file.name, file.read_bytes()) for file in db.folder.iterdir()]
    tables = [name for (name,) in db.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    rows = ((name, db.query(f"SELECT CAST({name} AS text) FROM {name}")) for name in tables)
    return [(name, "\n".join(row for (row,) in found).encode()) for name, found in rows]


def tests():
    """Name, function, arguments."""
    for kind in (Sqlite, Postgres):
        yield f"keys / {kind.kind} / by the command line, beside a server", by_command_line, kind
        yield f"keys / {kind.kind} / by RPC", by_rpc, kind
        for make in sdks.ALL:
            yield f"keys / {kind.kind} / {make.name}", by_sdk, kind, make
        yield f"keys / {kind.kind} / no secret is written anywhere", nothing_is_told, kind
    yield "keys / wrong use of the command line is 64", wrong_use

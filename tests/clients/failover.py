"""PostgreSQL with a standby: the primary is lost, lists are read from the replica; and PgBouncer before PostgreSQL.

Each test of a fault prints its calls, failures by reason, the time to recover, and the acknowledged writes that were lost.
"""

import contextlib
import re
import time

from cluster import cluster, pair, pgbouncer
from harness import Server, assert_equal, assert_matches, assert_true, run, until
from outages import Load, health, told, until_ready
from transports import Canonical, Refused

# --- The primary is lost --------------------------------------------------------------------------------------


def both(primary, standby):
    """The address that names both, the standby first."""
    return f"postgres:///postgres?host={standby.folder},{primary.folder}&user=postgres&target_session_attrs=read-write"


def failed_over(lose, what):
    """The service follows to the new primary by itself, and all that was acknowledged is there."""
    with pair(synchronous=True) as (primary, standby), contextlib.ExitStack() as stack:
        url = both(primary, standby)
        server, other = [stack.enter_context(Server(url)) for _ in range(2)]
        here, there = Canonical(server, "default"), Canonical(other, "default")
        here.call("Create", {"username": "ada", "password": "correct horse"})
        token = here.call("Login", {"username": "ada", "password": "correct horse"})["session"]["id"]
        there.call("ReadSession", {"sessionId": token})
        with Load(server) as load:
            lose(primary)
            until_ready(server, False)
            standby.promote()
            recovered = until_ready(server, True)
            served = load.answers["OK"]
            until(lambda: load.answers["OK"] > served + 50, 10, "calls that are served again")
            # The former primary comes back and knows of nothing: nobody asks it.
            primary.thaw()
            served = load.answers["OK"]
            until(lambda: load.answers["OK"] > served + 50, 10, "calls that are served on")
        load.check(what, standby, recovered)
        assert_true(told(server, "database does not answer: "), server.log())
        assert_equal(len(told(server, "the database is served by")), 1, f"lines that name the new primary, in:\n{server.log()}")
        until_ready(other, True)
        ends_everywhere(here, there, token)


def former_primary():
    """A former primary that comes back and takes writes is not used, even where no other server answers."""
    with pair(synchronous=True) as (primary, standby), contextlib.ExitStack() as stack:
        url = f"postgres:///postgres?host={primary.folder},{standby.folder}&user=postgres"
        server = stack.enter_context(Server(url))
        with Load(server) as load:
            primary.freeze()
            until_ready(server, False)
            before = set(load.acknowledged)
            standby.promote()
            until_ready(server, True)
            primary.thaw()
            primary.set("synchronous_standby_names", "")
            standby.freeze()
            until_ready(server, False)
            until(lambda: told(server, "a former primary"), 10, "a line that tells of it")
            standby.thaw()
            recovered = until_ready(server, True)
            # One that starts now has to tell them apart by itself.
            Canonical(stack.enter_context(Server(url)), "default").call("Create", {"username": "late", "ssoEnabled": True})
            served = load.answers["OK"]
            until(lambda: load.answers["OK"] > served + 50, 10, "calls that are served on")
        written = {id for (id,) in primary.query("SELECT id FROM users")} & (set(load.acknowledged) - before)
        assert_equal(written, set(), "users that the former primary has of after the promotion")
        assert_equal(primary.query("SELECT id FROM users WHERE username = 'late'"), [], "and of the server that started last")
        load.check("former primary takes writes again", standby, recovered)


def ends_everywhere(here, there, token):
    """A session that both replicas have cached ends on the other one, too: it reads the log of the new primary."""
    for client in (here, there):
        assert_equal(client.call("ReadSession", {"sessionId": token})["session"]["username"], "ada", "a session of before")
    here.call("Logout", {"sessionId": token})

    def ended():
        try:
            there.call("ReadSession", {"sessionId": token})
        except Refused as refused:
            return refused.reason == "SESSION_NOT_FOUND"
        return False

    until(ended, 5, "the session has ended on the other replica")


def started_during_a_failover():
    """A start that finds a standby alone waits for its promotion."""
    with pair(synchronous=False) as (primary, standby):
        primary.kill()
        server = Server(both(primary, standby), wait=False)
        try:
            until(lambda: told(server, "waiting for it"), 10, "a line that it waits")
            assert_true("standby, not the primary" in server.log(), server.log())
            standby.promote()
            server.wait_ready()
            assert_equal(health(server), 1, "health")
            server.stop()
        finally:
            server.kill()


# --- Lists from a replica -------------------------------------------------------------------------------------

# Of users, and not of their sessions and events. The probe's and the tail's are none of these.
OF_USERS = re.compile(r"(?:statement|execute [^:]*): .*?(?:FROM|INTO|UPDATE) \"?(users|users_search|user_totals|sessions|events)\b")


class Statements:
    """The statements about users that a server has run since the last look."""

    def __init__(self, db):
        self.db, self.seen = db, 0

    def new(self):
        text = self.db.log()
        fresh, self.seen = text[self.seen :], len(text)
        tail = "pg_current_snapshot"
        return [found[1] for line in fresh.splitlines() if tail not in line and (found := OF_USERS.search(line))]


def lists_from_a_replica():
    """Lists and searches are read from the replica, and nothing else; where it does not answer, from the primary."""
    with pair(synchronous=False, settings="-c log_statement=all") as (primary, replica):
        with Server(primary.url, {"USERSD_POOL_READ_URL": replica.url}) as server:
            client = Canonical(server, "default")
            user = client.call("Create", {"username": "ada", "password": "correct horse"})["user"]
            until(lambda: client.call("List", {}).get("users"), 10, "the user is in lists")
            at_primary, at_replica = Statements(primary), Statements(replica)

            def read_alone():
                """Lists go to the replica from now on."""
                at_primary.new()
                client.call("List", {})
                return not at_primary.new()

            until(read_alone, 10, "lists are read from the replica")
            at_replica.new()
            for _ in range(10):
                assert_equal(client.call("List", {"search": "ad"})["total"], "1", "total")
                assert_equal(len(client.call("Search", {"username": "ada"})["users"]), 1, "users that are found")
            counts = len(at_primary.new()), len(at_replica.new())
            print(f"     20 lists: {counts[0]} statements about users on the primary, {counts[1]} on the replica")
            assert_true(counts[0] == 0 and counts[1] >= 20, f"statements on the primary and the replica: {counts}")
            session = client.call("Login", {"username": "ada", "password": "correct horse"})["session"]
            client.call("Read", {"id": user["id"]})
            client.call("ReadSession", {"sessionId": session["id"]})
            client.call("ListSessions", {"userId": user["id"]})
            client.call("ListLogs", {"userId": user["id"]})
            client.call("Update", {"id": user["id"], "name": "Ada"})
            counts = len(at_primary.new()), len(at_replica.new())
            print(f"     a log-in, reads, a change: {counts[0]} statements about users on the primary, {counts[1]} on the replica")
            assert_true(counts[0] > 5 and counts[1] == 0, f"statements on the primary and the replica: {counts}")
            replica_lost(replica, server, client, at_replica)


def replica_lost(replica, server, client, at_replica):
    replica.stop()
    began, slowest = time.monotonic(), 0
    for _ in range(30):
        at = time.monotonic()
        assert_equal(len(client.call("List", {})["users"]), 1, "users that are listed without the replica")
        slowest = max(slowest, time.monotonic() - at)
        time.sleep(0.05)
    print(f"     replica lost: 30 lists in {time.monotonic() - began:.1f} s, failed: 0, slowest {slowest:.2f} s")
    until(lambda: told(server, "read replica does not answer"), 10, "a line that tells of it")
    assert_equal(health(server), 1, "health without the replica")
    replica.start()
    until(lambda: told(server, "read replica answers again"), 10, "a line that it answers again")
    at_replica.new()
    # A list may meet a connection from before, and is read from the primary then.
    until(lambda: client.call("List", {}) and at_replica.new(), 10, "lists are read from the replica again")
    # It does not answer at first, and again; one list fails; twice it answers again.
    assert_true(len(told(server, "read replica")) <= 5, f"lines about the replica, in:\n{server.log()}")


# --- PgBouncer ------------------------------------------------------------------------------------------------


def behind_pgbouncer():
    """In session mode all of it works, from the first start on."""
    with cluster() as db, pgbouncer(db, "session") as url:
        run("migrate", "up", "--database", url)
        with Server(url) as server:
            client = Canonical(server, "default")
            user = client.call("Create", {"username": "ada", "password": "correct horse"})["user"]
            session = client.call("Login", {"username": "ada", "password": "correct horse"})["session"]
            assert_matches(session["id"], "ses_[0-9a-f]{64}", "the session")
            for _ in range(20):
                client.call("Read", {"id": user["id"]})
                assert_equal(client.call("List", {"search": "ada"})["total"], "1", "total")
            with Load(server) as load:
                until(lambda: load.answers["OK"] > 100, 20, "calls that are served")
            load.check("behind PgBouncer", db, 0)
            assert_equal(load.answers.keys(), {"OK"}, "answers")


def shared_sessions(mode):
    """Refused with a line that says why, by each command."""
    with cluster() as db, pgbouncer(db, mode) as url:
        for command in (["--listen", "127.0.0.1:0"], ["migrate", "up"]):
            _, said = run(*command, "--database", url, code=1)
            assert_true("set `pool_mode = session`" in said, f"the way out is named in:\n{said}")
        assert_equal(db.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), [("0",)], "tables that were made")


def tests():
    yield "failover / PostgreSQL's primary is killed, its standby promoted", failed_over, lambda db: db.kill(), "primary killed"
    yield "failover / PostgreSQL's primary is frozen, its standby promoted", failed_over, lambda db: db.freeze(), "primary frozen"
    yield "failover / PostgreSQL's former primary comes back as a primary", former_primary
    yield "failover / a start while PostgreSQL fails over", started_during_a_failover
    yield "failover / lists from a replica of PostgreSQL", lists_from_a_replica
    yield "failover / PostgreSQL behind PgBouncer", behind_pgbouncer
    for mode in ("transaction", "statement"):
        yield f"failover / PostgreSQL behind PgBouncer that shares sessions by {mode}", shared_sessions, mode

"""A PostgreSQL that answers and does not do what it is asked: read-only, full, locked, out of connections, ending them.

Each test prints its calls, failures by reason, the time to recover, and the acknowledged writes that were lost.
"""

import contextlib
import os
import socket
import subprocess
import time

from cluster import cluster
from faults import Shim
from harness import PSQL, Server, assert_equal, assert_true, until
from outages import Load, health, told, until_ready
from transports import Canonical

OURS = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'usersd'"


def read_only():
    """Reads are served on, writes are refused as what may be tried again, and succeed as soon as they can."""
    with cluster() as db, Server(db.url) as server:
        client = Canonical(server, "default")
        user = client.call("Create", {"username": "ada", "ssoEnabled": True})["user"]
        with Load(server) as load:
            db.set("default_transaction_read_only", "on")
            until(lambda: load.answers["DATABASE_UNAVAILABLE"] > 50, 10, "writes are refused")
            assert_equal(client.call("Read", {"id": user["id"]})["user"]["username"], "ada", "a user that is read meanwhile")
            assert_equal(health(server), 1, "health: reads are served")
            until(lambda: told(server, "calls fail at the database: "), 30, "the log says so")
            db.set("default_transaction_read_only", "off")
            began, served = time.monotonic(), load.answers["OK"]
            until(lambda: load.answers["OK"] > served, 10, "writes that succeed again")
            recovered = time.monotonic() - began
            until(lambda: load.answers["OK"] > served + 50, 10, "more of them")
        load.check("read-only", db, recovered)


def ended():
    """PostgreSQL ends all connections, five times: what was under way fails or was made, and nothing else is noticed."""
    with cluster() as db, Server(db.url) as server:
        with Load(server) as load:
            for _ in range(5):
                served = load.answers["OK"]
                db.query(OURS)
                began = time.monotonic()
                until(lambda: load.answers["OK"] > served + 30, 10, "calls that are served")
            recovered = time.monotonic() - began
        load.check("connections ended 5 times", db, recovered)


class Guest:
    """A client of PostgreSQL that takes a connection and does nothing; `refused` if it got none."""

    def __init__(self, db):
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.settimeout(5)
        self.stream.connect(str(db.folder / ".s.PGSQL.5432"))
        body = (196_608).to_bytes(4, "big") + b"user\0postgres\0database\0postgres\0application_name\0guest\0\0"
        self.stream.sendall((len(body) + 4).to_bytes(4, "big") + body)
        with contextlib.suppress(OSError):
            self.refused = self.stream.recv(1) != b"R"

    def close(self):
        self.stream.close()


def out_of_connections():
    """Others take every connection: calls are refused at once until there are some again."""
    with cluster() as db, Server(db.url) as server, contextlib.ExitStack() as stack:
        keeper = stack.enter_context(contextlib.closing(Keeper(db)))
        with Load(server) as load:
            for _ in range(60):
                keeper.take_all()
                if health(server) != 1:
                    break
                keeper.end_ours()
            until_ready(server, False)
            assert_true(any("too many clients" in line for line in told(server, "database does not answer")), server.log())
            time.sleep(1)
            keeper.close()
            recovered = until_ready(server, True)
            served = load.answers["OK"]
            until(lambda: load.answers["OK"] > served + 50, 10, "calls that are served again")
        load.check("out of connections", db, recovered)


class Keeper:
    """Takes all of PostgreSQL's connections that are free."""

    def __init__(self, db):
        self.db, self.guests = db, []

    def take_all(self):
        while True:
            guest = Guest(self.db)
            if guest.refused:
                guest.close()
                return
            self.guests.append(guest)

    def end_ours(self):
        """Needs a connection for a moment."""
        self.guests.pop().close()
        with contextlib.suppress(Exception):
            self.db.query(OURS)

    def close(self):
        for guest in self.guests:
            guest.close()
        self.guests = []


def full_disk():
    """The disk of the tables is full: writes are refused, reads are served, and writes succeed as soon as there is room."""
    with cluster(start=False) as db:
        shim = Shim(db.folder)
        # PostgreSQL's own user loads and reads them.
        for file in (shim.library, shim.control):
            file.chmod(0o755)
        db.env = {**os.environ, **shim.env}
        db.start()
        with Server(db.url) as server:
            client = Canonical(server, "default")
            user = client.call("Create", {"username": "ada", "ssoEnabled": True})["user"]
            with Load(server) as load:
                with shim.fault(b"g"):
                    until(lambda: load.answers["DATABASE_UNAVAILABLE"] > 20, 20, "writes are refused")
                    assert_equal(client.call("Read", {"id": user["id"]})["user"]["username"], "ada", "a user that is read")
                    assert_equal(health(server), 1, "health: reads are served")
                    until(lambda: told(server, "No space left on device"), 20, "the log tells the cause")
                began, served = time.monotonic(), load.answers["OK"]
                until(lambda: load.answers["OK"] > served, 10, "writes that succeed again")
                recovered = time.monotonic() - began
                until(lambda: load.answers["OK"] > served + 50, 10, "more of them")
            load.check("disk of the tables full", db, recovered)


class Lock:
    """Another program's lock of a table, held until it is released."""

    def __init__(self, db, table):
        self.session = subprocess.Popen([PSQL, "-X", "-q", "-d", db.url], stdin=subprocess.PIPE, text=True)
        self.session.stdin.write(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;\n")
        self.session.stdin.flush()
        held = f"SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass AND mode = 'AccessExclusiveLock' AND granted"
        until(lambda: db.query(held) == [("1",)], 20, "the lock is held")

    def release(self):
        self.session.communicate("COMMIT;\n", timeout=20)


def locked():
    """Another program locks the users: calls end by their deadline, what is cached is read on, and all is well right after."""
    with cluster() as db, Server(db.url) as server:
        client = Canonical(server, "default")
        user = client.call("Create", {"username": "ada", "password": "correct horse"})["user"]["id"]
        token = client.call("Login", {"username": "ada", "password": "correct horse"})["session"]["id"]
        with Load(server, **{"grpc-timeout": "1S"}) as load:
            # From the database at first.
            client.call("ReadSession", {"sessionId": token})
            client.call("Read", {"id": user})
            lock = Lock(db, "users")
            try:
                until(lambda: load.answers["DEADLINE_PASSED"] > 10, 20, "calls that end by their deadline")
                for _ in range(20):
                    assert_equal(client.call("ReadSession", {"sessionId": token})["session"]["username"], "ada", "the session")
                    assert_equal(client.call("Read", {"id": user})["user"]["username"], "ada", "the user")
                assert_equal(health(server), 1, "health: PostgreSQL answers")
            finally:
                lock.release()
            began, served = time.monotonic(), load.answers["OK"]
            until(lambda: load.answers["OK"] > served, 10, "writes that succeed again")
            recovered = time.monotonic() - began
            until(lambda: load.answers["OK"] > served + 50, 10, "more of them")
        load.check("users locked", db, recovered, ("DEADLINE_PASSED", "DATABASE_UNAVAILABLE", "OUTCOME_UNKNOWN"))


def tests():
    yield "faults / PostgreSQL takes no writes under load", read_only
    yield "faults / PostgreSQL ends its connections under load", ended
    yield "faults / PostgreSQL is out of connections under load", out_of_connections
    yield "faults / PostgreSQL's disk is full under load", full_disk
    yield "faults / PostgreSQL's users are locked under load", locked

"""A PostgreSQL that answers and does not do what it is asked: read-only, out of connections, ending them.

Each test prints its calls, failures by reason, the time to recover, and the acknowledged writes that were lost.
"""

import contextlib
import socket
import time

from cluster import cluster
from harness import Server, assert_equal, assert_true, until
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


def tests():
    yield "faults / PostgreSQL takes no writes under load", read_only
    yield "faults / PostgreSQL ends its connections under load", ended
    yield "faults / PostgreSQL is out of connections under load", out_of_connections

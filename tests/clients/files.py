"""An SQLite file that another program locks, or whose mode changes, under load."""

import contextlib
import os
import shutil
import sqlite3
import time

from harness import Server, Sqlite, database, assert_equal, until
from outages import Load, health
from transports import Canonical

HELD = 3


def locked():
    """Another program's transaction holds up writes as long as it lasts; reads are served meanwhile, and writes right after."""
    with database(Sqlite) as db, Server(db.url) as server:
        client = Canonical(server, "default")
        user = client.call("Create", {"username": "ada", "ssoEnabled": True})["user"]["id"]
        with Load(server) as load, contextlib.closing(sqlite3.connect(db.path, timeout=10, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began, users = time.monotonic(), "SELECT count(*) FROM users"
            before = other.execute(users).fetchone()
            while time.monotonic() < began + HELD:
                assert_equal(client.call("Read", {"id": user})["user"]["username"], "ada", "a user that is read meanwhile")
                assert_equal(client.call("List", {"search": "ada"})["total"], "1", "a list meanwhile")
            assert_equal(other.execute(users).fetchone(), before, "users that were written meanwhile")
            other.execute("COMMIT")
            began, served = time.monotonic(), load.answers["OK"]
            until(lambda: load.answers["OK"] > served, 20, "writes that succeed again")
            recovered = time.monotonic() - began
            until(lambda: load.answers["OK"] > served + 50, 20, "more of them")
            assert_equal(health(server), 1, "health")
        # A call that came first waits for its turn until the lock is gone.
        load.check(f"SQLite, locked by another program for {HELD} s", db, recovered, slowest=HELD + 10)


def mode_changed():
    """Taking away the right to write to the file changes nothing for a server that has it open."""
    with database(Sqlite) as db:
        # Root may write to any file.
        user = "nobody" if os.getuid() == 0 else None
        if user:
            shutil.chown(db.folder, user)
        with Server(db.url, user=user) as server:
            with Load(server) as load:
                for path in db.folder.iterdir():
                    path.chmod(0o400)
                began, served = time.monotonic(), load.answers["OK"]
                until(lambda: load.answers["OK"] > served, 20, "writes that succeed")
                recovered = time.monotonic() - began
                until(lambda: load.answers["OK"] > served + 100, 20, "more of them")
                assert_equal(health(server), 1, "health")
                for path in db.folder.iterdir():
                    path.chmod(0o600)
                served = load.answers["OK"]
                until(lambda: load.answers["OK"] > served + 20, 20, "writes that succeed afterwards")
            load.check("SQLite, the file's mode is 0400", db, recovered)
        assert_equal(set(load.answers), {"OK"}, "answers")


def tests():
    yield "faults / another program locks the SQLite file under load", locked
    yield "faults / the SQLite file's mode changes under load", mode_changed

"""Faults of the database under load. Nothing acknowledged is lost, no read contradicts it, and service comes back by itself.

Each prints calls, failures by reason, times to recover, and lost writes. USERSD_TEST_LONG=1 lets each last longer.
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import time

import load
from harness import Postgres, Server, Sqlite, database, assert_equal, assert_true
from proxy import Proxy
from transports import Canonical

LONG = os.environ.get("USERSD_TEST_LONG") == "1"

# Seconds that a fault lasts.
FAULT = 10 if LONG else 1

CALLERS = 32

# --- SQLite -----------------------------------------------------------------------------------------------------

SHIM = pathlib.Path(__file__).with_name("faults.c")


class Shim:
    """Makes system calls of a server on a database's files fail."""

    def __init__(self, folder):
        self.library, self.control = folder / "faults.so", folder / "fault"
        self.control.write_bytes(b"-")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", self.library, SHIM, "-ldl"], check=True, timeout=60)
        self.env = {"LD_PRELOAD": str(self.library), "FAULT_CONTROL": str(self.control)}

    @contextlib.contextmanager
    def fault(self, kind):
        # In place: the server has the page mapped.
        with self.control.open("r+b") as control:
            control.write(kind)
        try:
            yield
        finally:
            with self.control.open("r+b") as control:
                control.write(b"-")


class Mount:
    """A small file system of its own, where the machine lets us have one."""

    def __init__(self, folder):
        self.folder = folder
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "usersd", folder], capture_output=True, timeout=20)
        self.mounted = done.returncode == 0

    @contextlib.contextmanager
    def full(self):
        filler = self.folder / "filler"
        with filler.open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass
        try:
            yield
        finally:
            filler.unlink()

    def close(self):
        if self.mounted:
            subprocess.run(["umount", "-l", self.folder], check=True, timeout=20)


def twice(db, env, fault, what):
    """The fault comes, goes and comes again under load; then the process is killed in the middle of writes."""
    server = Server(db.url, env)
    try:
        with load.Load(server, CALLERS) as callers:
            for _ in range(2):
                with fault():
                    callers.wait_failing()
                    time.sleep(FAULT)
                callers.wait_recovered()
            server.kill()
    finally:
        server.kill()
    with Server(db.url):
        load.audit(callers, db, what)
    assert_true(callers.failures(), f"{what}: no call failed, which shows nothing")
    assert_true("panicked" not in server.log(), server.log())


def failing(kind, what):
    with database(Sqlite) as db:
        shim = Shim(db.folder)
        twice(db, shim.env, lambda: shim.fault(kind), what)


def full_disk():
    """On a real file system if one can be mounted, else by failing system calls."""
    with database(Sqlite) as db:
        mount = Mount(db.folder)
        if not mount.mounted:
            return failing(b"f", "SQLite, disk full")
        with contextlib.closing(mount):
            twice(db, {}, mount.full, "SQLite, disk full (mounted)")


# --- The clock --------------------------------------------------------------------------------------------------


def clock_moved(kind):
    """Two hours ahead, four behind, and right again: sessions stay, and no call fails."""
    what = f"{kind.kind}, clock moved"
    with contextlib.ExitStack() as stack:
        db = stack.enter_context(database(kind))
        shim = Shim(stack.enter_context(database(Sqlite)).folder)
        server = stack.enter_context(Server(db.url, shim.env))
        client = Canonical(server, "default")
        client.call("Create", {"username": "ada", "password": "correct horse"})
        tokens = [client.call("Login", {"username": "ada", "password": "correct horse"})["session"]["id"]]
        with load.Load(server, 8) as callers:
            for kind_of_fault in (b">", b"<"):
                with shim.fault(kind_of_fault):
                    tokens.append(client.call("Login", {"username": "ada", "password": "correct horse"})["session"]["id"])
                    callers.wait_recovered()
                    check_sessions(client, tokens)
                callers.wait_recovered()
                check_sessions(client, tokens)
        load.audit(callers, db, what)
        # Else the clock did not move.
        (span,) = db.query("SELECT (MAX(at) - MIN(at) + 1800000000) / 3600000000 FROM events")
        assert_equal(span, ("6",), "hours between the events, rounded")
    assert_equal(callers.failures(), 0, f"{what}: calls that failed: {callers}")


def check_sessions(client, tokens):
    for token in tokens:
        assert_equal(client.call("ReadSession", {"sessionId": token})["session"]["username"], "ada", "a session")


# --- PostgreSQL -------------------------------------------------------------------------------------------------

# Connections cut of each kind.
CUTS = 60 if LONG else 6


@contextlib.contextmanager
def proxied(connections):
    """A server whose connections to its database go through a proxy."""
    with database(Postgres) as db, contextlib.closing(Proxy(db.url)) as proxy:
        with Server(proxy.url, {"USERSD_POOL_CONNECTIONS": str(connections)}) as server:
            yield db, proxy, server


def cut(moment, when, may_fail):
    """Connections are cut at some moment: the callers hear of it only if they must."""
    what = f"PostgreSQL, cut {when} {moment}"
    with proxied(8) as (db, proxy, server):
        with load.Load(server, CALLERS) as callers:
            proxy.cut(moment, when, CUTS)
            callers.wait_recovered()
        load.audit(callers, db, what)
    failures = set(callers.reasons) - {"OK"}
    assert_true(failures <= may_fail, f"{what}: failures {callers.reasons}, and not only {may_fail}\n{server.log()}")
    return callers


def cut_at_commit_after():
    """The server has committed and nobody has heard it: that is said, and not that nothing happened."""
    callers = cut("commit", "after", {"OUTCOME_UNKNOWN"})
    assert_true(callers.reasons["OUTCOME_UNKNOWN"] > 0, f"nobody was told that the outcome is not known: {callers}")


def silent(connections):
    """Every pooled connection goes silent: none keeps its place."""
    what = f"PostgreSQL, {connections} connections go silent"
    with proxied(connections) as (db, proxy, server):
        with load.Load(server, CALLERS) as callers:
            for _ in range(2 if LONG else 1):
                assert_true(proxy.silence() >= connections, "connections that went silent")
                callers.wait_recovered()
        load.audit(callers, db, what)


def callers_leave():
    """Callers that leave in the middle of a change roll nothing back on a connection that is in no transaction."""
    with proxied(4) as (db, proxy, server):
        made = 0
        for number in range(600 if LONG else 300):
            body = f'{{"username":"left{number}","ssoEnabled":true}}'.encode()
            with contextlib.closing(socket.create_connection((server.host, server.port))) as stream:
                head = f"POST /v1/users HTTP/1.1\r\nhost: {server.address}\r\ncontent-type: application/json\r\n"
                stream.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                # Spread over all that a change does: 0 to 5 ms.
                stream.settimeout(0.000_1 + number % 50 * 0.000_1)
                with contextlib.suppress(TimeoutError):
                    made += bool(stream.recv(1))
        # Whatever was left is over when this is answered by each of the four connections.
        load_after = load.Load(server, 8)
        with load_after:
            load_after.wait_recovered()
        load.audit(load_after, db, "PostgreSQL, callers leave")
        print(f"     callers that left: {number + 1 - made}, that did not: {made}")
        assert_equal(proxy.needless, 0, "times that PostgreSQL said there is no transaction in progress")


def tests():
    yield "faults / SQLite / disk full", full_disk
    yield "faults / SQLite / fsync fails", failing, b"s", "SQLite, fsync fails"
    yield "faults / SQLite / COMMIT fails", failing, b"w", "SQLite, COMMIT fails"
    yield "faults / SQLite / the clock moves", clock_moved, Sqlite
    yield "faults / Postgres / the clock moves", clock_moved, Postgres
    # What was lost before it was used is tried again.
    yield "faults / Postgres / cut at BEGIN", cut, "begin", "before", set()
    yield "faults / Postgres / cut in a read", cut, "read", "before", set()
    yield "faults / Postgres / cut in a read, before its answer", cut, "read", "after", set()
    yield "faults / Postgres / cut in a change", cut, "statement", "before", {"DATABASE_UNAVAILABLE"}
    yield "faults / Postgres / cut at COMMIT", cut, "commit", "before", {"OUTCOME_UNKNOWN"}
    yield "faults / Postgres / cut at COMMIT, before its answer", cut_at_commit_after
    yield "faults / Postgres / silent connections", silent, 4
    yield "faults / Postgres / callers leave", callers_leave

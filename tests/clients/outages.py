"""A database that is not there, falls silent, takes no writes, or cannot be meant: what callers, health and the log are told.

Each test prints its calls, failures by reason, the time to recover, and the acknowledged writes that were lost.
"""

import collections
import contextlib
import http.client
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import threading
import time

import grpc

from cluster import cluster
from harness import BINARY, Server, Sqlite, database, environment, assert_equal, run, assert_true, until

# --- What callers and operators see ---------------------------------------------------------------------------


def health(server, service="users.Users"):
    """1 is SERVING, 2 is NOT_SERVING (grpc.health.v1)."""
    with grpc.insecure_channel(server.address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        reply = check(bytes([10, len(service)]) + service.encode() if service else b"", timeout=10)
    return reply[1] if reply else 0


def until_ready(server, ready, seconds=10):
    """Waits until the services are ready, or not; the server as a whole lives in any case. Returns how long it took."""
    began = time.monotonic()
    until(lambda: health(server) == (1 if ready else 2), seconds, f"users.Users is {'' if ready else 'not '}ready")
    until(lambda: health(server, "users.Keys") == (1 if ready else 2), seconds, "and so is users.Keys")
    assert_equal(health(server, ""), 1, "health of the server as a whole")
    return time.monotonic() - began


class Load:
    """Writes and reads at a steady pace, and notes what came of it."""

    WRITERS, EVERY = 6, 0.05

    def __init__(self, server, **headers):
        self.server, self.stop = server, threading.Event()
        self.headers = {"content-type": "application/json", **headers}
        self.answers, self.acknowledged, self.slowest = collections.Counter(), {}, 0
        self.threads = [threading.Thread(target=self.call_on, args=(n,)) for n in range(self.WRITERS)]

    def call_on(self, writer):
        number = 0
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=30)
        while not self.stop.is_set():
            number += 1
            name = f"w{writer}-{number}"
            body = json.dumps({"username": name, "ssoEnabled": True})
            began = time.monotonic()
            try:
                connection.request("POST", "/v1/users", body, self.headers)
                reply = connection.getresponse()
                text = json.loads(reply.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.answers[type(error).__name__] += 1
                connection.close()
                continue
            self.slowest = max(self.slowest, time.monotonic() - began)
            if reply.status == 200:
                self.acknowledged[text["user"]["id"]] = name
                self.answers["OK"] += 1
            else:
                self.answers[next(detail["reason"] for detail in text["details"] if "reason" in detail)] += 1
            self.stop.wait(self.EVERY)
        connection.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        until(lambda: self.answers["OK"] > 20, 20, "calls that are served")
        return self

    def __exit__(self, *failure):
        self.stop.set()
        for thread in self.threads:
            thread.join(40)

    def check(self, what, db, recovered, allowed=("DATABASE_UNAVAILABLE", "OUTCOME_UNKNOWN"), slowest=5):
        """Wants nothing lost and nothing half done, no failure by another name, and no caller kept waiting."""
        users = dict(db.query("SELECT id, username FROM users"))
        created = {id for (id,) in db.query("SELECT user_id FROM events WHERE action = 'USER_CREATED'")}
        lost = [id for id, name in self.acknowledged.items() if users.get(id) != name]
        failures = {reason: count for reason, count in self.answers.items() if reason != "OK"}
        print(
            f"     {what}: {sum(self.answers.values())} calls, failed: {failures or 0}, slowest {self.slowest:.1f} s, "
            f"ready again after {recovered:.2f} s, lost writes: {len(lost)}"
        )
        assert_equal(lost, [], "acknowledged users that are not there")
        assert_equal(set(users) ^ created, set(), "users without their event, or events without their user")
        assert_equal(set(failures) - set(allowed), set(), f"failures by other reasons: {failures}")
        assert_true(self.slowest < slowest, f"a call took {self.slowest:.1f} s")


def told(server, words):
    return [line for line in server.lines if words in line]


def complaints(server):
    return [line for line in server.lines if " WARN " in line or " ERROR " in line]


# --- The database goes and comes back -------------------------------------------------------------------------


def stopped_and_started():
    with cluster() as db, Server(db.url) as server:
        with Load(server) as load:
            db.stop()
            until_ready(server, False)
            time.sleep(2)
            db.start()
            recovered = until_ready(server, True)
            served = load.answers["OK"]
            until(lambda: load.answers["OK"] > served + 50, 10, "calls that are served again")
        load.check("stopped for 2 s", db, recovered)
        one_line_each(server)


def frozen():
    with cluster() as db, Server(db.url) as server:
        with Load(server) as load:
            db.freeze()
            until_ready(server, False)
            time.sleep(2)
            db.thaw()
            recovered = until_ready(server, True)
            served = load.answers["OK"]
            until(lambda: load.answers["OK"] > served + 50, 10, "calls that are served again")
        load.check("frozen for 2 s", db, recovered)
        one_line_each(server)


def one_line_each(server):
    """An outage of seconds is told when it begins, with its cause, and when it ends, with a count."""
    assert_equal(len(told(server, "database does not answer: ")), 1, f"lines that tell the beginning, in:\n{server.log()}")
    until(lambda: told(server, "database answers again after "), 5, "a line that tells the end")
    (end,) = told(server, "database answers again after ")
    assert_true("calls failed: DATABASE_UNAVAILABLE " in end, f"how many calls failed is told: {end}")
    # A call whose COMMIT was under way has a line of its own, by whose id its outcome can be found out.
    others = [line for line in complaints(server) if "OUTCOME_UNKNOWN" not in line]
    assert_equal(len(others), 1, f"warnings and errors, in:\n{server.log()}")


# --- The start ------------------------------------------------------------------------------------------------


def handles(server, number):
    """Whether the process has said what to do on a signal."""
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1


def started_before_the_database():
    with cluster(start=False) as db:
        _, said = run("--listen", "127.0.0.1:0", "--database", db.url, env={"USERSD_POOL_WAIT": "0s"}, code=1)
        assert_true("database does not answer" in said, f"why it does not wait: {said}")
        server = Server(db.url, wait=False)
        try:
            until(lambda: told(server, "waiting for it"), 10, "a line that it waits")
            began = time.monotonic()
            db.start()
            server.wait_ready()
            print(f"     started before the database: up {time.monotonic() - began:.1f} s after its start began")
            assert_equal((len(told(server, "waiting for it")), len(told(server, "database answers after"))), (1, 1), server.log())
            assert_equal(health(server), 1, "health")
            server.stop()
        finally:
            server.kill()


def stopped_while_waiting():
    """A signal is heard while there is no database, and while it says nothing."""
    with cluster(start=False) as db:
        server = Server(db.url, wait=False)
        try:
            until(lambda: told(server, "waiting for it"), 10, "a line that it waits")
            server.stop()
        finally:
            server.kill()
        db.start()
        db.freeze()
        server = Server(db.url, wait=False)
        try:
            until(lambda: handles(server, signal.SIGTERM), 10, "the process listens to SIGTERM")
            began = time.monotonic()
            server.stop()
            print(f"     frozen database: ended {time.monotonic() - began:.2f} s after SIGTERM")
            assert_true("stopped during startup" in server.log(), server.log())
        finally:
            server.kill()


# --- Files ----------------------------------------------------------------------------------------------------


def unwritable_file():
    """Whoever starts it is told, and not each caller by each write."""
    with database(Sqlite) as db:
        run("migrate", "up", "--database", db.url)
        db.folder.chmod(0o777)
        db.path.chmod(0o444)
        # Root may write to any file.
        other = {"user": "nobody"} if os.getuid() == 0 else {}
        for command in (["--listen", "127.0.0.1:0"], ["key", "create", "--namespace", "a", "--scopes", "users.read", "--name", "x"]):
            done = subprocess.run(
                [BINARY, *command, "--database", db.url.replace("rwc", "rw")], capture_output=True, text=True, timeout=20,
                env=environment(), cwd="/", **other,
            )
            assert_equal(done.returncode, 1, f"exit code: {done.stderr}")
            assert_true("the database file, or its folder, cannot be written" in done.stderr, done.stderr)
            assert_true("can be read by every user" in done.stderr, done.stderr)


def empty_file():
    with database(Sqlite) as db:
        db.path.write_text("")
        _, said = run("--listen", "127.0.0.1:0", "--database", db.url.replace("rwc", "rw"), code=1)
        assert_true("is empty" in said, said)
        with Server(db.url) as server:
            assert_equal(len(told(server, "a new database is made in it")), 1, server.log())


def full_disk():
    """A file that may not grow any more is an error of the write, not the end of the process."""
    with database(Sqlite) as db, Server(db.url) as server:
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        with Load(server) as load:
            size = max(path.stat().st_size for path in db.folder.iterdir())
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, limits[1]))
            until_ready(server, False)
            assert_true(server.process.poll() is None, "the process lives")
            assert_equal(len(told(server, "database takes no writes: ")), 1, server.log())
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
            recovered = until_ready(server, True)
            served = load.answers["OK"]
            until(lambda: load.answers["OK"] > served + 20, 10, "writes that succeed again")
        load.check("full disk", db, recovered)
        until(lambda: told(server, "database takes writes again after "), 5, "a line that tells the end")


def no_descriptors():
    """Callers who are connected are served on, and the line that others cannot be comes once a minute, not twenty times a second."""
    with database(Sqlite) as db, Server(db.url) as server, contextlib.ExitStack() as stack:
        with Load(server) as load:
            health(server)
            used = len(os.listdir(f"/proc/{server.process.pid}/fd"))
            limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used + 4, limits[1]))
            for _ in range(30):
                stack.enter_context(contextlib.closing(socket.create_connection((server.host, server.port), 5)))
            until(lambda: told(server, "cannot accept connections"), 10, "a line that tells of it")
            served = load.answers["OK"]
            until(lambda: load.answers["OK"] > served + 50, 20, "calls that are served on connections from before")
            assert_equal(len(told(server, "cannot accept connections")), 1, server.log())
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
            began = time.monotonic()
            assert_equal(health(server), 1, "health, over a new connection")
            recovered = time.monotonic() - began
        load.check("no descriptors left", db, recovered)


def busy_machine(kind):
    """A process that gets little CPU is late to hear the database, and must not take it for silent."""
    with contextlib.ExitStack() as stack:
        db = stack.enter_context(cluster() if kind == "postgres" else database(Sqlite))
        server = stack.enter_context(Server(db.url))
        load = stack.enter_context(Load(server))
        for _ in range(4 * (os.cpu_count() or 1)):
            hog = subprocess.Popen(["timeout", "4", "sh", "-c", "while :; do :; done"])
            stack.callback(hog.wait)
            stack.callback(hog.terminate)
        until(lambda: health(server) != 1 or hog.poll() is not None, 20, "the machine was busy for a while")
        assert_equal(told(server, "database does not answer"), [], "lines that say it is silent")
        assert_equal(load.answers.keys(), {"OK"}, "answers")


def tests():
    yield "faults / PostgreSQL is stopped and started under load", stopped_and_started
    yield "faults / PostgreSQL is frozen under load", frozen
    yield "faults / started before PostgreSQL", started_before_the_database
    yield "faults / stopped while it waits for PostgreSQL", stopped_while_waiting
    yield "faults / a busy machine is no silent PostgreSQL", busy_machine, "postgres"
    yield "faults / a busy machine is no silent database", busy_machine, "sqlite"
    yield "faults / a file that cannot be written is refused", unwritable_file
    yield "faults / an empty file is not taken for a database", empty_file
    yield "faults / a disk that is full for a moment", full_disk
    yield "faults / no descriptors are left", no_descriptors

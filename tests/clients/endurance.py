"""What survives: `kill -9` during writes, several processes that start on one empty database, and the end by a signal."""

import contextlib
import http.client
import json
import signal
import socket
import stat
import subprocess
import threading
import time

import grpc

from harness import Postgres, Server, Sqlite, Wrong, database, assert_equal, assert_matches, refuses, run, assert_true, until
from transports import Canonical, PythonClient, Refused

# --- kill -9 --------------------------------------------------------------------------------------------------

WRITERS, ACKNOWLEDGED, ROUNDS = 8, 400, 3


def write(server, prefix, known, stop):
    """Creates users as fast as it can, and notes those that were acknowledged."""
    number = 0
    with contextlib.suppress(OSError, http.client.HTTPException):
        with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=20)) as connection:
            while not stop.is_set():
                number += 1
                body = json.dumps({"username": f"{prefix}-{number}", "ssoEnabled": True})
                connection.request("POST", "/v1/users", body, {"content-type": "application/json"})
                reply = connection.getresponse()
                text = reply.read()
                if reply.status != 200:
                    known.append((f"{prefix}-{number}", f"status {reply.status}: {text!r}"))
                    return
                known.append((f"{prefix}-{number}", json.loads(text)["user"]["id"]))


def killed_while_writing(db):
    acknowledged, slowest = {}, 0
    for turn in range(ROUNDS):
        server, known, stop = Server(db.url), [], threading.Event()
        threads = [
            threading.Thread(target=write, args=(server, f"r{turn}-w{writer}", known, stop)) for writer in range(WRITERS)
        ]
        try:
            for thread in threads:
                thread.start()
            until(lambda: len(known) >= ACKNOWLEDGED, 60, f"{ACKNOWLEDGED} acknowledged users")
            server.signal(signal.SIGKILL)
        finally:
            stop.set()
            server.kill()
            for thread in threads:
                thread.join(30)
        acknowledged.update((id, name) for name, id in known)
        began = time.monotonic()
        with Server(db.url) as server:
            slowest = max(slowest, time.monotonic() - began)
            check_whole(db, acknowledged)
            name, id = known[-1]
            reply = Canonical(server, "default").call("Read", {"id": id})
            assert_equal(reply["user"]["username"], name, "the last acknowledged user, read by its id")
    print(f"     {db.kind}, kill -9 {ROUNDS} times: {len(acknowledged)} acknowledged, lost writes: 0, up again after {slowest:.2f} s")


def check_whole(db, acknowledged):
    users = dict(db.query("SELECT id, username FROM users"))
    lost = {id: name for id, name in acknowledged.items() if users.get(id) != name}
    assert_equal(lost, {}, f"acknowledged users that are not there, of {len(acknowledged)}")
    created = [id for (id,) in db.query("SELECT user_id FROM events WHERE action = 'USER_CREATED'")]
    assert_equal(len(created), len(set(created)), "events that say a user was created, once each")
    assert_equal(set(users) - set(created), set(), "users without an event")
    assert_equal(set(created) - set(users), set(), "events without a user")


# --- Several processes on one empty database ------------------------------------------------------------------


def started_together(kind, processes):
    with database(kind) as db, contextlib.ExitStack() as stack:
        servers = [Server(db.url, wait=False) for _ in range(processes)]
        for server in servers:
            stack.callback(server.kill)
        for server in servers:
            server.wait_ready()
        everyone = [Canonical(server, "default") for server in servers]
        for number, here in enumerate(everyone):
            user = here.call("Create", {"username": f"user{number}", "password": "correct horse"})["user"]
            for there in everyone:
                assert_equal(there.call("Read", {"id": user["id"]})["user"], user, f"user {number}, read from another process")
        login = {"username": "user0", "password": "correct horse"}
        token = everyone[0].call("Login", login)["session"]["id"]
        assert_equal(everyone[-1].call("ReadSession", {"sessionId": token})["session"]["username"], "user0", "the session there")
        everyone[-1].call("Logout", {"sessionId": token})
        with contextlib.suppress(Refused):
            raise Wrong(f"a session that was ended elsewhere: {everyone[0].call('ReadSession', {'sessionId': token})}")
        for server in servers:
            server.stop()


# --- The end by a signal --------------------------------------------------------------------------------------


def login(server, result):
    """A log-in over gRPC, and when it was answered."""
    client = PythonClient(server, "default")
    try:
        grpc.channel_ready_future(client.channel).result(10)
        result["ready"] = True
        result["reply"] = client.call("Login", {"username": "ada", "password": "correct horse"})
    except Exception as error:
        result["error"] = error
    finally:
        result["at"] = time.monotonic()
        client.close()


def drained(signal_number):
    """A log-in in flight when the signal comes is answered; nobody new is let in."""
    with database(Sqlite) as db:
        server = Server(db.url, {"USERSD_PASSWORDS_COST": "14", "USERSD_GRACE": "20s"})
        try:
            client = Canonical(server, "default")
            began = time.monotonic()
            client.call("Create", {"username": "ada", "password": "correct horse"})
            hashing = time.monotonic() - began
            result = {}
            thread = threading.Thread(target=login, args=(server, result))
            thread.start()
            until(lambda: "ready" in result, 10, "a connection")
            time.sleep(hashing / 3)
            assert_true("at" not in result, "the log-in is in flight when the signal comes")
            server.signal(signal_number)
            until(lambda: refuses(server.port), hashing, "new connections are refused")
            refused_at = time.monotonic()
            thread.join(30)
            assert_equal(result.get("error"), None, "how the log-in in flight failed")
            assert_matches(result["reply"]["session"]["id"], "ses_[0-9a-f]{64}", "the session of the log-in in flight")
            assert_true(result["at"] > refused_at, "new connections are refused before the calls in flight have ended")
            assert_equal(server.wait(10), 0, "exit code")
            assert_true(time.monotonic() - result["at"] < 3, "the process ends when the last call does")
        finally:
            server.kill()
        with Server(db.url) as server:
            id = result["reply"]["session"]["id"]
            reply = Canonical(server, "default").call("ReadSession", {"sessionId": id})
            assert_equal(reply["session"]["username"], "ada", "the session after the restart")


HEALTH_WATCH, SERVING, NOT_SERVING = "/grpc.health.v1.Health/Watch", b"\x08\x01", b"\x08\x02"


def health_is_told():
    """Who watches the health learns of the end, and does not keep the process from ending within the grace period."""
    with database(Sqlite) as db:
        server = Server(db.url, {"USERSD_GRACE": "4s"})
        try:
            with grpc.insecure_channel(server.address) as channel:
                watch = channel.unary_stream(HEALTH_WATCH, lambda raw: raw, lambda raw: raw)(b"", timeout=20)
                assert_equal(next(watch), SERVING, "health of a running server")
                server.signal(signal.SIGTERM)
                assert_equal(next(watch), NOT_SERVING, "health after SIGTERM")
                assert_equal(server.wait(6), 0, "exit code")
        finally:
            server.kill()


class IdleH2:
    """An open HTTP/2 connection that answers settings and pings, and asks nothing. By hand, since the package h2 answers
    no ping once it was told GOAWAY."""

    SETTINGS, PING, ACK = 4, 6, 1

    def __init__(self, server):
        self.stream = socket.create_connection((server.host, server.port))
        self.stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(self.SETTINGS, 0, b""))
        self.settled = threading.Event()
        threading.Thread(target=self.read, daemon=True).start()
        assert_true(self.settled.wait(10), "the server sends its settings")

    @staticmethod
    def frame(kind, flags, payload):
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + bytes(4) + payload

    def read(self):
        with contextlib.suppress(OSError), self.stream.makefile("rb") as frames:
            while len(head := frames.read(9)) == 9:
                payload = frames.read(int.from_bytes(head[:3], "big"))
                if head[3] in (self.SETTINGS, self.PING) and not head[4] & self.ACK:
                    answer = payload if head[3] == self.PING else b""
                    self.stream.sendall(self.frame(head[3], self.ACK, answer))
                    self.settled.set()

    def close(self):
        self.stream.close()


def idle_connections_do_not_hold(protocol):
    """Connections without a call are closed at once."""
    with database(Sqlite) as db:
        server = Server(db.url)
        try:
            with contextlib.ExitStack() as stack:
                if protocol == "HTTP/1.1":
                    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
                    stack.callback(connection.close)
                    connection.request("GET", "/v1/users:search")
                    assert_equal(connection.getresponse().read(), b'{"users":[]}', "a call before the signal")
                elif protocol == "HTTP/2":
                    # Not grpcio: without a call it reads its socket only every five seconds.
                    client = IdleH2(server)
                    stack.callback(client.close)
                else:
                    stack.enter_context(contextlib.closing(socket.create_connection((server.host, server.port))))
                    time.sleep(0.1)
                server.signal(signal.SIGTERM)
                began = time.monotonic()
                assert_equal(server.wait(35), 0, "exit code")
                took = time.monotonic() - began
                assert_true(took < 2, f"the process ends at once; it took {took:.1f} s")
        finally:
            server.kill()


@contextlib.contextmanager
def half_a_request(server):
    """A call that cannot end: its body is announced and does not come."""
    with contextlib.closing(socket.create_connection((server.host, server.port))) as stream:
        head = f"POST /v1/users HTTP/1.1\r\nhost: {server.address}\r\ncontent-type: application/json\r\n"
        stream.sendall(head.encode() + b"content-length: 100\r\n\r\n{")
        time.sleep(0.3)
        yield stream


def second_signal_ends():
    with database(Sqlite) as db:
        server = Server(db.url)
        try:
            with half_a_request(server):
                server.signal(signal.SIGTERM)
                time.sleep(0.5)
                assert_equal(server.process.poll(), None, "exit code while a call is in flight")
                server.signal(signal.SIGTERM)
                assert_equal(server.wait(2), 1, "exit code after the second signal")
        finally:
            server.kill()


def grace_ends():
    """A call that does not end is cut off when the grace period is over."""
    with database(Sqlite) as db:
        server = Server(db.url, {"USERSD_GRACE": "1s"})
        try:
            with half_a_request(server):
                server.signal(signal.SIGTERM)
                began = time.monotonic()
                server.wait(5)
                took = time.monotonic() - began
                assert_true(0.8 < took < 3, f"the process ends after the grace period of 1 s; it took {took:.1f} s")
        finally:
            server.kill()


# --- The command line -----------------------------------------------------------------------------------------


def wrong_use():
    for arguments in (["--bogus"], ["serves"], ["migrate"], ["--listen"], ["--listen", "a", "--listen", "b"]):
        out, said = run(*arguments, code=64)
        assert_equal(out, "", f"stdout of usersd {' '.join(arguments)}")
        assert_true(said.strip(), "wrong use is explained")


def faults_all_at_once():
    with database(Sqlite) as db:
        file = db.folder / "usersd.toml"
        file.write_text("lisen = 'x'\nauth = 'maybe'\n[passwords]\ncost = 9\nmax_wait = 3\n[http]\nmax_body = 'a lot'\n")
        env = {"USERSD_SESSIONS_LIFETIME": "soon", "USERSD_NONSENSE": "1"}
        del_env = {"USERSD_PASSWORDS_COST": "99", "USERSD_PASSWORDS_MAX_WAIT": "1s"}
        arguments = ["--config", str(file), "--listen", "nowhere", "--database", "mysql://x"]
        out, said = run(*arguments, env={**env, **del_env}, code=64)
        assert_equal(out, "", "stdout")
        for place in ("lisen", "auth", "passwords.cost", "USERSD_PASSWORDS_COST", "passwords.max_wait", "http.max_body",
                      "USERSD_SESSIONS_LIFETIME", "USERSD_NONSENSE", "--listen", "--database"):
            assert_true(place in said, f"{place} is named in:\n{said}")
        assert_equal(db.path.exists(), False, "whether a database was made")
        _, said = run("--config", str(db.folder / "none.toml"), code=64)
        assert_true("none.toml" in said, f"the missing file is named in:\n{said}")


def doors_stay_shut():
    """Without keys only a loopback address is served."""
    with database(Sqlite) as db:
        for address in ("0.0.0.0:0", "[::]:0"):
            _, said = run("--listen", address, "--database", db.url, code=64)
            for way_out in ("usersd key create", "127.0.0.1:8080", 'auth = "off"'):
                assert_true(way_out in said, f"{way_out} is named in:\n{said}")


def cannot_start():
    with database(Sqlite) as db, Server(db.url) as server:
        _, said = run("--listen", server.address, "--database", db.url, code=1)
        assert_true(server.address in said, f"the address in use is named in:\n{said}")
        nowhere = "postgres://someone:sesame@127.0.0.1:1/none"
        _, said = run("--listen", "127.0.0.1:0", "--database", nowhere, code=1)
        assert_true(said.strip() and "sesame" not in said, f"no password in:\n{said}")
        missing = f"sqlite://{db.folder}/none/users.db?mode=rwc"
        _, said = run("--listen", "127.0.0.1:0", "--database", missing, code=1)
        assert_true("none/users.db" in said, f"the file is named in:\n{said}")


def countries_that_cannot_be_read():
    with database(Sqlite) as db:
        for name in ("none.mmdb", db.path.name):
            db.path.write_text("not a database")
            file = {"USERSD_GEOIP_DATABASE": str(db.folder / name)}
            new = f"sqlite://{db.folder}/new.db?mode=rwc"
            _, said = run("--listen", "127.0.0.1:0", "--database", new, env=file, code=64)
            assert_true("geoip.database" in said and name in said, f"the setting and the file are named in:\n{said}")


def migrations(kind):
    with database(kind) as db:
        listed, _ = run("migrate", "status", "--database", db.url)
        lines = [line.split("\t") for line in listed.splitlines()]
        assert_equal({state for state, _ in lines}, {"pending"}, "states in an empty database")
        _, said = run("--listen", "127.0.0.1:0", "--database", db.url, env={"USERSD_MIGRATE": "false"}, code=1)
        assert_true("migrate up" in said, f"the way out is named in:\n{said}")
        run("migrate", "up", "--database", db.url)
        run("migrate", "up", "--database", db.url)
        listed, _ = run("migrate", "status", "--database", db.url)
        assert_equal(listed.splitlines(), [f"applied\t{name}" for _, name in lines], "states afterwards")
        with Server(db.url, {"USERSD_MIGRATE": "false"}):
            pass


def words_for_programs():
    out, said = run("--version")
    assert_matches(out.strip(), r"usersd \d+\.\d+\.\d+ \((unknown|[0-9a-f]{7,40})\)", "the version")
    assert_equal(said, "", "stderr of --version")
    version = out.split()[1]
    out, _ = run("--help")
    assert_true("--database" in out, "--help goes to stdout")
    out, said = run("check-config", "--database", "postgres://u:sesame@h/db")
    assert_true("[passwords]" in out and "cost = 10" in out and "sesame" not in out + said, f"settings in:\n{out}")
    with database(Sqlite) as db, Server(db.url) as server:
        assert_equal((server.version, server.database), (version, "sqlite"), "version and database in the start line")
        for file in db.folder.iterdir():
            assert_equal(stat.S_IMODE(file.stat().st_mode), 0o600, f"mode of {file.name}")
    with database(Postgres) as db, Server(db.url) as server:
        assert_equal(server.database, "postgres", "database in the start line")


def tests():
    """Name, function, arguments."""
    for kind in (Sqlite, Postgres):
        yield f"kill -9 / {kind.kind}: all that was acknowledged is there, {ROUNDS} rounds", kill, kind
    for turn in range(5):
        yield f"replicas / two on one empty PostgreSQL, round {turn + 1}", started_together, Postgres, 2
    for turn in range(5):
        yield f"replicas / three on one empty SQLite file, round {turn + 1}", started_together, Sqlite, 3
    for number in (signal.SIGTERM, signal.SIGINT):
        yield f"stop / {number.name} drains", drained, number
    yield "stop / health goes NOT_SERVING", health_is_told
    for protocol in ("HTTP/1.1", "HTTP/2", "silent"):
        yield f"stop / an idle connection does not hold it ({protocol})", idle_connections_do_not_hold, protocol
    yield "stop / a second SIGTERM ends at once, exit 1", second_signal_ends
    yield "stop / the grace period ends", grace_ends
    yield "command line / wrong use is 64", wrong_use
    yield "command line / all faults are named at once", faults_all_at_once
    yield "command line / without keys only loopback", doors_stay_shut
    yield "command line / what cannot start is 1", cannot_start
    yield "command line / a country database that is none is 64", countries_that_cannot_be_read
    for kind in (Sqlite, Postgres):
        yield f"command line / migrate / {kind.kind}", migrations, kind
    yield "command line / stdout, start line, file modes", words_for_programs


def kill(kind):
    with database(kind) as db:
        killed_while_writing(db)

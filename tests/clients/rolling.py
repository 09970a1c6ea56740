"""Three replicas behind HAProxy are restarted one by one, and killed, under load: clients that retry as gRPC says see no failure."""

import collections
import contextlib
import http.client
import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import grpc

import service_config
import transports
from harness import Postgres, Server, Wrong, database, assert_equal, assert_true, free_ports, run, until

CLIENTS, EVERY = 6, 0.02


@contextlib.contextmanager
def haproxy(folder, ports, mode, checks):
    """The address of an HAProxy that passes TCP connections on, or HTTP/2 streams."""
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise Wrong("haproxy is not there: `tests/run clients` installs it")
    (port,) = free_ports(1)
    proto = " proto h2" if mode == "http" else ""
    servers = "\n".join(f"    server s{n} 127.0.0.1:{number} check {checks}{proto}" for n, number in enumerate(ports))
    file = folder / "haproxy.cfg"
    file.write_text(f"""
defaults
    mode {mode}
    timeout connect 1s
    timeout client 30s
    timeout server 30s
listen usersd
    bind 127.0.0.1:{port}{proto}
    balance roundrobin
{servers}
""")
    done = subprocess.run([program, "-c", "-q", "-f", file], capture_output=True, text=True, timeout=20)
    assert_equal(done.returncode, 0, f"exit code of haproxy -c: {done.stderr}")
    process = subprocess.Popen([program, "-db", "-f", file], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


class Clients:
    """Create and read users over gRPC, and know what was acknowledged."""

    def __init__(self, target):
        self.target, self.stop = target, threading.Event()
        self.answers, self.acknowledged, self.slowest = collections.Counter(), {}, 0
        # Of the last failure by each code.
        self.words = {}
        # Attempts beyond the first; gRPC does not tell.
        self.repeats = None
        self.pb, self.stubs = transports.generate()
        self.threads = [threading.Thread(target=self.call_on, args=(n,)) for n in range(CLIENTS)]

    def call_on(self, client):
        options = [
            ("grpc.service_config", service_config.TEXT), ("grpc.use_local_subchannel_pool", 1),
            # Several addresses, with the commas between them, are no authority.
            ("grpc.default_authority", "localhost"), ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500),
        ]
        number = 0
        with grpc.insecure_channel(self.target, options) as channel:
            users = self.stubs.UsersStub(channel)
            while not self.stop.wait(EVERY):
                number += 1
                id, name = f"c{client}-{number}", f"user{client}-{number}"
                # An attempt whose answer was lost may have made it: the next one is answered as that one would have been.
                new = self.pb.CreateRequest(id=id, username=name, sso_enabled=True, idempotency_key=id)
                if self.count(users.Create, new) == "OK":
                    self.acknowledged[id] = name
                    self.count(users.Read, self.pb.ReadRequest(id=id))

    def count(self, method, request):
        began = time.monotonic()
        try:
            method(request, timeout=10)
            answer = "OK"
        except grpc.RpcError as error:
            answer = error.code().name
            self.words[answer] = error.details()
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.answers[answer] += 1
        return answer

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        until(lambda: self.answers["OK"] > 30, 20, f"calls that are served, in place of {self.words}")
        return self

    def __exit__(self, *failure):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)

    def check(self, what, users):
        """Wants no failure, and everything that was acknowledged."""
        lost = [id for id, name in self.acknowledged.items() if users.get(id) != name]
        failed = {answer: count for answer, count in self.answers.items() if answer != "OK"}
        print(
            f"     {what}: {self.answers.total()} calls, {'' if self.repeats is None else f'{self.repeats} repeats, '}failed: {failed or 0}, "
            f"slowest {self.slowest:.2f} s, lost writes: {len(lost)}"
        )
        assert_equal(lost, [], "acknowledged users that are not there")
        assert_equal(failed, {}, f"failures: {self.words}")


class KeepAlive(Clients):
    """The same over HTTP/1.1, each on one connection that it keeps. A server that ends may close one while a request is on its way: a
    client repeats that, as often and with the pauses of the service config, with its idempotency key."""

    PAUSES = (0.2, 0.4, 0.8, 1.6)

    def __init__(self, target):
        super().__init__(target)
        self.repeats = 0

    def call_on(self, client):
        number = 0
        with contextlib.closing(http.client.HTTPConnection(self.target, timeout=10)) as connection:
            while not self.stop.wait(EVERY):
                number += 1
                id, name = f"k{client}-{number}", f"kept{client}-{number}"
                new = {"id": id, "username": name, "ssoEnabled": True, "idempotencyKey": id}
                if self.count(connection, "POST", "/v1/users", json.dumps(new)) == "OK":
                    self.acknowledged[id] = name
                    self.count(connection, "GET", f"/v1/users/{id}")

    def count(self, connection, *request):
        began = time.monotonic()
        answer = self.attempt(connection, *request)
        for pause in self.PAUSES:
            if answer not in ("cut off", "503"):
                break
            self.repeats += 1
            time.sleep(pause)
            answer = self.attempt(connection, *request)
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.answers[answer] += 1
        return answer

    def attempt(self, connection, verb, path, body=None):
        try:
            connection.request(verb, path, body, {"content-type": "application/json"})
            reply = connection.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.words["cut off"] = repr(error)
            return "cut off"
        if reply.status != 200:
            self.words[str(reply.status)] = text
        return "OK" if reply.status == 200 else str(reply.status)


# How the replicas are found: HAProxy by TCP or HTTP/2 that looks every 100 ms whether they are there; one that learns of it as
# late as the DNS of a headless service; and no proxy, but the addresses of all, as clients get them from such a service.
WAYS = {
    "TCP": ("tcp", "inter 100ms"),
    "HTTP/2": ("http", "inter 100ms"),
    "TCP, slow": ("tcp", "inter 5s"),
    "headless": None,
}


def restarted(way, number):
    """All replicas end one after the other by a signal, and are there again before the next one goes."""
    # Until clients have heard of it, a replica that is to end serves on.
    drains = "[drain]" in run("check-config")[0]
    env = {"USERSD_DRAIN_DELAY": "500ms"} if drains else {}
    ports = free_ports(3)
    with database(Postgres) as db, contextlib.ExitStack() as stack:
        replicas = []
        stack.callback(lambda: [replica.kill() for replica in replicas])
        for port in ports:
            replicas.append(Server(db.url, env, listen=f"127.0.0.1:{port}"))
        target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        if WAYS[way]:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="usersd.")))
            target = stack.enter_context(haproxy(folder, ports, *WAYS[way]))
        kinds = {"gRPC": Clients(target)}
        if way == "TCP":
            kinds["HTTP/1.1"] = KeepAlive(target)
        with contextlib.ExitStack() as calling:
            for clients in kinds.values():
                calling.enter_context(clients)
            for n, port in enumerate(ports):
                replicas[n].signal(number)
                code = replicas[n].wait(20)
                assert_true(number == signal.SIGKILL or code == 0, f"exit code {code}:\n{replicas[n].log()}")
                replicas[n] = Server(db.url, env, listen=f"127.0.0.1:{port}")
                for clients in kinds.values():
                    served = clients.answers["OK"]
                    until(lambda: clients.answers["OK"] > served + 50, 20, f"calls that are served on, in place of {clients.words}")
        users = dict(db.query("SELECT id, username FROM users"))
        for name, clients in kinds.items():
            clients.check(f"{way}, {name}, {number.name} of each of 3 replicas", users)


def tests():
    for way in WAYS:
        yield f"rolling / Postgres: three replicas are restarted ({way})", restarted, way, signal.SIGTERM
    yield "rolling / Postgres: three replicas are killed (TCP)", restarted, "TCP", signal.SIGKILL

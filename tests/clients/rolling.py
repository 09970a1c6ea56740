"""Three replicas behind HAProxy are restarted one by one, and killed, under load: clients that retry as gRPC says see no failure."""

import collections
import contextlib
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
        with Clients(target) as clients:
            for n, port in enumerate(ports):
                replicas[n].signal(number)
                code = replicas[n].wait(20)
                assert_true(number == signal.SIGKILL or code == 0, f"exit code {code}:\n{replicas[n].log()}")
                replicas[n] = Server(db.url, env, listen=f"127.0.0.1:{port}")
                served = clients.answers["OK"]
                until(lambda: clients.answers["OK"] > served + 50, 20, "calls that are served on")
        users = dict(db.query("SELECT id, username FROM users"))
        lost = [id for id, name in clients.acknowledged.items() if users.get(id) != name]
        failed = {answer: count for answer, count in clients.answers.items() if answer != "OK"}
        print(
            f"     {way}, {number.name} of each of 3 replicas: {clients.answers.total()} calls, failed: {failed or 0}, "
            f"slowest {clients.slowest:.2f} s, lost writes: {len(lost)}"
        )
        assert_equal(lost, [], "acknowledged users that are not there")
        assert_equal(failed, {}, f"failures: {clients.words}")


def tests():
    for way in WAYS:
        yield f"rolling / Postgres: three replicas are restarted ({way})", restarted, way, signal.SIGTERM
    yield "rolling / Postgres: three replicas are killed (TCP)", restarted, "TCP", signal.SIGKILL

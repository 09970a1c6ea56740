"""Clients with deploy/grpc-service-config.json check a session by three replicas, of which one is killed: no check fails."""

import contextlib
import re
import signal
import subprocess
import threading

import transports
import walks
from harness import EVERY_SCOPE, ROOT, Postgres, Server, database, assert_equal, assert_true, new_key, until

CONFIG = ROOT / "deploy/grpc-service-config.json"

CLIENTS = {
    "Go": lambda: [walks.TOOLS / "go/client"],
    "Java": walks.java,
}


class Reads:
    """A client that checks a session until it is told to stop."""

    def __init__(self, command):
        self.lines = []
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, **pipes)
        self.reader = threading.Thread(target=lambda: self.lines.extend(map(str.strip, self.process.stdout)))
        self.reader.start()

    def goes_on(self, what):
        """Waits for some hundred more answers."""
        before = len(self.lines)
        until(lambda: len(self.lines) >= before + 5 or self.process.poll() is not None, 60, what)
        assert_equal(self.process.poll(), None, f"exit code {what}: {self.lines[-3:]}")

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.reader.join(10)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.process.kill()
        self.process.wait(10)
        self.reader.join(10)


def killed(command):
    with database(Postgres) as db, contextlib.ExitStack() as stack:
        key, replicas = new_key(db, "reads", EVERY_SCOPE), []
        stack.callback(lambda: [replica.kill() for replica in replicas])
        replicas += [Server(db.url, key=key, wait=number == 0) for number in range(3)]
        for replica in replicas[1:]:
            replica.wait_ready()
        client = transports.PythonClient(replicas[0], "reads")
        client.call("Create", {"username": "ada", "password": "correct horse"})
        token = client.call("Login", {"username": "ada", "password": "correct horse"})["session"]["id"]
        client.close()
        addresses = [replica.address for replica in replicas]
        with Reads([*command(), "reads", CONFIG, key, token, *addresses]) as reads:
            reads.goes_on("before a replica is killed")
            replicas[0].signal(signal.SIGKILL)
            replicas[0].wait(20)
            reads.goes_on("after a replica was killed")
            reads.stop()
        failed = [line for line in reads.lines if line not in ("answered", "done")]
        assert_equal(failed, [], "checks that failed")
        assert_equal(reads.lines[-1], "done", "the last line")
        for replica in replicas[1:]:
            replica.stop()
            served = re.search(r"requests since the start calls=(\d+)", replica.log())
            assert_true(int(served[1]) > 20, f"a replica that stayed served some: {served[0]}")


def tests():
    for name, command in CLIENTS.items():
        yield f"service config / Postgres: one of three replicas is killed, {name}", killed, command

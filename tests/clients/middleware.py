"""deploy/examples: services that have sessions checked by usersd let in who is signed in, and nobody else."""

import concurrent.futures
import contextlib
import http.client
import os
import pathlib
import select
import signal
import subprocess
import sys

import grpc
import grpc_tools.protoc

import transports
from harness import BINARY, EVERY_SCOPE, PROTO, ROOT, Server, Sqlite, Wrong, database, assert_equal, new_key, until
from walks import TOOLS

EXAMPLES = ROOT / "deploy/examples"
REFUSED, UNAVAILABLE = "refused", "unavailable"


def generate():
    """Compiles the services' own proto for Python, which calls them and has one of them."""
    arguments = [f"-I{EXAMPLES}", f"--python_out={transports.GENERATED}", f"--grpc_python_out={transports.GENERATED}"]
    assert_equal(grpc_tools.protoc.main(["protoc", *arguments, "whoami.proto"]), 0, "exit code of protoc")


class Http:
    """A service that speaks HTTP."""

    def __init__(self, address):
        self.address = address

    def who(self, **headers):
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=30)) as connection:
            connection.request("GET", "/whoami", headers=headers)
            reply = connection.getresponse()
            text = reply.read().decode()
        return {200: text, 401: REFUSED, 503: UNAVAILABLE}.get(reply.status, reply.status)

    def close(self):
        pass


class Grpc:
    """A service that speaks gRPC."""

    def __init__(self, address):
        import whoami_pb2
        import whoami_pb2_grpc

        self.request = whoami_pb2.GetRequest()
        self.channel = grpc.insecure_channel(address)
        self.stub = whoami_pb2_grpc.WhoAmIStub(self.channel)

    def who(self, **headers):
        try:
            reply = self.stub.Get(self.request, metadata=list(headers.items()), timeout=30)
            return f"{reply.id} {reply.username}"
        except grpc.RpcError as error:
            kinds = {grpc.StatusCode.UNAUTHENTICATED: REFUSED, grpc.StatusCode.UNAVAILABLE: UNAVAILABLE}
            return kinds.get(error.code(), error.code())

    def close(self):
        self.channel.close()


SERVICES = {
    "tower": (Http, [BINARY.parent / "usersd-session-layer"]),
    "Express": (Http, ["node", TOOLS / "js/main.mjs", PROTO]),
    "Go": (Grpc, [TOOLS / "go-example/service"]),
    "Python": (Grpc, [sys.executable, EXAMPLES / "python/main.py"]),
}


@contextlib.contextmanager
def service(command, server):
    """The address that a service of the examples says it serves on."""
    env = {**os.environ, "PYTHONPATH": str(transports.GENERATED), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [*command, server.address, server.key], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
    try:
        ready, _, _ = select.select([process.stdout], [], [], 60)
        address = process.stdout.readline().strip() if ready else ""
        if not address:
            raise Wrong(f"{command[0]} does not serve")
        yield address
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def connections(port):
    """How many connections lead to a port of this machine."""
    tables = (pathlib.Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
    rows = (line.split() for table in tables for line in table)
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def freeze(server):
    """Stops it, and waits until each thread has stopped."""
    server.signal(signal.SIGSTOP)
    threads = pathlib.Path(f"/proc/{server.process.pid}/task")
    states = lambda: {file.read_text().rpartition(")")[2].split()[0] for file in threads.glob("*/stat")}
    until(lambda: states() == {"T"}, 20, "all threads stop")


def checks(make, command):
    generate()
    with database(Sqlite) as db, contextlib.ExitStack() as stack:
        key = new_key(db, "shop", EVERY_SCOPE)
        server = Server(db.url, key=key)
        stack.callback(lambda: server.kill())
        client = transports.PythonClient(server, "shop")
        ada = client.call("Create", {"username": "ada", "password": "correct horse"})["user"]
        token = client.call("Login", {"username": "ada", "password": "correct horse"})["session"]["id"]
        shop = stack.enter_context(contextlib.closing(make(stack.enter_context(service(command, server)))))
        signed_in = f"{ada['id']} ada"
        who = shop.who

        bearer = {"authorization": f"Bearer {token}"}
        assert_equal(who(**bearer), signed_in, "with a bearer token")
        assert_equal(who(cookie=f"theme=dark; session={token}"), signed_in, "with a cookie")
        for value in ("Bearer ses_no", "Bearer ", "Basic x"):
            assert_equal(who(authorization=value), REFUSED, f"with {value}")
        for value in ("session=", "session=ses_no", "other=1"):
            assert_equal(who(cookie=value), REFUSED, f"with the cookie {value}")
        assert_equal(who(), REFUSED, "without a token")
        client.close()
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            answers = set(threads.map(lambda _: who(**bearer), range(40)))
        assert_equal(answers, {signed_in}, "many at a time")
        until(lambda: connections(server.port) == 1, 10, "all calls share one connection to usersd")

        freeze(server)
        assert_equal(who(**bearer), UNAVAILABLE, "while usersd does not answer")
        server.signal(signal.SIGCONT)
        until(lambda: who(**bearer) == signed_in, 60, "usersd answers again")
        server.kill()
        assert_equal(who(**bearer), UNAVAILABLE, "without usersd")
        server = Server(db.url, key=key, listen=server.address)
        until(lambda: who(**bearer) == signed_in, 60, "usersd is there again")
        transports.PythonClient(server, "shop").call("Logout", {"sessionId": token})
        assert_equal(who(**bearer), REFUSED, "after the user signed out")


def tests():
    for name, (make, command) in SERVICES.items():
        yield f"middleware / {name}", checks, make, command

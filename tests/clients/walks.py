"""Clients of every language take one walk: sign up, sign in, check the session, list with pages, sign out, read a refusal."""

import base64
import glob
import json
import os
import subprocess
import sys

from google.protobuf import json_format
from google.rpc import error_details_pb2

import transports
from harness import BINARY, EVERY_SCOPE, PROTO, ROOT, Postgres, Server, Sqlite, Wrong, database, assert_equal, new_key

TOOLS = ROOT / "target/clients"
HERE = ROOT / "tests/clients"

EXPECTED = """\
created ada ada@example.com
session ada ada@example.com
pages ada,user1 user2,user3 user4
logged out 5 SESSION_NOT_FOUND
refused 3 FIELD_INVALID username,email,password
"""



def java():
    """The Java client; without the second compiler, which starts too late for so few calls."""
    classes = [str(TOOLS / "java/classes"), (TOOLS / "java/classpath").read_text().strip()]
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", ":".join(classes), "usersd.client.Main"]


# Programs that are told an address and a key.
PROGRAMS = {
    "Go": lambda: [TOOLS / "go/client", "walk"],
    "Java": lambda: [*java(), "walk"],
    "Node": lambda: ["node", TOOLS / "js/walk.js"],
    "Rust": lambda: [BINARY.parent / "usersd-client"],
    "Python": lambda: [sys.executable, HERE / "python/walk.py"],
}


def program(kind, command):
    with database(kind) as db, Server(db.url, key=new_key(db, "walk", EVERY_SCOPE)) as server:
        env = {**os.environ, "PYTHONPATH": str(transports.GENERATED)}
        done = subprocess.run([*command(), server.address, server.key], capture_output=True, text=True, timeout=120, env=env)
    assert_equal((done.returncode, done.stdout), (0, EXPECTED), f"exit code and lines; it said:\n{done.stderr}")


class Grpcurl:
    """grpcurl, which learns the methods by reflection. A reply, or a google.rpc.Status."""

    def __init__(self, address, key):
        self.command = [transports.GRPCURL, "-plaintext", "-format-error", "-H", f"authorization: Bearer {key}"]
        self.address = address

    def call(self, method, request):
        return self.run([*self.command, "-d", json.dumps(request), self.address, f"users.Users/{method}"])

    @staticmethod
    def run(command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        text = done.stderr if done.returncode else done.stdout
        try:
            return json.loads(text)
        except ValueError:
            raise Wrong(f"{command[0]} failed otherwise: {text}") from None


class BufCurl(Grpcurl):
    """`buf curl`, which reads the files in proto/."""

    def __init__(self, address, key):
        buf = max(glob.glob(str(TOOLS / "bin/buf-*")), default="buf")
        self.command = [
            buf, "curl", "--schema", PROTO, "--protocol", "grpc", "--http2-prior-knowledge", "-H", f"authorization: Bearer {key}",
        ]
        self.address = f"http://{address}"

    def call(self, method, request):
        return self.run([*self.command, "-d", json.dumps(request), f"{self.address}/users.Users/{method}"])


def by_hand(kind, make):
    """The walk by a program that makes one call."""
    with database(kind) as db, Server(db.url, key=new_key(db, "walk", EVERY_SCOPE)) as server:
        call = make(server.address, server.key).call
        ada = {"username": "ada", "email": "ada@example.com", "password": "correct horse"}
        user = call("Create", ada)["user"]
        lines = [f"created {user['username']} {user['email']}"]
        token = {"sessionId": call("Login", {"username": "ada", "password": "correct horse"})["session"]["id"]}
        session = call("ReadSession", token)["session"]
        lines.append(f"session {session['username']} {session['email']}")
        for number in range(1, 5):
            call("Create", {"username": f"user{number}", "ssoEnabled": True})
        pages, page = [], {"nextPageToken": ""}
        while "nextPageToken" in page:
            page = call("List", {"orderBy": "username", "limit": 2, "pageToken": page["nextPageToken"]})
            pages.append(",".join(user["username"] for user in page["users"]))
        lines.append(f"pages {' '.join(pages)}")
        call("Logout", token)
        lines.append(f"logged out {refusal(call('ReadSession', token))}")
        lines.append(f"refused {refusal(call('Create', {'username': 'é', 'email': 'nobody', 'password': 'short'}))}")
    assert_equal("\n".join(lines) + "\n", EXPECTED, "the walk")


def refusal(status):
    """The code, the reason and the fields at fault of a google.rpc.Status, or of the error that Connect makes of it."""
    code, parts = status["code"], []
    for detail in status["details"]:
        kind = (detail.get("type") or detail["@type"]).rpartition(".")[2]
        message = {"ErrorInfo": error_details_pb2.ErrorInfo, "BadRequest": error_details_pb2.BadRequest}[kind]()
        if "value" in detail:
            message.ParseFromString(base64.b64decode(detail["value"] + "=="))
        else:
            json_format.ParseDict({name: value for name, value in detail.items() if name != "@type"}, message)
        parts.append(message.reason if kind == "ErrorInfo" else ",".join(bad.field for bad in message.field_violations))
    number = code if isinstance(code, int) else transports.CODES[code.upper()][0]
    return " ".join([str(number), *parts])


def tests():
    for kind in (Sqlite, Postgres):
        for name, command in PROGRAMS.items():
            yield f"walks / {kind.__name__} / {name}", program, kind, command
        for make in (Grpcurl, BufCurl):
            yield f"walks / {kind.__name__} / {make.__name__}", by_hand, kind, make

"""The same requests to our JSON and to grpc-gateway in front of our gRPC: equal status and body, or a difference that is told."""

import contextlib
import http.client
import json
import re
import subprocess
import threading

import gateway_cases
from harness import EVERY_SCOPE, POSTGRES, Postgres, ROOT, Server, Sqlite, Wrong, database, assert_equal, assert_true, new_key

PROGRAM = ROOT / "target/clients/gateway/gateway"

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
TIMES = {"created", "authTime", "updated", "expires", "passwordUpdated", "deleted", "time", "lastUsed"}
# Fields that hold a message: where it is absent, the gateway writes null and we write nothing.
MESSAGES = {"user", "session", "prefs", "device", "key", "localizedMessage"}


class Gateway:
    """A running grpc-gateway."""

    def __init__(self, server):
        self.process = subprocess.Popen([PROGRAM, server.address], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        first = self.process.stderr.readline()
        assert_true(" listening on " in first, f"the gateway starts: {first}")
        self.address = first.rpartition(" ")[2].strip()
        # A full pipe would stop it.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


class Side:
    """One of the two, in a namespace of its own: the same requests find the same users."""

    def __init__(self, address, key):
        self.key, self.kept, self.seen = key, {}, {}
        host, port = address.split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=60)

    def filled(self, text):
        for name, value in self.kept.items():
            text = text.replace("{" + name + "}", value)
        return text

    def call(self, case):
        """The status and the body, as JSON where it is JSON."""
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json", **case.headers}
        body = case.body if isinstance(case.body, (str, type(None))) else json.dumps(case.body)
        if body is not None:
            body = self.filled(body).encode("utf-8", "surrogatepass")
        self.connection.request(case.method, self.filled(case.path), body, {name: value for name, value in headers.items() if value})
        reply = self.connection.getresponse()
        text = reply.read().decode()
        try:
            came = json.loads(text)
        except ValueError:
            return reply.status, text
        for name, path in case.keep.items():
            value = came
            for step in path.split("."):
                value = value[int(step) if step.isdigit() else step]
            self.kept[name] = value
        return reply.status, self.compared(came)

    def compared(self, value, name=""):
        """A reply without what no two calls have in common."""
        if isinstance(value, dict):
            return {key: self.compared(inner, key) for key, inner in value.items() if inner is not None or key not in MESSAGES}
        if isinstance(value, list):
            return [self.compared(inner, name) for inner in value]
        if not isinstance(value, str):
            return value
        if name in TIMES and value != "0":
            return "<time>"
        if name == "namespace":
            return "<namespace>"
        if name == "nextPageToken" and value:
            return "<page>"
        if name == "etag":
            return re.sub("[0-9a-f]+-", "<etag>-", value)
        value = re.sub("(ses|usk)_[0-9a-f]{64}", r"\1_", value)
        return UUID.sub(lambda id: f"<id {self.seen.setdefault(id[0], len(self.seen))}>", value)


def spelled(reply):
    """A refusal of the gateway with the fields at fault as our JSON names them: as its caller does. The gateway knows nothing of the
    names in details, and passes on those of the proto."""
    status, body = reply
    if status != 400 or isinstance(body, str):
        return reply
    for detail in body["details"]:
        for bad in detail.get("fieldViolations", []):
            field = re.sub("_([a-z])", lambda letter: letter[1].upper(), bad["field"])
            body["message"] = body["message"].replace(f"{bad['field']} {bad['description']}", f"{field} {bad['description']}")
            bad["field"] = field
    return status, body


def sides(stack, kind):
    db = stack.enter_context(database(kind))
    keys = [new_key(db, namespace, EVERY_SCOPE) for namespace in ("ours", "theirs")]
    server = stack.enter_context(Server(db.url))
    gateway = stack.enter_context(contextlib.closing(Gateway(server)))
    for address, key in zip((server.address, gateway.address), keys):
        side = Side(address, key)
        stack.enter_context(contextlib.closing(side.connection))
        yield side


def same_replies(kind):
    cases = gateway_cases.all()
    assert_true(len(cases) >= 300, f"300 requests: {len(cases)}")
    wrong = []
    with contextlib.ExitStack() as stack:
        ours, theirs = sides(stack, kind)
        for number, case in enumerate(cases):
            place = f"{number}: {case.method} {case.path} {case.body!r}"
            try:
                pair = ours.call(case), spelled(theirs.call(case))
            except Exception as error:
                raise Wrong(f"{place}: {error!r}\nbefore it:\n" + "\n".join(wrong)) from error
            if case.differs is None:
                if pair[0] != pair[1]:
                    wrong.append(f"{place}\n  ours:   {pair[0]}\n  theirs: {pair[1]}")
            elif pair[0] == pair[1]:
                wrong.append(f"{place}: both answer {pair[0]}, which is no difference: {case.differs.why}")
            elif (pair[0][0], pair[1][0]) != case.differs.statuses:
                wrong.append(f"{place}\n  expected: {case.differs}\n  ours:   {pair[0]}\n  theirs: {pair[1]}")
    assert_equal(wrong, [], f"replies of {len(cases)} requests")


def tests():
    yield "grpc-gateway / the same replies", same_replies, Postgres if POSTGRES else Sqlite

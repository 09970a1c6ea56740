"""The ways to reach the calls. Each takes a method and its request as JSON in the spelling of the caller, and gives
the reply as JSON, unchanged but for bytes becoming text, or raises Refused."""

import base64
import contextlib
import dataclasses
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import urllib.parse

import grpc
import grpc_tools.protoc
import h2.config
import h2.connection
import h2.events
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from harness import PROTO, ROOT, Wrong, assert_equal

GENERATED = ROOT / "target/clients/gen"
GRPCURL = max(map(str, ROOT.glob("target/clients/bin/grpcurl-*")), default="grpcurl")

# gRPC code: number, name, HTTP status, HTTP text.
CODES = {
    "INVALID_ARGUMENT": (3, "InvalidArgument", 400, "Bad Request"),
    "NOT_FOUND": (5, "NotFound", 404, "Not Found"),
    "ALREADY_EXISTS": (6, "AlreadyExists", 409, "Conflict"),
    "PERMISSION_DENIED": (7, "PermissionDenied", 403, "Forbidden"),
    "RESOURCE_EXHAUSTED": (8, "ResourceExhausted", 429, "Too Many Requests"),
    "FAILED_PRECONDITION": (9, "FailedPrecondition", 400, "Bad Request"),
    "ABORTED": (10, "Aborted", 409, "Conflict"),
    "INTERNAL": (13, "Internal", 500, "Internal Server Error"),
    "UNIMPLEMENTED": (12, "Unimplemented", 501, "Not Implemented"),
    "UNAUTHENTICATED": (16, "Unauthenticated", 401, "Unauthorized"),
}
NAMES = {number: name for name, (number, *_) in CODES.items()}


def generate():
    """Makes the Python client that a user would make, and gives its two modules."""
    GENERATED.mkdir(parents=True, exist_ok=True)
    google = os.path.join(os.path.dirname(grpc_tools.protoc.__file__), "_proto")
    arguments = [f"-I{PROTO}", f"-I{google}", f"--python_out={GENERATED}", f"--grpc_python_out={GENERATED}"]
    files = ["users.proto", "keys.proto", "namespaces.proto", "errors.proto"]
    code = grpc_tools.protoc.main(["protoc", *arguments, *files])
    assert_equal(code, 0, "exit code of protoc")
    if str(GENERATED) not in sys.path:
        sys.path.insert(0, str(GENERATED))
    import users_pb2
    import users_pb2_grpc

    return users_pb2, users_pb2_grpc


@dataclasses.dataclass
class Refused(Exception):
    """A refusal, with as much of it as the transport shows; None is what it does not show."""

    code: str
    message: str
    reason: str = None
    metadata: dict = None
    fields: list = None
    body: dict = None

    def __str__(self):
        return repr(self)


def refused_from_status(code, message, details):
    """From `grpc-status-details-bin`."""
    true_status = status_pb2.Status.FromString(details)
    assert_equal((true_status.code, true_status.message), (CODES[code][0], message), "code and message in the details")
    refused = Refused(code, message, fields=[])
    for detail in true_status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            assert_equal(info.domain, "usersd", "domain of ErrorInfo")
            refused.reason, refused.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            refused.fields = [violation.field for violation in bad.field_violations]
    return refused


def refused_from_json(status):
    """From `{code, message, details}`."""
    assert_equal(sorted(status), ["code", "details", "message"], "keys of the error body")
    refused = Refused(NAMES.get(status["code"], status["code"]), status["message"], fields=[], body=status)
    for detail in status["details"]:
        if "@value" in detail:
            detail = unknown_to_grpcurl(detail)
        kind = detail["@type"].rpartition(".")[2]
        if kind == "ErrorInfo":
            assert_equal(detail["domain"], "usersd", "domain of ErrorInfo")
            refused.reason, refused.metadata = detail["reason"], detail.get("metadata", {})
        elif kind == "BadRequest":
            refused.fields = [proto_name(violation["field"]) for violation in detail["fieldViolations"]]
    return refused


def proto_name(field):
    """A field of JSON, `emailVerified`, as the proto spells it."""
    return re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), field)


def unknown_to_grpcurl(detail):
    """A detail whose type no file names: grpcurl gives its bytes."""
    kind = {"ErrorInfo": error_details_pb2.ErrorInfo, "BadRequest": error_details_pb2.BadRequest}
    message = kind[detail["@type"].rpartition(".")[2]].FromString(base64.b64decode(detail["@value"]))
    return {"@type": detail["@type"], **json_format.MessageToDict(message)}


def refused_from_micro(method, text):
    """From `{"id","code","detail","status"}`, whose code is the HTTP status."""
    body = json.loads(text)
    assert_equal(list(body), ["id", "code", "detail", "status"], "keys of the error body")
    assert_equal(body["id"], f"users.{method}", "id of the error body")
    for code, (_, _, number, name) in CODES.items():
        if number == body["code"] and name == body["status"]:
            return Refused(code, body["detail"], body=body)
    raise Wrong(f"no such pair of code and status: {text}")


class Transport:
    """names: `camel` or `snake` in replies. zeros: whether zero values are written. empty: whether the replies that once
    were empty are `{}`. details: whether refusals carry details."""

    name = ""
    names, zeros, empty, details = "camel", True, False, True

    # The header that names the namespace.
    namespace_header = "usersd-namespace"

    def __init__(self, server, namespace):
        self.server, self.namespace = server, namespace

    def who(self):
        """Headers that say who calls, and in which namespace."""
        headers = {self.namespace_header: self.namespace} if self.namespace else {}
        return {**headers, "authorization": f"Bearer {self.server.key}"} if self.server.key else headers

    def call(self, method, request):
        raise NotImplementedError

    def close(self):
        pass


class PythonClient(Transport):
    """grpcio with a client generated from proto/."""

    name = "python client"

    def __init__(self, server, namespace):
        super().__init__(server, namespace)
        self.pb, stubs = generate()
        self.channel = grpc.insecure_channel(server.address)
        self.stub = stubs.UsersStub(self.channel)

    def call(self, method, request):
        form = self.pb.DESCRIPTOR.services_by_name["Users"].methods_by_name[method].input_type.name
        message = json_format.ParseDict(request, getattr(self.pb, form)())
        try:
            reply = getattr(self.stub, method)(message, metadata=list(self.who().items()), timeout=30)
        except grpc.RpcError as error:
            trailers = dict(error.trailing_metadata())
            details = trailers["grpc-status-details-bin"]
            raise refused_from_status(error.code().name, error.details(), details) from None
        return json_format.MessageToDict(reply, always_print_fields_with_no_presence=True)

    def close(self):
        self.channel.close()


class Grpcurl(Transport):
    """grpcurl that learns the methods by reflection."""

    name = "grpcurl, reflection"
    zeros = False
    source = ()

    def run(self, *arguments, source=None, address=True):
        command = [GRPCURL, "-plaintext", "-max-time", "30", *(self.source if source is None else source)]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT)

    def call(self, method, request):
        done = self.run(
            "-format-error", *as_options(self.who()), "-d", json.dumps(request),
            self.server.address, f"users.Users/{method}",
        )
        if done.returncode != 0:
            text = done.stderr.strip()
            if not text.startswith("{"):
                raise Wrong(f"grpcurl failed otherwise: {text}")
            raise refused_from_json({"details": [], **json.loads(text)})
        return json.loads(done.stdout)


class GrpcurlFiles(Grpcurl):
    """grpcurl that reads the files in proto/."""

    name = "grpcurl, proto files"
    source = ("-import-path", str(PROTO), "-proto", "users.proto")


def call_h2(address, path, headers, body):
    """One request over cleartext HTTP/2: headers, data and trailers of the reply."""
    host, port = address.split(":")
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    first, data, last = None, b"", {}
    with contextlib.closing(socket.create_connection((host, int(port)), timeout=30)) as stream:
        fields = [(":method", "POST"), (":scheme", "http"), (":authority", address), (":path", path)]
        connection.send_headers(1, fields + list(headers.items()))
        connection.send_data(1, body, end_stream=True)
        stream.sendall(connection.data_to_send())
        while True:
            received = stream.recv(65536)
            if not received:
                raise Wrong("the connection was closed before the reply had ended")
            for event in connection.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    first = dict(event.headers)
                elif isinstance(event, h2.events.TrailersReceived):
                    last = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    data += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, h2.events.StreamReset):
                    raise Wrong(f"the stream was reset: {event.error_code}")
                elif isinstance(event, h2.events.StreamEnded):
                    return first, data, last
            stream.sendall(connection.data_to_send())


def frame(message):
    return b"\0" + len(message).to_bytes(4, "big") + message


def unframe(data):
    """The one message in gRPC's frames."""
    assert_equal((data[0], int.from_bytes(data[1:5], "big")), (0, len(data) - 5), "flag and length of the frame")
    return data[5:]


class FramedJson(Transport):
    """JSON inside gRPC, as programs written with the micro framework and `micro call` send it."""

    name = "application/grpc+json"
    names, zeros, empty, details = "snake", False, True, False
    namespace_header = "micro-namespace"
    media_type = "application/grpc+json"

    def encode(self, method, request):
        return json.dumps(request).encode()

    def decode(self, method, message):
        return json.loads(message)

    def refuse(self, method, code, message, trailers):
        assert_equal("grpc-status-details-bin" in trailers, False, "whether there are details")
        refused = refused_from_micro(method, message)
        assert_equal(refused.body["code"], CODES[code][2], "HTTP status in the error body")
        refused.code = code
        return refused

    def call(self, method, request):
        headers = {
            "content-type": self.media_type, "te": "trailers", "user-agent": "grpc-go/1.26.0", **self.who(),
        }
        path = f"/users.Users/{method}"
        first, data, last = call_h2(self.server.address, path, headers, frame(self.encode(method, request)))
        assert_equal(first[":status"], "200", "HTTP status")
        self.check_type(first["content-type"])
        trailers = {**first, **last}
        status = int(trailers["grpc-status"])
        if status != 0:
            assert_equal(data, b"", "data of a refusal")
            message = urllib.parse.unquote(trailers["grpc-message"])
            raise self.refuse(method, NAMES.get(status, status), message, trailers)
        assert_equal("grpc-status" in last, True, "whether the status comes after the message")
        return self.decode(method, unframe(data))

    def check_type(self, came):
        assert_equal(came, self.media_type, "content type")


class FramedProto(FramedJson):
    """The same frames with protobuf, under its full media type."""

    name = "application/grpc+proto"
    names, zeros, empty, details = "camel", True, False, True
    media_type = "application/grpc+proto"

    def __init__(self, server, namespace):
        super().__init__(server, namespace)
        self.pb, _ = generate()

    def encode(self, method, request):
        return json_format.ParseDict(request, getattr(self.pb, method + "Request")()).SerializeToString()

    def decode(self, method, message):
        reply = getattr(self.pb, method + "Response").FromString(message)
        return json_format.MessageToDict(reply, always_print_fields_with_no_presence=True)

    def refuse(self, method, code, message, trailers):
        details = trailers["grpc-status-details-bin"]
        return refused_from_status(code, message, base64.b64decode(details + "=" * (-len(details) % 4)))

    def check_type(self, came):
        # gRPC allows the server to leave out the default format.
        assert_equal(came in ("application/grpc", "application/grpc+proto"), True, f"whether {came} is gRPC's type")


class GrpcWeb(FramedProto):
    """gRPC-Web over HTTP/1.1, as a browser's client sends it."""

    name = "application/grpc-web+proto"
    text = False

    def call(self, method, request):
        host, port = self.server.address.split(":")
        media = "application/grpc-web-text+proto" if self.text else "application/grpc-web+proto"
        headers = {"content-type": media, "accept": media, "x-grpc-web": "1", **self.who()}
        body = frame(self.encode(method, request))
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
            sent = base64.b64encode(body) if self.text else body
            connection.request("POST", f"/users.Users/{method}", sent, headers)
            reply = connection.getresponse()
            data = reply.read()
            assert_equal(reply.status, 200, "HTTP status")
            assert_equal(reply.headers["content-type"], media, "content type")
        if self.text:
            # Pieces of base64, each with its own padding.
            data = b"".join(base64.b64decode(data[at : at + 4]) for at in range(0, len(data), 4))
        message, trailers = None, {name.lower(): value for name, value in reply.headers.items()}
        while data:
            flag, length = data[0], int.from_bytes(data[1:5], "big")
            part, data = data[5 : 5 + length], data[5 + length :]
            assert_equal(len(part), length, "length of a frame")
            if flag == 0x80:
                for line in part.decode().split("\r\n"):
                    if line:
                        name, _, value = line.partition(":")
                        trailers[name.strip().lower()] = value.strip()
            else:
                message = part
        status = int(trailers["grpc-status"])
        if status != 0:
            text = urllib.parse.unquote(trailers["grpc-message"])
            raise self.refuse(method, NAMES.get(status, status), text, trailers)
        return self.decode(method, message)


class GrpcWebText(GrpcWeb):
    name = "application/grpc-web-text+proto"
    text = True


def as_options(headers):
    """Headers as curl and grpcurl take them."""
    return [option for name, value in headers.items() for option in ("-H", f"{name}: {value}")]


def curl(*arguments):
    """Status, headers (lower-case names) and body of what curl gets."""
    done = subprocess.run(["curl", "-sS", "-g", "-i", "--max-time", "30", *arguments],
                          capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Wrong(f"curl failed: {done.stderr.strip()}")
    head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.split("\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, body


def check_headers(status, headers):
    assert_equal(headers.get("content-type"), "application/json", "content type")
    assert_equal(headers.get("cache-control"), "no-store", "cache-control")
    assert_equal("x-request-id" in headers, True, "whether there is a request id")
    assert_equal(headers.get("www-authenticate"), "Bearer" if status == 401 else None, "www-authenticate")


ROUTES = {
    "Create": ("POST", "/v1/users"),
    "Read": ("GET", "/v1/users/{id}"),
    "BatchRead": ("POST", "/v1/users:batchRead"),
    "Update": ("PATCH", "/v1/users/{id}"),
    "Delete": ("DELETE", "/v1/users/{id}"),
    "Search": ("GET", "/v1/users:search"),
    "List": ("GET", "/v1/users"),
    "CreateOrRestore": ("POST", "/v1/users:createOrRestore"),
    "ReadTrash": ("GET", "/v1/trash/{id}"),
    "ListTrash": ("GET", "/v1/trash"),
    "Restore": ("POST", "/v1/trash/{id}:restore"),
    "Purge": ("DELETE", "/v1/trash/{id}"),
    "UpdatePassword": ("POST", "/v1/users/{user_id}:updatePassword"),
    "SetPassword": ("POST", "/v1/users/{user_id}:setPassword"),
    "Unlock": ("POST", "/v1/users/{id}:unlock"),
    "UpdateStatus": ("PATCH", "/v1/users/{id}/status"),
    "UpdateVerification": ("PATCH", "/v1/users/{id}/verification"),
    "ReadPrefs": ("GET", "/v1/users/{id}/prefs"),
    "UpdatePrefs": ("PATCH", "/v1/users/{id}/prefs"),
    "Login": ("POST", "/v1/sessions"),
    "VerifyPassword": ("POST", "/v1/users/{user_id}:verifyPassword"),
    "ReadSession": ("POST", "/v1/sessions:read"),
    "IssueAssertion": ("POST", "/v1/sessions:issueAssertion"),
    "Logout": ("POST", "/v1/sessions:logout"),
    "ListSessions": ("GET", "/v1/users/{user_id}/sessions"),
    "DeleteSession": ("DELETE", "/v1/users/{user_id}/sessions/{session_id}"),
    "DeleteSessions": ("DELETE", "/v1/users/{user_id}/sessions"),
    "ListLogs": ("GET", "/v1/users/{user_id}/logs"),
    "CreateCode": ("POST", "/v1/codes"),
    "VerifyEmail": ("POST", "/v1/users:verifyEmail"),
    "ConfirmEmailChange": ("POST", "/v1/users:confirmEmailChange"),
    "ResetPassword": ("POST", "/v1/users:resetPassword"),
    "LoginWithCode": ("POST", "/v1/sessions:loginWithCode"),
    "EnrollTotp": ("POST", "/v1/users/{user_id}/totp:enroll"),
    "ConfirmTotp": ("POST", "/v1/users/{user_id}/totp:confirm"),
    "RemoveTotp": ("POST", "/v1/users/{user_id}/totp:remove"),
    "CreateRecoveryCodes": ("POST", "/v1/users/{user_id}/recoveryCodes"),
    "ListFactors": ("GET", "/v1/users/{user_id}/factors"),
    "CompleteLogin": ("POST", "/v1/sessions:complete"),
}


class Canonical(Transport):
    """The paths that follow from the proto, by curl."""

    name = "curl, canonical paths"
    options = ()

    def call(self, method, request):
        verb, path = ROUTES[method]
        rest = dict(request)
        if method == "Read" and "id" not in request:
            path = "/v1/users:lookup"
        for name, spelled in (("id", "id"), ("user_id", "userId"), ("session_id", "sessionId")):
            if "{" + name + "}" in path:
                value = rest.pop(spelled) if spelled in rest else rest.pop(name)
                path = path.replace("{" + name + "}", urllib.parse.quote(value, safe=""))
        arguments = [*self.options, "-X", verb, *as_options(self.who())]
        if verb in ("GET", "DELETE"):
            query = {name: json.dumps(value) if isinstance(value, bool) else value for name, value in rest.items()}
            path += "?" + urllib.parse.urlencode(query, doseq=True) if query else ""
        else:
            arguments += ["-H", "content-type: application/json", "-d", json.dumps(rest)]
        arguments.append(f"http://{self.server.address}{path}")
        status, headers, text = curl(*arguments)
        check_headers(status, headers)
        if status != 200:
            refused = refused_from_json(json.loads(text))
            assert_equal(status, CODES[refused.code][2], "HTTP status")
            raise refused
        return json.loads(text)


class CanonicalH2(Canonical):
    """The same over HTTP/2 without TLS."""

    name = "curl, canonical paths over HTTP/2"
    options = ("--http2-prior-knowledge",)


class Micro(Transport):
    """`/users/Users/<Method>`, by curl as the pages have it: plain `-d`, which says it is a form."""

    name = "curl, /users/Users/<Method>"
    names, zeros, empty, details = "snake", False, True, False
    namespace_header = "micro-namespace"
    media_type = None

    def path(self, method):
        return f"/users/Users/{method}"

    def call(self, method, request):
        arguments = [
            f"http://{self.server.address}{self.path(method)}",
            # As its pages have it, where no key is needed.
            *as_options({"authorization": "Bearer $yourToken", **self.who()}), "-d", json.dumps(request, indent=2),
        ]
        if self.media_type:
            arguments += ["-H", f"content-type: {self.media_type}"]
        status, headers, text = curl(*arguments)
        check_headers(status, headers)
        if status != 200:
            refused = refused_from_micro(method, text)
            assert_equal(status, refused.body["code"], "HTTP status")
            raise refused
        return json.loads(text)


class MicroCamel(Micro):
    name = "curl, /users/<camelCase>"
    media_type = "application/json"

    def path(self, method):
        return f"/users/{method[0].lower()}{method[1:]}"


class MicroDashed(Micro):
    name = "curl, /users/<dashed-name>"
    media_type = "application/json; charset=utf-8"

    def path(self, method):
        return "/users/" + "".join("-" + c.lower() if c.isupper() else c for c in method).lstrip("-")


ALL = [PythonClient, Grpcurl, GrpcurlFiles, FramedJson, FramedProto, GrpcWeb, GrpcWebText,
       Canonical, CanonicalH2, Micro, MicroCamel, MicroDashed]

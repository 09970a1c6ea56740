"""deploy/grpc-service-config.json: whole, taken by gRPC, and with no repeat that makes anything twice."""

import json
import threading

import grpc

import transports
from harness import EVERY_SCOPE, ROOT, Postgres, Server, Sqlite, Wrong, database, assert_equal, assert_true, free_ports, new_key

TEXT = (ROOT / "deploy/grpc-service-config.json").read_text()

# Methods that are not retried: a repeat of these opens a second session, counts as a wrong password, makes a second key.
NEVER = {("users.Users", "Login"), ("users.Users", "UpdatePassword"), ("users.Keys", "Create")}
# Nor those that take a password or a code, which works once, or make one.
NEVER |= {
    ("users.Users", method)
    for method in (
        "VerifyPassword", "EnrollTotp", "ConfirmTotp", "RemoveTotp", "CreateRecoveryCodes", "CompleteLogin",
        "CreateCode", "VerifyEmail", "ConfirmEmailChange", "ResetPassword", "LoginWithCode",
    )
}
# An operator makes these by hand, and sees what became of them.
NEVER |= {("users.Namespaces", f"{verb}Namespace") for verb in ("Create", "Update", "Delete")}

ADA = {"id": "ada", "username": "ada", "email": "ada@example.com", "password": "correct horse"}

# A change, and how its repeat ends: as the change itself, or with a reason (its end) that tells that it was made.
REPEATS = [
    ("Create", ADA, "_TAKEN"),
    ("Create", {"username": "alan", "password": "correct horse"}, "_TAKEN"),
    ("Create", {"username": "edsger", "password": "correct horse", "idempotencyKey": "edsger"}, None),
    ("CreateOrRestore", {"email": "barbara@example.com", "ssoEnabled": True, "idempotencyKey": "barbara"}, None),
    ("CreateOrRestore", {"email": "grace@example.com", "ssoEnabled": True}, "_TAKEN"),
    ("Update", {"id": "ada", "name": "Ada"}, None),
    ("Update", {"id": "ada", "name": "Ada L.", "etag": "etag"}, "ETAG_MISMATCH"),
    ("UpdateStatus", {"id": "ada", "status": "USER_STATUS_PENDING"}, None),
    ("UpdateVerification", {"id": "ada", "emailVerified": True}, None),
    ("UpdatePrefs", {"id": "ada", "prefs": {"a": 1}}, None),
    ("SetPassword", {"userId": "ada", "newPassword": "correct battery"}, None),
    ("Unlock", {"id": "ada"}, None),
    ("Logout", {"sessionId": "session"}, "SESSION_NOT_FOUND"),
    ("DeleteSession", {"userId": "ada", "sessionId": "publicId"}, "SESSION_NOT_FOUND"),
    ("DeleteSessions", {"userId": "ada"}, None),
    ("Delete", {"id": "ada"}, "USER_NOT_FOUND"),
    ("Restore", {"id": "ada"}, "USER_NOT_FOUND"),
    ("Delete", {"id": "ada", "etag": "etag"}, "USER_NOT_FOUND"),
    ("Purge", {"id": "ada"}, "USER_NOT_FOUND"),
]


def methods(which):
    """Those that entries of the config name."""
    return {(name["service"], name["method"]) for entry in which for name in entry["name"] if "method" in name}


def names_every_method():
    """Each RPC is retried or is known not to be; whatever is retried is a read, or its repeat is tried below."""
    config = json.loads(TEXT)["methodConfig"]
    pb, _ = transports.generate()
    import keys_pb2
    import namespaces_pb2

    files = [(pb, "Users"), (keys_pb2, "Keys"), (namespaces_pb2, "Namespaces")]
    services = [file.DESCRIPTOR.services_by_name[name] for file, name in files]
    every = {(service.full_name, method.name) for service in services for method in service.methods}
    reads, changes, rest = config
    assert_equal(methods([reads, changes]), every - NEVER, "methods that are retried")
    assert_equal(rest["name"], [{"service": service.full_name} for service in services], "services with a default")
    assert_true("retryPolicy" not in rest, "the default repeats nothing")
    for _, method in methods([reads]):
        assert_true(method.startswith(("Read", "BatchRead", "List", "Search", "IssueAssertion")), f"{method} is a read")
    # The repeat of Keys.Delete is a test of its own (tests/it/keys.rs): KEY_NOT_FOUND.
    tried = {("users.Users", method) for method, *_ in REPEATS} | {("users.Keys", "Delete")}
    assert_equal(tried, methods([changes]), "changes whose repeat is tried")
    for entry in config:
        assert_equal(entry["waitForReady"], True, "waitForReady")


def repeats(kind):
    """A change that is sent once more makes nothing twice."""
    with database(kind) as db, Server(db.url, key=new_key(db, "repeats", EVERY_SCOPE)) as server:
        client = transports.PythonClient(server, "repeats")
        for method, request, reason in REPEATS:
            read = "ReadTrash" if method in ("Restore", "Purge") else "Read"
            if request.get("etag"):
                request = {**request, "etag": client.call(read, {"id": "ada"})["user"]["etag"]}
            if request.get("sessionId"):
                session = client.call("Login", {"username": "ada", "password": "correct battery"})["session"]
                request = {**request, "sessionId": session["publicId" if "userId" in request else "id"]}
            client.call(method, request)
            made = rows(db)
            try:
                client.call(method, request)
                came = None
            except transports.Refused as refused:
                came = refused.reason
            assert_true(came == reason or reason and (came or "").endswith(reason), f"the repeat of {method} ends with {reason}, not {came}")
            assert_equal(rows(db), made, f"users and sessions after the repeat of {method}")
        client.close()


def rows(db):
    return db.query("SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM sessions)")


def waits_for_a_server():
    """A call that begins before any server is there is answered by the one that comes."""
    (port,) = free_ports(1)
    pb, stubs = transports.generate()
    begun, answers = threading.Event(), []

    def call():
        options = [("grpc.service_config", TEXT), ("grpc.max_reconnect_backoff_ms", 200)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            lost = lambda state: state == grpc.ChannelConnectivity.TRANSIENT_FAILURE and begun.set()
            channel.subscribe(lost, try_to_connect=True)
            try:
                answers.append(stubs.UsersStub(channel).List(pb.ListRequest()).total)
            except grpc.RpcError as error:
                answers.append(f"{error.code()} {error.details()}")

    with database(Sqlite) as db:
        thread = threading.Thread(target=call)
        thread.start()
        if not begun.wait(20):
            raise Wrong("the channel did not look for a server")
        with Server(db.url, listen=f"127.0.0.1:{port}"):
            thread.join(30)
    assert_equal(answers, [0], "answer of a call that began without a server")


def tests():
    yield "service config / names every method", names_every_method
    yield "service config / waits for a server", waits_for_a_server
    for kind in (Sqlite, Postgres):
        yield f"service config / {kind.__name__}: repeats make nothing twice", repeats, kind

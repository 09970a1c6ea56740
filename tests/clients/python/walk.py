"""A client of usersd generated for Python: `walk.py ADDRESS KEY` signs up, signs in and out: a line for each step."""

import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import users_pb2 as pb
import users_pb2_grpc


def refusal(call, request):
    """The code, the reason and the fields at fault of a call that must fail."""
    try:
        call(request)
    except grpc.RpcError as error:
        parts = [error.code().value[0]]
        for detail in rpc_status.from_call(error).details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                parts.append(info.reason)
            elif detail.Unpack(bad):
                parts.append(",".join(violation.field for violation in bad.field_violations))
        return parts
    raise SystemExit(f"{request} should be refused")


def pages(users):
    """Creates four more users and lists all, two at a time."""
    for number in range(1, 5):
        users.Create(pb.CreateRequest(username=f"user{number}", sso_enabled=True))
    request = pb.ListRequest(order_by="username", limit=2)
    while True:
        page = users.List(request)
        yield ",".join(user.username for user in page.users)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


class ApiKey(grpc.UnaryUnaryClientInterceptor):
    """Sends the key with every call."""

    def __init__(self, key):
        self.metadata = [("authorization", f"Bearer {key}")]

    def intercept_unary_unary(self, call, details, request):
        details = details._replace(metadata=[*(details.metadata or ()), *self.metadata], timeout=details.timeout or 60)
        return call(details, request)


def walk(address, key):
    with grpc.insecure_channel(address) as channel:
        users = users_pb2_grpc.UsersStub(grpc.intercept_channel(channel, ApiKey(key)))
        ada = users.Create(pb.CreateRequest(username="ada", email="ada@example.com", password="correct horse")).user
        print("created", ada.username, ada.email)
        token = users.Login(pb.LoginRequest(username="ada", password="correct horse")).session.id
        session = users.ReadSession(pb.ReadSessionRequest(session_id=token)).session
        print("session", session.username, session.email)
        print("pages", *pages(users))
        users.Logout(pb.LogoutRequest(session_id=token))
        print("logged out", *refusal(users.ReadSession, pb.ReadSessionRequest(session_id=token)))
        print("refused", *refusal(users.Create, pb.CreateRequest(username="é", email="nobody", password="short")))


walk(*sys.argv[1:])

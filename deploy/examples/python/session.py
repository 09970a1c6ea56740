"""A gRPC interceptor that checks sessions with usersd: a call with a session gets its user, any other one is refused."""

import contextvars
import http.cookies
import logging

import grpc

import users_pb2
import users_pb2_grpc

# How long a call waits for usersd, in seconds.
DEADLINE = 2

# The cookie that holds the token; `authorization: Bearer` does, too.
COOKIE = "session"

# The user who is signed in: a users.Session.
user = contextvars.ContextVar("user")


class Sessions(grpc.ServerInterceptor):
    """Checks the session of each call by one channel, which all calls share. The key needs the scope `sessions.read`."""

    def __init__(self, channel, key):
        self.users = users_pb2_grpc.UsersStub(channel)
        self.metadata = (("authorization", f"Bearer {key}"),)

    def intercept_service(self, continuation, details):
        handler = continuation(details)
        if handler is None:
            return None
        if not handler.unary_unary:
            # This example does not check streams.
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(grpc.StatusCode.UNIMPLEMENTED, "streams are not served"))

        def answer(request, context):
            # Here, on a thread of the call, and not above, where all calls would wait.
            user.set(self.check(context))
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)

    def check(self, context):
        """The session of the call. Whatever is not certain is refused."""
        token = token_of(dict(context.invocation_metadata()))
        if not token:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "sign in first")
        request = users_pb2.ReadSessionRequest(session_id=token)
        try:
            return self.users.ReadSession(request, metadata=self.metadata, timeout=DEADLINE).session
        except grpc.RpcError as error:
            failure = error
        if failure.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "sign in again")
        # Also a key of ours that usersd refuses.
        logging.warning("usersd: %s %s", failure.code(), failure.details())
        context.abort(grpc.StatusCode.UNAVAILABLE, "sessions cannot be checked now")


def token_of(metadata):
    """What `authorization` holds, or else the cookie."""
    scheme, _, bearer = metadata.get("authorization", "").partition(" ")
    if scheme == "Bearer":
        return bearer
    cookies = http.cookies.SimpleCookie(metadata.get("cookie", ""))
    return cookies[COOKIE].value if COOKIE in cookies else None

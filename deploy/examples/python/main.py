"""A gRPC service that tells who is signed in: `main.py USERSD KEY`. Prints the address that it serves on."""

import concurrent.futures
import sys

import grpc

import session
import whoami_pb2
import whoami_pb2_grpc


class WhoAmI(whoami_pb2_grpc.WhoAmIServicer):
    def Get(self, request, context):
        user = session.user.get()
        return whoami_pb2.GetResponse(id=user.user_id, username=user.username)


address, key = sys.argv[1:]
# Connects with the first call, and again whenever the connection is lost.
RECONNECT = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2000)]
with grpc.insecure_channel(address, RECONNECT) as channel:
    threads = concurrent.futures.ThreadPoolExecutor(max_workers=8)
    server = grpc.server(threads, interceptors=[session.Sessions(channel, key)])
    whoami_pb2_grpc.add_WhoAmIServicer_to_server(WhoAmI(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()

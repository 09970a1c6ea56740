"""Clients that waste what they are given: others notice nothing, and memory stays as it was."""

import contextlib
import http.client
import pathlib
import socket
import struct
import threading
import time

from harness import EVERY_SCOPE, Server, Sqlite, database, assert_equal, new_key, assert_true, until

SLOW, RESETS, IDLE = 200, 10_000, 1_000

# How much more memory the program may hold afterwards: what its allocator keeps, and what connections need.
KEPT = 32 * 1024 * 1024
FOR_EACH_IDLE = 64 * 1024

# A call that takes longer was in somebody's way: hundreds of times what it takes, and less than a lock or a time-out.
NOTICED = 3


def resident(server):
    """Bytes in memory."""
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


class Bystander:
    """Calls without a pause, and wants every call answered."""

    def __init__(self, server):
        self.server, self.stop, self.failed, self.took = server, threading.Event(), [], []
        self.thread = threading.Thread(target=self.call_on)

    def call_on(self):
        headers = {"authorization": f"Bearer {self.server.key}"}
        with contextlib.closing(http.client.HTTPConnection(self.server.host, self.server.port, timeout=20)) as connection:
            while not self.stop.is_set():
                began = time.monotonic()
                try:
                    connection.request("GET", "/v1/users?limit=1", headers=headers)
                    reply = connection.getresponse()
                    reply.read()
                    if reply.status != 200:
                        self.failed.append(reply.status)
                except (OSError, http.client.HTTPException) as error:
                    self.failed.append(repr(error))
                    return
                self.took.append(time.monotonic() - began)
                time.sleep(0.002)

    def __enter__(self):
        self.thread.start()
        until(lambda: len(self.took) > 100 or self.failed, 30, "a hundred calls before")
        return self

    def __exit__(self, *failure):
        before = len(self.took)
        if failure[0] is None:
            until(lambda: len(self.took) > before + 100 or self.failed, 30, "a hundred calls afterwards")
        self.stop.set()
        self.thread.join(30)
        if failure[0] is None:
            assert_equal(self.failed[:3], [], "calls of somebody else that failed")
            assert_true(max(self.took) < NOTICED, f"the slowest call of somebody else took {max(self.took):.1f} s")


@contextlib.contextmanager
def crowded(env=None, kept=KEPT):
    """A server with a bystander; its memory is compared."""
    with database(Sqlite) as db, Server(db.url, env, key=new_key(db, "default", EVERY_SCOPE)) as server:
        with Bystander(server):
            before = resident(server)
            yield server
            grown = resident(server) - before
        assert_true(grown < kept, f"memory grew by {grown // 1024} KiB")


def slow_headers():
    """200 connections that send their headers a byte at a time, for ever: each is closed when its time is up."""
    with crowded({"USERSD_HTTP_HEADER_TIMEOUT": "3s"}) as server, contextlib.ExitStack() as stack:
        head = b"GET /v1/users HTTP/1.1\r\nhost: localhost\r\nx-padding: "
        # Half of them begin like HTTP/2, whose first request never comes.
        begun = [head if number % 2 else b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" for number in range(SLOW)]
        streams = [stack.enter_context(socket.create_connection((server.host, server.port))) for _ in begun]
        at, left = 0, set(range(SLOW))
        began = time.monotonic()
        while left and time.monotonic() - began < 40:
            for number in list(left):
                streams[number].setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    try:
                        streams[number].send(begun[number][at : at + 1] or b"x")
                        if streams[number].recv(4096) == b"":
                            left.discard(number)
                    except (ConnectionError, BrokenPipeError):
                        left.discard(number)
            at += 1
            # What the attack is: a byte a second, but not one second after the other for all of them.
            time.sleep(0.5)
        assert_equal(len(left), 0, "slow connections that are still open")


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


# RFC 7541: `:method: POST`, `:scheme: http`, and a literal `:path: /x`.
HEADERS = b"\x83\x86\x04\x02/x"
PING = frame(6, 0, 0, b"pingping")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


def flood(server, piece, most):
    """Sends `piece(n)` for n up to `most` on connections that are opened again when they are cut off; how often they were."""
    sent = cut = 0
    while sent < most:
        with contextlib.closing(socket.create_connection((server.host, server.port), timeout=20)) as stream:
            drain = threading.Thread(target=read_on, args=(stream,), daemon=True)
            drain.start()
            try:
                stream.sendall(PREFACE)
                for number in range(most):
                    stream.sendall(piece(number))
                    sent += 1
                    if sent == most:
                        break
            except OSError:
                cut += 1
    return cut


def read_on(stream):
    with contextlib.suppress(OSError, ValueError):
        while stream.recv(65536):
            pass


def opened(number):
    return frame(1, 5, 2 * number + 1, HEADERS)


def taken_back(number):
    return frame(3, 0, 2 * number + 1, b"\0\0\0\x08")


def rapid_resets():
    """10,000 streams, each opened and taken back at once: before they become calls."""
    with crowded() as server:
        cut = flood(server, lambda number: opened(number) + taken_back(number), RESETS)
        assert_true(cut > 2, f"connections that were cut off: {cut}")


def resets_of_calls():
    """10,000 streams, each taken back when it is a call: never as many at once as the HTTP library minds."""
    sent = cut = 0
    with crowded() as server:
        while sent < RESETS:
            with contextlib.closing(socket.create_connection((server.host, server.port), timeout=20)) as stream:
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    stream.sendall(PREFACE)
                    for number in range(RESETS):
                        stream.sendall(opened(number) + PING)
                        answered(stream)
                        stream.sendall(taken_back(number))
                        sent += 1
                except OSError:
                    cut += 1
        assert_true(cut > 2, f"connections that were cut off: {cut}")
        assert_true(any("connection closed: " in line and "127.0.0.1" in line for line in server.lines), f"it is told in:\n{server.log()[-900:]}")


def answered(stream):
    """Waits for the answer to a ping: all that was sent before it has been seen."""
    kind, flags = None, 0
    while (kind, flags & 1) != (6, 1):
        head = exactly(stream, 9)
        exactly(stream, int.from_bytes(head[:3], "big"))
        kind, flags = head[3], head[4]


def exactly(stream, length):
    data = b""
    while len(data) < length:
        piece = stream.recv(length - len(data))
        if not piece:
            raise ConnectionError("cut off")
        data += piece
    return data


def pings():
    with crowded() as server:
        cut = flood(server, lambda number: PING, RESETS)
        assert_true(cut > 2, f"connections that were cut off: {cut}")


def idle_connections():
    with crowded(kept=IDLE * FOR_EACH_IDLE) as server, contextlib.ExitStack() as stack:
        for number in range(IDLE):
            stream = stack.enter_context(socket.create_connection((server.host, server.port), timeout=20))
            if number % 2:
                stream.sendall(PREFACE)
                assert_true(stream.recv(9), "settings of the server")
            else:
                request = f"GET /v1/users?limit=1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.key}\r\n\r\n"
                stream.sendall(request.encode())
                assert_true(stream.recv(4096).startswith(b"HTTP/1.1 200"), "an answer before it goes idle")


def tests():
    """Name, function, arguments."""
    yield f"overload / {SLOW} connections with slow headers", slow_headers
    yield f"overload / {RESETS} rapid resets", rapid_resets
    yield f"overload / {RESETS} resets of calls", resets_of_calls
    yield f"overload / {RESETS} pings", pings
    yield f"overload / {IDLE} idle connections", idle_connections

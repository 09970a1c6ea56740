"""A proxy between usersd and PostgreSQL that cuts connections where a test wants it, or goes silent."""

import contextlib
import pathlib
import select
import shutil
import socket
import tempfile
import threading
import time
import urllib.parse

from harness import until


# Seconds between two cuts: what is tried again is not cut again.
BETWEEN = 0.1


class Link:
    """One proxied connection."""

    def __init__(self, proxy, client):
        self.proxy, self.client, self.server = proxy, client, proxy.connect()
        self.silent = self.cut = False
        self.in_transaction = False

    def run(self):
        sockets = [self.client, self.server]
        with contextlib.suppress(OSError), self.client, self.server:
            while not self.proxy.closed and not self.cut:
                if self.silent:
                    # Both sides stay open and hear nothing.
                    self.proxy.ended.wait(0.05)
                    continue
                for source in select.select(sockets, [], [], 0.05)[0]:
                    data = source.recv(65536)
                    if not data or not self.forward(source, data):
                        return

    def forward(self, source, data):
        """False if the connection is to be closed."""
        if self.silent:
            return True
        if source is self.server:
            # A warning's code: there is no transaction in progress.
            self.proxy.needless += data.count(b"C25P01\0")
            self.client.sendall(data)
            return True
        when = self.proxy.cuts(self.moment(data))
        if when == "before":
            return False
        self.server.sendall(data)
        if when == "after":
            # Until the server has answered, which nobody is told.
            select.select([self.server], [], [], 5)
            return False
        return True

    def moment(self, data):
        """What the client is about to do."""
        if data.startswith(b"Q") and b"BEGIN" in data:
            self.in_transaction = True
            return "begin"
        if data.startswith(b"Q") and b"COMMIT" in data:
            self.in_transaction = False
            return "commit"
        if data.startswith(b"Q") and b"ROLLBACK" in data:
            self.in_transaction = False
            return "rollback"
        if data[:1] in (b"P", b"B"):
            return "statement" if self.in_transaction else "read"
        return "other"


class Proxy:
    """Listens on a socket of its own; `url` is the database's address through it."""

    def __init__(self, url):
        self.closed, self.ended = False, threading.Event()
        self.lock, self.links, self.plan, self.done, self.needless = threading.Lock(), [], None, 0, 0
        self.folder = tempfile.mkdtemp(prefix="usersd.")
        parts = urllib.parse.urlsplit(url)
        asked = dict(urllib.parse.parse_qsl(parts.query))
        self.host, self.port = asked.get("host") or parts.hostname or "127.0.0.1", parts.port or 5432
        asked["host"] = self.folder
        # Where the host stands among the parameters, as a folder, the one before the path does not count.
        login = parts.netloc.rpartition("@")[0]
        netloc = f"{login}@localhost:{self.port}" if login else ""
        self.url = f"{parts.scheme}://{netloc}{parts.path}?{urllib.parse.urlencode(asked)}"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{self.folder}/.s.PGSQL.{self.port}")
        self.listener.listen(128)
        self.listener.settimeout(0.1)
        threading.Thread(target=self.accept, daemon=True).start()

    def connect(self):
        if not self.host.startswith("/"):
            return socket.create_connection((self.host, self.port), timeout=5)
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(str(pathlib.Path(self.host) / f".s.PGSQL.{self.port}"))
        return stream

    def accept(self):
        while not self.closed:
            with contextlib.suppress(OSError):
                client, _ = self.listener.accept()
                client.settimeout(None)
                link = Link(self, client)
                self.links = [*(old for old in self.links if not old.cut), link]
                threading.Thread(target=link.run, daemon=True).start()

    def cuts(self, moment):
        """Whether a connection at that moment is to be cut: "before" or "after" it is forwarded."""
        with self.lock:
            if not self.plan or self.plan[0] != moment or self.plan[2] <= 0 or time.monotonic() < self.next:
                return None
            self.plan[2] -= 1
            self.done += 1
            self.next = time.monotonic() + BETWEEN
            return self.plan[1]

    def cut(self, moment, when, times, seconds=10):
        """Cuts so many connections, each at such a moment."""
        with self.lock:
            self.plan, self.done, self.next = [moment, when, times], 0, 0
        until(lambda: self.done >= times, seconds, f"{times} connections are cut {when} {moment}")

    def silence(self):
        """Every connection there is stays open and says nothing any more; new ones work. How many they are."""
        links, self.links = self.links, []
        for link in links:
            link.silent = True
        return len(links)

    def close(self):
        self.closed = True
        self.ended.set()
        self.listener.close()
        shutil.rmtree(self.folder)

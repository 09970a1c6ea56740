"""What the client tests share: the runner, the program under test, its databases."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
BINARY = ROOT / os.environ.get("USERSD_TEST_BINARY", "target/debug/usersd")
PSQL = os.environ.get("USERSD_TEST_PSQL", "psql")
POSTGRES = os.environ.get("USERSD_TEST_POSTGRES", "")

# --- Runner ---------------------------------------------------------------------------------------------------


class Wrong(AssertionError):
    """An expectation that was not met."""


def assert_equal(came, expected, what):
    if came != expected:
        raise Wrong("\n".join([what, *differences(came, expected)]))


def differences(came, expected, place=""):
    """Where two values differ: lines for people."""
    if isinstance(came, dict) and isinstance(expected, dict):
        for key in [*expected, *(key for key in came if key not in expected)]:
            if key not in came or key not in expected:
                yield f"  {place}.{key} should {'be there' if key in expected else 'not be there'}"
            else:
                yield from differences(came[key], expected[key], f"{place}.{key}")
    elif type(came) is type(expected) and isinstance(came, (list, tuple)) and len(came) == len(expected):
        for at, pair in enumerate(zip(came, expected)):
            yield from differences(*pair, f"{place}[{at}]")
    elif came != expected:
        yield f"  {place and place + ' '}expected: {expected!r}"
        yield f"  {place and place + ' '}came:     {came!r}"


def assert_true(came, what):
    if not came:
        raise Wrong(what)


def assert_matches(came, pattern, what):
    if not isinstance(came, str) or not re.fullmatch(pattern, came):
        raise Wrong(f"{what}\n  expected: something like {pattern}\n  came:     {came!r}")


class Like:
    """Equal to a text of a given form."""

    def __init__(self, pattern):
        self.pattern = pattern

    def __eq__(self, other):
        return isinstance(other, str) and re.fullmatch(self.pattern, other) is not None

    def __repr__(self):
        return f"<like {self.pattern}>"


class Near:
    """Equal to Unix seconds near a time from now: to text, as proto3 JSON writes int64, or to a number."""

    def __init__(self, after=0, written=str):
        self.after, self.written = after, written

    def __eq__(self, other):
        whole = type(other) is self.written and str(other).isdigit()
        return whole and abs(int(other) - time.time() - self.after) < 120

    def __repr__(self):
        return f"<seconds, as {self.written.__name__}, {self.after} s from now>"


class Runner:
    """Runs tests by name, prints each, counts them."""

    def __init__(self, only=""):
        self.only = only
        self.passed = 0
        self.failed = []
        self.unstable = []

    def attempt(self, name, function, *arguments):
        """Whether it passed; prints how it went."""
        began = time.monotonic()
        try:
            function(*arguments)
        except Exception as error:  # a test that breaks has failed; the others go on
            text = str(error) if isinstance(error, Wrong) else traceback.format_exc()
            print(f"FAIL {name}\n" + "\n".join("     " + line for line in text.rstrip().splitlines()))
            return False
        print(f"ok   {name} ({time.monotonic() - began:.2f} s)")
        return True

    def run(self, name, function, *arguments, alone=False):
        """One that stands alone, with servers of its own, is run once more if it fails, and named if it then passes."""
        if self.only not in name:
            return
        passed = self.attempt(name, function, *arguments)
        if not passed and alone:
            passed = self.attempt(f"{name}, once more", function, *arguments)
            if passed:
                self.unstable.append(name)
        if passed:
            self.passed += 1
        else:
            self.failed.append(name)


# --- Databases ------------------------------------------------------------------------------------------------


class Sqlite:
    """A new file, in a folder of its own."""

    kind = "sqlite"

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="usersd."))
        self.path = self.folder / "users.db"
        self.url = f"sqlite://{self.path}?mode=rwc"

    def query(self, sql):
        """The rows, every value as text."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=10)) as db:
            rows = db.execute(sql).fetchall()
            db.commit()
        return [tuple(str(value) for value in row) for row in rows]

    def drop(self):
        shutil.rmtree(self.folder)


class Postgres:
    """A new database on the server that USERSD_TEST_POSTGRES names."""

    kind = "postgres"
    number = 0

    def __init__(self):
        Postgres.number += 1
        self.name = f"usersd_clients_{os.getpid()}_{Postgres.number}"
        self._psql(POSTGRES, f"CREATE DATABASE {self.name}")
        head, mark, parameters = POSTGRES.partition("?")
        self.url = head[: head.rindex("/") + 1] + self.name + mark + parameters

    @staticmethod
    def _psql(url, sql):
        done = subprocess.run(
            [PSQL, "-X", "-A", "-t", "-q", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql],
            capture_output=True, text=True, timeout=60,
        )
        if done.returncode != 0:
            raise RuntimeError(f"psql: {done.stderr}")
        return done.stdout

    def query(self, sql):
        return [tuple(line.split("\t")) for line in self._psql(self.url, sql).splitlines()]

    def drop(self):
        self._psql(POSTGRES, f"DROP DATABASE {self.name} WITH (FORCE)")


@contextlib.contextmanager
def database(kind):
    """A new empty database that is gone afterwards."""
    made = kind()
    try:
        yield made
    finally:
        made.drop()


# --- The program ----------------------------------------------------------------------------------------------

START_LINE = re.compile(r"usersd (\S+) listening on (\S+):(\d+) database (\w+)")


def environment(extra=None):
    """Ours without settings of usersd but the tests' own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("USERSD_")}
    kept.update({"USERSD_PASSWORDS_COST": "10", "USERSD_PASSWORDS_MAX_WAIT": "30s", "USERSD_METRICS_LISTEN": "off", "TZ": "UTC"})
    kept.update(extra or {})
    return kept


def run(*arguments, env=None, code=0):
    """Runs the program to its end: what it said on stdout and stderr."""
    done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=40, env=environment(env))
    assert_equal(done.returncode, code, f"exit code of usersd {' '.join(arguments)}\n{done.stdout}{done.stderr}\n")
    return done.stdout, done.stderr


def new_key(db, namespace, scopes, name="a test", **flags):
    """A key, made by whoever has the database."""
    more = [part for flag, value in flags.items() for part in (f"--{flag}", value)]
    out, _ = run("key", "create", "--database", db.url, "--namespace", namespace, "--scopes", scopes, "--name", name, *more)
    assert_matches(out, r"usk_[0-9a-f]{64}\n", "what a key is printed as")
    return out.strip()


EVERY_SCOPE = "users.read,users.write,users.admin,sessions.read,sessions.write,keys.admin,codes.write"


class Server:
    """A running usersd."""

    def __init__(self, url, env=None, wait=True, key=None, listen="127.0.0.1:0", arguments=(), user=None):
        # What callers send; None where none is needed.
        self.key = key
        self.lines = []
        self._start = None
        self._known = threading.Event()
        self.process = subprocess.Popen(
            [BINARY, "--listen", listen, "--database", url, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=environment(env), cwd=tempfile.gettempdir(), **({"user": user} if user else {}),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if wait:
            self.wait_ready()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            found = START_LINE.search(self.lines[-1])
            if found:
                self._start = found
                self._known.set()
        self._known.set()

    def wait_ready(self, seconds=30):
        self._known.wait(seconds)
        if self._start is None:
            self.kill()
            raise Wrong(f"the program did not start (exit {self.process.returncode}); it said:\n{self.log()}")
        self.version, self.host, port, self.database = self._start.groups()
        self.port = int(port)
        self.address = f"{self.host}:{self.port}"
        return self

    def log(self):
        return "\n".join(self.lines)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=40):
        """The exit code."""
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(5)

    def stop(self):
        """Ends it in order, and wants it to end well."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            assert_equal(self.wait(), 0, f"exit code after SIGTERM; it said:\n{self.log()}")
        finally:
            self.kill()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        if failure[0] is None:
            self.stop()
        else:
            self.kill()


def free_ports(number):
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(number)]
        return [stream.getsockname()[1] for stream in streams]


def refuses(port):
    """Whether nothing listens there."""
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Wrong(f"not within {seconds} s: {what}")
        time.sleep(0.005)

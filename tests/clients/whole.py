"""The commands over a whole database, and files that must not be served from.

`usersd backup` beside writers, restoring as the manual says, `usersd copy` between SQLite and PostgreSQL and back,
`usersd doctor` on what is well and on what is not.
"""

import base64
import contextlib
import http.server
import json
import os
import pty
import re
import signal
import sqlite3
import stat
import subprocess
import threading
import urllib.error
import urllib.request

from harness import (
    BINARY, EVERY_SCOPE, ROOT, Postgres, Server, Sqlite, assert_equal, assert_true, database, environment, new_key, run,
    until,
)
from transports import Canonical

PASSWORD = "correct horse"
# Made again by the target, or of one database alone.
OWN_TABLES = re.compile(r"sqlite_|seaql_migrations|users_search|user_totals|session_totals|key_changes")


class Caller:
    """Calls one server with a key that is good for every namespace."""

    def __init__(self, server, key):
        self.server, self.key = server, key

    def __call__(self, verb, path, body=None, namespace="default", status=200):
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}", "usersd-namespace": namespace}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.server.address}{path}", data, headers, method=verb)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                came, text = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            came, text = error.code, error.read()
        assert_equal(came, status, f"{verb} {path}: {text}")
        return json.loads(text) if text else None

    def create(self, username, **more):
        user = {"username": username, "email": f"{username}@example.com", "password": PASSWORD, **more}
        namespace = user.pop("namespace", "default")
        return self("POST", "/v1/users", user, namespace)["user"]["id"]

    def login(self, name, status=200, password=PASSWORD):
        reply = self("POST", "/v1/sessions", {"username": name, "password": password}, status=status)
        return reply.get("session", {}).get("id")


class Filled:
    """A database with some of everything, and what a caller kept of it."""

    def __init__(self, db):
        self.key = new_key(db, "*", EVERY_SCOPE)
        with Server(db.url) as server:
            call = Caller(server, self.key)
            for n in range(3):
                user = call.create(f"user{n}", name=f"Nûmber {n} \N{SNOWMAN}")
                call("PATCH", f"/v1/users/{user}/prefs", {"prefs": {"n": n, "deep": {"a": [1.5, "\N{SNOWMAN}"]}}})
            self.ada = ada = call.create("ada", idempotencyKey="once")
            call("PATCH", f"/v1/users/{ada}", {"labels": ["staff"], "metadata": {"team": "x"}})
            call.create("ada", namespace="rival")
            trashed = call.create("trashed")
            call("DELETE", f"/v1/users/{trashed}")
            purged = call.create("purged")
            call("DELETE", f"/v1/users/{purged}")
            call("DELETE", f"/v1/trash/{purged}")
            self.token = call.login("ada")
            call.login("ada", 401, "wrong horse")
            self.page = call("GET", "/v1/users?limit=2")["nextPageToken"]
            self.rest = call("GET", f"/v1/users?limit=2&page_token={self.page}")["users"]
        # The newest events are gone, as old ones are in time: their numbers must not be given again.
        self.last = int(db.query("SELECT max(seq) FROM events")[0][0])
        db.query(f"DELETE FROM events WHERE seq > {self.last - 2}")

    def is_served_from(self, db, name):
        """Everything that a caller kept is good at a server on the copy, and the copy goes on where the original ended."""
        with Server(db.url) as server:
            call = Caller(server, self.key)
            session = call("POST", "/v1/sessions:read", {"sessionId": self.token})["session"]
            assert_equal(session["username"], "ada", "the session's user")
            call.login("ada")
            call.login("user1", 401, "wrong horse")
            rest = call("GET", f"/v1/users?limit=2&page_token={self.page}")
            assert_equal((rest["users"], rest["total"]), (self.rest, "4"), "the page after the token")
            found = call("GET", "/v1/users?search=mber%201")["users"]
            assert_equal([user["username"] for user in found], ["user1"], "what a search finds")
            for path, total in [("/v1/users?limit=1", "4"), ("/v1/trash?limit=1", "1")]:
                assert_equal(call("GET", path)["total"], total, path)
            assert_equal(call("GET", "/v1/users?limit=1", namespace="rival")["total"], "1", "users of the other tenant")
            assert_equal(call.create("ada", idempotencyKey="once"), self.ada, "the user of a repeated call")
            new = call.create(name)
            found = call("GET", f"/v1/users?search={name}")["users"]
            assert_equal([user["id"] for user in found], [new], "the new user, by a search")
            call("POST", "/v1/users", {"username": "ada", "email": "x@example.com", "ssoEnabled": True}, status=409)
        new = int(db.query(f"SELECT seq FROM events WHERE user_id = '{new}' AND action = 'USER_CREATED'")[0][0])
        assert_true(new > self.last, f"event {new} of a new user comes after {self.last}, the last of the original")


def table_rows(path):
    """Every row of the tables that are copied, without the numbers that SQLite itself gave users."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        tables = {}
        for table in (name for name in names if not OWN_TABLES.match(name)):
            columns = sorted(column for _, column, *_ in db.execute(f"PRAGMA table_info({table})") if column != "num")
            tables[table] = sorted(db.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall())
    return tables


def usersd(*arguments, code=0):
    """What the program said on stdout and stderr, with the exit code that it must have."""
    return run(*map(str, arguments), code=code)


# --- Copy -----------------------------------------------------------------------------------------------------


def there_and_back():
    """From SQLite to PostgreSQL and from there to SQLite every table stays equal, and a server goes on with each."""
    with database(Sqlite) as first, database(Postgres) as second, database(Sqlite) as third:
        filled = Filled(first)
        there, said = usersd("copy", "--from", first.url, "--to", second.url)
        assert_true("users: 6 rows" in said, f"the progress of each table: {said}")
        back, _ = usersd("copy", "--from", second.url, "--to", third.url)
        with database(Postgres) as other:
            usersd("copy", "--from", second.url, "--to", other.url)
            filled.is_served_from(other, "onanother")
        assert_equal(there, back, "the checksums of both ways")
        original, copy = table_rows(first.path), table_rows(third.path)
        assert_equal(sorted(original), sorted(line.split("\t")[0] for line in there.splitlines()), "the tables that are copied")
        assert_equal(copy, original, "the rows")
        assert_true(all(original[name] for name in ("users", "sessions", "events", "keys", "attempts", "secrets")), "rows of each kind")
        for db in (second, third):
            usersd("doctor", "--database", db.url)
        filled.is_served_from(second, "onpostgres")
        filled.is_served_from(third, "onsqlite")


def refusals():
    """Copying never adds to data, nor reads a schema that this program does not know, of which a backup is a copy all the same."""
    with database(Sqlite) as full, database(Sqlite) as other:
        new_key(full, "default", "users.read")
        usersd("migrate", "up", "--database", other.url)
        usersd("copy", "--from", full.url, "--to", other.url)
        before = table_rows(other.path)
        _, said = usersd("copy", "--from", full.url, "--to", other.url, code=1)
        assert_true("already holds events" in said, said)
        assert_equal(table_rows(other.path), before, "the target that was refused")
        missing = full.folder / "missing.db"
        _, said = usersd("copy", "--from", f"sqlite://{missing}?mode=rwc", "--to", other.url, code=1)
        assert_true("there is no database" in said and not missing.exists(), said)
        full.query("DELETE FROM seaql_migrations WHERE version LIKE '%000009%'")
        _, said = usersd("copy", "--from", full.url, "--to", f"sqlite://{missing}?mode=rwc", code=1)
        assert_true("the source" in said and "usersd migrate up" in said, said)
        full.query("INSERT INTO seaql_migrations VALUES ('m20991231_000001_later', 0)")
        _, said = usersd("copy", "--from", full.url, "--to", f"sqlite://{missing}?mode=rwc", code=1)
        assert_true("lacks" in said and "m20991231_000001_later" in said, said)
        full.query("INSERT INTO seaql_migrations VALUES ('m20261126_000009_totals', 0)")
        _, said = usersd("copy", "--from", full.url, "--to", f"sqlite://{missing}?mode=rwc", code=1)
        assert_true("migrated the source" in said and "m20991231_000001_later" in said, said)
        usersd("backup", "--database", full.url, full.folder / "copy.db")


def progress_on_a_terminal():
    """On a terminal each table has a bar, drawn over itself, that ends full; elsewhere a line."""
    with database(Sqlite) as first, database(Sqlite) as second:
        with Server(first.url) as server:
            client = Canonical(server, "default")
            for n in range(3):
                client.call("Create", {"username": f"user{n}", "ssoEnabled": True})
        terminal, end = pty.openpty()
        command = [BINARY, "copy", "--from", first.url, "--to", second.url]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=end, env=environment())
        os.close(end)
        drawn = b""
        # Linux ends a terminal that nobody has open any more by an error.
        with contextlib.suppress(OSError):
            while some := os.read(terminal, 4096):
                drawn += some
        os.close(terminal)
        checksums, _ = process.communicate(timeout=30)
        assert_equal(process.returncode, 0, f"exit code: {drawn}")
        tables = [line.split("\t")[0] for line in checksums.decode().splitlines()]
        # What each line shows at last: what came before was drawn over.
        bars = [line.rstrip("\r").split("\r")[-1] for line in drawn.decode().split("\n")]
        bars = [re.fullmatch(r"(\S.*?) +\[(#{30})\] (\d+) of (\d+)", bar) for bar in bars]
        shown = {bar[1]: bar[3] for bar in bars if bar and bar[3] == bar[4]}
        assert_equal(list(shown), [*tables, "search index"], f"bars that ended full, in {drawn}")
        assert_equal((shown["users"], shown["search index"]), ("3", "3"), "users by their bars")
        assert_true(b"users: 3 rows" not in drawn, f"lines for a log, in {drawn}")


# --- Backup ---------------------------------------------------------------------------------------------------


def restore_steps():
    """The manual's commands for restoring."""
    manual = (ROOT / "deploy" / "README.md").read_text()
    return re.search(r"^To restore.*?^```sh norun\n(.*?)^```", manual, re.M | re.S)[1]


def beside_writers():
    """A backup has all that was acknowledged before it began, is private, replaces nothing, and can be restored."""
    with database(Sqlite) as db:
        key = new_key(db, "*", EVERY_SCOPE)
        copy = db.folder / "copy.db"
        server = Server(db.url)
        try:
            stop, acknowledged = threading.Event(), []

            def write(writer):
                call = Caller(server, key)
                while not stop.is_set():
                    acknowledged.append(call.create(f"w{writer}-{len(acknowledged)}", password="", ssoEnabled=True))

            writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
            for writer in writers:
                writer.start()
            try:
                until(lambda: len(acknowledged) >= 20, 30, "twenty users are there")
                known = list(acknowledged)
                usersd("backup", "--database", db.url, copy)
                during = len(acknowledged)
                until(lambda: len(acknowledged) > during, 30, "writers go on")
            finally:
                stop.set()
                for writer in writers:
                    writer.join()
            kept = {row[0] for row in sqlite3.connect(copy).execute("SELECT id FROM users")}
            assert_equal([user for user in known if user not in kept], [], "users that the backup lacks")
            assert_equal(stat.S_IMODE(copy.stat().st_mode), 0o600, "the mode of the backup")
            before = copy.read_bytes()
            _, said = usersd("backup", "--database", db.url, copy, code=1)
            assert_true("exists" in said and copy.read_bytes() == before, f"a file that is there is left alone: {said}")
            assert_equal([name for name in os.listdir(db.folder) if "part" in name], [], "files that are left over")
            usersd("doctor", "--database", f"sqlite://{copy}")
            late = Caller(server, key).create("late")
        finally:
            server.kill()  # which leaves a -wal behind, as a crash does
        os.rename(db.path, db.folder / "usersd.db")
        for end in ("-wal", "-shm"):
            os.rename(f"{db.path}{end}", db.folder / f"usersd.db{end}")
        subprocess.run(["bash", "-e", "-c", restore_steps()], cwd=db.folder, check=True, timeout=30)
        with Server(f"sqlite://{db.folder}/usersd.db") as server:
            call = Caller(server, key)
            assert_equal(call("GET", f"/v1/users/{known[0]}")["user"]["id"], known[0], "a user of before")
            call("GET", f"/v1/users/{late}", status=404)


# --- Doctor ---------------------------------------------------------------------------------------------------


def findings(db, code, *arguments):
    out, _ = usersd("doctor", "--database", db.url, "--json", *arguments, code=code)
    return {finding["check"]: finding for finding in json.loads(out)}


def graded(db, code, **expected):
    """The checks that are not well, with their grades; all of them say what to do."""
    found = findings(db, code)
    wrong = {name.replace(" ", "_"): finding["grade"] for name, finding in found.items() if finding["grade"] != "ok"}
    assert_equal(wrong, expected, f"what is not well of {found}")
    assert_equal([name for name, finding in found.items() if finding["grade"] != "ok" and not finding["advice"]], [], "no advice")


def doctor(kind):
    """Each fault is found and named with what to do about it, while a server runs; a database that is well has none."""
    with database(kind) as db:
        usersd("migrate", "up", "--database", db.url)
        graded(db, 0, keys="warning")
        new_key(db, "default", EVERY_SCOPE)
        assert_true("--namespace '*'" in findings(db, 0)["root keys"]["advice"], "how to make a root key")
        key = new_key(db, "*", EVERY_SCOPE)
        assert_equal(findings(db, 0)["root keys"]["advice"], "", "the advice where there is one")
        with Server(db.url) as server:
            user = Caller(server, key).create("ada")
            out, _ = usersd("doctor", "--database", db.url)
            assert_true("FAULT" not in out and "warning" not in out, out)
            new_key(db, "default", "users.read", expires="1d")
            graded(db, 0, keys="warning")
            db.query("UPDATE user_totals SET live = live + 1")
            graded(db, 1, keys="warning", totals="fault")
            db.query("UPDATE user_totals SET live = live - 1")
            db.query("UPDATE events SET at = at + 86400000000")
            graded(db, 0, keys="warning", clock="warning")
            db.query("UPDATE events SET at = at - 86400000000")
            if kind is Sqlite:
                db.query("DELETE FROM users_search_docsize")
                graded(db, 1, keys="warning", search_index="fault")
                os.chmod(db.path, 0o644)
                graded(db, 1, keys="warning", search_index="fault", files="fault")
            else:
                db.query(f"DELETE FROM users_search WHERE id = '{user}'")
                graded(db, 1, keys="warning", search_index="fault")
                db.query("ALTER TABLE users DISABLE TRIGGER users_total_insert")
                graded(db, 1, keys="warning", search_index="fault", integrity="fault")
        db.query("UPDATE keys SET expires = 1")
        assert_true("3 have expired" in findings(db, 1)["keys"]["found"], "keys that have all expired")
        db.query("DELETE FROM seaql_migrations WHERE version LIKE '%000009%'")
        assert_true("usersd migrate up" in findings(db, 1)["schema"]["advice"], "what to do about a schema that is too old")


# --- Files that must not be served from -----------------------------------------------------------------------


def refused(url, *words):
    """The start fails, in words that name the fault."""
    server = Server(url, wait=False)
    try:
        assert_equal(server.wait(), 1, f"exit code; it said:\n{server.log()}")
        for word in words:
            assert_true(word in server.log(), f"{word!r} in:\n{server.log()}")
    finally:
        server.kill()


def damaged_files():
    """A file that is damaged, or of another program, is named at the start, and nothing is served from it."""
    with database(Sqlite) as db:
        Filled(db)
        whole = db.path.read_bytes()
        with contextlib.closing(sqlite3.connect(db.path)) as file:
            size = file.execute("PRAGMA page_size").fetchone()[0]
            roots = dict(file.execute("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0"))
        for name in ("users", "sessions", "events_by_user", "keys"):
            at = (roots[name] - 1) * size
            db.path.write_bytes(whole[:at] + os.urandom(size) + whole[at + size :])
            refused(db.url, "is damaged", str(db.path))
        for content in (whole[: len(whole) // 2], b"These are not the users.\n" * 400, b"\0" * 8192):
            db.path.write_bytes(content)
            refused(db.url, "is damaged", str(db.path))
        db.path.write_bytes(whole)
        Server(db.url).stop()
        db.path.unlink()
        db.query("CREATE TABLE albums (title TEXT)")
        refused(db.url, "another program", "albums")
        _, said = usersd("doctor", "--database", db.url, code=1)
        db.path.write_bytes(whole[: 3 * size] + os.urandom(size) + whole[4 * size :])
        out, _ = usersd("doctor", "--database", db.url, code=1)
        assert_true("FAULT" in out and "restore" in out, out)


def replaced_file():
    """A file that another one takes the place of is noticed: calls are refused from then on, until a start on the new file."""
    with database(Sqlite) as db:
        filled = Filled(db)
        copy = db.folder / "copy.db"
        usersd("backup", "--database", db.url, copy)
        server = Server(db.url)
        try:
            call = Caller(server, filled.key)
            call.create("before")
            os.rename(copy, db.path)
            until(lambda: "replaced by another file" in server.log(), 30, f"a line in the log: {server.log()}")
            reply = call("POST", "/v1/users", {"username": "after", "ssoEnabled": True}, status=503)
            assert_true("DATABASE_UNAVAILABLE" in json.dumps(reply), reply)
            server.signal(15)
            assert_equal(server.wait(), 1, "exit code of a server whose file is gone")
        finally:
            server.kill()
        for end in ("-wal", "-shm"):
            os.unlink(f"{db.path}{end}")
        filled.is_served_from(db, "restored")


def health():
    """The program tells a container by its exit code whether the server in it is ready."""
    answers = iter([(200, "ready"), (503, "not ready")])

    class Readiness(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, word = next(answers) if self.path == "/readyz" else (404, "")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(word.encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Readiness) as listener:
        address = f"127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=lambda: [listener.handle_request() for _ in range(2)])
        thread.start()
        assert_equal(usersd("health", address)[0], "ready\n", "what it prints")
        assert_equal(usersd("health", address, code=1)[0], "not ready\n", "what it prints")
        thread.join(10)
    _, said = usersd("health", address, code=1)
    assert_true("does not answer" in said, said)


def version():
    """The version names the commit that was built, or says that it is not known."""
    out, _ = usersd("--version")
    assert_true(re.fullmatch(r"usersd \d+\.\d+\.\d+ \((unknown|[0-9a-f]{7,40})\)\n", out), out)


def peppers():
    """SIGHUP has the keys of passwords.pepper read again; doctor counts who needs one that is gone, and names a file that anyone
    may read."""
    with database(Sqlite) as db:
        key, file = new_key(db, "*", EVERY_SCOPE), db.folder / "peppers"
        one, two = (f"{version} {base64.b64encode(os.urandom(32)).decode()}\n" for version in (1, 2))
        file.write_text(one)
        file.chmod(0o600)
        env = {"USERSD_PASSWORDS_PEPPER": str(file)}

        def found(code):
            out, _ = run("doctor", "--database", db.url, "--json", env=env, code=code)
            return {finding["check"]: finding for finding in json.loads(out)}

        with Server(db.url, env) as server:
            call = Caller(server, key)
            call.create("ada")
            assert_equal(found(0)["peppers"]["grade"], "ok", "each key is there")
            for content, says in ((two + one, "reloaded log level"), ("nonsense", "cannot be reloaded")):
                file.write_text(content)
                server.signal(signal.SIGHUP)
                until(lambda: any(says in line for line in server.lines), 20, f"a line about it in:\n{server.log()}")
                call.login("ada")
            (hash,), = db.query("SELECT password_hash FROM users")
            assert_true(hash.startswith("$bcrypt-hmac-sha384$v=1,k=2,"), f"the log-in went over to the new key: {hash}")
            file.write_text(one)
            file.chmod(0o644)
            wrong = found(1)
            assert_true("1 passwords" in wrong["peppers"]["found"], wrong)
            assert_true(str(file) in wrong["files"]["found"], wrong)
        file.write_text("1 short")
        _, said = run("--database", db.url, "--listen", "127.0.0.1:0", env=env, code=64)
        assert_true("passwords.pepper" in said and "line 1" in said and "short" not in said, said)


def tests():
    yield "whole / peppers", peppers
    yield "whole / copy to postgres and back", there_and_back
    yield "whole / copy refuses", refusals
    yield "whole / copy on a terminal", progress_on_a_terminal
    yield "whole / backup beside writers, and restore", beside_writers
    yield "whole / doctor / sqlite", doctor, Sqlite
    yield "whole / doctor / postgres", doctor, Postgres
    yield "whole / damaged files", damaged_files
    yield "whole / replaced file", replaced_file
    yield "whole / health", health
    yield "whole / version", version

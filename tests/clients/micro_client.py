"""The micro framework's own client (v3.3.0), as generated clients use it (protobuf) and as dynamic ones do (JSON)."""

import json
import subprocess

from harness import EVERY_SCOPE, Server, Sqlite, ROOT, database, assert_equal, new_key

PROGRAM = ROOT / "target/clients/bin/micro"


def calls():
    """Calls work, and every error has the id, the code and the text that the first service's had."""
    with database(Sqlite) as db:
        key = new_key(db, "micro", EVERY_SCOPE)
        with Server(db.url) as server:
            done = subprocess.run([PROGRAM, "call", server.address, key], capture_output=True, text=True, timeout=60)
    assert_equal(done.returncode, 0, f"exit code: {done.stderr}")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    for form in ("proto", "json"):
        made, read, missing, taken, wrong, unknown = (one for one in told if one["Form"] == form)
        assert_equal((made["Error"], read["Error"]), (None, None), f"errors of good calls, {form}")
        user = read["Reply"]["user"]
        assert_equal((user["id"], user["username"], user["email"]), (form, form, f"{form}@example.com"), f"the user, {form}")
        error = missing["Error"]
        want = {"Id": "users.Read", "Code": 404, "Detail": "no such user", "Status": "Not Found"}
        assert_equal({name: error[name] for name in want}, want, f"no such user, {form}")
        for one, code, id, part in [
            (taken, 409, "users.Create", "username is taken"),
            (wrong, 400, "users.Create", "username"),
            (unknown, 401, "users.Read", "API key"),
        ]:
            error = one["Error"]
            assert_equal((error["Id"], error["Code"], part in error["Detail"]), (id, code, True), f"{error}, {form}")


def tests():
    """Name, function, arguments."""
    yield "micro's client / replies and errors, protobuf and JSON", calls

"""schemathesis makes calls of /openapi.json, right and wrong ones: every reply is one that the document describes."""

import subprocess

from harness import EVERY_SCOPE, POSTGRES, ROOT, Postgres, Server, Sqlite, Wrong, database, assert_equal, new_key

PROGRAM = ROOT / "target" / "clients" / "schema" / "bin" / "st"

# What a call is answered, not which calls are accepted: proto3 JSON reads more than it writes, such as int64 as numbers.
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance",
)

# The same calls in each run.
SEED = "20261126"


def every_reply_is_described(kind):
    with database(kind) as db:
        key = new_key(db, "default", EVERY_SCOPE)
        with Server(db.url, key=key) as server:
            done = subprocess.run(
                [PROGRAM, "run", f"http://{server.address}/openapi.json", "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing",
                 "--max-examples", "10", "--max-time", "40", "--seed", SEED, "--header", f"Authorization: Bearer {key}", "--warnings", "off",
                 "--suppress-health-check", "all", "--request-timeout", "60", "--continue-on-failure",
                 "--generation-database", "none", "--no-color"],
                capture_output=True, text=True, timeout=300, cwd=db.folder if kind is Sqlite else ROOT / "target",
            )
            if done.returncode != 0:
                raise Wrong(done.stdout + done.stderr)
            assert_equal([line for line in server.lines if "ERROR" in line or "panicked" in line], [], "faults in the log")


def tests():
    kind = Postgres if POSTGRES else Sqlite
    yield "schemathesis", every_reply_is_described, kind

"""What is refused before its body was read, over one kept connection: every answer arrives, and the connection stays."""

import contextlib
import http.client
import json
import subprocess

from harness import EVERY_SCOPE, ROOT, Server, Sqlite, database, assert_equal, new_key

POSTS = 200

# Method, path, key, media type, and the answer.
REFUSED = [
    ("POST", "/v1/users", "unknown", "application/json", 401),
    ("POST", "/v1/nope", None, "application/json", 404),
    ("PUT", "/v1/users", None, "application/json", 405),
    ("POST", "/v1/users", "reader", "application/json", 403),
    ("POST", "/v1/users", "good", "text/plain", 415),
    ("POST", "/users/Users/Create", "unknown", "application/json", 401),
    ("POST", "/users/Users/Create", "reader", "application/json", 403),
    ("POST", "/appwrite/v1/users", "unknown", "application/json", 401),
    ("POST", "/meiro/users", "unknown", "application/json", 401),
]


@contextlib.contextmanager
def server():
    with database(Sqlite) as db:
        keys = {
            "good": new_key(db, "default", EVERY_SCOPE), "reader": new_key(db, "default", "users.read"),
            "unknown": "usk_" + "0" * 64, None: "",
        }
        with Server(db.url) as running:
            yield running, keys


def by_python():
    """http.client, which sends the head and the body one after the other."""
    with server() as (running, keys):
        for verb, path, key, media, want in REFUSED:
            headers = {"content-type": media, "authorization": f"Bearer {keys[key]}", "x-appwrite-project": "default"}
            broken, others, sockets = 0, [], set()
            with contextlib.closing(http.client.HTTPConnection(running.host, running.port, timeout=30)) as connection:
                for _ in range(POSTS):
                    try:
                        connection.request(verb, path, b"x" * 100, headers)
                        sockets.add(connection.sock.getsockname() if connection.sock else None)
                        reply = connection.getresponse()
                        reply.read()
                        if reply.status != want:
                            others.append(reply.status)
                    except (OSError, http.client.HTTPException):
                        broken += 1
                        connection.close()
            assert_equal((broken, others[:3], len(sockets)), (0, [], 1), f"broken, other answers, connections: {verb} {path} {want}")


NODE = """
const http = require("http");
const [address, verb, path, posts] = process.argv.slice(1);
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const body = Buffer.alloc(65536, "x"), told = { broken: 0, sockets: 0, statuses: {} }, seen = new Set();
function next(left) {
  if (left === 0) { agent.destroy(); console.log(JSON.stringify({ ...told, sockets: seen.size })); return; }
  const headers = { "content-type": "application/json", "content-length": body.length };
  const request = http.request(`http://${address}${path}`, { method: verb, agent, headers }, (reply) => {
    told.statuses[reply.statusCode] = (told.statuses[reply.statusCode] ?? 0) + 1;
    reply.resume();
    reply.on("end", () => setImmediate(next, left - 1));
  });
  let gone = false;
  request.on("socket", (socket) => seen.add(socket));
  request.on("error", () => { if (!gone) { gone = true; told.broken += 1; setImmediate(next, left - 1); } });
  request.write(body.subarray(0, 1000));
  request.end(body.subarray(1000));
}
next(Number(posts));
"""


def by_node():
    """http.Agent, with 64 KiB in two pieces."""
    with server() as (running, _):
        for verb, path, want in (("POST", "/v1/users", 401), ("POST", "/v1/nope", 404), ("PUT", "/v1/users", 405)):
            done = subprocess.run(["node", "-e", NODE, running.address, verb, path, str(POSTS)],
                                  capture_output=True, text=True, timeout=60)
            assert_equal(done.returncode, 0, f"exit code of node: {done.stderr}")
            told = json.loads(done.stdout)
            assert_equal(told, {"broken": 0, "sockets": 1, "statuses": {str(want): POSTS}}, f"{verb} {path}")


def by_go():
    """net/http, in chunks and with 64 KiB."""
    with server() as (running, _):
        for status, paths in (("401", ["/v1/users", "/meiro/users"]), ("404", ["/v1/nope", "/users/nope"])):
            done = subprocess.run([ROOT / "target/clients/bin/micro", "posts", running.address, status, *paths],
                                  capture_output=True, text=True, timeout=60)
            assert_equal(done.returncode, 0, f"exit code: {done.stderr}")
            for line in done.stdout.splitlines():
                assert_equal(line.endswith("broken 0, others 0, connections 1"), True, f"what came: {line}")


def tests():
    """Name, function, arguments."""
    for name, function in (("http.client", by_python), ("Node", by_node), ("Go", by_go)):
        yield f"early / {POSTS} refused bodies by {name}", function

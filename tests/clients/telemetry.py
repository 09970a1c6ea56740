"""What the operator has: metrics on a port of their own, log lines, SIGHUP, and the drain delay."""

import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request

from harness import ROOT, Server, Sqlite, database, assert_equal, assert_matches, run, assert_true, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def monitor(server):
    """The address of the second listener, as the log tells it."""
    lines = [line for line in server.lines if "metrics and health are served" in line]
    return lines[0].split("address=")[1].split()[0]


def fetched(address, path):
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ports():
    """A port that is taken stops the start, and the message names the setting."""
    with database(Sqlite) as db, Server(db.url, {"USERSD_METRICS_LISTEN": "127.0.0.1:0"}) as server:
        address = monitor(server)
        status, text = fetched(address, "/metrics")
        assert_equal(status, 200, "status of /metrics")
        assert_matches(text.split("usersd_build_info{")[1].split("}")[0], 'version="[^"]+",commit="[^"]+"', "the program")
        lint(text)
        status, _ = fetched(server.address, "/metrics")
        assert_equal(status, 404, "status of /metrics where callers are")
        with database(Sqlite) as other:
            taken = {"USERSD_METRICS_LISTEN": address}
            _, said = run("--listen", "127.0.0.1:0", "--database", other.url, env=taken, code=1)
            assert_true("metrics.listen" in said and address in said, f"the setting and the address are named in:\n{said}")


def lint(text):
    """Names, units and help as Prometheus' own checker wants them, where it is installed."""
    program = shutil.which("promtool", path=f"{ROOT}/target/clients/bin:{os.environ['PATH']}")
    if program is None:
        print("     skipped: promtool is not installed")
        return
    done = subprocess.run([program, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert_equal((done.returncode, done.stdout + done.stderr), (0, ""), "what promtool says of /metrics")


def call(server, number):
    """A call that fails, whose lines in the log are found by its id."""
    headers = {"content-type": "application/json", "x-request-id": f"call-{number}", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    body = json.dumps({"sessionId": "ses_" + "0" * 64}).encode()
    request = urllib.request.Request(f"http://{server.address}/v1/sessions:read", body, headers)
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError as error:
        assert_equal(error.code, 404, "status of an unknown session")


def hung_up(server, times):
    server.signal(signal.SIGHUP)
    until(lambda: sum("SIGHUP" in line for line in server.lines) == times, 20, f"{times} lines about SIGHUP in:\n{server.log()}")


def levels():
    """SIGHUP changes the log level without a restart, and wrong settings change nothing."""
    with database(Sqlite) as db:
        file = db.folder / "usersd.toml"
        file.write_text("[log]\nlevel = 'info'\nformat = 'json'\n")
        with Server(db.url, arguments=["--config", str(file)]) as server:
            call(server, 1)
            file.write_text("[log]\nlevel = 'debug'\nformat = 'json'\n[pool]\nconnections = 20\n")
            hung_up(server, 1)
            assert_true("pool.connections" in server.lines[-1], f"what needs a restart is named in:\n{server.log()}")
            call(server, 2)
            until(lambda: any("call-2" in line for line in server.lines), 20, "a line of the second call")
            lines = [json.loads(line) for line in server.lines]
            assert_true(not any(line.get("request_id") == "call-1" for line in lines), "a call at level info has no line")
            line = next(line for line in lines if line.get("request_id") == "call-2" and line["message"] == "call")
            known = {name: line[name] for name in ("trace_id", "method", "path", "code", "reason")}
            assert_equal(known, {
                "trace_id": TRACE, "method": "users.Users/ReadSession", "path": "/v1/sessions:read",
                "code": "NOT_FOUND", "reason": "SESSION_NOT_FOUND",
            }, "what the line of a call has")
            assert_true(line["caller"] and line["millis"] >= 0, "who called, and how long it took")
            file.write_text("[log]\nlevel = 'info'\n[nonsense]\na = 1\n")
            hung_up(server, 2)
            call(server, 3)
            until(lambda: any("call-3" in line for line in server.lines), 20, "the level is still debug")


def drains():
    """After SIGTERM the server says that it is not ready and serves on, until a second signal."""
    with database(Sqlite) as db:
        server = Server(db.url, {"USERSD_DRAIN_DELAY": "1h"})
        try:
            assert_equal(fetched(server.address, "/readyz")[0], 200, "status of /readyz")
            server.signal(signal.SIGTERM)
            until(lambda: fetched(server.address, "/readyz")[0] == 503, 20, "not ready")
            assert_equal(fetched(server.address, "/livez")[0], 200, "status of /livez")
            call(server, 1)
            server.signal(signal.SIGTERM)
            assert_equal(server.wait(30), 0, "exit code after the second signal")
        finally:
            server.kill()


def tests():
    return [
        ("telemetry / ports", ports), ("telemetry / SIGHUP and log lines", levels), ("telemetry / the drain delay", drains),
    ]

"""Runs usersd and calls it with real clients: `tests/run clients`.

`target/clients/venv/bin/python tests/clients/run.py grpcurl` runs only the tests with `grpcurl` in their names, once
`tests/run clients` has made what they need; USERSD_TEST_POSTGRES names a PostgreSQL server, without it SQLite alone is
tested.
"""

import argparse
import contextlib
import pathlib
import sys

import appwrite_users
import appwrite_wire
import assertions
import conformance
import countries
import docs
import early
import endurance
import failover
import faults
import files
import gateway
import keys
import messages
import micro_client
import middleware
import namespaces
import outages
import overload
import pages
import queries
import races
import replicas
import rolling
import schema
import sdks
import service_config
import strained
import telemetry
import tls
import transports
import walks
import web
import whole
from accounts import Accounts
from examples import Examples
from harness import BINARY, EVERY_SCOPE, POSTGRES, Postgres, Runner, Server, Sqlite, database, assert_equal, new_key, assert_true
from meiro import Meiro
from passwords import Passwords


def describes(server):
    """What grpcurl learns by reflection and from the health service."""
    grpcurl = transports.Grpcurl(server, "default")

    def said(*arguments):
        done = grpcurl.run(server.address, *arguments)
        assert_equal(done.returncode, 0, f"exit code of grpcurl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    services = said("list").split()
    for service in ("users.Users", "users.Keys", "users.Namespaces", "grpc.health.v1.Health"):
        assert_true(service in services, f"{service} is listed among {services}")
    methods = {line.removeprefix("users.Users.") for line in said("list", "users.Users").split()}
    assert_equal(methods, set(transports.ROUTES), "methods of users.Users")
    text = said("describe", "users.Users")
    assert_true("rpc Login ( .users.LoginRequest ) returns ( .users.LoginResponse )" in text, f"Login is described in:\n{text}")
    assert_true("message UpdatePasswordRequest" in said("describe", "users.UpdatePasswordRequest"), "a message is described")
    for request in ("{}", '{"service":"users.Users"}'):
        done = grpcurl.run("-d", request, server.address, "grpc.health.v1.Health/Check")
        assert_equal((done.returncode, "".join(done.stdout.split())), (0, '{"status":"SERVING"}'), f"health {request}")
    done = grpcurl.run("-d", '{"service":"none"}', server.address, "grpc.health.v1.Health/Check")
    assert_true("NotFound" in done.stderr, f"health of a service that is not here: {done.stderr}")
    for version in ("v1", "v1alpha"):
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        list_services = bytes([7 << 3 | 2, 0])
        headers = {"content-type": "application/grpc", "te": "trailers"}
        _, data, trailers = transports.call_h2(server.address, path, headers, transports.frame(list_services))
        assert_equal((trailers["grpc-status"], b"users.Users" in data), ("0", True), f"services by reflection {version}")


def unknown_methods(server):
    """Every way to call what is not there is told so in its own words."""
    host = f"http://{server.address}"
    status, _, body = transports.curl(f"{host}/users/Users/Nothing", "-d", "{}")
    assert_equal(status, 404, f"HTTP status in the old dialect: {body}")
    status, headers, _ = transports.curl(f"{host}/users/Users/Create")
    assert_equal((status, headers.get("allow")), (405, "POST"), "GET in the old dialect")
    status, _, body = transports.curl(f"{host}/v1/nothing")
    assert_equal(status, 404, f"HTTP status of an unknown path: {body}")
    status, headers, _ = transports.curl("-X", "PUT", f"{host}/v1/users")
    assert_equal((status, "POST" in headers.get("allow", "")), (405, True), "an unknown verb")
    who = transports.as_options(transports.Canonical(server, "default").who())
    status, _, _ = transports.curl(f"{host}/v1/users", "-d", "{}", *who)
    assert_equal(status, 415, "a form on a canonical path")
    for media in ("application/grpc", "application/grpc+json", "application/grpc+proto"):
        headers = {"content-type": media, "te": "trailers"}
        first, _, last = transports.call_h2(server.address, "/users.Users/Nothing", headers, transports.frame(b""))
        assert_equal({**first, **last}.get("grpc-status"), "12", f"status of an unknown method, {media}")


def steps(kind, over, cases, runner):
    """All steps of some cases, in their order."""
    for name, step in cases.steps():
        runner.run(f"{kind.kind} / {over} / {name}", step)


def on(kind, runner):
    """Everything that one server can be asked, by a caller whose key is good for every namespace."""
    on_for_examples(kind, runner)
    with database(kind) as db, Server(db.url, key=new_key(db, "*", EVERY_SCOPE)) as server:
        for number, make in enumerate([transports.PythonClient, transports.Grpcurl, transports.Canonical]):
            with contextlib.closing(make(server, f"accounts-{number}")) as over:
                steps(kind, over.name, Accounts(over), runner)
        runner.run(f"{kind.kind} / grpcurl / list, describe, health", describes, server)
        runner.run(f"{kind.kind} / unknown methods", unknown_methods, server)
        passwords = Passwords(server, db)
        with contextlib.closing(passwords.client):
            steps(kind, "passwords", passwords, runner)
        steps(kind, Meiro.name, Meiro(server), runner)
        runner.run(f"{kind.kind} / Appwrite / a password against our policy", appwrite_wire.against_policy, server)
        faultless(kind, server, runner)


def on_for_examples(kind, runner):
    """What the pages of the first service print, with the passwords that they print."""
    lax = {"USERSD_PASSWORDS_SCREENING": "false"}
    with database(kind) as db, Server(db.url, lax, key=new_key(db, "*", EVERY_SCOPE)) as server:
        for number, make in enumerate(transports.ALL):
            with contextlib.closing(make(server, f"examples-{number}")) as over:
                steps(kind, over.name, Examples(over), runner)
        faultless(kind, server, runner)


def on_for_appwrite(kind, runner):
    """What programs for Appwrite ask a server that is set up for them."""
    with contextlib.ExitStack() as stack:
        db = stack.enter_context(database(kind))
        server = stack.enter_context(Server(db.url, appwrite_users.SETTINGS))
        for make in sdks.ALL:
            sdk = stack.enter_context(contextlib.closing(make(server, "sdk-" + make.__name__.lower())))
            steps(kind, sdk.name, appwrite_users.AppwriteUsers(sdk), runner)
        steps(kind, "Appwrite on the wire", appwrite_wire.Wire(server), runner)
        runner.run(f"{kind.kind} / countries", countries.known, db, server)
        faultless(kind, server, runner)


def faultless(kind, server, runner):
    for line in server.lines:
        if "ERROR" in line or "panicked" in line:
            runner.run(f"{kind.kind} / the log shows a fault: {line}", assert_true, False, line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="?", default="", help="run only tests with this in their names")
    parser.add_argument("--result", type=pathlib.Path, help="also write the last line to this file")
    options = parser.parse_args()

    assert_true(BINARY.exists(), f"{BINARY} is missing: run `cargo build`")
    transports.generate()
    runner = Runner(options.only)
    kinds = [Sqlite, Postgres] if POSTGRES else [Sqlite]
    for kind in kinds:
        on(kind, runner)
        on_for_appwrite(kind, runner)
    for name, function, *arguments in [
        *pages.tests(), *keys.tests(), *namespaces.tests(), *tls.tests(), *early.tests(), *service_config.tests(), *walks.tests(), *web.tests(), *middleware.tests(), *micro_client.tests(), *overload.tests(),
        *endurance.tests(), *races.tests(), *faults.tests(), *outages.tests(), *files.tests(), *strained.tests(),
        *failover.tests(), *replicas.tests(), *rolling.tests(), *telemetry.tests(), *queries.tests(), *whole.tests(),
        *docs.tests(), *schema.tests(), *gateway.tests(), *messages.tests(),
        *assertions.tests(), *conformance.tests(),
    ]:
        if Postgres in kinds or "postgres" not in name.lower():
            runner.run(name, function, *arguments, alone=True)

    if runner.unstable:
        print("\npassed only when run once more:\n" + "\n".join(f"  {name}" for name in runner.unstable))
    if runner.failed:
        print("\nfailed:\n" + "\n".join(f"  {name}" for name in runner.failed))
    result = f"{runner.passed} passed, {len(runner.failed)} failed"
    if options.result:
        options.result.write_text(result + "\n")
    print(result)
    return 1 if runner.failed or not runner.passed else 0


if __name__ == "__main__":
    sys.exit(main())

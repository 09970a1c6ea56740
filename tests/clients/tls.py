"""TLS by real clients, with certificates that openssl made."""

import contextlib
import http.client
import pathlib
import socket
import ssl
import subprocess
import tempfile
import time

import grpc

from harness import EVERY_SCOPE, Server, Sqlite, Wrong, database, assert_equal, new_key, run, assert_true, until
from transports import GRPCURL, PROTO, curl, generate

KNOWN, ROOT_CALLER = "orders.shop.internal", "spiffe://cluster.local/ns/ops/sa/root"

CALLERS = f"""[
  {{ san = "{KNOWN}", namespace = "shop", scopes = ["users.read", "users.write"] }},
  {{ san = "{ROOT_CALLER}", namespace = "*", scopes = ["users.read"] }},
]"""


def openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert_equal(done.returncode, 0, f"exit code of openssl {' '.join(map(str, arguments))}: {done.stderr}")


class Authority:
    """Signs certificates."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.cert, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.cert)

    def sign(self, name, san, usage, expired=False):
        """The certificate and the key."""
        cert, key, request = (self.folder / f"{name}.{suffix}" for suffix in ("pem", "key", "csr"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={san}\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", key, "-out", request)
        # One that ended before it began: openssl takes no date in the past, but a negative number of days.
        openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial",
                "-days", "-1" if expired else "10", "-extfile", extensions, "-out", cert)
        return cert, key

    def revocations(self, *revoked):
        """The list of these certificates, as PEM."""
        index, number, config, crl = (self.folder / f"{self.name}.{suffix}" for suffix in ("index", "number", "cnf", "crl"))
        index.write_text("")
        number.write_text("01")
        config.write_text(f"[ca]\ndefault_ca=own\n[own]\ndatabase={index}\ncrlnumber={number}\ndefault_md=sha256\n"
                          "default_crl_days=30\ncrl_extensions=crl\n[crl]\nauthorityKeyIdentifier=keyid\n")
        signer = ("-config", config, "-cert", self.cert, "-keyfile", self.key)
        for cert in revoked:
            openssl("ca", *signer, "-revoke", cert)
        openssl("ca", *signer, "-gencrl", "-out", crl)
        return crl


@contextlib.contextmanager
def certificates():
    """A folder with everything: who signs, the server's, and clients' of all kinds."""
    with tempfile.TemporaryDirectory(prefix="usersd.") as folder:
        folder = pathlib.Path(folder)
        ours, theirs = Authority(folder, "ours"), Authority(folder, "theirs")
        made = {"folder": folder, "ours": ours, "server": ours.sign("server", "DNS:localhost,IP:127.0.0.1", "serverAuth")}
        for name, authority, san, expired in [
            ("known", ours, f"DNS:{KNOWN}", False),
            ("root", ours, f"DNS:other,URI:{ROOT_CALLER}", False),
            ("both", ours, f"DNS:{KNOWN},URI:{ROOT_CALLER}", False),
            ("unknown", ours, "DNS:billing.shop.internal", False),
            ("expired", ours, f"DNS:{KNOWN}", True),
            ("foreign", theirs, f"DNS:{KNOWN}", False),
        ]:
            made[name] = authority.sign(name, san, "clientAuth", expired)
        yield made


def settings(made, client_auth=None):
    cert, key = made["server"]
    env = {"USERSD_TLS_CERT": str(cert), "USERSD_TLS_KEY": str(key)}
    if client_auth:
        env.update(USERSD_TLS_CLIENT_CA=str(made["ours"].cert), USERSD_TLS_CLIENT_AUTH=client_auth, USERSD_TLS_CALLERS=CALLERS)
    return env


class Secured:
    """Callers over TLS, each with a certificate or none, a key or none."""

    def __init__(self, server, made):
        self.server, self.made = server, made
        self.url = f"https://localhost:{server.port}"

    def curl(self, certificate=None, key=None, path="/v1/users", options=(), namespace=None):
        """The HTTP status and the reason; `None, None` where no connection came about."""
        arguments = [f"{self.url}{path}", "--cacert", str(self.made["ours"].cert), *options]
        if certificate:
            cert, private = self.made[certificate]
            arguments += ["--cert", str(cert), "--key", str(private)]
        if key:
            arguments += ["-H", f"authorization: Bearer {key}"]
        if namespace:
            arguments += ["-H", f"usersd-namespace: {namespace}"]
        try:
            status, _, text = curl(*arguments)
        except Wrong:
            return None, None
        for reason in ("KEY_MISSING_OR_UNKNOWN", "FOREIGN_ORIGIN", "SCOPE_MISSING", "NAMESPACE_MISMATCH", "NAMESPACE_MISSING"):
            if f'"{reason}"' in text:
                return status, reason
        return status, None

    def credentials(self, certificate=None):
        chain, private = (file.read_bytes() for file in self.made[certificate]) if certificate else (None, None)
        return grpc.ssl_channel_credentials(self.made["ours"].cert.read_bytes(), private, chain)


def every_client(server, made, key, certificate=None):
    """HTTP/2 and HTTP/1.1 by curl, a generated client, grpcurl."""
    secured = Secured(server, made)
    for options, version in ((["--http2"], "2"), (["--http1.1"], "1.1")):
        assert_equal(secured.curl(certificate, key, options=options), (200, None), f"curl {options[0]}")
        done = subprocess.run(
            ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_version}", *options, "--cacert", made["ours"].cert,
             *(part for flag, file in zip(("--cert", "--key"), made[certificate] if certificate else ()) for part in (flag, file)),
             f"{secured.url}/"], capture_output=True, text=True, timeout=30)
        assert_equal(done.stdout, version, f"the protocol agreed on: {done.stderr}")
    pb, stubs = generate()
    metadata = [("authorization", f"Bearer {key}")] if key else []
    with grpc.secure_channel(f"localhost:{server.port}", secured.credentials(certificate)) as channel:
        stubs.UsersStub(channel).List(pb.ListRequest(), metadata=metadata, timeout=30)
    flags = [part for flag, file in zip(("-cert", "-key"), made[certificate] if certificate else ()) for part in (flag, file)]
    headers = ["-H", f"authorization: Bearer {key}"] if key else []
    done = subprocess.run([GRPCURL, "-cacert", made["ours"].cert, *flags, *headers, "-import-path", PROTO, "-proto",
                           "users.proto", "-d", "{}", f"localhost:{server.port}", "users.Users/List"],
                          capture_output=True, text=True, timeout=60)
    assert_equal(done.returncode, 0, f"exit code of grpcurl: {done.stderr}")


def served():
    """TLS and a key, by every client; what is not TLS is not answered."""
    with certificates() as made, database(Sqlite) as db:
        key = new_key(db, "shop", EVERY_SCOPE)
        with Server(db.url, settings(made)) as server:
            every_client(server, made, key)
            secured = Secured(server, made)
            assert_equal(secured.curl(), (401, "KEY_MISSING_OR_UNKNOWN"), "without a key")
            assert_equal(secured.curl("known"), (401, "KEY_MISSING_OR_UNKNOWN"), "a certificate that nobody asked for")
            with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=10)) as plain:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    plain.request("GET", "/v1/users", headers={"authorization": f"Bearer {key}"})
                    raise Wrong(f"a plain request was answered: {plain.getresponse().status}")


def mutual():
    """Who has which certificate is let in as whom."""
    with certificates() as made, database(Sqlite) as db:
        key = new_key(db, "shop", EVERY_SCOPE)
        with Server(db.url, settings(made, "required")) as server:
            every_client(server, made, None, "known")
            secured = Secured(server, made)
            assert_equal(secured.curl("known", namespace="shop"), (200, None), "its own namespace")
            assert_equal(secured.curl("known", namespace="other"), (403, "NAMESPACE_MISMATCH"), "another namespace")
            assert_equal(secured.curl("known", path="/v1/keys"), (403, "SCOPE_MISSING"), "a scope that it lacks")
            assert_equal(secured.curl("root"), (400, "NAMESPACE_MISSING"), "a certificate for every namespace, and none named")
            assert_equal(secured.curl("root", namespace="other"), (200, None), "a certificate for every namespace")
            for header in ("origin: https://evil.example", "origin: null", "sec-fetch-site: cross-site", "sec-fetch-site: same-site"):
                assert_equal(secured.curl("known", options=["-H", header]), (403, "FOREIGN_ORIGIN"), f"a page's request, {header}")
                assert_equal(secured.curl("known", key, options=["-H", header]), (200, None), f"the same with a key, {header}")
            assert_equal(secured.curl("known", options=["-H", "sec-fetch-site: none"]), (200, None), "what its reader typed")
            for nobody in ("unknown", "both"):
                assert_equal(secured.curl(nobody), (401, "KEY_MISSING_OR_UNKNOWN"), f"the certificate {nobody}")
                assert_equal(secured.curl(nobody, key), (200, None), f"the certificate {nobody} with a key")
            assert_equal(secured.curl("known", key, path="/v1/keys"), (200, None), "a key beside a certificate is what counts")
            assert_equal(secured.curl("known", key + "0"), (401, "KEY_MISSING_OR_UNKNOWN"), "a bad key beside a good certificate")
            for refused in ("expired", "foreign", None):
                assert_equal(secured.curl(refused, key), (None, None), f"the certificate {refused}")
            pb, stubs = generate()
            with grpc.secure_channel(f"localhost:{server.port}", secured.credentials("known")) as channel:
                id = stubs.UsersStub(channel).Create(pb.CreateRequest(username="ada", sso_enabled=True), timeout=30).user.id
            assert_equal(db.query(f"SELECT namespace, caller FROM events WHERE user_id = '{id}'"), [("shop", KNOWN)], "who did it")
        with Server(db.url, settings(made, "optional")) as server:
            secured = Secured(server, made)
            assert_equal(secured.curl("known"), (200, None), "a certificate, where it is optional")
            assert_equal(secured.curl(None, key), (200, None), "a key and no certificate, where it is optional")
            assert_equal(secured.curl(), (401, "KEY_MISSING_OR_UNKNOWN"), "neither")
            for refused in ("expired", "foreign"):
                assert_equal(secured.curl(refused, key), (None, None), f"the certificate {refused}, where it is optional")


def certificates_alone():
    """Where certificates stand for callers there is no open mode, though no key was ever made."""
    with certificates() as made, database(Sqlite) as db, Server(db.url, settings(made, "optional")) as server:
        secured = Secured(server, made)
        assert_equal(secured.curl(), (401, "KEY_MISSING_OR_UNKNOWN"), "without anything")
        assert_equal(secured.curl("known"), (200, None), "with a certificate")


def serial(server, made):
    """The number of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=made["ours"].cert)
    with socket.create_connection((server.host, server.port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as stream:
            return stream.getpeercert()["serialNumber"]


def renewed():
    """New certificates count for new connections, and old connections stay; broken files change nothing."""
    with certificates() as made, database(Sqlite) as db:
        key = new_key(db, "shop", EVERY_SCOPE)
        with Server(db.url, settings(made)) as server:
            context = ssl.create_default_context(cafile=made["ours"].cert)
            with contextlib.closing(http.client.HTTPSConnection("localhost", server.port, timeout=10, context=context)) as old:

                def asked():
                    old.request("GET", "/v1/users", headers={"authorization": f"Bearer {key}"})
                    reply = old.getresponse()
                    reply.read()
                    return reply.status

                assert_equal(asked(), 200, "a call before")
                stream, first = old.sock, serial(server, made)
                cert, _ = made["server"]
                whole = cert.read_bytes()
                cert.write_text("half a certificate")
                until(lambda: "certificates cannot be reloaded" in server.log(), 10, "a broken file is told")
                assert_equal(serial(server, made), first, "the certificate while the file is broken")
                cert.write_bytes(whole)
                made["ours"].sign("server", "DNS:localhost,IP:127.0.0.1", "serverAuth")
                until(lambda: serial(server, made) != first, 10, "the new certificate is shown")
                assert_equal((asked(), old.sock is stream), (200, True), "a call on the old connection, which stayed")


def revoked():
    """A revoked certificate opens no new connection, from the moment that the list says so; a broken list changes nothing."""
    with certificates() as made, database(Sqlite) as db:
        crl = made["ours"].revocations()
        with Server(db.url, {**settings(made, "required"), "USERSD_TLS_CLIENT_CRL": str(crl)}) as server:
            secured = Secured(server, made)
            assert_equal(secured.curl("known"), (200, None), "before")
            made["ours"].revocations(made["known"][0])
            until(lambda: secured.curl("known") == (None, None), 10, "the certificate is refused")
            assert_equal(secured.curl("root", namespace="other"), (200, None), "another certificate")
            crl.write_text("half a list")
            until(lambda: "the old ones stay in use" in server.log(), 10, "a broken list is told")
            assert_equal((secured.curl("known"), secured.curl("root", namespace="other")), ((None, None), (200, None)), "meanwhile")


def slow_handshakes():
    """A connection that does not shake hands is closed when its time is up, and does not hold the end."""
    with certificates() as made, database(Sqlite) as db:
        key = new_key(db, "shop", EVERY_SCOPE)
        server = Server(db.url, {**settings(made), "USERSD_HTTP_HEADER_TIMEOUT": "2s"})
        try:
            with contextlib.closing(socket.create_connection((server.host, server.port), timeout=20)) as silent:
                silent.sendall(b"\x16\x03\x01")
                assert_equal(Secured(server, made).curl(None, key), (200, None), "somebody else meanwhile")
                assert_equal(silent.recv(1), b"", "what comes when the time is up")
            with contextlib.closing(socket.create_connection((server.host, server.port), timeout=20)):
                assert_equal(Secured(server, made).curl(None, key), (200, None), "a call after the connection is accepted")
                began = time.monotonic()
                server.stop()
                took = time.monotonic() - began
                assert_true(took < 1.5, f"the process ends before the handshake's time is up; it took {took:.1f} s")
        finally:
            server.kill()


def faults():
    """What cannot be used is named before anything is opened."""
    with certificates() as made, database(Sqlite) as db:
        cert, key = map(str, made["server"])
        _, other = map(str, made["known"])
        for env, parts in [
            ({"USERSD_TLS_CERT": cert}, ["tls.cert and tls.key"]),
            ({"USERSD_TLS_CLIENT_CA": cert}, ["tls.client_ca needs"]),
            ({"USERSD_TLS_CERT": cert, "USERSD_TLS_KEY": key, "USERSD_TLS_CALLERS": CALLERS}, ["tls.callers need"]),
            ({"USERSD_TLS_CERT": cert, "USERSD_TLS_KEY": key, "USERSD_TLS_CLIENT_CRL": cert}, ["tls.client_crl needs"]),
            ({"USERSD_TLS_CERT": cert, "USERSD_TLS_KEY": key, "USERSD_TLS_CLIENT_CA": cert, "USERSD_TLS_CLIENT_CRL": cert},
             ["tls.client_crl", "no revocation list"]),
            ({"USERSD_TLS_CERT": "/none.pem", "USERSD_TLS_KEY": key}, ["tls.cert", "/none.pem"]),
            ({"USERSD_TLS_CERT": key, "USERSD_TLS_KEY": key}, ["tls.cert", "no certificates"]),
            ({"USERSD_TLS_CERT": cert, "USERSD_TLS_KEY": cert}, ["tls.key", "no private key"]),
            ({"USERSD_TLS_CERT": cert, "USERSD_TLS_KEY": other}, ["tls"]),
            ({"USERSD_TLS_CALLERS": '[{ san = "x", namespace = "A", scopes = [] }]'}, ["USERSD_TLS_CALLERS", "namespace"]),
        ]:
            _, said = run("--listen", "127.0.0.1:0", "--database", db.url, env=env, code=64)
            for part in parts:
                assert_true(part in said, f"{part} is in:\n{said}")
        assert_equal(db.path.exists(), False, "whether a database was made")


def tests():
    """Name, function, arguments."""
    yield "tls / every client, with a key", served
    yield "tls / certificates of clients stand for callers", mutual
    yield "tls / certificates alone end local mode", certificates_alone
    yield "tls / certificates are reloaded", renewed
    yield "tls / a revoked certificate is refused", revoked
    yield "tls / a slow handshake holds nothing", slow_handshakes
    yield "tls / what cannot be used is 64", faults

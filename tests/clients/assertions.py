"""Assertions about sessions, verified by the libraries of Python, Go and Node as deploy/examples use them, with nothing but
the address of the public keys."""

import base64
import contextlib
import hashlib
import hmac
import json
import subprocess
import sys
import time
import urllib.request

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import transports
from harness import EVERY_SCOPE, ROOT, Postgres, Server, Sqlite, assert_equal, database, new_key
from walks import TOOLS

EXAMPLES = ROOT / "deploy/examples"
VERIFIERS = {
    "PyJWT": [sys.executable, EXAMPLES / "python/assertion.py"],
    "golang-jwt": [TOOLS / "go-assertion/verifier"],
    "jose": ["node", TOOLS / "js/assertion.mjs"],
}
SETTINGS = {"USERSD_ASSERTIONS_AUDIENCES": "shop,billing", "USERSD_ASSERTIONS_ISSUER": "https://users.example.com"}


@contextlib.contextmanager
def verifier(command, jwks):
    """Tells of one assertion after the other what a verifier of the audience `shop` says."""
    arguments = [*command, jwks, SETTINGS["USERSD_ASSERTIONS_ISSUER"], "shop"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        def said(assertion):
            process.stdin.write(assertion + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        try:
            yield said
        finally:
            process.kill()


def part(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def forged(assertion, public):
    """Assertions that nobody may accept, by what is wrong with each."""
    header, claims = jwt.get_unverified_header(assertion), jwt.decode(assertion, options={"verify_signature": False})
    _, body, signature = assertion.split(".")
    ours, theirs = jwt.PyJWK(public).key, Ed25519PrivateKey.generate()
    foreign = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(theirs.public_key()))
    known = {"kid": header["kid"]}
    yield "no signature", assertion.rsplit(".", 1)[0] + "."
    yield "no algorithm", f'{part({**header, "alg": "none"})}.{body}.'
    yield "no algorithm, and the signature", f'{part({**header, "alg": "none"})}.{body}.{signature}'
    raw, pem = ours.public_bytes(Encoding.Raw, PublicFormat.Raw), ours.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for what, secret in [("bytes", raw), ("PEM", pem), ("x", public["x"].encode()), ("JWK", json.dumps(public).encode())]:
        yield f"HS256 with the public key ({what})", with_hmac(claims, secret, known)
    yield "a foreign key under the id of ours", jwt.encode(claims, theirs, "EdDSA", known)
    yield "a foreign key under its own id", jwt.encode(claims, theirs, "EdDSA", {"kid": "foreign"})
    yield "a foreign key in the header", jwt.encode(claims, theirs, "EdDSA", {**known, "jwk": foreign})
    yield "a key without an id", jwt.encode(claims, theirs, "EdDSA")
    changed = {**claims, "sub": "somebody else"}
    yield "another user", f"{part(header)}.{part(changed)}.{signature}"
    yield "a later end", f'{part(header)}.{part({**claims, "exp": claims["exp"] + 60})}.{signature}'
    yield "not a token", "ses_" + "0" * 64


def with_hmac(claims, secret, header):
    """PyJWT signs with no secret that is a public key."""
    signed = f'{part({"alg": "HS256", "typ": "JWT", **header})}.{part(claims)}'
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def verified_by_three_libraries(kind):
    with database(kind) as db, Server(db.url, env=SETTINGS, key=new_key(db, "default", EVERY_SCOPE)) as server:
        client = transports.PythonClient(server, "default")
        try:
            check(server, client)
        finally:
            client.close()


def check(server, client):
    jwks = f"http://{server.address}/.well-known/jwks.json"
    user = client.call("Create", {"username": "ada", "password": "correct horse"})["user"]["id"]
    session = client.call("Login", {"username": "ada", "password": "correct horse"})["session"]

    def issue(audience="shop", **more):
        return client.call("IssueAssertion", {"sessionId": session["id"], "audience": audience, **more})["assertion"]

    # Nobody needs a key of usersd to read these.
    with urllib.request.urlopen(jwks, timeout=10) as reply:
        assert_equal(reply.headers["cache-control"], "public, max-age=300", "Cache-Control")
        (public,) = json.load(reply)["keys"]
    # For five minutes: the machine may be slow.
    good, billing, short = issue(lifetime=300), issue("billing", lifetime=300), issue(lifetime=1)
    claims = jwt.decode(good, options={"verify_signature": False})
    assert_equal((claims["sid"], claims["amr"]), (session["publicId"], ["pwd"]), "sid and amr")
    with contextlib.ExitStack() as stack:
        said = {name: stack.enter_context(verifier(command, jwks)) for name, command in VERIFIERS.items()}
        for name, say in said.items():
            assert_equal(say(good), f"accepted default {user}", f"{name}: an assertion")
            for what, wrong in [*forged(good, public), ("another audience", billing)]:
                assert_equal(say(wrong), "refused", f"{name}: {what}")
        end = jwt.decode(short, options={"verify_signature": False})["exp"]
        while time.time() <= end:
            time.sleep(0.1)
        for name, say in said.items():
            assert_equal(say(short), "refused", f"{name}: one that has expired")
        # The cost: it is valid until it expires.
        client.call("Logout", {"sessionId": session["id"]})
        for name, say in said.items():
            assert_equal(say(good), f"accepted default {user}", f"{name}: an assertion whose session has ended")
    try:
        issue()
        refused = None
    except transports.Refused as reason:
        refused = reason.reason
    assert_equal(refused, "SESSION_NOT_FOUND", "of a session that has ended there is no assertion")


def tests():
    for kind in (Sqlite, Postgres):
        yield f"assertions / PyJWT, golang-jwt and jose / {kind.__name__}", verified_by_three_libraries, kind

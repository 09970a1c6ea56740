"""Verifies assertions of usersd, one on each line of standard input: assertion.py JWKS_URL ISSUER AUDIENCE."""

import sys

import jwt

CLAIMS = ["exp", "iat", "iss", "aud", "sub", "sid", "ns"]


class Verifier:
    def __init__(self, address, issuer, audience):
        # Keeps the keys for five minutes, and asks again for a key that it does not know.
        self.keys = jwt.PyJWKClient(address, timeout=5)
        self.expected = {"issuer": issuer, "audience": audience}

    def claims(self, assertion):
        """The claims of a valid assertion; raises jwt.PyJWTError for any other."""
        key = self.keys.get_signing_key_from_jwt(assertion).key
        return jwt.decode(assertion, key, algorithms=["EdDSA"], options={"require": CLAIMS}, **self.expected)


if __name__ == "__main__":
    verifier = Verifier(*sys.argv[1:])
    for line in sys.stdin:
        try:
            claims = verifier.claims(line.strip())
            print("accepted", claims["ns"], claims["sub"], flush=True)
        except jwt.PyJWTError:
            print("refused", flush=True)

"""Stored passwords are what passlib calls them: each can read the other's."""

import warnings

from harness import assert_equal, assert_matches, assert_true
from transports import PythonClient, Refused

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from passlib.hash import bcrypt, bcrypt_sha256

LONG = r"\$bcrypt-sha256\$v=2,t=2b,r=10\$[./A-Za-z0-9]{22}\$[./A-Za-z0-9]{31}"
SHORT = r"\$2b\$10\$[./A-Za-z0-9]{53}"

# Name, password, form of the hash.
PASSWORDS = [
    ("bytes72", "x" * 71 + "y", SHORT),
    ("bytes73", "x" * 72 + "y", LONG),
    ("bytes80", "correct horse battery staple " * 2 + "and twenty-two more!!!", LONG),
    ("letters36", "ü" * 36, SHORT),
    ("letters37", "ü" * 37, LONG),
    ("short", "8 chars.", SHORT),
]


class Passwords:
    def __init__(self, server, db):
        self.client = PythonClient(server, "passwords")
        self.db = db

    def steps(self):
        yield "passlib reads our hashes", self.ours
        yield "we read passlib's hashes", self.theirs
        yield "every byte of a long password counts", self.every_byte

    def signs_in(self, name, password):
        try:
            self.client.call("Login", {"username": name, "password": password})
            return True
        except Refused as refused:
            assert_equal(refused.reason, "BAD_CREDENTIALS", "reason of the refusal")
            return False

    def stored(self, name):
        [(hash,)] = self.db.query(f"SELECT password_hash FROM users WHERE username = '{name}'")
        return hash

    def ours(self):
        assert_equal(len(PASSWORDS[2][1].encode()), 80, "bytes of the password of 80 bytes")
        for name, password, form in PASSWORDS:
            self.client.call("Create", {"username": name, "password": password})
            hash = self.stored(name)
            assert_matches(hash, form, f"stored hash of {name}")
            scheme = bcrypt_sha256 if form == LONG else bcrypt
            assert_true(scheme.verify(password, hash), f"passlib verifies {name}: {hash}")
            assert_true(not scheme.verify("z" + password[1:], hash), f"passlib refuses another password: {name}")
            assert_true(self.signs_in(name, password), f"{name} signs in")

    def theirs(self):
        for name, password, form in PASSWORDS:
            for scheme in (bcrypt, bcrypt_sha256):
                if scheme is bcrypt and form == LONG:
                    continue  # plain bcrypt does not read the whole password
                for rounds in (10, 11) if name == "bytes80" else (10,):
                    hash = scheme.using(rounds=rounds).hash(password)
                    self.db.query(f"UPDATE users SET password_hash = '{hash}' WHERE username = '{name}'")
                    assert_equal(self.stored(name), hash, "the hash that was written")
                    assert_true(self.signs_in(name, password), f"{name} signs in with {hash}")
                    self.db.query(f"UPDATE users SET password_hash = '{hash}' WHERE username = '{name}'")
                    assert_true(not self.signs_in(name, password + "!"), f"{name} with a wrong password, {hash}")

    def every_byte(self):
        password = "p" * 128
        self.client.call("Create", {"username": "long", "password": password})
        assert_true(self.signs_in("long", password), "the password is right")
        for position in (47, 48, 71, 72, 127):
            wrong = password[:position] + "q" + password[position + 1 :]
            assert_true(not self.signs_in("long", wrong), f"byte {position} counts")
            # A right one in between: who only fails has to wait.
            assert_true(self.signs_in("long", password), "the password is right")
        assert_true(not self.signs_in("long", password[:72]), "the first 72 bytes alone are wrong")

"""Meiro's users API: every operation of its page, by Python's own HTTP client."""

import contextlib
import http.client
import json
import urllib.parse

from harness import Like, Wrong, assert_equal, assert_true
from transports import Canonical, Refused

UUID = Like("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FIRST = {"limit": 20, "offset": 0, "order_by": "id", "order_dir": "ASC"}
PASSWORD = "correct horse"


class Meiro:
    """One run, in a namespace of its own, in an order in which each step has what it needs."""

    name = "Meiro's pages"

    def __init__(self, server):
        self.server, self.namespace = server, "meiro"
        self.canonical = Canonical(server, self.namespace)
        self.ada = self.grace = None

    def steps(self):
        yield "create user", self.create
        yield "retrieve user", self.retrieve
        yield "list users", self.list
        yield "modify user", self.modify
        yield "change user's password", self.change_password
        yield "delete user", self.delete
        yield "list trashed users", self.trash
        yield "restore trashed user", self.restore
        yield "create or restore user", self.create_or_restore
        yield "what is not there", self.nothing

    # --- What is sent and expected ---

    def send(self, verb, path, body=None):
        """Status and body."""
        with contextlib.closing(http.client.HTTPConnection(self.server.host, self.server.port, timeout=30)) as connection:
            headers = {"X-Access-Token": self.server.key or "1234567890abcdef", "usersd-namespace": self.namespace}
            if body is not None:
                headers["Content-Type"] = "application/json"
                body = body if isinstance(body, str) else json.dumps(body)
            connection.request(verb, "/meiro" + path, body, headers)
            reply = connection.getresponse()
            text = reply.read().decode()
            assert_equal(reply.headers.get_content_type(), "application/json", f"content type of {verb} {path}: {text}")
            assert_equal(reply.headers["cache-control"], "no-store", f"cache-control of {verb} {path}")
            return reply.status, json.loads(text)

    def ok(self, expected, status, verb, path, body=None):
        came = self.send(verb, path, body)
        assert_equal(came, (status, expected), f"{verb} {path} {body}")
        return came[1]

    def refused(self, status, verb, path, body=None, names=()):
        """Wants an error that names these fields, and gives its message."""
        came, error = self.send(verb, path, body)
        assert_equal((came, list(error)), (status, ["message"]), f"refusal of {verb} {path} {body}: {error}")
        assert_true(isinstance(error["message"], str) and error["message"], f"a message: {error}")
        for name in names:
            assert_true(name in error["message"], f"{name} is named by the refusal of {verb} {path} {body}: {error}")
        return error["message"]

    @staticmethod
    def user(email, id=UUID, deleted=False, sso=False):
        return {"email": email, "id": id, "deleted": deleted, "sso_enabled": sso}

    def signs_in(self, email, password):
        try:
            return self.canonical.call("Login", {"email": email, "password": password})["session"]["userId"]
        except Refused as refused:
            assert_equal(refused.reason, "BAD_CREDENTIALS", "why it is refused")
            return None

    def listed(self, path, **settings):
        """The users of a page, whose settings are told."""
        query = urllib.parse.urlencode(settings)
        status, body = self.send("GET", f"{path}?{query}" if query else path)
        assert_equal((status, sorted(body)), (200, ["selection_settings", "users"]), f"{path} {settings}")
        assert_equal(body["selection_settings"], {**FIRST, **settings}, f"settings of {path} {settings}")
        return body["users"]

    def pages(self, path, users):
        """What both lists do with limit, offset and order."""
        ids = sorted(user["id"] for user in users)
        by_id = {user["id"]: user for user in users}
        in_order = [by_id[id] for id in ids]
        assert_equal(self.listed(path), in_order, f"{path}: all, by id")
        assert_equal(self.listed(path, limit=10, order_by="id", order_dir="ASC"), in_order, f"{path}: as by default")
        assert_equal(self.listed(path, limit=1000, order_dir="DESC"), in_order[::-1], f"{path}: backwards")
        assert_equal(self.listed(path, limit=1, offset=1), in_order[1:2], f"{path}: the second page of one")
        assert_equal(self.listed(path, offset=1000000), [], f"{path}: beyond the end")
        wrong = {"limit": ["0", "1001", "-1", "x"], "offset": ["-1", "x"], "order_by": ["email"], "order_dir": ["UP"]}
        for name, values in wrong.items():
            for value in values:
                self.refused(400, "GET", f"{path}?{name}={value}", names=[name])

    # --- The steps ---

    def create(self):
        assert_equal(self.listed("/users"), [], "nobody yet")
        new = {"email": "Ada@Example.com", "password": PASSWORD}
        self.ada = self.ok(self.user("ada@example.com"), 201, "POST", "/users", new)
        grace = {"email": "grace@example.com", "password": PASSWORD, "sso_enabled": True}
        self.grace = self.ok(self.user("grace@example.com", sso=True), 201, "POST", "/users", grace)
        plain = {"email": "alan@example.com", "password": PASSWORD, "sso_enabled": False}
        self.ok(self.user("alan@example.com"), 201, "POST", "/users", plain)
        assert_equal(self.signs_in("ada@example.com", PASSWORD), self.ada["id"], "ada signs in")
        assert_equal(self.signs_in("grace@example.com", PASSWORD), None, "no password counts while sso_enabled is set")
        for email in ("ada@example.com", "ADA@example.com"):
            self.refused(409, "POST", "/users", {**new, "email": email})
        self.refused(400, "POST", "/users", {}, ["email", "password"])
        self.refused(400, "POST", "/users", {"email": "nobody", "password": PASSWORD}, ["email"])
        self.refused(400, "POST", "/users", {"password": PASSWORD}, ["email"])
        self.refused(400, "POST", "/users", {"email": "b@example.com"}, ["password"])
        self.refused(400, "POST", "/users", {"email": "b@example.com", "password": "short"}, ["password"])
        self.refused(400, "POST", "/users", {"email": 7, "password": PASSWORD}, ["email"])
        self.refused(400, "POST", "/users", {**new, "sso_enabled": "x"}, ["sso_enabled"])
        for body in ("{", "[]", "7", ""):
            self.refused(400, "POST", "/users", body)
        assert_equal(len(self.listed("/users")), 3, "users after calls that were refused")

    def retrieve(self):
        self.ok(self.ada, 200, "GET", f"/users/{self.ada['id']}")
        for id in ("41f2cc9a-f7df-4ef8-b2e1-1bd4e627639a", "nobody"):
            self.refused(404, "GET", f"/users/{id}")

    def list(self):
        alan = self.canonical.call("Read", {"email": "alan@example.com"})["user"]["id"]
        self.pages("/users", [self.ada, self.grace, self.user("alan@example.com", alan)])
        # One more than a page has by default.
        other = Meiro(self.server)
        other.namespace, other.canonical = "meiro-21", Canonical(self.server, "meiro-21")
        for number in range(21):
            other.canonical.call("Create", {"email": f"u{number}@example.com", "ssoEnabled": True})
        everyone = other.listed("/users", limit=1000)
        assert_equal((len(everyone), other.listed("/users")), (21, everyone[:20]), "20 on a page by default")

    def modify(self):
        path = f"/users/{self.ada['id']}"
        session = self.canonical.call("Login", {"email": "ada@example.com", "password": PASSWORD})["session"]
        self.ok(self.ada, 200, "PATCH", path, {})
        self.ada["email"] = "ada.king@example.com"
        self.ok(self.ada, 200, "PATCH", path, {"email": "Ada.King@example.com"})
        with contextlib.suppress(Refused):
            raise Wrong(f"after a new address: {self.canonical.call('ReadSession', {'sessionId': session['id']})}")
        session = self.canonical.call("Login", {"email": self.ada["email"], "password": PASSWORD})["session"]
        self.ok(self.ada, 200, "PATCH", path, {"password": "new password"})
        assert_equal(self.signs_in(self.ada["email"], "new password"), self.ada["id"], "the new password")
        assert_equal(self.signs_in(self.ada["email"], PASSWORD), None, "the old password")
        with contextlib.suppress(Refused):
            raise Wrong(f"after a new password: {self.canonical.call('ReadSession', {'sessionId': session['id']})}")
        self.ada.update(email="ada@example.com", sso_enabled=True)
        both = {"email": "ada@example.com", "password": PASSWORD, "sso_enabled": True}
        self.ok(self.ada, 200, "PATCH", path, both)
        self.ada["sso_enabled"] = False
        self.ok(self.ada, 200, "PATCH", path, {"sso_enabled": False})
        self.ok(self.ada, 200, "GET", path)
        assert_equal(self.signs_in("ada@example.com", PASSWORD), self.ada["id"], "the password that came with the address")
        # Both or neither.
        self.refused(409, "PATCH", path, {"email": "grace@example.com", "password": "another password"})
        self.refused(400, "PATCH", path, {"email": "new@example.com", "password": "short"}, ["password"])
        self.refused(400, "PATCH", path, {"email": "nobody", "password": "another password"}, ["email"])
        self.refused(400, "PATCH", path, {"sso_enabled": "no"}, ["sso_enabled"])
        self.ok(self.ada, 200, "GET", path)
        assert_equal(self.signs_in("ada@example.com", PASSWORD), self.ada["id"], "the password after calls that were refused")
        self.refused(404, "PATCH", "/users/nobody", {"email": "new@example.com"})

    def change_password(self):
        path = f"/users/{self.ada['id']}/change_password"
        change = {"old_password": PASSWORD, "new_password": "a new password"}
        wrong = self.refused(401, "POST", path, {**change, "old_password": "wrong"})
        unknown = self.refused(401, "POST", "/users/nobody/change_password", change)
        assert_equal(unknown, wrong, "what is said of an unknown user and of a wrong password")
        self.refused(400, "POST", path, {"old_password": PASSWORD}, ["new_password"])
        self.refused(400, "POST", path, {**change, "new_password": "short"}, ["new_password"])
        assert_equal(self.signs_in("ada@example.com", PASSWORD), self.ada["id"], "the password after calls that were refused")
        self.ok(self.ada, 200, "POST", path, change)
        assert_equal(self.signs_in("ada@example.com", PASSWORD), None, "the old password")
        assert_equal(self.signs_in("ada@example.com", "a new password"), self.ada["id"], "the new password")
        self.ok(self.ada, 200, "POST", path, {"old_password": "a new password", "new_password": PASSWORD})

    def delete(self):
        for user in (self.ada, self.grace):
            path = f"/users/{user['id']}"
            user["deleted"] = True
            self.ok(user, 200, "DELETE", path)
            self.refused(404, "DELETE", path)
            self.refused(404, "GET", path)
            self.refused(404, "PATCH", path, {"sso_enabled": True})
        change = {"old_password": PASSWORD, "new_password": "a new one"}
        self.refused(401, "POST", f"/users/{self.ada['id']}/change_password", change)
        self.refused(404, "DELETE", "/users/nobody")
        assert_equal(self.signs_in("ada@example.com", PASSWORD), None, "a deleted user does not sign in")
        assert_equal([user["email"] for user in self.listed("/users")], ["alan@example.com"], "users that are left")

    def trash(self):
        self.pages("/users/trash", [self.ada, self.grace])

    def restore(self):
        path = f"/users/trash/{self.ada['id']}"
        self.ada["deleted"] = False
        self.ok(self.ada, 200, "PATCH", path)
        self.ok(self.ada, 200, "GET", f"/users/{self.ada['id']}")
        assert_equal(self.signs_in("ada@example.com", PASSWORD), self.ada["id"], "ada signs in again")
        self.refused(404, "PATCH", path)
        self.refused(404, "PATCH", "/users/trash/nobody", {})
        # Her address went to somebody else meanwhile.
        self.send("DELETE", f"/users/{self.ada['id']}")
        _, other = self.send("POST", "/users", {"email": "ada@example.com", "password": PASSWORD})
        self.refused(409, "PATCH", path)
        self.ok(other, 200, "PATCH", f"/users/{other['id']}", {"sso_enabled": False})
        self.send("PATCH", f"/users/{other['id']}", {"email": "other@example.com"})
        self.ok(self.ada, 200, "PATCH", path, {})

    def create_or_restore(self):
        path = "/users/create_or_restore"
        request = {"email": "grace@example.com", "password": "hopper's own"}
        self.grace["deleted"] = False
        self.grace["sso_enabled"] = False
        self.ok(self.grace, 201, "POST", path, {**request, "sso_enabled": False})
        assert_equal(self.signs_in("grace@example.com", "hopper's own"), self.grace["id"], "the new password")
        self.refused(409, "POST", path, request)
        self.ok(self.user("new@example.com"), 201, "POST", path, {**request, "email": "new@example.com"})
        for twice in range(2):
            _, user = self.send("POST", "/users", {"email": f"twin{twice}@example.com", "password": PASSWORD})
            self.send("PATCH", f"/users/{user['id']}", {"email": "twin@example.com"})
            self.send("DELETE", f"/users/{user['id']}")
        self.ok(self.user("twin@example.com", user["id"]), 201, "POST", path, {**request, "email": "twin@example.com"})
        self.refused(400, "POST", path, {}, ["email", "password"])
        self.refused(400, "POST", path, {**request, "email": "nobody"}, ["email"])

    def nothing(self):
        for path in ("/nothing", f"/users/{self.ada['id']}/nothing", "/users/trash/a/b"):
            self.refused(404, "GET", path)
        # `trash` is a word, not an id.
        for verb, path in (("PUT", "/users"), ("PUT", f"/users/{self.ada['id']}"), ("DELETE", "/users/trash")):
            status, error = self.send(verb, path)
            assert_true(status in (404, 405) and list(error) == ["message"], f"{verb} {path}: {status} {error}")

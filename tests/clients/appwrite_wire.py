"""The Users API of Appwrite 0.9 on the wire: what no SDK sends, and what none shows."""

import contextlib
import http.client
import json

from appwrite_users import PASSWORD, PREFS, missing
from harness import assert_equal, assert_true
from transports import Canonical


class Wire:
    """What no SDK sends, and what none shows."""

    def __init__(self, server):
        self.server, self.project = server, "appwrite-wire"
        self.id = None

    def steps(self):
        yield "status, headers, bodies", self.forms
        yield "parameters that are missing", self.parameters
        yield "project", self.projects
        yield "all sessions at once", self.all_sessions

    def send(self, verb, path, body=None, project=True, headers=None):
        """Status, headers and body."""
        headers = {"content-type": "application/json", "X-Appwrite-Key": self.server.key or "any", **(headers or {})}
        if project:
            headers["X-Appwrite-Project"] = self.project
        with contextlib.closing(http.client.HTTPConnection(self.server.host, self.server.port, timeout=30)) as connection:
            sent = body if body is None or isinstance(body, str) else json.dumps(body)
            connection.request(verb, "/appwrite/v1" + path, sent, headers)
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read().decode()

    def refused(self, code, message, *request, **options):
        status, headers, text = self.send(*request, **options)
        assert_equal(status, code, f"status of {request}: {text}")
        assert_true(headers["content-type"].startswith("application/json"), f"content type of {request}: {headers}")
        body = json.loads(text)
        assert_equal(list(body), ["message", "code", "version"], f"keys of the body of {request}")
        assert_equal((body["message"], body["code"]), (message, code), f"body of {request}")

    def forms(self):
        new = {"email": "wire@example.com", "password": "password", "name": "J\u00f6rg M", "role": "unknown fields pass"}
        status, headers, text = self.send("POST", "/users", new)
        assert_equal((status, headers.get_content_type()), (201, "application/json"), f"status and type of create: {text}")
        self.id = json.loads(text)["$id"]
        assert_equal(json.loads(text)["name"], "Jörg M", "a name with escapes")
        for body in ("null", "{}", None, "not json"):
            status, headers, text = self.send("GET", f"/users/{self.id}", body)
            assert_equal((status, json.loads(text)["$id"]), (200, self.id), f"GET with the body {body}")
        for query in ("search=J%C3%B6rg+M", "search=j%C3%B6rg%20m", "limit=", "search=&offset=&orderType="):
            status, _, text = self.send("GET", f"/users?{query}")
            assert_equal((status, json.loads(text)["sum"]), (200, 1), f"GET with the query {query}: {text}")
        status, headers, text = self.send("HEAD", f"/users/{self.id}")
        assert_equal((status, text), (200, ""), "HEAD")
        status, headers, text = self.send("DELETE", f"/users/{self.id}/sessions", {})
        # The SDK for Python wants a type, and reads a body where it is JSON.
        assert_true((status, text) == (204, "") and headers["content-type"] is not None, f"{status}, a type: {headers}")
        assert_true("json" not in headers["content-type"], f"no body, no JSON: {headers}")
        self.refused(404, "Not Found", "GET", "/nothing")
        self.refused(404, "Not Found", "GET", f"/users/{self.id}/nothing")
        self.refused(404, "User not found", "GET", "/users/nobody")

    def parameters(self):
        user = f"/users/{self.id}"
        mail = {"email": "b@example.com", "password": "password"}
        empty = ({}, {"password": "password"}, {**mail, "email": None}, {**mail, "email": ""})
        for body in (*empty, "", None, "{", "[]", "null"):
            self.refused(400, missing("email"), "POST", "/users", body)
        form = {"content-type": "text/plain"}
        self.refused(400, missing("email"), "POST", "/users", json.dumps(mail), headers=form)
        self.refused(400, missing("email"), "POST", "/users?email=b@example.com&password=password", {})
        for body in ({"email": "b@example.com"}, {**mail, "password": None}):
            self.refused(400, missing("password"), "POST", "/users", body)
        self.refused(400, missing("prefs"), "PATCH", f"{user}/prefs", {})
        self.refused(400, PREFS, "PATCH", f"{user}/prefs", {"prefs": "bad-string"})
        self.refused(400, missing("status"), "PATCH", f"{user}/status?status=2", {})
        self.refused(400, missing("status"), "PATCH", f"{user}/status", "{status: 2}")
        self.refused(404, "User not found", "DELETE", "/users/nobody", "not json")

    def projects(self):
        plain = {"X-Appwrite-Key": ""}
        self.refused(400, "Missing or unknown project ID", "GET", "/users", project=False, headers=plain)
        status, _, text = self.send("GET", f"/users?project={self.project}", project=False, headers=plain)
        assert_equal((status, json.loads(text).get("sum")), (200, 1), f"the project in the query: {text}")
        status, _, text = self.send("GET", "/users", headers={"usersd-namespace": "another"})
        assert_equal((status, json.loads(text)["code"]), (403, 403), f"two projects in one request: {text}")

    def all_sessions(self):
        """Appwrite's list of sessions has no pages."""
        login = {"email": "wire@example.com", "password": "password"}
        opened = [Canonical(self.server, self.project).call("Login", login)["session"]["publicId"] for _ in range(26)]
        status, _, text = self.send("GET", f"/users/{self.id}/sessions")
        listed = json.loads(text)
        assert_equal((status, listed["sum"], [one["$id"] for one in listed["sessions"]]), (200, 26, opened), "26 sessions")


def against_policy(server):
    """A password that our policy refuses says so in Appwrite's form."""
    wire = Wire(server)
    new = {"email": "ada.lovelace@example.com", "password": "ada.lovelace1"}
    wire.refused(400, PASSWORD, "POST", "/users", new)
    wire.refused(400, PASSWORD, "POST", "/users", {**new, "password": "1234567"})

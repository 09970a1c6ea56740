"""Appwrite's own SDKs, as the package registries have them, behind one way to call them: methods by their names in the SDK
for Node, arguments in order, None for one that is left out."""

import json
import os
import re
import select
import subprocess

import appwrite.client
import appwrite.exception
import appwrite.services.users

from harness import ROOT, Wrong


class Failed(Exception):
    """What an SDK throws. `code` is the HTTP status, None where the SDK itself refused to send; `response` is the body."""

    def __init__(self, message, code, response):
        super().__init__(f"{code} {message}")
        self.message, self.code, self.response = message, code, response


class Sdk:
    def __init__(self, server, project, key=None):
        self.server, self.project = server, project
        # Where none is needed one is sent all the same.
        self.key = key or server.key or "any"
        self.endpoint = f"http://{server.address}/appwrite/v1"

    def call(self, method, *arguments):
        """The value, or raises Failed. An empty body is an empty text."""
        raise NotImplementedError

    def has(self, method):
        return True

    def close(self):
        pass


class Python(Sdk):
    name = "appwrite 0.4.0 for Python"

    def __init__(self, server, project, key=None):
        super().__init__(server, project, key)
        client = appwrite.client.Client()
        client.set_endpoint(self.endpoint).set_project(project).set_key(self.key)
        self.users = appwrite.services.users.Users(client)

    @staticmethod
    def named(method):
        return re.sub("[A-Z]", lambda letter: "_" + letter.group().lower(), method)

    def has(self, method):
        return hasattr(self.users, self.named(method))

    def call(self, method, *arguments):
        try:
            value = getattr(self.users, self.named(method))(*arguments)
        except appwrite.exception.AppwriteException as error:
            raise Failed(str(error.message), error.code or None, error.response) from None
        return value.decode() if isinstance(value, bytes) else value


class Node(Sdk):
    name = "node-appwrite 2.5.0"

    def __init__(self, server, project, key=None):
        super().__init__(server, project, key)
        self.process = subprocess.Popen(
            ["node", ROOT / "tests/clients/appwrite/driver.js"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "NODE_PATH": str(ROOT / "target/clients/node/node_modules")},
        )

    def call(self, method, *arguments):
        command = {"endpoint": self.endpoint, "project": self.project, "key": self.key, "method": method, "args": arguments}
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], 30)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            raise Wrong(f"{self.name} gave no answer to {command}")
        reply = json.loads(line)
        if "error" in reply:
            error = reply["error"]
            raise Failed(error["message"], error.get("code"), error.get("response"))
        return reply.get("value")

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


ALL = [Node, Python]

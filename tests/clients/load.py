"""Callers who write and read without a pause while something breaks, and know what they may come to read."""

import collections
import contextlib
import http.client
import json
import threading
import time

from harness import Wrong, assert_equal, until

# A caller gives up on a call after so many seconds.
PATIENCE = 5

# The change may have been made or not; after any other refusal it has not.
UNKNOWN = {"OUTCOME_UNKNOWN", "DEADLINE_PASSED", "cut off"}
# The same, and it may even be made after a later one: the server is not told of it at once.
LEFT = "left"


class Caller:
    """Renames a user of its own, again and again, and reads it in between."""

    def __init__(self, load, number):
        self.load, self.number, self.connection = load, number, None
        self.thread = threading.Thread(target=self.call_on)
        self.turn = 0
        self.id = None
        # The name that was acknowledged last, those that may have come after it, and those that may come at any time.
        self.name, self.perhaps, self.late = "", set(), set()
        # When a write was acknowledged last.
        self.wrote = 0.0

    def call(self, verb, path, body=None):
        """The user, or why there is none."""
        if self.connection is None:
            server = self.load.server
            self.connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE)
        try:
            text = json.dumps(body) if body else None
            self.connection.request(verb, path, text, {"content-type": "application/json"})
            reply = self.connection.getresponse()
            said = json.loads(reply.read())
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            self.connection = None
            return None, LEFT if isinstance(error, TimeoutError) else "cut off"
        if reply.status == 200:
            return said["user"], None
        return None, next(detail["reason"] for detail in said["details"] if detail["@type"].endswith("ErrorInfo"))

    def write(self):
        self.turn += 1
        name = f"{self.number}-{self.turn}"
        if self.id is None:
            new = {"id": f"u{self.number}", "username": f"user{self.number}", "name": name, "ssoEnabled": True}
            user, reason = self.call("POST", "/v1/users", new)
        else:
            user, reason = self.call("PATCH", f"/v1/users/{self.id}", {"name": name})
        self.load.count(reason)
        if user:
            self.id, self.name, self.perhaps = user["id"], name, set()
            self.wrote = time.monotonic()
        elif reason == "ID_TAKEN":
            # By an earlier call of ours that was left too early to hear of it.
            self.id = f"u{self.number}"
        elif reason in UNKNOWN:
            self.perhaps.add(name)
        elif reason == LEFT:
            self.late.add(name)
        return user

    def read(self):
        user, reason = self.call("GET", f"/v1/users/{self.id}")
        self.load.count(reason)
        if user:
            self.check(user.get("name", ""))
        elif reason == "USER_NOT_FOUND":
            self.load.wrong.append(f"user {self.id} was acknowledged and is not there")

    def check(self, name):
        if name not in {self.name, *self.perhaps, *self.late}:
            perhaps = sorted(self.perhaps | self.late)
            self.load.wrong.append(f"{self.id}: acknowledged {self.name}, perhaps {perhaps}, read {name}")

    def call_on(self):
        while not self.load.stopped.is_set():
            if self.write():
                self.read()
            elif self.id:
                # Nobody calls as fast as possible on while nothing works.
                self.load.stopped.wait(0.01)
                self.read()
        if self.connection:
            self.connection.close()


class Load:
    """Callers over one server."""

    def __init__(self, server, callers):
        self.server, self.stopped = server, threading.Event()
        self.lock, self.reasons, self.wrong = threading.Lock(), collections.Counter(), []
        self.recovered = []
        self.callers = [Caller(self, number) for number in range(callers)]

    def count(self, reason):
        with self.lock:
            self.reasons[reason or "OK"] += 1

    def __enter__(self):
        for caller in self.callers:
            caller.thread.start()
        until(lambda: all(caller.id for caller in self.callers), 30, "every caller has made its user")
        return self

    def __exit__(self, *failure):
        self.stop()

    def stop(self):
        self.stopped.set()
        for caller in self.callers:
            if caller.thread.is_alive():
                caller.thread.join(30)

    def failures(self):
        return self.reasons.total() - self.reasons["OK"]

    def wait_failing(self):
        """Until some calls have failed, or for a while if none does: what was acknowledged is looked at in any case."""
        before = self.failures()
        with contextlib.suppress(Wrong):
            until(lambda: self.failures() > before + 2, 3, "calls fail")

    def wait_recovered(self, seconds=15):
        """Until every caller has written once more."""
        began = time.monotonic()
        until(lambda: all(caller.wrote > began for caller in self.callers), seconds, f"every caller writes again: {self}")
        self.recovered.append(time.monotonic() - began)

    def lost(self, users):
        """What the database should hold and does not, and the other way around."""
        self.wrong = []
        for caller in self.callers:
            caller.check(users.get(caller.id))
        return self.wrong

    def __str__(self):
        times = ", ".join(f"{seconds:.2f} s" for seconds in self.recovered)
        failures = {reason: number for reason, number in self.reasons.items() if reason != "OK"}
        return f"{self.reasons.total()} calls, failures {failures}, time to recover {times or 'none yet'}"


def audit(load, db, what):
    """Nothing that was read contradicts what was acknowledged, and nothing acknowledged is missing; prints the figures."""
    assert_equal(load.wrong[:5], [], f"{what}: reads that contradict acknowledged writes, of {len(load.wrong)}")
    lost = load.lost(dict(db.query("SELECT id, name FROM users")))
    print(f"     {what}: {load}, lost writes {len(lost)}")
    assert_equal(lost[:5], [], f"{what}: lost writes, of {len(lost)}; {load}")
    ours = {caller.id for caller in load.callers}
    changes = {id: count for id, count in db.query("SELECT user_id, COUNT(*) FROM events GROUP BY user_id") if id in ours}
    versions = {id: version for id, version in db.query("SELECT id, version FROM users") if id in ours}
    assert_equal(versions, changes, f"{what}: versions of users, and events that tell of them")

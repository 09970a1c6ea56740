"""Many at once, also on two replicas: of those who want the same thing one gets it, and the log has it once."""

import collections
import concurrent.futures
import contextlib
import http.client
import json
import random
import threading

from harness import Postgres, Server, Sqlite, database, assert_equal, assert_true
from transports import ROUTES

CALLERS, ADDRESSES, TURNS = 64, 4, 24

# Method, the event that says it was done, the reasons for which it may be refused.
METHODS = {
    "Create": ("USER_CREATED", {"EMAIL_TAKEN"}),
    "CreateOrRestore": ("USER_CREATED", {"EMAIL_TAKEN"}),
    "Delete": ("USER_DELETED", {"USER_NOT_FOUND"}),
    "Restore": ("USER_RESTORED", {"USER_NOT_FOUND", "EMAIL_TAKEN"}),
    "Purge": ("USER_PURGED", {"USER_NOT_FOUND"}),
}


class Caller:
    """One connection."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=60)

    def call(self, method, **request):
        """The reply, or the reason of a refusal."""
        verb, path = ROUTES[method]
        if "{" in path:
            path = path.format(id=request.get("id"), user_id=request.get("userId"))
            request = {name: value for name, value in request.items() if name not in ("id", "userId")}
        body = None if verb == "DELETE" else json.dumps(request)
        self.connection.request(verb, path, body, {"content-type": "application/json"})
        reply = self.connection.getresponse()
        body = json.loads(reply.read())
        if reply.status == 200:
            return body
        return next(detail["reason"] for detail in body["details"] if detail["@type"].endswith("ErrorInfo"))


class Crowd:
    """Callers who call at the same moment, and everything that was acknowledged."""

    def __init__(self, servers, db, pool):
        self.callers = [Caller(servers[number % len(servers)]) for number in range(CALLERS)]
        self.db, self.pool = db, pool
        self.lock = threading.Lock()
        self.acknowledged = []  # (event, user)
        self.refused = collections.Counter()

    def close(self):
        for caller in self.callers:
            caller.connection.close()

    def one(self, caller, method, **request):
        """The id that the call was about; None if it was refused as it may be."""
        reply = caller.call(method, **request)
        if isinstance(reply, str):
            assert_true(reply in METHODS[method][1], f"{method} {request} is refused with {reply}")
            with self.lock:
                self.refused[reply] += 1
            return None
        id = reply["user"]["id"] if "user" in reply else request["id"]
        event = "USER_RESTORED" if reply.get("restored") else METHODS[method][0]
        with self.lock:
            self.acknowledged.append((event, id))
        return id

    def together(self, requests):
        """The ids of those calls that were done, every call at the same moment."""
        return [id for id in self.at_once(self.one, requests) if id]

    def at_once(self, function, requests):
        """What the function gives for each request, every caller with one of them."""
        start = threading.Barrier(len(requests))

        def call(caller, method, request):
            start.wait(60)
            return function(caller, method, **request)

        done = [self.pool.submit(call, caller, *request) for caller, request in zip(self.callers, requests)]
        return [future.result(120) for future in done]

    def live(self):
        """Who holds which address."""
        return self.db.query("SELECT email, id FROM users WHERE deleted = 0")

    def check(self, when):
        emails = [email for email, _ in self.live()]
        assert_equal(len(emails), len(set(emails)), f"live users {when}, and different addresses among them")
        events = self.db.query("SELECT action, user_id FROM events")
        assert_equal(sorted(events), sorted(self.acknowledged), f"events {when}, and acknowledged calls")


def contended(crowd):
    """Everybody wants the same; then each address is wanted by many."""
    mail = "wanted@example.com"
    same = ("Create", {"email": mail, "ssoEnabled": True})
    assert_equal(len(crowd.together([same] * CALLERS)), 1, f"users that {CALLERS} calls made with one address")
    crowd.check("after Create")
    trashed = []
    for turn in range(4):
        [(_, id)] = crowd.live()
        assert_equal(crowd.together([("Delete", {"id": id})] * CALLERS), [id], "calls that deleted one user")
        trashed.append(id)
        if turn < 3:
            assert_equal(len(crowd.together([same] * CALLERS)), 1, "users made once the address was free")
    crowd.check("after Delete")
    wanted = [("Restore", {"id": trashed[number % 4]}) for number in range(CALLERS)]
    assert_equal(len(crowd.together(wanted)), 1, "users of four with one address that came back from the trash")
    crowd.check("after Restore")
    [(_, back)] = crowd.live()
    left = [id for id in trashed if id != back]
    mixed = [(["Restore", "Purge"][number % 2], {"id": left[number % 3]}) for number in range(CALLERS)]
    assert_equal(sorted(crowd.together(mixed)), sorted(left), "users purged, none restored, the address being taken")
    crowd.check("after Purge")
    crowd.together([("Delete", {"id": back})])
    mixed = [(["Restore", "Purge"][number % 2], {"id": back}) for number in range(CALLERS)]
    assert_equal(crowd.together(mixed), [back], "calls that restored or purged one user")
    crowd.check("after Restore and Purge of one")
    again = [("CreateOrRestore", {"email": "again@example.com", "ssoEnabled": True})] * CALLERS
    [id] = crowd.together(again)
    crowd.together([("Delete", {"id": id})])
    mixed = again[::2] + [("Create", again[0][1]), ("Restore", {"id": id})] * (CALLERS // 4)
    assert_equal(len(crowd.together(mixed)), 1, "users that got an address, one being in the trash with it")
    crowd.check("after CreateOrRestore")


def churn(crowd):
    """Everybody does anything to few users for a while."""
    known, stop = [], threading.Event()

    def work(caller, seed):
        dice = random.Random(seed)
        for _ in range(TURNS):
            method = dice.choice(list(METHODS))
            if "Create" in method:
                request = {"email": f"churn{dice.randrange(ADDRESSES)}@example.com", "ssoEnabled": True}
                id = crowd.one(caller, method, **request)
                known.extend([id] if id else [])
            elif not known:
                continue
            else:
                crowd.one(caller, method, id=dice.choice(known[-3 * ADDRESSES:]))

    def watch():
        while not stop.wait(0.05):
            emails = [email for email, _ in crowd.live()]
            assert_equal(len(emails), len(set(emails)), "live users, and different addresses among them")

    watcher = crowd.pool.submit(watch)
    try:
        for future in [crowd.pool.submit(work, caller, seed) for seed, caller in enumerate(crowd.callers)]:
            future.result(120)
    finally:
        stop.set()
    watcher.result(30)
    crowd.check("after everything")
    for event, _ in METHODS.values():
        assert_true([done for done, _ in crowd.acknowledged if done == event], f"there were some of {event}")


PASSWORD, NEW = "correct horse", "a new password"
# What ends the sessions of a user: method, the field with the id, the others.
ENDS = [
    ("SetPassword", "userId", {"newPassword": NEW}), ("Update", "id", {"password": NEW}), ("Delete", "id", {}),
    ("UpdateStatus", "id", {"status": "USER_STATUS_BLOCKED"}),
    ("UpdatePassword", "userId", {"oldPassword": PASSWORD, "newPassword": NEW}),
]


def sign_in_meanwhile(crowd):
    """While a password is being checked the user is blocked, deleted, or gets another one: no session outlives that."""
    def call(caller, method, **request):
        return caller.call(method, **request)

    for method, field, change in ENDS:
        name = method.lower()
        id = crowd.callers[0].call("Create", username=name, password=PASSWORD)["user"]["id"]
        login = ("Login", {"username": name, "password": PASSWORD})
        replies = crowd.at_once(call, [login] * 3 + [(method, {field: id, **change})] + [login] * 2)
        refused = {reply for reply in replies if isinstance(reply, str)}
        assert_equal(refused - {"BAD_CREDENTIALS", "USER_BLOCKED"}, set(), f"reasons of refusals besides {method}")
        assert_true("user" in replies[3], f"{method}: {replies[3]}")
        assert_equal(crowd.db.query(f"SELECT public_id FROM sessions WHERE user_id = '{id}'"), [], f"sessions after {method}")
    id = crowd.callers[0].call("Create", username="two", password=PASSWORD)["user"]["id"]
    changes = [("UpdatePassword", {"userId": id, "oldPassword": PASSWORD, "newPassword": NEW + str(n)}) for n in range(4)]
    replies = crowd.at_once(call, changes)
    assert_equal(sorted(reply if isinstance(reply, str) else "" for reply in replies), [""] + ["BAD_CREDENTIALS"] * 3,
          "who replaces one old password, of four at once")


def race(kind, replicas):
    with contextlib.ExitStack() as stack:
        db = stack.enter_context(database(kind))
        servers = [stack.enter_context(Server(db.url)) for _ in range(replicas)]
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(CALLERS + 1))
        crowd = stack.enter_context(contextlib.closing(Crowd(servers, db, pool)))
        contended(crowd)
        churn(crowd)
        calls = len(crowd.acknowledged) + crowd.refused.total()
        print(f"     {kind.kind}, {CALLERS} at once: {calls} calls, refused: {dict(crowd.refused)}, failed: 0, lost writes: 0")
        sign_in_meanwhile(crowd)


def tests():
    """Name, function, arguments."""
    yield f"races / {CALLERS} callers, one SQLite file", race, Sqlite, 1
    yield f"races / {CALLERS} callers, two replicas on one PostgreSQL", race, Postgres, 2

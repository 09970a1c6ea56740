"""Many at once, also on two replicas: of those who want the same thing one gets it, and the log has it once."""

import concurrent.futures
import contextlib
import http.client
import json
import random
import threading

from harness import Postgres, Server, Sqlite, database, equal, true
from transports import ROUTES

CALLERS, ADDRESSES, TURNS = 64, 4, 24

# Method, and the event that says it was done.
DONE = {"Create": "USER_CREATED", "Delete": "USER_DELETED", "Restore": "USER_RESTORED", "Purge": "USER_PURGED"}
REFUSED = {"Create": {"EMAIL_TAKEN"}, "Delete": {"USER_NOT_FOUND"}, "Restore": {"USER_NOT_FOUND", "EMAIL_TAKEN"},
           "Purge": {"USER_NOT_FOUND"}}


class Caller:
    """One connection."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=60)

    def call(self, method, **request):
        """The reply, or the reason of a refusal."""
        verb, path = ROUTES[method]
        path = path.replace("{id}", request.get("id", ""))
        body = json.dumps({name: value for name, value in request.items() if name != "id"}) if verb == "POST" else None
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

    def close(self):
        for caller in self.callers:
            caller.connection.close()

    def one(self, caller, method, **request):
        """The id that the call was about; None if it was refused as it may be."""
        reply = caller.call(method, **request)
        if isinstance(reply, str):
            true(reply in REFUSED[method], f"{method} {request} is refused with {reply}")
            return None
        id = reply["user"]["id"] if "user" in reply else request["id"]
        with self.lock:
            self.acknowledged.append((DONE[method], id))
        return id

    def together(self, requests):
        """The ids of those calls that were done, every call at the same moment."""
        start = threading.Barrier(len(requests))

        def call(caller, method, request):
            start.wait(60)
            return self.one(caller, method, **request)

        done = [self.pool.submit(call, caller, *request) for caller, request in zip(self.callers, requests)]
        return [id for id in (future.result(120) for future in done) if id]

    def live(self):
        """Who holds which address."""
        return self.db.query("SELECT email, id FROM users WHERE deleted = 0")

    def check(self, when):
        emails = [email for email, _ in self.live()]
        equal(len(emails), len(set(emails)), f"live users {when}, and different addresses among them")
        events = self.db.query("SELECT action, user_id FROM events")
        equal(sorted(events), sorted(self.acknowledged), f"events {when}, and acknowledged calls")


def contended(crowd):
    """Everybody wants the same; then each address is wanted by many."""
    mail = "wanted@example.com"
    same = ("Create", {"email": mail, "ssoEnabled": True})
    equal(len(crowd.together([same] * CALLERS)), 1, f"users that {CALLERS} calls made with one address")
    crowd.check("after Create")
    trashed = []
    for turn in range(4):
        [(_, id)] = crowd.live()
        equal(crowd.together([("Delete", {"id": id})] * CALLERS), [id], "calls that deleted one user")
        trashed.append(id)
        if turn < 3:
            equal(len(crowd.together([same] * CALLERS)), 1, "users made once the address was free")
    crowd.check("after Delete")
    wanted = [("Restore", {"id": trashed[number % 4]}) for number in range(CALLERS)]
    equal(len(crowd.together(wanted)), 1, "users of four with one address that came back from the trash")
    crowd.check("after Restore")
    [(_, back)] = crowd.live()
    left = [id for id in trashed if id != back]
    mixed = [(["Restore", "Purge"][number % 2], {"id": left[number % 3]}) for number in range(CALLERS)]
    equal(sorted(crowd.together(mixed)), sorted(left), "users purged, none restored, the address being taken")
    crowd.check("after Purge")
    crowd.together([("Delete", {"id": back})])
    mixed = [(["Restore", "Purge"][number % 2], {"id": back}) for number in range(CALLERS)]
    equal(crowd.together(mixed), [back], "calls that restored or purged one user")
    crowd.check("after Restore and Purge of one")


def churn(crowd):
    """Everybody does anything to few users for a while."""
    known, stop = [], threading.Event()

    def work(caller, seed):
        dice = random.Random(seed)
        for _ in range(TURNS):
            method = dice.choice(list(DONE))
            if method == "Create" or not known:
                request = {"email": f"churn{dice.randrange(ADDRESSES)}@example.com", "ssoEnabled": True}
                id = crowd.one(caller, "Create", **request)
                known.extend([id] if id else [])
            else:
                crowd.one(caller, method, id=dice.choice(known[-3 * ADDRESSES:]))

    def watch():
        while not stop.wait(0.05):
            emails = [email for email, _ in crowd.live()]
            equal(len(emails), len(set(emails)), "live users, and different addresses among them")

    watcher = crowd.pool.submit(watch)
    try:
        for future in [crowd.pool.submit(work, caller, seed) for seed, caller in enumerate(crowd.callers)]:
            future.result(120)
    finally:
        stop.set()
    watcher.result(30)
    crowd.check("after everything")
    for event in DONE.values():
        true([done for done, _ in crowd.acknowledged if done == event], f"there were some of {event}")


def race(kind, replicas):
    with contextlib.ExitStack() as stack:
        db = stack.enter_context(database(kind))
        servers = [stack.enter_context(Server(db.url)) for _ in range(replicas)]
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(CALLERS + 1))
        crowd = stack.enter_context(contextlib.closing(Crowd(servers, db, pool)))
        contended(crowd)
        churn(crowd)


def tests():
    """Name, function, arguments."""
    yield f"races / {CALLERS} callers, one SQLite file", race, Sqlite, 1
    yield f"races / {CALLERS} callers, two replicas on one PostgreSQL", race, Postgres, 2

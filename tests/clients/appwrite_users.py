"""The Users API of Appwrite 0.9 through Appwrite's own SDKs."""

import contextlib
import json

from devices import CHROME, IPHONE, ON_CHROME, ON_IPHONE, UNKNOWN
from harness import Like, Near, Wrong, assert_equal, assert_true
from sdks import Failed
from transports import Canonical, Refused

# A server for programs that use what Appwrite allows as a password.
SETTINGS = {"USERSD_PASSWORDS_SCREENING": "false", "USERSD_PASSWORDS_MIN_LENGTH": "6"}

WEEK = 7 * 24 * 3600

EMAIL = "Invalid email: Value must be a valid email address"
NAME = "Invalid name: Value must be a valid string and no longer than 128 chars"
SEARCH = "Invalid search: Value must be a valid string and no longer than 256 chars"
LIMIT = "Invalid limit: Value must be a valid range between 0 and 100"
OFFSET = Like("Invalid offset: Value must be a valid range between 0 and .*")
ORDER = "Invalid orderType: Value must be one of (ASC, DESC)"
STATUS = "Invalid status: Value must be one of (1, 2, 0)"
VERIFICATION = "Invalid emailVerification: Value must be a valid boolean"
PREFS = "Invalid prefs: Value must be a valid object."
USER_ID = "Invalid userId: Invalid UID format"
SESSION_ID = "Invalid sessionId: Invalid UID format"
PASSWORD = Like("Invalid password: .+")


def missing(name):
    return f'Param "{name}" is not optional.'


def bad_calls(id):
    """Method, arguments, message: what is refused with 400 however often it is tried."""
    yield "create", ("nobody", "password"), EMAIL
    yield "create", ("a b@example.com", "password"), EMAIL
    yield "create", ("nobody@localhost", "password"), EMAIL
    yield "create", (7, "password"), EMAIL
    yield "create", ("", "password"), missing("email")
    yield "create", ("new@example.com", ""), missing("password")
    yield "create", ("new@example.com", "12345"), PASSWORD
    yield "create", ("new@example.com", 1234567), PASSWORD
    yield "create", ("new@example.com", "password", "n" * 129), NAME
    yield "create", ("new@example.com", "password", 7), NAME
    for limit in (101, -1, "x", "25.0"):
        yield "list", ("", limit), LIMIT
    for offset in (-1, "x"):
        yield "list", ("", 1, offset), OFFSET
    for order in ("desc", "id"):
        yield "list", ("", 1, 0, order), ORDER
    yield "list", ("s" * 257,), SEARCH
    for status in (3, -1, "2", True, 1.5, [2]):
        yield "updateStatus", (id, status), STATUS
    for verified in (1, 0, "true", {}):
        yield "updateVerification", (id, verified), VERIFICATION
    for prefs in ("bad-string", ["a"], 7, True):
        yield "updatePrefs", (id, prefs), PREFS
    for wrong in ("-a", "a" * 65, "a:b"):
        for method in ("get", "getPrefs", "getSessions", "getLogs", "delete", "deleteSessions"):
            yield method, (wrong,), USER_ID
        yield "updateStatus", (wrong, 1), USER_ID
        yield "deleteSession", (wrong, "a"), USER_ID
    yield "deleteSession", (id, "a" * 65), SESSION_ID
    for email in ("nobody", "two@at@example.com"):
        yield "updateEmail", (id, email), EMAIL
    yield "updateEmail", (id, ""), missing("email")
    yield "updateName", (id, ""), missing("name")
    yield "updateName", (id, "n" * 129), NAME
    yield "updatePassword", (id, ""), missing("password")
    yield "updatePassword", (id, "12345"), PASSWORD


# Each method that is about a user, as the SDK calls it after the id.
ABOUT_A_USER = [
    ("get",), ("getPrefs",), ("getSessions",), ("getLogs",), ("updateStatus", 1), ("updateVerification", True),
    ("updatePrefs", {"a": 1}), ("deleteSession", "none"), ("deleteSessions",), ("delete",), ("updateEmail", "x@example.com"),
    ("updateName", "x"), ("updatePassword", "password"),
]


def session(token_of, user, email, on, address):
    """The model of a session, all 22 fields."""
    return {
        "$id": token_of["publicId"], "userId": user, "expire": Near(WEEK, int), "provider": "email", "providerUid": email,
        "providerToken": "", "ip": address, **on, "current": False,
    }


class AppwriteUsers:
    """One run of one SDK, in a project of its own, in an order in which each step has what it needs."""

    def __init__(self, sdk):
        self.sdk = sdk
        self.call = sdk.call
        self.canonical = Canonical(sdk.server, sdk.project)
        self.id = None

    def steps(self):
        yield "create, get", self.create
        yield "list, search", self.list
        yield "status", self.status
        yield "verification", self.verification
        yield "prefs", self.prefs
        if self.sdk.has("updateEmail"):
            yield "e-mail, name, password", self.since_0_10
        yield "what is refused", self.bad
        yield "what an SDK does not send", self.unsent
        yield "sessions", self.sessions
        yield "logs", self.logs
        yield "a user of another project, or none", self.unknown
        yield "delete", self.delete

    # --- What is expected ---

    def user(self, **changes):
        """The model of a user, all its fields."""
        return {
            "$id": self.id, "name": "Project User", "registration": Near(written=int), "status": 0,
            "passwordUpdate": Near(written=int), "email": "users.service@example.com", "emailVerification": False,
            "prefs": {}, **changes,
        }

    def refused(self, code, message, method, *arguments):
        """Wants a refusal with this message."""
        try:
            value = self.call(method, *arguments)
        except Failed as failed:
            what = f"of the refused {method} {str(arguments)[:80]}"
            assert_equal((failed.code, failed.message), (code, message), f"status and message {what}")
            if code is not None:
                assert_equal(list(failed.response), ["message", "code", "version"], f"keys of the body {what}")
                assert_equal((failed.response["message"], failed.response["code"]), (failed.message, code), f"body {what}")
                assert_equal(failed.response["version"], Like(r"\d+\.\d+\.\d+"), f"version {what}")
            return
        raise Wrong(f"{method} {arguments} should be refused with {code} {message}; came: {value!r}")

    def login(self, address, agent, password="password"):
        """A session, which no SDK can open for a user: the reply of ours."""
        device = {"address": address, "userAgent": agent}
        request = {"email": "users.service@example.com", "password": password, "device": device}
        return self.canonical.call("Login", request)["session"]

    def emails(self, *arguments):
        """The sum and the addresses that a list shows."""
        reply = self.call("list", *arguments)
        assert_equal(sorted(reply), ["sum", "users"], "keys of a list")
        return reply["sum"], [user["email"] for user in reply["users"]]

    # --- The steps ---

    def create(self):
        assert_equal(self.call("list"), {"sum": 0, "users": []}, "the list of nobody")
        self.id = Like("[A-Za-z0-9][A-Za-z0-9._|@-]{0,63}")
        made = self.call("create", "Users.Service@Example.com", "password", "Project User")
        assert_equal(made, self.user(), "what create gives")
        self.id = made["$id"]
        assert_equal(self.call("get", self.id), made, "what get gives")
        for email in ("users.service@example.com", "USERS.service@example.COM"):
            self.refused(409, "User already registered", "create", email, "password")
        other = self.call("create", "joerg@elsewhere.org", "päss wörd")
        assert_equal(other, self.user(**{"$id": Like(".+"), "email": "joerg@elsewhere.org", "name": ""}), "one without a name")
        third = self.call("create", "o'hara_100%@third.net", "123456", "ÄÖ" * 64)
        assert_equal((third["email"], third["name"]), ("o'hara_100%@third.net", "ÄÖ" * 64), "one with 128 characters in its name")
        # Ids of others, also with what a URL has to escape.
        for id in ("auth0|5f7c8ec7", "ada@x.y", "i" * 64):
            self.canonical.call("Create", {"id": id, "email": f"n{len(id)}@ids.example", "password": "password"})
            assert_equal(self.call("get", id)["$id"], id, "a user by an id of another system")

    def list(self):
        service, joerg, ohara = "users.service@example.com", "joerg@elsewhere.org", "o'hara_100%@third.net"
        assert_equal(self.call("list", "example.com"), {"sum": 1, "users": [self.user()]}, "search=example.com")
        for found in (service, "USERS.SERVICE", "Project User", "ject us", self.id, "service@ex"):
            assert_equal(self.emails(found), (1, [service]), f"search={found}")
        assert_equal(self.emails("o'hara_100%"), (1, [ohara]), "signs that SQL knows")
        assert_equal(self.emails("äöÄ"), (1, [ohara]), "letters beyond ASCII, in any case")
        for nothing in ("zz%", "_______", '"', "@", "+-><()~*\"@", "\\", "' OR 1=1 --", "🦀"):
            assert_equal(self.emails(nothing), (0, []), f"search={nothing}")
        count, everyone = self.emails()
        assert_equal((count, len(everyone), everyone[:3]), (6, 6, [service, joerg, ohara]), "the list, the oldest first")
        for arguments in (("", 25, 0, "ASC"), ("", "25", "0", ""), (None, 100)):
            assert_equal(self.emails(*arguments), (6, everyone), f"list {arguments}")
        backwards = [address for at in range(6) for address in self.emails("", 1, at, "DESC")[1]]
        assert_equal(backwards, everyone[::-1], "the pages of one, backwards")
        assert_equal(self.emails("", 0), (6, []), "limit=0")
        assert_equal(self.emails("", 25, 6), (6, []), "offset at the end")
        assert_equal(self.emails("", 25, 1000000), (6, []), "an offset beyond Appwrite's")
        assert_equal(self.emails("ids.example", 1, 1)[0], 3, "sum of a search with pages")

    def status(self):
        # 0 came from create; the order matters for nothing.
        for status in (2, 1, 0):
            assert_equal(self.call("updateStatus", self.id, status), self.user(status=status), f"status {status}")
            assert_equal(self.call("get", self.id)["status"], status, "the status read back")
        first = self.login("203.0.113.9", CHROME)
        self.call("updateStatus", self.id, 2)
        self.no_session(first, "after a block")
        with contextlib.suppress(Refused):
            raise Wrong(f"a blocked user signed in: {self.login('203.0.113.9', CHROME)}")
        self.call("updateStatus", self.id, 0)
        self.no_session(first, "after the block ended")

    def no_session(self, opened, when):
        try:
            read = self.canonical.call("ReadSession", {"sessionId": opened["id"]})
        except Refused as refused:
            assert_equal(refused.reason, "SESSION_NOT_FOUND", f"the session {when}")
            return
        raise Wrong(f"a session {when}: {read}")

    def verification(self):
        for verified in (True, True, False, True):
            reply = self.call("updateVerification", self.id, verified)
            assert_equal(reply, self.user(emailVerification=verified), f"verification {verified}")
            assert_equal(self.call("get", self.id)["emailVerification"], verified, "the verification read back")
        self.call("updateVerification", self.id, False)

    def prefs(self):
        assert_equal(self.call("getPrefs", self.id), {}, "prefs of a new user")
        for empty in ({}, []):
            assert_equal(self.call("updatePrefs", self.id, empty), {}, "prefs after nothing was written")
        assert_equal(self.call("get", self.id)["prefs"], {}, "empty prefs in the user")
        first = {"funcKey1": "funcValue1", "funcKey2": "funcValue2"}
        assert_equal(self.call("updatePrefs", self.id, first), first, "prefs that were written")
        assert_equal(self.call("getPrefs", self.id), first, "prefs read back")
        deep = {"deep": {"er": [1, 2.5, -3, None, True, "/ü\"\\"]}, "empty": {}, "none": []}
        more = {"funcKey1": deep, "n": 9007199254740991}
        both = {**first, **more}
        assert_equal(self.call("updatePrefs", self.id, more), both, "some prefs written, the others kept")
        assert_equal(self.call("getPrefs", self.id), both, "both read back")
        assert_equal(self.call("updatePrefs", self.id, {"funcKey2": None, "n": None}), {"funcKey1": deep}, "two removed")
        assert_equal(self.call("get", self.id), self.user(prefs={"funcKey1": deep}), "the user with prefs")
        self.call("updatePrefs", self.id, {"funcKey1": None})
        assert_equal(self.call("get", self.id), self.user(), "the user without prefs")

    def since_0_10(self):
        """What the SDKs for 0.10 have beyond 0.9."""
        opened = self.login("203.0.113.9", CHROME)
        self.call("updateVerification", self.id, True)
        assert_equal(self.call("updateName", self.id, "Ümläut"), self.user(name="Ümläut", emailVerification=True), "a new name")
        reply = self.call("updateEmail", self.id, "New.Address@Example.com")
        assert_equal(reply, self.user(name="Ümläut", email="new.address@example.com"), "a new address is not verified")
        assert_equal(self.emails("new.address"), (1, ["new.address@example.com"]), "search by the new address")
        self.refused(400, "User already registered", "updateEmail", self.id, "joerg@elsewhere.org")
        self.call("updateEmail", self.id, "users.service@example.com")
        self.call("updateName", self.id, "Project User")
        assert_equal(self.call("updatePassword", self.id, "newpass"), self.user(), "a new password")
        self.no_session(opened, "after a new password")
        self.login("203.0.113.9", CHROME, "newpass")
        assert_equal(self.call("updatePassword", self.id, "password"), self.user(), "the old password again")

    def bad(self):
        before = self.call("get", self.id), self.emails()
        for method, arguments, message in bad_calls(self.id):
            if self.sdk.has(method):
                self.refused(400, message, method, *arguments)
        # What cannot be right is told before what is not there.
        self.refused(400, STATUS, "updateStatus", "nobody", 7)
        self.refused(400, PREFS, "updatePrefs", "nobody", "bad-string")
        assert_equal((self.call("get", self.id), self.emails()), before, "users after calls that were refused")

    def unsent(self):
        self.refused(None, 'Missing required parameter: "password"', "create", "new@example.com", None)
        self.refused(None, Like('Missing required parameter: "user_?[iI]d"'), "get", None)
        self.refused(None, 'Missing required parameter: "prefs"', "updatePrefs", self.id, None)
        self.refused(None, 'Missing required parameter: "status"', "updateStatus", self.id, None)

    def sessions(self):
        call, id, email = self.call, self.id, "users.service@example.com"
        assert_equal(call("getSessions", id), {"sum": 0, "sessions": []}, "no sessions")
        assert_equal(call("deleteSessions", id), "", "what deleteSessions gives where there are none")
        assert_equal(call("deleteSession", id, "none"), "", "what deleteSession gives where there is none")
        devices = [("203.0.113.9", CHROME, ON_CHROME), ("2001:db8::7", IPHONE, ON_IPHONE), ("198.51.100.1", "?", UNKNOWN)]
        opened = [self.login(address, agent) for address, agent, _ in devices]
        expected = [session(one, id, email, on, at) for one, (at, _, on) in zip(opened, devices)]
        assert_equal(call("getSessions", id), {"sum": 3, "sessions": expected}, "three sessions")
        assert_true(not any(one["id"] in json.dumps(call("getSessions", id)) for one in opened), "no list shows a token")
        self.refused(404, "User not found", "deleteSession", "nobody", opened[0]["publicId"])
        other = call("list", "joerg@")["users"][0]["$id"]
        assert_equal(call("deleteSession", other, opened[0]["publicId"]), "", "a session of another user")
        assert_equal(call("getSessions", id)["sum"], 3, "sessions after those calls")
        assert_equal(call("deleteSession", id, opened[0]["publicId"]), "", "what deleteSession gives")
        self.no_session(opened[0], "after deleteSession")
        assert_equal(call("getSessions", id), {"sum": 2, "sessions": expected[1:]}, "two sessions left")
        assert_equal(call("deleteSessions", id), "", "what deleteSessions gives")
        self.no_session(opened[1], "after deleteSessions")
        assert_equal(call("getSessions", id), {"sum": 0, "sessions": []}, "no sessions left")

    def logs(self):
        call = self.call
        id = call("create", "logs@example.com", "password")["$id"]
        request = {"email": "logs@example.com", "password": "password"}
        device = {"address": "203.0.113.9", "userAgent": CHROME}
        opened = self.canonical.call("Login", {**request, "device": device})["session"]
        logs = call("getLogs", id)
        assert_equal(list(logs), ["logs"], "keys of the logs: no sum in 0.9")
        assert_equal([log["event"] for log in logs["logs"]], ["account.sessions.create", "account.create"], "the newest first")
        about = {"event": "account.sessions.create", "ip": "203.0.113.9", "time": Near(written=int)}
        assert_equal(logs["logs"][0], {**about, **ON_CHROME}, "a log entry, all 17 fields")
        call("updatePrefs", id, {"a": 1})
        call("deleteSession", id, opened["publicId"])
        call("updateVerification", id, True)
        events = [log["event"] for log in call("getLogs", id)["logs"]]
        for event in ("account.sessions.delete", "account.update.prefs", "account.sessions.create", "account.create"):
            assert_true(event in events, f"{event} is logged: {events}")
        for number in range(12):
            call("updatePrefs", id, {"a": number + 2})
        events = [log["event"] for log in call("getLogs", id)["logs"]]
        assert_equal(events, ["account.update.prefs"] * 10, "no more than ten")

    def unknown(self):
        elsewhere = type(self.sdk)(self.sdk.server, self.sdk.project + "-other")
        with contextlib.closing(elsewhere):
            assert_equal(elsewhere.call("list"), {"sum": 0, "users": []}, "users of another project")
            other = AppwriteUsers(elsewhere)
            for method, *arguments in ABOUT_A_USER:
                if self.sdk.has(method):
                    self.refused(404, "User not found", method, "nobody", *arguments)
                    other.refused(404, "User not found", method, self.id, *arguments)
        assert_equal(self.call("get", self.id), self.user(), "the user after calls from another project")

    def delete(self):
        opened = self.login("203.0.113.9", CHROME)
        assert_equal(self.call("delete", self.id), "", "what delete gives")
        for method, *arguments in ABOUT_A_USER:
            if self.sdk.has(method):
                self.refused(404, "User not found", method, self.id, *arguments)
        self.no_session(opened, "of a deleted user")
        assert_equal(self.emails("users.service"), (0, []), "search for a deleted user")
        again = self.call("create", "users.service@example.com", "password")
        assert_true(again["$id"] != self.id, "the address is free again, the id is not used again")

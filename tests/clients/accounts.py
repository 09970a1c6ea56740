"""The calls that came after the first nine, over the clients people have: each once as it is meant, and what it refuses."""

from devices import CHROME, IPHONE, ON_CHROME, ON_IPHONE
from examples import WEEK, Calls
from harness import Like, Near, Wrong, assert_equal, assert_true

PASSWORD = "correct horse"
UUID7 = Like("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
LATER = 4102444800  # 2100


class Accounts(Calls):
    """One run over one transport, in a namespace of its own."""

    def steps(self):
        yield "List", self.list
        yield "BatchRead", self.batch_read
        yield "Delete, ReadTrash, ListTrash, Restore, Purge", self.trash
        yield "CreateOrRestore", self.create_or_restore
        yield "SetPassword", self.set_password
        yield "Unlock", self.unlock
        yield "UpdateStatus", self.update_status
        yield "UpdateVerification", self.update_verification
        yield "ReadPrefs, UpdatePrefs", self.prefs
        yield "ListSessions, DeleteSession, DeleteSessions", self.sessions
        yield "ListLogs", self.logs

    # --- What is sent and expected ---

    def call(self, method, **request):
        return self.over.call(method, request)

    def invalid(self, method, *fields, **request):
        self.refused(method, request, "INVALID_ARGUMENT", "FIELD_INVALID", fields)

    def stale(self, method, **request):
        self.refused(method, {**request, "etag": '"stale"'}, "ABORTED", "ETAG_MISMATCH")

    def taken(self, field, holder, method, **request):
        metadata = {"field": field, "holder": holder}
        self.refused(method, request, "ALREADY_EXISTS", f"{field.upper()}_TAKEN", metadata=metadata)

    def login(self, name, password=PASSWORD, **device):
        return self.call("Login", username=name, password=password, **({"device": device} if device else {}))["session"]

    def may_not_sign_in(self, name, password=PASSWORD):
        self.refused("Login", {"username": name, "password": password}, "UNAUTHENTICATED", "BAD_CREDENTIALS")

    def ids(self, method, **request):
        """The ids and the total of a list."""
        reply = self.call(method, **request)
        return [user["id"] for user in reply.get("users", [])], reply.get("total")

    # --- The calls ---

    def list(self):
        people = [f"u{number}" for number in range(5)]
        for number, id in enumerate(people):
            self.call("Create", id=id, username=f"walker{9 - number}", email=f"{id}@hills.example", name=f"Wälker {number}",
                      ssoEnabled=True, labels=[["odd", "even"][number % 2 == 0]],
                      status="USER_STATUS_PENDING" if number == 4 else "USER_STATUS_ACTIVE")
        first = self.user(id="u0", username="walker9", email="u0@hills.example", name="Wälker 0", labels=["even"],
                          ssoEnabled=True, passwordUpdated="0")
        without = {name: value for name, value in first.items() if name != "prefs"}
        reply = self.call("List", limit=1)
        token = reply.pop("nextPageToken")
        assert_equal(reply, {"users": [without], "total": "5"}, "the first page of one")
        assert_equal(self.call("List", limit=1, includePrefs=True)["users"], [first], "with prefs")
        assert_equal(self.ids("List"), (people, "5"), "all, the oldest first")
        for order in ({"orderBy": "username"}, {"orderBy": "id", "orderDir": "desc"}, {"orderDir": "DESC"}):
            assert_equal(self.walk("List", limit=2, **order), people[::-1], f"all, by pages of two, {order}")
        assert_equal(self.walk("List", limit=2, search="hills.example", skipTotal=True), people, "a search by pages")
        assert_equal(self.ids("List", offset=3, limit=5), (people[3:], "5"), "with an offset")
        assert_equal(self.ids("List", limit=0), ([], "5"), "only the total")
        assert_equal(self.ids("List", limit=0, skipTotal=True), ([], None), "neither users nor a total")
        for filters, expected in (
            ({"search": "ÄLKER 3"}, ["u3"]), ({"search": "wa"}, people), ({"search": "%"}, []), ({"search": "u2"}, ["u2"]),
            ({"label": "even"}, ["u0", "u2", "u4"]), ({"status": "USER_STATUS_PENDING"}, ["u4"]),
            ({"emailVerified": True}, []), ({"emailVerified": False, "label": "odd"}, ["u1", "u3"]),
            ({"createdFrom": LATER}, []), ({"createdTo": LATER, "updatedFrom": 0, "updatedTo": str(LATER)}, people),
            ({"search": "hills", "label": "even", "status": "USER_STATUS_ACTIVE"}, ["u0", "u2"]),
        ):
            assert_equal(self.ids("List", **filters), (expected, str(len(expected))), f"users with {filters}")
        self.invalid("List", "page_token", pageToken=token, offset=1)
        self.invalid("List", "page_token", pageToken=token, limit=1, label="even")
        self.invalid("List", "page_token", pageToken="made up")
        self.invalid("List", "order_by", "order_dir", "limit", "offset", orderBy="age", orderDir="up", limit=1001, offset=-1)

    def walk(self, method, **request):
        """The ids on all pages."""
        found, token = [], ""
        for _ in range(20):
            reply = self.call(method, **request, **({"pageToken": token} if token else {}))
            assert_true(len(reply.get("users", [])) <= request["limit"], f"a page holds no more than its limit: {reply}")
            assert_equal("total" in reply, not request.get("skipTotal"), "whether there is a total")
            found += [user["id"] for user in reply.get("users", [])]
            token = reply.get("nextPageToken")
            if not token:
                return found
        raise Wrong(f"pages without end: {found}")

    def batch_read(self):
        reply = self.call("BatchRead", ids=["u3", "nobody", "u1", "u3"], includePrefs=True)
        users = [self.call("Read", id=id)["user"] for id in ("u3", "u1")]
        assert_equal(reply, self.written({"users": users, "missing": ["nobody"], "unread": []}), "two users and a missing one")
        assert_equal("prefs" in self.call("BatchRead", ids=["u1"])["users"][0], False, "whether there are prefs unasked")
        assert_equal(self.call("BatchRead", ids=[]), self.written({"users": [], "missing": [], "unread": []}), "nobody")
        self.invalid("BatchRead", "ids[1]", ids=["u1", "a b"])

    def trash(self):
        gone = self.call("Delete", id="u0")["user"]
        assert_equal(gone["deleted"], Near(), "when it was deleted")
        assert_equal(self.call("ReadTrash", id="u0"), {"user": gone}, "a user in the trash")
        self.unknown("ReadTrash", {"id": "u1"})
        self.unknown("Read", {"id": "u0"})
        assert_equal(self.call("BatchRead", ids=["u0"])["missing"], ["u0"], "a trashed user among many")
        self.call("Delete", id="u1")
        assert_equal(self.ids("ListTrash"), (["u0", "u1"], "2"), "the trash")
        assert_equal(self.walk("ListTrash", limit=1, orderDir="desc"), ["u1", "u0"], "the trash by pages")
        assert_equal(self.ids("ListTrash", search="wälker 0"), (["u0"], "1"), "a search in the trash")
        assert_equal(self.ids("List", search="wälker 0"), ([], "0"), "a search beside the trash")
        # Back, once nobody else has the address.
        self.unknown("Restore", {"id": "u2"})
        self.stale("Restore", id="u0")
        other = self.call("Create", email="u0@hills.example", ssoEnabled=True)["user"]["id"]
        self.taken("email", other, "Restore", id="u0")
        self.call("Delete", id=other)
        back = self.call("Restore", id="u0", etag=gone["etag"])["user"]
        assert_equal(back, {**self.call("Read", id="u0")["user"]}, "a restored user")
        assert_equal((back.get("deleted", "0"), back["etag"] == gone["etag"]), ("0", False), "out of the trash, a new etag")
        # Gone for good.
        self.unknown("Purge", {"id": "u0"})
        self.stale("Purge", id="u1")
        assert_equal(self.call("Purge", id="u1"), {}, "reply of Purge")
        for method in ("ReadTrash", "Restore", "Purge"):
            self.unknown(method, {"id": "u1"})
        self.unknown("ListLogs", {"userId": "u1"})
        self.call("Create", id="u1", email="u1@hills.example", ssoEnabled=True)

    def create_or_restore(self):
        request = {"username": "phoenix", "email": "Phoenix@Nest.example", "password": PASSWORD, "labels": ["bird"]}
        bird = self.user(id=UUID7, username="phoenix", email="phoenix@nest.example", labels=["bird"])
        reply = self.call("CreateOrRestore", **request)
        assert_equal(reply, self.written({"user": bird, "restored": False}), "a new user")
        id = reply["user"]["id"]
        self.taken("email", id, "CreateOrRestore", **{**request, "username": "firebird"})
        self.taken("username", id, "CreateOrRestore", **{**request, "email": "fire@nest.example"})
        self.call("UpdateVerification", id=id, emailVerified=True)
        self.call("UpdatePrefs", id=id, prefs={"nest": 1})
        self.call("UpdateStatus", id=id, status="USER_STATUS_PENDING")
        self.call("Delete", id=id)
        # Of two in the trash the one that was deleted last comes back.
        other = self.call("Create", email="phoenix@nest.example", ssoEnabled=True)["user"]["id"]
        self.call("Delete", id=other)
        self.call("Restore", id=id)
        self.call("Delete", id=id)
        reply = self.call("CreateOrRestore", email="phoenix@nest.example", password="from the ashes", name="Phoenix")
        bird = self.user(id=id, username="phoenix", email="phoenix@nest.example", labels=["bird"], name="Phoenix",
                         status="USER_STATUS_PENDING", prefs={"nest": 1})
        assert_equal(reply, self.written({"user": bird, "restored": True}), "a restored user")
        assert_equal(self.ids("ListTrash", search="phoenix@"), ([other], "1"), "the other one stays in the trash")
        self.login("phoenix", "from the ashes")
        self.may_not_sign_in("phoenix")
        self.invalid("CreateOrRestore", "password", "email", username="nobody")

    def set_password(self):
        ada = self.call("Create", username="ada", email="ada@example.com", password=PASSWORD)["user"]
        token = self.login("ada")["id"]
        self.invalid("SetPassword", "new_password", userId=ada["id"], newPassword="short")
        self.unknown("SetPassword", {"userId": "nobody", "newPassword": "another one"})
        self.stale("SetPassword", userId=ada["id"], newPassword="another one")
        assert_equal(self.call("ReadSession", sessionId=token)["session"]["id"], token, "the session after refusals")
        reply = self.call("SetPassword", userId=ada["id"], newPassword="another one", etag=ada["etag"])
        assert_equal(reply, {"user": self.user(id=ada["id"], username="ada", email="ada@example.com")}, "reply of SetPassword")
        assert_true(reply["user"]["etag"] != ada["etag"], "a new etag")
        self.no_session("ReadSession", token)
        self.may_not_sign_in("ada")
        self.login("ada", "another one")
        self.call("SetPassword", userId=ada["id"], newPassword=PASSWORD)

    def unlock(self):
        id = self.call("Create", username="locked", password=PASSWORD)["user"]["id"]
        for _ in range(5):
            self.may_not_sign_in("locked", "wrong guess")
        right = {"username": "locked", "password": PASSWORD}
        self.refused("Login", right, "RESOURCE_EXHAUSTED", "TOO_MANY_ATTEMPTS")
        assert_equal(self.call("Unlock", id=id)["user"]["id"], id, "the user who may try again")
        assert_equal(self.call("Login", **right)["session"]["username"], "locked", "who signed in")
        self.refused("Unlock", {"id": "nobody"}, "NOT_FOUND", "USER_NOT_FOUND")

    def update_status(self):
        id, token = self.call("Read", username="ada")["user"]["id"], self.login("ada")["id"]
        ada = {"id": id, "username": "ada", "email": "ada@example.com"}
        blocked = self.call("UpdateStatus", id=id, status="USER_STATUS_BLOCKED")
        assert_equal(blocked, {"user": self.user(**ada, status="USER_STATUS_BLOCKED")}, "reply of UpdateStatus")
        self.no_session("ReadSession", token)
        self.refused("Login", {"username": "ada", "password": PASSWORD}, "PERMISSION_DENIED", "USER_BLOCKED")
        self.may_not_sign_in("ada", "wrong")
        self.stale("UpdateStatus", id=id, status="USER_STATUS_ACTIVE")
        self.invalid("UpdateStatus", "status", id=id)
        self.unknown("UpdateStatus", {"id": "nobody", "status": "USER_STATUS_ACTIVE"})
        for status in ("USER_STATUS_PENDING", "USER_STATUS_ACTIVE"):
            assert_equal(self.call("UpdateStatus", id=id, status=status), {"user": self.user(**ada, status=status)}, status)
            self.login("ada")
        self.no_session("ReadSession", token)

    def update_verification(self):
        id = self.call("Read", username="ada")["user"]["id"]
        ada = {"id": id, "username": "ada", "email": "ada@example.com"}
        reply = self.call("UpdateVerification", id=id, emailVerified=True)
        assert_equal(reply, {"user": self.user(**ada, emailVerified=True)}, "reply of UpdateVerification")
        assert_equal(self.ids("List", emailVerified=True), ([id], "1"), "users whose address is verified")
        self.stale("UpdateVerification", id=id, emailVerified=False)
        ada["email"] = "ada@new.example"
        assert_equal(self.call("Update", id=id, email="ada@new.example")["user"], self.user(**ada), "a new address starts anew")
        plain = self.call("Create", username="plain", password=PASSWORD)["user"]["id"]
        self.invalid("UpdateVerification", "email_verified", id=plain, emailVerified=True)
        self.unknown("UpdateVerification", {"id": "nobody", "emailVerified": True})

    def prefs(self):
        id = self.call("Read", username="ada")["user"]["id"]
        assert_equal(self.call("ReadPrefs", id=id), {"prefs": {}}, "prefs of one who has none")
        prefs = {"size": 12, "ratio": 0.5, "deep": {"a": [1, None, {"b": True}], "none": {}}, "gone": "ü/\"\\", "no": False}
        ada = {"id": id, "username": "ada", "email": "ada@new.example"}
        reply = self.call("UpdatePrefs", id=id, prefs=prefs)
        assert_equal(reply, {"prefs": prefs, "user": self.user(prefs=False, **ada)}, "reply of UpdatePrefs")
        merged = {**{name: prefs[name] for name in ("ratio", "no")}, "size": 13, "deep": {"x": -1e300}, "list": []}
        change = {"size": 13, "gone": None, "deep": {"x": -1e300}, "list": [], "never": None}
        assert_equal(self.call("UpdatePrefs", id=id, prefs=change)["prefs"], merged, "merged at the top, null removes")
        assert_equal(self.call("Read", id=id), {"user": self.user(**ada, prefs=merged)}, "the user with prefs")
        assert_equal(self.call("UpdatePrefs", id=id, prefs={"only": 1}, replace=True)["prefs"], {"only": 1}, "all replaced")
        assert_equal(self.call("ReadPrefs", id=id), {"prefs": {"only": 1}}, "prefs read back")
        self.invalid("UpdatePrefs", "prefs", id=id)
        self.invalid("UpdatePrefs", "prefs", id=id, prefs={"long": "x" * 65536})
        self.stale("UpdatePrefs", id=id, prefs={"a": 1})
        self.unknown("UpdatePrefs", {"id": "nobody", "prefs": {"a": 1}})
        self.unknown("ReadPrefs", {"id": "nobody"})
        assert_equal(self.call("UpdatePrefs", id=id, prefs={}, replace=True)["prefs"], {}, "none left")

    def sessions(self):
        id = self.call("Create", username="grace", password=PASSWORD)["user"]["id"]
        none = {"sessions": [], "total": "0", "nextPageToken": ""}
        assert_equal(self.call("ListSessions", userId=id), self.written(none), "no sessions")
        devices = [("203.0.113.9", CHROME, ON_CHROME), ("2001:db8::7", IPHONE, ON_IPHONE)]
        devices.append(("198.51.100.1", CHROME, ON_CHROME))
        opened = [self.login("grace", address=address, userAgent=agent) for address, agent, _ in devices]
        shown = [
            self.written({"id": one["publicId"], "userId": id, "created": Near(), "expires": Near(WEEK),
                          "authTime": Near(), "amr": ["pwd"], "device": {"address": address, "userAgent": agent, **on}})
            for one, (address, agent, on) in zip(opened, devices)
        ]
        reply = self.call("ListSessions", userId=id, limit=2)
        token = reply.pop("nextPageToken")
        assert_equal(reply, {"sessions": shown[:2], "total": "3"}, "the first page of two")
        reply = self.call("ListSessions", userId=id, limit=2, pageToken=token, skipTotal=True)
        assert_equal(reply, self.written({"sessions": shown[2:], "nextPageToken": ""}), "the second page")
        self.invalid("ListSessions", "page_token", userId=id, pageToken="made up")
        self.unknown("ListSessions", {"userId": "nobody"})
        # Neither the token nor somebody else can end it.
        ada = self.call("Read", username="ada")["user"]["id"]
        first = opened[0]["publicId"]
        for user, session in ((id, opened[0]["id"]), (ada, first), (id, "none")):
            request = {"userId": user, "sessionId": session}
            self.refused("DeleteSession", request, "NOT_FOUND", "SESSION_NOT_FOUND")
        self.unknown("DeleteSession", {"userId": "nobody", "sessionId": first})
        assert_equal(self.call("DeleteSession", userId=id, sessionId=first), {}, "reply of DeleteSession")
        self.no_session("ReadSession", opened[0]["id"])
        assert_equal(self.call("ReadSession", sessionId=opened[1]["id"])["session"]["id"], opened[1]["id"], "another session")
        assert_equal(self.call("DeleteSessions", userId=id), {"deleted": "2"}, "reply of DeleteSessions")
        self.no_session("ReadSession", opened[1]["id"])
        assert_equal(self.call("DeleteSessions", userId=id), self.written({"deleted": "0"}), "where there are none")
        self.unknown("DeleteSessions", {"userId": "nobody"})

    def logs(self):
        id = self.call("Create", username="alan", password=PASSWORD)["user"]["id"]
        self.call("Update", id=id, name="Alan")
        session = self.login("alan", address="203.0.113.9", userAgent=CHROME)["publicId"]
        self.may_not_sign_in("alan", "wrong")
        self.call("SetPassword", userId=id, newPassword="another one")
        self.call("UpdateStatus", id=id, status="USER_STATUS_BLOCKED")
        self.call("Delete", id=id)
        events = ["USER_DELETED", "STATUS_UPDATED", "PASSWORD_SET", "LOGIN_REFUSED", "SESSION_CREATED", "USER_UPDATED",
                  "USER_CREATED"]
        reply = self.call("ListLogs", userId=id)
        assert_equal([entry["event"] for entry in reply["logs"]], events, "what happened, the newest first, also in the trash")
        assert_equal((reply["total"], reply.get("nextPageToken", "")), ("7", ""), "how many")
        where = {"address": "203.0.113.9", "userAgent": CHROME, **ON_CHROME}
        entry = {"event": "SESSION_CREATED", "time": Near(), "caller": UUID7, "device": where, "changed": [],
                 "sessionId": session}
        assert_equal(reply["logs"][4], self.written(entry), "an entry")
        assert_equal((reply["logs"][5]["changed"], reply["logs"][1]["changed"]), (["name"], ["status"]), "what was changed")
        assert_equal(reply["logs"][6]["device"]["address"], "127.0.0.1", "where the caller was")
        found, token = [], ""
        for _ in events:
            page = self.call("ListLogs", userId=id, limit=3, **({"pageToken": token} if token else {}))
            found += [entry["event"] for entry in page["logs"]]
            token = page.get("nextPageToken")
            if not token:
                break
        assert_equal(found, events, "all, by pages of three")
        some = ["USER_CREATED", "USER_DELETED"]
        assert_equal([entry["event"] for entry in self.call("ListLogs", userId=id, events=some)["logs"]], some[::-1], "some events")
        assert_equal(self.call("ListLogs", userId=id, offset=5, limit=1)["logs"][0]["event"], "USER_UPDATED", "with an offset")
        assert_equal(self.call("ListLogs", userId=id, timeFrom=LATER)["total"], "0", "those to come")
        assert_equal(self.call("ListLogs", userId=id, timeTo=LATER, limit=0)["total"], "7", "those before")
        self.invalid("ListLogs", "page_token", userId=id, pageToken="made up")
        self.unknown("ListLogs", {"userId": "nobody"})

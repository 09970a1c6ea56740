"""The nine calls as the pages of the first `users` service print them, in an order in which each has what it needs, over
every transport; and what each refuses."""

import re

from harness import Like, Near, Wrong, assert_equal, assert_matches, assert_true
from transports import CODES, Refused

# As printed, but for the session id, which is the one that Login gave.
ID = "ff3c06de-9e43-41c7-9bab-578f6b4ad32b"
CREATE = {"id": ID, "username": "asim", "email": "asim@example.com", "password": "password1"}
READ = {"id": ID}
UPDATE = {"id": ID, "username": "asim", "email": "asim+update@example.com"}
UPDATE_PASSWORD = {
    "userId": ID, "oldPassword": "password1", "newPassword": "newpassword1", "confirmPassword": "newpassword1",
}
DELETE = {"id": ID}
LOGIN = {"username": "asim", "password": "password1"}

WEEK = 7 * 24 * 3600


class Calls:
    """Calls over one transport, in a namespace of its own, and what is expected of them."""

    def __init__(self, transport):
        self.over = transport

    def written(self, message):
        """A message in its full JSON, as the transport writes it."""
        out = {}
        for name, value in message.items():
            is_zero = value in ("", "0", False) or (value in ([], {}) and name != "prefs")
            if is_zero and not self.over.zeros and name != "total":
                continue
            if isinstance(value, dict) and name not in ("prefs", "metadata"):
                value = self.written(value)
            if self.over.names == "snake":
                name = re.sub("[A-Z]", lambda letter: "_" + letter.group().lower(), name)
            out[name] = value
        return out

    def user(self, **fields):
        """All fields of a user; `prefs=False` where they are left out."""
        user = {
            "id": "", "username": "", "email": "", "created": Near(), "updated": Near(), "name": "",
            "status": "USER_STATUS_ACTIVE", "emailVerified": False, "passwordUpdated": Near(), "prefs": {}, "labels": [],
            "metadata": {}, "ssoEnabled": False, "deleted": "0", "etag": Like('".+"'), **fields,
        }
        if user["prefs"] is False:
            del user["prefs"]
        return self.written(user)

    def refused(self, method, request, code, reason, fields=(), metadata=None):
        """Wants a refusal, and gives it."""
        try:
            reply = self.over.call(method, request)
        except Refused as refused:
            # Without details there is but the HTTP status, which several codes share.
            shown = slice(None) if self.over.details else slice(2, None)
            came = CODES.get(refused.code, (refused.code,) * 4)
            assert_equal(came[shown], CODES[code][shown], f"code of the refused {method} ({refused.message})")
            assert_true(refused.message, "a refusal says why")
            if self.over.details:
                assert_equal(refused.reason, reason, f"reason of the refused {method}")
                assert_equal(sorted(refused.fields), sorted(fields), "fields that are named")
                assert_equal(refused.metadata, metadata or {}, "metadata of ErrorInfo")
            else:
                for field in fields:
                    assert_true(field in refused.message, f"the message names {field}: {refused.message}")
            return refused
        raise Wrong(f"{method} {request} should be refused with {code} {reason}; came: {reply!r}")

    def unknown(self, method, request):
        return self.refused(method, request, "NOT_FOUND", "USER_NOT_FOUND")

    def no_session(self, method, token):
        return self.refused(method, {"sessionId": token}, "NOT_FOUND", "SESSION_NOT_FOUND")


class Examples(Calls):
    """One run of the nine."""

    def __init__(self, transport):
        super().__init__(transport)
        self.token = None
        self.session = None
        self.created = None

    def steps(self):
        for name in ("create", "read", "search", "update", "login", "read_session", "logout", "update_password", "delete"):
            yield name.title().replace("_", ""), getattr(self, name)

    def user(self, **changes):
        return super().user(**{"id": ID, "username": "asim", "email": "asim@example.com", **changes})

    def reply(self, once_empty, **fields):
        """Replies that were empty stay `{}` in the old dialects."""
        return {} if once_empty and self.over.empty else fields

    # --- The nine ---

    def create(self):
        call, over = self.over.call, self.over
        self.unknown("Read", READ)
        assert_equal(call("Create", CREATE), self.reply(True, user=self.user()), "reply of Create")
        again = {**CREATE, "username": "asim2", "email": "asim2@example.com"}
        self.refused("Create", again, "ALREADY_EXISTS", "ID_TAKEN", metadata={"field": "id"})
        other = {"username": "ASIM", "email": "b@example.com", "password": "password1"}
        taken = {"field": "username", "holder": ID}
        self.refused("Create", other, "ALREADY_EXISTS", "USERNAME_TAKEN", metadata=taken)
        other = {"username": "b", "email": "Asim@Example.com", "password": "password1"}
        taken = {"field": "email", "holder": ID}
        self.refused("Create", other, "ALREADY_EXISTS", "EMAIL_TAKEN", metadata=taken)
        wrong = {"id": "a b", "username": "é", "email": "nobody", "password": "short"}
        fields = ["id", "username", "email", "password"]
        self.refused("Create", wrong, "INVALID_ARGUMENT", "FIELD_INVALID", fields)
        second = {"username": "Asimov", "email": "Isaac@Example.com", "password": "three laws"}
        reply = call("Create", second)
        uuid7 = Like("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
        isaac = self.user(id=uuid7, username="asimov", email="isaac@example.com")
        assert_equal(reply, self.reply(True, user=isaac), "reply of Create without an id")
        assert_equal(over.call("Read", {"username": "ASIMOV"}), {"user": isaac}, "the second user")

    def read(self):
        call = self.over.call
        reply = call("Read", READ)
        assert_equal(reply, {"user": self.user()}, "reply of Read")
        self.created = reply["user"]["created"]
        assert_equal(reply["user"]["updated"], self.created, "updated of a new user")
        assert_equal(call("Read", {"username": "asim"}), reply, "Read by username")
        assert_equal(call("Read", {"email": "ASIM@example.com"}), reply, "Read by e-mail address")
        self.unknown("Read", {"id": ID[:-1]})
        self.unknown("Read", {"id": "nobody"})
        self.refused("Read", {"username": "asim", "email": "asim@example.com"}, "INVALID_ARGUMENT", "FIELD_INVALID",
                     ["username", "email"])

    def search(self):
        call = self.over.call
        asim = self.user(prefs=False)
        isaac = self.user(prefs=False, id=Like(".{36}"), username="asimov", email="isaac@example.com")
        page = {"email": "asim@", "limit": 1, "offset": 0, "username": "asim"}
        assert_equal(call("Search", page), {"users": [asim]}, "Search with all that the page has")
        assert_equal(call("Search", {"username": "ASI"}), {"users": [asim, isaac]}, "Search by the start of a username")
        assert_equal(call("Search", {"username": "asi", "limit": 1}), {"users": [asim]}, "the first of two")
        assert_equal(call("Search", {"username": "asi", "limit": "1", "offset": "1"}), {"users": [isaac]}, "the second of two")
        assert_equal(call("Search", {"email": "isaac@e"}), {"users": [isaac]}, "Search by the start of an address")
        nobody = call("Search", {"username": "zzz"})
        assert_equal(nobody, {"users": []} if self.over.zeros else {}, "Search that finds nobody")
        wrong = {"limit": -1, "offset": -1}
        self.refused("Search", wrong, "INVALID_ARGUMENT", "FIELD_INVALID", ["limit", "offset"])

    def update(self):
        call = self.over.call
        before = call("Read", READ)["user"]
        changed = self.user(email="asim+update@example.com")
        assert_equal(call("Update", UPDATE), self.reply(True, user=changed), "reply of Update")
        after = call("Read", READ)["user"]
        assert_equal(after, changed, "the user after Update")
        assert_equal(after["created"], self.created, "created after Update")
        assert_true(after["etag"] != before["etag"], "a change gives a new etag")
        assert_equal(call("Read", {"email": "asim+update@example.com"}), {"user": after}, "Read by the new address")
        self.unknown("Read", {"email": "asim@example.com"})
        self.unknown("Update", {**UPDATE, "id": "nobody"})
        self.refused("Update", {"id": ID, "username": "asimov"}, "ALREADY_EXISTS", "USERNAME_TAKEN",
                     metadata={"field": "username", "holder": call("Read", {"username": "asimov"})["user"]["id"]})
        self.refused("Update", {"id": ID, "name": "x", "etag": before["etag"]}, "ABORTED", "ETAG_MISMATCH")
        assert_equal(call("Read", READ)["user"], after, "the user after refused updates")

    def login(self):
        session = self.written({
            "id": Like("ses_[0-9a-f]{64}"), "username": "asim", "email": "asim+update@example.com", "created": Near(),
            "expires": Near(WEEK), "userId": ID, "publicId": Like(".{36}"), "authTime": Near(), "amr": ["pwd"],
        })
        reply = self.over.call("Login", LOGIN)
        assert_equal(reply, {"session": session}, "reply of Login")
        self.session, self.token = reply["session"], reply["session"]["id"]
        assert_equal(int(self.session["expires"]) - int(self.session["created"]), WEEK, "life of a session")
        by_mail = self.over.call("Login", {"email": "ASIM+update@example.com", "password": "password1"})
        assert_equal(by_mail, {"session": session}, "Login by e-mail address")
        assert_true(by_mail["session"]["id"] != self.token, "each log-in opens a session of its own")
        wrong = [
            {"username": "asim", "password": "password2"}, {"username": "nobody", "password": "password1"},
            {"username": "asi", "password": "password1"}, {"username": "asim", "password": ""},
            {"username": "asimov", "email": "asim+update@example.com", "password": "password1"},
        ]
        said = {self.refused("Login", request, "UNAUTHENTICATED", "BAD_CREDENTIALS").message for request in wrong}
        assert_equal(len(said), 1, f"number of different messages to those who may not sign in: {said}")
        refused = self.refused("Login", {"password": "password1"}, "INVALID_ARGUMENT", "FIELD_INVALID", ["username"])
        assert_true("email" in refused.message, f"the message names email: {refused.message}")

    def read_session(self):
        reply = self.over.call("ReadSession", {"sessionId": self.token})
        assert_equal(reply, {"session": self.session}, "reply of ReadSession")
        assert_equal(self.over.call("ReadSession", {"session_id": self.token}), reply, "ReadSession in the other spelling")
        self.no_session("ReadSession", self.token[:-1])
        self.no_session("ReadSession", self.session["publicId" if self.over.names == "camel" else "public_id"])
        printed = "sr7UEBmIMg5hYOgiljnhrd4XLsnalNewBV9KzpZ9aD8w37b3jRmEujGtKGcGlXPg1yYoSHR3RLy66ugglw0tofTNGm57NrNYUHs"
        self.no_session("ReadSession", printed + "FxfwuGC6pvCn8BecB7aEF6UxTyVFq")
        self.refused("ReadSession", {"sessionId": ""}, "INVALID_ARGUMENT", "FIELD_INVALID", ["session_id"])

    def logout(self):
        self.no_session("Logout", self.token[:-1])
        self.refused("Logout", {"sessionId": ""}, "INVALID_ARGUMENT", "FIELD_INVALID", ["session_id"])
        assert_equal(self.over.call("Logout", {"sessionId": self.token}), {}, "reply of Logout")
        self.no_session("ReadSession", self.token)
        self.no_session("Logout", self.token)

    def update_password(self):
        call = self.over.call
        token = call("Login", LOGIN)["session"]["id"]
        wrong = {**UPDATE_PASSWORD, "oldPassword": "password2"}
        said = self.refused("UpdatePassword", wrong, "UNAUTHENTICATED", "BAD_CREDENTIALS").message
        unknown = {**UPDATE_PASSWORD, "userId": "nobody"}
        refused = self.refused("UpdatePassword", unknown, "UNAUTHENTICATED", "BAD_CREDENTIALS")
        assert_equal(refused.message, said, "what is said of an unknown user")
        differs = {**UPDATE_PASSWORD, "confirmPassword": "newpassword2"}
        self.refused("UpdatePassword", differs, "INVALID_ARGUMENT", "FIELD_INVALID", ["confirm_password"])
        empty = {"userId": ID, "oldPassword": "password1", "newPassword": "", "confirmPassword": ""}
        self.refused("UpdatePassword", empty, "INVALID_ARGUMENT", "FIELD_INVALID", ["new_password"])
        assert_equal(call("ReadSession", {"sessionId": token})["session"]["id"], token, "the session after refusals")
        changed = self.user(email="asim+update@example.com")
        assert_equal(call("UpdatePassword", UPDATE_PASSWORD), self.reply(True, user=changed), "reply of UpdatePassword")
        self.no_session("ReadSession", token)
        self.refused("Login", LOGIN, "UNAUTHENTICATED", "BAD_CREDENTIALS")
        reply = call("Login", {"username": "asim", "password": "newpassword1"})
        assert_matches(reply["session"]["id"], "ses_[0-9a-f]{64}", "Login with the new password")
        self.token = reply["session"]["id"]

    def delete(self):
        call = self.over.call
        gone = self.user(email="asim+update@example.com", deleted=Near())
        assert_equal(call("Delete", DELETE), self.reply(True, user=gone), "reply of Delete")
        for method, request in (("Read", READ), ("Read", {"username": "asim"}), ("Update", UPDATE), ("Delete", DELETE)):
            self.unknown(method, request)
        self.no_session("ReadSession", self.token)
        new = {"username": "asim", "password": "newpassword1"}
        self.refused("Login", new, "UNAUTHENTICATED", "BAD_CREDENTIALS")
        isaac = self.user(prefs=False, id=Like(".{36}"), username="asimov", email="isaac@example.com")
        assert_equal(call("Search", {"username": "asim"}), {"users": [isaac]}, "Search after Delete")
        self.refused("Create", CREATE, "ALREADY_EXISTS", "ID_TAKEN", metadata={"field": "id"})
        other = {key: value for key, value in CREATE.items() if key != "id"}
        call("Create", other)
        assert_equal(call("Read", {"username": "asim"})["user"]["email"], "asim@example.com", "the names are free again")

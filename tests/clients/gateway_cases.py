"""Requests that our JSON and grpc-gateway are asked alike, and why some are answered otherwise."""

import dataclasses
import itertools
import urllib.parse


@dataclasses.dataclass
class Differs:
    """Why two replies differ, and the status of ours and of the gateway's."""

    why: str
    statuses: tuple


def differs(why):
    return lambda ours, theirs=None: Differs(why, (ours, theirs or ours))


WORDS = differs("we name the fields at fault and the place in the text; the gateway shows errors of Go")
ROUTING = differs("we give the reason METHOD_UNKNOWN in google.rpc.ErrorInfo; the gateway has no details")
VERBS = differs("RFC 9110: a verb that a path lacks is 405 with Allow; the gateway says 501")
HEAD = differs("RFC 9110: HEAD is answered wherever GET is; the gateway says 501")
OPTIONS = differs("RFC 9110: OPTIONS is answered with Allow; the gateway says 501")
UNKNOWN = differs("a field that a message lacks is refused, so that a misspelt one changes nothing; the gateway drops it")
QUERY = differs("a parameter that no field takes is refused, as an unknown field is; the gateway drops it")
DECODED = differs("google.api.http: a path is matched before %2F is decoded; the gateway decodes first")
EMPTY = differs("a segment that is empty matches no variable; the gateway gives the call an empty one")
TRAILING = differs("bytes behind the JSON are refused; the gateway drops them")
MEDIA = differs("a body of another media type is refused; the gateway takes anything for JSON")
DEVICE = differs("the gateway is the client that the server sees")
CONNECT = differs("the paths of gRPC are those of the Connect protocol, too; the gateway has no such paths")


@dataclasses.dataclass
class Case:
    """A request, what is kept of its reply for later ones, and the difference that is expected."""

    method: str
    path: str
    body: object = None
    differs: Differs = None
    keep: dict = dataclasses.field(default_factory=dict)
    headers: dict = dataclasses.field(default_factory=dict)


def get(path, differs=None, **query):
    return Case("GET", path + ("?" + urllib.parse.urlencode(query, doseq=True) if query else ""), differs=differs)


def post(path, body, differs=None, **keep):
    return Case("POST", path, body, differs, keep)


def patch(path, body, differs=None):
    return Case("PATCH", path, body, differs)


def delete(path, differs=None):
    return Case("DELETE", path, differs=differs)


NOBODY = "01a2155f-9eea-7c89-acbc-f28b306d0018"
PASSWORD = "correct horse"


def user(username, /, **fields):
    return {"username": username, "email": f"{username}@example.com", "password": PASSWORD, **fields}


def creations():
    users = "/v1/users"
    yield post(users, user("ada", id="u1", name="Ada Lovelace", labels=["staff", "analyst"], metadata={"team": "1", "x": ""}), ada="user.id")
    yield post(users, user("alan", id="u2", metadata={"team": "1"}))
    yield post(users, user("ada", metadata={"team": "Ä 😀"}, labels=["staff"], name="Ada Lovelace"))
    yield post(users, {"id": "u3", "username": "grace", "email": "GRACE@example.com", "ssoEnabled": True, "name": "Grace \u00e9 😀 \"x\" \\ /"}, grace="user.id")
    yield post(users, {"id": "u4", "username": "edsger", "sso_enabled": True, "status": "USER_STATUS_PENDING"}, edsger="user.id")
    yield post(users, {"id": "u5", "username": "barbara", "ssoEnabled": True, "status": 2, "labels": [], "metadata": {}}, barbara="user.id")
    yield post(users, {"id": "u6", "username": "tony", "ssoEnabled": True, "name": None, "labels": None, "metadata": None, "status": None})
    yield post(users, {"id": "u7", "email": "solo@example.com", "ssoEnabled": True})
    yield post(users, {"id": "u8", "username": "dennis", "ssoEnabled": True, "metadata": {"a": "<b>&'\u2028"}})
    for body in (
        {}, None, "", {"username": ""}, user("Ä"), user("a b"), user("-a"), user("x" * 65), user("y", email="nobody"),
        user("y", email="a@b@c.de"), user("y", password="short"), user("y", password=""), user("y", id="1"), user("y", id=NOBODY.upper()),
        user("y", labels=[""]), user("y", labels=["a", "a"]), user("y", metadata={"k": "v" * 10_000}), user("y", status="USER_STATUS_UNSPECIFIED"),
        user("y", status=77), user("y", name="n" * 300), user("y", passwordHash="$1$nothing"), {"username": "é", "email": "nobody", "password": "short"},
    ):
        yield post(users, body)
    for fields in ({"emailVerified": True}, {"nope": 1}, {"user": {"username": "x"}}):
        yield post(users, {"username": "", **fields}, UNKNOWN(400))


def malformed():
    users = "/v1/users"
    for body in (
        "{", "[]", "1", '"a"', "null", "nope", '{"username": "a",}', "{'username': 'a'}", '{"username": 1}', '{"username": ["a"]}',
        '{"labels": "a"}', '{"labels": [1]}', '{"labels": [null]}', '{"metadata": []}', '{"metadata": {"a": 1}}', '{"metadata": {"a": null}}',
        '{"ssoEnabled": "true"}', '{"ssoEnabled": 1}', '{"status": "ACTIVE"}', '{"status": "user_status_active"}', '{"status": 1.5}',
        '{"username": "a", "username": "b"}', '{"sso_enabled": true, "ssoEnabled": true}', '{"username": "\\ud800"}', '{"username": "\\x"}',
        '{"username": "a"', '{"username": "tab\t"}', "\ufeff{}", '{"metadata": {"a": "b", "a": "c"}}',
    ):
        yield post(users, body, WORDS(400))
    for body in ("{} trailing", "{}{}", "{}]"):
        yield post(users, body, TRAILING(400))
    yield post("/v1/users:batchRead", '\r\n\t {"ids": []} \n')


def reads():
    for name in ("ada", "grace", "edsger", "barbara"):
        yield get("/v1/users/{" + name + "}")
    yield get("/v1/users:lookup", username="ada")
    yield get("/v1/users:lookup", username="ADA")
    yield get("/v1/users:lookup", email="ada@example.com")
    yield get("/v1/users:lookup", email="grace@EXAMPLE.com")
    yield get("/v1/users:lookup", username="nobody")
    yield get("/v1/users:lookup", username="ada", email="ada@example.com")
    yield get("/v1/users:lookup")
    yield get("/v1/users:lookup?")
    yield get("/v1/users:lookup?username=%61da")
    yield get("/v1/users:lookup?username=ada&")
    yield get("/v1/users:lookup?email=ada%40example.com")
    yield get("/v1/users:lookup?email=ada%2Bx%40example.com")
    yield get("/v1/users:lookup?email=ada+x%40example.com")
    yield get("/v1/users:lookup?username=%C3%A9")
    yield get("/v1/users:lookup?username=%E9", WORDS(400, 500))
    yield get("/v1/users:lookup?username=%zz", WORDS(400))
    yield get("/v1/users:lookup?username=a&username=b", WORDS(400))
    yield get("/v1/users:lookup?username")
    yield get("/v1/users:lookup?=ada", QUERY(400))
    yield get("/v1/users:lookup?nope=1&username=ada", QUERY(400, 200))
    yield get("/v1/users:lookup?Username=ada", QUERY(400))
    yield get("/v1/users/{ada}?username=ada")
    yield get("/v1/users/{ada}?id=" + NOBODY)
    for id in (NOBODY, "1", "x", "%20", "%C3%A9", "a%2Bb", "a+b", "a:b", "..%20", "~", "x" * 200, NOBODY.upper()):
        yield get(f"/v1/users/{id}")
    for body in ({"ids": ["{ada}", "{grace}", NOBODY]}, {"ids": []}, {}, {"ids": ["{ada}", "{ada}"]}, {"ids": ["1"]},
                 {"ids": ["{ada}"], "includePrefs": True}, {"ids": ["{ada}"], "include_prefs": True}, {"ids": None}):
        yield post("/v1/users:batchRead", body)


def lists():
    for order, direction, limit in itertools.product(("username", "email", "name"), ("asc", "desc", ""), (1, 100)):
        yield get("/v1/users", orderBy=order, orderDir=direction, limit=limit)
    for query in (
        {"order_by": "username", "limit": 3}, {"orderBy": "username", "limit": 2, "offset": 1}, {"limit": 0}, {"limit": -1}, {"limit": 1001},
        {"offset": -1}, {"orderBy": "nope"}, {"orderDir": "up"}, {"status": "USER_STATUS_PENDING"}, {"status": 1}, {"status": 2, "limit": 1},
        {"label": "staff"}, {"label": "nope"}, {"search": "ada"}, {"search": "ada lovelace"}, {"search": ""}, {"emailVerified": "false", "limit": 1},
        {"emailVerified": "true"}, {"email_verified": "true"}, {"createdFrom": 0, "limit": 1}, {"createdTo": 1}, {"created_from": 0, "created_to": 4_000_000_000, "limit": 1},
        {"updatedFrom": -1, "limit": 1}, {"updatedTo": 1}, {"createdFrom": 9_223_372_036_854_775_807}, {"skipTotal": "true", "limit": 1}, {"includePrefs": "true", "orderBy": "username", "limit": 1},
        {"pageToken": "nope"}, {"pageToken": ""},
    ):
        yield get("/v1/users", **query)
    for query in ("limit=abc", "limit=", "limit=1.5", "limit=0x10", "limit=9223372036854775808", "limit=1&limit=2", "emailVerified=yes", "emailVerified=",
                  "status=NOPE", "status=77", "limit.x=1", "limit%5B%5D=1", "status=user_status_active", "status=", "skipTotal=2", "limit=%31x"):
        yield get(f"/v1/users?{query}", WORDS(400))
    for flag in ("1", "t", "T", "TRUE", "True", "0", "f", "F", "FALSE", "False"):
        yield get(f"/v1/users?orderBy=username&limit=1&skipTotal={flag}")
    for query in ("nope=1", "labels=a"):
        yield get(f"/v1/users?limit=1&{query}", QUERY(400, 200))
    for query in ({"username": "a"}, {"username": "A"}, {"email": "grace"}, {}, {"limit": 1}, {"limit": 1, "offset": 1}, {"limit": 1001}, {"offset": -1},
                  {"username": "a" * 300}, {"username": "ada", "includePrefs": "true"}, {"username": "zz"}):
        yield get("/v1/users:search", **query)


def updates():
    ada = "/v1/users/{ada}"
    for body in (
        {}, None, {"name": "Countess"}, {"name": ""}, {"name": None}, {"username": "ada2"}, {"username": "grace"}, {"username": "Ä"}, {"email": "ada2@example.com"}, {"email": "nobody"},
        {"labels": ["x"]}, {"labels": []}, {"metadata": {"a": "b"}}, {"ssoEnabled": True}, {"ssoEnabled": False}, {"updateMask": "name"}, {"name": "Ada", "updateMask": "name"},
        {"name": "Ada", "labels": ["y"], "updateMask": "name,labels"}, {"updateMask": "ssoEnabled", "ssoEnabled": True}, {"updateMask": ""}, {"updateMask": None},
        {"updateMask": "created"}, {"updateMask": "nope"}, {"etag": '"0000000000000000-1"', "name": "x"}, {"etag": "nope"}, {"id": NOBODY, "name": "path wins"}, {"password": "short"},
    ):
        yield patch(ada, body)
    for mask in ("sso_enabled", {"paths": ["name"]}, ["name"], 1):
        yield patch(ada, {"updateMask": mask}, WORDS(400))
    yield patch(ada + "?name=x", {}, QUERY(400, 200))
    yield patch(ada + "?updateMask=name", {}, QUERY(400, 200))
    yield patch(ada, {"nope": 1}, UNKNOWN(400, 200))
    yield patch(f"/v1/users/{NOBODY}", {"name": "x"})
    yield patch("/v1/users/1", {"name": "x"})
    for body in ({"status": "USER_STATUS_BLOCKED"}, {"status": 2}, {"status": "USER_STATUS_ACTIVE"}, {"status": "USER_STATUS_UNSPECIFIED"}, {}, {"status": 9}, {"status": None}):
        yield patch("/v1/users/{grace}/status", body)
    yield patch("/v1/users/{grace}/status", {"status": "NOPE"}, WORDS(400))
    for body in ({"emailVerified": True}, {"email_verified": False}, {}, {"emailVerified": True, "email": "other@example.com"}):
        yield patch("/v1/users/{grace}/verification", body)
    yield patch("/v1/users/{edsger}/verification", {"emailVerified": True})
    yield post("/v1/users/{grace}:unlock", {})
    yield post("/v1/users/{grace}:unlock", None)
    yield post(f"/v1/users/{NOBODY}:unlock", {})
    yield get("/v1/users/{ada}/prefs")
    for prefs in ({"theme": "dark", "n": 1.5, "deep": {"a": [1, None, True, "x", {}]}}, {"n": 9007199254740993, "m": -0.0, "e": 1e300}, {"theme": None}, {}, {"é": "😀"}):
        yield patch("/v1/users/{ada}/prefs", {"prefs": prefs})
    yield patch("/v1/users/{ada}/prefs", {"prefs": {"only": 1}, "replace": True})
    yield patch("/v1/users/{ada}/prefs", {"prefs": {"k": "v" * 70_000}})
    for prefs in ([], "x", 1):
        yield patch("/v1/users/{ada}/prefs", {"prefs": prefs}, WORDS(400))
    yield get("/v1/users/{ada}/prefs")
    yield get(f"/v1/users/{NOBODY}/prefs")


def passwords():
    alan = {"username": "alan"}
    yield get("/v1/users:lookup", username="alan")
    yield Case("GET", "/v1/users:lookup?username=alan", keep={"alan": "user.id"})
    yield post("/v1/sessions", {**alan, "password": PASSWORD}, token="session.id", session="session.publicId")
    yield post("/v1/sessions", {"email": "ALAN@example.com", "password": PASSWORD})
    yield post("/v1/sessions", {**alan, "email": "alan@example.com", "password": PASSWORD, "device": {"address": "192.0.2.1", "userAgent": "x"}})
    yield post("/v1/sessions", {**alan, "password": PASSWORD, "device": {"address": "nope"}})
    yield post("/v1/sessions", {**alan, "password": "wrong"})
    yield post("/v1/sessions", {"username": "nobody", "password": "wrong"})
    for body in ({}, None, alan, {"password": "x"}, {**alan, "password": ""}):
        yield post("/v1/sessions", body)
    yield post("/v1/sessions:read", {"sessionId": "{token}"})
    yield post("/v1/sessions:read", {"session_id": "{token}"})
    for body in ({}, None, {"sessionId": "ses_nope"}, {"sessionId": "ses_" + "0" * 64}):
        yield post("/v1/sessions:read", body)
        yield post("/v1/sessions:logout", body)
    yield get("/v1/users/{alan}/sessions", DEVICE(200))
    yield get("/v1/users/{alan}/sessions", DEVICE(200), limit=1)
    yield get(f"/v1/users/{NOBODY}/sessions")
    yield delete("/v1/users/{alan}/sessions/{session}")
    yield delete("/v1/users/{alan}/sessions/{session}")
    yield delete("/v1/users/{alan}/sessions/1")
    yield delete(f"/v1/users/{NOBODY}/sessions/{NOBODY}")
    yield delete("/v1/users/{alan}/sessions")
    yield delete(f"/v1/users/{NOBODY}/sessions")
    yield post("/v1/users/{alan}:setPassword", {"newPassword": "battery staple"})
    for body in ({}, {"newPassword": "short"}, {"newPassword": "alan@example.com"}):
        yield post("/v1/users/{alan}:setPassword", body)
    yield post("/v1/users/{alan}:updatePassword", {"oldPassword": "battery staple", "newPassword": "paper clip 12"})
    for body in ({}, {"oldPassword": "wrong", "newPassword": "paper clip 13"}, {"oldPassword": "paper clip 12", "newPassword": "x"},
                 {"oldPassword": "paper clip 12", "newPassword": "paper clip 14", "confirmPassword": "other"}):
        yield post("/v1/users/{alan}:updatePassword", body)
    yield get("/v1/users/{alan}/logs", DEVICE(200), limit=5)
    yield get("/v1/users/{alan}/logs", limit=0)
    yield get(f"/v1/users/{NOBODY}/logs")
    yield get("/v1/users/1/logs", DEVICE(200))


def trash():
    yield delete(f"/v1/users/{NOBODY}")
    yield delete("/v1/users/1")
    yield delete("/v1/users/{barbara}?etag=nope")
    yield delete("/v1/users/{barbara}")
    yield delete("/v1/users/{barbara}")
    yield delete("/v1/users/{edsger}")
    yield get("/v1/users/{barbara}")
    yield get("/v1/trash/{barbara}")
    yield get("/v1/trash/{ada}")
    yield get("/v1/trash/1")
    yield get("/v1/trash", orderBy="username")
    yield get("/v1/trash", orderBy="username", limit=1, skipTotal="true")
    yield post("/v1/trash/{barbara}:restore", {})
    yield post("/v1/trash/{barbara}:restore", None)
    yield post(f"/v1/trash/{NOBODY}:restore", {"etag": ""})
    yield delete("/v1/trash/{barbara}")
    yield delete("/v1/trash/{edsger}")
    yield delete("/v1/trash/{edsger}")
    yield post("/v1/users:createOrRestore", {"email": "new@example.com", "ssoEnabled": True}, new="user.id")
    yield post("/v1/users:createOrRestore", {"email": "new@example.com"})
    yield delete("/v1/users/{new}")
    yield post("/v1/users:createOrRestore", {"email": "new@example.com", "name": "again"})
    yield post("/v1/users:createOrRestore", {})


def keys():
    yield post("/v1/keys", {"name": "one", "scopes": ["users.read"]}, key="key.id")
    yield post("/v1/keys", {"name": "two", "scopes": ["users.read", "users.write"], "expires": "4000000000"})
    yield post("/v1/keys", {"name": "three", "scopes": ["users.read"], "expires": 4_000_000_000})
    for body in ({}, None, {"name": "x"}, {"name": "x", "scopes": ["nope"]}, {"name": "", "scopes": ["users.read"]}, {"name": "x", "scopes": ["users.read"], "expires": 1}):
        yield post("/v1/keys", body)
    for body in ('{"expires": "x"}', '{"expires": 1.5}', '{"expires": 9223372036854775808}', '{"expires": ""}', '{"expires": true}', '{"expires": "0x1"}', '{"expires": " 1"}'):
        yield post("/v1/keys", body, WORDS(400))
    for number in ("4e9", "4.0e9", '"4e9"', '"4000000000.0"', "4000000000.0"):
        yield post("/v1/keys", '{"name": "n", "scopes": ["users.read"], "expires": %s}' % number)
    yield get("/v1/keys:logs", DEVICE(200), limit=3)
    yield get("/v1/keys:logs", keyId="nope")
    yield get("/v1/keys:logs", root="true")
    yield delete("/v1/keys/{key}")
    yield delete("/v1/keys/{key}")
    yield delete("/v1/keys/1")
    yield delete("/v1/keys/{key}?withDescendants=true")


def routing():
    for path in ("/", "/v1", "/v2/users", "/v1/nothing", "/V1/users", "/v1/Users", "/v1/users:nope", "/v1/users/{ada}/nothing", "/v1/users/{ada}/", "/v1//users", "//v1/users",
                 "/v1/users/{ada}/prefs/", "/v1/users/{ada}/prefs/x"):
        yield get(path, ROUTING(404))
    yield get("/users.Users/Read", CONNECT(415, 404))
    yield get("/v1/users/", EMPTY(404, 400))
    yield get("/v1/users//prefs", EMPTY(404, 400))
    yield get("/v1/users/a%2Fb", DECODED(400, 404))
    yield get("/v1/users/%zz", WORDS(400))
    yield get("/v1/users/{ada}:nope")
    yield get("/v1/users%3Alookup?username=ada", DECODED(404))
    for method, path in (("PUT", "/v1/users"), ("DELETE", "/v1/users"), ("PUT", "/v1/users/{ada}"), ("POST", "/v1/users/{ada}/prefs"), ("PATCH", "/v1/sessions"), ("TRACE", "/v1/keys"), ("FOO", "/v1/keys")):
        yield Case(method, path, "{}", VERBS(405, 501))
    for path in ("/v1/users/{ada}", "/v1/keys"):
        yield Case("HEAD", path, differs=HEAD(200, 501))
        yield Case("OPTIONS", path, differs=OPTIONS(204, 501))
    yield Case("POST", "/v1/users/{ada}:nope", "{}", VERBS(405, 501))


def headers():
    read = ("GET", "/v1/users/{ada}", None, None, {})
    yield Case(*read, headers={"content-type": None})
    yield Case(*read, headers={"accept": "text/html"})
    yield Case(*read, headers={"accept": "application/json"})
    yield Case(*read, headers={"authorization": None})
    yield Case(*read, headers={"authorization": "Bearer usk_" + "0" * 64})
    yield Case(*read, headers={"authorization": "Basic eDp5"})
    yield Case(*read, headers={"grpc-timeout": "10S"})
    yield Case(*read, headers={"grpc-metadata-foo": "bar"})
    yield Case("GET", "/v1/users/{ada}", None, WORDS(400), headers={"grpc-timeout": "abc"})
    yield Case("GET", "/v1/users/{ada}", None, None, headers={"x-http-method-override": "DELETE"})
    for media in ("application/json; charset=utf-8", "APPLICATION/JSON", None):
        yield Case("POST", "/v1/sessions", "{}", headers={"content-type": media})
    for media in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
        yield Case("POST", "/v1/sessions", "{}", MEDIA(415, 400), headers={"content-type": media})
    yield Case("POST", "/v1/users/{ada}", "", VERBS(405, 200), headers={"content-type": "application/x-www-form-urlencoded", "x-http-method-override": "GET"})


def all():
    parts = (creations, malformed, reads, lists, updates, passwords, trash, keys, routing, headers)
    return [case for part in parts for case in part()]

"""Makes proto/openapi.json of what grpc-gateway's protoc-gen-openapiv3 writes for users.proto, keys.proto and namespaces.proto.

The generator knows messages, routes and comments. What it cannot know is added here: keys, headers, the statuses that a call
can fail with (from the tables in the comments), the body of errors, and examples. The same input gives the same bytes.

    tests/openapi.py FOLDER_OF_THE_GENERATOR >proto/openapi.json
"""

import json
import pathlib
import re
import sys

PROTO = pathlib.Path(__file__).parent.parent / "proto"

# As http::reply::http_status has them.
HTTP = {
    "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "ABORTED": 409, "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504, "INTERNAL": 500,
}
HTTP_OF_REASONS = {"TOO_LARGE": 413, "ENCODING_UNKNOWN": 415}
# A route of the document has a method, and a request and a reply over HTTP have no such compression.
NEVER = {"METHOD_UNKNOWN"}
OF_LISTS = {"LIST_TOO_SLOW"}
OF_CHANGES = {"OUTCOME_UNKNOWN"}

WITH_RETRY_INFO = {409, 429, 503}

ROW = re.compile(r"^\s*([A-Z_]{5,}) +/ ([A-Z_]+)", re.MULTILINE)

# In the order of the document each call succeeds on an empty database; SESSION and PUBLIC stand for a log-in's, CODE for one
# of CreateCode for the purpose of the call, RECOVERY for a recovery code.
SESSION = "ses_" + "0" * 64
CODE = "code_" + "0" * 64
RECOVERY = "0123ab-4567cd-89efgh-jkmnpq"
PUBLIC = "01a2155f-a03a-798f-a7c1-36e5163b19cc"
BODIES = {
    "Users_Create": {"id": "ada", "username": "ada", "email": "ada@example.com", "password": "correct horse", "name": "Ada Lovelace"},
    "Users_Update": {"name": "Countess of Lovelace"},
    "Users_UpdatePassword": {"oldPassword": "correct horse", "newPassword": "battery staple"},
    "Users_BatchRead": {"ids": ["ada"]},
    "Users_CreateOrRestore": {"email": "grace@example.com", "password": "correct horse"},
    "Users_Restore": {},
    "Users_SetPassword": {"newPassword": "correct horse"},
    "Users_UpdateStatus": {"status": "USER_STATUS_ACTIVE"},
    "Users_UpdateVerification": {"emailVerified": True},
    "Users_Unlock": {},
    "Users_UpdatePrefs": {"prefs": {"theme": "dark"}},
    "Users_Login": {"username": "ada", "password": "correct horse"},
    "Users_VerifyPassword": {"password": "correct horse"},
    "Users_Logout": {"sessionId": SESSION},
    "Users_EnrollTotp": {"password": "correct horse", "issuer": "The Shop"},
    "Users_ConfirmTotp": {"totp": "123456"},
    "Users_RemoveTotp": {"recoveryCode": RECOVERY},
    "Users_CreateRecoveryCodes": {"recoveryCode": RECOVERY},
    "Users_CompleteLogin": {"challenge": "CHALLENGE", "recoveryCode": RECOVERY},
    "Users_ReadSession": {"sessionId": SESSION},
    "Users_CreateCode": {"id": "ada", "purpose": "CODE_PURPOSE_PASSWORD_RESET"},
    "Users_VerifyEmail": {"code": CODE},
    "Users_ConfirmEmailChange": {"code": CODE},
    "Users_ResetPassword": {"code": CODE, "newPassword": "correct horse"},
    "Users_LoginWithCode": {"code": CODE},
    "Users_IssueAssertion": {"sessionId": SESSION, "audience": "shop"},
    "Keys_Create": {"name": "orders", "scopes": ["users.read", "sessions.read"]},
    "Namespaces_CreateNamespace": {"name": "shop", "limits": {"maxUsers": "10000"}},
    "Namespaces_UpdateNamespace": {"limits": {"maxUsers": "20000", "maxCallsPerSecond": "100"}},
}
PARAMETERS = {
    ("*", "id"): "ada",
    ("*", "user_id"): "ada",
    ("*", "session_id"): PUBLIC,
    ("Keys_Delete", "id"): PUBLIC,
    ("*", "name"): "shop",
    ("Namespaces_DeleteNamespace", "confirmName"): "shop",
    ("Users_Read_1", "username"): "ada",
    ("Users_Search", "username"): "ad",
    ("Users_List", "search"): "ada",
    ("Users_List", "orderBy"): "username",
    ("Users_List", "limit"): "10",
    ("Users_ListTrash", "limit"): "10",
}

# What requests may hold, where no setting decides it. An empty text is an absent one.
ID = {"pattern": r"^[A-Za-z0-9][A-Za-z0-9._|@-]{0,63}$"}
KEY = r"[!#-\[\]-~]{1,255}"
LIMITS = {
    "id": ID,
    "user_id": ID,
    "ids": {"maxItems": 1000, "items": {"type": "string", **ID}},
    "username": {"maxLength": 64},
    "email": {"maxLength": 254},
    "newEmail": {"maxLength": 254},
    "name": {"maxLength": 128},
    "search": {"maxLength": 256},
    "label": {"maxLength": 36},
    "labels": {"maxItems": 100, "uniqueItems": True, "items": {"type": "string", "minLength": 1, "maxLength": 36}},
    "scopes": {"minItems": 1},
    "limit": {"pattern": "^([0-9]{1,3}|1000)$"},
    "offset": {"pattern": "^[0-9]{1,18}$"},
    "orderBy": {"enum": ["created", "updated", "username", "email", "name", "id"]},
    "orderDir": {"enum": ["asc", "desc"]},
    "idempotencyKey": {"pattern": f"^({KEY})?$"},
}

ERROR = {
    "type": "object",
    "description": "A failure, as google.rpc.Status has it in JSON.",
    "properties": {
        "code": {"type": "integer", "format": "int32", "description": "The code of gRPC."},
        "message": {"type": "string", "description": "For people."},
        "details": {
            "type": "array",
            "description": "One ErrorInfo, and what else helps.",
            "items": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("ErrorInfo", "BadRequest", "RetryInfo", "QuotaFailure")]},
        },
    },
    "required": ["code", "message", "details"],
    "additionalProperties": False,
}


def detail(name, description, properties):
    kind = {"type": "string", "const": f"type.googleapis.com/google.rpc.{name}"}
    properties = {"@type": kind, **properties}
    return {"type": "object", "description": description, "properties": properties, "required": list(properties)}


VIOLATION = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("field", "description", "reason")},
    "required": ["field", "description"],
}
QUOTA_VIOLATION = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("subject", "description")},
    "required": ["subject", "description"],
}
DETAILS = {
    "ErrorInfo": detail("ErrorInfo", "The reason, for programs: one of ErrorReason in errors.proto. Expect new ones.", {
        "reason": {"type": "string"},
        "domain": {"type": "string", "const": "usersd"},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
    }),
    "BadRequest": detail("BadRequest", "Every field at fault.", {
        "fieldViolations": {"type": "array", "items": VIOLATION},
    }),
    "QuotaFailure": detail("QuotaFailure", "The limit of a namespace that was reached.", {
        "violations": {"type": "array", "items": QUOTA_VIOLATION},
    }),
    "RetryInfo": detail("RetryInfo", "When to try again.", {
        "retryDelay": {"type": "string", "description": "Seconds with an `s`, such as `1s`."},
    }),
}

HEADER_PARAMETERS = {
    "Namespace": ("usersd-namespace", "The namespace to work in. Needed with a key that is valid in every one, and without a key to choose another than `default`.", {"type": "string"}),
    "IfMatch": ("If-Match", "Changes the user only if this is its etag, in place of `etag` in the message; else 412.", {"type": "string"}),
    "IfNoneMatch": ("If-None-Match", "The etag that is known: if the user still has it, the answer is 304 without a body.", {"type": "string"}),
    "IdempotencyKey": ("Idempotency-Key", "Names this change, in place of `idempotencyKey` in the message: a repeat makes no second one.", {"type": "string", "pattern": f"^{KEY}$"}),
}
HEADERS = {
    "RequestId": {"description": "Names the request in the server's log.", "schema": {"type": "string"}},
    "ETag": {"description": "`etag` of the user in the reply.", "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds to wait, where waiting helps.", "schema": {"type": "integer"}},
}


def ref(kind, name):
    return {"$ref": f"#/components/{kind}/{name}"}


def comment_at_top(name):
    """The text above `syntax`."""
    head = (PROTO / name).read_text().split("\nsyntax = ", 1)[0]
    return "\n".join(line.removeprefix("//").removeprefix(" ") for line in head.splitlines())


def markdown(text):
    """Indented lines are tables: they keep their lines."""
    lines, table = [], False
    for line in text.splitlines():
        indented = line.startswith("  ")
        if indented != table:
            lines += ["```text"] if indented else ["```"]
            table = indented
        lines.append(line[2:] if indented else line)
    return "\n".join(lines + ["```"] * table)


def reasons(text):
    """The reasons of a table by their HTTP status."""
    found = {}
    for code, reason in ROW.findall(text):
        if reason not in NEVER:
            found.setdefault(HTTP_OF_REASONS.get(reason, HTTP[code]), []).append(reason)
    return found


def failures(operation, verb, common, shared):
    """The replies to a call that fails, by status."""
    found = reasons(operation.get("description", ""))
    for status, names in common.items():
        left_out = set() if verb != "get" else OF_CHANGES
        left_out = left_out if operation["operationId"].split("_")[1].startswith(("List", "Search")) else left_out | OF_LISTS
        names = [name for name in names if name not in left_out and name not in found.get(status, [])]
        if names:
            found.setdefault(status, []).extend(names)
    if "requestBody" in operation:
        found.setdefault(415, []).append("MALFORMED")
    if "ETAG_MISMATCH" in found.get(409, []):
        found[412] = ["ETAG_MISMATCH"]
    return {str(status): failure(status, names, shared) for status, names in sorted(found.items())}


def failure(status, names, shared):
    """A reply among those that operations share."""
    headers = {"x-request-id": ref("headers", "RequestId")}
    if status in WITH_RETRY_INFO:
        headers["retry-after"] = ref("headers", "RetryAfter")
    content = {"application/json": {"schema": ref("schemas", "Error")}}
    reply = {"description": ", ".join(names), "headers": headers, "content": content}
    for name, other in shared.items():
        if name.startswith(f"Error{status}") and other == reply:
            return ref("responses", name)
    number = sum(name.startswith(f"Error{status}") for name in shared)
    name = f"Error{status}" + (f"_{number + 1}" if number else "")
    shared[name] = reply
    return ref("responses", name)


def has_etag(schemas, reply):
    """Whether a reply or a message in it has an etag, as transcode::names::etag_of finds it."""
    properties = schemas[reply]["properties"] if "properties" in schemas[reply] else {}
    inner = (schemas[value["$ref"].rsplit("/", 1)[1]] for value in properties.values() if "$ref" in value)
    return "etag" in properties or any("etag" in schema.get("properties", {}) for schema in inner)


def limit(name, schema, where):
    """Adds to the schema of a field or a parameter what it may hold."""
    if schema.get("format") == "int64":
        schema["pattern"] = "^-?[0-9]{1,18}$"
    if (name, where) != ("id", "body"):
        schema.update(LIMITS.get(name, {}))
    else:
        schema["pattern"] = ID["pattern"].replace("^", "^(").replace("$", ")?$")


def complete(operation, verb, schemas, common, shared):
    """Adds to one operation of the generator."""
    name, parameters = operation["operationId"], operation.setdefault("parameters", [])
    done = operation["responses"]["200"]
    reply = done["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    fields = body.get("schema", {}).get("properties", {}).keys() | {parameter["name"] for parameter in parameters}
    operation["responses"] = {"200": done, **failures(operation, verb, common, shared)}
    for key in ("summary", "description"):
        if key in operation:
            operation[key] = markdown(operation[key]) if key == "description" else " ".join(operation[key].split())
    for field, schema in body.get("schema", {}).get("properties", {}).items():
        limit(field, schema, "body")
    for parameter in parameters:
        limit(parameter["name"], parameter["schema"], parameter["in"])
    if body:
        body["example"] = BODIES[name]
        operation["requestBody"]["required"] = bool(body["schema"].get("required"))
    for parameter in parameters:
        example = PARAMETERS.get((name, parameter["name"]))
        if example is None and parameter["in"] == "path":
            example = PARAMETERS["*", parameter["name"]]
        if example is not None:
            parameter["example"] = example
    done["headers"] = {"x-request-id": ref("headers", "RequestId")}
    parameters.append(ref("parameters", "Namespace"))
    if has_etag(schemas, reply):
        done["headers"]["etag"] = ref("headers", "ETag")
        if verb == "get":
            operation["responses"]["304"] = {"description": "The user still has the etag of If-None-Match."}
            parameters.append(ref("parameters", "IfNoneMatch"))
    if "etag" in fields:
        parameters.append(ref("parameters", "IfMatch"))
    if "idempotencyKey" in fields:
        parameters.append(ref("parameters", "IdempotencyKey"))


def optional_fields():
    """Message and field, in JSON's spelling, of what the protos mark as optional."""
    for name in ("users.proto", "keys.proto", "namespaces.proto"):
        for message, body in re.findall(r"^message (\w+) \{(.*?)^\}", (PROTO / name).read_text(), re.MULTILINE | re.DOTALL):
            for field in re.findall(r"^  optional \w+ (\w+) =", body, re.MULTILINE):
                yield f"users.{message}", re.sub(r"_(\w)", lambda found: found[1].upper(), field)


def is_message(schema, schemas):
    """Whether a field holds a message, which JSON leaves out where it is not set. An object of any keys is a Struct."""
    target = schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    return target.get("type") == "object" and "additionalProperties" not in schema


def make_strict(schemas, in_requests):
    """Replies have all fields that the document names, and no others; one of a user has the user."""
    optional = set(optional_fields())
    for name, schema in schemas.items():
        properties = schema.get("properties", {})
        if schema.get("type") != "object" or name in in_requests:
            continue
        required = [
            field for field, value in properties.items()
            if (name, field) not in optional and (name.endswith("Response") or not is_message(value, schemas))
        ]
        schema.update({"required": required} if required else {})
    for schema in schemas.values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)


def main():
    generated = [json.loads((pathlib.Path(sys.argv[1]) / f"{name}.openapi.json").read_text()) for name in ("users", "keys", "namespaces")]
    schemas, paths, shared = {}, {}, {}
    for document in generated:
        schemas.update(document["components"]["schemas"])
        paths.update(document["paths"])
    del schemas["google.rpc.Status"]
    common = reasons(comment_at_top("users.proto"))
    for operations in paths.values():
        for verb, operation in operations.items():
            complete(operation, verb, schemas, common, shared)
    bodies = json.dumps([operation.get("requestBody") for operations in paths.values() for operation in operations.values()])
    make_strict(schemas, set(re.findall(r"#/components/schemas/([\w.]+)", bodies)))
    bearer = {"type": "http", "scheme": "bearer", "description": "An API key, `usk_` and 64 hexadecimal digits. Programs on the server's own machine need none until the first key is created."}
    token = {"type": "apiKey", "in": "header", "name": "X-Access-Token", "description": "The same key, for clients that cannot send `Authorization`."}
    document = {
        "openapi": generated[0]["openapi"],
        "info": {
            "title": "usersd",
            "version": "v1",
            "description": markdown(comment_at_top("users.proto")),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"token": []}, {}],
        "tags": [tag for document in generated for tag in document["tags"]],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": bearer, "token": token},
            "parameters": {
                key: {"name": name, "in": "header", "description": text, "schema": schema}
                for key, (name, text, schema) in HEADER_PARAMETERS.items()
            },
            "headers": HEADERS,
            "responses": shared,
            "schemas": {"Error": ERROR, **DETAILS, **schemas},
        },
    }
    json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()

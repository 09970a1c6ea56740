//! The Connect protocol on the paths of gRPC: unary calls, by POST and by GET, and their errors.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use prost::Message;
use serde_json::{Value, json};
use tonic_types::pb::{BadRequest, ErrorInfo};
use usersd::domain::scope::Scopes;
use usersd::http::Schema;
use usersd::pb::{CreateRequest, CreateResponse, ReadRequest, ReadResponse};

use crate::support::{PASSWORD, Replica, Service, ada, bytes_of, create};

crate::on_every_backend!(
    unary_calls_come_as_json_and_as_protobuf,
    json_is_that_of_connects_own_servers,
    errors_have_code_reason_and_bad_fields_in_both_formats,
    what_no_client_sends_is_refused_in_its_words,
    a_call_without_side_effects_may_come_by_get,
    calls_that_change_or_show_a_token_do_not_come_by_get,
    a_deadline_is_in_milliseconds,
    keys_scopes_and_limits_hold,
);

const JSON: [(&str, &str); 2] = [("content-type", "application/json"), ("connect-protocol-version", "1")];
const PROTO: [(&str, &str); 2] = [("content-type", "application/proto"), ("connect-protocol-version", "1")];

async fn post(
    replica: &Replica,
    rpc: &str,
    body: impl Into<Bytes>,
    headers: &[(&str, &str)],
) -> (StatusCode, HeaderMap, Bytes) {
    bytes_of(replica, Method::POST, &format!("/users.Users/{rpc}"), body, headers).await
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers[name].to_str().unwrap()
}

fn value(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {body:?}"))
}

/// The details of an error's type.
fn detail<T: Message + Default>(error: &Value, name: &str) -> (T, Value) {
    let details = error["details"].as_array().unwrap();
    let detail = details.iter().find(|detail| detail["type"] == name).unwrap_or_else(|| panic!("{error}"));
    let bytes = STANDARD_NO_PAD.decode(detail["value"].as_str().unwrap()).unwrap();
    (T::decode(&*bytes).unwrap(), detail["debug"].clone())
}

/// The code of an error, and the reason that it carries.
fn refused(body: &[u8]) -> (String, String) {
    let error = value(body);
    let (info, debug) = detail::<ErrorInfo>(&error, "google.rpc.ErrorInfo");
    assert_eq!((debug["reason"].as_str(), &*info.domain), (Some(&*info.reason), "usersd"), "{error}");
    (error["code"].as_str().unwrap().to_owned(), info.reason)
}

#[track_caller]
fn assert_refused(
    (status, headers, body): &(StatusCode, HeaderMap, Bytes),
    number: u16,
    code: &str,
    reason: &str,
) {
    assert_eq!(refused(body), (code.to_owned(), reason.to_owned()), "{body:?}");
    assert_eq!((status.as_u16(), headers["content-type"].to_str().unwrap()), (number, "application/json"));
}

async fn unary_calls_come_as_json_and_as_protobuf(service: &Service) {
    let replica = &service.replica;
    let new = json!({"id": "7", "username": "ada", "password": PASSWORD}).to_string();
    let (status, headers, body) = post(replica, "Create", new, &JSON).await;
    assert_eq!((status, header(&headers, "content-type")), (StatusCode::OK, "application/json"), "{body:?}");
    assert_eq!(headers["content-length"], body.len().to_string());
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(value(&body)["user"]["username"], "ada");

    let new = CreateRequest { username: "bob".into(), email: "bob@example.com".into(), ..ada() };
    let (status, headers, body) = post(replica, "Create", new.encode_to_vec(), &PROTO).await;
    assert_eq!((status, header(&headers, "content-type")), (StatusCode::OK, "application/proto"), "{body:?}");
    let bob = CreateResponse::decode(body).unwrap().user.unwrap();

    // Without its own header, and with parameters and in any case of the media type.
    for media in ["application/proto", "APPLICATION/PROTO"] {
        let read = ReadRequest { id: bob.id.clone(), ..ReadRequest::default() }.encode_to_vec();
        let (_, _, body) = post(replica, "Read", read, &[("content-type", media)]).await;
        assert_eq!(ReadResponse::decode(body).unwrap().user.unwrap(), bob);
    }
    for media in ["application/json", "Application/JSON; charset=utf-8"] {
        let (status, _, body) = post(replica, "Read", r#"{"id":"7"}"#, &[("content-type", media)]).await;
        assert_eq!((status, &value(&body)["user"]["id"]), (StatusCode::OK, &json!("7")));
    }
    // A message of no bytes is a message of protobuf, and no JSON.
    let (status, _, _) = post(replica, "List", "", &PROTO).await;
    assert_eq!(status, StatusCode::OK);
    assert_refused(&post(replica, "List", "", &JSON).await, 400, "invalid_argument", "MALFORMED");
}

async fn json_is_that_of_connects_own_servers(service: &Service) {
    create(service, CreateRequest { id: "7".into(), ..ada() }).await;
    // Fields of a newer proto are ignored, zero values are left out, both spellings are read.
    let body = r#"{"id":"7","ofANewerProto":{"x":[1]}}"#;
    let (status, _, body) = post(&service.replica, "Read", body, &JSON).await;
    let user = &value(&body)["user"];
    assert_eq!((status, &user["username"], user.get("name")), (StatusCode::OK, &json!("ada"), None));
    let body = r#"{"search":"ada","skip_total":true,"orderBy":"name"}"#;
    let (_, _, body) = post(&service.replica, "List", body, &JSON).await;
    assert_eq!(value(&body)["users"][0]["id"], "7");
}

async fn errors_have_code_reason_and_bad_fields_in_both_formats(service: &Service) {
    let replica = &service.replica;
    let proto = ReadRequest { id: "nobody".into(), ..ReadRequest::default() }.encode_to_vec();
    for (body, headers) in [(r#"{"id":"nobody"}"#.into(), JSON), (Bytes::from(proto), PROTO)] {
        let refused = post(replica, "Read", body, &headers).await;
        assert_refused(&refused, 404, "not_found", "USER_NOT_FOUND");
        assert_eq!(value(&refused.2)["message"], "no such user");
    }
    // Fields have the names of the format.
    let bad = CreateRequest { username: "!".into(), password: "short".into(), ..ada() };
    let bad = CreateRequest { email: String::new(), id: "a/b".into(), ..bad };
    let of_other_types = r#"{"username":1,"passwordHash":2}"#;
    for (body, headers, want) in [
        (Bytes::from(bad.encode_to_vec()), PROTO, vec!["id", "password", "username"]),
        (of_other_types.into(), JSON, vec!["passwordHash", "username"]),
    ] {
        let refused = post(replica, "Create", body, &headers).await;
        assert_refused(&refused, 400, "invalid_argument", "FIELD_INVALID");
        let (named, _) = detail::<BadRequest>(&value(&refused.2), "google.rpc.BadRequest");
        let mut fields: Vec<_> = named.field_violations.into_iter().map(|one| one.field).collect();
        fields.sort();
        assert_eq!(fields, want, "{:?}", refused.2);
    }
    create(service, ada()).await;
    let refused = post(replica, "Create", ada().encode_to_vec(), &PROTO).await;
    assert_refused(&refused, 409, "already_exists", "EMAIL_TAKEN");
    let wrong = json!({"username": "ada", "password": "wrong"}).to_string();
    let refused = post(replica, "Login", wrong, &JSON).await;
    assert_refused(&refused, 401, "unauthenticated", "BAD_CREDENTIALS");
}

async fn what_no_client_sends_is_refused_in_its_words(service: &Service) {
    let replica = &service.replica;
    for (body, headers) in [("{", JSON), ("\u{1}", PROTO)] {
        let refused = post(replica, "Read", body, &headers).await;
        assert_refused(&refused, 400, "invalid_argument", "MALFORMED");
    }
    let version = [JSON[0], ("connect-protocol-version", "2")];
    let refused = post(replica, "Read", "{}", &version).await;
    assert_refused(&refused, 400, "invalid_argument", "FIELD_INVALID");
    let refused = post(replica, "Nothing", "{}", &JSON).await;
    assert_refused(&refused, 501, "unimplemented", "METHOD_UNKNOWN");
    let refused = post(replica, "Nothing", "", &PROTO[..1]).await;
    assert_refused(&refused, 501, "unimplemented", "METHOD_UNKNOWN");
    for media in ["text/plain", "application/connect+json", "application/protobuf"] {
        let (status, headers, _) = post(replica, "Read", "{}", &[("content-type", media)]).await;
        assert_eq!(
            (status, header(&headers, "accept-post")),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, ACCEPT),
            "{media}"
        );
    }
    let long = json!({"id": "x".repeat(70_000)}).to_string();
    let refused = post(replica, "Read", long, &JSON).await;
    assert_refused(&refused, 400, "out_of_range", "TOO_LARGE");
    // Other dialects see what they saw.
    let (status, _, body) = replica.request(Method::POST, "/users.Users/Nothing", "{}", &JSON[..1]).await;
    assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!(5)));
    let (status, _, body) = replica.request(Method::POST, "/users/Users/Read", "{}", &JSON).await;
    assert_eq!((status, &body["id"]), (StatusCode::BAD_REQUEST, &json!("users.Read")));
}

const ACCEPT: &str = "application/json, application/proto";

async fn get(replica: &Replica, rpc: &str, query: &str) -> (StatusCode, HeaderMap, Bytes) {
    bytes_of(replica, Method::GET, &format!("/users.Users/{rpc}?{query}"), "", &[]).await
}

async fn a_call_without_side_effects_may_come_by_get(service: &Service) {
    let ada = create(service, ada()).await;
    let replica = &service.replica;
    let text = json!({"id": ada.id}).to_string();
    let escaped = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
    let json = [
        format!("connect=v1&encoding=json&message={escaped}"),
        format!("encoding=json&base64=1&message={}&compression=identity", URL_SAFE_NO_PAD.encode(&text)),
    ];
    for query in json {
        let (status, headers, body) = get(replica, "Read", &query).await;
        assert_eq!(
            (status, header(&headers, "content-type")),
            (StatusCode::OK, "application/json"),
            "{query}"
        );
        assert_eq!(value(&body)["user"]["username"], "ada");
    }
    let message = ReadRequest { id: ada.id.clone(), ..ReadRequest::default() }.encode_to_vec();
    for message in [URL_SAFE.encode(&message), URL_SAFE_NO_PAD.encode(&message)] {
        let query = format!("connect=v1&encoding=proto&base64=1&message={message}");
        let (status, _, body) = get(replica, "Read", &query).await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
        assert_eq!(ReadResponse::decode(body).unwrap().user.unwrap(), ada);
    }
    for query in [
        "connect=v2&encoding=json&message=%7B%7D",
        "connect=v1&encoding=json",
        "connect=v1&encoding=json&base64=1&message=!",
        "connect=v1&encoding=json&message=%7B",
    ] {
        let (status, _, body) = get(replica, "Read", query).await;
        assert_eq!((status, &*refused(&body).0), (StatusCode::BAD_REQUEST, "invalid_argument"), "{query}");
    }
    let refused = get(replica, "Read", "encoding=json&message=x&compression=br").await;
    assert_refused(&refused, 501, "unimplemented", "ENCODING_UNKNOWN");
    let (status, headers, _) = get(replica, "Read", "encoding=xml&message=x").await;
    assert_eq!((status, header(&headers, "accept-post")), (StatusCode::UNSUPPORTED_MEDIA_TYPE, ACCEPT));
}

async fn calls_that_change_or_show_a_token_do_not_come_by_get(service: &Service) {
    let schema = Schema::decode(usersd::DESCRIPTOR_SET).unwrap();
    let mut by_get: Vec<_> = Vec::new();
    for method in schema.methods() {
        let path = format!("{}?connect=v1&encoding=json&message=%7B%7D", method.path());
        let (status, headers, _) = bytes_of(&service.replica, Method::GET, &path, "", &[]).await;
        let (options, allowed, _) = bytes_of(&service.replica, Method::OPTIONS, method.path(), "", &[]).await;
        assert_eq!(options, StatusCode::NO_CONTENT);
        if status == StatusCode::METHOD_NOT_ALLOWED {
            assert_eq!(
                (header(&headers, "allow"), header(&allowed, "allow")),
                ("POST, OPTIONS", "POST, OPTIONS")
            );
        } else {
            assert_eq!(allowed["allow"], "GET, POST, HEAD, OPTIONS");
            by_get.push(method.path().trim_start_matches("/users."));
        }
    }
    by_get.sort_unstable();
    let want = [
        "Keys/List",
        "Keys/ListLogs",
        "Namespaces/ListNamespaces",
        "Namespaces/ReadNamespace",
        "Users/BatchRead",
        "Users/List",
        "Users/ListFactors",
        "Users/ListLogs",
        "Users/ListSessions",
        "Users/ListTrash",
        "Users/Read",
        "Users/ReadPrefs",
        "Users/ReadTrash",
        "Users/Search",
    ];
    assert_eq!(by_get, want, "a session's token is never in a URL");
}

async fn a_deadline_is_in_milliseconds(service: &Service) {
    let call = async |timeout| {
        let headers = [JSON[0], ("connect-timeout-ms", timeout)];
        post(&service.replica, "List", "{}", &headers).await
    };
    assert_eq!(call("60000").await.0, StatusCode::OK);
    assert_refused(&call("0").await, 504, "deadline_exceeded", "DEADLINE_PASSED");
    for wrong in ["1s", "-1", "12345678901"] {
        let refused = call(wrong).await;
        assert_refused(&refused, 400, "invalid_argument", "FIELD_INVALID");
        let (named, _) = detail::<BadRequest>(&value(&refused.2), "google.rpc.BadRequest");
        assert_eq!(named.field_violations[0].field, "connect-timeout-ms");
    }
}

async fn keys_scopes_and_limits_hold(service: &Service) {
    let (reader, _) = service.key("default", Scopes::parse(["users.read"]).unwrap()).await;
    let replica = &service.replica;
    let refused = post(replica, "List", "{}", &JSON).await;
    assert_refused(&refused, 401, "unauthenticated", "KEY_MISSING_OR_UNKNOWN");
    assert_eq!(refused.1["www-authenticate"], "Bearer");
    let key = format!("Bearer {reader}");
    let with_key = |more| [JSON[0], JSON[1], ("authorization", &*key), more];
    let plain = with_key(("accept", "*/*"));
    assert_eq!(post(replica, "List", "{}", &plain).await.0, StatusCode::OK);
    assert_refused(&post(replica, "Delete", "{}", &plain).await, 403, "permission_denied", "SCOPE_MISSING");
    let other = with_key(("usersd-namespace", "rival"));
    let refused = post(replica, "List", "{}", &other).await;
    assert_refused(&refused, 403, "permission_denied", "NAMESPACE_MISMATCH");
    let query = format!("connect=v1&encoding=json&message={}", "%7B%7D");
    assert_refused(&get(replica, "List", &query).await, 401, "unauthenticated", "KEY_MISSING_OR_UNKNOWN");
}

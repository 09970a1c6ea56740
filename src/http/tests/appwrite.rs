//! The Appwrite dialect before RPCs that says what the real one seldom does: refuses callers, fails, ends
//! pages early.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Request;
use prost::Message as _;
use serde_json::json;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{Got, Seen, TestGateway, USERS, failing, front, request, send};
use crate::error::Error;
use crate::pb;

fn as_sdk(verb: &str, path: &str, body: &str) -> Request<Body> {
    let mut request = request(verb, &format!("/appwrite/v1{path}"), body);
    for (name, value) in
        [("x-appwrite-project", "shop"), ("content-type", "application/json"), ("host", "users.example:8080")]
    {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

fn refusing(code: Code, reason: &'static str) -> TestGateway {
    failing(move || {
        let mut details = ErrorDetails::with_error_info(reason, "usersd", []);
        details.set_retry_info(Some(Duration::from_millis(100)));
        Status::with_error_details(code, "so", details)
    })
}

fn said(got: &Got) -> (u16, String) {
    (got.status.as_u16(), String::from_utf8(got.body.to_vec()).unwrap())
}

fn error(code: u16, message: &str) -> (u16, String) {
    (code, format!(r#"{{"message":"{message}","code":{code},"version":"0.9.4"}}"#))
}

/// One request for each scope, and one whose parameters are at fault.
const REQUESTS: [(&str, &str, &str, &str); 9] = [
    ("GET", "/users", "", "users.read"),
    ("GET", "/users/7/logs", "", "users.read"),
    ("GET", "/users?limit=-1", "", "users.read"),
    ("GET", "/users/%FF/prefs", "", "users.read"),
    ("POST", "/users", "{}", "users.write"),
    ("PATCH", "/users/7/status", r#"{"status":2}"#, "users.write"),
    ("PATCH", "/users/7/status", r#"{"status":"2"}"#, "users.write"),
    ("DELETE", "/users/7/sessions/a%20b", "", "users.write"),
    ("DELETE", "/users/7", "{}", "users.write"),
];

#[tokio::test]
async fn a_caller_without_a_good_key_is_a_guest() {
    for reason in ["KEY_MISSING_OR_UNKNOWN", "KEY_AMBIGUOUS"] {
        for (verb, path, body, scope) in REQUESTS {
            let got = send(&refusing(Code::Unauthenticated, reason), as_sdk(verb, path, body)).await;
            let want = error(401, &format!("User (role: guest) missing scope ({scope})"));
            assert_eq!(said(&got), want, "{verb} {path}");
            assert_eq!(got.header("www-authenticate"), "Bearer");
        }
    }
}

#[tokio::test]
async fn a_key_without_the_scope_is_an_application() {
    for (verb, path, body, scope) in REQUESTS {
        let got = send(&refusing(Code::PermissionDenied, "SCOPE_MISSING"), as_sdk(verb, path, body)).await;
        let text = format!("app.shop@service.users.example (role: application) missing scope ({scope})");
        assert_eq!(said(&got), error(401, &text), "{verb} {path}");
    }
}

#[tokio::test]
async fn our_faults_are_our_own_and_what_callers_can_wait_for_is_said() {
    for (code, reason, want) in [
        (Code::Internal, "INTERNAL", error(500, "Server Error")),
        (Code::Unavailable, "DATABASE_UNAVAILABLE", error(500, "Server Error")),
        (Code::DeadlineExceeded, "DEADLINE_PASSED", error(500, "Server Error")),
        (Code::ResourceExhausted, "OVERLOADED", error(429, "so")),
        (Code::ResourceExhausted, "HASHER_BUSY", error(429, "so")),
        (Code::OutOfRange, "TOO_LARGE", error(413, "so")),
        (Code::Unimplemented, "METHOD_UNKNOWN", error(501, "so")),
    ] {
        // Also where the parameters are at fault: whether they are is no help to one who cannot be served.
        for path in ["/users", "/users?limit=-1"] {
            let got = send(&refusing(code, reason), as_sdk("GET", path, "")).await;
            assert_eq!(said(&got), want, "{reason} {path}");
            assert_eq!(got.header("retry-after"), "1");
            assert_eq!(got.header("content-type"), "application/json; charset=UTF-8");
        }
    }
}

#[tokio::test]
async fn parameters_are_at_fault_in_the_order_of_its_manual() {
    let front = failing(|| {
        let mut fields = crate::error::Fields::default();
        for field in ["name", "password", "email", "id"] {
            fields.add(field, "is odd");
        }
        Error::Invalid(fields).into()
    });
    let got = send(&front, as_sdk("GET", "/users/7", "")).await;
    assert_eq!(said(&got), error(400, "Invalid userId: Invalid UID format"));
    let front = failing(|| Error::invalid("x-appwrite-project", "is odd").into());
    for path in ["/users/7", "/users?limit=-1"] {
        let got = send(&front, as_sdk("GET", path, "")).await;
        assert_eq!(said(&got), error(400, "Missing or unknown project ID"), "{path}");
    }
    let front = failing(|| Error::invalid("grpc-timeout", "is odd").into());
    let got = send(&front, as_sdk("GET", "/users/7", "")).await;
    assert_eq!(said(&got), error(400, "some fields are not valid: grpc-timeout is odd"));
}

#[tokio::test]
async fn a_create_is_one_call_that_asks_for_a_pending_user() {
    let reply = |seen: Seen| {
        assert_eq!(seen.path, "/users.Users/Create");
        let want = pb::CreateRequest {
            email: "ada@example.com".into(),
            password: "correct horse".into(),
            status: pb::UserStatus::Pending.into(),
            ..Default::default()
        };
        assert_eq!(pb::CreateRequest::decode(seen.message).unwrap(), want);
        Ok(pb::CreateResponse { user: Some(pb::User { id: "7".into(), ..Default::default() }) }
            .encode_to_vec())
    };
    let front = super::front(&USERS, reply);
    let body = r#"{"email":"ada@example.com","password":"correct horse","name":null,"id":"8","status":2}"#;
    let got = send(&front, as_sdk("POST", "/users", body)).await;
    let want = r#"{"$id":"7","name":"","registration":0,"status":0,"passwordUpdate":0,"email":"","emailVerification":false,"prefs":{}}"#;
    assert_eq!(said(&got), (201, want.to_owned()));
}

fn numbered(n: i64) -> pb::User {
    let number = prost_types::value::Kind::NumberValue(0.5);
    let fields = BTreeMap::from([("n".to_owned(), prost_types::Value { kind: Some(number) })]);
    pb::User { id: n.to_string(), prefs: Some(prost_types::Struct { fields }), ..Default::default() }
}

/// Ends each page after two, as one that is full of prefs would. A page token is where the next one begins.
fn short_pages(total: i64) -> TestGateway {
    let reply = move |seen: Seen| {
        assert_eq!(seen.path, "/users.Users/List");
        let request = pb::ListRequest::decode(seen.message).unwrap();
        assert!(request.page_token.is_empty() || request.offset == 0);
        assert_eq!(request.page_token.is_empty(), !request.skip_total);
        assert_eq!((&*request.order_by, request.include_prefs), ("created", true));
        let start = request.page_token.parse().unwrap_or(request.offset);
        let end = (start + request.limit.unwrap().min(2)).min(total);
        let next_page_token = if end < total { end.to_string() } else { String::new() };
        let total = (!request.skip_total).then_some(total);
        Ok(pb::ListResponse { users: (start..end).map(numbered).collect(), total, next_page_token }
            .encode_to_vec())
    };
    front(&USERS, reply)
}

#[tokio::test]
async fn a_page_is_put_together_from_short_ones() {
    for (total, query, want) in [
        (12_345, "?limit=5&offset=10", 10..15),
        (12_345, "?limit=4", 0..4),
        (12_345, "?limit=1", 0..1),
        (12_345, "?limit=0", 0..0),
        (3, "", 0..3),
        (3, "?offset=2", 2..3),
    ] {
        let got = send(&short_pages(total), as_sdk("GET", &format!("/users{query}"), "")).await;
        let body = got.json();
        let ids: Vec<String> = want.map(|n: i64| n.to_string()).collect();
        let found: Vec<&str> =
            body["users"].as_array().unwrap().iter().map(|user| user["$id"].as_str().unwrap()).collect();
        assert_eq!(
            (&body["sum"], found),
            (&json!(total), ids.iter().map(String::as_str).collect()),
            "{query}"
        );
        assert!(body["users"].as_array().unwrap().iter().all(|user| user["prefs"] == json!({"n": 0.5})));
    }
}

#[tokio::test]
async fn sessions_and_logs_are_read_to_their_end() {
    let reply = |seen: Seen| {
        let user = pb::User { id: "7".into(), email: "ada@example.com".into(), ..Default::default() };
        Ok(match seen.path.as_str() {
            "/users.Users/Read" => pb::ReadResponse { user: Some(user) }.encode_to_vec(),
            "/users.Users/ListSessions" => {
                let request = pb::ListSessionsRequest::decode(seen.message).unwrap();
                let start: i64 = request.page_token.parse().unwrap_or(0);
                let session = |n: i64| pb::SessionInfo { id: n.to_string(), ..Default::default() };
                let next_page_token = if start < 2 { (start + 1).to_string() } else { String::new() };
                let sessions = vec![session(start)];
                pb::ListSessionsResponse { sessions, next_page_token, total: None }.encode_to_vec()
            }
            _ => {
                let request = pb::ListLogsRequest::decode(seen.message).unwrap();
                let start: i64 = request.page_token.parse().unwrap_or(0);
                let changed = vec![if start % 2 == 0 { "labels".to_owned() } else { "name".to_owned() }];
                let log = pb::LogEntry {
                    event: pb::LogEvent::UserUpdated.into(),
                    time: start,
                    changed,
                    ..Default::default()
                };
                // It has no end: what is enough is.
                let next_page_token = (start + 1).to_string();
                pb::ListLogsResponse { logs: vec![log], next_page_token, total: None }.encode_to_vec()
            }
        })
    };
    let front = super::front(&USERS, reply);
    let body = send(&front, as_sdk("GET", "/users/7/sessions", "")).await.json();
    let ids: Vec<&str> =
        body["sessions"].as_array().unwrap().iter().map(|session| session["$id"].as_str().unwrap()).collect();
    assert_eq!((&body["sum"], ids), (&json!(3), vec!["0", "1", "2"]));
    let body = send(&front, as_sdk("GET", "/users/7/logs", "")).await.json();
    let times: Vec<i64> =
        body["logs"].as_array().unwrap().iter().map(|log| log["time"].as_i64().unwrap()).collect();
    assert_eq!(times, (0..10).map(|n| 2 * n + 1).collect::<Vec<_>>());
}

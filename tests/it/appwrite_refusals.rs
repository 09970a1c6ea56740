//! The Users API of Appwrite: its refusals, word for word, and the ways of its SDKs that break others.

use http::HeaderMap;
use serde_json::{Value, json};
use usersd::pb::CreateRequest;

use crate::appwrite::{call, failure, get, operations, raw, send, user};
use crate::support::{PASSWORD, Service, ada, create, nth};

crate::on_every_backend!(
    what_is_missing_is_named,
    what_is_not_valid_is_named_with_its_rule,
    a_password_is_refused_for_our_reason,
    an_email_that_is_taken_is_409_for_a_new_user_and_400_for_another,
    an_unknown_user_is_404,
    an_unknown_path_is_404,
    a_body_that_is_no_json_object_has_no_parameters,
    a_body_that_is_too_long_is_413,
    a_request_without_a_project_or_a_key_is_400,
    the_project_may_come_in_the_query,
    a_web_page_is_told_that_its_host_is_not_registered,
    authorization_is_refused_before_bad_parameters,
    a_get_has_a_body,
    a_delete_has_a_body,
    a_204_has_a_type_that_is_not_json,
    header_names_come_in_any_case,
    a_plus_is_a_space,
    errors_are_json_and_say_so,
    text_comes_escaped_and_raw,
    ids_come_unescaped,
    options_tells_the_verbs_and_head_has_no_body,
    other_headers_of_its_sdks_do_not_matter,
);

async fn what_is_missing_is_named(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let counts = service.counts().await;
    let password = json!({"password": PASSWORD});
    for (verb, path, body, param) in [
        ("POST", "/users".to_owned(), password.clone(), "email"),
        ("POST", "/users".to_owned(), json!({"email": "", "password": PASSWORD}), "email"),
        ("POST", "/users".to_owned(), json!({"email": null, "password": PASSWORD}), "email"),
        ("POST", "/users".to_owned(), json!({"email": "b@example.com"}), "password"),
        ("POST", "/users".to_owned(), json!({"email": "b@example.com", "password": ""}), "password"),
        ("PATCH", format!("/users/{id}/status"), json!({}), "status"),
        ("PATCH", format!("/users/{id}/status"), json!({"status": ""}), "status"),
        ("PATCH", format!("/users/{id}/prefs"), json!({}), "prefs"),
        ("PATCH", format!("/users/{id}/prefs"), json!({"prefs": null}), "prefs"),
        ("PATCH", format!("/users/{id}/name"), json!({"name": ""}), "name"),
        ("PATCH", format!("/users/{id}/email"), json!({}), "email"),
        ("PATCH", format!("/users/{id}/password"), json!({"password": null}), "password"),
    ] {
        let answer = call(service, verb, &path, body.clone()).await;
        assert_eq!(answer, failure(400, &format!("Param \"{param}\" is not optional.")), "{path} {body}");
    }
    // They come in the body alone.
    let answer =
        call(service, "POST", "/users?email=b%40example.com&password=correct+horse", json!({})).await;
    assert_eq!(answer, failure(400, "Param \"email\" is not optional."));
    assert_eq!(service.counts().await, counts);
}

const EMAIL: &str = "Invalid email: Value must be a valid email address";
const NAME: &str = "Invalid name: Value must be a valid string and no longer than 128 chars";
const SEARCH: &str = "Invalid search: Value must be a valid string and no longer than 256 chars";
const LIMIT: &str = "Invalid limit: Value must be a valid range between 0 and 100";
const OFFSET: &str = "Invalid offset: Value must be a valid range between 0 and 2,000";
const ORDER: &str = "Invalid orderType: Value must be one of (ASC, DESC)";
const STATUS: &str = "Invalid status: Value must be one of (1, 2, 0)";
const VERIFICATION: &str = "Invalid emailVerification: Value must be a valid boolean";
const PREFS: &str = "Invalid prefs: Value must be a valid object.";
const USER: &str = "Invalid userId: Invalid UID format";
const SESSION: &str = "Invalid sessionId: Invalid UID format";

async fn what_is_not_valid_is_named_with_its_rule(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let counts = service.counts().await;
    for (verb, path, body, message) in bad_bodies(&id).into_iter().chain(bad_queries()).chain(bad_ids(&id)) {
        let answer = call(service, verb, &path, body.clone()).await;
        assert_eq!(answer, failure(400, message), "{verb} {path} {body}");
    }
    assert_eq!(service.counts().await, counts);
    // What just fits.
    let new = json!({"email": "b@example.com", "password": PASSWORD, "name": "ä".repeat(128)});
    assert_eq!(call(service, "POST", "/users", new).await.0, 201);
    get(service, &format!("/users?limit=100&search={}", "x".repeat(256))).await;
}

/// Verb, path, body and what is said of it.
type Case = (&'static str, String, Value, &'static str);

fn bad_bodies(id: &str) -> Vec<Case> {
    let change = |part: &str, body: Value, message| ("PATCH", format!("/users/{id}/{part}"), body, message);
    let new = |body: Value, message| ("POST", "/users".to_owned(), body, message);
    let mut cases = Vec::new();
    for email in [json!("ada"), json!("a@localhost"), json!("ä@example.com"), json!(1), json!(["a@b.co"])] {
        cases.push(new(json!({"email": email, "password": PASSWORD}), EMAIL));
        cases.push(change("email", json!({"email": email}), EMAIL));
    }
    for name in [json!("ä".repeat(129)), json!(1), json!({}), json!("a\u{0}b")] {
        cases.push(new(json!({"email": "b@example.com", "password": PASSWORD, "name": name}), NAME));
        cases.push(change("name", json!({"name": name}), NAME));
    }
    for status in [json!(3), json!(-1), json!("2"), json!(true), json!(1.0), json!([])] {
        cases.push(change("status", json!({"status": status}), STATUS));
    }
    for verified in [json!(0), json!(1), json!("true"), json!({})] {
        cases.push(change("verification", json!({"emailVerification": verified}), VERIFICATION));
    }
    for prefs in [json!("bad-string"), json!([1]), json!(1), json!(true)] {
        cases.push(change("prefs", json!({"prefs": prefs}), PREFS));
    }
    cases
}

fn bad_queries() -> Vec<Case> {
    let long = format!("search={}", "x".repeat(257));
    let queries = [
        ("limit=101", LIMIT),
        ("limit=-1", LIMIT),
        ("limit=25.0", LIMIT),
        ("limit=ten", LIMIT),
        ("offset=-1", OFFSET),
        ("offset=x", OFFSET),
        ("orderType=asc", ORDER),
        ("orderType=random", ORDER),
        (&long, SEARCH),
        ("search=%FF", SEARCH),
        ("search=%00", SEARCH),
    ];
    let case = |(query, message)| ("GET", format!("/users?{query}"), Value::Null, message);
    queries.map(case).to_vec()
}

fn bad_ids(id: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for bad in ["%20", "a%20b", "a%2Fb", "%00", "%FF", "ä", &"x".repeat(65)] {
        cases.extend(operations(bad, "x").into_iter().map(|(verb, path, body)| (verb, path, body, USER)));
        cases.push(("DELETE", format!("/users/{id}/sessions/{bad}"), json!({}), SESSION));
    }
    cases
}

async fn a_password_is_refused_for_our_reason(service: &Service) {
    let id = user(service, "ada.lovelace@example.com").await;
    let counts = service.counts().await;
    for (password, why) in [
        (json!("short"), "must have 8 to 128 characters"),
        (json!("x".repeat(129)), "must have 8 to 128 characters"),
        (json!("correct\u{0}horse"), "must not contain control characters"),
        (json!("ada.lovelace1815"), "must not contain the username or the email"),
        (json!("password1"), "is one of the most common passwords"),
        (json!(12_345_678), "must be a string"),
    ] {
        let want = failure(400, &format!("Invalid password: {why}"));
        let new = json!({"email": "ada.lovelace@example.org", "password": password});
        assert_eq!(call(service, "POST", "/users", new).await, want, "{password}");
        let change = json!({ "password": password });
        let answer = call(service, "PATCH", &format!("/users/{id}/password"), change).await;
        assert_eq!(answer, want, "{password}");
    }
    assert_eq!(service.counts().await, counts);
    // Its own lower limit is a setting of ours.
    let lax = service
        .another(|config| {
            config.passwords.min_length = 6;
            config.passwords.screening = false;
        })
        .await;
    let new = json!({"email": "b@example.com", "password": "secret"});
    assert_eq!(send(&lax, "default", "POST", "/users", new).await.0, 201);
}

async fn an_email_that_is_taken_is_409_for_a_new_user_and_400_for_another(service: &Service) {
    user(service, "ada@example.com").await;
    let other = user(service, "bob@example.com").await;
    let counts = service.counts().await;
    let new = json!({"email": "ADA@example.com", "password": PASSWORD});
    assert_eq!(call(service, "POST", "/users", new).await, failure(409, "User already registered"));
    let change = json!({"email": "ADA@example.com"});
    let answer = call(service, "PATCH", &format!("/users/{other}/email"), change).await;
    assert_eq!(answer, failure(400, "User already registered"));
    assert_eq!(service.counts().await, counts);
}

async fn an_unknown_user_is_404(service: &Service) {
    for (verb, path, body) in operations("nobody", "x") {
        assert_eq!(call(service, verb, &path, body).await, failure(404, "User not found"), "{verb} {path}");
    }
    assert_eq!(service.counts().await, [0; 4]);
}

async fn an_unknown_path_is_404(service: &Service) {
    for (verb, path) in [
        ("GET", "/"),
        ("GET", "/health"),
        ("POST", "/account"),
        ("GET", "/users/"),
        ("GET", "/users//logs"),
        ("PUT", "/users"),
        ("POST", "/users/7"),
        ("GET", "/users/7/status"),
        ("GET", "/users/7/sessions/8"),
        ("POST", "/users/7/sessions"),
        ("DELETE", "/users/7/sessions/8/9"),
    ] {
        assert_eq!(call(service, verb, path, json!({})).await, failure(404, "Not Found"), "{verb} {path}");
    }
    let (status, _, body) = service.replica.request(http::Method::GET, "/appwrite/v2/users", "", &[]).await;
    assert_eq!((status.as_u16(), body), failure(404, "Not Found"));
}

const PROJECT: (&str, &str) = ("x-appwrite-project", "default");

async fn a_body_that_is_no_json_object_has_no_parameters(service: &Service) {
    let new = json!({"email": "ada@example.com", "password": PASSWORD}).to_string();
    let json = "application/json";
    for (kind, body) in [
        (json, ""),
        (json, "{"),
        (json, "null"),
        (json, "[]"),
        (json, "\"text\""),
        (json, r#"{"email":"ada@example.com","password":"correct horse"} x"#),
        ("text/plain", &new),
        ("application/x-www-form-urlencoded", &new),
        ("multipart/form-data", &new),
    ] {
        let headers = [("content-type", kind), PROJECT];
        let (status, _, answer) = raw(&service.replica, "POST", "/users", body, &headers).await;
        assert_eq!((status, answer), failure(400, "Param \"email\" is not optional."), "{kind} {body}");
    }
    let (status, _, _) = raw(&service.replica, "POST", "/users", &new, &[PROJECT]).await;
    assert_eq!(status, 400, "without a type");
    assert_eq!(service.counts().await, [0; 4]);
    let headers = [("content-type", "application/json; charset=utf-8"), PROJECT];
    let (status, _, _) = raw(&service.replica, "POST", "/users", &new, &headers).await;
    assert_eq!(status, 201);
}

async fn a_body_that_is_too_long_is_413(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let counts = service.counts().await;
    let path = format!("/users/{id}/prefs");
    let (status, body) = call(service, "PATCH", &path, json!({"prefs": {"k": "v".repeat(64 * 1024)}})).await;
    assert_eq!((status, &body["code"]), (413, &json!(413)), "{body}");
    // The body may be longer than prefs may be.
    let replica = service.another(|config| config.http.max_body = 1024 * 1024).await;
    let prefs = json!({"prefs": {"k": "v".repeat(64 * 1024)}});
    let answer = send(&replica, "default", "PATCH", &path, prefs).await;
    assert_eq!(answer, failure(400, "Invalid prefs: must have at most 64 KiB in all"));
    for levels in [33, 60, 120] {
        let deep = (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        let (status, body) = send(&replica, "default", "PATCH", &path, json!({ "prefs": deep })).await;
        assert_eq!(status, 400, "{levels}: {body}");
    }
    assert_eq!(service.counts().await, counts);
}

async fn a_request_without_a_project_or_a_key_is_400(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let counts = service.counts().await;
    let json = ("content-type", "application/json");
    let missing = failure(400, "Missing or unknown project ID");
    for headers in [vec![json], vec![json, ("x-appwrite-project", "")], vec![json, ("x-appwrite-key", "")]] {
        for (verb, path, body) in operations(&id, "x") {
            let (status, _, answer) = raw(&service.replica, verb, &path, &body.to_string(), &headers).await;
            assert_eq!((status, answer), missing, "{verb} {path}");
        }
        let (status, _, answer) = raw(&service.replica, "GET", "/users?limit=-1", "", &headers).await;
        assert_eq!((status, answer), missing, "before its parameters are looked at");
    }
    for unknown in ["No Such", "../x", "*", &"x".repeat(64)] {
        let headers = [json, ("x-appwrite-project", unknown)];
        for path in ["/users", "/users?limit=-1", "/users/nobody"] {
            let (status, _, answer) = raw(&service.replica, "GET", path, "", &headers).await;
            assert_eq!((status, answer), missing, "{unknown} {path}");
        }
    }
    assert_eq!(service.counts().await, counts);
    for key in
        [("x-appwrite-key", "usk_1"), ("authorization", "Bearer usk_1"), ("usersd-namespace", "default")]
    {
        let (status, _, answer) = raw(&service.replica, "GET", "/users", "", &[key]).await;
        assert_eq!((status, &answer["sum"]), (200, &json!(1)), "{key:?} {answer}");
    }
}

async fn the_project_may_come_in_the_query(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let (status, _, body) = raw(&service.replica, "GET", "/users?project=default", "", &[]).await;
    assert_eq!((status, &body["users"][0]["$id"]), (200, &json!(id)));
    let (_, _, body) = raw(&service.replica, "GET", "/users?project=other", "", &[]).await;
    assert_eq!(body["sum"], 0);
    let (status, _, _) = raw(&service.replica, "GET", "/users?project=default", "", &[PROJECT]).await;
    assert_eq!(status, 200);
    let (status, _, body) = raw(&service.replica, "GET", "/users?project=other", "", &[PROJECT]).await;
    let detail =
        "the request names a namespace that is not its key's, or two different ones, or needs a root key";
    assert_eq!((status, body), failure(403, detail));
    for query in ["project=", "project=%FF", "project=%0A", "project=No"] {
        let (status, _, body) = raw(&service.replica, "GET", &format!("/users?{query}"), "", &[]).await;
        assert_eq!((status, body), failure(400, "Missing or unknown project ID"), "{query}");
    }
}

async fn a_web_page_is_told_that_its_host_is_not_registered(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let told = |host: &str| {
        let text = "Web platform on your project console dashboard";
        failure(403, &format!("Invalid Origin. Register your new client ({host}) as a new {text}"))
    };
    for (origin, host) in
        [("https://evil.example:8443", "evil.example"), ("http://localhost", "localhost"), ("null", "null")]
    {
        for (verb, path, body) in operations(&id, "x") {
            let headers = [PROJECT, ("origin", origin), ("content-type", "application/json")];
            let (status, _, answer) = raw(&service.replica, verb, &path, &body.to_string(), &headers).await;
            assert_eq!((status, answer), told(host), "{verb} {path}");
        }
    }
    let headers = [PROJECT, ("host", "evil.example:8080")];
    let (status, _, answer) = raw(&service.replica, "GET", "/users", "", &headers).await;
    assert_eq!((status, answer), told("evil.example"));
}

async fn authorization_is_refused_before_bad_parameters(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let counts = service.counts().await;
    let headers = [PROJECT, ("origin", "https://evil.example"), ("content-type", "application/json")];
    for (verb, path) in [
        ("GET", "/users?limit=-1".to_owned()),
        ("POST", "/users".to_owned()),
        ("PATCH", format!("/users/{id}/status")),
        ("PATCH", format!("/users/{id}/prefs")),
        ("PATCH", format!("/users/{id}/name")),
        ("PATCH", format!("/users/{id}/email")),
        ("PATCH", format!("/users/{id}/password")),
        ("DELETE", format!("/users/{id}/sessions/a%20b")),
    ] {
        let (status, _, answer) = raw(&service.replica, verb, &path, "{}", &headers).await;
        assert_eq!(status, 403, "{verb} {path}: {answer}");
    }
    assert_eq!(service.counts().await, counts);
}

/// (Trap 1)
async fn a_get_has_a_body(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let headers = [PROJECT, ("content-type", "application/json")];
    for path in [
        "/users".to_owned(),
        format!("/users/{id}"),
        format!("/users/{id}/prefs"),
        format!("/users/{id}/logs"),
    ] {
        for body in ["null", "{}", "{not json", ""] {
            let (status, _, answer) = raw(&service.replica, "GET", &path, body, &headers).await;
            assert_eq!(status, 200, "{path} {body}: {answer}");
        }
    }
}

/// (Trap 2)
async fn a_delete_has_a_body(service: &Service) {
    for body in ["{}", "null", "{not json", ""] {
        let id = user(service, "ada@example.com").await;
        let headers = [PROJECT, ("content-type", "application/json")];
        for path in
            [format!("/users/{id}/sessions/x"), format!("/users/{id}/sessions"), format!("/users/{id}")]
        {
            let (status, _, answer) = raw(&service.replica, "DELETE", &path, body, &headers).await;
            assert_eq!(status, 204, "{path} {body}: {answer}");
        }
    }
}

/// (Trap 3)
async fn a_204_has_a_type_that_is_not_json(service: &Service) {
    let id = user(service, "ada@example.com").await;
    for path in [format!("/users/{id}/sessions/x"), format!("/users/{id}/sessions"), format!("/users/{id}")] {
        let (status, headers, body) = raw(&service.replica, "DELETE", &path, "{}", &[PROJECT]).await;
        assert_eq!((status, body), (204, Value::Null));
        assert_eq!(headers["content-type"], "text/html; charset=UTF-8", "{path}");
        assert_eq!(headers["cache-control"], "no-store", "{path}");
    }
}

/// (Trap 4)
async fn header_names_come_in_any_case(service: &Service) {
    let id = user(service, "ada@example.com").await;
    for name in ["x-appwrite-project", "X-Appwrite-Project", "X-APPWRITE-PROJECT"] {
        let (status, _, _) =
            raw(&service.replica, "GET", &format!("/users/{id}"), "", &[(name, "default")]).await;
        assert_eq!(status, 200, "{name}");
    }
}

/// (Trap 5)
async fn a_plus_is_a_space(service: &Service) {
    let name = "Jo hn&x + y";
    let id = create(service, CreateRequest { name: name.into(), ..ada() }).await.id;
    create(service, nth(1)).await;
    for search in ["jo+hn%26x", "jo%20hn%26x", "x+%2B+y"] {
        let body = get(service, &format!("/users?search={search}&limit=10")).await;
        assert_eq!((&body["sum"], &body["users"][0]["$id"]), (&json!(1), &json!(id)), "{search}");
    }
}

fn assert_json_error(headers: &HeaderMap) {
    assert_eq!(headers["content-type"], "application/json; charset=UTF-8");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-content-type-options"], "nosniff");
}

/// (Trap 6)
async fn errors_are_json_and_say_so(service: &Service) {
    for (verb, path, headers) in [
        ("GET", "/users/nobody", vec![PROJECT]),
        ("GET", "/nothing", vec![PROJECT]),
        ("GET", "/users", vec![]),
        ("GET", "/users?limit=-1", vec![PROJECT]),
        ("POST", "/users", vec![PROJECT]),
        ("GET", "/users", vec![PROJECT, ("origin", "https://evil.example")]),
    ] {
        let (status, headers, body) = raw(&service.replica, verb, path, "", &headers).await;
        assert!(status >= 400);
        assert_json_error(&headers);
        assert_eq!((&body["code"], &body["version"]), (&json!(status), &json!("0.9.4")), "{verb} {path}");
        assert_eq!(body.as_object().unwrap().len(), 3, "{verb} {path}");
    }
    let (status, headers, _) = raw(&service.replica, "GET", "/users", "", &[PROJECT]).await;
    assert_eq!(status, 200);
    assert_json_error(&headers);
}

/// (Trap 7)
async fn text_comes_escaped_and_raw(service: &Service) {
    let headers = [PROJECT, ("content-type", "application/json")];
    for (n, name) in [r"J\u00f6rg \ud83d\ude00 a\/b", "Jörg 😀 a/b"].into_iter().enumerate() {
        let body = format!(r#"{{"email":"{n}@example.com","password":"correct horse","name":"{name}"}}"#);
        let (status, _, answer) = raw(&service.replica, "POST", "/users", &body, &headers).await;
        assert_eq!((status, &answer["name"]), (201, &json!("Jörg 😀 a/b")), "{body}");
    }
}

/// An SDK pastes them into the path.
/// (Trap 8)
async fn ids_come_unescaped(service: &Service) {
    for id in ["a|b@c.d-e_F", "7"] {
        create(
            service,
            CreateRequest {
                id: id.into(),
                username: String::new(),
                email: format!("{}@example.com", id.len()),
                ..ada()
            },
        )
        .await;
        let escaped = id.replace('|', "%7C").replace('@', "%40");
        for path in [id, &escaped] {
            assert_eq!(get(service, &format!("/users/{path}")).await["$id"], id, "{path}");
        }
    }
    assert_eq!(call(service, "GET", "/users/a/b%20c", Value::Null).await, failure(404, "Not Found"));
}

async fn options_tells_the_verbs_and_head_has_no_body(service: &Service) {
    let id = user(service, "ada@example.com").await;
    for path in ["/users".to_owned(), format!("/users/{id}/status")] {
        let (status, headers, body) = raw(&service.replica, "OPTIONS", &path, "", &[]).await;
        assert_eq!((status, body), (204, Value::Null));
        for name in ["allow", "access-control-allow-methods"] {
            assert_eq!(headers[name], "GET, POST, PUT, PATCH, DELETE", "{path}");
        }
        assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("X-Appwrite-Key"));
        assert!(!headers.contains_key("access-control-allow-origin"), "no web page is served");
    }
    for (path, want) in
        [("/users".to_owned(), 200), (format!("/users/{id}"), 200), ("/users/nobody".to_owned(), 404)]
    {
        let (status, headers, body) = raw(&service.replica, "HEAD", &path, "", &[PROJECT]).await;
        assert_eq!((status, body), (want, Value::Null), "{path}");
        assert_json_error(&headers);
    }
}

async fn other_headers_of_its_sdks_do_not_matter(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let headers = [
        PROJECT,
        ("x-appwrite-key", "0123456789abcdef"),
        ("x-appwrite-response-format", "0.9.0"),
        ("x-appwrite-locale", "de"),
        ("x-appwrite-mode", "admin"),
        ("x-appwrite-jwt", "eyJ"),
        ("x-sdk-version", "appwrite:nodejs:2.4.0"),
        ("cookie", "a_session_default=1"),
    ];
    let (status, _, body) = raw(&service.replica, "GET", &format!("/users/{id}"), "", &headers).await;
    assert_eq!((status, &body["$id"]), (200, &json!(id)));
}

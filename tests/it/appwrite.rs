//! The Users API of Appwrite: what its SDKs send, and what they find.

use http::{HeaderMap, Method};
use serde_json::{Value, json};
use usersd::pb::{CreateRequest, Device, LoginRequest};

use crate::support::{PASSWORD, Replica, START, Service, ada, create, from, login, nth};

crate::on_every_backend!(
    two_projects_never_see_each_other,
    a_created_user_is_pending_and_shown_in_full,
    a_list_has_pages_an_order_and_an_exact_sum,
    a_page_is_whole_however_long_its_prefs_are,
    prefs_are_an_object_of_the_callers_own,
    sessions_are_shown_in_full_and_all_of_them,
    a_list_of_sessions_has_an_end,
    sessions_end_one_by_one_and_all_at_once,
    logs_are_the_newest_ten_that_have_a_name_there,
    status_is_a_number_and_a_blocked_user_cannot_sign_in,
    verification_is_set_and_taken_back,
    name_email_and_password_change_each_by_itself,
    a_deleted_user_is_gone_and_lies_in_our_trash,
);

/// As its SDKs send it: every request has a body and calls it JSON.
pub(crate) async fn send(http: &Replica, project: &str, verb: &str, path: &str, body: Value) -> (u16, Value) {
    let headers =
        [("Content-Type", "application/json"), ("X-Appwrite-Project", project), ("x-sdk-version", "1")];
    let (status, _, body) = raw(http, verb, path, &body.to_string(), &headers).await;
    (status, body)
}

/// A request as it is.
pub(crate) async fn raw(
    http: &Replica,
    verb: &str,
    path: &str,
    body: &str,
    headers: &[(&str, &str)],
) -> (u16, HeaderMap, Value) {
    let verb = verb.parse::<Method>().unwrap();
    let path = format!("/appwrite/v1{path}");
    let (status, headers, body) = http.request(verb, &path, body.to_owned(), headers).await;
    (status.as_u16(), headers, body)
}

/// In the project of [`create`] and [`login`].
pub(crate) async fn call(service: &Service, verb: &str, path: &str, body: Value) -> (u16, Value) {
    send(&service.replica, "default", verb, path, body).await
}

pub(crate) async fn get(service: &Service, path: &str) -> Value {
    let (status, body) = call(service, "GET", path, Value::Null).await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// A new user's id.
pub(crate) async fn user(service: &Service, email: &str) -> String {
    let new = json!({"email": email, "password": PASSWORD});
    let (status, body) = call(service, "POST", "/users", new).await;
    assert_eq!(status, 201, "{body}");
    body["$id"].as_str().unwrap().to_owned()
}

pub(crate) fn failure(code: u16, message: &str) -> (u16, Value) {
    (code, json!({"message": message, "code": code, "version": "0.9.4"}))
}

/// Every operation on one user, with its body.
pub(crate) fn operations(user: &str, session: &str) -> Vec<(&'static str, String, Value)> {
    vec![
        ("GET", format!("/users/{user}"), Value::Null),
        ("GET", format!("/users/{user}/prefs"), Value::Null),
        ("GET", format!("/users/{user}/sessions"), Value::Null),
        ("GET", format!("/users/{user}/logs"), Value::Null),
        ("PATCH", format!("/users/{user}/status"), json!({"status": 2})),
        ("PATCH", format!("/users/{user}/verification"), json!({"emailVerification": true})),
        ("PATCH", format!("/users/{user}/prefs"), json!({"prefs": {"a": 1}})),
        ("PATCH", format!("/users/{user}/name"), json!({"name": "Eve"})),
        ("PATCH", format!("/users/{user}/email"), json!({"email": "eve@example.com"})),
        ("PATCH", format!("/users/{user}/password"), json!({"password": "battery staple"})),
        ("DELETE", format!("/users/{user}/sessions/{session}"), json!({})),
        ("DELETE", format!("/users/{user}/sessions"), json!({})),
        ("DELETE", format!("/users/{user}"), json!({})),
    ]
}

async fn two_projects_never_see_each_other(service: &Service) {
    let http = &service.replica;
    let new = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Ada"});
    let (_, mine) = send(http, "mine", "POST", "/users", new.clone()).await;
    let id = mine["$id"].as_str().unwrap();
    let attempt =
        LoginRequest { email: "ada@example.com".into(), password: PASSWORD.into(), ..Default::default() };
    let session = service.users().login(from("mine", attempt)).await.unwrap().into_inner().session.unwrap();
    let shown = || async {
        let mut shown = vec![send(http, "mine", "GET", "/users", Value::Null).await];
        for part in ["", "/prefs", "/sessions", "/logs"] {
            shown.push(send(http, "mine", "GET", &format!("/users/{id}{part}"), Value::Null).await);
        }
        shown
    };
    let (before, counts) = (shown().await, service.counts().await);
    for (verb, path, body) in operations(id, &session.public_id) {
        let answer = send(http, "theirs", verb, &path, body.clone()).await;
        assert_eq!(answer, failure(404, "User not found"), "{verb} {path}");
        // One that nobody has costs and says the same.
        let nobody = path.replace(id, "nobody");
        assert_eq!(send(http, "theirs", verb, &nobody, body).await, answer, "{verb} {nobody}");
    }
    for query in ["", "?search=ada", "?search=ada%40example.com", &format!("?search={id}")] {
        let (_, body) = send(http, "theirs", "GET", &format!("/users{query}"), Value::Null).await;
        assert_eq!(body, json!({"sum": 0, "users": []}), "{query}");
    }
    assert_eq!((shown().await, service.counts().await), (before, counts));
    let (status, theirs) = send(http, "theirs", "POST", "/users", new).await;
    assert_eq!(status, 201, "an address is free in every project: {theirs}");
    let (_, listed) = send(http, "mine", "GET", "/users", Value::Null).await;
    assert_eq!(listed["users"], json!([mine]));
    let (_, listed) = send(http, "theirs", "GET", "/users", Value::Null).await;
    assert_eq!(listed["users"], json!([theirs]));
}

async fn a_created_user_is_pending_and_shown_in_full(service: &Service) {
    let new =
        json!({"email": "Ada@Example.com", "password": PASSWORD, "name": "Jörg / \"J\"", "unknown": [1]});
    let (status, body) = call(service, "POST", "/users", new).await;
    let id = body["$id"].as_str().unwrap().to_owned();
    let expected = json!({
        "$id": id, "name": "Jörg / \"J\"", "registration": START, "status": 0, "passwordUpdate": START,
        "email": "ada@example.com", "emailVerification": false, "prefs": {},
    });
    assert_eq!((status, body), (201, expected.clone()));
    assert_eq!(get(service, &format!("/users/{id}")).await, expected);
    let (status, nameless) =
        call(service, "POST", "/users", json!({"email": "b@example.com", "password": PASSWORD, "name": ""}))
            .await;
    assert_eq!((status, &nameless["name"]), (201, &json!("")));
    // A pending user signs in.
    let attempt =
        LoginRequest { email: "ada@example.com".into(), password: PASSWORD.into(), ..Default::default() };
    service.users().login(attempt).await.unwrap();
    // Users that came another way are shown, too.
    let other = create(service, CreateRequest { email: String::new(), ..ada() }).await;
    let body = get(service, &format!("/users/{}", other.id)).await;
    assert_eq!((&body["email"], &body["status"]), (&json!(""), &json!(1)));
}

async fn a_list_has_pages_an_order_and_an_exact_sum(service: &Service) {
    let mut ids = Vec::new();
    for n in 0..30 {
        let sso = CreateRequest { password: String::new(), sso_enabled: true, ..nth(n) };
        ids.push(create(service, sso).await.id);
        service.clock.advance(std::time::Duration::from_secs(1));
    }
    let listed = async |query: &str| {
        let body = get(service, &format!("/users{query}")).await;
        let found: Vec<usize> = body["users"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| ids.iter().position(|id| user["$id"] == **id).unwrap())
            .collect();
        (body["sum"].as_i64().unwrap(), found)
    };
    assert_eq!(listed("").await, (30, (0..25).collect()));
    assert_eq!(listed("?limit=100").await, (30, (0..30).collect()));
    assert_eq!(listed("?limit=3&offset=28").await, (30, vec![28, 29]));
    assert_eq!(listed("?limit=3&offset=1&orderType=DESC").await, (30, vec![28, 27, 26]));
    assert_eq!(listed("?limit=0").await, (30, vec![]));
    assert_eq!(listed("?offset=2001").await, (30, vec![]));
    assert_eq!(listed("?search=user2%40example&limit=2").await, (1, vec![2]));
    assert_eq!(listed("?search=example.com&limit=2").await, (30, vec![0, 1]));
    assert_eq!(listed("?search=&limit=&offset=&orderType=").await, (30, (0..25).collect()));
}

/// One of our replies has at most 3 MiB. Callers take a short page for the last one.
async fn a_page_is_whole_however_long_its_prefs_are(service: &Service) {
    let replica = service.another(|config| config.http.max_body = 1024 * 1024).await;
    let prefs = json!({"prefs": {"k": "v".repeat(60_000)}});
    let mut ids = Vec::new();
    for n in 0..70 {
        let sso = CreateRequest { password: String::new(), sso_enabled: true, ..nth(n) };
        let id = create(service, sso).await.id;
        let (status, _) =
            send(&replica, "default", "PATCH", &format!("/users/{id}/prefs"), prefs.clone()).await;
        assert_eq!(status, 200);
        ids.push(id);
    }
    ids.sort();
    let (_, body) = send(&replica, "default", "GET", "/users?limit=65&offset=1", Value::Null).await;
    let found: Vec<&str> =
        body["users"].as_array().unwrap().iter().map(|user| user["$id"].as_str().unwrap()).collect();
    assert_eq!((body["sum"].as_i64(), found), (Some(70), ids[1..66].iter().map(String::as_str).collect()));
}

async fn prefs_are_an_object_of_the_callers_own(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let path = format!("/users/{id}/prefs");
    assert_eq!(get(service, &path).await, json!({}));
    let prefs = json!({
        "theme": "dark", "n": 1, "big": 9_007_199_254_740_991_i64, "half": 0.5, "list": [1, "a", null, {}],
        "deep": {"a": {"b": []}}, "no": false, "": "empty key", "ключ": "значение",
    });
    let (status, body) = call(service, "PATCH", &path, json!({ "prefs": prefs })).await;
    assert_eq!((status, &body), (200, &prefs));
    assert_eq!(get(service, &path).await, prefs);
    assert_eq!(get(service, &format!("/users/{id}")).await["prefs"], prefs);
    assert_eq!(get(service, "/users").await["users"][0]["prefs"], prefs);
}

async fn sessions_are_shown_in_full_and_all_of_them(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let path = format!("/users/{id}/sessions");
    assert_eq!(get(service, &path).await, json!({"sum": 0, "sessions": []}));
    let device = Device { address: "203.0.113.9".into(), ..Default::default() };
    let attempt = LoginRequest {
        email: "ada@example.com".into(),
        password: PASSWORD.into(),
        device: Some(device),
        ..Default::default()
    };
    let mut public_ids = Vec::new();
    for _ in 0..27 {
        let session = service.users().login(attempt.clone()).await.unwrap().into_inner().session.unwrap();
        public_ids.push(session.public_id);
        service.clock.advance(std::time::Duration::from_secs(1));
    }
    let body = get(service, &path).await;
    let sessions = body["sessions"].as_array().unwrap();
    assert_eq!((body["sum"].as_i64(), sessions.len()), (Some(27), 27));
    for (n, (session, public_id)) in (0..).zip(sessions.iter().zip(&public_ids)) {
        assert_eq!(session["$id"], **public_id);
        assert_eq!(session["expire"], START + n + 7 * 24 * 3600);
        assert_eq!(session["userId"], *id);
        assert_in_full(session);
    }
    service.clock.advance(std::time::Duration::from_hours(8 * 24));
    assert_eq!(get(service, &path).await["sum"], 0, "expired ones are not listed");
}

/// A session of Ada's from 203.0.113.9.
fn assert_in_full(session: &Value) {
    for (field, value) in [
        ("provider", json!("email")),
        ("providerUid", json!("ada@example.com")),
        ("providerToken", json!("")),
        ("ip", json!("203.0.113.9")),
        ("countryCode", json!("--")),
        ("countryName", json!("Unknown")),
        ("current", json!(false)),
    ] {
        assert_eq!(session[field], value, "{field}");
    }
    let described = [
        "osCode",
        "osName",
        "osVersion",
        "clientType",
        "clientCode",
        "clientName",
        "clientVersion",
        "clientEngine",
        "clientEngineVersion",
        "deviceName",
        "deviceBrand",
        "deviceModel",
    ];
    for field in described {
        assert!(session[field].is_string(), "{field}");
    }
    assert_eq!(session.as_object().unwrap().len(), 22);
}

/// (M11)
async fn a_list_of_sessions_has_an_end(service: &Service) {
    let id = user(service, "ada@example.com").await;
    crate::session_lists::open_by_sql(service, &id, 2_100).await;
    let listed = get(service, &format!("/users/{id}/sessions")).await;
    assert_eq!((listed["sum"].as_i64(), listed["sessions"].as_array().unwrap().len()), (Some(2_000), 2_000));
}

async fn sessions_end_one_by_one_and_all_at_once(service: &Service) {
    let id = create(service, ada()).await.id;
    let mut public_ids = Vec::new();
    for _ in 0..3 {
        public_ids.push(login(service, "ada").await.public_id);
    }
    let path = format!("/users/{id}/sessions");
    for _ in 0..2 {
        let (status, _) = call(service, "DELETE", &format!("{path}/{}", public_ids[1]), json!({})).await;
        assert_eq!(status, 204, "also one that is gone");
        assert_eq!(get(service, &path).await["sum"], 2);
    }
    for unknown in ["nothing", "Ab.c_d%7Ce%40-f", &"x".repeat(64)] {
        assert_eq!(
            call(service, "DELETE", &format!("{path}/{unknown}"), json!({})).await.0,
            204,
            "{unknown}"
        );
    }
    for _ in 0..2 {
        assert_eq!(call(service, "DELETE", &path, json!({})).await.0, 204);
        assert_eq!(get(service, &path).await, json!({"sum": 0, "sessions": []}));
    }
    // Another user's session is none of this one's.
    let other = create(service, nth(1)).await.id;
    let theirs = login(service, "user1").await.public_id;
    assert_eq!(call(service, "DELETE", &format!("{path}/{theirs}"), json!({})).await.0, 204);
    assert_eq!(get(service, &format!("/users/{other}/sessions")).await["sum"], 1);
}

async fn logs_are_the_newest_ten_that_have_a_name_there(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let (mut want, mut at) = (vec![("account.create", START)], START);
    let steps = [
        ("PATCH", "/name", json!({"name": "Ada"}), Some("account.update.name")),
        ("PATCH", "/email", json!({"email": "a@example.com"}), Some("account.update.email")),
        ("PATCH", "/status", json!({"status": 1}), None),
        ("PATCH", "/verification", json!({"emailVerification": true}), Some("account.verification.update")),
        ("PATCH", "/prefs", json!({"prefs": {"a": 1}}), Some("account.update.prefs")),
        ("PATCH", "/password", json!({"password": PASSWORD}), Some("account.update.password")),
        ("DELETE", "/sessions", json!({}), Some("account.sessions.delete")),
    ];
    for (verb, part, body, event) in steps {
        if part == "/sessions" {
            sign_in(service, "a@example.com").await;
            want.push(("account.sessions.create", at));
        }
        service.clock.advance(std::time::Duration::from_secs(1));
        at += 1;
        let (status, answer) = call(service, verb, &format!("/users/{id}{part}"), body).await;
        assert!(status < 300, "{part}: {answer}");
        want.extend(event.map(|event| (event, at)));
    }
    want.reverse();
    assert_eq!(logged(service, &id).await, want);
    // What has no name there is passed over, however much of it there is.
    for n in 0..120 {
        let labels = vec![format!("label{n}")];
        let update = usersd::pb::UpdateRequest { id: id.clone(), labels, ..Default::default() };
        service.users().update(update).await.unwrap();
    }
    assert_eq!(logged(service, &id).await, want);
    // Ten and no more, the newest first.
    for n in 0..12 {
        service.clock.advance(std::time::Duration::from_secs(1));
        call(service, "PATCH", &format!("/users/{id}/name"), json!({"name": format!("Ada {n}")})).await;
    }
    let newest: Vec<_> = (0..10).map(|n| ("account.update.name", at + 12 - n)).collect();
    assert_eq!(logged(service, &id).await, newest);
    let body = get(service, &format!("/users/{id}/logs")).await;
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["logs"]);
    let log = body["logs"][0].as_object().unwrap();
    assert_eq!((log.len(), &log["ip"], &log["countryCode"]), (17, &json!("127.0.0.1"), &json!("--")));
}

/// A log-in, and one that is refused: that has no name there.
async fn sign_in(service: &Service, email: &str) {
    let attempt = LoginRequest { email: email.into(), password: PASSWORD.into(), ..Default::default() };
    service.users().login(attempt.clone()).await.unwrap();
    service.users().login(LoginRequest { password: "wrong".into(), ..attempt }).await.unwrap_err();
}

async fn logged(service: &Service, id: &str) -> Vec<(&'static str, i64)> {
    let body = get(service, &format!("/users/{id}/logs")).await;
    let known = [
        "account.create",
        "account.update.name",
        "account.update.email",
        "account.verification.update",
        "account.update.prefs",
        "account.update.password",
        "account.sessions.create",
        "account.sessions.delete",
    ];
    let entry = |log: &Value| {
        let event = known.into_iter().find(|event| log["event"] == **event);
        (event.unwrap_or_else(|| panic!("{log}")), log["time"].as_i64().unwrap())
    };
    body["logs"].as_array().unwrap().iter().map(entry).collect()
}

async fn status_is_a_number_and_a_blocked_user_cannot_sign_in(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let attempt =
        LoginRequest { email: "ada@example.com".into(), password: PASSWORD.into(), ..Default::default() };
    for (status, may) in [(2, false), (1, true), (0, true)] {
        let (code, body) =
            call(service, "PATCH", &format!("/users/{id}/status"), json!({"status": status})).await;
        assert_eq!((code, &body["status"], &body["$id"]), (200, &json!(status), &json!(id)));
        assert_eq!(body.as_object().unwrap().len(), 8);
        assert_eq!(get(service, &format!("/users/{id}")).await, body);
        assert_eq!(service.users().login(attempt.clone()).await.is_ok(), may, "{status}");
    }
}

async fn verification_is_set_and_taken_back(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let path = format!("/users/{id}/verification");
    for (body, want) in [
        (json!({"emailVerification": true}), true),
        (json!({"emailVerification": false}), false),
        (json!({"emailVerification": true}), true),
        (json!({}), false),
    ] {
        let (status, answer) = call(service, "PATCH", &path, body.clone()).await;
        assert_eq!((status, &answer["emailVerification"]), (200, &json!(want)), "{body}");
        assert_eq!(get(service, &format!("/users/{id}")).await, answer);
    }
    let nameless = create(service, CreateRequest { email: String::new(), ..ada() }).await.id;
    let path = format!("/users/{nameless}/verification");
    let answer = call(service, "PATCH", &path, json!({"emailVerification": true})).await;
    assert_eq!(answer, failure(400, "Invalid emailVerification: cannot be set while there is no email"));
}

async fn name_email_and_password_change_each_by_itself(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let path = format!("/users/{id}");
    call(service, "PATCH", &format!("{path}/verification"), json!({"emailVerification": true})).await;
    let (status, body) = call(service, "PATCH", &format!("{path}/name"), json!({"name": "Ada"})).await;
    assert_eq!((status, &body["name"], &body["emailVerification"]), (200, &json!("Ada"), &json!(true)));
    let (status, body) =
        call(service, "PATCH", &format!("{path}/email"), json!({"email": "B@Example.com"})).await;
    let want = (200, &json!("b@example.com"), &json!(false), &json!("Ada"));
    assert_eq!((status, &body["email"], &body["emailVerification"], &body["name"]), want);
    service.clock.advance(std::time::Duration::from_secs(5));
    let (status, body) =
        call(service, "PATCH", &format!("{path}/password"), json!({"password": "battery staple"})).await;
    assert_eq!((status, &body["passwordUpdate"]), (200, &json!(START + 5)));
    assert_eq!(get(service, &path).await, body);
    let attempt = LoginRequest {
        email: "b@example.com".into(),
        password: "battery staple".into(),
        ..Default::default()
    };
    service.users().login(attempt.clone()).await.unwrap();
    service.users().login(LoginRequest { password: PASSWORD.into(), ..attempt }).await.unwrap_err();
}

async fn a_deleted_user_is_gone_and_lies_in_our_trash(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let (status, body) = call(service, "DELETE", &format!("/users/{id}"), json!({})).await;
    assert_eq!((status, body), (204, Value::Null));
    for (verb, path, body) in operations(&id, "x") {
        assert_eq!(call(service, verb, &path, body).await, failure(404, "User not found"), "{verb} {path}");
    }
    assert_eq!(get(service, "/users").await, json!({"sum": 0, "users": []}));
    let (status, _) = service.replica.json(Method::GET, &format!("/v1/trash/{id}"), "").await;
    assert_eq!(status, 200);
}

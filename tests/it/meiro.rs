//! Meiro's users API, with a trash.

use http::{HeaderMap, Method};
use serde_json::{Value, json};
use usersd::pb::{CreateRequest, LoginRequest, ReadRequest};

use crate::support::{PASSWORD, Service, ada, create, from, login, nth};

crate::on_every_backend!(
    two_namespaces_never_see_each_other,
    a_user_is_created_read_changed_and_deleted,
    email_and_password_change_in_one_update,
    a_password_changes_by_the_old_one,
    a_list_tells_what_it_applied,
    the_trash_is_listed_and_emptied_one_by_one,
    create_or_restore_brings_back_the_newest_or_makes_a_new_one,
    words_are_not_ids,
    an_unknown_user_is_404_on_every_path,
    a_taken_email_is_409,
    every_bad_field_is_named,
    a_bad_page_is_named,
    a_body_that_is_no_json_object_is_refused,
    get_and_delete_ignore_a_body,
    other_verbs_are_405_with_allow,
    errors_are_a_message_alone,
    single_sign_on_needs_no_password,
    its_token_header_does_not_matter_yet,
);

async fn raw(
    service: &Service,
    verb: &str,
    path: &str,
    body: &str,
    headers: &[(&str, &str)],
) -> (u16, HeaderMap, Value) {
    let path = format!("/meiro{path}");
    let verb = verb.parse::<Method>().unwrap();
    let (status, headers, body) = service.replica.request(verb, &path, body.to_owned(), headers).await;
    (status.as_u16(), headers, body)
}

async fn call_in(service: &Service, namespace: &str, verb: &str, path: &str, body: Value) -> (u16, Value) {
    let headers = [
        ("content-type", "application/json"),
        ("X-Access-Token", "1234567890abcdef"),
        ("usersd-namespace", namespace),
    ];
    let (status, _, body) = raw(service, verb, path, &body.to_string(), &headers).await;
    (status, body)
}

async fn call(service: &Service, verb: &str, path: &str, body: Value) -> (u16, Value) {
    call_in(service, "default", verb, path, body).await
}

/// The 200 of a GET.
async fn get(service: &Service, path: &str) -> Value {
    let (status, body) = call(service, "GET", path, Value::Null).await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// A new user's id.
async fn user(service: &Service, email: &str) -> String {
    let (status, body) = call(service, "POST", "/users", json!({"email": email, "password": PASSWORD})).await;
    assert_eq!(status, 201, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

async fn delete(service: &Service, id: &str) {
    assert_eq!(call(service, "DELETE", &format!("/users/{id}"), json!({})).await.0, 200);
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    (code, json!({ "message": message }))
}

fn shown(id: &str, email: &str, deleted: bool) -> Value {
    json!({"id": id, "email": email, "deleted": deleted, "sso_enabled": false})
}

/// Whether the password opens a session.
async fn signs_in(service: &Service, email: &str, password: &str) -> bool {
    let attempt = LoginRequest { email: email.into(), password: password.into(), ..Default::default() };
    service.users().login(attempt).await.is_ok()
}

/// Every operation on one user, with its body, and the answer for an unknown user.
pub(crate) fn operations(user: &str) -> Vec<(&'static str, String, Value, u16)> {
    let change = json!({"old_password": PASSWORD, "new_password": "battery staple"});
    vec![
        ("GET", format!("/users/{user}"), Value::Null, 404),
        ("PATCH", format!("/users/{user}"), json!({"sso_enabled": true}), 404),
        ("PATCH", format!("/users/{user}"), json!({"password": "battery staple"}), 404),
        ("DELETE", format!("/users/{user}"), json!({}), 404),
        ("PATCH", format!("/users/trash/{user}"), json!({}), 404),
        // As a wrong password: whether there is such a user is nobody's business.
        ("POST", format!("/users/{user}/change_password"), change, 401),
    ]
}

async fn two_namespaces_never_see_each_other(service: &Service) {
    let new = json!({"email": "ada@example.com", "password": PASSWORD});
    let (_, mine) = call_in(service, "mine", "POST", "/users", new.clone()).await;
    let (_, trashed) =
        call_in(service, "mine", "POST", "/users", json!({"email": "b@example.com", "password": PASSWORD}))
            .await;
    let path = |user: &Value| format!("/users/{}", user["id"].as_str().unwrap());
    let (_, trashed) = call_in(service, "mine", "DELETE", &path(&trashed), json!({})).await;
    let seen = async || {
        let mut seen = Vec::new();
        for path in [&path(&mine), "/users", "/users/trash"] {
            seen.push(call_in(service, "mine", "GET", path, Value::Null).await);
        }
        (seen, service.number("SELECT count(*) FROM users").await)
    };
    let before = seen().await;
    for user in [&mine, &trashed] {
        let id = user["id"].as_str().unwrap();
        for (verb, path, body, status) in operations(id) {
            let answer = call_in(service, "theirs", verb, &path, body.clone()).await;
            assert_eq!(answer.0, status, "{verb} {path}: {answer:?}");
            let nobody = path.replace(id, "nobody");
            assert_eq!(call_in(service, "theirs", verb, &nobody, body).await, answer, "{verb} {path}");
        }
    }
    for path in ["/users", "/users/trash"] {
        assert_eq!(call_in(service, "theirs", "GET", path, Value::Null).await.1["users"], json!([]));
    }
    assert_eq!(seen().await, before);
    // Their addresses are their own, and what lies in my trash is not theirs to restore.
    for (path, email) in [("/users", "ada@example.com"), ("/users/create_or_restore", "b@example.com")] {
        let new = json!({"email": email, "password": PASSWORD});
        let (status, theirs) = call_in(service, "theirs", "POST", path, new).await;
        assert_eq!(status, 201, "{theirs}");
        assert!(theirs["id"] != mine["id"] && theirs["id"] != trashed["id"]);
    }
    let read = ReadRequest { email: "ada@example.com".into(), ..Default::default() };
    let read = service.users().read(from("mine", read)).await.unwrap().into_inner().user.unwrap();
    assert_eq!(read.id, mine["id"].as_str().unwrap());
}

async fn a_user_is_created_read_changed_and_deleted(service: &Service) {
    let new = json!({"email": "Ada@Example.com", "password": PASSWORD, "sso_enabled": false, "unknown": {}});
    let (status, body) = call(service, "POST", "/users", new).await;
    let id = body["id"].as_str().unwrap().to_owned();
    assert_eq!((status, &body), (201, &shown(&id, "ada@example.com", false)));
    let path = format!("/users/{id}");
    assert_eq!(get(service, &path).await, body);
    assert_eq!(call(service, "PATCH", &path, json!({})).await, (200, body.clone()));
    assert_eq!(call(service, "PATCH", &path, json!({"email": null, "password": null})).await, (200, body));
    let (status, body) = call(service, "PATCH", &path, json!({"email": "b@example.com"})).await;
    assert_eq!((status, &body), (200, &shown(&id, "b@example.com", false)));
    let (status, body) = call(service, "PATCH", &path, json!({"sso_enabled": true})).await;
    assert_eq!((status, &body["sso_enabled"], &body["email"]), (200, &json!(true), &json!("b@example.com")));
    let (_, body) = call(service, "PATCH", &path, json!({"sso_enabled": false})).await;
    assert_eq!(body["sso_enabled"], false);
    assert!(signs_in(service, "b@example.com", PASSWORD).await, "nothing else changed");
    let (status, body) = call(service, "DELETE", &path, json!({})).await;
    assert_eq!((status, body), (200, shown(&id, "b@example.com", true)));
    assert_eq!(call(service, "GET", &path, Value::Null).await, failure(404, "no such user"));
    assert_eq!(call(service, "DELETE", &path, Value::Null).await, failure(404, "no such user"));
    assert_eq!(call(service, "PATCH", &path, json!({})).await, failure(404, "no such user"));
}

async fn email_and_password_change_in_one_update(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let before = service.counts().await;
    let change = json!({"email": "b@example.com", "password": "battery staple", "sso_enabled": false});
    let (status, body) = call(service, "PATCH", &format!("/users/{id}"), change).await;
    assert_eq!((status, body), (200, shown(&id, "b@example.com", false)));
    let after = service.counts().await;
    assert_eq!((after[2], after[3]), (before[2] + 1, before[3] + 1), "one event, one version");
    assert!(signs_in(service, "b@example.com", "battery staple").await);
    assert!(!signs_in(service, "b@example.com", PASSWORD).await);
    // Both or neither.
    user(service, "taken@example.com").await;
    let before = service.counts().await;
    for change in [
        json!({"email": "taken@example.com", "password": "third horse"}),
        json!({"email": "c@example.com", "password": "short"}),
        json!({"email": "nothing", "password": "third horse"}),
    ] {
        let (status, body) = call(service, "PATCH", &format!("/users/{id}"), change.clone()).await;
        assert!(status == 400 || status == 409, "{change}: {body}");
    }
    assert_eq!(service.counts().await, before);
    assert!(signs_in(service, "b@example.com", "battery staple").await);
}

async fn a_password_changes_by_the_old_one(service: &Service) {
    let id = create(service, ada()).await.id;
    login(service, "ada").await;
    let path = format!("/users/{id}/change_password");
    let change = |old: &str, new: &str| json!({"old_password": old, "new_password": new});
    let wrong = failure(401, "Invalid credentials have been provided");
    let (status, headers, body) =
        raw(service, "POST", &path, &change("wrong", "battery staple").to_string(), &[]).await;
    assert_eq!(((status, body), headers["www-authenticate"].to_str().unwrap()), (wrong.clone(), "Bearer"));
    let nobody = "/users/nobody/change_password";
    assert_eq!(call(service, "POST", nobody, change(PASSWORD, "battery staple")).await, wrong);
    assert!(signs_in(service, "ada@example.com", PASSWORD).await);
    let answer = call(service, "POST", &path, change(PASSWORD, "battery staple")).await;
    assert_eq!(answer, (200, shown(&id, "ada@example.com", false)));
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 0);
    assert!(signs_in(service, "ada@example.com", "battery staple").await);
    assert_eq!(call(service, "POST", &path, change(PASSWORD, "third horse")).await, wrong);
}

async fn a_list_tells_what_it_applied(service: &Service) {
    let mut ids = Vec::new();
    for n in 0..23 {
        let sso =
            CreateRequest { id: format!("id{n:02}"), sso_enabled: true, password: String::new(), ..nth(n) };
        ids.push(create(service, sso).await.id);
    }
    for (query, want, applied) in [
        ("", ids[..20].to_vec(), (20, 0, "ASC")),
        ("?limit=3", ids[..3].to_vec(), (3, 0, "ASC")),
        ("?limit=3&offset=21", ids[21..].to_vec(), (3, 21, "ASC")),
        ("?limit=1000&order_by=id&order_dir=ASC", ids.clone(), (1000, 0, "ASC")),
        ("?limit=2&offset=1&order_dir=DESC", vec![ids[21].clone(), ids[20].clone()], (2, 1, "DESC")),
        ("?offset=5000&unknown=1", vec![], (20, 5000, "ASC")),
    ] {
        let body = get(service, &format!("/users{query}")).await;
        let (limit, offset, dir) = applied;
        let settings = json!({"limit": limit, "offset": offset, "order_by": "id", "order_dir": dir});
        assert_eq!(body["selection_settings"], settings, "{query}");
        let users = body["users"].as_array().unwrap();
        let found: Vec<&str> = users.iter().map(|user| user["id"].as_str().unwrap()).collect();
        assert_eq!(found, want, "{query}");
        assert_eq!(body.as_object().unwrap().len(), 2);
        assert!(users.iter().all(|user| user.as_object().unwrap().len() == 4 && user["deleted"] == false));
    }
}

async fn the_trash_is_listed_and_emptied_one_by_one(service: &Service) {
    assert_eq!(get(service, "/users/trash").await["users"], json!([]));
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(create(service, CreateRequest { id: format!("id{n}"), ..nth(n) }).await.id);
    }
    for id in &ids[..3] {
        delete(service, id).await;
    }
    let body = get(service, "/users/trash?limit=2&offset=1&order_dir=DESC").await;
    let want = [shown("id1", "user1@example.com", true), shown("id0", "user0@example.com", true)];
    assert_eq!(body["users"], json!(want));
    let settings = json!({"limit": 2, "offset": 1, "order_by": "id", "order_dir": "DESC"});
    assert_eq!(body["selection_settings"], settings);
    assert_eq!(get(service, "/users").await["users"], json!([shown("id3", "user3@example.com", false)]));

    let answer = call(service, "PATCH", "/users/trash/id1", Value::Null).await;
    assert_eq!(answer, (200, shown("id1", "user1@example.com", false)));
    assert_eq!(get(service, "/users/id1").await, answer.1);
    assert!(signs_in(service, "user1@example.com", PASSWORD).await);
    let again = call(service, "PATCH", "/users/trash/id1", Value::Null).await;
    assert_eq!(again, failure(404, "no such user"), "it is not in the trash");
    // Its address was taken meanwhile.
    user(service, "user0@example.com").await;
    let answer = call(service, "PATCH", "/users/trash/id0", Value::Null).await;
    assert_eq!(answer, failure(409, "email is taken"));
    assert_eq!(get(service, "/users/trash").await["users"].as_array().unwrap().len(), 2);
}

async fn create_or_restore_brings_back_the_newest_or_makes_a_new_one(service: &Service) {
    let path = "/users/create_or_restore";
    let wanted = |password: &str| json!({"email": "Ada@example.com", "password": password});
    let (status, first) = call(service, "POST", path, wanted(PASSWORD)).await;
    let id = first["id"].as_str().unwrap();
    assert_eq!((status, &first), (201, &shown(id, "ada@example.com", false)));
    let answer = call(service, "POST", path, wanted("battery staple")).await;
    assert_eq!(answer, failure(409, "email is taken"), "of one who is there");
    assert!(signs_in(service, "ada@example.com", PASSWORD).await);
    delete(service, id).await;
    service.clock.advance(std::time::Duration::from_secs(1));
    let second = user(service, "ada@example.com").await;
    delete(service, &second).await;

    let (status, body) = call(service, "POST", path, wanted("battery staple")).await;
    assert_eq!((status, body), (201, shown(&second, "ada@example.com", false)), "the newest");
    assert!(signs_in(service, "ada@example.com", "battery staple").await);
    assert!(!signs_in(service, "ada@example.com", PASSWORD).await);
    delete(service, &second).await;
    let flag = json!({"email": "ada@example.com", "password": PASSWORD, "sso_enabled": true});
    let (status, body) = call(service, "POST", path, flag).await;
    assert_eq!((status, &body["id"], &body["sso_enabled"]), (201, &json!(second), &json!(true)));
}

async fn words_are_not_ids(service: &Service) {
    for id in ["trash", "create_or_restore", "change_password"] {
        let email = format!("{id}@example.com");
        create(service, CreateRequest { id: id.into(), username: id.replace('_', "-"), email, ..ada() })
            .await;
    }
    assert!(get(service, "/users/trash").await["selection_settings"].is_object());
    assert_eq!(call(service, "GET", "/users/create_or_restore", Value::Null).await.0, 405);
    assert_eq!(call(service, "DELETE", "/users/trash", Value::Null).await.0, 405);
    assert_eq!(call(service, "PATCH", "/users/create_or_restore", json!({})).await.0, 405);
    assert_eq!(
        get(service, "/users/change_password").await["id"],
        "change_password",
        "this one is no word alone"
    );
    let (_, body) = call(service, "PATCH", "/users/trash/trash", json!({})).await;
    assert_eq!(body["message"], "no such user", "below the word there are ids");
}

async fn an_unknown_user_is_404_on_every_path(service: &Service) {
    let gone = user(service, "ada@example.com").await;
    delete(service, &gone).await;
    for id in ["nobody", &gone] {
        for (verb, path, body, status) in operations(id).into_iter().filter(|row| !row.1.contains("trash")) {
            let answer = call(service, verb, &path, body).await;
            let message =
                if status == 404 { "no such user" } else { "Invalid credentials have been provided" };
            assert_eq!(answer, failure(status, message), "{verb} {path}");
        }
    }
    assert_eq!(call(service, "PATCH", "/users/trash/nobody", json!({})).await, failure(404, "no such user"));
}

async fn a_taken_email_is_409(service: &Service) {
    user(service, "ada@example.com").await;
    let id = user(service, "b@example.com").await;
    let taken = failure(409, "email is taken");
    let new = json!({"email": "ADA@example.com", "password": PASSWORD});
    for path in ["/users", "/users/create_or_restore"] {
        assert_eq!(call(service, "POST", path, new.clone()).await, taken, "{path}");
    }
    assert_eq!(
        call(service, "PATCH", &format!("/users/{id}"), json!({"email": "ADA@example.com"})).await,
        taken
    );
}

const ADDRESS: &str = "email must be one address like name@example.com, at most 254 bytes";
const LENGTH: &str = "password must have 8 to 128 characters";

async fn every_bad_field_is_named(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let counts = service.counts().await;
    let mut cases = Vec::new();
    for path in ["/users", "/users/create_or_restore"] {
        cases.extend(bad_users().map(|(body, message)| ("POST", path.to_owned(), body, message)));
    }
    cases.extend(bad_changes().map(|(body, message)| ("PATCH", format!("/users/{id}"), body, message)));
    let path = format!("/users/{id}/change_password");
    cases.extend(bad_passwords().map(|(body, message)| ("POST", path.clone(), body, message)));
    for (verb, path, body, message) in cases {
        let answer = call(service, verb, &path, body.clone()).await;
        assert_eq!(answer, failure(400, &message), "{verb} {path} {body}");
    }
    for bad in ["a%20b", "-a", "%FF", "%00", &"x".repeat(65)] {
        for (verb, path, body, _) in operations(bad) {
            let (status, answer) = call(service, verb, &path, body).await;
            let said = answer["message"].as_str().unwrap();
            assert!(
                status == 400 && said.contains("id must be 1 to 64 characters"),
                "{verb} {path}: {answer}"
            );
        }
    }
    assert_eq!(service.counts().await, counts);
}

/// Bodies and what is said of them.
fn bad_users() -> [(Value, String); 5] {
    let both = "email is required; password is required".to_owned();
    let types = "email must be a string; sso_enabled must be a boolean; password is required".to_owned();
    [
        (json!({}), both.clone()),
        (json!({"email": "", "password": null}), both),
        (json!({"email": 1, "sso_enabled": "yes"}), types),
        (json!({"email": "ada", "password": "short"}), format!("{ADDRESS}; {LENGTH}")),
        (json!({"email": "b@example.com", "password": ["x"]}), "password must be a string".to_owned()),
    ]
}

fn bad_changes() -> [(Value, String); 3] {
    let empty = "email must not be empty; password must not be empty".to_owned();
    let types = "email must be a string; sso_enabled must be a boolean".to_owned();
    [
        (json!({"email": "", "password": ""}), empty),
        (json!({"email": 1, "sso_enabled": 0}), types),
        (json!({"email": "ada", "password": "short"}), format!("{ADDRESS}; {LENGTH}")),
    ]
}

fn bad_passwords() -> [(Value, String); 4] {
    let missing = "old_password is required; new_password is required".to_owned();
    [
        (json!({}), missing),
        (json!({"old_password": PASSWORD, "new_password": ""}), "new_password is required".to_owned()),
        (json!({"old_password": 1, "new_password": PASSWORD}), "old_password must be a string".to_owned()),
        (json!({"old_password": PASSWORD, "new_password": "short"}), format!("new_{LENGTH}")),
    ]
}

async fn a_bad_page_is_named(service: &Service) {
    for path in ["/users", "/users/trash"] {
        for (query, message) in [
            ("limit=0", "limit must be 1 to 1000"),
            ("limit=1001", "limit must be 1 to 1000"),
            ("limit=-1", "limit must be 1 to 1000"),
            ("limit=", "limit must be 1 to 1000"),
            ("limit=ten", "limit must be 1 to 1000"),
            ("limit=%FF", "limit must be 1 to 1000"),
            ("offset=-1", "offset must be 0 or more"),
            ("offset=1.5", "offset must be 0 or more"),
            ("order_by=email", "order_by must be id"),
            ("order_dir=asc", "order_dir must be ASC or DESC"),
            (
                "limit=0&offset=x&order_by=&order_dir=",
                "limit must be 1 to 1000; offset must be 0 or more; order_by must be id; order_dir must be ASC or DESC",
            ),
        ] {
            let answer = call(service, "GET", &format!("{path}?{query}"), Value::Null).await;
            assert_eq!(answer, failure(400, message), "{path} {query}");
        }
    }
}

async fn a_body_that_is_no_json_object_is_refused(service: &Service) {
    let json = ("content-type", "application/json");
    for body in ["", "{", "null", "[]", "\"text\"", "{} x"] {
        let (status, _, answer) = raw(service, "POST", "/users", body, &[json]).await;
        let said = answer["message"].as_str().unwrap();
        assert!(status == 400 && said.contains("the body must be a JSON object"), "{body}: {answer}");
    }
    let new = serde_json::json!({"email": "ada@example.com", "password": PASSWORD}).to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let (status, _, answer) = raw(service, "POST", "/users", &new, &[("content-type", kind)]).await;
        assert_eq!((status, answer), failure(415, "the body must be application/json"), "{kind}");
    }
    let long = format!("{{\"email\":\"{}\"}}", "x".repeat(64 * 1024));
    let (status, _, answer) = raw(service, "POST", "/users", &long, &[json]).await;
    assert_eq!((status, answer.as_object().unwrap().len()), (413, 1), "{answer}");
    assert_eq!(service.counts().await, [0; 4]);
    let (status, _, _) = raw(service, "POST", "/users", &new, &[]).await;
    assert_eq!(status, 201, "a body without a type is JSON");
}

async fn get_and_delete_ignore_a_body(service: &Service) {
    let json = [("content-type", "application/json")];
    for body in ["null", "{}", "{not json", ""] {
        let id = user(service, "ada@example.com").await;
        let path = format!("/users/{id}");
        for (verb, path) in [("GET", "/users"), ("GET", &*path), ("DELETE", &path), ("GET", "/users/trash")] {
            let (status, _, answer) = raw(service, verb, path, body, &json).await;
            assert_eq!(status, 200, "{verb} {path} {body}: {answer}");
        }
    }
}

async fn other_verbs_are_405_with_allow(service: &Service) {
    for (path, verb, allow) in [
        ("/users", "DELETE", "GET, POST, HEAD, OPTIONS"),
        ("/users/7", "POST", "DELETE, GET, PATCH, HEAD, OPTIONS"),
        ("/users/7", "PUT", "DELETE, GET, PATCH, HEAD, OPTIONS"),
        ("/users/7/change_password", "GET", "POST, OPTIONS"),
        ("/users/7/change_password", "HEAD", "POST, OPTIONS"),
        ("/users/create_or_restore", "PATCH", "POST, OPTIONS"),
        ("/users/trash", "POST", "GET, HEAD, OPTIONS"),
        ("/users/trash/7", "GET", "PATCH, OPTIONS"),
    ] {
        let (status, headers, _) = raw(service, verb, path, "{}", &[]).await;
        assert_eq!((status, headers["allow"].to_str().unwrap()), (405, allow), "{verb} {path}");
        let (status, headers, body) = raw(service, "OPTIONS", path, "", &[]).await;
        assert_eq!((status, headers["allow"].to_str().unwrap(), body), (204, allow, Value::Null), "{path}");
    }
    for path in [
        "/",
        "/users/",
        "/users/7/",
        "/users/7/nothing",
        "/trash",
        "/users/trash/7/8",
        "/users//change_password",
    ] {
        let (status, _, answer) = raw(service, "GET", path, "", &[]).await;
        assert_eq!((status, answer), failure(404, "not found"), "{path}");
    }
    let id = user(service, "ada@example.com").await;
    let (status, headers, body) = raw(service, "HEAD", &format!("/users/{id}"), "", &[]).await;
    assert_eq!(
        (status, &headers["content-type"], body),
        (200, &"application/json".parse().unwrap(), Value::Null)
    );
}

async fn errors_are_a_message_alone(service: &Service) {
    let origin = ("origin", "https://evil.example");
    for (verb, path, headers, want) in [
        ("GET", "/users/nobody", vec![], 404),
        ("GET", "/nothing", vec![], 404),
        ("GET", "/users?limit=0", vec![], 400),
        ("GET", "/users", vec![("usersd-namespace", "No")], 400),
        ("GET", "/users", vec![("usersd-namespace", "a"), ("micro-namespace", "b")], 403),
        ("GET", "/users", vec![origin], 403),
        ("POST", "/users/nobody", vec![], 405),
    ] {
        let (status, headers, body) = raw(service, verb, path, "", &headers).await;
        assert_eq!(status, want, "{verb} {path}: {body}");
        let members: Vec<_> = body.as_object().unwrap().iter().collect();
        assert!(
            matches!(&members[..], [(name, Value::String(text))] if *name == "message" && !text.is_empty())
        );
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["cache-control"], "no-store");
    }
}

async fn single_sign_on_needs_no_password(service: &Service) {
    for (path, email) in [("/users", "ada@example.com"), ("/users/create_or_restore", "b@example.com")] {
        let new = json!({"email": email, "sso_enabled": true});
        let (status, body) = call(service, "POST", path, new).await;
        assert_eq!((status, &body["sso_enabled"]), (201, &json!(true)), "{path}: {body}");
        assert!(!signs_in(service, email, "").await);
    }
}

async fn its_token_header_does_not_matter_yet(service: &Service) {
    let id = user(service, "ada@example.com").await;
    for token in ["1234567890abcdef", "", "Bearer x"] {
        let (status, _, _) =
            raw(service, "GET", &format!("/users/{id}"), "", &[("x-access-token", token)]).await;
        assert_eq!(status, 200, "{token:?}");
    }
}

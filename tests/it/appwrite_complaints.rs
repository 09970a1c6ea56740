//! What people complained about in the Users API of Appwrite, by the numbers of the issues, each with the
//! better way.

use std::time::Duration;

use serde_json::json;
use usersd::pb::{CreateRequest, LoginRequest, RestoreRequest};

use crate::appwrite::{call, failure, get, operations, raw, send, user};
use crate::support::{PASSWORD, START, Service, ada, create, login, nth};

crate::on_every_backend!(
    search_takes_an_at_sign_as_it_is,
    search_of_an_address_finds_that_user_alone,
    search_sees_a_changed_name_and_email_at_once,
    search_has_no_stop_words,
    search_takes_an_underscore_as_it_is,
    search_finds_any_part_and_short_words,
    offsets_and_sums_have_no_maximum,
    page_two_follows_page_one,
    one_address_makes_one_user_however_many_ask_at_once,
    an_address_that_was_given_up_is_free,
    the_address_of_a_deleted_user_is_free,
    prefs_are_merged,
    prefs_are_replaced_where_the_operator_says_so,
    an_empty_object_stays_one,
    a_duplicate_is_called_one,
    what_happened_is_listed,
    logs_of_a_user_without_any_are_not_404,
    an_empty_password_is_no_password,
    a_blocked_user_gets_no_session,
    blocking_ends_every_session,
    nothing_of_a_deleted_user_is_left_over,
);

/// The e-mail addresses that a search finds, sorted: users of one moment come in no order that a test knows.
async fn found(service: &Service, search: &str) -> Vec<String> {
    let body = get(service, &format!("/users?search={search}")).await;
    let users = body["users"].as_array().unwrap();
    assert_eq!(body["sum"], users.len());
    let mut found: Vec<_> = users.iter().map(|user| user["email"].as_str().unwrap().to_owned()).collect();
    found.sort();
    found
}

/// (Issues 2394 and 2496)
async fn search_takes_an_at_sign_as_it_is(service: &Service) {
    user(service, "ada@example.com").await;
    user(service, "bob@example.org").await;
    assert_eq!(found(service, "ada@example.com").await, ["ada@example.com"]);
    assert_eq!(found(service, "%40example.org").await, ["bob@example.org"]);
    assert_eq!(found(service, "@example").await, ["ada@example.com", "bob@example.org"]);
    // No character is an operator.
    for search in ["%2Bada+-bob", "(ada)", "%22ada%22", "~ada", "ada*", "%3Cada%3E", "%25", "%5C", "'", "@@@"]
    {
        assert_eq!(found(service, search).await, [""; 0], "{search}");
    }
}

/// (Issues 3173 and 2834)
async fn search_of_an_address_finds_that_user_alone(service: &Service) {
    for n in 0..5 {
        user(service, &format!("user{n}@example.com")).await;
    }
    assert_eq!(found(service, "user3@example.com").await, ["user3@example.com"]);
    assert_eq!(found(service, "USER3@EXAMPLE.COM").await, ["user3@example.com"]);
    assert_eq!(found(service, "nobody@example.com").await, [""; 0]);
}

/// (Issue 2974)
async fn search_sees_a_changed_name_and_email_at_once(service: &Service) {
    let id = user(service, "ada@example.com").await;
    call(service, "PATCH", &format!("/users/{id}/name"), json!({"name": "Augusta King"})).await;
    assert_eq!(found(service, "augusta").await, ["ada@example.com"]);
    call(service, "PATCH", &format!("/users/{id}/email"), json!({"email": "countess@example.org"})).await;
    assert_eq!(found(service, "countess").await, ["countess@example.org"]);
    assert_eq!(found(service, "ada@").await, [""; 0]);
    call(service, "PATCH", &format!("/users/{id}/name"), json!({"name": "Ada"})).await;
    assert_eq!(found(service, "augusta").await, [""; 0]);
    call(service, "DELETE", &format!("/users/{id}"), json!({})).await;
    assert_eq!(found(service, "countess").await, [""; 0]);
}

/// (Issue 4623)
async fn search_has_no_stop_words(service: &Service) {
    user(service, "www@example.org").await;
    user(service, "ada@what.com").await;
    assert_eq!(found(service, "www").await, ["www@example.org"]);
    assert_eq!(found(service, "com").await, ["ada@what.com"]);
    assert_eq!(found(service, "what").await, ["ada@what.com"]);
}

/// (Issue 5546)
async fn search_takes_an_underscore_as_it_is(service: &Service) {
    user(service, "ada_lovelace@example.com").await;
    user(service, "adaxlovelace@example.com").await;
    for search in ["ada_lovelace@example.com", "a_l", "_love"] {
        assert_eq!(found(service, search).await, ["ada_lovelace@example.com"], "{search}");
    }
}

/// (Issues 3319 and 5001)
async fn search_finds_any_part_and_short_words(service: &Service) {
    let new = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Xi Wallenstein 数学者"});
    call(service, "POST", "/users", new).await;
    for search in
        ["allen", "stein", "xi", "x", "xi+w", "da%40ex", "%E5%AD%A6%E8%80%85", "%E6%95%B0%E5%AD%A6%E8%80%85"]
    {
        let want: &[&str] = if search == "%E5%AD%A6%E8%80%85" { &[] } else { &["ada@example.com"] };
        assert_eq!(found(service, search).await, want, "{search}");
    }
}

/// (Issues 2494, 5864 and 5105)
async fn offsets_and_sums_have_no_maximum(service: &Service) {
    const MANY: i64 = 10_020;
    let numbers = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {MANY})"
    );
    service
        .execute(&format!(
            "INSERT INTO users (namespace, id, generation, version, username, email, email_verified, name, status, \
             sso_enabled, password_hash, password_updated, prefs, labels, metadata, created, updated, deleted, \
             id_folded, name_folded) {numbers} SELECT 'default', 'id' || n, n, 1, '', 'mail' || n || '@example.com', \
             (n < 0), '', 2, (n > 0), '', 0, '{{}}', '[]', '{{}}', {START}000000 + n, {START}000000 + n, 0, \
             'id' || n, '' FROM numbers"
        ))
        .await;
    for (query, first, count) in [
        ("limit=100", 1, 100),
        ("limit=100&offset=2000", 2001, 100),
        ("limit=100&offset=5001", 5002, 100),
        ("limit=100&offset=10000", 10_001, 20),
        ("limit=10&offset=10000&orderType=DESC", 20, 10),
        ("limit=10&offset=9223372036854775807", 0, 0),
    ] {
        let body = get(service, &format!("/users?{query}")).await;
        assert_eq!(body["sum"], MANY, "{query}");
        assert_eq!(body["users"].as_array().unwrap().len(), count, "{query}");
        if count > 0 {
            assert_eq!(body["users"][0]["$id"], format!("id{first}"), "{query}");
        }
    }
}

/// (Issue 6178)
async fn page_two_follows_page_one(service: &Service) {
    let mut want = Vec::new();
    for n in 0..25 {
        // All in the same second.
        want.push(
            create(service, CreateRequest { password: String::new(), sso_enabled: true, ..nth(n) }).await.id,
        );
    }
    want.sort();
    for order in ["ASC", "DESC"] {
        let mut seen = Vec::new();
        for page in 0..3 {
            let body = get(service, &format!("/users?limit=10&offset={}&orderType={order}", page * 10)).await;
            assert_eq!(body["sum"], 25);
            let ids = body["users"].as_array().unwrap().iter();
            seen.extend(ids.map(|user| user["$id"].as_str().unwrap().to_owned()));
        }
        assert_eq!(seen, want, "{order}");
        want.reverse();
    }
}

/// (Issue 301)
async fn one_address_makes_one_user_however_many_ask_at_once(service: &Service) {
    let new = json!({"email": "ada@example.com", "password": PASSWORD});
    let all = (0..12).map(|_| call(service, "POST", "/users", new.clone()));
    let mut answers = futures_util::future::join_all(all).await;
    answers.sort_by_key(|(status, _)| *status);
    assert_eq!(answers[0].0, 201);
    for answer in &answers[1..] {
        assert_eq!(*answer, failure(409, "User already registered"));
    }
    assert_eq!(get(service, "/users").await["sum"], 1);
    // The same for a change.
    let ids = [user(service, "b@example.com").await, user(service, "c@example.com").await];
    let all = ids.iter().map(async |id| {
        call(service, "PATCH", &format!("/users/{id}/email"), json!({"email": "d@example.com"})).await
    });
    let mut answers = futures_util::future::join_all(all).await;
    answers.sort_by_key(|(status, _)| *status);
    assert_eq!(answers[0].0, 200);
    assert_eq!(answers[1], failure(400, "User already registered"));
}

/// (Issues 1295 and 1104)
async fn an_address_that_was_given_up_is_free(service: &Service) {
    let first = user(service, "ada@example.com").await;
    let change = |email: &str| json!({ "email": email });
    let (status, _) = call(service, "PATCH", &format!("/users/{first}/email"), change("b@example.com")).await;
    assert_eq!(status, 200);
    let second = user(service, "ada@example.com").await;
    // And back, after the other one let go of it.
    call(service, "PATCH", &format!("/users/{second}/email"), change("c@example.com")).await;
    let (status, body) =
        call(service, "PATCH", &format!("/users/{first}/email"), change("ada@example.com")).await;
    assert_eq!((status, &body["email"]), (200, &json!("ada@example.com")));
}

/// (Issues 744, 2411, 3013, 3109 and 5490)
async fn the_address_of_a_deleted_user_is_free(service: &Service) {
    for _ in 0..3 {
        let id = user(service, "ada@example.com").await;
        assert_eq!(call(service, "DELETE", &format!("/users/{id}"), json!({})).await.0, 204);
    }
    let other = user(service, "b@example.com").await;
    let (status, _) =
        call(service, "PATCH", &format!("/users/{other}/email"), json!({"email": "ada@example.com"})).await;
    assert_eq!(status, 200);
}

/// (Issue 2424)
async fn prefs_are_merged(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let path = format!("/users/{id}/prefs");
    let steps = [
        (json!({"theme": "dark", "size": {"w": 1}}), json!({"theme": "dark", "size": {"w": 1}})),
        (json!({"lang": "de"}), json!({"theme": "dark", "size": {"w": 1}, "lang": "de"})),
        (json!({"size": {"h": 2}}), json!({"theme": "dark", "size": {"h": 2}, "lang": "de"})),
        (json!({"theme": null}), json!({"size": {"h": 2}, "lang": "de"})),
        (json!({}), json!({"size": {"h": 2}, "lang": "de"})),
        (json!([]), json!({"size": {"h": 2}, "lang": "de"})),
    ];
    for (prefs, want) in steps {
        let answer = call(service, "PATCH", &path, json!({ "prefs": prefs })).await;
        assert_eq!(answer, (200, want.clone()), "{prefs}");
        assert_eq!(get(service, &path).await, want, "{prefs}");
    }
}

async fn prefs_are_replaced_where_the_operator_says_so(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let path = format!("/users/{id}/prefs");
    let replacing = |config: &mut usersd::config::Config| {
        config.appwrite.prefs = usersd::config::AppwritePrefs::Replace;
    };
    let (old, other) =
        (service.another(replacing).await, service.another(|config| config.cache.memory = 0).await);
    for prefs in [json!({"theme": "dark"}), json!({"lang": "de", "size": {}}), json!({})] {
        let answer = send(&old, "default", "PATCH", &path, json!({ "prefs": prefs })).await;
        assert_eq!(answer, (200, prefs.clone()));
        assert_eq!(send(&other, "default", "GET", &path, json!({})).await, (200, prefs));
    }
}

/// (Issues 4628 and 6360)
async fn an_empty_object_stays_one(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let path = format!("/users/{id}/prefs");
    let prefs = json!({"a": {}, "b": {"c": {}}, "d": [], "e": [{}]});
    let (status, body) = call(service, "PATCH", &path, json!({ "prefs": prefs })).await;
    assert_eq!((status, body), (200, prefs.clone()));
    assert_eq!(get(service, &format!("/users/{id}")).await["prefs"], prefs);
    let other = user(service, "b@example.com").await;
    assert_eq!(
        call(service, "PATCH", &format!("/users/{other}/prefs"), json!({"prefs": {}})).await,
        (200, json!({}))
    );
    let (_, _, body) = raw(
        &service.replica,
        "GET",
        &format!("/users/{other}"),
        "",
        &[("x-appwrite-project", "default"), ("x-appwrite-response-format", "0.9.0")],
    )
    .await;
    assert_eq!(body["prefs"], json!({}));
}

/// (Issue 6041)
async fn a_duplicate_is_called_one(service: &Service) {
    let taken = failure(409, "User already registered");
    let new = json!({"email": "ada@example.com", "password": PASSWORD});
    let id = user(service, "ada@example.com").await;
    assert_eq!(call(service, "POST", "/users", new.clone()).await, taken);
    // Whatever else is about the other one.
    call(service, "PATCH", &format!("/users/{id}/status"), json!({"status": 2})).await;
    assert_eq!(call(service, "POST", "/users", new).await, taken);
}

/// (Issues 7109, 7174 and 7559)
async fn what_happened_is_listed(service: &Service) {
    let id = create(service, ada()).await.id;
    login(service, "ada").await;
    call(service, "PATCH", &format!("/users/{id}/prefs"), json!({"prefs": {"a": 1}})).await;
    let logs = get(service, &format!("/users/{id}/logs")).await["logs"].clone();
    let events: Vec<&str> =
        logs.as_array().unwrap().iter().map(|log| log["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["account.update.prefs", "account.sessions.create", "account.create"]);
}

/// (Issue 12768)
async fn logs_of_a_user_without_any_are_not_404(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let path = format!("/users/{id}/logs");
    service.execute("DELETE FROM events").await;
    assert_eq!(get(service, &path).await, json!({"logs": []}));
}

/// (Issue 12797)
async fn an_empty_password_is_no_password(service: &Service) {
    let id = user(service, "ada@example.com").await;
    let counts = service.counts().await;
    let missing = failure(400, "Param \"password\" is not optional.");
    for password in [json!(""), json!(null)] {
        let new = json!({"email": "b@example.com", "password": password});
        assert_eq!(call(service, "POST", "/users", new).await, missing);
        let change = json!({ "password": password });
        assert_eq!(call(service, "PATCH", &format!("/users/{id}/password"), change).await, missing);
    }
    assert_eq!(service.counts().await, counts);
    let attempt = LoginRequest { email: "ada@example.com".into(), ..Default::default() };
    service.users().login(attempt).await.unwrap_err();
}

/// (Issue 12797)
async fn a_blocked_user_gets_no_session(service: &Service) {
    let id = create(service, ada()).await.id;
    call(service, "PATCH", &format!("/users/{id}/status"), json!({"status": 2})).await;
    let attempt =
        LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    service.users().login(attempt).await.unwrap_err();
    assert_eq!(get(service, &format!("/users/{id}/sessions")).await["sum"], 0);
}

/// (Issues 4637 and 6061)
async fn blocking_ends_every_session(service: &Service) {
    let id = create(service, ada()).await.id;
    let sessions = [login(service, "ada").await, login(service, "ada").await];
    let path = format!("/users/{id}");
    call(service, "PATCH", &format!("{path}/status"), json!({"status": 2})).await;
    assert_eq!(get(service, &format!("{path}/sessions")).await, json!({"sum": 0, "sessions": []}));
    call(service, "PATCH", &format!("{path}/status"), json!({"status": 1})).await;
    assert_eq!(get(service, &format!("{path}/sessions")).await["sum"], 0, "they stay ended");
    for session in sessions {
        let request = usersd::pb::ReadSessionRequest { session_id: session.id, max_age: None };
        service.users().read_session(request).await.unwrap_err();
    }
    login(service, "ada").await;
    assert_eq!(get(service, &format!("{path}/sessions")).await["sum"], 1, "and do not stand in the way");
}

/// (Issue 9110)
async fn nothing_of_a_deleted_user_is_left_over(service: &Service) {
    let id = create(service, ada()).await.id;
    login(service, "ada").await;
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(call(service, "DELETE", &format!("/users/{id}"), json!({})).await.0, 204);
    for (verb, path, body) in operations(&id, "x") {
        assert_eq!(call(service, verb, &path, body).await, failure(404, "User not found"), "{verb} {path}");
    }
    for search in ["", "ada", &id] {
        assert_eq!(get(service, &format!("/users?search={search}")).await, json!({"sum": 0, "users": []}));
    }
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 0);
    // One who comes back was deleted before.
    service.users().restore(RestoreRequest { id: id.clone(), ..Default::default() }).await.unwrap();
    let logs = get(service, &format!("/users/{id}/logs")).await;
    assert_eq!(logs["logs"][0]["event"], "account.delete");
    assert_eq!(logs["logs"][0]["time"], START + 1);
}

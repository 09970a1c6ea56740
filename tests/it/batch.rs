//! Many users by id.

use std::collections::BTreeMap;

use prost::Message as _;
use serde_json::json;
use usersd::pb::{BatchReadRequest, BatchReadResponse, CreateRequest, User};

use crate::steps::{RIVAL, delete, preferring, read, restore};
use crate::support::{Service, ada, create, fields, from, nth};

crate::on_every_backend!(
    another_namespace_sees_nothing,
    users_come_in_the_order_of_the_request,
    users_in_the_trash_are_missing,
    at_most_a_thousand_ids_are_read,
    every_bad_id_is_named_by_its_index,
    a_reply_stays_under_3_mib_and_says_what_is_left,
    long_prefs_fit_a_few_at_a_time,
    it_has_its_path,
);

fn batch(ids: impl IntoIterator<Item = impl Into<String>>) -> BatchReadRequest {
    BatchReadRequest { ids: ids.into_iter().map(Into::into).collect(), include_prefs: false }
}

async fn read_all(service: &Service, request: BatchReadRequest) -> BatchReadResponse {
    service.users().batch_read(request).await.unwrap().into_inner()
}

fn named(users: &[User]) -> Vec<&str> {
    users.iter().map(|user| user.id.as_str()).collect()
}

async fn sso(service: &Service, id: &str, n: usize) -> User {
    let request = CreateRequest { id: id.into(), sso_enabled: true, password: String::new(), ..nth(n) };
    create(service, request).await
}

async fn another_namespace_sees_nothing(service: &Service) {
    let mut users = service.users();
    create(service, CreateRequest { id: "twin".into(), ..ada() }).await;
    sso(service, "mine", 1).await;
    let theirs = CreateRequest { id: "twin".into(), name: "theirs".into(), ..ada() };
    let theirs = users.create(from(RIVAL, theirs)).await.unwrap().into_inner().user.unwrap();
    let before = service.counts().await;
    let reply = users.batch_read(from(RIVAL, batch(["mine", "twin", "nobody"]))).await.unwrap().into_inner();
    assert_eq!(reply.users, [User { prefs: None, ..theirs }]);
    assert_eq!((reply.missing, reply.unread.len()), (vec!["mine".to_owned(), "nobody".to_owned()], 0));
    assert_eq!(service.counts().await, before);
}

async fn users_come_in_the_order_of_the_request(service: &Service) {
    for (n, id) in ["b", "a", "C", "c"].into_iter().enumerate() {
        sso(service, id, n).await;
    }
    let reply = read_all(service, batch(["c", "x", "a", "c", "y", "C", "x", "b", "a"])).await;
    assert_eq!(named(&reply.users), ["c", "a", "C", "b"]);
    assert_eq!((reply.missing, reply.unread.len()), (vec!["x".to_owned(), "y".to_owned()], 0));
    for user in reply.users {
        assert_eq!(user, User { prefs: None, ..read(service, &user.id).await });
    }
    assert_eq!(read_all(service, batch([""; 0])).await, BatchReadResponse::default());
}

async fn users_in_the_trash_are_missing(service: &Service) {
    sso(service, "a", 1).await;
    sso(service, "b", 2).await;
    delete(service, "a").await;
    let reply = read_all(service, batch(["a", "b"])).await;
    assert_eq!((named(&reply.users), reply.missing), (vec!["b"], vec!["a".to_owned()]));
    restore(service, "a").await;
    assert_eq!(named(&read_all(service, batch(["a", "b"])).await.users), ["a", "b"]);
}

async fn at_most_a_thousand_ids_are_read(service: &Service) {
    sso(service, "user0007", 7).await;
    let ids = |count: usize| batch((0..count).map(|n| format!("user{n:04}")));
    let reply = read_all(service, ids(1000)).await;
    assert_eq!((named(&reply.users), reply.missing.len()), (vec!["user0007"], 999));
    assert_eq!(reply.missing[7], "user0008");
    assert_eq!(fields(&service.users().batch_read(ids(1001)).await.unwrap_err()), ["ids"]);
    // So many are too many, also of the same.
    let same = batch(["user0007"; 1001]);
    assert_eq!(fields(&service.users().batch_read(same).await.unwrap_err()), ["ids"]);
    let reply = read_all(service, batch(["user0007"; 1000])).await;
    assert_eq!((reply.users.len(), reply.missing.len()), (1, 0));
}

async fn every_bad_id_is_named_by_its_index(service: &Service) {
    sso(service, "a", 1).await;
    let long = "x".repeat(65);
    let bad = batch(["a", "", "a", "no id", "b", &long, "\0"]);
    let status = service.users().batch_read(bad).await.unwrap_err();
    assert_eq!(fields(&status), ["ids[1]", "ids[3]", "ids[5]", "ids[6]"]);
}

/// As large as a reply gets: users of the greatest length, and beside them the longest ids.
async fn a_reply_stays_under_3_mib_and_says_what_is_left(service: &Service) {
    let mut wide = service.another(|config| config.http.max_body = 1024 * 1024).await;
    let metadata = BTreeMap::from([("k".to_owned(), "v".repeat(16 * 1024 - 1))]);
    let label = "x".repeat(61);
    let id = |n: usize| format!("{n:064}");
    for n in 0..200 {
        let user = CreateRequest {
            id: id(n),
            username: id(n),
            email: format!("{}@{label}.{label}.{label}.com", id(n)),
            name: "😀".repeat(128),
            metadata: metadata.clone(),
            sso_enabled: true,
            ..CreateRequest::default()
        };
        wide.users.create(user).await.unwrap();
    }
    service.execute("UPDATE users SET email_verified = true, password_updated = updated").await;
    let mut ids: Vec<String> = (0..1000).map(id).collect();
    ids.rotate_left(100);
    let reply = wide.users.batch_read(batch(ids.clone())).await.unwrap().into_inner();
    assert!(reply.encoded_len() < 3 * 1024 * 1024, "{}", reply.encoded_len());
    eprintln!("LEN {} {}", reply.encoded_len(), 3 * 1024 * 1024);
    assert!(reply.users.len() > 150, "{}", reply.users.len());
    assert_eq!(reply.missing, ids[100..900]);
    ids.drain(100..900);
    assert_eq!(named(&reply.users), ids[..reply.users.len()]);
    assert_eq!(reply.unread, ids[reply.users.len()..]);
    let rest = wide.users.batch_read(batch(reply.unread.clone())).await.unwrap().into_inner();
    assert_eq!(
        (named(&rest.users), rest.unread.len()),
        (reply.unread.iter().map(String::as_str).collect(), 0)
    );
}

async fn long_prefs_fit_a_few_at_a_time(service: &Service) {
    let mut wide = service.another(|config| config.http.max_body = 1024 * 1024).await;
    let ids: Vec<String> = (0..8).map(|n| format!("user{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        sso(service, id, n).await;
        // As a message these are many times as long as their text.
        let prefs = preferring(id, &json!({"a": vec![1; 32_000]}));
        wide.users.update_prefs(prefs).await.unwrap();
    }
    let (mut left, mut seen) = (ids.clone(), Vec::new());
    while !left.is_empty() {
        let reply = read_all(service, BatchReadRequest { include_prefs: true, ..batch(left) }).await;
        assert!(reply.encoded_len() < 3 * 1024 * 1024 && !reply.users.is_empty(), "{}", reply.encoded_len());
        seen.extend(reply.users.into_iter().map(|user| user.id));
        left = reply.unread;
    }
    assert_eq!(seen, ids);
}

async fn it_has_its_path(service: &Service) {
    sso(service, "a", 1).await;
    let body = json!({"ids": ["b", "a"], "includePrefs": true}).to_string();
    let (status, body) = service.replica.json(http::Method::POST, "/v1/users:batchRead", &body).await;
    assert_eq!(status, http::StatusCode::OK, "{body}");
    assert_eq!((&body["users"][0]["id"], &body["users"][0]["prefs"]), (&json!("a"), &json!({})));
    assert_eq!((&body["missing"], &body["unread"]), (&json!(["b"]), &json!([])));
}

//! Calls with an idempotency key: however often and wherever they are made, they make one change.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use usersd::domain::scope::Scopes;
use usersd::pb::users_client::UsersClient;
use usersd::pb::{CreateOrRestoreRequest, CreateRequest, LogEvent, UpdateRequest, User};

use crate::process::Process;
use crate::steps::{RIVAL, delete, deletion, events, happened, purging, read, restore, try_login};
use crate::support::{
    PASSWORD, Service, ada, assert_refused, create, during_the_hash, fields, from, nth, reason, until,
};

crate::on_every_backend!(
    in_two_namespaces_a_key_stands_for_two_changes,
    a_repeat_answers_with_the_user_as_it_is_now,
    a_repeat_on_another_replica_and_over_json_changes_nothing,
    of_many_calls_at_a_time_one_creates_the_user,
    one_that_runs_beside_the_first_is_aborted,
    a_key_stands_for_one_message,
    a_password_is_neither_compared_nor_set_nor_hashed_by_a_repeat,
    a_user_who_was_deleted_is_not_created_again,
    a_failed_call_leaves_its_key_free,
    a_repeat_restores_nobody_else,
    a_repeat_needs_the_scope_of_the_first_call,
    keys_are_known_for_a_day,
    bad_keys_are_named_beside_all_other_fields,
    a_call_that_was_cut_off_is_completed_by_its_repeat,
);

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

/// Creates Ada, by a key.
fn keyed() -> CreateRequest {
    CreateRequest { idempotency_key: KEY.into(), ..ada() }
}

/// Brings Ada back, or creates her, by a key.
fn again() -> CreateOrRestoreRequest {
    CreateOrRestoreRequest {
        email: "ada@example.com".into(),
        password: "another horse".into(),
        idempotency_key: KEY.into(),
        ..CreateOrRestoreRequest::default()
    }
}

/// A message whose key is in the metadata.
fn with_metadata<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("idempotency-key", KEY.parse().unwrap());
    request
}

async fn rows(service: &Service) -> i64 {
    service.number("SELECT count(*) FROM idempotency_keys").await
}

async fn in_two_namespaces_a_key_stands_for_two_changes(service: &Service) {
    let ours = create(service, keyed()).await;
    let request = CreateRequest { username: "other".into(), ..keyed() };
    let theirs = service.users().create(from(RIVAL, request.clone())).await.unwrap().into_inner();
    let theirs = theirs.user.unwrap();
    assert!(theirs.id != ours.id && theirs.username == "other");
    let repeat = service.users().create(from(RIVAL, request)).await.unwrap().into_inner();
    assert_eq!(repeat.user.unwrap(), theirs);
    assert_eq!(create(service, keyed()).await, ours);
    service.users().delete(from(RIVAL, deletion(&theirs.id))).await.unwrap();
    assert_eq!(create(service, keyed()).await, ours);
    assert_eq!(service.number("SELECT count(*) FROM users").await, 2);
}

async fn a_repeat_answers_with_the_user_as_it_is_now(service: &Service) {
    let first = create(service, keyed()).await;
    assert_eq!(create(service, keyed()).await, first);
    service.clock.advance(Duration::from_mins(1));
    let rename = UpdateRequest {
        id: first.id.clone(),
        username: Some("countess".into()),
        name: Some("Countess".into()),
        ..UpdateRequest::default()
    };
    let renamed = service.users().update(rename).await.unwrap().into_inner().user.unwrap();
    // The name is free again, and still nobody else is created.
    let before = service.counts().await;
    assert_eq!(create(service, keyed()).await, renamed);
    assert_eq!(service.counts().await, before);
    assert_eq!(events(service, &first.id).await, [LogEvent::UserUpdated, LogEvent::UserCreated]);
}

async fn a_repeat_on_another_replica_and_over_json_changes_nothing(service: &Service) {
    let mut other = service.another(|_| {}).await;
    let first = create(service, keyed()).await;
    assert_eq!(other.users.create(with_metadata(ada())).await.unwrap().into_inner().user.unwrap(), first);

    let body = json!({"username": "ada", "email": "ada@example.com", "password": PASSWORD});
    let keyed =
        json!({"username": "ada", "email": "ada@example.com", "password": PASSWORD, "idempotencyKey": KEY});
    let quoted = format!("\"{KEY}\"");
    let type_of = ("content-type", "application/json");
    for (body, headers) in [
        (&body, vec![type_of, ("idempotency-key", KEY)]),
        (&body, vec![type_of, ("Idempotency-Key", quoted.as_str())]),
        (&keyed, vec![type_of]),
        (&keyed, vec![type_of, ("idempotency-key", KEY)]),
    ] {
        let (status, head, answer) =
            other.request(Method::POST, "/v1/users", body.to_string(), &headers).await;
        assert_eq!((status, &answer["user"]["id"]), (StatusCode::OK, &json!(first.id)), "{answer}");
        assert_eq!(head["etag"], first.etag.as_str());
    }
    // One who takes it for metadata of a gateway is told, and not ignored.
    let headers = [type_of, ("grpc-metadata-idempotency-key", KEY)];
    let (status, _, answer) = other.request(Method::POST, "/v1/users", body.to_string(), &headers).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert_eq!((rows(service).await, service.counts().await), (1, [1, 0, 1, 1]));
}

/// Calls until the call that is in progress has ended.
async fn insist(mut users: UsersClient<Channel>, request: CreateRequest) -> (User, u32) {
    let mut aborted = 0;
    loop {
        match users.create(request.clone()).await {
            Ok(reply) => return (reply.into_inner().user.unwrap(), aborted),
            Err(status) => assert_refused(&status, Code::Aborted, "IDEMPOTENCY_KEY_IN_USE"),
        }
        aborted += 1;
        tokio::task::yield_now().await;
    }
}

async fn of_many_calls_at_a_time_one_creates_the_user(service: &Service) {
    let other = service.another(|_| {}).await;
    // Without a name that could be taken: only the key keeps them from creating many.
    let request = |n: usize| CreateRequest { idempotency_key: format!("key-{}", n % 2), ..nth(n % 2) };
    let calls = (0..64).map(|n| {
        let users = if n % 4 < 2 { service.users() } else { other.users.clone() };
        tokio::spawn(insist(users, request(n)))
    });
    let mut ids = [const { Vec::new() }; 2];
    for (n, done) in join_all(calls.collect::<Vec<_>>()).await.into_iter().enumerate() {
        ids[n % 2].push(done.unwrap().0.id);
    }
    for ids in &mut ids {
        ids.dedup();
    }
    assert_eq!(ids.each_ref().map(Vec::len), [1, 1], "{ids:?}");
    assert_eq!((rows(service).await, service.counts().await), (2, [2, 0, 2, 2]));
}

async fn one_that_runs_beside_the_first_is_aborted(service: &Service) {
    let mut users = service.users();
    let first = async move {
        let created = users.create(keyed()).await?.into_inner();
        Err(Status::aborted(created.user.unwrap().id))
    };
    let mut other = service.another(|_| {}).await;
    let beside = async {
        let status = service.users().create(keyed()).await.unwrap_err();
        assert_refused(&status, Code::Aborted, "IDEMPOTENCY_KEY_IN_USE");
        let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(wait, Some(Duration::from_secs(1)));
        // On another replica it is made, and the first one finds it so.
        other.users.create(keyed()).await.unwrap();
        // Other keys and no key are not in its way.
        let free = CreateRequest { idempotency_key: "another".into(), sso_enabled: true, ..nth(1) };
        create(service, CreateRequest { password: String::new(), ..free }).await;
    };
    let id = during_the_hash(service, first, beside).await;
    assert_eq!(read(service, id.message()).await.username, "ada");
    assert_eq!(service.counts().await, [2, 0, 2, 2]);
}

async fn a_key_stands_for_one_message(service: &Service) {
    let first = CreateRequest {
        metadata: [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into(),
        labels: vec!["x".into(), "y".into()],
        ..keyed()
    };
    let user = create(service, first.clone()).await;
    let before = service.counts().await;
    let others = [
        CreateRequest { username: "ADA".into(), ..first.clone() },
        CreateRequest { id: user.id.clone(), ..first.clone() },
        CreateRequest { labels: vec!["y".into(), "x".into()], ..first.clone() },
        CreateRequest { metadata: [("a".to_owned(), "1".to_owned())].into(), ..first.clone() },
        CreateRequest { sso_enabled: true, ..first.clone() },
        CreateRequest { sso_enabled: true, password: String::new(), ..first.clone() },
    ];
    for other in others {
        let status = service.users().create(other.clone()).await.unwrap_err();
        assert_refused(&status, Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED");
    }
    let status = service.users().create_or_restore(again()).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(service.counts().await, before);
    assert_eq!(create(service, first).await, user);
}

async fn a_password_is_neither_compared_nor_set_nor_hashed_by_a_repeat(service: &Service) {
    let first = create(service, keyed()).await;
    let hashed = service.replica.hasher.work().taken_on;
    let repeat = CreateRequest { password: "another horse".into(), ..keyed() };
    assert_eq!(create(service, repeat).await, first);
    assert_eq!(service.replica.hasher.work().taken_on, hashed);
    let status = try_login(service, "ada", "another horse").await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    try_login(service, "ada", PASSWORD).await.unwrap();
}

async fn a_user_who_was_deleted_is_not_created_again(service: &Service) {
    let gone = |status: Status| assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
    let request = CreateRequest { id: "ada".into(), ..keyed() };
    let first = create(service, request.clone()).await;
    delete(service, "ada").await;
    gone(service.users().create(request.clone()).await.unwrap_err());
    let restored = restore(service, "ada").await;
    assert_eq!(create(service, request.clone()).await, restored);
    delete(service, "ada").await;
    service.users().purge(purging("ada")).await.unwrap();
    gone(service.users().create(request.clone()).await.unwrap_err());
    // Another user with the same id is another one.
    let second = create(service, CreateRequest { idempotency_key: String::new(), ..request.clone() }).await;
    assert_ne!(second.etag, first.etag);
    gone(service.users().create(request).await.unwrap_err());
    assert_eq!(happened(service, LogEvent::UserCreated).await, 2);
}

async fn a_failed_call_leaves_its_key_free(service: &Service) {
    let taken = create(service, ada()).await;
    let status = service.users().create(keyed()).await.unwrap_err();
    assert_refused(&status, Code::AlreadyExists, "EMAIL_TAKEN");
    let weak = CreateRequest { password: "short".into(), ..keyed() };
    assert_eq!(fields(&service.users().create(weak).await.unwrap_err()), ["password"]);
    assert_eq!(rows(service).await, 0);
    delete(service, &taken.id).await;
    let created = create(service, keyed()).await;
    assert_eq!(create(service, keyed()).await, created);
}

async fn a_repeat_restores_nobody_else(service: &Service) {
    for id in ["older", "newer"] {
        create(service, CreateRequest { id: id.into(), ..ada() }).await;
        service.clock.advance(Duration::from_secs(1));
        delete(service, id).await;
    }
    let restore = async || service.users().create_or_restore(again()).await.map(tonic::Response::into_inner);
    let first = restore().await.unwrap();
    assert!(first.restored && first.user.as_ref().unwrap().id == "newer");
    assert_eq!(restore().await.unwrap(), first);
    delete(service, "newer").await;
    assert_refused(&restore().await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    assert_eq!(happened(service, LogEvent::UserRestored).await, 1);
    // One that created says so again, too.
    let new =
        CreateOrRestoreRequest { email: "new@example.com".into(), idempotency_key: "new".into(), ..again() };
    let created = service.users().create_or_restore(new.clone()).await.unwrap().into_inner();
    assert!(!created.restored);
    assert_eq!(service.users().create_or_restore(new).await.unwrap().into_inner(), created);
}

async fn a_repeat_needs_the_scope_of_the_first_call(service: &Service) {
    let (admin, _) = service.key("default", Scopes::ALL).await;
    let (writer, _) = service.key("default", Scopes::parse(["users.write"]).unwrap()).await;
    let as_one_with = |key: &str, request: CreateRequest| {
        let mut request = Request::new(request);
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        request
    };
    let hashed = CreateRequest {
        password: String::new(),
        password_hash: "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e".into(),
        ..keyed()
    };
    let first = service.users().create(as_one_with(&admin, hashed.clone())).await.unwrap().into_inner();
    let status = service.users().create(as_one_with(&writer, hashed.clone())).await.unwrap_err();
    assert_refused(&status, Code::PermissionDenied, "SCOPE_MISSING");
    // Another API key of the namespace may repeat the call: keys are replaced while clients try again.
    let (another, _) = service.key("default", Scopes::ALL).await;
    let repeat = service.users().create(as_one_with(&another, hashed)).await.unwrap().into_inner();
    assert_eq!(repeat, first);
}

async fn keys_are_known_for_a_day(service: &Service) {
    let first = create(service, keyed()).await;
    create(service, CreateRequest { idempotency_key: "later".into(), ..nth(1) }).await;
    service.clock.advance(Duration::from_hours(24));
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(create(service, keyed()).await, first);
    create(service, CreateRequest { idempotency_key: "young".into(), ..nth(2) }).await;
    service.clock.advance(Duration::from_secs(1));
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(rows(service).await, 1);
    let status = service.users().create(keyed()).await.unwrap_err();
    assert_refused(&status, Code::AlreadyExists, "EMAIL_TAKEN");
    let other = CreateRequest { idempotency_key: KEY.into(), ..nth(3) };
    assert_eq!(create(service, other).await.username, "user3");
}

async fn bad_keys_are_named_beside_all_other_fields(service: &Service) {
    let bad = CreateRequest { username: "a b".into(), idempotency_key: "k".repeat(256), ..ada() };
    assert_eq!(fields(&service.users().create(bad).await.unwrap_err()), ["idempotency_key", "username"]);
    let bad = CreateOrRestoreRequest { idempotency_key: "a b".into(), ..again() };
    assert_eq!(fields(&service.users().create_or_restore(bad).await.unwrap_err()), ["idempotency_key"]);
    let differs = CreateRequest { idempotency_key: "another".into(), ..ada() };
    assert_eq!(
        fields(&service.users().create(with_metadata(differs)).await.unwrap_err()),
        ["idempotency_key"]
    );
    let body = json!({"username": "ada", "password": PASSWORD, "idempotencyKey": "é"}).to_string();
    for (headers, field) in [
        (vec![("content-type", "application/json")], "idempotencyKey"),
        (
            vec![("content-type", "application/json"), ("idempotency-key", "a"), ("idempotency-key", "b")],
            "idempotency-key",
        ),
    ] {
        let (status, _, answer) =
            service.replica.request(Method::POST, "/v1/users", body.clone(), &headers).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer.to_string().contains(&format!("\"field\":\"{field}\"")), "{answer}");
    }
    assert_eq!((service.counts().await, rows(service).await), ([0; 4], 0));
    // Calls that take none ignore the header.
    let (status, _, answer) =
        service.replica.request(Method::GET, "/v1/users", "", &[("idempotency-key", "a b")]).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

/// A client does not know if its call was made before the server died: it repeats it on another one.
async fn a_call_that_was_cut_off_is_completed_by_its_repeat(service: &Service) {
    let settings = [("USERSD_PASSWORDS_COST", "10")];
    for round in 0..4_usize {
        let mut server = Process::start(service.url(), &settings).await;
        let request =
            |n: usize| CreateRequest { idempotency_key: format!("{round}-{n}"), ..nth(round * 100 + n) };
        let calls: Vec<_> = (0..8)
            .map(|n| {
                let (mut users, request) = (server.users.clone(), request(n));
                tokio::spawn(async move { users.create(request).await })
            })
            .collect();
        // In the middle of them: as soon as some of the changes are committed.
        until(async || rows(service).await > i64::try_from(round * 8).unwrap()).await;
        server.kill().await;
        let mut acknowledged = Vec::new();
        for (n, call) in calls.into_iter().enumerate() {
            if let Ok(reply) = call.await.unwrap() {
                acknowledged.push((n, reply.into_inner().user.unwrap().id));
            }
        }
        for n in 0..8 {
            let (user, _) = insist(service.users(), request(n)).await;
            let first = acknowledged.iter().find(|(of, _)| *of == n);
            assert!(first.is_none_or(|(_, id)| *id == user.id), "{user:?}");
        }
    }
    assert_eq!((rows(service).await, service.counts().await), (32, [32, 0, 32, 32]));
    let status = service.users().create(CreateRequest { idempotency_key: "new".into(), ..nth(0) }).await;
    assert_eq!(reason(&status.unwrap_err()), "EMAIL_TAKEN");
}

//! One call for who signs up, for the first time or again.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use usersd::pb::{
    CreateOrRestoreRequest, CreateOrRestoreResponse, CreateRequest, LogEvent, RestoreRequest, UpdateRequest,
    User, UserStatus,
};

use crate::steps::{
    RIVAL, delete, deletion, events, happened, ids, is_open, prefer, read, restore, set_status, structure,
    try_login,
};
use crate::support::{PASSWORD, START, Service, ada, assert_refused, create, fields, from, login, nth};

crate::on_every_backend!(
    another_namespace_sees_and_changes_nothing,
    an_unused_address_creates_a_new_user,
    the_one_deleted_last_comes_back_with_the_new_password,
    what_is_given_is_written_and_the_rest_stays,
    what_is_only_for_a_new_user_is_not_written,
    a_blocked_user_comes_back_blocked,
    a_live_user_with_the_address_is_a_conflict,
    a_username_taken_meanwhile_is_a_conflict,
    the_password_must_not_contain_the_names_of_the_restored_user,
    every_bad_field_is_named_at_once,
    an_address_changed_during_the_hash_is_looked_up_again,
    it_has_its_path,
);

/// By e-mail address and nothing else.
fn again() -> CreateOrRestoreRequest {
    CreateOrRestoreRequest {
        email: "ADA@example.com".into(),
        password: "another horse".into(),
        ..CreateOrRestoreRequest::default()
    }
}

async fn call(service: &Service, request: CreateOrRestoreRequest) -> Result<CreateOrRestoreResponse, Status> {
    Ok(service.users().create_or_restore(request).await?.into_inner())
}

async fn assert_restored(service: &Service, request: CreateOrRestoreRequest) -> User {
    let reply = call(service, request).await.unwrap();
    assert!(reply.restored);
    reply.user.unwrap()
}

async fn another_namespace_sees_and_changes_nothing(service: &Service) {
    let user = create(service, CreateRequest { id: "twin".into(), ..ada() }).await;
    let trashed = delete(service, "twin").await;
    let request = CreateOrRestoreRequest { id: "twin".into(), username: "ada".into(), ..again() };
    let reply = service.users().create_or_restore(from(RIVAL, request.clone())).await.unwrap().into_inner();
    assert!(!reply.restored, "it has no such user in its trash");
    let theirs = reply.user.unwrap();
    assert_ne!(theirs.etag, user.etag);
    let status = service.users().create_or_restore(from(RIVAL, request.clone())).await.unwrap_err();
    assert_refused(&status, Code::AlreadyExists, "EMAIL_TAKEN");
    service.users().delete(from(RIVAL, deletion("twin"))).await.unwrap();
    service.clock.advance(Duration::from_secs(1));
    let reply = service.users().create_or_restore(from(RIVAL, request)).await.unwrap().into_inner();
    assert!(reply.restored);
    assert_eq!((ids(service, false).await.len(), ids(service, true).await), (0, vec!["twin".to_owned()]));
    assert_eq!(events(service, "twin").await, [LogEvent::UserDeleted, LogEvent::UserCreated]);
    let kept = RestoreRequest { id: "twin".into(), etag: trashed.etag };
    service.users().restore(kept).await.unwrap();
    login(service, "ada").await; // with her own password
}

async fn an_unused_address_creates_a_new_user(service: &Service) {
    let other = create(service, nth(1)).await;
    delete(service, &other.id).await;
    let request = CreateOrRestoreRequest {
        id: "chosen".into(),
        username: "Ada".into(),
        name: "Ada".into(),
        status: UserStatus::Pending.into(),
        labels: vec!["new".into()],
        metadata: [("plan".to_owned(), "gold".to_owned())].into(),
        sso_enabled: Some(false),
        ..again()
    };
    let reply = call(service, request).await.unwrap();
    assert!(!reply.restored);
    let user = reply.user.unwrap();
    assert_eq!((user.id.as_str(), user.username.as_str()), ("chosen", "ada"));
    assert_eq!((user.status(), user.email_verified, user.labels.len()), (UserStatus::Pending, false, 1));
    assert_eq!(read(service, "chosen").await, user);
    assert_eq!(events(service, "chosen").await, [LogEvent::UserCreated]);
    try_login(service, "ada", "another horse").await.unwrap();
    let taken = CreateOrRestoreRequest { id: "chosen".into(), email: "new@example.com".into(), ..again() };
    assert_refused(&call(service, taken).await.unwrap_err(), Code::AlreadyExists, "ID_TAKEN");
}

async fn the_one_deleted_last_comes_back_with_the_new_password(service: &Service) {
    // In no order of ids or of creation.
    for id in ["b", "c", "a"] {
        create(service, CreateRequest { id: id.into(), name: id.into(), ..ada() }).await;
        service.clock.advance(Duration::from_secs(1));
        if id == "c" {
            prefer(service, id, &serde_json::json!({"theme": "dark"})).await;
            service.execute("UPDATE users SET email_verified = true").await;
        }
        delete(service, id).await;
    }
    restore(service, "c").await;
    let session = login(service, "ada").await;
    service.clock.advance(Duration::from_secs(1));
    let trashed = delete(service, "c").await;
    service.clock.advance(Duration::from_secs(1));

    let user = assert_restored(service, again()).await;

    let now = START + 5;
    let expected = User {
        deleted: 0,
        updated: now,
        password_updated: now,
        email_verified: false,
        etag: user.etag.clone(),
        ..trashed.clone()
    };
    assert_eq!(user, expected);
    assert!(trashed.email_verified && user.etag != trashed.etag);
    assert_eq!(user.prefs, Some(structure(&serde_json::json!({"theme": "dark"}))));
    assert_eq!(read(service, "c").await, user);
    assert!(!is_open(service, &session.id).await);
    let status = try_login(service, "ada", PASSWORD).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    try_login(service, "ada", "another horse").await.unwrap();
    assert_eq!(happened(service, LogEvent::UserRestored).await, 2);
    assert_eq!(happened(service, LogEvent::UserCreated).await, 3);
    assert_eq!(ids(service, true).await, ["b", "a"], "created in that order");
}

async fn what_is_given_is_written_and_the_rest_stays(service: &Service) {
    let request = CreateRequest {
        id: "x".into(),
        name: "Ada".into(),
        labels: vec!["old".into()],
        metadata: [("plan".to_owned(), "gold".to_owned())].into(),
        sso_enabled: true,
        ..ada()
    };
    create(service, request).await;
    let trashed = delete(service, "x").await;
    let user = assert_restored(service, again()).await;
    let kept = |user: &User| {
        (
            user.username.clone(),
            user.name.clone(),
            user.labels.clone(),
            user.metadata.clone(),
            user.sso_enabled,
        )
    };
    assert_eq!(kept(&user), kept(&trashed));
    delete(service, "x").await;

    let request = CreateOrRestoreRequest {
        username: "countess".into(),
        name: "Countess".into(),
        labels: vec!["new".into()],
        metadata: [("plan".to_owned(), "lead".to_owned())].into(),
        sso_enabled: Some(false),
        ..again()
    };
    let user = assert_restored(service, request.clone()).await;
    let given = (request.username, request.name, request.labels, request.metadata, false);
    assert_eq!(kept(&user), given);
    assert_eq!(read(service, "x").await, user);
    try_login(service, "countess", "another horse").await.unwrap();
    delete(service, "x").await;

    // Who signs in elsewhere needs no password.
    let sso = CreateOrRestoreRequest { password: String::new(), sso_enabled: Some(true), ..again() };
    let user = assert_restored(service, sso).await;
    assert!(user.sso_enabled);
    let status = try_login(service, "countess", "another horse").await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
}

async fn what_is_only_for_a_new_user_is_not_written(service: &Service) {
    create(service, CreateRequest { id: "x".into(), ..ada() }).await;
    create(service, CreateRequest { id: "y".into(), ..nth(1) }).await;
    delete(service, "x").await;
    let request = CreateOrRestoreRequest { id: "y".into(), status: UserStatus::Pending.into(), ..again() };
    let user = assert_restored(service, request).await;
    assert_eq!((user.id.as_str(), user.status()), ("x", UserStatus::Active));
}

async fn a_blocked_user_comes_back_blocked(service: &Service) {
    let user = create(service, ada()).await;
    set_status(service, &user.id, UserStatus::Blocked).await;
    delete(service, &user.id).await;
    let request = CreateOrRestoreRequest { status: UserStatus::Active.into(), ..again() };
    assert_eq!(assert_restored(service, request).await.status(), UserStatus::Blocked);
    let status = try_login(service, "ada", "another horse").await.unwrap_err();
    assert_refused(&status, Code::PermissionDenied, "USER_BLOCKED");
}

#[track_caller]
fn assert_holder(status: &Status, reason: &str, holder: &str) {
    assert_refused(status, Code::AlreadyExists, reason);
    assert_eq!(status.get_details_error_info().unwrap().metadata["holder"], holder);
}

async fn a_live_user_with_the_address_is_a_conflict(service: &Service) {
    let first = create(service, ada()).await;
    let before = service.counts().await;
    assert_holder(&call(service, again()).await.unwrap_err(), "EMAIL_TAKEN", &first.id);
    assert_eq!(service.counts().await, before);
    // Also where a user with the address is in the trash.
    delete(service, &first.id).await;
    let second = create(service, ada()).await;
    let before = service.counts().await;
    assert_holder(&call(service, again()).await.unwrap_err(), "EMAIL_TAKEN", &second.id);
    assert_eq!(service.counts().await, before);
    login(service, "ada").await;
}

async fn a_username_taken_meanwhile_is_a_conflict(service: &Service) {
    let user = create(service, ada()).await;
    let trashed = delete(service, &user.id).await;
    let thief = create(service, CreateRequest { email: "other@example.com".into(), ..ada() }).await;
    let before = service.counts().await;
    assert_holder(&call(service, again()).await.unwrap_err(), "USERNAME_TAKEN", &thief.id);
    let named = CreateOrRestoreRequest { username: "Ada".into(), ..again() };
    assert_holder(&call(service, named).await.unwrap_err(), "USERNAME_TAKEN", &thief.id);
    assert_eq!(service.counts().await, before);
    // By another name there is a way.
    let renamed = CreateOrRestoreRequest { username: "countess".into(), ..again() };
    let user = assert_restored(service, renamed).await;
    assert_eq!((&user.id, user.username.as_str()), (&trashed.id, "countess"));
}

async fn the_password_must_not_contain_the_names_of_the_restored_user(service: &Service) {
    let user = create(service, CreateRequest { username: "lovelace".into(), ..ada() }).await;
    delete(service, &user.id).await;
    let before = service.counts().await;
    let request = CreateOrRestoreRequest { password: "1-LoveLace-1".into(), ..again() };
    assert_eq!(fields(&call(service, request.clone()).await.unwrap_err()), ["password"]);
    assert_eq!(service.counts().await, before);
    let renamed = CreateOrRestoreRequest { username: "countess".into(), ..request };
    assert_restored(service, renamed).await;
}

async fn every_bad_field_is_named_at_once(service: &Service) {
    let status = call(service, CreateOrRestoreRequest::default()).await.unwrap_err();
    assert_eq!(fields(&status), ["email", "password"]);
    let nameless = CreateOrRestoreRequest { username: "ada".into(), email: String::new(), ..again() };
    assert_eq!(fields(&call(service, nameless).await.unwrap_err()), ["email"]);
    let open = CreateOrRestoreRequest { password: String::new(), sso_enabled: Some(false), ..again() };
    assert_eq!(fields(&call(service, open).await.unwrap_err()), ["password"]);
    let bad = CreateOrRestoreRequest {
        id: "not an id".into(),
        username: "ada lovelace".into(),
        email: "nowhere".into(),
        password: "short".into(),
        name: "x".repeat(129),
        status: 9,
        labels: vec![String::new()],
        metadata: [(String::new(), String::new())].into(),
        sso_enabled: None,
        idempotency_key: String::new(),
    };
    let named = ["id", "username", "email", "name", "status", "labels[0]", "metadata", "password"];
    assert_eq!(fields(&call(service, bad).await.unwrap_err()), named);
    assert_eq!(service.counts().await, [0; 4]);
}

/// While the password is hashed, the user comes back, is called something else, and goes again.
async fn an_address_changed_during_the_hash_is_looked_up_again(service: &Service) {
    let user = create(service, ada()).await;
    delete(service, &user.id).await;
    let mut users = service.users();
    let late = async move {
        let reply = users.create_or_restore(again()).await?.into_inner();
        assert!(!reply.restored);
        Err(Status::aborted(reply.user.unwrap().id))
    };
    let meanwhile = async {
        restore(service, &user.id).await;
        let rename = UpdateRequest {
            id: user.id.clone(),
            email: Some("other@example.com".into()),
            username: Some("other".into()),
            ..UpdateRequest::default()
        };
        service.users().update(rename).await.unwrap();
        delete(service, &user.id).await;
    };
    let done = crate::support::during_the_hash(service, late, meanwhile).await;
    assert_eq!(done.code(), Code::Aborted, "{done:?}");
    assert_eq!(ids(service, true).await, [user.id]);
    assert_eq!(ids(service, false).await, [done.message()]);
}

async fn it_has_its_path(service: &Service) {
    let user = create(service, ada()).await;
    delete(service, &user.id).await;
    let body = r#"{"email":"ada@example.com","password":"another horse"}"#;
    let (status, answer) = service.replica.json(http::Method::POST, "/v1/users:createOrRestore", body).await;
    assert_eq!(status, http::StatusCode::OK, "{answer}");
    assert_eq!((&answer["restored"], &answer["user"]["id"]), (&true.into(), &user.id.into()));
}

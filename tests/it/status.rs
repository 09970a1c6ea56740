//! What only an administrator does: block, verify, set a password.

use std::time::Duration;

use tonic::Code;
use usersd::pb::{
    CreateRequest, LogEvent, SetPasswordRequest, UpdateRequest, UpdateStatusRequest,
    UpdateVerificationRequest, User, UserStatus,
};

use crate::steps::{RIVAL, assert_hidden, becoming, events, is_open, log, read, set_status, try_login};
use crate::support::{PASSWORD, START, Service, ada, assert_refused, create, fields, from, login};

crate::on_every_backend!(
    another_namespace_sees_and_changes_nothing,
    twins_in_two_namespaces_never_touch,
    every_bad_field_is_named_at_once,
    a_stale_etag_changes_nothing,
    each_change_is_one_event_and_no_change_is_none,
    blocking_ends_all_sessions_for_good,
    a_pending_user_may_log_in_and_keeps_its_sessions,
    only_the_right_password_reveals_a_block,
    an_address_counts_as_proven_until_it_changes,
    without_an_address_nothing_is_proven,
    only_the_address_that_was_proven_counts_as_proven,
    a_set_password_replaces_the_old_one_and_ends_all_sessions,
    a_set_password_keeps_to_the_policy,
    a_first_password_can_be_set,
    a_user_who_changed_during_the_hash_keeps_its_password,
    they_have_their_paths,
);

fn setting(id: &str) -> SetPasswordRequest {
    SetPasswordRequest { user_id: id.into(), new_password: "another horse".into(), etag: String::new() }
}

fn verifying(id: &str) -> UpdateVerificationRequest {
    UpdateVerificationRequest { id: id.into(), email_verified: true, ..UpdateVerificationRequest::default() }
}

async fn verify(service: &Service, id: &str) -> User {
    service.users().update_verification(verifying(id)).await.unwrap().into_inner().user.unwrap()
}

async fn set_password(service: &Service, request: SetPasswordRequest) -> User {
    service.users().set_password(request).await.unwrap().into_inner().user.unwrap()
}

fn blocking(id: &str) -> UpdateStatusRequest {
    becoming(id, UserStatus::Blocked)
}

async fn another_namespace_sees_and_changes_nothing(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    assert_hidden(service, &user.id, blocking, async |request| service.users().update_status(request).await)
        .await;
    assert_hidden(service, &user.id, setting, async |request| service.users().set_password(request).await)
        .await;
    let call = async |request| service.users().update_verification(request).await;
    assert_hidden(service, &user.id, verifying, call).await;
    // The right etag does not help, and a wrong one does not tell.
    for etag in [user.etag.as_str(), "\"stale\""] {
        let request = |id: &str| UpdateStatusRequest { etag: etag.into(), ..blocking(id) };
        assert_hidden(service, &user.id, request, async |request| {
            service.users().update_status(request).await
        })
        .await;
        let request = |id: &str| SetPasswordRequest { etag: etag.into(), ..setting(id) };
        assert_hidden(service, &user.id, request, async |request| {
            service.users().set_password(request).await
        })
        .await;
    }
    assert_eq!(read(service, &user.id).await, user);
    assert!(is_open(service, &session.id).await);
}

async fn twins_in_two_namespaces_never_touch(service: &Service) {
    let mut users = service.users();
    for namespace in ["default", RIVAL] {
        users.create(from(namespace, CreateRequest { id: "twin".into(), ..ada() })).await.unwrap();
    }
    let (before, session) = (read(service, "twin").await, login(service, "ada").await);
    users.update_status(from(RIVAL, blocking("twin"))).await.unwrap();
    users.update_verification(from(RIVAL, verifying("twin"))).await.unwrap();
    users.set_password(from(RIVAL, setting("twin"))).await.unwrap();
    assert_eq!(read(service, "twin").await, before);
    assert!(is_open(service, &session.id).await);
    assert_eq!(events(service, "twin").await, [LogEvent::SessionCreated, LogEvent::UserCreated]);
    login(service, "ada").await;
}

async fn every_bad_field_is_named_at_once(service: &Service) {
    let mut users = service.users();
    let user = create(service, ada()).await;
    let before = service.counts().await;
    for status in [0, 4, -1, i32::MAX] {
        let request = |id: &str| UpdateStatusRequest { id: id.into(), status, etag: String::new() };
        assert_eq!(fields(&users.update_status(request(&user.id)).await.unwrap_err()), ["status"]);
        assert_eq!(fields(&users.update_status(request("no id")).await.unwrap_err()), ["id", "status"]);
    }
    for id in ["", "no id"] {
        assert_eq!(fields(&users.update_status(blocking(id)).await.unwrap_err()), ["id"]);
        assert_eq!(fields(&users.update_verification(verifying(id)).await.unwrap_err()), ["id"]);
        for password in ["", "short", "with a \0 nul", &"x".repeat(129)] {
            let request = SetPasswordRequest { new_password: password.into(), ..setting(id) };
            let status = users.set_password(request).await.unwrap_err();
            assert_eq!(fields(&status), ["user_id", "new_password"]);
        }
    }
    assert_eq!(service.counts().await, before);
    for status in [
        users.update_status(blocking("nobody")).await.unwrap_err(),
        users.update_verification(verifying("nobody")).await.unwrap_err(),
        users.set_password(setting("nobody")).await.unwrap_err(),
    ] {
        assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
    }
}

async fn a_stale_etag_changes_nothing(service: &Service) {
    let mut users = service.users();
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    let current = verify(service, &user.id).await.etag;
    let before = service.counts().await;
    let hashes = service.replica.hasher.work().taken_on;
    for stale in [user.etag.as_str(), "\"nonsense\"", "*"] {
        let etag = || stale.to_owned();
        for status in [
            users.update_status(UpdateStatusRequest { etag: etag(), ..blocking(&user.id) }).await.err(),
            users.set_password(SetPasswordRequest { etag: etag(), ..setting(&user.id) }).await.err(),
            // Also where nothing would change.
            users
                .update_verification(UpdateVerificationRequest { etag: etag(), ..verifying(&user.id) })
                .await
                .err(),
        ] {
            assert_refused(&status.unwrap(), Code::Aborted, "ETAG_MISMATCH");
        }
    }
    assert_eq!(service.counts().await, before);
    assert_eq!(service.replica.hasher.work().taken_on, hashes, "no hash for what cannot be");
    assert!(is_open(service, &session.id).await);
    users.set_password(SetPasswordRequest { etag: current, ..setting(&user.id) }).await.unwrap();
}

async fn each_change_is_one_event_and_no_change_is_none(service: &Service) {
    let user = create(service, ada()).await;
    service.clock.advance(Duration::from_secs(5));
    let verified = verify(service, &user.id).await;
    let expected =
        User { email_verified: true, updated: START + 5, etag: verified.etag.clone(), ..user.clone() };
    assert_eq!(verified, expected);
    let pending = set_status(service, &user.id, UserStatus::Pending).await;
    let expected =
        User { status: UserStatus::Pending.into(), etag: pending.etag.clone(), ..verified.clone() };
    assert_eq!(pending, expected);
    assert!(pending.etag.ends_with("-3\""));
    let before = service.counts().await;

    service.clock.advance(Duration::from_secs(5));
    assert_eq!(set_status(service, &user.id, UserStatus::Pending).await, pending);
    assert_eq!(verify(service, &user.id).await, pending);
    assert_eq!(service.counts().await, before);

    set_password(service, setting(&user.id)).await;
    let said: Vec<_> =
        log(service, &user.id).await.into_iter().map(|entry| (entry.event(), entry.changed)).collect();
    let changed = |name: &str| vec![name.to_owned()];
    let expected = [
        (LogEvent::PasswordSet, changed("password")),
        (LogEvent::StatusUpdated, changed("status")),
        (LogEvent::VerificationUpdated, changed("email_verified")),
        (LogEvent::UserCreated, vec![]),
    ];
    assert_eq!(said, expected);
}

async fn blocking_ends_all_sessions_for_good(service: &Service) {
    let user = create(service, ada()).await;
    let sessions = [login(service, "ada").await, login(service, "ada").await];
    set_status(service, &user.id, UserStatus::Blocked).await;
    for session in &sessions {
        assert!(!is_open(service, &session.id).await);
    }
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 0);
    set_status(service, &user.id, UserStatus::Active).await;
    for session in &sessions {
        assert!(!is_open(service, &session.id).await, "they stay ended");
    }
    login(service, "ada").await;
}

async fn a_pending_user_may_log_in_and_keeps_its_sessions(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    set_status(service, &user.id, UserStatus::Pending).await;
    login(service, "ada").await;
    set_status(service, &user.id, UserStatus::Active).await;
    assert!(is_open(service, &session.id).await);
}

async fn only_the_right_password_reveals_a_block(service: &Service) {
    let user = create(service, ada()).await;
    set_status(service, &user.id, UserStatus::Blocked).await;
    let status = try_login(service, "ada", PASSWORD).await.unwrap_err();
    assert_refused(&status, Code::PermissionDenied, "USER_BLOCKED");
    let wrong = try_login(service, "ada", "wrong").await.unwrap_err();
    assert_refused(&wrong, Code::Unauthenticated, "BAD_CREDENTIALS");
    crate::steps::assert_alike(&wrong, &try_login(service, "nobody", "wrong").await.unwrap_err());
    // Blocked users can be given passwords; they stay blocked.
    set_password(service, setting(&user.id)).await;
    let status = try_login(service, "ada", "another horse").await.unwrap_err();
    assert_refused(&status, Code::PermissionDenied, "USER_BLOCKED");
}

async fn an_address_counts_as_proven_until_it_changes(service: &Service) {
    let user = create(service, ada()).await;
    assert!(verify(service, &user.id).await.email_verified);
    let address = |email: &str| UpdateRequest {
        id: user.id.clone(),
        email: Some(email.into()),
        name: Some(email.into()),
        ..UpdateRequest::default()
    };
    let mut users = service.users();
    let same = users.update(address("ADA@example.com")).await.unwrap().into_inner().user.unwrap();
    assert!(same.email_verified);
    let other = users.update(address("b@example.com")).await.unwrap().into_inner().user.unwrap();
    assert!(!other.email_verified);
    assert!(verify(service, &user.id).await.email_verified);
    let withdrawn = UpdateVerificationRequest { email_verified: false, ..verifying(&user.id) };
    let user = users.update_verification(withdrawn).await.unwrap().into_inner().user.unwrap();
    assert!(!user.email_verified);
}

async fn without_an_address_nothing_is_proven(service: &Service) {
    let user = create(service, CreateRequest { email: String::new(), ..ada() }).await;
    let before = service.counts().await;
    let status = service.users().update_verification(verifying(&user.id)).await.unwrap_err();
    assert_eq!(fields(&status), ["email_verified"]);
    assert_eq!(service.counts().await, before);
}

/// (M12) The address may change between the click on a code and the call.
async fn only_the_address_that_was_proven_counts_as_proven(service: &Service) {
    let user = create(service, ada()).await;
    let of = |email: &str| UpdateVerificationRequest { email: email.into(), ..verifying(&user.id) };
    let email = Some("eve@example.com".to_owned());
    let change = UpdateRequest { id: user.id.clone(), email, ..UpdateRequest::default() };
    service.users().update(change).await.unwrap();
    let before = service.counts().await;
    let status = service.users().update_verification(of("ada@example.com")).await.unwrap_err();
    assert_refused(&status, Code::Aborted, "EMAIL_MISMATCH");
    let status = service.users().update_verification(of("no address")).await.unwrap_err();
    assert_eq!(fields(&status), ["email"]);
    assert_eq!(service.counts().await, before);
    let verified = service.users().update_verification(of("Eve@EXAMPLE.com")).await.unwrap().into_inner();
    assert!(verified.user.unwrap().email_verified);
}

async fn a_set_password_replaces_the_old_one_and_ends_all_sessions(service: &Service) {
    let user = create(service, ada()).await;
    let sessions = [login(service, "ada").await, login(service, "ada").await];
    service.clock.advance(Duration::from_secs(3));
    let changed = set_password(service, setting(&user.id)).await;
    let expected =
        User { password_updated: START + 3, updated: START + 3, etag: changed.etag.clone(), ..user.clone() };
    assert_eq!(changed, expected);
    assert_ne!(changed.etag, user.etag);
    for session in sessions {
        assert!(!is_open(service, &session.id).await);
    }
    let status = try_login(service, "ada", PASSWORD).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    try_login(service, "ada", "another horse").await.unwrap();
    // The same once more is a new password all the same.
    assert_ne!(set_password(service, setting(&user.id)).await.etag, changed.etag);
}

async fn a_set_password_keeps_to_the_policy(service: &Service) {
    let user = create(service, CreateRequest { username: "lovelace".into(), ..ada() }).await;
    let before = service.counts().await;
    let long = "x".repeat(129);
    for password in ["", "1234567", "1-LoveLace-1", "with a \n line", &long] {
        let request = SetPasswordRequest { new_password: password.into(), ..setting(&user.id) };
        let status = service.users().set_password(request).await.unwrap_err();
        assert_eq!(fields(&status), ["new_password"], "{password}");
    }
    assert_eq!(service.counts().await, before);
    try_login(service, "lovelace", PASSWORD).await.unwrap();
}

async fn a_first_password_can_be_set(service: &Service) {
    let user = create(service, CreateRequest { password: String::new(), sso_enabled: true, ..ada() }).await;
    assert_eq!(user.password_updated, 0);
    assert_eq!(set_password(service, setting(&user.id)).await.password_updated, START);
    let status = try_login(service, "ada", "another horse").await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    let off = UpdateRequest { id: user.id, sso_enabled: Some(false), ..UpdateRequest::default() };
    service.users().update(off).await.unwrap();
    try_login(service, "ada", "another horse").await.unwrap();
}

async fn a_user_who_changed_during_the_hash_keeps_its_password(service: &Service) {
    let user = create(service, ada()).await;
    let mut users = service.users();
    let request = SetPasswordRequest { etag: user.etag.clone(), ..setting(&user.id) };
    let late = async move { users.set_password(request).await.map(|_| ()) };
    let meanwhile = async { drop(verify(service, &user.id).await) };
    let status = crate::support::during_the_hash(service, late, meanwhile).await;
    assert_refused(&status, Code::Aborted, "ETAG_MISMATCH");
    login(service, "ada").await;
}

async fn they_have_their_paths(service: &Service) {
    use http::{Method, StatusCode};
    create(service, CreateRequest { id: "7".into(), ..ada() }).await;
    let http = &service.replica;
    let (status, body) =
        http.json(Method::PATCH, "/v1/users/7/status", r#"{"status":"USER_STATUS_BLOCKED"}"#).await;
    assert_eq!((status, &body["user"]["status"]), (StatusCode::OK, &"USER_STATUS_BLOCKED".into()));
    let (status, body) =
        http.json(Method::PATCH, "/v1/users/7/verification", r#"{"emailVerified":true}"#).await;
    assert_eq!((status, &body["user"]["emailVerified"]), (StatusCode::OK, &true.into()));
    let body = r#"{"newPassword":"another horse"}"#;
    let (status, body) = http.json(Method::POST, "/v1/users/7:setPassword", body).await;
    assert_eq!((status, &body["user"]["id"]), (StatusCode::OK, &"7".into()));
    let (status, body) = http.json(Method::PATCH, "/v1/users/7/status", "{}").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["details"][1]["fieldViolations"][0]["field"], "status", "{body}");
}

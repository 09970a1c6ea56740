//! Signing in and out.

use std::time::Duration;

use tonic::Code;
use usersd::pb::{
    DeleteRequest, Device, LoginRequest, LogoutRequest, ReadSessionRequest, Session, UpdatePasswordRequest,
    UpdateRequest,
};

use crate::support::{PASSWORD, START, Service, ada, assert_refused, create, fields, login, nth};

crate::on_every_backend!(
    a_session_shows_the_user_as_it_is_now,
    a_user_signs_in_by_username_or_email_or_both,
    username_and_email_of_two_users_open_nothing,
    a_user_has_many_sessions_and_ends_each_alone,
    a_session_ends_at_its_time,
    an_unread_session_ends_at_the_idle_limit,
    ended_sessions_are_removed_in_the_background,
    only_the_exact_token_opens_a_session,
    a_token_is_stored_nowhere,
    a_blocked_user_learns_of_it_only_with_the_right_password,
    password_log_in_is_refused_under_sso_as_a_wrong_password,
    the_device_is_what_the_caller_says_or_the_connection,
    a_user_deleted_during_the_hash_gets_no_session,
    a_password_changed_during_the_hash_opens_no_session,
);

fn by_name(username: &str) -> LoginRequest {
    LoginRequest { username: username.into(), password: PASSWORD.into(), ..LoginRequest::default() }
}

async fn read(service: &Service, token: &str) -> Result<Session, tonic::Status> {
    let request = ReadSessionRequest { session_id: token.into(), max_age: None };
    Ok(service.users().read_session(request).await?.into_inner().session.unwrap())
}

async fn a_session_shows_the_user_as_it_is_now(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    assert_eq!((session.id.len(), &session.id[..4]), (68, "ses_"));
    assert_eq!((session.username.as_str(), session.email.as_str()), ("ada", "ada@example.com"));
    assert_eq!((session.created, session.expires), (START, START + 7 * 24 * 60 * 60));
    assert_eq!(session.user_id, user.id);
    assert_ne!(session.public_id, session.id);
    assert_eq!(read(service, &session.id).await.unwrap(), session);

    let rename = UpdateRequest {
        id: user.id,
        username: Some("countess".into()),
        email: Some("countess@example.com".into()),
        ..UpdateRequest::default()
    };
    let lax = service.another(|config| config.sessions.end_on_change = false).await;
    lax.users.clone().update(rename).await.unwrap();
    let request = ReadSessionRequest { session_id: session.id, max_age: None };
    let now = lax.users.clone().read_session(request).await.unwrap().into_inner().session.unwrap();
    assert_eq!((now.username.as_str(), now.email.as_str()), ("countess", "countess@example.com"));
    assert_eq!(now.created, START);
}

async fn a_user_signs_in_by_username_or_email_or_both(service: &Service) {
    create(service, ada()).await;
    let email = |email: &str| LoginRequest { email: email.into(), username: String::new(), ..by_name("") };
    for request in [
        by_name("ADA"),
        email("Ada@Example.COM"),
        LoginRequest { email: "ada@example.com".into(), ..by_name("ada") },
    ] {
        service.users().login(request).await.unwrap();
    }
    let nobody = LoginRequest { password: PASSWORD.into(), ..LoginRequest::default() };
    assert_eq!(fields(&service.users().login(nobody).await.unwrap_err()), ["username"]);
}

async fn username_and_email_of_two_users_open_nothing(service: &Service) {
    create(service, ada()).await;
    create(service, nth(1)).await;
    let before = service.number("SELECT count(*) FROM sessions").await;
    for email in ["user1@example.com", "nobody@example.com", "not an address"] {
        let request = LoginRequest { email: email.into(), ..by_name("ada") };
        let status = service.users().login(request).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, before);
}

async fn a_user_has_many_sessions_and_ends_each_alone(service: &Service) {
    create(service, ada()).await;
    let (one, two) = (login(service, "ada").await, login(service, "ada").await);
    assert_ne!(one.id, two.id);
    let logout = LogoutRequest { session_id: one.id.clone() };
    service.users().logout(logout.clone()).await.unwrap();
    assert_refused(&read(service, &one.id).await.unwrap_err(), Code::NotFound, "SESSION_NOT_FOUND");
    assert_refused(&service.users().logout(logout).await.unwrap_err(), Code::NotFound, "SESSION_NOT_FOUND");
    read(service, &two.id).await.unwrap();
}

async fn a_session_ends_at_its_time(service: &Service) {
    create(service, ada()).await;
    let session = login(service, "ada").await;
    service.clock.advance(Duration::from_hours(7 * 24).saturating_sub(Duration::from_micros(1)));
    read(service, &session.id).await.unwrap();
    service.clock.advance(Duration::from_micros(1));
    assert_refused(&read(service, &session.id).await.unwrap_err(), Code::NotFound, "SESSION_NOT_FOUND");
    let logout = LogoutRequest { session_id: session.id };
    assert_refused(&service.users().logout(logout).await.unwrap_err(), Code::NotFound, "SESSION_NOT_FOUND");
}

/// (R21)
async fn an_unread_session_ends_at_the_idle_limit(service: &Service) {
    create(service, ada()).await;
    let session = login(service, "ada").await;
    let mut strict = service.another(|config| config.sessions.idle = Some(Duration::from_hours(1))).await;
    let request = ReadSessionRequest { session_id: session.id.clone(), max_age: None };
    for _ in 0..5 {
        service.clock.advance(Duration::from_mins(50)); // each read starts the hour again
        strict.users.read_session(request.clone()).await.unwrap();
        strict.ops.flush_last_reads().await.unwrap(); // in minutes it is stored without
    }
    service.clock.advance(Duration::from_hours(1));
    let status = strict.users.read_session(request).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "SESSION_NOT_FOUND");
    read(service, &session.id).await.unwrap(); // without the limit it is alive
    strict.ops.housekeep().await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 0);
}

async fn ended_sessions_are_removed_in_the_background(service: &Service) {
    create(service, ada()).await;
    login(service, "ada").await;
    service.clock.advance(Duration::from_hours(6 * 24));
    let young = login(service, "ada").await;
    service.clock.advance(Duration::from_hours(24));
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 1);
    read(service, &young.id).await.unwrap();
}

/// (13)
async fn only_the_exact_token_opens_a_session(service: &Service) {
    create(service, ada()).await;
    let token = login(service, "ada").await.id;
    let mut flipped = token.clone();
    let last = if flipped.pop() == Some('0') { '1' } else { '0' };
    flipped.push(last);
    let public = read(service, &token).await.unwrap().public_id;
    let wrong = [
        token[..67].to_owned(),
        token[..4].to_owned(),
        format!("{token}0"),
        format!(" {token}"),
        token.to_uppercase(),
        flipped,
        public,
        "%".to_owned(),
        "\0".to_owned(),
    ];
    for wrong in wrong {
        let status = read(service, &wrong).await.unwrap_err();
        assert_refused(&status, Code::NotFound, "SESSION_NOT_FOUND");
        let logout = LogoutRequest { session_id: wrong };
        assert_refused(
            &service.users().logout(logout).await.unwrap_err(),
            Code::NotFound,
            "SESSION_NOT_FOUND",
        );
    }
    assert_eq!(fields(&read(service, "").await.unwrap_err()), ["session_id"]);
    read(service, &token).await.unwrap();
}

async fn a_token_is_stored_nowhere(service: &Service) {
    create(service, ada()).await;
    let token = login(service, "ada").await.id;
    let holds = |bytes: &[u8], part: &str| bytes.windows(part.len()).any(|window| window == part.as_bytes());
    for file in service.files() {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!holds(&bytes, &token[4..]), "the token is in {}", file.display());
        assert!(!holds(&bytes, PASSWORD), "the password is in {}", file.display());
    }
    let digest = match service.backend {
        crate::support::Backend::Sqlite => "lower(hex(digest))",
        crate::support::Backend::Postgres => "encode(digest, 'hex')",
    };
    let stored = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(token.as_bytes()));
    let count = format!("SELECT count(*) FROM sessions WHERE {digest} = '{stored}'");
    assert_eq!(service.number(&count).await, 1);
}

async fn set_status(service: &Service, status: i32) {
    let tx = service.replica.store.begin_as_server().await.unwrap();
    let sql = format!("UPDATE users SET status = {status}");
    sea_orm::ConnectionTrait::execute_unprepared(&tx, &sql).await.unwrap();
    tx.commit().await.unwrap();
}

/// (7)
async fn a_blocked_user_learns_of_it_only_with_the_right_password(service: &Service) {
    create(service, ada()).await;
    set_status(service, 3).await;
    let status = service.users().login(by_name("ada")).await.unwrap_err();
    assert_refused(&status, Code::PermissionDenied, "USER_BLOCKED");
    let wrong = LoginRequest { password: "wrong".into(), ..by_name("ada") };
    let status = service.users().login(wrong).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    assert_eq!(service.number("SELECT count(*) FROM events WHERE action = 'LOGIN_REFUSED'").await, 2);
    set_status(service, 1).await;
    login(service, "ada").await; // PENDING may
}

async fn password_log_in_is_refused_under_sso_as_a_wrong_password(service: &Service) {
    let user = create(service, ada()).await;
    let set =
        |sso: bool| UpdateRequest { id: user.id.clone(), sso_enabled: Some(sso), ..UpdateRequest::default() };
    service.users().update(set(true)).await.unwrap();
    let status = service.users().login(by_name("ada")).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    service.users().update(set(false)).await.unwrap();
    login(service, "ada").await; // the password was kept
}

async fn the_device_is_what_the_caller_says_or_the_connection(service: &Service) {
    create(service, ada()).await;
    let device = Device { address: "::ffff:203.0.113.7".into(), user_agent: "Phone\r\n1".into() };
    service.users().login(LoginRequest { device: Some(device), ..by_name("ada") }).await.unwrap();
    login(service, "ada").await;
    for (what, count) in [
        ("sessions WHERE address = '203.0.113.7' AND user_agent = 'Phone  1'", 1),
        ("events WHERE address = '203.0.113.7' AND user_agent = 'Phone  1'", 1),
        ("sessions WHERE address = '127.0.0.1' AND user_agent LIKE 'tonic/%'", 1),
    ] {
        assert_eq!(service.number(&format!("SELECT count(*) FROM {what}")).await, count, "{what}");
    }
    let device = Device { address: "somewhere".into(), user_agent: String::new() };
    let status = service.users().login(LoginRequest { device: Some(device), ..by_name("ada") }).await;
    assert_eq!(fields(&status.unwrap_err()), ["device.address"]);
}

/// What a log-in of ada is answered if `meanwhile` happens while it waits for its hash.
async fn during_the_hash(service: &Service, meanwhile: impl Future<Output = ()>) -> tonic::Status {
    let mut users = service.users();
    let login = async move { users.login(by_name("ada")).await.map(|_| ()) };
    crate::support::during_the_hash(service, login, meanwhile).await
}

async fn a_user_deleted_during_the_hash_gets_no_session(service: &Service) {
    let user = create(service, ada()).await;
    let delete = async {
        service.users().delete(DeleteRequest { id: user.id, ..DeleteRequest::default() }).await.unwrap();
    };
    let status = during_the_hash(service, delete).await;
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 0);
    assert_eq!(service.number("SELECT count(*) FROM events WHERE action = 'LOGIN_REFUSED'").await, 1);
}

async fn a_password_changed_during_the_hash_opens_no_session(service: &Service) {
    let user = create(service, ada()).await;
    let mut other = service.another(|_| {}).await; // whose hasher is free
    let change = async {
        let request = UpdatePasswordRequest {
            user_id: user.id,
            old_password: PASSWORD.into(),
            new_password: "another horse".into(),
            ..UpdatePasswordRequest::default()
        };
        other.users.update_password(request).await.unwrap();
    };
    let status = during_the_hash(service, change).await;
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 0);
}

//! Proofs of who a user is: how old they are, what they are for, and when they end. The numbers in brackets are those of
//! the rules that `tests/README.md` lists.

use std::time::Duration;

use tonic::{Code, Status};
use usersd::pb::{
    ListSessionsRequest, LogEvent, LoginRequest, ReadSessionRequest, Session, UpdateRequest, User,
    UserStatus, VerifyPasswordRequest,
};

use crate::steps::{RIVAL, assert_alike, events, happened, is_open, set_status, try_login};
use crate::support::{
    PASSWORD, Replica, START, Service, ada, assert_refused, create, fields, from, login, nth, until,
};

crate::on_every_backend!(
    a_password_of_another_namespace_is_verified_for_nobody,
    verifying_a_password_opens_no_session,
    wrong_passwords_count_wherever_they_are_tried,
    an_open_session_lets_its_user_through_while_others_fail,
    a_session_tells_when_and_how_its_user_authenticated,
    a_session_of_an_older_program_tells_when_it_began,
    max_age_refuses_an_older_authentication,
    logging_in_again_ends_the_session_that_is_replaced,
    only_a_session_of_the_same_user_is_replaced,
    a_lifetime_is_chosen_within_the_setting,
    sessions_end_when_the_address_or_the_way_to_sign_in_changes,
    sessions_outlive_such_a_change_if_so_set,
);

fn checking(user: &User, password: &str) -> VerifyPasswordRequest {
    VerifyPasswordRequest { user_id: user.id.clone(), password: password.into(), ..Default::default() }
}

fn by_name(username: &str) -> LoginRequest {
    LoginRequest { username: username.into(), password: PASSWORD.into(), ..LoginRequest::default() }
}

async fn opened(service: &Service, request: LoginRequest) -> Session {
    service.users().login(request).await.unwrap().into_inner().session.unwrap()
}

async fn read(replica: &Replica, token: &str, max_age: Option<i64>) -> Result<Session, Status> {
    let request = ReadSessionRequest { session_id: token.into(), max_age };
    Ok(replica.users.clone().read_session(request).await?.into_inner().session.unwrap())
}

async fn a_password_of_another_namespace_is_verified_for_nobody(service: &Service) {
    let user = create(service, ada()).await;
    let there = service.users().verify_password(from(RIVAL, checking(&user, PASSWORD))).await.unwrap_err();
    let nobody = User { id: "nobody".into(), ..User::default() };
    let nowhere =
        service.users().verify_password(from(RIVAL, checking(&nobody, PASSWORD))).await.unwrap_err();
    assert_refused(&there, Code::Unauthenticated, "BAD_CREDENTIALS");
    assert_alike(&there, &nowhere);
    assert_eq!(events(service, &user.id).await, [LogEvent::UserCreated]);
}

/// (R20) Nor does it renew one: that takes a new token.
async fn verifying_a_password_opens_no_session(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    service.clock.advance(Duration::from_mins(1));
    let reply = service.users().verify_password(checking(&user, PASSWORD)).await.unwrap();
    assert_eq!(reply.into_inner().user.unwrap(), user);
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 1);
    assert_eq!(read(&service.replica, &session.id, None).await.unwrap().auth_time, START);

    let wrong = service.users().verify_password(checking(&user, "wrong")).await.unwrap_err();
    assert_refused(&wrong, Code::Unauthenticated, "BAD_CREDENTIALS");
    assert_eq!(happened(service, LogEvent::LoginRefused).await, 1);
    let bad = VerifyPasswordRequest { user_id: "-".into(), session_id: "ses_".into(), ..Default::default() };
    let status = service.users().verify_password(bad).await.unwrap_err();
    assert_eq!(fields(&status), ["user_id", "password", "session_id"]);

    set_status(service, &user.id, UserStatus::Blocked).await;
    let wrong = service.users().verify_password(checking(&user, "wrong")).await.unwrap_err();
    assert_refused(&wrong, Code::Unauthenticated, "BAD_CREDENTIALS");
    let blocked = service.users().verify_password(checking(&user, PASSWORD)).await.unwrap_err();
    assert_refused(&blocked, Code::PermissionDenied, "USER_BLOCKED");
}

/// (R11)
async fn wrong_passwords_count_wherever_they_are_tried(service: &Service) {
    let user = create(service, ada()).await;
    let strict =
        service.another(|config| (config.throttle.account, config.throttle.free) = (10, 1_000)).await;
    let mut users = strict.users.clone();
    for n in 0..9 {
        let status = if n % 2 == 0 {
            users.verify_password(checking(&user, "wrong")).await.err().unwrap()
        } else {
            let wrong = LoginRequest { password: "wrong".into(), ..by_name("ada") };
            users.login(wrong).await.err().unwrap()
        };
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    // The account's limit, which neither id nor name has reached alone: a refusal that says so would tell whose name it is.
    let status = users.verify_password(checking(&user, PASSWORD)).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    let status = users.login(by_name("ada")).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
}

/// (R12)
async fn an_open_session_lets_its_user_through_while_others_fail(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    let strict =
        service.another(|config| (config.throttle.account, config.throttle.free) = (10, 1_000)).await;
    let mut users = strict.users.clone();
    for _ in 0..9 {
        users.verify_password(checking(&user, "wrong")).await.unwrap_err();
    }
    let known = VerifyPasswordRequest { session_id: session.id.clone(), ..checking(&user, PASSWORD) };
    let status = users.verify_password(checking(&user, PASSWORD)).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    users.verify_password(known).await.unwrap();
}

async fn a_session_tells_when_and_how_its_user_authenticated(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    assert_eq!((session.auth_time, session.amr.as_slice()), (START, &["pwd".to_owned()][..]));
    for _ in 0..2 {
        assert_eq!(read(&service.replica, &session.id, None).await.unwrap(), session);
    }
    let list = ListSessionsRequest { user_id: user.id, ..ListSessionsRequest::default() };
    let listed = service.users().list_sessions(list).await.unwrap().into_inner().sessions.remove(0);
    assert_eq!((listed.auth_time, listed.amr), (session.auth_time, session.amr));
}

async fn a_session_of_an_older_program_tells_when_it_began(service: &Service) {
    create(service, ada()).await;
    let session = login(service, "ada").await;
    service.execute("UPDATE sessions SET auth_time = 0, amr = ''").await;
    let fresh = service.another(|_| {}).await;
    let old = read(&fresh, &session.id, Some(60)).await.unwrap();
    assert_eq!((old.auth_time, old.amr.len()), (START, 0));
    service.clock.advance(Duration::from_secs(61));
    let status = read(&fresh, &session.id, Some(60)).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "REAUTHENTICATE");
}

/// (R25) Also of a session that is in memory.
async fn max_age_refuses_an_older_authentication(service: &Service) {
    create(service, ada()).await;
    let session = login(service, "ada").await;
    let replica = service.another(|config| config.cache.max_age = Duration::from_hours(1)).await;
    service.clock.advance(Duration::from_mins(1));
    for max_age in [None, Some(60), Some(i64::MAX)] {
        assert_eq!(read(&replica, &session.id, max_age).await.unwrap(), session);
    }
    service.clock.advance(Duration::from_micros(1));
    for _ in 0..2 {
        let status = read(&replica, &session.id, Some(60)).await.unwrap_err();
        assert_refused(&status, Code::FailedPrecondition, "REAUTHENTICATE");
    }
    assert_eq!(read(&replica, &session.id, None).await.unwrap(), session, "it stays open");

    let again = opened(service, LoginRequest { replace_session: session.id, ..by_name("ada") }).await;
    assert_eq!(again.auth_time, START + 60);
    read(&replica, &again.id, Some(60)).await.unwrap();
    for max_age in [0, -1, i64::MIN] {
        let status = read(&replica, "", Some(max_age)).await.unwrap_err();
        assert_eq!(fields(&status), ["session_id", "max_age"]);
    }
}

/// (R20)
async fn logging_in_again_ends_the_session_that_is_replaced(service: &Service) {
    let user = create(service, ada()).await;
    let (old, other) = (login(service, "ada").await, login(service, "ada").await);
    let replica = service.another(|config| config.cache.max_age = Duration::from_hours(1)).await;
    read(&replica, &old.id, None).await.unwrap();
    let replacing = LoginRequest { replace_session: old.id.clone(), ..by_name("ada") };
    let wrong = LoginRequest { password: "wrong".into(), ..replacing.clone() };
    service.users().login(wrong).await.unwrap_err();
    assert!(is_open(service, &old.id).await, "a wrong password ends nothing");

    let new = opened(service, replacing.clone()).await;
    assert!(!is_open(service, &old.id).await);
    until(async || read(&replica, &old.id, None).await.is_err()).await;
    assert!(is_open(service, &other.id).await && is_open(service, &new.id).await);
    let log = events(service, &user.id).await;
    assert_eq!(log[..2], [LogEvent::SessionCreated, LogEvent::SessionDeleted]);
    // With a session that has ended it is a log-in like any other.
    opened(service, replacing).await;
    assert_eq!(events(service, &user.id).await[..2], [LogEvent::SessionCreated, LogEvent::SessionCreated]);
}

async fn only_a_session_of_the_same_user_is_replaced(service: &Service) {
    create(service, ada()).await;
    create(service, nth(1)).await;
    let theirs = login(service, "user1").await;
    opened(service, LoginRequest { replace_session: theirs.id.clone(), ..by_name("ada") }).await;
    assert!(is_open(service, &theirs.id).await);
    let bad = LoginRequest { replace_session: "ses_x".into(), ..by_name("ada") };
    assert_eq!(fields(&service.users().login(bad).await.unwrap_err()), ["replace_session"]);
}

/// (R21) The end is not moved by reading.
async fn a_lifetime_is_chosen_within_the_setting(service: &Service) {
    const WEEK: i64 = 7 * 24 * 60 * 60;
    create(service, ada()).await;
    let lasting = |seconds: i64| LoginRequest { lifetime: Some(seconds), ..by_name("ada") };
    for seconds in [0, -1, i64::MIN, WEEK + 1, i64::MAX] {
        let bad = LoginRequest { replace_session: "x".into(), ..lasting(seconds) };
        let status = service.users().login(bad).await.unwrap_err();
        assert_eq!(fields(&status), ["lifetime", "replace_session"], "{seconds}");
    }
    assert_eq!(opened(service, lasting(WEEK)).await.expires, START + WEEK);
    assert_eq!(opened(service, lasting(1)).await.expires, START + 1);
    let short = opened(service, lasting(60)).await;
    assert_eq!(short.expires, START + 60);
    service.clock.advance(Duration::from_micros(59_999_999));
    assert_eq!(read(&service.replica, &short.id, None).await.unwrap(), short);
    service.clock.advance(Duration::from_micros(1));
    assert!(!is_open(service, &short.id).await);
}

fn changes(user: &User) -> [UpdateRequest; 2] {
    let of = || UpdateRequest { id: user.id.clone(), ..UpdateRequest::default() };
    [
        UpdateRequest { email: Some("new@example.com".into()), ..of() },
        UpdateRequest { sso_enabled: Some(true), ..of() },
    ]
}

/// (R25)
async fn sessions_end_when_the_address_or_the_way_to_sign_in_changes(service: &Service) {
    let user = create(service, ada()).await;
    let replica = service.another(|config| config.cache.max_age = Duration::from_hours(1)).await;
    for change in changes(&user) {
        let session = login(service, "ada").await;
        read(&replica, &session.id, None).await.unwrap();
        let rename = UpdateRequest { id: user.id.clone(), name: Some("Ada".into()), ..Default::default() };
        service.users().update(rename).await.unwrap();
        assert!(is_open(service, &session.id).await, "another field ends nothing");
        service.users().update(change.clone()).await.unwrap();
        assert!(!is_open(service, &session.id).await);
        until(async || read(&replica, &session.id, None).await.is_err()).await;
        // The same value is no change.
        if change.email.is_some() {
            let session = login(service, "ada").await;
            service.users().update(change).await.unwrap();
            assert!(is_open(service, &session.id).await);
        }
    }
    assert_refused(
        &try_login(service, "ada", PASSWORD).await.unwrap_err(),
        Code::Unauthenticated,
        "BAD_CREDENTIALS",
    );
}

async fn sessions_outlive_such_a_change_if_so_set(service: &Service) {
    let user = create(service, ada()).await;
    let lax = service.another(|config| config.sessions.end_on_change = false).await;
    let session = login(service, "ada").await;
    for change in changes(&user) {
        lax.users.clone().update(change).await.unwrap();
    }
    assert_eq!(read(&lax, &session.id, None).await.unwrap().email, "new@example.com");
}

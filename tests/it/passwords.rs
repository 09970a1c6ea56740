//! Passwords: changing them, and what they may be.

use std::time::Duration;

use http::{Method, StatusCode};
use tonic::Code;
use tonic_types::StatusExt as _;
use usersd::domain::password::{Password, PasswordHash};
use usersd::pb::{
    CreateRequest, LoginRequest, ReadSessionRequest, UpdatePasswordRequest, UpdateRequest, User,
};

use crate::support::{PASSWORD, START, Service, ada, assert_refused, create, fields, line, login};

crate::on_every_backend!(
    a_new_password_replaces_the_old_one_and_ends_the_sessions,
    the_named_session_stays_open,
    a_wrong_old_password_and_an_unknown_user_are_one_answer,
    every_fault_of_a_change_is_named_and_changes_nothing,
    a_password_in_an_update_ends_all_sessions,
    long_passwords_count_to_their_last_byte,
    a_password_is_the_same_however_it_is_composed,
    a_password_must_not_hold_the_users_names,
    a_hash_that_would_wait_too_long_is_refused_at_once,
    a_password_changed_during_the_hash_is_not_replaced,
    a_hash_that_would_miss_the_deadline_is_refused_at_once,
    every_refusal_costs_the_same_work,
);

fn change(user: &User) -> UpdatePasswordRequest {
    UpdatePasswordRequest {
        user_id: user.id.clone(),
        old_password: PASSWORD.into(),
        new_password: "another horse".into(),
        ..UpdatePasswordRequest::default()
    }
}

async fn signs_in(service: &Service, password: &str) -> bool {
    let request =
        LoginRequest { username: "ada".into(), password: password.into(), ..LoginRequest::default() };
    match service.users().login(request).await {
        Ok(_) => true,
        Err(status) => {
            assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
            false
        }
    }
}

async fn is_open(service: &Service, token: &str) -> bool {
    service.users().read_session(ReadSessionRequest { session_id: token.into(), max_age: None }).await.is_ok()
}

async fn a_new_password_replaces_the_old_one_and_ends_the_sessions(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    service.clock.advance(Duration::from_secs(3));
    let request = UpdatePasswordRequest { confirm_password: "another horse".into(), ..change(&user) };
    let changed = service.users().update_password(request).await.unwrap().into_inner().user.unwrap();
    assert_eq!((changed.password_updated, changed.updated), (START + 3, START + 3));
    assert!(changed.etag.ends_with("-2\""));
    assert!(!is_open(service, &session.id).await);
    assert!(!signs_in(service, PASSWORD).await);
    assert!(signs_in(service, "another horse").await);
    assert_eq!(service.number("SELECT count(*) FROM events WHERE action = 'PASSWORD_UPDATED'").await, 1);
}

async fn the_named_session_stays_open(service: &Service) {
    let user = create(service, ada()).await;
    let (kept, other) = (login(service, "ada").await, login(service, "ada").await);
    let request = UpdatePasswordRequest { keep_session: kept.id.clone(), ..change(&user) };
    service.users().update_password(request).await.unwrap();
    assert!(is_open(service, &kept.id).await);
    assert!(!is_open(service, &other.id).await);
}

/// (5, R13)
async fn a_wrong_old_password_and_an_unknown_user_are_one_answer(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    let events = "SELECT count(*) FROM events";
    let before = service.number(events).await;
    let mut answers = Vec::new();
    for request in [
        UpdatePasswordRequest { old_password: "wrong".into(), ..change(&user) },
        UpdatePasswordRequest { user_id: "nobody".into(), ..change(&user) },
    ] {
        let status = service.users().update_password(request).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
        answers.push((status.message().to_owned(), status.details().to_vec()));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(service.number(events).await, before + 2, "the same row for each");
    assert!(is_open(service, &session.id).await);
    assert!(signs_in(service, PASSWORD).await);
}

async fn every_fault_of_a_change_is_named_and_changes_nothing(service: &Service) {
    let user = create(service, ada()).await;
    let before = service.counts().await;
    let cases = [
        (UpdatePasswordRequest::default(), vec!["user_id", "old_password", "new_password"]),
        (UpdatePasswordRequest { new_password: String::new(), ..change(&user) }, vec!["new_password"]),
        (UpdatePasswordRequest { new_password: "short".into(), ..change(&user) }, vec!["new_password"]),
        (UpdatePasswordRequest { new_password: "x".repeat(129), ..change(&user) }, vec!["new_password"]),
        (
            UpdatePasswordRequest { new_password: "with a \0 nul".into(), ..change(&user) },
            vec!["new_password"],
        ),
        (
            UpdatePasswordRequest { confirm_password: "else".into(), ..change(&user) },
            vec!["confirm_password"],
        ),
    ];
    for (request, named) in cases {
        let status = service.users().update_password(request).await.unwrap_err();
        assert_eq!(fields(&status), named);
    }
    assert_eq!(service.counts().await, before);
}

async fn a_password_in_an_update_ends_all_sessions(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    let request = UpdateRequest {
        id: user.id,
        password: Some("another horse".into()),
        name: Some("Ada".into()),
        ..UpdateRequest::default()
    };
    let updated = service.users().update(request).await.unwrap().into_inner().user.unwrap();
    assert_eq!(updated.name, "Ada");
    assert!(!is_open(service, &session.id).await);
    assert!(!signs_in(service, PASSWORD).await);
    assert!(signs_in(service, "another horse").await);
}

/// (12, R2, R3, R4)
async fn long_passwords_count_to_their_last_byte(service: &Service) {
    let user = create(service, ada()).await;
    let mut old = PASSWORD.to_owned();
    for length in [72, 73, 128] {
        let new = format!("{}z", "x".repeat(length - 1));
        let request =
            UpdatePasswordRequest { old_password: old.clone(), new_password: new.clone(), ..change(&user) };
        service.users().update_password(request).await.unwrap();
        assert!(signs_in(service, &new).await, "{length}");
        for wrong in [&new[..length - 1], &format!("{new}z"), &format!("{}y", &new[..length - 1])] {
            assert!(!signs_in(service, wrong).await, "{length}");
        }
        old = new;
    }
    let stored = "SELECT count(*) FROM users WHERE password_hash LIKE '$bcrypt-sha256$v=2,t=2b,r=4$%'";
    assert_eq!(service.number(stored).await, 1);
}

/// (R6)
async fn a_password_is_the_same_however_it_is_composed(service: &Service) {
    create(service, CreateRequest { password: "pa\u{308}sswo\u{308}rter".into(), ..ada() }).await;
    assert!(signs_in(service, "pässwörter").await);
    assert!(signs_in(service, "pa\u{308}sswo\u{308}rter").await);
    assert!(!signs_in(service, "passworter").await);
    assert!(!signs_in(service, "pässwörter ").await, "never trimmed");
}

/// (R7)
async fn a_password_must_not_hold_the_users_names(service: &Service) {
    let named = CreateRequest { username: "lovelace".into(), ..ada() };
    let status =
        service.users().create(CreateRequest { password: "1-LoveLace-1".into(), ..named.clone() }).await;
    assert_eq!(fields(&status.unwrap_err()), ["password"]);
    let user = create(service, named.clone()).await;
    let request = UpdatePasswordRequest { new_password: "1-lovelace-1".into(), ..change(&user) };
    let status = service.users().update_password(request.clone()).await.unwrap_err();
    assert_eq!(fields(&status), ["new_password"]);
    // One who does not know the old password learns nothing of the names.
    let guess = UpdatePasswordRequest { old_password: "wrong".into(), ..request };
    let status = service.users().update_password(guess).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    let both = UpdateRequest {
        id: user.id.clone(),
        username: Some("countess".into()),
        password: Some("the countess 1".into()),
        ..UpdateRequest::default()
    };
    assert_eq!(fields(&service.users().update(both).await.unwrap_err()), ["password"]);
    // The setting switches it off.
    let mut lax = service.another(|config| config.passwords.screening = false).await;
    let weak = CreateRequest {
        username: "other".into(),
        email: "other@example.com".into(),
        password: "other-other".into(),
        ..named
    };
    lax.users.create(weak).await.unwrap();
}

/// (15)
async fn a_hash_that_would_wait_too_long_is_refused_at_once(service: &Service) {
    create(service, ada()).await;
    let before = service.counts().await;
    let busy = service.another(|config| config.passwords.max_wait = Duration::from_millis(1)).await;
    let slow = PasswordHash::from_trusted(format!("$2b$13${}", ".".repeat(53)));
    let password = Password::attempt("x".into());
    // All workers and lanes are at it for a while, however quick the machine is.
    let hashes =
        (0..4).map(|_| busy.hasher.admit(&line(), None).unwrap().verify(&password, Some(&slow), None));
    let hashing = futures_util::future::join_all(hashes);
    let calls = async {
        let mut users = busy.users.clone();
        let status = users.create(crate::support::nth(1)).await.unwrap_err();
        assert_refused(&status, Code::ResourceExhausted, "HASHER_BUSY");
        assert!(status.get_details_retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
        let login =
            LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
        assert_refused(&users.login(login).await.unwrap_err(), Code::ResourceExhausted, "HASHER_BUSY");
        let body = r#"{"username":"ada","password":"x"}"#;
        let json = [("content-type", "application/json")];
        let (status, headers, _) = busy.request(Method::POST, "/v1/sessions", body, &json).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert!(headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    };
    tokio::select! {
        biased;
        _ = hashing => panic!("four hashes at cost 13 took less than three refusals"),
        () = calls => {}
    }
    assert_eq!(service.counts().await, before);
}

async fn a_hash_that_would_miss_the_deadline_is_refused_at_once(service: &Service) {
    let slow = service.another(|config| config.passwords.cost = 15).await;
    let mut request = tonic::Request::new(ada());
    // Long enough to be let in, and too short for a hash of the cost that the server makes.
    request.set_timeout(Duration::from_millis(500));
    let status = slow.users.clone().create(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_refused(&status, Code::ResourceExhausted, "HASHER_BUSY");
    assert_eq!(slow.hasher.work().taken_on, 0);
}

async fn a_password_changed_during_the_hash_is_not_replaced(service: &Service) {
    let user = create(service, ada()).await;
    let (mut users, late) = (service.users(), change(&user));
    let late = async move { users.update_password(late).await.map(|_| ()) };
    let mut other = service.another(|_| {}).await; // whose hasher is free
    let first = UpdatePasswordRequest { new_password: "the first horse".into(), ..change(&user) };
    let meanwhile = async { drop(other.users.update_password(first).await.unwrap()) };
    let status = crate::support::during_the_hash(service, late, meanwhile).await;
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    assert!(signs_in(service, "the first horse").await);
    assert!(!signs_in(service, "another horse").await);
}

/// (1, 2, R13) What takes time is bcrypt: counted in rounds, since a clock would depend on the machine.
async fn every_refusal_costs_the_same_work(service: &Service) {
    let user = create(service, ada()).await;
    let passwordless = CreateRequest { password: String::new(), sso_enabled: true, ..crate::support::nth(1) };
    create(service, passwordless).await;
    let long = "x".repeat(10_000);
    let rounds = || service.replica.hasher.work().rounds_done;
    let mut costs = Vec::new();
    for (username, password) in [
        ("ada", "wrong"),
        ("nobody", "wrong"),
        ("not a username", "wrong"),
        ("user1", "wrong"),
        ("ada", ""),
        ("nobody", ""),
        ("ada", &long),
        ("nobody", &long),
    ] {
        let before = rounds();
        let request =
            LoginRequest { username: username.into(), password: password.into(), ..LoginRequest::default() };
        service.users().login(request).await.unwrap_err();
        costs.push(rounds() - before);
    }
    for id in [user.id.as_str(), "nobody"] {
        let before = rounds();
        let request =
            UpdatePasswordRequest { user_id: id.into(), old_password: "wrong".into(), ..change(&user) };
        service.users().update_password(request).await.unwrap_err();
        costs.push(rounds() - before);
    }
    assert_eq!(costs, [16; 10], "one hash at cost 4 each");
}

//! The side effects that limits on attempts must not have: right passwords locked out, untried attempts
//! counted, users revealed. The letters in brackets are those of the review that found each.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::Method;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use usersd::domain::caller::Caller;
use usersd::domain::namespace::Namespace;
use usersd::domain::password::Password;
use usersd::domain::session::{Device as DomainDevice, SessionRequest};
use usersd::error::Error;
use usersd::ops::login::Login;
use usersd::pb::{Device, LogEvent, LoginRequest, UnlockRequest, UpdatePasswordRequest, User};

use crate::steps::{RIVAL, events, happened, log};
use crate::support::{
    Backend, PASSWORD, Replica, START, Service, ada, assert_refused, create, during_the_hash, fields, from,
    login, nth, until,
};
use crate::throttle_limits::{assert_waits, assert_wrong, attempt, tries};

crate::on_every_backend!(
    a_lockout_does_not_reach_other_namespaces,
    a_caller_that_leaves_at_any_moment_leaves_nothing_counted,
    calls_that_hang_up_leave_nothing_counted,
    a_verdict_counts_and_is_logged_though_its_caller_left,
    an_attempt_whose_process_died_counts_for_some_minutes,
    attempts_in_flight_are_no_failures,
    right_passwords_by_the_hundred_wait_for_seconds_at_most,
    after_a_failure_those_in_flight_count_as_failures_in_a_row,
    a_password_is_changed_from_a_known_address_during_an_attack,
    a_password_is_changed_with_an_open_session_during_an_attack,
    a_session_of_another_user_makes_no_address_known,
    a_trusted_proxy_names_the_address_of_the_end_user,
    the_address_of_a_program_is_no_end_users,
    counts_of_a_clock_that_was_ahead_start_again,
    a_lockout_is_one_event,
    a_full_hour_is_one_event,
    a_password_with_a_nul_is_never_right,
    an_exhausted_address_does_not_reveal_who_logged_in_from_it,
    unlock_ends_waits_under_former_names_and_from_every_address,
    a_hundred_addresses_are_remembered,
);

const HOME: &str = "198.51.100.7";

/// The end user at `address` types `password`.
fn typed(username: &str, password: &str, address: &str) -> Login {
    let device = DomainDevice { address: address.parse().ok(), ..DomainDevice::default() };
    Login {
        username: Some(username.to_owned()),
        email: None,
        password: Password::attempt(password.to_owned()),
        session: SessionRequest { device, ..SessionRequest::default() },
    }
}

fn caller() -> Caller {
    Caller::server(Namespace::parse("default").unwrap())
}

/// Drops `future` when it was polled so often without an end; `None` then.
async fn dropped_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let (mut future, mut pending) = (pin!(future), 0);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            pending += 1;
            if pending == polls { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}

async fn sum(service: &Service, columns: &str) -> i64 {
    service.number(&format!("SELECT CAST(coalesce(sum({columns}), 0) AS BIGINT) FROM attempts")).await
}

/// For how many seconds an attempt is refused.
async fn refused_for(replica: &Replica, request: LoginRequest) -> u64 {
    retry_of(&tries(replica, request).await.unwrap_err())
}

#[track_caller]
fn retry_of(status: &Status) -> u64 {
    assert_refused(status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    status.get_details_retry_info().unwrap().retry_delay.unwrap().as_secs()
}

fn change(user: &User, old: &str) -> UpdatePasswordRequest {
    UpdatePasswordRequest {
        user_id: user.id.clone(),
        old_password: old.into(),
        new_password: "another horse".into(),
        ..UpdatePasswordRequest::default()
    }
}

async fn a_lockout_does_not_reach_other_namespaces(service: &Service) {
    let user = create(service, ada()).await;
    service.users().create(from(RIVAL, ada())).await.unwrap();
    let theirs = || from(RIVAL, attempt("ada", PASSWORD, ""));
    service.users().login(from(RIVAL, attempt("ada", "wrong", ""))).await.unwrap_err();
    for _ in 0..5 {
        assert_wrong(service, attempt("ada", "wrong", "")).await;
    }
    assert_waits(service, attempt("ada", PASSWORD, "")).await;
    let before = service.number("SELECT count(*) FROM attempts WHERE namespace = 'default'").await;
    // A right password and an Unlock there change nothing here.
    service.users().login(theirs()).await.unwrap();
    let elsewhere = service.users().unlock(from(RIVAL, UnlockRequest { id: user.id })).await.unwrap_err();
    assert_refused(&elsewhere, Code::NotFound, "USER_NOT_FOUND");
    assert_waits(service, attempt("ada", PASSWORD, "")).await;
    assert_eq!(service.number("SELECT count(*) FROM attempts WHERE namespace = 'default'").await, before);
    let locked = "SELECT count(*) FROM events WHERE action = 'LOCKED_OUT' AND namespace <> 'default'";
    assert_eq!(service.number(locked).await, 0);
}

/// (H1, L5) At each of its awaits: the operation is polled once, twice and so on, until it comes to its end.
/// Several times: an await that is over at once the one time takes a poll the other.
async fn a_caller_that_leaves_at_any_moment_leaves_nothing_counted(service: &Service) {
    create(service, ada()).await;
    let ops = &service.replica.ops;
    for _ in 0..5 {
        for polls in 1.. {
            let login =
                dropped_after(polls, Box::pin(ops.login(&caller(), typed("ada", PASSWORD, HOME)))).await;
            until(async || service.number("SELECT count(*) FROM attempts").await == 0).await;
            if login.is_some_and(|login| login.is_ok()) {
                assert!(polls > 1, "it came to its end at once");
                break;
            }
        }
    }
}

/// (H1) Over sockets, whenever that is.
async fn calls_that_hang_up_leave_nothing_counted(service: &Service) {
    create(service, ada()).await;
    for n in 0..100 {
        let call = tries(&service.replica, attempt("ada", PASSWORD, HOME));
        let _ = tokio::time::timeout(Duration::from_micros(250 * n), call).await;
    }
    until(async || service.number("SELECT count(*) FROM attempts").await == 0).await;
    assert_eq!(happened(service, LogEvent::LoginRefused).await, 0);
    tries(&service.replica, attempt("ada", PASSWORD, "")).await.unwrap();
}

/// (L4) A failure is counted and logged, or neither; and once its verdict is being stored it is, whoever
/// waits for it.
async fn a_verdict_counts_and_is_logged_though_its_caller_left(service: &Service) {
    create(service, ada()).await;
    let patient = service.another(|config| config.throttle.free = 1_000).await;
    *patient.statements.lock().unwrap() = Some(Vec::new());
    let begun = || {
        let noted = patient.statements.lock().unwrap();
        let events = noted.iter().flatten().filter(|statement| statement.sql.contains("INTO \"events\""));
        i64::try_from(events.count()).unwrap()
    };
    for _ in 0..5 {
        for polls in 1.. {
            let guess =
                dropped_after(polls, Box::pin(patient.ops.login(&caller(), typed("ada", "wrong", "")))).await;
            until(async || sum(service, "pending").await == 0).await;
            until(async || happened(service, LogEvent::LoginRefused).await == begun()).await;
            let failures = sum(service, "streak").await;
            assert_eq!(failures, begun(), "{polls}");
            assert_eq!(sum(service, "spent").await, 2 * failures, "under the name, and for the account");
            if let Some(guess) = guess {
                assert!(matches!(guess, Err(Error::BadCredentials)));
                break;
            }
        }
    }
}

/// What it had reserved is as it would be when the process was killed.
async fn an_attempt_whose_process_died_counts_for_some_minutes(service: &Service) {
    create(service, ada()).await;
    assert_wrong(service, attempt("ada", "wrong", "")).await;
    service.execute("UPDATE attempts SET pending = 90, streak = 0").await;
    assert_eq!(assert_waits(service, attempt("ada", PASSWORD, "")).await, 1);
    service.clock.advance(Duration::from_mins(4));
    tries(&service.replica, attempt("ada", PASSWORD, "")).await.unwrap();
}

/// (M3)
async fn attempts_in_flight_are_no_failures(service: &Service) {
    create(service, ada()).await;
    let one = service.another(|config| config.throttle.account = 1).await;
    let replica = service.replica.users.clone();
    let call = async move {
        replica.clone().login(attempt("ada", PASSWORD, "")).await?;
        Err(Status::ok("signed in"))
    };
    let meanwhile = async {
        assert_eq!(
            refused_for(&one, attempt("ada", PASSWORD, "")).await,
            1,
            "until the other has its verdict"
        );
    };
    assert_eq!(during_the_hash(service, call, meanwhile).await.message(), "signed in");
    tries(&one, attempt("ada", PASSWORD, "")).await.unwrap();
    // One that failed is a failure.
    assert_refused(
        &tries(&one, attempt("ada", "wrong", "")).await.unwrap_err(),
        Code::Unauthenticated,
        "BAD_CREDENTIALS",
    );
    assert!(refused_for(&one, attempt("ada", PASSWORD, "")).await > 60);
}

/// (M3) Where the machine is too slow for so many the database is busy, which is no lock either.
async fn right_passwords_by_the_hundred_wait_for_seconds_at_most(service: &Service) {
    create(service, ada()).await;
    let logins = (0..160).map(|_| tries(&service.replica, attempt("ada", PASSWORD, "")));
    for answer in futures_util::future::join_all(logins).await {
        match answer {
            Err(busy) if busy.code() == Code::Unavailable => {
                assert_refused(&busy, busy.code(), "DATABASE_UNAVAILABLE");
            }
            Err(status) => assert!(retry_of(&status) <= 5, "{status:?}"),
            Ok(()) => {}
        }
    }
    until(async || service.number("SELECT count(*) FROM attempts").await == 0).await;
    tries(&service.replica, attempt("ada", PASSWORD, "")).await.unwrap();
}

/// (L3) Guesses side by side do not pass the waits that those one after the other have.
async fn after_a_failure_those_in_flight_count_as_failures_in_a_row(service: &Service) {
    create(service, ada()).await;
    let two = service.another(|config| config.throttle.free = 2).await;
    assert_wrong(service, attempt("ada", "wrong", "")).await;
    let mut users = service.users();
    let call = async move { users.login(attempt("ada", "wrong", "")).await.map(|_| ()) };
    let meanwhile = async {
        assert_eq!(refused_for(&two, attempt("ada", "wrong", "")).await, 1);
    };
    let status = during_the_hash(service, call, meanwhile).await;
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    assert_eq!(refused_for(&two, attempt("ada", PASSWORD, "")).await, 30);
}

/// Strangers spend what they may of an account's failures.
async fn strangers_fail(service: &Service, user: &User) -> Replica {
    let patient =
        service.another(|config| (config.throttle.free, config.throttle.account) = (1_000, 20)).await;
    for _ in 0..18 {
        let status = patient.users.clone().update_password(change(user, "wrong")).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    let stranger = patient.users.clone().update_password(change(user, PASSWORD)).await.unwrap_err();
    assert_refused(&stranger, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    patient
}

/// (M1, R12)
async fn a_password_is_changed_from_a_known_address_during_an_attack(service: &Service) {
    let user = create(service, ada()).await;
    tries(&service.replica, attempt("ada", PASSWORD, HOME)).await.unwrap();
    let patient = strangers_fail(service, &user).await;
    let device = Some(Device { address: HOME.into(), user_agent: "a browser".into() });
    let request = UpdatePasswordRequest { device, ..change(&user, PASSWORD) };
    patient.users.clone().update_password(request).await.unwrap();
    let entry = log(service, &user.id).await.remove(0);
    assert_eq!((entry.event(), entry.device.unwrap().address), (LogEvent::PasswordUpdated, HOME.to_owned()));
    let device = Some(Device { address: "nowhere".into(), ..Device::default() });
    let request = UpdatePasswordRequest { device, ..change(&user, PASSWORD) };
    let status = service.users().update_password(request).await.unwrap_err();
    assert_eq!(fields(&status), ["device.address"]);
}

/// (M1)
async fn a_password_is_changed_with_an_open_session_during_an_attack(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    let patient = strangers_fail(service, &user).await;
    let kept = |old| UpdatePasswordRequest { keep_session: session.id.clone(), ..change(&user, old) };
    // It has waits of its own, and counts for the account.
    let status = patient.users.clone().update_password(kept("wrong")).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    patient.users.clone().update_password(kept(PASSWORD)).await.unwrap();
    assert!(crate::steps::is_open(service, &session.id).await);
}

async fn a_session_of_another_user_makes_no_address_known(service: &Service) {
    let user = create(service, ada()).await;
    create(service, nth(1)).await;
    let others = login(service, "user1").await;
    let ended = login(service, "ada").await;
    let end = usersd::pb::LogoutRequest { session_id: ended.id.clone() };
    service.users().logout(end).await.unwrap();
    let patient = strangers_fail(service, &user).await;
    for token in [others.id, ended.id] {
        let request = UpdatePasswordRequest { keep_session: token, ..change(&user, PASSWORD) };
        let status = patient.users.clone().update_password(request).await.unwrap_err();
        assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    }
}

/// Logs in by the micro dialect, as forwarded for `client`.
async fn forwarded(replica: &Replica, password: &str, client: &str) -> u16 {
    let body = format!(r#"{{"username":"ada","password":"{password}"}}"#);
    let headers = [("content-type", "application/json"), ("x-forwarded-for", client)];
    replica.request(Method::POST, "/users/login", body, &headers).await.0.as_u16()
}

/// (M2)
async fn a_trusted_proxy_names_the_address_of_the_end_user(service: &Service) {
    create(service, ada()).await;
    let proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let behind = service.another(|config| config.http.trusted_proxies = proxies).await;
    assert_eq!(forwarded(&behind, PASSWORD, HOME).await, 200);
    for _ in 0..5 {
        assert_eq!(forwarded(&behind, "wrong", "203.0.113.1").await, 401);
    }
    assert_eq!(forwarded(&behind, PASSWORD, "203.0.113.1").await, 429);
    assert_eq!(forwarded(&behind, PASSWORD, "203.0.113.2").await, 429);
    assert_eq!(forwarded(&behind, PASSWORD, HOME).await, 200, "the owner, at home");
    // What the caller says counts for more than what the proxy says.
    let device = Some(Device { address: "203.0.113.3".into(), ..Device::default() });
    let mut request = tonic::Request::new(LoginRequest { device, ..attempt("ada", PASSWORD, "") });
    request.metadata_mut().insert("x-forwarded-for", HOME.parse().unwrap());
    retry_of(&behind.users.clone().login(request).await.unwrap_err());
}

/// (M2) It calls for many users: its failures would be everyone's.
async fn the_address_of_a_program_is_no_end_users(service: &Service) {
    create(service, ada()).await;
    let few = service.another(|config| (config.throttle.address, config.throttle.free) = (2, 1_000)).await;
    for _ in 0..5 {
        assert_eq!(forwarded(&few, "wrong", HOME).await, 401, "not from a proxy that is trusted");
    }
    assert_eq!(forwarded(&few, PASSWORD, HOME).await, 200);
    assert_eq!(service.number("SELECT count(*) FROM familiar_places").await, 0);
}

/// (M9)
async fn counts_of_a_clock_that_was_ahead_start_again(service: &Service) {
    create(service, ada()).await;
    let address = "203.0.113.1";
    let ahead = "UPDATE attempts SET hour = hour + 8760, spent = 1000, streak = 12, pending = 1000, \
                 pending_window = pending_window + 262800, failed = failed + 31536000000000";
    assert_wrong(service, attempt("ada", "wrong", address)).await;
    service.execute(ahead).await;
    assert_wrong(service, attempt("ada", "wrong", address)).await;
    assert_eq!(sum(service, "spent").await, 3, "name, account and address");
    assert_eq!(sum(service, "streak").await, 1);
    assert_eq!(sum(service, "pending").await, 0);
    tries(&service.replica, attempt("ada", PASSWORD, address)).await.unwrap();
    // An hour ahead may be another replica's.
    for _ in 0..5 {
        assert_wrong(service, attempt("ada", "wrong", "203.0.113.2")).await;
    }
    service.execute("UPDATE attempts SET hour = hour + 1, failed = failed + 3600000000, streak = 12").await;
    assert_eq!(
        assert_waits(service, attempt("ada", PASSWORD, "203.0.113.2")).await,
        3600,
        "the longest wait"
    );
    service.execute(ahead).await;
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM attempts").await, 0);
}

/// Whether or not there is such a user.
async fn a_lockout_is_one_event(service: &Service) {
    let user = create(service, ada()).await;
    for name in ["ada", "nobody"] {
        for _ in 0..5 {
            assert_wrong(service, attempt(name, "wrong", HOME)).await;
        }
        for _ in 0..3 {
            assert_waits(service, attempt(name, "wrong", HOME)).await;
        }
    }
    assert_eq!(happened(service, LogEvent::LockedOut).await, 2);
    let entry = log(service, &user.id).await.remove(0);
    assert_eq!((entry.event(), entry.device.unwrap().address), (LogEvent::LockedOut, HOME.to_owned()));
    service.clock.advance(Duration::from_secs(30));
    assert_wrong(service, attempt("ada", "wrong", HOME)).await;
    assert_waits(service, attempt("ada", "wrong", HOME)).await;
    assert_eq!(happened(service, LogEvent::LockedOut).await, 3, "the next wait");
}

/// A burst of guesses begins a wait and an hour that is full, whichever comes first, once each.
async fn a_full_hour_is_one_event(service: &Service) {
    let user = create(service, ada()).await;
    let few = service.another(|config| (config.throttle.account, config.throttle.free) = (6, 1_000)).await;
    let guesses = (0..20).map(|_| tries(&few, attempt("ada", "wrong", "")));
    futures_util::future::join_all(guesses).await;
    while let Err(status) = tries(&few, attempt("ada", "wrong", "")).await {
        if status.code() == Code::ResourceExhausted && retry_of(&status) > 1 {
            break;
        }
    }
    let log = events(service, &user.id).await;
    assert_eq!(log.iter().filter(|event| **event == LogEvent::LoginRefused).count(), 6);
    assert_eq!(log.iter().filter(|event| **event == LogEvent::LockedOut).count(), 1);
}

/// (L1)
async fn a_password_with_a_nul_is_never_right(service: &Service) {
    create(service, ada()).await;
    let cyclic = format!("{PASSWORD}\0{PASSWORD}");
    let rounds = service.replica.hasher.work().rounds_done;
    assert_wrong(service, attempt("ada", &cyclic, "")).await;
    assert_eq!(service.replica.hasher.work().rounds_done - rounds, 16, "after the same work");
}

/// (L2)
async fn an_exhausted_address_does_not_reveal_who_logged_in_from_it(service: &Service) {
    let few = service.another(|config| config.throttle.address = 3).await;
    create(service, ada()).await;
    create(service, nth(1)).await;
    tries(&few, attempt("ada", PASSWORD, HOME)).await.unwrap();
    for n in 0..3 {
        let guess = attempt(&format!("nobody{n}"), "wrong", HOME);
        assert_refused(&tries(&few, guess).await.unwrap_err(), Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    let rounds = few.hasher.work().rounds_done;
    let names = ["ada", "user1", "nobody"];
    let mut answers = Vec::new();
    for name in names {
        let status = tries(&few, attempt(name, "wrong", HOME)).await.unwrap_err();
        answers.push((retry_of(&status), status.message().to_owned(), status.details().to_vec()));
    }
    assert_eq!(few.hasher.work().rounds_done - rounds, 3 * 16, "the same work");
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    // The right password helps users who are known there, and no others: that would reveal that it is right.
    assert_eq!(refused_for(&few, attempt("user1", PASSWORD, HOME)).await, answers[0].0);
    tries(&few, attempt("ada", PASSWORD, HOME)).await.unwrap();
    // What is refused counts nothing.
    assert_eq!(sum(service, "pending").await, 0);
    tries(&few, attempt("user1", PASSWORD, "203.0.113.5")).await.unwrap();
}

/// (L15)
async fn unlock_ends_waits_under_former_names_and_from_every_address(service: &Service) {
    let user = create(service, ada()).await;
    for n in 0..3 {
        let address = format!("198.51.100.{n}");
        tries(&service.replica, attempt("ada", PASSWORD, &address)).await.unwrap();
        for _ in 0..5 {
            assert_wrong(service, attempt("ada", "wrong", &address)).await;
        }
    }
    for _ in 0..5 {
        assert_wrong(service, attempt("ada", "wrong", "")).await;
    }
    service.execute("DELETE FROM familiar_places").await;
    let rename = usersd::pb::UpdateRequest {
        id: user.id.clone(),
        username: Some("lovelace".into()),
        ..usersd::pb::UpdateRequest::default()
    };
    service.users().update(rename).await.unwrap();
    service.users().unlock(UnlockRequest { id: user.id.clone() }).await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM attempts").await, 0);
}

/// (L15)
async fn a_hundred_addresses_are_remembered(service: &Service) {
    let user = create(service, ada()).await;
    let place = match service.backend {
        Backend::Sqlite => "CAST(printf('%032d', n) AS BLOB)",
        Backend::Postgres => "convert_to(lpad(n::text, 32, '0'), 'UTF8')",
    };
    let before = START * 1_000_000 - 1_000; // not so long ago that they would be removed
    let many = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 150) \
         INSERT INTO familiar_places SELECT 'default', '{}', {place}, {before} + n FROM numbers",
        user.id
    );
    service.execute(&many).await;
    tries(&service.replica, attempt("ada", PASSWORD, HOME)).await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM familiar_places").await, 100);
    let oldest = service.number("SELECT min(seen) FROM familiar_places").await;
    assert_eq!(oldest - before, 52, "the oldest are out");
    for _ in 0..5 {
        assert_wrong(service, attempt("ada", "wrong", "")).await;
    }
    tries(&service.replica, attempt("ada", PASSWORD, HOME)).await.unwrap();
}

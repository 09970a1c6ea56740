//! The limits on guessing passwords: failures, waits, and what the answers reveal. The numbers in brackets
//! are those of the defects of other services and of the rules that `tests/README.md` lists ("Faults
//! known from other systems").

use std::time::Duration;

use sea_orm::ConnectionTrait as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use usersd::config::Config;
use usersd::pb::{
    CreateRequest, Device, LogEvent, LoginRequest, UnlockRequest, UpdatePasswordRequest, UserStatus,
};
use usersd::throttle::rest_of_hour;

use crate::steps::{assert_hidden, log, set_status};
use crate::support::{PASSWORD, Replica, Service, ada, assert_refused, create, nth, until};

crate::on_every_backend!(
    guesses_at_one_account_run_at_most_a_hundred_hashes_on_all_replicas,
    the_limit_holds_across_the_turn_of_the_hour_and_slow_clocks,
    a_refused_attempt_costs_no_write,
    right_passwords_at_the_same_time_all_succeed,
    after_five_failures_each_one_waits_longer,
    a_right_password_ends_the_waits,
    other_spellings_of_a_name_count_together,
    failures_from_unknown_addresses_do_not_lock_out_a_known_one,
    failures_under_every_name_count_for_the_account,
    failures_under_two_names_leave_a_tenth_to_a_known_address,
    a_wrong_old_password_counts,
    an_address_that_fails_with_many_users_waits,
    a_caller_that_passes_too_many_failures_on_waits_if_so_set,
    the_right_password_of_a_blocked_user_is_no_failure,
    waits_do_not_reveal_which_users_exist,
    an_attempt_whose_caller_leaves_during_the_hash_is_no_failure,
    unlock_ends_the_waits,
    unlock_is_hidden_from_others,
    outdated_counts_are_deleted,
);

pub(crate) fn attempt(username: &str, password: &str, address: &str) -> LoginRequest {
    let device = (!address.is_empty()).then(|| Device { address: address.into(), ..Device::default() });
    LoginRequest { username: username.into(), password: password.into(), device, ..LoginRequest::default() }
}

fn by_mail(password: &str) -> LoginRequest {
    LoginRequest { email: "ada@example.com".into(), ..attempt("", password, "") }
}

pub(crate) async fn tries(replica: &Replica, request: LoginRequest) -> Result<(), Status> {
    replica.users.clone().login(request).await.map(|_| ())
}

/// Fails unless the password was looked at and found wrong.
pub(crate) async fn assert_wrong(service: &Service, request: LoginRequest) {
    let status = tries(&service.replica, request).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
}

/// Fails unless the attempt was refused unseen. For how long.
pub(crate) async fn assert_waits(service: &Service, request: LoginRequest) -> u64 {
    let hashes = service.replica.hasher.work().taken_on;
    let status = tries(&service.replica, request).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    assert_eq!(service.replica.hasher.work().taken_on, hashes, "no hash for what is refused");
    status.get_details_retry_info().unwrap().retry_delay.unwrap().as_secs()
}

/// (8, R11) The count is one statement before the hash, so that guesses side by side are all seen.
async fn guesses_at_one_account_run_at_most_a_hundred_hashes_on_all_replicas(service: &Service) {
    create(service, ada()).await;
    let other = service.another(|_| {}).await;
    let hashes = || service.replica.hasher.work().taken_on + other.hasher.work().taken_on;
    let before = hashes();
    let guesses = (0..101).map(|n| {
        let replica = if n % 2 == 0 { &service.replica } else { &other };
        tries(replica, attempt("ada", "a wrong guess", ""))
    });
    for answer in futures_util::future::join_all(guesses).await {
        let status = answer.unwrap_err();
        let reason = status.get_details_error_info().unwrap().reason;
        assert!(["BAD_CREDENTIALS", "TOO_MANY_ATTEMPTS"].contains(&&*reason), "{status:?}");
    }
    let run = hashes() - before;
    assert!((5..=90).contains(&run), "{run}: strangers have ninety of a hundred");
    service.clock.advance(Duration::from_mins(59));
    for _ in 0..100 {
        let _ = tries(&other, attempt("ada", "a wrong guess", "")).await;
    }
    assert!(hashes() - before <= 100, "within one hour, whatever hour of the clock it is");
}

/// (R11) Eighteen of twenty are for unknown addresses; those of the hour before count, and a replica whose clock is
/// behind counts in the hour that the others are in.
async fn the_limit_holds_across_the_turn_of_the_hour_and_slow_clocks(service: &Service) {
    let twenty = |config: &mut Config| (config.throttle.account, config.throttle.free) = (20, 1_000);
    create(service, ada()).await;
    let minutes = |n| Duration::from_mins(n);
    service.clock.advance(rest_of_hour(service.clock.now()) + minutes(5));
    let here = service.another(twenty).await;
    let behind = service.another_behind(minutes(10), twenty).await;
    let fail = async |replica: &Replica, times| {
        for n in 0..times {
            let status = tries(replica, attempt("ada", "a wrong guess", "")).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{n} of {times}: {status:?}");
        }
    };
    fail(&behind, 8).await;
    fail(&here, 6).await;
    fail(&behind, 4).await;
    for replica in [&here, &behind] {
        let status = tries(replica, attempt("ada", PASSWORD, "")).await.unwrap_err();
        assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    }
    service.clock.advance(minutes(56));
    fail(&here, 8).await;
    let status = tries(&here, attempt("ada", PASSWORD, "")).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
}

/// An attack is refused many times, and writes go one after the other. (R13) Whether or not there is
/// such a user.
async fn a_refused_attempt_costs_no_write(service: &Service) {
    create(service, ada()).await;
    let hour = rest_of_hour(service.clock.now());
    service.clock.advance(hour);
    let five = service.another(|config| (config.throttle.account, config.throttle.free) = (5, 1_000)).await;
    for name in ["ada", "nobody"] {
        for _ in 0..5 {
            assert_wrong(service, attempt(name, "a wrong guess", "")).await;
        }
    }
    let writer = service.replica.store.begin_as_server().await.unwrap();
    writer.execute_unprepared("UPDATE attempts SET spent = spent").await.unwrap();
    // One because of failures in a row, the other because of those in an hour.
    for replica in [&service.replica, &five] {
        for name in ["ada", "nobody"] {
            let waiting = tries(replica, attempt(name, PASSWORD, ""));
            let status = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap_err();
            assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        }
    }
    drop(writer);
}

/// (9) What is counted before it is known to be wrong must not keep out those who are right.
async fn right_passwords_at_the_same_time_all_succeed(service: &Service) {
    create(service, ada()).await;
    let other = service.another(|_| {}).await;
    let logins = (0..50).map(|n| {
        let replica = if n % 2 == 0 { &service.replica } else { &other };
        tries(replica, attempt("ada", PASSWORD, "192.0.2.1"))
    });
    for answer in futures_util::future::join_all(logins).await {
        answer.unwrap();
    }
    assert_eq!(service.number("SELECT count(*) FROM attempts").await, 0, "all given back");
}

/// (R11)
async fn after_five_failures_each_one_waits_longer(service: &Service) {
    create(service, ada()).await;
    for _ in 0..5 {
        assert_wrong(service, attempt("ada", "wrong", "")).await;
    }
    for seconds in [30, 60, 120, 240] {
        assert_eq!(assert_waits(service, attempt("ada", PASSWORD, "")).await, seconds, "right or wrong");
        service.clock.advance(Duration::from_secs(seconds - 1));
        assert_eq!(assert_waits(service, attempt("ada", "wrong", "")).await, 1);
        service.clock.advance(Duration::from_secs(1));
        assert_wrong(service, attempt("ada", "wrong", "")).await;
    }
}

/// (10)
async fn a_right_password_ends_the_waits(service: &Service) {
    create(service, ada()).await;
    for _ in 0..3 {
        for _ in 0..4 {
            assert_wrong(service, attempt("ada", "wrong", "")).await;
        }
        tries(&service.replica, attempt("ada", PASSWORD, "")).await.unwrap();
    }
}

/// (11)
async fn other_spellings_of_a_name_count_together(service: &Service) {
    create(service, ada()).await;
    for name in ["ada", "ADA", "Ada", "aDa", "adA"] {
        assert_wrong(service, attempt(name, "wrong", "")).await;
    }
    assert_waits(service, attempt("AdA", PASSWORD, "")).await;
}

/// (R12)
async fn failures_from_unknown_addresses_do_not_lock_out_a_known_one(service: &Service) {
    create(service, ada()).await;
    let home = "198.51.100.7";
    tries(&service.replica, attempt("ada", PASSWORD, home)).await.unwrap();
    for _ in 0..5 {
        assert_wrong(service, attempt("ada", "wrong", "203.0.113.1")).await;
    }
    for address in ["203.0.113.1", "203.0.113.2", ""] {
        assert_waits(service, attempt("ada", PASSWORD, address)).await;
    }
    tries(&service.replica, attempt("ada", PASSWORD, home)).await.unwrap();
    // It has waits of its own.
    for _ in 0..5 {
        assert_wrong(service, attempt("ada", "wrong", home)).await;
    }
    assert_eq!(assert_waits(service, attempt("ada", PASSWORD, home)).await, 30);
}

/// A name that is free to try must not lead to an account that has been tried enough, and must not say so
/// either.
async fn failures_under_every_name_count_for_the_account(service: &Service) {
    create(service, ada()).await;
    let few = service.another(|config| config.throttle.account = 6).await;
    for n in 0..6 {
        let request = if n % 2 == 0 { attempt("ada", "wrong", "") } else { by_mail("wrong") };
        assert_refused(&tries(&few, request).await.unwrap_err(), Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    let right = tries(&few, by_mail(PASSWORD)).await.unwrap_err();
    assert_refused(&right, Code::Unauthenticated, "BAD_CREDENTIALS");
    assert_eq!(few.hasher.work().rounds_done, 7 * 16, "the same work");
}

/// (R12)
async fn failures_under_two_names_leave_a_tenth_to_a_known_address(service: &Service) {
    create(service, ada()).await;
    let home = "198.51.100.7";
    let patient = service.another(|config| config.throttle.free = 1_000).await;
    tries(&patient, attempt("ada", PASSWORD, home)).await.unwrap();
    for n in 0..110 {
        let device = Some(Device { address: format!("203.0.113.{n}"), ..Device::default() });
        let guess = if n < 90 { attempt("ada", "wrong", "") } else { by_mail("wrong") };
        let status = tries(&patient, LoginRequest { device, ..guess }).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    tries(&patient, attempt("ada", PASSWORD, home)).await.unwrap();
    // Its own failures are what ends the rest.
    for _ in 0..10 {
        let status = tries(&patient, attempt("ada", "wrong", home)).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    let status = tries(&patient, attempt("ada", PASSWORD, home)).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
}

/// (R9)
async fn a_wrong_old_password_counts(service: &Service) {
    let user = create(service, ada()).await;
    let change = |old: &str| UpdatePasswordRequest {
        user_id: user.id.clone(),
        old_password: old.into(),
        new_password: "another horse".into(),
        ..UpdatePasswordRequest::default()
    };
    for _ in 0..5 {
        let status = service.users().update_password(change("wrong")).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    let status = service.users().update_password(change(PASSWORD)).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    service.clock.advance(Duration::from_secs(30));
    // Nor is it a failure if the new one is refused.
    for _ in 0..6 {
        let own = UpdatePasswordRequest { new_password: "ada@example.com".into(), ..change(PASSWORD) };
        let status = service.users().update_password(own).await.unwrap_err();
        assert_refused(&status, Code::InvalidArgument, "FIELD_INVALID");
    }
    service.users().update_password(change(PASSWORD)).await.unwrap();
}

async fn an_address_that_fails_with_many_users_waits(service: &Service) {
    let few = service.another(|config| config.throttle.address = 4).await;
    create(service, ada()).await;
    for n in 0..4 {
        let guess = attempt(&format!("user{n}"), "wrong", "203.0.113.1");
        assert_refused(&tries(&few, guess).await.unwrap_err(), Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    let status = tries(&few, attempt("ada", PASSWORD, "203.0.113.1")).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    tries(&few, attempt("ada", PASSWORD, "203.0.113.2")).await.unwrap();
    // Nor does who shares an address keep out those who are known there.
    tries(&service.replica, attempt("ada", PASSWORD, "203.0.113.1")).await.unwrap();
    tries(&few, attempt("ada", PASSWORD, "203.0.113.1")).await.unwrap();
}

async fn a_caller_that_passes_too_many_failures_on_waits_if_so_set(service: &Service) {
    let few = service.another(|config| config.throttle.caller = 4).await;
    create(service, ada()).await;
    let home = "198.51.100.7";
    tries(&few, attempt("ada", PASSWORD, home)).await.unwrap();
    for n in 0..4 {
        let guess = attempt(&format!("user{n}"), "wrong", &format!("203.0.113.{n}"));
        assert_refused(&tries(&few, guess).await.unwrap_err(), Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    let status = tries(&few, attempt("ada", PASSWORD, "")).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    tries(&few, attempt("ada", PASSWORD, home)).await.unwrap();
    tries(&service.replica, attempt("ada", PASSWORD, "")).await.unwrap();
}

/// (7, 9) Only the right password reveals it, and it costs nothing.
async fn the_right_password_of_a_blocked_user_is_no_failure(service: &Service) {
    let user = create(service, ada()).await;
    set_status(service, &user.id, UserStatus::Blocked).await;
    for _ in 0..7 {
        let status = tries(&service.replica, attempt("ada", PASSWORD, "")).await.unwrap_err();
        assert_refused(&status, Code::PermissionDenied, "USER_BLOCKED");
    }
    assert_wrong(service, attempt("ada", "wrong", "")).await;
}

/// (1, 2, 4, 5, R13) The same answers, rows and statements for who exists, who does not, who has no password
/// and who is blocked, with wrong, empty and very long passwords.
async fn waits_do_not_reveal_which_users_exist(service: &Service) {
    create(service, ada()).await;
    create(service, CreateRequest { password: String::new(), sso_enabled: true, ..nth(1) }).await;
    let blocked = create(service, nth(2)).await;
    set_status(service, &blocked.id, UserStatus::Blocked).await;
    let long = "x".repeat(30_000);
    let mut seen = Vec::new();
    for name in ["ada", "user1", "user2", "nobody"] {
        let (before, mut answers) = (rows(service).await, Vec::new());
        *service.replica.statements.lock().unwrap() = Some(Vec::new());
        for password in ["wrong", "", &long, "wrong", "wrong", "wrong", "wrong"] {
            let status = tries(&service.replica, attempt(name, password, "203.0.113.9")).await.unwrap_err();
            answers.push((status.code(), status.message().to_owned(), status.details().to_vec()));
        }
        let statements = service.replica.statements.lock().unwrap().take().unwrap();
        let mut texts: Vec<String> = statements.into_iter().map(|statement| statement.sql).collect();
        // What runs once is housekeeping's: each attempt makes the same statements.
        let all = texts.clone();
        texts.retain(|sql| all.iter().filter(|other| *other == sql).count() > 1);
        // The server's own, for no call, and some of it more than once.
        let own = ["keys_version", "total_changes()", "users_search", "user_totals"];
        texts.retain(|sql| !own.iter().any(|other| sql.contains(other)));
        texts.dedup(); // a number after the last user's is drawn again, for any user
        let after = rows(service).await;
        let written: Vec<i64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        seen.push((answers, texts, written));
    }
    assert_eq!(seen[0].0[4].0, Code::Unauthenticated);
    assert_eq!(seen[0].0[5].0, Code::ResourceExhausted, "the sixth waits");
    for other in &seen[1..] {
        assert_eq!(other.0, seen[0].0);
        assert_eq!(other.1, seen[0].1);
    }
    // The first one also made the row of the address.
    assert_eq!(seen[0].2, [6, 3], "five refusals and a lock-out");
    assert_eq!([&seen[1].2, &seen[2].2, &seen[3].2], [&[6, 2]; 3]);
}

async fn rows(service: &Service) -> [i64; 2] {
    let events = service.number("SELECT count(*) FROM events").await;
    [events, service.number("SELECT count(*) FROM attempts").await]
}

async fn an_attempt_whose_caller_leaves_during_the_hash_is_no_failure(service: &Service) {
    create(service, ada()).await;
    assert_wrong(service, attempt("ada", "wrong", "")).await;
    let spent = async || service.number("SELECT CAST(sum(spent + pending) AS BIGINT) FROM attempts").await;
    let streaks = async || service.number("SELECT CAST(sum(streak) AS BIGINT) FROM attempts").await;
    let before = (spent().await, streaks().await);
    let (leave, left) = tokio::sync::oneshot::channel::<()>();
    let mut users = service.users();
    let call = async move {
        tokio::select! {
            answer = users.login(attempt("ada", "wrong", "")) => answer.map(|_| ()),
            _ = left => Err(Status::cancelled("left")),
        }
    };
    let meanwhile = async {
        assert!(spent().await > before.0, "counted before the hash");
        leave.send(()).unwrap();
        until(async || spent().await == before.0).await;
    };
    let status = crate::support::during_the_hash(service, call, meanwhile).await;
    assert_eq!(status.code(), Code::Cancelled);
    assert_eq!(streaks().await, before.1, "nor does it end the failures in a row");
}

async fn unlock_ends_the_waits(service: &Service) {
    let user = create(service, ada()).await;
    let home = "198.51.100.7";
    tries(&service.replica, attempt("ada", PASSWORD, home)).await.unwrap();
    for address in ["", home] {
        for _ in 0..5 {
            assert_wrong(service, attempt("ada", "wrong", address)).await;
        }
        assert_waits(service, attempt("ada", PASSWORD, address)).await;
    }
    let unlock = UnlockRequest { id: user.id.clone() };
    let unlocked = service.users().unlock(unlock).await.unwrap().into_inner().user.unwrap();
    assert_eq!(unlocked.etag, user.etag);
    assert_eq!(log(service, &user.id).await[0].event(), LogEvent::UserUnlocked);
    for address in ["", home] {
        tries(&service.replica, attempt("ada", PASSWORD, address)).await.unwrap();
    }
}

async fn unlock_is_hidden_from_others(service: &Service) {
    let user = create(service, ada()).await;
    assert_hidden(
        service,
        &user.id,
        |id| UnlockRequest { id: id.into() },
        async |request| service.users().unlock(request).await,
    )
    .await;
}

async fn outdated_counts_are_deleted(service: &Service) {
    create(service, ada()).await;
    tries(&service.replica, attempt("ada", PASSWORD, "198.51.100.7")).await.unwrap();
    assert_wrong(service, attempt("nobody", "wrong", "")).await;
    service.replica.ops.housekeep().await.unwrap();
    assert!(service.number("SELECT count(*) FROM attempts").await > 0);
    service.clock.advance(Duration::from_hours(4));
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM attempts").await, 0);
    assert_eq!(service.number("SELECT count(*) FROM familiar_places").await, 1);
    service.clock.advance(Duration::from_hours(24 * 91));
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM familiar_places").await, 0);
}

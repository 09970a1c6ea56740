//! What a second factor holds up: guesses from known addresses, and log-ins that were begun before all sessions ended. The
//! numbers in brackets are those of the rules that `tests/README.md` lists.

use std::time::Duration;

use tonic::{Code, Status};
use usersd::pb::{
    CodePurpose, CompleteLoginRequest, DeleteSessionsRequest, Device, LoginRequest, LoginWithCodeRequest,
    UpdateRequest, User, UserStatus, VerifyPasswordRequest,
};

use crate::codes::{asking, code as link};
use crate::factors::{
    by_recovery_code, by_totp, challenge, challenge_of, code, complete, give_keys, protected, wrong,
};
use crate::steps::{set_status, try_login};
use crate::support::{PASSWORD, Service, ada, assert_refused, create, nth};

crate::on_every_backend!(
    a_right_password_frees_no_code_at_a_known_address,
    wrong_codes_and_wrong_passwords_lock_each_their_own_at_a_known_address,
    a_password_alone_makes_no_address_known_of_a_user_with_a_second_factor,
    a_log_in_that_waits_ends_with_all_sessions,
    a_log_in_begins_after_another_whose_clock_is_ahead,
);

const HOME: &str = "198.51.100.7";
const AWAY: &str = "203.0.113.9";

fn at(address: &str) -> Option<Device> {
    Some(Device { address: address.into(), ..Device::default() })
}

async fn verify(service: &Service, user: &User, password: &str, address: &str) -> Result<(), Status> {
    let request = VerifyPasswordRequest {
        user_id: user.id.clone(),
        password: password.into(),
        device: at(address),
        ..VerifyPasswordRequest::default()
    };
    service.users().verify_password(request).await.map(|_| ())
}

/// The challenge that a log-in with the right password gets at an address, or the refusal.
async fn begin_at(service: &Service, address: &str) -> Result<String, Status> {
    let request = LoginRequest {
        username: "ada".into(),
        password: PASSWORD.into(),
        device: at(address),
        ..LoginRequest::default()
    };
    let status = service.users().login(request).await.unwrap_err();
    if status.code() == Code::FailedPrecondition { Ok(challenge_of(&status)) } else { Err(status) }
}

async fn complete_at(service: &Service, request: CompleteLoginRequest, address: &str) -> Result<(), Status> {
    complete(service, CompleteLoginRequest { device: at(address), ..request }).await.map(|_| ())
}

async fn known_addresses(service: &Service) -> i64 {
    service.number("SELECT count(*) FROM familiar_places").await
}

/// A user with a second factor who has signed in at home, and its secret and recovery codes that are left.
async fn at_home(service: &Service) -> (User, String, Vec<String>) {
    let (user, secret, mut codes) = protected(service).await;
    let waiting = begin_at(service, HOME).await.unwrap();
    complete_at(service, by_recovery_code(&waiting, &codes.remove(0)), HOME).await.unwrap();
    assert_eq!(known_addresses(service).await, 1);
    service.clock.advance(Duration::from_secs(1));
    (user, secret, codes)
}

#[track_caller]
fn assert_wrong(done: Result<(), Status>) {
    assert_refused(&done.unwrap_err(), Code::Unauthenticated, "BAD_CREDENTIALS");
}

#[track_caller]
fn assert_waits<T: std::fmt::Debug>(done: Result<T, Status>) {
    assert_refused(&done.unwrap_err(), Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
}

/// (R11, R16) Neither does a log-in, nor an open session.
async fn a_right_password_frees_no_code_at_a_known_address(service: &Service) {
    let (user, secret, codes) = at_home(service).await;
    let waiting = begin_at(service, HOME).await.unwrap();
    for _ in 0..4 {
        assert_wrong(complete_at(service, by_totp(&waiting, wrong(&secret)), HOME).await);
    }
    verify(service, &user, PASSWORD, HOME).await.unwrap();
    begin_at(service, HOME).await.unwrap();
    assert_wrong(complete_at(service, by_totp(&waiting, wrong(&secret)), HOME).await);
    for _ in 0..2 {
        verify(service, &user, PASSWORD, HOME).await.unwrap();
        assert_waits(complete_at(service, by_totp(&waiting, code(&secret, 30)), HOME).await);
    }
    service.clock.advance(Duration::from_secs(31));
    complete_at(service, by_recovery_code(&waiting, &codes[0]), HOME).await.unwrap();
}

/// (R12)
async fn wrong_codes_and_wrong_passwords_lock_each_their_own_at_a_known_address(service: &Service) {
    let (user, secret, _) = at_home(service).await;
    let waiting = begin_at(service, HOME).await.unwrap();
    for _ in 0..5 {
        assert_wrong(complete_at(service, by_totp(&waiting, wrong(&secret)), HOME).await);
    }
    assert_waits(complete_at(service, by_totp(&waiting, code(&secret, 30)), HOME).await);
    begin_at(service, HOME).await.unwrap();
    verify(service, &user, PASSWORD, HOME).await.unwrap();
    service.clock.advance(Duration::from_secs(31));
    for _ in 0..5 {
        assert_wrong(verify(service, &user, "wrong", HOME).await);
    }
    assert_waits(verify(service, &user, PASSWORD, HOME).await);
    assert_waits(begin_at(service, HOME).await);
    complete_at(service, by_totp(&waiting, code(&secret, 30)), HOME).await.unwrap();
}

/// A thief of the password would get the attempts that are left to the addresses of the user.
async fn a_password_alone_makes_no_address_known_of_a_user_with_a_second_factor(service: &Service) {
    let (user, secret, _) = at_home(service).await;
    verify(service, &user, PASSWORD, AWAY).await.unwrap();
    let waiting = begin_at(service, AWAY).await.unwrap();
    assert_eq!(known_addresses(service).await, 1);
    complete_at(service, by_totp(&waiting, code(&secret, 30)), AWAY).await.unwrap();
    assert_eq!(known_addresses(service).await, 2);
    // Of one who has none, or has not confirmed it.
    let other = create(service, nth(1)).await;
    crate::factors::enroll(service, &other.id).await;
    verify(service, &other, PASSWORD, AWAY).await.unwrap();
    assert_eq!(known_addresses(service).await, 3);
}

/// (R24, R25) Whichever proof came first.
async fn a_log_in_that_waits_ends_with_all_sessions(service: &Service) {
    let (user, _, codes) = protected(service).await;
    let with_code = async || {
        let email = service
            .users()
            .read(crate::steps::by_id(&user.id))
            .await
            .unwrap()
            .into_inner()
            .user
            .unwrap()
            .email;
        let code = link(service, usersd::pb::CreateCodeRequest { email, ..asking(CodePurpose::Login) }).await;
        let request = LoginWithCodeRequest { code, ..LoginWithCodeRequest::default() };
        challenge_of(&service.users().login_with_code(request).await.unwrap_err())
    };
    let update = || UpdateRequest { id: user.id.clone(), ..UpdateRequest::default() };
    let renamed = UpdateRequest { email: Some("new@example.com".into()), ..update() };
    for what in ["address", "sessions", "block"] {
        let waiting = [challenge(service, "ada").await, with_code().await];
        service.users().update(UpdateRequest { name: Some(what.into()), ..update() }).await.unwrap();
        match what {
            "address" => drop(service.users().update(renamed.clone()).await.unwrap()),
            "sessions" => {
                let request = DeleteSessionsRequest { user_id: user.id.clone() };
                service.users().delete_sessions(request).await.unwrap();
            }
            _ => {
                set_status(service, &user.id, UserStatus::Blocked).await;
                set_status(service, &user.id, UserStatus::Active).await;
            }
        }
        for challenge in &waiting {
            let status = complete(service, by_recovery_code(challenge, &codes[0])).await.unwrap_err();
            assert_refused(&status, Code::Unauthenticated, "CHALLENGE_INVALID");
        }
        assert_eq!(service.number("SELECT count(*) FROM sessions").await, 0, "{what}");
    }
    // One that begins at the same moment does not, nor one while another field changes.
    let waiting = challenge(service, "ada").await;
    service.users().update(UpdateRequest { name: Some("Ada".into()), ..update() }).await.unwrap();
    complete(service, by_recovery_code(&waiting, &codes[0])).await.unwrap();
}

async fn a_log_in_begins_after_another_whose_clock_is_ahead(service: &Service) {
    give_keys(service, &[1]);
    let user = create(service, ada()).await;
    let (_, codes) = crate::factors::confirm(service, &user.id).await;
    let behind = service.another_behind(Duration::from_secs(3), |_| {}).await;
    behind.ops.reload_peppers(Some(crate::peppers::key_file(&[1]).path())).unwrap();
    let here = challenge(service, "ada").await;
    complete(service, by_recovery_code(&here, &codes[0])).await.unwrap();
    let login = LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    for code in &codes[1..3] {
        let waiting = challenge_of(&behind.users.clone().login(login.clone()).await.unwrap_err());
        let request = by_recovery_code(&waiting, code);
        behind.users.clone().complete_login(request.clone()).await.unwrap();
        let again = behind.users.clone().complete_login(request).await.unwrap_err();
        assert_refused(&again, Code::Unauthenticated, "CHALLENGE_INVALID");
    }
    let status = try_login(service, "ada", PASSWORD).await.unwrap_err();
    complete(service, by_recovery_code(&challenge_of(&status), &codes[3])).await.unwrap();
}

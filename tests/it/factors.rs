//! Second factors: authenticator apps and recovery codes.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use percent_encoding::percent_decode;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use totp_rs::{Builder, Secret};
use usersd::domain::scope::Scopes;
use usersd::pb::{
    CompleteLoginRequest, ConfirmTotpRequest, CreateRecoveryCodesRequest, CreateRequest, EnrollTotpRequest,
    ListFactorsRequest, ListFactorsResponse, LogEvent, LoginRequest, ReadSessionRequest, RemoveTotpRequest,
    Session, SetPasswordRequest, UnlockRequest, UpdateRequest, User, UserStatus,
};
use usersd::store::doctor::Grade;

use crate::peppers::key_file;
use crate::steps::{
    RIVAL, assert_alike, assert_hidden, delete, events, happened, purge, restore, set_status, try_login,
};
use crate::support::{
    Backend, PASSWORD, START, Service, ada, assert_refused, create, fields, from, login, reason,
};

crate::on_every_backend!(
    another_namespace_sees_nothing,
    a_confirmed_secret_makes_a_log_in_take_both,
    a_code_is_taken_once,
    of_many_with_one_code_one_signs_in,
    a_recovery_code_signs_in_once,
    a_challenge_opens_one_session_and_ends_with_what_it_depends_on,
    a_challenge_ends_after_five_minutes,
    wrong_codes_make_the_next_one_wait_and_not_the_password,
    a_blocked_user_learns_of_it_with_the_right_code,
    only_the_user_or_an_administrator_changes_factors,
    a_factor_removed_while_a_log_in_waits_leaves_no_session,
    secrets_are_encrypted_with_a_key_outside_the_database,
    no_secret_and_no_code_is_stored,
    a_purged_user_leaves_nothing_and_a_restored_one_keeps_its_factor,
    every_bad_field_is_named_at_once,
    the_first_dialect_refuses_in_its_words,
    they_have_their_paths,
);

/// Makes the keys known that secrets are encrypted with.
pub(crate) fn give_keys(service: &Service, versions: &[u8]) {
    service.replica.ops.reload_peppers(Some(key_file(versions).path())).unwrap();
}

/// The code that an app with the secret shows, so many seconds after the start of the tests' clock.
pub(crate) fn code(secret: &str, after: i64) -> String {
    let totp = Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).build().unwrap();
    totp.generate(u64::try_from(START + after).unwrap()).to_string()
}

/// A code that is not the one of any step near.
pub(crate) fn wrong(secret: &str) -> String {
    let near: Vec<String> = (-10..100).map(|step| code(secret, step * 30)).collect();
    (0..1_000).map(|n| format!("{n:06}")).find(|code| !near.contains(code)).unwrap()
}

fn enrolling(user: &str) -> EnrollTotpRequest {
    EnrollTotpRequest { user_id: user.into(), password: PASSWORD.into(), ..EnrollTotpRequest::default() }
}

fn confirming(user: &str, totp: String) -> ConfirmTotpRequest {
    ConfirmTotpRequest { user_id: user.into(), totp, ..ConfirmTotpRequest::default() }
}

/// Enrolls a user. Returns the secret, which is not confirmed.
pub(crate) async fn enroll(service: &Service, user: &str) -> String {
    service.users().enroll_totp(enrolling(user)).await.unwrap().into_inner().secret
}

/// Enrolls a user and confirms it with the code of now, which is a fixed time after the start. Returns the secret and the
/// recovery codes.
pub(crate) async fn confirm(service: &Service, user: &str) -> (String, Vec<String>) {
    let secret = enroll(service, user).await;
    let now = service.clock.now().seconds() - START;
    let confirmed = service.users().confirm_totp(confirming(user, code(&secret, now))).await.unwrap();
    (secret, confirmed.into_inner().recovery_codes)
}

/// A user with a second factor, whose next code is that of 30 seconds later.
pub(crate) async fn protected(service: &Service) -> (User, String, Vec<String>) {
    give_keys(service, &[1]);
    let user = create(service, ada()).await;
    let (secret, codes) = confirm(service, &user.id).await;
    service.clock.advance(Duration::from_secs(30));
    (user, secret, codes)
}

#[track_caller]
pub(crate) fn challenge_of(status: &Status) -> String {
    assert_refused(status, Code::FailedPrecondition, "SECOND_FACTOR_REQUIRED");
    status.get_details_error_info().unwrap().metadata["challenge"].clone()
}

/// The challenge that a log-in with the right password gets.
pub(crate) async fn challenge(service: &Service, username: &str) -> String {
    challenge_of(&try_login(service, username, PASSWORD).await.unwrap_err())
}

pub(crate) fn by_totp(challenge: &str, totp: String) -> CompleteLoginRequest {
    CompleteLoginRequest { challenge: challenge.into(), totp, ..CompleteLoginRequest::default() }
}

pub(crate) fn by_recovery_code(challenge: &str, code: &str) -> CompleteLoginRequest {
    CompleteLoginRequest {
        challenge: challenge.into(),
        recovery_code: code.into(),
        ..CompleteLoginRequest::default()
    }
}

pub(crate) async fn complete(service: &Service, request: CompleteLoginRequest) -> Result<Session, Status> {
    Ok(service.users().complete_login(request).await?.into_inner().session.unwrap())
}

async fn factors(service: &Service, user: &str) -> ListFactorsResponse {
    let request = ListFactorsRequest { user_id: user.into() };
    service.users().list_factors(request).await.unwrap().into_inner()
}

async fn sessions(service: &Service) -> i64 {
    service.number("SELECT count(*) FROM sessions").await
}

fn now(service: &Service) -> i64 {
    service.clock.now().seconds() - START
}

async fn another_namespace_sees_nothing(service: &Service) {
    let (user, secret, codes) = protected(service).await;
    let listing = |id: &str| ListFactorsRequest { user_id: id.into() };
    assert_hidden(service, &user.id, listing, async |request| service.users().list_factors(request).await)
        .await;
    let mut users = service.users();
    users.create(from(RIVAL, CreateRequest { id: user.id.clone(), ..ada() })).await.unwrap();
    let challenge = challenge(service, "ada").await;
    for request in [by_totp(&challenge, code(&secret, 30)), by_recovery_code(&challenge, &codes[0])] {
        let status = users.complete_login(from(RIVAL, request)).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "CHALLENGE_INVALID");
    }
    // A twin with a factor of its own has its own secret, challenges and codes.
    let mut theirs = users.enroll_totp(from(RIVAL, enrolling(&user.id))).await.unwrap().into_inner();
    let confirmed = confirming(&user.id, code(&theirs.secret, 30));
    users.confirm_totp(from(RIVAL, confirmed)).await.unwrap();
    let login = LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    let status = users.login(from(RIVAL, login)).await.unwrap_err();
    let their_challenge = challenge_of(&status);
    let status = complete(service, by_totp(&their_challenge, code(&secret, 30))).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "CHALLENGE_INVALID");
    let request = from(RIVAL, by_recovery_code(&their_challenge, &codes[0]));
    let status = users.complete_login(request).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    theirs.secret.clear();
    complete(service, by_totp(&challenge, code(&secret, 30))).await.unwrap();
}

/// (R18)
#[expect(clippy::too_many_lines, reason = "one story")]
async fn a_confirmed_secret_makes_a_log_in_take_both(service: &Service) {
    give_keys(service, &[1]);
    let user = create(service, ada()).await;
    let kept = login(service, "ada").await;
    login(service, "ada").await;
    let request = EnrollTotpRequest { issuer: "The Shop".into(), ..enrolling(&user.id) };
    let shown = service.users().enroll_totp(request).await.unwrap().into_inner();
    let uri =
        format!("otpauth://totp/The%20Shop:ada%40example.com?secret={}&issuer=The%20Shop", shown.secret);
    assert_eq!(shown.uri, uri);
    login(service, "ada").await;
    assert_eq!(factors(service, &user.id).await.factors[0].confirmed, 0);
    // The app of an earlier enrolment does not have the secret that counts.
    let again = enroll(service, &user.id).await;
    let status = service.users().confirm_totp(confirming(&user.id, wrong(&again))).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    let request =
        ConfirmTotpRequest { keep_session: kept.id.clone(), ..confirming(&user.id, code(&again, 0)) };
    let confirmed = service.users().confirm_totp(request.clone()).await.unwrap().into_inner();
    assert_eq!(confirmed.recovery_codes.len(), 10);
    assert_eq!(sessions(service).await, 1, "the others had one proof");
    service
        .users()
        .read_session(ReadSessionRequest { session_id: kept.id, ..Default::default() })
        .await
        .unwrap();
    service.users().confirm_totp(request).await.unwrap_err();
    let status = service.users().enroll_totp(enrolling(&user.id)).await.unwrap_err();
    assert_refused(&status, Code::AlreadyExists, "FACTOR_EXISTS");

    service.clock.advance(Duration::from_secs(30));
    let wrong_password = try_login(service, "ada", "wrong").await.unwrap_err();
    assert_alike(&wrong_password, &try_login(service, "nobody", "wrong").await.unwrap_err());
    let challenge = challenge(service, "ada").await;
    assert_eq!(sessions(service).await, 1);
    service.clock.advance(Duration::from_secs(20));
    let session = complete(service, by_totp(&challenge, code(&again, 30))).await.unwrap();
    assert_eq!((session.user_id.as_str(), session.created), (user.id.as_str(), START + 50));
    assert_eq!((session.auth_time, session.amr), (START + 30, vec!["pwd".to_owned(), "otp".to_owned()]));
    service
        .users()
        .read_session(ReadSessionRequest { session_id: session.id, ..Default::default() })
        .await
        .unwrap();
    let listed = factors(service, &user.id).await;
    let factor = &listed.factors[0];
    assert_eq!((factor.created, factor.confirmed, factor.used), (START, START, START + 50));
    assert_eq!((listed.factors.len(), listed.recovery_codes), (1, 10));
    let mut said = events(service, &user.id).await;
    said.reverse();
    let expected = {
        use LogEvent::*;
        let before = vec![UserCreated, SessionCreated, SessionCreated, TotpEnrolled, SessionCreated];
        let confirming = vec![TotpEnrolled, FactorRefused, TotpConfirmed, FactorRefused];
        [before, confirming, vec![LoginRefused, SessionCreated]].concat()
    };
    assert_eq!(said, expected);
}

/// (R16)
async fn a_code_is_taken_once(service: &Service) {
    let (_, secret, _) = protected(service).await;
    let first = challenge(service, "ada").await;
    complete(service, by_totp(&first, code(&secret, 30))).await.unwrap();
    service.clock.advance(Duration::from_secs(1));
    let second = challenge(service, "ada").await;
    // Neither that code once more nor the one before it, with which the secret was confirmed.
    for used in [30, 0] {
        let status = complete(service, by_totp(&second, code(&secret, used))).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    // The one after it is taken early, and then the present one no more; two steps away none is.
    service.clock.advance(Duration::from_secs(29));
    let far = complete(service, by_totp(&second, code(&secret, 120))).await.unwrap_err();
    assert_refused(&far, Code::Unauthenticated, "BAD_CREDENTIALS");
    complete(service, by_totp(&second, code(&secret, 90))).await.unwrap();
    service.clock.advance(Duration::from_secs(1));
    let third = challenge(service, "ada").await;
    let status = complete(service, by_totp(&third, code(&secret, 60))).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
}

/// (8, R16, R20) Over two replicas.
async fn of_many_with_one_code_one_signs_in(service: &Service) {
    let (_, secret, codes) = protected(service).await;
    let other = service.another(|_| {}).await;
    other.ops.reload_peppers(Some(key_file(&[1]).path())).unwrap();
    let totp = by_totp(&challenge(service, "ada").await, code(&secret, 30));
    service.clock.advance(Duration::from_secs(1));
    let recovery = by_recovery_code(&challenge(service, "ada").await, &codes[3]);
    for request in [totp, recovery] {
        let before = sessions(service).await;
        let trying = (0..64).map(|n| {
            let mut users = if n % 2 == 0 { service.users() } else { other.users.clone() };
            let request = request.clone();
            tokio::spawn(async move { users.complete_login(request).await })
        });
        let mut opened = 0;
        for done in join_all(trying.collect::<Vec<_>>()).await {
            match done.unwrap() {
                Ok(_) => opened += 1,
                Err(status) => {
                    let known = ["CHALLENGE_INVALID", "BAD_CREDENTIALS", "TOO_MANY_ATTEMPTS"];
                    assert!(known.contains(&reason(&status).as_str()), "{status:?}");
                }
            }
        }
        assert_eq!((opened, sessions(service).await - before), (1, 1));
    }
    assert_eq!(happened(service, LogEvent::RecoveryCodeUsed).await, 1);
}

/// (R17)
async fn a_recovery_code_signs_in_once(service: &Service) {
    let (user, _, codes) = protected(service).await;
    let first = challenge(service, "ada").await;
    let typed = codes[0].to_uppercase().replace('-', " ");
    let session = complete(service, by_recovery_code(&first, &typed)).await.unwrap();
    assert_eq!(session.amr, ["pwd", "recovery"]);
    assert_eq!(factors(service, &user.id).await.recovery_codes, 9);
    service.clock.advance(Duration::from_secs(1));
    let second = challenge(service, "ada").await;
    let status = complete(service, by_recovery_code(&second, &codes[0])).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    // New ones take the place of the others, by a proof with one of those.
    let renew = CreateRecoveryCodesRequest {
        user_id: user.id.clone(),
        recovery_code: codes[1].clone(),
        ..CreateRecoveryCodesRequest::default()
    };
    let renewed = service.users().create_recovery_codes(renew).await.unwrap().into_inner().recovery_codes;
    assert_eq!((renewed.len(), factors(service, &user.id).await.recovery_codes), (10, 10));
    let status = complete(service, by_recovery_code(&second, &codes[2])).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    complete(service, by_recovery_code(&second, &renewed[9])).await.unwrap();
    assert_eq!(happened(service, LogEvent::RecoveryCodeUsed).await, 3);
}

/// (R20)
async fn a_challenge_opens_one_session_and_ends_with_what_it_depends_on(service: &Service) {
    let (user, _, codes) = protected(service).await;
    let mut codes = codes.into_iter();
    let first = challenge(service, "ada").await;
    complete(service, by_recovery_code(&first, &codes.next().unwrap())).await.unwrap();
    let refuse = async |challenge: &str, code: &str, why: &str| {
        let before = sessions(service).await;
        let status = complete(service, by_recovery_code(challenge, code)).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "CHALLENGE_INVALID");
        assert_eq!(sessions(service).await, before, "{why}");
    };
    let code = codes.next().unwrap();
    refuse(&first, &code, "used").await;
    service.clock.advance(Duration::from_secs(1));
    let older = challenge(service, "ada").await;
    service.clock.advance(Duration::from_secs(1));
    let newer = challenge(service, "ada").await;
    complete(service, by_recovery_code(&newer, &code)).await.unwrap();
    let code = codes.next().unwrap();
    refuse(&older, &code, "an older one").await;
    for wrong in ["A", "%", &older[1..], &format!("{older}A")] {
        refuse(wrong, &code, "none of ours").await;
    }
    service.clock.advance(Duration::from_secs(1));
    let waiting = challenge(service, "ada").await;
    let set =
        SetPasswordRequest { user_id: user.id.clone(), new_password: PASSWORD.into(), ..Default::default() };
    service.users().set_password(set).await.unwrap();
    refuse(&waiting, &code, "the password is another one").await;
    let waiting = challenge(service, "ada").await;
    let sso = |on| UpdateRequest { id: user.id.clone(), sso_enabled: Some(on), ..UpdateRequest::default() };
    service.users().update(sso(true)).await.unwrap();
    refuse(&waiting, &code, "the user signs in elsewhere").await;
    service.users().update(sso(false)).await.unwrap();
    let remove = RemoveTotpRequest { user_id: user.id.clone(), ..RemoveTotpRequest::default() };
    service.users().remove_totp(remove).await.unwrap();
    refuse(&waiting, &code, "the factor is gone").await;
    service.clock.advance(Duration::from_secs(1));
    let (_, renewed) = confirm(service, &user.id).await;
    refuse(&waiting, &renewed[0], "it is another factor").await;
    let waiting = challenge(service, "ada").await;
    delete(service, &user.id).await;
    refuse(&waiting, &renewed[0], "the user is in the trash").await;
}

async fn a_challenge_ends_after_five_minutes(service: &Service) {
    let (_, _, codes) = protected(service).await;
    let waiting = challenge(service, "ada").await;
    let almost = Duration::from_mins(5).saturating_sub(Duration::from_micros(1));
    service.clock.advance(almost);
    let status = complete(service, by_recovery_code(&waiting, "wrong")).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    service.clock.advance(Duration::from_micros(1));
    let status = complete(service, by_recovery_code(&waiting, &codes[0])).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "CHALLENGE_INVALID");
    complete(service, by_recovery_code(&challenge(service, "ada").await, &codes[0])).await.unwrap();
}

/// (R11, R16)
async fn wrong_codes_make_the_next_one_wait_and_not_the_password(service: &Service) {
    let (user, secret, codes) = protected(service).await;
    let waiting = challenge(service, "ada").await;
    for _ in 0..4 {
        let status = complete(service, by_totp(&waiting, wrong(&secret))).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    let status = complete(service, by_recovery_code(&waiting, "wrong")).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    // The right ones have to wait, too, whatever they are for, and neither a right password nor another one ends that.
    for _ in 0..2 {
        let waiting = challenge(service, "ada").await;
        for request in [by_totp(&waiting, code(&secret, 30)), by_recovery_code(&waiting, &codes[0])] {
            let status = complete(service, request).await.unwrap_err();
            assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
            assert!(status.get_details_retry_info().is_some());
        }
        let remove = RemoveTotpRequest {
            user_id: user.id.clone(),
            totp: code(&secret, 30),
            ..RemoveTotpRequest::default()
        };
        let status = service.users().remove_totp(remove).await.unwrap_err();
        assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    }
    assert_eq!(factors(service, &user.id).await.recovery_codes, 10);
    assert_eq!(happened(service, LogEvent::LockedOut).await, 1);
    service.users().unlock(UnlockRequest { id: user.id }).await.unwrap();
    complete(service, by_totp(&waiting, code(&secret, 30))).await.unwrap();
}

/// (7) After a log-in that waited has ended with the block, too.
async fn a_blocked_user_learns_of_it_with_the_right_code(service: &Service) {
    let (user, secret, codes) = protected(service).await;
    let waiting = challenge(service, "ada").await;
    set_status(service, &user.id, UserStatus::Blocked).await;
    let removing = || RemoveTotpRequest { user_id: user.id.clone(), ..RemoveTotpRequest::default() };
    let with_wrong = RemoveTotpRequest { totp: wrong(&secret), ..removing() };
    let status = service.users().remove_totp(with_wrong).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    for request in [
        RemoveTotpRequest { totp: code(&secret, 30), ..removing() },
        RemoveTotpRequest { recovery_code: codes[0].clone(), ..removing() },
    ] {
        let status = service.users().remove_totp(request).await.unwrap_err();
        assert_refused(&status, Code::PermissionDenied, "USER_BLOCKED");
    }
    assert_eq!(factors(service, &user.id).await.recovery_codes, 10);
    let status = complete(service, by_totp(&waiting, code(&secret, 30))).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "CHALLENGE_INVALID");
}

/// (5, R9, R25)
#[expect(clippy::too_many_lines, reason = "one story")]
async fn only_the_user_or_an_administrator_changes_factors(service: &Service) {
    give_keys(service, &[1]);
    let user = create(service, ada()).await;
    let wrong_password = |id: &str| EnrollTotpRequest { password: "wrong".into(), ..enrolling(id) };
    let status = service.users().enroll_totp(wrong_password(&user.id)).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    assert_alike(&status, &service.users().enroll_totp(wrong_password("nobody")).await.unwrap_err());
    let (mut secret, mut codes) = confirm(service, &user.id).await;
    let remove = |proof: &str, text: &str| {
        let mut request = RemoveTotpRequest { user_id: user.id.clone(), ..RemoveTotpRequest::default() };
        match proof {
            "password" => text.clone_into(&mut request.password),
            "totp" => text.clone_into(&mut request.totp),
            "recovery_code" => text.clone_into(&mut request.recovery_code),
            _ => {}
        }
        request
    };
    for proof in ["password", "totp", "recovery_code"] {
        let status = service.users().remove_totp(remove(proof, "000-wrong")).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
        let nobody = RemoveTotpRequest { user_id: "nobody".into(), ..remove(proof, "000-wrong") };
        assert_alike(&status, &service.users().remove_totp(nobody).await.unwrap_err());
    }
    assert_eq!(happened(service, LogEvent::FactorRefused).await, 8);
    // A stolen password gets nobody past the second factor: the right one ends nothing, and is no wrong one either.
    for _ in 0..6 {
        let status = service.users().remove_totp(remove("password", PASSWORD)).await.unwrap_err();
        assert_refused(&status, Code::FailedPrecondition, "SECOND_FACTOR_REQUIRED");
        assert!(status.get_details_error_info().unwrap().metadata.is_empty());
    }
    assert_eq!(happened(service, LogEvent::FactorRefused).await, 8);
    assert_eq!(factors(service, &user.id).await.recovery_codes, 10);
    // Each of the right ones, the password before the secret is confirmed, and an administrator without.
    for proof in ["totp", "password", "recovery_code"] {
        service.clock.advance(Duration::from_secs(30));
        complete(service, by_recovery_code(&challenge(service, "ada").await, &codes[0])).await.unwrap();
        let text = match proof {
            "totp" => code(&secret, now(service)),
            "password" => PASSWORD.to_owned(),
            _ => codes[1].clone(),
        };
        if proof == "password" {
            service.users().remove_totp(remove("", "")).await.unwrap();
            enroll(service, &user.id).await;
        }
        service.users().remove_totp(remove(proof, &text)).await.unwrap();
        assert_eq!(sessions(service).await, 0, "{proof}");
        let request = CreateRecoveryCodesRequest { user_id: user.id.clone(), ..Default::default() };
        let status = service.users().create_recovery_codes(request).await.unwrap_err();
        assert_refused(&status, Code::NotFound, "FACTOR_NOT_FOUND");
        (secret, codes) = confirm(service, &user.id).await;
    }
    service.users().remove_totp(remove("", "")).await.unwrap();
    let status = service.users().remove_totp(remove("", "")).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "FACTOR_NOT_FOUND");
    let nobody = RemoveTotpRequest { user_id: "nobody".into(), ..RemoveTotpRequest::default() };
    let status = service.users().remove_totp(nobody).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
    let (writer, _) = service.key("default", Scopes::parse(["users.write"]).unwrap()).await;
    let bearer = format!("Bearer {writer}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    for path in ["totp:enroll", "totp:remove", "recoveryCodes"] {
        let path = format!("/v1/users/{}/{path}", user.id);
        let (status, _, answer) = service.replica.request(Method::POST, &path, "{}", &headers).await;
        assert_eq!(
            (status.as_u16(), &answer["details"][0]["metadata"]["scope"]),
            (403, &json!("users.admin"))
        );
    }
}

/// Whichever comes first: a session that was opened ends with the factor, and one that was not stays closed.
async fn a_factor_removed_while_a_log_in_waits_leaves_no_session(service: &Service) {
    let (user, _, mut codes) = protected(service).await;
    let other = service.another(|_| {}).await;
    for round in 0..8 {
        let completing = by_recovery_code(&challenge(service, "ada").await, &codes[0]);
        let removing = RemoveTotpRequest { user_id: user.id.clone(), ..RemoveTotpRequest::default() };
        let (mut one, mut two) = (service.users(), other.users.clone());
        let (completed, removed) = if round % 2 == 0 {
            tokio::join!(one.complete_login(completing), two.remove_totp(removing))
        } else {
            let (removed, completed) =
                tokio::join!(two.remove_totp(removing), one.complete_login(completing));
            (completed, removed)
        };
        removed.unwrap();
        if let Err(status) = completed {
            assert_refused(&status, Code::Unauthenticated, "CHALLENGE_INVALID");
        }
        assert_eq!(sessions(service).await, 0);
        service.clock.advance(Duration::from_secs(30));
        codes = confirm(service, &user.id).await.1;
        service.clock.advance(Duration::from_secs(30));
    }
}

/// (23)
async fn secrets_are_encrypted_with_a_key_outside_the_database(service: &Service) {
    let user = create(service, ada()).await;
    let status = service.users().enroll_totp(enrolling(&user.id)).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "ENCRYPTION_KEY_MISSING");
    give_keys(service, &[1]);
    let (secret, codes) = confirm(service, &user.id).await;
    let with_key = async |version: u8| {
        service.number(&format!("SELECT count(*) FROM totp_factors WHERE key_version = {version}")).await
    };
    assert_eq!(with_key(1).await, 1);
    // The next code has the secret encrypted with the new key.
    give_keys(service, &[2, 1]);
    service.clock.advance(Duration::from_secs(30));
    try_login(service, "ada", PASSWORD).await.unwrap_err();
    complete(service, by_totp(&challenge(service, "ada").await, code(&secret, 30))).await.unwrap();
    assert_eq!(with_key(2).await, 1);
    // Without the key codes of the app are wrong, and the factor still counts; recovery codes need no key.
    service.replica.ops.reload_peppers(None).unwrap();
    let finding = service.replica.store.examine_peppers(&[1]).await.unwrap();
    assert_eq!(finding.grade, Grade::Fault, "{finding:?}");
    assert!(finding.found.contains("and 1 TOTP secrets"), "{finding:?}");
    // The password of the last log-in was hashed with the pepper, which is gone, too.
    give_keys(service, &[2]);
    service.clock.advance(Duration::from_mins(1));
    let waiting = challenge(service, "ada").await;
    service.replica.ops.reload_peppers(None).unwrap();
    let status = complete(service, by_totp(&waiting, code(&secret, now(service)))).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    complete(service, by_recovery_code(&waiting, &codes[0])).await.unwrap();
}

/// (R17)
async fn no_secret_and_no_code_is_stored(service: &Service) {
    let (user, secret, codes) = protected(service).await;
    let waiting = challenge(service, "ada").await;
    complete(service, by_totp(&waiting, code(&secret, 30))).await.unwrap();
    let raw = Secret::try_from_base32(&secret).unwrap().as_bytes().to_vec();
    let plain = codes[0].replace('-', "");
    let secrets =
        [raw, secret.into_bytes(), codes[0].clone().into_bytes(), plain.into_bytes(), waiting.into_bytes()];
    for file in service.files() {
        let bytes = std::fs::read(&file).unwrap();
        for secret in &secrets {
            let holds = bytes.windows(secret.len()).any(|window| window == secret.as_slice());
            assert!(!holds, "{} holds {secret:?}", file.display());
        }
    }
    let column = match service.backend {
        Backend::Sqlite => "lower(hex(secret))",
        Backend::Postgres => "encode(secret, 'hex')",
    };
    let holds = format!(
        "SELECT count(*) FROM totp_factors WHERE {column} LIKE '%{}%' AND user_id = '{}'",
        hex::encode(&secrets[0]),
        user.id
    );
    assert_eq!(service.number(&holds).await, 0);
    assert_eq!(service.number("SELECT count(*) FROM recovery_codes").await, 10);
}

async fn a_purged_user_leaves_nothing_and_a_restored_one_keeps_its_factor(service: &Service) {
    let (user, secret, _) = protected(service).await;
    delete(service, &user.id).await;
    let status =
        service.users().list_factors(ListFactorsRequest { user_id: user.id.clone() }).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
    restore(service, &user.id).await;
    complete(service, by_totp(&challenge(service, "ada").await, code(&secret, 30))).await.unwrap();
    delete(service, &user.id).await;
    purge(service, &user.id).await;
    for table in ["totp_factors", "recovery_codes"] {
        assert_eq!(service.number(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
}

async fn every_bad_field_is_named_at_once(service: &Service) {
    give_keys(service, &[1]);
    let mut users = service.users();
    let device = || Some(usersd::pb::Device { address: "nowhere".into(), ..Default::default() });
    let request =
        EnrollTotpRequest { issuer: "a:b".into(), device: device(), ..EnrollTotpRequest::default() };
    let status = users.enroll_totp(request).await.unwrap_err();
    assert_eq!(fields(&status), ["issuer", "user_id", "device.address"]);
    let request = ConfirmTotpRequest { keep_session: "x".into(), device: device(), ..Default::default() };
    let status = users.confirm_totp(request).await.unwrap_err();
    assert_eq!(fields(&status), ["totp", "user_id", "keep_session", "device.address"]);
    let request = RemoveTotpRequest {
        user_id: "ada".into(),
        password: "x".into(),
        recovery_code: "x".into(),
        keep_session: "x".into(),
        ..RemoveTotpRequest::default()
    };
    let status = users.remove_totp(request).await.unwrap_err();
    assert_eq!(fields(&status), ["password", "recovery_code", "keep_session"]);
    let request =
        CreateRecoveryCodesRequest { totp: "1".into(), recovery_code: "x".into(), ..Default::default() };
    let status = users.create_recovery_codes(request).await.unwrap_err();
    assert_eq!(fields(&status), ["user_id", "totp", "recovery_code"]);
    let status = users.complete_login(CompleteLoginRequest::default()).await.unwrap_err();
    assert_eq!(fields(&status), ["challenge", "totp"]);
    let both = CompleteLoginRequest { recovery_code: "x".into(), ..by_totp("x", "1".into()) };
    assert_eq!(fields(&users.complete_login(both).await.unwrap_err()), ["totp"]);
    let status = users.list_factors(ListFactorsRequest::default()).await.unwrap_err();
    assert_eq!(fields(&status), ["user_id"]);
}

/// Its callers cannot complete a log-in and are not told the challenge: over HTTP, by JSON in gRPC's frames, and over gRPC.
async fn the_first_dialect_refuses_in_its_words(service: &Service) {
    protected(service).await;
    let body = json!({"username": "ada", "password": PASSWORD}).to_string();
    let (status, answer) = service.replica.json(Method::POST, "/users/Users/Login", &body).await;
    let detail = "the user has a second factor: complete the log-in with a TOTP or recovery code";
    let expected = json!({"id": "users.Login", "code": 400, "detail": detail, "status": "Bad Request"});
    assert_eq!((status.as_u16(), &answer), (400, &expected));
    let frame = [&[0, 0, 0, 0, u8::try_from(body.len()).unwrap()], body.as_bytes()].concat();
    let headers = [("content-type", "application/grpc+json")];
    let (status, told, _) =
        service.replica.request(Method::POST, "/users.Users/Login", frame, &headers).await;
    assert_eq!((status.as_u16(), &told["grpc-status"]), (200, &"9".parse().unwrap()));
    let said = percent_decode(told["grpc-message"].as_bytes()).decode_utf8().unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap(), expected);
    assert!(!told.contains_key("grpc-status-details-bin"));
    let login = LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    let mut request = tonic::Request::new(login);
    request.metadata_mut().insert("x-content-type", "application/protobuf".parse().unwrap());
    let status = service.users().login(request).await.unwrap_err();
    assert_eq!((status.code(), status.details()), (Code::FailedPrecondition, &[][..]));
    assert_eq!(serde_json::from_str::<serde_json::Value>(status.message()).unwrap(), expected);
}

async fn they_have_their_paths(service: &Service) {
    give_keys(service, &[1]);
    create(service, CreateRequest { id: "7".into(), ..ada() }).await;
    let post = async |path: &str, body: serde_json::Value| {
        service.replica.json(Method::POST, &format!("/v1/{path}"), &body.to_string()).await
    };
    let (_, shown) = post("users/7/totp:enroll", json!({"password": PASSWORD})).await;
    let secret = shown["secret"].as_str().unwrap();
    let (_, confirmed) = post("users/7/totp:confirm", json!({"totp": code(secret, 0)})).await;
    assert_eq!(confirmed["recoveryCodes"].as_array().unwrap().len(), 10, "{confirmed}");
    let (_, listed) = service.replica.json(Method::GET, "/v1/users/7/factors", "").await;
    assert_eq!(listed["factors"][0]["kind"], "FACTOR_KIND_TOTP", "{listed}");
    let proof = json!({"recoveryCode": confirmed["recoveryCodes"][0]});
    let (_, renewed) = post("users/7/recoveryCodes", proof).await;
    let (status, refused) = post("sessions", json!({"username": "ada", "password": PASSWORD})).await;
    assert_eq!((status.as_u16(), &refused["details"][0]["reason"]), (400, &json!("SECOND_FACTOR_REQUIRED")));
    let challenge = &refused["details"][0]["metadata"]["challenge"];
    let body = json!({"challenge": challenge, "recoveryCode": renewed["recoveryCodes"][0]});
    let (_, opened) = post("sessions:complete", body).await;
    assert_eq!(opened["session"]["userId"], "7", "{opened}");
    let proof = json!({"recoveryCode": renewed["recoveryCodes"][1]});
    let (status, removed) = post("users/7/totp:remove", proof).await;
    assert_eq!((status.as_u16(), removed), (200, json!({})));
}

//! Codes under attack and at the same time: what is guessed, flooded, raced for, and what it tells.

use std::time::Duration;

use futures_util::future::join_all;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use usersd::pb::{
    CodeForm, CodePurpose, CreateCodeRequest, CreateRequest, Device, LoginWithCodeRequest, UnlockRequest,
    UpdateRequest,
};

use crate::codes::{
    NEW_EMAIL, PURPOSES, asking, assert_bad, code, code_on, digits, of_namespace, use_on, uses,
};
use crate::steps::{assert_alike, delete, read, restore};
use crate::support::{Service, ada, assert_refused, create, during_the_hash, nth, reason, until};

crate::on_every_backend!(
    of_64_uses_at_the_same_time_one_succeeds,
    five_wrong_digits_end_a_code,
    after_ten_wrong_digits_only_links_work,
    ten_wrong_digits_are_counted_under_all_names,
    guesses_side_by_side_are_all_counted,
    abandoned_attempts_are_refunded,
    an_attempt_that_has_its_verdict_is_not_refunded,
    a_reset_and_an_unlock_forget_wrong_digits,
    a_code_made_while_its_user_is_deleted_is_void,
    creation_is_limited_by_ip_address_then_by_identifier,
    known_and_unknown_users_cost_and_tell_the_same,
    a_code_is_used_replaced_and_voided_at_the_same_moment,
);

fn wrong(code: &str) -> String {
    let first = if code.starts_with('1') { '2' } else { '1' };
    format!("{first}{}", &code[1..])
}

fn retry_of(status: &Status) -> u64 {
    status.get_details_retry_info().unwrap().retry_delay.unwrap().as_secs()
}

/// (R15)
async fn of_64_uses_at_the_same_time_one_succeeds(service: &Service) {
    create(service, ada()).await;
    let other = service.another(|_| {}).await;
    let links = PURPOSES.map(|purpose| (purpose, asking(purpose), ""));
    // The address is changed last: after it nobody has the old one.
    let [verification, change, reset, login] = links;
    let typed = (CodePurpose::Login, digits(CodePurpose::Login), "ada@example.com");
    for (purpose, request, email) in [typed, verification, reset, login, change] {
        let code = code(service, request).await;
        let uses = (0..64)
            .map(|n| use_on(if n % 2 == 0 { &service.replica } else { &other }, purpose, &code, email));
        let answers = join_all(uses).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{purpose:?}: {answers:?}");
        for status in answers.into_iter().filter_map(Result::err) {
            let known = ["BAD_CODE", "TOO_MANY_ATTEMPTS", "DATABASE_UNAVAILABLE"];
            assert!(known.contains(&reason(&status).as_str()), "{status:?}");
        }
    }
}

/// (R16)
async fn five_wrong_digits_end_a_code(service: &Service) {
    create(service, ada()).await;
    let code = code(service, digits(CodePurpose::Login)).await;
    for _ in 0..5 {
        assert_bad(service, CodePurpose::Login, &wrong(&code)).await;
    }
    assert_bad(service, CodePurpose::Login, &code).await;
}

/// (R16) Over all codes, purposes and replicas.
async fn after_ten_wrong_digits_only_links_work(service: &Service) {
    create(service, ada()).await;
    let other = service.another(|_| {}).await;
    let purposes = [CodePurpose::Login, CodePurpose::EmailVerification, CodePurpose::PasswordReset];
    for n in 0..10 {
        let purpose = purposes[n % 3];
        let code = code(service, digits(purpose)).await;
        let replica = if n % 2 == 0 { &service.replica } else { &other };
        let status = use_on(replica, purpose, &wrong(&code), "ada@example.com").await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CODE");
        if n == 0 {
            service.clock.advance(Duration::from_hours(2));
        }
    }
    let hashes = service.replica.hasher.work().taken_on;
    for purpose in purposes {
        let right = code_on(&other, digits(purpose)).await;
        let status = uses(service, purpose, &right).await.unwrap_err();
        assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        assert_eq!(retry_of(&status), 22 * 3_600, "until the first of them is a day old");
    }
    assert_eq!(service.replica.hasher.work().taken_on, hashes, "no hash for what is refused");
    let link = code(service, asking(CodePurpose::Login)).await;
    uses(service, CodePurpose::Login, &link).await.unwrap();
    service.clock.advance(Duration::from_hours(22));
    let right = code(service, digits(CodePurpose::Login)).await;
    uses(service, CodePurpose::Login, &right).await.unwrap();
    assert_bad(service, CodePurpose::Login, &right).await;
    let right = code(service, digits(CodePurpose::Login)).await;
    let status = uses(service, CodePurpose::Login, &right).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
}

/// (R13, R16) Under another name the eleventh is looked at like any and never right: a refusal would tell that two names are
/// one user's.
async fn ten_wrong_digits_are_counted_under_all_names(service: &Service) {
    create(service, ada()).await;
    for _ in 0..10 {
        let code = code(service, digits(CodePurpose::Login)).await;
        assert_bad(service, CodePurpose::Login, &wrong(&code)).await;
    }
    let right = code(service, digits(CodePurpose::Login)).await;
    let by_name = |username: &str| LoginWithCodeRequest {
        code: right.clone(),
        username: username.into(),
        ..LoginWithCodeRequest::default()
    };
    let mut answers = Vec::new();
    for name in ["ada", "nobody"] {
        let before = service.replica.hasher.work().rounds_done;
        let status = service.users().login_with_code(by_name(name)).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CODE");
        answers.push((status, service.replica.hasher.work().rounds_done - before));
    }
    assert_alike(&answers[0].0, &answers[1].0);
    assert_eq!(answers[0].1, answers[1].1);
}

/// (8, R16) However many come at once, ten are hashed.
async fn guesses_side_by_side_are_all_counted(service: &Service) {
    create(service, ada()).await;
    let other = service.another(|_| {}).await;
    let code = code(service, digits(CodePurpose::Login)).await;
    let hashes = || service.replica.hasher.work().taken_on + other.hasher.work().taken_on;
    let before = hashes();
    let guess = wrong(&code);
    let guesses = (0..40).map(|n| {
        let replica = if n % 2 == 0 { &service.replica } else { &other };
        use_on(replica, CodePurpose::Login, &guess, "ada@example.com")
    });
    for answer in join_all(guesses).await {
        let status = answer.unwrap_err();
        let known = ["BAD_CODE", "TOO_MANY_ATTEMPTS", "DATABASE_UNAVAILABLE"];
        assert!(known.contains(&reason(&status).as_str()), "{status:?}");
    }
    assert!(hashes() - before <= 10, "{}", hashes() - before);
}

/// Has a call leave while its wrong digits are hashed, once they are counted and `meanwhile` is done, and waits until it is
/// refunded. Returns the attempts with the code that are counted.
async fn abandon(service: &Service, meanwhile: impl Future<Output = ()>) -> i64 {
    create(service, ada()).await;
    let code = code(service, digits(CodePurpose::Login)).await;
    let request =
        LoginWithCodeRequest { code: wrong(&code), email: "ada@example.com".into(), ..Default::default() };
    let (leave, left) = tokio::sync::oneshot::channel();
    let mut users = service.users();
    let call = async move {
        tokio::select! {
            answer = users.login_with_code(request) => panic!("{answer:?}"),
            _ = left => Err(Status::cancelled("the caller left")),
        }
    };
    let meanwhile = async {
        let pending = "SELECT count(*) FROM code_tries WHERE times LIKE '[-%'";
        assert_eq!(service.number(pending).await, 2, "of the name and of the user");
        assert_eq!(service.number("SELECT tries FROM codes").await, 1);
        meanwhile.await;
        leave.send(()).unwrap();
        until(async || service.number("SELECT count(*) FROM code_tries WHERE times = '[]'").await == 2).await;
    };
    during_the_hash(service, call, meanwhile).await;
    service.number("SELECT tries FROM codes").await
}

/// (9) One whose caller leaves during the hash is refunded, to the user and to the code.
async fn abandoned_attempts_are_refunded(service: &Service) {
    assert_eq!(Box::pin(abandon(service, async {})).await, 0);
}

/// (R16) A COMMIT whose outcome was unknown may have stored the verdict. Here it is of a time that is outdated, so that its row
/// shows when the refund has seen it.
async fn an_attempt_that_has_its_verdict_is_not_refunded(service: &Service) {
    let judge = async { service.execute("UPDATE code_tries SET times = '[1]'").await };
    assert_eq!(Box::pin(abandon(service, judge)).await, 1);
}

/// (R16)
async fn a_reset_and_an_unlock_forget_wrong_digits(service: &Service) {
    let user = create(service, ada()).await;
    let by_name = async |code: &str, username: &str, email: &str| {
        let (code, username, email) = (code.into(), username.into(), email.into());
        let request = LoginWithCodeRequest { code, username, email, ..LoginWithCodeRequest::default() };
        service.users().login_with_code(request).await.map(|_| ())
    };
    for by_reset in [true, false] {
        for n in 0..10 {
            let code = code(service, digits(CodePurpose::Login)).await;
            let name = if n % 2 == 0 { ("ada", "") } else { ("", "ada@example.com") };
            let status = by_name(&wrong(&code), name.0, name.1).await.unwrap_err();
            assert_refused(&status, Code::Unauthenticated, "BAD_CODE");
        }
        assert_eq!(service.number("SELECT count(*) FROM code_tries").await, 3);
        let right = code(service, digits(CodePurpose::Login)).await;
        assert_bad(service, CodePurpose::Login, &right).await;
        if by_reset {
            let link = code(service, asking(CodePurpose::PasswordReset)).await;
            uses(service, CodePurpose::PasswordReset, &link).await.unwrap();
        } else {
            service.users().unlock(UnlockRequest { id: user.id.clone() }).await.unwrap();
        }
        assert_eq!(service.number("SELECT count(*) FROM code_tries").await, 0);
        let right = code(service, digits(CodePurpose::Login)).await;
        uses(service, CodePurpose::Login, &right).await.unwrap();
        service.execute("DELETE FROM attempts; DELETE FROM code_tries").await;
    }
    // Also with the digits that reset the password.
    let code = code(service, digits(CodePurpose::PasswordReset)).await;
    assert_bad(service, CodePurpose::PasswordReset, &wrong(&code)).await;
    uses(service, CodePurpose::PasswordReset, &code).await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM code_tries").await, 0);
}

/// The code that a call made while the user was deleted opens nothing when the user is back.
async fn a_code_made_while_its_user_is_deleted_is_void(service: &Service) {
    let user = create(service, ada()).await;
    let mut users = service.users();
    let late = async move {
        let made = users.create_code(digits(CodePurpose::Login)).await?.into_inner();
        Err(Status::aborted(made.code))
    };
    let meanwhile = async {
        delete(service, &user.id).await;
    };
    let made = during_the_hash(service, late, meanwhile).await;
    assert_eq!(made.code(), Code::Aborted, "{made:?}");
    restore(service, &user.id).await;
    assert_bad(service, CodePurpose::Login, made.message()).await;
    let of_user = format!("SELECT count(*) FROM codes WHERE user_id = '{}'", user.id);
    assert_eq!(service.number(&of_user).await, 0);
}

async fn creation_is_limited_by_ip_address_then_by_identifier(service: &Service) {
    create(service, ada()).await;
    let few = service.another(|config| (config.codes.per_address, config.codes.per_user) = (5, 3)).await;
    let ask = async |email: &str, address: &str| {
        let device = (!address.is_empty()).then(|| Device { address: address.into(), ..Device::default() });
        let request = CreateCodeRequest { email: email.into(), device, ..asking(CodePurpose::Login) };
        few.users.clone().create_code(request).await.map(|_| ())
    };
    let refused = |answer: Result<(), Status>| {
        let status = answer.unwrap_err();
        assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_CODES");
        assert!(retry_of(&status) > 0);
    };
    for email in ["ada@example.com", "nobody@example.com"] {
        for n in 0..3 {
            ask(email, &format!("192.0.2.{n}")).await.unwrap();
        }
        refused(ask(email, "192.0.2.9").await);
        refused(ask(&email.to_uppercase(), "").await);
    }
    for n in 0..5 {
        ask(&format!("user{n}@example.com"), "198.51.100.7").await.unwrap();
    }
    let codes = service.number("SELECT count(*) FROM codes").await;
    refused(ask("user9@example.com", "198.51.100.7").await);
    assert_eq!(service.number("SELECT count(*) FROM codes").await, codes);
    // Of the address first: the name does not pay for it.
    for _ in 0..3 {
        ask("user9@example.com", "").await.unwrap();
    }
    service.clock.advance(Duration::from_hours(2));
    ask("ada@example.com", "198.51.100.7").await.unwrap();
    // At the same time no more are made than one after the other.
    let many = join_all((0..20).map(|_| ask("grace@example.com", ""))).await;
    let made = many.iter().filter(|answer| answer.is_ok()).count();
    assert!((1..=3).contains(&made), "{made}");
}

/// (R13) Statements and rounds of bcrypt in place of time, which depends on the machine.
async fn known_and_unknown_users_cost_and_tell_the_same(service: &Service) {
    let user = create(service, ada()).await;
    create(service, CreateRequest { email: String::new(), ..nth(1) }).await;
    let names = |username: &str, email: &str| (username.to_owned(), email.to_owned());
    let known = [names("", "ada@example.com"), names("user1", "")];
    let unknown = [names("", "eve@example.com"), names("user2", "")];
    for form in [CodeForm::Link, CodeForm::Digits] {
        for purpose in PURPOSES {
            for ((username, email), (no_username, no_email)) in known.iter().zip(&unknown) {
                let one = trace(service, purpose, form, username, email).await;
                let other = trace(service, purpose, form, no_username, no_email).await;
                assert_eq!(one, other, "{purpose:?} {form:?} {username}{email}");
            }
        }
    }
    assert!(!read(service, &user.id).await.email_verified);
}

/// The statements and the rounds of making a code and of using a wrong one, with the answers.
async fn trace(
    service: &Service,
    purpose: CodePurpose,
    form: CodeForm,
    username: &str,
    email: &str,
) -> (Vec<String>, u64, usize, i64, String) {
    service.execute("DELETE FROM attempts; DELETE FROM code_tries").await;
    let rounds = service.replica.hasher.work().rounds_done;
    *service.replica.statements.lock().unwrap() = Some(Vec::new());
    let (username, email) = (username.to_owned(), email.to_owned());
    let request = CreateCodeRequest {
        username: username.clone(),
        email: email.clone(),
        form: form.into(),
        ..asking(purpose)
    };
    let made = service.users().create_code(request).await.unwrap().into_inner();
    let guess = if form == CodeForm::Digits { wrong(&made.code) } else { format!("code_{}", "0".repeat(64)) };
    let request = LoginWithCodeRequest { code: guess, username, email, ..Default::default() };
    let status = service.users().login_with_code(request).await.unwrap_err();
    let statements = service.replica.statements.lock().unwrap().take().unwrap();
    let rounds = service.replica.hasher.work().rounds_done - rounds;
    let told = format!("{:?} {} {:?}", status.code(), status.message(), status.details());
    (of_namespace(statements, "default"), rounds, made.code.len(), made.expires, told)
}

/// (R15) A code is used once, or not at all: never after another one was made, or the address was changed.
async fn a_code_is_used_replaced_and_voided_at_the_same_moment(service: &Service) {
    let user = create(service, ada()).await;
    let free = service.another(|config| config.codes.per_user = 0).await;
    for round in 0..12 {
        let address = format!("ada{round}@example.com");
        let id = user.id.clone();
        let request = CreateCodeRequest {
            id: id.clone(),
            email: String::new(),
            new_email: NEW_EMAIL.into(),
            ..asking(CodePurpose::EmailChange)
        };
        let older = code_on(&free, request.clone()).await;
        let using = (0..4).map(|_| use_on(&service.replica, CodePurpose::EmailChange, &older, ""));
        let mut users = service.users();
        let change =
            UpdateRequest { id: id.clone(), email: Some(address.clone()), ..UpdateRequest::default() };
        let (redeemed, newer, changed) =
            tokio::join!(join_all(using), code_on(&free, request), users.update(change));
        changed.unwrap();
        assert!(redeemed.iter().filter(|answer| answer.is_ok()).count() <= 1, "{redeemed:?}");
        // Before the change the code may have been used, after it it was void.
        assert_eq!(read(service, &id).await.email, address);
        assert_bad(service, CodePurpose::EmailChange, &older).await;
        // The newer one is bound to the address that it found.
        match use_on(&service.replica, CodePurpose::EmailChange, &newer, "").await {
            Ok(()) => assert_eq!(read(service, &id).await.email, NEW_EMAIL),
            Err(status) => {
                assert_refused(&status, Code::Unauthenticated, "BAD_CODE");
                assert_eq!(read(service, &id).await.email, address);
            }
        }
        let reset = UpdateRequest { id, email: Some("ada@example.com".into()), ..UpdateRequest::default() };
        service.users().update(reset).await.unwrap();
    }
}

//! Codes: what each is for, whom and what it is bound to, and that nothing of it is stored. The letters in brackets are the
//! rules that `tests/README.md` lists.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Statement, Value};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use usersd::domain::scope::Scopes;
use usersd::pb::{
    CodeForm, CodePurpose, CompleteLoginRequest, ConfirmEmailChangeRequest, CreateCodeRequest, CreateRequest,
    LogEvent, LoginWithCodeRequest, ResetPasswordRequest, Session, SetPasswordRequest, UpdateRequest, User,
    UserStatus, VerifyEmailRequest,
};

use crate::factors;
use crate::steps::{RIVAL, assert_alike, delete, events, is_open, log, read, restore, set_status, try_login};
use crate::support::{
    Backend, PASSWORD, Replica, START, Service, ada, assert_refused, create, fields, from, login, nth, until,
};

crate::on_every_backend!(
    a_code_of_another_tenant_is_refused_like_an_unknown_one,
    a_code_verifies_the_address_once,
    a_code_changes_the_address_when_the_new_one_is_proven,
    an_address_that_is_taken_leaves_the_code_valid,
    a_code_resets_the_password_and_ends_sessions_and_waits,
    a_password_with_the_users_name_leaves_the_code_valid,
    a_code_signs_in,
    a_code_does_not_replace_the_second_factor,
    a_reset_needs_no_more_than_users_write,
    a_code_is_for_one_user_and_one_purpose,
    a_newer_code_ends_the_older_of_its_purpose_only,
    a_code_ends_with_the_address_the_password_or_the_sessions_it_was_made_for,
    blocked_pending_and_sso_users,
    codes_expire,
    expired_codes_are_removed,
    no_code_is_stored,
    every_fault_is_named,
);

pub(crate) const NEW_EMAIL: &str = "countess@example.com";

pub(crate) fn asking(purpose: CodePurpose) -> CreateCodeRequest {
    let new_email = if purpose == CodePurpose::EmailChange { NEW_EMAIL.into() } else { String::new() };
    CreateCodeRequest {
        email: "ada@example.com".into(),
        purpose: purpose.into(),
        new_email,
        ..CreateCodeRequest::default()
    }
}

pub(crate) fn digits(purpose: CodePurpose) -> CreateCodeRequest {
    CreateCodeRequest { form: CodeForm::Digits.into(), ..asking(purpose) }
}

/// Makes a code on a replica.
pub(crate) async fn code_on(replica: &Replica, request: CreateCodeRequest) -> String {
    replica.users.clone().create_code(request).await.unwrap().into_inner().code
}

pub(crate) async fn code(service: &Service, request: CreateCodeRequest) -> String {
    code_on(&service.replica, request).await
}

/// Uses a code for a purpose; `email` names the user, or nobody.
pub(crate) async fn use_on(
    replica: &Replica,
    purpose: CodePurpose,
    code: &str,
    email: &str,
) -> Result<(), Status> {
    let mut users = replica.users.clone();
    let (code, email) = (code.to_owned(), email.to_owned());
    match purpose {
        CodePurpose::EmailVerification => {
            users.verify_email(VerifyEmailRequest { code, email, ..Default::default() }).await.map(|_| ())
        }
        CodePurpose::EmailChange => {
            let request = ConfirmEmailChangeRequest { code, email, ..Default::default() };
            users.confirm_email_change(request).await.map(|_| ())
        }
        CodePurpose::PasswordReset => {
            let new_password = "battery staple".to_owned();
            let request = ResetPasswordRequest { code, email, new_password, ..Default::default() };
            users.reset_password(request).await.map(|_| ())
        }
        CodePurpose::Login | CodePurpose::Unspecified => users
            .login_with_code(LoginWithCodeRequest { code, email, ..Default::default() })
            .await
            .map(|_| ()),
    }
}

pub(crate) async fn uses(service: &Service, purpose: CodePurpose, code: &str) -> Result<(), Status> {
    let email = if code.starts_with("code_") { "" } else { "ada@example.com" };
    use_on(&service.replica, purpose, code, email).await
}

/// Fails unless the code opens nothing.
pub(crate) async fn assert_bad(service: &Service, purpose: CodePurpose, code: &str) {
    let status = uses(service, purpose, code).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CODE");
}

pub(crate) const PURPOSES: [CodePurpose; 4] = [
    CodePurpose::EmailVerification,
    CodePurpose::EmailChange,
    CodePurpose::PasswordReset,
    CodePurpose::Login,
];

async fn verify(service: &Service, code: &str) -> Result<User, Status> {
    let request = VerifyEmailRequest { code: code.into(), ..VerifyEmailRequest::default() };
    Ok(service.users().verify_email(request).await?.into_inner().user.unwrap())
}

async fn sign_in(service: &Service, code: &str) -> Session {
    let request = LoginWithCodeRequest { code: code.into(), ..LoginWithCodeRequest::default() };
    service.users().login_with_code(request).await.unwrap().into_inner().session.unwrap()
}

fn reset(code: &str, password: &str) -> ResetPasswordRequest {
    ResetPasswordRequest { code: code.into(), new_password: password.into(), ..Default::default() }
}

/// The same answer after the same statements, and nothing but the other tenant's log has changed. (R15)
async fn a_code_of_another_tenant_is_refused_like_an_unknown_one(service: &Service) {
    create(service, ada()).await;
    let theirs = code(service, asking(CodePurpose::EmailVerification)).await;
    let mut answers = Vec::new();
    for code in [theirs.clone(), format!("code_{}", "0".repeat(64))] {
        *service.replica.statements.lock().unwrap() = Some(Vec::new());
        let request = VerifyEmailRequest { code, ..VerifyEmailRequest::default() };
        let status = service.users().verify_email(from(RIVAL, request)).await.unwrap_err();
        let statements = service.replica.statements.lock().unwrap().take().unwrap();
        answers.push((status, of_namespace(statements, RIVAL)));
    }
    assert_alike(&answers[0].0, &answers[1].0);
    assert_eq!(answers[0].1, answers[1].1);
    let by_id = CreateCodeRequest { id: "nobody".into(), email: String::new(), ..asking(CodePurpose::Login) };
    let nobody = service.users().create_code(from(RIVAL, by_id.clone())).await.unwrap_err();
    let id = read_id(service).await;
    let there =
        service.users().create_code(from(RIVAL, CreateCodeRequest { id, ..by_id })).await.unwrap_err();
    assert_refused(&there, Code::NotFound, "USER_NOT_FOUND");
    assert_alike(&there, &nobody);
    // By the address it gets a code, which opens nothing anywhere.
    let blank = service.users().create_code(from(RIVAL, asking(CodePurpose::EmailVerification))).await;
    assert_bad(service, CodePurpose::EmailVerification, &blank.unwrap().into_inner().code).await;
    assert!(verify(service, &theirs).await.unwrap().email_verified);
    assert_eq!(
        service
            .number("SELECT count(*) FROM events WHERE namespace = 'default' AND action = 'CODE_REFUSED'")
            .await,
        1
    );
}

/// The texts of the statements about a namespace: what the server does beside is about all of them.
pub(crate) fn of_namespace(statements: Vec<Statement>, namespace: &str) -> Vec<String> {
    let namespace = Value::from(namespace);
    let of_it =
        |one: &Statement| one.values.iter().flat_map(|values| &values.0).any(|value| *value == namespace);
    statements.into_iter().filter(of_it).map(|one| one.sql).collect()
}

async fn read_id(service: &Service) -> String {
    let request = usersd::pb::ReadRequest { username: "ada".into(), ..Default::default() };
    service.users().read(request).await.unwrap().into_inner().user.unwrap().id
}

/// (R15)
async fn a_code_verifies_the_address_once(service: &Service) {
    let user = create(service, ada()).await;
    let made =
        service.users().create_code(asking(CodePurpose::EmailVerification)).await.unwrap().into_inner();
    assert_eq!((made.code.len(), made.expires), (69, START + 24 * 3_600));
    let verified = verify(service, &made.code).await.unwrap();
    assert!(verified.email_verified && verified.etag.ends_with("-2\""));
    assert_bad(service, CodePurpose::EmailVerification, &made.code).await;
    let seen = events(service, &user.id).await;
    // Whose a code was that is gone, nobody knows any more.
    assert_eq!(seen, [LogEvent::VerificationUpdated, LogEvent::CodeCreated, LogEvent::UserCreated]);
    assert_eq!(log(service, &user.id).await[1].changed, ["EMAIL_VERIFICATION"]);
    // Once more is no change of the user.
    let again = code(service, digits(CodePurpose::EmailVerification)).await;
    assert_eq!(again.len(), 6);
    uses(service, CodePurpose::EmailVerification, &again).await.unwrap();
    assert_eq!(read(service, &user.id).await.etag, verified.etag);
    assert_bad(service, CodePurpose::EmailVerification, &again).await;
    assert_eq!(events(service, &user.id).await[0], LogEvent::CodeRefused);
}

/// (R25)
async fn a_code_changes_the_address_when_the_new_one_is_proven(service: &Service) {
    let user = create(service, ada()).await;
    let change = code(service, asking(CodePurpose::EmailChange)).await;
    assert_eq!(read(service, &user.id).await.email, "ada@example.com");
    uses(service, CodePurpose::EmailChange, &change).await.unwrap();
    let changed = read(service, &user.id).await;
    assert_eq!((changed.email.as_str(), changed.email_verified), (NEW_EMAIL, true));
    let entry = log(service, &user.id).await.remove(0);
    assert_eq!(
        (entry.event(), entry.changed),
        (LogEvent::UserUpdated, vec!["email".into(), "email_verified".into()])
    );
}

async fn an_address_that_is_taken_leaves_the_code_valid(service: &Service) {
    let user = create(service, ada()).await;
    let other = create(service, CreateRequest { email: NEW_EMAIL.into(), ..nth(1) }).await;
    for request in [asking(CodePurpose::EmailChange), digits(CodePurpose::EmailChange)] {
        let change = code(service, request).await;
        let status = uses(service, CodePurpose::EmailChange, &change).await.unwrap_err();
        assert_refused(&status, Code::AlreadyExists, "EMAIL_TAKEN");
        assert_eq!(status.get_details_error_info().unwrap().metadata["holder"], other.id);
    }
    let change = code(service, asking(CodePurpose::EmailChange)).await;
    uses(service, CodePurpose::EmailChange, &change).await.unwrap_err();
    delete(service, &other.id).await;
    uses(service, CodePurpose::EmailChange, &change).await.unwrap();
    assert_eq!(read(service, &user.id).await.email, NEW_EMAIL);
}

/// (R15, R18: no session is opened)
async fn a_code_resets_the_password_and_ends_sessions_and_waits(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    for _ in 0..5 {
        try_login(service, "ada", "wrong").await.unwrap_err();
    }
    let waits = try_login(service, "ada", PASSWORD).await.unwrap_err();
    assert_refused(&waits, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    let code = code(service, asking(CodePurpose::PasswordReset)).await;
    service.clock.advance(Duration::from_secs(1));
    let reply = service.users().reset_password(reset(&code, "battery staple")).await.unwrap();
    let changed = reply.into_inner().user.unwrap();
    assert_eq!(changed.password_updated, START + 1);
    assert!(!is_open(service, &session.id).await);
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 0);
    let old = try_login(service, "ada", PASSWORD).await.unwrap_err();
    assert_refused(&old, Code::Unauthenticated, "BAD_CREDENTIALS");
    try_login(service, "ada", "battery staple").await.unwrap();
    assert!(events(service, &user.id).await.contains(&LogEvent::PasswordReset));
}

async fn a_password_with_the_users_name_leaves_the_code_valid(service: &Service) {
    create(service, CreateRequest { username: "lovelace".into(), ..ada() }).await;
    let mut users = service.users();
    for request in [asking(CodePurpose::PasswordReset), digits(CodePurpose::PasswordReset)] {
        let code = code(service, request).await;
        let named =
            |password| ResetPasswordRequest { email: "ada@example.com".into(), ..reset(&code, password) };
        let status = users.reset_password(named("1-lovelace-1")).await.unwrap_err();
        assert_eq!(fields(&status), ["new_password"]);
        // One who has no code learns nothing of the name.
        let wrong = ResetPasswordRequest { code: "000000".into(), ..named("1-lovelace-1") };
        let status = users.reset_password(wrong).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CODE");
        users.reset_password(named("battery staple")).await.unwrap();
    }
}

async fn a_code_signs_in(service: &Service) {
    let user = create(service, ada()).await;
    for request in [asking(CodePurpose::Login), digits(CodePurpose::Login)] {
        let code = code(service, request).await;
        uses(service, CodePurpose::Login, &code).await.unwrap();
        assert_bad(service, CodePurpose::Login, &code).await;
    }
    let session = sign_in(service, &code(service, asking(CodePurpose::Login)).await).await;
    assert_eq!((session.user_id.as_str(), session.username.as_str()), (user.id.as_str(), "ada"));
    assert!(is_open(service, &session.id).await);
    assert_eq!(service.number("SELECT count(*) FROM sessions WHERE amr = 'code'").await, 3);
    try_login(service, "ada", PASSWORD).await.unwrap();
}

/// (R18) A code is a first factor, and used up when the second one is asked for.
async fn a_code_does_not_replace_the_second_factor(service: &Service) {
    factors::give_keys(service, &[1]);
    let user = create(service, ada()).await;
    let (_, recovery_codes) = factors::confirm(service, &user.id).await;
    let made = code(service, asking(CodePurpose::Login)).await;
    let status = uses(service, CodePurpose::Login, &made).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "SECOND_FACTOR_REQUIRED");
    assert_bad(service, CodePurpose::Login, &made).await;
    let challenge = status.get_details_error_info().unwrap().metadata["challenge"].clone();
    let recovery_code = recovery_codes[0].clone();
    let request = CompleteLoginRequest { challenge, recovery_code, ..CompleteLoginRequest::default() };
    let session = service.users().complete_login(request).await.unwrap().into_inner().session.unwrap();
    assert_eq!(session.amr, ["code", "recovery"]);

    let made = code(service, asking(CodePurpose::PasswordReset)).await;
    uses(service, CodePurpose::PasswordReset, &made).await.unwrap();
    let status = try_login(service, "ada", "battery staple").await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "SECOND_FACTOR_REQUIRED");
}

async fn a_reset_needs_no_more_than_users_write(service: &Service) {
    create(service, ada()).await;
    let scopes = |names: &[&str]| Scopes::parse(names.iter().copied()).unwrap();
    let (maker, _) = service.key("default", scopes(&["codes.write"])).await;
    let (user, _) = service.key("default", scopes(&["users.write"])).await;
    let with = |key: &str| format!("Bearer {key}").parse().unwrap();
    let mut request = tonic::Request::new(asking(CodePurpose::PasswordReset));
    request.metadata_mut().insert("authorization", with(&maker));
    let code = service.users().create_code(request).await.unwrap().into_inner().code;
    let mut request = tonic::Request::new(reset(&code, "battery staple"));
    request.metadata_mut().insert("authorization", with(&user));
    service.users().reset_password(request).await.unwrap();
}

/// (R15)
async fn a_code_is_for_one_user_and_one_purpose(service: &Service) {
    create(service, ada()).await;
    create(service, nth(1)).await;
    for purpose in PURPOSES {
        for request in [asking(purpose), digits(purpose)] {
            let code = code(service, request).await;
            for other in PURPOSES.into_iter().filter(|other| *other != purpose) {
                assert_bad(service, other, &code).await;
            }
            for email in ["user1@example.com", "nobody@example.com"] {
                let status = use_on(&service.replica, purpose, &code, email).await.unwrap_err();
                assert_refused(&status, Code::Unauthenticated, "BAD_CODE");
            }
        }
        // What was wrong would add up to the limit of a day.
        service.clock.advance(Duration::from_hours(24));
    }
}

/// (R15)
async fn a_newer_code_ends_the_older_of_its_purpose_only(service: &Service) {
    create(service, ada()).await;
    let other = code(service, asking(CodePurpose::Login)).await;
    let older = code(service, asking(CodePurpose::EmailVerification)).await;
    let newer = code(service, digits(CodePurpose::EmailVerification)).await;
    assert_bad(service, CodePurpose::EmailVerification, &older).await;
    let newest = code(service, asking(CodePurpose::EmailVerification)).await;
    // Digits are none of a link, and end nothing.
    assert_bad(service, CodePurpose::EmailVerification, &newer).await;
    uses(service, CodePurpose::EmailVerification, &newest).await.unwrap();
    uses(service, CodePurpose::Login, &other).await.unwrap();
}

/// (R15)
async fn a_code_ends_with_the_address_the_password_or_the_sessions_it_was_made_for(service: &Service) {
    for change in 0..4 {
        let user = create(service, ada()).await;
        let codes = async || {
            let mut codes = Vec::new();
            for purpose in PURPOSES {
                codes.push((purpose, code(service, asking(purpose)).await));
            }
            codes
        };
        let codes = codes().await;
        service.clock.advance(Duration::from_secs(1));
        let update = UpdateRequest { id: user.id.clone(), ..UpdateRequest::default() };
        match change {
            0 => {
                let email = Some("other@example.com".into());
                service.users().update(UpdateRequest { email, ..update.clone() }).await.unwrap();
            }
            1 => {
                let new_password = "another horse".into();
                let set = SetPasswordRequest { user_id: user.id.clone(), new_password, ..Default::default() };
                service.users().set_password(set).await.unwrap();
            }
            2 => {
                delete(service, &user.id).await;
                restore(service, &user.id).await;
            }
            _ => {
                set_status(service, &user.id, UserStatus::Blocked).await;
                set_status(service, &user.id, UserStatus::Active).await;
            }
        }
        for (purpose, code) in codes {
            assert_bad(service, purpose, &code).await;
        }
        delete(service, &user.id).await;
        crate::steps::purge(service, &user.id).await;
    }
}

async fn blocked_pending_and_sso_users(service: &Service) {
    let user = create(service, ada()).await;
    set_status(service, &user.id, UserStatus::Blocked).await;
    for purpose in PURPOSES {
        for request in [asking(purpose), digits(purpose)] {
            let status = uses(service, purpose, &code(service, request).await).await.unwrap_err();
            assert_refused(&status, Code::PermissionDenied, "USER_BLOCKED");
        }
    }
    // It is told after the right code only, and the code stays valid.
    assert_bad(service, CodePurpose::Login, "000000").await;
    let kept = code(service, asking(CodePurpose::EmailVerification)).await;
    uses(service, CodePurpose::EmailVerification, &kept).await.unwrap_err();
    set_status(service, &user.id, UserStatus::Pending).await;
    uses(service, CodePurpose::EmailVerification, &kept).await.unwrap();
    assert_eq!(read(service, &user.id).await.status(), UserStatus::Pending);
    uses(service, CodePurpose::Login, &code(service, asking(CodePurpose::Login)).await).await.unwrap();

    let sso = UpdateRequest { id: user.id.clone(), sso_enabled: Some(true), ..UpdateRequest::default() };
    service.users().update(sso).await.unwrap();
    for purpose in [CodePurpose::PasswordReset, CodePurpose::Login] {
        assert_bad(service, purpose, &code(service, asking(purpose)).await).await;
    }
    for purpose in [CodePurpose::EmailVerification, CodePurpose::EmailChange] {
        uses(service, purpose, &code(service, asking(purpose)).await).await.unwrap();
    }
    // A user without an address has none to verify, and one in the trash is nobody.
    let bare = create(service, CreateRequest { email: String::new(), ..nth(1) }).await;
    let by_id = CreateCodeRequest {
        id: bare.id.clone(),
        email: String::new(),
        ..asking(CodePurpose::EmailVerification)
    };
    assert_bad(service, CodePurpose::EmailVerification, &code(service, by_id.clone()).await).await;
    delete(service, &bare.id).await;
    let status = service.users().create_code(by_id).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
}

/// (R16)
async fn codes_expire(service: &Service) {
    create(service, ada()).await;
    let hour = service.another(|config| config.codes.email_verification = Duration::from_mins(5)).await;
    for (replica, request, minutes) in [
        (&service.replica, asking(CodePurpose::EmailVerification), 24 * 60),
        (&service.replica, asking(CodePurpose::EmailChange), 60),
        (&service.replica, asking(CodePurpose::PasswordReset), 60),
        (&service.replica, asking(CodePurpose::Login), 10),
        (&service.replica, digits(CodePurpose::EmailVerification), 10),
        (&service.replica, digits(CodePurpose::Login), 10),
        (&hour, digits(CodePurpose::EmailVerification), 5),
    ] {
        let purpose = CodePurpose::try_from(request.purpose).unwrap();
        let made = replica.users.clone().create_code(request.clone()).await.unwrap().into_inner();
        assert_eq!(made.expires, service.clock.now().seconds() + minutes * 60, "{request:?}");
        let minutes = Duration::from_mins(minutes.unsigned_abs());
        service.clock.advance(minutes);
        assert_bad(service, purpose, &made.code).await;
        let again = code_on(replica, request).await;
        service.clock.advance(minutes.checked_sub(Duration::from_micros(1)).unwrap());
        uses(service, purpose, &again).await.unwrap();
        if purpose == CodePurpose::EmailChange {
            let back = UpdateRequest {
                id: read_id(service).await,
                email: Some("ada@example.com".into()),
                ..Default::default()
            };
            service.users().update(back).await.unwrap();
        }
    }
}

async fn expired_codes_are_removed(service: &Service) {
    create(service, ada()).await;
    code(service, digits(CodePurpose::Login)).await;
    let kept = code(service, asking(CodePurpose::EmailVerification)).await;
    code(service, CreateCodeRequest { email: "nobody@example.com".into(), ..digits(CodePurpose::Login) })
        .await;
    assert_bad(service, CodePurpose::Login, "000000").await;
    let rows = async || {
        (
            service.number("SELECT count(*) FROM codes").await,
            service.number("SELECT count(*) FROM code_tries").await,
        )
    };
    assert_eq!(rows().await, (3, 2));
    service.clock.advance(Duration::from_hours(1));
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(rows().await, (1, 2));
    uses(service, CodePurpose::EmailVerification, &kept).await.unwrap();
    service.clock.advance(Duration::from_hours(24));
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(rows().await, (0, 0));
}

/// (R17) Neither in a table nor in the file of SQLite or its log.
async fn no_code_is_stored(service: &Service) {
    create(service, ada()).await;
    let mut codes = Vec::new();
    for purpose in PURPOSES {
        codes.push(code(service, asking(purpose)).await);
        codes.push(code(service, CreateCodeRequest { length: 10, ..digits(purpose) }).await);
    }
    let statement = Statement::from_string(service.backend.kind(), "SELECT secret FROM codes");
    let rows = service.replica.store.reader().query_all_raw(statement).await.unwrap();
    let stored: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    assert_eq!(stored.len(), PURPOSES.len());
    assert!(stored.iter().all(|secret| secret.starts_with("$2b$")), "{stored:?}");
    // Passwords of these tests cost less than codes; here they cost more, as everywhere else.
    let usual = service.another(|config| config.passwords.cost = 11).await;
    code_on(&usual, CreateCodeRequest { length: 10, ..digits(CodePurpose::Login) }).await;
    assert_eq!(service.number("SELECT count(*) FROM codes WHERE secret LIKE '$2b$10$%'").await, 1);
    if service.backend == Backend::Sqlite {
        for file in service.files() {
            let bytes = std::fs::read(&file).unwrap();
            for code in &codes {
                let secret = code.strip_prefix("code_").unwrap_or(code).as_bytes();
                let found = bytes.windows(secret.len()).any(|window| window == secret);
                assert!(!found, "{} holds a code", file.display());
            }
        }
    }
}

async fn every_fault_is_named(service: &Service) {
    create(service, ada()).await;
    let before = service.counts().await;
    let ask = |request| async { fields(&service.users().create_code(request).await.unwrap_err()) };
    let login = || asking(CodePurpose::Login);
    assert_eq!(ask(CreateCodeRequest::default()).await, ["purpose", "id"]);
    let both = CreateCodeRequest { username: "ada".into(), purpose: 9, ..login() };
    assert_eq!(ask(both).await, ["purpose", "username", "email"]);
    assert_eq!(ask(CreateCodeRequest { email: "ada".into(), form: 9, ..login() }).await, ["form", "email"]);
    assert_eq!(ask(CreateCodeRequest { length: 6, ..login() }).await, ["length"]);
    for length in [-1, 5, 11] {
        assert_eq!(ask(CreateCodeRequest { length, ..digits(CodePurpose::Login) }).await, ["length"]);
    }
    assert_eq!(ask(CreateCodeRequest { new_email: NEW_EMAIL.into(), ..login() }).await, ["new_email"]);
    for new_email in ["", "ada"] {
        let request = CreateCodeRequest { new_email: new_email.into(), ..asking(CodePurpose::EmailChange) };
        assert_eq!(ask(request).await, ["new_email"]);
    }
    let mut users = service.users();
    let verify = users.verify_email(VerifyEmailRequest::default()).await.unwrap_err();
    assert_eq!(fields(&verify), ["code"]);
    let unnamed = VerifyEmailRequest { code: "123456".into(), ..VerifyEmailRequest::default() };
    assert_eq!(fields(&users.verify_email(unnamed).await.unwrap_err()), ["id"]);
    let short = users.reset_password(reset("", "short")).await.unwrap_err();
    assert_eq!(fields(&short), ["code", "new_password"]);
    assert_eq!(service.counts().await, before);
    // What can be no code is a wrong one.
    for text in ["12345", "12345678901", "code_", "a code"] {
        let request =
            VerifyEmailRequest { code: text.into(), email: "ada@example.com".into(), ..Default::default() };
        let status = users.verify_email(request).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CODE");
    }
    for length in 6..=10 {
        let made = code(service, CreateCodeRequest { length, ..digits(CodePurpose::Login) }).await;
        assert_eq!(made.len(), usize::try_from(length).unwrap());
        uses(service, CodePurpose::Login, &made).await.unwrap();
    }
    until(async || service.number("SELECT count(*) FROM codes").await == 0).await;
}

//! What was wrong with the micro service, each fault held away by a test that fails on the original. Some of
//! them stand where they belong otherwise: 8 as `sessions::a_session_ends_at_its_time`, 9 as
//! `users::a_deleted_user_is_gone_and_its_names_are_free`, 14 as `sessions::a_token_is_stored_nowhere`.

use tonic::Code;
use usersd::pb::{
    CreateRequest, DeleteRequest, LoginRequest, LogoutRequest, ReadRequest, ReadSessionRequest,
    SearchRequest, UpdatePasswordRequest, UpdateRequest,
};

use crate::support::{PASSWORD, START, Service, ada, assert_refused, create, fields, login, nth, reason};

crate::on_every_backend!(
    no_prefix_of_a_name_or_a_token_is_enough,
    an_empty_id_deletes_nobody_and_ends_nothing,
    a_session_carries_the_users_own_names,
    an_id_in_use_takes_no_account_over,
    of_64_creates_of_one_name_exactly_one_wins,
    an_update_keeps_the_rest_and_creates_nobody,
    search_heeds_limit_offset_and_case,
    an_empty_new_password_is_refused,
    bytes_after_the_48th_count,
    unknown_user_and_wrong_password_are_one_answer,
    client_mistakes_are_not_ours,
    guesses_leave_a_trace,
);

fn attempt(username: &str, password: &str) -> LoginRequest {
    LoginRequest { username: username.into(), password: password.into(), ..LoginRequest::default() }
}

/// (Fault 1)
async fn no_prefix_of_a_name_or_a_token_is_enough(service: &Service) {
    let named = |name: &str, password: &str| CreateRequest {
        username: name.into(),
        email: format!("{name}@example.com"),
        password: password.into(),
        ..CreateRequest::default()
    };
    create(service, named("admin1", "the first horse")).await;
    create(service, named("admin", "the other horse")).await;
    for (name, password) in
        [("admin", "the first horse"), ("admin1", "the other horse"), ("adm", "the other horse")]
    {
        let status = service.users().login(attempt(name, password)).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    }
    let session = service.users().login(attempt("admin", "the other horse")).await.unwrap().into_inner();
    let token = session.session.unwrap().id;
    for length in 0..token.len() {
        let prefix = ReadSessionRequest { session_id: token[..length].into(), max_age: None };
        service.users().read_session(prefix).await.unwrap_err();
    }
    let prefix = ReadRequest { username: "adm".into(), ..ReadRequest::default() };
    assert_refused(&service.users().read(prefix).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
}

/// (Fault 2)
async fn an_empty_id_deletes_nobody_and_ends_nothing(service: &Service) {
    create(service, ada()).await;
    login(service, "ada").await;
    let before = service.counts().await;
    let mut users = service.users();
    assert_eq!(fields(&users.delete(DeleteRequest::default()).await.unwrap_err()), ["id"]);
    assert_eq!(fields(&users.logout(LogoutRequest::default()).await.unwrap_err()), ["session_id"]);
    assert_eq!(fields(&users.read(ReadRequest::default()).await.unwrap_err()), ["id"]);
    assert_eq!(fields(&users.read_session(ReadSessionRequest::default()).await.unwrap_err()), ["session_id"]);
    assert_eq!(fields(&users.update(UpdateRequest::default()).await.unwrap_err()), ["id"]);
    assert_eq!(service.counts().await, before);
}

/// (Fault 3)
async fn a_session_carries_the_users_own_names(service: &Service) {
    create(service, ada()).await;
    create(service, nth(1)).await;
    let request = LoginRequest { email: "user1@example.com".into(), ..attempt("ada", PASSWORD) };
    assert_refused(
        &service.users().login(request).await.unwrap_err(),
        Code::Unauthenticated,
        "BAD_CREDENTIALS",
    );
    let session = login(service, "ADA").await;
    assert_eq!((session.username.as_str(), session.email.as_str()), ("ada", "ada@example.com"));
}

/// (Fault 4)
async fn an_id_in_use_takes_no_account_over(service: &Service) {
    let user = create(service, ada()).await;
    let request = CreateRequest { id: user.id.clone(), password: "a rival horse".into(), ..nth(1) };
    assert_refused(&service.users().create(request).await.unwrap_err(), Code::AlreadyExists, "ID_TAKEN");
    login(service, "ada").await;
    service.users().login(attempt("ada", "a rival horse")).await.unwrap_err();
}

/// (Fault 5)
async fn of_64_creates_of_one_name_exactly_one_wins(service: &Service) {
    let creates = (0..64).map(|n| {
        let mut users = service.users();
        let request = CreateRequest { email: format!("ada{n}@example.com"), ..ada() };
        tokio::spawn(async move { users.create(request).await })
    });
    let mut won = 0;
    for create in creates.collect::<Vec<_>>() {
        match create.await.unwrap() {
            Ok(_) => won += 1,
            Err(status) => assert_refused(&status, Code::AlreadyExists, "USERNAME_TAKEN"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(service.number("SELECT count(*) FROM users").await, 1);
    assert_eq!(service.number("SELECT count(*) FROM events").await, 1);
}

/// (Fault 6)
async fn an_update_keeps_the_rest_and_creates_nobody(service: &Service) {
    let user = create(service, ada()).await;
    service.clock.advance(std::time::Duration::from_mins(1));
    let same_name = UpdateRequest {
        id: user.id.clone(),
        username: Some("ada".into()),
        email: Some("ada+update@example.com".into()),
        ..UpdateRequest::default()
    };
    let updated = service.users().update(same_name).await.unwrap().into_inner().user.unwrap();
    assert_eq!((updated.created, updated.updated), (START, START + 60));
    let unknown = UpdateRequest { id: "nobody".into(), name: Some("x".into()), ..UpdateRequest::default() };
    assert_refused(&service.users().update(unknown).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    assert_eq!(service.number("SELECT count(*) FROM users").await, 1);
}

/// (Fault 7)
async fn search_heeds_limit_offset_and_case(service: &Service) {
    for n in 1..=4 {
        create(service, nth(n)).await;
    }
    let request = SearchRequest { username: "USER".into(), limit: 2, offset: 1, ..SearchRequest::default() };
    let users = service.users().search(request).await.unwrap().into_inner().users;
    assert_eq!(users.into_iter().map(|user| user.username).collect::<Vec<_>>(), ["user2", "user3"]);
}

/// (Fault 10)
async fn an_empty_new_password_is_refused(service: &Service) {
    let user = create(service, ada()).await;
    let request = UpdatePasswordRequest {
        user_id: user.id,
        old_password: PASSWORD.into(),
        ..UpdatePasswordRequest::default()
    };
    assert_eq!(fields(&service.users().update_password(request).await.unwrap_err()), ["new_password"]);
    service.users().login(attempt("ada", "")).await.unwrap_err();
    login(service, "ada").await;
}

/// (Fault 11)
async fn bytes_after_the_48th_count(service: &Service) {
    for (n, length) in [49, 72, 73, 100].into_iter().enumerate() {
        let password = "x".repeat(length);
        create(service, CreateRequest { password: password.clone(), ..nth(n) }).await;
        let name = format!("user{n}");
        let other = format!("{}y", &password[1..]);
        service.users().login(attempt(&name, &other)).await.unwrap_err();
        service.users().login(attempt(&name, &password[1..])).await.unwrap_err();
        service.users().login(attempt(&name, &password)).await.unwrap();
    }
}

/// The same text, code and rows; that time tells nothing either is due to the dummy hash.
/// (Fault 12)
async fn unknown_user_and_wrong_password_are_one_answer(service: &Service) {
    create(service, ada()).await;
    let passwordless = CreateRequest { sso_enabled: true, password: String::new(), ..nth(1) };
    create(service, passwordless).await;
    let long = "x".repeat(10_000);
    let attempts = [
        attempt("ada", "wrong"),
        attempt("nobody", "wrong"),
        attempt("not a username", "wrong"),
        attempt("user1", "wrong"),
        attempt("ada", ""),
        attempt("ada", &long),
        attempt("nobody", ""),
        attempt("nobody", &long),
    ];
    let mut answers = Vec::new();
    for request in attempts {
        let before = service.number("SELECT count(*) FROM events").await;
        let status = service.users().login(request).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
        answers.push((status.message().to_owned(), status.details().to_vec()));
        assert_eq!(service.number("SELECT count(*) FROM events").await, before + 1);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
}

/// (Fault 13)
async fn client_mistakes_are_not_ours(service: &Service) {
    create(service, ada()).await;
    let mut users = service.users();
    let mistakes = [
        users.create(CreateRequest::default()).await.unwrap_err(),
        users.create(ada()).await.unwrap_err(),
        users.read(ReadRequest { id: "nobody".into(), ..ReadRequest::default() }).await.unwrap_err(),
        users.delete(DeleteRequest { id: "nobody".into(), ..DeleteRequest::default() }).await.unwrap_err(),
        users.login(attempt("ada", "wrong")).await.unwrap_err(),
        users
            .read_session(ReadSessionRequest { session_id: "nothing".into(), max_age: None })
            .await
            .unwrap_err(),
    ];
    for status in mistakes {
        assert!(!matches!(status.code(), Code::Internal | Code::Unknown), "{status:?}");
        assert_ne!(reason(&status), "INTERNAL");
    }
}

/// The trace is what a limit on attempts counts.
/// (Fault 15)
async fn guesses_leave_a_trace(service: &Service) {
    let user = create(service, ada()).await;
    for _ in 0..3 {
        service.users().login(attempt("ada", "guess")).await.unwrap_err();
    }
    let of_ada =
        format!("SELECT count(*) FROM events WHERE action = 'LOGIN_REFUSED' AND user_id = '{}'", user.id);
    assert_eq!(service.number(&of_ada).await, 3);
}

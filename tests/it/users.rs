//! Accounts: create, read, update, delete, search.

use std::collections::BTreeMap;

use prost_types::FieldMask;
use tonic::Code;
use tonic_types::StatusExt as _;
use usersd::pb::{
    CreateRequest, DeleteRequest, LoginRequest, LogoutRequest, ReadRequest, ReadSessionRequest,
    SearchRequest, UpdatePasswordRequest, UpdateRequest, User, UserStatus,
};

use crate::support::{PASSWORD, START, Service, ada, assert_refused, create, fields, from, login, nth};

crate::on_every_backend!(
    another_namespace_sees_nothing,
    twins_in_two_namespaces_never_touch,
    a_created_user_can_be_read_back,
    omitted_fields_are_generated_or_empty,
    names_are_folded_and_found_in_any_case,
    a_taken_name_changes_nothing_and_names_its_holder,
    every_bad_field_is_named_at_once,
    read_takes_exactly_one_key,
    an_update_leaves_the_rest_alone,
    a_mask_writes_exactly_what_it_names,
    a_mask_cannot_name_what_cannot_be_written,
    a_changed_address_is_not_verified,
    an_update_of_nothing_writes_nothing,
    a_stale_etag_changes_nothing,
    the_last_name_cannot_be_cleared,
    a_deleted_user_is_gone_and_its_names_are_free,
    a_deleted_id_stays_taken,
    search_finds_prefixes_in_order_and_pages,
    search_stays_under_the_size_of_a_reply,
    every_change_writes_one_event,
    concurrent_updates_are_all_counted,
);

async fn read(service: &Service, id: &str) -> User {
    let request = ReadRequest { id: id.into(), ..ReadRequest::default() };
    service.users().read(request).await.unwrap().into_inner().user.unwrap()
}

fn by_id(id: &str) -> ReadRequest {
    ReadRequest { id: id.into(), ..ReadRequest::default() }
}

async fn another_namespace_sees_nothing(service: &Service) {
    let mut users = service.users();
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    let before = service.counts().await;
    let id = user.id.clone();
    let rival = "rival";

    let missing = users.read(from(rival, by_id(&id))).await.unwrap_err();
    assert_refused(&missing, Code::NotFound, "USER_NOT_FOUND"); // PERMISSION_DENIED would confirm the id
    let unknown = users.read(from(rival, by_id("nobody"))).await.unwrap_err();
    assert_eq!(missing.message(), unknown.message());
    assert_eq!(missing.details(), unknown.details());
    let named = ReadRequest { username: "ada".into(), ..ReadRequest::default() };
    assert_refused(&users.read(from(rival, named)).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    let update = UpdateRequest { id: id.clone(), name: Some("x".into()), ..UpdateRequest::default() };
    assert_refused(&users.update(from(rival, update)).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    let delete = DeleteRequest { id: id.clone(), ..DeleteRequest::default() };
    assert_refused(&users.delete(from(rival, delete)).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    let found = users.search(from(rival, SearchRequest::default())).await.unwrap().into_inner();
    assert_eq!(found.users, []);
    let read = ReadSessionRequest { session_id: session.id.clone(), max_age: None };
    assert_refused(
        &users.read_session(from(rival, read)).await.unwrap_err(),
        Code::NotFound,
        "SESSION_NOT_FOUND",
    );
    let logout = LogoutRequest { session_id: session.id.clone() };
    assert_refused(
        &users.logout(from(rival, logout)).await.unwrap_err(),
        Code::NotFound,
        "SESSION_NOT_FOUND",
    );
    assert_eq!(service.counts().await, before);

    let login = LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    assert_refused(
        &users.login(from(rival, login)).await.unwrap_err(),
        Code::Unauthenticated,
        "BAD_CREDENTIALS",
    );
    let change = UpdatePasswordRequest {
        user_id: id.clone(),
        old_password: PASSWORD.into(),
        new_password: "another horse".into(),
        ..UpdatePasswordRequest::default()
    };
    let status = users.update_password(from(rival, change)).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");

    // And its names and ids are its own.
    users.create(from(rival, CreateRequest { id: id.clone(), ..ada() })).await.unwrap();
    assert_eq!(users.read(by_id(&id)).await.unwrap().into_inner().user.unwrap(), user);
}

/// Every id and name is there twice: whatever forgets the namespace hits the twin.
async fn twins_in_two_namespaces_never_touch(service: &Service) {
    let mut users = service.users();
    let twin = CreateRequest { id: "twin".into(), ..ada() };
    for namespace in ["one", "two"] {
        users.create(from(namespace, twin.clone())).await.unwrap();
    }
    let attempt = LoginRequest {
        email: "ada@example.com".into(),
        password: PASSWORD.into(),
        ..LoginRequest::default()
    };
    let session = users.login(from("two", attempt.clone())).await.unwrap().into_inner().session.unwrap();
    users.login(from("one", attempt.clone())).await.unwrap();
    let seen = async || {
        let mut users = service.users();
        let by_email = ReadRequest { email: "ada@example.com".into(), ..ReadRequest::default() };
        let read = ReadSessionRequest { session_id: session.id.clone(), max_age: None };
        let events = "SELECT count(*) FROM events WHERE namespace = 'two' AND address = '127.0.0.1'";
        (
            users.read(from("two", by_id("twin"))).await.unwrap().into_inner(),
            users.read(from("two", by_email)).await.unwrap().into_inner(),
            users.read_session(from("two", read)).await.unwrap().into_inner(),
            service.number(events).await,
        )
    };
    let before = seen().await;

    let update = UpdateRequest { id: "twin".into(), name: Some("One".into()), ..UpdateRequest::default() };
    users.update(from("one", update)).await.unwrap();
    let change = UpdatePasswordRequest {
        user_id: "twin".into(),
        old_password: PASSWORD.into(),
        new_password: "another horse".into(),
        ..UpdatePasswordRequest::default()
    };
    users.update_password(from("one", change)).await.unwrap();
    let rename =
        UpdateRequest { id: "twin".into(), email: Some("b@example.com".into()), ..UpdateRequest::default() };
    users.update(from("one", rename)).await.unwrap();
    let gone = ReadRequest { email: "ada@example.com".into(), ..ReadRequest::default() };
    assert_refused(&users.read(from("one", gone)).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    users.delete(from("one", DeleteRequest { id: "twin".into(), ..DeleteRequest::default() })).await.unwrap();
    assert_eq!(seen().await, before);

    // Its session would have ended by itself meanwhile; the user is what must be left.
    service.clock.advance(std::time::Duration::from_hours(31 * 24));
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM users").await, 1);
    assert_eq!(users.read(from("two", by_id("twin"))).await.unwrap().into_inner(), before.0);
    let events = "SELECT count(*) FROM events WHERE namespace = 'two' AND address = '127.0.0.1'";
    assert_eq!(service.number(events).await, before.3);
    users.login(from("two", attempt)).await.unwrap();
}

async fn a_created_user_can_be_read_back(service: &Service) {
    let request = CreateRequest {
        id: "auth0|7".into(),
        name: "Ada Lovelace, 数学者".into(),
        status: UserStatus::Pending.into(),
        labels: vec!["staff".into(), "beta".into()],
        metadata: BTreeMap::from([("plan".into(), "gold, 1".into()), ("empty".into(), String::new())]),
        ..ada()
    };
    let user = create(service, request).await;
    let expected = User {
        id: "auth0|7".into(),
        username: "ada".into(),
        email: "ada@example.com".into(),
        created: START,
        updated: START,
        name: "Ada Lovelace, 数学者".into(),
        status: UserStatus::Pending.into(),
        email_verified: false,
        password_updated: START,
        prefs: Some(prost_types::Struct::default()),
        labels: vec!["staff".into(), "beta".into()],
        metadata: BTreeMap::from([("plan".into(), "gold, 1".into()), ("empty".into(), String::new())]),
        sso_enabled: false,
        deleted: 0,
        etag: user.etag.clone(),
    };
    assert_eq!(user, expected);
    assert!(user.etag.starts_with('"') && user.etag.ends_with("-1\""), "{}", user.etag);
    assert_eq!(read(service, "auth0|7").await, expected);
}

async fn omitted_fields_are_generated_or_empty(service: &Service) {
    let request = CreateRequest { username: "solo".into(), sso_enabled: true, ..CreateRequest::default() };
    let user = create(service, request).await;
    let id = uuid::Uuid::parse_str(&user.id).unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(user.status(), UserStatus::Active);
    assert_eq!((user.email.as_str(), user.password_updated), ("", 0));
    // Any number of users can lack a username, or an address.
    create(service, CreateRequest { username: "duo".into(), ..ada_without_email() }).await;
    let nameless = CreateRequest { username: String::new(), email: "a@example.com".into(), ..ada() };
    create(service, nameless.clone()).await;
    create(service, CreateRequest { email: "b@example.com".into(), ..nameless }).await;
}

fn ada_without_email() -> CreateRequest {
    CreateRequest { email: String::new(), ..ada() }
}

async fn names_are_folded_and_found_in_any_case(service: &Service) {
    let request = CreateRequest { username: "AdA".into(), email: "Ada@BÜCHER.Example".into(), ..ada() };
    let user = create(service, request).await;
    assert_eq!((user.username.as_str(), user.email.as_str()), ("ada", "ada@xn--bcher-kva.example"));
    let keys = [
        ReadRequest { username: "ADA".into(), ..ReadRequest::default() },
        ReadRequest { email: "ADA@bücher.example".into(), ..ReadRequest::default() },
    ];
    for key in keys {
        assert_eq!(service.users().read(key).await.unwrap().into_inner().user.unwrap(), user);
    }
    // Ids are compared byte for byte.
    create(service, CreateRequest { id: "x".into(), ..nth(1) }).await;
    let status = service.users().read(by_id("X")).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
}

async fn a_taken_name_changes_nothing_and_names_its_holder(service: &Service) {
    let mut users = service.users();
    let first = create(service, ada()).await;
    let other = create(service, nth(1)).await;
    let before = service.counts().await;

    let cases = [
        (CreateRequest { email: "other@example.com".into(), ..ada() }, "USERNAME_TAKEN"),
        (CreateRequest { username: "other".into(), ..ada() }, "EMAIL_TAKEN"),
    ];
    for (request, reason) in cases {
        let status = users.create(request).await.unwrap_err();
        assert_refused(&status, Code::AlreadyExists, reason);
        assert_eq!(status.get_details_error_info().unwrap().metadata["holder"], first.id);
    }
    let request = CreateRequest { id: first.id.clone(), ..nth(2) };
    assert_refused(&users.create(request).await.unwrap_err(), Code::AlreadyExists, "ID_TAKEN");
    let rename =
        UpdateRequest { id: other.id.clone(), username: Some("ADA".into()), ..UpdateRequest::default() };
    let status = users.update(rename).await.unwrap_err();
    assert_refused(&status, Code::AlreadyExists, "USERNAME_TAKEN");
    assert_eq!(status.get_details_error_info().unwrap().metadata["holder"], first.id);

    assert_eq!(service.counts().await, before); // the events went with the users
    assert_eq!(read(service, &first.id).await, first);
    assert_eq!(read(service, &other.id).await, other);
}

async fn every_bad_field_is_named_at_once(service: &Service) {
    let request = CreateRequest {
        id: "not an id".into(),
        username: "ada lovelace".into(),
        email: "nowhere".into(),
        password: "short".into(),
        name: "x".repeat(129),
        status: 9,
        labels: vec!["ok".into(), String::new(), "ok".into()],
        metadata: BTreeMap::from([("k".into(), "v".repeat(16 * 1024))]),
        sso_enabled: false,
        password_hash: String::new(),
        idempotency_key: String::new(),
    };
    let status = service.users().create(request).await.unwrap_err();
    assert_eq!(
        fields(&status),
        ["id", "username", "email", "name", "status", "labels[1]", "labels[2]", "metadata", "password"]
    );
    assert!(!format!("{status:?}").contains("short"), "no value of the caller is repeated");

    let status = service.users().create(CreateRequest::default()).await.unwrap_err();
    assert_eq!(fields(&status), ["username", "password"]);

    let request = UpdateRequest {
        id: String::new(),
        username: Some("no way".into()),
        email: Some("@".into()),
        name: Some("\u{7}".into()),
        labels: vec!["x".repeat(37)],
        password: Some("short".into()),
        ..UpdateRequest::default()
    };
    let status = service.users().update(request).await.unwrap_err();
    assert_eq!(fields(&status), ["id", "username", "email", "name", "labels[0]", "password"]);

    let request = SearchRequest {
        username: "x".repeat(65),
        email: "a\0".into(),
        limit: -1,
        offset: i64::MIN,
        include_prefs: false,
    };
    let status = service.users().search(request).await.unwrap_err();
    assert_eq!(fields(&status), ["username", "email", "limit", "offset"]);
    assert_eq!(service.counts().await, [0; 4]);
}

async fn read_takes_exactly_one_key(service: &Service) {
    let mut users = service.users();
    let status = users.read(ReadRequest::default()).await.unwrap_err();
    assert_eq!(fields(&status), ["id"]);
    let two = ReadRequest { id: "x".into(), email: "a@example.com".into(), ..ReadRequest::default() };
    assert_eq!(fields(&users.read(two).await.unwrap_err()), ["id", "email"]);
}

async fn an_update_leaves_the_rest_alone(service: &Service) {
    let request = CreateRequest {
        labels: vec!["staff".into()],
        metadata: BTreeMap::from([("k".into(), "v".into())]),
        name: "Ada".into(),
        ..ada()
    };
    let user = create(service, request).await;
    service.clock.advance(std::time::Duration::from_secs(10));
    let update = UpdateRequest {
        id: user.id.clone(),
        username: Some("ada".into()), // as it is: not taken by itself
        email: Some(String::new()),   // an empty text counts as absent
        name: Some("Countess".into()),
        ..UpdateRequest::default()
    };
    let updated = service.users().update(update).await.unwrap().into_inner().user.unwrap();
    let expected = User {
        name: "Countess".into(),
        updated: START + 10,
        etag: user.etag.replace("-1\"", "-2\""),
        ..user
    };
    assert_eq!(updated, expected);
    assert_eq!(read(service, &updated.id).await, expected);
    login(service, "ada").await; // the password is still there
}

async fn a_mask_writes_exactly_what_it_names(service: &Service) {
    let request = CreateRequest {
        labels: vec!["staff".into()],
        metadata: BTreeMap::from([("k".into(), "v".into())]),
        name: "Ada".into(),
        ..ada()
    };
    let user = create(service, request).await;
    let mask = |paths: &[&str]| Some(FieldMask { paths: paths.iter().map(|path| (*path).into()).collect() });
    let update = UpdateRequest {
        id: user.id.clone(),
        username: Some("ignored".into()),
        update_mask: mask(&["name", "labels"]),
        ..UpdateRequest::default()
    };
    let updated = service.users().update(update).await.unwrap().into_inner().user.unwrap();
    assert_eq!((updated.name.as_str(), updated.labels.len()), ("", 0));
    assert_eq!((updated.username.as_str(), updated.metadata.len()), ("ada", 1));

    let all = UpdateRequest {
        id: user.id.clone(),
        email: Some("new@example.com".into()),
        sso_enabled: Some(true),
        update_mask: mask(&["*"]),
        ..UpdateRequest::default()
    };
    let updated = service.users().update(all).await.unwrap().into_inner().user.unwrap();
    assert_eq!((updated.username.as_str(), updated.email.as_str()), ("", "new@example.com"));
    assert_eq!((updated.metadata.len(), updated.sso_enabled), (0, true));
    assert_eq!(updated.password_updated, START, "a password is not cleared by `*`");
}

async fn a_mask_cannot_name_what_cannot_be_written(service: &Service) {
    let user = create(service, ada()).await;
    let before = service.counts().await;
    let update = UpdateRequest {
        id: user.id.clone(),
        name: Some("x".into()),
        update_mask: Some(FieldMask { paths: vec!["name".into(), "created".into(), "nope".into()] }),
        ..UpdateRequest::default()
    };
    let status = service.users().update(update).await.unwrap_err();
    assert_eq!(fields(&status), ["update_mask", "update_mask"]);
    let clears = UpdateRequest {
        id: user.id,
        update_mask: Some(FieldMask { paths: vec!["password".into()] }),
        ..UpdateRequest::default()
    };
    assert_eq!(fields(&service.users().update(clears).await.unwrap_err()), ["password"]);
    assert_eq!(service.counts().await, before);
}

async fn a_changed_address_is_not_verified(service: &Service) {
    let user = create(service, ada()).await;
    let tx = service.replica.store.begin_as_server().await.unwrap();
    sea_orm::ConnectionTrait::execute_unprepared(&tx, "UPDATE users SET email_verified = true")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let update = |email: &str| UpdateRequest {
        id: user.id.clone(),
        email: Some(email.into()),
        name: Some(email.into()),
        ..UpdateRequest::default()
    };
    let same = service.users().update(update("ADA@example.com")).await.unwrap().into_inner().user.unwrap();
    assert!(same.email_verified);
    let other = service.users().update(update("b@example.com")).await.unwrap().into_inner().user.unwrap();
    assert!(!other.email_verified);
}

async fn an_update_of_nothing_writes_nothing(service: &Service) {
    let user = create(service, ada()).await;
    let before = service.counts().await;
    let update = UpdateRequest {
        id: user.id.clone(),
        username: Some("ADA".into()),
        email: Some("ada@EXAMPLE.com".into()),
        ..UpdateRequest::default()
    };
    let same = service.users().update(update).await.unwrap().into_inner().user.unwrap();
    assert_eq!(same, user);
    assert_eq!(service.counts().await, before);
}

async fn a_stale_etag_changes_nothing(service: &Service) {
    let mut users = service.users();
    let user = create(service, ada()).await;
    let rename = |name: &str, etag: &str| UpdateRequest {
        id: user.id.clone(),
        name: Some(name.into()),
        etag: etag.into(),
        ..UpdateRequest::default()
    };
    let second = users.update(rename("b", &user.etag)).await.unwrap().into_inner().user.unwrap();
    let before = service.counts().await;
    for stale in [&user.etag, "\"nonsense\"", "*"] {
        assert_refused(&users.update(rename("c", stale)).await.unwrap_err(), Code::Aborted, "ETAG_MISMATCH");
        let delete = DeleteRequest { id: user.id.clone(), etag: stale.into() };
        assert_refused(&users.delete(delete).await.unwrap_err(), Code::Aborted, "ETAG_MISMATCH");
        let change = UpdatePasswordRequest {
            user_id: user.id.clone(),
            old_password: PASSWORD.into(),
            new_password: "another horse".into(),
            etag: stale.into(),
            ..UpdatePasswordRequest::default()
        };
        assert_refused(&users.update_password(change).await.unwrap_err(), Code::Aborted, "ETAG_MISMATCH");
    }
    assert_eq!(service.counts().await, before);
    users.delete(DeleteRequest { id: user.id.clone(), etag: second.etag }).await.unwrap();
}

async fn the_last_name_cannot_be_cleared(service: &Service) {
    let user = create(service, ada()).await;
    let clear = |paths: &[&str]| UpdateRequest {
        id: user.id.clone(),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).into()).collect() }),
        ..UpdateRequest::default()
    };
    let status = service.users().update(clear(&["username", "email"])).await.unwrap_err();
    assert_eq!(fields(&status), ["email"]);
    let cleared = service.users().update(clear(&["email"])).await.unwrap().into_inner().user.unwrap();
    assert_eq!((cleared.username.as_str(), cleared.email.as_str()), ("ada", ""));
    let status = service.users().update(clear(&["username"])).await.unwrap_err();
    assert_eq!(fields(&status), ["username"]);
    assert!(status.message().contains("username cannot be cleared while there is no email"), "{status:?}");
}

async fn a_deleted_user_is_gone_and_its_names_are_free(service: &Service) {
    let mut users = service.users();
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    service.clock.advance(std::time::Duration::from_secs(5));
    let delete = DeleteRequest { id: user.id.clone(), ..DeleteRequest::default() };

    let trashed = users.delete(delete.clone()).await.unwrap().into_inner().user.unwrap();
    assert_eq!((trashed.deleted, trashed.updated), (START + 5, START + 5));
    assert_ne!(trashed.etag, user.etag);

    assert_refused(&users.read(by_id(&user.id)).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    assert_refused(&users.delete(delete).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    let update = UpdateRequest { id: user.id, name: Some("x".into()), ..UpdateRequest::default() };
    assert_refused(&users.update(update).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    assert_eq!(users.search(SearchRequest::default()).await.unwrap().into_inner().users, []);
    let read = ReadSessionRequest { session_id: session.id, max_age: None };
    assert_refused(&users.read_session(read).await.unwrap_err(), Code::NotFound, "SESSION_NOT_FOUND");
    let again = LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    assert_refused(&users.login(again).await.unwrap_err(), Code::Unauthenticated, "BAD_CREDENTIALS");

    create(service, ada()).await;
}

async fn a_deleted_id_stays_taken(service: &Service) {
    let user = create(service, CreateRequest { id: "x".into(), ..ada() }).await;
    service.users().delete(DeleteRequest { id: user.id, ..DeleteRequest::default() }).await.unwrap();
    let status = service.users().create(CreateRequest { id: "x".into(), ..nth(1) }).await.unwrap_err();
    assert_refused(&status, Code::AlreadyExists, "ID_TAKEN");
}

async fn search_finds_prefixes_in_order_and_pages(service: &Service) {
    for n in [3, 1, 20, 2, 10] {
        create(service, nth(n)).await;
    }
    create(service, CreateRequest { username: "%_x".replace(['%', '_'], "p"), ..ada() }).await;
    let search = async |username: &str, email: &str, limit: i64, offset: i64| {
        let request = SearchRequest {
            username: username.into(),
            email: email.into(),
            limit,
            offset,
            include_prefs: false,
        };
        let users = service.users().search(request).await.unwrap().into_inner().users;
        users.into_iter().map(|user| user.username).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(search("USER", "", 0, 0).await, "user1 user10 user2 user20 user3");
    assert_eq!(search("user2", "", 0, 0).await, "user2 user20");
    assert_eq!(search("", "User1", 0, 0).await, "user1 user10");
    assert_eq!(search("user1", "user10@", 0, 0).await, "user10");
    assert_eq!(search("user", "", 2, 1).await, "user10 user2");
    assert_eq!(search("user", "", 1, 4).await, "user3");
    assert_eq!(search("user", "", 1000, i64::MAX).await, "");
    assert_eq!(search("", "", 0, 0).await, "ppx user1 user10 user2 user20 user3");
    for nothing in ["%", "_ser", "u%", "ser", "'", "\"", "*", "üser"] {
        assert_eq!(search(nothing, "", 0, 0).await, "", "{nothing:?}");
    }
    let status = service.users().search(SearchRequest { limit: 1001, ..SearchRequest::default() }).await;
    assert_eq!(fields(&status.unwrap_err()), ["limit"]);
}

async fn search_stays_under_the_size_of_a_reply(service: &Service) {
    let big = BTreeMap::from([("k".to_owned(), "v".repeat(16 * 1024 - 1))]);
    for n in 0..230 {
        let request = CreateRequest {
            metadata: big.clone(),
            sso_enabled: true,
            password: String::new(),
            username: format!("user{n:04}"),
            ..nth(n)
        };
        create(service, request).await;
    }
    let mut seen = 0;
    while seen < 230 {
        let request = SearchRequest { limit: 1000, offset: seen, ..SearchRequest::default() };
        let page = service.users().search(request).await.unwrap().into_inner();
        assert!(prost::Message::encoded_len(&page) < 3 * 1024 * 1024);
        assert!(page.users.len() > 150 || seen > 0, "{}", page.users.len());
        assert_eq!(page.users[0].username, format!("user{seen:04}"));
        assert!(page.users[0].prefs.is_none());
        seen += i64::try_from(page.users.len()).unwrap();
    }
    assert_eq!(seen, 230);
}

async fn every_change_writes_one_event(service: &Service) {
    let mut users = service.users();
    let user = create(service, ada()).await;
    let rename = UpdateRequest {
        id: user.id.clone(),
        name: Some("x".into()),
        email: Some("b@example.com".into()),
        ..UpdateRequest::default()
    };
    users.update(rename).await.unwrap();
    let session = login(service, "ada").await;
    users.logout(LogoutRequest { session_id: session.id }).await.unwrap();
    let wrong = LoginRequest { username: "ada".into(), password: "wrong".into(), ..LoginRequest::default() };
    users.login(wrong.clone()).await.unwrap_err();
    users.login(LoginRequest { username: "nobody".into(), ..wrong }).await.unwrap_err();
    users.delete(DeleteRequest { id: user.id.clone(), ..DeleteRequest::default() }).await.unwrap();

    let of = |what: &str| format!("SELECT count(*) FROM events WHERE namespace = 'default' AND {what}");
    let (id, from) = (&user.id, "caller = 'open' AND address = '127.0.0.1' AND user_agent <> ''");
    for (what, count) in [
        (format!("action = 'USER_CREATED' AND user_id = '{id}' AND version = 1 AND changed = '[]'"), 1),
        (
            format!(
                "action = 'USER_UPDATED' AND version = 2 AND changed = '[\"email\",\"name\"]' AND {from}"
            ),
            1,
        ),
        (format!("action = 'SESSION_CREATED' AND user_id = '{id}' AND {from}"), 1),
        (format!("action = 'SESSION_DELETED' AND user_id = '{id}' AND {from}"), 1),
        (format!("action = 'LOGIN_REFUSED' AND user_id = '{id}' AND {from}"), 1),
        (format!("action = 'LOGIN_REFUSED' AND user_id = '' AND {from}"), 1),
        (format!("action = 'USER_DELETED' AND user_id = '{id}' AND version = 3 AND {from}"), 1),
        (format!("at = {}", START * 1_000_000), 7),
    ] {
        assert_eq!(service.number(&of(&what)).await, count, "{what}");
    }
}

async fn concurrent_updates_are_all_counted(service: &Service) {
    let user = create(service, ada()).await;
    let updates = (0..32).map(|n| {
        let (mut users, id) = (service.users(), user.id.clone());
        tokio::spawn(async move {
            let request = UpdateRequest { id, name: Some(format!("{n}")), ..UpdateRequest::default() };
            users.update(request).await.unwrap()
        })
    });
    for update in updates.collect::<Vec<_>>() {
        update.await.unwrap();
    }
    assert!(read(service, &user.id).await.etag.ends_with("-33\""));
    assert_eq!(service.number("SELECT count(*) FROM events WHERE action = 'USER_UPDATED'").await, 32);
}

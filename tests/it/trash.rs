//! The trash: what lies in it, what comes back, what goes for good.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use usersd::pb::{
    BatchReadRequest, CreateRequest, DeleteSessionRequest, DeleteSessionsRequest, ListLogsRequest,
    ListRequest, ListSessionsRequest, LogEvent, PurgeRequest, ReadPrefsRequest, ReadRequest,
    ReadTrashRequest, RestoreRequest, SearchRequest, SetPasswordRequest, UpdatePasswordRequest,
    UpdateRequest, UpdateVerificationRequest, User, UserStatus,
};

use crate::steps::{
    RIVAL, assert_hidden, becoming, by_id, delete, deletion, events, happened, ids, is_open, prefer,
    preferring, purge, purging, read, restore, restoring, structure, try_login,
};
use crate::support::{PASSWORD, START, Service, ada, assert_refused, create, fields, from, login, nth};

crate::on_every_backend!(
    another_namespace_sees_and_changes_nothing,
    twins_in_the_trash_never_touch,
    a_trashed_user_is_not_found_by_other_calls,
    a_restored_user_has_everything_but_its_sessions,
    a_name_taken_meanwhile_keeps_a_user_in_the_trash,
    a_purged_user_leaves_nothing_of_the_person,
    only_the_trash_is_restored_and_purged,
    a_stale_etag_changes_nothing,
    invalid_ids_are_named,
    the_trash_is_listed_as_live_users_are,
    a_user_restored_in_time_is_not_purged_by_age,
    a_restore_and_the_purge_by_age_exclude_each_other,
    the_trash_has_its_paths,
);

fn in_trash(id: &str) -> ReadTrashRequest {
    ReadTrashRequest { id: id.into() }
}

async fn read_trash(service: &Service, id: &str) -> User {
    service.users().read_trash(in_trash(id)).await.unwrap().into_inner().user.unwrap()
}

async fn another_namespace_sees_and_changes_nothing(service: &Service) {
    let user = create(service, ada()).await;
    let trashed = delete(service, &user.id).await;
    assert_hidden(service, &user.id, in_trash, async |request| service.users().read_trash(request).await)
        .await;
    assert_hidden(service, &user.id, restoring, async |request| service.users().restore(request).await).await;
    assert_hidden(service, &user.id, purging, async |request| service.users().purge(request).await).await;
    // An etag does not tell either.
    for etag in [&trashed.etag, "\"stale\""] {
        let restoring = |id: &str| RestoreRequest { id: id.into(), etag: etag.into() };
        assert_hidden(service, &user.id, restoring, async |request| service.users().restore(request).await)
            .await;
    }
    let list = service.users().list_trash(from(RIVAL, ListRequest::default())).await.unwrap().into_inner();
    assert_eq!((list.users.len(), list.total), (0, Some(0)));
    assert_eq!(read_trash(service, &user.id).await, trashed);
}

async fn twins_in_the_trash_never_touch(service: &Service) {
    let mut users = service.users();
    for namespace in ["default", RIVAL] {
        users.create(from(namespace, CreateRequest { id: "twin".into(), ..ada() })).await.unwrap();
        users.delete(from(namespace, deletion("twin"))).await.unwrap();
    }
    let before = read_trash(service, "twin").await;
    let log = events(service, "twin").await;

    users.restore(from(RIVAL, restoring("twin"))).await.unwrap();
    assert_eq!(read_trash(service, "twin").await, before);
    users.delete(from(RIVAL, deletion("twin"))).await.unwrap();
    users.purge(from(RIVAL, purging("twin"))).await.unwrap();
    let gone = users.read_trash(from(RIVAL, in_trash("twin"))).await.unwrap_err();
    assert_refused(&gone, Code::NotFound, "USER_NOT_FOUND");

    assert_eq!(read_trash(service, "twin").await, before);
    assert_eq!(events(service, "twin").await, log);
    let own = "SELECT count(*) FROM events WHERE namespace = 'default' AND address = '127.0.0.1'";
    assert_eq!(service.number(own).await, 2);
    assert_eq!(restore(service, "twin").await.username, "ada");
}

async fn a_trashed_user_is_not_found_by_other_calls(service: &Service) {
    let mut users = service.users();
    let user = create(service, ada()).await;
    delete(service, &user.id).await;
    let before = service.counts().await;
    for (n, status) in calls_by_id(service, &user.id).await.into_iter().enumerate() {
        assert_refused(
            &status.unwrap_or_else(|| panic!("call {n} found it")),
            Code::NotFound,
            "USER_NOT_FOUND",
        );
    }
    let named = ReadRequest { username: "ada".into(), ..ReadRequest::default() };
    assert_refused(&users.read(named).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    let addressed = ReadRequest { email: "ada@example.com".into(), ..ReadRequest::default() };
    assert_refused(&users.read(addressed).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    assert_eq!(ids(service, false).await, [""; 0]);
    assert_eq!(users.search(SearchRequest::default()).await.unwrap().into_inner().users, []);
    let batch = BatchReadRequest { ids: vec![user.id.clone()], include_prefs: true };
    assert_eq!(users.batch_read(batch).await.unwrap().into_inner().missing, [user.id.as_str()]);
    let taken = users.create(CreateRequest { id: user.id.clone(), ..nth(1) }).await.unwrap_err();
    assert_refused(&taken, Code::AlreadyExists, "ID_TAKEN");
    assert_eq!(service.counts().await, before);
    // As for anyone who does not exist.
    let change = UpdatePasswordRequest {
        user_id: user.id,
        old_password: PASSWORD.into(),
        new_password: "another horse".into(),
        ..UpdatePasswordRequest::default()
    };
    let status = users.update_password(change).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    let status = try_login(service, "ada", PASSWORD).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
}

/// What every call that takes the id of a live user is refused with, if it is.
async fn calls_by_id(service: &Service, user: &str) -> Vec<Option<Status>> {
    let mut users = service.users();
    let id = || user.to_owned();
    let rename = UpdateRequest { id: id(), name: Some("x".into()), ..UpdateRequest::default() };
    let password =
        SetPasswordRequest { user_id: id(), new_password: "another horse".into(), etag: String::new() };
    let verify =
        UpdateVerificationRequest { id: id(), email_verified: true, ..UpdateVerificationRequest::default() };
    let prefs = preferring(user, &json!({"a": 1}));
    let sessions = ListSessionsRequest { user_id: id(), ..ListSessionsRequest::default() };
    let session = DeleteSessionRequest { user_id: id(), session_id: uuid::Uuid::nil().to_string() };
    vec![
        users.read(by_id(user)).await.err(),
        users.update(rename).await.err(),
        users.delete(deletion(user)).await.err(),
        users.set_password(password).await.err(),
        users.update_status(becoming(user, UserStatus::Blocked)).await.err(),
        users.update_verification(verify).await.err(),
        users.read_prefs(ReadPrefsRequest { id: id() }).await.err(),
        users.update_prefs(prefs).await.err(),
        users.list_sessions(sessions).await.err(),
        users.delete_session(session).await.err(),
        users.delete_sessions(DeleteSessionsRequest { user_id: id() }).await.err(),
    ]
}

async fn a_restored_user_has_everything_but_its_sessions(service: &Service) {
    let request = CreateRequest {
        name: "Ada".into(),
        status: UserStatus::Pending.into(),
        labels: vec!["staff".into(), "beta".into()],
        metadata: [("plan".to_owned(), "gold".to_owned())].into(),
        ..ada()
    };
    let id = create(service, request).await.id;
    prefer(service, &id, &json!({"theme": "dark"})).await;
    let verify = UpdateVerificationRequest {
        id: id.clone(),
        email_verified: true,
        ..UpdateVerificationRequest::default()
    };
    service.users().update_verification(verify).await.unwrap();
    let session = login(service, "ada").await;
    let before = read(service, &id).await;
    assert_eq!(before.prefs, Some(structure(&json!({"theme": "dark"}))));

    service.clock.advance(Duration::from_secs(5));
    let trashed = delete(service, &id).await;
    assert_eq!(read_trash(service, &id).await, trashed);
    let expected =
        User { deleted: START + 5, updated: START + 5, etag: trashed.etag.clone(), ..before.clone() };
    assert_eq!(trashed, expected);

    service.clock.advance(Duration::from_secs(5));
    let request = RestoreRequest { id: id.clone(), etag: trashed.etag.clone() };
    let back = service.users().restore(request).await.unwrap().into_inner().user.unwrap();
    assert_eq!(back, User { updated: START + 10, etag: back.etag.clone(), ..before.clone() });
    assert!(![&before.etag, &trashed.etag].contains(&&back.etag));
    assert_eq!(read(service, &id).await, back);
    assert!(!is_open(service, &session.id).await);
    login(service, "ada").await;
    assert_eq!(happened(service, LogEvent::UserRestored).await, 1);
    let status = service.users().read_trash(in_trash(&id)).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
}

async fn a_name_taken_meanwhile_keeps_a_user_in_the_trash(service: &Service) {
    let user = create(service, ada()).await;
    let trashed = delete(service, &user.id).await;
    let sso = CreateRequest { sso_enabled: true, password: String::new(), ..ada() };
    let thieves = [
        (CreateRequest { email: "other@example.com".into(), ..sso.clone() }, "USERNAME_TAKEN", "username"),
        (CreateRequest { username: "other".into(), ..sso }, "EMAIL_TAKEN", "email"),
    ];
    for (thief, reason, field) in thieves {
        let thief = create(service, thief).await;
        let before = service.counts().await;
        let status = service.users().restore(restoring(&user.id)).await.unwrap_err();
        assert_refused(&status, Code::AlreadyExists, reason);
        let metadata = status.get_details_error_info().unwrap().metadata;
        assert_eq!((metadata["field"].as_str(), &metadata["holder"]), (field, &thief.id));
        assert_eq!(service.counts().await, before);
        assert_eq!(read_trash(service, &user.id).await, trashed);
        delete(service, &thief.id).await;
    }
    restore(service, &user.id).await;
}

async fn a_purged_user_leaves_nothing_of_the_person(service: &Service) {
    let mut users = service.users();
    let user = create(service, CreateRequest { id: "x".into(), ..ada() }).await;
    let bystander = create(service, nth(1)).await;
    login(service, "ada").await;
    try_login(service, "ada", "wrong").await.unwrap_err();
    delete(service, "x").await;
    let logs = ListLogsRequest { user_id: "x".into(), ..ListLogsRequest::default() };
    assert_eq!(
        users.list_logs(logs.clone()).await.unwrap().into_inner().total,
        Some(4),
        "of the trashed: yes"
    );
    let of_hers = "SELECT count(*) FROM events WHERE user_id = 'x'";
    assert_eq!(service.number(&format!("{of_hers} AND address <> '' AND user_agent <> ''")).await, 4);

    purge(service, "x").await;

    let gone = "action <> 'USER_PURGED' AND (address <> '' OR user_agent <> '')";
    assert_eq!(service.number(&format!("{of_hers} AND {gone}")).await, 0);
    assert_eq!(service.number(&format!("{of_hers} AND action = 'USER_PURGED' AND caller = 'open'")).await, 1);
    assert_eq!(service.number(of_hers).await, 5);
    let others = format!("SELECT count(*) FROM events WHERE user_id = '{}' AND address <> ''", bystander.id);
    assert_eq!(service.number(&others).await, 1);
    assert_eq!(service.number("SELECT count(*) FROM users").await, 1);
    assert_eq!(service.number("SELECT count(*) FROM users_search").await, 1);
    for status in [
        users.list_logs(logs).await.unwrap_err(),
        users.read_trash(in_trash("x")).await.unwrap_err(),
        users.restore(restoring("x")).await.unwrap_err(),
        users.purge(purging("x")).await.unwrap_err(),
    ] {
        assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
    }
    // Her id is free, and no etag of hers fits who has it now.
    let again = create(service, CreateRequest { id: "x".into(), ..ada() }).await;
    assert_ne!(again.etag, user.etag);
    assert_eq!(again.created, user.created);
}

async fn only_the_trash_is_restored_and_purged(service: &Service) {
    let mut users = service.users();
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    let before = service.counts().await;
    for status in [
        users.read_trash(in_trash(&user.id)).await.unwrap_err(),
        users.restore(restoring(&user.id)).await.unwrap_err(),
        users.purge(purging(&user.id)).await.unwrap_err(),
    ] {
        assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
    }
    assert_eq!(service.counts().await, before);
    assert!(is_open(service, &session.id).await);
}

async fn a_stale_etag_changes_nothing(service: &Service) {
    let mut users = service.users();
    let user = create(service, ada()).await;
    let trashed = delete(service, &user.id).await;
    let before = service.counts().await;
    for stale in [&user.etag, "\"nonsense\"", "*"] {
        let restore = RestoreRequest { id: user.id.clone(), etag: stale.into() };
        assert_refused(&users.restore(restore).await.unwrap_err(), Code::Aborted, "ETAG_MISMATCH");
        let purge = PurgeRequest { id: user.id.clone(), etag: stale.into() };
        assert_refused(&users.purge(purge).await.unwrap_err(), Code::Aborted, "ETAG_MISMATCH");
    }
    assert_eq!(service.counts().await, before);
    users.purge(PurgeRequest { id: user.id, etag: trashed.etag }).await.unwrap();
}

async fn invalid_ids_are_named(service: &Service) {
    let mut users = service.users();
    for id in ["", "no id", "\0", &"x".repeat(65)] {
        assert_eq!(fields(&users.read_trash(in_trash(id)).await.unwrap_err()), ["id"]);
        assert_eq!(fields(&users.restore(restoring(id)).await.unwrap_err()), ["id"]);
        assert_eq!(fields(&users.purge(purging(id)).await.unwrap_err()), ["id"]);
    }
    let bad = ListRequest { limit: Some(1001), offset: -1, status: 9, ..ListRequest::default() };
    assert_eq!(fields(&users.list_trash(bad).await.unwrap_err()), ["status", "limit", "offset"]);
}

async fn the_trash_is_listed_as_live_users_are(service: &Service) {
    for n in 1..=4 {
        let id = create(service, CreateRequest { id: n.to_string(), ..nth(n) }).await.id;
        prefer(service, &id, &json!({"n": n})).await;
        service.clock.advance(Duration::from_secs(1));
    }
    for id in ["3", "1", "2"] {
        delete(service, id).await;
        service.clock.advance(Duration::from_secs(1));
    }
    let list = async |request: ListRequest| service.users().list_trash(request).await.unwrap().into_inner();
    let all = list(ListRequest::default()).await;
    let named = |users: &[User]| users.iter().map(|user| user.id.clone()).collect::<Vec<_>>().join(" ");
    assert_eq!((named(&all.users).as_str(), all.total), ("1 2 3", Some(3)));
    assert_eq!(all.next_page_token, "");
    assert!(all.users.iter().all(|user| user.deleted > 0 && user.prefs.is_none()));
    let request =
        ListRequest { order_by: "updated".into(), order_dir: "desc".into(), ..ListRequest::default() };
    assert_eq!(named(&list(request).await.users), "2 1 3");
    let request = ListRequest { search: "USER2".into(), include_prefs: true, ..ListRequest::default() };
    let found = list(request).await;
    assert_eq!(found.users, [read_trash(service, "2").await]);
    assert_eq!(found.users[0].prefs, Some(structure(&json!({"n": 2}))));
    let first = list(ListRequest { limit: Some(2), skip_total: true, ..ListRequest::default() }).await;
    assert_eq!((named(&first.users).as_str(), first.total), ("1 2", None));
    let next = ListRequest { page_token: first.next_page_token, ..ListRequest::default() };
    assert_eq!(named(&list(next.clone()).await.users), "3");
    // The token is of this list and no other.
    assert_eq!(fields(&service.users().list(next).await.unwrap_err()), ["page_token"]);
    restore(service, "1").await;
    purge(service, "3").await;
    assert_eq!((ids(service, true).await, ids(service, false).await.len()), (vec!["2".to_owned()], 2));
}

async fn a_user_restored_in_time_is_not_purged_by_age(service: &Service) {
    for n in 1..=3 {
        create(service, CreateRequest { id: n.to_string(), ..nth(n) }).await;
        delete(service, &n.to_string()).await;
    }
    service.clock.advance(Duration::from_hours(31 * 24));
    restore(service, "1").await;
    restore(service, "2").await;
    delete(service, "2").await; // its time starts again
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!((ids(service, false).await, ids(service, true).await), (vec!["1".into()], vec!["2".into()]));
    assert_eq!(happened(service, LogEvent::UserPurged).await, 1);
}

/// Whoever comes first: a user who was given back to its caller is there afterwards, and one who was not is
/// gone.
async fn a_restore_and_the_purge_by_age_exclude_each_other(service: &Service) {
    let sso = |n: usize| CreateRequest { sso_enabled: true, password: String::new(), ..nth(n) };
    let mut users = Vec::new();
    for n in 0..24 {
        let id = create(service, sso(n)).await.id;
        delete(service, &id).await;
        users.push(id);
    }
    service.clock.advance(Duration::from_hours(31 * 24));
    let ops = [service.replica.ops.clone(), service.another(|_| {}).await.ops];
    let cleaning = ops.map(|ops| tokio::spawn(async move { ops.housekeep().await.unwrap() }));
    let restoring = users.iter().rev().map(|id| {
        let (mut users, request) = (service.users(), restoring(id));
        tokio::spawn(async move { users.restore(request).await })
    });
    let mut back = Vec::new();
    for (restored, id) in restoring.collect::<Vec<_>>().into_iter().zip(users.iter().rev()) {
        match restored.await.unwrap() {
            Ok(_) => back.push(id.clone()),
            Err(status) => assert_refused(&status, Code::NotFound, "USER_NOT_FOUND"),
        }
    }
    for cleaned in cleaning {
        cleaned.await.unwrap();
    }
    service.replica.ops.housekeep().await.unwrap();
    let mut alive = ids(service, false).await;
    alive.sort();
    back.sort();
    assert_eq!((alive, ids(service, true).await.len()), (back.clone(), 0));
    assert_eq!(happened(service, LogEvent::UserPurged).await, 24 - i64::try_from(back.len()).unwrap());
}

async fn the_trash_has_its_paths(service: &Service) {
    create(service, CreateRequest { id: "7".into(), ..ada() }).await;
    let http = &service.replica;
    delete(service, "7").await;
    let (status, body) = http.json(Method::GET, "/v1/trash/7", "").await;
    assert_eq!((status, &body["user"]["deleted"]), (StatusCode::OK, &json!(START.to_string())));
    let (_, body) = http.json(Method::GET, "/v1/trash?limit=5&skipTotal=true", "").await;
    assert_eq!((&body["users"][0]["id"], body.get("total")), (&json!("7"), None));
    let (status, body) = http.json(Method::POST, "/v1/trash/7:restore", "{}").await;
    assert_eq!((status, &body["user"]["deleted"]), (StatusCode::OK, &json!("0")));
    let (status, _) = http.json(Method::DELETE, "/v1/trash/7", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    delete(service, "7").await;
    let (status, _) = http.json(Method::DELETE, "/v1/trash/7?etag=%22stale%22", "").await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, body) = http.json(Method::DELETE, "/v1/trash/7", "").await;
    assert_eq!((status, body), (StatusCode::OK, json!({})));
}

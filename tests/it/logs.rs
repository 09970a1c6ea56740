//! What the log says of a user.

use std::time::Duration;

use serde_json::json;
use tonic::Code;
use usersd::domain::event::Action;
use usersd::pb::{
    CreateOrRestoreRequest, CreateRequest, DeleteSessionRequest, DeleteSessionsRequest, Device,
    ListLogsRequest, ListLogsResponse, LogEntry, LogEvent, LoginRequest, LogoutRequest, SetPasswordRequest,
    UpdatePasswordRequest, UpdateRequest, UpdateVerificationRequest, UserStatus,
};

use crate::steps::{
    RIVAL, assert_hidden, delete, deletion, events, log, prefer, purge, restore, set_status, try_login,
};
use crate::support::{PASSWORD, START, Service, ada, assert_refused, create, fields, from, login, nth};

crate::on_every_backend!(
    another_namespace_sees_nothing,
    twins_in_two_namespaces_have_a_log_each,
    every_change_is_logged_once_the_newest_first,
    an_entry_says_who_what_when_and_from_where,
    refused_attempts_are_in_the_log_of_the_user,
    filters_leave_only_what_fits,
    pages_follow_each_other_while_more_happens,
    offsets_skip_entries,
    a_page_token_is_of_one_log_with_these_filters,
    a_trashed_user_has_a_log_and_a_purged_one_has_none,
    every_bad_field_is_named_at_once,
    it_has_its_path,
);

fn of(user: &str) -> ListLogsRequest {
    ListLogsRequest { user_id: user.into(), ..ListLogsRequest::default() }
}

async fn list(service: &Service, request: ListLogsRequest) -> ListLogsResponse {
    service.users().list_logs(request).await.unwrap().into_inner()
}

fn named(logs: &[LogEntry]) -> Vec<LogEvent> {
    logs.iter().map(LogEntry::event).collect()
}

/// A user to whom something happens each second: `0` to `count - 1` as its name.
async fn renamed(service: &Service, count: usize) -> String {
    let id = create(service, CreateRequest { id: "x".into(), ..ada() }).await.id;
    for n in 0..count {
        service.clock.advance(Duration::from_secs(1));
        rename(service, &n.to_string()).await;
    }
    id
}

async fn rename(service: &Service, name: &str) {
    let request = UpdateRequest { id: "x".into(), name: Some(name.into()), ..UpdateRequest::default() };
    service.users().update(request).await.unwrap();
}

async fn another_namespace_sees_nothing(service: &Service) {
    let user = create(service, ada()).await;
    assert_hidden(service, &user.id, of, async |request| service.users().list_logs(request).await).await;
    let filtered = |id: &str| ListLogsRequest { events: vec![1], offset: 7, limit: Some(0), ..of(id) };
    assert_hidden(service, &user.id, filtered, async |request| service.users().list_logs(request).await)
        .await;
    delete(service, &user.id).await;
    assert_hidden(service, &user.id, of, async |request| service.users().list_logs(request).await).await;
}

async fn twins_in_two_namespaces_have_a_log_each(service: &Service) {
    let mut users = service.users();
    for namespace in ["default", RIVAL] {
        users.create(from(namespace, CreateRequest { id: "twin".into(), ..ada() })).await.unwrap();
    }
    users.delete(from(RIVAL, deletion("twin"))).await.unwrap();
    let theirs = users.list_logs(from(RIVAL, of("twin"))).await.unwrap().into_inner();
    assert_eq!(
        (named(&theirs.logs), theirs.total),
        (vec![LogEvent::UserDeleted, LogEvent::UserCreated], Some(2))
    );
    let own = list(service, of("twin")).await;
    assert_eq!((named(&own.logs), own.total), (vec![LogEvent::UserCreated], Some(1)));
}

async fn every_change_is_logged_once_the_newest_first(service: &Service) {
    let id = create(service, ada()).await.id;
    create(service, nth(1)).await;
    change_all(service, &id).await;
    come_and_go(service, &id).await;
    let mut said = events(service, &id).await;
    said.reverse();
    let expected = {
        use LogEvent::*;
        [
            [UserCreated, UserUpdated, PrefsUpdated, StatusUpdated, VerificationUpdated, PasswordSet],
            [
                PasswordUpdated,
                PasswordRefused,
                SessionCreated,
                SessionCreated,
                SessionCreated,
                SessionDeleted,
            ],
            [SessionDeleted, SessionsDeleted, UserDeleted, UserRestored, UserDeleted, UserRestored],
        ]
    };
    assert_eq!(said, expected.concat());
}

/// Every change of what a user is.
async fn change_all(service: &Service, id: &str) {
    let mut users = service.users();
    let rename = UpdateRequest { id: id.into(), name: Some("Ada".into()), ..UpdateRequest::default() };
    users.update(rename).await.unwrap();
    prefer(service, id, &json!({"a": 1})).await;
    set_status(service, id, UserStatus::Pending).await;
    let verify = UpdateVerificationRequest {
        id: id.into(),
        email_verified: true,
        ..UpdateVerificationRequest::default()
    };
    users.update_verification(verify).await.unwrap();
    let set = SetPasswordRequest {
        user_id: id.into(),
        new_password: "another horse".into(),
        ..SetPasswordRequest::default()
    };
    users.set_password(set).await.unwrap();
    let change = UpdatePasswordRequest {
        user_id: id.into(),
        old_password: "another horse".into(),
        new_password: PASSWORD.into(),
        ..UpdatePasswordRequest::default()
    };
    users.update_password(change.clone()).await.unwrap();
    users.update_password(change).await.unwrap_err();
}

/// Every way in and out.
async fn come_and_go(service: &Service, id: &str) {
    let mut users = service.users();
    let sessions = [login(service, "ada").await, login(service, "ada").await, login(service, "ada").await];
    users.logout(LogoutRequest { session_id: sessions[0].id.clone() }).await.unwrap();
    let one = DeleteSessionRequest { user_id: id.into(), session_id: sessions[1].public_id.clone() };
    users.delete_session(one).await.unwrap();
    users.delete_sessions(DeleteSessionsRequest { user_id: id.into() }).await.unwrap();
    delete(service, id).await;
    restore(service, id).await;
    delete(service, id).await;
    let again = CreateOrRestoreRequest {
        email: "ada@example.com".into(),
        password: PASSWORD.into(),
        ..CreateOrRestoreRequest::default()
    };
    users.create_or_restore(again).await.unwrap();
}

async fn an_entry_says_who_what_when_and_from_where(service: &Service) {
    let id = create(service, ada()).await.id;
    service.clock.advance(Duration::from_secs(5));
    let device = Device { address: "203.0.113.7".into(), user_agent: "Phone/1".into() };
    let request = LoginRequest {
        username: "ada".into(),
        password: PASSWORD.into(),
        device: Some(device.clone()),
        ..LoginRequest::default()
    };
    let session = service.users().login(request.clone()).await.unwrap().into_inner().session.unwrap();
    let other = login(service, "ada").await;
    let wrong = LoginRequest { password: "wrong".into(), ..request };
    service.users().login(wrong).await.unwrap_err();
    let end = DeleteSessionRequest { user_id: id.clone(), session_id: session.public_id.clone() };
    service.users().delete_session(end).await.unwrap();
    service.users().logout(LogoutRequest { session_id: other.id.clone() }).await.unwrap();
    let rename = UpdateRequest {
        id: id.clone(),
        name: Some("Ada".into()),
        email: Some("b@example.com".into()),
        ..UpdateRequest::default()
    };
    service.users().update(rename).await.unwrap();

    let entries = log(service, &id).await;
    let said = |entry: &LogEntry| {
        let from = entry.device.clone().unwrap();
        (entry.event(), entry.session_id.clone(), entry.changed.join(" "), from.address)
    };
    let (local, none) = ("127.0.0.1".to_owned(), String::new);
    let expected = [
        (LogEvent::UserUpdated, none(), "email name".into(), local.clone()),
        (LogEvent::SessionDeleted, other.public_id.clone(), none(), local.clone()),
        (LogEvent::SessionDeleted, session.public_id.clone(), none(), local.clone()),
        (LogEvent::LoginRefused, none(), none(), device.address.clone()),
        (LogEvent::SessionCreated, other.public_id, none(), local.clone()),
        (LogEvent::SessionCreated, session.public_id, none(), device.address.clone()),
        (LogEvent::UserCreated, none(), none(), local),
    ];
    assert_eq!(entries.iter().map(said).collect::<Vec<_>>(), expected);
    assert!(entries.iter().all(|entry| entry.caller == "open"));
    assert!(entries[..6].iter().all(|entry| entry.time == START + 5) && entries[6].time == START);
    assert_eq!(entries[3].device.as_ref().unwrap().user_agent, device.user_agent);
    assert!(entries[6].device.as_ref().unwrap().user_agent.starts_with("tonic/"));
}

async fn refused_attempts_are_in_the_log_of_the_user(service: &Service) {
    let user = create(service, ada()).await;
    let other = create(service, nth(1)).await;
    try_login(service, "ada", "wrong").await.unwrap_err();
    try_login(service, "nobody", "wrong").await.unwrap_err();
    let two = LoginRequest {
        username: "ada".into(),
        email: "user1@example.com".into(),
        password: PASSWORD.into(),
        ..LoginRequest::default()
    };
    service.users().login(two).await.unwrap_err();
    set_status(service, &user.id, UserStatus::Blocked).await;
    try_login(service, "ada", PASSWORD).await.unwrap_err();
    let expected =
        [LogEvent::LoginRefused, LogEvent::StatusUpdated, LogEvent::LoginRefused, LogEvent::UserCreated];
    assert_eq!(events(service, &user.id).await, expected);
    assert_eq!(events(service, &other.id).await, [LogEvent::UserCreated]);
}

async fn filters_leave_only_what_fits(service: &Service) {
    use LogEvent::{PrefsUpdated, UserCreated, UserPurged, UserUpdated};
    let id = renamed(service, 3).await; // created at START, renamed at +1, +2, +3
    service.clock.advance(Duration::from_micros(999_999));
    prefer(service, &id, &json!({"a": 1})).await; // still in the fourth second
    let times = async |events: &[LogEvent], from: Option<i64>, to: Option<i64>| {
        let request = ListLogsRequest {
            events: events.iter().map(|event| i32::from(*event)).collect(),
            time_from: from.map(|from| START + from),
            time_to: to.map(|to| START + to),
            ..of(&id)
        };
        let reply = list(service, request).await;
        assert_eq!(reply.total, Some(i64::try_from(reply.logs.len()).unwrap()));
        reply.logs.into_iter().map(|entry| entry.time - START).collect::<Vec<_>>()
    };
    assert_eq!(times(&[], None, None).await, [3, 3, 2, 1, 0]);
    assert_eq!(times(&[UserUpdated], None, None).await, [3, 2, 1]);
    assert_eq!(times(&[PrefsUpdated, UserCreated, UserCreated], None, None).await, [3, 0]);
    assert_eq!(times(&[UserPurged], None, None).await, [0; 0]);
    assert_eq!(times(&[], Some(1), Some(3)).await, [2, 1]);
    assert_eq!(times(&[], Some(3), None).await, [3, 3]);
    assert_eq!(times(&[], None, Some(1)).await, [0]);
    assert_eq!(times(&[UserUpdated], Some(2), Some(4)).await, [3, 2]);
    assert_eq!(times(&[], Some(2), Some(2)).await, [0; 0]);
    assert_eq!(times(&[], Some(3), Some(1)).await, [0; 0]);
    assert_eq!(times(&[], Some(i64::MIN - START.wrapping_neg()), Some(i64::MAX - START)).await.len(), 5);
}

async fn pages_follow_each_other_while_more_happens(service: &Service) {
    let id = renamed(service, 6).await;
    let all = log(service, &id).await;
    let (mut seen, mut token, mut sizes) = (Vec::new(), String::new(), Vec::new());
    loop {
        let request = ListLogsRequest { limit: Some(3), page_token: token, ..of(&id) };
        let page = list(service, request).await;
        assert_eq!(page.total, Some(7 + i64::try_from(sizes.len()).unwrap()));
        sizes.push(page.logs.len());
        seen.extend(page.logs);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        rename(service, &format!("again {}", sizes.len())).await; // comes before the first page, moves nothing
    }
    assert_eq!((seen, sizes), (all, vec![3, 3, 1]));
    let none = list(service, ListLogsRequest { limit: Some(0), ..of(&id) }).await;
    assert_eq!((none.logs.len(), none.total, none.next_page_token.as_str()), (0, Some(9), ""));
    let uncounted = list(service, ListLogsRequest { skip_total: true, ..of(&id) }).await;
    assert_eq!((uncounted.logs.len(), uncounted.total), (9, None));
    let exact = list(service, ListLogsRequest { limit: Some(9), ..of(&id) }).await;
    assert_eq!((exact.logs.len(), exact.next_page_token.as_str()), (9, ""));
}

async fn offsets_skip_entries(service: &Service) {
    let id = renamed(service, 4).await;
    let all = log(service, &id).await;
    for (offset, limit, rows) in [(0, 2, 0..2), (2, 2, 2..4), (4, 25, 4..5), (5, 25, 5..5)] {
        let page = list(service, ListLogsRequest { offset, limit: Some(limit), ..of(&id) }).await;
        assert_eq!((page.logs.as_slice(), page.total), (&all[rows], Some(5)), "{offset}");
    }
    assert_eq!(list(service, ListLogsRequest { offset: i64::MAX, ..of(&id) }).await.logs, []);
    // From there a token leads on.
    let page = list(service, ListLogsRequest { offset: 1, limit: Some(1), ..of(&id) }).await;
    let rest = list(service, ListLogsRequest { page_token: page.next_page_token, ..of(&id) }).await;
    assert_eq!(rest.logs, all[2..]);
    // Without a limit: 25.
    for n in 0..25 {
        rename(service, &format!("more {n}")).await;
    }
    assert_eq!(list(service, of(&id)).await.logs.len(), 25);
}

async fn a_page_token_is_of_one_log_with_these_filters(service: &Service) {
    let mut users = service.users();
    let id = renamed(service, 3).await;
    let other = create(service, nth(1)).await.id;
    users.create(from(RIVAL, CreateRequest { id: id.clone(), ..ada() })).await.unwrap();
    let filtered = || ListLogsRequest {
        events: vec![LogEvent::UserUpdated.into(), LogEvent::UserCreated.into()],
        time_from: Some(START),
        ..of(&id)
    };
    let token = list(service, ListLogsRequest { limit: Some(1), ..filtered() }).await.next_page_token;
    let with = |request: ListLogsRequest| ListLogsRequest { page_token: token.clone(), ..request };
    let wrong = [
        with(of(&id)),
        with(ListLogsRequest { user_id: other, ..filtered() }),
        with(ListLogsRequest { events: vec![LogEvent::UserUpdated.into()], ..filtered() }),
        with(ListLogsRequest { time_from: Some(START + 1), ..filtered() }),
        with(ListLogsRequest { time_to: Some(START + 100), ..filtered() }),
        with(ListLogsRequest { offset: 1, ..filtered() }),
        ListLogsRequest { page_token: token[1..].into(), ..filtered() },
        ListLogsRequest { page_token: "\0".into(), ..filtered() },
    ];
    for request in wrong {
        let status = users.list_logs(request.clone()).await.unwrap_err();
        assert_eq!(fields(&status), ["page_token"], "{request:?}");
    }
    let foreign = users.list_logs(from(RIVAL, with(filtered()))).await.unwrap_err();
    assert_eq!(fields(&foreign), ["page_token"]);
    // The same filters in another order are the same; the size of a page is the caller's at any time.
    let mut same = with(ListLogsRequest { limit: Some(2), skip_total: true, ..filtered() });
    same.events.reverse();
    assert_eq!(named(&list(service, same).await.logs), [LogEvent::UserUpdated; 2]);
}

async fn a_trashed_user_has_a_log_and_a_purged_one_has_none(service: &Service) {
    let id = create(service, ada()).await.id;
    delete(service, &id).await;
    let entries = log(service, &id).await;
    assert_eq!(named(&entries), [LogEvent::UserDeleted, LogEvent::UserCreated]);
    assert_eq!(entries[0].changed, ["deleted"]);
    purge(service, &id).await;
    for id in [&id, "nobody"] {
        let status = service.users().list_logs(of(id)).await.unwrap_err();
        assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
    }
}

async fn every_bad_field_is_named_at_once(service: &Service) {
    let bad = ListLogsRequest {
        user_id: "no id".into(),
        events: vec![1, 0, 99, -1],
        limit: Some(1001),
        offset: -1,
        ..ListLogsRequest::default()
    };
    let status = service.users().list_logs(bad).await.unwrap_err();
    assert_eq!(fields(&status), ["user_id", "events[1]", "events[2]", "events[3]", "limit", "offset"]);
    let status = service.users().list_logs(ListLogsRequest { limit: Some(-1), ..of("") }).await.unwrap_err();
    assert_eq!(fields(&status), ["user_id", "limit"]);
    let repeated = ListLogsRequest { events: vec![1; Action::ALL.len() + 1], ..of("x") };
    assert_eq!(fields(&service.users().list_logs(repeated).await.unwrap_err()), ["events"]);
}

async fn it_has_its_path(service: &Service) {
    use http::{Method, StatusCode};
    renamed(service, 2).await;
    let path =
        format!("/v1/users/x/logs?events=USER_UPDATED&events=USER_CREATED&timeFrom={}&limit=1", START + 1);
    let (status, body) = service.replica.json(Method::GET, &path, "").await;
    assert_eq!((status, &body["total"]), (StatusCode::OK, &json!("2")), "{body}");
    let entry = &body["logs"][0];
    assert_eq!((&entry["event"], &entry["changed"]), (&json!("USER_UPDATED"), &json!(["name"])));
    assert_eq!((&entry["time"], &entry["sessionId"]), (&json!((START + 2).to_string()), &json!("")));
    let next = format!("{path}&pageToken={}", body["nextPageToken"].as_str().unwrap());
    let (_, body) = service.replica.json(Method::GET, &next, "").await;
    assert_eq!((body["logs"].as_array().unwrap().len(), &body["nextPageToken"]), (1, &json!("")));
    let (status, body) = service.replica.json(Method::GET, "/v1/users/x/logs?events=NOTHING", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

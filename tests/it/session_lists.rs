//! A user's sessions as others see them: listed, and ended by name.

use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use usersd::pb::{
    CreateRequest, DeleteSessionRequest, DeleteSessionsRequest, Device, ListSessionsRequest,
    ListSessionsResponse, LogEvent, LoginRequest, LogoutRequest, ReadSessionRequest, Session, SessionInfo,
};

use crate::steps::{RIVAL, assert_hidden, delete, events, happened, is_open, log, restore};
use crate::support::{
    Backend, PASSWORD, START, Service, ada, assert_refused, create, fields, from, login, nth,
};

crate::on_every_backend!(
    another_namespace_sees_and_ends_nothing,
    twins_in_two_namespaces_never_touch,
    sessions_are_listed_oldest_first_without_their_tokens,
    a_public_id_ends_a_session_and_opens_none,
    a_session_of_another_user_is_not_found,
    all_end_at_once_and_are_counted,
    pages_follow_each_other,
    a_page_token_is_of_one_list,
    expired_sessions_are_not_listed,
    idle_sessions_are_not_listed,
    a_log_in_beyond_the_maximum_ends_the_oldest_session,
    a_user_with_far_too_many_sessions_loses_some_at_each_log_in,
    every_bad_field_is_named_at_once,
    they_have_their_paths,
);

fn of(user: &str) -> ListSessionsRequest {
    ListSessionsRequest { user_id: user.into(), ..ListSessionsRequest::default() }
}

fn ending(user: &str, session: &str) -> DeleteSessionRequest {
    DeleteSessionRequest { user_id: user.into(), session_id: session.into() }
}

fn all_of(user: &str) -> DeleteSessionsRequest {
    DeleteSessionsRequest { user_id: user.into() }
}

async fn list(service: &Service, request: ListSessionsRequest) -> ListSessionsResponse {
    service.users().list_sessions(request).await.unwrap().into_inner()
}

async fn end(service: &Service, user: &str, session: &str) -> Result<(), Status> {
    service.users().delete_session(ending(user, session)).await.map(|_| ())
}

async fn end_all(service: &Service, user: &str) -> i64 {
    service.users().delete_sessions(all_of(user)).await.unwrap().into_inner().deleted
}

fn named(sessions: &[SessionInfo]) -> Vec<&str> {
    sessions.iter().map(|session| session.id.as_str()).collect()
}

fn public(sessions: &[Session]) -> Vec<&str> {
    sessions.iter().map(|session| session.public_id.as_str()).collect()
}

/// Signs in so often, a second apart.
async fn sign_in(service: &Service, username: &str, times: usize) -> Vec<Session> {
    let mut sessions = Vec::new();
    for _ in 0..times {
        sessions.push(login(service, username).await);
        service.clock.advance(Duration::from_secs(1));
    }
    sessions
}

async fn another_namespace_sees_and_ends_nothing(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    assert_hidden(service, &user.id, of, async |request| service.users().list_sessions(request).await).await;
    assert_hidden(service, &user.id, all_of, async |request| service.users().delete_sessions(request).await)
        .await;
    let ending = |id: &str| ending(id, &session.public_id);
    assert_hidden(service, &user.id, ending, async |request| service.users().delete_session(request).await)
        .await;
    assert!(is_open(service, &session.id).await);
    // A user of its own opens no door to them either.
    service.users().create(from(RIVAL, CreateRequest { id: user.id.clone(), ..ada() })).await.unwrap();
    let status = service.users().delete_session(from(RIVAL, ending(&user.id))).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "SESSION_NOT_FOUND");
    let theirs = service.users().list_sessions(from(RIVAL, of(&user.id))).await.unwrap().into_inner();
    assert_eq!((theirs.sessions.len(), theirs.total), (0, Some(0)));
    assert!(is_open(service, &session.id).await);
}

async fn twins_in_two_namespaces_never_touch(service: &Service) {
    let mut users = service.users();
    let login = LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    for namespace in ["default", RIVAL] {
        users.create(from(namespace, CreateRequest { id: "twin".into(), ..ada() })).await.unwrap();
        users.login(from(namespace, login.clone())).await.unwrap();
    }
    let before = list(service, of("twin")).await;
    assert_eq!(before.total, Some(1));
    let theirs = users.list_sessions(from(RIVAL, of("twin"))).await.unwrap().into_inner().sessions;
    assert_eq!(theirs.len(), 1);
    assert_refused(
        &end(service, "twin", &theirs[0].id).await.unwrap_err(),
        Code::NotFound,
        "SESSION_NOT_FOUND",
    );
    let ended = users.delete_sessions(from(RIVAL, all_of("twin"))).await.unwrap().into_inner();
    assert_eq!(ended.deleted, 1);
    assert_eq!(list(service, of("twin")).await, before);
    assert_eq!(events(service, "twin").await, [LogEvent::SessionCreated, LogEvent::UserCreated]);
}

async fn sessions_are_listed_oldest_first_without_their_tokens(service: &Service) {
    let user = create(service, ada()).await;
    create(service, nth(1)).await;
    let mut sessions = sign_in(service, "ada", 2).await;
    let device = Device { address: "2001:db8::7".into(), user_agent: "Phone/1 (Ω)".into() };
    let request = LoginRequest {
        email: "ada@example.com".into(),
        password: PASSWORD.into(),
        device: Some(device.clone()),
        ..LoginRequest::default()
    };
    sessions.push(service.users().login(request).await.unwrap().into_inner().session.unwrap());
    login(service, "user1").await;

    let reply = list(service, of(&user.id)).await;
    assert_eq!(named(&reply.sessions), public(&sessions));
    assert_eq!((reply.total, reply.next_page_token.as_str()), (Some(3), ""));
    for (info, session) in reply.sessions.iter().zip(&sessions) {
        assert_eq!((info.created, info.expires), (session.created, session.expires));
        assert_eq!(info.user_id, user.id);
    }
    let said = reply.sessions[2].device.clone().unwrap();
    assert_eq!((said.address, said.user_agent), (device.address, device.user_agent));
    let connected = reply.sessions[0].device.clone().unwrap();
    assert_eq!(connected.address, "127.0.0.1");
    assert!(connected.user_agent.starts_with("tonic/"), "{}", connected.user_agent);
    let bytes = reply.encode_to_vec();
    for session in &sessions {
        let secret = &session.id.as_bytes()[4..];
        assert!(!bytes.windows(secret.len()).any(|part| part == secret));
    }
    assert!(!bytes.windows(4).any(|part| part == b"ses_"));
}

/// (R24)
async fn a_public_id_ends_a_session_and_opens_none(service: &Service) {
    let user = create(service, ada()).await;
    let sessions = sign_in(service, "ada", 2).await;
    let name = sessions[0].public_id.clone();
    let before = service.counts().await;
    let read = ReadSessionRequest { session_id: name.clone(), max_age: None };
    let status = service.users().read_session(read).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "SESSION_NOT_FOUND");
    let logout = LogoutRequest { session_id: name.clone() };
    assert_refused(&service.users().logout(logout).await.unwrap_err(), Code::NotFound, "SESSION_NOT_FOUND");
    // And a token is not the name of a session.
    let status = end(service, &user.id, &sessions[0].id).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "SESSION_NOT_FOUND");
    assert_eq!(service.counts().await, before);

    end(service, &user.id, &name).await.unwrap();
    assert!(!is_open(service, &sessions[0].id).await);
    assert!(is_open(service, &sessions[1].id).await);
    let status = end(service, &user.id, &name).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "SESSION_NOT_FOUND");
    let entries = log(service, &user.id).await;
    assert_eq!((entries[0].event(), &entries[0].session_id), (LogEvent::SessionDeleted, &name));
    assert_eq!(happened(service, LogEvent::SessionDeleted).await, 1);
}

async fn a_session_of_another_user_is_not_found(service: &Service) {
    let ada_id = create(service, ada()).await.id;
    let other = create(service, nth(1)).await.id;
    let session = login(service, "ada").await;
    let before = service.counts().await;
    let foreign = end(service, &other, &session.public_id).await.unwrap_err();
    assert_refused(&foreign, Code::NotFound, "SESSION_NOT_FOUND");
    let nil = uuid::Uuid::nil().to_string();
    for nothing in [nil.as_str(), "x", "%", "'", "\0", &"x".repeat(1000)] {
        let status = end(service, &ada_id, nothing).await.unwrap_err();
        crate::steps::assert_alike(&status, &foreign);
    }
    let status = end(service, "nobody", &session.public_id).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
    assert_eq!(service.counts().await, before);
    assert!(is_open(service, &session.id).await);
}

/// (R24)
async fn all_end_at_once_and_are_counted(service: &Service) {
    let user = create(service, ada()).await;
    create(service, nth(1)).await;
    let other = login(service, "user1").await;
    assert_eq!(end_all(service, &user.id).await, 0);
    assert_eq!(happened(service, LogEvent::SessionsDeleted).await, 0, "nothing happened");
    let sessions = sign_in(service, "ada", 3).await;
    assert_eq!(end_all(service, &user.id).await, 3);
    for session in &sessions {
        assert!(!is_open(service, &session.id).await);
    }
    assert!(is_open(service, &other.id).await);
    assert_eq!(
        list(service, of(&user.id)).await,
        ListSessionsResponse { total: Some(0), ..Default::default() }
    );
    assert_eq!(happened(service, LogEvent::SessionsDeleted).await, 1);
    // They stay ended when the user goes and comes back.
    delete(service, &user.id).await;
    restore(service, &user.id).await;
    assert_eq!(list(service, of(&user.id)).await.total, Some(0));
}

async fn pages_follow_each_other(service: &Service) {
    let user = create(service, ada()).await;
    let sessions = sign_in(service, "ada", 5).await;
    let (mut seen, mut token, mut sizes) = (Vec::new(), String::new(), Vec::new());
    loop {
        let request = ListSessionsRequest { limit: Some(2), page_token: token, ..of(&user.id) };
        let page = list(service, request).await;
        assert_eq!(page.total, Some(5 - i64::from(!seen.is_empty())));
        sizes.push(page.sessions.len());
        seen.extend(page.sessions.into_iter().map(|session| session.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        if sizes.len() == 1 {
            // What ends meanwhile moves nothing.
            end(service, &user.id, &seen[1]).await.unwrap();
        }
    }
    assert_eq!((seen.iter().map(String::as_str).collect(), sizes), (public(&sessions), vec![2, 2, 1]));
    let none = list(service, ListSessionsRequest { limit: Some(0), ..of(&user.id) }).await;
    assert_eq!((none.sessions.len(), none.total, none.next_page_token.as_str()), (0, Some(4), ""));
    let uncounted = list(service, ListSessionsRequest { skip_total: true, ..of(&user.id) }).await;
    assert_eq!((uncounted.sessions.len(), uncounted.total), (4, None));
    let exact = list(service, ListSessionsRequest { limit: Some(4), ..of(&user.id) }).await;
    assert_eq!((exact.sessions.len(), exact.next_page_token.as_str()), (4, ""));
}

async fn a_page_token_is_of_one_list(service: &Service) {
    let mut users = service.users();
    let user = create(service, ada()).await;
    let other = create(service, nth(1)).await;
    sign_in(service, "ada", 2).await;
    let first = list(service, ListSessionsRequest { limit: Some(1), ..of(&user.id) }).await;
    let paged = |user: &str, token: &str| ListSessionsRequest { page_token: token.into(), ..of(user) };
    let token = first.next_page_token.as_str();
    for wrong in [&token[1..], &format!("{token}A"), "x", "\0"] {
        let status = users.list_sessions(paged(&user.id, wrong)).await.unwrap_err();
        assert_eq!(fields(&status), ["page_token"], "{wrong:?}");
    }
    assert_eq!(fields(&users.list_sessions(paged(&other.id, token)).await.unwrap_err()), ["page_token"]);
    users.create(from(RIVAL, CreateRequest { id: user.id.clone(), ..ada() })).await.unwrap();
    let foreign = users.list_sessions(from(RIVAL, paged(&user.id, token))).await.unwrap_err();
    assert_eq!(fields(&foreign), ["page_token"]);
    assert_eq!(list(service, paged(&user.id, token)).await.sessions.len(), 1);
}

async fn expired_sessions_are_not_listed(service: &Service) {
    let user = create(service, ada()).await;
    let old = login(service, "ada").await;
    service.clock.advance(Duration::from_hours(6 * 24));
    let young = login(service, "ada").await;
    assert_eq!(list(service, of(&user.id)).await.total, Some(2));
    service.clock.advance(Duration::from_hours(24));
    let reply = list(service, of(&user.id)).await;
    assert_eq!((named(&reply.sessions), reply.total), (vec![young.public_id.as_str()], Some(1)));
    let before = service.counts().await;
    let status = end(service, &user.id, &old.public_id).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "SESSION_NOT_FOUND");
    assert_eq!(service.counts().await, before);
    assert_eq!(end_all(service, &user.id).await, 1, "only what was open was ended");
    assert_eq!(end_all(service, &user.id).await, 0);
    assert_eq!(happened(service, LogEvent::SessionsDeleted).await, 1);
}

async fn idle_sessions_are_not_listed(service: &Service) {
    let user = create(service, ada()).await;
    let idle = login(service, "ada").await;
    let read = login(service, "ada").await;
    let mut strict = service.another(|config| config.sessions.idle = Some(Duration::from_hours(1))).await;
    service.clock.advance(Duration::from_mins(50));
    strict
        .users
        .read_session(ReadSessionRequest { session_id: read.id.clone(), max_age: None })
        .await
        .unwrap();
    service.clock.advance(Duration::from_mins(10));
    let reply = strict.users.list_sessions(of(&user.id)).await.unwrap().into_inner();
    assert_eq!((named(&reply.sessions), reply.total), (vec![read.public_id.as_str()], Some(1)));
    let status = strict.users.delete_session(ending(&user.id, &idle.public_id)).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "SESSION_NOT_FOUND");
    let ended = strict.users.delete_sessions(all_of(&user.id)).await.unwrap().into_inner().deleted;
    assert_eq!(ended, 1);
    // Whoever wants them all gone has them gone, also for a server without the limit.
    assert!(!is_open(service, &idle.id).await);
}

/// (M11, R26)
async fn a_log_in_beyond_the_maximum_ends_the_oldest_session(service: &Service) {
    let user = create(service, ada()).await;
    let twin = service.users().create(from(RIVAL, ada())).await.unwrap().into_inner().user.unwrap();
    let elsewhere =
        LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    service.users().login(from(RIVAL, elsewhere)).await.unwrap();
    let three = service.another(|config| config.sessions.max_per_user = 3).await;
    let mut opened = Vec::new();
    for _ in 0..5 {
        let request =
            LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
        opened.push(three.users.clone().login(request).await.unwrap().into_inner().session.unwrap());
        service.clock.advance(Duration::from_secs(1));
    }
    let listed = list(service, of(&user.id)).await;
    assert_eq!((named(&listed.sessions), listed.total), (public(&opened[2..]), Some(3)));
    for (n, session) in opened.iter().enumerate() {
        assert_eq!(is_open(service, &session.id).await, n >= 2, "{n}");
    }
    let log = log(service, &user.id).await;
    let ended: Vec<&str> = log
        .iter()
        .filter(|entry| entry.event() == LogEvent::SessionDeleted)
        .map(|entry| entry.session_id.as_str())
        .collect();
    assert_eq!(ended, [&*opened[1].public_id, &*opened[0].public_id]);
    let request = from(RIVAL, of(&twin.id));
    assert_eq!(service.users().list_sessions(request).await.unwrap().into_inner().total, Some(1));
    // Without a limit none ends.
    let any = service.another(|config| config.sessions.max_per_user = 0).await;
    let request =
        LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    any.users.clone().login(request).await.unwrap();
    assert_eq!(list(service, of(&user.id)).await.total, Some(4));
}

/// (M11)
async fn a_user_with_far_too_many_sessions_loses_some_at_each_log_in(service: &Service) {
    let user = create(service, ada()).await;
    open_by_sql(service, &user.id, 1_000).await;
    for left in [901, 802, 703] {
        login(service, "ada").await;
        assert_eq!(list(service, of(&user.id)).await.total, Some(left));
    }
    assert_eq!(happened(service, LogEvent::SessionDeleted).await, 300);
    let request = ListSessionsRequest { limit: Some(1), ..of(&user.id) };
    assert_eq!(list(service, request).await.sessions[0].id, format!("{:036}", 301), "the oldest are gone");
}

/// Opens sessions, the oldest first, as a server of an earlier version may have left them.
pub(crate) async fn open_by_sql(service: &Service, user: &str, sessions: usize) {
    let (digest, id) = match service.backend {
        Backend::Sqlite => ("CAST(printf('%032d', n) AS BLOB)", "printf('%036d', n)"),
        Backend::Postgres => ("convert_to(lpad(n::text, 32, '0'), 'UTF8')", "lpad(n::text, 36, '0')"),
    };
    let created = START * 1_000_000;
    let sql = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {sessions}) \
         INSERT INTO sessions SELECT 'default', {digest}, {id}, '{user}', {created}, \
         {created} + 604800000000, {created}, '', '' FROM numbers"
    );
    service.execute(&sql).await;
}

async fn every_bad_field_is_named_at_once(service: &Service) {
    let mut users = service.users();
    for id in ["", "no id"] {
        assert_eq!(fields(&users.list_sessions(of(id)).await.unwrap_err()), ["user_id"]);
        assert_eq!(fields(&users.delete_sessions(all_of(id)).await.unwrap_err()), ["user_id"]);
        assert_eq!(
            fields(&users.delete_session(ending(id, "")).await.unwrap_err()),
            ["user_id", "session_id"]
        );
    }
    for limit in [-1, 1001] {
        let request = ListSessionsRequest { limit: Some(limit), ..of("no id") };
        assert_eq!(fields(&users.list_sessions(request).await.unwrap_err()), ["user_id", "limit"]);
    }
    for status in [
        users.list_sessions(of("nobody")).await.unwrap_err(),
        users.delete_sessions(all_of("nobody")).await.unwrap_err(),
    ] {
        assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
    }
}

async fn they_have_their_paths(service: &Service) {
    use http::{Method, StatusCode};
    create(service, CreateRequest { id: "7".into(), ..ada() }).await;
    let sessions = sign_in(service, "ada", 3).await;
    let http = &service.replica;
    let (status, body) = http.json(Method::GET, "/v1/users/7/sessions?limit=2", "").await;
    assert_eq!((status, &body["total"]), (StatusCode::OK, &"3".into()));
    let first = &body["sessions"][0];
    assert_eq!(
        (&first["id"], &first["created"]),
        (&sessions[0].public_id.as_str().into(), &START.to_string().into())
    );
    let path = format!("/v1/users/7/sessions/{}", sessions[0].public_id);
    let (status, body) = http.json(Method::DELETE, &path, "").await;
    assert_eq!((status, body), (StatusCode::OK, serde_json::json!({})));
    let (status, body) = http.json(Method::DELETE, &path, "").await;
    assert_eq!((status, &body["details"][0]["reason"]), (StatusCode::NOT_FOUND, &"SESSION_NOT_FOUND".into()));
    let (status, body) = http.json(Method::DELETE, "/v1/users/7/sessions", "").await;
    assert_eq!((status, body), (StatusCode::OK, serde_json::json!({"deleted": "2"})));
}

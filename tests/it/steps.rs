//! What several tests do to a user, in one line each.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::Value;
use tonic::{Code, Request, Response, Status};
use usersd::pb::{
    DeleteRequest, ListLogsRequest, ListRequest, LogEntry, LogEvent, LoginRequest, PurgeRequest, ReadRequest,
    ReadSessionRequest, RestoreRequest, UpdatePrefsRequest, UpdateStatusRequest, User, UserStatus,
};

use crate::support::{Service, assert_refused, from};

/// The other namespace.
pub(crate) const RIVAL: &str = "rival";

/// Fails unless a caller of the other namespace is answered about `id` as about a user who does not exist, to
/// the byte, and nothing has changed.
pub(crate) async fn assert_hidden<M, T>(
    service: &Service,
    id: &str,
    request: impl Fn(&str) -> M,
    call: impl AsyncFn(Request<M>) -> Result<Response<T>, Status>,
) {
    let before = service.counts().await;
    let there = call(from(RIVAL, request(id))).await.err().unwrap();
    let nowhere = call(from(RIVAL, request("nobody"))).await.err().unwrap();
    assert_refused(&there, Code::NotFound, "USER_NOT_FOUND");
    assert_alike(&there, &nowhere);
    assert_eq!(service.counts().await, before);
}

/// Fails unless two refusals are the same to the byte.
#[track_caller]
pub(crate) fn assert_alike(one: &Status, other: &Status) {
    assert_eq!((one.code(), one.message()), (other.code(), other.message()));
    assert_eq!(one.details(), other.details());
}

pub(crate) fn by_id(id: &str) -> ReadRequest {
    ReadRequest { id: id.into(), ..ReadRequest::default() }
}

pub(crate) async fn read(service: &Service, id: &str) -> User {
    service.users().read(by_id(id)).await.unwrap().into_inner().user.unwrap()
}

pub(crate) fn deletion(id: &str) -> DeleteRequest {
    DeleteRequest { id: id.into(), ..DeleteRequest::default() }
}

/// Moves a user to the trash.
pub(crate) async fn delete(service: &Service, id: &str) -> User {
    service.users().delete(deletion(id)).await.unwrap().into_inner().user.unwrap()
}

pub(crate) fn restoring(id: &str) -> RestoreRequest {
    RestoreRequest { id: id.into(), ..RestoreRequest::default() }
}

pub(crate) async fn restore(service: &Service, id: &str) -> User {
    service.users().restore(restoring(id)).await.unwrap().into_inner().user.unwrap()
}

pub(crate) fn purging(id: &str) -> PurgeRequest {
    PurgeRequest { id: id.into(), ..PurgeRequest::default() }
}

pub(crate) async fn purge(service: &Service, id: &str) {
    service.users().purge(purging(id)).await.unwrap();
}

pub(crate) fn becoming(id: &str, status: UserStatus) -> UpdateStatusRequest {
    UpdateStatusRequest { id: id.into(), status: status.into(), ..UpdateStatusRequest::default() }
}

pub(crate) async fn set_status(service: &Service, id: &str, status: UserStatus) -> User {
    service.users().update_status(becoming(id, status)).await.unwrap().into_inner().user.unwrap()
}

/// What a log-in of `username` with `password` is refused with, if it is.
pub(crate) async fn try_login(service: &Service, username: &str, password: &str) -> Result<String, Status> {
    let request =
        LoginRequest { username: username.into(), password: password.into(), ..LoginRequest::default() };
    Ok(service.users().login(request).await?.into_inner().session.unwrap().id)
}

pub(crate) async fn is_open(service: &Service, token: &str) -> bool {
    match service.users().read_session(ReadSessionRequest { session_id: token.into(), max_age: None }).await {
        Ok(_) => true,
        Err(status) => {
            assert_refused(&status, Code::NotFound, "SESSION_NOT_FOUND");
            false
        }
    }
}

/// All that the log says of a user, the newest first.
pub(crate) async fn log(service: &Service, id: &str) -> Vec<LogEntry> {
    let request = ListLogsRequest { user_id: id.into(), limit: Some(1000), ..ListLogsRequest::default() };
    service.users().list_logs(request).await.unwrap().into_inner().logs
}

/// What happened to a user, the newest first.
pub(crate) async fn events(service: &Service, id: &str) -> Vec<LogEvent> {
    log(service, id).await.iter().map(LogEntry::event).collect()
}

/// How many events of that name there are, of everyone.
pub(crate) async fn happened(service: &Service, event: LogEvent) -> i64 {
    service.number(&format!("SELECT count(*) FROM events WHERE action = '{}'", event.as_str_name())).await
}

/// The ids of a namespace's users, alive or in the trash.
pub(crate) async fn ids(service: &Service, trash: bool) -> Vec<String> {
    let request = ListRequest { limit: Some(1000), ..ListRequest::default() };
    let mut users = service.users();
    let list = if trash { users.list_trash(request).await } else { users.list(request).await };
    list.unwrap().into_inner().users.into_iter().map(|user| user.id).collect()
}

/// Writes prefs, or replaces them all.
pub(crate) fn preferring(id: &str, prefs: &Value) -> UpdatePrefsRequest {
    UpdatePrefsRequest { id: id.into(), prefs: Some(structure(prefs)), ..UpdatePrefsRequest::default() }
}

/// Writes prefs and gives all of them.
pub(crate) async fn prefer(service: &Service, id: &str, prefs: &Value) -> Struct {
    service.users().update_prefs(preferring(id, prefs)).await.unwrap().into_inner().prefs.unwrap()
}

/// A JSON object as a message.
pub(crate) fn structure(object: &Value) -> Struct {
    let fields: BTreeMap<_, _> =
        object.as_object().unwrap().iter().map(|(key, item)| (key.clone(), value(item))).collect();
    Struct { fields }
}

fn value(json: &Value) -> prost_types::Value {
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(value).collect() }),
        Value::Object(_) => Kind::StructValue(structure(json)),
    };
    prost_types::Value { kind: Some(kind) }
}

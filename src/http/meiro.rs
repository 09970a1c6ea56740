//! Meiro's users API, with a trash: `/meiro/users`. Bodies are the bare types.

use std::ops::RangeInclusive;

use http::request::Parts;
use http::{HeaderValue, Method as Verb, Response, StatusCode, header};
use serde_json::{Map, Value};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::call::{Stack, read_body};
use super::dialect::{self, Object, call};
use super::{Front, reply, rest};
use crate::error::{Error, Fields};
use crate::grpc::status::refusal;
use crate::pb::{self, ErrorReason};

/// Whether the path is of this dialect, whether or not it has an operation.
pub(super) fn owns(path: &str) -> bool {
    path.starts_with("/meiro/")
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource<'p> {
    Users,
    User(&'p str),
    Password(&'p str),
    CreateOrRestore,
    Trash,
    Trashed(&'p str),
}

impl<'p> Resource<'p> {
    /// `trash` and `create_or_restore` are words, not ids.
    fn find(path: &'p str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix("/meiro/")?.split('/').collect();
        match *segments {
            ["users"] => Some(Self::Users),
            ["users", "trash"] => Some(Self::Trash),
            ["users", "create_or_restore"] => Some(Self::CreateOrRestore),
            ["users", id] if !id.is_empty() => Some(Self::User(id)),
            ["users", "trash", id] if !id.is_empty() => Some(Self::Trashed(id)),
            ["users", id, "change_password"] if !id.is_empty() => Some(Self::Password(id)),
            _ => None,
        }
    }

    fn verbs(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Users => "GET, POST, HEAD, OPTIONS",
            Self::User(_) => "DELETE, GET, PATCH, HEAD, OPTIONS",
            Self::Password(_) | Self::CreateOrRestore => "POST, OPTIONS",
            Self::Trash => "GET, HEAD, OPTIONS",
            Self::Trashed(_) => "PATCH, OPTIONS",
        })
    }

    fn has(self, verb: &Verb) -> bool {
        self.verbs().to_str().unwrap_or_default().split(", ").any(|known| known == verb.as_str())
    }

    /// The RPC that does it.
    fn method(self, verb: &Verb) -> &'static str {
        match (self, verb) {
            (Self::Users, &Verb::POST) => "/users.Users/Create",
            (Self::Users, _) => "/users.Users/List",
            (Self::User(_), &Verb::PATCH) => "/users.Users/Update",
            (Self::User(_), &Verb::DELETE) => "/users.Users/Delete",
            (Self::User(_), _) => "/users.Users/Read",
            (Self::Password(_), _) => "/users.Users/UpdatePassword",
            (Self::CreateOrRestore, _) => "/users.Users/CreateOrRestore",
            (Self::Trash, _) => "/users.Users/ListTrash",
            (Self::Trashed(_), _) => "/users.Users/Restore",
        }
    }

    /// Whether its fields come in the body.
    fn has_body(self, verb: &Verb) -> bool {
        match self {
            Self::Users | Self::Password(_) | Self::CreateOrRestore => verb == Verb::POST,
            Self::User(_) => verb == Verb::PATCH,
            Self::Trash | Self::Trashed(_) => false,
        }
    }
}

/// Answers a request of the dialect.
pub(super) async fn handle<S: Stack>(front: &Front<S>, mut head: Parts, body: Body) -> Response<Body> {
    let path = head.uri.path().to_owned();
    let Some(resource) = Resource::find(&path) else {
        let status = refusal(Code::NotFound, ErrorReason::MethodUnknown, "there is nothing at this path");
        return failed(StatusCode::NOT_FOUND, &status);
    };
    if head.method == Verb::OPTIONS || !resource.has(&head.method) {
        return other_verb(&head.method, resource);
    }
    let method = resource.method(&head.method);
    if let Err(status) = front.stack.admit(&mut head, method) {
        return failed(reply::http_status(&status), &status);
    }
    let mut text = bytes::Bytes::new();
    if resource.has_body(&head.method) {
        if !rest::is_json(&head) {
            let why = "the body must be application/json";
            let status = refusal(Code::InvalidArgument, ErrorReason::Malformed, why);
            return failed(StatusCode::UNSUPPORTED_MEDIA_TYPE, &status);
        }
        text = match read_body(&head, body, front.settings.max_body).await {
            Ok(text) => text,
            Err(status) => return failed(reply::http_status(&status), &status),
        };
    }
    match answer(front, &head, resource, &text).await {
        Ok((code, body)) => reply::json(code, body, &MetadataMap::new()),
        Err(status) => failed(reply::http_status(&status), &status),
    }
}

async fn answer<S: Stack>(
    front: &Front<S>,
    head: &Parts,
    resource: Resource<'_>,
    text: &[u8],
) -> Result<(StatusCode, Vec<u8>), Status> {
    let (user, code) = match (resource, &head.method) {
        (Resource::Users, &Verb::POST) => (create(front, head, text).await?, StatusCode::CREATED),
        (Resource::Users | Resource::Trash, verb) => {
            return Ok((StatusCode::OK, list(front, head, resource.method(verb)).await?));
        }
        (Resource::CreateOrRestore, _) => (create_or_restore(front, head, text).await?, StatusCode::CREATED),
        (Resource::User(id), &Verb::PATCH) => (update(front, head, id, text).await?, StatusCode::OK),
        (Resource::User(id), &Verb::DELETE) => (delete(front, head, id).await?, StatusCode::OK),
        (Resource::User(id), _) => (read(front, head, id).await?, StatusCode::OK),
        (Resource::Password(id), _) => (change_password(front, head, id, text).await?, StatusCode::OK),
        (Resource::Trashed(id), _) => (restore(front, head, id).await?, StatusCode::OK),
    };
    Ok((code, shown(&dialect::user(user)?)))
}

type Found = Result<Option<pb::User>, Status>;

async fn create<S: Stack>(front: &Front<S>, head: &Parts, text: &[u8]) -> Found {
    let new = NewUser::read(text)?;
    let request = pb::CreateRequest {
        email: new.email,
        password: new.password,
        sso_enabled: new.sso_enabled.unwrap_or_default(),
        ..Default::default()
    };
    let reply: pb::CreateResponse = call(front, "/users.Users/Create", &request, head).await?;
    Ok(reply.user)
}

async fn create_or_restore<S: Stack>(front: &Front<S>, head: &Parts, text: &[u8]) -> Found {
    let NewUser { email, password, sso_enabled } = NewUser::read(text)?;
    let request = pb::CreateOrRestoreRequest { email, password, sso_enabled, ..Default::default() };
    let reply: pb::CreateOrRestoreResponse =
        call(front, "/users.Users/CreateOrRestore", &request, head).await?;
    Ok(reply.user)
}

async fn read<S: Stack>(front: &Front<S>, head: &Parts, id: &str) -> Found {
    let request = pb::ReadRequest { id: user_id(id), ..Default::default() };
    let reply: pb::ReadResponse = call(front, "/users.Users/Read", &request, head).await?;
    Ok(reply.user)
}

async fn update<S: Stack>(front: &Front<S>, head: &Parts, id: &str, text: &[u8]) -> Found {
    let mut fields = Members::read(text)?;
    let (email, password) = (fields.text("email"), fields.text("password"));
    let sso_enabled = fields.flag("sso_enabled");
    for (name, value) in [("email", &email), ("password", &password)] {
        if value.as_deref() == Some("") {
            fields.faults.add(name, "must not be empty");
        }
    }
    fields.faults.none()?;
    let request = pb::UpdateRequest { id: user_id(id), email, password, sso_enabled, ..Default::default() };
    let reply: pb::UpdateResponse = call(front, "/users.Users/Update", &request, head).await?;
    Ok(reply.user)
}

async fn delete<S: Stack>(front: &Front<S>, head: &Parts, id: &str) -> Found {
    let request = pb::DeleteRequest { id: user_id(id), ..Default::default() };
    let reply: pb::DeleteResponse = call(front, "/users.Users/Delete", &request, head).await?;
    Ok(reply.user)
}

async fn change_password<S: Stack>(front: &Front<S>, head: &Parts, id: &str, text: &[u8]) -> Found {
    let mut fields = Members::read(text)?;
    let (old_password, new_password) = (fields.needed("old_password"), fields.needed("new_password"));
    fields.faults.none()?;
    let request =
        pb::UpdatePasswordRequest { user_id: user_id(id), old_password, new_password, ..Default::default() };
    let reply: pb::UpdatePasswordResponse =
        call(front, "/users.Users/UpdatePassword", &request, head).await?;
    Ok(reply.user)
}

async fn restore<S: Stack>(front: &Front<S>, head: &Parts, id: &str) -> Found {
    let request = pb::RestoreRequest { id: user_id(id), ..Default::default() };
    let reply: pb::RestoreResponse = call(front, "/users.Users/Restore", &request, head).await?;
    Ok(reply.user)
}

/// What is no UTF-8 is no id either, escaped or not.
fn user_id(raw: &str) -> String {
    dialect::segment(raw).unwrap_or_else(|_| raw.to_owned())
}

async fn list<S: Stack>(front: &Front<S>, head: &Parts, method: &str) -> Result<Vec<u8>, Status> {
    let page = Page::read(head)?;
    let request = pb::ListRequest {
        limit: Some(page.limit),
        offset: page.offset,
        order_by: "id".to_owned(),
        order_dir: page.order_dir.clone(),
        skip_total: true,
        ..Default::default()
    };
    let listed = dialect::list(front, method, request, head).await?;
    let applied = Object::new().number("limit", page.limit).number("offset", page.offset);
    let applied = applied.text("order_by", "id").text("order_dir", &page.order_dir).end();
    let users = Object::new().list("users", listed.users.iter().map(shown));
    Ok(users.raw("selection_settings", &applied).end())
}

/// Which users a list shows.
struct Page {
    limit: i64,
    offset: i64,
    order_dir: String,
}

impl Page {
    fn read(head: &Parts) -> Result<Self, Error> {
        let mut faults = Fields::default();
        // What is badly escaped is as wrong as its raw form.
        let given = |name| dialect::parameter(head, name).unwrap_or_else(|_| Some("%".to_owned()));
        let limit = number(given("limit"), 20, &(1..=1000)).ok_or("must be 1 to 1000");
        let limit = faults.check("limit", limit);
        let offset = number(given("offset"), 0, &(0..=i64::MAX)).ok_or("must be 0 or more");
        let offset = faults.check("offset", offset);
        if given("order_by").is_some_and(|order| order != "id") {
            faults.add("order_by", "must be id");
        }
        let order_dir = given("order_dir").unwrap_or_else(|| "ASC".to_owned());
        if order_dir != "ASC" && order_dir != "DESC" {
            faults.add("order_dir", "must be ASC or DESC");
        }
        match (limit, offset, faults.is_empty()) {
            (Some(limit), Some(offset), true) => Ok(Self { limit, offset, order_dir }),
            _ => Err(Error::Invalid(faults)),
        }
    }
}

/// The number in `text`, or `default` where there is none; `None` for what is no number of that range.
fn number(text: Option<String>, default: i64, range: &RangeInclusive<i64>) -> Option<i64> {
    match text {
        Some(text) => text.parse().ok().filter(|number| range.contains(number)),
        None => Some(default),
    }
}

/// The members of a body, and what is wrong with them. Those that nobody asks for are passed over.
struct Members {
    members: Map<String, Value>,
    faults: Fields,
}

impl Members {
    fn read(text: &[u8]) -> Result<Self, Error> {
        let members = dialect::object(text);
        let members = members.ok_or_else(|| Error::Malformed("the body must be a JSON object".to_owned()))?;
        Ok(Self { members, faults: Fields::default() })
    }

    /// A null is as good as nothing.
    fn text(&mut self, name: &str) -> Option<String> {
        match self.members.get(name)? {
            Value::String(text) => return Some(text.clone()),
            Value::Null => {}
            _ => self.faults.add(name, "must be a string"),
        }
        None
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        match self.members.get(name)? {
            Value::Bool(flag) => return Some(*flag),
            Value::Null => {}
            _ => self.faults.add(name, "must be a boolean"),
        }
        None
    }

    /// A text that has to be there, and is empty where that is noted as a fault.
    fn needed(&mut self, name: &str) -> String {
        match self.members.get(name) {
            Some(Value::String(text)) if !text.is_empty() => return text.clone(),
            None | Some(Value::Null | Value::String(_)) => self.faults.add(name, "is required"),
            Some(_) => self.faults.add(name, "must be a string"),
        }
        String::new()
    }
}

/// Who is to be created.
struct NewUser {
    email: String,
    /// Empty if there is none.
    password: String,
    sso_enabled: Option<bool>,
}

impl NewUser {
    fn read(text: &[u8]) -> Result<Self, Error> {
        let mut members = Members::read(text)?;
        let (email, sso_enabled) = (members.needed("email"), members.flag("sso_enabled"));
        let password = match sso_enabled {
            Some(true) => members.text("password").unwrap_or_default(),
            _ => members.needed("password"),
        };
        members.faults.none()?;
        Ok(Self { email, password, sso_enabled })
    }
}

/// `User`
fn shown(user: &pb::User) -> Vec<u8> {
    let object = Object::new().text("id", &user.id).text("email", &user.email);
    object.flag("deleted", user.deleted != 0).flag("sso_enabled", user.sso_enabled).end()
}

fn other_verb(verb: &Verb, resource: Resource<'_>) -> Response<Body> {
    let mut response = if verb == Verb::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        let status = refusal(Code::Unimplemented, ErrorReason::MethodUnknown, "the path has other verbs");
        failed(StatusCode::METHOD_NOT_ALLOWED, &status)
    };
    response.headers_mut().insert(header::ALLOW, resource.verbs());
    response
}

fn failed(code: StatusCode, status: &Status) -> Response<Body> {
    let body = Object::new().text("message", &message(status)).end();
    let mut response = reply::json(code, body, status.metadata());
    reply::advise(status, code, response.headers_mut());
    response
}

/// Names every field at fault.
fn message(status: &Status) -> String {
    if reply::has_reason(status, ErrorReason::BadCredentials) {
        return "Invalid credentials have been provided".to_owned();
    }
    let faults: Vec<String> =
        dialect::violations(status).iter().map(|(field, why)| format!("{field} {why}")).collect();
    if faults.is_empty() { status.message().to_owned() } else { faults.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_not_ids() {
        for (path, want) in [
            ("/meiro/users", Some(Resource::Users)),
            ("/meiro/users/7", Some(Resource::User("7"))),
            ("/meiro/users/trash", Some(Resource::Trash)),
            ("/meiro/users/trash/7", Some(Resource::Trashed("7"))),
            ("/meiro/users/trash/trash", Some(Resource::Trashed("trash"))),
            ("/meiro/users/trash/change_password", Some(Resource::Trashed("change_password"))),
            ("/meiro/users/create_or_restore", Some(Resource::CreateOrRestore)),
            ("/meiro/users/7/change_password", Some(Resource::Password("7"))),
            ("/meiro/users/", None),
            ("/meiro/users//change_password", None),
            ("/meiro/users/trash/", None),
            ("/meiro/users/7/", None),
            ("/meiro/users/7/nothing", None),
            ("/meiro/users/7/change_password/", None),
            ("/meiro/", None),
            ("/meiro/trash", None),
        ] {
            assert_eq!(Resource::find(path), want, "{path}");
        }
    }
}

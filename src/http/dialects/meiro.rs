//! Meiro's users API, with a trash: `/meiro/users`. Bodies are the bare types.

use http::request::Parts;
use http::{HeaderValue, Method as Verb, Response, StatusCode, header};
use serde::Serialize;
use tonic::Status;
use tonic::body::Body;

use super::client::{self, Client};
use super::{Expected, Located, params as shared};
use crate::http::receive::is_json;
use crate::http::reply;
use crate::pb::{self, ErrorReason};
use transcode::schema::{Method, Schema};

mod params;

use params::{NewUser, Page, change_password, update};

/// Returns true if the path is of this dialect, whether or not it has an operation.
pub(super) fn owns(path: &str) -> bool {
    path.starts_with("/meiro/")
}

/// The resource that a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Users,
    User,
    Password,
    CreateOrRestore,
    Trash,
    Trashed,
}

impl Resource {
    /// The resource, and the id in its path, empty where it has none. `trash` and `create_or_restore` are
    /// words, not ids.
    fn find(path: &str) -> Option<(Self, &str)> {
        let segments: Vec<&str> = path.strip_prefix("/meiro/")?.split('/').collect();
        match *segments {
            ["users"] => Some((Self::Users, "")),
            ["users", "trash"] => Some((Self::Trash, "")),
            ["users", "create_or_restore"] => Some((Self::CreateOrRestore, "")),
            ["users", id] if !id.is_empty() => Some((Self::User, id)),
            ["users", "trash", id] if !id.is_empty() => Some((Self::Trashed, id)),
            ["users", id, "change_password"] if !id.is_empty() => Some((Self::Password, id)),
            _ => None,
        }
    }

    fn verbs(self) -> &'static str {
        match self {
            Self::Users => "GET, POST, HEAD, OPTIONS",
            Self::User => "DELETE, GET, PATCH, HEAD, OPTIONS",
            Self::Password | Self::CreateOrRestore => "POST, OPTIONS",
            Self::Trash => "GET, HEAD, OPTIONS",
            Self::Trashed => "PATCH, OPTIONS",
        }
    }

    fn has(self, verb: &Verb) -> bool {
        self.verbs().split(", ").any(|known| known == verb.as_str())
    }

    /// The RPC that does it.
    fn method(self, verb: &Verb) -> &'static str {
        match (self, verb) {
            (Self::Users, &Verb::POST) => "/users.Users/Create",
            (Self::Users, _) => "/users.Users/List",
            (Self::User, &Verb::PATCH) => "/users.Users/Update",
            (Self::User, &Verb::DELETE) => "/users.Users/Delete",
            (Self::User, _) => "/users.Users/Read",
            (Self::Password, _) => "/users.Users/UpdatePassword",
            (Self::CreateOrRestore, _) => "/users.Users/CreateOrRestore",
            (Self::Trash, _) => "/users.Users/ListTrash",
            (Self::Trashed, _) => "/users.Users/Restore",
        }
    }

    /// Returns true if its fields come in the body.
    fn has_body(self, verb: &Verb) -> bool {
        match self {
            Self::Users | Self::Password | Self::CreateOrRestore => verb == Verb::POST,
            Self::User => verb == Verb::PATCH,
            Self::Trash | Self::Trashed => false,
        }
    }
}

/// A call of an operation.
#[derive(Debug)]
pub(super) struct Meiro {
    resource: Resource,
    verb: Verb,
    /// Empty where the path has none.
    id: String,
}

pub(super) fn locate<'g>(schema: &'g Schema, head: &Parts) -> Located<(&'g Method, Meiro)> {
    let not_found = || {
        let (code, status) = reply::not_found("not found");
        Box::new(failed(code, &status))
    };
    let (resource, id) = Resource::find(head.uri.path()).ok_or_else(not_found)?;
    if head.method == Verb::OPTIONS || !resource.has(&head.method) {
        return Err(Box::new(other_verb(&head.method, resource)));
    }
    let method = schema.method(resource.method(&head.method)).ok_or_else(not_found)?;
    Ok((method, Meiro { resource, verb: head.method.clone(), id: shared::id(id) }))
}

impl Meiro {
    pub(super) fn expects(&self, head: &Parts, max: usize) -> Located<Expected> {
        if !self.resource.has_body(&self.verb) {
            return Ok(Expected::Nothing);
        }
        if is_json(head) {
            return Ok(Expected::Plain(max));
        }
        let (code, status) = reply::wrong_media_type();
        Err(Box::new(failed(code, &status)))
    }

    pub(super) async fn answer(&self, client: Client<'_>, head: &Parts, text: &[u8]) -> Response<Body> {
        let answered = match self.resource {
            Resource::Trash => list(&client, head).await,
            Resource::Users if self.verb != Verb::POST => list(&client, head).await,
            _ => self.one(&client, text).await,
        };
        match answered {
            Ok(body) if self.creates() => reply::json(StatusCode::CREATED, body),
            Ok(body) => reply::json(StatusCode::OK, body),
            Err(status) => refuse(&status),
        }
    }

    fn creates(&self) -> bool {
        self.verb == Verb::POST && matches!(self.resource, Resource::Users | Resource::CreateOrRestore)
    }

    /// Handles the operations on one user.
    async fn one(&self, client: &Client<'_>, text: &[u8]) -> Result<Vec<u8>, Status> {
        let id = self.id.clone();
        let user = match (self.resource, &self.verb) {
            (Resource::Users, _) => {
                client.call::<pb::CreateResponse>(&NewUser::read(text)?.create()).await?.user
            }
            (Resource::CreateOrRestore, _) => {
                let request = NewUser::read(text)?.create_or_restore();
                client.call::<pb::CreateOrRestoreResponse>(&request).await?.user
            }
            (Resource::User, &Verb::PATCH) => {
                client.call::<pb::UpdateResponse>(&update(id, text)?).await?.user
            }
            (Resource::User, &Verb::DELETE) => {
                let request = pb::DeleteRequest { id, ..Default::default() };
                client.call::<pb::DeleteResponse>(&request).await?.user
            }
            (Resource::Password, _) => {
                client.call::<pb::UpdatePasswordResponse>(&change_password(id, text)?).await?.user
            }
            (Resource::Trashed, _) => {
                let request = pb::RestoreRequest { id, ..Default::default() };
                client.call::<pb::RestoreResponse>(&request).await?.user
            }
            (Resource::User | Resource::Trash, _) => {
                let request = pb::ReadRequest { id, ..Default::default() };
                client.call::<pb::ReadResponse>(&request).await?.user
            }
        };
        Ok(reply::serialized(&User::from(&client::user(user)?)))
    }
}

async fn list(client: &Client<'_>, head: &Parts) -> Result<Vec<u8>, Status> {
    let page = Page::read(head)?;
    let request = pb::ListRequest {
        limit: Some(page.limit),
        offset: page.offset,
        order_by: "id".to_owned(),
        order_dir: page.order_dir.clone(),
        skip_total: true,
        ..Default::default()
    };
    let listed = client.list(request).await?;
    let users = listed.users.iter().map(User::from).collect();
    let Page { limit, offset, order_dir } = &page;
    let selection_settings = Selection { limit: *limit, offset: *offset, order_by: "id", order_dir };
    Ok(reply::serialized(&List { users, selection_settings }))
}

#[derive(Serialize)]
struct User<'a> {
    id: &'a str,
    email: &'a str,
    deleted: bool,
    sso_enabled: bool,
}

impl<'a> From<&'a pb::User> for User<'a> {
    fn from(user: &'a pb::User) -> Self {
        Self { id: &user.id, email: &user.email, deleted: user.deleted != 0, sso_enabled: user.sso_enabled }
    }
}

#[derive(Serialize)]
struct List<'a> {
    users: Vec<User<'a>>,
    selection_settings: Selection<'a>,
}

#[derive(Serialize)]
struct Selection<'a> {
    limit: i64,
    offset: i64,
    order_by: &'a str,
    order_dir: &'a str,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    message: &'a str,
}

fn other_verb(verb: &Verb, resource: Resource) -> Response<Body> {
    let mut response = if verb == Verb::OPTIONS {
        reply::no_content()
    } else {
        let (code, status) = reply::wrong_verb(&format!("method not allowed; allowed: {}", resource.verbs()));
        failed(code, &status)
    };
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(resource.verbs()));
    response
}

pub(super) fn refuse(status: &Status) -> Response<Body> {
    failed(reply::http_status(status), status)
}

fn failed(code: StatusCode, status: &Status) -> Response<Body> {
    reply::failure(code, reply::serialized(&ErrorBody { message: &message(status) }), status)
}

/// Names every field at fault.
fn message(status: &Status) -> String {
    if reply::has_reason(status, ErrorReason::BadCredentials) {
        return "Invalid credentials have been provided".to_owned();
    }
    let faults: Vec<String> =
        shared::violations(status).iter().map(|(field, why)| format!("{field} {why}")).collect();
    if faults.is_empty() { status.message().to_owned() } else { faults.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_not_ids() {
        for (path, want) in [
            ("/meiro/users", Some((Resource::Users, ""))),
            ("/meiro/users/7", Some((Resource::User, "7"))),
            ("/meiro/users/trash", Some((Resource::Trash, ""))),
            ("/meiro/users/trash/7", Some((Resource::Trashed, "7"))),
            ("/meiro/users/trash/trash", Some((Resource::Trashed, "trash"))),
            ("/meiro/users/trash/change_password", Some((Resource::Trashed, "change_password"))),
            ("/meiro/users/create_or_restore", Some((Resource::CreateOrRestore, ""))),
            ("/meiro/users/7/change_password", Some((Resource::Password, "7"))),
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

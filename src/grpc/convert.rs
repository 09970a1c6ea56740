//! Messages to checked values, naming every field at fault, and records to messages.

mod changes;
mod codes;
mod factors;
mod keys;
mod list;
mod namespaces;
mod notes;
mod prefs;
mod repeats;
mod sessions;

use crate::domain::email::Email;
use crate::domain::idempotency::{IdempotencyHeader, RepeatableCall};
use crate::domain::password::{Password, PasswordPolicy};
use crate::domain::session::Device;
use crate::domain::time::Timestamp;
use crate::domain::user::{Changes, Name, NewUser, Status, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Fields, Result};
use crate::ops::passwords::PasswordChange;
use crate::ops::users::UserRef;
use crate::pb;

use notes::{labels, metadata};
use repeats::repeatable_call;
use sessions::own_session;

pub(super) use changes::changes;
pub(super) use codes::{code_login, code_use, new_code, password_reset};
pub(super) use factors::{
    confirmation, enrollment, factors, new_codes, recovery_codes, removal, second_step,
};
pub(super) use keys::{key_logs, key_to_delete, new_key, parse_key_logs};
pub(super) use list::{
    batch, ids, listed, listing, logs, parse_list_logs, parse_list_sessions, search, session_ref, sessions,
};
pub(super) use namespaces::{
    listed_namespaces, namespace_limits, namespace_name, namespace_usage, namespaces_page, new_namespace,
    to_delete,
};
pub(super) use prefs::{message as prefs_message, prefs_change};
pub(super) use sessions::{assertion_request, login, password_check, session, session_to_read, token};

/// An id that is needed.
pub(super) fn user_id(field: &str, raw: &str) -> Result<UserId> {
    UserId::parse(raw).map_err(|why| Error::invalid(field, why.to_string()))
}

/// The text, unless it is empty.
fn non_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// A user to create, and the call if it may be repeated.
pub(super) fn new_user(
    mut request: pb::CreateRequest,
    header: Option<&IdempotencyHeader>,
    policy: &PasswordPolicy,
) -> Result<(NewUser, Option<RepeatableCall>)> {
    let mut fields = Fields::default();
    let call = repeatable_call(&mut request, header, &mut fields);
    if request.username.is_empty() && request.email.is_empty() {
        fields.add("username", "or email is required");
    }
    Ok((validate_new_user(request, policy, fields)?, call))
}

/// A user to create, if there are no faults beside those found already.
fn validate_new_user(
    request: pb::CreateRequest,
    policy: &PasswordPolicy,
    mut fields: Fields,
) -> Result<NewUser> {
    let id = fields.check_optional("id", non_empty(&request.id).map(UserId::parse));
    let username = fields.check_optional("username", non_empty(&request.username).map(Username::parse));
    let email = fields.check_optional("email", non_empty(&request.email).map(Email::parse));
    let name = fields.check("name", Name::parse(&request.name));
    let status = status(request.status, &mut fields);
    let labels = labels(&request.labels, &mut fields);
    let metadata = metadata(request.metadata, &mut fields);
    let names = (username.as_ref().and_then(Option::as_ref), email.as_ref().and_then(Option::as_ref));
    let password = new_password("password", request.password, policy, names, &mut fields);
    let password_hash = Some(request.password_hash).filter(|hash| !hash.is_empty());
    if matches!(password, Some(None)) && password_hash.is_none() && !request.sso_enabled {
        fields.add("password", "is required unless sso_enabled is set");
    }
    if matches!(password, Some(Some(_))) && password_hash.is_some() {
        fields.add("password_hash", "cannot be set together with password");
    }
    let (Some(id), Some(username), Some(email), Some(name)) = (id, username, email, name) else {
        return Err(Error::Invalid(fields));
    };
    let (Some(status), Some(labels), Some(metadata), Some(password)) = (status, labels, metadata, password)
    else {
        return Err(Error::Invalid(fields));
    };
    let sso_enabled = request.sso_enabled;
    fields.none().map_err(Error::Invalid).map(|()| NewUser {
        id,
        username,
        email,
        name,
        status,
        labels,
        metadata,
        sso_enabled,
        password,
        password_hash,
    })
}

/// A user to create, what to write to one who comes back instead, and the call if it may be repeated.
pub(super) fn create_or_restore(
    mut request: pb::CreateOrRestoreRequest,
    header: Option<&IdempotencyHeader>,
    policy: &PasswordPolicy,
) -> Result<(NewUser, Changes, Option<RepeatableCall>)> {
    let mut fields = Fields::default();
    let call = repeatable_call(&mut request, header, &mut fields);
    if request.email.is_empty() {
        fields.add("email", "is required");
    }
    let sso_enabled = request.sso_enabled;
    let new = pb::CreateRequest {
        id: request.id,
        username: request.username,
        email: request.email,
        password: request.password,
        name: request.name,
        status: request.status,
        labels: request.labels,
        metadata: request.metadata,
        sso_enabled: sso_enabled.unwrap_or_default(),
        password_hash: String::new(),
        idempotency_key: String::new(),
    };
    let new = validate_new_user(new, policy, fields)?;
    let changes = Changes {
        username: new.username.clone().map(Some),
        name: Some(new.name.clone()).filter(|name| !name.as_str().is_empty()),
        labels: Some(new.labels.clone()).filter(|labels| !labels.as_slice().is_empty()),
        metadata: Some(new.metadata.clone()).filter(|metadata| !metadata.as_map().is_empty()),
        sso_enabled,
        ..Changes::default()
    };
    Ok((new, changes, call))
}

/// A status that is needed.
pub(super) fn new_status(request: &pb::UpdateStatusRequest) -> Result<(UserId, Status)> {
    let mut fields = Fields::default();
    let id = fields.check("id", UserId::parse(&request.id));
    let status = fields
        .check("status", Status::from_number(request.status).ok_or("must be PENDING, ACTIVE or BLOCKED"));
    id.zip(status).ok_or(Error::Invalid(fields))
}

/// Whose password is set, and to what.
pub(super) fn set_password(
    request: pb::SetPasswordRequest,
    policy: &PasswordPolicy,
) -> Result<(UserId, Password)> {
    let mut fields = Fields::default();
    let id = fields.check("user_id", UserId::parse(&request.user_id));
    let password = fields.check("new_password", required_password(request.new_password, policy));
    id.zip(password).ok_or(Error::Invalid(fields))
}

fn status(raw: i32, fields: &mut Fields) -> Option<Status> {
    match raw {
        0 => Some(Status::Active),
        other => fields.check("status", Status::from_number(other).ok_or("is not a status")),
    }
}

/// A new password for a user of these names; the empty text is none.
#[expect(clippy::option_option, reason = "outer: at fault or not; inner: there or not")]
fn new_password(
    field: &str,
    raw: String,
    policy: &PasswordPolicy,
    (username, email): (Option<&Username>, Option<&Email>),
    fields: &mut Fields,
) -> Option<Option<Password>> {
    if raw.is_empty() {
        return Some(None);
    }
    let password = Password::parse(raw, policy)
        .and_then(|password| password.screen(policy, username, email).map(|()| password));
    fields.check(field, password).map(Some)
}

/// The three ways to name a user in Read.
impl TryFrom<pb::ReadRequest> for UserRef {
    type Error = Error;

    fn try_from(request: pb::ReadRequest) -> Result<Self> {
        let pb::ReadRequest { id, username, email } = request;
        match (non_empty(&id), non_empty(&username), non_empty(&email)) {
            (Some(id), None, None) => user_id("id", id).map(UserRef::Id),
            (None, Some(username), None) => {
                let username = Username::parse(username);
                username.map(UserRef::Username).map_err(|why| Error::invalid("username", why.to_string()))
            }
            (None, None, Some(email)) => Email::parse(email)
                .map(UserRef::Email)
                .map_err(|why| Error::invalid("email", why.to_string())),
            (None, None, None) => Err(Error::invalid("id", "or username or email is required")),
            given => Err(conflicting_keys(given.0.is_some(), given.1.is_some(), given.2.is_some())),
        }
    }
}

fn conflicting_keys(id: bool, username: bool, email: bool) -> Error {
    let mut fields = Fields::default();
    for (name, given) in [("id", id), ("username", username), ("email", email)] {
        if given {
            fields.add(name, "must be the only one of id, username and email");
        }
    }
    Error::Invalid(fields)
}

/// A new password that is needed. Whether it holds the user's names is the operation's to say.
fn required_password(raw: String, policy: &PasswordPolicy) -> Result<Password, String> {
    if raw.is_empty() {
        return Err("is required".to_owned());
    }
    Password::parse(raw, policy).map_err(|why| why.to_string())
}

/// The end user's device, as far as the caller says.
fn device_of(said: Option<pb::Device>, fields: &mut Fields) -> Option<Device> {
    let said = said.unwrap_or_default();
    let address = fields.check("device.address", Device::parse_address(&said.address))?;
    Some(Device { address, user_agent: Device::clean_user_agent(&said.user_agent) })
}

/// The user, and the address that was proven, if it is named.
pub(super) fn verification(request: &pb::UpdateVerificationRequest) -> Result<(UserId, Option<Email>)> {
    let mut fields = Fields::default();
    let id = fields.check("id", UserId::parse(&request.id));
    let proven = fields.check_optional("email", non_empty(&request.email).map(Email::parse));
    id.zip(proven).ok_or(Error::Invalid(fields))
}

pub(super) fn password_change(
    request: pb::UpdatePasswordRequest,
    policy: &PasswordPolicy,
) -> Result<PasswordChange> {
    let mut fields = Fields::default();
    let user = fields.check("user_id", UserId::parse(&request.user_id));
    if request.old_password.is_empty() {
        fields.add("old_password", "is required");
    }
    if !request.confirm_password.is_empty() && request.confirm_password != request.new_password {
        fields.add("confirm_password", "must be equal to new_password");
    }
    let new = fields.check("new_password", required_password(request.new_password, policy));
    let keep = own_session("keep_session", &request.keep_session, &mut fields);
    let device = device_of(request.device, &mut fields);
    let (Some(user), Some(new), Some(keep), Some(device)) = (user, new, keep, device) else {
        return Err(Error::Invalid(fields));
    };
    fields.none().map_err(Error::Invalid).map(|()| PasswordChange {
        user,
        old: Password::attempt(request.old_password),
        new,
        keep,
        device,
        etag: request.etag,
    })
}

impl From<Status> for pb::UserStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Active => Self::Active,
            Status::Blocked => Self::Blocked,
        }
    }
}

impl From<User> for pb::User {
    fn from(user: User) -> Self {
        user_view(user, true)
    }
}

/// A user, with its prefs if they are asked for.
fn user_view(user: User, include_prefs: bool) -> pb::User {
    let seconds = |at: Option<Timestamp>| at.map_or(0, Timestamp::seconds);
    pb::User {
        etag: user.etag(),
        username: user.username.map_or_else(String::new, Username::into_string),
        email: user.email.map_or_else(String::new, Email::into_string),
        created: user.created.seconds(),
        updated: user.updated.seconds(),
        name: user.name.into_string(),
        status: pb::UserStatus::from(user.status).into(),
        email_verified: user.email_verified,
        password_updated: seconds(user.password_updated),
        prefs: include_prefs.then(|| prefs::message(user.prefs)),
        labels: user.labels.into_vec(),
        metadata: user.metadata.into_map(),
        sso_enabled: user.sso_enabled,
        deleted: seconds(user.deleted),
        id: user.id.into_string(),
    }
}

/// Users as lists show them.
pub(super) fn user_views(users: Vec<User>, include_prefs: bool) -> Vec<pb::User> {
    users.into_iter().map(|user| user_view(user, include_prefs)).collect()
}

/// Of a user whose prefs changed: all of them, and the user without.
pub(super) fn prefs_written(mut user: User) -> pb::UpdatePrefsResponse {
    let prefs = prefs::message(std::mem::take(&mut user.prefs));
    pb::UpdatePrefsResponse { prefs: Some(prefs), user: Some(user_view(user, false)) }
}

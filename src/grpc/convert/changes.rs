//! An Update: which fields it writes, and what.

use crate::domain::email::Email;
use crate::domain::password::PasswordPolicy;
use crate::domain::user::{Changes, Name};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Fields, Result};
use crate::pb;

use super::notes::{labels, metadata};
use super::required_password;

/// Every field that a mask can name.
const WRITABLE: [&str; 7] = ["username", "email", "name", "labels", "metadata", "sso_enabled", "password"];

/// More paths than this are a mistake, or an attempt to be answered at length.
const MAX_PATHS: usize = 100;

/// Which fields an Update writes.
enum Mask {
    /// Those that are there.
    Present,
    /// Those named, there or not.
    Named(Vec<String>),
    /// All that can be written; a password only if there is one, since it cannot be cleared.
    All,
}

impl Mask {
    fn parse(mask: Option<prost_types::FieldMask>, fields: &mut Fields) -> Self {
        let paths = mask.map(|mask| mask.paths).unwrap_or_default();
        if paths.is_empty() {
            return Self::Present;
        }
        if paths.iter().any(|path| path == "*") {
            return Self::All;
        }
        if paths.len() > MAX_PATHS {
            fields.add("update_mask", format!("must name at most {MAX_PATHS} fields"));
            return Self::Named(Vec::new());
        }
        for path in &paths {
            if !WRITABLE.contains(&path.as_str()) {
                // The path comes from the caller: shown, but not at any length.
                let shown: String = path.chars().take(64).collect();
                fields
                    .add("update_mask", format!("names `{}`, which cannot be written", shown.escape_debug()));
            }
        }
        Self::Named(paths)
    }

    fn writes(&self, field: &str, present: bool) -> bool {
        match self {
            Self::Present => present,
            Self::Named(paths) => paths.iter().any(|path| path == field),
            Self::All => present || field != "password",
        }
    }
}

pub(in crate::grpc) fn changes(
    request: pb::UpdateRequest,
    policy: &PasswordPolicy,
) -> Result<(UserId, String, Changes)> {
    let mut fields = Fields::default();
    let id = fields.check("id", UserId::parse(&request.id));
    let mask = Mask::parse(request.update_mask, &mut fields);
    // An empty text counts as absent: callers of the first contract send every field.
    let username = request.username.filter(|text| !text.is_empty());
    let email = request.email.filter(|text| !text.is_empty());
    let password = request.password.filter(|text| !text.is_empty());
    let name = request.name.filter(|text| !text.is_empty());
    let mut changes = Changes::default();
    if mask.writes("username", username.is_some()) {
        changes.username = fields.check_optional("username", username.as_deref().map(Username::parse));
    }
    if mask.writes("email", email.is_some()) {
        changes.email = fields.check_optional("email", email.as_deref().map(Email::parse));
    }
    if mask.writes("name", name.is_some()) {
        changes.name = fields.check("name", Name::parse(&name.unwrap_or_default()));
    }
    if mask.writes("labels", !request.labels.is_empty()) {
        changes.labels = labels(&request.labels, &mut fields);
    }
    if mask.writes("metadata", !request.metadata.is_empty()) {
        changes.metadata = metadata(request.metadata, &mut fields);
    }
    if mask.writes("sso_enabled", request.sso_enabled.is_some()) {
        changes.sso_enabled = Some(request.sso_enabled.unwrap_or_default());
    }
    if mask.writes("password", password.is_some()) {
        changes.password = fields.check("password", required_password(password.unwrap_or_default(), policy));
    }
    match id {
        Some(id) => fields.none().map_err(Error::Invalid).map(|()| (id, request.etag, changes)),
        None => Err(Error::Invalid(fields)),
    }
}

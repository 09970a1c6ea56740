//! Parameters of its operations: queries and bodies to our messages.

use std::ops::RangeInclusive;

use http::request::Parts;
use serde_json::{Map, Value};

use crate::error::{Error, Fields};
use crate::http::dialects::params as shared;
use crate::pb;

/// Which users a list shows.
pub(super) struct Page {
    pub(super) limit: i64,
    pub(super) offset: i64,
    pub(super) order_dir: String,
}

impl Page {
    pub(super) fn read(head: &Parts) -> Result<Self, Error> {
        let mut faults = Fields::default();
        // What is badly escaped is as wrong as its raw form.
        let given = |name| shared::parameter(head, name).unwrap_or_else(|_| Some("%".to_owned()));
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

/// The members of a body, and what is wrong with them. Unknown ones are ignored.
struct Members {
    members: Map<String, Value>,
    faults: Fields,
}

impl Members {
    pub(super) fn read(text: &[u8]) -> Result<Self, Error> {
        let members = shared::object(text);
        let members = members.ok_or_else(|| Error::Malformed("the body must be a JSON object".to_owned()))?;
        Ok(Self { members, faults: Fields::default() })
    }

    /// A null counts as an absent member.
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

/// The fields of a user to create.
pub(super) struct NewUser {
    email: String,
    /// Empty if there is none.
    password: String,
    sso_enabled: Option<bool>,
}

impl NewUser {
    pub(super) fn read(text: &[u8]) -> Result<Self, Error> {
        let mut members = Members::read(text)?;
        let (email, sso_enabled) = (members.needed("email"), members.flag("sso_enabled"));
        let password = match sso_enabled {
            Some(true) => members.text("password").unwrap_or_default(),
            _ => members.needed("password"),
        };
        members.faults.none()?;
        Ok(Self { email, password, sso_enabled })
    }

    pub(super) fn create(self) -> pb::CreateRequest {
        let Self { email, password, sso_enabled } = self;
        let sso_enabled = sso_enabled.unwrap_or_default();
        pb::CreateRequest { email, password, sso_enabled, ..Default::default() }
    }

    pub(super) fn create_or_restore(self) -> pb::CreateOrRestoreRequest {
        let Self { email, password, sso_enabled } = self;
        pb::CreateOrRestoreRequest { email, password, sso_enabled, ..Default::default() }
    }
}

pub(super) fn update(id: String, text: &[u8]) -> Result<pb::UpdateRequest, Error> {
    let mut fields = Members::read(text)?;
    let (email, password) = (fields.text("email"), fields.text("password"));
    let sso_enabled = fields.flag("sso_enabled");
    for (name, value) in [("email", &email), ("password", &password)] {
        if value.as_deref() == Some("") {
            fields.faults.add(name, "must not be empty");
        }
    }
    fields.faults.none()?;
    Ok(pb::UpdateRequest { id, email, password, sso_enabled, ..Default::default() })
}

pub(super) fn change_password(user_id: String, text: &[u8]) -> Result<pb::UpdatePasswordRequest, Error> {
    let mut fields = Members::read(text)?;
    let (old_password, new_password) = (fields.needed("old_password"), fields.needed("new_password"));
    fields.faults.none()?;
    Ok(pb::UpdatePasswordRequest { user_id, old_password, new_password, ..Default::default() })
}

//! Its models: every field is always there.

use prost::Message as _;
use prost_types::Struct;
use tonic::Status;

use crate::error::Error;
use crate::http::dialect::Object;
use crate::http::json::{self, Style};
use crate::http::schema::{MessageId, Schema};
use crate::pb::{self, LogEvent, UserStatus};

/// What `google.protobuf.Struct` is in the schema.
///
/// # Errors
///
/// `INTERNAL` if it is not there.
pub(super) fn structure(schema: &Schema) -> Result<MessageId, Status> {
    let id = schema.message_id("google.protobuf.Struct");
    id.ok_or_else(|| Error::internal("there is no google.protobuf.Struct").into())
}

/// Prefs as JSON: always an object.
///
/// # Errors
///
/// `INTERNAL` if the schema does not have their message.
pub(super) fn prefs(schema: &Schema, prefs: Option<&Struct>) -> Result<Vec<u8>, Status> {
    let Some(prefs) = prefs.filter(|prefs| !prefs.fields.is_empty()) else { return Ok(b"{}".to_vec()) };
    let mut out = Vec::new();
    json::write(schema, structure(schema)?, &prefs.encode_to_vec(), Style::CANONICAL, &mut out)
        .map_err(Error::internal)?;
    Ok(out)
}

/// `User`
///
/// # Errors
///
/// As [`prefs`].
pub(super) fn user(schema: &Schema, user: &pb::User) -> Result<Vec<u8>, Status> {
    let object = Object::new()
        .text("$id", &user.id)
        .text("name", &user.name)
        .number("registration", user.created)
        .number("status", status_of(user.status()))
        .number("passwordUpdate", user.password_updated)
        .text("email", &user.email)
        .flag("emailVerification", user.email_verified)
        .raw("prefs", &prefs(schema, user.prefs.as_ref())?);
    Ok(object.end())
}

fn status_of(status: UserStatus) -> i64 {
    match status {
        UserStatus::Unspecified | UserStatus::Pending => 0,
        UserStatus::Active => 1,
        UserStatus::Blocked => 2,
    }
}

/// The status of its number.
pub(super) fn status_from(number: u64) -> UserStatus {
    match number {
        0 => UserStatus::Pending,
        1 => UserStatus::Active,
        _ => UserStatus::Blocked,
    }
}

/// `Session`. Only a password opens one, by the e-mail address.
pub(super) fn session(session: &pb::SessionInfo, email: &str) -> Vec<u8> {
    let unknown = pb::DeviceDetails::default();
    let device = session.device.as_ref().unwrap_or(&unknown);
    let object = Object::new()
        .text("$id", &session.id)
        .text("userId", &session.user_id)
        .number("expire", session.expires)
        .text("provider", "email")
        .text("providerUid", email)
        .text("providerToken", "")
        .text("ip", &device.address);
    described(object, device).flag("current", false).end()
}

/// What sessions and logs tell of a device, but for its address.
fn described(object: Object, device: &pb::DeviceDetails) -> Object {
    let (code, name) = match &*device.country_code {
        "" => ("--".to_owned(), "Unknown"),
        code => (code.to_ascii_lowercase(), &*device.country_name),
    };
    object
        .text("osCode", &device.os_code)
        .text("osName", &device.os_name)
        .text("osVersion", &device.os_version)
        .text("clientType", &device.client_type)
        .text("clientCode", &device.client_code)
        .text("clientName", &device.client_name)
        .text("clientVersion", &device.client_version)
        .text("clientEngine", &device.client_engine)
        .text("clientEngineVersion", &device.client_engine_version)
        .text("deviceName", &device.device_name)
        .text("deviceBrand", &device.device_brand)
        .text("deviceModel", &device.device_model)
        .text("countryCode", &code)
        .text("countryName", name)
}

/// A list of sessions ends with the page that holds this one: more of them would not fit in memory.
pub(super) const MAX_SESSIONS: usize = 2_000;

/// Most logs that a reply has.
pub(super) const MOST_LOGS: usize = 10;

/// Those of our events that can be one of its fifteen.
pub(super) const EVENTS: [LogEvent; 10] = [
    LogEvent::UserCreated,
    LogEvent::UserUpdated,
    LogEvent::UserDeleted,
    LogEvent::PasswordUpdated,
    LogEvent::PasswordSet,
    LogEvent::VerificationUpdated,
    LogEvent::PrefsUpdated,
    LogEvent::SessionCreated,
    LogEvent::SessionDeleted,
    LogEvent::SessionsDeleted,
];

/// The `Log`s of one of our entries: none if it has no such event, several if it changed several things at once, which
/// took as many calls there.
pub(super) fn logs(entry: &pb::LogEntry) -> Vec<Vec<u8>> {
    let unknown = pb::DeviceDetails::default();
    let device = entry.device.as_ref().unwrap_or(&unknown);
    let log = |event| {
        let object = Object::new().text("event", event).text("ip", &device.address);
        described(object.number("time", entry.time), device).end()
    };
    events(entry).into_iter().map(log).collect()
}

fn events(entry: &pb::LogEntry) -> Vec<&'static str> {
    let event = match entry.event() {
        LogEvent::UserCreated => "account.create",
        LogEvent::UserDeleted => "account.delete",
        LogEvent::UserUpdated => {
            let changed = entry.changed.iter().filter_map(|field| match &**field {
                "name" => Some("account.update.name"),
                "email" => Some("account.update.email"),
                "password" => Some("account.update.password"),
                _ => None,
            });
            return changed.collect();
        }
        LogEvent::PasswordUpdated | LogEvent::PasswordSet => "account.update.password",
        LogEvent::PrefsUpdated => "account.update.prefs",
        LogEvent::SessionCreated => "account.sessions.create",
        LogEvent::SessionDeleted | LogEvent::SessionsDeleted => "account.sessions.delete",
        LogEvent::VerificationUpdated => "account.verification.update",
        LogEvent::Unspecified
        | LogEvent::KeyCreated
        | LogEvent::KeyRevoked
        | LogEvent::KeyExpired
        | LogEvent::UserRestored
        | LogEvent::UserPurged
        | LogEvent::PasswordRefused
        | LogEvent::UserUnlocked
        | LogEvent::StatusUpdated
        | LogEvent::LoginRefused => return Vec::new(),
    };
    vec![event]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(event: LogEvent, changed: &[&str]) -> Vec<&'static str> {
        let changed = changed.iter().map(|field| (*field).to_owned()).collect();
        events(&pb::LogEntry { event: event.into(), changed, ..Default::default() })
    }

    #[test]
    fn exactly_the_events_that_are_asked_for_have_a_name() {
        for event in (0..).map_while(|number| LogEvent::try_from(number).ok()) {
            assert_eq!(!of(event, &["name"]).is_empty(), EVENTS.contains(&event), "{event:?}");
        }
    }

    #[test]
    fn an_update_is_what_it_changed() {
        assert_eq!(of(LogEvent::UserUpdated, &["labels", "metadata"]), [""; 0]);
        assert_eq!(of(LogEvent::UserUpdated, &["email", "email_verified"]), ["account.update.email"]);
        let all = ["account.update.name", "account.update.email", "account.update.password"];
        assert_eq!(of(LogEvent::UserUpdated, &["name", "email", "password"]), all);
    }

    #[test]
    fn sessions_and_logs_have_all_their_fields_though_nothing_is_known() {
        let parsed = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        let bare = parsed(&session(&pb::SessionInfo::default(), "a@b.co"));
        assert_eq!(bare.as_object().unwrap().len(), 22);
        assert_eq!((&bare["countryCode"], &bare["countryName"]), (&json!("--"), &json!("Unknown")));
        let device = pb::DeviceDetails {
            country_code: "DE".into(),
            country_name: "Germany".into(),
            ..Default::default()
        };
        let entry =
            pb::LogEntry { event: LogEvent::UserCreated.into(), device: Some(device), ..Default::default() };
        let log = parsed(&logs(&entry)[0]);
        assert_eq!(log.as_object().unwrap().len(), 17);
        assert_eq!((&log["countryCode"], &log["countryName"]), (&json!("de"), &json!("Germany")));
    }
}

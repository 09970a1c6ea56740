//! Its models: every field is always there, in its order.

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde::{Serialize, Serializer};

use crate::pb::{self, LogEvent, UserStatus};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct User<'a> {
    #[serde(rename = "$id")]
    id: &'a str,
    name: &'a str,
    registration: i64,
    status: u8,
    password_update: i64,
    email: &'a str,
    email_verification: bool,
    prefs: Prefs<'a>,
}

impl<'a> From<&'a pb::User> for User<'a> {
    fn from(user: &'a pb::User) -> Self {
        Self {
            id: &user.id,
            name: &user.name,
            registration: user.created,
            status: match user.status() {
                UserStatus::Unspecified | UserStatus::Pending => 0,
                UserStatus::Active => 1,
                UserStatus::Blocked => 2,
            },
            password_update: user.password_updated,
            email: &user.email,
            email_verification: user.email_verified,
            prefs: Prefs(user.prefs.as_ref()),
        }
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

#[derive(Serialize)]
pub(super) struct UserList<'a> {
    pub(super) sum: i64,
    pub(super) users: Vec<User<'a>>,
}

/// Prefs: always an object.
pub(super) struct Prefs<'a>(pub(super) Option<&'a Struct>);

impl Serialize for Prefs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.iter().flat_map(|prefs| &prefs.fields);
        serializer.collect_map(fields.map(|(name, value)| (name, PrefsValue(value))))
    }
}

struct PrefsValue<'a>(&'a Value);

impl Serialize for PrefsValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
        match &self.0.kind {
            None | Some(Kind::NullValue(_)) => serializer.serialize_unit(),
            // Whole numbers come without `.0`.
            #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
            Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < EXACT => {
                serializer.serialize_i64(*number as i64)
            }
            Some(Kind::NumberValue(number)) => serializer.serialize_f64(*number),
            Some(Kind::StringValue(text)) => serializer.serialize_str(text),
            Some(Kind::BoolValue(flag)) => serializer.serialize_bool(*flag),
            Some(Kind::StructValue(fields)) => Prefs(Some(fields)).serialize(serializer),
            Some(Kind::ListValue(list)) => serializer.collect_seq(list.values.iter().map(PrefsValue)),
        }
    }
}

/// Only a password opens a session, by the e-mail address.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Session<'a> {
    #[serde(rename = "$id")]
    id: &'a str,
    user_id: &'a str,
    expire: i64,
    provider: &'a str,
    provider_uid: &'a str,
    provider_token: &'a str,
    ip: &'a str,
    #[serde(flatten)]
    device: Device<'a>,
    current: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(session: &'a pb::SessionInfo, email: &'a str) -> Self {
        Self {
            id: &session.id,
            user_id: &session.user_id,
            expire: session.expires,
            provider: "email",
            provider_uid: email,
            provider_token: "",
            ip: session.device.as_ref().map_or("", |device| &device.address),
            device: Device(session.device.as_ref()),
            current: false,
        }
    }
}

#[derive(Serialize)]
pub(super) struct SessionList<'a> {
    pub(super) sum: usize,
    pub(super) sessions: Vec<Session<'a>>,
}

#[derive(Serialize)]
pub(super) struct Log<'a> {
    event: &'a str,
    ip: &'a str,
    time: i64,
    #[serde(flatten)]
    device: Device<'a>,
}

impl<'a> Log<'a> {
    pub(super) fn new(event: &'a str, entry: &'a pb::LogEntry) -> Self {
        Self {
            event,
            ip: entry.device.as_ref().map_or("", |device| &device.address),
            time: entry.time,
            device: Device(entry.device.as_ref()),
        }
    }
}

#[derive(Serialize)]
pub(super) struct LogList<'a> {
    pub(super) logs: Vec<Log<'a>>,
}

/// The part of sessions and logs about a device, but for its address.
struct Device<'a>(Option<&'a pb::DeviceDetails>);

impl Serialize for Device<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let unknown = pb::DeviceDetails::default();
        let device = self.0.unwrap_or(&unknown);
        let (country_code, country_name) = match &*device.country_code {
            "" => ("--".to_owned(), "Unknown"),
            code => (code.to_ascii_lowercase(), &*device.country_name),
        };
        serializer.collect_map([
            ("osCode", &*device.os_code),
            ("osName", &*device.os_name),
            ("osVersion", &*device.os_version),
            ("clientType", &*device.client_type),
            ("clientCode", &*device.client_code),
            ("clientName", &*device.client_name),
            ("clientVersion", &*device.client_version),
            ("clientEngine", &*device.client_engine),
            ("clientEngineVersion", &*device.client_engine_version),
            ("deviceName", &*device.device_name),
            ("deviceBrand", &*device.device_brand),
            ("deviceModel", &*device.device_model),
            ("countryCode", &*country_code),
            ("countryName", country_name),
        ])
    }
}

/// A list of sessions ends with the page that holds this one: more of them would not fit in memory.
pub(super) const MAX_SESSIONS: usize = 2_000;

/// Most logs of a reply.
pub(super) const MAX_LOGS: usize = 10;

/// Those of our events that can be one of its fifteen.
pub(super) const EVENTS: [LogEvent; 11] = [
    LogEvent::UserCreated,
    LogEvent::UserUpdated,
    LogEvent::UserDeleted,
    LogEvent::PasswordUpdated,
    LogEvent::PasswordSet,
    LogEvent::PasswordReset,
    LogEvent::VerificationUpdated,
    LogEvent::PrefsUpdated,
    LogEvent::SessionCreated,
    LogEvent::SessionDeleted,
    LogEvent::SessionsDeleted,
];

/// The events of one of our entries: none if Appwrite has no such event, several if it changed several things
/// at once, which took as many calls there.
pub(super) fn events(entry: &pb::LogEntry) -> Vec<&'static str> {
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
        LogEvent::PasswordUpdated | LogEvent::PasswordSet | LogEvent::PasswordReset => {
            "account.update.password"
        }
        LogEvent::PrefsUpdated => "account.update.prefs",
        LogEvent::SessionCreated => "account.sessions.create",
        LogEvent::SessionDeleted | LogEvent::SessionsDeleted => "account.sessions.delete",
        LogEvent::VerificationUpdated => "account.verification.update",
        LogEvent::Unspecified
        | LogEvent::KeyCreated
        | LogEvent::KeyRevoked
        | LogEvent::KeyExpired
        | LogEvent::CodeCreated
        | LogEvent::CodeRefused
        | LogEvent::NamespaceCreated
        | LogEvent::NamespaceUpdated
        | LogEvent::NamespaceDeleted
        | LogEvent::NamespacePurged
        | LogEvent::UserRestored
        | LogEvent::UserPurged
        | LogEvent::PasswordRefused
        | LogEvent::UserUnlocked
        | LogEvent::LockedOut
        | LogEvent::StatusUpdated
        | LogEvent::LoginRefused
        | LogEvent::TotpEnrolled
        | LogEvent::TotpConfirmed
        | LogEvent::TotpRemoved
        | LogEvent::RecoveryCodesCreated
        | LogEvent::RecoveryCodeUsed
        | LogEvent::FactorRefused => return Vec::new(),
    };
    vec![event]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
        let info = pb::SessionInfo::default();
        let bare = serde_json::to_value(Session::new(&info, "a@b.co")).unwrap();
        assert_eq!(bare.as_object().unwrap().len(), 22);
        assert_eq!((&bare["countryCode"], &bare["countryName"]), (&json!("--"), &json!("Unknown")));
        let device = pb::DeviceDetails {
            country_code: "DE".into(),
            country_name: "Germany".into(),
            ..Default::default()
        };
        let entry =
            pb::LogEntry { event: LogEvent::UserCreated.into(), device: Some(device), ..Default::default() };
        let log = serde_json::to_value(Log::new("account.create", &entry)).unwrap();
        assert_eq!(log.as_object().unwrap().len(), 17);
        assert_eq!((&log["countryCode"], &log["countryName"]), (&json!("de"), &json!("Germany")));
    }

    #[test]
    fn prefs_are_written_as_in_the_canonical_json() {
        let text = r#"{"a":[1,0.5,-2.25,1e300,null,true,"x\n\u00e9"],"b":{},"c":9007199254740993,"d":9007199254740991}"#;
        let schema = crate::http::Schema::decode(crate::DESCRIPTOR_SET).unwrap();
        let id = schema.message_id("google.protobuf.Struct").unwrap();
        let style = crate::http::json::Style::CANONICAL;
        let wire = crate::http::json::read(&schema, id, text.as_bytes(), style).unwrap();
        let mut canonical = Vec::new();
        crate::http::json::write(&schema, id, &wire, style, &mut canonical).unwrap();
        let prefs = <Struct as prost::Message>::decode(&*wire).unwrap();
        assert_eq!(serde_json::to_vec(&Prefs(Some(&prefs))).unwrap(), canonical);
        assert_eq!(serde_json::to_vec(&Prefs(None)).unwrap(), b"{}");
    }
}

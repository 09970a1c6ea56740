//! An account and what can be asked to become of it.

use std::collections::BTreeMap;

use super::email::Email;
use super::password::{Password, PasswordHash};
use super::prefs::Prefs;
use super::text::{TextInvalid, plain};
use super::time::Timestamp;
use super::user_id::UserId;
use super::username::Username;
use super::value::checked_value;

/// The status of a user. The numbers are those of the proto and of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not yet confirmed, by whatever the caller means by that; may sign in.
    Pending = 1,
    /// May sign in.
    Active = 2,
    /// May not sign in and has no sessions.
    Blocked = 3,
}

impl Status {
    /// The status with that number.
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::Pending, Self::Active, Self::Blocked].into_iter().find(|status| *status as i32 == number)
    }
}

/// The display name: at most [`Name::MAX`] characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name(String);

checked_value!(Name);

impl Name {
    /// Most characters.
    pub const MAX: usize = 128;

    /// A name; the empty one is none.
    pub fn parse(raw: &str) -> Result<Self, TextInvalid> {
        plain(raw, Self::MAX).map(Self)
    }
}

/// Up to [`Labels::MAX`] texts, no two alike, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<String>);

checked_value!(Labels(Vec<String>), as_slice -> [String], into_vec);

/// Why a list is not [`Labels`]: the position at fault, if one is, and the reason.
pub type LabelFault = (Option<usize>, &'static str);

impl Labels {
    /// Most labels of a user.
    pub const MAX: usize = 100;
    /// Most characters of a label.
    pub const MAX_CHARS: usize = 36;

    /// Checks every label and says all that is wrong.
    pub fn parse(raw: &[String]) -> Result<Self, Vec<LabelFault>> {
        if raw.len() > Self::MAX {
            return Err(vec![(None, "must have at most 100 labels")]);
        }
        let mut faults = Vec::new();
        let mut labels: Vec<String> = Vec::with_capacity(raw.len());
        for (n, label) in raw.iter().enumerate() {
            match plain(label, Self::MAX_CHARS) {
                Ok(label) if label.is_empty() => faults.push((Some(n), "must have 1 to 36 characters")),
                Ok(label) if labels.contains(&label) => faults.push((Some(n), "is there already")),
                Ok(label) => labels.push(label),
                Err(TextInvalid::Control) => faults.push((Some(n), "must not contain control characters")),
                Err(TextInvalid::Length(_)) => faults.push((Some(n), "must have 1 to 36 characters")),
            }
        }
        if faults.is_empty() { Ok(Self(labels)) } else { Err(faults) }
    }
}

/// Notes of the caller's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(BTreeMap<String, String>);

checked_value!(Metadata(BTreeMap<String, String>), as_map -> BTreeMap<String, String>, into_map);

/// One reason why a map is not [`Metadata`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataFault {
    /// All keys and values together.
    #[error("must have at most 16 KiB in all")]
    Size,
    /// The form of this key.
    #[error("must have keys of 1 to 128 bytes without control characters, unlike `{}`", printable(.0))]
    Key(String),
    /// The value of this key: control characters hide in logs and terminals, take six times their size as
    /// JSON, and PostgreSQL stores no NUL.
    #[error("must have values without control characters, unlike that of `{}`", printable(.0))]
    Value(String),
}

/// A key as errors show it: escaped, and cut where it is long.
fn printable(key: &str) -> String {
    key.chars().take(64).collect::<String>().escape_debug().to_string()
}

impl Metadata {
    /// Most bytes of all keys and values.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// Checks the size, every key and every value, and says all that is wrong.
    ///
    /// # Errors
    ///
    /// The faults, in the order of the keys; of a map that is too large only that.
    pub fn parse(raw: BTreeMap<String, String>) -> Result<Self, Vec<MetadataFault>> {
        let bytes: usize = raw.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > Self::MAX_BYTES {
            return Err(vec![MetadataFault::Size]);
        }
        let clean = |text: &str| !text.chars().any(char::is_control);
        let mut faults = Vec::new();
        for (key, value) in &raw {
            if !(1..=128).contains(&key.len()) || !clean(key) {
                faults.push(MetadataFault::Key(key.clone()));
            }
            if !clean(value) {
                faults.push(MetadataFault::Value(key.clone()));
            }
        }
        if faults.is_empty() { Ok(Self(raw)) } else { Err(faults) }
    }
}

/// A user to create.
#[derive(Debug)]
pub struct NewUser {
    /// The id the caller chose; we make one if it chose none.
    pub id: Option<UserId>,
    /// At least one of username and e-mail is there.
    pub username: Option<Username>,
    /// At least one of username and e-mail is there.
    pub email: Option<Email>,
    /// The display name.
    pub name: Name,
    /// The status.
    pub status: Status,
    /// Labels.
    pub labels: Labels,
    /// Notes.
    pub metadata: Metadata,
    /// Refuses log-ins by password.
    pub sso_enabled: bool,
    /// There unless `password_hash` is, or `sso_enabled`.
    pub password: Option<Password>,
    /// A hash of another system, as it came.
    pub password_hash: Option<String>,
}

/// A user as stored, without its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Never changes.
    pub id: UserId,
    /// At least one of username and e-mail is there.
    pub username: Option<Username>,
    /// At least one of username and e-mail is there.
    pub email: Option<Email>,
    /// The display name.
    pub name: Name,
    /// The status.
    pub status: Status,
    /// The e-mail address was verified.
    pub email_verified: bool,
    /// When the password was last set; `None` if there is none.
    pub password_updated: Option<Timestamp>,
    /// The prefs.
    pub prefs: Prefs,
    /// Labels.
    pub labels: Labels,
    /// Notes.
    pub metadata: Metadata,
    /// Refuses log-ins by password.
    pub sso_enabled: bool,
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// When it went to the trash; `None` while it lives.
    pub deleted: Option<Timestamp>,
    /// 1 when created, and one more with each change.
    pub version: i64,
    /// Random, one for each creation, so that the etag of a purged user never fits another one of the same
    /// id.
    pub generation: i64,
}

impl User {
    /// Names this state of the user: an HTTP entity tag (RFC 9110 §8.8.3), quotes and all.
    pub fn etag(&self) -> String {
        format!("\"{:x}-{}\"", self.generation, self.version)
    }

    /// No fewer bytes than the user's message has. A number in `prefs` can take eleven for one of its text,
    /// all else takes about as many as it has as JSON.
    pub fn message_size(&self) -> usize {
        let names = self.username.as_ref().map_or(0, |name| name.as_str().len())
            + self.email.as_ref().map_or(0, |email| email.as_str().len())
            + self.name.as_str().len();
        let labels: usize = self.labels.as_slice().iter().map(|label| label.len() + 4).sum();
        let metadata: usize =
            self.metadata.as_map().iter().map(|(key, value)| key.len() + value.len() + 16).sum();
        256 + self.id.as_str().len() + names + labels + metadata + 11 * self.prefs.as_str().len()
    }

    /// Writes `changes` and names the fields that are not what they were. A changed address is not verified.
    pub fn apply(&mut self, changes: &Changes) -> Vec<&'static str> {
        let mut names = Vec::new();
        write("username", &mut self.username, changes.username.as_ref(), &mut names);
        write("email", &mut self.email, changes.email.as_ref(), &mut names);
        if names.contains(&"email") {
            self.email_verified = false;
        }
        write("name", &mut self.name, changes.name.as_ref(), &mut names);
        write("labels", &mut self.labels, changes.labels.as_ref(), &mut names);
        write("metadata", &mut self.metadata, changes.metadata.as_ref(), &mut names);
        write("sso_enabled", &mut self.sso_enabled, changes.sso_enabled.as_ref(), &mut names);
        names
    }
}

fn write<T: Clone + PartialEq>(
    name: &'static str,
    field: &mut T,
    new: Option<&T>,
    names: &mut Vec<&'static str>,
) {
    if let Some(new) = new.filter(|new| *new != field) {
        field.clone_from(new);
        names.push(name);
    }
}

/// A user and its password.
#[derive(Clone, Debug)]
pub struct Account {
    /// All of it that callers may see.
    pub user: User,
    /// `None` if it has no password.
    pub password: Option<PasswordHash>,
}

/// Changes of a user; `None` leaves a field as it is.
#[derive(Debug, Default)]
pub struct Changes {
    /// `Some(None)` clears it.
    pub username: Option<Option<Username>>,
    /// `Some(None)` clears it.
    pub email: Option<Option<Email>>,
    /// The empty name clears it.
    pub name: Option<Name>,
    /// Replaces them all.
    pub labels: Option<Labels>,
    /// Replaces it all.
    pub metadata: Option<Metadata>,
    /// Sets or clears the flag.
    pub sso_enabled: Option<bool>,
    /// A new password.
    pub password: Option<Password>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_every_fault() {
        let raw = ["a", "", "a", "b\n", &"ä".repeat(36), &"ä".repeat(37)].map(str::to_owned);
        let faults: Vec<_> = Labels::parse(&raw).unwrap_err().into_iter().map(|(n, _)| n.unwrap()).collect();
        assert_eq!(faults, [1, 2, 3, 5]);
        let many: Vec<String> = (0..101).map(|n| n.to_string()).collect();
        assert_eq!(Labels::parse(&many).unwrap_err()[0].0, None);
        assert!(Labels::parse(&many[..100]).is_ok());
    }

    #[test]
    fn metadata_has_an_exact_limit() {
        let of = |bytes: usize| BTreeMap::from([("k".to_owned(), "v".repeat(bytes - 1))]);
        assert!(Metadata::parse(of(16 * 1024)).is_ok());
        assert_eq!(Metadata::parse(of(16 * 1024 + 1)), Err(vec![MetadataFault::Size]));
    }

    #[test]
    fn metadata_names_every_key_at_fault() {
        let pairs =
            [("", "x"), ("a", "b\n"), ("b", "fine"), ("c\u{7f}", "\0"), ("d", "\u{85}"), ("e", "é\u{2028}")];
        let raw = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let key = |key: &str| MetadataFault::Key(key.to_owned());
        let value = |key: &str| MetadataFault::Value(key.to_owned());
        let want = vec![key(""), value("a"), key("c\u{7f}"), value("c\u{7f}"), value("d")];
        assert_eq!(Metadata::parse(raw), Err(want));
        assert!(key("c\u{7f}").to_string().ends_with("unlike `c\\u{7f}`"), "{}", key("c\u{7f}"));
    }
}

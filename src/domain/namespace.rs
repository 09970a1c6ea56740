//! Whose users a call is about.

use std::sync::Arc;

use super::quota::Quotas;
use super::time::Timestamp;

/// The tenant a caller works in: `[a-z0-9][a-z0-9_-]{0,62}`. Every query starts from one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace(Arc<str>);

/// Why a text is not a [`Namespace`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 63 characters of a-z, 0-9, `_` and `-`, and start with a letter or digit")]
pub struct NamespaceInvalid;

impl Namespace {
    /// The namespace of calls that name none.
    pub const DEFAULT: &str = "default";

    /// Reads a namespace. Nothing is changed to make it fit.
    pub fn parse(raw: &str) -> Result<Self, NamespaceInvalid> {
        let bytes = raw.as_bytes();
        let lead = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest =
            bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
        (lead && rest && bytes.len() <= 63).then(|| Self(raw.into())).ok_or(NamespaceInvalid)
    }

    /// The namespace of calls that administer namespaces, and of the events of root keys and namespaces. It belongs to no
    /// tenant, and [`Namespace::parse`] refuses its name.
    pub fn root() -> Self {
        Self("*".into())
    }

    /// The text, for storage.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, for those who keep it: no copy is made.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

/// The lifecycle state of a namespace. The numbers are stored: never change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceState {
    /// Never created, or completely deleted. Calls in it are served.
    Implicit = 0,
    /// Created.
    Active = 1,
    /// Being deleted: no call in it is served.
    Deleting = 2,
}

impl NamespaceState {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Implicit => "implicit",
            Self::Active => "active",
            Self::Deleting => "deleting",
        }
    }
}

/// A namespace with its limits.
#[derive(Clone, Debug)]
pub struct NamespaceRecord {
    /// Its name.
    pub name: Namespace,
    /// Its lifecycle state.
    pub state: NamespaceState,
    /// When it was created; 0: never.
    pub created: Timestamp,
    /// When its deletion began; 0: it did not.
    pub deleted: Timestamp,
    /// The limits that were set for it.
    pub limits: Quotas,
    /// The number of its last change among those of all namespaces.
    pub version: i64,
}

impl NamespaceRecord {
    /// One that was never created.
    pub fn implicit(name: Namespace) -> Self {
        let never = Timestamp(0);
        let (state, limits) = (NamespaceState::Implicit, Quotas::default());
        Self { name, state, created: never, deleted: never, limits, version: 0 }
    }
}

/// The contents of a namespace, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceUsage {
    /// Live users.
    pub users: u64,
    /// Users in the trash.
    pub trashed: u64,
    /// Stored sessions.
    pub sessions: u64,
    /// Keys that have not expired.
    pub keys: u64,
    /// Events, up to the most that are counted.
    pub events: u64,
    /// An estimate of the bytes that they take.
    pub bytes: u64,
}

impl Default for Namespace {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let longest = "a".repeat(63);
        let too_long = "a".repeat(64);
        let cases = [
            ("default", true),
            ("7-of_9", true),
            (&longest, true),
            (&too_long, false),
            ("", false),
            ("-a", false),
            ("A", false),
            ("a b", false),
            ("*", false),
            ("ä", false),
        ];
        for (raw, good) in cases {
            assert_eq!(Namespace::parse(raw).is_ok(), good, "{raw:?}");
        }
    }
}

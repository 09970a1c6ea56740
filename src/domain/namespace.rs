//! Whose users a call is about.

use std::sync::Arc;

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

    /// The text, for storage.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, for those who keep it: no copy is made.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
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

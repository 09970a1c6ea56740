//! The name of a user that never changes.

use super::value::checked_value;

/// 1 to 64 characters: a letter or digit, then `A-Z a-z 0-9 . _ | @ -`. Compared byte for byte.
///
/// Wide enough for the ids of the systems whose users move in (UUIDs, Appwrite's hex, `auth0|…`, addresses),
/// narrow enough to stand in a path, a log line and a shell command as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserId(String);

checked_value!(UserId);

/// Why a text is not a [`UserId`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserIdInvalid {
    /// Nothing was given.
    #[error("is required")]
    Empty,
    /// Not of the form.
    #[error(
        "must be 1 to 64 characters: a letter or digit, then letters, digits, `.`, `_`, `|`, `@` and `-`"
    )]
    Form,
}

impl UserId {
    /// Reads an id. Nothing is changed to make it fit.
    pub fn parse(raw: &str) -> Result<Self, UserIdInvalid> {
        let bytes = raw.as_bytes();
        let Some(first) = bytes.first() else { return Err(UserIdInvalid::Empty) };
        let fits =
            bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'|' | b'@' | b'-'));
        if first.is_ascii_alphanumeric() && fits && bytes.len() <= 64 {
            Ok(Self(raw.to_owned()))
        } else {
            Err(UserIdInvalid::Form)
        }
    }

    /// An id that [`crate::clock::Clock`] made.
    pub fn from_uuid(id: uuid::Uuid) -> Self {
        Self(id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::{UserIdInvalid::*, *};

    #[test]
    fn rules() {
        let longest = "a".repeat(64);
        let too_long = "a".repeat(65);
        let cases = [
            ("ff3c06de-9e43-41c7-9bab-578f6b4ad32b", Ok(())),
            ("auth0|5F.x_y@z", Ok(())),
            ("7", Ok(())),
            (&longest, Ok(())),
            ("", Err(Empty)),
            (&too_long, Err(Form)),
            ("-a", Err(Form)),
            ("a/b", Err(Form)),
            ("a:b", Err(Form)),
            ("a b", Err(Form)),
            ("a\0", Err(Form)),
            ("ä", Err(Form)),
        ];
        for (raw, want) in cases {
            assert_eq!(UserId::parse(raw).map(|_| ()), want, "{raw:?}");
        }
    }
}

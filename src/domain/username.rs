//! Usernames.

use super::value::checked_value;

/// A username, lower-cased: 1 to [`Username::MAX`] characters, a letter or digit, then `a-z 0-9 . _ -`.
///
/// ASCII only, so that no two look alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Username(String);

checked_value!(Username);

/// Why a text is not a [`Username`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsernameInvalid {
    /// Empty or too long.
    #[error("must have 1 to {} characters", Username::MAX)]
    Length,
    /// Starts with punctuation.
    #[error("must start with a letter or digit")]
    Start,
    /// Has a character that usernames cannot have.
    #[error("must contain only a-z, 0-9, `.`, `_` and `-`")]
    Character,
}

impl Username {
    /// Most characters, which are bytes.
    pub const MAX: usize = 64;

    /// Lower-cases and checks.
    pub fn parse(raw: &str) -> Result<Self, UsernameInvalid> {
        if raw.is_empty() || raw.chars().count() > Self::MAX {
            return Err(UsernameInvalid::Length);
        }
        let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !raw.as_bytes().iter().all(fits) {
            return Err(UsernameInvalid::Character);
        }
        if !raw.as_bytes()[0].is_ascii_alphanumeric() {
            return Err(UsernameInvalid::Start);
        }
        Ok(Self(raw.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::{UsernameInvalid::*, *};

    #[test]
    fn rules() {
        let longest = "a".repeat(64);
        let too_long = "a".repeat(65);
        let cases = [
            ("ada", Ok("ada")),
            ("Ada-l_18.15", Ok("ada-l_18.15")),
            ("7", Ok("7")),
            (&longest, Ok(&*longest)),
            ("", Err(Length)),
            (&too_long, Err(Length)),
            ("-ada", Err(Start)),
            ("ada lovelace", Err(Character)),
            ("ada\0", Err(Character)),
            ("ad\u{430}", Err(Character)),   // the last letter is Cyrillic
            ("\u{212a}ada", Err(Character)), // the Kelvin sign lower-cases to k
        ];
        for (raw, want) in cases {
            let got = Username::parse(raw).map(|name| name.as_str().to_owned());
            assert_eq!(got, want.map(str::to_owned), "{raw:?}");
        }
    }
}

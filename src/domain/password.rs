//! Passwords as people type them, and what we ask of a new one.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use super::email::Email;
use super::text::{fold, has_line};
use super::username::Username;
use super::value::checked_value;

/// A password in NFC, so that it is the same from every keyboard. Never trimmed, never cut, wiped when
/// dropped.
pub struct Password {
    composed: Zeroizing<String>,
    /// As it came, where NFC made it another text.
    raw: Option<Zeroizing<String>>,
}

/// The rules for new passwords.
#[derive(Clone, Copy, Debug)]
pub struct PasswordPolicy {
    /// Fewest characters (Unicode code points after NFC).
    pub min_length: usize,
    /// Most characters.
    pub max_length: usize,
    /// Refuses common passwords, and those that contain the user's own names.
    pub screening: bool,
}

/// Why a text cannot become a password. Says nothing about the text itself.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordInvalid {
    /// Too short or too long.
    #[error("must have {min} to {max} characters")]
    Length {
        /// Fewest characters.
        min: usize,
        /// Most characters.
        max: usize,
    },
    /// Has a control character, which no keyboard types and C libraries stop at.
    #[error("must not contain control characters")]
    Control,
    /// Is among those that people use most, which are tried first.
    #[error("is one of the most common passwords")]
    Common,
    /// Is in the file of passwords that this server's settings name.
    #[error("is on the list of refused passwords")]
    Listed,
    /// Holds the username or the e-mail address.
    #[error("must not contain the username or the email")]
    OwnName,
}

/// The 30,000 most common passwords, and some thousands of the common long ones, sorted, a line each (origin
/// and licence: `data/README.md`). In lower case; passwords are folded before they are compared.
static COMMON: &str = include_str!("data/common_passwords.txt");

/// Shorter names are in too many good passwords by chance.
const MIN_SCREENED_LEN: usize = 4;

impl Password {
    /// A new password that keeps to `policy`, but for the user's names: see [`Password::screen`].
    pub fn parse(raw: String, policy: &PasswordPolicy) -> Result<Self, PasswordInvalid> {
        if raw.chars().any(char::is_control) {
            return Err(PasswordInvalid::Control);
        }
        let password = Self::attempt(raw);
        let length = password.composed.chars().count();
        if !(policy.min_length..=policy.max_length).contains(&length) {
            return Err(PasswordInvalid::Length { min: policy.min_length, max: policy.max_length });
        }
        if policy.screening && has_line(COMMON, &password.folded()) {
            return Err(PasswordInvalid::Common);
        }
        Ok(password)
    }

    /// A password to try: under no policy, so that stricter rules lock no user out.
    pub fn attempt(raw: String) -> Self {
        let raw = Zeroizing::new(raw);
        if raw.is_ascii() {
            return Self { composed: raw, raw: None };
        }
        // NFC makes no text more than three times as long (UAX #15); with the room reserved no unwiped copy
        // is left in memory by a growing buffer.
        let mut composed = Zeroizing::new(String::with_capacity(raw.len() * 3));
        composed.extend(raw.nfc());
        let changed = *composed != *raw;
        Self { composed, raw: changed.then_some(raw) }
    }

    /// Refuses a password that holds one of the user's names, where the policy asks for it (ASVS 6.2.11).
    pub fn screen(
        &self,
        policy: &PasswordPolicy,
        username: Option<&Username>,
        email: Option<&Email>,
    ) -> Result<(), PasswordInvalid> {
        if !policy.screening {
            return Ok(());
        }
        let folded = self.folded();
        // An address holds its local part, but a short one is not looked for.
        let names = [username.map(Username::as_str), email.map(Email::local), email.map(Email::as_str)];
        let holds = |name: &str| name.len() >= MIN_SCREENED_LEN && folded.contains(name);
        if names.into_iter().flatten().any(holds) { Err(PasswordInvalid::OwnName) } else { Ok(()) }
    }

    /// The form in which lists of passwords are compared: case does not matter.
    pub fn folded(&self) -> Zeroizing<String> {
        Zeroizing::new(fold(&self.composed))
    }

    /// The bytes to hash.
    pub fn expose(&self) -> &[u8] {
        self.composed.as_bytes()
    }

    /// The bytes as they came: other systems hashed those.
    pub fn expose_raw(&self) -> &[u8] {
        self.raw.as_ref().unwrap_or(&self.composed).as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A stored password: text that the hasher wrote or read.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

checked_value!(PasswordHash);

impl PasswordHash {
    /// The prefix of hashes with a pepper, whose version follows, and a comma.
    pub const PEPPERED: &str = "$bcrypt-hmac-sha384$v=1,k=";
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::{PasswordInvalid::*, *};

    const POLICY: PasswordPolicy = PasswordPolicy { min_length: 8, max_length: 128, screening: true };

    /// (R1, R2, R3)
    #[test]
    fn length_counts_characters_and_nothing_is_cut() {
        let length = Length { min: 8, max: 128 };
        let (longest, too_long) = ("ä".repeat(128), "ä".repeat(129));
        let cases = [
            ("1234567", Err(&length)),
            ("a2345678", Ok(())),
            ("😀😀😀😀😀😀😀😀", Ok(())),
            ("  spaces  ", Ok(())),
            (&longest, Ok(())),
            (&too_long, Err(&length)),
            ("", Err(&length)),
            ("12345678\0", Err(&Control)),
            ("12345678\n", Err(&Control)),
        ];
        for (raw, want) in cases {
            let got = Password::parse(raw.to_owned(), &POLICY).map(|password| {
                assert_eq!(password.expose(), raw.as_bytes(), "{raw:?} came through as it is");
            });
            assert_eq!(got.as_ref(), want.as_ref().map_err(|why| *why), "{raw:?}");
        }
        let alone = PasswordPolicy { min_length: 15, ..POLICY };
        let fits = |raw: &str| Password::parse(raw.to_owned(), &alone).is_ok();
        assert_eq!([fits("fourteen chars"), fits("fifteen  chars.")], [false, true]);
    }

    /// (R6)
    #[test]
    fn composed_and_decomposed_are_one_password() {
        let composed = Password::attempt("pässword".to_owned());
        let decomposed = Password::attempt("pa\u{308}ssword".to_owned());
        assert_eq!(composed.expose(), decomposed.expose());
        assert_eq!(decomposed.expose_raw(), "pa\u{308}ssword".as_bytes());
        assert_eq!(composed.expose_raw(), composed.expose());
    }

    #[test]
    fn a_password_must_not_hold_the_users_names() {
        let username = Username::parse("lovelace").unwrap();
        let email = Email::parse("countess@example.com").unwrap();
        let cases = [
            ("xxLoveLacexx", Err(OwnName)),
            ("my-countess-1", Err(OwnName)),
            ("x@example.com", Ok(())),
            ("example.com-1", Ok(())),
            ("correct horse", Ok(())),
        ];
        for (raw, want) in cases {
            let password = Password::parse(raw.to_owned(), &POLICY).unwrap();
            assert_eq!(password.screen(&POLICY, Some(&username), Some(&email)), want, "{raw:?}");
            let lax = PasswordPolicy { screening: false, ..POLICY };
            assert_eq!(password.screen(&lax, Some(&username), Some(&email)), Ok(()), "{raw:?}");
        }
        let own = Password::parse("ada@example.com".to_owned(), &POLICY).unwrap();
        assert_eq!(own.screen(&POLICY, None, Some(&Email::parse("ada@example.com").unwrap())), Err(OwnName));
        let short = Username::parse("ada").unwrap();
        let password = Password::parse("armadas and more".to_owned(), &POLICY).unwrap();
        assert_eq!(password.screen(&POLICY, Some(&short), None), Ok(()));
    }

    /// (R5, R7, R8) Without a network, every entry is refused, in whatever case, and nothing else is: length
    /// is the only rule of composition.
    #[test]
    fn common_passwords_are_refused_and_long_dull_ones_are_not() {
        let lax = PasswordPolicy { min_length: 1, ..POLICY };
        let parse = |raw: &str, policy: &PasswordPolicy| Password::parse(raw.to_owned(), policy).map(|_| ());
        let (mut eligible, mut long) = (0, 0);
        for common in COMMON.lines() {
            assert_eq!(parse(common, &lax), Err(Common), "{common}");
            eligible += usize::from(common.chars().count() >= POLICY.min_length);
            long += usize::from(common.chars().count() >= 15);
        }
        assert!(COMMON.lines().count() > 10_000 && eligible > 3_000, "{eligible}");
        // M13: where the shortest password has 15 characters the list was as good as empty.
        assert!(long >= 3_000, "{long}");
        let alone = PasswordPolicy { min_length: 15, ..POLICY };
        for common in ["passwordpassword", "Qwerty123456789", "1qaz2wsx3edc4rfv", "123456789qwerty"] {
            assert_eq!(parse(common, &alone), Err(Common), "{common}");
        }
        for common in ["password", "PassWord", "12345678", "iloveyou", "qwertyuiop"] {
            assert_eq!(parse(common, &POLICY), Err(Common), "{common}");
            assert_eq!(parse(common, &PasswordPolicy { screening: false, ..POLICY }), Ok(()), "{common}");
        }
        for fine in ["aaaaaaaaaaaaaaaz", "correct horse", "\n", "\u{10ffff}", "password\u{301}", "passwordxq"]
        {
            assert_ne!(parse(fine, &lax), Err(Common), "{fine:?}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Password::attempt("secret".to_owned())), "Password(…)");
        assert_eq!(format!("{:?}", PasswordHash::from_trusted("secret".to_owned())), "PasswordHash(…)");
    }
}

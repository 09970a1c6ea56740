//! Codes: secrets that a caller delivers; entering one proves that the user received it.

use rand::TryRng as _;
use rand::rngs::{SysError, SysRng};
use zeroize::Zeroizing;

use super::email::Email;
use super::password::Password;
use super::secret::{self, SecretDigest};
use super::time::Timestamp;
use super::user::User;
use super::user_id::UserId;
use super::value::{handed_out_secret, named_enum};

named_enum! {
    /// The purpose of a code. The names are stored: never change one.
    CodePurpose {
        /// Verifies the user's e-mail address.
        EmailVerification = "EMAIL_VERIFICATION",
        /// Replaces it by another one.
        EmailChange = "EMAIL_CHANGE",
        /// Sets a new password.
        PasswordReset = "PASSWORD_RESET",
        /// Signs in.
        Login = "LOGIN",
    }
}

/// The form of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeForm {
    /// For a link: 256 random bits.
    Link,
    /// A numeric code of this many decimal digits.
    Digits(u32),
}

/// The secret in a link: `code_` and 64 hex digits.
pub struct LinkCode(Zeroizing<String>);

handed_out_secret!(LinkCode, "code_");

impl LinkCode {
    /// The digest of a text that can be such a secret; `None` for any other.
    pub fn digest_of(raw: &str) -> Option<SecretDigest> {
        secret::is_one(Self::PREFIX, raw).then(|| SecretDigest::of(raw))
    }
}

/// The lengths of numeric codes.
pub const DIGITS: std::ops::RangeInclusive<u32> = 6..=10;

/// Returns a numeric code of `length` digits, uniformly distributed. Fails if the system has no random bytes.
pub fn random_digits(length: u32) -> Result<Zeroizing<String>, SysError> {
    let numbers = 10_u64.pow(length);
    // Rejects what lies beyond the last multiple: a remainder would make small numbers more likely (modulo bias).
    let fair = u64::MAX - u64::MAX % numbers;
    loop {
        let mut bytes = Zeroizing::new([0_u8; 8]);
        SysRng.try_fill_bytes(bytes.as_mut())?;
        let number = u64::from_le_bytes(*bytes);
        if number < fair {
            return Ok(Zeroizing::new(format!("{:0width$}", number % numbers, width = length as usize)));
        }
    }
}

/// A code as an end user entered it.
#[derive(Debug)]
pub enum EnteredCode {
    /// The digest of one from a link.
    Link(SecretDigest),
    /// A numeric code, verified against a bcrypt hash like a password.
    Digits(Password),
    /// A text that cannot be a code.
    Malformed,
}

impl EnteredCode {
    /// Reads what was entered.
    pub fn parse(raw: String) -> Self {
        if let Some(digest) = LinkCode::digest_of(&raw) {
            return Self::Link(digest);
        }
        let length = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        if DIGITS.contains(&length) && raw.bytes().all(|byte| byte.is_ascii_digit()) {
            Self::Digits(Password::attempt(raw))
        } else {
            Self::Malformed
        }
    }
}

/// A code as stored, and the state of the user that it was made for. Nothing of it is for logs.
#[derive(Clone)]
pub struct StoredCode {
    /// The user, or a placeholder that is not a valid id where no user has the name.
    pub user: UserId,
    /// The purpose.
    pub purpose: CodePurpose,
    /// The SHA-256 digest of a link code in hex, or the bcrypt hash of a numeric code.
    pub secret: String,
    /// When it expires.
    pub expires: Timestamp,
    /// The address to be; `None` for other purposes.
    pub new_email: Option<Email>,
    /// The state of the user that it is bound to.
    pub bound: Binding,
}

impl StoredCode {
    /// Returns true unless it is a link.
    pub fn is_digits(&self) -> bool {
        self.secret.starts_with('$')
    }

    /// The user; `None` for a placeholder.
    pub fn owner(&self) -> Option<UserId> {
        UserId::parse(self.user.as_str()).ok()
    }
}

/// The state of a user that ends its codes when it changes: its address and its password, and that it is the same user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// [`User::generation`].
    pub generation: i64,
    /// The address; empty if there is none.
    pub email: String,
    /// When the password was set, in microseconds; 0 if there is none.
    pub password_updated: i64,
}

impl Binding {
    /// The state of `user` now.
    pub fn of(user: &User) -> Self {
        Self {
            generation: user.generation,
            email: user.email.as_ref().map_or("", Email::as_str).to_owned(),
            password_updated: user.password_updated.map_or(0, |at| at.0),
        }
    }
}

impl CodePurpose {
    /// Returns true if a code of this purpose can open anything for the user, as far as its state says: a user who signs
    /// in elsewhere has no password to reset here.
    pub fn fits(self, user: &User) -> bool {
        match self {
            Self::EmailVerification => user.email.is_some(),
            Self::EmailChange => true,
            Self::PasswordReset | Self::Login => !user.sso_enabled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (R15, R16)
    #[test]
    fn digits_have_their_length_and_differ() {
        for length in DIGITS {
            let codes: Vec<_> = (0..200).map(|_| random_digits(length).unwrap()).collect();
            assert!(
                codes
                    .iter()
                    .all(|code| code.len() == length as usize
                        && code.bytes().all(|byte| byte.is_ascii_digit()))
            );
            let distinct: std::collections::HashSet<_> = codes.iter().map(|code| (**code).clone()).collect();
            assert!(distinct.len() > 180, "{length}: {}", distinct.len());
            for digit in b'0'..=b'9' {
                assert!(
                    codes.iter().any(|code| code.as_bytes()[0] == digit),
                    "{length}: none begins with {digit}"
                );
            }
        }
    }

    #[test]
    fn only_the_exact_text_is_a_code() {
        let link = LinkCode::generate().unwrap();
        let parse = |raw: &str| EnteredCode::parse(raw.to_owned());
        assert!(matches!(parse(link.expose()), EnteredCode::Link(digest) if digest == link.digest()));
        for digits in ["000000", "0123456789"] {
            assert!(matches!(parse(digits), EnteredCode::Digits(_)), "{digits}");
        }
        let upper = link.expose().to_uppercase();
        for wrong in ["", "12345", "12345678901", "12345a", " 123456", "١٢٣٤٥٦", &link.expose()[..68], &upper]
        {
            assert!(matches!(parse(wrong), EnteredCode::Malformed), "{wrong}");
        }
    }

    #[test]
    fn debug_shows_no_code() {
        let link = LinkCode::generate().unwrap();
        let shown = format!("{link:?} {:?}", EnteredCode::parse("123456".to_owned()));
        assert_eq!(shown, "LinkCode(…) Digits(Password(…))");
    }
}

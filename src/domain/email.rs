//! E-mail addresses of users.

use super::value::checked_value;
use std::fmt;

/// An e-mail address in the one form it is stored in: lower case, host as A-labels, at most
/// [`Email::MAX_BYTES`] long.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

checked_value!(Email);

/// Why a text is not an [`Email`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one address like name@example.com, at most {} bytes", Email::MAX_BYTES)]
pub struct EmailInvalid;

impl Email {
    /// Longest forward path, RFC 5321 §4.5.3.1.3, less its two angle brackets.
    pub const MAX_BYTES: usize = 254;
    /// Longest local part, RFC 5321 §4.5.3.1.1.
    const MAX_LOCAL: usize = 64;

    /// Checks the shape only: an RFC 5321 dot-string before the `@`, a host name with at least one dot after
    /// it. It does not show that mail arrives there.
    pub fn parse(raw: &str) -> Result<Self, EmailInvalid> {
        // An A-label is longer than its U-label in characters, never so in bytes by much: this only bounds
        // work.
        if raw.len() > 4 * Self::MAX_BYTES {
            return Err(EmailInvalid);
        }
        let (local, host) = raw.rsplit_once('@').ok_or(EmailInvalid)?;
        if local.len() > Self::MAX_LOCAL || !local.split('.').all(is_atom) {
            return Err(EmailInvalid);
        }
        let host = idna::domain_to_ascii_strict(host).map_err(|_| EmailInvalid)?;
        let last = host.rsplit_once('.').map(|(_, last)| last).ok_or(EmailInvalid)?;
        if last.is_empty() || last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(EmailInvalid);
        }
        let text = format!("{}@{host}", local.to_ascii_lowercase());
        if text.len() > Self::MAX_BYTES { Err(EmailInvalid) } else { Ok(Self(text)) }
    }

    /// The part before the `@`.
    pub fn local(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(local, _)| local)
    }
}

/// RFC 5322 §3.2.3 `1*atext`.
fn is_atom(text: &str) -> bool {
    let atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    !text.is_empty() && text.bytes().all(atext)
}

/// Hides the person, keeps the host: enough to debug, safe to log.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.rsplit_once('@').map_or("", |(_, host)| host);
        write!(f, "Email(…@{host})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let local = "a".repeat(64);
        let longest_local = format!("{local}@example.com");
        let too_long_local = format!("{local}a@example.com");
        let label = "b".repeat(60);
        let longest = format!("{}@{label}.{label}.{label}.example", "a".repeat(254 - 1 - 3 * 61 - 7));
        let too_long = format!("a{longest}");
        let cases = [
            ("Asim+Update@Example.COM", Some("asim+update@example.com")),
            ("a.b@x.y.example", Some("a.b@x.y.example")),
            ("o'hara@example.com", Some("o'hara@example.com")),
            ("ada@BÜCHER.example", Some("ada@xn--bcher-kva.example")),
            ("ada@bu\u{308}cher.example", Some("ada@xn--bcher-kva.example")),
            (&longest_local, Some(&*longest_local)),
            (&too_long_local, None),
            (&longest, Some(&*longest)),
            (&too_long, None),
            ("", None),
            ("ada", None),
            ("@example.com", None),
            ("ada@", None),
            ("ada@localhost", None),
            ("ada@127.0.0.1", None),
            ("ada@example.com.", None),
            ("ada@.example.com", None),
            ("ada@-x.com", None),
            ("ada@exa mple.com", None),
            ("ada @example.com", None),
            (" ada@example.com", None),
            ("a..b@example.com", None),
            (".a@example.com", None),
            ("a@b@example.com", None),
            ("ädä@example.com", None),
            ("ada\0@example.com", None),
            ("ada@exam\0ple.com", None),
            ("ada@example.com\r\nbcc: x@y.z", None),
        ];
        for (raw, want) in cases {
            let got = Email::parse(raw).ok().map(|email| email.as_str().to_owned());
            assert_eq!(got.as_deref(), want, "{raw:?}");
        }
    }

    #[test]
    fn debug_hides_the_person() {
        assert_eq!(format!("{:?}", Email::parse("ada@example.com").unwrap()), "Email(…@example.com)");
    }
}

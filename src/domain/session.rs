//! Signed-in users.

use std::net::IpAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use super::secret::{self, SecretDigest};
use super::time::Timestamp;
use super::user_id::UserId;
use super::value::{handed_out_secret, named_enum};

/// The secret a signed-in user carries: `ses_` and 64 hex digits. We never store it, only its
/// [`SecretDigest`], so a leaked table opens no session.
pub struct SessionToken(Zeroizing<String>);

handed_out_secret!(SessionToken, "ses_");

impl SessionToken {
    /// `None` if the text cannot be one of our tokens; saves a query. Only the canonical form is one: exact
    /// length, lower case.
    pub fn parse(raw: &str) -> Option<Self> {
        secret::is_one(Self::PREFIX, raw).then(|| Self(Zeroizing::new(raw.to_owned())))
    }

    /// The digest of a text that can be a token; `None` for any other.
    pub fn digest_of(raw: &str) -> Option<SecretDigest> {
        secret::is_one(Self::PREFIX, raw).then(|| SecretDigest::of(raw))
    }
}

/// The IP address and user agent of an end user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// The end user's address, if known.
    pub address: Option<IpAddr>,
    /// The end user's `User-Agent`, at most [`Device::MAX_USER_AGENT`] bytes; empty if not known.
    pub user_agent: String,
}

/// Why a text is not an address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an IPv4 or IPv6 address")]
pub struct AddressInvalid;

impl Device {
    /// Longer ones are cut: browsers stay under it, and the rest is noise in a log.
    pub const MAX_USER_AGENT: usize = 512;

    /// An address; `None` for an empty text. An IPv4-mapped IPv6 address is the IPv4 address it stands for.
    pub fn parse_address(raw: &str) -> Result<Option<IpAddr>, AddressInvalid> {
        if raw.is_empty() {
            return Ok(None);
        }
        raw.parse::<IpAddr>().map(|address| Some(address.to_canonical())).map_err(|_| AddressInvalid)
    }

    /// The user agent as kept: control characters become spaces, and what is over the length is cut.
    pub fn clean_user_agent(raw: &str) -> String {
        let mut text: String =
            raw.chars().map(|c| if c.is_control() { ' ' } else { c }).take(Self::MAX_USER_AGENT).collect();
        while text.len() > Self::MAX_USER_AGENT {
            text.pop();
        }
        text
    }
}

named_enum! {
    /// A method by which a user authenticated, named as in RFC 8176 where that has a name. The names are stored: never
    /// change one.
    Amr {
        /// The password.
        Password = "pwd",
        /// A code that was delivered to the user, which RFC 8176 has no name for: `otp` is one of an authenticator.
        Code = "code",
        /// A one-time password of an authenticator.
        Otp = "otp",
        /// A recovery code.
        Recovery = "recovery",
    }
}

/// The session that a log-in asks for.
#[derive(Debug, Default)]
pub struct SessionRequest {
    /// The end user's device, as far as the caller says.
    pub device: Device,
    /// Its lifetime; `None`: the longest that the settings allow.
    pub lifetime: Option<Duration>,
    /// A session of the same user that ends when this one begins: the user authenticates again.
    pub replaces: Option<SessionToken>,
}

/// A session as stored, but for its token's digest.
#[derive(Clone, Debug)]
pub struct StoredSession {
    /// Names the session; opens nothing.
    pub public_id: String,
    /// Whose it is.
    pub user: UserId,
    /// When the user signed in.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// When the user authenticated; of several proofs the first.
    pub auth_time: Timestamp,
    /// The names of the methods, separated by spaces; empty if they are not known.
    pub amr: String,
    /// From where the user signed in.
    pub device: Device,
}

/// A session with what its user is called now.
#[derive(Clone, Debug)]
pub struct Session {
    /// Names the session; opens nothing.
    pub public_id: String,
    /// Whose it is.
    pub user: UserId,
    /// The user's username now; empty if it has none.
    pub username: String,
    /// The user's e-mail address now; empty if it has none.
    pub email: String,
    /// When the user signed in.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// When the user authenticated; of several proofs the first.
    pub auth_time: Timestamp,
    /// The names of the methods, separated by spaces; empty if they are not known.
    pub amr: String,
    /// When it was last read, as far as noted.
    pub last_read: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_token_is_one() {
        let token = SessionToken::generate().unwrap();
        let text = token.expose();
        assert_eq!(text.len(), 68);
        assert_eq!(SessionToken::parse(text).unwrap().digest(), token.digest());
        let upper = text.to_uppercase();
        for wrong in ["", "ses_", &text[..67], &format!("{text}0"), &upper, &format!(" {text}"), &text[4..]] {
            assert!(SessionToken::parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn tokens_differ() {
        let tokens: std::collections::HashSet<String> =
            (0..10_000).map(|_| SessionToken::generate().unwrap().expose().to_owned()).collect();
        assert_eq!(tokens.len(), 10_000);
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = SessionToken::generate().unwrap();
        assert_eq!(format!("{token:?} {:?}", token.digest()), "SessionToken(…) SecretDigest(…)");
    }

    #[test]
    fn user_agents_are_cut_at_a_character_and_cleaned() {
        assert_eq!(Device::clean_user_agent("a\r\nb\0"), "a  b ");
        let kept = Device::clean_user_agent(&"ä".repeat(600));
        assert_eq!(kept.len(), 512);
        assert_eq!(Device::parse_address("::ffff:10.0.0.1"), Ok(Some([10, 0, 0, 1].into())));
        assert_eq!(Device::parse_address(""), Ok(None));
        assert_eq!(Device::parse_address("10.0.0.1:80"), Err(AddressInvalid));
    }
}

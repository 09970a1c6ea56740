//! API keys: what a program proves with who it is.

use zeroize::Zeroizing;

use super::namespace::{Namespace, NamespaceInvalid};
use super::scope::Scopes;
use super::secret::{self, SecretDigest};
use super::text::{TextInvalid, plain};
use super::time::Timestamp;
use super::value::{checked_value, handed_out_secret};

/// The secret that a program sends with its calls: `usk_` and 64 hex digits. We never store it, only its
/// [`SecretDigest`], so a leaked table opens nothing.
pub struct ApiKey(Zeroizing<String>);

handed_out_secret!(ApiKey, "usk_");

impl ApiKey {
    /// The digest of a text that can be a key; `None` for any other.
    pub fn digest_of(raw: &str) -> Option<SecretDigest> {
        secret::is_one(Self::PREFIX, raw).then(|| SecretDigest::of(raw))
    }
}

/// The namespaces that a key may work in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// One namespace.
    One(Namespace),
    /// All namespaces; each call names its own.
    All,
}

impl AllowedNamespaces {
    /// All namespaces, as it is written.
    pub const ALL: &str = "*";

    /// A namespace, or [`AllowedNamespaces::ALL`].
    pub fn parse(raw: &str) -> Result<Self, NamespaceInvalid> {
        if raw == Self::ALL { Ok(Self::All) } else { Namespace::parse(raw).map(Self::One) }
    }

    /// The text, for storage and people.
    pub fn as_str(&self) -> &str {
        match self {
            Self::One(namespace) => namespace.as_str(),
            Self::All => Self::ALL,
        }
    }
}

/// The name that people give a key: 1 to [`KeyName::MAX`] characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName(String);

checked_value!(KeyName);

/// Why a text is not a [`KeyName`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyNameInvalid {
    /// Nothing was given.
    #[error("is required: say what the key is for")]
    Empty,
    /// Not a text that can be stored.
    #[error(transparent)]
    Text(#[from] TextInvalid),
}

impl KeyName {
    /// Most characters.
    pub const MAX: usize = 128;

    /// A name.
    pub fn parse(raw: &str) -> Result<Self, KeyNameInvalid> {
        match plain(raw.trim(), Self::MAX)? {
            empty if empty.is_empty() => Err(KeyNameInvalid::Empty),
            name => Ok(Self(name)),
        }
    }
}

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The namespaces that it may work in.
    pub namespaces: AllowedNamespaces,
    /// Its name, for people.
    pub name: KeyName,
    /// The scopes that it has.
    pub scopes: Scopes,
    /// When it ends by itself; `None`: never.
    pub expires: Option<Timestamp>,
}

/// A key as stored, but for its secret's digest.
#[derive(Clone, Debug)]
pub struct Key {
    /// Names the key; opens nothing.
    pub id: String,
    /// The namespaces that it may work in.
    pub namespaces: AllowedNamespaces,
    /// Its name, for people.
    pub name: KeyName,
    /// The scopes that it has.
    pub scopes: Scopes,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself; `None`: never.
    pub expires: Option<Timestamp>,
    /// When it was last used, to the minute; `None`: never.
    pub last_used: Option<Timestamp>,
    /// The id of the key that created it, or what events call a creator without a key. Empty if it is older than
    /// this field.
    pub created_by: String,
}

impl Key {
    /// Most keys of one namespace that have not expired: every replica keeps all of them in memory.
    pub const MAX_PER_NAMESPACE: u64 = 1_000;

    /// Returns true if the key has expired at `now`.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// The whole life of the key in seconds, from making to expiry; `None` if it does not end by itself.
    ///
    /// Counted in the whole seconds that callers see, so that a key which replaces itself by one of the same
    /// life can do so for ever.
    pub fn life_seconds(&self) -> Option<i64> {
        self.expires.map(|at| at.seconds() - self.created.seconds())
    }

    /// Checks that a key which this one makes at `now` lives no longer than this one's whole life. Without
    /// this, a key that was stolen for a minute could make one that never ends.
    pub fn check_made(&self, expires: Option<Timestamp>, now: Timestamp) -> Result<(), LivesTooLong> {
        let Some(life) = self.life_seconds() else { return Ok(()) };
        let latest = now.seconds().saturating_add(life);
        if expires.is_some_and(|at| at.seconds() <= latest) {
            Ok(())
        } else {
            Err(LivesTooLong { life, latest })
        }
    }
}

/// Why a key cannot create another one with this expiry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be given and at most {latest} (Unix seconds): the caller's key lives {life} s, and a key that it makes lives no \
     longer"
)]
pub struct LivesTooLong {
    /// The creator's whole life in seconds.
    pub life: i64,
    /// The latest expiry in Unix seconds.
    pub latest: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_key_is_one() {
        let key = ApiKey::generate().unwrap();
        let text = key.expose();
        assert_eq!(text.len(), 68);
        assert_eq!(ApiKey::digest_of(text), Some(key.digest()));
        let upper = text.to_uppercase();
        for wrong in ["", "usk_", &text[..67], &format!("{text}0"), &upper, &format!(" {text}"), &text[4..]] {
            assert!(ApiKey::digest_of(wrong).is_none(), "{wrong:?}");
        }
        assert_eq!(format!("{key:?} {:?}", key.digest()), "ApiKey(…) SecretDigest(…)");
    }

    #[test]
    fn a_name_says_something() {
        assert_eq!(KeyName::parse(" orders "), Ok(KeyName("orders".into())));
        assert_eq!(KeyName::parse("  "), Err(KeyNameInvalid::Empty));
        assert_eq!(KeyName::parse(&"a".repeat(129)), Err(TextInvalid::Length(128).into()));
        assert_eq!(KeyName::parse("a\tb"), Err(TextInvalid::Control.into()));
    }

    #[test]
    fn a_key_makes_none_that_lives_longer_than_itself() {
        let key = |expires: Option<i64>| Key {
            id: String::new(),
            namespaces: AllowedNamespaces::All,
            name: KeyName::from_trusted(String::new()),
            scopes: Scopes::ALL,
            created: Timestamp(1_900_000),
            expires: expires.map(Timestamp),
            last_used: None,
            created_by: String::new(),
        };
        let at = |seconds: i64| Some(Timestamp(seconds * 1_000_000));
        let now = Timestamp(100_700_000);
        assert_eq!(key(None).check_made(None, now), Ok(()));
        assert_eq!(key(None).check_made(at(1_000_000), now), Ok(()));
        // Made at 1.9 s to live until 61 s: 60 s in whole seconds.
        let short = key(Some(61_000_000));
        assert_eq!(short.check_made(at(160), now), Ok(()));
        let wrong = LivesTooLong { life: 60, latest: 160 };
        for expires in [at(161), None, Some(Timestamp(i64::MAX))] {
            assert_eq!(short.check_made(expires, now), Err(LivesTooLong { ..wrong }), "{expires:?}");
        }
        assert!(wrong.to_string().contains("at most 160"));
        assert!(short.has_expired(Timestamp(61_000_000)) && !short.has_expired(Timestamp(60_999_999)));
    }

    #[test]
    fn a_star_is_every_namespace() {
        assert_eq!(AllowedNamespaces::parse("*"), Ok(AllowedNamespaces::All));
        assert_eq!(AllowedNamespaces::parse("a").unwrap().as_str(), "a");
        assert_eq!(AllowedNamespaces::parse("a*"), Err(NamespaceInvalid));
    }
}

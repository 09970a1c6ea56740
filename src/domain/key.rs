//! API keys: what a program proves with who it is.

use std::fmt;

use zeroize::Zeroizing;

use super::namespace::{Namespace, NamespaceInvalid};
use super::scope::Scopes;
use super::secret::{self, SecretDigest};
use super::text::{TextInvalid, plain};
use super::time::Timestamp;

/// The secret that a program sends with its calls: `usk_` and 64 hex digits. We never store it, only its
/// [`SecretDigest`], so a leaked table opens nothing.
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    /// Makes secret scanners and people recognise a leaked key. Changing it ends every key.
    const PREFIX: &str = "usk_";

    /// A new key from the system's random source.
    ///
    /// # Errors
    ///
    /// If the system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        secret::generate(Self::PREFIX).map(Self)
    }

    /// The digest of a text that can be a key; `None` for any other.
    #[must_use]
    pub fn digest_of(raw: &str) -> Option<SecretDigest> {
        secret::is_one(Self::PREFIX, raw).then(|| SecretDigest::of(raw))
    }

    /// What we store and look up.
    #[must_use]
    pub fn digest(&self) -> SecretDigest {
        SecretDigest::of(&self.0)
    }

    /// The secret, for the one reply that hands it out.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// Where a key is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One namespace.
    One(Namespace),
    /// Every namespace; each call names its own.
    Every,
}

impl Reach {
    /// Every namespace, as it is written.
    pub const EVERY: &str = "*";

    /// A namespace, or [`Reach::EVERY`].
    ///
    /// # Errors
    ///
    /// [`NamespaceInvalid`]
    pub fn parse(raw: &str) -> Result<Self, NamespaceInvalid> {
        if raw == Self::EVERY { Ok(Self::Every) } else { Namespace::parse(raw).map(Self::One) }
    }

    /// The text, for storage and people.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::One(namespace) => namespace.as_str(),
            Self::Every => Self::EVERY,
        }
    }
}

/// What a key is called by people: 1 to [`KeyName::MAX`] characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName(String);

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
    ///
    /// # Errors
    ///
    /// [`KeyNameInvalid`]
    pub fn parse(raw: &str) -> Result<Self, KeyNameInvalid> {
        match plain(raw.trim(), Self::MAX)? {
            empty if empty.is_empty() => Err(KeyNameInvalid::Empty),
            name => Ok(Self(name)),
        }
    }

    /// A name from our own table.
    #[must_use]
    pub fn from_trusted(text: String) -> Self {
        Self(text)
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Where it is good for.
    pub reach: Reach,
    /// What it is for.
    pub name: KeyName,
    /// What it may do.
    pub scopes: Scopes,
    /// When it ends by itself; `None`: never.
    pub expires: Option<Timestamp>,
}

/// A key as stored, but for its secret's digest.
#[derive(Clone, Debug)]
pub struct Key {
    /// Names the key; opens nothing.
    pub id: String,
    /// Where it is good for.
    pub reach: Reach,
    /// What it is for.
    pub name: KeyName,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself; `None`: never.
    pub expires: Option<Timestamp>,
    /// When it was last used, to the minute; `None`: never.
    pub last_used: Option<Timestamp>,
}

impl Key {
    /// Most keys of one namespace: every replica keeps all of them in memory.
    pub const MOST: u64 = 1_000;
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
    fn a_star_is_every_namespace() {
        assert_eq!(Reach::parse("*"), Ok(Reach::Every));
        assert_eq!(Reach::parse("a").unwrap().as_str(), "a");
        assert_eq!(Reach::parse("a*"), Err(NamespaceInvalid));
    }
}

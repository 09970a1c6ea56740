//! Secrets that we hand out once and never store: a prefix and 256 random bits in hexadecimal.

use std::fmt;

use rand::TryRng as _;
use rand::rngs::{SysError, SysRng};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Hexadecimal digits of a secret.
const DIGITS: usize = 64;

/// SHA-256 of a secret: what is stored of it, and found by.
///
/// A plain digest is enough: the secret carries 256 random bits, so there is nothing to guess (ASVS 6.5.2),
/// and a search by digest leaks no useful timing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// The digest of a secret.
    pub(super) fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// A digest from our own table; `None` if it is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, for storage.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(…)")
    }
}

/// A new secret from the system's random source.
pub(super) fn generate(prefix: &str) -> Result<Zeroizing<String>, SysError> {
    let mut bytes = Zeroizing::new([0_u8; DIGITS / 2]);
    SysRng.try_fill_bytes(bytes.as_mut())?;
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + DIGITS));
    text.push_str(prefix);
    text.push_str(&Zeroizing::new(hex::encode(bytes.as_ref())));
    Ok(text)
}

/// Returns true if the text has the form of a secret. Only the canonical one counts: exact length, lower
/// case.
pub(super) fn is_one(prefix: &str, raw: &str) -> bool {
    raw.strip_prefix(prefix)
        .is_some_and(|hex| hex.len() == DIGITS && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

//! Idempotency keys: a caller that repeats a call with the same key asks for one change.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::namespace::Namespace;

/// A text that a caller chooses for one change: 1 to 255 visible ASCII characters without `"` and `\`.
#[derive(Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// Why a text is not an [`IdempotencyKey`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {} visible ASCII characters without quotes and backslashes",
    IdempotencyKey::MAX_LENGTH
)]
pub struct IdempotencyKeyInvalid;

impl IdempotencyKey {
    /// Holds any UUID, hash or token.
    pub const MAX_LENGTH: usize = 255;

    /// Reads a key. Nothing is changed to make it fit.
    pub fn parse(raw: &str) -> Result<Self, IdempotencyKeyInvalid> {
        let visible = raw.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'));
        if visible && (1..=Self::MAX_LENGTH).contains(&raw.len()) {
            Ok(Self(raw.to_owned()))
        } else {
            Err(IdempotencyKeyInvalid)
        }
    }
}

/// Hides the key: callers may build it from personal data.
impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(…)")
    }
}

/// The value of the header `Idempotency-Key` as it was sent, which only some calls read.
#[derive(Clone)]
pub struct IdempotencyHeader(pub String);

impl IdempotencyHeader {
    /// Reads the key, with the quotes of a structured field (draft-ietf-httpapi-idempotency-key-header) or, as most clients
    /// send it, without.
    pub fn parse(&self) -> Result<IdempotencyKey, IdempotencyKeyInvalid> {
        let quoted = self.0.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        IdempotencyKey::parse(quoted.unwrap_or(&self.0))
    }
}

/// A call that its caller may repeat.
#[derive(Clone)]
pub struct RepeatableCall {
    /// The caller's key.
    pub key: IdempotencyKey,
    /// The name of the RPC: other calls with the same message are other calls.
    pub rpc: &'static str,
    /// The encoded message, without its passwords: a stored digest of them could be guessed quickly.
    pub message: Vec<u8>,
}

/// The digests by which a repeated call is found and compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CallDigests {
    /// Of the namespace and the caller's key.
    pub key: [u8; 32],
    /// Of the RPC and its message.
    pub message: [u8; 32],
}

/// Makes digests of calls, the same ones on all replicas. They are keyed: keys and messages may hold names of persons, which
/// must not be guessed from this table alone. Who has the whole database has the secret, too.
#[derive(Clone)]
pub struct CallDigester([u8; 32]);

impl CallDigester {
    /// The one that follows from the `secret` of the table.
    pub fn from_secret(secret: &[u8]) -> Self {
        Self(Sha256::new().chain_update(b"usersd idempotency key 1").chain_update(secret).finalize().into())
    }

    /// The digests of a call.
    pub fn digests(&self, namespace: &Namespace, call: &RepeatableCall) -> CallDigests {
        CallDigests {
            key: self.digest(&["key", namespace.as_str(), &call.key.0].map(str::as_bytes)),
            message: self.digest(&[b"message", call.rpc.as_bytes(), &call.message]),
        }
    }

    fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        // HMAC takes a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return [0; 32] };
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let (longest, too_long) = ("k".repeat(255), "k".repeat(256));
        let cases = [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", true),
            ("!~a/b+c=", true),
            (&longest, true),
            (&too_long, false),
            ("", false),
            ("a b", false),
            ("a\n", false),
            ("a\"b", false),
            ("a\\b", false),
            ("é", false),
        ];
        for (raw, fits) in cases {
            assert_eq!(IdempotencyKey::parse(raw).is_ok(), fits, "{raw:?}");
        }
    }

    #[test]
    fn a_header_may_have_the_quotes_of_a_structured_field() {
        let cases = [("abc", true), ("\"abc\"", true), ("\"abc", false), ("\"\"", false), ("a, b", false)];
        for (raw, fits) in cases {
            let read = IdempotencyHeader(raw.to_owned()).parse();
            assert_eq!(read.as_ref().map(|key| key.0.as_str()).ok(), fits.then_some("abc"), "{raw:?}");
        }
    }

    #[test]
    fn digests_tell_namespaces_keys_rpcs_and_messages_apart() {
        let digester = CallDigester::from_secret(b"secret");
        let digests = |namespace: &str, key: &str, rpc: &'static str, message: &[u8]| {
            let key = IdempotencyKey::parse(key).unwrap();
            let call = RepeatableCall { key, rpc, message: message.to_vec() };
            digester.digests(&Namespace::parse(namespace).unwrap(), &call)
        };
        let first = digests("a", "bc", "Create", b"x");
        assert!(first == digests("a", "bc", "Create", b"x"));
        assert_ne!(first.key, digests("ab", "c", "Create", b"x").key);
        assert_ne!(first.key, digests("a", "bd", "Create", b"x").key);
        assert_ne!(first.message, digests("a", "bc", "CreateOrRestore", b"x").message);
        assert_ne!(first.message, digests("a", "bc", "Create", b"y").message);
        assert_ne!(first.key, first.message);
        let other = CallDigester::from_secret(b"other");
        let call = RepeatableCall {
            key: IdempotencyKey::parse("bc").unwrap(),
            rpc: "Create",
            message: b"x".to_vec(),
        };
        assert!(first != other.digests(&Namespace::parse("a").unwrap(), &call));
    }
}

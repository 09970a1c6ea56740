//! Assertions: JSON Web Tokens (RFC 7519) about a session, signed with Ed25519 (RFC 8037). Services verify them offline, with
//! the public keys.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::time::Timestamp;

/// Bytes of the seed of a key.
pub const SEED_BYTES: usize = 32;

/// How long a key is published before it signs, and after its successor begins to sign: longer than verifiers cache the keys,
/// and longer than the lifetime of an assertion.
pub const OVERLAP: Duration = Duration::from_hours(1);

/// A key as stored.
pub struct StoredKey {
    /// 1 for the first one, and one more for each that follows.
    pub number: i64,
    /// The private key (RFC 8032 §5.1.5).
    pub seed: Vec<u8>,
    /// When it was made.
    pub created: Timestamp,
}

/// A stored seed is not an Ed25519 private key.
#[derive(Debug, thiserror::Error)]
#[error("a stored assertion key is not an Ed25519 private key")]
pub struct KeyInvalid;

/// A key that signs assertions.
struct Key {
    number: i64,
    created: Timestamp,
    pair: Ed25519KeyPair,
    /// The `kid`: the thumbprint of the public key (RFC 7638).
    id: String,
}

impl TryFrom<StoredKey> for Key {
    type Error = KeyInvalid;

    fn try_from(stored: StoredKey) -> Result<Self, KeyInvalid> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&stored.seed).map_err(|_| KeyInvalid)?;
        let public = URL_SAFE_NO_PAD.encode(pair.public_key());
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}"#);
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(members));
        Ok(Self { number: stored.number, created: stored.created, pair, id })
    }
}

impl Key {
    /// The public key as a JSON Web Key (RFC 8037 §2).
    fn public(&self) -> Value {
        let public = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.id, "x": public})
    }
}

/// The claims of an assertion.
#[derive(Debug, Serialize)]
pub struct Claims<'a> {
    /// The issuer.
    pub iss: &'a str,
    /// The user's id.
    pub sub: &'a str,
    /// The service that the assertion is for.
    pub aud: &'a str,
    /// The namespace.
    pub ns: &'a str,
    /// The public id of the session.
    pub sid: &'a str,
    /// When the user authenticated, in Unix seconds.
    pub auth_time: i64,
    /// The names of the methods by which the user authenticated.
    pub amr: Vec<&'a str>,
    /// When it was issued, in Unix seconds.
    pub iat: i64,
    /// When it expires, in Unix seconds.
    pub exp: i64,
}

/// The keys of all replicas.
pub struct AssertionKeys {
    /// The oldest first.
    keys: Vec<Key>,
    public: Bytes,
}

impl AssertionKeys {
    /// The keys of these rows, the oldest first.
    pub fn new(stored: Vec<StoredKey>) -> Result<Self, KeyInvalid> {
        let keys = stored.into_iter().map(Key::try_from).collect::<Result<Vec<_>, _>>()?;
        let public = json!({"keys": keys.iter().map(Key::public).collect::<Vec<_>>()}).to_string();
        Ok(Self { keys, public: public.into() })
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The public keys as a JSON Web Key Set (RFC 7517 §5).
    pub fn public(&self) -> &Bytes {
        &self.public
    }

    /// The number of the key to make at `now`; `None` while the newest is younger than `age`.
    pub fn due(&self, now: Timestamp, age: Duration) -> Option<i64> {
        let newest = self.keys.last();
        newest
            .is_none_or(|newest| newest.created.plus(age) <= now)
            .then(|| newest.map_or(1, |key| key.number + 1))
    }

    /// Returns true if a key that was made at `before` or earlier has replaced another one.
    pub fn is_replaced(&self, before: Timestamp) -> bool {
        self.keys.iter().skip(1).any(|key| key.created <= before)
    }

    /// Returns the claims as a signed JWT in compact serialization (RFC 7515 §7.1); `None` if there is no key.
    pub fn sign(&self, claims: &Claims<'_>, now: Timestamp) -> serde_json::Result<Option<String>> {
        let Some(key) = self.signing(now) else { return Ok(None) };
        let header = json!({"alg": "EdDSA", "kid": key.id, "typ": "JWT"}).to_string();
        let (header, claims) =
            (URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?));
        let signed = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(key.pair.sign(signed.as_bytes()));
        Ok(Some(format!("{signed}.{signature}")))
    }

    /// The key that signs: the newest that has been published for [`OVERLAP`], or else the oldest, since the first key has no
    /// predecessor.
    fn signing(&self, now: Timestamp) -> Option<&Key> {
        let published = |key: &&Key| key.created.plus(OVERLAP) <= now;
        self.keys.iter().rev().find(published).or(self.keys.first())
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn keys(created: &[Timestamp]) -> AssertionKeys {
        let stored = |(number, created): (i64, &Timestamp)| StoredKey {
            number,
            seed: vec![u8::try_from(number).unwrap(); SEED_BYTES],
            created: *created,
        };
        AssertionKeys::new((1..).zip(created).map(stored).collect()).unwrap()
    }

    fn decoded(part: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn the_public_key_of_the_set_verifies_an_assertion() {
        let keys = keys(&[Timestamp(0)]);
        let claims = Claims {
            iss: "i",
            sub: "s",
            aud: "a",
            ns: "n",
            sid: "d",
            auth_time: 1,
            amr: vec!["pwd"],
            iat: 2,
            exp: 3,
        };
        let assertion = keys.sign(&claims, Timestamp(0)).unwrap().unwrap();
        let (signed, signature) = assertion.rsplit_once('.').unwrap();
        let (header, body) = signed.split_once('.').unwrap();
        let set: Value = serde_json::from_slice(keys.public()).unwrap();
        let public = &set["keys"][0];
        assert_eq!(decoded(header), json!({"alg": "EdDSA", "kid": public["kid"], "typ": "JWT"}));
        let want = json!({"iss": "i", "sub": "s", "aud": "a", "ns": "n", "sid": "d", "auth_time": 1, "amr": ["pwd"],
            "iat": 2, "exp": 3});
        assert_eq!(decoded(body), want);
        assert_eq!(public.as_object().unwrap().len(), 6, "and no private key");
        let public = URL_SAFE_NO_PAD.decode(public["x"].as_str().unwrap()).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(&ED25519, public).verify(signed.as_bytes(), &signature).unwrap();
    }

    /// RFC 8037 §A.3.
    #[test]
    fn the_id_of_a_key_is_its_thumbprint() {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = Key::try_from(StoredKey { number: 1, seed, created: Timestamp(0) }).unwrap();
        assert_eq!(key.id, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(key.public()["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    }

    #[test]
    fn a_key_signs_once_it_was_published_for_long_enough() {
        let start = Timestamp(0);
        let second = start.plus(DAY);
        let keys = keys(&[start, second]);
        let signs = |at: Timestamp| keys.signing(at).unwrap().number;
        assert_eq!((signs(start), signs(second)), (1, 1));
        assert_eq!((signs(Timestamp(second.plus(OVERLAP).0 - 1)), signs(second.plus(OVERLAP))), (1, 2));
    }

    #[test]
    fn a_key_is_due_by_the_age_of_the_newest() {
        assert_eq!(keys(&[]).due(Timestamp(0), DAY), Some(1));
        let two = keys(&[Timestamp(0), Timestamp(5)]);
        assert_eq!(
            (two.due(Timestamp(5).plus(DAY), DAY), two.due(Timestamp(4).plus(DAY), DAY)),
            (Some(3), None)
        );
    }

    #[test]
    fn a_broken_seed_is_no_key() {
        let stored = StoredKey { number: 1, seed: vec![1; 31], created: Timestamp(0) };
        assert!(AssertionKeys::new(vec![stored]).is_err());
    }
}

//! Page tokens: a cursor in a list that only we can read, and only for the list that it was made for.

use aes_siv::siv::Aes128Siv;
use aes_siv::{Key, KeyInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::time::Timestamp;

/// The key of all replicas, from the table of secrets.
#[derive(Clone)]
pub struct TokenKey(Key<Aes128Siv>);

impl TokenKey {
    /// The key for page tokens that follows from the `secret` of the table.
    pub fn from_secret(secret: &[u8]) -> Self {
        Self::of(b"usersd page token 2", secret)
    }

    /// The key for the challenges of log-ins that follows from the same secret.
    pub fn for_challenges(secret: &[u8]) -> Self {
        Self::of(b"usersd challenge 1", secret)
    }

    fn of(purpose: &[u8], secret: &[u8]) -> Self {
        Self(Sha256::new().chain_update(purpose).chain_update(secret).finalize())
    }

    /// A token for `cursor` in `list`. Encrypted, since a cursor holds names and counters that are not the
    /// caller's to read; always the same for the same cursor (AES-SIV, RFC 5297), so that nothing needs to be
    /// counted or stored.
    pub fn seal(&self, list: &ListDigest, cursor: &str) -> String {
        let sealed = Aes128Siv::new(&self.0).encrypt([&list.0], cursor.as_bytes());
        // Cannot fail with a single header; an empty token is none.
        sealed.map_or_else(|_| String::new(), |sealed| URL_SAFE_NO_PAD.encode(sealed))
    }

    /// The cursor in a token; `None` if it was not sealed with this key for this list.
    pub fn decrypt(&self, list: &ListDigest, token: &str) -> Option<String> {
        let sealed = URL_SAFE_NO_PAD.decode(token).ok()?;
        let cursor = Aes128Siv::new(&self.0).decrypt([&list.0], &sealed).ok()?;
        String::from_utf8(cursor).ok()
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

/// Identifies a list by its kind, its namespace and all that selects and orders its rows. See [`ListFields`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListDigest([u8; 32]);

/// The fields of a [`ListDigest`], written one by one.
///
/// Every field is written with its length, so that no two lists give the same bytes. This is a wire format:
/// replicas of two versions accept each other's tokens only as long as they write the same fields in the same
/// order.
#[must_use]
pub struct ListFields(Sha256);

impl ListFields {
    /// Raised when the fields of any list change. Tokens of another version are refused as those of another
    /// list.
    const VERSION: &str = "usersd list 1";

    /// Begins the digest of a list of that kind.
    pub fn new(kind: &str, namespace: &str) -> Self {
        Self(Sha256::new()).text(Self::VERSION).text(kind).text(namespace)
    }

    /// A text.
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// A flag.
    pub fn flag(self, flag: bool) -> Self {
        self.bytes(&[u8::from(flag)])
    }

    /// Texts, with their number.
    pub fn texts<'a>(self, texts: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let fields = self.bytes(&(texts.len() as u64).to_be_bytes());
        texts.fold(fields, Self::text)
    }

    /// A text that may be absent, which differs from an empty one.
    pub fn optional(self, text: Option<&str>) -> Self {
        self.texts(text.into_iter())
    }

    /// A time that may be absent.
    pub fn time(self, time: Option<Timestamp>) -> Self {
        match time {
            None => self.bytes(&[]),
            Some(time) => self.bytes(&time.0.to_be_bytes()),
        }
    }

    /// The digest of the fields so far.
    pub fn digest(self) -> ListDigest {
        ListDigest(self.0.finalize().into())
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        Self(self.0.chain_update((bytes.len() as u64).to_be_bytes()).chain_update(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TokenKey {
        TokenKey::from_secret(&[7; 32])
    }

    fn list(kind: &str, namespace: &str) -> ListFields {
        ListFields::new(kind, namespace)
    }

    #[test]
    fn a_token_is_valid_only_as_it_was_made() {
        let cursor = format!("[\"{}\",\"id\"]", "x".repeat(300));
        let users = list("users", "one").digest();
        let token = key().seal(&users, &cursor);
        assert_eq!(key().decrypt(&users, &token), Some(cursor.clone()));
        assert_eq!(TokenKey::from_secret(&[8; 32]).decrypt(&users, &token), None);
        let sealed = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for bit in 0..8 * sealed.len() {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key().decrypt(&users, &URL_SAFE_NO_PAD.encode(changed)), None, "{bit}");
        }
        for wrong in ["", "A", "%", &token[1..], &token[..token.len() - 1], &format!("{token}A")] {
            assert_eq!(key().decrypt(&users, wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn fuzzed_texts_are_no_tokens() {
        let list = list("users", "one").digest();
        let token = key().seal(&list, "[\"ada\",\"id\"]");
        let (head, tail) = token.split_at(token.len() / 2);
        fuzz::run("page_token", &[&token, head, tail, "-", "_", "="], |input| {
            let Ok(text) = std::str::from_utf8(input) else { return };
            if key().decrypt(&list, text).is_some() {
                assert_eq!(text, token);
            }
        })
        .unwrap();
    }

    #[test]
    fn a_token_is_valid_for_its_list_alone() {
        let users = list("users", "one").text("ad").digest();
        let token = key().seal(&users, "cursor");
        for other in [
            list("sessions", "one").text("ad"),
            list("users", "two").text("ad"),
            list("users", "one").text("ada"),
            list("users", "one").text("a").text("d"),
            list("users", "onea").text("d"),
            list("users", "one"),
            list("users", "one").text("ad").text(""),
        ] {
            assert_eq!(key().decrypt(&other.digest(), &token), None);
        }
    }

    #[test]
    fn absent_and_empty_fields_differ() {
        let lists = [
            list("users", "one"),
            list("users", "one").optional(None),
            list("users", "one").optional(Some("")),
            list("users", "one").optional(Some("a")),
            list("users", "one").texts(["a", ""].into_iter()),
            list("users", "one").texts(["", "a"].into_iter()),
            list("users", "one").flag(false),
            list("users", "one").flag(true),
            list("users", "one").time(None),
            list("users", "one").time(Some(Timestamp(1))),
            list("users", "one").time(Some(Timestamp(-1))),
        ];
        let digests = lists.map(ListFields::digest);
        for (at, digest) in digests.iter().enumerate() {
            assert_eq!(digests.iter().position(|other| other == digest), Some(at));
        }
    }

    /// Made with the same secret by the version before: HMAC-SHA-256 over the list's `Debug` text.
    #[test]
    fn a_token_of_the_old_form_is_refused() {
        let token = "H7MGALIfIvTm0iuN2Keim-93f34ExX6m";
        assert_eq!(key().decrypt(&list("users", "one").digest(), token), None);
    }

    /// The digest and the token as Python's hashlib and the AES-SIV of OpenSSL compute them.
    #[test]
    fn replicas_agree_on_tokens() {
        let list = list("users", "one").text("ad").optional(None).flag(true).digest();
        assert_eq!(hex::encode(list.0), "f33e4971f3dabc1c5e5da51e31ccf41701e69ea8b7d0d0732cbbdb00ab13cd5f");
        assert_eq!(key().seal(&list, "[1,\"id\"]"), "PuUm_ZeC0XfuCkSObWQKF7INFaQCSguL");
    }

    #[test]
    fn a_token_shows_nothing() {
        let token = key().seal(&list("users", "one").digest(), "ada@example.com");
        let token = URL_SAFE_NO_PAD.decode(token).unwrap();
        assert!(!token.windows(3).any(|part| part == b"ada"));
        assert_eq!(format!("{:?}", key()), "TokenKey(…)");
    }
}

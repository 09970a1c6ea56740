//! Page tokens: a place in a list that only we can read, and only for the list it was made for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// The key of all replicas, from the table of secrets.
#[derive(Clone)]
pub struct TokenKey(Vec<u8>);

/// Bytes of the authentication code: 128 bits.
const CODE: usize = 16;

impl TokenKey {
    /// The key of the table.
    #[must_use]
    pub fn from_trusted(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// A token for `place` in the list that `list` describes: namespace, RPC, filters and order.
    ///
    /// The code covers list and place and is the nonce of the key stream that hides the place, as in SIV modes
    /// (RFC 5297): a place holds names and counters that are not the caller's to read.
    #[must_use]
    pub fn seal(&self, list: &str, place: &str) -> String {
        let code = self.code(list, place.as_bytes());
        let mut token = code.to_vec();
        token.extend(self.mask(&code, place.as_bytes()));
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The place in a token; `None` if we did not make it for this list.
    #[must_use]
    pub fn open(&self, list: &str, token: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (code, hidden) = bytes.split_first_chunk::<CODE>()?;
        let place = self.mask(code, hidden);
        let good = self.code(list, &place).ct_eq(code);
        if bool::from(good) { String::from_utf8(place).ok() } else { None }
    }

    fn code(&self, list: &str, place: &[u8]) -> [u8; CODE] {
        let length = (list.len() as u64).to_be_bytes();
        let code = self.hmac(&[b"code", &length, list.as_bytes(), place]);
        let mut short = [0; CODE];
        short.copy_from_slice(&code[..CODE]);
        short
    }

    /// `bytes` under the key stream of `code`; twice gives them back.
    fn mask(&self, code: &[u8; CODE], bytes: &[u8]) -> Vec<u8> {
        let stream = (0_u32..).flat_map(|block| self.hmac(&[b"mask", code, &block.to_be_bytes()]));
        bytes.iter().zip(stream).map(|(byte, key)| byte ^ key).collect()
    }

    fn hmac(&self, parts: &[&[u8]]) -> [u8; 32] {
        // An HMAC takes a key of any length.
        let Ok(mut hmac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return [0; 32] };
        for part in parts {
            hmac.update(part);
        }
        hmac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_only_as_it_was_made() {
        let key = TokenKey::from_trusted(vec![7; 32]);
        let place = format!("[\"{}\",\"id\"]", "x".repeat(300));
        let token = key.seal("list", &place);
        assert_eq!(key.open("list", &token), Some(place.clone()));
        assert_eq!(key.open("other", &token), None);
        assert_eq!(TokenKey::from_trusted(vec![8; 32]).open("list", &token), None);
        for at in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.open("list", std::str::from_utf8(&other).unwrap()), None, "{at}");
        }
        for wrong in ["", "A", "%", &token[1..], &token[..token.len() - 1], &format!("{token}A")] {
            assert_eq!(key.open("list", wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_token_shows_nothing() {
        let key = TokenKey::from_trusted(vec![7; 32]);
        let token = URL_SAFE_NO_PAD.decode(key.seal("list", "ada@example.com")).unwrap();
        assert!(!token.windows(3).any(|part| part == b"ada"));
        assert_eq!(format!("{key:?}"), "TokenKey(…)");
    }
}

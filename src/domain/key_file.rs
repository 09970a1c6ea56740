//! Keys that an operator keeps in a file outside the database: peppers of passwords, and encryption of TOTP secrets.

use std::fmt;

use aes_siv::KeyInit as _;
use aes_siv::siv::Aes256Siv;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha512;
use zeroize::Zeroizing;

/// Fewest bytes of a key: 256 bits.
const MIN_KEY_BYTES: usize = 32;

/// The keys of a file, `VERSION BASE64KEY` a line. The first makes new hashes and encrypts; each of them verifies and
/// decrypts what it made, so that a key can be replaced. Without any nothing is peppered, and nothing can be encrypted.
#[derive(Default)]
pub struct KeyFile {
    keys: Vec<FileKey>,
}

struct FileKey {
    version: u32,
    /// Derived from the key, as `sealing` is: neither tells of the other.
    pepper: Zeroizing<[u8; 64]>,
    sealing: Zeroizing<[u8; 64]>,
}

/// Why a text is not a [`KeyFile`]. Says nothing of the keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {why}")]
pub struct KeyFileInvalid {
    line: usize,
    why: &'static str,
}

/// A value encrypted with one of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The version of the key.
    pub version: u32,
    /// The encrypted value.
    pub bytes: Vec<u8>,
}

impl KeyFile {
    /// Reads the lines of a file. Empty ones and those that begin with `#` are left out.
    pub fn parse(text: &str) -> Result<Self, KeyFileInvalid> {
        let mut keys: Vec<FileKey> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = |why| KeyFileInvalid { line: number + 1, why };
            let key = FileKey::parse(line).map_err(invalid)?;
            if keys.iter().any(|other| other.version == key.version) {
                return Err(invalid("has the version of a line before"));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(KeyFileInvalid { line: 1, why: "must hold a key: there is none in the file" });
        }
        Ok(Self { keys })
    }

    /// The version of the key for new values; `None` without keys.
    pub fn current(&self) -> Option<u32> {
        self.keys.first().map(|key| key.version)
    }

    /// The versions of all keys.
    pub fn versions(&self) -> impl Iterator<Item = u32> {
        self.keys.iter().map(|key| key.version)
    }

    /// The pepper of a version.
    pub fn pepper(&self, version: u32) -> Option<&[u8; 64]> {
        self.find(version).map(|key| &*key.pepper)
    }

    /// Encrypts a value for the one place in the database that `location` names (AES-SIV, RFC 5297); `None` without keys.
    pub fn seal(&self, location: &[&[u8]], value: &[u8]) -> Option<Sealed> {
        let key = self.keys.first()?;
        let bytes = Aes256Siv::new(&(*key.sealing).into()).encrypt(location, value).ok()?;
        Some(Sealed { version: key.version, bytes })
    }

    /// Decrypts a value; `None` if its key is not in the file, or if it was not sealed with it for this place.
    pub fn open(&self, location: &[&[u8]], sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
        let key = self.find(sealed.version)?;
        Aes256Siv::new(&(*key.sealing).into()).decrypt(location, &sealed.bytes).ok().map(Zeroizing::new)
    }

    fn find(&self, version: u32) -> Option<&FileKey> {
        self.keys.iter().find(|key| key.version == version)
    }
}

impl FileKey {
    fn parse(line: &str) -> Result<Self, &'static str> {
        let form = "must be a version and a key: a number from 1 on, a space, and base64";
        let (version, key) = line.split_once(char::is_whitespace).ok_or(form)?;
        let version = version.parse().ok().filter(|version| *version > 0).ok_or(form)?;
        let key = Zeroizing::new(STANDARD.decode(key.trim_start()).map_err(|_| form)?);
        if key.len() < MIN_KEY_BYTES {
            return Err("must have a key of at least 32 bytes before base64, from a random source");
        }
        let derived = |purpose: &[u8]| -> Result<Zeroizing<[u8; 64]>, &'static str> {
            let mut mac = Hmac::<Sha512>::new_from_slice(&key).map_err(|_| form)?;
            mac.update(purpose);
            Ok(Zeroizing::new(mac.finalize().into_bytes().into()))
        };
        Ok(Self { version, pepper: derived(b"usersd pepper 1")?, sealing: derived(b"usersd sealing 1")? })
    }
}

/// Shows the versions and no key.
impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({:?})", self.versions().collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(version: u32, byte: u8) -> String {
        format!("{version} {}", STANDARD.encode([byte; 32]))
    }

    #[test]
    fn the_first_key_is_for_new_values_and_each_for_its_own() {
        let old = KeyFile::parse(&line(1, 1)).unwrap();
        let both = KeyFile::parse(&format!("# newest first\n\n  {}\n{}\n", line(7, 7), line(1, 1))).unwrap();
        assert_eq!((both.current(), both.versions().collect::<Vec<_>>()), (Some(7), vec![7, 1]));
        assert_eq!(both.pepper(1), old.pepper(1));
        assert_ne!(both.pepper(7), both.pepper(1));
        assert_eq!(both.pepper(2), None);
        let sealed = old.seal(&[b"one"], b"value").unwrap();
        assert_eq!(both.open(&[b"one"], &sealed).unwrap().as_slice(), b"value");
        assert_eq!(both.seal(&[b"one"], b"value").unwrap().version, 7);
        assert_eq!(format!("{both:?}"), "KeyFile([7, 1])");
        let none = KeyFile::default();
        assert_eq!((none.current(), none.seal(&[b"one"], b"value")), (None, None));
    }

    #[test]
    fn a_sealed_value_can_be_read_in_its_place_alone() {
        let keys = KeyFile::parse(&line(1, 1)).unwrap();
        let sealed = keys.seal(&[b"one", b"ada"], b"value").unwrap();
        for other in [&[&b"one"[..], b"eve"], &[b"two", b"ada"], &[b"onea", b"da"]] {
            assert_eq!(keys.open(other, &sealed), None);
        }
        let replaced = KeyFile::parse(&line(1, 2)).unwrap();
        assert_eq!(replaced.open(&[b"one", b"ada"], &sealed), None);
        let mut changed = sealed.clone();
        changed.bytes[3] ^= 1;
        assert_eq!(keys.open(&[b"one", b"ada"], &changed), None);
        assert!(!sealed.bytes.windows(5).any(|part| part == b"value"));
    }

    #[test]
    fn faults_are_told_by_line_and_show_no_key() {
        let short = format!("1 {}", STANDARD.encode([1; 31]));
        let twice = format!("{}\n{}", line(1, 1), line(1, 2));
        for (text, number) in [
            ("", 1),
            ("# nothing\n", 1),
            ("1", 1),
            ("\n\none AAAA", 3),
            (&line(0, 1), 1),
            (&short, 1),
            (&twice, 2),
            (&format!("{} more", line(1, 1)), 1),
            ("1 ====", 1),
        ] {
            let invalid = KeyFile::parse(text).unwrap_err();
            assert_eq!(invalid.line, number, "{text:?}");
            assert!(!invalid.to_string().contains("AQEB"), "{invalid}");
        }
    }
}

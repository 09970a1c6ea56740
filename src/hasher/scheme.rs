//! The stored forms of password hashes.
//!
//! bcrypt reads 72 bytes. Passwords of up to 72 bytes are stored as plain `$2b$`; longer ones as passlib's
//! `$bcrypt-sha256$v=2`: bcrypt of base64(HMAC-SHA-256(key = the salt's 22 characters, password)). With a pepper all of them
//! are `$bcrypt-hmac-sha384$v=1`: bcrypt of base64(HMAC-SHA-384(pepper, password)), with the version of the pepper.
//!
//! Sources: OpenBSD's bcrypt.c for `$2b$`; passlib's documentation of `bcrypt_sha256`, "Algorithm", version
//! 2; OWASP's Password Storage Cheat Sheet, "Pre-Hashing Passwords with bcrypt".

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{NO_PAD, STANDARD};
use bcrypt_lanes::{BcryptKey, Digest, MAX_KEY_BYTES, Salt, Variant};
use hmac::{Hmac, KeyInit as _, Mac};
use sha2::{Sha256, Sha384};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::domain::key_file::KeyFile;
use crate::domain::password::PasswordHash;

/// bcrypt's own base64. Some implementations leave bits in the last character that mean nothing.
pub(super) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::BCRYPT, NO_PAD.with_decode_allow_trailing_bits(true));

const BCRYPT: &str = "$2b$";
const BCRYPT_SHA256: &str = "$bcrypt-sha256$v=2,t=2b,r=";

/// The same made elsewhere, of the bytes as they came.
const FOREIGN_BCRYPT_SHA256: &str = "$bcrypt-sha256$v=2,t=2y,r=";

const PEPPERED: &str = PasswordHash::PEPPERED;

/// The prefixes that only our own hashes are stored with.
const OURS: [&str; 3] = [BCRYPT, BCRYPT_SHA256, PEPPERED];

/// The prefixes of plain hashes, and how each reads the password. We write the first.
const IDENTS: [(&str, Variant); 5] = [
    (BCRYPT, Variant::B),
    ("$2a$", Variant::B),
    ("$2y$", Variant::B),
    ("$2x$", Variant::X),
    ("$2$", Variant::Legacy2),
];

/// The input of bcrypt for a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BcryptInput {
    /// The password itself.
    Plain(Variant),
    /// A digest of it that is keyed by the salt.
    Long,
    /// A digest of it that is keyed by the pepper of this version.
    Peppered(u32),
    /// The micro service's: after its constant and a salt of its own.
    Micro([u8; 16]),
}

/// Prefix of the micro service's hashes: it kept the salt beside the hash. The whole is
/// `$micro$SALT$HASH`, with the hash as it stored it, in base64.
const MICRO: &str = "$micro$";

/// The constant that the micro service put before its salt.
const MICRO_CONSTANT: &[u8; 8] = b"cruft123";

impl BcryptInput {
    /// The input that reads every byte of `password`, with the pepper of a version if there is one.
    pub(super) fn of(password: &[u8], pepper: Option<u32>) -> Self {
        match pepper {
            Some(version) => Self::Peppered(version),
            None if password.len() <= MAX_KEY_BYTES => Self::Plain(Variant::B),
            None => Self::Long,
        }
    }

    /// bcrypt's key for `password`; `None` if `keys` lacks the pepper.
    pub(super) fn key(self, salt: &Salt, password: &[u8], keys: &KeyFile) -> Option<BcryptKey> {
        Some(match self {
            Self::Plain(variant) => BcryptKey::new(password, variant),
            Self::Micro(prefix) => {
                let whole = Zeroizing::new([&MICRO_CONSTANT[..], &prefix, password].concat());
                BcryptKey::new(&whole, Variant::B)
            }
            Self::Long => {
                keyed(Hmac::<Sha256>::new_from_slice(BASE64.encode(salt).as_bytes()).ok()?, password)
            }
            Self::Peppered(version) => {
                keyed(Hmac::<Sha384>::new_from_slice(keys.pepper(version)?).ok()?, password)
            }
        })
    }

    /// Returns true if it reads a digest of the password, and so every byte of it.
    fn is_digest(self) -> bool {
        matches!(self, Self::Long | Self::Peppered(_))
    }
}

/// bcrypt's key for a keyed digest of `password`, in base64: no NUL, and no more than bcrypt reads.
fn keyed(mut mac: impl Mac, password: &[u8]) -> BcryptKey {
    mac.update(password);
    let mut digest = mac.finalize().into_bytes();
    let mut text = Zeroizing::new([0_u8; 64]);
    let written = STANDARD.encode_slice(&digest, text.as_mut()).unwrap_or_default();
    digest.as_mut_slice().zeroize();
    debug_assert!(written >= 44, "32 bytes are 44 characters, 48 are 64");
    BcryptKey::new(&text[..written], Variant::B)
}

/// A stored password, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) input: BcryptInput,
    pub(super) cost: u32,
    pub(super) salt: Salt,
    pub(super) digest: Digest,
}

impl Stored {
    /// Reads what [`Stored::to_text`] and other implementations of bcrypt write; `None` if it is anything
    /// else.
    pub(super) fn from_text(hash: &PasswordHash) -> Option<Self> {
        if let Some(rest) = hash.as_str().strip_prefix(MICRO) {
            let (prefix, inner) = rest.split_once('$')?;
            let inner = String::from_utf8(STANDARD.decode(inner).ok()?).ok()?;
            let inner = Self::from_text(&PasswordHash::from_trusted(inner))?;
            let input = BcryptInput::Micro(prefix.as_bytes().try_into().ok()?);
            return (inner.input == BcryptInput::Plain(Variant::B)).then_some(Self { input, ..inner });
        }
        let plain = |(ident, reading)| {
            Some((BcryptInput::Plain(reading), hash.as_str().strip_prefix::<&str>(ident)?))
        };
        let strip = |ident: &str| hash.as_str().strip_prefix::<&str>(ident);
        let (input, rest) = if let Some(rest) = strip(PEPPERED) {
            let (version, rest) = rest.split_once(",r=")?;
            (BcryptInput::Peppered(version.parse().ok()?), rest)
        } else if let Some(rest) = strip(BCRYPT_SHA256).or_else(|| strip(FOREIGN_BCRYPT_SHA256)) {
            (BcryptInput::Long, rest)
        } else {
            IDENTS.into_iter().find_map(plain)?
        };
        let (cost, rest) = rest.split_once('$')?;
        let (salt, digest) = match input {
            BcryptInput::Plain(_) => rest.split_at_checked(22)?,
            _ => rest.split_once('$')?,
        };
        let cost = cost.parse().ok().filter(|cost| (4..=31).contains(cost))?;
        Some(Self { input, cost, salt: decode(salt)?, digest: decode(digest)? })
    }

    /// Returns true if it has the current form: only our own hashes are written `$2b$`, and a pepper of that version is in it
    /// if there is one.
    pub(super) fn is_current(text: &PasswordHash, cost: u32, pepper: Option<u32>) -> bool {
        let fits = |stored: Self| {
            stored.cost >= cost && pepper.is_none_or(|version| stored.input == BcryptInput::Peppered(version))
        };
        !Self::is_foreign(text) && Self::from_text(text).is_some_and(fits)
    }

    /// Returns true if it was made elsewhere, of the bytes as they came.
    pub(super) fn is_foreign(text: &PasswordHash) -> bool {
        !OURS.iter().any(|prefix| text.as_str().starts_with(prefix))
    }

    /// The text under which the hash of another system is kept: where it begins as ours do, `2b` becomes
    /// `2y`, which means the same.
    pub(super) fn imported(text: &str) -> PasswordHash {
        let renamed = [(BCRYPT, "$2y$"), (BCRYPT_SHA256, FOREIGN_BCRYPT_SHA256)]
            .into_iter()
            .find_map(|(ours, theirs)| text.strip_prefix(ours).map(|rest| format!("{theirs}{rest}")));
        PasswordHash::from_trusted(renamed.unwrap_or_else(|| text.to_owned()))
    }

    /// The text to store.
    pub(super) fn to_text(&self) -> PasswordHash {
        let (salt, digest) = (BASE64.encode(self.salt), BASE64.encode(self.digest));
        PasswordHash::from_trusted(match self.input {
            BcryptInput::Long => format!("{BCRYPT_SHA256}{}${salt}${digest}", self.cost),
            BcryptInput::Peppered(version) => format!("{PEPPERED}{version},r={}${salt}${digest}", self.cost),
            _ => format!("{BCRYPT}{:02}${salt}{digest}", self.cost),
        })
    }

    /// Compares bcrypt's `digest` of `password` with ours, in constant time. A password that bcrypt could not
    /// read whole is never right, nor is one with a NUL: bcrypt repeats the password and a NUL until its key
    /// is full, so that a password would be right with a NUL and itself appended.
    pub(super) fn matches(&self, digest: &Digest, password: &[u8]) -> bool {
        let room = match self.input {
            BcryptInput::Plain(_) => MAX_KEY_BYTES,
            BcryptInput::Long | BcryptInput::Peppered(_) => usize::MAX,
            BcryptInput::Micro(prefix) => MAX_KEY_BYTES - MICRO_CONSTANT.len() - prefix.len(),
        };
        let clear = self.input.is_digest() || !password.contains(&0);
        let whole = password.len() <= room && clear;
        bool::from(self.digest.ct_eq(digest)) && whole
    }
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcrypt_lanes::hash_batch;

    const MICRO_HASH: &str = "$micro$abcdefghijklmnop$\
        JDJhJDA0JGFiY2RlZmdoaWprbG1ub3BxcnN0dXVSYTFRMGdxdUF5NFU0VDY5clBYclRSVmxXalkwWVR1";

    /// Made by Python's hmac and libxcrypt.
    const PEPPERED_HASH: &str =
        "$bcrypt-hmac-sha384$v=1,k=3,r=4$abcdefghijklmnopqrstuu$uf/EAjrd8.tTiai9rEjhCjYG6Qj5jEi";

    /// One key, of 32 bytes of `k`, with the version 3.
    fn peppers() -> KeyFile {
        KeyFile::parse("3 a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=").unwrap()
    }

    fn matches(hash: &str, password: &str) -> bool {
        let stored = Stored::from_text(&PasswordHash::from_trusted(hash.to_owned())).unwrap();
        let key = stored.input.key(&stored.salt, password.as_bytes(), &peppers()).unwrap();
        let digest = hash_batch(1 << stored.cost, &[(&key, stored.salt)], &mut || ());
        stored.matches(&digest[0], password.as_bytes())
    }

    /// From OpenBSD's and Openwall's published vectors; the others made by libxcrypt and passlib.
    #[test]
    fn hashes_of_others_are_read() {
        let vectors = [
            ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
            ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U*"),
            ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy", ""),
            ("$2y$05$/OK.fbVrR/bpIqNJ5ianF.PbId.gbuz0cgx5Xo2W5vA1oAqF0lmuS", "\u{a3}\u{a3}"),
            ("$2x$04$abcdefghijklmnopqrstuuUhlRxPKU8bApz79Dq/VNwbM1xeCsz8G", "p\u{e4}ssword"),
            (MICRO_HASH, "correct horse"),
            ("$2$04$abcdefghijklmnopqrstuuHq1QFV79p.2gtAgWqpJyLiGrJ/Z2Fza", "password"),
            (PEPPERED_HASH, "correct horse"),
        ];
        for (hash, password) in vectors {
            assert!(matches(hash, password), "{hash}");
            assert!(!matches(hash, "something else"), "{hash}");
        }
    }

    #[test]
    fn texts_read_back_and_others_are_refused() {
        for input in [BcryptInput::Plain(Variant::B), BcryptInput::Long, BcryptInput::Peppered(3)] {
            let stored = Stored { input, cost: 12, salt: [7; 16], digest: [9; 23] };
            assert_eq!(Stored::from_text(&stored.to_text()), Some(stored));
        }
        let good =
            Stored { input: BcryptInput::of(b"", None), cost: 12, salt: [7; 16], digest: [9; 23] }.to_text();
        let good = good.as_str();
        assert_eq!(good.len(), 60);
        for broken in [
            "",
            "$2b$",
            &good[..59],
            &format!("{good}."),
            &good.replace("$12$", "$99$"),
            "$2b$12$é",
            "$micro$short$JDJh",
            &PEPPERED_HASH.replace("k=3", "k="),
            &PEPPERED_HASH.replace(",r=4", ""),
        ] {
            assert_eq!(Stored::from_text(&PasswordHash::from_trusted(broken.to_owned())), None, "{broken:?}");
        }
    }
}

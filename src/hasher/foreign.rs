//! Password hashes of other systems: read, bounded, and checked once, until ours takes their place.
//!
//! Each is taken apart before any work is done, and what would cost too much time or memory is no hash to us:
//! an import must not be a way to keep a CPU busy.
//!
//! Sources: the PHC string format; RFC 9106 (Argon2), RFC 7914 (scrypt), RFC 8018 (PBKDF2); Drepper, "Unix
//! crypt using SHA-256 and SHA-512"; the manuals of passlib and Django; RFC 2307 and the manual of `OpenLDAP`
//! (`{SSHA}`); Firebase's manual of its scrypt.

mod kdf;
mod unix;

use sha2::digest::Digest;
use subtle::ConstantTimeEq as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::stats::Scheme;
use kdf::Kdf;
use unix::Unix;

/// Longer passwords are not looked at: they were not typed, and some schemes read all of it in every round.
const MAX_PASSWORD: usize = 256;

/// Standard base64, with its padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A hash of another scheme than bcrypt.
#[derive(Debug)]
pub(super) enum Foreign {
    Kdf(Kdf),
    Unix(Unix),
    Ldap(Ldap),
}

impl Foreign {
    /// Takes a text apart; `None` if it is none of ours to read, or costs too much.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.starts_with('{') {
            return Ldap::parse(text).map(Self::Ldap);
        }
        Unix::parse(text).map(Self::Unix).or_else(|| Kdf::parse(text).map(Self::Kdf))
    }

    pub(super) fn scheme(&self) -> Scheme {
        match self {
            Self::Kdf(kdf) => kdf.scheme(),
            Self::Unix(Unix::Sha { .. }) => Scheme::ShaCrypt,
            Self::Unix(Unix::Md5 { .. }) => Scheme::Md5Crypt,
            Self::Unix(Unix::Phpass { .. }) => Scheme::Phpass,
            Self::Ldap(_) => Scheme::Ldap,
        }
    }

    /// About as many rounds of bcrypt as a check takes.
    pub(super) fn rounds(&self) -> u64 {
        match self {
            Self::Kdf(kdf) => kdf.rounds(),
            Self::Unix(unix) => unix.rounds(),
            Self::Ldap(_) => 1,
        }
    }

    /// Returns true if a check takes so much memory that only one may run at a time.
    pub(super) fn is_large(&self) -> bool {
        matches!(self, Self::Kdf(kdf) if kdf.is_large())
    }

    /// Returns true if the hash was made of `password`. Does the same work for one that is too long to be
    /// right.
    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let read = &password[..password.len().min(MAX_PASSWORD)];
        let matches = match self {
            Self::Kdf(kdf) => kdf.matches(read),
            Self::Unix(unix) => unix.matches(read),
            Self::Ldap(ldap) => ldap.matches(read),
        };
        matches && read.len() == password.len()
    }
}

fn constant_time_eq(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// Makes the digest of a password and a salt.
type DigestFn = fn(&[u8], &[u8]) -> Vec<u8>;

/// `{SSHA}` and its family: a digest of password and salt.
#[derive(Debug)]
pub(super) struct Ldap {
    digest: DigestFn,
    salt: Vec<u8>,
    wanted: Vec<u8>,
}

impl Ldap {
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.strip_prefix('{')?.split_once('}')?;
        // Whether it is salted, what makes the digest, and how long that is.
        let (salted, digest, length): (bool, DigestFn, usize) = match &*name.to_ascii_uppercase() {
            "SHA" => (false, digest::<sha1::Sha1>, 20),
            "SSHA" => (true, digest::<sha1::Sha1>, 20),
            "SHA256" => (false, digest::<sha2::Sha256>, 32),
            "SSHA256" => (true, digest::<sha2::Sha256>, 32),
            "SHA384" => (false, digest::<sha2::Sha384>, 48),
            "SSHA384" => (true, digest::<sha2::Sha384>, 48),
            "SHA512" => (false, digest::<sha2::Sha512>, 64),
            "SSHA512" => (true, digest::<sha2::Sha512>, 64),
            "MD5" => (false, digest::<md5::Md5>, 16),
            "SMD5" => (true, digest::<md5::Md5>, 16),
            _ => return None,
        };
        let mut wanted = BASE64.decode(rest).ok()?;
        let salts = if salted { 1..=64 } else { 0..=0 };
        if !salts.contains(&wanted.len().checked_sub(length)?) {
            return None;
        }
        let salt = wanted.split_off(length);
        Some(Self { digest, salt, wanted })
    }

    fn matches(&self, password: &[u8]) -> bool {
        constant_time_eq(&(self.digest)(password, &self.salt), &self.wanted)
    }
}

fn digest<D: Digest>(password: &[u8], salt: &[u8]) -> Vec<u8> {
    D::new().chain_update(password).chain_update(salt).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by passlib 1.7.4, argon2-cffi, Python's hashlib and, the last one, Node's crypto after Firebase's
    /// manual.
    const VECTORS: [(&str, &str); 25] = [
        (
            "$argon2i$v=19$m=64,t=2,p=2$MDEyMzQ1Njc4OWFiY2RlZg$JJ/ZDykYOnhMabOK2tGFjoWMyIA2jiyUS51az8rbHG4",
            "correct horse",
        ),
        (
            "$argon2d$v=19$m=64,t=2,p=2$MDEyMzQ1Njc4OWFiY2RlZg$dOi7cZl2dlo4eu/sTQ2j9syppP/ZDNFzsjFGgjz/J0M",
            "correct horse",
        ),
        (
            "$argon2id$v=19$m=64,t=2,p=2$MDEyMzQ1Njc4OWFiY2RlZg$ehqGRlXhNY90u1mXokuaGpor9OaG4WSZVb4jCfev4ys",
            "correct horse",
        ),
        (
            "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$6g3umF+uVrJsObaTZhIbbTlgrvOEFcCItdwSjtPF67M",
            "correct horse",
        ),
        ("$pbkdf2$1000$MDEyMzQ1Njc4OWFiY2RlZg$aUfE2vx5Q7zgbb0jx49AaNpXUQQ", "correct horse"),
        (
            "$pbkdf2-sha256$1000$MDEyMzQ1Njc4OWFiY2RlZg$cBg8D2DungRB9k76szThf5ehfyBz991ay6PT8Srwk4M",
            "correct horse",
        ),
        (
            "$pbkdf2-sha512$1000$MDEyMzQ1Njc4OWFiY2RlZg$OM0FAoIqCVK1sWtxDiffVlBejtLa.ks4TP71JiecwuSZCG8iLbnlIEPOMoVX.i2B2wkSxjQ8CRGR9OkNGuIPMQ",
            "correct horse",
        ),
        (
            "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$cBg8D2DungRB9k76szThf5ehfyBz991ay6PT8Srwk4M",
            "correct horse",
        ),
        ("pbkdf2_sha256$1000$abcdefghijkl$0zdgqPwvrX5uWgeujZ5fdcMXA2ja2gN9VYtiAbPFU+8=", "correct horse"),
        ("pbkdf2_sha1$1000$abcdefghijkl$m6m7QoCulz2KolJJ9H4YgcRBW3M=", "pässword"),
        ("$5$rounds=1000$saltstring$95Bg/RfV2QriLpMdLPHK9el0Ighm6E3CBqMKzZKgCa2", "correct horse"),
        ("$5$saltstring$cRBhKSfYzTy7ht1J5qVPFV0KZImJ0U5L5Ezw0UdIOW4", "pässword"),
        (
            "$6$rounds=1000$saltstringsaltst$fmYqb4JKm05WLXGJMRHuQOZXNe4wDzsK5qLoIb0tddV8FbQ6gqRVG4uQBicb5RsnsOFMaer488CJYpD4E4udg/",
            "pässword",
        ),
        (
            "$6$saltstring$.r0X7ub5wGR2v4Xz7svCIozfnlorFh19V89t8KC9Umd81uGhFgsyTRNyzQDXDIm17fFcR9z3z7oBNdsyYBbtm/",
            "correct horse",
        ),
        ("$1$abcdefgh$y6iHhJNbuC0xpbk0w9pm80", "correct horse"),
        ("$1$ab$zSxXTAOa3MsUL6fbBrrN71", "pässword"),
        ("$P$6abcdefghRJFCMvnAbZH2hCiFPRxpk.", "correct horse"),
        ("$H$9abcdefgh9s5ihB6uQzEoMsORuqCyu1", "pässword"),
        ("{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=", "correct horse"),
        ("{SSHA}MBnGJd/YH4bL3ClAfmQJWjevZr5Zq7WW", "correct horse"),
        ("{SSHA256}OZq33c6A0redJZLWEZPsNDhBXxlD21G/QoaxXS+9xSgsRajVupdSig==", "correct horse"),
        (
            "{SSHA512}hmPwwVW1VFe8AZ59LX9cR7rXalYKdP8WDqRN9Tfl/FhM/+edZsmNj/dY4jrwAC9aAF3lu/dKF/7uXOEBrXdGcGtN6T0HYGwN",
            "pässword",
        ),
        ("{SMD5}UVqygzXeuDCscyOGZ+c1XcG4l7I=", "correct horse"),
        ("{MD5}PLTnMmMfR+brlh80VUt83g==", "correct horse"),
        (
            "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==$42xEC+ixf3L2lw==$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==",
            "user1password",
        ),
    ];

    fn checks(hash: &str, password: &str) {
        let foreign = Foreign::parse(hash).unwrap_or_else(|| panic!("{hash} is not read"));
        assert!(foreign.matches(password.as_bytes()), "{hash}");
        let cut = &password[..password.len() - 1];
        for wrong in ["", cut, &format!("{password} "), &"x".repeat(5_000)] {
            assert!(!foreign.matches(wrong.as_bytes()), "{hash} {wrong:?}");
        }
    }

    #[test]
    fn hashes_of_others_are_checked() {
        for (hash, password) in VECTORS {
            checks(hash, password);
        }
    }

    /// Defect 14 of other services: an import as a bomb.
    #[test]
    fn what_costs_too_much_or_is_broken_is_no_hash() {
        let (salt, digest) = ("MDEyMzQ1Njc4OWFiY2RlZg", "ehqGRlXhNY90u1mXokuaGpor9OaG4WSZVb4jCfev4ys");
        let refused = [
            format!("$argon2id$v=19$m=4194304,t=1,p=1${salt}${digest}"),
            format!("$argon2id$v=19$m=65536,t=1000,p=1${salt}${digest}"),
            format!("$argon2id$v=19$m=4,t=1,p=1${salt}${digest}"),
            format!("$argon2id$v=19$m=64,t=0,p=1${salt}${digest}"),
            format!("$argon2id$v=18$m=64,t=1,p=1${salt}${digest}"),
            format!("$argon2x$v=19$m=64,t=1,p=1${salt}${digest}"),
            format!("$argon2id$v=19$m=64,t=1${salt}${digest}"),
            format!("$argon2id$v=19$m=64,t=1,p=1${salt}$"),
            format!("$argon2id$v=19$m=64,t=1,p=1${salt}${digest}$x"),
            // A salt that Argon2 does not take, and what would change the hash and is not known.
            format!("$argon2id$v=19$m=64,t=1,p=1$MDEy${digest}"),
            format!("$argon2id$v=19$m=64,t=1,p=1,keyid=AAAA${salt}${digest}"),
            "$6$$.r0X7ub5wGR2v4Xz7svCIozfnlorFh19V89t8KC9Umd81uGhFgsyTRNyzQDXDIm17fFcR9z3z7oBNdsyYBbtm/"
                .to_owned(),
            "$1$ab\0$zSxXTAOa3MsUL6fbBrrN71".to_owned(),
            // Many blocks, each of all the iterations; and too few.
            format!("$pbkdf2$2000000${salt}${}", "A".repeat(160)),
            format!("$pbkdf2-sha256$999${salt}${digest}"),
            format!("$scrypt$ln=9,r=8,p=1${salt}${digest}"),
            format!("$scrypt$ln=31,r=8,p=1${salt}${digest}"),
            format!("$scrypt$ln=20,r=8,p=1${salt}${digest}"),
            format!("$scrypt$ln=14,r=4096,p=1${salt}${digest}"),
            format!("$scrypt$ln=14,r=8,p=1000${salt}${digest}"),
            format!("$pbkdf2-sha256$4000000000${salt}${digest}"),
            format!("$pbkdf2-sha256$0${salt}${digest}"),
            format!("$pbkdf2-md5$1000${salt}${digest}"),
            format!("pbkdf2_sha256$99999999$salt${digest}"),
            "$5$rounds=999999999$salt$cRBhKSfYzTy7ht1J5qVPFV0KZImJ0U5L5Ezw0UdIOW4".to_owned(),
            "$5$rounds=10$salt$cRBhKSfYzTy7ht1J5qVPFV0KZImJ0U5L5Ezw0UdIOW4".to_owned(),
            "$5$salt$short".to_owned(),
            "$P$RabcdefghRJFCMvnAbZH2hCiFPRxpk.".to_owned(),
            "$P$6abcdefghRJFCMvnAbZH2hCiFPRxpk".to_owned(),
            "$1$abcdefgh$y6iHhJNbuC0xpbk0w9pm8".to_owned(),
            "$1$abcdefghi$y6iHhJNbuC0xpbk0w9pm80".to_owned(),
            "{SSHA}L55TUjtiq8FBorTWAZ0jy6g129A=".to_owned(),
            "{SHA}MBnGJd/YH4bL3ClAfmQJWjevZr5Zq7WW".to_owned(),
            "{CRYPT}$1$ab$zSxXTAOa3MsUL6fbBrrN71".to_owned(),
            "{CLEARTEXT}password".to_owned(),
            "password".to_owned(),
            String::new(),
        ];
        for text in refused {
            assert!(Foreign::parse(&text).is_none(), "{text}");
        }
    }
}

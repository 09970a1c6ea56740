//! Hashes of `/etc/shadow` and of PHP applications: sha-crypt, md5-crypt and phpass.
//!
//! Sources: the manual of crypt(5); Kamp's md5-crypt as FreeBSD published it; Openwall's phpass.

use md5::{Digest as _, Md5};
use sha_crypt::{PasswordVerifier as _, ShaCrypt};

use super::constant_time_eq;

/// Iterations of sha-crypt: its own floor, and a ceiling far below its own, which takes minutes.
const SHA_ROUNDS: std::ops::RangeInclusive<u32> = 1_000..=1_000_000;

/// The digits of all three, the least significant first.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[derive(Debug)]
pub(in super::super) enum Unix {
    /// The text with its rounds spelled out.
    Sha {
        text: String,
        rounds: u32,
    },
    Md5 {
        salt: Vec<u8>,
        wanted: String,
    },
    Phpass {
        doublings: u32,
        salt: Vec<u8>,
        wanted: String,
    },
}

impl Unix {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let clean = |text: &str| text.bytes().all(|byte| DIGITS.contains(&byte));
        let fields: Vec<&str> = text.split('$').collect();
        match fields[..] {
            ["", "1", salt, wanted]
                if salt.len() <= 8 && wanted.len() == 22 && clean(salt) && clean(wanted) =>
            {
                Some(Self::Md5 { salt: salt.as_bytes().to_vec(), wanted: wanted.to_owned() })
            }
            ["", "P" | "H", rest] if rest.len() == 31 && clean(rest) => {
                let doublings = DIGITS.iter().position(|digit| *digit == rest.as_bytes()[0])?;
                let doublings = u32::try_from(doublings).ok().filter(|n| (7..=20).contains(n))?;
                let salt = rest.as_bytes()[1..9].to_vec();
                Some(Self::Phpass { doublings, salt, wanted: rest[9..].to_owned() })
            }
            ["", kind @ ("5" | "6"), salt, wanted] => Self::sha(kind, 5_000, salt, wanted),
            ["", kind @ ("5" | "6"), rounds, salt, wanted] => {
                Self::sha(kind, rounds.strip_prefix("rounds=")?.parse().ok()?, salt, wanted)
            }
            _ => None,
        }
    }

    fn sha(kind: &str, rounds: u32, salt: &str, wanted: &str) -> Option<Self> {
        let length = if kind == "5" { 43 } else { 86 };
        let digits = salt.bytes().chain(wanted.bytes()).all(|byte| DIGITS.contains(&byte));
        let lengths = wanted.len() == length && (1..=16).contains(&salt.len());
        let fits = SHA_ROUNDS.contains(&rounds) && digits && lengths;
        fits.then(|| Self::Sha { text: format!("${kind}$rounds={rounds}${salt}${wanted}"), rounds })
    }

    pub(super) fn rounds(&self) -> u64 {
        match self {
            Self::Sha { rounds, .. } => u64::from(*rounds) / 100 + 1,
            Self::Md5 { .. } => 5,
            Self::Phpass { doublings, .. } => (1 << doublings) / 300 + 1,
        }
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        match self {
            Self::Sha { text, .. } => ShaCrypt::default().verify_password(password, text.as_str()).is_ok(),
            Self::Md5 { salt, wanted } => {
                constant_time_eq(md5_crypt(password, salt).as_bytes(), wanted.as_bytes())
            }
            Self::Phpass { doublings, salt, wanted } => {
                constant_time_eq(phpass(password, salt, *doublings).as_bytes(), wanted.as_bytes())
            }
        }
    }
}

/// MD5 again and again, each time of the digest before and the password.
fn phpass(password: &[u8], salt: &[u8], doublings: u32) -> String {
    let mut digest = Md5::new().chain_update(salt).chain_update(password).finalize();
    for _ in 0..1_u32 << doublings {
        digest = Md5::new().chain_update(digest).chain_update(password).finalize();
    }
    let mut text = String::with_capacity(22);
    for bytes in digest.chunks(3) {
        let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
        digits(&mut text, number, bytes.len() + 1);
    }
    text
}

fn md5_crypt(password: &[u8], salt: &[u8]) -> String {
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut first = Md5::new().chain_update(password).chain_update(b"$1$").chain_update(salt);
    for chunk in password.chunks(16) {
        first.update(&inner[..chunk.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        // Meant to be a byte of the digest, it became a NUL, and so it stayed.
        first.update(if bits & 1 == 1 { &[0] } else { &password[..1] });
        bits >>= 1;
    }
    let mut digest = first.finalize();
    for round in 0..1_000 {
        let mut next = Md5::new();
        let odd = round % 2 == 1;
        next.update(if odd { password } else { &digest[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if odd { &digest[..] } else { password });
        digest = next.finalize();
    }
    let mut text = String::with_capacity(22);
    for [high, middle, low] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        let number = [high, middle, low].iter().fold(0, |number, at| number << 8 | u32::from(digest[*at]));
        digits(&mut text, number, 4);
    }
    digits(&mut text, u32::from(digest[11]), 2);
    text
}

/// Writes the last `count` digits of six bits.
fn digits(text: &mut String, mut number: u32, count: usize) {
    for _ in 0..count {
        text.push(char::from(DIGITS[(number & 63) as usize]));
        number >>= 6;
    }
}

//! bcrypt, several hashes in lock-step on one thread.
//!
//! Each step of Blowfish waits for the table look-ups of the one before, so a single hash leaves most of a core idle.
//! Hashes that have nothing to do with each other fill these gaps: here `N` of them advance step by step together. Five
//! take little longer than one as long as their tables, 4 KiB each, fit the first cache.
//!
//! Sources: Provos and Mazières, "A Future-Adaptable Password Scheme", USENIX 1999 (`EksBlowfish`, bcrypt); Schneier,
//! "Description of a New Variable-Length Key, 64-Bit Block Cipher (Blowfish)", FSE 1993; Openwall's notice on
//! `crypt_blowfish` 1.1 (the sign extension of `2x`).

use std::array::from_fn;

use zeroize::{Zeroize as _, Zeroizing};

/// bcrypt's salt.
pub(super) type Salt = [u8; 16];
/// What bcrypt gives: 24 bytes, of which every implementation keeps 23.
pub(super) type Digest = [u8; 23];

/// Most hashes that run in lock-step. More do not pay: their tables leave the first cache.
pub(super) const MOST: usize = 8;

/// Most bytes of a password that bcrypt reads.
pub(super) const KEY_BYTES: usize = 72;

// The words of pi behind its point.
include!(concat!(env!("OUT_DIR"), "/pi.rs"));

/// What bcrypt encrypts in the end: `OrpheanBeholderScryDoubt`.
const TEXT: [[u32; 2]; 3] =
    [[0x4f72_7068, 0x6561_6e42], [0x6568_6f6c, 0x6465_7253], [0x6372_7944, 0x6f75_6274]];

/// Ways to read a password that `$2..$` tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// `2b`, and `2a` and `2y`, which mean the same: the bytes and a NUL.
    Whole,
    /// `2`: the bytes without a NUL.
    Bare,
    /// `2x`: as `Whole`, but a byte above 127 wipes out those before it in its word, as a bug once did.
    Signed,
}

/// bcrypt's key: 72 bytes as words. Wiped when dropped, and in one place till then: what moves leaves copies.
pub(super) struct Key(Box<Zeroizing<[u32; 18]>>);

impl Key {
    /// The first 72 bytes of `password`, over and over: the caller sees to it that more do not matter.
    pub(super) fn new(password: &[u8], reading: Reading) -> Self {
        let end: &[u8] = match reading {
            Reading::Bare if !password.is_empty() => &[],
            _ => &[0],
        };
        let mut bytes = password.iter().chain(end).cycle();
        let mut words = Box::new(Zeroizing::new([0; 18]));
        for word in words.iter_mut() {
            for byte in bytes.by_ref().take(4) {
                let byte = match reading {
                    Reading::Signed => i32::from(byte.cast_signed()).cast_unsigned(),
                    Reading::Whole | Reading::Bare => u32::from(*byte),
                };
                *word = *word << 8 | byte;
            }
        }
        Self(words)
    }
}

/// bcrypt of each job in so many rounds, 2^cost of them, in lock-step. Calls `pause` before each round:
/// about every 0.06 ms.
pub(super) fn bcrypt(rounds: u64, jobs: &[(&Key, Salt)], mut pause: impl FnMut()) -> Vec<Digest> {
    let (mut digests, pause) = (Vec::with_capacity(jobs.len()), &mut pause);
    for jobs in jobs.chunks(MOST) {
        match jobs.len() {
            1 => in_lanes::<1>(rounds, jobs, pause, &mut digests),
            2 => in_lanes::<2>(rounds, jobs, pause, &mut digests),
            3 => in_lanes::<3>(rounds, jobs, pause, &mut digests),
            4 => in_lanes::<4>(rounds, jobs, pause, &mut digests),
            5 => in_lanes::<5>(rounds, jobs, pause, &mut digests),
            6 => in_lanes::<6>(rounds, jobs, pause, &mut digests),
            7 => in_lanes::<7>(rounds, jobs, pause, &mut digests),
            _ => in_lanes::<8>(rounds, jobs, pause, &mut digests),
        }
    }
    digests
}

/// The digests of `N` jobs.
fn in_lanes<const N: usize>(
    rounds: u64,
    jobs: &[(&Key, Salt)],
    pause: &mut impl FnMut(),
    digests: &mut Vec<Digest>,
) {
    let salts: [[u32; N]; 4] = from_fn(|word| from_fn(|lane| salt_word(&jobs[lane].1, word)));
    let keys = Zeroizing::new(from_fn(|word| from_fn(|lane| jobs[lane].0.0[word])));
    let cycled = from_fn(|word| salts[word % 4]);
    let mut state = Lanes::<N>::new();
    state.expand::<true>(&keys, &salts);
    for _ in 0..rounds {
        pause();
        state.expand::<false>(&keys, &salts);
        state.expand::<false>(&cycled, &salts);
    }
    let words = state.encrypt();
    digests.extend((0..N).map(|lane| {
        let mut bytes = [0; 24];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(&words) {
            bytes.copy_from_slice(&word[lane].to_be_bytes());
        }
        from_fn(|at| bytes[at])
    }));
}

fn salt_word(salt: &Salt, word: usize) -> u32 {
    salt[4 * word..4 * word + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// Blowfish's tables of each lane. What all lanes do with one word of `p` stands together; the `s` of a lane are only
/// read by that lane.
struct Lanes<const N: usize> {
    p: [[u32; N]; 18],
    s: [[[u32; 256]; 4]; N],
}

#[expect(clippy::needless_range_loop, reason = "a lane is the same index in several arrays")]
impl<const N: usize> Lanes<N> {
    fn new() -> Self {
        let p = from_fn(|word| [PI[word]; N]);
        Self { p, s: [from_fn(|table| from_fn(|word| PI[18 + 256 * table + word])); N] }
    }

    /// Blowfish's function F on one lane. No look-up is out of bounds, so none is checked.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs as much as the function, a billion times")]
    fn mixed(&self, lane: usize, word: u32) -> u32 {
        let [a, b, c, d] = word.to_be_bytes();
        let tables = &self.s[lane];
        let sum = tables[0][usize::from(a)].wrapping_add(tables[1][usize::from(b)]);
        (sum ^ tables[2][usize::from(c)]).wrapping_add(tables[3][usize::from(d)])
    }

    /// Encrypts a block of each lane.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs as much as the function, a billion times")]
    fn encipher(&self, left: &mut [u32; N], right: &mut [u32; N]) {
        for lane in 0..N {
            left[lane] ^= self.p[0][lane];
        }
        for round in (1..17).step_by(2) {
            for lane in 0..N {
                right[lane] ^= self.mixed(lane, left[lane]) ^ self.p[round][lane];
            }
            for lane in 0..N {
                left[lane] ^= self.mixed(lane, right[lane]) ^ self.p[round + 1][lane];
            }
        }
        for lane in 0..N {
            right[lane] ^= self.p[17][lane];
        }
        std::mem::swap(left, right);
    }

    /// `ExpandKey`: mixes `keys` into all tables, and `salts` where `SALTED`.
    fn expand<const SALTED: bool>(&mut self, keys: &[[u32; N]; 18], salts: &[[u32; N]; 4]) {
        for (word, key) in self.p.iter_mut().zip(keys) {
            for lane in 0..N {
                word[lane] ^= key[lane];
            }
        }
        let (mut left, mut right) = ([0; N], [0; N]);
        for at in (0..18).step_by(2) {
            self.next::<SALTED>(at, salts, &mut left, &mut right);
            (self.p[at], self.p[at + 1]) = (left, right);
        }
        for table in 0..4 {
            for at in (0..256).step_by(2) {
                // Behind the 18 words of `p`, two of a round of four: the salt goes on with its other half.
                self.next::<SALTED>(at + 2, salts, &mut left, &mut right);
                for lane in 0..N {
                    self.s[lane][table][at] = left[lane];
                    self.s[lane][table][at + 1] = right[lane];
                }
            }
        }
    }

    /// The next block of what the tables are overwritten with.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs as much as the function, a billion times")]
    fn next<const SALTED: bool>(
        &self,
        at: usize,
        salts: &[[u32; N]; 4],
        left: &mut [u32; N],
        right: &mut [u32; N],
    ) {
        if SALTED {
            for lane in 0..N {
                left[lane] ^= salts[at % 4][lane];
                right[lane] ^= salts[(at + 1) % 4][lane];
            }
        }
        self.encipher(left, right);
    }

    /// The text, encrypted 64 times with each lane's tables.
    fn encrypt(&self) -> [[u32; N]; 6] {
        let mut words = [[0; N]; 6];
        for (block, words) in TEXT.iter().zip(words.as_chunks_mut::<2>().0) {
            let [left, right] = words;
            (*left, *right) = ([block[0]; N], [block[1]; N]);
            for _ in 0..64 {
                self.encipher(left, right);
            }
        }
        words
    }
}

/// The tables say as much as the password.
impl<const N: usize> Drop for Lanes<N> {
    fn drop(&mut self) {
        self.p.zeroize();
        self.s.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::super::scheme::BASE64;
    use super::*;

    fn one(cost: u32, password: &[u8], reading: Reading, salt: Salt) -> Digest {
        bcrypt(1 << cost, &[(&Key::new(password, reading), salt)], || ())[0]
    }

    /// What the crate `bcrypt` says.
    fn expected(cost: u32, password: &[u8], salt: Salt) -> Digest {
        let mut key: Vec<u8> = password.iter().copied().chain([0]).collect();
        key.truncate(KEY_BYTES);
        let full = bcrypt::bcrypt(cost, salt, &key);
        from_fn(|at| full[at])
    }

    #[test]
    fn the_tables_begin_with_the_digits_of_pi() {
        assert_eq!(PI[..3], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e]);
        assert_eq!(PI[18..20], [0xd131_0ba6, 0x98df_b5ac]);
        assert_eq!(PI[1040..], [0x578f_dfe3, 0x3ac3_72e6]);
    }

    /// From the tests of Openwall's `crypt_blowfish` and of OpenBSD, some made once more by libxcrypt.
    #[test]
    fn published_hashes_are_ours() {
        let long = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored";
        let vectors: &[(&str, &[u8])] = &[
            ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*U"),
            ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", b"U*U*"),
            ("$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a", b"U*U*U"),
            ("$2y$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy", b""),
            ("$2x$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", b"\xa3"),
            ("$2y$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq", b"\xa3"),
            (
                "$2x$05$/OK.fbVrR/bpIqNJ5ianF.8fp964kVQpZ4veCdXarjwUwFGeBXxaK",
                b"\xff\xa3\x34\xff\xff\xff\xa3345",
            ),
            ("$2x$04$abcdefghijklmnopqrstuuiV3/Y12RmKyYxqG7kbIWNyF80H7TccS", b"caf\xc3\xa9 \xff\xfe"),
            ("$2y$05$/OK.fbVrR/bpIqNJ5ianF.H.F9mAruG1jsgVpi07BfTVuqCZD9obe", long),
        ];
        for (hash, password) in vectors {
            let reading = if hash.starts_with("$2x") { Reading::Signed } else { Reading::Whole };
            let (salt, digest) = hash[7..].split_at(22);
            let salt: Salt = BASE64.decode(salt).unwrap().try_into().unwrap();
            let digest: Digest = BASE64.decode(digest).unwrap().try_into().unwrap();
            let cost = hash[4..6].parse().unwrap();
            assert_eq!(one(cost, password, reading, salt), digest, "{hash}");
            assert_ne!(one(cost, b"something else", reading, salt), digest, "{hash}");
        }
    }

    /// Every number of lanes, every length to 72 and beyond, bytes of every value.
    #[test]
    fn ten_thousand_random_hashes_are_those_of_the_bcrypt_crate() {
        const BATCHES: usize = 2_224; // of 1 to 8
        let threads = std::thread::available_parallelism().unwrap().get();
        let compared = std::thread::scope(|scope| {
            let batches = |first| (first..BATCHES).step_by(threads).map(compare).sum::<usize>();
            let running: Vec<_> = (0..threads).map(|first| scope.spawn(move || batches(first))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert!(compared > 10_000, "{compared}");
    }

    /// Hashes a batch of random passwords and salts both ways. How many.
    fn compare(batch: usize) -> usize {
        let cases: Vec<(Vec<u8>, Salt)> = (0..=batch % MOST)
            .map(|lane| {
                let mut random = [0; 100];
                getrandom::fill(&mut random).unwrap();
                let length = (batch / MOST + 11 * lane) % 85;
                (random[16..16 + length].to_vec(), from_fn(|at| random[at]))
            })
            .collect();
        let keys: Vec<Key> = cases.iter().map(|(password, _)| Key::new(password, Reading::Whole)).collect();
        let jobs: Vec<(&Key, Salt)> = keys.iter().zip(&cases).map(|(key, case)| (key, case.1)).collect();
        let wanted: Vec<Digest> = cases.iter().map(|(password, salt)| expected(4, password, *salt)).collect();
        assert_eq!(bcrypt(16, &jobs, || ()), wanted, "{cases:?}");
        cases.len()
    }

    #[test]
    fn every_cost_makes_as_many_rounds() {
        for cost in 4..=8 {
            assert_eq!(one(cost, b"password", Reading::Whole, [3; 16]), expected(cost, b"password", [3; 16]));
        }
    }

    #[test]
    fn without_its_end_a_password_is_another_key() {
        let (bare, whole) = (Reading::Bare, Reading::Whole);
        assert_ne!(one(4, b"abc", bare, [1; 16]), one(4, b"abc", whole, [1; 16]));
        assert_eq!(one(4, b"abc", bare, [1; 16]), one(4, &b"abc".repeat(24), whole, [1; 16]));
        assert_eq!(one(4, b"", bare, [1; 16]), one(4, b"", whole, [1; 16]));
    }
}

//! bcrypt, several hashes in lock-step on one thread.
//!
//! Each step of Blowfish waits for the table look-ups of the one before, so a single hash leaves most of a core idle.
//! Independent hashes fill these gaps: here `N` of them advance step by step together. Five take little longer than one
//! as long as their tables, 4 KiB each, fit the first-level cache.
//!
//! A crate of its own, so that a profile can name it: tests hash at full speed while the service is compiled without
//! optimisation. For that nothing public is generic, or it would be compiled where it is used.
//!
//! Sources: Provos and Mazières, "A Future-Adaptable Password Scheme", USENIX 1999 (`EksBlowfish`, bcrypt); Schneier,
//! "Description of a New Variable-Length Key, 64-Bit Block Cipher (Blowfish)", FSE 1993; Openwall's notice on
//! `crypt_blowfish` 1.1 (the sign extension of `2x`).

mod pi;

use std::array::from_fn;

use zeroize::{Zeroize as _, Zeroizing};

use pi::PI;

/// A salt of bcrypt.
pub type Salt = [u8; 16];
/// The result of bcrypt: 24 bytes, of which every implementation keeps 23.
pub type Digest = [u8; 23];

/// Most hashes that run in lock-step. The tables of more would not fit the first-level cache.
pub const MAX_LANES: usize = 8;

/// Most bytes of a password that bcrypt reads.
pub const MAX_KEY_BYTES: usize = 72;

/// The text that bcrypt encrypts in the end: `OrpheanBeholderScryDoubt`.
const TEXT: [[u32; 2]; 3] =
    [[0x4f72_7068, 0x6561_6e42], [0x6568_6f6c, 0x6465_7253], [0x6372_7944, 0x6f75_6274]];

/// How the bytes of a password become a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// `2b`, and `2a` and `2y`, which mean the same: the bytes and a NUL.
    B,
    /// `2`: the bytes without a NUL.
    Legacy2,
    /// `2x`: as `B`, but a byte above 127 overwrites those before it in its word with ones, as a bug once did.
    X,
}

/// The key of a hash: 72 bytes as words. Zeroed when dropped, and never moved until then: a move leaves a copy.
pub struct BcryptKey(Box<Zeroizing<[u32; 18]>>);

impl BcryptKey {
    /// The first 72 bytes of `password`, repeated until they are full. The caller refuses longer passwords where the
    /// rest matters.
    pub fn new(password: &[u8], variant: Variant) -> Self {
        let end: &[u8] = match variant {
            Variant::Legacy2 if !password.is_empty() => &[],
            _ => &[0],
        };
        let mut bytes = password.iter().chain(end).cycle();
        let mut words = Box::new(Zeroizing::new([0; 18]));
        for word in words.iter_mut() {
            for byte in bytes.by_ref().take(4) {
                let byte = match variant {
                    Variant::X => i32::from(byte.cast_signed()).cast_unsigned(),
                    Variant::B | Variant::Legacy2 => u32::from(*byte),
                };
                *word = *word << 8 | byte;
            }
        }
        Self(words)
    }
}

/// bcrypt of each job with so many rounds, 2^cost of them, in lock-step. Calls `pause` before each round: about every
/// 0.06 ms.
pub fn hash_batch(rounds: u64, jobs: &[(&BcryptKey, Salt)], pause: &mut dyn FnMut()) -> Vec<Digest> {
    let mut digests = Vec::with_capacity(jobs.len());
    for jobs in jobs.chunks(MAX_LANES) {
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
    jobs: &[(&BcryptKey, Salt)],
    pause: &mut dyn FnMut(),
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

/// The Blowfish tables of each lane. `p` is interleaved, since all lanes use the same word of it at the same time; a lane
/// reads its own part of `s` only.
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
    fn f(&self, lane: usize, word: u32) -> u32 {
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
                right[lane] ^= self.f(lane, left[lane]) ^ self.p[round][lane];
            }
            for lane in 0..N {
                left[lane] ^= self.f(lane, right[lane]) ^ self.p[round + 1][lane];
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
                // The 18 words of `p` end in the middle of the salt: the tables go on with its other half.
                self.next::<SALTED>(at + 2, salts, &mut left, &mut right);
                for lane in 0..N {
                    self.s[lane][table][at] = left[lane];
                    self.s[lane][table][at + 1] = right[lane];
                }
            }
        }
    }

    /// The next block that overwrites a part of the tables.
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

/// The tables reveal as much as the password.
impl<const N: usize> Drop for Lanes<N> {
    fn drop(&mut self) {
        self.p.zeroize();
        self.s.zeroize();
    }
}

#[cfg(test)]
mod tests;

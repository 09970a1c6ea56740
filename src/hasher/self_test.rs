//! Proves bcrypt in lanes against the crate `bcrypt` before the first password, and times it.

use std::time::{Duration, Instant};

use bcrypt_lanes::{BcryptKey, Digest, MAX_LANES, Salt, Variant, hash_batch};

use super::queue::Speed;

/// 2^`COST` rounds: a single one goes through all of the code, and the whole test takes about 3 ms.
const COST: u32 = 0;

/// The time of a hash beside its rounds, as a part of one: the salted expansion is half a round, the
/// encryption of the text at the end 192 blocks of a round's 1,042.
const FIXED_ROUNDS: f64 = 0.5 + 192.0 / 1_042.0;

/// Batches of each size, of different cases; the shortest time counts, since others were interrupted.
const TRIES: usize = 3;

/// Passwords, and the bytes that the crate, which knows one variant, gets as its key in place of each.
const CASES: [(Variant, &[u8], &[u8]); 8] = [
    (Variant::B, b"", b"\0"),
    (Variant::B, b"correct horse", b"correct horse\0"),
    (Variant::B, b"caf\xc3\xa9 \xff\xfe", b"caf\xc3\xa9 \xff\xfe\0"),
    (Variant::B, b"before\0after", b"before\0after\0"),
    (Variant::B, SEVENTY_TWO, SEVENTY_TWO),
    (
        Variant::B,
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 and more",
        SEVENTY_TWO,
    ),
    (Variant::Legacy2, b"correct horse", b"correct horse"),
    // The sign of the second byte overwrites the first.
    (Variant::X, b"a\xa3b", b"\xff\xa3b\0"),
];
const SEVENTY_TWO: &[u8; 72] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// This machine, or this build, computes bcrypt wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the self-test of password hashing failed: {lanes} bcrypt hashes computed together differ from those of the \
     reference implementation, so passwords would be stored and checked wrongly; this build or this machine is faulty"
)]
pub struct SelfTestFailed {
    lanes: usize,
}

type HashBatch = fn(u64, &[(&BcryptKey, Salt)], &mut dyn FnMut()) -> Vec<Digest>;

/// Hashes batches of every size up to `lanes`, the sizes that will be in use. Returns what a round takes in
/// each.
pub(super) fn run(lanes: usize) -> Result<Speed, SelfTestFailed> {
    run_with(hash_batch, lanes)
}

fn run_with(hash: HashBatch, most: usize) -> Result<Speed, SelfTestFailed> {
    let keys = CASES.map(|(variant, password, _)| BcryptKey::new(password, variant));
    let salts: [Salt; CASES.len()] = std::array::from_fn(salt);
    let expected: [Digest; CASES.len()] = std::array::from_fn(|case| reference(CASES[case].2, salts[case]));
    let (mut speed, mut cases) = ([0.0; MAX_LANES + 1], (0..CASES.len()).cycle());
    for (lanes, nanos) in speed.iter_mut().enumerate().take(most + 1).skip(1) {
        let mut shortest = Duration::MAX;
        for _ in 0..TRIES {
            let batch: Vec<usize> = cases.by_ref().take(lanes).collect();
            let jobs: Vec<(&BcryptKey, Salt)> =
                batch.iter().map(|case| (&keys[*case], salts[*case])).collect();
            let begun = Instant::now();
            let digests = hash(1 << COST, &jobs, &mut || ());
            shortest = shortest.min(begun.elapsed());
            if !digests.iter().eq(batch.iter().map(|case| &expected[*case])) {
                return Err(SelfTestFailed { lanes });
            }
        }
        *nanos = shortest.as_secs_f64() * 1e9 / (f64::from(1 << COST) + FIXED_ROUNDS);
    }
    Ok(speed)
}

/// Different for each case.
fn salt(case: usize) -> Salt {
    let mut salt = *b"0123456789\x80\xff\0abc";
    salt.rotate_left(case);
    salt
}

/// The digest by the crate `bcrypt`.
fn reference(key: &[u8], salt: Salt) -> Digest {
    let digest = bcrypt::bcrypt(COST, salt, key);
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_size_in_use_is_proven_and_timed() {
        for lanes in 1..=MAX_LANES {
            let speed = run(lanes).unwrap();
            assert!(speed[1..=lanes].iter().all(|nanos| *nanos > 0.0), "{speed:?}");
            assert!(speed[lanes + 1..].iter().all(|nanos| *nanos == 0.0), "{speed:?}");
        }
    }

    #[test]
    fn one_wrong_bit_in_one_lane_is_found() {
        let wrong_in_three: HashBatch = |rounds, jobs, pause| {
            let mut digests = hash_batch(rounds, jobs, pause);
            if let Some(digest) = digests.get_mut(2) {
                digest[22] ^= 1;
            }
            digests
        };
        assert!(run_with(wrong_in_three, 2).is_ok());
        assert_eq!(run_with(wrong_in_three, 5), Err(SelfTestFailed { lanes: 3 }));
    }

    #[test]
    fn missing_digests_are_found() {
        let none: HashBatch = |_, _, _| Vec::new();
        assert_eq!(run_with(none, 1), Err(SelfTestFailed { lanes: 1 }));
    }
}

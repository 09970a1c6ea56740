//! Against published hashes and the crate `bcrypt`.

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::NO_PAD;
use rand::TryRng as _;
use rand::rngs::SysRng;

use super::*;

/// bcrypt's own base64. Some implementations leave bits in the last character that mean nothing.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::BCRYPT, NO_PAD.with_decode_allow_trailing_bits(true));

fn one(cost: u32, password: &[u8], variant: Variant, salt: Salt) -> Digest {
    hash_batch(1 << cost, &[(&BcryptKey::new(password, variant), salt)], &mut || ())[0]
}

/// What the crate `bcrypt` says.
fn expected(cost: u32, password: &[u8], salt: Salt) -> Digest {
    let mut key: Vec<u8> = password.iter().copied().chain([0]).collect();
    key.truncate(MAX_KEY_BYTES);
    let full = bcrypt::bcrypt(cost, salt, &key);
    from_fn(|at| full[at])
}

/// Computed again by Machin's formula: pi = 16 arctan(1/5) - 4 arctan(1/239).
#[test]
fn the_first_state_is_the_fraction_of_pi() {
    // Words of 32 bits: one before the point, and one after the last for what rounding loses.
    let mut sum = vec![0; PI.len() + 2];
    add_arctan(&mut sum, 16, 5, false);
    add_arctan(&mut sum, 4, 239, true);
    assert_eq!(sum[0], 3);
    assert!(sum[1..].iter().zip(&PI).all(|(computed, word)| *computed == u64::from(*word)));
}

/// Adds `times` arctan(1/`of`) to `sum`, or subtracts it: 1/of - 1/(3 of^3) + 1/(5 of^5) ...
fn add_arctan(sum: &mut [u64], times: u64, of: u64, minus: bool) {
    let mut power = vec![0; sum.len()];
    power[0] = times;
    divide(&mut power, of);
    for n in (1..).step_by(2) {
        if power.iter().all(|word| *word == 0) {
            return;
        }
        let mut term = power.clone();
        divide(&mut term, n);
        add(sum, &term, minus != (n % 4 == 3));
        divide(&mut power, of * of);
    }
}

fn divide(number: &mut [u64], by: u64) {
    let mut rest = 0;
    for word in number {
        let now = rest << 32 | *word;
        (*word, rest) = (now / by, now % by);
    }
}

/// Adds `term`, or its two's complement.
fn add(sum: &mut [u64], term: &[u64], minus: bool) {
    let mask = (1 << 32) - 1;
    let mut carry = u64::from(minus);
    for (word, other) in sum.iter_mut().zip(term).rev() {
        let now = *word + if minus { mask - other } else { *other } + carry;
        (*word, carry) = (now & mask, now >> 32);
    }
}

/// From the tests of Openwall's `crypt_blowfish` and of OpenBSD, some made once more by libxcrypt.
#[test]
fn published_hashes_are_ours() {
    let long =
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored";
    let vectors: &[(&str, &[u8])] = &[
        ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*U"),
        ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", b"U*U*"),
        ("$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a", b"U*U*U"),
        ("$2y$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy", b""),
        ("$2x$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", b"\xa3"),
        ("$2y$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq", b"\xa3"),
        ("$2x$05$/OK.fbVrR/bpIqNJ5ianF.8fp964kVQpZ4veCdXarjwUwFGeBXxaK", b"\xff\xa3\x34\xff\xff\xff\xa3345"),
        ("$2x$04$abcdefghijklmnopqrstuuiV3/Y12RmKyYxqG7kbIWNyF80H7TccS", b"caf\xc3\xa9 \xff\xfe"),
        ("$2y$05$/OK.fbVrR/bpIqNJ5ianF.H.F9mAruG1jsgVpi07BfTVuqCZD9obe", long),
    ];
    for (hash, password) in vectors {
        let variant = if hash.starts_with("$2x") { Variant::X } else { Variant::B };
        let (salt, digest) = hash[7..].split_at(22);
        let salt: Salt = BASE64.decode(salt).unwrap().try_into().unwrap();
        let digest: Digest = BASE64.decode(digest).unwrap().try_into().unwrap();
        let cost = hash[4..6].parse().unwrap();
        assert_eq!(one(cost, password, variant, salt), digest, "{hash}");
        assert_ne!(one(cost, b"something else", variant, salt), digest, "{hash}");
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
    let cases: Vec<(Vec<u8>, Salt)> = (0..=batch % MAX_LANES)
        .map(|lane| {
            let mut random = [0; 100];
            SysRng.try_fill_bytes(&mut random).unwrap();
            let length = (batch / MAX_LANES + 11 * lane) % 85;
            (random[16..16 + length].to_vec(), from_fn(|at| random[at]))
        })
        .collect();
    let keys: Vec<BcryptKey> =
        cases.iter().map(|(password, _)| BcryptKey::new(password, Variant::B)).collect();
    let jobs: Vec<(&BcryptKey, Salt)> = keys.iter().zip(&cases).map(|(key, case)| (key, case.1)).collect();
    let wanted: Vec<Digest> = cases.iter().map(|(password, salt)| expected(4, password, *salt)).collect();
    assert_eq!(hash_batch(16, &jobs, &mut || ()), wanted, "{cases:?}");
    cases.len()
}

#[test]
fn every_cost_makes_as_many_rounds() {
    for cost in 4..=8 {
        assert_eq!(one(cost, b"password", Variant::B, [3; 16]), expected(cost, b"password", [3; 16]));
    }
}

#[test]
fn without_its_end_a_password_is_another_key() {
    let (bare, whole) = (Variant::Legacy2, Variant::B);
    assert_ne!(one(4, b"abc", bare, [1; 16]), one(4, b"abc", whole, [1; 16]));
    assert_eq!(one(4, b"abc", bare, [1; 16]), one(4, &b"abc".repeat(24), whole, [1; 16]));
    assert_eq!(one(4, b"", bare, [1; 16]), one(4, b"", whole, [1; 16]));
}

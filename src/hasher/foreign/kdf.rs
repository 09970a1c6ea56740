//! Schemes made to be slow: Argon2, scrypt (Firebase's too) and PBKDF2.

use aes::cipher::{KeyIvInit as _, StreamCipher as _};
use base64::Engine as _;
use zeroize::Zeroizing;

use super::{BASE64, constant_time_eq};

/// Most memory that a check takes, in KiB.
const MAX_MEMORY: u32 = 128 * 1024;

/// Most KiB that Argon2 goes over in all its passes.
const MAX_PASSES: u64 = 1024 * 1024;

/// Checks that take more memory than this, in KiB, run one at a time, or parallel log-ins would add it up.
const LARGE: u64 = 16 * 1024;

/// Iterations of PBKDF2: what RFC 8018 §4.2 asks for at least, and twice what is advised now.
const ITERATIONS: std::ops::RangeInclusive<u64> = 1_000..=2_000_000;

/// Least logarithm of scrypt's cost: fewer blocks than a browser's log-in took when it was made (RFC 7914
/// §2).
const MIN_SCRYPT: u32 = 10;

/// PBKDF2 with one digest: password, salt, iterations, output.
type Derive = fn(&[u8], &[u8], u32, &mut [u8]);

#[derive(Debug)]
enum Scheme {
    Argon2 {
        algorithm: argon2::Algorithm,
        version: argon2::Version,
        params: argon2::Params,
    },
    Scrypt(scrypt::Params),
    /// The output of scrypt encrypts the project's key.
    Firebase {
        params: scrypt::Params,
        key: Vec<u8>,
    },
    Pbkdf2 {
        derive: Derive,
        /// Bytes of a block: each takes all iterations.
        block: usize,
        iterations: u32,
    },
}

#[derive(Debug)]
pub(in super::super) struct Kdf {
    scheme: Scheme,
    salt: Vec<u8>,
    wanted: Vec<u8>,
    /// Rounds of bcrypt that take as long, more or less.
    rounds: u64,
}

impl Kdf {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split('$').collect();
        let (scheme, salt, wanted, rounds) = match fields[..] {
            ["", name, version, params, salt, wanted] if name.starts_with("argon2") => {
                let (scheme, rounds) = argon2_of(name, version, params)?;
                (scheme, bytes(salt)?, bytes(wanted)?, rounds)
            }
            // The first version had no number.
            ["", name, params, salt, wanted] if name.starts_with("argon2") => {
                let (scheme, rounds) = argon2_of(name, "v=16", params)?;
                (scheme, bytes(salt)?, bytes(wanted)?, rounds)
            }
            ["", "scrypt", params, salt, wanted] => {
                let [cost, size, lanes] = numbers(params, ["ln", "r", "p"])?;
                let (params, rounds) = scrypt_of(cost, size, lanes)?;
                (Scheme::Scrypt(params), bytes(salt)?, bytes(wanted)?, rounds)
            }
            ["", "fbscrypt", params, salt, wanted] => firebase(params, salt, wanted)?,
            ["", name, iterations, salt, wanted] => {
                let (scheme, rounds) = pbkdf2_of(name.strip_prefix("pbkdf2")?, iterations)?;
                (scheme, bytes(salt)?, bytes(wanted)?, rounds)
            }
            // Django's; the salt is text.
            [name, iterations, salt, wanted] => {
                let (scheme, rounds) =
                    pbkdf2_of(&name.strip_prefix("pbkdf2")?.replace('_', "-"), iterations)?;
                (scheme, salt.as_bytes().to_vec(), bytes(wanted)?, rounds)
            }
            _ => return None,
        };
        let (least_salt, blocks) = match &scheme {
            Scheme::Argon2 { .. } => (argon2::MIN_SALT_LEN, 1),
            Scheme::Pbkdf2 { block, iterations, .. } => {
                let blocks = wanted.len().div_ceil(*block) as u64;
                if u64::from(*iterations) * blocks > *ITERATIONS.end() {
                    return None;
                }
                (0, blocks)
            }
            _ => (0, 1),
        };
        let fits = (10..=128).contains(&wanted.len()) && (least_salt..=1024).contains(&salt.len());
        fits.then_some(Self { scheme, salt, wanted, rounds: rounds * blocks })
    }

    pub(super) fn scheme(&self) -> super::Scheme {
        match self.scheme {
            Scheme::Argon2 { .. } => super::Scheme::Argon2,
            Scheme::Scrypt(_) | Scheme::Firebase { .. } => super::Scheme::Scrypt,
            Scheme::Pbkdf2 { .. } => super::Scheme::Pbkdf2,
        }
    }

    pub(super) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Returns true if a check takes so much memory that only one may run at a time.
    pub(super) fn is_large(&self) -> bool {
        let memory = match &self.scheme {
            Scheme::Argon2 { params, .. } => u64::from(params.m_cost()),
            Scheme::Scrypt(params) | Scheme::Firebase { params, .. } => {
                (u64::from(params.r()) << params.log_n()) / 8
            }
            Scheme::Pbkdf2 { .. } => 0,
        };
        memory > LARGE
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let mut made = Zeroizing::new(vec![0; self.wanted.len()]);
        let done = match &self.scheme {
            Scheme::Argon2 { algorithm, version, params } => {
                let argon2 = argon2::Argon2::new(*algorithm, *version, params.clone());
                argon2.hash_password_into(password, &self.salt, &mut made).is_ok()
            }
            Scheme::Scrypt(params) => scrypt::scrypt(password, &self.salt, params, &mut made).is_ok(),
            Scheme::Firebase { params, key } => {
                let mut inner = Zeroizing::new([0; 32]);
                let done = scrypt::scrypt(password, &self.salt, params, inner.as_mut()).is_ok();
                made.copy_from_slice(key);
                let mut cipher = ctr::Ctr128BE::<aes::Aes256>::new((&*inner).into(), &[0; 16].into());
                cipher.apply_keystream(&mut made);
                done
            }
            Scheme::Pbkdf2 { derive, iterations, .. } => {
                derive(password, &self.salt, *iterations, &mut made);
                true
            }
        };
        done && constant_time_eq(&made, &self.wanted)
    }
}

/// Base64 with `+` or, as passlib writes it, `.`.
fn bytes(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.replace('.', "+")).ok()
}

/// The values of `names`, all of which must be there, and no others: one that is not known may change the
/// hash.
fn numbers<const N: usize>(params: &str, names: [&str; N]) -> Option<[u32; N]> {
    let mut values = [0; N];
    if params.split(',').count() != N {
        return None;
    }
    for (name, value) in names.iter().zip(&mut values) {
        *value = value_of(params, name)?.parse().ok()?;
    }
    Some(values)
}

fn value_of<'a>(params: &'a str, name: &str) -> Option<&'a str> {
    params.split(',').find_map(|param| param.strip_prefix(name)?.strip_prefix('='))
}

fn argon2_of(name: &str, version: &str, params: &str) -> Option<(Scheme, u64)> {
    let algorithm = match name {
        "argon2d" => argon2::Algorithm::Argon2d,
        "argon2i" => argon2::Algorithm::Argon2i,
        "argon2id" => argon2::Algorithm::Argon2id,
        _ => return None,
    };
    let version = match version {
        "v=16" => argon2::Version::V0x10,
        "v=19" => argon2::Version::V0x13,
        _ => return None,
    };
    let [memory, passes, lanes] = numbers(params, ["m", "t", "p"])?;
    let work = u64::from(memory) * u64::from(passes);
    if memory > MAX_MEMORY || work > MAX_PASSES || !(1..=64).contains(&lanes) {
        return None;
    }
    // Argon2 refuses what is below its own floor.
    let params = argon2::Params::new(memory, passes, lanes, None).ok()?;
    Some((Scheme::Argon2 { algorithm, version, params }, work / 150 + 1))
}

fn scrypt_of(cost: u32, size: u32, lanes: u32) -> Option<(scrypt::Params, u64)> {
    if !(MIN_SCRYPT..=20).contains(&cost) || !(1..=64).contains(&size) || !(1..=64).contains(&lanes) {
        return None;
    }
    let blocks = (u64::from(size) << cost) * u64::from(lanes);
    if (u64::from(size) << cost) / 8 > u64::from(MAX_MEMORY) || blocks / 8 > 4 * u64::from(MAX_MEMORY) {
        return None;
    }
    let params = scrypt::Params::new(u8::try_from(cost).ok()?, size, lanes).ok()?;
    Some((params, blocks / 170 + 1))
}

fn firebase(params: &str, salt: &str, wanted: &str) -> Option<(Scheme, Vec<u8>, Vec<u8>, u64)> {
    let (figures, secrets) = params.split_once(",ss=")?;
    let [version, cost, size, lanes] = numbers(figures, ["v", "n", "r", "p"])?;
    let (separator, key) = secrets.split_once(",sk=")?;
    let key = bytes(key)?;
    let wanted = bytes(wanted)?;
    if version != 1 || key.len() != wanted.len() {
        return None;
    }
    let mut salt = bytes(salt)?;
    salt.extend(bytes(separator)?);
    let (params, rounds) = scrypt_of(cost, size, lanes)?;
    Some((Scheme::Firebase { params, key }, salt, wanted, rounds))
}

/// `iterations` is a number, as passlib writes it, or a parameter.
fn pbkdf2_of(digest: &str, iterations: &str) -> Option<(Scheme, u64)> {
    let (derive, block): (Derive, usize) = match digest {
        "" | "-sha1" => (pbkdf2::pbkdf2_hmac::<sha1::Sha1>, 20),
        "-sha256" => (pbkdf2::pbkdf2_hmac::<sha2::Sha256>, 32),
        "-sha512" => (pbkdf2::pbkdf2_hmac::<sha2::Sha512>, 64),
        _ => return None,
    };
    let iterations = value_of(iterations, "i").unwrap_or(iterations).parse().ok()?;
    let fits = ITERATIONS.contains(&u64::from(iterations));
    fits.then_some((Scheme::Pbkdf2 { derive, block, iterations }, u64::from(iterations) / 150 + 1))
}

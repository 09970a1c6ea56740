//! Password hashing: bounded, off the runtime's threads, and of equal cost for unknown users.

mod foreign;
mod peppers;
mod pool;
mod priority;
mod queue;
mod scheme;
mod self_test;
mod shares;
mod stats;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bcrypt_lanes::{BcryptKey, MAX_LANES, Variant};
use rand::TryRng as _;
use rand::rngs::{SysError, SysRng};
use zeroize::Zeroizing;

use crate::domain::caller::Flow;
use crate::domain::key_file::KeyFile;
use crate::domain::password::{Password, PasswordHash};
use crate::error::tally::LogLimiter;
use crate::error::{Error, Result};

pub use peppers::{Peppers, PeppersError};
pub use queue::Work;
pub use self_test::SelfTestFailed;

use foreign::Foreign;
use pool::{Pool, QueueReservation};
use scheme::{BcryptInput, Stored};

/// The configuration of hashing.
#[derive(Clone, Copy, Debug)]
pub struct HasherConfig {
    /// New hashes take 2^`cost` rounds. The settings allow 10 to 15; tests pass less.
    pub cost: u32,
    /// Threads.
    pub workers: usize,
    /// Hashes that a thread runs in lock-step; `None`: [`DEFAULT_LANES`].
    pub lanes: Option<usize>,
    /// Longest wait for a thread.
    pub max_wait: Duration,
    /// Least share of one CPU, in percent, that the threads together get while other calls need every CPU.
    pub min_cpu_percent: u32,
}

/// Hashes that a thread runs in lock-step unless the settings say otherwise.
///
/// A constant, not measured at start: a server that starts on a busy machine would keep a wrong number for
/// its whole life. With 3 to 8 lanes a CPU made 7.8, 9.4, 9.9, 9.1, 9.8 and 9.1 hashes a second at cost 12
/// (medians of 82 turns on two busy CPUs with a first-level cache of 32 KiB; on a quiet one five gain more),
/// and a server with 3, 4 and 5 did 77, 85 and 95 log-ins a second. More than five gain nothing and make
/// every batch slower.
pub const DEFAULT_LANES: usize = 5;

/// The most that a hash of another system may cost: 2 s.
const MAX_COST: u32 = 15;

/// The cost of hashes of codes, unless that of passwords is lower.
const CODE_COST: u32 = 10;

/// In bytes; the longest, Firebase's, have 300.
const MAX_HASH_BYTES: usize = 1_000;

/// Why the hasher cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The hashes of this machine would be wrong.
    #[error(transparent)]
    SelfTest(#[from] SelfTestFailed),
    /// The system gives no more threads.
    #[error("cannot start the threads that hash passwords")]
    Threads(#[from] std::io::Error),
    /// The system gives no random bytes.
    #[error("cannot get random bytes")]
    Random(#[from] SysError),
}

/// Why a text is no hash of another system.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a hash of bcrypt, Argon2, scrypt, PBKDF2, sha-crypt, md5-crypt, phpass or LDAP, and not cost too much"
)]
pub struct HashInvalid;

/// Hashes and checks passwords on threads of its own. Cheap to clone; the threads end with the last clone.
#[derive(Clone)]
pub struct Hasher {
    pool: Arc<Pool>,
    cost: u32,
    /// The hash that a password is checked against where the user is unknown. It fits a password with a
    /// chance of 2^-184.
    dummy_hash: Stored,
    peppers: Peppers,
}

/// A reservation in the queue, for one password. Released on drop.
pub struct HashPermit {
    reservation: QueueReservation,
    cost: u32,
    dummy_hash: Stored,
    keys: Arc<KeyFile>,
}

/// Limits the log line about hashes whose pepper is missing.
static PEPPER_MISSING: LogLimiter = LogLimiter::after(1);

impl Hasher {
    /// Proves bcrypt on this machine first: about 3 ms.
    pub fn new(config: HasherConfig) -> Result<Self, StartError> {
        let cost = config.cost;
        let lanes = config.lanes.unwrap_or(DEFAULT_LANES).clamp(1, MAX_LANES);
        let speed = self_test::run(lanes)?;
        let dummy_hash =
            Stored { input: BcryptInput::of(b"", None), cost, salt: random()?, digest: random()? };
        let pool = Pool::new(&config, lanes, speed)?;
        Ok(Self { pool: Arc::new(pool), cost, dummy_hash, peppers: Peppers::default() })
    }

    /// The same hasher, with the keys of `passwords.pepper`.
    pub fn with_peppers(self, peppers: Peppers) -> Self {
        Self { peppers, ..self }
    }

    /// The keys of `passwords.pepper`.
    pub fn peppers(&self) -> &Peppers {
        &self.peppers
    }

    /// Reserves a hash for `flow`, in microseconds. The namespaces take turns by the work that they cause,
    /// and so do the keys of each: one that floods delays only itself.
    ///
    /// Ask for it before anything else that takes time, so that a refusal comes at once. Fails with
    /// [`Error::HasherBusy`] if the password could not be hashed by the `deadline`, or no thread comes free
    /// in time.
    pub fn admit(&self, flow: &Flow, deadline: Option<Instant>) -> Result<HashPermit> {
        let reservation = self.pool.admit(flow, deadline)?;
        let (cost, dummy_hash) = (self.cost, self.dummy_hash.clone());
        Ok(HashPermit { reservation, cost, dummy_hash, keys: self.peppers.keys() })
    }

    /// A hash of another system, as we keep it until its first use. No work is done.
    pub fn import_hash(&self, text: &str) -> Result<PasswordHash, HashInvalid> {
        if text.len() > MAX_HASH_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HashInvalid);
        }
        let imported = Stored::imported(text);
        let fits = match Stored::from_text(&imported) {
            // One with a pepper can only be a copy of ours.
            Some(Stored { input: BcryptInput::Peppered(_), .. }) => false,
            Some(stored) => stored.cost <= MAX_COST,
            None => Foreign::parse(text).is_some(),
        };
        if fits { Ok(imported) } else { Err(HashInvalid) }
    }

    /// Returns true if a hash has the current form and cost.
    pub fn is_current(&self, hash: &PasswordHash) -> bool {
        Stored::is_current(hash, self.cost, self.peppers.keys().current())
    }

    /// Passwords taken on since the start, and the rounds of bcrypt done.
    pub fn work(&self) -> Work {
        self.pool.work()
    }
}

impl HashPermit {
    /// Hashes `password` with a fresh salt.
    ///
    /// Keeps a CPU busy for about 250 ms at cost 12 and twice that for each step up, alone or beside some
    /// others. Needs no connection: call it before a transaction, not inside one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue. A hash that has begun runs to its end and keeps its worker until
    /// then, so callers that give up cannot pile up more work than there are workers and lanes.
    ///
    /// Source: Provos and Mazières, "A Future-Adaptable Password Scheme", USENIX 1999.
    pub async fn hash(self, password: &Password) -> Result<PasswordHash> {
        let salt = random().map_err(Error::internal)?;
        let input = BcryptInput::of(password.expose(), self.keys.current());
        let key = input.key(&salt, password.expose(), &self.keys);
        let key = key.ok_or_else(|| Error::internal("a password cannot be peppered"))?;
        let digest = self.reservation.bcrypt(self.cost, salt, key).await?;
        Ok(Stored { input, cost: self.cost, salt, digest }.to_text())
    }

    /// Hashes a numeric code, at a lower cost than passwords: it allows five attempts and has a lifetime of minutes.
    ///
    /// # Cancel safety
    ///
    /// As [`HashPermit::hash`].
    pub async fn hash_code(self, code: &Password) -> Result<PasswordHash> {
        let cost = self.cost.min(CODE_COST);
        Self { cost, ..self }.hash(code).await
    }

    /// Returns true if `hash` was made of `code`. Without a hash the answer is no, after the same work.
    ///
    /// # Cancel safety
    ///
    /// As [`HashPermit::hash`].
    pub async fn verify_code(self, code: &Password, hash: Option<&PasswordHash>) -> Result<bool> {
        let dummy_hash = Stored { cost: self.cost.min(CODE_COST), ..self.dummy_hash.clone() }.to_text();
        self.verify(code, hash, Some(&dummy_hash)).await
    }

    /// Returns true if `hash` was made of `password`. Without a hash the answer is no, after the work that
    /// `dummy_hash` takes, or else a hash of ours, so that time does not tell who exists. So it is where the file lacks the
    /// hash's pepper.
    ///
    /// # Cancel safety
    ///
    /// As [`HashPermit::hash`].
    pub async fn verify(
        self,
        password: &Password,
        hash: Option<&PasswordHash>,
        dummy_hash: Option<&PasswordHash>,
    ) -> Result<bool> {
        let against = hash.or(dummy_hash);
        let foreign = against.is_some_and(Stored::is_foreign);
        let bytes = if foreign { password.expose_raw() } else { password.expose() };
        let stored = match against {
            Some(text) => Stored::from_text(text),
            None => Some(self.dummy_hash),
        };
        let matches = if let Some(stored) = stored {
            let key = stored.input.key(&stored.salt, bytes, &self.keys);
            let has_key = key.is_some();
            if !has_key && hash.is_some() {
                note_missing_pepper();
            }
            let key = key.unwrap_or_else(|| BcryptKey::new(b"", Variant::B));
            let digest = self.reservation.bcrypt(stored.cost, stored.salt, key).await?;
            stored.matches(&digest, bytes) && has_key
        } else {
            let foreign = against.and_then(|text| Foreign::parse(text.as_str()));
            let foreign = foreign.ok_or_else(|| Error::internal("a stored hash cannot be read"))?;
            let bytes = Zeroizing::new(bytes.to_vec());
            let (scheme, rounds, large) = (foreign.scheme(), foreign.rounds(), foreign.is_large());
            self.reservation.check(scheme, rounds, large, move || foreign.matches(&bytes)).await?
        };
        Ok(matches && hash.is_some())
    }
}

fn note_missing_pepper() {
    if let Some(passwords) = PEPPER_MISSING.count() {
        tracing::warn!(
            passwords,
            "passwords are rejected: passwords.pepper lacks the key that they were hashed with; `usersd doctor` counts their users"
        );
    }
}

fn random<const N: usize>() -> Result<[u8; N], SysError> {
    let mut bytes = [0_u8; N];
    SysRng.try_fill_bytes(&mut bytes)?;
    Ok(bytes)
}

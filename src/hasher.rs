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

#[cfg(test)]
mod tests {
    use super::*;

    const SETUP: HasherConfig = HasherConfig {
        cost: 4,
        workers: 2,
        lanes: Some(3),
        max_wait: Duration::from_mins(1),
        min_cpu_percent: 100,
    };

    fn password(text: &str) -> Password {
        Password::attempt(text.to_owned())
    }

    fn one() -> Flow {
        flow("one", "key")
    }

    fn flow(namespace: &str, key: &str) -> Flow {
        Flow { namespace: namespace.into(), key: key.into() }
    }

    impl Hasher {
        async fn hash(&self, text: &str) -> Result<PasswordHash> {
            self.admit(&one(), None)?.hash(&password(text)).await
        }

        async fn verify(&self, text: &str, hash: Option<&PasswordHash>) -> bool {
            self.admit(&one(), None).unwrap().verify(&password(text), hash, None).await.unwrap()
        }
    }

    /// (12, R3, R4)
    #[tokio::test]
    async fn every_byte_counts_on_both_sides_of_72() {
        let hasher = Hasher::new(SETUP).unwrap();
        for length in [8, 48, 49, 71, 72, 73, 100, 500] {
            let right = "x".repeat(length);
            let hash = hasher.hash(&right).await.unwrap();
            let form = if length <= 72 { "$2b$04$" } else { "$bcrypt-sha256$v=2,t=2b,r=4$" };
            assert!(hash.as_str().starts_with(form), "{length}");
            assert!(hasher.verify(&right, Some(&hash)).await, "{length}");
            let last_wrong = format!("{}y", "x".repeat(length - 1));
            for wrong in [&last_wrong, &format!("{right}x"), &right[1..], ""] {
                assert!(!hasher.verify(wrong, Some(&hash)).await, "{length}");
            }
        }
    }

    /// (R4)
    #[tokio::test]
    async fn every_byte_counts_with_a_pepper_and_none_without_its_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, format!("1 {}=", "A".repeat(43))).unwrap();
        let hasher = Hasher::new(SETUP).unwrap().with_peppers(Peppers::open(Some(file.path())).unwrap());
        for length in [8, 72, 73, 500] {
            let right = "x".repeat(length);
            let hash = hasher.hash(&right).await.unwrap();
            assert!(hash.as_str().starts_with("$bcrypt-hmac-sha384$v=1,k=1,r=4$"), "{length}");
            assert!(hasher.is_current(&hash) && hasher.verify(&right, Some(&hash)).await, "{length}");
            assert!(!hasher.verify(&format!("{}y", &right[1..]), Some(&hash)).await, "{length}");
            std::fs::write(&file, format!("2 {}A=", "B".repeat(42))).unwrap();
            hasher.peppers().reload(Some(file.path())).unwrap();
            assert!(!hasher.verify(&right, Some(&hash)).await && !hasher.is_current(&hash), "{length}");
            std::fs::write(&file, format!("1 {}=", "A".repeat(43))).unwrap();
            hasher.peppers().reload(Some(file.path())).unwrap();
        }
    }

    #[tokio::test]
    async fn nobodys_password_is_never_right() {
        let hasher = Hasher::new(SETUP).unwrap();
        assert!(!hasher.verify("password", None).await);
        assert!(!hasher.verify("", None).await);
        let dummy_hash = hasher.hash("password").await.unwrap();
        let turn = hasher.admit(&one(), None).unwrap();
        let matches = turn.verify(&password("password"), None, Some(&dummy_hash)).await.unwrap();
        assert!(!matches, "not even a dummy hash's");
    }

    #[tokio::test]
    async fn equal_passwords_have_different_hashes() {
        let hasher = Hasher::new(SETUP).unwrap();
        assert_ne!(hasher.hash("password").await.unwrap(), hasher.hash("password").await.unwrap());
    }

    #[tokio::test]
    async fn jobs_that_would_be_late_are_refused_at_once_and_the_rest_is_done() {
        let setup = HasherConfig { cost: 8, workers: 1, max_wait: Duration::from_millis(30), ..SETUP };
        let hasher = Hasher::new(setup).unwrap();
        let many = (0..200).map(|_| {
            let hasher = hasher.clone();
            tokio::spawn(async move { hasher.hash("password").await })
        });
        let (mut done, mut refused) = (0, 0);
        for job in many.collect::<Vec<_>>() {
            match job.await.unwrap() {
                Ok(_) => done += 1,
                Err(Error::HasherBusy { retry_after }) => {
                    assert!(retry_after > Duration::ZERO);
                    refused += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
    }

    #[tokio::test]
    async fn a_job_that_would_miss_the_deadline_is_refused() {
        let hasher = Hasher::new(HasherConfig { cost: 10, ..SETUP }).unwrap();
        let refused = |deadline| hasher.admit(&one(), Some(deadline)).is_err();
        assert!(refused(Instant::now()));
        assert!(refused(Instant::now() + Duration::from_micros(100)));
        assert!(!refused(Instant::now() + Duration::from_mins(1)));
    }

    #[tokio::test]
    async fn one_that_floods_does_not_push_out_the_others() {
        let hasher =
            Hasher::new(HasherConfig { workers: 1, max_wait: Duration::from_secs(1), ..SETUP }).unwrap();
        let mut turns = Vec::new();
        while let Ok(turn) = hasher.admit(&one(), None) {
            turns.push(turn);
        }
        hasher.admit(&flow("other", "key"), None).unwrap().hash(&password("password")).await.unwrap();
        turns.clear();
        assert_eq!(hasher.pool.waiting(), 0, "what is not used is given up");
    }

    /// (15)
    #[tokio::test]
    async fn cancelled_callers_release_their_reservation() {
        let setup = HasherConfig { cost: 10, workers: 1, max_wait: Duration::from_mins(10), ..SETUP };
        let hasher = Hasher::new(setup).unwrap();
        for _ in 0..2_000 {
            let abandoned = std::pin::pin!(hasher.hash("password"));
            assert!(futures_util::poll!(abandoned).is_pending());
        }
        // Two thousand of them would take minutes; the first may have begun.
        hasher.hash("password").await.unwrap();
        assert_eq!(hasher.pool.waiting(), 0);
        assert!(hasher.work().done < 20, "{:?}", hasher.work());
    }
}

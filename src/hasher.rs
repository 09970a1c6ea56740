//! The one door to password hashing: bounded, off the runtime's threads, and as slow for nobody as for somebody.

mod lanes;
mod pool;
mod scheme;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::password::{Password, PasswordHash};
use crate::error::{Error, Result};

pub use pool::Work;

use pool::Pool;
use scheme::{Form, Stored};

/// Hashes and checks passwords on threads of its own. Cheap to clone; the threads end with the last clone.
#[derive(Clone)]
pub struct Hasher {
    pool: Arc<Pool>,
    cost: u32,
    /// What a password is checked against where there is none to check against. It fits no password but by
    /// a chance of 2^-184.
    decoy: Stored,
}

impl Hasher {
    /// A hasher that makes hashes of 2^`cost` rounds, `workers` at a time, and refuses what would have to wait
    /// for a worker longer than `max_wait`.
    ///
    /// Takes some milliseconds to measure the machine. The settings allow a cost of 10 to 15; tests pass less.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if threads cannot be started or there is no randomness.
    pub fn new(cost: u32, workers: usize, max_wait: Duration) -> Result<Self> {
        let decoy = Stored { form: Form::of(b""), cost, salt: random()?, digest: random()? };
        Ok(Self { pool: Arc::new(Pool::new(workers, max_wait)?), cost, decoy })
    }

    /// Hashes `password` with a fresh salt.
    ///
    /// Keeps one CPU busy for about 270 ms at cost 12 and twice that for each step up, after a wait of at most
    /// `max_wait`. Needs no connection: call it before a transaction, not inside one.
    ///
    /// # Errors
    ///
    /// [`Error::HasherBusy`] at once if no worker is expected to come free within `max_wait`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up its place in the queue. A hash that has begun runs to its end and keeps
    /// its worker till then, so callers that give up cannot pile up more work than `workers`.
    ///
    /// Source: Provos and Mazières, "A Future-Adaptable Password Scheme", USENIX 1999.
    pub async fn hash(&self, password: &Password) -> Result<PasswordHash> {
        let salt = random()?;
        let form = Form::of(password.expose());
        let digest = self.pool.run(self.cost, salt, form.key(&salt, password.expose())).await?;
        Ok(Stored { form, cost: self.cost, salt, digest }.to_text())
    }

    /// Whether `password` is the one that `hash` was made of. Without a hash the answer is no, after the work
    /// of a hash, so that time does not tell who exists.
    ///
    /// # Errors
    ///
    /// [`Error::HasherBusy`] as [`Hasher::hash`]; [`Error::Internal`] if the stored text is no hash.
    ///
    /// # Cancel safety
    ///
    /// As [`Hasher::hash`].
    pub async fn verify(&self, password: &Password, hash: Option<&PasswordHash>) -> Result<bool> {
        let stored = match hash {
            Some(hash) => {
                Stored::from_text(hash).ok_or_else(|| Error::internal("a stored hash is broken"))?
            }
            None => self.decoy.clone(),
        };
        let key = stored.form.key(&stored.salt, password.expose());
        let digest = self.pool.run(stored.cost, stored.salt, key).await?;
        Ok(stored.matches(&digest, password.expose()) && hash.is_some())
    }

    /// Passwords taken on since the start, and the rounds of bcrypt done.
    #[must_use]
    pub fn work(&self) -> Work {
        self.pool.work()
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(Error::internal)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher(max_wait: Duration) -> Hasher {
        Hasher::new(4, 2, max_wait).unwrap()
    }

    fn password(text: &str) -> Password {
        Password::attempt(text.to_owned())
    }

    #[tokio::test]
    async fn every_byte_counts_on_both_sides_of_72() {
        let hasher = hasher(Duration::from_secs(10));
        for length in [8, 48, 49, 71, 72, 73, 100, 500] {
            let right = "x".repeat(length);
            let hash = hasher.hash(&password(&right)).await.unwrap();
            let form = if length <= 72 { "$2b$04$" } else { "$bcrypt-sha256$v=2,t=2b,r=4$" };
            assert!(hash.as_str().starts_with(form), "{length}");
            assert!(hasher.verify(&password(&right), Some(&hash)).await.unwrap(), "{length}");
            let last_wrong = format!("{}y", "x".repeat(length - 1));
            for wrong in [&last_wrong, &format!("{right}x"), &right[1..], ""] {
                assert!(!hasher.verify(&password(wrong), Some(&hash)).await.unwrap(), "{length}");
            }
        }
    }

    #[tokio::test]
    async fn nobodys_password_is_never_right() {
        let hasher = hasher(Duration::from_secs(10));
        assert!(!hasher.verify(&password("password"), None).await.unwrap());
        assert!(!hasher.verify(&password(""), None).await.unwrap());
    }

    #[tokio::test]
    async fn equal_passwords_have_different_hashes() {
        let hasher = hasher(Duration::from_secs(10));
        let (one, two) = (password("password"), password("password"));
        assert_ne!(hasher.hash(&one).await.unwrap(), hasher.hash(&two).await.unwrap());
    }

    #[tokio::test]
    async fn what_cannot_be_done_in_time_is_refused_at_once_and_the_rest_is_done() {
        let hasher = Hasher::new(8, 1, Duration::from_millis(30)).unwrap();
        let many = (0..200).map(|_| {
            let hasher = hasher.clone();
            tokio::spawn(async move { hasher.hash(&password("password")).await })
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
    async fn callers_that_leave_give_up_their_place() {
        let hasher = Hasher::new(10, 1, Duration::from_mins(10)).unwrap();
        for _ in 0..2_000 {
            let password = password("password");
            let abandoned = std::pin::pin!(hasher.hash(&password));
            assert!(futures_util::poll!(abandoned).is_pending());
        }
        // Two thousand of them would take minutes; the first may have begun.
        assert!(hasher.pool.queued() <= 2_000);
        hasher.hash(&password("password")).await.unwrap();
        assert_eq!(hasher.pool.queued(), 0);
    }
}

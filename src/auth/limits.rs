//! Concurrency and rate limits of a caller, of a namespace, and of all calls together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::namespace::Namespace;

/// `RetryInfo` for calls rejected at a concurrency limit. Most calls take less than a millisecond, so permits
/// are free again by then; a shorter time would only bring every rejected caller back at once.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The bounds of a [`UsageCounter`].
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Calls at a time.
    pub calls: usize,
    /// Calls a second, of which those of one second may come at once; `None`: any number.
    pub rate: Option<u32>,
}

/// Counts calls against a [`Limit`].
#[derive(Debug, Default)]
pub struct UsageCounter {
    running: AtomicUsize,
    /// When the bucket is full again, in nanoseconds: it holds what is missing until then.
    full_at: AtomicU64,
}

/// A permit of a [`UsageCounter`], released on drop.
#[derive(Debug)]
pub struct Permit(Arc<UsageCounter>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl UsageCounter {
    /// Takes a permit.
    /// Fails with the time to wait before the next try.
    pub fn acquire(self: &Arc<Self>, limit: Limit) -> Result<Permit, Duration> {
        let permit = Permit(Arc::clone(self));
        if self.running.fetch_add(1, Ordering::Relaxed) < limit.calls { Ok(permit) } else { Err(RETRY_AFTER) }
    }

    /// Counts a call against the rate. `since` is any time before, the same for all calls.
    /// Fails with the time to wait before the next try.
    pub fn acquire_token(&self, limit: Limit, since: Instant) -> Result<(), Duration> {
        let Some(rate) = limit.rate else { return Ok(()) };
        self.take_at(rate, nanoseconds(since.elapsed()))
    }

    /// Permits that are taken.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Takes a token out of the bucket. Counted as the generic cell rate algorithm does (ITU-T I.371): the
    /// time at which the bucket is full again tells how much is in it, and is one number that threads can
    /// change.
    fn take_at(&self, rate: u32, now: u64) -> Result<(), Duration> {
        const SECOND: u64 = 1_000_000_000;
        let token = SECOND / u64::from(rate.max(1));
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let after = full_at.max(now) + token;
            // The bucket holds one second's tokens, and at least one.
            let early = (after - now).saturating_sub(SECOND.max(token));
            if early > 0 {
                return Err(Duration::from_nanos(early));
            }
            match self.full_at.compare_exchange_weak(full_at, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// The number of counters above which those with a full bucket are removed: a new counter starts full, too.
const MAX_RATES: usize = 1_000;

/// Counts the calls of each namespace that are worked on, of all its keys together.
#[derive(Debug)]
pub struct Namespaces {
    most: usize,
    running: Mutex<HashMap<Arc<str>, usize>>,
    /// Of those with a limit of calls a second.
    rates: Mutex<HashMap<Arc<str>, Arc<UsageCounter>>>,
}

/// A permit from the concurrency limit of one namespace, released on drop.
#[derive(Debug)]
pub struct NamespacePermit {
    namespaces: Arc<Namespaces>,
    name: Arc<str>,
}

impl Namespaces {
    /// Each has `most` calls at a time.
    pub fn new(most: usize) -> Self {
        Self { most, running: Mutex::default(), rates: Mutex::default() }
    }

    /// Counts a call of the namespace against its rate. `since` is any time before, the same for all calls.
    /// Fails with the time to wait before the next try.
    pub fn acquire_token(&self, namespace: &Namespace, rate: u32, since: Instant) -> Result<(), Duration> {
        let counter = {
            let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
            if rates.len() >= MAX_RATES && !rates.contains_key(namespace.as_str()) {
                let now = nanoseconds(since.elapsed());
                rates.retain(|_, counter| counter.full_at.load(Ordering::Relaxed) > now);
            }
            Arc::clone(rates.entry(namespace.shared()).or_default())
        };
        counter.acquire_token(Limit { calls: usize::MAX, rate: Some(rate) }, since)
    }

    /// Lets one call through.
    /// Fails with the time to wait before the next try.
    pub fn enter(self: &Arc<Self>, namespace: &Namespace) -> Result<NamespacePermit, Duration> {
        let name = namespace.shared();
        let mut all = self.lock();
        let running = all.entry(Arc::clone(&name)).or_default();
        if *running >= self.most {
            return Err(RETRY_AFTER);
        }
        *running += 1;
        Ok(NamespacePermit { namespaces: Arc::clone(self), name })
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for NamespacePermit {
    fn drop(&mut self) {
        let mut all = self.namespaces.lock();
        if let Some(running) = all.get_mut(&self.name) {
            *running -= 1;
            if *running == 0 {
                all.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_holds_a_second_and_fills_up_evenly() {
        let meter = UsageCounter::default();
        let burst = (0..100).filter(|_| meter.take_at(10, 5 * SECOND).is_ok()).count();
        assert_eq!(burst, 10);
        assert_eq!(meter.take_at(10, 5 * SECOND), Err(Duration::from_millis(100)));
        assert_eq!(meter.take_at(10, 5 * SECOND + SECOND / 10), Ok(()));
        assert!(meter.take_at(10, 5 * SECOND + SECOND / 10).is_err());
        // Who stays away for long finds no more than a second's.
        let burst = (0..100).filter(|_| meter.take_at(10, 900 * SECOND).is_ok()).count();
        assert_eq!(burst, 10);
    }

    #[test]
    fn a_rejected_call_takes_no_permit() {
        let (meter, limit) = (Arc::<UsageCounter>::default(), Limit { calls: 2, rate: Some(1) });
        let permits = [meter.acquire(limit).unwrap(), meter.acquire(limit).unwrap()];
        for _ in 0..10 {
            assert_eq!(meter.acquire(limit).err(), Some(RETRY_AFTER));
        }
        assert_eq!(meter.running(), 2);
        drop(permits);
        assert_eq!(meter.running(), 0);
        assert!(meter.acquire(limit).is_ok());
        let now = Instant::now();
        assert!(meter.acquire_token(limit, now).is_ok() && meter.acquire_token(limit, now).is_err());
        assert!(meter.acquire_token(Limit { calls: 2, rate: None }, now).is_ok());
    }

    #[test]
    fn a_rate_is_of_one_namespace_and_is_forgotten_when_its_bucket_is_full() {
        let all = Namespaces::new(1);
        let (one, two) = (Namespace::parse("one").unwrap(), Namespace::parse("two").unwrap());
        let begun = Instant::now();
        assert!(all.acquire_token(&one, 1, begun).is_ok());
        assert!(all.acquire_token(&one, 1, begun).is_err());
        assert!(all.acquire_token(&two, 1, begun).is_ok());
        let hour_ago = begun.checked_sub(Duration::from_hours(1)).unwrap();
        for n in 0..MAX_RATES {
            let namespace = Namespace::parse(&format!("n{n}")).unwrap();
            assert!(all.acquire_token(&namespace, 1_000_000, hour_ago).is_ok());
        }
        assert!(all.rates.lock().unwrap().len() <= MAX_RATES);
    }

    #[test]
    fn a_namespace_has_its_own_limit_and_is_forgotten_after_its_last_call() {
        let all = Arc::new(Namespaces::new(2));
        let (one, two) = (Namespace::parse("one").unwrap(), Namespace::parse("two").unwrap());
        let held = [all.enter(&one).unwrap(), all.enter(&one).unwrap()];
        assert_eq!(all.enter(&one).err(), Some(RETRY_AFTER));
        assert!(all.enter(&two).is_ok());
        drop(held);
        assert!(all.lock().is_empty());
        assert!(all.enter(&one).is_ok());
    }
}

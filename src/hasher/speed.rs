//! How fast this machine hashes, and how many hashes at a time pay.

use std::time::{Duration, Instant};

use super::queue::Speed;
use bcrypt_lanes::{BcryptKey, MAX_LANES, Salt, Variant, hash_batch};

/// Rounds of a measurement: half a millisecond, more or less.
const ROUNDS: u64 = 8;

/// The best of so many tries counts: another one was disturbed.
const TRIES: usize = 3;

/// More lanes have to give this much more to be worth what each batch takes longer.
const MIN_GAIN: f64 = 1.05;

/// Nanoseconds that a round takes in batches of 1 to `most`, from hashes of a few milliseconds together.
pub(super) fn measure(most: usize) -> Speed {
    let mut speed = [0.0; MAX_LANES + 1];
    let key = BcryptKey::new(b"measure", Variant::B);
    for (lanes, speed) in speed.iter_mut().enumerate().take(most + 1).skip(1) {
        let jobs: Vec<(&BcryptKey, Salt)> = (0..lanes).map(|_| (&key, [0; 16])).collect();
        let took = (0..TRIES).map(|_| timed(&jobs)).min().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let nanos = took.as_nanos() as f64 / ROUNDS as f64;
        *speed = nanos;
    }
    speed
}

fn timed(jobs: &[(&BcryptKey, Salt)]) -> Duration {
    let begun = Instant::now();
    std::hint::black_box(hash_batch(ROUNDS, jobs, &mut || ()));
    begun.elapsed()
}

/// The number of lanes that gives most hashes in a time, or the smallest that gives nearly as many.
pub(super) fn best(speed: &Speed) -> usize {
    let mut best = 1;
    for lanes in 2..=MAX_LANES {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let gain = (speed[best] / best as f64) / (speed[lanes] / lanes as f64);
        if speed[lanes] > 0.0 && gain > MIN_GAIN {
            best = lanes;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_lanes_are_taken_only_where_they_pay() {
        assert_eq!(best(&[0.0, 100.0, 101.0, 102.0, 104.0, 112.0, 134.0, 156.0, 178.0]), 5);
        assert_eq!(best(&[0.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0]), 1);
        assert_eq!(best(&[0.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0]), 8);
        assert_eq!(best(&[0.0, 100.0, 100.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 2, "others were not measured");
    }

    #[test]
    fn every_batch_asked_for_is_measured() {
        let speed = measure(3);
        assert!(speed[1..=3].iter().all(|nanos| *nanos > 0.0), "{speed:?}");
        assert_eq!(speed[4..], [0.0; 5]);
    }
}

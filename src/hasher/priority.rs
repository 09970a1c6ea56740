//! Hashing steps aside for everything else the server does, but for a floor.

/// The niceness at which `workers` threads together get about `percent` of one CPU when every CPU has one more thread
/// that never rests.
///
/// The kernel shares a CPU by weights: 1024 at niceness 0, and a fifth less for each step. (Linux, `sched(7)`.)
pub(super) fn niceness(percent: u32, workers: usize) -> i32 {
    #[expect(clippy::cast_precision_loss, reason = "some threads")]
    let share = (f64::from(percent) / 100.0 / workers.max(1) as f64).clamp(0.0, 0.5);
    (0..=19)
        .rev()
        .find(|nice| {
            let weight = 1.25_f64.powi(-nice);
            weight / (weight + 1.0) >= share
        })
        .unwrap_or(0)
}

/// Makes this thread step aside. Where that is not allowed, or where niceness is the whole process's, it stays as it
/// is: hashing then takes its share like any other thread.
pub(super) fn lower(nice: i32) {
    #[cfg(target_os = "linux")]
    {
        // Without an id it is the calling thread alone, on Linux.
        let _ = rustix::process::setpriority_process(None, nice);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_shared_by_the_workers() {
        // 1.25^-10 is 0.107, a share of 9.7 percent; 1.25^-13 is 0.055, a share of 5.2 percent.
        assert_eq!(niceness(10, 1), 9);
        assert_eq!(niceness(10, 2), 13);
        assert_eq!(niceness(10, 64), 19);
        assert_eq!(niceness(1, 1_000), 19);
        assert_eq!([niceness(50, 1), niceness(100, 1), niceness(400, 2)], [0; 3]);
        assert_eq!(niceness(0, 4), 19);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn only_this_thread_steps_aside() {
        let of_this_thread = || rustix::process::getpriority_process(None).unwrap();
        let before = of_this_thread();
        let lowered = std::thread::spawn(move || {
            lower(19);
            of_this_thread()
        });
        assert_eq!(lowered.join().unwrap(), 19);
        assert_eq!(of_this_thread(), before);
    }
}

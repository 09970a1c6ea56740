//! The process, as the kernel sees it. Names as all of Prometheus' clients have them.

use std::fs;

use crate::clock::Clock;
use crate::metrics::{Registry, counter, gauge, timestamp};

/// Fields of `/proc/self/stat`, counted after the name of the program, which may hold spaces: proc(5).
const UTIME: usize = 11;
const STIME: usize = 12;
const THREADS: usize = 17;
const RSS_PAGES: usize = 21;

pub(super) fn register(registry: &mut Registry) {
    let started = Clock::System.now().0;
    timestamp(
        registry,
        "process_start_time_seconds",
        "When the server of this process started, in Unix time",
        move || started,
    );
    counter(registry, "process_cpu_seconds", "CPU time, user and system", || {
        let stat = stat()?;
        Some((field(&stat, UTIME)? + field(&stat, STIME)?) / ticks_per_second())
    });
    gauge(registry, "process_resident_memory_bytes", "Resident memory", || {
        Some(field(&stat()?, RSS_PAGES)? * page_size())
    });
    gauge(registry, "process_threads", "Threads", || field(&stat()?, THREADS));
    gauge(registry, "process_open_fds", "Open file descriptors", || {
        // Newer kernels say how many there are without listing them.
        let known = fs::metadata("/proc/self/fd").ok().map(|folder| folder.len()).filter(|count| *count > 0);
        let count = || fs::read_dir("/proc/self/fd").map(|all| all.count() as u64).ok();
        known.or_else(count).map(float)
    });
    gauge(registry, "process_max_fds", "Most file descriptors that may be open", || {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map(float)
    });
}

/// The fields after the program's name.
fn stat() -> Option<String> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    stat.rsplit_once(") ").map(|(_, fields)| fields.to_owned())
}

fn field(stat: &str, number: usize) -> Option<f64> {
    stat.split(' ').nth(number)?.trim().parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

fn page_size() -> f64 {
    float(rustix::param::page_size() as u64)
}

fn ticks_per_second() -> f64 {
    float(rustix::param::clock_ticks_per_second())
}

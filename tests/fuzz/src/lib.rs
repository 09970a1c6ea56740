//! Fuzz targets as tests that run on stable Rust: a target is given every file of its folder in `tests/fuzz/corpus`, and then
//! mutations of them. An input that makes it panic is written beside them, and is the first to be tried from then on.

use std::ffi::OsStr;
use std::fs;
use std::io::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Mutations in each run, always the same ones, unless [`SECONDS`] is set.
const MUTATIONS: u32 = 20_000;

/// Names for how many seconds a target is given mutations, other ones in each run.
const SECONDS: &str = "USERSD_TEST_FUZZ_SECONDS";

/// Longer inputs find nothing that shorter ones do not.
const MAX_BYTES: usize = 4096;

/// Gives `target` the files of `tests/fuzz/corpus/NAME` and mutations of them, into which `words` are put. A target is
/// fast: it is called thousands of times.
///
/// # Errors
///
/// If the folder cannot be read, or has no file.
///
/// # Panics
///
/// As `target`.
pub fn run(name: &str, words: &[&str], mut target: impl FnMut(&[u8])) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths =
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    let seeds = paths.iter().map(fs::read).collect::<Result<Vec<_>>>()?;
    if seeds.is_empty() {
        return Err(Error::other(format!("{} has no file to begin with", folder.display())));
    }
    for seed in &seeds {
        target(seed);
    }
    let seconds = std::env::var_os(SECONDS).and_then(|text| text.to_str()?.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut random = Random(if end.is_some() { (u64::from(std::process::id()) << 20) | 1 } else { 0x5EED });
    for number in 0.. {
        if end.map_or(number == MUTATIONS, |end| Instant::now() >= end) {
            break;
        }
        let input = random.mutated(&seeds, words);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
            fs::write(folder.join(OsStr::new(&format!("panic-{number}"))), &input)?;
            resume_unwind(panic);
        }
    }
    Ok(())
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or_default() % end.max(1)
    }

    fn one_of<'v, T>(&mut self, values: &'v [T]) -> Option<&'v T> {
        values.get(self.below(values.len()))
    }

    /// One of the seeds, changed in a few places.
    fn mutated(&mut self, seeds: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
        let mut input = self.one_of(seeds).cloned().unwrap_or_default();
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            let end = (at + self.below(16)).min(input.len());
            let byte = self.next().to_le_bytes()[0];
            match self.below(8) {
                0 => input.iter_mut().skip(at).take(1).for_each(|old| *old ^= 1 << (byte & 7)),
                1 => input.iter_mut().skip(at).take(1).for_each(|old| *old = byte),
                2 => input.insert(at, byte),
                3 => drop(input.drain(at..end)),
                4 => {
                    let part = input.get(at..end).unwrap_or_default().repeat(1 + self.below(3));
                    input.splice(at..at, part);
                }
                5 => input.truncate(at),
                6 => {
                    let other = self.one_of(seeds).map_or(&[][..], |other| other);
                    let from = self.below(other.len());
                    input.splice(at.., other.get(from..).unwrap_or_default().iter().copied());
                }
                _ => {
                    let word = self.one_of(words).copied().unwrap_or_default();
                    input.splice(at..end, word.bytes());
                }
            }
            input.truncate(MAX_BYTES);
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_differ_and_repeat() {
        let seeds = [b"one".to_vec(), b"another one".to_vec()];
        let some = |number| {
            let mut random = Random(number);
            (0..1000).map(|_| random.mutated(&seeds, &["word"])).collect::<Vec<_>>()
        };
        assert_eq!(some(1), some(1));
        let mut different = some(1);
        different.sort();
        different.dedup();
        assert!(different.len() > 500, "{}", different.len());
        assert!(different.iter().any(|input| input.windows(4).any(|part| part == b"word")));
    }
}

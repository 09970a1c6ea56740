//! A sorted file of SHA-1 hashes, a line each, as offline sets of breached passwords are: looked up where it
//! lies, since the large ones have some ten GB.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Error, ErrorKind, Result, Seek as _};
use std::os::unix::fs::FileExt as _;

/// A SHA-1 hash.
pub(super) type Digest = [u8; 20];

/// Hexadecimal digits of a hash.
pub(super) const DIGITS: usize = 40;

/// Most bytes of a line with its end: a hash, and how often it was seen.
const MAX_LINE: usize = 64;

/// Files of up to this many bytes are looked through when they are opened, of longer ones [`SAMPLES`] lines.
const SMALL: u64 = 64 * 1024 * 1024;
const SAMPLES: u64 = 1_000;

/// The file, held open: one that takes its place is seen at the next start.
pub(super) struct Hashes {
    file: File,
    length: u64,
}

/// A line of the file.
struct Line {
    start: u64,
    /// The offset of the next line.
    next: u64,
    digest: Digest,
}

impl Hashes {
    /// A file of hashes, or why it is none.
    pub(super) fn open(file: File) -> Result<std::result::Result<Self, String>> {
        let length = file.metadata()?.len();
        let mut hashes = Self { file, length };
        let fault = if length <= SMALL { hashes.fault()? } else { hashes.fault_of_samples()? };
        Ok(fault.map_or(Ok(hashes), Err))
    }

    /// Returns true if the file holds a hash. Reads some 200 bytes in each of as many places as the binary
    /// logarithm of the file's length.
    pub(super) fn contains(&self, digest: &Digest) -> Result<bool> {
        let (mut low, mut high) = (0, self.length);
        while low < high {
            let line = self.line_at(low + (high - low) / 2, low)?;
            match line.digest.cmp(digest) {
                Ordering::Equal => return Ok(true),
                Ordering::Less => low = line.next,
                Ordering::Greater => high = line.start,
            }
        }
        Ok(false)
    }

    /// The line that has the byte at `offset`; some line starts at `low`, which is not after it.
    fn line_at(&self, offset: u64, low: u64) -> Result<Line> {
        let broken =
            || Error::new(ErrorKind::InvalidData, format!("no hash at byte {offset} of the blocklist"));
        let from = low.max(offset.saturating_sub(MAX_LINE as u64));
        let mut buffer = [0; 2 * MAX_LINE];
        let filled = self.read_at(&mut buffer, from)?;
        let read = buffer.get(..filled).ok_or_else(broken)?;
        let at = usize::try_from(offset - from).map_err(|_| broken())?;
        let (before, after) = read.split_at_checked(at).ok_or_else(broken)?;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let end = after.iter().position(|byte| *byte == b'\n').map_or(filled, |end| at + end);
        let digest = read.get(start..end).and_then(parse).ok_or_else(broken)?;
        Ok(Line { start: from + start as u64, next: from + end as u64 + 1, digest })
    }

    /// Fills the buffer, or as much of it as the file has.
    fn read_at(&self, buffer: &mut [u8], from: u64) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, from + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Which line is no hash, or not in order.
    fn fault(&mut self) -> Result<Option<String>> {
        self.file.rewind()?;
        let mut before: Option<Digest> = None;
        for (n, line) in (1_usize..).zip(BufReader::new(&self.file).split(b'\n')) {
            let Some(digest) = parse(&line?) else {
                return Ok(Some(format!(
                    "line {n} is not {DIGITS} hexadecimal digits, or these, a colon and a number"
                )));
            };
            if before.is_some_and(|before| before >= digest) {
                return Ok(Some(format!("line {n} does not come after the line before: sort the file")));
            }
            before = Some(digest);
        }
        Ok(None)
    }

    /// The same by some lines of a long file, the first and the last among them.
    fn fault_of_samples(&self) -> Result<Option<String>> {
        let mut before: Option<Digest> = None;
        for n in 0..=SAMPLES {
            let offset = (self.length - 1) / SAMPLES * n + (self.length - 1) % SAMPLES * n / SAMPLES;
            let line = match self.line_at(offset, 0) {
                Ok(line) => line,
                Err(error) if error.kind() == ErrorKind::InvalidData => return Ok(Some(error.to_string())),
                Err(error) => return Err(error),
            };
            if before.is_some_and(|before| before >= line.digest) {
                return Ok(Some(format!("the hash at byte {} is not in order: sort the file", line.start)));
            }
            before = Some(line.digest);
        }
        Ok(None)
    }
}

/// The hash of a line, without the line's end.
fn parse(line: &[u8]) -> Option<Digest> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (hash, rest) = line.split_at_checked(DIGITS)?;
    let counted = |rest: &[u8]| {
        let count = rest.strip_prefix(b":");
        count.is_some_and(|count| !count.is_empty() && count.iter().all(u8::is_ascii_digit))
    };
    if line.len() >= MAX_LINE || !(rest.is_empty() || counted(rest)) {
        return None;
    }
    let mut digest = Digest::default();
    hex::decode_to_slice(hash, &mut digest).ok().map(|()| digest)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use sha1::{Digest as _, Sha1};

    use super::*;

    fn digest(n: u32) -> Digest {
        Sha1::digest(n.to_be_bytes()).into()
    }

    /// A file of the hashes of `0..count`, whose lines are of several lengths.
    fn written(count: u32, end: &str, last_end: &str) -> File {
        let mut digests: Vec<Digest> = (0..count).map(digest).collect();
        digests.sort_unstable();
        let line = |(n, digest): (usize, &Digest)| match n % 3 {
            0 => hex::encode(digest),
            1 => format!("{}:{}", hex::encode_upper(digest), n * 12_345),
            _ => format!("{}:1", hex::encode_upper(digest)),
        };
        let lines: Vec<String> = digests.iter().enumerate().map(line).collect();
        let mut file = tempfile::tempfile().unwrap();
        write!(file, "{}{last_end}", lines.join(end)).unwrap();
        file
    }

    #[test]
    fn exactly_the_hashes_of_the_file_are_found() {
        for count in [1, 2, 3, 10, 1_000] {
            for (end, last_end) in [("\n", ""), ("\n", "\n"), ("\r\n", "\r\n"), ("\r\n", "")] {
                let hashes = Hashes::open(written(count, end, last_end)).unwrap().unwrap();
                for n in 0..count {
                    assert!(hashes.contains(&digest(n)).unwrap(), "{n} of {count}");
                }
                for n in count..2 * count + 10 {
                    assert!(!hashes.contains(&digest(n)).unwrap(), "{n} of {count}");
                }
                for edge in [[0; 20], [255; 20]] {
                    assert!(!hashes.contains(&edge).unwrap());
                }
            }
        }
    }

    #[test]
    fn samples_of_a_long_file_find_that_it_is_another() {
        let hashes = Hashes::open(written(5_000, "\n", "\n")).unwrap().unwrap();
        assert_eq!(hashes.fault_of_samples().unwrap(), None);
        let lines: Vec<String> = (0..5_000).map(|n| hex::encode(digest(n))).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(lines.join("\n").as_bytes()).unwrap();
        let length = file.metadata().unwrap().len();
        let unsorted = Hashes { file, length };
        assert!(unsorted.fault_of_samples().unwrap().unwrap().contains("not in order"));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'x'; 100_000]).unwrap();
        let other = Hashes { file, length: 100_000 };
        assert!(other.fault_of_samples().unwrap().unwrap().contains("no hash at byte"));
        assert!(other.contains(&digest(1)).is_err());
    }
}

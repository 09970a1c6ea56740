//! `passwords.blocklist`: a file of passwords that must not be used, beside the list that is built in.

mod hashes;

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha1::{Digest as _, Sha1};
use tokio::sync::{mpsc, oneshot};

use crate::domain::password::Password;
use crate::domain::text::{fold, has_line};
use crate::error::{Error, Result};

use hashes::{Digest, Hashes};

/// Most bytes of a list of passwords, which is kept in memory. A list of hashes may have any length.
const MAX_TEXT: u64 = 64 * 1024 * 1024;

/// Look-ups that may wait for the thread that reads the file; further ones wait to get in.
const MAX_WAITING: usize = 256;

/// A file of passwords that must not be used. Cheap to clone.
#[derive(Clone)]
pub struct Blocklist {
    list: Arc<List>,
}

enum List {
    /// Folded passwords in order, a line each.
    Text(String),
    /// The way to the thread that looks hashes up in the file. It ends with the last clone.
    Hashes(mpsc::Sender<LookUp>),
}

/// A question to the thread that reads the file.
struct LookUp {
    digest: Digest,
    answer: oneshot::Sender<std::io::Result<bool>>,
}

/// Why the file cannot be used. Names the setting, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file, or it may not be read.
    #[error("passwords.blocklist: cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// It is neither a list of passwords nor a sorted list of SHA-1 hashes.
    #[error("passwords.blocklist: {}: {}", .0.display(), .1)]
    Format(PathBuf, String),
}

impl Blocklist {
    /// Opens a list of passwords, or of SHA-1 hashes as its first line shows. A list of passwords is read
    /// into memory; of hashes only samples are read.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |error| OpenError::Read(path.to_owned(), error);
        let wrong = |why: String| OpenError::Format(path.to_owned(), why);
        // Before it is opened: to open a pipe waits for someone who writes.
        let about = std::fs::metadata(path).map_err(failed)?;
        if !about.is_file() || about.len() == 0 {
            return Err(wrong("is not a file, or is empty".to_owned()));
        }
        let mut file = File::open(path).map_err(failed)?;
        let list = match kind_of(&mut file).map_err(failed)? {
            Kind::Sha1 => {
                let hashes = Hashes::open(file).map_err(failed)?.map_err(wrong)?;
                List::Hashes(start(hashes).map_err(failed)?)
            }
            Kind::OtherHash => {
                return Err(wrong(
                    "line 1 is a hash, but not SHA-1, which has 40 hexadecimal digits".to_owned(),
                ));
            }
            Kind::Text if about.len() > MAX_TEXT => {
                let limit = MAX_TEXT / 1024 / 1024;
                return Err(wrong(format!("has more than {limit} MiB: give sorted SHA-1 hashes instead")));
            }
            Kind::Text => {
                let mut bytes = Vec::new();
                file.take(MAX_TEXT).read_to_end(&mut bytes).map_err(failed)?;
                List::Text(folded(&bytes).map_err(wrong)?)
            }
        };
        Ok(Self { list: Arc::new(list) })
    }

    /// Returns true if the file holds the password. A list of passwords is compared without regard to case,
    /// hashes are those of the exact text. Fails with [`Error::Internal`] if the file cannot be read any
    /// more, or is not sorted where it was not looked at before.
    pub async fn holds(&self, password: &Password) -> Result<bool> {
        match &*self.list {
            List::Text(lines) => Ok(has_line(lines, &password.folded())),
            List::Hashes(thread) => {
                let (composed, raw) = (password.expose(), password.expose_raw());
                Ok(look_up(thread, composed).await? || (raw != composed && look_up(thread, raw).await?))
            }
        }
    }
}

async fn look_up(thread: &mpsc::Sender<LookUp>, password: &[u8]) -> Result<bool> {
    let (answer, found) = oneshot::channel();
    let look_up = LookUp { digest: Sha1::digest(password).into(), answer };
    let ended = || Error::internal("the thread that reads passwords.blocklist has ended");
    thread.send(look_up).await.map_err(|_| ended())?;
    found.await.map_err(|_| ended())?.map_err(Error::internal)
}

/// Starts the thread that reads the file: a look-up waits for the disk some 30 times, which no thread that
/// serves calls may do. One is enough: a look-up takes less than a thousandth of a password's hash.
fn start(hashes: Hashes) -> std::io::Result<mpsc::Sender<LookUp>> {
    let (sender, mut look_ups) = mpsc::channel::<LookUp>(MAX_WAITING);
    std::thread::Builder::new().name("blocklist".to_owned()).spawn(move || {
        while let Some(LookUp { digest, answer }) = look_ups.blocking_recv() {
            // A caller that has left needs no answer.
            let _ = answer.send(hashes.contains(&digest));
        }
    })?;
    Ok(sender)
}

enum Kind {
    Text,
    Sha1,
    OtherHash,
}

/// Detects the kind of the file by its first line. Leaves the file at its beginning.
fn kind_of(file: &mut File) -> std::io::Result<Kind> {
    /// The shortest hash that is taken for one, in hexadecimal digits: MD5 and NTLM.
    const MIN_HASH_DIGITS: usize = 32;
    let mut start = Vec::new();
    file.by_ref().take(1024).read_to_end(&mut start)?;
    file.rewind()?;
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let hash = without_mark(line).split(|byte| [b':', b'\r'].contains(byte)).next().unwrap_or_default();
    Ok(match hash.len() {
        _ if !hash.iter().all(u8::is_ascii_hexdigit) => Kind::Text,
        hashes::DIGITS => Kind::Sha1,
        MIN_HASH_DIGITS.. => Kind::OtherHash,
        _ => Kind::Text,
    })
}

/// A text without the byte order mark that some editors put before it.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

/// The lines of a list, folded and in order; or why it is none.
fn folded(bytes: &[u8]) -> Result<String, String> {
    let mut lines = Vec::new();
    for (n, line) in (1_usize..).zip(without_mark(bytes).split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line).map_err(|_| format!("line {n} is not UTF-8"))?;
        if !line.is_empty() {
            lines.push(fold(line));
        }
    }
    lines.sort_unstable();
    lines.dedup();
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn open(content: &[u8]) -> Result<Blocklist, String> {
        Blocklist::open(file(content).path()).map_err(|error| error.to_string())
    }

    async fn holds(list: &Blocklist, password: &str) -> bool {
        list.holds(&Password::attempt(password.to_owned())).await.unwrap()
    }

    #[tokio::test]
    async fn a_list_of_passwords_is_compared_without_regard_to_case() {
        let list = open("\u{feff}Zebra crossing\r\n\n\u{c4}rger im B\u{fc}ro\nfoo:1\n".as_bytes()).unwrap();
        for held in ["zebra crossing", "ZEBRA Crossing", "a\u{308}rger im b\u{fc}ro", "foo:1"] {
            assert!(holds(&list, held).await, "{held}");
        }
        for free in ["", "zebra", "zebra crossing ", "\u{feff}zebra crossing", "foo"] {
            assert!(!holds(&list, free).await, "{free:?}");
        }
        let digits = open(b"1234567890\n").unwrap();
        assert!(holds(&digits, "1234567890").await);
    }

    #[tokio::test]
    async fn hashes_are_those_of_the_exact_text_as_typed_or_composed() {
        let hash = |text: &str| hex::encode_upper(Sha1::digest(text));
        let mut lines =
            [hash("Zebra crossing"), hash("\u{e4}rger"), hash("o\u{308}l")].map(|hash| hash + ":17");
        lines.sort();
        let list = open(lines.join("\r\n").as_bytes()).unwrap();
        for held in ["Zebra crossing", "\u{e4}rger", "a\u{308}rger", "o\u{308}l"] {
            assert!(holds(&list, held).await, "{held}");
        }
        for free in ["zebra crossing", "\u{f6}l", ""] {
            assert!(!holds(&list, free).await, "{free}");
        }
    }

    #[test]
    fn a_file_that_is_no_list_is_refused_with_the_reason() {
        let one = "0".repeat(40);
        let (two, three) = ("1".repeat(40), "2".repeat(40));
        for (content, why) in [
            (String::new(), "empty"),
            ("0".repeat(32), "line 1 is a hash, but not SHA-1"),
            ("a".repeat(64) + ":7\n", "line 1 is a hash, but not SHA-1"),
            (format!("{one}\n{three}\n{two}\n"), "line 3 does not come after the line before"),
            (format!("{one}\n{one}\n"), "line 2 does not come after"),
            (format!("{one}\n\n{two}"), "line 2 is not"),
            (format!("{one}\n{two}:x"), "line 2 is not"),
            (format!("{one}:\n{two}"), "line 1 is not"),
            (format!("{one}\n{two}\n\n"), "line 3 is not"),
            (format!("{one}\n{}", &two[1..]), "line 2 is not"),
            (format!("\u{feff}{one}\n"), "line 1 is not"),
        ] {
            let said = open(content.as_bytes()).err().unwrap_or_else(|| panic!("{content:?} was taken"));
            assert!(said.contains("passwords.blocklist") && said.contains(why), "{said}");
        }
        assert!(open(b"good\nb\xe4d\n").err().unwrap().contains("line 2 is not UTF-8"));
        let folder = tempfile::TempDir::new().unwrap();
        assert!(Blocklist::open(folder.path()).is_err());
        assert!(
            Blocklist::open(&folder.path().join("none")).err().unwrap().to_string().contains("cannot read")
        );
    }
}

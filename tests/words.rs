//! The words of the source: one term for one thing, the field's own, and a README for five minutes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Identifiers that were replaced by the field's terms, beside the term.
const IDENTIFIERS: &[(&str, &str)] = &[
    ("Admission", "Permits"),
    ("AFTERMATH", "RECOVERY_WINDOW"),
    ("Alias", "LoginIdentifier"),
    ("AT_ONCE", "INSERT_BATCH"),
    ("beginnings", "prefixes"),
    ("chores", "background"),
    ("converse", "serve_connection"),
    ("count_try", "count_attempt"),
    ("Courtesy", "CpuYielder"),
    ("decide", "settle, check"),
    ("decoy", "dummy_hash"),
    ("EVERY", "INTERVAL, ALL"),
    ("FAR", "MAX_SCAN"),
    ("FEW", "SORT_THRESHOLD"),
    ("find_made", "find_stored_call"),
    ("foresee", "preview"),
    ("forgive", "refund"),
    ("gate", "authenticator"),
    ("Gate", "Authenticator"),
    ("give_back", "refund"),
    ("Guarded", "Pipeline"),
    ("Guess", "AttemptReservation"),
    ("Hurry", "DrainDelaySkip"),
    ("hurry", "skip_drain_delay"),
    ("in_words_of_micro", "with_micro_error"),
    ("is_right", "is_verified, matches"),
    ("judge", "check_limits"),
    ("Known", "Principal"),
    ("LONG_AGO", "REAUTH_AFTER"),
    ("lot", "pseudo_random"),
    ("MadeCall", "StoredCall"),
    ("Make", "DigestFn"),
    ("maker", "creator"),
    ("Mark", "BucketKey"),
    ("may_prove", "accepts"),
    ("narrowings", "candidate_queries"),
    ("note_use", "flush_last_used"),
    ("OF_ITS_OWN", "GENERATED_COLUMNS"),
    ("Own", "CallerPermit"),
    ("pack", "compress"),
    ("pack_messages", "compress_messages"),
    ("pack_reply", "compress_reply"),
    ("patient_connect", "connect_with_retry"),
    ("Place", "Lifecycle, Cursor"),
    ("place", "permit, cursor, location, client IP"),
    ("Proof", "PasswordAttempt"),
    ("Proven", "Verified"),
    ("Reach", "AllowedNamespaces"),
    ("reach", "namespaces"),
    ("REFUND_PATIENCE", "MAX_REFUND_WAIT"),
    ("refund_try", "refund_attempt"),
    ("refuse_pages", "reject_browser_requests"),
    ("refuse_unnamed", "refuse_unauthenticated"),
    ("Removed", "RemovedCounts"),
    ("RightCode", "VerifiedCode"),
    ("ROOM_AGAIN", "RETRY_AFTER"),
    ("SeenQueue", "LastReadQueue"),
    ("stand_in", "placeholder_user_id"),
    ("strangers", "anonymous, keyless"),
    ("stretches", "index_ranges"),
    ("survive_full_files", "turn_sigxfsz_into_error"),
    ("take_up", "reload"),
    ("Taken", "UniqueViolation"),
    ("told", "last_logged, message"),
    ("trees", "segments"),
    ("tries", "attempts, times"),
    ("Tries", "AttemptTimes"),
    ("unpack", "decompress"),
    ("Walk", "KeysetRange"),
    ("Wanted", "PageRequest"),
    ("WORTH", "MIN_GAIN"),
];

/// Constants begin with MAX or MIN instead.
const BOUNDS: [&str; 6] = ["FEWEST_", "LEAST_", "LONGEST_", "MOST_", "SHORTEST_", "SOME_"];

/// Phrases that were replaced in comments and messages, beside the field's words.
const PHRASES: &[(&str, &str)] = &[
    ("anew", "again"),
    ("came about", "failed"),
    ("cannot make", "cannot create"),
    ("count as wrong", "are rejected"),
    ("database of countries", "country database"),
    ("everybody", "anyone, every client"),
    ("everyone's", "of all tenants"),
    ("felt at once", "visible immediately"),
    ("gives way", "yields"),
    ("good key", "valid key"),
    ("in vain", "failed"),
    ("is nobody's", "matches no user"),
    ("kept nowhere", "stored only as a digest"),
    ("lies in the trash", "is in the trash"),
    ("look again", "run it again"),
    ("put aside", "preempted"),
    ("see to the cause", "fix the cause"),
    ("set aside", "preempted"),
    ("somebody", "a client, a user"),
    ("steps aside", "yields"),
    ("strangers", "anonymous callers, unknown addresses"),
    ("till", "until"),
    ("whoever", "a client that, a program that"),
];

/// Beginnings of doc comments that name a clause and not a thing.
const CLAUSES: [&str; 5] = ["What ", "Whether ", "Who ", "Where ", "How "];

const MAX_CLAUSES: usize = 40;

/// A file of `src` or `crates`, taken apart. Names of tables and columns in strings stay as they were stored.
struct Source {
    path: String,
    text: String,
    /// The text without comments and strings.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut found) = (vec![root.join("src"), root.join("crates")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.push(Source { path, code: code(&text), text });
            }
        }
    }
    assert!(found.len() > 100, "{}", found.len());
    found
}

/// Blanks comments, strings and characters, and keeps the lines.
fn code(text: &str) -> String {
    let (mut kept, mut rest) = (String::new(), text);
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if next == '"' {
            string_length(rest)
        } else if next == '\'' {
            character_length(rest)
        } else {
            0
        };
        let (gone, left) = rest.split_at(skipped.max(next.len_utf8()));
        if skipped == 0 {
            kept.push(next);
        } else {
            kept.extend(gone.chars().filter(|c| *c == '\n'));
        }
        rest = left;
    }
    kept
}

/// The bytes of a string with its quotes.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// The bytes of a character with its quotes; 0 for a lifetime.
fn character_length(text: &str) -> usize {
    let mut after = text.char_indices().skip(1);
    match (after.next(), after.next()) {
        (Some((_, '\\')), _) => text[3..].find('\'').map_or(0, |end| end + 4),
        (_, Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

fn is_inside(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns true if the line has the word, and not only as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_inside) && !line[at + word.len()..].starts_with(is_inside))
}

/// Names the lines of `text` that have one of the words, each with the term to use.
fn complaints(source: &Source, text: &str, words: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for (word, term) in words.iter().filter(|(word, _)| text.contains(word)) {
        for (number, _) in text.lines().enumerate().filter(|(_, line)| has_word(line, word)) {
            found.push(format!("{}:{}: {word}; say {term}", source.path, number + 1));
        }
    }
    found
}

#[test]
fn strings_and_comments_are_no_code() {
    let text = "let a = 'x'; // place\nlet b: &'a str = \"place \\\" place\"; let c = ('\"', place);\n";
    assert_eq!(code(text), "let a = ; \nlet b: &'a str = ; let c = (, place);\n");
    assert!(has_word("a.place()", "place") && !has_word("places replace place_of", "place"));
}

#[test]
fn identifiers_are_the_terms_of_the_field() {
    let mut wrong = Vec::new();
    for source in sources() {
        wrong.extend(complaints(&source, &source.code, IDENTIFIERS));
        let names = source.code.split(|c| !is_inside(c));
        let bounds = names.filter(|name| BOUNDS.iter().any(|bound| name.starts_with(bound)));
        wrong.extend(bounds.map(|name| format!("{}: {name}; say MAX_ or MIN_", source.path)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn comments_and_messages_are_plain() {
    let wrong: Vec<_> = sources()
        .iter()
        .flat_map(|source| complaints(source, &source.text.to_lowercase(), PHRASES))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn doc_comments_begin_with_what_a_thing_is_or_does() {
    let mut found = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().map(str::trim_start).collect();
        for (number, line) in lines.iter().enumerate() {
            let doc = |line: &str| line.strip_prefix("/// ").or(line.strip_prefix("//! ")).map(str::to_owned);
            let first = number == 0 || doc(lines[number - 1]).is_none();
            if first && doc(line).is_some_and(|text| CLAUSES.iter().any(|clause| text.starts_with(clause))) {
                found.push(format!("{}:{}: {line}", source.path, number + 1));
            }
        }
    }
    assert!(found.len() <= MAX_CLAUSES, "{} of {MAX_CLAUSES}:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_readme_is_read_in_five_minutes() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (lines, bytes) = (readme.lines().count(), readme.len());
    assert!(lines <= 160 && bytes <= 10 * 1024, "{lines} lines, {bytes} bytes");
}

//! People who are not: the same ones in every run, with names that repeat, share syllables and end alike as names do.
//! How long a search takes is decided by how often its three-letter parts occur.

use std::collections::{BTreeMap, HashSet};

use usersd::domain::email::Email;
use usersd::domain::prefs::Prefs;
use usersd::domain::time::Timestamp;
use usersd::domain::user::{Labels, Metadata, Name, Status, User};
use usersd::domain::user_id::UserId;
use usersd::domain::username::Username;
use uuid::Builder;

const STARTS: [&str; 32] = [
    "m", "s", "a", "j", "k", "l", "r", "d", "b", "c", "t", "n", "e", "g", "p", "h", "v", "i", "ch", "o", "f",
    "w", "al", "st", "y", "br", "an", "kr", "sh", "z", "th", "q",
];
const MIDDLES: [&str; 14] = ["a", "e", "i", "o", "u", "ia", "ie", "y", "ea", "ei", "au", "oo", "io", "ue"];
const ENDS: [&str; 18] =
    ["", "n", "", "r", "l", "s", "", "m", "nd", "t", "ss", "ck", "rt", "d", "nn", "th", "ng", "x"];
const FAMILIES: [&str; 14] =
    ["", "son", "er", "", "ez", "man", "ski", "ova", "ing", "ton", "sen", "berg", "ini", "escu"];
const TOPS: [&str; 6] = ["com", "com", "org", "net", "de", "co.uk"];
const LABELS: [&str; 6] = ["newsletter", "trial", "customer", "beta", "staff", "vip"];

/// Different given names, family names and hosts of addresses: few of them are common, many rare.
const GIVEN: u64 = 3_000;
const FAMILY: u64 = 150_000;
const HOSTS: u64 = 200;

/// The label of some of the first users, as many wherever there are that many.
pub(crate) const RARE_LABEL: &str = "auditor";
const RARE: std::ops::Range<u64> = 5_000..5_020;

/// When the first of them signed up, and how far apart they did, in milliseconds.
const FIRST: u64 = 1_700_000_000_000;
const APART: u64 = 60_000;

/// Everyone, one after the other.
pub(crate) struct People {
    random: Random,
    taken: HashSet<String>,
    number: u64,
}

impl People {
    /// Always the same ones. `seed` tells one tenant's from another's.
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random(seed), taken: HashSet::new(), number: 0 }
    }

    /// The next so many.
    pub(crate) fn take(&mut self, many: usize) -> Vec<User> {
        (0..many).map(|_| self.next()).collect()
    }

    fn next(&mut self) -> User {
        self.number += 1;
        let random = &mut self.random;
        let (given, family) = (given(random.skewed(GIVEN, 10)), family(random.skewed(FAMILY, 50)));
        let signed_up = FIRST + self.number * APART + random.below(APART);
        let mut bytes = [0; 10];
        bytes.fill_with(|| u8::try_from(random.below(256)).unwrap_or_default());
        let id = Builder::from_unix_timestamp_millis(signed_up, &bytes).into_uuid();
        let username = nickname(&given, &family, random);
        let host = host(random.skewed(HOSTS, 4));
        let (changed, status, verified) =
            (random.below(200) * 86_400_000, random.below(100), random.below(5));
        let (labels, metadata) = (labels(random, self.number), metadata(random));
        let username = self.unique(&username, "");
        let email = self.unique(&format!("{given}.{family}"), &host);
        let created = Timestamp(micros(signed_up));
        User {
            id: UserId::from_uuid(id),
            username: Some(Username::from_trusted(username)),
            email: Some(Email::from_trusted(email)),
            name: Name::from_trusted(format!("{} {}", capital(&given), capital(&family))),
            status: match status {
                0..2 => Status::Blocked,
                2..7 => Status::Pending,
                _ => Status::Active,
            },
            email_verified: verified > 0,
            password_updated: Some(created),
            prefs: Prefs::default(),
            labels: Labels::from_trusted(labels),
            metadata: Metadata::from_trusted(metadata),
            sso_enabled: false,
            created,
            updated: Timestamp(micros(signed_up + changed)),
            deleted: None,
            version: 1,
            generation: micros(self.number),
        }
    }

    /// With a number behind the name if someone has it.
    fn unique(&mut self, name: &str, host: &str) -> String {
        let mut whole = format!("{name}{host}");
        while self.taken.contains(&whole) {
            whole = format!("{name}{}{host}", self.random.below(10_000));
        }
        self.taken.insert(whole.clone());
        whole
    }
}

fn micros(number: u64) -> i64 {
    i64::try_from(number * 1_000).unwrap_or(i64::MAX)
}

fn nickname(given: &str, family: &str, random: &mut Random) -> String {
    match random.below(4) {
        0 => format!("{given}.{family}"),
        1 => format!("{}{family}{:02}", given.get(..1).unwrap_or(given), random.below(100)),
        2 => format!("{given}{:04}", random.below(10_000)),
        _ => format!("{family}_{given}{}", 1950 + random.below(60)),
    }
}

/// The given name of that number.
fn given(number: u64) -> String {
    let mut random = Random(number ^ 0x6769_7665);
    let syllables = if random.below(8) == 0 { 1 } else { 2 };
    (0..syllables).map(|_| syllable(&mut random)).collect::<String>() + random.among(&ENDS)
}

/// The family name of that number.
fn family(number: u64) -> String {
    let mut random = Random(number ^ 0x0066_616d);
    let syllables = 2 + random.below(2);
    (0..syllables).map(|_| syllable(&mut random)).collect::<String>() + random.among(&FAMILIES)
}

fn host(number: u64) -> String {
    let mut random = Random(number ^ 0x686f_7374);
    let name: String = (0..2 + random.below(2)).map(|_| syllable(&mut random)).collect();
    format!("@{name}{}.{}", random.among(&["", "mail", "", "soft", "tech"]), random.among(&TOPS))
}

fn syllable(random: &mut Random) -> String {
    let end = if random.below(3) == 0 { random.among(&ENDS) } else { "" };
    format!("{}{}{end}", random.among(&STARTS), random.among(&MIDDLES))
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn labels(random: &mut Random, number: u64) -> Vec<String> {
    let mut labels = Vec::new();
    if random.below(3) == 0 {
        labels.push(random.among(&LABELS).to_owned());
    }
    if RARE.contains(&number) {
        labels.push(RARE_LABEL.to_owned());
    }
    labels
}

fn metadata(random: &mut Random) -> BTreeMap<String, String> {
    let country = random.among(&["US", "DE", "GB", "FR", "CZ", "BR", "IN"]);
    let plan = random.among(&["free", "team", "business"]);
    [("country", country), ("plan", plan)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// `SplitMix64`: all that is asked of it is to look random and to be the same everywhere.
/// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From 0 to below `end`, the smaller the more often (Zipf's law), the first `flat` nearly alike.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small numbers, of which any will do"
    )]
    fn skewed(&mut self, end: u64, flat: u64) -> u64 {
        let (even, flat) = (self.below(1 << 32) as f64 / (1_u64 << 32) as f64, flat as f64);
        let number = flat * (end as f64 / flat + 1.0).powf(even) - flat;
        (number as u64).min(end - 1)
    }

    /// One of them, the first ones more often than the last.
    fn among<'a>(&mut self, all: &[&'a str]) -> &'a str {
        let end = all.len() as u64;
        let number = self.below(end).min(self.below(end));
        all[usize::try_from(number).unwrap_or_default()]
    }
}

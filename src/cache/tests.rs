use std::process::Command;

use crate::domain::session::SessionToken;
use crate::domain::user::{Labels, Metadata, Name, Status};

use super::*;

const MEMORY: usize = 16 * 1024 * 1024;

/// The bytes that the allocator may keep for more of the same.
const SLACK: usize = 2 * 1024 * 1024;

fn session(n: usize) -> Session {
    Session {
        public_id: format!("019ab3c0-0000-7000-8000-{n:012}"),
        user: UserId::from_trusted(format!("019ab3c0-1111-7000-8000-{n:012}")),
        username: format!("user{n}"),
        email: format!("user{n}@example.com"),
        created: Timestamp(1),
        expires: Timestamp(2),
        auth_time: Timestamp(1),
        amr: "pwd".to_owned(),
        last_read: Timestamp(1),
    }
}

fn user(n: usize) -> User {
    let metadata = (0..n % 30).map(|m| (format!("key{m}"), "v".repeat(m * 7)));
    User {
        id: UserId::from_trusted(format!("019ab3c0-1111-7000-8000-{n:012}")),
        username: Some(Username::from_trusted(format!("user{n}"))),
        email: None,
        name: Name::from_trusted("n".repeat(n % 100)),
        status: Status::Active,
        email_verified: false,
        password_updated: None,
        prefs: crate::domain::prefs::Prefs::default(),
        labels: Labels::from_trusted(vec!["staff".to_owned(); n % 10]),
        metadata: Metadata::from_trusted(metadata.collect()),
        sso_enabled: false,
        created: Timestamp(1),
        updated: Timestamp(1),
        deleted: None,
        version: 1,
        generation: 1,
    }
}

fn digest(n: usize) -> SecretDigest {
    SessionToken::digest_of(&format!("ses_{n:064x}")).unwrap()
}

fn cache() -> Cache {
    let coherence = Arc::<Coherence>::default();
    coherence.note_poll_now();
    Cache::new(MEMORY, Duration::from_hours(1), coherence)
}

fn records(cache: &Cache) -> &Records {
    cache.records.as_ref().unwrap()
}

#[test]
fn a_record_is_found_by_its_own_key_and_namespace_alone() {
    let cache = cache();
    let (namespace, other) = (Namespace::parse("a").unwrap(), Namespace::parse("b").unwrap());
    let stamp = cache.stamp();
    cache.keep_session(stamp, &namespace, digest(1), &session(1));
    cache.keep_user(stamp, &namespace, &user(2));
    assert_eq!(cache.session(&namespace, digest(1)).unwrap().session.username, "user1");
    assert_eq!(cache.user(&namespace, &user(2).id).unwrap().version, 1);
    assert!(cache.session(&other, digest(1)).is_none() && cache.session(&namespace, digest(2)).is_none());
    assert!(cache.user(&other, &user(2).id).is_none() && cache.user(&namespace, &user(1).id).is_none());
    let off = Cache::new(0, Duration::from_hours(1), Arc::clone(&cache.coherence));
    off.keep_session(stamp, &namespace, digest(1), &session(1));
    assert!(off.session(&namespace, digest(1)).is_none());
}

#[test]
fn a_read_is_noted_once_in_its_time_however_many_there_are() {
    let cache = cache();
    let namespace = Namespace::default();
    cache.keep_session(cache.stamp(), &namespace, digest(1), &session(1));
    let found = cache.session(&namespace, digest(1)).unwrap();
    let every = Duration::from_micros(10);
    let noted: Vec<i64> = (0..40).filter(|now| found.note_read(Timestamp(*now), every)).collect();
    assert_eq!(noted, [12, 23, 34]);
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Offers sessions and users, and looks for tokens that open nothing; returns by how much the process has grown.
fn offered(cache: &Cache, offers: usize) -> usize {
    let (namespace, before) = (Namespace::default(), resident());
    for n in 0..offers {
        cache.keep_session(cache.stamp(), &namespace, digest(n), &session(n));
        if n % 16 == 0 {
            cache.keep_user(cache.stamp(), &namespace, &user(n));
        }
        assert!(cache.session(&namespace, digest(n + offers)).is_none());
        if n % 1_000 == 0 {
            let weight = records(cache).weight();
            assert!(weight <= MEMORY as u64, "{weight}");
        }
    }
    resident().saturating_sub(before)
}

/// In a process of its own, where nothing else allocates.
#[test]
#[ignore = "run by the next test"]
fn offers_of_a_process_of_its_own() {
    let cache = cache();
    let grown = offered(&cache, 1_000_000);
    println!("{} of 1062500 records are kept, and take {grown} bytes", records(&cache).len());
    assert!(grown <= MEMORY + SLACK, "{grown}");
    assert!(records(&cache).len() > MEMORY / 1024, "{}", records(&cache).len());
}

#[test]
fn a_million_sessions_stay_within_the_memory_and_unknown_tokens_take_none() {
    let name = "cache::tests::offers_of_a_process_of_its_own";
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

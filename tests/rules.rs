//! Each rule of `rules.txt` names tests that there are.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// The text of every Rust file.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut text) =
        (["src", "crates", "tests"].map(|folder| root.join(folder)).to_vec(), String::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                text += &fs::read_to_string(&path).unwrap();
            }
        }
    }
    text
}

#[test]
fn every_rule_is_held_by_a_test_or_says_why_not() {
    let sources = sources();
    let rules = include_str!("rules.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for rule in rules {
        let [_, _, held] = rule.split(" | ").collect::<Vec<_>>()[..] else { panic!("{rule}") };
        // A rule that is not followed names the test of what is done instead, if there is one.
        let tests = match held.strip_prefix("- ") {
            Some(why) => why.rsplit_once(": ").map_or("", |(_, test)| test),
            None => held,
        };
        for test in tests.split(", ").filter(|test| !test.is_empty()) {
            assert!(sources.contains(&format!("fn {test}(")), "{test} of: {rule}");
        }
    }
}

//! Imports point inwards, and each thing that is done in one place only is done there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// Every source file with its path from `src/`.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.strip_prefix(&root).unwrap().display().to_string(), text)
    };
    let mut sources: Vec<_> = found.into_iter().map(read).collect();
    sources.sort();
    assert!(sources.len() > 40, "the walk found {} files", sources.len());
    sources
}

/// The layer a file belongs to: its folder, or itself.
fn layer(path: &str) -> &str {
    path.split_once('/').map_or(path.trim_end_matches(".rs"), |(folder, _)| folder)
}

/// The code of a file without its tests.
fn code(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod tests {").map_or(text, |(code, _)| code)
}

/// The crate's modules a file names.
fn imports(text: &str) -> Vec<&str> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    code(text)
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .filter_map(|rest| rest.split(ends).next())
        .collect()
}

#[test]
fn each_layer_imports_only_what_lies_further_in() {
    let rules = [
        ("domain", &["domain", "clock"][..]),
        ("error", &["pb"]),
        ("clock", &["domain", "error"]),
        ("config", &["domain"]),
        ("hasher", &["domain", "error"]),
        ("devices", &["domain"]),
        ("blocklist", &["domain", "error"]),
        ("store", &["domain", "error"]),
        ("throttle", &["clock", "config", "domain", "error", "store"]),
        (
            "ops",
            &["domain", "error", "store", "hasher", "clock", "config", "devices", "blocklist", "throttle"],
        ),
        ("auth", &["auth", "clock", "config", "domain", "error", "store", "DESCRIPTOR_SET"]),
        ("grpc", &["auth", "domain", "error", "ops", "pb", "grpc"]),
        ("http", &["error", "grpc", "http", "pb", "DESCRIPTOR_SET"]),
        ("telemetry", &["config"]),
        (
            "server",
            &["auth", "clock", "config", "domain", "error", "grpc", "http", "ops", "pb", "DESCRIPTOR_SET"],
        ),
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some((_, allowed)) = rules.iter().find(|(name, _)| *name == layer(&path)) else { continue };
        for module in imports(&text) {
            if !allowed.contains(&module) {
                wrong.push(format!("{path} imports {module}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_http_layer_takes_only_the_making_of_statuses_from_grpc() {
    for (path, text) in sources().into_iter().filter(|(path, _)| layer(path) == "http") {
        for line in code(&text).lines().filter(|line| line.contains("crate::grpc")) {
            assert!(line.contains("crate::grpc::status::"), "{path}: {line}");
        }
    }
}

#[test]
fn what_has_one_place_stays_there() {
    let places = [
        ("sea_orm::", &["store", "throttle"][..]),
        ("bcrypt::", &["hasher"]),
        ("bcrypt_lanes::", &["hasher"]),
        ("argon2::", &["hasher"]),
        ("ua_parser::", &["devices"]),
        ("maxminddb::", &["devices"]),
        ("rustls::", &["server"]),
        ("std::env::var", &["config"]),
        ("SystemTime::now", &["clock"]),
        ("spawn_blocking", &[]),
        ("tonic::", &["auth", "error", "grpc", "http", "lib", "server"]),
        ("pb::", &["error", "grpc", "http", "server"]),
        ("std::process::exit", &["cli"]),
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = code(&text).lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            for (word, layers) in places {
                if line.contains(word) && !layers.contains(&layer(&path)) {
                    wrong.push(format!("{path}: {}", line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn transactions_begin_and_end_in_one_place() {
    let places = [
        ("\"BEGIN", "store/lease.rs"),
        ("\"COMMIT", "store/lease.rs"),
        ("\"ROLLBACK", "store/lease.rs"),
        ("\"SAVEPOINT", "nowhere"),
        ("return_to_pool", "store/lease.rs"),
        // The library's own, which migrations need.
        ("TransactionTrait", "store/migration.rs"),
        ("begin_with", "store/migration.rs"),
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for line in code(&text).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (word, place) in places {
                if line.contains(word) && path != place {
                    wrong.push(format!("{path}: {}", line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! Imports point inwards, and each thing that is done in one place only is done there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// Every source file with its path from `src/`.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
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

/// The lines of a file's code, without comments and tests.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    code(text).lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The module of a file: `http/dialects/rest.rs` is `http::dialects::rest`.
fn module(path: &str) -> String {
    path.trim_end_matches(".rs").replace('/', "::")
}

/// The paths from the crate that a file names, `super` resolved: `http::dialects::rest`, whatever is taken from there.
fn paths(path: &str, text: &str) -> Vec<String> {
    let own = module(path);
    let text = lines(text).collect::<Vec<_>>().join("\n");
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::").chain(text.match_indices("super::")) {
        // The second `super` of `super::super` belongs to the first.
        if text[..at].ends_with("super::") {
            continue;
        }
        let named = text[at..].split(ends).next().unwrap_or_default();
        let (mut base, mut rest) = (own.as_str(), named);
        if let Some(absolute) = rest.strip_prefix("crate::") {
            (base, rest) = ("", absolute);
        }
        while let Some(above) = rest.strip_prefix("super::") {
            base = base.rsplit_once("::").map_or("", |(above, _)| above);
            rest = above;
        }
        // `{a, b}`; of what lies deeper the beginning is enough.
        let group =
            text[at + named.len()..].strip_prefix('{').map_or("", |group| group.split('}').next().unwrap());
        for item in group.split(',') {
            let item = item.trim().split([' ', '{']).next().unwrap_or_default();
            found.push(format!("{base}::{rest}{item}").trim_matches(':').to_owned());
        }
    }
    found
}

#[test]
fn paths_are_resolved() {
    let text = "use crate::error::{A, B};\nuse super::super::wire::next;\n// use super::x;\nlet a = super::b(crate::c::d);";
    let want = ["error::A", "error::B", "c::d", "http::json::wire::next", "http::json::read::b"];
    assert_eq!(paths("http/json/read/path.rs", text), want);
}

/// Folders are no circles: a module and those inside it may know each other.
#[test]
fn no_two_modules_of_http_import_each_other() {
    let sources: Vec<_> = sources().into_iter().filter(|(path, _)| path.starts_with("http")).collect();
    let imports: Vec<(String, Vec<String>)> =
        sources.iter().map(|(path, text)| (module(path), paths(path, text))).collect();
    let takes_from = |from: &[String], module: &str| {
        from.iter().any(|path| {
            path == module || path.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"))
        })
    };
    let related = |one: &str, other: &str| one.starts_with(&format!("{other}::"));
    let mut circles = Vec::new();
    for (one, ones) in &imports {
        for (other, others) in imports.iter().filter(|(other, _)| other > one) {
            let apart = !related(one, other) && !related(other, one);
            if apart && takes_from(ones, other) && takes_from(others, one) {
                circles.push(format!("{one} and {other}"));
            }
        }
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

/// The layers, each with those that it may import from.
const RULES: &[(&str, &[&str])] = &[
    ("domain", &["domain", "clock"]),
    ("error", &["pb"]),
    ("clock", &["domain", "error"]),
    ("config", &["domain"]),
    ("metrics", &[]),
    ("hasher", &["domain", "error", "metrics", "telemetry"]),
    ("devices", &["domain"]),
    ("blocklist", &["domain", "error"]),
    ("store", &["clock", "domain", "error", "metrics", "telemetry"]),
    ("cache", &["domain", "metrics", "store"]),
    ("throttle", &["clock", "config", "domain", "error", "metrics", "store", "telemetry"]),
    (
        "ops",
        &[
            "domain",
            "error",
            "store",
            "hasher",
            "metrics",
            "clock",
            "config",
            "devices",
            "blocklist",
            "throttle",
            "cache",
        ],
    ),
    ("headers", &[]),
    ("auth", &["auth", "clock", "config", "domain", "error", "headers", "store", "DESCRIPTOR_SET"]),
    ("grpc", &["auth", "domain", "error", "ops", "pb", "grpc", "telemetry"]),
    ("http", &["error", "grpc", "headers", "http", "pb", "DESCRIPTOR_SET"]),
    ("telemetry", &["config", "error", "metrics"]),
    (
        "server",
        &[
            "auth",
            "clock",
            "config",
            "domain",
            "error",
            "grpc",
            "http",
            "metrics",
            "ops",
            "pb",
            "store::Health",
            "telemetry",
            "DESCRIPTOR_SET",
        ],
    ),
];

#[test]
fn each_layer_imports_only_what_lies_further_in() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some((_, allowed)) = RULES.iter().find(|(name, _)| *name == layer(&path)) else { continue };
        for named in paths(&path, &text) {
            let within = |layer: &str| {
                named.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            };
            if !within(layer(&path)) && !allowed.iter().any(|inner| within(inner)) {
                wrong.push(format!("{path} imports {named}"));
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
        ("quick_cache::", &["cache"]),
        ("prometheus_client::", &["metrics", "server"]),
        ("opentelemetry", &["telemetry"]),
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
        ("return_to_pool", "store/pool.rs"),
        // The library's own, for migrations and for the commands that read or write a whole database.
        ("TransactionTrait", "store/migration.rs store/maintenance.rs"),
        ("begin_with", "store/migration.rs store/maintenance.rs"),
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for line in code(&text).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (word, place) in places {
                if line.contains(word) && place.split(' ').all(|place| path != place) {
                    wrong.push(format!("{path}: {}", line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

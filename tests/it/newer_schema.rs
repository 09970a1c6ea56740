//! A database that a newer program has migrated: during a rolling upgrade, and after a step back.

use std::process::Output;

use tokio::process::Command;
use usersd::pb::{LoginRequest, ReadRequest};

use crate::process::Process;
use crate::support::{PASSWORD, Service, ada, create};

crate::on_every_backend!(
    a_program_works_with_migrations_newer_than_its_own,
    migrations_that_are_not_newer_are_refused,
    newer_migrations_behind_a_missing_one_are_refused,
);

const LATER: &str = "m20991231_000001_later";

async fn note_migration(service: &Service, name: &str) {
    service
        .execute(&format!("INSERT INTO seaql_migrations (version, applied_at) VALUES ('{name}', 0)"))
        .await;
}

/// Runs a command to its end: its exit code, stdout and stderr.
async fn usersd(service: &Service, arguments: &[&str]) -> (Option<i32>, String, String) {
    let command = Command::new(env!("CARGO_BIN_EXE_usersd"))
        .args(["--database", service.database(), "--listen", "127.0.0.1:0"])
        .args(arguments)
        .env_clear()
        .env("USERSD_METRICS_LISTEN", "off")
        .output();
    let Output { status, stdout, stderr } = command.await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

const KEY: &[&str] = &["key", "create", "--namespace", "default", "--scopes", "users.read", "--name", "x"];

async fn a_program_works_with_migrations_newer_than_its_own(service: &Service) {
    create(service, ada()).await;
    note_migration(service, LATER).await;
    service.execute("ALTER TABLE users ADD COLUMN later BIGINT NOT NULL DEFAULT 0").await;
    for migrate in ["true", "false"] {
        let settings = [("USERSD_PASSWORDS_COST", "10"), ("USERSD_MIGRATE", migrate)];
        let mut process = Process::start(service.database(), &settings).await;
        assert!(process.said.contains("a newer usersd migrated the database"), "{}", process.said);
        assert!(process.said.contains(LATER), "{}", process.said);
        let login =
            LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
        let session = process.users.login(login).await.unwrap().into_inner().session.unwrap();
        let read = ReadRequest { id: session.user_id, ..ReadRequest::default() };
        process.users.read(read).await.unwrap();
        process.kill().await;
    }
    let (code, key, said) = usersd(service, KEY).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(key.starts_with("usk_") && said.contains(LATER), "{key}{said}");
    let (code, listed, said) = usersd(service, &["migrate", "status"]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(listed.ends_with(&format!("\nnewer\t{LATER}\n")) && !listed.contains("pending"), "{listed}");
    let (code, _, said) = usersd(service, &["migrate", "up"]).await;
    assert!(code == Some(0) && said.contains(LATER), "{said}");
    let (code, found, said) = usersd(service, &["doctor"]).await;
    assert_eq!(code, Some(0), "{found}{said}");
    assert!(found.contains(&format!("warning schema: a newer usersd migrated it: {LATER}\n")), "{found}");
}

async fn migrations_that_are_not_newer_are_refused(service: &Service) {
    note_migration(service, LATER).await;
    note_migration(service, "m20240101_000001_albums").await;
    for arguments in [&[][..], KEY, &["migrate", "status"], &["migrate", "up"]] {
        let (code, out, said) = usersd(service, arguments).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}: {said}");
        assert!(
            said.contains("another program made it") && said.contains("m20240101_000001_albums"),
            "{said}"
        );
        assert!(!said.contains(LATER), "{said}");
    }
    let (code, found, _) = usersd(service, &["doctor"]).await;
    assert_eq!(code, Some(1), "{found}");
    assert!(found.contains("FAULT   schema") && found.contains("m20240101_000001_albums"), "{found}");
}

async fn newer_migrations_behind_a_missing_one_are_refused(service: &Service) {
    note_migration(service, LATER).await;
    service.execute("DELETE FROM seaql_migrations WHERE version LIKE '%_000015_%'").await;
    let noted = "SELECT count(*) FROM seaql_migrations";
    let before = service.number(noted).await;
    for arguments in [&[][..], KEY, &["migrate", "up"]] {
        let (code, _, said) = usersd(service, arguments).await;
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert!(said.contains("_000015_namespaces") && said.contains(LATER), "{said}");
    }
    assert_eq!(service.number(noted).await, before);
}

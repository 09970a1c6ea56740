//! Keys outside the database: the pepper of passwords.

use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use tonic::{Code, Status};
use usersd::pb::{CreateRequest, LoginRequest};
use usersd::store::doctor::Grade;

use crate::steps::assert_alike;
use crate::support::{PASSWORD, Replica, Service, ada, assert_refused, create, fields, login, nth};

crate::on_every_backend!(
    a_log_in_peppers_the_hash_and_goes_over_to_a_new_key,
    a_password_whose_key_is_missing_is_wrong_until_the_key_is_back,
    an_imported_hash_is_peppered_at_its_first_log_in,
    a_refusal_costs_the_same_work_with_and_without_a_pepper,
    a_hash_with_a_pepper_cannot_be_imported,
);

/// A line of the file: the key of a version is the same in each test.
pub(crate) fn line(version: u8) -> String {
    let digit = char::from(b'A' + version);
    format!("{version} {}=\n", digit.to_string().repeat(42) + "A")
}

/// A file with the keys of these versions.
pub(crate) fn key_file(versions: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    write(file.path(), versions);
    file
}

fn write(path: &Path, versions: &[u8]) {
    std::fs::write(path, versions.iter().map(|version| line(*version)).collect::<String>()).unwrap();
}

async fn peppered(service: &Service, file: &NamedTempFile) -> Replica {
    let path: PathBuf = file.path().to_owned();
    service.another(|config| config.passwords.pepper = Some(path)).await
}

async fn try_login(replica: &Replica, username: &str, password: &str) -> Result<(), Status> {
    let request = LoginRequest { username: username.into(), password: password.into(), ..Default::default() };
    replica.users.clone().login(request).await.map(|_| ())
}

/// The number of users whose stored hash begins like this.
async fn stored(service: &Service, prefix: &str) -> i64 {
    service.number(&format!("SELECT count(*) FROM users WHERE password_hash LIKE '{prefix}%'")).await
}

const PEPPERED: &str = "$bcrypt-hmac-sha384$v=1,k=";

/// (23, R4)
async fn a_log_in_peppers_the_hash_and_goes_over_to_a_new_key(service: &Service) {
    create(service, ada()).await;
    let file = key_file(&[1]);
    let replica = peppered(service, &file).await;
    assert_eq!(stored(service, "$2b$04$").await, 1);
    try_login(&replica, "ada", "wrong").await.unwrap_err();
    assert_eq!(stored(service, "$2b$04$").await, 1);
    try_login(&replica, "ada", PASSWORD).await.unwrap();
    assert_eq!(stored(service, &format!("{PEPPERED}1,r=4$")).await, 1);
    replica.users.clone().create(nth(1)).await.unwrap();
    assert_eq!(stored(service, &format!("{PEPPERED}1,r=4$")).await, 2);

    // As the manual says: first every replica can verify with the new key, then it makes hashes.
    for (versions, with_second) in [([1, 2], 0), ([2, 1], 1)] {
        write(file.path(), &versions);
        replica.ops.reload_peppers(Some(file.path())).unwrap();
        try_login(&replica, "ada", PASSWORD).await.unwrap();
        try_login(&replica, "ada", PASSWORD).await.unwrap();
        assert_eq!(stored(service, &format!("{PEPPERED}2,")).await, with_second);
    }
    try_login(&replica, "user1", PASSWORD).await.unwrap();
    // A file that cannot be read changes nothing.
    std::fs::write(file.path(), "2 short").unwrap();
    replica.ops.reload_peppers(Some(file.path())).unwrap_err();
    try_login(&replica, "ada", PASSWORD).await.unwrap();
}

/// (5, 23)
async fn a_password_whose_key_is_missing_is_wrong_until_the_key_is_back(service: &Service) {
    let file = key_file(&[1]);
    let replica = peppered(service, &file).await;
    replica.users.clone().create(ada()).await.unwrap();
    for versions in [&[][..], &[2]] {
        let path = (!versions.is_empty()).then(|| file.path());
        write(file.path(), versions);
        replica.ops.reload_peppers(path).unwrap();
        let status = try_login(&replica, "ada", PASSWORD).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
        assert_alike(&status, &try_login(&replica, "nobody", PASSWORD).await.unwrap_err());
        let keys: Vec<u32> = versions.iter().map(|version| u32::from(*version)).collect();
        let finding = service.replica.store.examine_peppers(&keys).await.unwrap();
        assert_eq!(finding.grade, Grade::Fault, "{finding:?}");
        assert!(finding.found.starts_with("1 passwords and 0 TOTP secrets"), "{finding:?}");
    }
    write(file.path(), &[2, 1]);
    replica.ops.reload_peppers(Some(file.path())).unwrap();
    let finding = service.replica.store.examine_peppers(&[2, 1]).await.unwrap();
    assert_eq!(finding.grade, Grade::Ok, "{finding:?}");
    try_login(&replica, "ada", PASSWORD).await.unwrap();
    assert_eq!(stored(service, &format!("{PEPPERED}2,")).await, 1);
}

async fn an_imported_hash_is_peppered_at_its_first_log_in(service: &Service) {
    let replica = peppered(service, &key_file(&[1])).await;
    let hash = "$2a$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e";
    let import = CreateRequest { password_hash: hash.into(), password: String::new(), ..ada() };
    replica.users.clone().create(import).await.unwrap();
    assert_eq!(stored(service, "$2a$04$").await, 1, "it is kept as it came");
    try_login(&replica, "ada", PASSWORD).await.unwrap();
    assert_eq!(stored(service, PEPPERED).await, 1);
    try_login(&replica, "ada", PASSWORD).await.unwrap();
}

/// (1, 3, R13) Counted in rounds of bcrypt: one hash at cost 4 each.
async fn a_refusal_costs_the_same_work_with_and_without_a_pepper(service: &Service) {
    let file = key_file(&[1]);
    let replica = peppered(service, &file).await;
    create(service, ada()).await;
    replica.users.clone().create(nth(1)).await.unwrap();
    let refuse = async |replica: &Replica, username: &str| {
        let before = replica.hasher.work().rounds_done;
        try_login(replica, username, "wrong").await.unwrap_err();
        replica.hasher.work().rounds_done - before
    };
    for name in ["ada", "user1", "nobody", "anybody", "not a name"] {
        assert_eq!(refuse(&replica, name).await, 16, "{name}");
        assert_eq!(refuse(&service.replica, name).await, 16, "{name} without the file");
    }
    login(service, "ada").await;
}

async fn a_hash_with_a_pepper_cannot_be_imported(service: &Service) {
    let replica = peppered(service, &key_file(&[1])).await;
    let hash = format!("{PEPPERED}1,r=4${}${}", ".".repeat(22), ".".repeat(31));
    let import = CreateRequest { password_hash: hash, password: String::new(), ..ada() };
    let status = replica.users.clone().create(import).await.unwrap_err();
    assert_eq!(fields(&status), ["password_hash"]);
}

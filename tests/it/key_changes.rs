//! What a change of one key costs where there are many, whoever makes it.

use tonic::{Code, Request};
use usersd::domain::scope::Scopes;
use usersd::pb::{DeleteKeyRequest, ReadRequest};

use crate::support::{Backend, Replica, START, Service, create, nth, reason, until};

crate::on_every_backend!(
    of_many_keys_only_those_that_changed_are_read,
    a_change_past_the_program_is_felt,
    where_it_cannot_be_told_what_changed_all_keys_are_read,
);

const MANY: u64 = 20_000;

/// Keys that nobody has the secrets of.
async fn seed(service: &Service, keys: u64) {
    let (digest, numbers) = match service.backend {
        Backend::Sqlite => (
            "CAST(printf('%032d', n) AS BLOB)",
            format!(
                "(WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {keys}) \
                 SELECT n FROM counted)"
            ),
        ),
        Backend::Postgres => (
            "decode(lpad(n::text, 64, '0'), 'hex')",
            format!("(SELECT generate_series(1, {keys}) AS n) AS numbers"),
        ),
    };
    let insert = format!(
        "INSERT INTO keys (namespace, id, digest, name, scopes, created, expires, last_used) \
         SELECT 'other', 'key' || CAST(n AS TEXT), {digest}, 'x', 'users.read', {START}000000, 0, 0 FROM {numbers}"
    );
    service.execute(&insert).await;
}

/// What a read with `key` is refused with; empty if it is not.
async fn refusal(replica: &Replica, key: &str) -> String {
    let mut request = Request::new(ReadRequest { id: "nobody".into(), ..ReadRequest::default() });
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    match replica.users.clone().read(request).await {
        Err(status) if status.code() != Code::NotFound => reason(&status),
        _ => String::new(),
    }
}

async fn until_refused(replica: &Replica, key: &str) {
    until(async || refusal(replica, key).await == "KEY_MISSING_OR_UNKNOWN").await;
}

/// The number of keys that the replica reads during `work`.
async fn read_during(replica: &Replica, work: impl Future) -> u64 {
    let before = replica.keys.keys_read();
    work.await;
    replica.keys.keys_read() - before
}

async fn of_many_keys_only_those_that_changed_are_read(service: &Service) {
    create(service, nth(1)).await;
    let (admin, _) = service.key("default", Scopes::ALL).await;
    seed(service, MANY).await;
    let another = service.another(|_| {}).await;
    assert_eq!(another.keys.keys_read(), MANY + 1);
    service.replica.keys.refresh().await.unwrap();

    let replicas = [&service.replica, &another];
    let mut read = [0, 0];
    // Where a probe was slow its connection was replaced, and all keys were read again.
    for _ in 0..5 {
        let before = replicas.map(|replica| replica.keys.keys_read());
        let (secret, id) = service.key("default", Scopes::ALL).await;
        until(async || refusal(&another, &secret).await.is_empty()).await;
        let mut revocation = Request::new(DeleteKeyRequest { id, ..DeleteKeyRequest::default() });
        revocation.metadata_mut().insert("authorization", format!("Bearer {admin}").parse().unwrap());
        service.replica.keys_client().delete(revocation).await.unwrap();
        assert_eq!(refusal(&service.replica, &secret).await, "KEY_MISSING_OR_UNKNOWN");
        until_refused(&another, &secret).await;
        read = [0, 1].map(|n| replicas[n].keys.keys_read() - before[n]);
        if read.iter().all(|read| *read < MANY) {
            break;
        }
    }
    // The new one, and the same revoked.
    assert_eq!(read, [2, 2]);
    assert_eq!(refusal(&another, &admin).await, "");
}

/// Statements of an older program, which knows nothing of the notes, and of somebody who repairs something by hand.
async fn a_change_past_the_program_is_felt(service: &Service) {
    let (older, older_id) = service.key("default", Scopes::ALL).await;
    let (by_hand, by_hand_id) = service.key("default", Scopes::ALL).await;
    let (weak, weak_id) = service.key("default", Scopes::ALL).await;
    seed(service, 100).await;
    let replica = service.another(|_| {}).await;
    let version = "UPDATE keys_version SET version = version + 1";
    let read = read_during(&replica, async {
        service.execute(&format!("{version}; DELETE FROM keys WHERE id = '{older_id}'")).await;
        until_refused(&replica, &older).await;
        service.execute(&format!("DELETE FROM keys WHERE id = '{by_hand_id}'")).await;
        until_refused(&replica, &by_hand).await;
        service.execute(&format!("UPDATE keys SET scopes = 'users.write' WHERE id = '{weak_id}'")).await;
        until(async || refusal(&replica, &weak).await == "SCOPE_MISSING").await;
        service.execute(&format!("UPDATE keys SET last_used = 7 WHERE id = '{weak_id}'")).await;
        replica.keys.refresh().await.unwrap();
    });
    assert_eq!(Box::pin(read).await, 3);
    if service.backend == Backend::Postgres {
        service.execute("TRUNCATE keys").await;
        until_refused(&replica, &weak).await;
    }
}

async fn where_it_cannot_be_told_what_changed_all_keys_are_read(service: &Service) {
    let replica = service.another(|_| {}).await;
    let ways = [
        // So many changes ago that they are not kept.
        "DELETE FROM key_changes",
        // A backup in place of the database, after which other keys were changed as often as before,
        "UPDATE key_changes SET digest = (SELECT digest FROM keys WHERE namespace = 'other' LIMIT 1)",
        // or not as often.
        "UPDATE keys_version SET version = 1",
    ];
    seed(service, 10).await;
    for way in ways {
        let (key, id) = service.key("default", Scopes::ALL).await;
        until(async || refusal(&replica, &key).await.is_empty()).await;
        let read = read_during(&replica, async {
            service.execute(&format!("{way}; DELETE FROM keys WHERE id = '{id}'")).await;
            until_refused(&replica, &key).await;
        });
        assert!(read.await >= 10, "{way}");
    }
    let (key, _) = service.key("default", Scopes::ALL).await;
    until(async || refusal(&replica, &key).await.is_empty()).await;
}

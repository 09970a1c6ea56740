//! What a key may make, what became of it, and the log of both.

use std::time::Duration;

use http::{Method, StatusCode};
use tonic::Code;
use tonic_types::StatusExt as _;
use usersd::domain::key::{AllowedNamespaces, KeyName, NewKey};
use usersd::domain::scope::Scopes;
use usersd::domain::time::Timestamp;
use usersd::ops::keys;
use usersd::pb::{
    CreateKeyRequest, DeleteKeyRequest, KeyLogEntry, ListKeyLogsRequest, ListKeysRequest, LogEvent,
};

use crate::keys::{gone, make, new, read, with_key};
use crate::support::{Backend, START, Service, ada, assert_refused, create, fields};

crate::on_every_backend!(
    keys_of_another_tenant_and_their_log_are_not_found,
    a_key_makes_none_that_lives_longer_than_itself,
    revoking_a_key_with_its_descendants_leaves_none,
    a_root_keys_descendants_are_found_in_every_namespace,
    a_key_that_is_revoked_makes_nothing_meanwhile,
    how_keys_begin_and_end_is_logged,
    only_root_callers_see_what_happened_to_root_keys,
    expired_keys_do_not_count_and_are_logged_once,
    an_id_that_cannot_be_one_is_not_found,
    a_key_from_the_command_line_leaves_an_older_database_as_it_is,
);

/// Revoke with all that was made of it.
fn family(id: &str) -> DeleteKeyRequest {
    DeleteKeyRequest { id: id.into(), with_descendants: true }
}

async fn logs(service: &Service, key: &str, request: ListKeyLogsRequest) -> Vec<KeyLogEntry> {
    service.replica.keys_client().list_logs(with_key(key, request)).await.unwrap().into_inner().logs
}

async fn keys_of_another_tenant_and_their_log_are_not_found(service: &Service) {
    let (one, _) = service.key("one", Scopes::ALL).await;
    let (two, two_id) = service.key("two", Scopes::ALL).await;
    let (_, child_id) = make(&service.replica, &two, &["users.read"]).await;
    let mut keys = service.replica.keys_client();
    for id in [&two_id, &child_id] {
        let status = keys.delete(with_key(&one, family(id))).await.unwrap_err();
        assert_refused(&status, Code::NotFound, "KEY_NOT_FOUND");
        let about = ListKeyLogsRequest { key_id: id.clone(), ..Default::default() };
        assert_eq!(logs(service, &one, about).await, []);
    }
    assert_eq!(logs(service, &one, ListKeyLogsRequest::default()).await.len(), 1);
    assert_eq!(logs(service, &two, ListKeyLogsRequest::default()).await.len(), 2);
    assert_eq!(service.number("SELECT count(*) FROM keys WHERE namespace = 'two'").await, 2);
    // The token of one tenant's page leads nowhere in another's.
    let first = ListKeyLogsRequest { limit: Some(1), ..Default::default() };
    let page = keys.list_logs(with_key(&two, first.clone())).await.unwrap().into_inner();
    let next = ListKeyLogsRequest { page_token: page.next_page_token, ..first };
    let status = keys.list_logs(with_key(&one, next.clone())).await.unwrap_err();
    assert_eq!(fields(&status), ["page_token"]);
    let second = keys.list_logs(with_key(&two, next)).await.unwrap().into_inner();
    assert_eq!((second.logs[0].key_id.as_str(), second.next_page_token.as_str()), (two_id.as_str(), ""));
}

/// M10: a key of a minute made one without an end.
async fn a_key_makes_none_that_lives_longer_than_itself(service: &Service) {
    create(service, ada()).await;
    let short = NewKey {
        namespaces: AllowedNamespaces::parse("default").unwrap(),
        name: KeyName::parse("short").unwrap(),
        scopes: Scopes::ALL,
        expires: Some(Timestamp((START + 60) * 1_000_000)),
    };
    let (short, short_id) = service.key_like(short).await;
    service.clock.advance(Duration::from_secs(30));
    let lasting = |expires: i64| CreateKeyRequest { expires, ..new(&["users.read", "keys.admin"]) };
    let mut keys = service.replica.keys_client();
    for expires in [0, START + 91, i64::MAX / 1_000_000] {
        let status = keys.create(with_key(&short, lasting(expires))).await.unwrap_err();
        assert_eq!(fields(&status), ["expires"], "{expires}");
        let why = &status.get_details_bad_request().unwrap().field_violations[0].description;
        assert!(why.contains(&format!("at most {}", START + 90)), "{why}");
    }
    assert_eq!(service.number("SELECT count(*) FROM keys").await, 1);
    let made = keys.create(with_key(&short, lasting(START + 90))).await.unwrap().into_inner();
    assert_eq!(made.key.unwrap().created_by, short_id);
    // It outlives its creator, and may replace itself by one like it.
    service.clock.advance(Duration::from_secs(30));
    let status = keys.create(with_key(&short, lasting(START + 61))).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "KEY_MISSING_OR_UNKNOWN");
    service.users().read(with_key(&made.secret, read("ada"))).await.unwrap();
    keys.create(with_key(&made.secret, lasting(START + 120))).await.unwrap();
    let status = keys.create(with_key(&made.secret, lasting(START + 121))).await.unwrap_err();
    assert_eq!(fields(&status), ["expires"]);
    // One that has no end makes what it likes.
    let (endless, _) = service.key("default", Scopes::ALL).await;
    for expires in [0, START + 1_000_000_000] {
        keys.create(with_key(&endless, lasting(expires))).await.unwrap();
    }
}

async fn revoking_a_key_with_its_descendants_leaves_none(service: &Service) {
    create(service, ada()).await;
    let (admin, admin_id) = service.key("default", Scopes::ALL).await;
    let scopes = ["users.read", "keys.admin"];
    let (stolen, stolen_id) = make(&service.replica, &admin, &scopes).await;
    let (child, child_id) = make(&service.replica, &stolen, &scopes).await;
    let (grandchild, _) = make(&service.replica, &child, &scopes).await;
    let (second, _) = make(&service.replica, &stolen, &scopes).await;
    let (other, _) = make(&service.replica, &admin, &scopes).await;
    let mut keys = service.replica.keys_client();
    // What leads to the grandchild covers its tracks.
    let answer = keys.delete(with_key(&child, gone(&child_id))).await.unwrap().into_inner();
    assert_eq!(answer.revoked, 1);
    let path = format!("/v1/keys/{stolen_id}?withDescendants=true");
    let bearer = format!("Bearer {admin}");
    let (status, _, answer) =
        service.replica.request(Method::DELETE, &path, "", &[("authorization", &bearer)]).await;
    assert_eq!((status, &answer["revoked"]), (StatusCode::OK, &"3".into()), "{answer}");
    for key in [&stolen, &grandchild, &second] {
        let status = service.users().read(with_key(key, read("ada"))).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "KEY_MISSING_OR_UNKNOWN");
    }
    for key in [&admin, &other] {
        service.users().read(with_key(key, read("ada"))).await.unwrap();
    }
    // It is known as long as its events; only those that it made can still be revoked.
    let status = keys.delete(with_key(&admin, gone(&stolen_id))).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "KEY_NOT_FOUND");
    assert_eq!(keys.delete(with_key(&admin, family(&stolen_id))).await.unwrap().into_inner().revoked, 0);
    assert_eq!(keys.delete(with_key(&other, family(&admin_id))).await.unwrap().into_inner().revoked, 2);
    service.clock.advance(Duration::from_hours(24 * 366));
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM keys_ended").await, 0);
}

async fn a_root_keys_descendants_are_found_in_every_namespace(service: &Service) {
    let (root, root_id) = service.key("*", Scopes::ALL).await;
    let (own, _) = service.key("two", Scopes::ALL).await;
    let mut keys = service.replica.keys_client();
    for namespace in ["one", "two"] {
        let mut request = with_key(&root, new(&["users.read", "keys.admin"]));
        request.metadata_mut().insert("usersd-namespace", namespace.parse().unwrap());
        let made = keys.create(request).await.unwrap().into_inner();
        assert_eq!(made.key.unwrap().created_by, root_id);
        make(&service.replica, &made.secret, &["users.read"]).await;
    }
    // A tenant sees who made its keys, and cannot reach beyond them by that.
    let status = keys.delete(with_key(&own, family(&root_id))).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "KEY_NOT_FOUND");
    let revoked = keys::revoke(&service.replica.store, &service.clock, &root_id, true).await.unwrap();
    assert_eq!(revoked, 5);
    assert_eq!(service.number("SELECT count(*) FROM keys").await, 1);
    let by =
        "SELECT count(*) FROM events WHERE action = 'KEY_REVOKED' AND caller = 'usersd' AND namespace = ";
    for (namespace, events) in [("'*'", 1), ("'one'", 2), ("'two'", 2)] {
        assert_eq!(service.number(&format!("{by}{namespace}")).await, events, "{namespace}");
    }
}

/// Calls that were let in before their key was revoked end as if they had come later.
async fn a_key_that_is_revoked_makes_nothing_meanwhile(service: &Service) {
    let (admin, _) = service.key("default", Scopes::ALL).await;
    for _ in 0..5 {
        let (stolen, id) = make(&service.replica, &admin, &["keys.admin"]).await;
        let creates = (0..8).map(|_| {
            let (mut keys, stolen) = (service.replica.keys_client(), stolen.clone());
            tokio::spawn(async move { keys.create(with_key(&stolen, new(&["keys.admin"]))).await.is_ok() })
        });
        let creates: Vec<_> = creates.collect();
        let mut keys = service.replica.keys_client();
        let revoked = keys.delete(with_key(&admin, family(&id))).await.unwrap().into_inner().revoked;
        let mut made = 0;
        for create in creates {
            made += i64::from(create.await.unwrap());
        }
        assert_eq!(revoked, made + 1);
        assert_eq!(service.number("SELECT count(*) FROM keys").await, 1);
    }
}

async fn how_keys_begin_and_end_is_logged(service: &Service) {
    let (admin, admin_id) = service.key("default", Scopes::ALL).await;
    let short = CreateKeyRequest { expires: START + 60, ..new(&["users.read", "sessions.read"]) };
    let short = service.replica.keys_client().create(with_key(&admin, short)).await.unwrap();
    let short_id = short.into_inner().key.unwrap().id;
    let (_, other_id) = make(&service.replica, &admin, &["users.read"]).await;
    service.clock.advance(Duration::from_secs(70));
    service.replica.keys_client().delete(with_key(&admin, gone(&other_id))).await.unwrap();
    service.replica.ops.housekeep().await.unwrap();
    let logged = |log: &KeyLogEntry| (log.event(), log.key_id.clone(), log.caller.clone(), log.time - START);
    let (created, usersd) = (LogEvent::KeyCreated, || "usersd".to_owned());
    let all = logs(service, &admin, ListKeyLogsRequest::default()).await;
    assert_eq!(
        all.iter().map(logged).collect::<Vec<_>>(),
        [
            (LogEvent::KeyExpired, short_id.clone(), usersd(), 60),
            (LogEvent::KeyRevoked, other_id.clone(), admin_id.clone(), 70),
            (created, other_id, admin_id.clone(), 0),
            (created, short_id.clone(), admin_id.clone(), 0),
            (created, admin_id, usersd(), 0),
        ]
    );
    assert_eq!(all[3].scopes, ["users.read", "sessions.read"]);
    assert_eq!((all[3].device.as_ref().unwrap().address.as_str(), all[1].scopes.len()), ("127.0.0.1", 0));
    let about = ListKeyLogsRequest { key_id: short_id, ..Default::default() };
    assert_eq!(logs(service, &admin, about).await, [all[0].clone(), all[3].clone()]);
    let later = ListKeyLogsRequest { from: Some(START + 1), to: Some(START + 70), ..Default::default() };
    assert_eq!(logs(service, &admin, later).await, [all[0].clone()]);
    // By pages and as JSON.
    let bearer = format!("Bearer {admin}");
    let headers = [("authorization", bearer.as_str())];
    let (_, _, page) =
        service.replica.request(Method::GET, "/v1/keys:logs?limit=2&offset=1", "", &headers).await;
    assert_eq!((&page["total"], &page["logs"][0]["event"]), (&"5".into(), &"KEY_REVOKED".into()), "{page}");
    let next = format!("/v1/keys:logs?limit=2&pageToken={}", page["nextPageToken"].as_str().unwrap());
    let (_, _, page) = service.replica.request(Method::GET, &next, "", &headers).await;
    assert_eq!(page["logs"].as_array().unwrap().len(), 2, "{page}");
    assert_eq!(page["nextPageToken"], "");
    let (status, _, _) =
        service.replica.request(Method::GET, "/v1/keys:logs?keyId=a%00b", "", &headers).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

async fn only_root_callers_see_what_happened_to_root_keys(service: &Service) {
    let (root, root_id) = service.key("*", Scopes::ALL).await;
    let (tenant, tenant_id) = service.key("one", Scopes::ALL).await;
    let of_roots = ListKeyLogsRequest { root: true, ..Default::default() };
    let mut keys = service.replica.keys_client();
    let status = keys.list_logs(with_key(&tenant, of_roots.clone())).await.unwrap_err();
    assert_refused(&status, Code::PermissionDenied, "NAMESPACE_MISMATCH");
    for (request, id) in [(of_roots, &root_id), (ListKeyLogsRequest::default(), &tenant_id)] {
        let mut request = with_key(&root, request);
        request.metadata_mut().insert("usersd-namespace", "one".parse().unwrap());
        let shown = keys.list_logs(request).await.unwrap().into_inner().logs;
        assert_eq!((shown.len(), &shown[0].key_id), (1, id));
    }
}

/// L10: hourly keys ended in `TOO_MANY_KEYS` after six weeks.
async fn expired_keys_do_not_count_and_are_logged_once(service: &Service) {
    let (admin, id) = service.key("default", Scopes::ALL).await;
    let until = (START + 60) * 1_000_000;
    let digest = match service.backend {
        Backend::Sqlite => "randomblob(32)",
        Backend::Postgres => "sha256(CAST(CAST(n AS TEXT) AS BYTEA))",
    };
    service
        .execute(&format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 999) \
             INSERT INTO keys SELECT namespace, CAST(n AS TEXT), {digest}, name, scopes, created, {until}, last_used, \
             created_by FROM keys CROSS JOIN numbers WHERE id = '{id}'"
        ))
        .await;
    let mut keys = service.replica.keys_client();
    let status = keys.create(with_key(&admin, new(&["users.read"]))).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_KEYS");
    service.clock.advance(Duration::from_mins(1));
    make(&service.replica, &admin, &["users.read"]).await;
    let listed = keys.list(with_key(&admin, ListKeysRequest {})).await.unwrap().into_inner().keys;
    assert_eq!(listed.len(), 2);
    let another = service.another(|_| {}).await;
    let (one, two) = tokio::join!(service.replica.ops.housekeep(), another.ops.housekeep());
    one.unwrap();
    two.unwrap();
    for sql in ["SELECT count(*) FROM events WHERE action = 'KEY_EXPIRED'", "SELECT count(*) FROM keys_ended"]
    {
        assert_eq!(service.number(sql).await, 999, "{sql}");
    }
    assert_eq!(service.number("SELECT count(*) FROM keys").await, 2);
    another.stop.cancel();
}

/// L9: PostgreSQL takes no text with a NUL in it, and that was an internal error.
async fn an_id_that_cannot_be_one_is_not_found(service: &Service) {
    let (admin, _) = service.key("default", Scopes::ALL).await;
    let bearer = format!("Bearer {admin}");
    for id in ["a%00b", "nothing", "%20"] {
        let path = format!("/v1/keys/{id}?withDescendants=true");
        let headers = [("authorization", bearer.as_str())];
        let (status, _, answer) = service.replica.request(Method::DELETE, &path, "", &headers).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
    }
}

/// L17: a newer program that made a key brought the tables up to date under running servers.
async fn a_key_from_the_command_line_leaves_an_older_database_as_it_is(service: &Service) {
    let applied = "SELECT count(*) FROM seaql_migrations";
    let newest = "SELECT max(version) FROM seaql_migrations";
    service.execute(&format!("DELETE FROM seaql_migrations WHERE version = ({newest})")).await;
    let before = service.number(applied).await;
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_usersd"))
        .args(["--database", service.database(), "key", "create"])
        .args(["--namespace", "default", "--scopes", "users.read", "--name", "x"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("usersd migrate up") && output.stdout.is_empty(), "{said}");
    assert_eq!(service.number(applied).await, before);
    assert_eq!(service.number("SELECT count(*) FROM keys").await, 0);
}

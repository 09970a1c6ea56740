//! Keys: made, used, replaced and revoked, and the end of open mode.

use std::time::Duration;

use http::{Method, StatusCode};
use prost::Message as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Request};
use usersd::domain::key::Key;
use usersd::domain::scope::Scopes;
use usersd::ops::keys;
use usersd::pb::{
    CreateKeyRequest, DeleteKeyRequest, ListKeysRequest, ListLogsRequest, LoginRequest, ReadRequest,
    ReadSessionRequest,
};

use crate::support::{PASSWORD, Replica, START, Service, ada, assert_refused, create, fields, nth, until};

crate::on_every_backend!(
    tenants_manage_their_own_keys_only,
    the_first_key_ends_open_mode_for_good,
    the_first_key_ends_open_mode_also_by_the_command_line,
    a_key_gives_no_scope_that_it_lacks,
    every_fault_of_a_new_key_is_named,
    keys_reach_other_replicas_by_themselves,
    two_keys_are_good_side_by_side,
    a_key_ends_when_it_expires,
    last_use_is_recorded_and_shown,
    a_root_key_works_where_it_says,
    a_namespace_has_so_many_keys_and_no_more,
    a_log_names_the_key,
    one_caller_cannot_take_all_permits,
    callers_have_a_rate,
    health_and_reflection_can_be_closed,
    a_caller_cannot_make_itself_known,
    open_mode_does_not_come_back_with_an_old_database,
    a_broken_key_keeps_no_other_from_being_read,
    a_caller_who_sends_slowly_holds_only_its_own_permits,
    a_request_with_a_slow_message_is_authenticated_again,
    secrets_are_written_nowhere,
);

pub(crate) fn with_key<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

pub(crate) fn read(username: &str) -> ReadRequest {
    ReadRequest { username: username.into(), ..ReadRequest::default() }
}

pub(crate) fn new(scopes: &[&str]) -> CreateKeyRequest {
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    CreateKeyRequest { name: "orders".into(), scopes, expires: 0 }
}

pub(crate) fn gone(id: &str) -> DeleteKeyRequest {
    DeleteKeyRequest { id: id.into(), with_descendants: false }
}

/// A key made by one who may.
pub(crate) async fn make(replica: &Replica, admin: &str, scopes: &[&str]) -> (String, String) {
    let made = replica.keys_client().create(with_key(admin, new(scopes))).await.unwrap().into_inner();
    (made.secret, made.key.unwrap().id)
}

async fn tenants_manage_their_own_keys_only(service: &Service) {
    let (one, one_id) = service.key("one", Scopes::ALL).await;
    let (two, two_id) = service.key("two", Scopes::ALL).await;
    let mut keys = service.replica.keys_client();
    let listed = keys.list(with_key(&one, ListKeysRequest {})).await.unwrap().into_inner().keys;
    assert_eq!(
        listed.iter().map(|key| (&key.id, key.namespace.as_str())).collect::<Vec<_>>(),
        [(&one_id, "one")]
    );
    for id in [two_id.as_str(), "nothing"] {
        let status = keys.delete(with_key(&one, gone(id))).await.unwrap_err();
        assert_refused(&status, Code::NotFound, "KEY_NOT_FOUND");
    }
    service.clock.advance(Duration::from_millis(1));
    let (_, third) = make(&service.replica, &two, &["users.read"]).await;
    let listed = keys.list(with_key(&two, ListKeysRequest {})).await.unwrap().into_inner().keys;
    assert_eq!(listed.into_iter().map(|key| key.id).collect::<Vec<_>>(), [two_id, third]);
    let listed = keys.list(with_key(&one, ListKeysRequest {})).await.unwrap().into_inner().keys;
    assert_eq!(listed.len(), 1);
}

async fn the_first_key_ends_open_mode_for_good(service: &Service) {
    create(service, ada()).await;
    let http = &service.replica;
    let body = json!({"name": "first", "scopes": ["users.read", "keys.admin"]}).to_string();
    let (status, made) = http.json(Method::POST, "/v1/keys", &body).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    let (secret, id) = (made["secret"].as_str().unwrap(), made["key"]["id"].as_str().unwrap());
    assert_eq!(made["key"]["created"], START.to_string());
    // At once, on the replica that made it.
    let status = service.users().read(read("ada")).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "KEY_MISSING_OR_UNKNOWN");
    service.users().read(with_key(secret, read("ada"))).await.unwrap();
    // Keys may be used from anywhere, by any name of this machine.
    let headers = [
        ("authorization", format!("Bearer {secret}")),
        ("host", "users.example".into()),
        ("origin", "https://a.example".into()),
    ];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let (status, _, _) = http.request(Method::GET, "/v1/users", "", &headers).await;
    assert_eq!(status, StatusCode::OK);
    let gone = http.keys_client().delete(with_key(secret, gone(id))).await;
    gone.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM keys").await, 0);
    for request in [with_key(secret, read("ada")), Request::new(read("ada"))] {
        let status = service.users().read(request).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "KEY_MISSING_OR_UNKNOWN");
    }
    let another = service.another(|_| {}).await;
    assert!(!another.server.is_local_mode());
    another.stop.cancel();
}

async fn the_first_key_ends_open_mode_also_by_the_command_line(service: &Service) {
    create(service, ada()).await;
    assert!(service.replica.server.is_local_mode());
    let new = usersd::domain::key::NewKey {
        namespaces: usersd::domain::key::AllowedNamespaces::All,
        name: usersd::domain::key::KeyName::parse("root").unwrap(),
        scopes: Scopes::ALL,
        expires: None,
    };
    keys::create(&service.replica.store, &service.clock, new).await.unwrap();
    // Nobody tells the server: it finds out.
    until(async || !service.replica.server.is_local_mode()).await;
    let status = service.users().read(read("ada")).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "KEY_MISSING_OR_UNKNOWN");
}

async fn a_key_gives_no_scope_that_it_lacks(service: &Service) {
    let own = ["users.read", "keys.admin"];
    let (admin, _) = service.key("default", Scopes::parse(own).unwrap()).await;
    let mut keys = service.replica.keys_client();
    let version = service.number("SELECT version FROM keys_version").await;
    let status = keys.create(with_key(&admin, new(&["users.read", "users.admin"]))).await.unwrap_err();
    assert_refused(&status, Code::PermissionDenied, "SCOPE_MISSING");
    assert!(status.message().contains("users.admin"), "{status:?}");
    assert_eq!(service.number("SELECT version FROM keys_version").await, version);
    let (reader, _) = make(&service.replica, &admin, &["users.read"]).await;
    let status = keys.create(with_key(&reader, new(&["users.read"]))).await.unwrap_err();
    assert_refused(&status, Code::PermissionDenied, "SCOPE_MISSING");
    make(&service.replica, &admin, &own).await;
}

async fn every_fault_of_a_new_key_is_named(service: &Service) {
    let (admin, _) = service.key("default", Scopes::ALL).await;
    let bad = CreateKeyRequest { name: " ".into(), scopes: vec!["users.reed".into()], expires: -1 };
    let status = service.replica.keys_client().create(with_key(&admin, bad)).await.unwrap_err();
    assert_eq!(fields(&status), ["name", "scopes", "expires"]);
    for (expires, scopes) in [(START, &["users.read"][..]), (0, &[]), (i64::MAX, &["users.read"])] {
        let bad = CreateKeyRequest { expires, ..new(scopes) };
        let status = service.replica.keys_client().create(with_key(&admin, bad)).await.unwrap_err();
        assert_eq!(fields(&status).len(), 1, "{status:?}");
    }
    let status = service
        .replica
        .keys_client()
        .delete(with_key(&admin, DeleteKeyRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(fields(&status), ["id"]);
}

async fn keys_reach_other_replicas_by_themselves(service: &Service) {
    create(service, ada()).await;
    let (admin, _) = service.key("default", Scopes::ALL).await;
    let another = service.another(|_| {}).await;
    let (key, id) = make(&service.replica, &admin, &["users.read"]).await;
    let there = another.users.clone();
    until(async || there.clone().read(with_key(&key, read("ada"))).await.is_ok()).await;
    service.replica.keys_client().delete(with_key(&admin, gone(&id))).await.unwrap();
    let status = service.users().read(with_key(&key, read("ada"))).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "KEY_MISSING_OR_UNKNOWN");
    until(async || there.clone().read(with_key(&key, read("ada"))).await.is_err()).await;
    another.stop.cancel();
}

async fn two_keys_are_good_side_by_side(service: &Service) {
    create(service, ada()).await;
    let (old, old_id) = service.key("default", Scopes::ALL).await;
    let (young, _) = make(&service.replica, &old, &["users.read", "keys.admin"]).await;
    for key in [&old, &young] {
        service.users().read(with_key(key, read("ada"))).await.unwrap();
    }
    service.replica.keys_client().delete(with_key(&young, gone(&old_id))).await.unwrap();
    service.users().read(with_key(&young, read("ada"))).await.unwrap();
    let status = service.users().read(with_key(&old, read("ada"))).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "KEY_MISSING_OR_UNKNOWN");
}

async fn a_key_ends_when_it_expires(service: &Service) {
    create(service, ada()).await;
    let (admin, _) = service.key("default", Scopes::ALL).await;
    let request = CreateKeyRequest { expires: START + 60, ..new(&["users.read"]) };
    let made = service.replica.keys_client().create(with_key(&admin, request)).await.unwrap().into_inner();
    assert_eq!(made.key.unwrap().expires, START + 60);
    service.clock.advance(Duration::from_secs(59));
    service.users().read(with_key(&made.secret, read("ada"))).await.unwrap();
    service.clock.advance(Duration::from_secs(1));
    let status = service.users().read(with_key(&made.secret, read("ada"))).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "KEY_MISSING_OR_UNKNOWN");
    let listed = service.replica.keys_client().list(with_key(&admin, ListKeysRequest {})).await.unwrap();
    assert_eq!(listed.into_inner().keys.len(), 1);
}

async fn last_use_is_recorded_and_shown(service: &Service) {
    create(service, ada()).await;
    let (admin, _) = service.key("default", Scopes::ALL).await;
    let (used, used_id) = make(&service.replica, &admin, &["users.read"]).await;
    let (_, unused_id) = make(&service.replica, &admin, &["users.read"]).await;
    service.clock.advance(Duration::from_hours(1));
    for _ in 0..3 {
        service.users().read(with_key(&used, read("ada"))).await.unwrap();
    }
    service.replica.keys.flush_last_used().await.unwrap();
    let listed = service.replica.keys_client().list(with_key(&admin, ListKeysRequest {})).await.unwrap();
    let keys = listed.into_inner().keys;
    let used_at = |id: &str| keys.iter().find(|key| key.id == id).unwrap().last_used;
    assert_eq!((used_at(&used_id), used_at(&unused_id)), (START + 3600, 0));
    // Another replica that knows of an older use does not take it back.
    service.execute("UPDATE keys SET last_used = last_used * 2 WHERE last_used > 0").await;
    let before = service.number("SELECT max(last_used) FROM keys").await;
    service.clock.advance(Duration::from_secs(1));
    service.users().read(with_key(&used, read("ada"))).await.unwrap();
    service.replica.keys.flush_last_used().await.unwrap();
    assert_eq!(service.number("SELECT max(last_used) FROM keys").await, before);
}

async fn a_root_key_works_where_it_says(service: &Service) {
    let (root, _) = service.key("*", Scopes::ALL).await;
    let (one, _) = service.key("one", Scopes::ALL).await;
    let in_one = |request: Request<ReadRequest>| {
        let mut request = request;
        request.metadata_mut().insert("usersd-namespace", "one".parse().unwrap());
        request
    };
    service.users().create(with_key(&one, ada())).await.unwrap();
    service.users().read(in_one(with_key(&root, read("ada")))).await.unwrap();
    let status = service.users().read(with_key(&root, read("ada"))).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, "NAMESPACE_MISSING");
    let mut elsewhere = with_key(&root, read("ada"));
    elsewhere.metadata_mut().insert("usersd-namespace", "two".parse().unwrap());
    let status = service.users().read(elsewhere).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "USER_NOT_FOUND");
    // It makes keys of the namespace that it names, and none like itself.
    let mut request = with_key(&root, new(&["users.read"]));
    request.metadata_mut().insert("usersd-namespace", "two".parse().unwrap());
    let made = service.replica.keys_client().create(request).await.unwrap().into_inner();
    assert_eq!(made.key.unwrap().namespace, "two");
    let mut request = with_key(&root, new(&["users.read"]));
    request.metadata_mut().insert("usersd-namespace", "*".parse().unwrap());
    let status = service.replica.keys_client().create(request).await.unwrap_err();
    assert_eq!(fields(&status), ["usersd-namespace"]);
}

async fn a_namespace_has_so_many_keys_and_no_more(service: &Service) {
    let (admin, id) = service.key("default", Scopes::ALL).await;
    let copies = format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < {}) \
         INSERT INTO keys SELECT namespace, CAST(n AS TEXT), digest, name, scopes, created, expires, last_used, \
         created_by FROM keys CROSS JOIN numbers WHERE id = '{id}'",
        Key::MAX_PER_NAMESPACE
    );
    service.execute(&copies).await;
    let status =
        service.replica.keys_client().create(with_key(&admin, new(&["users.read"]))).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "TOO_MANY_KEYS");
    service.key("other", Scopes::ALL).await;
    service.execute("DELETE FROM keys WHERE id = '2'").await;
    make(&service.replica, &admin, &["users.read"]).await;
}

async fn a_log_names_the_key(service: &Service) {
    let (key, id) = service.key("default", Scopes::ALL).await;
    let user = service.users().create(with_key(&key, ada())).await.unwrap().into_inner().user.unwrap();
    let request = ListLogsRequest { user_id: user.id, ..ListLogsRequest::default() };
    let logs = service.users().list_logs(with_key(&key, request)).await.unwrap().into_inner().logs;
    assert_eq!(logs[0].caller, id);
}

async fn one_caller_cannot_take_all_permits(service: &Service) {
    create(service, ada()).await;
    let small = service.another(|config| config.limits.calls_per_caller = 1).await;
    let (greedy, _) = service.key("default", Scopes::ALL).await;
    let (modest, _) = service.key("default", Scopes::ALL).await;
    small.keys.refresh().await.unwrap();
    // A lock on the user holds the one call that fits.
    let tx = service.replica.store.begin_as_server().await.unwrap();
    sea_orm::ConnectionTrait::execute_unprepared(&tx, "UPDATE users SET version = version").await.unwrap();
    let login = LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    let mut users = small.users.clone();
    let request = with_key(&greedy, login);
    let held = tokio::spawn(async move { users.login(request).await });
    while small.server.calls_in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    let status = small.users.clone().read(with_key(&greedy, read("ada"))).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "CALLER_LIMITED");
    small.users.clone().read(with_key(&modest, read("ada"))).await.unwrap();
    drop(tx);
    held.await.unwrap().unwrap();
    small.users.clone().read(with_key(&greedy, read("ada"))).await.unwrap();
    small.stop.cancel();
}

async fn callers_have_a_rate(service: &Service) {
    create(service, ada()).await;
    let slow = service.another(|config| config.limits.rate_per_caller = Some(1)).await;
    let all = service.another(|config| config.limits.rate = Some(1)).await;
    let (one, _) = service.key("default", Scopes::ALL).await;
    let (two, _) = service.key("default", Scopes::ALL).await;
    for (replica, reason, other_is_free) in [(&slow, "CALLER_LIMITED", true), (&all, "OVERLOADED", false)] {
        replica.keys.refresh().await.unwrap();
        let mut users = replica.users.clone();
        users.read(with_key(&one, read("ada"))).await.unwrap();
        // However slow the machine is, one of many calls comes within a second of the one before.
        let mut status = Ok(());
        while status.is_ok() {
            status = users.read(with_key(&one, read("ada"))).await.map(|_| ());
        }
        let status = status.unwrap_err();
        assert_refused(&status, Code::ResourceExhausted, reason);
        let wait = tonic_types::StatusExt::get_details_retry_info(&status).unwrap().retry_delay.unwrap();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        if other_is_free {
            users.read(with_key(&two, read("ada"))).await.unwrap();
        }
        replica.stop.cancel();
    }
}

async fn health_and_reflection_can_be_closed(service: &Service) {
    let (reader, _) = service.key("default", Scopes::parse(["users.read"]).unwrap()).await;
    let bearer = format!("Bearer {reader}");
    let closed =
        service.another(|config| (config.open.health, config.open.reflection) = (false, false)).await;
    let list_services = vec![7 << 3 | 2, 0];
    for (path, message) in [
        ("/grpc.health.v1.Health/Check", Vec::new()),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", list_services.clone()),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", list_services),
    ] {
        crate::support::raw_with(&service.replica, path, message.clone(), &[]).await.unwrap();
        let status = crate::support::raw_with(&closed, path, message.clone(), &[]).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "KEY_MISSING_OR_UNKNOWN");
        let headers = [("authorization", bearer.as_str())];
        crate::support::raw_with(&closed, path, message, &headers).await.unwrap();
    }
    closed.stop.cancel();
}

/// Nothing that a client sends is taken for what the gate found out.
async fn a_caller_cannot_make_itself_known(service: &Service) {
    create(service, ada()).await;
    service.key("default", Scopes::ALL).await;
    for header in ["caller", "x-caller", "usersd-caller", "x-forwarded-client-cert", "x-client-cert"] {
        let (status, _, _) = service.replica.request(Method::GET, "/v1/users", "", &[(header, "open")]).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{header}");
    }
}

async fn secrets_are_written_nowhere(service: &Service) {
    let (admin, _) = service.key("default", Scopes::ALL).await;
    let (key, _) =
        make(&service.replica, &admin, &["users.read", "users.write", "sessions.read", "sessions.write"])
            .await;
    service.users().create(with_key(&key, nth(7))).await.unwrap();
    let login =
        LoginRequest { username: "user7".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    let token = service.users().login(with_key(&key, login)).await.unwrap().into_inner().session.unwrap().id;
    let request = ReadSessionRequest { session_id: token.clone(), max_age: None };
    service.users().read_session(with_key(&key, request)).await.unwrap();
    service.replica.keys.flush_last_used().await.unwrap();
    let listed = service.replica.keys_client().list(with_key(&admin, ListKeysRequest {})).await.unwrap();
    let shown = format!("{listed:?}");
    let secrets = [admin.as_str(), &key, &token, PASSWORD];
    for secret in secrets {
        assert!(!shown.contains(secret));
    }
    for file in service.files() {
        let bytes = std::fs::read(&file).unwrap();
        for secret in secrets {
            // Neither as text nor as the bytes that it stands for.
            let raw = secret.get(4..).and_then(|digits| hex::decode(digits).ok());
            for needle in [Some(secret.as_bytes().to_vec()), raw].into_iter().flatten() {
                let found = bytes.windows(needle.len()).any(|window| window == needle);
                assert!(!found, "{} holds a secret", file.display());
            }
        }
    }
    for table in ["users", "sessions", "events", "keys", "users_search"] {
        if service.backend == crate::support::Backend::Postgres {
            for secret in secrets {
                let sql =
                    format!("SELECT count(*) FROM {table} AS t WHERE CAST(t AS text) LIKE '%{secret}%'");
                assert_eq!(service.number(&sql).await, 0, "{table}");
            }
        }
    }
}

async fn open_mode_does_not_come_back_with_an_old_database(service: &Service) {
    create(service, ada()).await;
    let (old, _) = service.key("default", Scopes::ALL).await;
    service.execute("DELETE FROM keys; UPDATE keys_version SET version = 0").await;
    service.replica.keys.refresh().await.unwrap();
    for request in [with_key(&old, read("ada")), Request::new(read("ada"))] {
        let status = service.users().read(request).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "KEY_MISSING_OR_UNKNOWN");
    }
}

async fn a_broken_key_keeps_no_other_from_being_read(service: &Service) {
    create(service, ada()).await;
    let (_, broken) = service.key("default", Scopes::ALL).await;
    service.execute(&format!("UPDATE keys SET namespace = 'NO SUCH' WHERE id = '{broken}'")).await;
    let (good, _) = service.key("default", Scopes::ALL).await;
    service.users().read(with_key(&good, read("ada"))).await.unwrap();
}

/// The head of a call whose message is announced and does not come. It is let in: the server asks for the
/// message.
async fn half_a_call(replica: &Replica, key: &str, path: &str, media: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&replica.address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {media}\r\nauthorization: Bearer {key}\r\n\
         expect: 100-continue\r\ncontent-length: 43\r\n\r\n",
        replica.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(std::str::from_utf8(&go_on).unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

async fn a_caller_who_sends_slowly_holds_only_its_own_permits(service: &Service) {
    create(service, ada()).await;
    let small =
        service.another(|config| (config.limits.calls, config.limits.calls_per_caller) = (1, 1)).await;
    let (slow, _) = service.key("default", Scopes::ALL).await;
    let (quick, _) = service.key("default", Scopes::ALL).await;
    small.keys.refresh().await.unwrap();
    let _held = half_a_call(&small, &slow, "/v1/keys", "application/json").await;
    let mut users = small.users.clone();
    let status = users.read(with_key(&slow, read("ada"))).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "CALLER_LIMITED");
    users.read(with_key(&quick, read("ada"))).await.unwrap();
    small.stop.cancel();
}

async fn a_request_with_a_slow_message_is_authenticated_again(service: &Service) {
    let (other, _) = service.key("default", Scopes::ALL).await;
    let message = CreateKeyRequest { name: "n".repeat(24), ..new(&["users.read"]) }.encode_to_vec();
    let framed = [&[0, 0, 0, 0, 38], &message[..]].concat();
    let json = br#"{"name":"another","scopes":["users.read"]} "#.to_vec();
    for (path, media, message) in
        [("/v1/keys", "application/json", json), ("/users.Keys/Create", "application/grpc", framed)]
    {
        let (stolen, id) = service.key("default", Scopes::ALL).await;
        let mut held = half_a_call(&service.replica, &stolen, path, media).await;
        let gone = gone(&id);
        service.replica.keys_client().delete(with_key(&other, gone)).await.unwrap();
        let before = service.number("SELECT count(*) FROM keys").await;
        // What comes sooner than this is not asked again.
        tokio::time::sleep(Duration::from_millis(110)).await;
        held.write_all(&message).await.unwrap();
        let mut answer = String::new();
        while !answer.contains("KEY_MISSING") && !answer.contains("grpc-status: 16") {
            let mut piece = [0; 4096];
            let length = held.read(&mut piece).await.unwrap();
            assert!(length > 0, "{answer}");
            answer.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        assert_eq!(service.number("SELECT count(*) FROM keys").await, before, "{path}");
    }
}

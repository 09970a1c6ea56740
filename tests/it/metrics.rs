//! What `/metrics` shows, and that the manual has it all.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use tokio::net::TcpStream;
use tonic::Code;
use usersd::pb::{LoginRequest, ReadRequest, ReadSessionRequest};

use crate::support::{Backend, PASSWORD, Replica, Service, ada, create, get, login, monitor, raw, until};

crate::on_every_backend!(
    every_metric_is_in_the_manual_and_the_other_way_round,
    every_counter_moves,
    calls_are_told_apart_by_method_dialect_code_and_reason,
    scrapers_choose_the_format,
);

const MANUAL: &str = include_str!("../../deploy/metrics.md");

async fn text(replica: &Replica) -> String {
    let (status, media_type, text) = get(&monitor(replica).await, "/metrics", "").await;
    assert_eq!((status, &*media_type), (200, "text/plain; version=0.0.4; charset=utf-8"));
    text
}

/// The families of a text, with the sums of their samples: of a histogram, the count.
fn families(text: &str) -> BTreeMap<String, (String, f64)> {
    let mut families = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        families.insert(name.to_owned(), (kind.to_owned(), 0.0));
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let value: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        let family = families.get_mut(name.strip_suffix("_count").unwrap_or(name));
        if let Some((_, sum)) = family {
            *sum += value;
        }
    }
    families
}

async fn every_metric_is_in_the_manual_and_the_other_way_round(service: &Service) {
    let shown: BTreeSet<String> = families(&text(&service.replica).await).into_keys().collect();
    let rows = MANUAL.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed = rows.filter(|name| service.backend == Backend::Sqlite || !name.starts_with("usersd_sqlite"));
    assert_eq!(shown, listed.map(str::to_owned).collect::<BTreeSet<_>>());
}

async fn every_counter_moves(service: &Service) {
    let replica = &service.replica;
    let user = create(service, ada()).await;
    create_again(service).await;
    let session = login(service, "ada").await;
    // From the cache, once the log of events is followed.
    until(async || {
        let request = ReadSessionRequest { session_id: session.id.clone(), max_age: None };
        service.users().read_session(request).await.unwrap();
        service.users().read(ReadRequest { id: user.id.clone(), ..ReadRequest::default() }).await.unwrap();
        families(&text(replica).await)["usersd_cache_hits_total"].1 >= 2.0
    })
    .await;
    fail_and_be_locked_out(service).await;
    miss_a_deadline(service).await;
    // A session whose time is over, and a round that fails.
    service.clock.advance(std::time::Duration::from_hours(24 * 8));
    replica.ops.housekeep().await.unwrap();
    service.execute("ALTER TABLE sessions RENAME TO gone").await;
    replica.ops.housekeep().await.unwrap_err();
    service.execute("ALTER TABLE gone RENAME TO sessions").await;

    let slow = service.another(|config| config.limits.rate = Some(1)).await;
    for _ in 0..3 {
        let _ = slow.json(Method::GET, "/v1/users", "").await;
    }
    let narrow = service.another(|config| config.limits.connections = 1).await;
    let _second = TcpStream::connect(&narrow.address).await.unwrap();
    until(async || families(&text(&narrow).await)["usersd_connections_limited_total"].1 > 0.0).await;

    // Nobody listens there.
    let traced = service.another(|config| config.traces.endpoint = Some("http://127.0.0.1:1".into())).await;
    traced.json(Method::GET, "/v1/users", "").await;
    until(async || families(&text(&traced).await)["usersd_trace_spans_total"].1 > 0.0).await;

    let mut moved: BTreeMap<String, bool> = BTreeMap::new();
    for replica in [replica, &slow, &narrow, &traced] {
        for (name, (kind, sum)) in families(&text(replica).await) {
            if kind != "gauge" {
                *moved.entry(name).or_default() |= sum > 0.0;
            }
        }
    }
    let still: Vec<_> = moved.into_iter().filter(|(_, moved)| !moved).map(|(name, _)| name).collect();
    assert!(still.is_empty(), "{still:?}");
}

/// A constraint refuses the second.
async fn create_again(service: &Service) {
    service.users().create(ada()).await.unwrap_err();
}

async fn fail_and_be_locked_out(service: &Service) {
    for _ in 0..7 {
        let wrong =
            LoginRequest { username: "ada".into(), password: "wrong".into(), ..LoginRequest::default() };
        service.users().login(wrong).await.unwrap_err();
    }
}

/// The server sees it, since this client has no clock of its own.
async fn miss_a_deadline(service: &Service) {
    let body = format!("{{\"username\":\"ada\",\"password\":\"{PASSWORD}\"}}");
    let headers = [("content-type", "application/json"), ("grpc-timeout", "1n")];
    let (status, ..) = service.replica.request(Method::POST, "/v1/sessions", body, &headers).await;
    assert_eq!(status, 429);
}

async fn calls_are_told_apart_by_method_dialect_code_and_reason(service: &Service) {
    create(service, ada()).await;
    let id = login(service, "ada").await.id;
    let request = |id: &str| ReadSessionRequest { session_id: id.into(), max_age: None };
    service.users().read_session(request(&id)).await.unwrap();
    let unknown = format!("ses_{}", "0".repeat(64));
    service.users().read_session(request(&unknown)).await.unwrap_err();
    let body = format!("{{\"sessionId\":\"{id}\"}}");
    let unknown = body.replace(&id, &unknown);
    for path in ["/v1/sessions:read", "/users/Users/ReadSession", "/users.Users/ReadSession"] {
        assert_eq!(service.replica.json(Method::POST, path, &body).await.0, 200);
        assert_eq!(service.replica.json(Method::POST, path, &unknown).await.0, 404);
    }
    assert_eq!(service.replica.json(Method::GET, "/nothing", "").await.0, 404);
    let status = raw(service, "/users.Users/Nothing", Vec::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);

    let text = text(&service.replica).await;
    let has = |line: &str| assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    for dialect in ["grpc", "json", "micro", "connect"] {
        let labels = format!("method=\"users.Users/ReadSession\",dialect=\"{dialect}\"");
        has(&format!("usersd_calls_total{{{labels},code=\"OK\",reason=\"\"}} 1"));
        has(&format!("usersd_calls_total{{{labels},code=\"NOT_FOUND\",reason=\"SESSION_NOT_FOUND\"}} 1"));
        has(&format!("usersd_call_duration_seconds_count{{{labels}}} 2"));
    }
    has(
        "usersd_calls_total{method=\"none\",dialect=\"none\",code=\"NOT_FOUND\",reason=\"METHOD_UNKNOWN\"} 1",
    );
    has(
        "usersd_calls_total{method=\"none\",dialect=\"none\",code=\"UNIMPLEMENTED\",reason=\"METHOD_UNKNOWN\"} 1",
    );
    for secret in ["ada@", "example.com", &*id] {
        assert!(!text.contains(secret), "{secret}");
    }
}

async fn scrapers_choose_the_format(service: &Service) {
    let address = monitor(&service.replica).await;
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let (_, media_type, text) = get(&address, "/metrics", accept).await;
    assert_eq!(media_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE usersd_calls counter\n"), "{text}");
    assert_eq!(get(&address, "/", "").await.0, 404);
    assert_eq!(get(&service.replica.address, "/metrics", "").await.0, 404, "callers do not see them");
}

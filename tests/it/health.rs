//! `/livez`, `/readyz` and `grpc.health.v1`: one state, which shows first that a server is about to stop.

use std::time::Duration;

use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use usersd::domain::scope::Scopes;

use crate::support::{Replica, Service, ada, get, monitor, until};

crate::on_every_backend!(
    all_who_ask_learn_that_the_database_takes_no_writes,
    draining_shows_before_the_port_closes,
    health_needs_a_key_only_where_the_settings_say_so,
);

/// The status of `users.Users` as gRPC tells it.
async fn of_grpc(replica: &Replica) -> ServingStatus {
    let request = HealthCheckRequest { service: "users.Users".into() };
    HealthClient::new(replica.channel()).check(request).await.unwrap().into_inner().status()
}

async fn all_who_ask_learn_that_the_database_takes_no_writes(service: &Service) {
    let (replica, monitor) = (&service.replica, monitor(&service.replica).await);
    let addresses = [&replica.address, &monitor];
    for address in addresses {
        assert_eq!(get(address, "/readyz", "").await.0, 200);
    }
    assert_eq!(of_grpc(replica).await, ServingStatus::Serving);

    // Noted again each time: a write that succeeds meanwhile ends it.
    for address in addresses {
        until(async || {
            replica.store.health().note_commit_failure("disk full");
            let (status, _, text) = get(address, "/readyz", "").await;
            assert!(!text.contains("disk full"), "the cause is for the log");
            status == 503 && text.contains("the database takes no writes")
        })
        .await;
        assert_eq!(get(address, "/livez", "").await.0, 200, "a restart mends no disk");
    }
    until(async || {
        replica.store.health().note_commit_failure("disk full");
        of_grpc(replica).await == ServingStatus::NotServing
    })
    .await;
    for address in addresses {
        until(async || get(address, "/readyz", "").await.0 == 200).await;
    }
    until(async || of_grpc(replica).await == ServingStatus::Serving).await;
}

async fn draining_shows_before_the_port_closes(service: &Service) {
    let replica = service.another(|config| config.drain.delay = Duration::from_hours(1)).await;
    let monitor = monitor(&replica).await;
    replica.stop.cancel();
    for address in [&replica.address, &monitor] {
        until(async || get(address, "/readyz", "").await.0 == 503).await;
        let (_, _, text) = get(address, "/readyz", "").await;
        assert!(text.contains("the server is stopping"), "{text}");
        assert_eq!(get(address, "/livez", "").await.0, 200);
    }
    until(async || of_grpc(&replica).await == ServingStatus::NotServing).await;
    // Those whom the news has not reached are served, over new connections too.
    replica.users.clone().create(ada()).await.unwrap();
    let (status, _) = replica.json(http::Method::GET, "/v1/users", "").await;
    assert_eq!(status, 200);
    assert!(!replica.running.is_finished());

    replica.server.skip_drain_delay().cancel();
    assert!(replica.running.await.unwrap(), "all calls have ended");
    assert!(TcpStream::connect(&replica.address).await.is_err(), "the port is closed");
    assert_eq!(get(&monitor, "/readyz", "").await.0, 503, "the second listener outlives it");
}

async fn health_needs_a_key_only_where_the_settings_say_so(service: &Service) {
    let closed = service.another(|config| config.open.health = false).await;
    service.key("default", Scopes::ALL).await;
    closed.keys.refresh().await.unwrap();
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(&service.replica.address, path, "").await.0, 200);
        assert_eq!(get(&closed.address, path, "").await.0, 401);
        let (status, headers, body) = service.replica.request(http::Method::POST, path, "{}", &[]).await;
        assert_eq!((status.as_u16(), headers["allow"].to_str().unwrap()), (405, "GET, HEAD, OPTIONS"));
        assert_eq!(body["details"][0]["reason"], "METHOD_UNKNOWN");
    }
    assert_eq!(get(&monitor(&closed).await, "/readyz", "").await.0, 200, "the operator's own port");
}

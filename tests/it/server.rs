//! The port itself: health, reflection, limits, deadlines, and the end.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1alpha;
use usersd::pb::users_client::UsersClient;
use usersd::pb::{LoginRequest, ReadRequest};

use crate::support::{PASSWORD, Service, ada, assert_refused, create, raw};

crate::on_every_backend!(
    health_is_answered_for_the_server_and_the_service,
    reflection_lists_the_service_in_both_versions,
    a_method_that_does_not_exist_is_said_so,
    calls_beyond_the_limit_are_refused_at_once,
    a_deadline_that_passed_is_said_so,
    a_call_in_flight_ends_before_the_server_does,
    cancelled_calls_leave_no_open_transaction,
    a_full_server_still_hears_the_signal_to_stop,
);

async fn channel(service: &Service) -> Channel {
    let address = format!("http://{}", service.replica.address);
    Endpoint::try_from(address).unwrap().connect().await.unwrap()
}

fn named(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

async fn health_is_answered_for_the_server_and_the_service(service: &Service) {
    let mut health = HealthClient::new(channel(service).await);
    for name in ["", "users.Users"] {
        let answer = health.check(named(name)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    assert_eq!(health.check(named("nothing")).await.unwrap_err().code(), Code::NotFound);
}

async fn reflection_lists_the_service_in_both_versions(service: &Service) {
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel(service).await);
    let mut answers =
        client.server_reflection_info(futures_util::stream::iter([request])).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.message().await.unwrap().unwrap());
    assert!(answer.contains("users.Users") && answer.contains("grpc.health.v1.Health"), "{answer}");

    let symbol =
        v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol("users.Users".into());
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(symbol) };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel(service).await);
    let mut answers =
        client.server_reflection_info(futures_util::stream::iter([request])).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.message().await.unwrap().unwrap());
    assert!(answer.contains("FileDescriptorResponse"), "{answer}");
}

async fn a_method_that_does_not_exist_is_said_so(service: &Service) {
    for path in ["/users.Users/Nothing", "/users.Nobody/Read", "/nothing"] {
        let status = raw(service, path, Vec::new()).await.unwrap_err();
        assert_refused(&status, Code::Unimplemented, "METHOD_UNKNOWN");
    }
}

async fn calls_beyond_the_limit_are_refused_at_once(service: &Service) {
    create(service, ada()).await;
    let small = service.another(|config| config.limits.calls = 1).await;
    // A lock on the user holds the one call that fits.
    let tx = service.replica.store.begin_as_server().await.unwrap();
    let lock = "UPDATE users SET version = version";
    sea_orm::ConnectionTrait::execute_unprepared(&tx, lock).await.unwrap();
    let mut users = small.users.clone();
    let held = tokio::spawn(async move {
        let login =
            LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
        users.login(login).await
    });
    // Only once it is there: a read that came first would take the place, and the log-in be refused.
    while small.server.calls_in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    let mut users = small.users.clone();
    let read = ReadRequest { username: "ada".into(), ..ReadRequest::default() };
    let status = users.read(read).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "OVERLOADED");
    let (code, headers, _) = small.request(Method::GET, "/v1/users/x", "", &[]).await;
    assert_eq!((code, headers["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "1"));
    // Health is asked most urgently when the server is full.
    let channel = Endpoint::try_from(format!("http://{}", small.address)).unwrap().connect().await.unwrap();
    HealthClient::new(channel).check(named("")).await.unwrap();
    drop(tx);
    held.await.unwrap().unwrap();
}

async fn a_deadline_that_passed_is_said_so(service: &Service) {
    create(service, ada()).await;
    let tx = service.replica.store.begin_as_server().await.unwrap();
    let lock = "UPDATE users SET version = version";
    sea_orm::ConnectionTrait::execute_unprepared(&tx, lock).await.unwrap();
    let body = format!(r#"{{"username":"ada","password":"{PASSWORD}"}}"#);
    let headers = [("content-type", "application/json"), ("grpc-timeout", "200m")];
    let (status, _, answer) = service.replica.request(Method::POST, "/v1/sessions", body, &headers).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{answer}");
    assert_eq!(answer["details"][0]["reason"], "DEADLINE_PASSED");
    drop(tx);
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 0);
}

async fn a_call_in_flight_ends_before_the_server_does(service: &Service) {
    create(service, ada()).await;
    let other = service.another(|_| {}).await;
    let tx = service.replica.store.begin_as_server().await.unwrap();
    let lock = "UPDATE users SET version = version";
    sea_orm::ConnectionTrait::execute_unprepared(&tx, lock).await.unwrap();
    let mut health = HealthClient::new(
        Endpoint::try_from(format!("http://{}", other.address)).unwrap().connect().await.unwrap(),
    );
    let mut watched = health.watch(named("users.Users")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let mut users: UsersClient<Channel> = other.users.clone();
    let login = LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    let mut request = Request::new(login);
    request.set_timeout(Duration::from_secs(30));
    let held = tokio::spawn(async move { users.login(request).await });
    while other.server.calls_in_flight() == 0 {
        tokio::task::yield_now().await;
    }

    other.stop.cancel();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watched.message().await.unwrap().is_none(), "a watcher does not hold the server");
    while TcpStream::connect(&other.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    drop(tx);
    held.await.unwrap().unwrap();
    assert!(other.running.await.unwrap(), "everything ended within the grace period");
}

async fn cancelled_calls_leave_no_open_transaction(service: &Service) {
    create(service, ada()).await;
    let body = r#"{"username":"nobody","password":"x"}"#;
    for micros in 0..200 {
        let (timeout, json) = (format!("{}u", 20 * micros), "application/json");
        let headers = [("grpc-timeout", timeout.as_str()), ("content-type", json)];
        service.replica.request(Method::POST, "/v1/sessions", body, &headers).await;
    }
    // Whatever was begun is over or rolled back: a writer gets through at once, and nobody sits in a
    // transaction.
    let tx = service.replica.store.begin_as_server().await.unwrap();
    sea_orm::ConnectionTrait::execute_unprepared(&tx, "UPDATE users SET name = 'x'").await.unwrap();
    tx.commit().await.unwrap();
    if service.backend == crate::support::Backend::Postgres {
        let sitting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND state LIKE 'idle in transaction%' AND state_change < now() - interval '1 second'";
        // Long enough for what was left to count as left.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        assert_eq!(service.number(sitting).await, 0);
    }
}

async fn a_full_server_still_hears_the_signal_to_stop(service: &Service) {
    let full = service.another(|config| config.limits.connections = 1).await; // the client's own
    full.stop.cancel();
    assert!(full.running.await.unwrap());
}

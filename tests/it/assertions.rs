//! Assertions about sessions, and the keys that sign them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::{Value, json};
use tonic::{Code, Status};
use usersd::config::Config;
use usersd::domain::scope::Scopes;
use usersd::pb::{
    IssueAssertionRequest, IssueAssertionResponse, LoginRequest, LogoutRequest, ReadSessionRequest, Session,
};

use crate::steps::{RIVAL, assert_alike};
use crate::support::{PASSWORD, Replica, START, Service, ada, assert_refused, create, fields, from, login};

crate::on_every_backend!(
    a_session_of_another_namespace_gets_no_assertion,
    an_assertion_tells_of_the_session_and_is_verified_by_the_public_key,
    every_bad_field_of_an_assertion_is_named,
    an_assertion_ends_with_its_session_at_the_latest,
    an_assertion_ends_with_the_idle_time_at_the_latest,
    a_session_that_has_ended_gets_no_assertion,
    a_session_that_another_replica_ended_gets_no_assertion_from_memory,
    the_public_keys_are_for_everybody_and_for_caches,
    without_audiences_there_are_no_assertions_and_no_keys,
    replicas_that_start_together_make_one_key,
    a_key_is_published_before_it_signs_and_after_it_did,
    assertions_are_issued_while_the_keys_cannot_be_read,
);

const HOUR: Duration = Duration::from_hours(1);
const KEYS: &str = "/.well-known/jwks.json";

fn on(config: &mut Config) {
    config.assertions.audiences = vec!["shop".into(), "https://billing.example.com".into()];
    config.cache.max_age = HOUR;
}

/// A replica with assertions, and with the first key.
async fn issuing(service: &Service) -> Replica {
    let replica = service.another(on).await;
    replica.ops.refresh_assertion_keys().await.unwrap();
    replica
}

fn of(session: &Session) -> IssueAssertionRequest {
    IssueAssertionRequest { session_id: session.id.clone(), audience: "shop".into(), lifetime: None }
}

async fn issue(replica: &Replica, request: IssueAssertionRequest) -> Result<IssueAssertionResponse, Status> {
    Ok(replica.users.clone().issue_assertion(request).await?.into_inner())
}

/// The keys that a replica publishes.
async fn published(replica: &Replica) -> Vec<Value> {
    let (status, _, set) = replica.request(Method::GET, KEYS, "", &[]).await;
    assert_eq!(status, StatusCode::OK);
    set["keys"].as_array().unwrap().clone()
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The id of the key that signed an assertion, and its claims, if one of the keys verifies it.
fn verified(assertion: &str, keys: &[Value]) -> (Value, Value) {
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let header = decoded(header);
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).unwrap();
    let public = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(&ED25519, public).verify(signed.as_bytes(), &signature).unwrap();
    assert_eq!(header, json!({"alg": "EdDSA", "kid": key["kid"], "typ": "JWT"}));
    (key["kid"].clone(), decoded(claims))
}

async fn a_session_of_another_namespace_gets_no_assertion(service: &Service) {
    create(service, ada()).await;
    let session = login(service, "ada").await;
    let replica = issuing(service).await;
    issue(&replica, of(&session)).await.unwrap(); // and now it is in memory
    let mut users = replica.users.clone();
    let there = users.issue_assertion(from(RIVAL, of(&session))).await.unwrap_err();
    let unknown = Session { id: format!("ses_{}", "0".repeat(64)), ..Session::default() };
    let nowhere = users.issue_assertion(from(RIVAL, of(&unknown))).await.unwrap_err();
    assert_refused(&there, Code::NotFound, "SESSION_NOT_FOUND");
    assert_alike(&there, &nowhere);
}

async fn an_assertion_tells_of_the_session_and_is_verified_by_the_public_key(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    let replica = issuing(service).await;
    service.clock.advance(Duration::from_secs(5));
    let reply = issue(&replica, of(&session)).await.unwrap();
    let (_, claims) = verified(&reply.assertion, &published(&replica).await);
    let want = json!({
        "iss": "usersd", "sub": user.id, "aud": "shop", "ns": "default", "sid": session.public_id,
        "auth_time": START, "amr": ["pwd"], "iat": START + 5, "exp": START + 65,
    });
    assert_eq!((claims, reply.expires), (want, START + 65));
    // Over HTTP, from another namespace, and for another audience.
    let twin = service.users().create(from(RIVAL, ada())).await.unwrap().into_inner().user.unwrap();
    let request = LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..Default::default() };
    let theirs = service.users().login(from(RIVAL, request)).await.unwrap().into_inner().session.unwrap();
    let body = json!({"sessionId": theirs.id, "audience": "https://billing.example.com", "lifetime": "300"});
    let headers = [("content-type", "application/json"), ("usersd-namespace", RIVAL)];
    let (status, told, reply) =
        replica.request(Method::POST, "/v1/sessions:issueAssertion", body.to_string(), &headers).await;
    assert_eq!((status, &told["cache-control"]), (StatusCode::OK, &"no-store".parse().unwrap()), "{reply}");
    let (_, claims) = verified(reply["assertion"].as_str().unwrap(), &published(&replica).await);
    assert_eq!((&claims["ns"], &claims["sub"]), (&json!(RIVAL), &json!(twin.id)));
    assert_eq!(
        (&claims["aud"], &claims["exp"]),
        (&json!("https://billing.example.com"), &json!(START + 305))
    );
}

async fn every_bad_field_of_an_assertion_is_named(service: &Service) {
    let replica = issuing(service).await;
    for (audience, seconds) in [("", 0), ("Shop", -1), ("shop,", 301), ("usersd", i64::MAX)] {
        let bad = IssueAssertionRequest {
            audience: audience.into(),
            lifetime: Some(seconds),
            ..IssueAssertionRequest::default()
        };
        let status = issue(&replica, bad).await.unwrap_err();
        assert_eq!(fields(&status), ["session_id", "audience", "lifetime"], "{audience} {seconds}");
    }
}

async fn an_assertion_ends_with_its_session_at_the_latest(service: &Service) {
    create(service, ada()).await;
    let request = LoginRequest {
        username: "ada".into(),
        password: PASSWORD.into(),
        lifetime: Some(100),
        ..LoginRequest::default()
    };
    let session = service.users().login(request).await.unwrap().into_inner().session.unwrap();
    let replica = issuing(service).await;
    let lasting = |seconds: i64| IssueAssertionRequest { lifetime: Some(seconds), ..of(&session) };
    assert_eq!(issue(&replica, lasting(100)).await.unwrap().expires, START + 100);
    assert_eq!(issue(&replica, lasting(300)).await.unwrap().expires, START + 100);
    service.clock.advance(Duration::from_millis(99_500));
    let reply = issue(&replica, of(&session)).await.unwrap();
    let (_, claims) = verified(&reply.assertion, &published(&replica).await);
    assert_eq!((reply.expires, &claims["exp"]), (START + 100, &json!(START + 100)));
    service.clock.advance(Duration::from_millis(500));
    let status = issue(&replica, of(&session)).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "SESSION_NOT_FOUND");
}

/// Also one that is in memory since it was last read.
async fn an_assertion_ends_with_the_idle_time_at_the_latest(service: &Service) {
    create(service, ada()).await;
    let session = login(service, "ada").await;
    let replica = service
        .another(|config| {
            on(config);
            config.sessions.idle = Some(Duration::from_mins(4));
        })
        .await;
    let lasting = |seconds: i64| IssueAssertionRequest { lifetime: Some(seconds), ..of(&session) };
    for _ in 0..2 {
        let reply = issue(&replica, lasting(300)).await.unwrap();
        let (_, claims) = verified(&reply.assertion, &published(&replica).await);
        assert_eq!((reply.expires, &claims["exp"]), (START + 240, &json!(START + 240)));
    }
    assert_eq!(issue(&replica, lasting(200)).await.unwrap().expires, START + 200);
}

async fn a_session_that_has_ended_gets_no_assertion(service: &Service) {
    create(service, ada()).await;
    let session = login(service, "ada").await;
    let replica = issuing(service).await;
    let earlier = issue(&replica, of(&session)).await.unwrap();
    replica.users.clone().logout(LogoutRequest { session_id: session.id.clone() }).await.unwrap();
    let status = issue(&replica, of(&session)).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "SESSION_NOT_FOUND");
    let five_minutes = 300;
    assert!(earlier.expires <= START + five_minutes, "what was issued before ends soon");
}

/// (R24) Its assertions outlive it by no more than their lifetime.
async fn a_session_that_another_replica_ended_gets_no_assertion_from_memory(service: &Service) {
    create(service, ada()).await;
    let session = login(service, "ada").await;
    let replica = service
        .another(|config| {
            on(config);
            config.cache.poll = HOUR;
        })
        .await;
    replica.ops.refresh_assertion_keys().await.unwrap();
    let read = || ReadSessionRequest { session_id: session.id.clone(), ..Default::default() };
    replica.users.clone().read_session(read()).await.unwrap();
    service.users().logout(LogoutRequest { session_id: session.id.clone() }).await.unwrap();
    let status = issue(&replica, of(&session)).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "SESSION_NOT_FOUND");
}

async fn the_public_keys_are_for_everybody_and_for_caches(service: &Service) {
    let replica = issuing(service).await;
    service.key("default", Scopes::ALL).await;
    replica.keys.refresh().await.unwrap();
    let (status, _, _) = replica.request(Method::GET, "/v1/users", "", &[]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    for headers in [&[][..], &[("usersd-namespace", RIVAL)], &[("authorization", "Bearer usk_x")]] {
        let (status, told, set) = replica.request(Method::GET, KEYS, "", headers).await;
        assert_eq!(
            (status, &told["cache-control"]),
            (StatusCode::OK, &"public, max-age=300".parse().unwrap())
        );
        assert_eq!(told["content-type"], "application/json");
        let keys = set["keys"].as_array().unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(
            keys[0].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["alg", "crv", "kid", "kty", "use", "x"],
            "and no private key"
        );
        assert_eq!(
            (&keys[0]["kty"], &keys[0]["crv"], &keys[0]["use"]),
            (&json!("OKP"), &json!("Ed25519"), &json!("sig"))
        );
    }
    let (status, _, _) = replica.request(Method::HEAD, KEYS, "", &[]).await;
    assert_eq!(status, StatusCode::OK);
    let (status, told, _) = replica.request(Method::POST, KEYS, "{}", &[]).await;
    assert_eq!(
        (status, &told["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"GET, HEAD, OPTIONS".parse().unwrap())
    );
}

async fn without_audiences_there_are_no_assertions_and_no_keys(service: &Service) {
    create(service, ada()).await;
    let session = login(service, "ada").await;
    let status = issue(&service.replica, of(&session)).await.unwrap_err();
    assert_eq!(fields(&status), ["audience"]);
    service.replica.ops.refresh_assertion_keys().await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM assertion_keys").await, 0);
    let (status, told, set) = service.replica.request(Method::GET, KEYS, "", &[]).await;
    assert_eq!((status, set), (StatusCode::OK, json!({"keys": []})));
    assert_eq!(told["cache-control"], "no-store");
}

async fn replicas_that_start_together_make_one_key(service: &Service) {
    create(service, ada()).await;
    let session = login(service, "ada").await;
    let (one, two) = (service.another(on).await, service.another(on).await);
    let refreshes = [&one, &two, &one, &two].map(|replica| replica.ops.refresh_assertion_keys());
    for done in futures_util::future::join_all(refreshes).await {
        done.unwrap();
    }
    assert_eq!(service.number("SELECT count(*) FROM assertion_keys").await, 1);
    assert_eq!(published(&one).await, published(&two).await);
    let assertion = issue(&one, of(&session)).await.unwrap().assertion;
    verified(&assertion, &published(&two).await);
}

async fn a_key_is_published_before_it_signs_and_after_it_did(service: &Service) {
    create(service, ada()).await;
    let (one, two) = (issuing(service).await, issuing(service).await);
    let refresh = async || {
        for replica in [&one, &two] {
            replica.ops.refresh_assertion_keys().await.unwrap();
        }
        let keys = published(&one).await;
        assert_eq!(keys, published(&two).await);
        keys
    };
    let signs = async || {
        let session = login(service, "ada").await;
        let assertion = issue(&two, of(&session)).await.unwrap().assertion;
        verified(&assertion, &published(&one).await).0
    };
    let first = published(&one).await;
    service.clock.advance(Duration::from_hours(30 * 24).saturating_sub(Duration::from_micros(1)));
    assert_eq!(refresh().await, first);
    service.clock.advance(Duration::from_micros(1));
    let both = refresh().await;
    assert_eq!((both.len(), &both[0], signs().await), (2, &first[0], first[0]["kid"].clone()));
    service.clock.advance(HOUR.saturating_sub(Duration::from_micros(1)));
    assert_eq!(signs().await, first[0]["kid"]);
    service.clock.advance(Duration::from_micros(1));
    assert_eq!(signs().await, both[1]["kid"]);
    service.clock.advance(HOUR.saturating_sub(Duration::from_micros(1)));
    one.ops.housekeep().await.unwrap();
    assert_eq!(refresh().await, both, "the last assertions of the first key have not ended long ago");
    service.clock.advance(Duration::from_micros(1));
    one.ops.housekeep().await.unwrap();
    assert_eq!(refresh().await, both[1..]);
    assert_eq!(signs().await, both[1]["kid"]);
}

async fn assertions_are_issued_while_the_keys_cannot_be_read(service: &Service) {
    create(service, ada()).await;
    let session = login(service, "ada").await;
    let replica = issuing(service).await;
    let keys = published(&replica).await;
    service.execute("ALTER TABLE assertion_keys RENAME TO assertion_keys_away").await;
    service.clock.advance(Duration::from_hours(24));
    assert!(replica.ops.refresh_assertion_keys().await.is_err());
    assert_eq!(published(&replica).await, keys);
    verified(&issue(&replica, of(&session)).await.unwrap().assertion, &keys);
    // Where there never was a key the call fails, and the next one tries again.
    let new = service.another(on).await;
    let status = issue(&new, of(&session)).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    service.execute("ALTER TABLE assertion_keys_away RENAME TO assertion_keys").await;
    verified(&issue(&new, of(&session)).await.unwrap().assertion, &keys);
}

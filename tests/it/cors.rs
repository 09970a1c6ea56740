//! Web pages of other origins: what a browser asks before it lets one call, and what it lets the page read.

use http::{HeaderMap, Method, StatusCode};
use usersd::domain::scope::Scopes;

use crate::support::{Replica, Service, ada, create};

crate::on_every_backend!(
    a_page_of_a_listed_origin_may_call_and_read_in_every_dialect,
    pages_of_other_origins_stay_closed,
    without_a_list_nothing_is_said,
    where_no_key_is_needed_a_listed_page_is_served,
);

const APP: &str = "https://app.example.com";

async fn listed(service: &Service) -> Replica {
    service
        .another(|config| config.http.cors_origins = vec![APP.to_owned(), "http://localhost:3000".to_owned()])
        .await
}

/// The calls of a page: of JSON, gRPC-Web and Connect, each with the headers that its library sends.
const CALLS: [(Method, &str, &str, &str); 4] = [
    (Method::PATCH, "/v1/users/7", "application/json", "authorization,content-type,if-match"),
    (Method::POST, "/users.Users/Read", "application/grpc-web+proto", "content-type,x-grpc-web,x-user-agent"),
    (Method::POST, "/users.Users/Read", "application/json", "connect-protocol-version,connect-timeout-ms"),
    (Method::POST, "/users.Users/Read", "application/proto", "authorization,usersd-namespace"),
];

async fn preflight(
    replica: &Replica,
    origin: &str,
    (verb, path, _, headers): &(Method, &str, &str, &str),
) -> (StatusCode, HeaderMap) {
    let asked = [
        ("origin", origin),
        ("access-control-request-method", verb.as_str()),
        ("access-control-request-headers", headers),
    ];
    let (status, headers, _) = replica.request(Method::OPTIONS, path, "", &asked).await;
    (status, headers)
}

fn value<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

async fn a_page_of_a_listed_origin_may_call_and_read_in_every_dialect(service: &Service) {
    let (key, _) = service.key("default", Scopes::ALL).await;
    let replica = listed(service).await;
    for call in &CALLS {
        // Asked without the key, as browsers do.
        let (status, headers) = preflight(&replica, APP, call).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{call:?}");
        assert_eq!(value(&headers, "access-control-allow-origin"), APP);
        assert_eq!(value(&headers, "access-control-allow-headers"), call.3);
        assert!(value(&headers, "access-control-allow-methods").contains(call.0.as_str()));
        assert_eq!(value(&headers, "access-control-max-age"), "7200");
        assert_eq!(value(&headers, "vary"), "origin");
        assert_eq!(value(&headers, "access-control-allow-credentials"), "", "keys are no cookies");

        let (verb, path, media, _) = call;
        for key in [&*format!("Bearer {key}"), "Bearer wrong"] {
            let sent = [("origin", APP), ("content-type", media), ("authorization", key)];
            let (_, headers, _) = replica.request(verb.clone(), path, "{}", &sent).await;
            assert_eq!(value(&headers, "access-control-allow-origin"), APP, "{call:?}: {headers:?}");
            assert_eq!(value(&headers, "vary"), "origin");
            let exposed = value(&headers, "access-control-expose-headers");
            for name in ["etag", "grpc-status", "grpc-message", "grpc-status-details-bin", "retry-after"] {
                assert!(exposed.split(", ").any(|one| one == name), "{name}: {exposed}");
            }
        }
    }
    replica.stop.cancel();
}

async fn pages_of_other_origins_stay_closed(service: &Service) {
    let (key, _) = service.key("default", Scopes::ALL).await;
    let replica = listed(service).await;
    let key = format!("Bearer {key}");
    for origin in [
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "null",
    ] {
        for call in &CALLS {
            let (_, headers) = preflight(&replica, origin, call).await;
            assert!(!headers.keys().any(|name| name.as_str().starts_with("access-control")), "{origin}");
            assert_eq!(value(&headers, "vary"), "origin", "{call:?}");
        }
        let sent = [("origin", origin), ("authorization", &*key)];
        let (status, headers, _) = replica.request(Method::GET, "/v1/users", "", &sent).await;
        assert_eq!(
            (status, value(&headers, "access-control-allow-origin")),
            (StatusCode::OK, ""),
            "{origin}"
        );
    }
    // A program is no page.
    let sent = [("authorization", &*key)];
    let (status, headers, _) = replica.request(Method::GET, "/v1/users", "", &sent).await;
    assert_eq!((status, value(&headers, "vary")), (StatusCode::OK, "origin"));
    assert_eq!(value(&headers, "access-control-allow-origin"), "");
    replica.stop.cancel();
}

async fn without_a_list_nothing_is_said(service: &Service) {
    for call in &CALLS {
        let (_, headers) = preflight(&service.replica, APP, call).await;
        assert!(!headers.keys().any(|name| name.as_str().starts_with("access-control")), "{call:?}");
        assert_eq!(value(&headers, "vary"), "");
    }
}

async fn where_no_key_is_needed_a_listed_page_is_served(service: &Service) {
    create(service, ada()).await;
    let replica = listed(service).await;
    let page = async |origin, host| {
        let sent = [("origin", origin), ("host", host)];
        let (status, _, body) = replica.request(Method::GET, "/v1/users", "", &sent).await;
        (status, body["details"][0]["reason"].clone())
    };
    assert_eq!(page(APP, "localhost").await.0, StatusCode::OK);
    for (origin, host) in [("https://evil.example", "localhost"), (APP, "evil.example")] {
        let refused = page(origin, host).await;
        assert_eq!(refused, (StatusCode::FORBIDDEN, "FOREIGN_ORIGIN".into()), "{origin} {host}");
    }
    replica.stop.cancel();
}

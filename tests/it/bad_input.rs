//! Whatever a client sends: a clear answer, nothing changed, and never a fault of ours.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use prost_reflect::{DescriptorPool, MessageDescriptor, Value as Reflected};
use serde_json::Value;
use tonic::Code;

use crate::support::{Service, ada, assert_refused, create, fields, raw};

crate::on_every_backend!(
    messages_that_do_not_decode_are_refused,
    unknown_fields_are_ignored_on_grpc_and_named_on_json,
    bodies_over_the_limit_are_refused,
    json_that_is_none_is_refused,
    json_of_the_wrong_types_names_every_field,
    deep_json_is_refused,
    numbers_out_of_range_are_named,
    nul_bytes_and_lone_surrogates_are_refused,
    headers_that_are_wrong_are_refused,
    many_faults_make_no_long_answer,
    random_bytes_never_break_anything,
    fields_are_marked_as_required_where_a_call_without_them_fails,
);

const CREATE: &str = "/users.Users/Create";

/// Posts `body` to `path` and gives status and body, after checking that it is a refusal and ours.
async fn post(service: &Service, path: &str, body: impl Into<bytes::Bytes>) -> (StatusCode, Value) {
    let json = [("content-type", "application/json")];
    let (status, _, body) = service.replica.request(Method::POST, path, body, &json).await;
    assert!(status.is_client_error(), "{path}: {status} {body}");
    (status, body)
}

fn reason(body: &Value) -> &str {
    body["details"][0]["reason"].as_str().unwrap_or_default()
}

fn named(body: &Value) -> Vec<&str> {
    let violations = body["details"][1]["fieldViolations"].as_array().map_or(&[][..], Vec::as_slice);
    violations.iter().filter_map(|violation| violation["field"].as_str()).collect()
}

/// Wire format: field `number` with a length and bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut wire = vec![number << 3 | 2];
    prost::encode_length_delimiter(bytes.len(), &mut wire).unwrap();
    wire.extend_from_slice(bytes);
    wire
}

async fn messages_that_do_not_decode_are_refused(service: &Service) {
    let nested = (0..5_000).fold(Vec::new(), |inner, _| field(1, &inner));
    let messages = [
        field(2, b"\xff\xfe"),  // not UTF-8
        vec![0x12, 0x05, b'a'], // shorter than it says
        vec![0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        vec![0x0f],                    // a wire type that does not exist
        vec![0x10, 0x01],              // a number where a text belongs
        vec![0x00],                    // field number 0
        field(8, &field(1, b"\xff")),  // not UTF-8, in a map
        [vec![0x0b], nested].concat(), // a group without its end
    ];
    for message in messages {
        let status = raw(service, CREATE, message.clone()).await.unwrap_err();
        assert_refused(&status, Code::InvalidArgument, "MALFORMED");
    }
    assert_eq!(service.counts().await, [0; 4]);
}

async fn unknown_fields_are_ignored_on_grpc_and_named_on_json(service: &Service) {
    let user = create(service, ada()).await;
    let message = [field(1, user.id.as_bytes()), vec![0xa2, 0x06, 0x01, b'x']].concat(); // field 100
    assert!(!raw(service, "/users.Users/Read", message).await.unwrap().is_empty());

    let (status, body) =
        post(service, "/v1/users", r#"{"usrname":"a","password":"correct horse","device":{},"x":1}"#).await;
    assert_eq!((status, reason(&body)), (StatusCode::BAD_REQUEST, "FIELD_INVALID"));
    assert_eq!(named(&body), ["usrname", "device", "x"]);
    let (status, body) = post(service, "/v1/sessions", r#"{"device":{"address":"::1","os":"x"}}"#).await;
    assert_eq!((status, named(&body)), (StatusCode::BAD_REQUEST, vec!["device.os"]));
    let (status, body) = service.replica.json(Method::GET, "/v1/users:search?user=a&limit=1&q=2", "").await;
    assert_eq!((status, named(&body)), (StatusCode::BAD_REQUEST, vec!["user", "q"]));
}

async fn bodies_over_the_limit_are_refused(service: &Service) {
    let big = format!(r#"{{"username":"{}"}}"#, "a".repeat(10 * 1024 * 1024));
    for path in ["/v1/users", "/v1/sessions", "/users/Users/Create"] {
        let (status, body) = post(service, path, big.clone()).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}: {body}");
    }
    let status = raw(service, CREATE, field(2, &vec![b'a'; 10 * 1024 * 1024])).await.unwrap_err();
    assert_refused(&status, Code::OutOfRange, "TOO_LARGE");
    assert_eq!(service.counts().await, [0; 4]);
}

async fn json_that_is_none_is_refused(service: &Service) {
    let bodies: [&[u8]; 10] = [
        b"{",
        b"{}}",
        b"{} {}",
        b"{'username':'a'}",
        b"{\"username\":\"a\",}",
        b"\xff\xfe",
        b"{\"username\":\"\xff\"}",
        b"nonsense",
        b"[]",
        b"\"text\"",
    ];
    for body in bodies {
        let (status, answer) = post(service, "/v1/users", body).await;
        assert_eq!((status, reason(&answer)), (StatusCode::BAD_REQUEST, "MALFORMED"), "{body:?}: {answer}");
    }
    assert_eq!(service.counts().await, [0; 4]);
}

async fn json_of_the_wrong_types_names_every_field(service: &Service) {
    let body = r#"{"username":5,"email":["a"],"password":{"secret":"s3cret!!"},"status":"NOPE","labels":"x",
        "metadata":[1],"ssoEnabled":"yes","id":true,"name":1.5}"#;
    let (status, answer) = post(service, "/v1/users", body).await;
    assert_eq!((status, reason(&answer)), (StatusCode::BAD_REQUEST, "FIELD_INVALID"));
    assert_eq!(
        named(&answer),
        ["username", "email", "password", "status", "labels", "metadata", "ssoEnabled", "id", "name"]
    );
    assert!(!answer.to_string().contains("s3cret"), "{answer}");
    let (_, answer) = post(service, "/v1/users", r#"{"labels":["a",5,null],"metadata":{"k":1}}"#).await;
    assert_eq!(named(&answer), ["labels[1]", "labels[2]", "metadata[\"k\"]"]);
    assert_eq!(service.counts().await, [0; 4]);
}

async fn deep_json_is_refused(service: &Service) {
    // As many levels as fit under this test's size limit, and 100,000 with a larger one.
    let wide = service.another(|config| config.http.max_body = 4 * 1024 * 1024).await;
    for open in ["[", "{\"a\":", "{\"device\":"] {
        for levels in [200, 100_000] {
            let json = [("content-type", "application/json")];
            let deep = open.repeat(levels);
            let (status, _, body) = wide.request(Method::POST, "/v1/sessions", deep, &json).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{open} {levels}: {body}");
        }
    }
    assert_eq!(service.counts().await, [0; 4]);
}

async fn numbers_out_of_range_are_named(service: &Service) {
    for (query, field) in [
        ("limit=-1", "limit"),
        ("limit=1001", "limit"),
        ("limit=9223372036854775807", "limit"),
        ("limit=9223372036854775808", "limit"),
        ("limit=1.5", "limit"),
        ("limit=", "limit"),
        ("limit=0x10", "limit"),
        ("offset=-1", "offset"),
        ("offset=-9223372036854775808", "offset"),
        ("limit=1&limit=2", "limit"),
    ] {
        let (status, body) =
            service.replica.json(Method::GET, &format!("/v1/users:search?{query}"), "").await;
        assert_eq!((status, named(&body)), (StatusCode::BAD_REQUEST, vec![field]), "{query}: {body}");
    }
    let far = "/v1/users:search?offset=9223372036854775807&limit=1000";
    let (status, body) = service.replica.json(Method::GET, far, "").await;
    assert_eq!((status, body["users"].as_array().map(Vec::len)), (StatusCode::OK, Some(0)));
}

async fn nul_bytes_and_lone_surrogates_are_refused(service: &Service) {
    let body = r#"{"id":"a\u0000","username":"a\u0000","email":"a\u0000@example.com","name":"a\u0000","password":"12345678\u0000","labels":["a\u0000"],"metadata":{"a\u0000":"b"}}"#;
    let (status, answer) = post(service, "/v1/users", body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(named(&answer), ["id", "username", "email", "name", "labels[0]", "metadata", "password"]);
    let (status, _) = post(service, "/v1/users", r#"{"username":"\ud800"}"#).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    for path in
        ["/v1/users/a%00", "/v1/users:lookup?username=%00", "/v1/users:search?email=%00", "/v1/users/%ff"]
    {
        let (status, body) = service.replica.json(Method::GET, path, "").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {body}");
    }
    for body in [r#"{"username":"ada\u0000","password":"x"}"#, r#"{"username":"ada","password":"\u0000"}"#] {
        let (status, _) = post(service, "/v1/sessions", body).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "a log-in that fits nobody");
    }
    assert_eq!(service.number("SELECT count(*) FROM users").await, 0);
}

async fn headers_that_are_wrong_are_refused(service: &Service) {
    let user = create(service, ada()).await;
    let path = format!("/v1/users/{}", user.id);
    let cases: [(&[(&str, &str)], StatusCode); 7] = [
        (&[("usersd-namespace", "Not One")], StatusCode::BAD_REQUEST),
        (&[("usersd-namespace", "a"), ("micro-namespace", "b")], StatusCode::FORBIDDEN),
        (&[("grpc-timeout", "soon")], StatusCode::BAD_REQUEST),
        (&[("grpc-timeout", "0n")], StatusCode::GATEWAY_TIMEOUT),
        (&[("origin", "http://evil.example")], StatusCode::FORBIDDEN),
        (&[("host", "evil.example")], StatusCode::FORBIDDEN),
        (&[("x-http-method-override", "DELETE")], StatusCode::OK),
    ];
    for (headers, expected) in cases {
        let (status, _, body) = service.replica.request(Method::GET, &path, "", headers).await;
        assert_eq!(status, expected, "{headers:?}: {body}");
    }
    assert_eq!(service.number("SELECT count(*) FROM users WHERE deleted = 0").await, 1);
}

/// Bounded here; fuzzing runs longer by its own command.
async fn random_bytes_never_break_anything(service: &Service) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let paths = ["/users.Users/Create", "/users.Users/Update", "/users.Users/Search", "/users.Users/Login"];
    for n in 0..200 {
        let bytes: Vec<u8> = (0..next() % 60).map(|_| u8::try_from(next() % 256).unwrap_or(0)).collect();
        if let Err(status) = raw(service, paths[n % 4], bytes.clone()).await {
            assert!(!matches!(status.code(), Code::Internal | Code::Unknown), "{bytes:?}: {status:?}");
        }
        let path = ["/v1/users", "/v1/sessions", "/v1/sessions:read", "/users/Users/Update"][n % 4];
        let json = [("content-type", "application/json")];
        let (status, _, body) = service.replica.request(Method::POST, path, bytes.clone(), &json).await;
        assert!(!status.is_server_error(), "{path} {bytes:?}: {status} {body}");
    }
}

async fn many_faults_make_no_long_answer(service: &Service) {
    let labels = vec![String::new(); 100];
    let request = usersd::pb::CreateRequest { labels, ..ada() };
    let status = service.users().create(request).await.unwrap_err();
    assert_eq!(crate::support::fields(&status).len(), 40);
    assert!(status.message().ends_with("; and 90 more"), "{status:?}");
    assert!(
        status.message().len() + status.details().len() * 4 / 3 < 8 * 1024,
        "clients take 8 KiB of headers"
    );
    let mask = format!(r#"{{"updateMask":"{}"}}"#, "a,".repeat(20_000));
    let (_, body) = service.replica.json(Method::PATCH, "/v1/users/x", &mask).await;
    assert!(body.to_string().len() < 16 * 1024, "{}", body.to_string().len());
    let query = format!("/v1/users:search?{}", "&a".repeat(3_000));
    let (status, body) = service.replica.json(Method::GET, &query, "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.to_string().len() < 16 * 1024, "{}", body.to_string().len());
}

/// The fields that the proto marks as REQUIRED.
fn required(message: &MessageDescriptor) -> BTreeSet<String> {
    let pool = message.parent_pool();
    let behavior = pool.get_extension_by_name("google.api.field_behavior").unwrap();
    let required = pool.get_enum_by_name("google.api.FieldBehavior").unwrap();
    let required = Reflected::EnumNumber(required.get_value_by_name("REQUIRED").unwrap().number());
    let is_required = |field: &prost_reflect::FieldDescriptor| {
        field.options().get_extension(&behavior).as_list().unwrap().contains(&required)
    };
    message.fields().filter(is_required).map(|field| field.name().to_owned()).collect()
}

async fn fields_are_marked_as_required_where_a_call_without_them_fails(service: &Service) {
    // What an empty request lacks beside: one of several fields will do.
    let either = [
        ("Create", "username"),
        ("Create", "password"),
        ("Read", "id"),
        ("CreateOrRestore", "password"),
        ("Login", "username"),
        ("CreateCode", "id"),
        ("CompleteLogin", "totp"),
    ];
    let pool = DescriptorPool::decode(usersd::DESCRIPTOR_SET).unwrap();
    let mut refusals = 0;
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let name = method.name();
        let mut expected = required(&method.input());
        if method.parent_service().name() == "Users" {
            let either = either.iter().filter(|(of, _)| *of == name);
            expected.extend(either.map(|(_, field)| (*field).to_owned()));
        }
        if name == "Login" {
            assert!(expected.remove("password"), "without a password none is right: BAD_CREDENTIALS");
        }
        let path = format!("/{}/{name}", method.parent_service().full_name());
        let missing = match raw(service, &path, Vec::new()).await {
            Ok(_) => BTreeSet::new(),
            Err(status) => fields(&status).into_iter().collect(),
        };
        assert_eq!(missing, expected, "{path}");
        refusals += usize::from(!missing.is_empty());
    }
    assert!(refusals > 20, "only {refusals} RPCs need a field");
}

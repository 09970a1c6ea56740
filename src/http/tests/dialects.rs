//! The dialects beside `/v1`: micro over HTTP, micro in gRPC frames, gRPC-Web, gRPC as it is.

use prost::Message as _;
use serde_json::json;
use tonic::body::Body;
use tonic::{Code, Status};

use super::{Got, MAX_BODY, TestGateway, USERS, failing, framed, front, request, send};
use crate::error::Error;
use crate::pb;

/// Answers as `users` would: a user to everything, a session for tokens.
fn users() -> TestGateway {
    let reply = |seen: super::Seen| {
        let user = pb::User {
            id: "u-1".into(),
            username: "ada".into(),
            created: 1_700_000_000,
            ..Default::default()
        };
        match seen.path.as_str() {
            "/users.Users/UpdatePassword" => {
                let request = pb::UpdatePasswordRequest::decode(seen.message).unwrap();
                assert_eq!((&*request.user_id, &*request.old_password), ("u-1", "a"));
            }
            "/users.Users/Create" => {
                let request = pb::CreateRequest::decode(seen.message).unwrap();
                assert_eq!(request.username, "ada");
            }
            _ => {}
        }
        Ok(pb::ReadResponse { user: Some(user) }.encode_to_vec())
    };
    front(&USERS, reply)
}

#[tokio::test]
async fn micro_reads_and_writes_as_it_did() {
    let want = json!({"user": {"id": "u-1", "username": "ada", "created": "1700000000"}});
    for path in ["/users/Users/Read", "/users/read", "/users/Read"] {
        let got = send(&users(), request("POST", path, r#"{"id": "u-1", "unknown": {"x": [1]}}"#)).await;
        assert_eq!((got.status.as_u16(), got.json()), (200, want.clone()), "{path}");
        assert_eq!(got.header("content-type"), "application/json");
    }
    for (path, body) in [
        ("/users/Users/Create", r#"{"username": "ada"}"#),
        ("/users/update-password", r#"{"userId": "u-1", "old_password": "a"}"#),
        ("/users/updatePassword", r#"{"user_id": "u-1", "oldPassword": "a"}"#),
        ("/users/logout", ""),
        ("/users/delete", "{}"),
        ("/users/update", "{}"),
    ] {
        let got = send(&users(), request("POST", path, body)).await;
        assert_eq!((got.status.as_u16(), &*got.body), (200, &b"{}"[..]), "{path}");
    }
}

#[tokio::test]
async fn micro_reads_json_of_any_label() {
    for (media, want) in
        [("application/x-www-form-urlencoded", 200), ("text/json; charset=x", 200), ("text/plain", 415)]
    {
        let mut request = request("POST", "/users/read", r#"{"id": "u-1"}"#);
        request.headers_mut().insert("content-type", media.parse().unwrap());
        assert_eq!(send(&users(), request).await.status.as_u16(), want, "{media}");
    }
}

#[tokio::test]
async fn micro_errors_have_their_form() {
    let got = send(&failing(|| Error::UserNotFound.into()), request("POST", "/users/Users/Read", "{}")).await;
    let want = json!({"id": "users.Read", "code": 404, "detail": "no such user", "status": "Not Found"});
    assert_eq!((got.status.as_u16(), got.json()), (404, want));

    let got = send(&users(), request("GET", "/users/read", "")).await;
    assert_eq!((got.status.as_u16(), got.header("allow")), (405, "POST"));
    assert_eq!(got.json()["id"], "users.Read");
    for path in ["/users/nope", "/users/Users/Nope", "/users/Other/Read", "/users/Users/Read/x", "/users/"] {
        let got = send(&users(), request("POST", path, "{}")).await;
        assert_eq!((got.status.as_u16(), &got.json()["code"]), (404, &json!(404)), "{path}");
    }
    let got = send(&users(), request("POST", "/users/create", r#"{"username": 1, "labels": "x"}"#)).await;
    assert_eq!(got.status, 400);
    let detail = "some fields are not valid: username must be a string; labels must be a list";
    assert_eq!(got.json()["detail"], detail);
    let got = send(&users(), request("POST", "/users/create", "{")).await;
    assert_eq!(got.json()["status"], "Bad Request");
}

async fn grpc_json(front: &TestGateway, path: &str, media: &str, body: Vec<u8>) -> Got {
    let body = Body::new(http_body_util::Full::from(body));
    let request = http::Request::builder().method("POST").uri(path).header("content-type", media);
    send(front, request.body(body).unwrap()).await
}

fn frame(json: &str) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(json.len()).unwrap().to_be_bytes());
    frame.extend(json.as_bytes());
    frame
}

#[tokio::test]
async fn json_in_grpc_frames() {
    for media in ["application/grpc+json", "application/grpc+json; charset=utf-8"] {
        for body in [frame(r#"{"id":"u-1","what":1}"#), frame(""), Vec::new()] {
            let got = grpc_json(&users(), "/users.Users/Read", media, body).await;
            assert_eq!(got.header("content-type"), "application/grpc+json");
            let want = r#"{"user":{"id":"u-1","username":"ada","created":"1700000000"}}"#;
            assert_eq!(&*got.body, &*frame(want));
        }
        let got = grpc_json(&users(), "/users.Users/Delete", media, frame("{}")).await;
        assert_eq!(&*got.body, &*frame("{}"));
    }
}

#[tokio::test]
async fn errors_in_grpc_frames_are_a_message_and_nothing_more() {
    let media = "application/grpc+json";
    let front = failing(|| Error::UserNotFound.into());
    let got = grpc_json(&front, "/users.Users/Read", media, frame("{}")).await;
    let status = Status::from_header_map(&got.headers).unwrap();
    assert_eq!((got.status.as_u16(), status.code()), (200, Code::NotFound));
    assert_eq!(
        status.message(),
        r#"{"id":"users.Read","code":404,"detail":"no such user","status":"Not Found"}"#
    );
    assert!(status.details().is_empty());
    assert_eq!(got.header("content-type"), media);

    for (path, body, want) in [
        ("/users.Users/Nope", frame("{}"), Code::Unimplemented),
        ("/users.Users/Read", frame("{"), Code::InvalidArgument),
        ("/users.Users/Read", vec![0, 0, 0, 0, 9, 1], Code::InvalidArgument),
        ("/users.Users/Read", vec![0, 0], Code::InvalidArgument),
        ("/users.Users/Read", vec![1, 0, 0, 0, 0], Code::Unimplemented),
        ("/users.Users/Read", vec![0; MAX_BODY + 6], Code::OutOfRange),
    ] {
        let got = grpc_json(&users(), path, media, body).await;
        assert_eq!(Status::from_header_map(&got.headers).unwrap().code(), want, "{path}");
    }
}

#[tokio::test]
async fn grpc_and_grpc_web_pass() {
    for media in ["application/grpc", "application/grpc+proto"] {
        let got = grpc_json(&users(), "/users.Users/Read", media, frame("")).await;
        let want = framed(&pb::ReadResponse::default().encode_to_vec());
        assert_eq!(got.header("content-type"), "application/grpc");
        assert_eq!(got.header("content-type"), want.headers()["content-type"]);
        assert!(got.body.len() > 5);
    }
    for media in ["application/grpc-web", "application/grpc-web+proto"] {
        let got = grpc_json(&users(), "/users.Users/Read", media, frame("")).await;
        assert_eq!(got.header("content-type"), "application/grpc-web+proto", "{media}");
        assert!(got.body.windows(13).any(|part| part == b"grpc-status:0"), "{got:?}");
    }
}

//! Streams in the Connect protocol: envelopes, and a last one that tells how the stream ended.

use bytes::Bytes;
use http::{Method, StatusCode};
use prost::Message as _;
use serde_json::{Value, json};
use usersd::domain::scope::Scopes;

use crate::everything::{FileReply, FileRequest, services};
use crate::support::{Replica, Service, bytes_of, get, monitor, until};

crate::on_every_backend!(
    a_server_stream_comes_in_both_formats,
    a_stream_tells_at_its_end_how_it_failed,
    a_client_stream_is_read_to_its_end,
    each_message_has_the_limit_of_a_body,
    what_is_no_envelope_is_refused,
    deadlines_and_the_servers_stop_end_streams,
    metrics_tell_streams_that_failed_at_their_start,
);

#[derive(Clone, Copy, Debug)]
enum Format {
    Json,
    Proto,
}

use Format::{Json, Proto};

impl Format {
    fn media(self) -> &'static str {
        match self {
            Json => "application/connect+json",
            Proto => "application/connect+proto",
        }
    }

    fn request(self, name: &str, page_size: i32) -> Vec<u8> {
        let message = FileRequest { name: name.to_owned(), page_size };
        envelope(
            0,
            &match self {
                Json => json!({"name": name, "pageSize": page_size, "new": 1}).to_string().into_bytes(),
                Proto => message.encode_to_vec(),
            },
        )
    }

    fn title(self, message: &[u8]) -> String {
        match self {
            Json => {
                let message: Value = serde_json::from_slice(message).unwrap();
                message.get("title").map_or("", |title| title.as_str().unwrap()).to_owned()
            }
            Proto => FileReply::decode(message).unwrap().title,
        }
    }
}

fn envelope(flags: u8, message: &[u8]) -> Vec<u8> {
    [&[flags][..], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// A server with streams, and the header of a key that may do everything there.
async fn start(service: &Service) -> (Replica, String) {
    let (key, _) = service.key("default", Scopes::ALL).await;
    (service.another_with(services(), |_| {}).await, format!("Bearer {key}"))
}

/// The titles of the replies to `body`, and the code with which the stream ends, `""` for success.
async fn call(
    replica: &Replica,
    (rpc, format, headers): (&str, Format, &[(&str, &str)]),
    body: impl Into<Bytes>,
) -> (Vec<String>, String) {
    let headers = [&[("content-type", format.media()), ("connect-protocol-version", "1")], headers].concat();
    let path = format!("/everything.Everything/{rpc}");
    let (status, headers, body) = bytes_of(replica, Method::POST, &path, body, &headers).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, format.media()));
    let (mut rest, mut titles) = (&*body, Vec::new());
    loop {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        let (message, after) = rest[5..].split_at(length);
        match rest[0] {
            0 => titles.push(format.title(message)),
            flags => {
                assert_eq!((flags, after.len()), (2, 0), "the end is the last envelope");
                let end: Value = serde_json::from_slice(message).unwrap();
                return (titles, end["error"]["code"].as_str().unwrap_or_default().to_owned());
            }
        }
        rest = after;
    }
}

fn titles(number: i32) -> Vec<String> {
    (0..number).map(|n| n.to_string()).collect()
}

async fn a_server_stream_comes_in_both_formats(service: &Service) {
    let (replica, key) = start(service).await;
    let key = [("authorization", &*key)];
    for format in [Json, Proto] {
        for number in [0, 1, 3, 500] {
            let got = call(&replica, ("Watch", format, &key), format.request("all", number)).await;
            assert_eq!(got, (titles(number), String::new()), "{format:?}");
        }
    }
    replica.stop.cancel();
}

async fn a_stream_tells_at_its_end_how_it_failed(service: &Service) {
    let (replica, key) = start(service).await;
    let key = [("authorization", &*key)];
    for format in [Json, Proto] {
        let watch = async |name, key: &[(&str, &str)]| {
            call(&replica, ("Watch", format, key), format.request(name, 2)).await
        };
        assert_eq!(watch("fail", &key).await, (titles(2), "aborted".into()));
        assert_eq!(watch("refuse", &key).await, (vec![], "not_found".into()));
        assert_eq!(watch("all", &[]).await, (vec![], "unauthenticated".into()));
    }
    replica.stop.cancel();
}

async fn a_client_stream_is_read_to_its_end(service: &Service) {
    let (replica, key) = start(service).await;
    let key = [("authorization", &*key)];
    for format in [Json, Proto] {
        let collect = async |body: Vec<u8>| call(&replica, ("Collect", format, &key), body).await;
        let three = ["a", "", "c"].map(|name| format.request(name, 0)).concat();
        assert_eq!(collect(three).await, (vec!["a++c".into()], String::new()));
        assert_eq!(collect(vec![]).await, (vec![String::new()], String::new()));
        // Longer than any body: each message has a limit, the stream has none.
        let many = format.request(&"x".repeat(10_000), 0).repeat(20);
        assert_eq!(collect(many).await.0[0].len(), 20 * 10_000 + 19);
    }
    replica.stop.cancel();
}

async fn each_message_has_the_limit_of_a_body(service: &Service) {
    let (replica, key) = start(service).await;
    let key = [("authorization", &*key)];
    for format in [Json, Proto] {
        let long = format.request(&"x".repeat(65 * 1024), 0);
        for (rpc, body) in [("Watch", long.clone()), ("Collect", [format.request("a", 0), long].concat())] {
            let got = call(&replica, (rpc, format, &key), body).await;
            assert_eq!(got, (vec![], "out_of_range".into()), "{format:?} {rpc}");
        }
        // Refused by what is announced, not when it has come.
        let announced = [&[0][..], &u32::MAX.to_be_bytes()[..], b"x"].concat();
        let got = call(&replica, ("Collect", format, &key), announced).await;
        assert_eq!(got, (vec![], "out_of_range".into()));
    }
    replica.stop.cancel();
}

async fn what_is_no_envelope_is_refused(service: &Service) {
    let (replica, key) = start(service).await;
    let key = [("authorization", &*key)];
    let watch = async |body: Vec<u8>| call(&replica, ("Watch", Json, &key), body).await.1;
    assert_eq!(watch(envelope(0, b"{")).await, "invalid_argument");
    assert_eq!(watch(envelope(0, br#"{"name":1}"#)).await, "invalid_argument");
    assert_eq!(watch(envelope(2, b"{}")).await, "invalid_argument");
    assert_eq!(watch(vec![0, 0, 0, 0, 9, b'{']).await, "invalid_argument");
    assert_eq!(watch(vec![0, 0]).await, "invalid_argument");
    // A unary type for a stream, and a stream's for a unary call.
    for (rpc, media) in [("Watch", "application/json"), ("File", "application/connect+json")] {
        let headers = [key[0], ("content-type", media)];
        let path = format!("/everything.Everything/{rpc}");
        let (status, headers, _) = bytes_of(&replica, Method::POST, &path, "{}", &headers).await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{rpc}");
        assert!(headers.contains_key("accept-post"));
    }
    replica.stop.cancel();
}

async fn deadlines_and_the_servers_stop_end_streams(service: &Service) {
    let (replica, key) = start(service).await;
    let timeout = [("authorization", &*key), ("connect-timeout-ms", "300")];
    let got = call(&replica, ("Watch", Proto, &timeout), Proto.request("endless", 2)).await;
    assert_eq!(got, (titles(2), "deadline_exceeded".into()));
    let key = [("authorization", &*key)];
    let watched = call(&replica, ("Watch", Json, &key), Json.request("endless", 1));
    let stop = async {
        until(async || replica.server.streams_open() == 1).await;
        replica.stop.cancel();
    };
    let (got, ()) = futures_util::join!(watched, stop);
    assert_eq!(got, (titles(1), "unavailable".into()));
}

async fn metrics_tell_streams_that_failed_at_their_start(service: &Service) {
    let (replica, key) = start(service).await;
    let key = [("authorization", &*key)];
    for name in ["all", "refuse"] {
        call(&replica, ("Watch", Json, &key), Json.request(name, 1)).await;
    }
    let (_, _, text) = get(&monitor(&replica).await, "/metrics", "").await;
    for code in ["OK", "NOT_FOUND"] {
        let labels = format!("method=\"everything.Everything/Watch\",dialect=\"connect\",code=\"{code}\"");
        let line = format!("usersd_calls_total{{{labels},reason=\"\"}} 1");
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
    replica.stop.cancel();
}

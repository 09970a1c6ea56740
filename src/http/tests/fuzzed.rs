//! Fuzz targets: a body in frames or envelopes is read or refused, and never a fault of ours.

use std::future::{Ready, ready};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};
use tonic::server::{ClientStreamingService, Grpc, UnaryService};
use tonic::{Request as Asked, Response as Replied, Streaming};
use tonic_prost::ProstCodec;

use super::*;

/// `FileRequest` and `FileReply`, as far as it matters.
#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
}

struct Echo;

impl UnaryService<File> for Echo {
    type Response = File;
    type Future = Ready<Result<Replied<File>, Status>>;

    fn call(&mut self, request: Asked<File>) -> Self::Future {
        ready(Ok(Replied::new(request.into_inner())))
    }
}

impl ClientStreamingService<File> for Echo {
    type Response = File;
    type Future = BoxFuture<'static, Result<Replied<File>, Status>>;

    fn call(&mut self, request: Asked<Streaming<File>>) -> Self::Future {
        Box::pin(async move {
            let mut messages = request.into_inner();
            let mut last = File::default();
            while let Some(message) = messages.next().await {
                last = message?;
            }
            Ok(Replied::new(last))
        })
    }
}

/// tonic's own server behind the dialects, as in the product.
fn tonic_behind() -> (TestGateway, Runtime) {
    let mut rpcs = Upstream::default();
    rpcs.insert("everything.Everything", |request| {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<File, File>::default());
            Ok(if request.uri().path().ends_with("/Collect") {
                grpc.client_streaming(Echo, request).await
            } else {
                grpc.unary(Echo, request).await
            })
        })
    });
    let gateway = Gateway::new(Arc::clone(&EVERYTHING.0), rpcs, SETTINGS);
    (TestGateway { gateway, refusal: None }, Builder::new_current_thread().enable_time().build().unwrap())
}

fn post(path: &str, media: &str, body: &[u8]) -> Request<Body> {
    let body = Body::new(Full::from(body.to_vec()));
    Request::post(path).header("content-type", media).body(body).unwrap()
}

#[test]
fn grpc_web_bodies() {
    let (front, runtime) = tonic_behind();
    let words = ["\0\0\0\0\0", "\0\0\0\0\u{2}", "\u{1}", "\n\u{3}abc", "AAAAAAA=", "grpc-status:0\r\n"];
    fuzz::run("grpc_web", &words, |input| {
        for media in ["application/grpc-web+proto", "application/grpc-web-text+proto"] {
            let got = runtime.block_on(send(&front, post("/everything.Everything/File", media, input)));
            assert_eq!(got.status, 200, "{got:?}");
            for code in [Code::Unknown, Code::Internal] {
                let (name, number) = ("grpc-status", i32::from(code).to_string());
                assert_ne!(got.header(name), number, "{got:?}");
                let trailer = format!("{name}:{number}\r\n");
                assert!(!got.body.windows(trailer.len()).any(|part| part == trailer.as_bytes()), "{got:?}");
            }
        }
    })
    .unwrap();
}

#[test]
fn connect_envelopes() {
    let (front, runtime) = tonic_behind();
    let words = ["\0\0\0\0\u{2}{}", "\0\0\0\0\0", "\u{2}", "\u{1}", "{\"name\":\"", "\"}", "\u{7f}\u{7f}"];
    fuzz::run("connect", &words, |input| {
        for media in ["application/connect+json", "application/connect+proto"] {
            let body = runtime.block_on(async {
                let (mut head, body) = post("/everything.Everything/Collect", media, input).into_parts();
                let call = front.gateway.locate(&mut head).map_err(|response| *response).unwrap();
                let answered = call.answer(head, Extensions::new(), Content::Stream(body), None).await;
                assert_eq!(answered.status(), 200);
                answered.into_body().collect().await.unwrap().to_bytes()
            });
            // The last envelope tells how it ended.
            let text = String::from_utf8_lossy(&body);
            assert!(
                text.contains('{') && !text.contains("\"internal\"") && !text.contains("\"unknown\""),
                "{text}"
            );
        }
    })
    .unwrap();
}

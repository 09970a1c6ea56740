//! Compression by gzip and zstd: decompresses requests to at most the limit of a body, and compresses replies for clients that
//! ask for it. Connect's streams of replies are not compressed.

use std::io::{Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use http::header::{self, AsHeaderName};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::{Code, Status};

use super::frames::{self, COMPRESSED, Messages, single};
use crate::error::Error;
use crate::grpc::status::refusal;
use crate::pb::ErrorReason;

/// gRPC's header that names the coding of messages.
pub(super) const GRPC_ENCODING: &str = "grpc-encoding";

/// The codings, as headers list them.
pub(super) const KNOWN: HeaderValue = HeaderValue::from_static("gzip, zstd");

/// Replies and messages that are shorter stay plain: they fit in a packet either way.
const MIN_LENGTH: usize = 1024;

/// The binary logarithm of the memory that a zstd frame may ask for: 8 MiB, which RFC 8878 §3.1.1.1.2 has every decoder support.
const MAX_WINDOW_LOG: u32 = 23;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    /// Returns the coding that a header names, `None` for a body as it is.
    ///
    /// # Errors
    ///
    /// `UNIMPLEMENTED` / `ENCODING_UNKNOWN` for any other and for several.
    pub(super) fn of(headers: &HeaderMap, name: impl AsHeaderName) -> Result<Option<Self>, Status> {
        let mut values = headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(unknown());
        }
        Self::named(value.as_bytes())
    }

    /// As [`Coding::of`], for a name.
    pub(super) fn named(name: &[u8]) -> Result<Option<Self>, Status> {
        match name.to_ascii_lowercase().as_slice() {
            b"identity" => Ok(None),
            b"gzip" | b"x-gzip" => Ok(Some(Self::Gzip)),
            b"zstd" => Ok(Some(Self::Zstd)),
            _ => Err(unknown()),
        }
    }

    /// The coding that a client prefers by `Accept-Encoding` (RFC 9110 §12.5.3); of equals zstd, which is quicker.
    pub(super) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        let items = values.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
        let mut best: Option<(f32, Self)> = None;
        for item in items {
            let (name, weight) = item.split_once(';').unwrap_or((item, "q=1"));
            let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
            let Ok(Some(coding)) = Self::named(name.trim().as_bytes()) else { continue };
            let weight = weight.filter(|weight| *weight > 0.0 && *weight <= 1.0);
            let better = |weight: f32| {
                best.is_none_or(|(most, _)| weight > most || (weight >= most && coding == Self::Zstd))
            };
            if let Some(weight) = weight.filter(|weight| better(*weight)) {
                best = Some((weight, coding));
            }
        }
        best.map(|(_, coding)| coding)
    }

    fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }

    /// Decompresses what may have `max` bytes.
    ///
    /// # Errors
    ///
    /// `RESOURCE_EXHAUSTED` / `TOO_LARGE` once it is known to be longer; `MALFORMED` if it is not in this coding.
    pub(super) fn decompress(self, compressed: &[u8], max: usize) -> Result<Bytes, Status> {
        let (mut plain, limit) = (Vec::new(), (max as u64).saturating_add(1));
        if compressed.is_empty() {
            return Ok(Bytes::new());
        }
        let read = match self {
            Self::Gzip => MultiGzDecoder::new(compressed).take(limit).read_to_end(&mut plain),
            Self::Zstd => zstd::Decoder::with_buffer(compressed).and_then(|mut decoder| {
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                decoder.take(limit).read_to_end(&mut plain)
            }),
        };
        if plain.len() > max {
            let why = format!("the decompressed message is longer than {max} bytes");
            return Err(refusal(Code::ResourceExhausted, ErrorReason::TooLarge, &why));
        }
        match read {
            Ok(_) => Ok(plain.into()),
            Err(_) => Err(Error::Malformed("the message is not in its encoding".to_owned()).into()),
        }
    }

    /// Compresses what is long enough; `None` if it stays as it is.
    fn compress(self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() < MIN_LENGTH {
            return None;
        }
        // The quickest levels: others save little and cost several times as much.
        let compressed = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
                encoder.write_all(plain).ok()?;
                encoder.finish().ok()?
            }
            Self::Zstd => zstd::bulk::compress(plain, 1).ok()?,
        };
        (compressed.len() < plain.len()).then_some(compressed)
    }

    /// Compresses a reply that is in memory.
    pub(super) async fn compress_reply(self, response: Response<Body>) -> Response<Body> {
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if length.is_none_or(|length| length < MIN_LENGTH) {
            return response;
        }
        let (mut head, body) = response.into_parts();
        let plain = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(status) => return status.into_http(),
        };
        head.headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        let body = match self.compress(&plain) {
            Some(compressed) => {
                head.headers.insert(header::CONTENT_ENCODING, self.name());
                head.headers.insert(header::CONTENT_LENGTH, compressed.len().into());
                compressed.into()
            }
            None => plain,
        };
        Response::from_parts(head, Body::new(http_body_util::Full::new(body)))
    }

    /// Compresses the messages of a reply in gRPC.
    pub(super) fn compress_messages(self, mut response: Response<Body>) -> Response<Body> {
        if response.headers().contains_key(Status::GRPC_STATUS) {
            return response; // there is no message
        }
        response.headers_mut().insert(GRPC_ENCODING, self.name());
        response.map(|body| {
            recoded(body, move |messages, out| {
                while let Some(message) = messages.next() {
                    let compressed = self.compress(&message);
                    let start = frames::open(if compressed.is_some() { COMPRESSED } else { 0 }, out);
                    out.extend_from_slice(compressed.as_deref().unwrap_or(&message));
                    frames::close(start, out);
                }
                Ok(())
            })
        })
    }
}

fn unknown() -> Status {
    let why = "unknown encoding; gzip and zstd are supported";
    refusal(Code::Unimplemented, ErrorReason::EncodingUnknown, why)
}

/// Decompresses the one message of a gRPC call. The headers do not name a coding any more.
///
/// # Errors
///
/// As [`Coding::of`] and [`Coding::decompress`].
pub(super) async fn decompress_message(
    headers: &mut HeaderMap,
    body: Bytes,
    max: usize,
) -> Result<Bytes, Status> {
    // tonic looks for it once more, and knows none.
    let Some(coding) = Coding::of(headers, GRPC_ENCODING)? else { return Ok(body) };
    headers.remove(GRPC_ENCODING);
    match body.first() {
        Some(&COMPRESSED) => match single(body.clone()) {
            Some(message) => {
                // To decompress takes long enough for a task of its own: see `server/streams.rs`.
                tokio::task::yield_now().await;
                Ok(frames::frame(&coding.decompress(&message, max)?))
            }
            None => Ok(body), // incomplete, as tonic will say
        },
        _ => Ok(body),
    }
}

/// Decompresses the messages of a gRPC stream as they arrive, each to at most `max` bytes. The headers do not name a coding
/// any more, unless it is not known.
pub(super) fn decompress_messages(mut request: Request<Body>, max: usize) -> Request<Body> {
    let Ok(Some(coding)) = Coding::of(request.headers(), GRPC_ENCODING) else { return request };
    request.headers_mut().remove(GRPC_ENCODING);
    request.map(|body| {
        recoded(body, move |messages, out| {
            while let Some((flags, mut message)) = messages.next_within(max)? {
                let compressed = flags == COMPRESSED;
                if compressed {
                    message = coding.decompress(&message, max)?;
                }
                let start = frames::open(if compressed { 0 } else { flags }, out);
                out.extend_from_slice(&message);
                frames::close(start, out);
            }
            Ok(())
        })
    })
}

/// A body of gRPC's frames whose complete messages `recode` takes and writes again.
fn recoded<F>(body: Body, recode: F) -> Body
where
    F: FnMut(&mut Messages, &mut Vec<u8>) -> Result<(), Status> + Send + Unpin + 'static,
{
    Body::new(Recoded { body, messages: Messages::default(), recode })
}

struct Recoded<F> {
    body: Body,
    messages: Messages,
    recode: F,
}

impl<F> http_body::Body for Recoded<F>
where
    F: FnMut(&mut Messages, &mut Vec<u8>) -> Result<(), Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            match ready!(Pin::new(&mut this.body).poll_frame(context)).transpose()?.map(Frame::into_data) {
                Some(Ok(piece)) => this.messages.push(&piece),
                Some(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                None if this.messages.is_empty() => return Poll::Ready(None),
                None => {
                    this.messages = Messages::default();
                    let why = "the body ended early".to_owned();
                    return Poll::Ready(Some(Err(Error::Malformed(why).into())));
                }
            }
            let mut out = Vec::new();
            (this.recode)(&mut this.messages, &mut out)?;
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coding_is_the_one_that_the_client_prefers() {
        for (accept, want) in [
            ("gzip, deflate, br", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("zstd;q=0.5, gzip;q=0.8", Some(Coding::Gzip)),
            ("GZIP;q=1.0", Some(Coding::Gzip)),
            ("gzip;q=0, zstd;q=0.0", None),
            ("gzip;q=x", None),
            ("identity, *", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
            assert_eq!(Coding::accepted(&headers), want, "{accept}");
        }
        assert_eq!(Coding::accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn what_was_compressed_is_decompressed_within_the_limit() {
        let plain = b"ada ".repeat(1000);
        for coding in [Coding::Gzip, Coding::Zstd] {
            let compressed = coding.compress(&plain).unwrap();
            assert!(compressed.len() < plain.len() / 10, "{}", compressed.len());
            assert_eq!(coding.decompress(&compressed, plain.len()).unwrap(), plain);
            let status = coding.decompress(&compressed, plain.len() - 1).unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted, "{coding:?}");
            for wrong in [&compressed[..compressed.len() / 2], b"ada", &[0; 40]] {
                assert_eq!(
                    coding.decompress(wrong, 4000).unwrap_err().code(),
                    Code::InvalidArgument,
                    "{coding:?}"
                );
            }
            assert_eq!(coding.decompress(b"", 10).unwrap(), "");
            assert_eq!(coding.compress(&plain[..MIN_LENGTH - 1]), None);
        }
    }

    #[test]
    fn a_frame_of_zstd_may_not_ask_for_more_memory_than_others() {
        // Magic, a header that says a window of 2^27 bytes, and an empty last block.
        let window = |log: u8| [&[0x28, 0xB5, 0x2F, 0xFD, 0x00, (log - 10) << 3][..], &[1, 0, 0]].concat();
        assert_eq!(Coding::Zstd.decompress(&window(23), 10).unwrap(), "");
        assert_eq!(Coding::Zstd.decompress(&window(27), 10).unwrap_err().code(), Code::InvalidArgument);
    }
}

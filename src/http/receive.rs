//! Bodies of requests, limited in size and time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::request::Parts;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use super::coding::{Coding, decompress_message};
use super::frames::{self, Position};
use crate::error::Error;

/// The longest time that the body of a request, or each message of a stream, may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// The most that is read of a body that is too long before it is answered, in bytes and in time.
const DRAIN_LIMIT: usize = 32 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The frame of a message has five bytes more. A few others tell that a second one follows.
const FRAMES: usize = 16;

/// Reads a body of at most `max` bytes, and decompresses it to at most as many. Fails with `OUT_OF_RANGE` or, if only the
/// decompressed body is longer, `RESOURCE_EXHAUSTED` / `TOO_LARGE`, before reading where the length is announced; `MALFORMED` if
/// it breaks off; `ENCODING_UNKNOWN`.
pub async fn receive_plain(head: &Parts, mut body: Body, max: usize) -> Result<Bytes, Status> {
    let announced =
        head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let coding = Coding::of(&head.headers, header::CONTENT_ENCODING)?;
    let received = if announced.is_some_and(|length: u64| length > max as u64) {
        Err(Error::TooLarge(max))
    } else {
        receive(&mut body, max, 0, BODY_TIMEOUT).await
    };
    // A client that waits for `100 Continue` has sent nothing yet.
    if matches!(received, Err(Error::TooLarge(_))) && !head.headers.contains_key(header::EXPECT) {
        discard(body).await;
    }
    let received = received?;
    match coding {
        Some(coding) => {
            // To decompress takes long enough for a task of its own: see `server/streams.rs`.
            tokio::task::yield_now().await;
            coding.decompress(&received, max)
        }
        None => Ok(received),
    }
}

/// Reads one gRPC message of at most `max` bytes in its frame, within `time`, and decompresses it if it is compressed.
/// Fails with `MALFORMED` if there is more behind it, which tonic would ignore.
pub async fn receive_message(
    head: &mut Parts,
    mut body: Body,
    max: usize,
    time: Duration,
) -> Result<Bytes, Status> {
    let received = receive(&mut body, max, FRAMES, time).await?;
    // In base64 frames are not seen.
    let is_text = media_type(&head.headers)
        .is_some_and(|media| starts_with_ignore_case(media, "application/grpc-web-text"));
    if is_text {
        return Ok(received);
    }
    if frames::is_too_long(&received) {
        return Err(Error::Malformed("the call has more than one message".to_owned()).into());
    }
    decompress_message(&mut head.headers, received, max).await
}

/// Reads a body of at most `max` bytes of message and `frames` of framing, whole and within `time`.
/// Fails with [`Error::TooLarge`], [`Error::DeadlinePassed`], or [`Error::Malformed`] if it breaks off.
async fn receive(body: &mut Body, max: usize, frames: usize, time: Duration) -> Result<Bytes, Error> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    match tokio::time::timeout(time, Limited::new(body, max + frames).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Error::TooLarge(max)),
        Ok(Err(_)) => Err(Error::Malformed("the body ended early".to_owned())),
        Err(_) => Err(Error::DeadlinePassed),
    }
}

/// Reads on for a while and drops what it reads: many clients write their whole body before they read the
/// answer, and would see a broken connection instead of the refusal.
async fn discard(body: Body) {
    let rest = Limited::new(body, DRAIN_LIMIT);
    let all = async {
        let mut rest = std::pin::pin!(rest);
        while let Some(Ok(_)) = rest.frame().await {}
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, all).await;
}

/// The media type without its parameters; `None` if there is none.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    // A value that is not ASCII is no type that we know.
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("?");
    Some(value.split(';').next().unwrap_or_default().trim())
}

/// Returns true if the body has a JSON type, or none.
pub(super) fn is_json(head: &Parts) -> bool {
    media_type(&head.headers).is_none_or(|media| {
        media.eq_ignore_ascii_case("application/json") || ends_with_ignore_case(media, "+json")
    })
}

pub(super) fn ends_with_ignore_case(text: &str, end: &str) -> bool {
    let at = text.len().checked_sub(end.len());
    at.and_then(|at| text.get(at..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

pub(super) fn starts_with_ignore_case(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

/// The body of a stream of gRPC messages, each of which must arrive within [`BODY_TIMEOUT`] of its first
/// byte. Between messages the client may wait.
pub(super) fn timed(body: Body) -> Body {
    Body::new(Timed { body, position: Position::default(), timer: None })
}

struct Timed {
    body: Body,
    position: Position,
    /// Runs while a message has begun and not ended.
    timer: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            if this.position.advance(bytes) {
                this.timer = None;
            }
            if this.position.is_inside() && this.timer.is_none() {
                this.timer = Some(Box::pin(tokio::time::sleep(BODY_TIMEOUT)));
            }
        }
        let Some(timer) = this.timer.as_mut().filter(|_| frame.is_pending()) else { return frame };
        timer.as_mut().poll(context).map(|()| Some(Err(Error::DeadlinePassed.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

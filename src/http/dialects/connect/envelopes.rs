//! The envelopes of streams: as gRPC's frames, with a last one that tells how the stream ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tonic::body::Body;
use tonic::{Code, Status};

use super::{Format, errors};
use crate::error::Error;
use crate::grpc::status::refusal;
use crate::http::dialects::streamed::Form;
use crate::http::frames::{self, COMPRESSED, Messages};
use crate::http::receive::timed;
use crate::pb::ErrorReason;
use transcode::json::{self, Style};
use transcode::schema::{MessageId, Schema};

const END: u8 = 2;

/// Writes replies in envelopes.
pub(super) struct Envelopes {
    pub(super) schema: Arc<Schema>,
    pub(super) output: MessageId,
    pub(super) format: Format,
}

impl Form for Envelopes {
    fn message(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let start = frames::open(0, out);
        match self.format {
            Format::Json => json::write(&self.schema, self.output, message, Style::CONNECT, out)
                .map_err(Error::internal)?,
            Format::Proto => out.extend_from_slice(message),
        }
        frames::close(start, out);
        Ok(())
    }

    fn end(&self, status: &Status, out: &mut Vec<u8>) {
        out.extend_from_slice(&end(status));
    }
}

/// The last envelope.
pub(super) fn end(status: &Status) -> Vec<u8> {
    let mut out = Vec::new();
    let start = frames::open(END, &mut out);
    if status.code() == Code::Ok {
        out.extend_from_slice(b"{}");
    } else {
        out.extend_from_slice(b"{\"error\":");
        out.extend_from_slice(&errors::body(status));
        out.push(b'}');
    }
    frames::close(start, &mut out);
    out
}

/// The messages in a request's envelopes, each of at most `max` bytes, in gRPC's frames.
pub(super) fn requests(
    body: Body,
    schema: Arc<Schema>,
    input: MessageId,
    format: Format,
    max: usize,
) -> Body {
    let messages = Messages::default();
    Body::new(Requests { body: timed(body), messages, schema, input, format, max, failed: false })
}

struct Requests {
    body: Body,
    messages: Messages,
    schema: Arc<Schema>,
    input: MessageId,
    format: Format,
    max: usize,
    failed: bool,
}

impl Requests {
    /// The frame of the next message that is complete.
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((flags, message)) = self.messages.next_within(self.max)? else { return Ok(None) };
        match flags {
            0 => {}
            COMPRESSED => {
                let why = "messages must not be compressed";
                return Err(refusal(Code::Unimplemented, ErrorReason::EncodingUnknown, why));
            }
            _ => return Err(Error::Malformed("an envelope has flags of no request".to_owned()).into()),
        }
        let message = self.format.read(&self.schema, self.input, message)?;
        Ok(Some(frames::frame(&message)))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(frame) = self.next()? {
                return Poll::Ready(Ok(Some(frame)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)).transpose()? {
                Some(frame) => {
                    if let Ok(piece) = frame.into_data() {
                        self.messages.push(&piece);
                    }
                }
                None if self.messages.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(Error::Malformed("the body ended early".to_owned()).into())),
            }
        }
    }
}

impl http_body::Body for Requests {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.failed {
            return Poll::Ready(None);
        }
        let next = ready!(this.poll(context));
        this.failed = next.is_err();
        Poll::Ready(next.map(|frame| frame.map(Frame::data)).transpose())
    }
}

//! The envelopes of streams: as gRPC's frames, with a last one that tells how the stream ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tonic::body::Body;
use tonic::{Code, Status};

use super::{Format, errors, metadata};
use crate::error::Error;
use crate::http::coding::Coding;
use crate::http::dialects::streamed::Form;
use crate::http::frames::{self, COMPRESSED, Messages};
use crate::http::receive::timed;
use transcode::json::{self, Style};
use transcode::schema::{MessageId, Schema};

const END: u8 = 2;

/// Writes replies in envelopes.
pub(super) struct Writer {
    pub(super) schema: Arc<Schema>,
    pub(super) output: MessageId,
    pub(super) format: Format,
}

impl Form for Writer {
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
    out.push(b'{');
    let mut between: &[u8] = b"";
    if status.code() != Code::Ok {
        out.extend_from_slice(b"\"error\":");
        out.extend_from_slice(&errors::body(status));
        between = b",";
    }
    metadata::write(status.metadata().as_ref(), between, &mut out);
    out.push(b'}');
    frames::close(start, &mut out);
    out
}

/// The messages in a request's envelopes, in gRPC's frames.
pub(super) fn requests(body: Body, reader: Reader) -> Body {
    Body::new(Requests { body: timed(body), messages: Messages::default(), reader, failed: false })
}

/// Reads messages of envelopes.
pub(super) struct Reader {
    pub(super) schema: Arc<Schema>,
    pub(super) input: MessageId,
    pub(super) format: Format,
    /// The coding of those that are compressed.
    pub(super) coding: Option<Coding>,
    /// Most bytes of each, also when decompressed.
    pub(super) max: usize,
}

struct Requests {
    body: Body,
    messages: Messages,
    reader: Reader,
    failed: bool,
}

impl Requests {
    /// The frame of the next message that is complete.
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let reader = &self.reader;
        let Some((flags, message)) = self.messages.next_within(reader.max)? else { return Ok(None) };
        let message = match (flags, reader.coding) {
            (0, _) => message,
            (COMPRESSED, Some(coding)) => coding.decompress(&message, reader.max)?,
            _ => return Err(Error::Malformed("an envelope has flags of no request".to_owned()).into()),
        };
        let message = reader.format.read(&reader.schema, reader.input, message)?;
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

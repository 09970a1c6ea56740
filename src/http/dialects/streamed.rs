//! Converts streams of replies from gRPC's frames and trailers to another dialect.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use crate::error::Error;
use crate::http::frames::Messages;

/// How a dialect writes a stream of replies.
pub(super) trait Form: Send + Unpin + 'static {
    /// Appends a message.
    fn message(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Error>;

    /// Appends the status that ended the stream, or nothing if the end of the body is enough.
    fn end(&self, status: &Status, out: &mut Vec<u8>);
}

/// The body of a gRPC stream in another form.
pub(super) fn streamed(body: Body, form: impl Form) -> Body {
    Body::new(Streamed { body, messages: Messages::default(), form, ended: false })
}

struct Streamed<F> {
    body: Body,
    messages: Messages,
    form: F,
    ended: bool,
}

impl<F: Form> Streamed<F> {
    /// The messages that are complete.
    fn complete(&mut self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        while let Some(message) = self.messages.next() {
            self.form.message(&message, &mut out)?;
        }
        Ok(out)
    }

    fn end(&mut self, status: &Status) -> Vec<u8> {
        self.ended = true;
        self.body = Body::empty();
        let mut out = Vec::new();
        self.form.end(status, &mut out);
        out
    }
}

impl<F: Form> http_body::Body for Streamed<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        while !this.ended {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(context)).transpose();
            let out = match frame.map(|frame| frame.map(Frame::into_data)) {
                Ok(Some(Ok(piece))) => {
                    this.messages.push(&piece);
                    this.complete().unwrap_or_else(|error| this.end(&error.into()))
                }
                Ok(rest) => {
                    let trailers = rest.and_then(Result::err);
                    let status =
                        trailers.as_ref().and_then(|frame| Status::from_header_map(frame.trailers_ref()?));
                    this.end(&status.unwrap_or_else(|| Error::internal("a stream without its status").into()))
                }
                Err(status) => this.end(&status),
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

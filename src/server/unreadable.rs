//! Requests over HTTP/1.1 whose head cannot be read. The HTTP library answers them itself, without a body and before the
//! pipeline sees a request; on their way out such replies get the error body and the headers that all others have.
//!
//! A reply is the library's if it begins where nothing was left to send, is empty, and has no request id: those of the pipeline have one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::unreadable_head;

use super::pipeline::{Pipeline, REQUEST_ID};

/// The line that tells an empty reply, in whose place come those of ours.
const EMPTY: &str = "content-length: 0\r\n";

/// A connection on which the library's own refusals are completed.
pub(super) struct RefusalIo<IO> {
    inner: IO,
    pipeline: Arc<Pipeline>,
    /// Everything before was flushed: what is written next begins a reply, or a piece of one.
    flushed: bool,
    /// A line has ended since the last reply. Without one, it is the request line that is too long; not to be relied on
    /// where requests are sent before the last one was answered.
    line_ended: bool,
    /// The reply that is sent in place of the library's, and its bytes that are sent.
    refusal: Option<(Vec<u8>, usize)>,
}

impl<IO> RefusalIo<IO> {
    pub(super) fn new(inner: IO, pipeline: Arc<Pipeline>) -> Self {
        Self { inner, pipeline, flushed: true, line_ended: false, refusal: None }
    }

    /// Returns what to send in place of a refusal of the library's; `None` for all else.
    fn complete(&self, reply: &[u8]) -> Option<Vec<u8>> {
        if !self.flushed || !reply.starts_with(b"HTTP/1.") || !reply.ends_with(b"\r\n\r\n") {
            return None;
        }
        let reply = std::str::from_utf8(reply).ok()?;
        let (line, headers) = reply.split_once("\r\n")?;
        let status = StatusCode::from_bytes(line.split(' ').nth(1)?.as_bytes()).ok()?;
        let status = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE if !self.line_ended => StatusCode::URI_TOO_LONG,
            StatusCode::BAD_REQUEST
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => status,
            _ => return None,
        };
        if !headers.contains(EMPTY) || headers.contains(REQUEST_ID) {
            return None;
        }
        let (id, body) = (self.pipeline.new_request_id(), unreadable_head(status));
        let id = id.to_str().unwrap_or_default();
        tracing::debug!(request_id = id, status = status.as_u16(), "a request's head cannot be read");
        let ours = format!(
            "content-type: application/json\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n\
             {REQUEST_ID}: {id}\r\ncontent-length: {}\r\n",
            body.len()
        );
        let headers = headers.replacen(EMPTY, &ours, 1);
        Some([format!("HTTP/1.1 {status}\r\n{headers}").into_bytes(), body].concat())
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for RefusalIo<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        this.line_ended = this.line_ended || buffer.filled()[before..].contains(&b'\n');
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for RefusalIo<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.refusal.is_none() {
            this.refusal = this.complete(bytes).map(|refusal| (refusal, 0));
        }
        this.flushed = false;
        let Some((refusal, sent)) = &mut this.refusal else {
            this.line_ended = false;
            return Pin::new(&mut this.inner).poll_write(context, bytes);
        };
        while *sent < refusal.len() {
            let some = ready!(Pin::new(&mut this.inner).poll_write(context, &refusal[*sent..]))?;
            if some == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *sent += some;
        }
        this.refusal = None;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next()) {
            return self.poll_write(context, only);
        }
        (self.flushed, self.line_ended) = (false, false);
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.inner).poll_flush(context))?;
        this.flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

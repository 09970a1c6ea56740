//! Counts what a client sends on an HTTP/2 connection beside its requests.
//!
//! Opening streams and taking them back at once (CVE-2023-44487), pings and settings cost a client next to
//! nothing and the server an answer or a call each. The HTTP library bounds the memory that they take, not
//! how many come; so the frames' headers (RFC 9113 §4.1) are read on the way, and a connection that has
//! little else to send is closed.
//!
//! Costs 35 ns of CPU for a call (one HEADERS and one DATA frame in one read; the parser alone, 36 million
//! calls in 1.26 s of user time, 2026-11-25), where the whole call costs the server some tens of
//! microseconds: about one part in a thousand.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The connection preface, RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's header.
const HEADER: usize = 9;

/// The period after which counts start again.
const WINDOW: Duration = Duration::from_mins(1);

/// The most frames that a connection may send within a minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameLimits {
    /// Streams taken back; more only where at least as many are not.
    pub(super) resets: u32,
    /// Pings, settings and the like; more only where there is a stream for every two.
    pub(super) pings: u32,
}

/// Follows the frames of one direction.
#[derive(Debug)]
struct Frames {
    allowed: FrameLimits,
    state: ParseState,
    since: Instant,
    /// The highest stream so far: headers on a lower one are trailers.
    highest: u32,
    streams: u32,
    resets: u32,
    pings: u32,
}

/// The position of the parser in the stream of frames.
#[derive(Debug)]
enum ParseState {
    /// After so many bytes of the preface.
    Preface(usize),
    Header([u8; HEADER], usize),
    /// Before so many bytes of a frame.
    Payload(usize),
    /// It is HTTP/1.
    NotHttp2,
}

impl Frames {
    fn new(allowed: FrameLimits) -> Self {
        Self {
            allowed,
            state: ParseState::Preface(0),
            since: Instant::now(),
            highest: 0,
            streams: 0,
            resets: 0,
            pings: 0,
        }
    }

    /// Counts the frames in `bytes`. Returns false once there are too many.
    fn observe(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(first) = bytes.first() {
            match &mut self.state {
                ParseState::NotHttp2 => return true,
                ParseState::Preface(seen) if PREFACE.get(*seen) != Some(first) => {
                    self.state = ParseState::NotHttp2;
                }
                ParseState::Preface(seen) => {
                    *seen += 1;
                    bytes = &bytes[1..];
                    if *seen == PREFACE.len() {
                        self.state = ParseState::Header([0; HEADER], 0);
                    }
                }
                ParseState::Header(header, seen) => {
                    let some = bytes.len().min(HEADER - *seen);
                    header[*seen..*seen + some].copy_from_slice(&bytes[..some]);
                    *seen += some;
                    bytes = &bytes[some..];
                    if *seen == HEADER {
                        let [a, b, c, kind, flags, stream @ ..] = *header;
                        let length = u32::from_be_bytes([0, a, b, c]) as usize;
                        self.state = if length == 0 {
                            ParseState::Header([0; HEADER], 0)
                        } else {
                            ParseState::Payload(length)
                        };
                        if !self.count(kind, flags, u32::from_be_bytes(stream), length) {
                            return false;
                        }
                    }
                }
                ParseState::Payload(left) => {
                    let some = bytes.len().min(*left);
                    bytes = &bytes[some..];
                    *left -= some;
                    if *left == 0 {
                        self.state = ParseState::Header([0; HEADER], 0);
                    }
                }
            }
        }
        true
    }

    /// Counts a frame. Source of the numbers: RFC 9113 §6.
    fn count(&mut self, kind: u8, flags: u8, stream: u32, length: usize) -> bool {
        const END_STREAM: u8 = 1;
        match kind {
            1 if stream > self.highest => {
                self.highest = stream;
                self.streams += 1;
            }
            3 => self.resets += 1,
            // An empty piece of a body does nothing either, unless it is the last.
            0 if length > 0 || flags & END_STREAM != 0 => {}
            // Trailers; and large replies have the client say again and again how much more it takes. Headers
            // are bounded.
            1 | 8 | 9 => {}
            _ => self.pings += 1,
        }
        let few = self.resets <= self.allowed.resets && self.pings <= self.allowed.pings;
        if few || self.since.elapsed() > WINDOW {
            if !few {
                (self.since, self.streams, self.resets, self.pings) = (Instant::now(), 0, 0, 0);
            }
            return true;
        }
        let resets = self.resets > self.allowed.resets && self.resets > self.streams / 2;
        let pings = self.pings > self.allowed.pings && self.pings > self.streams.saturating_mul(2);
        !resets && !pings
    }
}

/// A connection whose incoming frames are counted.
pub(super) struct FrameCountingIo<IO> {
    inner: IO,
    /// For the log.
    peer: Option<SocketAddr>,
    frames: Frames,
}

impl<IO> FrameCountingIo<IO> {
    pub(super) fn new(inner: IO, peer: Option<SocketAddr>, allowed: FrameLimits) -> Self {
        Self { inner, peer, frames: Frames::new(allowed) }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for FrameCountingIo<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        if this.frames.observe(&buffer.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        let Frames { streams, resets, pings, .. } = this.frames;
        let peer = this.peer.map_or_else(String::new, |peer| peer.to_string());
        tracing::warn!(
            peer,
            streams,
            resets,
            pings,
            "connection closed: it sends little but resets and pings"
        );
        Poll::Ready(Err(io::Error::other("too many resets or pings")))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for FrameCountingIo<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: FrameLimits = FrameLimits { resets: 5, pings: 5 };

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        frame_of(1, kind, flags, payload)
    }

    fn frame_of(stream: u32, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// Returns how many of `frames` pass, sent `piece` bytes at a time.
    fn passed(frames: &[Vec<u8>], piece: usize) -> usize {
        let mut follower = Frames::new(ALLOWED);
        assert!(follower.observe(PREFACE));
        frames.iter().take_while(|frame| frame.chunks(piece).all(|bytes| follower.observe(bytes))).count()
    }

    #[test]
    fn resets_and_pings_beyond_the_allowed_are_cut_off() {
        for piece in [1, 4, 100] {
            assert_eq!(passed(&vec![frame(6, 0, &[0; 8]); 20], piece), 5);
            assert_eq!(passed(&vec![frame(4, 0, &[]); 20], piece), 5);
            assert_eq!(passed(&vec![frame(0, 0, &[]); 20], piece), 5);
            let rapid: Vec<_> =
                (0..20).flat_map(|_| [frame(1, 5, b"headers"), frame(3, 0, &[0; 4])]).collect();
            assert_eq!(passed(&rapid, piece), 11);
        }
    }

    #[test]
    fn a_client_with_calls_may_ping_and_give_up_some() {
        let call = |n| vec![frame_of(n, 1, 4, b"headers"), frame(0, 1, b"body"), frame(8, 0, &[0; 4])];
        let calls = |extra: Vec<u8>, each: u32| {
            let one = |n: u32| if n.is_multiple_of(each) { vec![extra.clone()] } else { Vec::new() };
            (1..=200).flat_map(|n| [call(n), one(n)].concat()).collect::<Vec<_>>()
        };
        for frames in [calls(frame(6, 0, &[0; 8]), 1), calls(frame(3, 0, &[0; 4]), 3)] {
            assert_eq!(passed(&frames, 7), frames.len());
        }
    }

    #[test]
    fn http_1_is_let_through() {
        let mut follower = Frames::new(ALLOWED);
        assert!(
            follower.observe(b"PRI")
                && follower.observe(b"NT / HTTP/1.1\r\n\r\n")
                && follower.observe(&[0; 900])
        );
        assert!(matches!(follower.state, ParseState::NotHttp2));
    }
}

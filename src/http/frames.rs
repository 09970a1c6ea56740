//! gRPC's frames: a flag, the length of the message, the message.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::error::Error;

/// The flag and the length.
pub(super) const PREFIX: usize = 5;

/// The flag of a message that is compressed.
pub(super) const COMPRESSED: u8 = 1;

/// The message in its frame.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    // No message of 4 GiB exists: the limits of bodies are far below.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// Begins a frame in `out`. Returns where, for [`close`].
pub(super) fn open(flags: u8, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[flags, 0, 0, 0, 0]);
    start
}

/// Ends the frame that began at `start`: its message is all that follows.
pub(super) fn close(start: usize, out: &mut [u8]) {
    let length = out.len().saturating_sub(start + PREFIX);
    if let Some(prefix) = out.get_mut(start + 1..start + PREFIX) {
        prefix.copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}

/// The length of the message of which these are the first bytes, or `None` if they are too few.
fn length(frame: &[u8]) -> Option<usize> {
    let [_, a, b, c, d, ..] = *frame else { return None };
    usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()
}

/// The message of a body that is one whole frame.
pub(super) fn single(mut body: Bytes) -> Option<Bytes> {
    let whole = length(&body)? == body.len() - PREFIX;
    whole.then(|| body.split_off(PREFIX))
}

/// Returns true if more than one frame is in the body.
pub(super) fn is_too_long(body: &[u8]) -> bool {
    length(body).is_some_and(|length| body.len() - PREFIX > length)
}

/// Collects the messages of a stream from its pieces.
#[derive(Default)]
pub(super) struct Messages(BytesMut);

impl Messages {
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    /// Returns true if no message has begun.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The flags of the next message, and the message, if it is complete. Fails with [`Error::TooLarge`] as soon as it
    /// is known to be longer than `max`.
    pub(super) fn next_within(&mut self, max: usize) -> Result<Option<(u8, Bytes)>, Error> {
        match (length(&self.0), self.0.first().copied()) {
            (Some(length), _) if length > max => Err(Error::TooLarge(max)),
            (_, Some(flags)) => Ok(self.next().map(|message| (flags, message))),
            _ => Ok(None),
        }
    }

    /// The next message that is complete.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let length = length(&self.0)?;
        if self.0.len() < PREFIX + length {
            return None;
        }
        self.0.advance(PREFIX);
        Some(self.0.split_to(length).freeze())
    }
}

/// The position in a stream of frames at which the bytes received so far end.
#[derive(Default)]
pub(super) struct Position {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that came.
    seen: usize,
    /// Bytes of the message that are missing.
    missing: usize,
}

impl Position {
    /// Follows the next bytes. Returns true if a message ended in them.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) -> bool {
        let mut ended = false;
        while !bytes.is_empty() {
            if self.seen < PREFIX {
                let some = bytes.len().min(PREFIX - self.seen);
                self.prefix[self.seen..self.seen + some].copy_from_slice(&bytes[..some]);
                self.seen += some;
                bytes = &bytes[some..];
                self.missing = length(&self.prefix).filter(|_| self.seen == PREFIX).unwrap_or_default();
            } else {
                let some = bytes.len().min(self.missing);
                self.missing -= some;
                bytes = &bytes[some..];
            }
            if self.seen == PREFIX && self.missing == 0 {
                (self.seen, ended) = (0, true);
            }
        }
        ended
    }

    /// Returns true if a message has begun and not ended.
    pub(super) fn is_inside(&self) -> bool {
        self.seen > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_their_bytes_are_cut() {
        let frames = [frame(b""), frame(b"one"), frame(&[7; 300])].concat();
        for piece in [1, 2, 5, 6, 400] {
            let (mut messages, mut position) = (Messages::default(), Position::default());
            let (mut found, mut ended) = (Vec::new(), 0);
            for bytes in frames.chunks(piece) {
                messages.push(bytes);
                found.extend(std::iter::from_fn(|| messages.next()));
                ended += usize::from(position.advance(bytes));
                assert_eq!(position.is_inside(), !messages.0.is_empty());
            }
            assert_eq!(found, [&b""[..], b"one", &[7; 300]]);
            assert!((1..=3).contains(&ended));
        }
        let mut opened = vec![7];
        let start = open(2, &mut opened);
        opened.extend_from_slice(b"one");
        close(start, &mut opened);
        assert_eq!(opened, b"\x07\x02\0\0\0\x03one");
        let mut messages = Messages::default();
        messages.push(&opened[1..5]);
        assert!(matches!(messages.next_within(3), Ok(None)));
        messages.push(&opened[5..6]);
        assert!(matches!(messages.next_within(2), Err(Error::TooLarge(2))));
        messages.push(&opened[6..]);
        assert_eq!(messages.next_within(3).unwrap(), Some((2, Bytes::from_static(b"one"))));
        assert!(messages.is_empty());
        assert_eq!(single(frame(b"one")).as_deref(), Some(&b"one"[..]));
        for wrong in [&b"\0\0\0\0\x02x"[..], b"\0\0\0\0\0x", b"\0\0", b""] {
            assert_eq!(single(Bytes::from_static(wrong)), None);
        }
    }
}

//! Percent-encoding of paths and queries, strict: what is malformed is refused, not guessed at.

use std::borrow::Cow;

/// Not percent-encoded UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub struct BadEscape;

/// What stands for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One segment of a path: every escape is decoded, `%2F` too.
    Path,
    /// Several segments: `%2F` stays as it is, so that it differs from the `/` between them.
    SeveralSegments,
    /// A key or value of a query: `+` is a space.
    Query,
}

/// The text that `raw` stands for.
pub fn decode(raw: &str, mode: Mode) -> Result<Cow<'_, str>, BadEscape> {
    if !raw.contains('%') && (mode != Mode::Query || !raw.contains('+')) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut plain = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (bytes.next().ok_or(BadEscape)?, bytes.next().ok_or(BadEscape)?);
                match (digit(high)? << 4) | digit(low)? {
                    b'/' if mode == Mode::SeveralSegments => plain.extend([b'%', high, low]),
                    byte => plain.push(byte),
                }
            }
            b'+' if mode == Mode::Query => plain.push(b' '),
            byte => plain.push(byte),
        }
    }
    String::from_utf8(plain).map(Cow::Owned).map_err(|_| BadEscape)
}

fn digit(byte: u8) -> Result<u8, BadEscape> {
    let digit = char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digit.ok_or(BadEscape)
}

//! JSON's tokens, exactly RFC 8259: numbers stay texts, so none loses a digit, and the depth is bounded, so no
//! input can exhaust the stack.

use std::borrow::Cow;

/// Deepest nesting of objects and arrays that is read. Protobuf readers stop at 100 messages too.
const MAX_DEPTH: u32 = 100;

/// Where a text stops being JSON, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    at: usize,
    why: &'static str,
}

/// A cursor in a JSON text.
#[derive(Debug)]
pub(super) struct Lexer<'j> {
    text: &'j str,
    at: usize,
    depth: u32,
}

impl Malformed {
    /// With line and column, both from 1.
    pub(super) fn describe(&self, text: &[u8]) -> String {
        let before = text.get(..self.at).unwrap_or(text);
        let line = before.split(|byte| *byte == b'\n').count();
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        // Bytes 10xxxxxx continue a character.
        let column = before.iter().skip(start).filter(|byte| **byte & 0xC0 != 0x80).count() + 1;
        format!("line {line} column {column}: {}", self.why)
    }
}

impl<'j> Lexer<'j> {
    pub(super) fn new(text: &'j [u8]) -> Result<Self, Malformed> {
        match std::str::from_utf8(text) {
            Ok(text) => Ok(Self { text, at: 0, depth: 0 }),
            Err(err) => Err(Malformed { at: err.valid_up_to(), why: "the text is not UTF-8" }),
        }
    }

    fn fail<T>(&self, why: &'static str) -> Result<T, Malformed> {
        Err(Malformed { at: self.at, why })
    }

    fn bytes(&self) -> &'j [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// The first byte of the next token.
    pub(super) fn peek(&mut self) -> Result<u8, Malformed> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Ok(*byte),
            }
        }
        self.fail("the text ends too early")
    }

    fn expect(&mut self, byte: u8, why: &'static str) -> Result<(), Malformed> {
        if self.peek()? != byte {
            return self.fail(why);
        }
        self.at += 1;
        Ok(())
    }

    /// Nothing but space may follow.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Ok(_) => self.fail("the text goes on behind its value"),
            Err(_) => Ok(()),
        }
    }

    /// Enters the object or array whose bracket was peeked.
    pub(super) fn enter(&mut self) -> Result<(), Malformed> {
        if self.depth == MAX_DEPTH {
            return self.fail("the text is nested deeper than 100 levels");
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Whether the object or array goes on; leaves it if not. `first` is true before its first element.
    fn more(&mut self, first: &mut bool, end: u8, why: &'static str) -> Result<bool, Malformed> {
        let byte = self.peek()?;
        if byte == end {
            self.at += 1;
            self.depth = self.depth.saturating_sub(1);
            return Ok(false);
        }
        if !std::mem::take(first) {
            self.expect(b',', why)?;
        }
        Ok(true)
    }

    /// The next key of an object, its colon passed; `None` at the object's end.
    pub(super) fn key(&mut self, first: &mut bool) -> Result<Option<Cow<'j, str>>, Malformed> {
        if !self.more(first, b'}', "expected `,` or `}`")? {
            return Ok(None);
        }
        if self.peek()? != b'"' {
            return self.fail("expected a key in double quotes");
        }
        let key = self.string()?;
        self.expect(b':', "expected `:`")?;
        Ok(Some(key))
    }

    /// Returns true if an array has another element, which then comes next.
    pub(super) fn element(&mut self, first: &mut bool) -> Result<bool, Malformed> {
        self.more(first, b']', "expected `,` or `]`")
    }

    /// Takes the word if it is next.
    pub(super) fn word(&mut self, word: &'static str) -> Result<(), Malformed> {
        if !self.bytes().starts_with(word.as_bytes()) {
            return self.fail("expected a value");
        }
        self.at += word.len();
        Ok(())
    }

    /// The number whose first byte was peeked.
    pub(super) fn number(&mut self) -> Result<&'j str, Malformed> {
        let bytes = self.bytes();
        let Some(len) = number_len(bytes) else { return self.fail("expected a value") };
        if bytes
            .get(len)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-'))
        {
            return self.fail("expected a number");
        }
        let number = self.text.get(self.at..self.at + len).unwrap_or_default();
        self.at += len;
        Ok(number)
    }

    /// Passes over any value.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        let mut first = true;
        match self.peek()? {
            b'{' => {
                self.enter()?;
                while self.key(&mut first)?.is_some() {
                    self.skip()?;
                }
                Ok(())
            }
            b'[' => {
                self.enter()?;
                while self.element(&mut first)? {
                    self.skip()?;
                }
                Ok(())
            }
            b'"' => self.string().map(|_| ()),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number().map(|_| ()),
        }
    }

    /// The string whose quote was peeked. Borrowed unless it has escapes.
    pub(super) fn string(&mut self) -> Result<Cow<'j, str>, Malformed> {
        self.at += 1;
        let plain = self.plain()?;
        if self.bytes().first() == Some(&b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        loop {
            match self.bytes().first() {
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                None => return self.fail("a string does not end"),
            }
            text.push_str(self.plain()?);
        }
    }

    /// What stands before the next quote or backslash.
    fn plain(&mut self) -> Result<&'j str, Malformed> {
        let bytes = self.bytes();
        let len = plain_len(bytes);
        if len == bytes.len() {
            self.at = self.text.len();
            return self.fail("a string does not end");
        }
        let plain = self.text.get(self.at..self.at + len).unwrap_or_default();
        self.at += len;
        if bytes.get(len).is_some_and(|byte| *byte < b' ') {
            return self.fail("a string has a control character that is not escaped");
        }
        Ok(plain)
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        let Some(byte) = self.bytes().get(1) else { return self.fail("a string does not end") };
        let plain = match byte {
            b'"' | b'\\' | b'/' => char::from(*byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return self.fail("a string has an unknown escape"),
        };
        self.at += 2;
        Ok(plain)
    }

    fn unicode(&mut self) -> Result<char, Malformed> {
        let alone = "a string has half of a surrogate pair";
        let (high, low) = (self.unit(0), self.unit(6));
        let Some(high) = high else { return self.fail("a string has an unknown escape") };
        let (code, len) = match (high, low) {
            (0xD800..0xDC00, Some(low @ 0xDC00..0xE000)) => {
                (0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00), 12)
            }
            _ => (high, 6),
        };
        let Some(character) = char::from_u32(code) else { return self.fail(alone) };
        self.at += len;
        Ok(character)
    }

    /// The number in `\u1234`, which begins `offset` bytes from here.
    fn unit(&self, offset: usize) -> Option<u32> {
        let unit = self.bytes().get(offset..offset + 6)?;
        let digits = unit.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?))
    }
}

/// How many bytes a JSON string holds as they are: those before the first quote, backslash or control character.
/// Eight at a time: the high bit of each byte of `hits` tells, exactly so for the first one found.
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let hits = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
        if hits != 0 {
            return at * 8 + (hits.trailing_zeros() / 8) as usize;
        }
    }
    let special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    bytes.len() - rest.len() + rest.iter().position(special).unwrap_or(rest.len())
}

/// Returns true if all of the text is one JSON number.
pub(super) fn is_number(text: &str) -> bool {
    number_len(text.as_bytes()) == Some(text.len())
}

/// Length of the JSON number that the bytes begin with.
fn number_len(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize| bytes.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    match bytes.get(at)? {
        b'0' => at += 1,
        b'1'..=b'9' => at += digits(at),
        _ => return None,
    }
    if bytes.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
    }
    Some(at)
}

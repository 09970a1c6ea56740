//! Single values as JSON text.

use super::super::lex::plain_len;
use crate::schema::Enum;

pub(super) fn enumerator(out: &mut Vec<u8>, declared: &Enum, number: i32) {
    if declared.null {
        out.extend_from_slice(b"null");
    } else if let Some(name) = declared.name_of(number) {
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
    } else {
        integer(out, number);
    }
}

pub(super) fn integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(super) fn quoted(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.push(b'"');
    integer(out, number);
    out.push(b'"');
}

pub(super) fn double(out: &mut Vec<u8>, value: f64) {
    float(out, value, |out| serde_json::to_writer(out, &value));
}

/// `shortest` writes what is neither special nor whole; whole numbers come without `.0`.
pub(super) fn float(
    out: &mut Vec<u8>,
    value: f64,
    shortest: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>,
) {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else if value == 0.0 && value.is_sign_negative() {
        out.extend_from_slice(b"-0.0"); // readers take `-0` for an integer
    } else if value.fract() == 0.0 && value.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        integer(out, value as i64);
    } else {
        let _ = shortest(out); // a Vec takes all
    }
}

/// Appends a JSON string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some((plain, tail)) = rest.split_at_checked(plain_len(rest)) {
        out.extend_from_slice(plain);
        let Some((byte, tail)) = tail.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(*byte)]);
            }
        }
        rest = tail;
    }
    out.push(b'"');
}

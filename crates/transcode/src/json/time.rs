//! The well-known types whose JSON is one string: `Timestamp`, `Duration`, `FieldMask`.

use std::borrow::Cow;
use std::io::Write as _;
use std::ops::RangeInclusive;

use prost_types::{Duration, Timestamp};

use super::InvalidWire;
use super::scalar::{Scalar, Source, Why};
use super::wire::{Wire, next, put as put_field};
use crate::schema::Special;

/// The seconds that RFC 3339 can write: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z.
const SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// 10,000 years of 365.25 days. Source: `google/protobuf/duration.proto`.
const MAX_DURATION: u64 = 315_576_000_000;

/// Appends the content of the message that `text` stands for.
pub(super) fn put(special: Special, text: &str, source: Source, out: &mut Vec<u8>) -> Result<(), Why> {
    if special == Special::FieldMask {
        for path in text.split(',').filter(|_| !text.is_empty()) {
            let path =
                snake_case(path, source).ok_or("must be lowerCamelCase field paths with commas between")?;
            put_field(out, 1, &Scalar::Bytes(Cow::Owned(path.into_bytes())));
        }
        return Ok(());
    }
    let (seconds, nanos) = if special == Special::Timestamp {
        let time = timestamp(text).ok_or("must be a time like 2006-01-02T15:04:05Z")?;
        (time.seconds, time.nanos)
    } else {
        let span = duration(text).ok_or("must be a duration in seconds like 1.5s")?;
        (span.seconds, span.nanos)
    };
    for (number, value) in [(1, seconds), (2, i64::from(nanos))] {
        if value != 0 {
            put_field(out, number, &Scalar::Varint(value.cast_unsigned()));
        }
    }
    Ok(())
}

/// Appends the string, with its quotes, that stands for an encoded message.
pub(super) fn write(special: Special, mut wire: &[u8], out: &mut Vec<u8>) -> Result<(), InvalidWire> {
    out.push(b'"');
    if special == Special::FieldMask {
        let mut first = true;
        while let Some((number, value)) = next(&mut wire)? {
            let (1, Wire::Bytes(path)) = (number, value) else { continue };
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            camel_case(std::str::from_utf8(path).map_err(|_| InvalidWire)?, out)?;
        }
    } else {
        let (mut seconds, mut nanos) = (0, 0);
        while let Some((number, value)) = next(&mut wire)? {
            match (number, value) {
                (1, Wire::Varint(value)) => seconds = value.cast_signed(),
                (2, Wire::Varint(value)) => nanos = value.cast_signed(),
                _ => {}
            }
        }
        let nanos = i32::try_from(nanos).map_err(|_| InvalidWire)?;
        // A Vec takes all.
        let _ = if special == Special::Timestamp {
            write!(out, "{}", valid_timestamp(Timestamp { seconds, nanos }).ok_or(InvalidWire)?)
        } else {
            write!(out, "{}", valid_duration(Duration { seconds, nanos }).ok_or(InvalidWire)?)
        };
    }
    out.push(b'"');
    Ok(())
}

/// JSON has lowerCamelCase alone; a URL may have either.
fn snake_case(path: &str, source: Source) -> Option<String> {
    let known =
        |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '*' || (c == '_' && source == Source::Url);
    if path.is_empty() || !path.chars().all(known) {
        return None;
    }
    let mut snake = String::with_capacity(path.len() + 4);
    for c in path.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    Some(snake)
}

/// Refuses a path that would be read as another one: `foo_3`, `fooBar`.
fn camel_case(path: &str, out: &mut Vec<u8>) -> Result<(), InvalidWire> {
    let mut upper = false;
    for byte in path.bytes() {
        match byte {
            b'_' if !upper => upper = true,
            b'a'..=b'z' => {
                out.push(if upper { byte.to_ascii_uppercase() } else { byte });
                upper = false;
            }
            b'.' | b'*' | b'0'..=b'9' if !upper => out.push(byte),
            _ => return Err(InvalidWire),
        }
    }
    if upper { Err(InvalidWire) } else { Ok(()) }
}

/// Returns true for nothing, and for a point and 1 to 9 digits.
fn is_fraction(text: &str) -> bool {
    let digits = |text: &str| (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.is_empty() || text.strip_prefix('.').is_some_and(digits)
}

fn duration(text: &str) -> Option<Duration> {
    let span = text.strip_suffix('s')?;
    let span = span.strip_prefix('-').unwrap_or(span);
    let (whole, fraction) = span.split_at(span.find('.').unwrap_or(span.len()));
    // The library reads more than proto3's JSON allows.
    let strict =
        !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit()) && is_fraction(fraction);
    valid_duration(text.parse().ok().filter(|_| strict)?)
}

fn valid_duration(span: Duration) -> Option<Duration> {
    let Duration { seconds, nanos } = span;
    let mixed = (seconds < 0 && nanos > 0) || (seconds > 0 && nanos < 0);
    let valid = !mixed && seconds.unsigned_abs() <= MAX_DURATION && nanos.unsigned_abs() < 1_000_000_000;
    valid.then_some(span)
}

/// RFC 3339, upper-case `T` and `Z`, any offset, no leap second. The library reads more than that.
fn timestamp(text: &str) -> Option<Timestamp> {
    let (time, zone) = match text.strip_suffix('Z') {
        Some(time) => (time, "+00:00"),
        None => text.split_at_checked(text.len().checked_sub(6)?)?,
    };
    let (time, fraction) = time.split_at_checked(19)?;
    let fits = |text: &str, shape: &str| {
        let same =
            |(byte, shape): (u8, u8)| if shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
        text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(same)
    };
    let strict = fits(time, "0000-00-00T00:00:00")
        && is_fraction(fraction)
        && (fits(zone, "+00:00") || fits(zone, "-00:00"))
        && time.get(17..) < Some("60")
        && zone.get(1..3) < Some("24")
        && zone.get(4..) < Some("60");
    valid_timestamp(text.parse().ok().filter(|_| strict)?)
}

fn valid_timestamp(time: Timestamp) -> Option<Timestamp> {
    (SECONDS.contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos)).then_some(time)
}

//! The well-known types whose JSON is one string: `Timestamp`, `Duration`, `FieldMask`.

use std::borrow::Cow;
use std::io::Write as _;

use super::InvalidWire;
use super::scalar::{Scalar, Source, Why};
use super::wire::{Wire, next, put as put_field};
use crate::http::transcode::schema::Special;

const SECONDS_A_DAY: i64 = 86_400;
/// 0001-01-01 and 9999-12-31 in days since 1970-01-01: what RFC 3339 can write.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;
/// 10,000 years of 365.25 days. Source: `google/protobuf/duration.proto`.
const MAX_DURATION: i64 = 315_576_000_000;

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
        timestamp(text).ok_or("must be a time like 2006-01-02T15:04:05Z")?
    } else {
        duration(text).ok_or("must be a duration in seconds like 1.5s")?
    };
    for (number, value) in [(1, seconds), (2, nanos)] {
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
        if special == Special::Timestamp {
            write_timestamp(seconds, nanos, out)?;
        } else {
            write_duration(seconds, nanos, out)?;
        }
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

fn camel_case(path: &str, out: &mut Vec<u8>) -> Result<(), InvalidWire> {
    let mut upper = false;
    for byte in path.bytes() {
        match byte {
            b'_' => upper = true,
            b'.' | b'*' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                out.push(if upper { byte.to_ascii_uppercase() } else { byte });
                upper = false;
            }
            _ => return Err(InvalidWire),
        }
    }
    Ok(())
}

/// Nanoseconds of a fraction's 1 to 9 digits.
fn nanos(digits: &str) -> Option<i64> {
    let all = digits.bytes().all(|byte| byte.is_ascii_digit());
    let missing = u32::try_from(9_usize.checked_sub(digits.len())?).ok()?;
    if all { digits.parse::<i64>().ok()?.checked_mul(10_i64.pow(missing)) } else { None }
}

/// Appends a fraction of a second in 0, 3, 6 or 9 digits.
fn write_nanos(nanos: i64, out: &mut Vec<u8>) {
    let (value, width) = match nanos {
        0 => return,
        nanos if nanos % 1_000_000 == 0 => (nanos / 1_000_000, 3),
        nanos if nanos % 1_000 == 0 => (nanos / 1_000, 6),
        nanos => (nanos, 9),
    };
    let _ = write!(out, ".{value:0width$}"); // a Vec takes all
}

fn duration(text: &str) -> Option<(i64, i64)> {
    let text = text.strip_suffix('s')?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = whole.parse::<i64>().ok().filter(|seconds| *seconds <= MAX_DURATION)?;
    let nanos = fraction.map_or(Some(0), nanos)?;
    Some(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

fn write_duration(seconds: i64, nanos: i64, out: &mut Vec<u8>) -> Result<(), InvalidWire> {
    let mixed = (seconds < 0 && nanos > 0) || (seconds > 0 && nanos < 0);
    if mixed || seconds.unsigned_abs() > MAX_DURATION.unsigned_abs() || nanos.unsigned_abs() >= 1_000_000_000
    {
        return Err(InvalidWire);
    }
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let _ = write!(out, "{sign}{}", seconds.abs()); // a Vec takes all
    write_nanos(nanos.abs(), out);
    out.push(b's');
    Ok(())
}

/// RFC 3339, upper-case `T` and `Z`, any offset.
fn timestamp(text: &str) -> Option<(i64, i64)> {
    let (date, rest) = text.split_once('T')?;
    let zone = rest.find(['Z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone);
    let (time, fraction) = time.split_once('.').map_or((time, None), |(time, rest)| (time, Some(rest)));
    let [year, month, day] = numbers(date, '-', &[4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', &[2, 2, 2])?;
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let offset = if zone == "Z" {
        0
    } else {
        let (sign, zone) = zone.split_at_checked(1)?;
        let [hours, minutes, _] = numbers(&format!("{zone}:00"), ':', &[2, 2, 2])?;
        if hours > 23 || minutes > 59 {
            return None;
        }
        (hours * 3600 + minutes * 60) * if sign == "-" { -1 } else { 1 }
    };
    let nanos = fraction.map_or(Some(0), nanos)?;
    let seconds = days(year, month, day) * SECONDS_A_DAY + hour * 3600 + minute * 60 + second - offset;
    DAYS.contains(&seconds.div_euclid(SECONDS_A_DAY)).then_some((seconds, nanos))
}

/// Three numbers of exactly so many digits.
fn numbers(text: &str, between: char, widths: &[usize; 3]) -> Option<[i64; 3]> {
    let mut numbers = [0; 3];
    let mut parts = text.split(between);
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part = parts.next().filter(|part| part.len() == *width)?;
        *number = part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

fn write_timestamp(seconds: i64, nanos: i64, out: &mut Vec<u8>) -> Result<(), InvalidWire> {
    let day = seconds.div_euclid(SECONDS_A_DAY);
    if !DAYS.contains(&day) || !(0..1_000_000_000).contains(&nanos) {
        return Err(InvalidWire);
    }
    let second = seconds.rem_euclid(SECONDS_A_DAY);
    let (year, month, date) = civil(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    // A Vec takes all.
    let _ = write!(out, "{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}");
    write_nanos(nanos, out);
    out.push(b'Z');
    Ok(())
}

fn days_in(year: i64, month: i64) -> i64 {
    let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
    next - days(year, month, 1)
}

/// Days since 1970-01-01, with years that begin in March so that the leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + day_of_year - 719_468
}

/// Year, month and day; the inverse of [`days`].
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // since 0000-03-01
    let era = days.div_euclid(146_097); // of 400 years
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + era * 400, if month < 10 { month + 3 } else { month - 9 });
    (if month <= 2 { year + 1 } else { year }, month, date)
}

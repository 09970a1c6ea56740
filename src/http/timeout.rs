//! The time that a caller gives its call, in the header of its dialect.

use std::time::Duration;

use http::HeaderMap;

use crate::error::{Error, Result};

/// gRPC's `grpc-timeout`, which JSON has too: at most eight digits and a unit.
pub(super) fn grpc(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let wrong =
        || Error::invalid("grpc-timeout", "must be one to eight digits and one of H, M, S, m, u and n");
    let text = value.to_str().map_err(|_| wrong())?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number = number(digits, 8).ok_or_else(wrong)?;
    Ok(Some(match unit {
        "H" => Duration::from_hours(number),
        "M" => Duration::from_mins(number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(wrong()),
    }))
}

/// Connect's `connect-timeout-ms`: at most ten digits.
pub(super) fn connect(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get("connect-timeout-ms") else { return Ok(None) };
    match value.to_str().ok().and_then(|text| number(text, 10)) {
        Some(millis) => Ok(Some(Duration::from_millis(millis))),
        None => Err(Error::invalid("connect-timeout-ms", "must be one to ten digits")),
    }
}

fn number(digits: &str, max: usize) -> Option<u64> {
    let good = digits.len() <= max && digits.bytes().all(|b| b.is_ascii_digit());
    good.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        name: &'static str,
        of: fn(&HeaderMap) -> Result<Option<Duration>>,
    ) -> impl Fn(&str) -> Option<Duration> {
        assert_eq!(of(&HeaderMap::new()).unwrap(), None);
        move |text| {
            let mut headers = HeaderMap::new();
            headers.insert(name, text.parse().unwrap());
            of(&headers).ok().flatten()
        }
    }

    #[test]
    fn deadlines_are_as_grpc_says() {
        let parse = read("grpc-timeout", grpc);
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse("99999999H"), Some(Duration::from_hours(99_999_999)));
        for wrong in ["", "S", "5", "5s", "-5S", "123456789S", "5.5S", "+5S", "5 S"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn deadlines_are_as_connect_says() {
        let parse = read("connect-timeout-ms", connect);
        assert_eq!(parse("250"), Some(Duration::from_millis(250)));
        assert_eq!(parse("9999999999"), Some(Duration::from_millis(9_999_999_999)));
        for wrong in ["", "1s", "-1", "+1", "1.5", " 1", "12345678901"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}

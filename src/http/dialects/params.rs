//! Helpers of the dialects whose JSON is not proto3's: the fields at fault, query parameters, objects.

use std::borrow::Cow;

use http::request::Parts;
use serde_json::{Map, Value};
use tonic::Status;
use tonic_types::StatusExt as _;

use transcode::escape::{self, BadEscape, Mode};

/// The fields that a status says are at fault, each with the reason.
pub(super) fn violations(status: &Status) -> Vec<(String, String)> {
    let named = status.get_details_bad_request().map(|details| details.field_violations);
    named.unwrap_or_default().into_iter().map(|one| (one.field, one.description)).collect()
}

/// The value of a query parameter; of several, the last one.
pub(super) fn parameter(head: &Parts, name: &str) -> Result<Option<String>, BadEscape> {
    let pairs = head.uri.query().unwrap_or_default().split('&');
    let mut values = pairs.filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (escape::decode(key, Mode::Query).ok()? == name).then_some(value)
    });
    values.next_back().map(|value| escape::decode(value, Mode::Query).map(Cow::into_owned)).transpose()
}

/// The id in a path segment. Text that is no UTF-8 is no id, escaped or not.
pub(super) fn id(raw: &str) -> String {
    escape::decode(raw, Mode::Path).map_or_else(|_| raw.to_owned(), Cow::into_owned)
}

/// A JSON object, or `None` for anything else. Of members with the same name the last one counts.
pub(super) fn object(text: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str) -> Parts {
        http::Request::builder().uri(uri).body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_parameter_is_found_whatever_stands_around_it() {
        let of = |query: &str| parameter(&head(&format!("/x?{query}")), "search");
        assert_eq!(of(""), Ok(None));
        assert_eq!(of("searches=1&a=search"), Ok(None));
        assert_eq!(of("&&search"), Ok(Some(String::new())));
        assert_eq!(of("limit=1&search=jo+hn%26x"), Ok(Some("jo hn&x".into())));
        assert_eq!(of("%73earch=a=b"), Ok(Some("a=b".into())));
        assert_eq!(of("search=1&search=2"), Ok(Some("2".into())));
        assert_eq!(of("search=%zz"), Err(BadEscape));
        assert_eq!(of("search=%FF"), Err(BadEscape));
        assert_eq!(of("limit=%FF&search=2"), Ok(Some("2".into())));
        assert_eq!(parameter(&head("/x"), "search"), Ok(None));
    }

    #[test]
    fn only_an_object_is_one() {
        assert_eq!(object(br#"{"a":1,"a":2}"#).unwrap()["a"], 2);
        for other in ["", "null", "[]", "{", "{} x", "\"{}\"", "{\"a\":1e999}", "{\"a\":\"\\ud800\"}"] {
            assert!(object(other.as_bytes()).is_none(), "{other}");
        }
        assert!(object(b"{\"a\":\"\xFF\"}").is_none());
    }
}

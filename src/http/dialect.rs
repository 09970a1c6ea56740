//! What the dialects share that are no proto3 JSON: calling an RPC by its messages, reading their queries and bodies,
//! writing their objects.

use http::request::Parts;
use prost::Message;
use serde_json::{Map, Value};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::call::Stack;
use super::escape::{self, BadEscape, Mode};
use super::{Front, json};
use crate::error::Error;
use crate::pb;

/// Calls the RPC of a gRPC path. Extensions and headers of the HTTP request in `head` go with it.
///
/// # Errors
///
/// The status of the call.
pub(super) async fn call<Reply: Message + Default>(
    front: &Front<impl Stack>,
    method: &str,
    request: &impl Message,
    head: &Parts,
) -> Result<Reply, Status> {
    let known = front.schema.method(method);
    let method = known.ok_or_else(|| Error::internal(format!("there is no {method}")))?;
    let reply = front.call(method, request.encode_to_vec(), head.clone()).await?;
    Ok(Reply::decode(reply.into_inner()).map_err(Error::internal)?)
}

/// A page of `List` or `ListTrash` in its full length: one reply has a limit in bytes, too, and these dialects take a
/// short page for the last one.
///
/// # Errors
///
/// The status of the call.
pub(super) async fn list(
    front: &Front<impl Stack>,
    method: &str,
    mut request: pb::ListRequest,
    head: &Parts,
) -> Result<pb::ListResponse, Status> {
    let mut listed: pb::ListResponse = call(front, method, &request, head).await?;
    let wanted = request.limit.unwrap_or_default();
    while !listed.next_page_token.is_empty() {
        let missing = wanted - i64::try_from(listed.users.len()).unwrap_or(i64::MAX);
        if missing <= 0 {
            break;
        }
        request.limit = Some(missing);
        request.offset = 0;
        request.skip_total = true;
        request.page_token = std::mem::take(&mut listed.next_page_token);
        let more: pb::ListResponse = call(front, method, &request, head).await?;
        listed.users.extend(more.users);
        listed.next_page_token = more.next_page_token;
    }
    Ok(listed)
}

/// The user of a reply, which every reply about one has.
///
/// # Errors
///
/// `INTERNAL` if it has none.
pub(super) fn user(user: Option<pb::User>) -> Result<pb::User, Status> {
    user.ok_or_else(|| Error::internal("a reply without its user").into())
}

/// The fields that a status says are at fault, each with the reason.
pub(super) fn violations(status: &Status) -> Vec<(String, String)> {
    let named = status.get_details_bad_request().map(|details| details.field_violations);
    named.unwrap_or_default().into_iter().map(|one| (one.field, one.description)).collect()
}

/// The value of a query parameter; of several, the last one.
///
/// # Errors
///
/// [`BadEscape`] if its value is not percent-encoded UTF-8.
pub(super) fn parameter(head: &Parts, name: &str) -> Result<Option<String>, BadEscape> {
    let pairs = head.uri.query().unwrap_or_default().split('&');
    let mut values = pairs.filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (escape::decode(key, Mode::Query).ok()? == name).then_some(value)
    });
    values.next_back().map(|value| escape::decode(value, Mode::Query)).transpose()
}

/// The text of a path segment.
///
/// # Errors
///
/// [`BadEscape`] if it is not percent-encoded UTF-8.
pub(super) fn segment(raw: &str) -> Result<String, BadEscape> {
    escape::decode(raw, Mode::Path)
}

/// A JSON object, or `None` for anything else. Of members with the same name the last one counts.
pub(super) fn object(text: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(text).ok()
}

/// A JSON object that is written, its members in the order in which they are added: some callers compare texts.
pub(super) struct Object(Vec<u8>);

impl Object {
    pub(super) fn new() -> Self {
        Self(b"{".to_vec())
    }

    pub(super) fn text(self, name: &str, value: &str) -> Self {
        self.member(name, |out| json::write_string(out, value))
    }

    pub(super) fn number(self, name: &str, value: i64) -> Self {
        self.raw(name, itoa::Buffer::new().format(value).as_bytes())
    }

    pub(super) fn flag(self, name: &str, value: bool) -> Self {
        self.raw(name, if value { b"true" } else { b"false" })
    }

    /// `value` is JSON already.
    pub(super) fn raw(self, name: &str, value: &[u8]) -> Self {
        self.member(name, |out| out.extend_from_slice(value))
    }

    /// `values` are JSON already.
    pub(super) fn list(self, name: &str, values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.member(name, |out| {
            out.push(b'[');
            for (n, value) in values.into_iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(&value);
            }
            out.push(b']');
        })
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }

    fn member(mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        json::write_string(&mut self.0, name);
        self.0.push(b':');
        write(&mut self.0);
        self
    }
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
    fn objects_keep_the_order_of_their_members() {
        let inner = Object::new().end();
        let object = Object::new().text("z", "\"é").number("a", -1).flag("m", true);
        let object = object.list("l", [inner.clone(), inner]).list("n", []).raw("r", b"null").end();
        let want = r#"{"z":"\"é","a":-1,"m":true,"l":[{},{}],"n":[],"r":null}"#;
        assert_eq!(String::from_utf8(object).unwrap(), want);
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

//! Between JSON over HTTP and protobuf bytes, by the tables of a descriptor set: the routes of `google.api.http`, path
//! templates, query parameters, and proto3 JSON. Knows no message type and nothing else of this program.

pub(in crate::http) mod escape;
pub mod json;
mod query;
pub(in crate::http) mod route;
pub mod schema;

use json::{ReadError, Style};
use query::{Query, path_name};
use route::{Binding, Body, Capture};
use schema::Schema;

/// The fields of one request that break their rule, each with the reason, in the order in which they were found.
#[derive(Debug, Default)]
pub struct Violations {
    found: Vec<(String, String)>,
    more: usize,
}

impl Violations {
    /// Most violations that are kept; further ones are counted.
    pub const MAX: usize = 40;

    /// Adds a violation. The same one again is no other.
    pub(in crate::http) fn add(&mut self, field: impl Into<String>, why: impl Into<String>) {
        let violation = (field.into(), why.into());
        if self.found.last() == Some(&violation) {
            return;
        }
        if self.found.len() < Self::MAX {
            self.found.push(violation);
        } else {
            self.more += 1;
        }
    }

    /// Field and reason, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.found.iter()
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The violations that are kept, and how many there were beyond those.
    pub fn into_parts(self) -> (Vec<(String, String)>, usize) {
        (self.found, self.more)
    }
}

/// Returns the encoded message that body, query and path make. The path wins over the body, the body over the query: fields
/// that are appended later count.
///
/// # Errors
///
/// [`ReadError`] with every field at fault.
pub(in crate::http) fn message(
    schema: &Schema,
    binding: &Binding,
    captures: &[Capture<'_>],
    query: &str,
    body: &[u8],
) -> Result<Vec<u8>, ReadError> {
    let input = schema.methods[binding.method].input;
    let body = if body.is_empty() { b"{}" } else { body };
    let read = match binding.body {
        Body::None => Ok(Vec::new()),
        Body::All => json::read(schema, input, body, Style::CANONICAL),
        Body::Field(field) => json::read_field(schema, input, field, body, Style::CANONICAL),
    };
    let (mut message, mut violations) = match read {
        Ok(message) => (message, Violations::default()),
        Err(ReadError::Fields(violations)) => (Vec::new(), violations),
        Err(malformed) => return Err(malformed),
    };
    let parameters = Query { schema, input, body: binding.body, captures };
    parameters
        .put(query, &mut message, &mut violations)
        .map_err(|_| ReadError::Malformed("the query is not percent-encoded UTF-8".to_owned()))?;
    for capture in captures {
        if let Err(why) = json::put_text(schema, input, capture.field, &capture.text, &mut message) {
            violations.add(path_name(schema, input, capture.field), why);
        }
    }
    if violations.is_empty() { Ok(message) } else { Err(ReadError::Fields(violations)) }
}

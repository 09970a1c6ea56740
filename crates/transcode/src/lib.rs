//! Between JSON over HTTP and protobuf bytes, by the tables of a descriptor set: the routes of `google.api.http`, path
//! templates, query parameters, and proto3 JSON. Knows no message type and nothing else of this program.

pub mod escape;
mod fields;
#[cfg(test)]
mod fuzzed;
pub mod json;
mod names;
mod query;
pub mod route;
pub mod schema;

pub use fields::Fields;

use json::{ReadError, Style};
use query::{Query, path_name};
use route::{Binding, Body, Capture};
use schema::Schema;

/// Returns the encoded message that body, query and path make. The path wins over the body, the body over the query: fields
/// that are appended later count.
///
/// # Errors
///
/// [`ReadError`] with every field at fault.
pub fn message(
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
    let (mut message, mut faults) = match read {
        Ok(message) => (message, Fields::default()),
        Err(ReadError::Fields(faults)) => (Vec::new(), faults),
        Err(malformed) => return Err(malformed),
    };
    let parameters = Query { schema, input, body: binding.body, captures };
    parameters
        .put(query, &mut message, &mut faults)
        .map_err(|_| ReadError::Malformed("the query is not percent-encoded UTF-8".to_owned()))?;
    for capture in captures {
        if let Err(why) = json::put_text(schema, input, capture.field, &capture.text, &mut message) {
            faults.add(path_name(schema, input, capture.field), why);
        }
    }
    if faults.is_empty() { Ok(message) } else { Err(ReadError::Fields(faults)) }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use crate::schema::{Schema, SchemaError};

    /// `tests/proto/everything.proto`, as tables and encoded.
    pub(crate) static EVERYTHING: LazyLock<(Schema, Vec<u8>)> = LazyLock::new(|| {
        let encoded = compiled("everything.proto");
        (Schema::decode(&encoded).unwrap(), encoded)
    });

    /// A descriptor set of a file in `tests/proto`.
    fn compiled(file: &str) -> Vec<u8> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let mut compiler =
            protox::Compiler::new([format!("{root}/tests/proto"), format!("{root}/proto")]).unwrap();
        compiler.include_imports(true).open_file(file).unwrap();
        compiler.encode_file_descriptor_set()
    }

    #[test]
    fn p4_no_list_stands_in_a_path() {
        let why = Schema::decode(&compiled("list_in_path.proto")).map_err(|err: SchemaError| err.to_string());
        assert!(why.unwrap_err().ends_with("`tags` is a list or a map, which no path can hold"));
    }
}

//! Between JSON text and protobuf bytes, straight: the tables of a [`Schema`] say what is where, and no message
//! type stands in between. Follows proto3's JSON mapping, <https://protobuf.dev/programming-guides/json/>, and is
//! stricter where that leaves room: a duplicate key, two members of a oneof and bytes behind the end are faults.

use super::Fields;
use super::schema::{MessageId, Schema};

mod lex;
mod read;
mod scalar;
#[cfg(test)]
mod tests;
mod time;
mod wire;
mod write;

pub(super) use read::{put_text, read_field};
pub use wire::{Wire, next as next_wire};
pub(super) use wire::{close, open};
pub use write::write;
pub use write::{string as write_string, write_field};

/// The JSON that we write, and how strictly we read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Write names as in the proto (`user_id`), not in lowerCamelCase (`userId`). Both are always read.
    pub proto_names: bool,
    /// Write zeros, empty lists and empty maps. A message, an `optional` field and a oneof's member that are not
    /// set are left out in any case.
    pub emit_defaults: bool,
    /// Ignore fields that the message does not have, where they would be faults.
    pub ignore_unknown: bool,
}

impl Style {
    /// `/v1`.
    pub const CANONICAL: Self = Self { proto_names: false, emit_defaults: true, ignore_unknown: false };
    /// The Connect protocol, as its own servers read and write it.
    pub const CONNECT: Self = Self { proto_names: false, emit_defaults: false, ignore_unknown: true };
    /// The JSON that callers of the first `users` service know.
    pub const MICRO: Self = Self { proto_names: true, emit_defaults: false, ignore_unknown: true };
}

/// Bytes that are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not this message")]
pub struct InvalidWire;

/// Why JSON is not the message it should be. No text in it repeats a value of the caller's.
#[derive(Debug)]
pub enum ReadError {
    /// It is not JSON; the text says where and why.
    Malformed(String),
    /// It is JSON, and these fields are at fault, by their paths in proto names: `device.address`, `labels[3]`,
    /// `metadata["k"]`. The first [`Fields::MAX`] at most.
    Fields(Fields),
}

/// The encoded message that `json` means.
///
/// # Errors
///
/// [`ReadError`] with every field at fault.
pub fn read(schema: &Schema, message: MessageId, json: &[u8], style: Style) -> Result<Vec<u8>, ReadError> {
    match read::read(schema, message, json, style) {
        // The message itself has no name to be at fault by.
        Err(ReadError::Fields(fields)) if fields.iter().any(|(path, _)| path.is_empty()) => {
            Err(ReadError::Malformed("line 1 column 1: expected an object".to_owned()))
        }
        other => other,
    }
}

//! The protocol: messages, enums, methods and routes, as flat tables made once from
//! an encoded descriptor set. No message types and no code per RPC: a new RPC is a new row.

use std::collections::HashMap;

use http::Uri;

use super::route::Router;

mod load;

/// Why a descriptor set cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(String);

impl SchemaError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Index of a message in its [`Schema`]. Means nothing in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(pub usize);

/// Index of an enum in its [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EnumId(pub(crate) usize);

/// The tables. Immutable; shared by every request.
#[derive(Debug)]
pub struct Schema {
    pub(crate) messages: Vec<Message>,
    pub(crate) enums: Vec<Enum>,
    /// The RPCs.
    pub methods: Vec<Method>,
    /// The routes of the RPCs.
    pub router: Router,
    by_name: HashMap<Box<str>, MessageId>,
    by_path: HashMap<Box<str>, usize>,
}

/// An RPC.
#[derive(Debug)]
pub struct Method {
    /// Its position among the methods.
    pub number: usize,
    /// The gRPC path, `/users.Users/Create`.
    pub uri: Uri,
    /// The service with its package: `users.Users`.
    pub service: Box<str>,
    /// `Create`.
    pub name: Box<str>,
    /// The request's message.
    pub input: MessageId,
    /// The reply's message.
    pub output: MessageId,
    /// True if the client sends a stream of messages.
    pub client_streaming: bool,
    /// True if the server replies with a stream of messages.
    pub server_streaming: bool,
    /// True if the proto says `idempotency_level = NO_SIDE_EFFECTS`.
    pub no_side_effects: bool,
}

impl Method {
    /// The gRPC path, `/users.Users/Create`.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// Returns true if either side sends a stream of messages.
    pub fn is_stream(&self) -> bool {
        self.client_streaming || self.server_streaming
    }
}

#[derive(Debug)]
pub(crate) struct Message {
    /// Without the package: what a caller is told.
    pub(crate) name: Box<str>,
    /// In the order of their numbers.
    pub(crate) fields: Vec<Field>,
    /// Both spellings of every field, sorted by [`order`].
    names: Vec<(Box<str>, usize)>,
    /// The number of real oneofs; [`Field::oneof`] counts them.
    pub(crate) oneofs: usize,
    pub(crate) special: Option<Special>,
}

/// Messages of `google.protobuf` whose JSON is not an object of their fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    ListValue,
    Wrapper,
    Any,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// As in the proto.
    pub(crate) name: Box<str>,
    /// `"name":` in both spellings, ready to be written.
    pub(crate) proto_key: Box<[u8]>,
    pub(crate) json_key: Box<[u8]>,
    pub(crate) kind: FieldType,
    pub(crate) cardinality: Cardinality,
    pub(crate) oneof: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cardinality {
    /// One value, and its zero means that it was not given.
    Implicit,
    /// One value that can be absent: `optional`, a oneof's member, a message.
    Explicit,
    /// Several, each with a tag of its own when written.
    Repeated,
    /// Several behind one tag when written; both forms are read.
    Packed,
    /// Entries: messages of a key 1 and a value 2.
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldType {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
}

#[derive(Debug)]
pub(crate) struct Enum {
    pub(crate) name: Box<str>,
    /// `google.protobuf.NullValue`, which JSON writes as `null`.
    pub(crate) null: bool,
    /// Sorted by number; of aliases the first declared stands for the number.
    pub(crate) values: Vec<(i32, Box<str>)>,
    pub(crate) by_name: HashMap<Box<str>, i32>,
}

impl Schema {
    /// The message of that full name (`users.CreateRequest`).
    pub fn message_id(&self, full_name: &str) -> Option<MessageId> {
        self.by_name.get(full_name).copied()
    }

    /// The RPC of that gRPC path (`/users.Users/Create`).
    pub fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(*self.by_path.get(path)?)
    }

    /// Every RPC, in the order declared.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.methods.iter()
    }

    pub(crate) fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0]
    }

    pub(crate) fn enumeration(&self, id: EnumId) -> &Enum {
        &self.enums[id.0]
    }

    /// The message a field holds, `None` for scalars.
    pub(crate) fn target(&self, field: &Field) -> Option<&Message> {
        match field.kind {
            FieldType::Message(id) => Some(self.message(id)),
            _ => None,
        }
    }
}

impl Message {
    /// Index of the field with that wire number.
    pub(crate) fn by_number(&self, number: u32) -> Option<usize> {
        // Most messages number their fields 1, 2, 3, ...
        let guess = (number as usize).wrapping_sub(1);
        if self.fields.get(guess).is_some_and(|field| field.number == number) {
            return Some(guess);
        }
        self.fields.binary_search_by_key(&number, |field| field.number).ok()
    }

    /// Index of the field with that name in either spelling. `hint` is tried first: writers keep the order.
    pub(crate) fn by_name(&self, name: &str, hint: usize) -> Option<usize> {
        if let Some(field) = self.fields.get(hint)
            && (quoted(&field.json_key) == name.as_bytes() || quoted(&field.proto_key) == name.as_bytes())
        {
            return Some(hint);
        }
        let at = self.names.binary_search_by(|(known, _)| order(known, name)).ok()?;
        Some(self.names[at].1)
    }
}

impl Field {
    /// As JSON spells it.
    pub(crate) fn json_name(&self) -> &str {
        std::str::from_utf8(quoted(&self.json_key)).unwrap_or(&self.name)
    }

    /// Returns true for a list or a map.
    pub(crate) fn many(&self) -> bool {
        matches!(self.cardinality, Cardinality::Repeated | Cardinality::Packed | Cardinality::Map)
    }
}

impl Enum {
    pub(crate) fn name_of(&self, number: i32) -> Option<&str> {
        let at = self.values.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&self.values[at].1)
    }
}

/// `name` of a key as written, `"name":`.
fn quoted(key: &[u8]) -> &[u8] {
    key.get(1..key.len().saturating_sub(2)).unwrap_or_default()
}

/// Lengths first: most comparisons end there.
fn order(one: &str, other: &str) -> std::cmp::Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

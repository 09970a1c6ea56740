//! What the JSON side knows of the protocol: messages, enums, methods and routes, as flat tables made once from
//! an encoded descriptor set. No message types and no code per RPC: a new RPC is a new row.

use std::collections::HashMap;

use http::uri::PathAndQuery;

use super::route::Router;

mod load;

/// Why a descriptor set cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(String);

impl SchemaError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Index of a message in its [`Schema`]. Means nothing in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(pub(super) usize);

/// Index of an enum in its [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EnumId(pub(super) usize);

/// The tables. Immutable; shared by every request.
#[derive(Debug)]
pub struct Schema {
    pub(super) messages: Vec<Message>,
    pub(super) enums: Vec<Enum>,
    pub(super) methods: Vec<Method>,
    pub(super) router: Router,
    by_name: HashMap<Box<str>, MessageId>,
    by_path: HashMap<Box<str>, usize>,
}

/// A unary RPC.
#[derive(Debug)]
pub struct Method {
    /// As in `/users.Users/Create`.
    pub path: PathAndQuery,
    /// The service with its package: `users.Users`.
    pub service: Box<str>,
    /// `Create`.
    pub name: Box<str>,
    /// The request's message.
    pub input: MessageId,
    /// The reply's message.
    pub output: MessageId,
}

#[derive(Debug)]
pub(super) struct Message {
    /// Without the package: what a caller is told.
    pub(super) name: Box<str>,
    /// In the order of their numbers.
    pub(super) fields: Vec<Field>,
    /// Both spellings of every field, sorted by [`order`].
    names: Vec<(Box<str>, usize)>,
    /// How many real oneofs there are; [`Field::oneof`] counts them.
    pub(super) oneofs: usize,
    pub(super) special: Option<Special>,
}

/// Messages of `google.protobuf` whose JSON is not an object of their fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
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
pub(super) struct Field {
    pub(super) number: u32,
    /// As in the proto.
    pub(super) name: Box<str>,
    /// `"name":` in both spellings, ready to be written.
    pub(super) proto_key: Box<[u8]>,
    pub(super) json_key: Box<[u8]>,
    pub(super) kind: Kind,
    pub(super) cardinality: Cardinality,
    pub(super) oneof: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cardinality {
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
pub(super) enum Kind {
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
pub(super) struct Enum {
    pub(super) name: Box<str>,
    /// `google.protobuf.NullValue`, which JSON writes as `null`.
    pub(super) null: bool,
    /// Sorted by number; of aliases the first declared stands for the number.
    pub(super) values: Vec<(i32, Box<str>)>,
    pub(super) by_name: HashMap<Box<str>, i32>,
}

impl Schema {
    /// The message of that full name (`users.CreateRequest`).
    #[must_use]
    pub fn message_id(&self, full_name: &str) -> Option<MessageId> {
        self.by_name.get(full_name).copied()
    }

    /// The unary RPC of that gRPC path (`/users.Users/Create`).
    #[must_use]
    pub fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(*self.by_path.get(path)?)
    }

    /// Every unary RPC, in the order declared.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.methods.iter()
    }

    pub(super) fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0]
    }

    pub(super) fn enumeration(&self, id: EnumId) -> &Enum {
        &self.enums[id.0]
    }

    /// The message a field holds, `None` for scalars.
    pub(super) fn target(&self, field: &Field) -> Option<&Message> {
        match field.kind {
            Kind::Message(id) => Some(self.message(id)),
            _ => None,
        }
    }
}

impl Message {
    /// Index of the field with that wire number.
    pub(super) fn by_number(&self, number: u32) -> Option<usize> {
        // Most messages number their fields 1, 2, 3, ...
        let guess = (number as usize).wrapping_sub(1);
        if self.fields.get(guess).is_some_and(|field| field.number == number) {
            return Some(guess);
        }
        self.fields.binary_search_by_key(&number, |field| field.number).ok()
    }

    /// Index of the field with that name in either spelling. `hint` is tried first: writers keep the order.
    pub(super) fn by_name(&self, name: &str, hint: usize) -> Option<usize> {
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
    /// Whether it is a list or a map.
    pub(super) fn many(&self) -> bool {
        matches!(self.cardinality, Cardinality::Repeated | Cardinality::Packed | Cardinality::Map)
    }
}

impl Enum {
    pub(super) fn name_of(&self, number: i32) -> Option<&str> {
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

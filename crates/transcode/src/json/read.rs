//! JSON in: one pass over the text, each value written to the wire form as it is met. A fault is noted with its
//! path and the reader goes on, so that all of them are named at once.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use super::lex::{Lexer, Malformed};
use super::scalar::{Scalar, Source, expected, from_number, from_text};
use super::wire::{close, open, put, put_bare};
use super::{ReadError, Style, time};
use crate::Fields;
use crate::schema::{Cardinality, Field, FieldType, Message, MessageId, Schema, Special};

mod path;
mod structure;

use path::{Path, Step};

struct Reader<'s, 'j> {
    schema: &'s Schema,
    style: Style,
    lex: Lexer<'j>,
    out: Vec<u8>,
    faults: Fields,
    /// Open objects and lists inside a `Struct`.
    levels: u32,
}

/// See [`super::read`].
pub(super) fn read(schema: &Schema, id: MessageId, json: &[u8], style: Style) -> Result<Vec<u8>, ReadError> {
    run(schema, json, style, |reader| reader.content(id, &Path::ROOT))
}

/// As [`super::read`] for JSON that is one field of the message: the message with that field alone.
pub(crate) fn read_field(
    schema: &Schema,
    id: MessageId,
    field: usize,
    json: &[u8],
    style: Style,
) -> Result<Vec<u8>, ReadError> {
    let field = &schema.message(id).fields[field];
    run(schema, json, style, |reader| reader.present(field, &Path::ROOT.field(&field.name)))
}

/// Appends a field given as text by a path or a query to an encoded message. `steps` are the indices of the fields
/// that lead to it. It is written even if it is zero, so that it wins over what was there.
pub(crate) fn put_text(
    schema: &Schema,
    id: MessageId,
    steps: &[usize],
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), Cow<'static, str>> {
    let message = schema.message(id);
    let Some((field, rest)) =
        steps.split_first().and_then(|(at, rest)| Some((message.fields.get(*at)?, rest)))
    else {
        return Err("is not a field".into());
    };
    let FieldType::Message(inner) = field.kind else {
        put(out, field.number, &from_text(schema, field.kind, Cow::Borrowed(text), Source::Url)?);
        return Ok(());
    };
    let start = open(out, field.number);
    if rest.is_empty() {
        put_special(schema, inner, text, out)?;
    } else {
        put_text(schema, inner, rest, text, out)?;
    }
    close(out, start);
    Ok(())
}

/// The content of a message that can be given as one text.
fn put_special(
    schema: &Schema,
    id: MessageId,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), Cow<'static, str>> {
    let message = schema.message(id);
    match (message.special, message.fields.first()) {
        (Some(special @ (Special::Timestamp | Special::Duration | Special::FieldMask)), _) => {
            Ok(time::put(special, text, Source::Url, out)?)
        }
        (Some(Special::Wrapper), Some(field)) => {
            put(out, field.number, &from_text(schema, field.kind, Cow::Borrowed(text), Source::Url)?);
            Ok(())
        }
        (Some(Special::Struct | Special::Value | Special::ListValue), _) => {
            let json =
                read(schema, id, text.as_bytes(), Style::CANONICAL).map_err(|faults| match faults {
                    ReadError::Malformed(_) => Cow::Borrowed("must be JSON"),
                    ReadError::Fields(fields) => {
                        fields.iter().next().map_or_else(Cow::default, |(_, why)| why.clone().into())
                    }
                })?;
            out.extend_from_slice(&json);
            Ok(())
        }
        _ => Err("cannot be given in a path or a query".into()),
    }
}

fn run<'s, 'j>(
    schema: &'s Schema,
    json: &'j [u8],
    style: Style,
    read: impl FnOnce(&mut Reader<'s, 'j>) -> Result<(), Malformed>,
) -> Result<Vec<u8>, ReadError> {
    let malformed = |why: Malformed| ReadError::Malformed(why.describe(json));
    let lex = Lexer::new(json).map_err(malformed)?;
    let out = Vec::with_capacity(json.len().min(4096));
    let mut reader = Reader { schema, style, lex, out, faults: Fields::default(), levels: 0 };
    read(&mut reader).and_then(|()| reader.lex.end()).map_err(malformed)?;
    if reader.faults.is_empty() { Ok(reader.out) } else { Err(ReadError::Fields(reader.faults)) }
}

impl<'s, 'j> Reader<'s, 'j> {
    fn fault(&mut self, path: &Path<'_>, why: impl Into<String>) {
        self.faults.add(path.text(), why);
    }

    /// Notes a fault of the value that comes next, and passes over it.
    fn refuse(&mut self, path: &Path<'_>, why: impl Into<String>) -> Result<(), Malformed> {
        self.lex.skip()?;
        self.fault(path, why);
        Ok(())
    }

    /// The fields of a message, or what else its JSON is.
    fn content(&mut self, id: MessageId, path: &Path<'_>) -> Result<(), Malformed> {
        let message = self.schema.message(id);
        match message.special {
            None => self.object(message, path),
            Some(special @ (Special::Timestamp | Special::Duration | Special::FieldMask)) => {
                if self.lex.peek()? != b'"' {
                    return self.refuse(path, "must be a string");
                }
                let text = self.lex.string()?;
                if let Err(why) = time::put(special, &text, Source::JsonString, &mut self.out) {
                    self.fault(path, why);
                }
                Ok(())
            }
            Some(Special::Wrapper) => {
                let Some(field) = message.fields.first() else { return self.lex.skip() };
                self.one(field, path, false)
            }
            Some(Special::Struct) => self.structure(path),
            Some(Special::ListValue) => self.list_value(path),
            Some(Special::Value) => self.value(path),
            Some(Special::Any) => self.refuse(path, "cannot be given as JSON"),
        }
    }

    fn object(&mut self, message: &'s Message, path: &Path<'_>) -> Result<(), Malformed> {
        if self.lex.peek()? != b'{' {
            return self.refuse(path, "must be an object");
        }
        self.lex.enter()?;
        let (mut first, mut hint) = (true, 0);
        let mut seen = Seen::default();
        while let Some(key) = self.lex.key(&mut first)? {
            let Some(index) = message.by_name(&key, hint) else {
                if self.style.ignore_unknown {
                    self.lex.skip()?;
                } else {
                    self.refuse(&path.field(&key), format!("is not a field of {}", message.name))?;
                }
                continue;
            };
            hint = index + 1;
            let field = &message.fields[index];
            let path = path.field(&field.name);
            if !seen.add(index) {
                self.refuse(&path, "is given twice")?;
            } else if self.lex.peek()? == b'n' && (field.many() || !self.takes_null(field.kind)) {
                self.lex.word("null")?; // as if it were not there
            } else {
                if let Some(other) = field.oneof.and_then(|oneof| seen.claim(oneof, index)) {
                    let other = message.fields.get(other).map_or("", |field| &*field.name);
                    self.fault(&path, format!("cannot be given together with {other}"));
                }
                self.present(field, &path)?;
            }
        }
        Ok(())
    }

    /// Whether `null` is a value of that kind, and not its absence.
    fn takes_null(&self, kind: FieldType) -> bool {
        match kind {
            FieldType::Message(id) => self.schema.message(id).special == Some(Special::Value),
            FieldType::Enum(id) => self.schema.enumeration(id).null,
            _ => false,
        }
    }

    fn present(&mut self, field: &'s Field, path: &Path<'_>) -> Result<(), Malformed> {
        match field.cardinality {
            Cardinality::Implicit => self.one(field, path, false),
            Cardinality::Explicit => self.one(field, path, true),
            Cardinality::Repeated | Cardinality::Packed => self.list(field, path),
            Cardinality::Map => self.map(field, path),
        }
    }

    /// A single value with its tag; a zero only if `zero`.
    fn one(&mut self, field: &'s Field, path: &Path<'_>, zero: bool) -> Result<(), Malformed> {
        if let FieldType::Message(id) = field.kind {
            let start = open(&mut self.out, field.number);
            self.content(id, path)?;
            close(&mut self.out, start);
        } else if let Some(scalar) = self.scalar(field.kind, path)?
            && (zero || !scalar.is_zero())
        {
            put(&mut self.out, field.number, &scalar);
        }
        Ok(())
    }

    /// A scalar, or `None` after noting why it is none.
    fn scalar(&mut self, kind: FieldType, path: &Path<'_>) -> Result<Option<Scalar<'j>>, Malformed> {
        let scalar = match self.lex.peek()? {
            b'"' => from_text(self.schema, kind, self.lex.string()?, Source::JsonString),
            b'-' | b'0'..=b'9' => from_number(self.schema, kind, self.lex.number()?),
            b't' if kind == FieldType::Bool => self.lex.word("true").map(|()| Ok(Scalar::Varint(1)))?,
            b'f' if kind == FieldType::Bool => self.lex.word("false").map(|()| Ok(Scalar::Varint(0)))?,
            b'n' if self.takes_null(kind) => self.lex.word("null").map(|()| Ok(Scalar::Varint(0)))?,
            _ => {
                self.lex.skip()?;
                Err(expected(self.schema, kind))
            }
        };
        match scalar {
            Ok(scalar) => Ok(Some(scalar)),
            Err(why) => {
                self.fault(path, why);
                Ok(None)
            }
        }
    }

    fn list(&mut self, field: &'s Field, path: &Path<'_>) -> Result<(), Malformed> {
        if self.lex.peek()? != b'[' {
            return self.refuse(path, "must be a list");
        }
        self.lex.enter()?;
        let packed = field.cardinality == Cardinality::Packed;
        let before = self.out.len();
        let start = if packed { open(&mut self.out, field.number) } else { before };
        let (mut first, mut at) = (true, 0);
        while self.lex.element(&mut first)? {
            let path = path.at(Step::Index(at));
            at += 1;
            if self.lex.peek()? == b'n' && !self.takes_null(field.kind) {
                self.refuse(&path, "must not be null")?;
            } else if packed {
                if let Some(scalar) = self.scalar(field.kind, &path)? {
                    put_bare(&mut self.out, &scalar);
                }
            } else {
                self.one(field, &path, true)?;
            }
        }
        if packed && self.out.len() == start {
            self.out.truncate(before);
        } else if packed {
            close(&mut self.out, start);
        }
        Ok(())
    }

    fn map(&mut self, field: &'s Field, path: &Path<'_>) -> Result<(), Malformed> {
        let Some([key_field, value_field]) = self.schema.target(field).map(|entry| &*entry.fields) else {
            return self.refuse(path, "cannot be given as JSON");
        };
        if self.lex.peek()? != b'{' {
            return self.refuse(path, "must be an object");
        }
        self.lex.enter()?;
        let mut first = true;
        let mut seen = SmallSet::default();
        while let Some(name) = self.lex.key(&mut first)? {
            let path = path.at(Step::Key(&name));
            let start = open(&mut self.out, field.number);
            match from_text(self.schema, key_field.kind, Cow::Borrowed(&*name), Source::MapKey) {
                Ok(scalar) => put(&mut self.out, key_field.number, &scalar),
                Err(why) => self.fault(&path, format!("its key {why}")),
            }
            // Compared in wire form: `1` and `1.0` are one key.
            if !seen.add(self.out.get(start..).unwrap_or_default().to_vec()) {
                self.fault(&path, "is given twice");
            }
            if self.lex.peek()? == b'n' && !self.takes_null(value_field.kind) {
                self.refuse(&path, "must not be null")?;
            } else {
                self.one(value_field, &path, true)?;
            }
            close(&mut self.out, start);
        }
        Ok(())
    }
}

/// Which fields of a message were met, and which oneofs are taken by whom.
#[derive(Default)]
struct Seen {
    low: u64,
    high: BTreeSet<usize>,
    oneofs: Vec<(usize, usize)>,
}

impl Seen {
    /// False if the field was met before.
    fn add(&mut self, field: usize) -> bool {
        if field >= 64 {
            return self.high.insert(field);
        }
        let bit = 1 << field;
        let new = self.low & bit == 0;
        self.low |= bit;
        new
    }

    /// The field that has the oneof already.
    fn claim(&mut self, oneof: usize, field: usize) -> Option<usize> {
        let other = self.oneofs.iter().find(|(known, _)| *known == oneof).map(|(_, field)| *field);
        if other.is_none() {
            self.oneofs.push((oneof, field));
        }
        other
    }
}

/// The keys of one object so far. The first few are compared one by one, which is faster than to hash them.
struct SmallSet<K> {
    few: Vec<K>,
    many: HashSet<K>,
}

impl<K> Default for SmallSet<K> {
    fn default() -> Self {
        Self { few: Vec::new(), many: HashSet::new() }
    }
}

impl<K: Eq + std::hash::Hash> SmallSet<K> {
    /// False if the key was met before.
    fn add(&mut self, key: K) -> bool {
        if self.few.contains(&key) {
            return false;
        }
        if self.few.len() == 16 {
            return self.many.insert(key);
        }
        self.few.push(key);
        true
    }
}

//! JSON out. Each message is scanned once into records, which are then written in the order of the fields: so
//! split messages, repeated scalars and any order on the wire come out as one reader would see them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::wire::{Wire, next, next_packed};
use super::{InvalidWire, Style, time};
use crate::schema::{Cardinality, Field, FieldType, Message, MessageId, Schema, Special};

mod special;
mod text;

pub use text::string;
use text::{double, enumerator, float, integer, quoted};

/// Deepest nesting of messages that is written, so that none can exhaust the stack.
const MAX_DEPTH: u32 = 200;

struct Writer<'a, 'w> {
    schema: &'a Schema,
    style: Style,
    out: &'a mut Vec<u8>,
    /// Field index and value; those of an open message lie behind those of the ones around it.
    records: Vec<(usize, Wire<'w>)>,
    depth: u32,
}

/// Appends the JSON of an encoded message to `out`.
///
/// Fields come in the order of their numbers, whatever the order in `wire`. The last one of a field wins, and parts
/// of a message are put together, as every protobuf reader does it.
///
/// # Errors
///
/// [`InvalidWire`], with `out` in an undefined state.
pub fn write(
    schema: &Schema,
    id: MessageId,
    wire: &[u8],
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), InvalidWire> {
    Writer { schema, style, out, records: Vec::with_capacity(32), depth: 0 }.message(id, wire)
}

/// As [`write`](fn@write) for one field alone: its value as it is, `null` for a message that is not set.
pub fn write_field(
    schema: &Schema,
    id: MessageId,
    index: usize,
    wire: &[u8],
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), InvalidWire> {
    let message = schema.message(id);
    let mut writer = Writer { schema, style, out, records: Vec::new(), depth: 0 };
    writer.scan(message, wire)?;
    writer.records.retain(|(field, _)| *field == index);
    let field = &message.fields[index];
    if writer.records.is_empty() && !field.many() {
        return if let FieldType::Message(_) = field.kind {
            writer.out.extend_from_slice(b"null");
            Ok(())
        } else {
            writer.scalar(field.kind, Wire::zero(field.kind))
        };
    }
    let end = writer.records.len();
    writer.value(field, 0, end).map(|_| ())
}

impl<'w> Writer<'_, 'w> {
    fn message(&mut self, id: MessageId, wire: &'w [u8]) -> Result<(), InvalidWire> {
        if self.depth == MAX_DEPTH {
            return Err(InvalidWire);
        }
        self.depth += 1;
        let message = self.schema.message(id);
        match message.special {
            None => self.object(message, wire)?,
            Some(special @ (Special::Timestamp | Special::Duration | Special::FieldMask)) => {
                time::write(special, wire, self.out)?;
            }
            Some(Special::Wrapper) => write_field(self.schema, id, 0, wire, self.style, self.out)?,
            Some(Special::Struct) => self.structure(wire)?,
            Some(Special::ListValue) => self.list_value(wire)?,
            Some(Special::Value) => self.any_value(wire)?,
            Some(Special::Any) => self.any(wire)?,
        }
        self.depth -= 1;
        Ok(())
    }

    fn object(&mut self, message: &Message, wire: &'w [u8]) -> Result<(), InvalidWire> {
        let base = self.records.len();
        self.scan(message, wire)?;
        self.out.push(b'{');
        let mut at = base;
        for (index, field) in message.fields.iter().enumerate() {
            let first = at;
            while self.records.get(at).is_some_and(|(known, _)| *known == index) {
                at += 1;
            }
            self.field(field, first, at)?;
        }
        self.records.truncate(base);
        self.out.push(b'}');
        Ok(())
    }

    /// Appends the message's records, sorted by field, without those that a oneof has overruled.
    fn scan(&mut self, message: &Message, mut wire: &'w [u8]) -> Result<(), InvalidWire> {
        let base = self.records.len();
        let mut sorted = true;
        while let Some((number, value)) = next(&mut wire)? {
            let Some(index) = message.by_number(number) else { continue };
            let field = &message.fields[index];
            if fits(field, &value) {
                sorted &=
                    self.records.get(base..).and_then(<[_]>::last).is_none_or(|(last, _)| *last <= index);
                self.records.push((index, value));
            }
        }
        if message.oneofs > 0 {
            self.settle_oneofs(message, base);
        }
        if !sorted && let Some(records) = self.records.get_mut(base..) {
            records.sort_by_key(|(index, _)| *index); // stable
        }
        Ok(())
    }

    /// Of each oneof keeps the last member on the wire, back to where another one stands.
    fn settle_oneofs(&mut self, message: &Message, base: usize) {
        let mut winners: Vec<Option<usize>> = vec![None; message.oneofs];
        let mut closed = vec![false; message.oneofs];
        let mut kept = self.records.split_off(base);
        kept.reverse();
        kept.retain(|(index, _)| {
            let Some(oneof) = message.fields[*index].oneof else { return true };
            let winner = *winners[oneof].get_or_insert(*index);
            closed[oneof] |= winner != *index;
            !closed[oneof]
        });
        self.records.extend(kept.into_iter().rev());
    }

    /// Writes a field with its key, from the records `first..end`, unless the style leaves it out.
    fn field(&mut self, field: &Field, first: usize, end: usize) -> Result<(), InvalidWire> {
        let absent = first == end;
        if absent && (!self.style.emit_defaults || field.cardinality == Cardinality::Explicit) {
            return Ok(());
        }
        let before = self.out.len();
        self.comma();
        self.out.extend_from_slice(if self.style.proto_names { &field.proto_key } else { &field.json_key });
        let something = if absent && field.cardinality == Cardinality::Implicit {
            self.scalar(field.kind, Wire::zero(field.kind))?;
            true
        } else {
            self.value(field, first, end)?
        };
        if !something && !self.style.emit_defaults {
            self.out.truncate(before);
        }
        Ok(())
    }

    /// Writes the value; false if it is a zero, an empty list or an empty map, which a style may leave out.
    fn value(&mut self, field: &Field, first: usize, end: usize) -> Result<bool, InvalidWire> {
        match (field.cardinality, field.kind) {
            (Cardinality::Map, _) => {
                self.map(field, first, end)?;
                Ok(first < end)
            }
            (Cardinality::Repeated | Cardinality::Packed, _) => self.list(field, first, end),
            (_, FieldType::Message(id)) => {
                if let [(_, Wire::Bytes(part))] = self.records.get(first..end).unwrap_or_default() {
                    let part = *part;
                    self.message(id, part)?;
                } else {
                    // Encoded messages one after another are one message with the fields of both.
                    let mut whole = Vec::new();
                    for (_, part) in self.records.get(first..end).unwrap_or_default() {
                        let Wire::Bytes(part) = part else { continue };
                        whole.extend_from_slice(part);
                    }
                    let (schema, style, depth) = (self.schema, self.style, self.depth);
                    Writer { schema, style, out: self.out, records: Vec::new(), depth }
                        .message(id, &whole)?;
                }
                Ok(true)
            }
            (cardinality, kind) => {
                let last = end.checked_sub(1).and_then(|last| self.records.get(last));
                let value = last.map_or(Wire::zero(kind), |(_, value)| *value);
                self.scalar(kind, value)?;
                Ok(cardinality == Cardinality::Explicit || value != Wire::zero(kind))
            }
        }
    }

    fn comma(&mut self) {
        if !matches!(self.out.last(), Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }

    fn list(&mut self, field: &Field, first: usize, end: usize) -> Result<bool, InvalidWire> {
        self.out.push(b'[');
        let empty = self.out.len();
        for at in first..end {
            let Some((_, value)) = self.records.get(at).copied() else { break };
            if let Wire::Bytes(mut packed) = value
                && !value.same_type(&Wire::zero(field.kind))
            {
                while !packed.is_empty() {
                    let value = next_packed(field.kind, &mut packed)?;
                    self.comma();
                    self.scalar(field.kind, value)?;
                }
            } else {
                self.comma();
                self.single(field.kind, value)?;
            }
        }
        let something = self.out.len() > empty;
        self.out.push(b']');
        Ok(something)
    }

    fn single(&mut self, kind: FieldType, value: Wire<'w>) -> Result<(), InvalidWire> {
        match (kind, value) {
            (FieldType::Message(id), Wire::Bytes(wire)) => self.message(id, wire),
            (kind, value) => self.scalar(kind, value),
        }
    }

    /// Entries in their order on the wire; sorted by key if that is not ascending, so that the last of a key wins.
    fn map(&mut self, field: &Field, first: usize, end: usize) -> Result<(), InvalidWire> {
        let Some([key_field, value_field]) = self.schema.target(field).map(|entry| &*entry.fields) else {
            return Err(InvalidWire);
        };
        let mut entries = Vec::with_capacity(end - first);
        for (_, entry) in self.records.get(first..end).unwrap_or_default() {
            let Wire::Bytes(entry) = *entry else { continue };
            entries.push(split_entry(entry, key_field.kind, value_field.kind)?);
        }
        if !entries.is_sorted_by(|(one, _), (other, _)| sort_key(one) < sort_key(other)) {
            let unique: BTreeMap<_, _> =
                entries.iter().map(|(key, value)| (sort_key(key), (*key, *value))).collect();
            entries = unique.into_values().collect();
        }
        self.out.push(b'{');
        for (key, value) in entries {
            self.comma();
            let quoted = matches!(
                key_field.kind,
                FieldType::String
                    | FieldType::Int64
                    | FieldType::Uint64
                    | FieldType::Sint64
                    | FieldType::Fixed64
                    | FieldType::Sfixed64
            );
            self.out.extend_from_slice(if quoted { b"" } else { b"\"" });
            self.scalar(key_field.kind, key)?;
            self.out.extend_from_slice(if quoted { b":" } else { b"\":" });
            self.single(value_field.kind, value)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn scalar(&mut self, kind: FieldType, value: Wire<'_>) -> Result<(), InvalidWire> {
        match (kind, value) {
            (FieldType::String, Wire::Bytes(text)) => {
                string(self.out, std::str::from_utf8(text).map_err(|_| InvalidWire)?);
            }
            (FieldType::Bytes, Wire::Bytes(bytes)) => {
                self.out.push(b'"');
                self.out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
                self.out.push(b'"');
            }
            (FieldType::Bool, Wire::Varint(value)) => {
                self.out.extend_from_slice(if value == 0 { b"false" } else { b"true" });
            }
            (FieldType::Enum(id), Wire::Varint(value)) => {
                enumerator(self.out, self.schema.enumeration(id), low(value));
            }
            (FieldType::Int32, Wire::Varint(value)) => integer(self.out, low(value)),
            (FieldType::Uint32, Wire::Varint(value)) => integer(self.out, low(value).cast_unsigned()),
            (FieldType::Sint32, Wire::Varint(value)) => {
                let value = low(value).cast_unsigned();
                integer(self.out, (value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
            (FieldType::Int64, Wire::Varint(value)) | (FieldType::Sfixed64, Wire::Fixed64(value)) => {
                quoted(self.out, value.cast_signed());
            }
            (FieldType::Uint64, Wire::Varint(value)) | (FieldType::Fixed64, Wire::Fixed64(value)) => {
                quoted(self.out, value);
            }
            (FieldType::Sint64, Wire::Varint(value)) => {
                quoted(self.out, (value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
            (FieldType::Fixed32, Wire::Fixed32(value)) => integer(self.out, value),
            (FieldType::Sfixed32, Wire::Fixed32(value)) => integer(self.out, value.cast_signed()),
            (FieldType::Float, Wire::Fixed32(value)) => {
                let value = f32::from_bits(value);
                float(self.out, value.into(), |out| serde_json::to_writer(out, &value));
            }
            (FieldType::Double, Wire::Fixed64(value)) => double(self.out, f64::from_bits(value)),
            _ => return Err(InvalidWire),
        }
        Ok(())
    }
}

/// Whether a value of that wire type can be the field's; others are passed over like unknown fields.
fn fits(field: &Field, value: &Wire<'_>) -> bool {
    let own = Wire::zero(field.kind);
    value.same_type(&own) || (field.many() && value.same_type(&Wire::Bytes(&[])))
}

/// Key and value of a map's entry; what is absent is zero.
fn split_entry(
    mut entry: &[u8],
    key: FieldType,
    value: FieldType,
) -> Result<(Wire<'_>, Wire<'_>), InvalidWire> {
    let mut parts = (Wire::zero(key), Wire::zero(value));
    while let Some((number, part)) = next(&mut entry)? {
        match number {
            1 if part.same_type(&parts.0) => parts.0 = part,
            2 if part.same_type(&parts.1) => parts.1 = part,
            _ => {}
        }
    }
    Ok(parts)
}

/// Orders the keys of one map, which are all of one wire type.
fn sort_key<'w>(key: &Wire<'w>) -> (u64, &'w [u8]) {
    match *key {
        Wire::Varint(number) | Wire::Fixed64(number) => (number, b""),
        Wire::Fixed32(number) => (number.into(), b""),
        Wire::Bytes(text) => (0, text),
    }
}

/// The low 32 bits, as protobuf cuts an over-long `int32`.
fn low(value: u64) -> i32 {
    ((value & 0xFFFF_FFFF) as u32).cast_signed()
}

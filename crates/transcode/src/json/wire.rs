//! Protobuf's wire format. Source: <https://protobuf.dev/programming-guides/encoding/>.

use super::InvalidWire;
use super::scalar::Scalar;
use crate::schema::FieldType;

/// A value as it stands behind its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'w> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 5.
    Fixed32(u32),
    /// Wire type 2, without the length.
    Bytes(&'w [u8]),
}

impl Wire<'_> {
    /// What stands there for the zero of a kind.
    pub(super) fn zero(kind: FieldType) -> Self {
        match kind {
            FieldType::Double | FieldType::Fixed64 | FieldType::Sfixed64 => Self::Fixed64(0),
            FieldType::Float | FieldType::Fixed32 | FieldType::Sfixed32 => Self::Fixed32(0),
            FieldType::String | FieldType::Bytes | FieldType::Message(_) => Self::Bytes(&[]),
            _ => Self::Varint(0),
        }
    }

    /// Whether both have the same wire type.
    pub(super) fn same_type(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Takes the next field's number and value off `wire`; `None` at its end. Groups are passed over.
pub fn next<'w>(wire: &mut &'w [u8]) -> Result<Option<(u32, Wire<'w>)>, InvalidWire> {
    let mut groups: Vec<u32> = Vec::new(); // the open ones
    loop {
        if wire.is_empty() {
            return if groups.is_empty() { Ok(None) } else { Err(InvalidWire) };
        }
        let tag = u32::try_from(varint(wire)?).map_err(|_| InvalidWire)?;
        let number = tag >> 3;
        if number == 0 {
            return Err(InvalidWire);
        }
        let value = match tag & 7 {
            3 => {
                groups.push(number);
                continue;
            }
            4 if groups.pop() == Some(number) => continue,
            wire_type => value(wire_type, wire)?,
        };
        if groups.is_empty() {
            return Ok(Some((number, value)));
        }
    }
}

/// Takes the next element of a packed list.
pub(super) fn next_packed<'w>(kind: FieldType, packed: &mut &'w [u8]) -> Result<Wire<'w>, InvalidWire> {
    match Wire::zero(kind) {
        Wire::Varint(_) => value(0, packed),
        Wire::Fixed64(_) => value(1, packed),
        Wire::Fixed32(_) => value(5, packed),
        Wire::Bytes(_) => Err(InvalidWire),
    }
}

fn value<'w>(wire_type: u32, wire: &mut &'w [u8]) -> Result<Wire<'w>, InvalidWire> {
    Ok(match wire_type {
        0 => Wire::Varint(varint(wire)?),
        1 => Wire::Fixed64(u64::from_le_bytes(
            *wire.split_off(..8).and_then(<[u8]>::first_chunk).ok_or(InvalidWire)?,
        )),
        5 => Wire::Fixed32(u32::from_le_bytes(
            *wire.split_off(..4).and_then(<[u8]>::first_chunk).ok_or(InvalidWire)?,
        )),
        2 => {
            let len = usize::try_from(varint(wire)?).map_err(|_| InvalidWire)?;
            Wire::Bytes(wire.split_off(..len).ok_or(InvalidWire)?)
        }
        _ => return Err(InvalidWire),
    })
}

fn varint(wire: &mut &[u8]) -> Result<u64, InvalidWire> {
    if let [byte @ 0..0x80, rest @ ..] = *wire {
        *wire = rest;
        return Ok(u64::from(*byte));
    }
    let mut number = 0;
    for (at, byte) in wire.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7F) << (7 * at);
        if *byte < 0x80 {
            if at == 9 && *byte > 1 {
                return Err(InvalidWire); // more than 64 bits
            }
            *wire = &wire[at + 1..];
            return Ok(number);
        }
    }
    Err(InvalidWire)
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7F) as u8);
}

/// Appends a field with its tag.
pub(super) fn put(out: &mut Vec<u8>, number: u32, scalar: &Scalar<'_>) {
    let wire_type = match scalar {
        Scalar::Varint(_) => 0,
        Scalar::Fixed64(_) => 1,
        Scalar::Bytes(_) => 2,
        Scalar::Fixed32(_) => 5,
    };
    put_varint(out, u64::from(number) << 3 | wire_type);
    put_bare(out, scalar);
}

/// Appends a value without a tag, as in a packed list.
pub(super) fn put_bare(out: &mut Vec<u8>, scalar: &Scalar<'_>) {
    match scalar {
        Scalar::Varint(number) => put_varint(out, *number),
        Scalar::Fixed64(number) => out.extend_from_slice(&number.to_le_bytes()),
        Scalar::Fixed32(number) => out.extend_from_slice(&number.to_le_bytes()),
        Scalar::Bytes(bytes) => {
            put_varint(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
    }
}

/// Begins a field whose length is not known yet; hand what it gives to [`close`].
pub(crate) fn open(out: &mut Vec<u8>, number: u32) -> usize {
    put_varint(out, u64::from(number) << 3 | 2);
    out.push(0); // most messages are shorter than 128 bytes
    out.len()
}

/// Ends the field begun by [`open`].
pub(crate) fn close(out: &mut Vec<u8>, start: usize) {
    let len = out.len().saturating_sub(start);
    if let (Ok(short @ 0..0x80), Some(prefix)) = (u8::try_from(len), out.get_mut(start - 1)) {
        *prefix = short;
        return;
    }
    let mut prefix = Vec::with_capacity(10);
    put_varint(&mut prefix, len as u64);
    out.splice(start - 1..start, prefix);
}

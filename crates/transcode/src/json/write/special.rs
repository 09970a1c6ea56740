//! `google.protobuf.Struct`, `Value`, `ListValue` and `Any`.

use std::collections::BTreeMap;

use super::super::InvalidWire;
use super::super::wire::{Wire, next};
use super::{MAX_DEPTH, Writer, string};
use crate::schema::FieldType;

impl<'w> Writer<'_, 'w> {
    pub(super) fn structure(&mut self, mut wire: &'w [u8]) -> Result<(), InvalidWire> {
        let mut entries = Vec::new();
        while let Some((number, value)) = next(&mut wire)? {
            let (1, Wire::Bytes(mut entry)) = (number, value) else { continue };
            let (mut key, mut value) = (&b""[..], &b""[..]);
            while let Some((number, part)) = next(&mut entry)? {
                match (number, part) {
                    (1, Wire::Bytes(part)) => key = part,
                    (2, Wire::Bytes(part)) => value = part,
                    _ => {}
                }
            }
            entries.push((key, value));
        }
        if !entries.is_sorted_by(|(one, _), (other, _)| one < other) {
            entries = entries.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect();
        }
        self.out.push(b'{');
        for (key, value) in entries {
            self.comma();
            self.scalar(FieldType::String, Wire::Bytes(key))?;
            self.out.push(b':');
            self.deeper(|writer| writer.any_value(value))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    pub(super) fn list_value(&mut self, mut wire: &'w [u8]) -> Result<(), InvalidWire> {
        self.out.push(b'[');
        while let Some((number, value)) = next(&mut wire)? {
            let (1, Wire::Bytes(value)) = (number, value) else { continue };
            self.comma();
            self.deeper(|writer| writer.any_value(value))?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// A `google.protobuf.Value`; one that is not set is `null`.
    pub(super) fn any_value(&mut self, mut wire: &'w [u8]) -> Result<(), InvalidWire> {
        let mut set = None;
        while let Some(field) = next(&mut wire)? {
            set = Some(field);
        }
        match set {
            // As text it would be read as a string.
            Some((2, Wire::Fixed64(bits))) if !f64::from_bits(bits).is_finite() => Err(InvalidWire),
            Some((2, value)) => self.scalar(FieldType::Double, value),
            Some((3, value)) => self.scalar(FieldType::String, value),
            Some((4, value)) => self.scalar(FieldType::Bool, value),
            Some((5, Wire::Bytes(fields))) => self.structure(fields),
            Some((6, Wire::Bytes(values))) => self.list_value(values),
            _ => {
                self.out.extend_from_slice(b"null");
                Ok(())
            }
        }
    }

    fn deeper(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), InvalidWire>,
    ) -> Result<(), InvalidWire> {
        if self.depth == MAX_DEPTH {
            return Err(InvalidWire);
        }
        self.depth += 1;
        write(self)?;
        self.depth -= 1;
        Ok(())
    }

    /// A `google.protobuf.Any`. A type that the schema does not know keeps its bytes, as base64.
    pub(super) fn any(&mut self, mut wire: &'w [u8]) -> Result<(), InvalidWire> {
        let (mut url, mut bytes) = (&b""[..], &b""[..]);
        while let Some((number, value)) = next(&mut wire)? {
            match (number, value) {
                (1, Wire::Bytes(value)) => url = value,
                (2, Wire::Bytes(value)) => bytes = value,
                _ => {}
            }
        }
        let url = std::str::from_utf8(url).map_err(|_| InvalidWire)?;
        self.out.extend_from_slice(b"{\"@type\":");
        string(self.out, url);
        let known = url.rsplit('/').next().and_then(|name| self.schema.message_id(name));
        match known {
            Some(id) if self.schema.message(id).special.is_none() => {
                let before = self.out.len();
                self.message(id, bytes)?;
                // The fields go on in the object that @type began.
                let empty = self.out.get(before + 1) == Some(&b'}');
                if let Some(brace) = self.out.get_mut(before) {
                    *brace = b',';
                }
                if empty {
                    self.out.remove(before);
                }
                return Ok(());
            }
            Some(id) => {
                self.out.extend_from_slice(b",\"value\":");
                self.message(id, bytes)?;
            }
            None => {
                self.out.extend_from_slice(b",\"value\":");
                self.scalar(FieldType::Bytes, Wire::Bytes(bytes))?;
            }
        }
        self.out.push(b'}');
        Ok(())
    }
}

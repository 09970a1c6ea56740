//! `google.protobuf.Struct`, `Value` and `ListValue`: JSON of any shape. Faults name the field that holds it all.

use std::borrow::Cow;

use super::super::lex::Malformed;
use super::super::scalar::{Scalar, from_number};
use super::super::wire::{close, open, put};
use super::{Path, Reader, SmallSet};
use crate::schema::FieldType;

/// Deepest nesting of a `google.protobuf.Struct`: each level is three messages, and protobuf readers stop at 100.
const MAX_STRUCT_LEVELS: u32 = 32;

impl Reader<'_, '_> {
    /// Enters a level of a `Struct`, or refuses it. `path` is that of the outermost `Struct`.
    fn deeper(&mut self, path: &Path<'_>) -> Result<bool, Malformed> {
        if self.levels == MAX_STRUCT_LEVELS {
            self.refuse(path, "is nested deeper than 32 levels")?;
            return Ok(false);
        }
        self.lex.enter()?;
        self.levels += 1;
        Ok(true)
    }

    /// `google.protobuf.Struct`: `map<string, Value> fields = 1`.
    pub(super) fn structure(&mut self, path: &Path<'_>) -> Result<(), Malformed> {
        if self.lex.peek()? != b'{' {
            return self.refuse(path, "must be an object");
        }
        if !self.deeper(path)? {
            return Ok(());
        }
        let mut first = true;
        let mut seen = SmallSet::default();
        while let Some(key) = self.lex.key(&mut first)? {
            let entry = open(&mut self.out, 1);
            put(&mut self.out, 1, &Scalar::Bytes(Cow::Borrowed(key.as_bytes())));
            let value = open(&mut self.out, 2);
            self.value(path)?;
            close(&mut self.out, value);
            close(&mut self.out, entry);
            if !seen.add(key) {
                self.fault(path, "has a key twice");
            }
        }
        self.levels -= 1;
        Ok(())
    }

    /// `google.protobuf.ListValue`: `repeated Value values = 1`.
    pub(super) fn list_value(&mut self, path: &Path<'_>) -> Result<(), Malformed> {
        if self.lex.peek()? != b'[' {
            return self.refuse(path, "must be a list");
        }
        if !self.deeper(path)? {
            return Ok(());
        }
        let mut first = true;
        while self.lex.element(&mut first)? {
            let value = open(&mut self.out, 1);
            self.value(path)?;
            close(&mut self.out, value);
        }
        self.levels -= 1;
        Ok(())
    }

    /// `google.protobuf.Value`: a oneof of null 1, number 2, string 3, bool 4, struct 5, list 6.
    pub(super) fn value(&mut self, path: &Path<'_>) -> Result<(), Malformed> {
        let (number, scalar) = match self.lex.peek()? {
            b'{' => {
                let start = open(&mut self.out, 5);
                self.structure(path)?;
                close(&mut self.out, start);
                return Ok(());
            }
            b'[' => {
                let start = open(&mut self.out, 6);
                self.list_value(path)?;
                close(&mut self.out, start);
                return Ok(());
            }
            b'"' => (3, self.scalar(FieldType::String, path)?),
            b't' | b'f' => (4, self.scalar(FieldType::Bool, path)?),
            b'n' => (1, self.lex.word("null").map(|()| Some(Scalar::Varint(0)))?),
            _ => {
                let number = from_number(self.schema, FieldType::Double, self.lex.number()?).ok();
                if number.is_none() {
                    self.fault(path, "has a number that no double can hold");
                }
                (2, number)
            }
        };
        if let Some(scalar) = scalar {
            put(&mut self.out, number, &scalar);
        }
        Ok(())
    }
}

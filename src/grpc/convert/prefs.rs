//! `google.protobuf.Struct` and the JSON object that is stored.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::{Map, Number, Value};

use crate::domain::prefs::{Prefs, PrefsChanges};
use crate::domain::user_id::UserId;
use crate::error::{Error, Fields, Result};
use crate::pb;

/// Below it every whole number is one that a double holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Whose prefs, and what of them is to change.
pub(in crate::grpc) fn prefs_change(request: pb::UpdatePrefsRequest) -> Result<(UserId, PrefsChanges)> {
    let mut fields = Fields::default();
    let user = fields.check("id", UserId::parse(&request.id));
    let prefs = match request.prefs.map(object) {
        Some(Some(map)) => fields.check("prefs", PrefsChanges::parse(map)),
        Some(None) => fields.check("prefs", Err("has a number that JSON cannot represent")),
        None => fields.check("prefs", Err("is required")),
    };
    user.zip(prefs).ok_or(Error::Invalid(fields))
}

/// `None` if a number is not finite. Protobuf's reader has bounded the nesting.
fn object(message: Struct) -> Option<Map<String, Value>> {
    message.fields.into_iter().map(|(key, value)| Some((key, json(value)?))).collect()
}

fn json(message: prost_types::Value) -> Option<Value> {
    Some(match message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::NumberValue(number)) => Value::Number(self::number(number)?),
        Some(Kind::StructValue(message)) => Value::Object(object(message)?),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.into_iter().map(json).collect::<Option<_>>()?)
        }
    })
}

/// Whole numbers are stored as such: `3`, not `3.0`.
fn number(number: f64) -> Option<Number> {
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and small enough")]
        return Some(Number::from(number as i64));
    }
    Number::from_f64(number)
}

/// A stored JSON object as a message.
pub(in crate::grpc) fn message(stored: Prefs) -> Struct {
    structure(stored.into_map())
}

fn structure(map: Map<String, Value>) -> Struct {
    let fields: BTreeMap<_, _> = map.into_iter().map(|(key, item)| (key, value(item))).collect();
    Struct { fields }
}

fn value(json: Value) -> prost_types::Value {
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.into_iter().map(value).collect() }),
        Value::Object(map) => Kind::StructValue(structure(map)),
    };
    prost_types::Value { kind: Some(kind) }
}

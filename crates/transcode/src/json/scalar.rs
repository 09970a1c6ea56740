//! One value from its text: of a JSON string, a JSON number, a map's key, a query parameter, a path's segment.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::lex::is_number;
use crate::schema::{FieldType, Schema};

/// A value, ready for the wire.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar<'t> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Cow<'t, [u8]>),
}

/// Where a text comes from, which decides what is read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    JsonString,
    MapKey,
    /// A query parameter or a part of the path: texts by nature.
    Url,
}

/// Why a text is not the value it should be, to go behind the field's name.
pub(super) type Why = Cow<'static, str>;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

impl Scalar<'_> {
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => *number == 0,
            Self::Fixed32(number) => *number == 0,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }
}

/// The value of a text.
pub(super) fn from_text<'t>(
    schema: &Schema,
    kind: FieldType,
    text: Cow<'t, str>,
    source: Source,
) -> Result<Scalar<'t>, Why> {
    match kind {
        FieldType::String => Ok(Scalar::Bytes(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })),
        FieldType::Bytes => {
            let engine = if text.contains(['-', '_']) { &BASE64_URL } else { &BASE64 };
            engine
                .decode(text.as_bytes())
                .map(|bytes| Scalar::Bytes(bytes.into()))
                .map_err(|_| "must be base64".into())
        }
        FieldType::Bool => boolean(&text, source)
            .map(|value| Scalar::Varint(value.into()))
            .ok_or_else(|| expected(schema, kind)),
        FieldType::Enum(id) => {
            let declared = schema.enumeration(id);
            let number = declared.by_name.get(&*text).copied().or_else(|| {
                let number = text.parse().ok().filter(|_| source == Source::Url)?;
                declared.name_of(number).map(|_| number)
            });
            let scalar = number.map(|number| Scalar::Varint(i64::from(number).cast_unsigned()));
            scalar.ok_or_else(|| expected(schema, kind))
        }
        FieldType::Float | FieldType::Double => match &*text {
            "NaN" => Ok(float(kind, f64::NAN, f32::NAN)),
            "Infinity" => Ok(float(kind, f64::INFINITY, f32::INFINITY)),
            "-Infinity" => Ok(float(kind, f64::NEG_INFINITY, f32::NEG_INFINITY)),
            text if is_number(text) => from_number(schema, kind, text),
            _ => Err(expected(schema, kind)),
        },
        _ if source == Source::Url => from_number(schema, kind, &plain_digits(&text)),
        _ => from_number(schema, kind, &text),
    }
}

/// A number without the plus and the leading zeros that URLs may have and JSON may not.
fn plain_digits(text: &str) -> Cow<'_, str> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Cow::Borrowed(text);
    }
    let short = digits.trim_start_matches('0');
    Cow::Owned(format!("{sign}{}", if short.is_empty() { "0" } else { short }))
}

/// The value of a JSON number. Exact: 2^53 + 1 stays what it is.
pub(super) fn from_number(schema: &Schema, kind: FieldType, text: &str) -> Result<Scalar<'static>, Why> {
    match kind {
        FieldType::Double | FieldType::Float => {
            let (double, single) = (text.parse().unwrap_or(f64::NAN), text.parse().unwrap_or(f32::NAN));
            let fits =
                if kind == FieldType::Double { f64::is_finite(double) } else { f32::is_finite(single) };
            let scalar = float(kind, double, single);
            if fits { Ok(scalar) } else { Err("is out of range".into()) }
        }
        FieldType::String | FieldType::Bytes | FieldType::Bool | FieldType::Message(_) => {
            Err(expected(schema, kind))
        }
        _ => integer(text).and_then(|number| whole(kind, number)).ok_or_else(|| expected(schema, kind)),
    }
}

/// What a field of that kind must be.
pub(super) fn expected(schema: &Schema, kind: FieldType) -> Why {
    match kind {
        FieldType::Double | FieldType::Float => "must be a number".into(),
        FieldType::Int32 | FieldType::Sint32 | FieldType::Sfixed32 => {
            "must be a whole number from -2147483648 to 2147483647".into()
        }
        FieldType::Uint32 | FieldType::Fixed32 => "must be a whole number from 0 to 4294967295".into(),
        FieldType::Int64 | FieldType::Sint64 | FieldType::Sfixed64 => {
            "must be a whole number from -9223372036854775808 to 9223372036854775807".into()
        }
        FieldType::Uint64 | FieldType::Fixed64 => {
            "must be a whole number from 0 to 18446744073709551615".into()
        }
        FieldType::Bool => "must be true or false".into(),
        FieldType::String => "must be a string".into(),
        FieldType::Bytes => "must be a string of base64".into(),
        FieldType::Enum(id) => format!("must be a value of {}", schema.enumeration(id).name).into(),
        FieldType::Message(_) => "must be an object".into(),
    }
}

fn boolean(text: &str, source: Source) -> Option<bool> {
    match (text, source) {
        ("true", Source::MapKey | Source::Url) | ("1" | "t" | "T" | "TRUE" | "True", Source::Url) => {
            Some(true)
        }
        ("false", Source::MapKey | Source::Url) | ("0" | "f" | "F" | "FALSE" | "False", Source::Url) => {
            Some(false)
        }
        _ => None,
    }
}

fn float(kind: FieldType, double: f64, single: f32) -> Scalar<'static> {
    if kind == FieldType::Double {
        Scalar::Fixed64(double.to_bits())
    } else {
        Scalar::Fixed32(single.to_bits())
    }
}

fn whole(kind: FieldType, number: i128) -> Option<Scalar<'static>> {
    let int32 = || i32::try_from(number).ok();
    let int64 = || i64::try_from(number).ok();
    Some(match kind {
        FieldType::Int32 | FieldType::Enum(_) => Scalar::Varint(i64::from(int32()?).cast_unsigned()),
        FieldType::Int64 => Scalar::Varint(int64()?.cast_unsigned()),
        FieldType::Uint32 => Scalar::Varint(u32::try_from(number).ok()?.into()),
        FieldType::Uint64 => Scalar::Varint(u64::try_from(number).ok()?),
        FieldType::Sint32 => {
            int32().map(|n| Scalar::Varint(((n << 1) ^ (n >> 31)).cast_unsigned().into()))?
        }
        FieldType::Sint64 => int64().map(|n| Scalar::Varint(((n << 1) ^ (n >> 63)).cast_unsigned()))?,
        FieldType::Fixed32 => Scalar::Fixed32(u32::try_from(number).ok()?),
        FieldType::Fixed64 => Scalar::Fixed64(u64::try_from(number).ok()?),
        FieldType::Sfixed32 => Scalar::Fixed32(int32()?.cast_unsigned()),
        FieldType::Sfixed64 => Scalar::Fixed64(int64()?.cast_unsigned()),
        _ => return None,
    })
}

/// The whole number a text stands for, also as `1.0` or `1e3`; `None` if it is none or far too large.
fn integer(text: &str) -> Option<i128> {
    if !is_number(text) {
        return None;
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(number.into());
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    // The number is `significant` times ten to the `scale`.
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    let scale = exponent.parse::<i64>().ok()?.checked_add(i64::try_from(zeros).ok()?)?;
    let scale = u32::try_from(scale.checked_sub(i64::try_from(fraction.len()).ok()?)?).ok()?;
    let number = significant.parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(scale)?)?;
    Some(if negative { -number } else { number })
}

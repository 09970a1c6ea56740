//! Cases of protobuf's conformance suite, by their names there.

use prost::Message as _;
use prost_reflect::FieldDescriptor;
use prost_types::value::Kind;
use prost_types::{Duration, FieldMask, Timestamp};

use super::*;

const CASES: &str = include_str!("conformance.txt");

#[test]
fn texts_are_read_and_written_again_or_refused() {
    let lines = CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut count = 0;
    for line in lines {
        let [name, text, outcome] = line.split(" | ").collect::<Vec<_>>()[..] else { panic!("{line}") };
        let text = text.replace('¶', "\n");
        count += 1;
        if outcome == "refused" {
            assert!(parse(&text).is_err(), "{line}");
            continue;
        }
        let wire = parse(&text).unwrap_or_else(|why| panic!("{name}: {why:?}"));
        let want: Value = serde_json::from_str(if outcome == "same" { &text } else { outcome }).unwrap();
        // By value: `0` and `0.0` are one number.
        assert_eq!(differential::plain(show(&wire, TERSE)), differential::plain(want), "{name}");
        DynamicMessage::decode(descriptor(), &*wire).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
    assert!(count > 180, "{count} cases");
}

/// `FieldNameInSnakeCase`, `FieldNameInLowerCamelCase`, `FieldNameWithNumbers`, `FieldNameWithMixedCases`,
/// `FieldNameWithDoubleUnderscores`, `OriginalProtoFieldName`, `FieldNameEscaped`.
#[test]
fn every_name_is_read_in_both_spellings() {
    let pool = DescriptorPool::decode(&*EVERYTHING.1).unwrap();
    let names = pool.get_message_by_name("everything.Names").unwrap();
    let id = EVERYTHING.0.message_id("everything.Names").unwrap();
    let object = |name: fn(&FieldDescriptor) -> String| {
        names.fields().map(|field| (name(&field), json!(field.number()))).collect::<Value>()
    };
    let camel = object(|field| field.json_name().to_owned());
    let escaped = object(|field| field.name().to_owned()).to_string().replace("\"fieldn", r#""f\u0069eldn"#);
    for text in [camel.to_string(), object(|field| field.name().to_owned()).to_string(), escaped] {
        let wire = read(&EVERYTHING.0, id, text.as_bytes(), Style::CANONICAL).unwrap();
        let mut out = Vec::new();
        write(&EVERYTHING.0, id, &wire, TERSE, &mut out).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), camel, "{text}");
    }
    // As the suite spells them.
    for name in ["fieldName2", "FieldName3", "fieldName4", "field0Name6", "FIELDName12", "FieldName18"] {
        assert!(camel.get(name).is_some(), "{name} in {camel}");
    }
}

/// `AllFieldAcceptNull`, `WrapperTypesWithNullValue`, `DurationNull`, `TimestampNull`.
#[test]
fn every_field_may_be_null() {
    let all = descriptor();
    let fields = all.fields().map(|field| field.json_name().to_owned());
    let nulls =
        fields.filter(|name| !["value", "choiceNull"].contains(&&**name)).map(|name| (name, Value::Null));
    assert_eq!(again(&nulls.collect::<Value>().to_string()), json!({}));
}

/// `FloatFieldNormalizeQuietNan`, `DoubleFieldNormalizeSignalingNan` and the two between.
#[test]
fn every_nan_is_one() {
    // 1 is a_double, 2 a_float.
    for bits in [0x7FA1_2345_u32, 0xFFB5_4321] {
        let wire = [&[0x15], &bits.to_le_bytes()[..]].concat();
        assert_eq!(show(&wire, TERSE), json!({"aFloat": "NaN"}));
    }
    for bits in [0x7FFA_1234_5678_9ABC_u64, 0xFFFB_CBA9_8765_4321] {
        let wire = [&[0x09], &bits.to_le_bytes()[..]].concat();
        assert_eq!(show(&wire, TERSE), json!({"aDouble": "NaN"}));
    }
}

#[test]
fn values_without_json_are_not_written() {
    let timestamp = |seconds| (61, Timestamp { seconds, nanos: 0 }.encode_to_vec());
    let duration = |seconds, nanos| (62, Duration { seconds, nanos }.encode_to_vec());
    let mask = |path: &str| (63, FieldMask { paths: vec![path.to_owned()] }.encode_to_vec());
    let number = |number| (65, prost_types::Value { kind: Some(Kind::NumberValue(number)) }.encode_to_vec());
    for (name, (field, content)) in [
        ("TimestampProtoInputTooSmall", timestamp(-62_135_596_801)),
        ("TimestampProtoInputTooLarge", timestamp(253_402_300_800)),
        ("DurationProtoInputTooSmall", duration(-315_576_000_001, 0)),
        ("DurationProtoInputTooLarge", duration(315_576_000_001, 0)),
        ("DurationProtoNanosWrongSign", duration(1, -1)),
        ("DurationProtoNanosTooLarge", duration(0, 1_000_000_000)),
        ("FieldMaskPathsDontRoundTrip", mask("fooBar")),
        ("FieldMaskNumbersDontRoundTrip", mask("foo_3_bar")),
        ("FieldMaskTooManyUnderscore", mask("foo__bar")),
        ("ValueRejectNanNumberValue", number(f64::NAN)),
        ("ValueRejectInfNumberValue", number(f64::INFINITY)),
    ] {
        let mut wire = Vec::new();
        let start = open(&mut wire, field);
        wire.extend(content);
        close(&mut wire, start);
        assert_eq!(write(&EVERYTHING.0, all(), &wire, TERSE, &mut Vec::new()), Err(InvalidWire), "{name}");
    }
}

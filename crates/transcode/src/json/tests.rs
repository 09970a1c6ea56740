//! The rules of proto3 JSON, by the names they have in the notes (J1, J2, ...).

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::{Value, json};

use super::*;
use crate::tests::EVERYTHING;

mod conformance;
mod differential;
mod hostile;

const LENIENT: Style = Style { ignore_unknown: true, ..Style::CANONICAL };
/// What prost-reflect writes.
const TERSE: Style = Style { emit_defaults: false, ..Style::CANONICAL };

fn all() -> MessageId {
    EVERYTHING.0.message_id("everything.All").unwrap()
}

fn descriptor() -> MessageDescriptor {
    DescriptorPool::decode(&*EVERYTHING.1).unwrap().get_message_by_name("everything.All").unwrap()
}

fn parse(json: &str) -> Result<Vec<u8>, ReadError> {
    read(&EVERYTHING.0, all(), json.as_bytes(), Style::CANONICAL)
}

fn show(wire: &[u8], style: Style) -> Value {
    let mut out = Vec::new();
    write(&EVERYTHING.0, all(), wire, style, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap_or_else(|err| panic!("{err}: {}", String::from_utf8_lossy(&out)))
}

/// JSON in and out again, without zeros.
fn again(json: &str) -> Value {
    show(&parse(json).unwrap_or_else(|faults| panic!("{json}: {faults:?}")), TERSE)
}

fn faults(json: &str) -> Vec<(String, String)> {
    match parse(json) {
        Err(ReadError::Fields(fields)) => fields.iter().cloned().collect(),
        other => panic!("{json}: {other:?}"),
    }
}

fn fields(json: &str) -> Vec<String> {
    faults(json).into_iter().map(|(field, _)| field).collect()
}

fn malformed(json: &[u8]) -> String {
    match read(&EVERYTHING.0, all(), json, Style::CANONICAL) {
        Err(ReadError::Malformed(why)) => why,
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(json)),
    }
}

#[test]
fn j1_both_spellings_are_read() {
    assert_eq!(
        again(r#"{"an_int32": 1, "aString": "x", "tooLate": "l"}"#),
        json!({"anInt32": 1, "aString": "x", "tooLate": "l"})
    );
    let wire = parse(r#"{"late": "l", "an_int32": 1}"#).unwrap();
    assert_eq!(show(&wire, Style { proto_names: true, ..TERSE }), json!({"late": "l", "an_int32": 1}));
}

#[test]
fn j2_integers() {
    for (text, want) in [
        ("1", 1),
        ("-1", -1),
        ("\"7\"", 7),
        ("1.0", 1),
        ("1e3", 1000),
        ("\"1e3\"", 1000),
        ("1.5e1", 15),
        ("100e-2", 1),
        ("-0", 0),
        ("0e999999", 0),
        ("2147483647", 2_147_483_647),
        ("-2147483648.000", -2_147_483_648_i64),
    ] {
        let got = again(&format!("{{\"maybeInt32\": {text}}}"));
        assert_eq!(got, json!({"maybeInt32": want}), "{text}");
    }
    for text in [
        "1.5",
        "2147483648",
        "\"\"",
        "\" 1\"",
        "\"+1\"",
        "\"0x1\"",
        "1e10",
        "1e-1",
        "1e999999999999",
        "true",
        "[]",
        "\"1.\"",
    ] {
        assert_eq!(fields(&format!("{{\"maybeInt32\": {text}}}")), ["maybe_int32"], "{text}");
    }
    let got = again(
        r#"{"anInt64": 9007199254740993, "aUint64": "18446744073709551615", "aSint64": -9223372036854775808}"#,
    );
    assert_eq!(
        got,
        json!({"anInt64": "9007199254740993", "aUint64": "18446744073709551615", "aSint64": "-9223372036854775808"})
    );
    assert_eq!(
        fields(r#"{"aUint64": -1, "aUint32": 4294967296, "aFixed64": 18446744073709551616}"#),
        ["a_uint64", "a_uint32", "a_fixed64"]
    );
}

#[test]
fn j3_floats() {
    let got = again(
        r#"{"aDouble": "NaN", "aFloat": "-Infinity", "doubles": [1.0, -0, 0.1, 1e300, "2.5", "Infinity"]}"#,
    );
    assert_eq!(got["aDouble"], "NaN");
    assert_eq!(got["aFloat"], "-Infinity");
    assert_eq!(got["doubles"], json!([1, -0.0, 0.1, 1e300, 2.5, "Infinity"]));
    for text in ["1e309", "\"inf\"", "\"nan\"", "\".5\"", "\"\"", "true"] {
        assert_eq!(fields(&format!("{{\"aDouble\": {text}}}")), ["a_double"], "{text}");
    }
    assert_eq!(fields(r#"{"aFloat": 3.5e38}"#), ["a_float"]);
}

#[test]
fn j4_base64() {
    for text in ["/+8=", "/+8", "_-8=", "_-8"] {
        assert_eq!(again(&format!("{{\"someBytes\": \"{text}\"}}")), json!({"someBytes": "/+8="}));
    }
    assert_eq!(fields(r#"{"someBytes": "*"}"#), ["some_bytes"]);
}

#[test]
fn j5_enums() {
    for (text, want) in [
        ("\"COLOR_RED\"", json!("COLOR_RED")),
        ("2", json!("COLOR_GREEN")),
        ("77", json!(77)),
        ("-1", json!("COLOR_BELOW")),
    ] {
        assert_eq!(again(&format!("{{\"color\": {text}}}")), json!({"color": want}));
    }
    assert_eq!(faults(r#"{"color": "RED"}"#), [("color".into(), "must be a value of Color".into())]);
    assert_eq!(fields(r#"{"colors": ["COLOR_RED", "1", 1.5]}"#), ["colors[1]", "colors[2]"]);
}

#[test]
fn j6_times() {
    for (text, want) in [
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("2024-02-29T23:59:59.1Z", "2024-02-29T23:59:59.100Z"),
        ("2026-01-01T01:30:00.000001+02:00", "2025-12-31T23:30:00.000001Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"),
    ] {
        assert_eq!(again(&format!("{{\"timestamp\": \"{text}\"}}"))["timestamp"], want);
    }
    for text in [
        "2026-01-01t00:00:00Z",
        "2026-01-01T00:00:00z",
        "2026-01-01T00:00:00",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:00.Z",
        "",
        "2026-01-01T00:00:00.0000000001Z",
        "2026-1-1T00:00:00Z",
        "2026-01-01T00:00:00+1:00",
        "+026-01-01T00:00:00Z",
    ] {
        assert_eq!(fields(&format!("{{\"timestamp\": \"{text}\"}}")), ["timestamp"], "{text}");
    }
    for (text, want) in [
        ("0s", "0s"),
        ("-0.5s", "-0.500s"),
        ("3.000000001s", "3.000000001s"),
        ("-315576000000s", "-315576000000s"),
    ] {
        assert_eq!(again(&format!("{{\"duration\": \"{text}\"}}"))["duration"], want);
    }
    for text in ["1", "s", "315576000001s", "1.s", ".5s", "1h", "1.1234567890s", "--1s", "+1s"] {
        assert_eq!(fields(&format!("{{\"duration\": \"{text}\"}}")), ["duration"], "{text}");
    }
}

#[test]
fn j7_masks() {
    assert_eq!(again(r#"{"mask": "displayName,a.userId"}"#), json!({"mask": "displayName,a.userId"}));
    let wire = parse(r#"{"mask": "userId"}"#).unwrap();
    assert!(wire.windows(7).any(|part| part == b"user_id"));
    assert_eq!(again(r#"{"mask": ""}"#), json!({"mask": ""}));
    for text in ["\"user_id\"", "{\"paths\": [\"a\"]}", "\"a,\"", "\"a b\"", "[]"] {
        assert_eq!(fields(&format!("{{\"mask\": {text}}}")), ["mask"], "{text}");
    }
}

#[test]
fn j8_wrappers_and_free_form() {
    let text = r#"{"struct": {"a": [1, 2.5, null, {"b": true}], "big": 1e300}, "value": null, "list": [[]],
        "empty": {}, "int64Value": "5", "boolValue": false, "stringValue": "", "values": [null, 1]}"#;
    assert_eq!(
        again(text),
        json!({
            "struct": {"a": [1, 2.5, null, {"b": true}], "big": 1e300}, "value": null, "list": [[]],
            "empty": {}, "int64Value": "5", "boolValue": false, "stringValue": "", "values": [null, 1]
        })
    );
    let mut out = Vec::new();
    let wire = parse(r#"{"struct": {"n": 3, "m": 9007199254740993}}"#).unwrap();
    write(&EVERYTHING.0, all(), &wire, TERSE, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"struct":{"m":9007199254740992.0,"n":3}}"#);
    assert_eq!(
        fields(r#"{"struct": {"a": 1e999}, "list": {}, "empty": 1, "any": {}, "int64Value": {}}"#),
        ["struct", "list", "empty", "any", "int64_value"]
    );
    assert_eq!(faults(r#"{"struct": {"a": 1, "a": 2}}"#), [("struct".into(), "has a key twice".into())]);
}

#[test]
fn a_struct_has_32_levels() {
    let nested =
        |levels: usize| format!("{{\"struct\": {}1{}}}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let wire = parse(&nested(32)).unwrap();
    DynamicMessage::decode(descriptor(), &*wire).unwrap(); // protobuf readers follow
    assert_eq!(faults(&nested(33)), [("struct".into(), "is nested deeper than 32 levels".into())]);
}

#[test]
fn j9_null_is_absence() {
    let text = r#"{"anInt32": null, "maybeString": null, "nested": null, "strings": null, "stringMap": null,
        "choiceString": null, "timestamp": null, "int64Value": null, "color": null, "choiceInt32": 1}"#;
    assert_eq!(again(text), json!({"choiceInt32": 1}));
    assert_eq!(again(r#"{"choiceNull": null, "value": null}"#), json!({"choiceNull": null, "value": null}));
    assert_eq!(
        fields(r#"{"strings": ["a", null], "nesteds": [null], "stringMap": {"k": null}}"#),
        ["strings[1]", "nesteds[0]", "string_map[\"k\"]"]
    );
}

#[test]
fn j10_unknown_fields() {
    assert_eq!(
        faults(r#"{"nope": {"a": [1]}, "nested": {"x": 1}}"#),
        [
            ("nope".into(), "is not a field of All".into()),
            ("nested.x".into(), "is not a field of Nested".into()),
        ]
    );
    let wire = read(&EVERYTHING.0, all(), br#"{"nope": {"a": [1, "x"]}, "aBool": true}"#, LENIENT).unwrap();
    assert_eq!(show(&wire, TERSE), json!({"aBool": true}));
}

#[test]
fn j11_zeros() {
    let got = show(&[], Style::CANONICAL);
    assert_eq!(got["anInt64"], "0");
    assert_eq!(got["color"], "COLOR_UNSPECIFIED");
    assert_eq!((&got["strings"], &got["stringMap"], &got["someBytes"]), (&json!([]), &json!({}), &json!("")));
    for absent in ["nested", "maybeInt32", "choiceString", "timestamp", "struct", "value", "int64Value"] {
        assert_eq!(got.get(absent), None, "{absent}");
    }
    assert_eq!(show(&[], TERSE), json!({}));
    // A zero on the wire is left out too; an optional one stays.
    assert_eq!(show(b"\x18\x00\xa8\x01\x00\xfa\x01\x00", TERSE), json!({"maybeInt32": 0}));
}

#[test]
fn j12_duplicates() {
    assert_eq!(faults(r#"{"anInt32": 1, "an_int32": 1}"#), [("an_int32".into(), "is given twice".into())]);
    assert_eq!(
        fields(r#"{"stringMap": {"a": "", "a": ""}, "int32Map": {"1": {}, "1.0": {}, "x": {}}}"#),
        ["string_map[\"a\"]", "int32_map[\"1.0\"]", "int32_map[\"x\"]"]
    );
    assert_eq!(
        faults(r#"{"choiceString": "a", "choiceInt32": 1}"#),
        [("choice_int32".into(), "cannot be given together with choice_string".into())]
    );
}

#[test]
fn every_fault_is_named_with_its_path() {
    let text = r#"{"aString": 1, "strings": ["a", 2, "c", {}], "nested": {"all": {"aBool": "true"}}, "nesteds": [{}, {"name": []}],
        "stringMap": {"k": 1}, "int32Map": {"5": {"count": 1.5}}}"#;
    assert_eq!(
        fields(text),
        [
            "a_string",
            "strings[1]",
            "strings[3]",
            "nested.all.a_bool",
            "nesteds[1].name",
            "string_map[\"k\"]",
            "int32_map[\"5\"].count"
        ]
    );
}

#[test]
fn malformed_texts_say_where() {
    for (text, want) in [
        (&b""[..], "line 1 column 1: the text ends too early"),
        (b"{\n  \"aBool\": tru}", "line 2 column 12: expected a value"),
        (b"{\"aString\": \"\xc3\xa4\" 1}", "line 1 column 17: expected `,` or `}`"),
        (b"{\"aBool\": true,}", "line 1 column 16: expected a key in double quotes"),
        (b"{\"strings\": [\"a\",]}", "line 1 column 18: expected a value"),
        (b"{'a': 1}", "line 1 column 2: expected a key in double quotes"),
        (b"{\"anInt32\": 01}", "line 1 column 13: expected a number"),
        (b"{\"aString\": \"\n\"}", "line 1 column 14: a string has a control character that is not escaped"),
        (b"{\"aString\": \"\\x\"}", "line 1 column 14: a string has an unknown escape"),
        (b"{\"aString\": \"\\ud800\"}", "line 1 column 14: a string has half of a surrogate pair"),
        (b"{\"aString\": \"\\udc00\\ud800\"}", "line 1 column 14: a string has half of a surrogate pair"),
        (b"{\"aString\": \"a", "line 1 column 15: a string does not end"),
        (b"{\"aString\": \"\xff\"}", "line 1 column 14: the text is not UTF-8"),
        (b"{} x", "line 1 column 4: the text goes on behind its value"),
        (b"{\"a\" 1}", "line 1 column 6: expected `:`"),
    ] {
        assert_eq!(malformed(text), want, "{:?}", String::from_utf8_lossy(text));
    }
    assert_eq!(
        again(r#"{"aString": "\u0000\ud83d\ude00\u00e4\"\\\/\b\f\n\r\t"}"#)["aString"],
        "\0😀ä\"\\/\u{8}\u{c}\n\r\t"
    );
    for text in ["[]", "null", "\"a\"", "1"] {
        assert_eq!(malformed(text.as_bytes()), "line 1 column 1: expected an object");
    }
}

#[test]
fn the_wire_in_any_order() {
    // a_string (14) twice, then an_int32 (3); nested (17) in two parts; int32s (31) packed and not; unknown field 99.
    let wire = b"\x72\x01a\x72\x01b\x18\x05\x8a\x01\x03\x0a\x01n\x8a\x01\x02\x10\x07\xfa\x01\x02\x01\x02\xf8\x01\x03\x98\x06\x01";
    let got = show(wire, TERSE);
    let want =
        json!({"anInt32": 5, "aString": "b", "nested": {"name": "n", "count": "7"}, "int32s": [1, 2, 3]});
    assert_eq!(got, want);
    let keys: Vec<_> = want.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.len(), 4);
    // choice_string (51), choice_int32 (52): the last one.
    assert_eq!(show(b"\x9a\x03\x01a\xa0\x03\x05", TERSE), json!({"choiceInt32": 5}));
    assert_eq!(show(b"\xa0\x03\x05\x9a\x03\x01a", TERSE), json!({"choiceString": "a"}));
    // A map's key twice: the last one.
    assert_eq!(
        show(b"\xca\x02\x06\x0a\x01k\x12\x01a\xca\x02\x06\x0a\x01k\x12\x01b", TERSE),
        json!({"stringMap": {"k": "b"}})
    );
}

#[test]
fn fields_come_in_the_order_of_their_numbers() {
    let wire = parse(r#"{"tooLate": "z", "early": "e", "aBool": true, "maybeInt32": 1}"#).unwrap();
    let mut out = Vec::new();
    write(&EVERYTHING.0, all(), &wire, TERSE, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"aBool":true,"early":"e","maybeInt32":1,"tooLate":"z"}"#);
}

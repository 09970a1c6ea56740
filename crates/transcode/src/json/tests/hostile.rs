//! Input made to break the codec: every one is refused or read, none ends the program.

use super::differential::Random;
use super::*;

#[test]
fn a_hundred_thousand_levels() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for field in ["struct", "list", "value", "nope", "strings", "nested"] {
            let deep = format!("{{\"{field}\":{}{}}}", open.repeat(100_000), close.repeat(100_000));
            assert!(
                malformed(deep.as_bytes()).ends_with("the text is nested deeper than 100 levels"),
                "{field}"
            );
        }
        assert!(
            malformed(open.repeat(100_000).as_bytes()).ends_with("the text is nested deeper than 100 levels")
        );
    }
    let nested = format!("{}{}", "{\"nested\":{\"all\":".repeat(60), "}}".repeat(60));
    malformed(nested.as_bytes());
    let nested = format!("{}{{}}{}", "{\"nested\":{\"all\":".repeat(49), "}}".repeat(49));
    let wire = parse(&nested).unwrap();
    DynamicMessage::decode(descriptor(), &*wire).unwrap();
}

#[test]
fn ten_megabytes() {
    let text = format!("{{\"aString\": \"{}\"}}", "\\u0041x".repeat(10 << 17));
    let got = again(&text);
    assert_eq!(got["aString"].as_str().unwrap().len(), 10 << 18);
    let digits = format!("{{\"anInt64\": {}, \"aDouble\": {}}}", "9".repeat(1 << 20), "9".repeat(1 << 20));
    assert_eq!(fields(&digits), ["an_int64", "a_double"]);
    let zeros = format!("{{\"anInt64\": 1.{}}}", "0".repeat(1 << 20));
    assert_eq!(again(&zeros), json!({"anInt64": "1"}));
    let faults = format!("{{{}\"x\": 1}}", "\"nope\": 1,".repeat(1 << 20));
    assert_eq!(fields(&faults), ["nope", "x"]); // one name many times is one fault
    let many: Vec<_> = (0..100_000).map(|n| format!("\"f{n}\": 1,")).collect();
    let many = many.concat();
    assert_eq!(fields(&format!("{{{many}\"x\": 1}}")).len(), crate::Fields::MAX);
}

#[test]
fn names_of_the_callers_are_cut() {
    let long = "x".repeat(1 << 20);
    assert_eq!(
        fields(&format!("{{\"{long}\": 1, \"stringMap\": {{\"{long}\": 1}}}}")),
        ["x".repeat(64), format!("string_map[\"{}\"]", "x".repeat(64))]
    );
}

#[test]
fn random_bytes_into_read() {
    let mut random = Random(7);
    let pool = b"{}[]\",:\\u00d8truefalsn1.-e+ \x00\xff\xc3\xa4";
    for _ in 0..200_000 {
        let text: Vec<u8> = (0..random.below(24))
            .map(|_| pool[usize::try_from(random.below(pool.len() as u64)).unwrap()])
            .collect();
        let _ = read(&EVERYTHING.0, all(), &text, LENIENT);
    }
}

#[test]
fn mutated_json_into_read() {
    let mut random = Random(11);
    let text = br#"{"aString":"x\u00e4","anInt64":"12","nested":{"more":[{"flag":true}]},"struct":{"a":[1,null]},"int32Map":{"1":{}},"mask":"aB","timestamp":"2026-01-01T00:00:00Z","duration":"1.5s","someBytes":"AQI=","choiceNull":null}"#;
    for _ in 0..50_000 {
        let mut text = text.to_vec();
        for _ in 0..=random.below(3) {
            let at = usize::try_from(random.below(text.len().max(1) as u64)).unwrap();
            if text.is_empty() {
                break;
            }
            match random.below(3) {
                0 => text[at] = u8::try_from(random.below(256)).unwrap(),
                1 => drop(text.remove(at)),
                _ => text.truncate(at + 1),
            }
        }
        if let Ok(wire) = read(&EVERYTHING.0, all(), &text, Style::CANONICAL) {
            // What we read is a message, and we can write it.
            DynamicMessage::decode(descriptor_once(), &*wire).unwrap();
            show(&wire, Style::CANONICAL);
        }
    }
}

fn descriptor_once() -> MessageDescriptor {
    static ONCE: std::sync::LazyLock<MessageDescriptor> = std::sync::LazyLock::new(descriptor);
    ONCE.clone()
}

#[test]
fn random_bytes_into_write() {
    let mut random = Random(3);
    for _ in 0..200_000 {
        let wire: Vec<u8> = (0..random.below(32)).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
        let mut out = Vec::new();
        if write(&EVERYTHING.0, all(), &wire, Style::CANONICAL, &mut out).is_ok() {
            serde_json::from_slice::<Value>(&out).unwrap_or_else(|err| panic!("{err} {wire:?}"));
        }
    }
}

#[test]
fn endless_nesting_on_the_wire_is_broken() {
    let mut wire = Vec::new();
    for _ in 0..500 {
        // nested.all.nested.all...: 17, then 4
        for number in [4, 17] {
            let mut outer = Vec::new();
            let start = super::super::wire::open(&mut outer, number);
            outer.extend_from_slice(&wire);
            super::super::wire::close(&mut outer, start);
            wire = outer;
        }
    }
    assert_eq!(write(&EVERYTHING.0, all(), &wire, Style::CANONICAL, &mut Vec::new()), Err(InvalidWire));
    let groups = [0x0B_u8].repeat(100_000);
    assert_eq!(write(&EVERYTHING.0, all(), &groups, Style::CANONICAL, &mut Vec::new()), Err(InvalidWire));
}

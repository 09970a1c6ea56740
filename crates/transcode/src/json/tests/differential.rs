//! Thousands of random messages: what we write is what prost-reflect writes, and each reads the other's.

use prost::Message as _;
use prost_reflect::{Kind, MapKey, ReflectMessage as _, Value as Reflected};

use super::*;

/// xorshift64*: the same numbers in every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    /// Often near zero or at the ends, where the faults are.
    fn integer(&mut self) -> u64 {
        match self.below(5) {
            0 => 0,
            1 => self.below(3),
            2 => u64::MAX - self.below(3),
            3 => 1 << self.below(64),
            _ => self.next(),
        }
    }

    fn text(&mut self) -> String {
        let pool =
            ['a', 'Z', '0', ' ', '"', '\\', '/', '\n', '\u{0}', '\u{1f}', '\u{7f}', 'ä', '\u{2028}', '😀'];
        (0..self.below(8)).map(|_| pool[usize::try_from(self.below(14)).unwrap()]).collect()
    }

    /// Few digits: `serde_json`, as it comes, reads others only nearly.
    fn double(&mut self) -> f64 {
        let number = f64::from(u32::try_from(self.below(1 << 16)).unwrap()) / 8.0;
        if self.below(2) == 0 { number } else { -number }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "any number will do")]
fn scalar(kind: &Kind, random: &mut Random, depth: u32) -> Reflected {
    match kind {
        Kind::Double => Reflected::F64(random.double()),
        Kind::Float => Reflected::F32(random.double().clamp(-1e30, 1e30) as f32),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Reflected::I32(random.integer() as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Reflected::I64(random.integer() as i64),
        Kind::Uint32 | Kind::Fixed32 => Reflected::U32(random.integer() as u32),
        Kind::Uint64 | Kind::Fixed64 => Reflected::U64(random.integer()),
        Kind::Bool => Reflected::Bool(random.below(2) == 1),
        Kind::String => Reflected::String(random.text()),
        Kind::Bytes => Reflected::Bytes(random.text().into_bytes().into()),
        Kind::Enum(declared) if declared.name() == "NullValue" => Reflected::EnumNumber(0),
        Kind::Enum(_) => Reflected::EnumNumber([0, 1, 2, -1, 77][usize::try_from(random.below(5)).unwrap()]),
        Kind::Message(declared) => Reflected::Message(message(declared, random, depth + 1)),
    }
}

fn message(declared: &MessageDescriptor, random: &mut Random, depth: u32) -> DynamicMessage {
    let mut built = DynamicMessage::new(declared.clone());
    let name = declared.full_name();
    let mut set = |name: &str, value: Reflected| built.set_field_by_name(name, value);
    match name {
        "google.protobuf.Timestamp" => {
            let seconds = i64::try_from(random.below(315_537_897_599)).unwrap() - 62_135_596_800;
            set("seconds", Reflected::I64(seconds));
            set(
                "nanos",
                Reflected::I32([0, 500_000_000, 1_000, 7][usize::try_from(random.below(4)).unwrap()]),
            );
        }
        "google.protobuf.Duration" => {
            let sign = if random.below(2) == 0 { -1 } else { 1 };
            set("seconds", Reflected::I64(i64::from(sign) * i64::try_from(random.below(1000)).unwrap()));
            set(
                "nanos",
                Reflected::I32(sign * [0, 500_000_000, 1_000, 7][usize::try_from(random.below(4)).unwrap()]),
            );
        }
        "google.protobuf.FieldMask" => {
            let paths = ["user_id", "a.b_c", "name"].iter().take(usize::try_from(random.below(4)).unwrap());
            set("paths", Reflected::List(paths.map(|path| Reflected::String((*path).to_owned())).collect()));
        }
        "google.protobuf.Value" => {
            let field = if depth > 6 { 2 } else { 1 + u32::try_from(random.below(6)).unwrap() };
            let field = declared.get_field(field).unwrap();
            built.set_field(&field, scalar(&field.kind(), random, depth));
        }
        _ => fill(&mut built, random, depth),
    }
    built
}

fn fill(built: &mut DynamicMessage, random: &mut Random, depth: u32) {
    let declared = built.descriptor();
    let odds = if declared.name() == "All" { 4 } else { 2 };
    for field in declared.fields() {
        let any = matches!(field.kind(), Kind::Message(inner) if inner.full_name() == "google.protobuf.Any");
        let deep = depth > 2
            && matches!(field.kind(), Kind::Message(inner) if inner.parent_file().name() == "everything.proto");
        if any || deep || random.below(odds) != 0 {
            continue;
        }
        let kind = field.kind();
        let value = if field.is_map() {
            let Kind::Message(entry) = &kind else { unreachable!() };
            let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
            let entries = (0..random.below(4)).map(|_| {
                let key = match scalar(&key, random, depth) {
                    Reflected::Bool(key) => MapKey::Bool(key),
                    Reflected::I32(key) => MapKey::I32(key),
                    Reflected::I64(key) => MapKey::I64(key),
                    Reflected::U32(key) => MapKey::U32(key),
                    Reflected::U64(key) => MapKey::U64(key),
                    Reflected::String(key) => MapKey::String(key),
                    other => panic!("{other:?}"),
                };
                (key, scalar(&value, random, depth))
            });
            Reflected::Map(entries.collect())
        } else if field.is_list() {
            Reflected::List((0..random.below(4)).map(|_| scalar(&kind, random, depth)).collect())
        } else {
            scalar(&kind, random, depth)
        };
        assert!(built.try_set_field(&field, value).is_ok(), "{}", field.full_name());
    }
}

/// `1` and `1.0` are one number.
pub(super) fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64().unwrap()),
        Value::Array(values) => values.into_iter().map(plain).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, plain(value))).collect(),
        other => other,
    }
}

#[test]
fn as_prost_reflect() {
    let declared = descriptor();
    let mut random = Random(0x5EED);
    for round in 0..4000 {
        let wire = message(&declared, &mut random, 0).encode_to_vec();
        let built = DynamicMessage::decode(declared.clone(), &*wire).unwrap(); // zeros that were set are gone
        let theirs = serde_json::to_value(&built).unwrap();
        let ours = show(&wire, TERSE);
        assert_eq!(plain(ours.clone()), plain(theirs.clone()), "{round}");

        let decode = |wire: &[u8]| DynamicMessage::decode(declared.clone(), wire).unwrap();
        for (json, style) in
            [(&theirs, TERSE), (&ours, TERSE), (&show(&wire, Style::CANONICAL), Style::CANONICAL)]
        {
            let text = serde_json::to_vec(json).unwrap();
            let back = read(&EVERYTHING.0, all(), &text, style).unwrap();
            // Debug of recursive descriptors does not end, so no assert_eq.
            assert!(decode(&back) == built, "{round} {json}");
        }
        assert!(DynamicMessage::deserialize(declared.clone(), &ours).unwrap() == built, "{round} {ours}");
    }
}

#[test]
fn every_double_comes_back_bit_by_bit() {
    let mut random = Random(5);
    for _ in 0..20_000 {
        for (key, bits) in
            [(0x09, random.next().to_le_bytes().to_vec()), (0x15, random.next().to_le_bytes()[..4].to_vec())]
        {
            let wire = [&[key], &*bits].concat();
            let mut text = Vec::new();
            write(&EVERYTHING.0, all(), &wire, TERSE, &mut text).unwrap();
            let back = read(&EVERYTHING.0, all(), &text, TERSE).unwrap();
            let nan = text.windows(3).any(|part| part == b"NaN");
            assert!(back == wire || nan, "{}", String::from_utf8_lossy(&text));
        }
    }
}

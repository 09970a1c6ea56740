//! Preferences of a user, kept for the caller.

use serde_json::{Map, Value};

/// A JSON object of at most [`Prefs::MAX_BYTES`] and [`Prefs::MAX_LEVELS`] levels, as the text that is
/// stored.
#[derive(Clone, Debug)]
pub struct Prefs {
    text: String,
    /// The object, if it was at hand when the text was made: to read the text again would cost as much once
    /// more.
    map: Option<Map<String, Value>>,
}

/// Changes of [`Prefs`]: a null removes its key.
#[derive(Clone, Debug)]
pub struct PrefsChanges(Map<String, Value>);

/// Why an object is not [`Prefs`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefsInvalid {
    /// All of them together.
    #[error("must have at most 64 KiB in all")]
    Size,
    /// Objects and lists in objects and lists.
    #[error("is nested deeper than {} levels", Prefs::MAX_LEVELS)]
    Levels,
}

impl PrefsChanges {
    /// Checks size and nesting.
    pub fn parse(map: Map<String, Value>) -> Result<Self, PrefsInvalid> {
        if map.values().map(levels).max().unwrap_or(0) >= Prefs::MAX_LEVELS {
            return Err(PrefsInvalid::Levels);
        }
        let mut size = ByteCounter(0);
        // Counting cannot fail, nor can printing a value.
        let _ = serde_json::to_writer(&mut size, &map);
        if size.0 > Prefs::MAX_BYTES { Err(PrefsInvalid::Size) } else { Ok(Self(map)) }
    }
}

/// Counts the bytes that are written.
struct ByteCounter(usize);

impl std::io::Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Prefs {
    /// Most bytes, as JSON without white space.
    pub const MAX_BYTES: usize = 64 * 1024;
    /// Deepest nesting; the object itself is the first level. Readers of protobuf stop at 100 messages, and
    /// each level of a `google.protobuf.Struct` is three.
    pub const MAX_LEVELS: usize = 32;

    /// The object that our own table holds as text. It is read when it is asked for: a log-in needs none of
    /// it.
    pub fn from_trusted(text: String) -> Self {
        Self { text, map: None }
    }

    /// As stored.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// These with every key of `changes` written, and without those that are null there.
    pub fn merged(self, changes: PrefsChanges) -> Result<Self, PrefsInvalid> {
        let mut map = self.into_map();
        for (key, value) in changes.0 {
            if value.is_null() {
                map.remove(&key);
            } else {
                map.insert(key, value);
            }
        }
        let map = Value::Object(map);
        let text = map.to_string();
        match map {
            Value::Object(map) if text.len() <= Self::MAX_BYTES => Ok(Self { text, map: Some(map) }),
            _ => Err(PrefsInvalid::Size),
        }
    }

    /// The object itself.
    pub fn into_map(self) -> Map<String, Value> {
        self.map.unwrap_or_else(|| serde_json::from_str(&self.text).unwrap_or_default())
    }
}

impl Default for Prefs {
    fn default() -> Self {
        Self { text: "{}".to_owned(), map: Some(Map::new()) }
    }
}

impl PartialEq for Prefs {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Prefs {}

/// Returns how deep objects and lists are nested. The reader of the message has bounded it.
fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changes(json: Value) -> Result<PrefsChanges, PrefsInvalid> {
        let Value::Object(map) = json else { panic!("not an object") };
        PrefsChanges::parse(map)
    }

    fn prefs(json: Value) -> Prefs {
        Prefs::default().merged(changes(json).unwrap()).unwrap()
    }

    #[test]
    fn merging_writes_removes_and_leaves_alone() {
        let old = prefs(json!({"a": 1, "b": {"x": 1}, "c": [1]}));
        let merged = old
            .merged(changes(json!({"b": {"y": 2}, "c": null, "d": null, "e": {"z": null}})).unwrap())
            .unwrap();
        assert_eq!(merged, prefs(json!({"a": 1, "b": {"y": 2}, "e": {"z": null}})));
    }

    #[test]
    fn limits_are_exact() {
        let of = |bytes: usize| json!({"k": "v".repeat(bytes - r#"{"k":""}"#.len())});
        assert!(changes(of(Prefs::MAX_BYTES)).is_ok());
        assert_eq!(changes(of(Prefs::MAX_BYTES + 1)).unwrap_err(), PrefsInvalid::Size);
        let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert!(changes(nested(32)).is_ok());
        assert_eq!(changes(nested(33)).unwrap_err(), PrefsInvalid::Levels);
        let half = |key: &str| json!({ key: "v".repeat(40_000) });
        assert_eq!(prefs(half("a")).merged(changes(half("b")).unwrap()), Err(PrefsInvalid::Size));
    }

    #[test]
    fn stored_text_is_read_when_it_is_asked_for() {
        let stored = Prefs::from_trusted(r#"{"a":1}"#.to_owned());
        assert_eq!(stored, prefs(json!({"a": 1})));
        assert_eq!(stored.into_map(), prefs(json!({"a": 1})).into_map());
        assert!(Prefs::from_trusted(String::new()).into_map().is_empty());
    }
}

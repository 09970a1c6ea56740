//! What a user prefers, kept for the caller.

use serde_json::{Map, Value};

/// A JSON object of at most [`Prefs::MAX_BYTES`] and [`Prefs::MAX_LEVELS`] levels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prefs(Map<String, Value>);

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

impl Prefs {
    /// Most bytes, as JSON without white space.
    pub const MAX_BYTES: usize = 64 * 1024;
    /// Deepest nesting; the object itself is the first level. Readers of protobuf stop at 100 messages, and each
    /// level of a `google.protobuf.Struct` is three.
    pub const MAX_LEVELS: usize = 32;

    /// Checks size and nesting.
    ///
    /// # Errors
    ///
    /// [`PrefsInvalid`]
    pub fn parse(map: Map<String, Value>) -> Result<Self, PrefsInvalid> {
        if map.values().map(levels).max().unwrap_or(0) >= Self::MAX_LEVELS {
            return Err(PrefsInvalid::Levels);
        }
        let prefs = Self(map);
        if prefs.to_text().len() > Self::MAX_BYTES { Err(PrefsInvalid::Size) } else { Ok(prefs) }
    }

    /// The object that our own table holds as text.
    #[must_use]
    pub fn from_trusted(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap_or_default())
    }

    /// As stored.
    #[must_use]
    pub fn to_text(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// These with every key of `changes` written, and without those that are null there.
    ///
    /// # Errors
    ///
    /// [`PrefsInvalid`] if they are too many together.
    pub fn merged(mut self, changes: Self) -> Result<Self, PrefsInvalid> {
        for (key, value) in changes.0 {
            if value.is_null() {
                self.0.remove(&key);
            } else {
                self.0.insert(key, value);
            }
        }
        Self::parse(self.0)
    }

    /// The object itself.
    #[must_use]
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }
}

/// How deep objects and lists lie in each other. The reader of the message has bounded it.
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

    fn prefs(json: Value) -> Prefs {
        let Value::Object(map) = json else { panic!("not an object") };
        Prefs::parse(map).unwrap()
    }

    #[test]
    fn merging_writes_removes_and_leaves_alone() {
        let old = prefs(json!({"a": 1, "b": {"x": 1}, "c": [1]}));
        let merged =
            old.merged(prefs(json!({"b": {"y": 2}, "c": null, "d": null, "e": {"z": null}}))).unwrap();
        assert_eq!(merged, prefs(json!({"a": 1, "b": {"y": 2}, "e": {"z": null}})));
    }

    #[test]
    fn limits_are_exact() {
        let of = |bytes: usize| json!({"k": "v".repeat(bytes - r#"{"k":""}"#.len())});
        assert!(Prefs::parse(of(Prefs::MAX_BYTES).as_object().unwrap().clone()).is_ok());
        let more = of(Prefs::MAX_BYTES + 1).as_object().unwrap().clone();
        assert_eq!(Prefs::parse(more), Err(PrefsInvalid::Size));
        let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert!(Prefs::parse(nested(32).as_object().unwrap().clone()).is_ok());
        assert_eq!(Prefs::parse(nested(33).as_object().unwrap().clone()), Err(PrefsInvalid::Levels));
        let half = |key: &str| prefs(json!({ key: "v".repeat(40_000) }));
        assert_eq!(half("a").merged(half("b")), Err(PrefsInvalid::Size));
    }
}

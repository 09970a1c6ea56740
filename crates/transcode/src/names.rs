//! Fields that are known by their names: the entity tag of a message, and how JSON spells a path.

use super::json::{Wire, close, next_wire, open};
use super::schema::{Cardinality, FieldType, Message, MessageId, Schema};

/// The field that holds an entity tag (AIP-154).
const ETAG: &str = "etag";

impl Schema {
    /// Returns a path in proto names as JSON spells it: `email_verified` as `emailVerified`. What is no field, such as a
    /// key of a map, stays as it is.
    pub fn json_path(&self, id: MessageId, path: &str) -> String {
        let mut message = Some(self.message(id));
        let mut spelled = Vec::new();
        for step in path.split('.') {
            let (name, index) = step.split_at(step.find('[').unwrap_or(step.len()));
            let field = message.and_then(|message| Some(&message.fields[message.by_name(name, 0)?]));
            spelled
                .push(field.map_or_else(|| step.to_owned(), |field| format!("{}{index}", field.json_name())));
            message = field
                .filter(|field| field.cardinality != Cardinality::Map)
                .and_then(|field| self.target(field));
        }
        spelled.join(".")
    }

    /// Appends `etag` to an encoded message. Returns false if the message has no such field, or has one already.
    pub fn put_etag(&self, id: MessageId, etag: &str, message: &mut Vec<u8>) -> bool {
        let Some(number) = etag_field(self.message(id)) else { return false };
        if text_of(number, message).is_some_and(|given| !given.is_empty()) {
            return false;
        }
        let start = open(message, number);
        message.extend_from_slice(etag.as_bytes());
        close(message, start);
        true
    }

    /// Returns the entity tag of an encoded message, or of the message in its first field that has one.
    pub fn etag_of<'a>(&self, id: MessageId, encoded: &'a [u8]) -> Option<&'a str> {
        let message = self.message(id);
        if let Some(number) = etag_field(message) {
            return text_of(number, encoded).filter(|etag| !etag.is_empty());
        }
        let (number, inner) = message
            .fields
            .iter()
            .filter(|field| !field.many())
            .find_map(|field| Some((field.number, etag_field(self.target(field)?)?)))?;
        text_of(inner, bytes_of(number, encoded)?).filter(|etag| !etag.is_empty())
    }
}

fn etag_field(message: &Message) -> Option<u32> {
    let field = &message.fields[message.by_name(ETAG, 0)?];
    (field.kind == FieldType::String && !field.many()).then_some(field.number)
}

fn text_of(number: u32, message: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes_of(number, message)?).ok()
}

/// The last value of a field: it is the one that counts.
fn bytes_of(number: u32, mut message: &[u8]) -> Option<&[u8]> {
    let mut last = None;
    while let Ok(Some((found, value))) = next_wire(&mut message) {
        if found == number
            && let Wire::Bytes(bytes) = value
        {
            last = Some(bytes);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use crate::json::{self, Style};
    use crate::tests::EVERYTHING;

    #[test]
    fn paths_are_spelled_as_in_json() {
        let schema = &EVERYTHING.0;
        let id = schema.message_id("everything.FileRequest").unwrap();
        assert_eq!(schema.json_path(id, "page_size"), "pageSize");
        assert_eq!(schema.json_path(id, "pageSize"), "pageSize");
        assert_eq!(schema.json_path(id, "no_field.page_size"), "no_field.page_size");
        assert!(json::read(schema, id, br#"{"pageSize":1}"#, Style::CANONICAL).is_ok());
    }
}

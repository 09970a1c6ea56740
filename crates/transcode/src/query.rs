//! Query parameters into the message: `a.b=1`, in either spelling, lists by repeated keys.
//!
//! Each is appended to the encoded message as a field of its own; readers of protobuf put the parts together.

use super::escape::{self, BadEscape, Mode};
use super::json;
use super::route::{Body, Capture};
use super::schema::{Cardinality, MessageId, Schema};
use crate::Fields;

/// What the query of one request may say.
pub(super) struct Query<'a> {
    pub(super) schema: &'a Schema,
    pub(super) input: MessageId,
    pub(super) body: Body,
    /// The path wins over the query.
    pub(super) captures: &'a [Capture<'a>],
}

impl Query<'_> {
    /// Appends every parameter to the encoded message `out`, noting those that are at fault.
    ///
    /// # Errors
    ///
    /// [`BadEscape`] if the query is not percent-encoded UTF-8.
    pub(super) fn put(&self, query: &str, out: &mut Vec<u8>, faults: &mut Fields) -> Result<(), BadEscape> {
        let mut seen: Vec<Vec<usize>> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (escape::decode(key, Mode::Query)?, escape::decode(value, Mode::Query)?);
            let shown: String = key.chars().take(64).collect();
            if self.body == Body::All {
                faults.add(shown, "is not a query parameter: the body holds every field");
                continue;
            }
            let steps = match self.resolve(&key) {
                Ok(steps) => steps,
                Err(why) => {
                    faults.add(shown, why);
                    continue;
                }
            };
            let in_body = matches!(self.body, Body::Field(field) if steps.first() == Some(&field));
            if in_body || self.captures.iter().any(|capture| capture.field == steps) {
                continue;
            }
            let put = self.check(&steps, &seen);
            let put = put.and_then(|()| json::put_text(self.schema, self.input, &steps, &value, out));
            if let Err(why) = put {
                faults.add(self.name(&steps), why);
            }
            seen.push(steps);
        }
        Ok(())
    }

    /// The field indices that a key means.
    fn resolve(&self, key: &str) -> Result<Vec<usize>, String> {
        let mut message = self.schema.message(self.input);
        let mut steps = Vec::new();
        let mut names = key.split('.').peekable();
        while let Some(name) = names.next() {
            let unknown = || format!("is not a field of {}", message.name);
            let index = message.by_name(name, 0).ok_or_else(unknown)?;
            let field = &message.fields[index];
            steps.push(index);
            if names.peek().is_some() {
                let inner =
                    self.schema.target(field).filter(|inner| !field.many() && inner.special.is_none());
                message = inner.ok_or("is inside a field that has no fields of its own")?;
            } else if field.cardinality == Cardinality::Map
                || (field.many() && self.schema.target(field).is_some_and(|inner| inner.special.is_none()))
            {
                return Err("cannot be given in a query".to_owned());
            }
        }
        Ok(steps)
    }

    /// Refuses a second value of a single field, and a second member of a oneof.
    fn check(&self, steps: &[usize], seen: &[Vec<usize>]) -> Result<(), std::borrow::Cow<'static, str>> {
        let mut message = self.schema.message(self.input);
        for (depth, step) in steps.iter().enumerate() {
            let field = &message.fields[*step];
            let last = depth + 1 == steps.len();
            if last && !field.many() && seen.iter().any(|other| other == steps) {
                return Err("is given twice".into());
            }
            let rival = seen.iter().find_map(|other| {
                let same_message = other.get(..depth) == steps.get(..depth);
                let rival =
                    &message.fields[*other.get(depth).filter(|rival| same_message && *rival != step)?];
                (field.oneof.is_some() && rival.oneof == field.oneof).then_some(&rival.name)
            });
            if let Some(rival) = rival {
                return Err(format!("cannot be given together with {rival}").into());
            }
            let Some(inner) = self.schema.target(field) else { break };
            message = inner;
        }
        Ok(())
    }

    /// The path in proto names.
    fn name(&self, steps: &[usize]) -> String {
        path_name(self.schema, self.input, steps)
    }
}

/// The path of a field in proto names: `device.address`.
pub(super) fn path_name(schema: &Schema, input: MessageId, steps: &[usize]) -> String {
    let mut message = Some(schema.message(input));
    let mut names = Vec::new();
    for step in steps {
        let Some(field) = message.and_then(|message| message.fields.get(*step)) else { break };
        names.push(&*field.name);
        message = schema.target(field);
    }
    names.join(".")
}

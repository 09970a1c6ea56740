//! The grammar of path templates:
//!
//! ```text
//! Template = "/" Segments [ ":" LITERAL ] ;
//! Segments = Segment { "/" Segment } ;
//! Segment  = "*" | "**" | LITERAL | "{" FieldPath [ "=" Segments ] "}" ;
//! ```
//!
//! Source: `google/api/http.proto`. Stricter here: `**` is the last segment, as that text asks.

/// A template, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) segments: Vec<Segment>,
    pub(super) variables: Vec<Placeholder>,
    /// What stands behind the last `:`.
    pub(super) action: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(String),
    /// `*`
    One,
    /// `**`: any number, also none.
    Rest,
}

/// A variable and the segments it takes, from `start` to before `end`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placeholder {
    pub(super) field: String,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Template {
    /// Parses `text`, or says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let path = text.strip_prefix('/').ok_or("a path begins with /")?;
        let tail = path.rfind(['/', '}']).map_or(0, |at| at + 1);
        let colon = path.get(tail..).and_then(|tail| tail.find(':')).map(|at| tail + at);
        let (path, action) = match colon.and_then(|at| path.split_at_checked(at)) {
            Some((path, action)) => (path, Some(action.trim_start_matches(':').to_owned())),
            None => (path, None),
        };
        let mut template = Self::default();
        template.add(path, false)?;
        template.action = action.map(|action| literal(&action)).transpose()?;
        let before = template.segments.split_last().map_or(&[][..], |(_, before)| before);
        if before.contains(&Segment::Rest) {
            return Err("** is not the last segment");
        }
        Ok(template)
    }

    fn add(&mut self, mut text: &str, inside: bool) -> Result<(), &'static str> {
        loop {
            if let Some(variable) = text.strip_prefix('{') {
                if inside {
                    return Err("a variable inside a variable");
                }
                let (variable, after) = variable.split_once('}').ok_or("a { without its }")?;
                self.variable(variable)?;
                text = after;
            } else {
                let (segment, after) = text.split_at(text.find('/').unwrap_or(text.len()));
                self.segments.push(match segment {
                    "*" => Segment::One,
                    "**" => Segment::Rest,
                    segment => Segment::Literal(literal(segment)?),
                });
                text = after;
            }
            if text.is_empty() {
                return Ok(());
            }
            text = text.strip_prefix('/').ok_or("something behind a }")?;
        }
    }

    fn variable(&mut self, text: &str) -> Result<(), &'static str> {
        let (field, segments) = text.split_once('=').unwrap_or((text, "*"));
        let start = self.segments.len();
        self.add(segments, true)?;
        if self.variables.iter().any(|known| known.field == field) {
            return Err("a variable stands in it twice");
        }
        self.variables.push(Placeholder { field: field.to_owned(), start, end: self.segments.len() });
        Ok(())
    }
}

fn literal(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("an empty segment");
    }
    if text.contains(['{', '}', '*', ':', '=']) {
        return Err("a segment is a word, * or {variable}, and a : stands only before the last word");
    }
    Ok(text.to_owned())
}

//! Names of fields at fault, as `google.rpc.BadRequest` has them.

use std::fmt::Write as _;

/// Where the reader is, innermost step first. Costs nothing until a fault asks for the text.
#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
pub(super) enum Step<'p> {
    Root,
    Field(&'p str),
    Index(usize),
    Key(&'p str),
}

impl<'p> Path<'p> {
    /// The message itself.
    pub(super) const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    pub(super) fn at(&'p self, step: Step<'p>) -> Path<'p> {
        Path { parent: Some(self), step }
    }

    pub(super) fn field(&'p self, name: &'p str) -> Path<'p> {
        self.at(Step::Field(name))
    }

    /// `device.address`, `labels[3]`, `metadata["k"]`. Names that the caller made up are cut at 64 characters.
    pub(super) fn text(&self) -> String {
        let mut text = self.parent.map(Path::text).unwrap_or_default();
        let written = match self.step {
            Step::Root => Ok(()),
            Step::Field(name) => {
                let dot = if text.is_empty() { "" } else { "." };
                write!(text, "{dot}{}", cut(name))
            }
            Step::Index(at) => write!(text, "[{at}]"),
            Step::Key(key) => write!(text, "[{:?}]", cut(key)),
        };
        debug_assert!(written.is_ok(), "a String takes all");
        text
    }
}

/// The first 64 characters.
fn cut(name: &str) -> &str {
    name.char_indices().nth(64).map_or(name, |(end, _)| name.get(..end).unwrap_or_default())
}

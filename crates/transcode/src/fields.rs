//! The fields of a request that are at fault.

/// The fields of one request that break their rule, each with the reason, in the order they were found.
///
/// At most [`Fields::MAX`] of them: the answer travels in headers, of which common clients take 8 KiB, and must not
/// be larger than what was asked.
#[derive(Debug, Default)]
pub struct Fields {
    found: Vec<(String, String)>,
    /// Faults beyond those.
    more: usize,
}

impl Fields {
    /// Most faults that are named one by one.
    pub const MAX: usize = 40;
    /// Most faults that the message repeats.
    const SHOWN: usize = 10;

    /// Notes that `field` is at fault. The same once more is no other fault.
    pub fn add(&mut self, field: impl Into<String>, why: impl Into<String>) {
        let fault = (field.into(), why.into());
        if self.found.last() == Some(&fault) {
            return;
        }
        if self.found.len() < Self::MAX {
            self.found.push(fault);
        } else {
            self.more += 1;
        }
    }

    /// Nothing, or the fields if any is at fault.
    pub fn none(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The value, or `None` after noting why there is none.
    pub fn check<T, E: std::fmt::Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|why| self.add(field, why.to_string())).ok()
    }

    /// [`Fields::check`] for a field that may be absent: `None` only if it is at fault.
    pub fn check_optional<T, E: std::fmt::Display>(
        &mut self,
        field: &str,
        raw: Option<Result<T, E>>,
    ) -> Option<Option<T>> {
        match raw {
            Some(parsed) => self.check(field, parsed).map(Some),
            None => Some(None),
        }
    }

    /// Field and reason, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.found.iter()
    }

    /// Returns true if no field is at fault.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

impl std::fmt::Display for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (field, why)) in self.found.iter().take(Self::SHOWN).enumerate() {
            let gap = if n == 0 { "" } else { "; " };
            write!(f, "{gap}{field} {why}")?;
        }
        match self.found.len().saturating_sub(Self::SHOWN) + self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

//! Labels and metadata: checked lists and maps, whose faults are named one by one.

use std::collections::BTreeMap;

use crate::domain::user::{Labels, Metadata};
use crate::error::Fields;

pub(super) fn labels(raw: &[String], fields: &mut Fields) -> Option<Labels> {
    match Labels::parse(raw) {
        Ok(labels) => Some(labels),
        Err(faults) => {
            for (at, why) in faults {
                fields.add(at.map_or_else(|| "labels".to_owned(), |at| format!("labels[{at}]")), why);
            }
            None
        }
    }
}

pub(super) fn metadata(raw: BTreeMap<String, String>, fields: &mut Fields) -> Option<Metadata> {
    match Metadata::parse(raw) {
        Ok(metadata) => Some(metadata),
        Err(faults) => {
            for fault in faults {
                fields.add("metadata", fault.to_string());
            }
            None
        }
    }
}

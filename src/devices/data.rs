//! The expressions of `ua-parser`: tables that `build.rs` made of `data/regexes.yaml`. Each row is the
//! expression, then the replacements of its captures, in the order of the fields.

include!(concat!(env!("OUT_DIR"), "/user_agents.rs"));

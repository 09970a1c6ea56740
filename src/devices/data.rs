//! What `ua-parser` reads user agents by: tables that `build.rs` made of the data in that package. Of each row the
//! expression, then the replacements of what it captures, in the order of the fields.

include!(concat!(env!("OUT_DIR"), "/user_agents.rs"));

//! Which project a request is for: its namespace.

use http::HeaderValue;
use http::request::Parts;

use crate::http::dialect;

const PROJECT: &str = "x-appwrite-project";

/// Our own names for it, which the gate reads, too.
const NAMESPACE: [&str; 2] = ["usersd-namespace", "micro-namespace"];

/// Where a key may be. A key has a namespace of its own.
const KEYS: [&str; 3] = ["x-appwrite-key", "authorization", "x-access-token"];

/// Whether `field` of a refusal is one of the headers that name the namespace.
pub(super) fn is_named_by(field: &str) -> bool {
    field == PROJECT || NAMESPACE.contains(&field)
}

/// Puts the project where the gate looks for it, and says whether the request can be of one. One that is in the query
/// goes beside one in the header: the gate refuses a request that names two.
pub(super) fn settle(head: &mut Parts) -> bool {
    if head.headers.get(PROJECT).is_some_and(HeaderValue::is_empty) {
        head.headers.remove(PROJECT);
    }
    match dialect::parameter(head, "project") {
        Ok(Some(project)) if !project.is_empty() => match HeaderValue::try_from(project) {
            Ok(project) => {
                head.headers.append(PROJECT, project);
            }
            Err(_) => return false,
        },
        Ok(_) => {}
        Err(_) => return false,
    }
    let given = |name: &&str| head.headers.get(*name).is_some_and(|value| !value.is_empty());
    [PROJECT].iter().chain(&NAMESPACE).chain(&KEYS).any(given)
}

/// The project's name for a message.
pub(super) fn name(head: &Parts) -> &str {
    head.headers.get(PROJECT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

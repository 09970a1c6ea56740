//! The names of the headers that say who calls, for which namespace and from where. Aliases are those of the
//! systems that this one stands in for.

/// Carries the key, or one of its aliases does.
pub(crate) const KEY: [&str; 3] = ["authorization", "x-access-token", "x-appwrite-key"];

/// The Appwrite SDKs' name of the namespace.
pub(crate) const APPWRITE_PROJECT: &str = "x-appwrite-project";

/// Name the namespace; all that are present must agree.
pub(crate) const NAMESPACE: [&str; 3] = ["usersd-namespace", "micro-namespace", APPWRITE_PROJECT];

/// Names a change, so that the same one asked for again is made once.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The addresses that trusted proxies saw.
pub(crate) const FORWARDED_FOR: &str = "x-forwarded-for";

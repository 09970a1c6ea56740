//! The sentences that callers know: what a parameter must be.

pub(super) const UID: &str = "Invalid UID format";
pub(super) const EMAIL: &str = "Value must be a valid email address";
pub(super) const NAME: &str = "Value must be a valid string and no longer than 128 chars";
pub(super) const SEARCH: &str = "Value must be a valid string and no longer than 256 chars";
pub(super) const LIMIT: &str = "Value must be a valid range between 0 and 100";
/// We take any offset from 0 on.
pub(super) const OFFSET: &str = "Value must be a valid range between 0 and 2,000";
pub(super) const ORDER: &str = "Value must be one of (ASC, DESC)";
pub(super) const STATUS: &str = "Value must be one of (1, 2, 0)";
pub(super) const VERIFICATION: &str = "Value must be a valid boolean";
pub(super) const PREFS: &str = "Value must be a valid object.";
/// The policy has sentences of its own; this is for a value that is no text.
pub(super) const PASSWORD: &str = "must be a string";

/// Describes a parameter that is not what it must be.
pub(super) fn invalid(name: &str, must: &str) -> String {
    format!("Invalid {name}: {must}")
}

/// Describes a parameter that is missing.
pub(super) fn required(name: &str) -> String {
    format!("Param \"{name}\" is not optional.")
}

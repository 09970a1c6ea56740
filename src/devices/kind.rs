//! The kinds of devices: phone, tablet, television, ....

/// Words that only the user agents of televisions have, and of what is plugged into one.
const TV: &[&str] = &[
    "SMART-TV",
    "SmartTV",
    "Smart-TV",
    "Smart TV",
    "HbbTV",
    "AppleTV",
    "Apple TV",
    "GoogleTV",
    "Android TV",
    "BRAVIA",
    "VIERA",
    "NetCast",
    "Web0S",
    "CrKey",
    "Roku",
];

const CONSOLE: &[&str] = &["PlayStation", "Xbox", "Nintendo"];

const WEARABLE: &[&str] = &["Apple Watch", "Watch OS", "OculusBrowser"];

/// Words that old phones have, of which the system is not known.
const PHONE: &[&str] = &["Mobile", "MIDP", "Phone"];

/// The kind of a browser's device. `usual` is where its system runs as a rule.
pub(super) fn kind(agent: &str, usual: &'static str, os_code: &str, model: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| agent.contains(word));
    // Amazon's and Samsung's own names of models; such things call themselves phones.
    if has(TV) || model.starts_with("AFT") {
        "tv"
    } else if has(CONSOLE) {
        "console"
    } else if has(WEARABLE) || model.starts_with("SM-R") {
        "wearable"
    } else if model.starts_with("iPad") || (os_code == "AND" && !is_phone(agent)) {
        "tablet"
    } else if usual.is_empty() && has(PHONE) {
        "smartphone"
    } else {
        usual
    }
}

/// Browsers on Android say `Mobile` on phones alone; but Firefox, `Tablet` on tablets.
fn is_phone(agent: &str) -> bool {
    agent.contains("Mobile") && !agent.contains("Tablet")
}

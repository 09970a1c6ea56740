//! The engine of a browser, derived from old tokens of its user agent.

/// The first Chrome whose engine was called Blink.
const FIRST_BLINK: u32 = 28;

/// Name and version; both empty if the engine is none of the five we name.
pub(super) fn engine(agent: &str) -> (&'static str, &str) {
    // The order matters: each of these claims to be like those below it.
    if agent.contains("Trident/") || agent.contains("MSIE ") {
        return ("Trident", version(agent, "Trident/"));
    }
    if agent.contains("Presto/") {
        return ("Presto", version(agent, "Presto/"));
    }
    // Edge before it was Chromium: EdgeHTML, whatever else it says.
    if agent.contains(" Edge/") {
        return ("", "");
    }
    if agent.contains("AppleWebKit/") {
        let chrome = version(agent, "Chrome/");
        let major = chrome.split('.').next().and_then(|major| major.parse::<u32>().ok());
        return match major {
            // Blink has no number of its own: its version is Chrome's, and AppleWebKit/537.36 is frozen.
            Some(major) if major >= FIRST_BLINK => ("Blink", chrome),
            _ => ("WebKit", version(agent, "AppleWebKit/")),
        };
    }
    if agent.contains("Gecko/") {
        return ("Gecko", version(agent, "rv:"));
    }
    ("", "")
}

/// The digits and dots after the first `token`.
fn version<'a>(agent: &'a str, token: &str) -> &'a str {
    let rest = agent.split_once(token).map_or("", |(_, rest)| rest);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default().trim_end_matches('.')
}

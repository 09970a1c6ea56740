//! User agents: what the parser sees in them, put into the words of the contract.

use std::borrow::Cow;
use std::sync::LazyLock;

use ua_parser::user_agent::ValueRef;
use ua_parser::{Extractor, Regexes, device, os, user_agent};

use super::{data, engine, kind, names};
use crate::domain::device::Details;

/// Made when the first user agent is read, not at start: it takes 0.1 s of a CPU and 31 MiB, and a server
/// that is not asked for sessions or logs shall stay under 25 MiB.
static PARSER: LazyLock<Option<Extractor<'static>>> = LazyLock::new(|| {
    let made = parser();
    if let Err(error) = &made {
        tracing::error!(%error, "the parser of user agents cannot be built: device details stay empty");
    }
    made.ok()
});

/// The kinds of programs that send user agents.
const BROWSER: &str = "browser";
const LIBRARY: &str = "library";
const BOT: &str = "bot";

/// The parser's name for the devices of bots.
const SPIDER: &str = "Spider";

/// Names and versions longer than this are not what a program is called.
const MAX_PRODUCT: usize = 64;

/// Details without the country.
pub(super) fn describe(agent: &str) -> Details {
    if agent.is_empty() {
        return Details::default();
    }
    let Some(parser) = PARSER.as_ref() else { return Details::default() };
    let (seen, os, device) = parser.extract(agent);
    let mut details = Details::default();
    let spider = device.as_ref().is_some_and(|device| device.device == SPIDER);
    let usual = os.map_or("", |os| system(&mut details, &os, is_ipad(device.as_ref())));
    client(&mut details, agent, seen, spider);
    if details.client_type == BROWSER {
        let (engine, version) = engine::engine(agent);
        details.client_engine = engine;
        version.clone_into(&mut details.client_engine_version);
    }
    if let Some(device) = device.filter(|_| !spider) {
        make(&mut details, device);
    }
    // A library runs anywhere, and a bot says what it likes.
    if details.client_type != LIBRARY && details.client_type != BOT {
        details.device_name = kind::kind(agent, usual, details.os_code, &details.device_model);
    }
    details
}

fn is_ipad(device: Option<&device::ValueRef<'_>>) -> bool {
    device.is_some_and(|device| device.device.starts_with("iPad"))
}

/// Fills in the system; returns the kind of device it usually runs on.
fn system(details: &mut Details, os: &os::ValueRef<'_>, ipad: bool) -> &'static str {
    let major = os.major.as_deref();
    let recent = || major.and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 13);
    details.os_version =
        version([major, os.minor.as_deref(), os.patch.as_deref(), os.patch_minor.as_deref()]);
    let known = match names::system(&os.os) {
        Some((_, "IOS", ..)) if ipad && recent() => Some(&names::IPAD_OS),
        known => known,
    };
    if let Some((_, code, name, usual)) = known {
        details.os_code = code;
        details.os_name = Cow::Borrowed(name);
        return usual;
    }
    details.os_name = Cow::Owned(os.os.to_string());
    ""
}

/// Fills in the program.
fn client(details: &mut Details, agent: &str, seen: Option<ValueRef<'_>>, spider: bool) {
    // Every browser of today begins so, and some libraries.
    let web = agent.starts_with("Mozilla/") || agent.starts_with("Opera/");
    // Without that it is not Android's browser but a program on Android.
    let seen = seen.filter(|seen| web || seen.family != "Android");
    let Some(seen) = seen else { return unseen(details, agent, web, spider) };
    let browser = names::browser(&seen.family);
    details.client_version = version([seen.major, seen.minor, seen.patch, seen.patch_minor]);
    // Silk is a browser that has the word for a bot in the parser's data.
    if spider && seen.family != "Amazon Silk" && !names::is_library(&seen.family) {
        details.client_type = BOT;
    } else if let Some((code, name)) = browser {
        details.client_type = BROWSER;
        details.client_code = code;
        details.client_name = Cow::Borrowed(name);
        return;
    } else if web && !names::is_library(&seen.family) {
        details.client_type = BROWSER;
    } else {
        details.client_type = LIBRARY;
    }
    details.client_name = Cow::Owned(seen.family.into_owned());
}

/// Fills in a program that the parser does not know, from what it calls itself.
fn unseen(details: &mut Details, agent: &str, web: bool, spider: bool) {
    let product = if web { None } else { product(agent) };
    details.client_type = match product {
        _ if spider => BOT,
        Some((name, _)) if names::browser(name).is_some() => BROWSER,
        Some(_) => LIBRARY,
        None if web && !engine::engine(agent).0.is_empty() => BROWSER,
        None => "",
    };
    if let Some((name, version)) = product {
        details.client_name = Cow::Owned(name.to_owned());
        version.clone_into(&mut details.client_version);
    }
}

/// The first product of a user agent like `grpc-go/1.60 (linux)`, with its version; of a single word, the
/// word.
fn product(agent: &str) -> Option<(&str, &str)> {
    let (first, more) = agent.split_once(' ').map_or((agent, false), |(first, _)| (first, true));
    let (name, version) = match first.split_once('/') {
        Some(parts) => parts,
        None if more => return None,
        None => (first, ""),
    };
    let token = |text: &str| {
        text.len() <= MAX_PRODUCT && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+~".contains(&b))
    };
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic()) && token(name);
    named.then(|| (name, if token(version) { version } else { "" }))
}

/// Fills in who made the device and which it is. What the parser calls generic it does not know.
fn make(details: &mut Details, device: device::ValueRef<'_>) {
    let brand = device.brand.unwrap_or_default();
    // Chrome says K for every Android, and a program on iOS does not say on what.
    let is_named = !["K", "iOS-Device"].contains(&&*device.device) && brand != "Generic";
    if is_named {
        details.device_model = device.model.unwrap_or_default().into_owned();
    }
    if !brand.starts_with("Generic") {
        details.device_brand = brand.into_owned();
    }
}

/// Joined by dots, up to the first that is absent.
fn version(parts: [Option<&str>; 4]) -> String {
    let parts: Vec<&str> = parts.into_iter().map_while(|part| part.filter(|part| !part.is_empty())).collect();
    parts.join(".")
}

/// The parser of the tables in [`data`], which it borrows.
fn parser() -> Result<Extractor<'static>, ua_parser::Error> {
    let text = |text: Option<&'static str>| text.map(Cow::Borrowed);
    let agents =
        data::USER_AGENT_PARSERS.iter().map(|&(regex, [family, v1, v2, v3, v4])| user_agent::Parser {
            regex: Cow::Borrowed(regex),
            family_replacement: text(family),
            v1_replacement: text(v1),
            v2_replacement: text(v2),
            v3_replacement: text(v3),
            v4_replacement: text(v4),
        });
    let systems = data::OS_PARSERS.iter().map(|&(regex, [name, v1, v2, v3, v4])| os::Parser {
        regex: Cow::Borrowed(regex),
        os_replacement: text(name),
        os_v1_replacement: text(v1),
        os_v2_replacement: text(v2),
        os_v3_replacement: text(v3),
        os_v4_replacement: text(v4),
    });
    let devices = data::DEVICE_PARSERS.iter().map(|&(regex, [flag, name, brand, model])| device::Parser {
        regex: Cow::Borrowed(regex),
        regex_flag: flag.map(|_| device::Flag::IgnoreCase),
        device_replacement: text(name),
        brand_replacement: text(brand),
        model_replacement: text(model),
    });
    Extractor::try_from(Regexes {
        user_agent_parsers: agents.collect(),
        os_parsers: systems.collect(),
        device_parsers: devices.collect(),
    })
}

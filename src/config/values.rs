//! Reads settings from text and shows them as TOML.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use ipnet::IpNet;
use url::{Url, form_urlencoded};

use crate::domain::postgres_url::split_hosts;

use super::sections::DAY;
use super::tls_callers;
use super::types::{AppwritePrefs, Auth, ClientAuth, LogFormat, ReadUrl, TlsCaller};

/// Reads a number within `range`.
pub(super) fn number<T: FromStr + PartialOrd + Display>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> {
    move |text| match text.parse::<T>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("must be {} to {}", range.start(), range.end())),
    }
}

/// Reads a number within `range`, or the word for none.
pub(super) fn number_or<T: FromStr + PartialOrd + Display>(
    word: &'static str,
    range: RangeInclusive<T>,
    unit: &'static str,
) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| match text.parse::<T>() {
        _ if text == word => Ok(None),
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        _ => Err(format!("must be `{word}` or {} to {}{unit}", range.start(), range.end())),
    }
}

/// Reads one of the names of an enum.
pub(super) fn choice<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let names = T::value_variants().iter().map(|variant| format!("`{}`", name_of(variant)));
        format!("must be {}", names.collect::<Vec<_>>().join(" or "))
    })
}

fn name_of(variant: &impl ValueEnum) -> String {
    variant.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an address and port like 127.0.0.1:8080 or [::]:8080".to_owned())
}

pub(super) fn optional_address(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "" | "off" => Ok(None),
        _ => address(text)
            .map(Some)
            .map_err(|_| "must be `off` or an address and port like 127.0.0.1:9464".to_owned()),
    }
}

/// The address of a collector of spans, without TLS: that is for an agent on the way there.
pub(super) fn optional_endpoint(text: &str) -> Result<Option<String>, String> {
    let is_endpoint = |url: &Url| url.scheme() == "http" && url.has_host() && url.path() == "/";
    match text {
        "" | "off" => Ok(None),
        _ if Url::parse(text).is_ok_and(|url| is_endpoint(&url)) => Ok(Some(text.to_owned())),
        _ => Err("must be `off` or the address of a collector like http://127.0.0.1:4317".to_owned()),
    }
}

pub(super) fn database(text: &str) -> Result<String, String> {
    let known = ["sqlite:", "postgres:", "postgresql:"];
    if !known.iter().any(|scheme| text.starts_with(scheme)) {
        return Err("must begin with sqlite://, postgres:// or postgresql://".to_owned());
    }
    if text.contains(":memory:") || text.contains("mode=memory") {
        return Err("must be a file: a database in memory loses what was acknowledged".to_owned());
    }
    if text.starts_with("postgres") {
        split_hosts(text)?;
    }
    Ok(text.to_owned())
}

/// Reads the address of a read replica.
pub(super) fn replica(text: &str) -> Result<Option<ReadUrl>, String> {
    match text {
        "off" => Ok(None),
        _ if text.starts_with("postgres:") || text.starts_with("postgresql:") => {
            database(text).map(|url| Some(ReadUrl(url)))
        }
        _ => Err("must be `off` or begin with postgres:// or postgresql://".to_owned()),
    }
}

pub(super) fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "must be a duration like 500ms, 30s, 2h or 7d".to_owned())
}

pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0".to_owned()),
        span => Ok(span),
    }
}

/// Reads a time of a day at least.
pub(super) fn days(text: &str) -> Result<Duration, String> {
    let long = duration(text).ok().filter(|span| *span >= DAY);
    long.ok_or_else(|| "must be a duration of at least a day, like 1d or 30d".to_owned())
}

/// Reads a claim of assertions: a name or a URL.
pub(super) fn claim(text: &str) -> Result<String, String> {
    let fits =
        (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("must be a name or a URL, at most 255 visible ASCII characters".to_owned())
    }
}

pub(super) fn claims(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(claim).collect()
}

pub(super) fn optional_duration(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "off" => Ok(None),
        _ => lifetime(text).map(Some).map_err(|_| "must be `off` or a duration like 12h or 30d".to_owned()),
    }
}

/// A missing file is found when it is opened.
#[expect(clippy::unnecessary_wraps, reason = "as every reader")]
pub(super) fn optional_file(text: &str) -> Result<Option<PathBuf>, String> {
    Ok(Some(text).filter(|text| !["", "off"].contains(text)).map(PathBuf::from))
}

const MIB: usize = 1024 * 1024;

/// Bytes, or a number of KiB or MiB.
pub(super) fn size(text: &str) -> Result<usize, String> {
    bytes(text)
        .filter(|bytes| (1024..=64 * MIB).contains(bytes))
        .ok_or_else(|| "must be a size from 1KiB to 64MiB, like 1MiB or 1048576".to_owned())
}

/// A size of memory, or 0 for none.
pub(super) fn memory(text: &str) -> Result<usize, String> {
    bytes(text)
        .filter(|bytes| *bytes == 0 || (MIB..=MIB * MIB).contains(bytes))
        .ok_or_else(|| "must be 0 or a size from 1MiB to 1048576MiB, like 64MiB".to_owned())
}

fn bytes(text: &str) -> Option<usize> {
    let (digits, unit) = match text.trim_end_matches("iB").split_at_checked(text.len().saturating_sub(3)) {
        Some((digits, "K")) if text.ends_with("KiB") => (digits, 1024),
        Some((digits, "M")) if text.ends_with("MiB") => (digits, MIB),
        _ => (text, 1),
    };
    digits.trim_end().parse::<usize>().ok().and_then(|number| number.checked_mul(unit))
}

/// The HTTP library takes no less.
pub(super) fn headers_size(text: &str) -> Result<usize, String> {
    size(text)
        .ok()
        .filter(|bytes| (8 * 1024..=1024 * 1024).contains(bytes))
        .ok_or_else(|| "must be a size from 8KiB to 1MiB".to_owned())
}

pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let networks: Vec<IpNet> = items
        .map(|item| {
            item.parse().or_else(|_| item.parse().map(|address: std::net::IpAddr| IpNet::from(address)))
        })
        .collect::<Result<_, _>>()
        .map_err(|_| "must be addresses or networks like 10.0.0.0/8".to_owned())?;
    if networks.iter().any(|network| network.prefix_len() == 0) {
        return Err("must not hold every address: any client could name another one as its own".to_owned());
    }
    Ok(networks)
}

/// Names of hosts, or `*.` and the end of such names.
pub(super) fn hosts(text: &str) -> Result<Vec<String>, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let name = item.strip_prefix("*.").unwrap_or(item);
            let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let whole = !name.is_empty() && !name.starts_with('.') && name.chars().all(good);
            whole.then(|| item.to_ascii_lowercase())
        })
        .collect::<Option<_>>()
        .ok_or_else(|| "must be host names without a port like users.internal or *.example.com".to_owned())
}

/// Origins of web pages as browsers write them: in lower case, without the port that the scheme has by default.
pub(super) fn origins(text: &str) -> Result<Vec<String>, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(origin).collect::<Option<_>>().ok_or_else(|| {
        "must be origins like https://app.example.com or http://localhost:3000, without a path; * is none"
            .to_owned()
    })
}

fn origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, host) = text.split_once("://")?;
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    let whole =
        !host.is_empty() && host.chars().all(good) && scheme.starts_with(|c: char| c.is_ascii_lowercase());
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        scheme => {
            return (whole && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)))
                .then_some(text);
        }
    };
    whole.then(|| format!("{scheme}://{}", host.strip_suffix(default_port).unwrap_or(host)))
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("must be error, warn, info, debug, trace or a filter like usersd=debug".to_owned()),
    }
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A setting as TOML, which reads back as the same.
pub(super) trait Show {
    fn show(&self) -> String;
}

macro_rules! show {
    ($($type:ty: |$value:ident| $text:expr;)*) => {
        $(impl Show for $type {
            fn show(&self) -> String {
                let $value = self;
                $text
            }
        })*
    };
}

show! {
    bool: |flag| flag.to_string();
    u32: |number| number.to_string();
    usize: |number| number.to_string();
    String: |text| quoted(text);
    SocketAddr: |address| quoted(&address.to_string());
    Option<SocketAddr>: |address| address.map_or_else(|| quoted("off"), |address| address.show());
    Duration: |span| quoted(&humantime::format_duration(*span).to_string());
    Option<Duration>: |span| span.map_or_else(|| quoted("off"), |span| span.show());
    Option<String>: |text| text.as_ref().map_or_else(|| quoted("off"), |text| quoted(text));
    Option<PathBuf>: |file| file.as_ref().map_or_else(|| quoted("off"), |file| quoted(&file.to_string_lossy()));
    Option<ReadUrl>: |url| url.as_ref().map_or_else(|| quoted("off"), |url| without_password(&url.0));
    // A limit that may be off, and a number of threads that may be left to us.
    Option<u32>: |limit| limit.map_or_else(|| quoted("off"), |limit| limit.to_string());
    Option<usize>: |number| number.map_or_else(|| quoted("auto"), |number| number.to_string());
    Vec<IpNet>: |items| list(items);
    Vec<String>: |items| list(items);
    Vec<TlsCaller>: |callers| tls_callers::show(callers);
    Auth: |auth| quoted(&name_of(auth));
    ClientAuth: |auth| quoted(&name_of(auth));
    AppwritePrefs: |prefs| quoted(&name_of(prefs));
    LogFormat: |format| quoted(&name_of(format));
}

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// The address of a database without the password that may be in its authority or its query. One that cannot
/// be taken apart is not shown.
pub(super) fn without_password(database: &str) -> String {
    if database.starts_with("sqlite:") {
        return quoted(database); // has none, and may be a path that is no URL
    }
    let Ok(mut url) = Url::parse(database) else { return quoted("***") };
    let is_password = |pair: &str| {
        form_urlencoded::parse(pair.as_bytes()).any(|(key, _)| key.eq_ignore_ascii_case("password"))
    };
    let pairs: Vec<&str> = url.query().unwrap_or_default().split('&').collect();
    if url.password().is_none() && !pairs.iter().any(|pair| is_password(pair)) {
        return quoted(database);
    }
    let shown = |pair: &&str| if is_password(pair) { "password=***".to_owned() } else { (*pair).to_owned() };
    let query = url.query().map(|_| pairs.iter().map(shown).collect::<Vec<_>>().join("&"));
    url.set_query(query.as_deref());
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return quoted("***");
    }
    quoted(url.as_str())
}

//! One row a setting: how it is read and how it is shown.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{AppwritePrefs, Auth, ClientAuth, Config, LogFormat, tls_callers};

/// A setting. `deploy/usersd.toml` describes it.
pub struct Setting {
    /// Its key in the file, dotted.
    pub key: &'static str,
    /// Reads it from text; says what it must be if it is not.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// As TOML.
    pub(super) show: fn(&Config) -> String,
}

impl Setting {
    /// Its name in the environment.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("USERSD_{}", self.key.to_uppercase().replace('.', "_"))
    }
}

/// A row: key, field, how to read and how to show its type.
macro_rules! row {
    ($key:literal, $($field:ident).+, $read:expr, $show:expr) => {
        Setting {
            key: $key,
            set: |config, text| {
                config.$($field).+ = $read(text)?;
                Ok(())
            },
            show: |config| $show(&config.$($field).+),
        }
    };
}

/// Every setting, in the order of the file.
pub const SETTINGS: &[Setting] = &[
    row!("listen", listen, address, |v: &SocketAddr| quoted(&v.to_string())),
    row!("database", database, database, |v: &String| quoted(&hide_password(v))),
    row!("auth", auth, auth, |v: &Auth| quoted(v.name())),
    row!("migrate", migrate, flag, bool::to_string),
    row!("grace", grace, duration, show_duration),
    row!("open.health", open_health, flag, bool::to_string),
    row!("open.reflection", open_reflection, flag, bool::to_string),
    row!("tls.cert", tls_cert, optional_file, show_file),
    row!("tls.key", tls_key, optional_file, show_file),
    row!("tls.client_ca", tls_client_ca, optional_file, show_file),
    row!("tls.client_auth", tls_client_auth, client_auth, |v: &ClientAuth| quoted(v.name())),
    row!("tls.callers", tls_callers, tls_callers::read, |v: &Vec<_>| tls_callers::show(v)),
    row!("passwords.cost", passwords_cost, |text: &str| number(text, &(10..=15)), u32::to_string),
    row!("passwords.workers", passwords_workers, workers, |v: &Option<usize>| {
        v.map_or_else(|| quoted("auto"), |workers| workers.to_string())
    }),
    row!("passwords.lanes", passwords_lanes, lanes, |v: &Option<usize>| {
        v.map_or_else(|| quoted("auto"), |lanes| lanes.to_string())
    }),
    row!("passwords.floor", passwords_floor, |text: &str| number(text, &(1..=100)), u32::to_string),
    row!("passwords.max_wait", passwords_max_wait, duration, show_duration),
    row!("passwords.screening", passwords_screening, flag, bool::to_string),
    row!("passwords.blocklist", passwords_blocklist, optional_file, show_file),
    row!(
        "passwords.min_length",
        passwords_min_length,
        |text: &str| number(text, &(1..=128)),
        usize::to_string
    ),
    row!(
        "passwords.max_length",
        passwords_max_length,
        |text: &str| number(text, &(8..=4096)),
        usize::to_string
    ),
    row!("guard.account", guard.account, |text: &str| number(text, &(1..=1_000)), u32::to_string),
    row!("guard.address", guard.address, |text: &str| number(text, &(0..=1_000_000)), u32::to_string),
    row!("guard.caller", guard.caller, |text: &str| number(text, &(0..=100_000_000)), u32::to_string),
    row!("guard.free", guard.free, |text: &str| number(text, &(1..=1_000)), u32::to_string),
    row!("guard.first_wait", guard.first_wait, duration, show_duration),
    row!("guard.longest_wait", guard.longest_wait, duration, show_duration),
    row!("guard.familiar", guard.familiar, duration, show_duration),
    row!("sessions.lifetime", sessions_lifetime, lifetime, show_duration),
    row!("sessions.idle", sessions_idle, optional_duration, |v: &Option<Duration>| {
        v.as_ref().map_or_else(|| quoted("off"), show_duration)
    }),
    row!("trash.keep", trash_keep, optional_duration, |v: &Option<Duration>| {
        v.as_ref().map_or_else(|| quoted("off"), show_duration)
    }),
    row!("logs.keep", logs_keep, optional_duration, |v: &Option<Duration>| {
        v.as_ref().map_or_else(|| quoted("off"), show_duration)
    }),
    row!("geoip.database", geoip_database, optional_file, show_file),
    row!("appwrite.prefs", appwrite_prefs, appwrite_prefs, |v: &AppwritePrefs| quoted(v.name())),
    row!("http.max_body", http_max_body, size, usize::to_string),
    row!("http.max_headers", http_max_headers, headers_size, usize::to_string),
    row!("http.header_timeout", http_header_timeout, lifetime, show_duration),
    row!("http.idle_timeout", http_idle_timeout, lifetime, show_duration),
    row!("http.max_age", http_max_age, optional_duration, |v: &Option<Duration>| {
        v.as_ref().map_or_else(|| quoted("off"), show_duration)
    }),
    row!("http.max_streams", http_max_streams, |text: &str| number(text, &(1..=100_000)), u32::to_string),
    row!("http.max_resets", http_max_resets, |text: &str| number(text, &(1..=1_000_000)), u32::to_string),
    row!("http.max_pings", http_max_pings, |text: &str| number(text, &(1..=1_000_000)), u32::to_string),
    row!("http.keepalive", http_keepalive, lifetime, show_duration),
    row!("http.keepalive_timeout", http_keepalive_timeout, lifetime, show_duration),
    row!("http.trusted_proxies", http_trusted_proxies, networks, |v: &Vec<IpNet>| list(v)),
    row!("http.hosts", http_hosts, hosts, |v: &Vec<String>| list(v)),
    row!("limits.calls", limits_calls, |text: &str| number(text, &(1..=1_000_000)), usize::to_string),
    row!(
        "limits.calls_per_caller",
        limits_calls_per_caller,
        |text: &str| number(text, &(1..=1_000_000)),
        usize::to_string
    ),
    row!(
        "limits.calls_per_namespace",
        limits_calls_per_namespace,
        |text: &str| number(text, &(1..=1_000_000)),
        usize::to_string
    ),
    row!("limits.rate", limits_rate, rate, show_rate),
    row!("limits.rate_per_caller", limits_rate_per_caller, rate, show_rate),
    row!(
        "limits.connections",
        limits_connections,
        |text: &str| number(text, &(1..=1_000_000)),
        usize::to_string
    ),
    row!(
        "limits.connections_per_address",
        limits_connections_per_address,
        |text: &str| number(text, &(1..=1_000_000)),
        usize::to_string
    ),
    row!("pool.connections", pool_connections, |text: &str| number(text, &(2..=1_000)), u32::to_string),
    row!("pool.list_timeout", pool_list_timeout, lifetime, show_duration),
    row!("log.level", log_level, log_level, |v: &String| quoted(v)),
    row!("log.format", log_format, log_format, |v: &LogFormat| quoted(v.name())),
];

fn number<T: std::str::FromStr + PartialOrd + std::fmt::Display>(
    text: &str,
    range: &RangeInclusive<T>,
) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("must be {} to {}", range.start(), range.end())),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an address and port like 127.0.0.1:8080 or [::]:8080".to_owned())
}

fn database(text: &str) -> Result<String, String> {
    let known = ["sqlite:", "postgres:", "postgresql:"];
    if !known.iter().any(|scheme| text.starts_with(scheme)) {
        return Err("must begin with sqlite://, postgres:// or postgresql://".to_owned());
    }
    if text.contains(":memory:") || text.contains("mode=memory") {
        return Err("must be a file: a database in memory loses what was acknowledged".to_owned());
    }
    Ok(text.to_owned())
}

fn auth(text: &str) -> Result<Auth, String> {
    match text {
        "keys" => Ok(Auth::Keys),
        "off" => Ok(Auth::Off),
        _ => Err("must be `keys` or `off`".to_owned()),
    }
}

fn appwrite_prefs(text: &str) -> Result<AppwritePrefs, String> {
    match text {
        "merge" => Ok(AppwritePrefs::Merge),
        "replace" => Ok(AppwritePrefs::Replace),
        _ => Err("must be `merge` or `replace`".to_owned()),
    }
}

fn client_auth(text: &str) -> Result<ClientAuth, String> {
    match text {
        "required" => Ok(ClientAuth::Required),
        "optional" => Ok(ClientAuth::Optional),
        _ => Err("must be `required` or `optional`".to_owned()),
    }
}

/// Calls a second.
fn rate(text: &str) -> Result<Option<u32>, String> {
    match text {
        "off" => Ok(None),
        _ => number(text, &(1..=1_000_000))
            .map(Some)
            .map_err(|_| "must be `off` or 1 to 1000000 calls a second".to_owned()),
    }
}

fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "must be a duration like 500ms, 30s, 2h or 7d".to_owned())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than nothing".to_owned()),
        span => Ok(span),
    }
}

fn optional_duration(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "off" => Ok(None),
        _ => lifetime(text).map(Some).map_err(|_| "must be `off` or a duration like 12h or 30d".to_owned()),
    }
}

/// Whether there is such a file shows when it is opened.
#[expect(clippy::unnecessary_wraps, reason = "as every reader")]
fn optional_file(text: &str) -> Result<Option<PathBuf>, String> {
    Ok(Some(text).filter(|text| !["", "off"].contains(text)).map(PathBuf::from))
}

fn workers(text: &str) -> Result<Option<usize>, String> {
    match text {
        "auto" => Ok(None),
        _ => number(text, &(1..=1024)).map(Some).map_err(|_| "must be `auto` or 1 to 1024".to_owned()),
    }
}

fn lanes(text: &str) -> Result<Option<usize>, String> {
    match text {
        "auto" => Ok(None),
        _ => number(text, &(1..=8)).map(Some).map_err(|_| "must be `auto` or 1 to 8".to_owned()),
    }
}

/// Bytes, or a number of KiB or MiB.
fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.trim_end_matches("iB").split_at_checked(text.len().saturating_sub(3)) {
        Some((digits, "K")) if text.ends_with("KiB") => (digits, 1024),
        Some((digits, "M")) if text.ends_with("MiB") => (digits, 1024 * 1024),
        _ => (text, 1),
    };
    let bytes = digits.trim_end().parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| (1024..=64 * 1024 * 1024).contains(bytes))
        .ok_or_else(|| "must be a size from 1KiB to 64MiB, like 1MiB or 1048576".to_owned())
}

/// The HTTP library takes no less.
fn headers_size(text: &str) -> Result<usize, String> {
    size(text)
        .ok()
        .filter(|bytes| (8 * 1024..=1024 * 1024).contains(bytes))
        .ok_or_else(|| "must be a size from 8KiB to 1MiB".to_owned())
}

fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            item.parse().or_else(|_| item.parse().map(|address: std::net::IpAddr| IpNet::from(address)))
        })
        .collect::<Result<_, _>>()
        .map_err(|_| "must be addresses or networks like 10.0.0.0/8".to_owned())
}

/// Names of hosts, or `*.` and the end of such names.
fn hosts(text: &str) -> Result<Vec<String>, String> {
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

fn log_level(text: &str) -> Result<String, String> {
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("must be error, warn, info, debug, trace or a filter like usersd=debug".to_owned()),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be `text` or `json`".to_owned()),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn show_duration(span: &Duration) -> String {
    quoted(&humantime::format_duration(*span).to_string())
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "as every row is shown")]
fn show_rate(rate: &Option<u32>) -> String {
    rate.map_or_else(|| quoted("off"), |rate| rate.to_string())
}

#[expect(clippy::ref_option, reason = "as every row is shown")]
fn show_file(file: &Option<PathBuf>) -> String {
    file.as_ref().map_or_else(|| quoted("off"), |file| quoted(&file.to_string_lossy()))
}

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// `scheme://user:PASSWORD@host` and `?password=PASSWORD` without the password.
fn hide_password(url: &str) -> String {
    let mut shown = url.to_owned();
    if let Some(at) = url.rfind('@') {
        let start = url.find("://").map_or(0, |at| at + 3);
        if let Some(colon) = url.get(start..at).and_then(|user| user.find(':')) {
            shown.replace_range(start + colon + 1..at, "***");
        }
    }
    if let Some(at) = shown.find("password=") {
        let start = at + "password=".len();
        let end = shown[start..].find('&').map_or(shown.len(), |end| start + end);
        shown.replace_range(start..end, "***");
    }
    shown
}

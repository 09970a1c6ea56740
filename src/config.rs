//! Settings: defaults, then the file, then the environment, then flags. All faults are told at once, before
//! anything is opened.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::domain::key::Reach;
use crate::domain::password::Policy;
use crate::domain::scope::Scopes;

mod table;
mod tls_callers;

pub use table::{SETTINGS, Setting};

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Callers need keys; on a loopback address, as long as there is none, programs of this machine do not.
    Keys,
    /// Everyone who reaches the port.
    Off,
}

impl Auth {
    fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Off => "off",
        }
    }
}

/// Whether a client needs a certificate, where there is an authority that signs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Without one there is no connection.
    Required,
    /// Without one the caller needs a key.
    Optional,
}

impl ClientAuth {
    fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
        }
    }
}

/// Whom the name in a client's certificate stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsCaller {
    /// A subject alternative name: a DNS name or a URI, whole.
    pub san: String,
    /// Where it may work.
    pub reach: Reach,
    /// What it may do.
    pub scopes: Scopes,
}

/// What an update of prefs by the Appwrite API does with the keys that it does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppwritePrefs {
    /// They stay, as its manual says.
    Merge,
    /// They go, as its server did.
    Replace,
}

impl AppwritePrefs {
    fn name(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Replace => "replace",
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// How often passwords may be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleLimits {
    /// Failures of one account in an hour.
    pub account: u32,
    /// Failures from one IP address in an hour, unless it is one that the user signed in from before; 0: any number.
    pub address: u32,
    /// The same for failures that one caller passes on; 0: any number.
    pub caller: u32,
    /// Failures in a row before waits begin.
    pub free: u32,
    /// The first wait; each further one is twice as long.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// How long an IP address stays known after the last sign-in from it.
    pub familiar: Duration,
}

impl Default for ThrottleLimits {
    fn default() -> Self {
        Self {
            account: 100,
            address: 300,
            caller: 0,
            free: 5,
            first_wait: Duration::from_secs(30),
            longest_wait: Duration::from_hours(1),
            familiar: 90 * DAY,
        }
    }
}

/// Every setting. `deploy/usersd.toml` says what each is for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each setting is described once, in the table")]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Config {
    pub listen: SocketAddr,
    pub database: String,
    pub auth: Auth,
    pub migrate: bool,
    pub grace: Duration,
    pub open_health: bool,
    pub open_reflection: bool,
    /// `None`: no TLS.
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// `None`: clients are not asked for certificates.
    pub tls_client_ca: Option<PathBuf>,
    pub tls_client_auth: ClientAuth,
    pub tls_callers: Vec<TlsCaller>,
    pub passwords_cost: u32,
    /// `None`: as many as there are CPUs.
    pub passwords_workers: Option<usize>,
    /// `None`: as many as this machine is found to be best at.
    pub passwords_lanes: Option<usize>,
    /// Percent of one CPU.
    pub passwords_floor: u32,
    pub passwords_max_wait: Duration,
    pub passwords_screening: bool,
    /// `None`: only the list that is built in.
    pub passwords_blocklist: Option<PathBuf>,
    pub passwords_min_length: usize,
    pub passwords_max_length: usize,
    pub guard: ThrottleLimits,
    pub sessions_lifetime: Duration,
    pub sessions_idle: Option<Duration>,
    pub sessions_max_per_user: u32,
    pub trash_keep: Option<Duration>,
    pub logs_keep: Option<Duration>,
    /// `None`: countries stay unknown.
    pub geoip_database: Option<PathBuf>,
    pub appwrite_prefs: AppwritePrefs,
    pub http_max_body: usize,
    pub http_max_headers: usize,
    pub http_header_timeout: Duration,
    pub http_idle_timeout: Duration,
    /// `None`: connections last as long as they are used.
    pub http_max_age: Option<Duration>,
    pub http_max_streams: u32,
    pub http_max_resets: u32,
    pub http_max_pings: u32,
    pub http_keepalive: Duration,
    pub http_keepalive_timeout: Duration,
    pub http_trusted_proxies: Vec<IpNet>,
    /// In lower case.
    pub http_hosts: Vec<String>,
    pub limits_calls: usize,
    pub limits_calls_per_caller: usize,
    pub limits_calls_per_namespace: usize,
    /// Calls a second; `None`: any number.
    pub limits_rate: Option<u32>,
    pub limits_rate_per_caller: Option<u32>,
    pub limits_connections: usize,
    pub limits_connections_per_address: usize,
    pub pool_connections: u32,
    /// How long the start waits for the database.
    pub pool_wait: Duration,
    pub pool_list_timeout: Duration,
    pub log_level: String,
    pub log_format: LogFormat,
}

const DAY: Duration = Duration::from_hours(24);

impl Default for Config {
    #[expect(clippy::too_many_lines, reason = "one a setting")]
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            database: "sqlite://usersd.db?mode=rwc".to_owned(),
            auth: Auth::Keys,
            migrate: true,
            grace: Duration::from_secs(30),
            open_health: true,
            open_reflection: true,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            tls_client_auth: ClientAuth::Required,
            tls_callers: Vec::new(),
            passwords_cost: 12,
            passwords_workers: None,
            passwords_lanes: None,
            passwords_floor: 10,
            passwords_max_wait: Duration::from_secs(5),
            passwords_screening: true,
            passwords_blocklist: None,
            passwords_min_length: 8,
            passwords_max_length: 128,
            guard: ThrottleLimits::default(),
            sessions_lifetime: 7 * DAY,
            sessions_idle: None,
            sessions_max_per_user: 100,
            trash_keep: Some(30 * DAY),
            logs_keep: Some(365 * DAY),
            geoip_database: None,
            appwrite_prefs: AppwritePrefs::Merge,
            http_max_body: 1024 * 1024,
            http_max_headers: 16 * 1024,
            http_header_timeout: Duration::from_secs(30),
            http_idle_timeout: Duration::from_secs(75),
            http_max_age: Some(Duration::from_hours(1)),
            http_max_streams: 256,
            http_max_resets: 500,
            http_max_pings: 1_000,
            http_keepalive: Duration::from_mins(1),
            http_keepalive_timeout: Duration::from_secs(20),
            http_trusted_proxies: Vec::new(),
            http_hosts: Vec::new(),
            limits_calls: 1_000,
            limits_calls_per_caller: 500,
            limits_calls_per_namespace: 500,
            limits_rate: None,
            limits_rate_per_caller: None,
            limits_connections: 10_000,
            limits_connections_per_address: 2_000,
            pool_connections: 16,
            pool_wait: Duration::from_secs(30),
            pool_list_timeout: Duration::from_secs(2),
            log_level: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

/// Everything that is wrong with the settings, a line each.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Problems(pub Vec<String>);

/// What the command line says, before it is checked.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--listen`
    pub listen: Option<String>,
    /// `--database`
    pub database: Option<String>,
}

impl Config {
    /// The settings of this process: those of the file at `path`, if one is named, of its environment, and of
    /// its command line.
    ///
    /// # Errors
    ///
    /// [`Problems`] with every one found.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, Problems> {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        let mut problems = Problems::default();
        let file = path.and_then(|path| match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) => {
                problems.0.push(format!("cannot read {}: {error}", path.display()));
                None
            }
        });
        Self::assemble(file.as_deref(), environment, overrides, problems)
    }

    fn assemble(
        file: Option<&str>,
        environment: impl Iterator<Item = (String, String)>,
        overrides: &Overrides,
        mut problems: Problems,
    ) -> Result<Self, Problems> {
        let mut config = Self::default();
        if let Some(text) = file {
            config.read_file(text, &mut problems);
        }
        config.read_environment(environment, &mut problems);
        for (key, flag) in [("listen", &overrides.listen), ("database", &overrides.database)] {
            if let Some(value) = flag {
                config.set(&format!("--{key}"), key, value, &mut problems);
            }
        }
        config.check(&mut problems);
        if problems.0.is_empty() { Ok(config) } else { Err(problems) }
    }

    fn read_file(&mut self, text: &str, problems: &mut Problems) {
        match text.parse::<toml::Table>() {
            Ok(table) => {
                for (key, value) in flatten(&table) {
                    match value {
                        Ok(value) => self.set(&key, &key, &value, problems),
                        Err(why) => problems.0.push(format!("{key} {why}")),
                    }
                }
            }
            Err(error) => problems.0.push(format!("the configuration file is not TOML: {error}")),
        }
    }

    fn read_environment(
        &mut self,
        environment: impl Iterator<Item = (String, String)>,
        problems: &mut Problems,
    ) {
        let mut ours: Vec<_> = environment.filter(|(name, _)| name.starts_with("USERSD_")).collect();
        ours.sort();
        for (name, value) in ours {
            match SETTINGS.iter().find(|setting| setting.variable() == name) {
                Some(setting) => self.set(&name, setting.key, &value, problems),
                None if is_foreign(&name) => {}
                None => problems.0.push(format!("{name} is not a setting{}", suggestion(&name))),
            }
        }
    }

    /// `said` is what the operator called it, so that the message names the place to mend.
    fn set(&mut self, said: &str, key: &str, value: &str, problems: &mut Problems) {
        match SETTINGS.iter().find(|setting| setting.key == key) {
            Some(setting) => {
                if let Err(why) = (setting.set)(self, value) {
                    problems.0.push(format!("{said} {why}"));
                }
            }
            None => problems.0.push(format!("{said} is not a setting{}", suggestion(key))),
        }
    }

    /// What no setting shows alone.
    fn check(&self, problems: &mut Problems) {
        let (min, max) = (self.passwords_min_length, self.passwords_max_length);
        if min > max {
            problems.0.push(format!("passwords.min_length is {min}, more than passwords.max_length, {max}"));
        }
        if self.passwords_blocklist.is_some() && !self.passwords_screening {
            problems.0.push("passwords.blocklist needs passwords.screening".to_owned());
        }
        if self.sessions_idle.is_some_and(|idle| idle > self.sessions_lifetime) {
            problems.0.push("sessions.idle is longer than sessions.lifetime".to_owned());
        }
        self.check_tls(problems);
    }

    fn check_tls(&self, problems: &mut Problems) {
        let mut needs = |wrong: bool, why: &str| {
            if wrong {
                problems.0.push(why.to_owned());
            }
        };
        let (cert, ca) = (self.tls_cert.is_some(), self.tls_client_ca.is_some());
        needs(cert != self.tls_key.is_some(), "tls.cert and tls.key go together");
        needs(ca && !cert, "tls.client_ca needs tls.cert and tls.key");
        needs(
            !self.tls_callers.is_empty() && !ca,
            "tls.callers need tls.client_ca, which signs their certificates",
        );
        for (n, caller) in self.tls_callers.iter().enumerate() {
            let again = self.tls_callers[..n].iter().any(|other| other.san == caller.san);
            needs(again, &format!("tls.callers names {} twice", caller.san));
        }
    }

    /// What a new password must keep to.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            min_length: self.passwords_min_length,
            max_length: self.passwords_max_length,
            screening: self.passwords_screening,
        }
    }

    /// The settings as TOML, for `usersd check-config`. A password in the database's address is hidden.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for setting in SETTINGS {
            let (group, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
            if group != section {
                section = group;
                let _ = writeln!(text, "\n[{group}]");
            }
            let _ = writeln!(text, "{name} = {}", (setting.show)(self));
        }
        text
    }
}

/// Variables of others that begin like ours: what Kubernetes tells every pod about a service called `usersd`,
/// and what our tests pass.
fn is_foreign(name: &str) -> bool {
    ["USERSD_SERVICE_", "USERSD_PORT", "USERSD_TEST_"].iter().any(|prefix| name.starts_with(prefix))
}

/// Every leaf of a TOML table by its dotted key, as text.
fn flatten(table: &toml::Table) -> Vec<(String, Result<String, String>)> {
    let mut leaves = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => {
                leaves
                    .extend(flatten(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            value => leaves.push((key.clone(), leaf(value))),
        }
    }
    leaves
}

fn leaf(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => Ok(value.to_string()),
        toml::Value::Array(items) => {
            items.iter().map(leaf).collect::<Result<Vec<_>, _>>().map(|items| items.join(","))
        }
        other => Err(format!("cannot be a {}", other.type_str())),
    }
}

/// The setting that was probably meant: the one most alike, if it is alike at all.
fn suggestion(said: &str) -> String {
    let plain = |text: &str| text.to_lowercase().replace("usersd_", "").replace(['_', '.'], "");
    let said = plain(said);
    SETTINGS
        .iter()
        .map(|setting| (distance(&plain(setting.key), &said), setting.key))
        .min()
        .filter(|(edits, _)| *edits <= 3)
        .map_or_else(String::new, |(_, key)| format!("; is {key} meant?"))
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assemble(file: &str, environment: &[(&str, &str)], overrides: &Overrides) -> Result<Config, String> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::assemble(Some(file), environment, overrides, Problems::default()).map_err(|p| p.to_string())
    }

    #[test]
    fn the_annotated_file_holds_the_defaults_and_every_setting() {
        let text = include_str!("../deploy/usersd.toml");
        assert_eq!(assemble(text, &[], &Overrides::default()), Ok(Config::default()));
        let table = text.parse::<toml::Table>().unwrap();
        let mut listed: Vec<String> = flatten(&table).into_iter().map(|(key, _)| key).collect();
        let mut known: Vec<String> = SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
        listed.sort();
        known.sort();
        assert_eq!(listed, known);
    }

    #[test]
    fn what_check_config_prints_reads_back_as_the_same() {
        let geoip_database = Some("/srv/a \"b\".mmdb".into());
        let config = Config { sessions_idle: Some(DAY), geoip_database, ..Config::default() };
        assert_eq!(assemble(&config.to_toml(), &[], &Overrides::default()), Ok(config));
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let file = "listen = '127.0.0.1:1'\ndatabase = 'sqlite://a.db'\n[passwords]\ncost = 11";
        let environment = [("USERSD_LISTEN", "127.0.0.1:2"), ("USERSD_DATABASE", "sqlite://b.db")];
        let flags = Overrides { listen: Some("127.0.0.1:3".into()), database: None };
        let config = assemble(file, &environment, &flags).unwrap();
        assert_eq!(config.listen.port(), 3);
        assert_eq!(config.database, "sqlite://b.db");
        assert_eq!(config.passwords_cost, 11);
    }

    /// A cost below 10 among them (R10).
    #[test]
    fn all_faults_are_named_at_once_with_the_place_to_mend() {
        let file =
            "lisen = 'x'\nauth = 'maybe'\n[passwords]\ncost = 9\nmax_wait = 3\n[http]\nmax_body = 'a lot'";
        let environment = [("USERSD_PASSWORDS_COSTS", "12"), ("USERSD_SESSIONS_LIFETIME", "soon")];
        let flags = Overrides { listen: Some("nowhere".into()), database: Some("mysql://x".into()) };
        let said = assemble(file, &environment, &flags).unwrap_err();
        for part in [
            "lisen is not a setting; is listen meant?",
            "auth must be `keys` or `off`",
            "passwords.cost must be 10 to 15",
            "passwords.max_wait must be a duration",
            "http.max_body must be a size",
            "USERSD_PASSWORDS_COSTS is not a setting; is passwords.cost meant?",
            "USERSD_SESSIONS_LIFETIME must be a duration",
            "--listen must be an address and port",
            "--database must begin with",
        ] {
            assert!(said.contains(part), "{part:?} is missing in:\n{said}");
        }
        assert_eq!(said.lines().count(), 9, "{said}");
    }

    #[test]
    fn what_kubernetes_adds_is_no_fault() {
        let environment = [("USERSD_SERVICE_HOST", "10.0.0.1"), ("USERSD_PORT", "tcp://10.0.0.1:8080")];
        assert!(assemble("", &environment, &Overrides::default()).is_ok());
    }

    #[test]
    fn a_database_password_is_not_shown() {
        let config = Config { database: "postgres://u:secret@h/db".into(), ..Config::default() };
        assert!(!config.to_toml().contains("secret"), "{}", config.to_toml());
    }

    #[test]
    fn a_database_address_of_several_hosts_is_refused() {
        let said = |url: &str| {
            let flags = Overrides { database: Some(url.to_owned()), ..Overrides::default() };
            assemble("", &[], &flags).map(|_| ()).unwrap_err()
        };
        for url in [
            "postgres://u@h1:5432,h2:5432/db",
            "postgres:///db?host=h1,h2",
            "postgresql://u@h1%2Ch2/db",
            "postgres://u@h/db?sslmode=require&hostaddr=10.0.0.1,10.0.0.2",
        ] {
            assert!(said(url).contains("must not name several hosts"), "{url}: {}", said(url));
        }
        let url = "postgres://u@h/db?target_session_attrs=read-write";
        assert!(said(url).contains("must not have target_session_attrs"), "{}", said(url));
        let one = "postgres://u:p,w@h/db?options=-c%20a=b,c";
        let flags = Overrides { database: Some(one.to_owned()), ..Overrides::default() };
        assert!(assemble("", &[], &flags).is_ok());
    }
}

//! Settings: defaults, then the file, then the environment, then flags. All faults are told at once, before
//! anything is opened.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::domain::password::Policy;

mod sections;
mod tls_callers;
mod values;

pub use sections::*;

/// The log of events is read no more often than this.
const MIN_POLL: Duration = Duration::from_millis(10);

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
        let (min, max) = (self.passwords.min_length, self.passwords.max_length);
        if min > max {
            problems.0.push(format!("passwords.min_length is {min}, more than passwords.max_length, {max}"));
        }
        if self.passwords.blocklist.is_some() && !self.passwords.screening {
            problems.0.push("passwords.blocklist needs passwords.screening".to_owned());
        }
        if self.sessions.idle.is_some_and(|idle| idle > self.sessions.lifetime) {
            problems.0.push("sessions.idle is longer than sessions.lifetime".to_owned());
        }
        let (poll, max_age) = (self.cache.poll, self.cache.max_age);
        if poll < MIN_POLL {
            problems.0.push("cache.poll must be at least 10ms".to_owned());
        }
        if self.cache.memory > 0 && max_age <= poll {
            problems.0.push("cache.max_age must be longer than cache.poll".to_owned());
        }
        self.check_tls(problems);
    }

    fn check_tls(&self, problems: &mut Problems) {
        let mut needs = |wrong: bool, why: &str| {
            if wrong {
                problems.0.push(why.to_owned());
            }
        };
        let (cert, ca) = (self.tls.cert.is_some(), self.tls.client_ca.is_some());
        needs(cert != self.tls.key.is_some(), "tls.cert and tls.key go together");
        needs(ca && !cert, "tls.client_ca needs tls.cert and tls.key");
        needs(
            !self.tls.callers.is_empty() && !ca,
            "tls.callers need tls.client_ca, which signs their certificates",
        );
        for (n, caller) in self.tls.callers.iter().enumerate() {
            let again = self.tls.callers[..n].iter().any(|other| other.san == caller.san);
            needs(again, &format!("tls.callers names {} twice", caller.san));
        }
    }

    /// What a new password must keep to.
    pub fn policy(&self) -> Policy {
        Policy {
            min_length: self.passwords.min_length,
            max_length: self.passwords.max_length,
            screening: self.passwords.screening,
        }
    }

    /// The settings as TOML, for `usersd check-config`. A password in the database's address is hidden.
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
        .map(|setting| (strsim::levenshtein(&plain(setting.key), &said), setting.key))
        .min()
        .filter(|(edits, _)| *edits <= 3)
        .map_or_else(String::new, |(_, key)| format!("; is {key} meant?"))
}

#[cfg(test)]
mod tests {
    use super::sections::DAY;
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
        let mut config = Config::default();
        config.sessions.idle = Some(DAY);
        config.geoip.database = Some("/srv/a \"b\".mmdb".into());
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
        assert_eq!(config.passwords.cost, 11);
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
    fn a_proxy_is_not_every_address() {
        for every in ["0.0.0.0/0", "10.0.0.0/8, ::/0"] {
            let environment = [("USERSD_HTTP_TRUSTED_PROXIES", every)];
            let said = assemble("", &environment, &Overrides::default()).unwrap_err();
            assert!(said.contains("must not hold every address"), "{said}");
        }
    }

    #[test]
    fn what_kubernetes_adds_is_no_fault() {
        let environment = [("USERSD_SERVICE_HOST", "10.0.0.1"), ("USERSD_PORT", "tcp://10.0.0.1:8080")];
        assert!(assemble("", &environment, &Overrides::default()).is_ok());
    }

    #[test]
    fn a_database_password_is_not_shown() {
        let shown = |database: &str| {
            let text = Config { database: database.into(), ..Config::default() }.to_toml();
            text.lines().find_map(|line| line.strip_prefix("database = ")).unwrap().to_owned()
        };
        for (database, text) in [
            ("postgres://u:secret@h/db", "postgres://u:***@h/db"),
            ("postgres://u:se@cret@h/db", "postgres://u:***@h/db"),
            ("postgres:///db?host=/run/pg&password=secret", "postgres:///db?host=/run/pg&password=***"),
            ("postgres:///db?pass%77ord=secret&user=u", "postgres:///db?password=***&user=u"),
            ("postgres://u:secret@h:port/db", "***"),
            ("postgres://u@h/db?options=-c%20a=b", "postgres://u@h/db?options=-c%20a=b"),
            ("sqlite://a b.db?mode=rwc", "sqlite://a b.db?mode=rwc"),
        ] {
            assert_eq!(shown(database), format!("\"{text}\""));
        }
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

//! Settings: defaults, then the file, then the environment, then flags. All faults are reported at once,
//! before anything is opened.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::domain::password::PasswordPolicy;

mod sections;
#[cfg(test)]
mod tests;
mod tls_callers;
mod types;
mod values;

pub use sections::*;
pub use types::*;

/// The log of events is read no more often than this.
const MIN_POLL: Duration = Duration::from_millis(10);

/// Everything that is wrong with the settings, a line each.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Problems(pub Vec<String>);

/// Settings of the command line, before they are checked.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--listen`
    pub listen: Option<String>,
    /// `--database`
    pub database: Option<String>,
}

impl Config {
    /// Returns the settings of this process and warnings for its log. They come from the file at `path`, if
    /// one is named, from the environment, and from the command line.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<(Self, Vec<String>), Problems> {
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
    ) -> Result<(Self, Vec<String>), Problems> {
        let mut config = Self::default();
        let mut warnings = Vec::new();
        if let Some(text) = file {
            let entries = file_entries(text, &mut problems);
            warnings.extend(warn_of_renamed(&entries, &mut problems));
            for (key, value) in entries {
                config.set(&key, &current_name(&key), &value, &mut problems);
            }
        }
        let entries = environment_entries(environment);
        warnings.extend(warn_of_renamed(&entries, &mut problems));
        for (variable, value) in entries {
            config.set_variable(&variable, &value, &mut problems);
        }
        for (key, flag) in [("listen", &overrides.listen), ("database", &overrides.database)] {
            if let Some(value) = flag {
                config.set(&format!("--{key}"), key, value, &mut problems);
            }
        }
        config.check(&mut problems);
        if problems.0.is_empty() { Ok((config, warnings)) } else { Err(problems) }
    }

    fn set_variable(&mut self, variable: &str, value: &str, problems: &mut Problems) {
        let name = current_name(variable);
        match SETTINGS.iter().find(|setting| setting.variable() == name) {
            Some(setting) => self.set(variable, setting.key, value, problems),
            None => problems.0.push(format!("{variable} is not a setting{}", suggestion(&name))),
        }
    }

    /// `said` is what the operator called it, so that the message names the source of the fault.
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

    /// Checks that the settings fit together.
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
        if self.pool.read_url.is_some() && self.database.starts_with("sqlite:") {
            problems.0.push("pool.read_url needs PostgreSQL: an SQLite file has no replicas".to_owned());
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
            self.tls.client_crl.is_some() && !ca,
            "tls.client_crl needs tls.client_ca, whose certificates it revokes",
        );
        needs(
            !self.tls.callers.is_empty() && !ca,
            "tls.callers need tls.client_ca, which signs their certificates",
        );
        for (n, caller) in self.tls.callers.iter().enumerate() {
            let again = self.tls.callers[..n].iter().any(|other| other.san == caller.san);
            needs(again, &format!("tls.callers names {} twice", caller.san));
        }
    }

    /// Returns the rules for new passwords.
    pub fn policy(&self) -> PasswordPolicy {
        PasswordPolicy {
            min_length: self.passwords.min_length,
            max_length: self.passwords.max_length,
            screening: self.passwords.screening,
        }
    }

    /// The URL of the database without its password.
    pub fn shown_database(&self) -> String {
        values::without_password(&self.database).trim_matches('"').to_owned()
    }

    /// The keys of settings that differ from those of `other`.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        SETTINGS.iter().filter(|setting| (setting.differs)(self, other)).map(|setting| setting.key).collect()
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

/// Returns the leaves of the file by their dotted keys.
fn file_entries(text: &str, problems: &mut Problems) -> Vec<(String, String)> {
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            problems.0.push(format!("the configuration file is not TOML: {error}"));
            return Vec::new();
        }
    };
    let mut entries = Vec::new();
    for (key, value) in flatten(&table) {
        match value {
            Ok(value) => entries.push((key, value)),
            Err(why) => problems.0.push(format!("{key} {why}")),
        }
    }
    entries
}

/// Returns the variables that are meant as settings, sorted.
fn environment_entries(environment: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut ours: Vec<_> =
        environment.filter(|(name, _)| name.starts_with("USERSD_") && !is_foreign(name)).collect();
    ours.sort();
    ours
}

/// The section `throttle` was called `guard`. Its old name is read until version 0.2.
const RENAMED: [(&str, &str); 2] = [("guard.", "throttle."), ("USERSD_GUARD_", "USERSD_THROTTLE_")];

/// Returns the present name of a key or variable, which is its own unless its section was renamed.
fn current_name(name: &str) -> Cow<'_, str> {
    let renamed = RENAMED.iter().find_map(|(old, new)| Some(format!("{new}{}", name.strip_prefix(old)?)));
    renamed.map_or(Cow::Borrowed(name), Cow::Owned)
}

/// Returns a warning for each entry of a file or an environment that has an old name. Both names with
/// different values are a problem: either could be the one that is meant.
fn warn_of_renamed(entries: &[(String, String)], problems: &mut Problems) -> Vec<String> {
    let mut warnings = Vec::new();
    for (old, value) in entries {
        let new = current_name(old);
        if new == *old {
            continue;
        }
        match entries.iter().find(|(name, _)| *name == new) {
            Some((_, other)) if other != value => {
                problems.0.push(format!(
                    "{old} and {new} are one setting with two values: remove {old}, its old name"
                ));
            }
            _ => warnings.push(format!("{old} is now called {new}; the old name is read until version 0.2")),
        }
    }
    warnings
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

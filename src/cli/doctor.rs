//! `usersd doctor`: looks for what is wrong with a database, also while servers run on it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::clock::Clock;
use crate::config::Config;
use crate::error::with_causes;
use crate::hasher::Peppers;
use crate::store::doctor::{Finding, Grade};
use crate::store::{Store, file};

use super::{CommandError, open_existing, print, schema};

/// Runs `usersd doctor`.
pub(super) async fn execute(
    config: &Config,
    settings: Option<&Path>,
    json: bool,
) -> Result<ExitCode, CommandError> {
    let mut findings = vec![modes(config, settings)];
    match open_existing(&config.database).await {
        Ok(store) => findings.extend(database(&store, config).await),
        Err(CommandError::Failed(why) | CommandError::Usage(why)) => {
            let advice = "check that it is running and that this is its address; or restore a backup";
            findings.push(Finding::new("database", Grade::Fault, why, advice));
        }
    }
    if json {
        print(&serde_json::to_string_pretty(&findings)?)?;
    } else {
        findings.iter().try_for_each(|finding| print(&line(finding)))?;
    }
    let faults = findings.iter().filter(|finding| finding.grade == Grade::Fault).count();
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(finding: &Finding) -> String {
    let Finding { check, grade, found, advice } = finding;
    let grade = match grade {
        Grade::Ok => "ok",
        Grade::Warning => "warning",
        Grade::Fault => "FAULT",
    };
    let advice = if advice.is_empty() { String::new() } else { format!("\n        -> {advice}") };
    format!("{grade:7} {check}: {found}{advice}")
}

async fn database(store: &Store, config: &Config) -> Vec<Finding> {
    let check = "schema";
    let steps = match store.migrations().await {
        Ok(steps) => steps,
        Err(error) => {
            let advice = "another program, or another branch of this one, made this database: use that, or another database";
            return vec![Finding::new(check, Grade::Fault, with_causes(&error), advice)];
        }
    };
    let pending: Vec<&str> =
        steps.iter().filter(|step| !step.applied).map(|step| step.name.as_str()).collect();
    if !pending.is_empty() {
        let found = format!("lacks {}", pending.join(", "));
        return vec![Finding::new(
            check,
            Grade::Fault,
            found,
            "run `usersd migrate up`, then run `usersd doctor` again",
        )];
    }
    let newer = schema::newer(&steps);
    let mut findings = vec![if newer.is_empty() {
        Finding::ok(check, format!("has all of {} migrations", steps.len()))
    } else {
        let advice = "within a minor version this usersd works with it: replace it by the newer one, which looks at what is new";
        Finding::new(check, Grade::Warning, format!("a newer usersd migrated it: {newer}"), advice)
    }];
    match Box::pin(store.examine(Clock::System.now())).await {
        Ok(found) => findings.extend(found),
        Err(error) => {
            let advice = "fix the cause and run `usersd doctor` again";
            findings.push(Finding::new("database", Grade::Fault, with_causes(&error), advice));
        }
    }
    findings.push(peppers(store, config).await);
    findings
}

/// The file of `passwords.pepper` has each key that is needed.
async fn peppers(store: &Store, config: &Config) -> Finding {
    let found = match Peppers::open(config.passwords.pepper.as_deref()) {
        Ok(peppers) => {
            let versions: Vec<u32> = peppers.keys().versions().collect();
            store.examine_peppers(&versions).await.map_err(|error| with_causes(&error))
        }
        Err(error) => Err(with_causes(&error)),
    };
    found.unwrap_or_else(|why| {
        Finding::new("peppers", Grade::Fault, why, "fix the cause and run `usersd doctor` again")
    })
}

/// Files with secrets are readable by their owner alone.
fn modes(config: &Config, settings: Option<&Path>) -> Finding {
    let mut files: Vec<PathBuf> = settings.map(Path::to_owned).into_iter().collect();
    files.extend(config.tls.key.clone());
    files.extend(config.passwords.pepper.clone());
    if let Some(path) = file::path(&config.database) {
        files.extend(["", "-wal", "-shm"].map(|end| {
            let mut name = path.clone().into_os_string();
            name.push(end);
            PathBuf::from(name)
        }));
    }
    let open: Vec<String> = files
        .iter()
        .filter_map(|path| Some((path, path.metadata().ok()?.permissions().mode() & 0o777)))
        .filter(|(_, mode)| mode & 0o007 != 0)
        .map(|(path, mode)| format!("{} has mode {mode:o}", path.display()))
        .collect();
    if open.is_empty() {
        return Finding::ok("files", "none is open to every user of this machine");
    }
    Finding::new("files", Grade::Fault, open.join("; "), "chmod 600, or 640 where a group has to read")
}

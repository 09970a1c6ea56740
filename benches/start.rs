//! What each benchmark begins and ends with.

use std::error::Error;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// A failure ends the run, and all that is done with it is to print it.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The end of the process: `done` tells whether the run counts as passed.
pub(crate) fn exit_code(done: Result<bool>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprint!("cargo bench: {error}");
            let mut error: &dyn Error = &*error;
            while let Some(cause) = error.source() {
                eprint!(": {cause}");
                error = cause;
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

/// Runs until SIGINT or SIGTERM. The servers and the load have process groups of their own, so that a terminal sends
/// them neither and this process ends them: dropping what runs removes every server, file and database of it.
pub(crate) async fn stoppable<T>(run: impl Future<Output = Result<T>>) -> Result<T> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        done = run => return done,
        done = tokio::signal::ctrl_c() => done?,
        _ = terminated.recv() => {}
    }
    Err("interrupted".into())
}

/// A number on the command line.
pub(crate) fn count(text: &str, least: usize) -> Result<usize> {
    let number = text.parse().ok().filter(|number| (least..=10_000_000).contains(number));
    number.ok_or_else(|| format!("{text} is not a number from {least} to 10000000").into())
}

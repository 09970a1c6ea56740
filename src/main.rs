//! The command: see [`usersd::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    usersd::cli::run()
}

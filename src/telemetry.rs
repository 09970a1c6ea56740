//! Log lines on stderr.

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Writes log lines from here on, as the settings say. A second call changes nothing.
///
/// A panic becomes a line with its location; its message could hold anything and is left out.
pub(crate) fn start(config: &Config) {
    // What the libraries say of migrations, notices and single connections is noise to an operator: how the
    // database is, the probe reports.
    let level = format!(
        "sea_orm_migration=warn,sqlx=warn,sqlx::postgres::notice=error,sqlx::pool=error,sqlx_core::pool=error,{}",
        config.log.level
    );
    let filter = EnvFilter::builder().parse_lossy(level);
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let begun = match config.log.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    if begun.is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let location = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(location, "panicked");
        }));
    }
}

//! Handles a database that is not up yet, and files that cannot grow.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::server::Server;
use crate::store::{ConnectError, Store};

use super::CommandError;

/// The time between attempts to connect.
const RETRY: Duration = Duration::from_millis(500);

/// Connects to the database, trying for as long as `wait` if it does not answer.
pub(super) async fn connect(config: &Config, wait: Duration) -> Result<Store, CommandError> {
    let begun = Instant::now();
    let mut last_logged = None;
    loop {
        let why = match Store::connect(&config.database, config.pool.connections).await {
            Err(ConnectError::Unreachable(why)) => why,
            Err(error) => return Err(error.into()),
            Ok(store) => {
                if last_logged.is_some() {
                    tracing::info!("database answers after {:.1} s", begun.elapsed().as_secs_f64());
                }
                return match &config.pool.read_url {
                    Some(url) => Ok(store.with_replica(&url.0, config.pool.connections).await?),
                    None => Ok(store),
                };
            }
        };
        if begun.elapsed() + RETRY > wait {
            return Err(ConnectError::Unreachable(why).into());
        }
        if last_logged.as_ref() != Some(&why) {
            let wait = humantime::format_duration(wait);
            tracing::warn!("database does not answer: {why}; waiting for it, {wait} in all");
            last_logged = Some(why);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Serves metrics and health beside `server`, if the settings say so.
pub(super) async fn monitor(config: &Config, server: &Server) -> Result<(), CommandError> {
    let Some(address) = config.metrics.listen else { return Ok(()) };
    let listener = TcpListener::bind(address).await.map_err(|error| {
        CommandError::Failed(format!(
            "cannot listen on {address} (metrics.listen): {error}; another server on this machine needs another \
             address, or metrics.listen = \"off\""
        ))
    })?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "metrics and health are served");
    tokio::spawn(server.serve_monitor(listener));
    Ok(())
}

/// Makes writing beyond the system's limit for files an error like a full disk. Unhandled, the signal ends
/// the process.
pub(super) fn turn_sigxfsz_into_error() -> std::io::Result<()> {
    // The handler stays when its stream is dropped.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

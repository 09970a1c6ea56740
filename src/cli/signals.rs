//! Signals: SIGTERM and SIGINT stop the server, SIGHUP has files and the log level read again.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Overrides};
use crate::server::Server;
use crate::telemetry;

/// The signals that stop the server, caught from the moment this is made.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

/// Ends the drain delay, once there is a server that has one.
pub(super) type DrainDelaySkip = Arc<OnceLock<CancellationToken>>;

impl StopSignals {
    pub(super) fn catch() -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    /// The first signal cancels `stop`, after which the server drains. The next one ends the drain delay if it
    /// lasts, and the one after it the process where it is.
    pub(super) async fn watch(mut self, stop: CancellationToken, skip_drain_delay: DrainDelaySkip) {
        self.next().await;
        tracing::info!(
            "stopping: waiting for calls in flight; another signal ends the drain delay or, if there is none, exits at once"
        );
        stop.cancel();
        self.next().await;
        if let Some(skip) = skip_drain_delay.get().filter(|skip| !skip.is_cancelled()) {
            tracing::info!("drain delay ended by a second signal; a third one exits at once");
            skip.cancel();
            self.next().await;
        }
        tracing::warn!("stopped at once by another signal");
        std::process::exit(1);
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The source of the settings, beside the environment.
pub(super) struct Source {
    pub(super) path: Option<PathBuf>,
    pub(super) overrides: Overrides,
}

/// The signal that has the settings read again, caught from the moment this is made: unhandled, it ends the process.
pub(super) struct Hangup(Signal);

impl Hangup {
    pub(super) fn catch() -> std::io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// At each signal uses the log level, the certificates, the peppers and the country database as they are now. `current` are
    /// the settings of the start. Never returns.
    pub(super) async fn watch(mut self, source: Source, current: Config, server: Server) {
        while self.0.recv().await.is_some() {
            let (new, _) = match Config::load(source.path.as_deref(), &source.overrides) {
                Ok(loaded) => loaded,
                Err(problems) => {
                    let problems = problems.to_string().replace('\n', "; ");
                    tracing::warn!(problems, "SIGHUP: the settings are not valid, nothing was changed");
                    continue;
                }
            };
            telemetry::set_level(&new.log.level);
            server.reload(&new);
            let reloaded = ["log.level", "geoip.database", "passwords.pepper"];
            let later: Vec<_> =
                new.differences(&current).into_iter().filter(|key| !reloaded.contains(key)).collect();
            tracing::info!(
                log_level = new.log.level,
                need_restart = later.join(", "),
                "SIGHUP: reloaded log level, certificates, peppers and country database"
            );
        }
    }
}

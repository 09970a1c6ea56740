//! Signals: SIGTERM and SIGINT stop the server, SIGHUP has files and the log level read again.

use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The signals that stop the server, caught from the moment this is made.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

/// The end of the drain delay, once there is a server that has one.
pub(super) type Hurry = Arc<OnceLock<CancellationToken>>;

impl StopSignals {
    pub(super) fn catch() -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    /// The first signal cancels `stop`, after which the server drains. The next one ends the drain delay if it
    /// lasts, and the one after it the process where it is.
    pub(super) async fn watch(mut self, stop: CancellationToken, hurry: Hurry) {
        self.next().await;
        tracing::info!("stopping: no new connections, calls in flight may end; a second signal ends at once");
        stop.cancel();
        self.next().await;
        if let Some(hurry) = hurry.get().filter(|hurry| !hurry.is_cancelled()) {
            tracing::info!("drain delay ended by a second signal; a third one ends at once");
            hurry.cancel();
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

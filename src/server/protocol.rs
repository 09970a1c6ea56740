//! HTTP/1.1 and HTTP/2 as we speak them.

use std::sync::Arc;

use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto::Builder;

use crate::config::Config;

use super::connection::Lifetimes;
use super::frames::FrameLimits;
use super::streams::StreamExecutor;

/// Bytes that a client may send on a connection before we have read them: a request of the usual `http.max_body`. This is hyper's
/// default, too. A request of 900 KB took 2.1 times the CPU with 64 KiB and 1.2 times with 256 KiB; 4 MiB and an adaptive window
/// gained nothing, and small requests took the same with all of them (h2load, five rounds in turns, 2026-11-26). What hyper buffers
/// of a reply, 400 KB, is left as it is: neither 64 KiB nor 1 MiB was cheaper.
const WINDOW: u32 = 1024 * 1024;

/// The configuration of HTTP/1.1 and HTTP/2 that all connections share.
#[derive(Clone)]
pub(super) struct Protocol {
    pub(super) http: Arc<Builder<StreamExecutor>>,
    pub(super) limits: FrameLimits,
    pub(super) lifetimes: Lifetimes,
}

impl Protocol {
    pub(super) fn new(config: &Config) -> Self {
        let mut http = Builder::new(StreamExecutor);
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(config.http.idle_timeout)
            .max_headers(64)
            .max_buf_size(config.http.max_headers);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(config.http.keepalive)
            .keep_alive_timeout(config.http.keepalive_timeout)
            .max_header_list_size(u32::try_from(config.http.max_headers).unwrap_or(u32::MAX))
            .max_concurrent_streams(config.http.max_streams)
            .adaptive_window(false)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        Self {
            http: Arc::new(http),
            limits: FrameLimits { resets: config.http.max_resets, pings: config.http.max_pings },
            lifetimes: Lifetimes::new(config),
        }
    }
}

//! HTTP/1.1 and HTTP/2 as we speak them.

use std::sync::Arc;

use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto::Builder;

use crate::config::Config;

use super::connection::Lifetimes;
use super::frames::FrameLimits;
use super::streams::StreamExecutor;

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
            .adaptive_window(false);
        Self {
            http: Arc::new(http),
            limits: FrameLimits { resets: config.http.max_resets, pings: config.http.max_pings },
            lifetimes: Lifetimes::new(config),
        }
    }
}

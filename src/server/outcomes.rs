//! The metrics, log lines and spans of calls that have ended.

use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::config::Config;
use crate::error::tally::LogBudget;
use crate::grpc::status::code_name;
use crate::http::{Call, FailedStream, Schema};
use crate::telemetry::{CallContext, CallStatus};

use super::metrics::{Calls, Series};

/// Limits the log lines about slow calls.
static SLOW: LogBudget = LogBudget::new(20);

/// Notes how calls end.
#[derive(Debug)]
pub(super) struct Outcomes {
    calls: Calls,
    /// Calls that take longer have a line; `None`: none has.
    slow_call: Option<Duration>,
}

/// Counts a call as abandoned when it is dropped with it: clients with a deadline often leave when it passes,
/// and no other trace of the call is left.
pub(super) struct Unanswered<'o> {
    calls: &'o Calls,
    series: Series,
    since: Instant,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return; // noted as a fault
        }
        let failure = of_code(Code::Cancelled);
        self.calls.note(self.series, self.since.elapsed(), Some(failure));
        CallContext::end_span(failure);
    }
}

impl Outcomes {
    pub(super) fn new(config: &Config, schema: &Schema) -> Self {
        Self { calls: Calls::new(schema), slow_call: config.log.slow_call }
    }

    pub(super) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Notes which RPC is called, for log and span.
    pub(super) fn note_method(&self, call: &Call<'_>) {
        CallContext::note_method(self.calls.method(self.calls.series(Some(call))));
    }

    /// Watches a call until this is forgotten.
    pub(super) fn watch(&self, call: &Call<'_>) -> Unanswered<'_> {
        Unanswered { calls: &self.calls, series: self.calls.series(Some(call)), since: Instant::now() }
    }

    /// Notes the end of a call; `None` is a request that asks for none.
    pub(super) fn note(
        &self,
        call: Option<&Call<'_>>,
        done: &Result<Response<Body>, Status>,
        took: Duration,
    ) {
        let failure = match done {
            Ok(response) if !has_failed(response) => None,
            Ok(response) => Some(CallContext::failure().unwrap_or(of_code(code_of(response)))),
            Err(status) => Some(CallContext::failure().unwrap_or(of_code(status.code()))),
        };
        let series = self.calls.series(call);
        self.calls.note(series, took, failure);
        let end = failure.unwrap_or(of_code(Code::Ok));
        CallContext::end_span(end);
        self.log(end, took);
    }

    fn log(&self, CallStatus { code, reason }: CallStatus, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if self.slow_call.is_none_or(|limit| took < limit) {
            tracing::debug!(code, reason, millis, "call");
        } else if let Some(left_out) = SLOW.take() {
            tracing::info!(code, reason, millis, left_out, "slow call");
        }
    }
}

fn of_code(code: Code) -> CallStatus {
    CallStatus { code: code_name(code), reason: "" }
}

/// The code of a refusal that a dialect wrote by itself.
fn code_of(response: &Response<Body>) -> Code {
    if let Some(FailedStream(code)) = response.extensions().get() {
        return *code;
    }
    match response.status() {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Unknown,
    }
}

/// Returns true if a reply, in whatever dialect, is that of a call that failed.
fn has_failed(response: &Response<Body>) -> bool {
    let status = response.status();
    let of_grpc = response.headers().get(Status::GRPC_STATUS);
    status.is_client_error()
        || status.is_server_error()
        || of_grpc.is_some_and(|code| code != "0")
        || response.extensions().get::<FailedStream>().is_some()
}

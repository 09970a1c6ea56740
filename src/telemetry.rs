//! Log lines on stderr, of which those of a call end with what is known of it; and spans.

mod export;
mod spans;

use std::cell::{Cell, OnceCell};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::{HeaderValue, Uri};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::task::futures::TaskLocalFuture;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, registry, reload};

use crate::config::{Config, LogFormat};

pub(crate) use export::Traces;
pub(crate) use spans::{CallSpan, Span, TRACE_PARENT};

tokio::task_local! {
    static CALL: CallContext;
}

/// The call that its log lines name. Not a span of `tracing`: the library writes the fields of each span into a text as it begins,
/// which cost 6 % of a call, and few calls have a line.
#[derive(Clone)]
pub(crate) struct CallContext {
    id: HeaderValue,
    uri: Uri,
    /// The caller's `traceparent`.
    trace: Option<HeaderValue>,
    /// Empty if the call is not traced.
    span: OnceCell<Arc<CallSpan>>,
    method: Cell<&'static str>,
    caller: OnceCell<Arc<str>>,
    failure: Cell<Option<CallStatus>>,
}

/// The status that a call ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CallStatus {
    /// The name of gRPC's code.
    pub(crate) code: &'static str,
    /// The stable reason; empty if there is none.
    pub(crate) reason: &'static str,
}

impl CallContext {
    pub(crate) fn new(id: HeaderValue, uri: Uri, trace: Option<HeaderValue>) -> Self {
        let (span, method) = (OnceCell::new(), Cell::new(""));
        let (caller, failure) = (OnceCell::new(), Cell::new(None));
        Self { id, uri, trace, span, method, caller, failure }
    }

    /// The span of the call that this task works on, if it is traced.
    pub(crate) fn span() -> Option<Arc<CallSpan>> {
        CALL.try_with(|call| call.span.get().cloned()).ok().flatten()
    }

    /// Notes which RPC is called.
    pub(crate) fn note_method(method: &'static str) {
        let _ = CALL.try_with(|call| call.method.set(method));
    }

    /// Has the call traced by this span, which is named by its RPC.
    pub(crate) fn trace(span: Arc<CallSpan>, dialect: &'static str) {
        let _ = CALL.try_with(|call| {
            span.name(call.method.get(), dialect);
            call.span.set(span)
        });
    }

    /// Ends the span of the call, if it is traced.
    pub(crate) fn end_span(end: CallStatus) {
        if let Some(span) = Self::span() {
            span.end(end);
        }
    }

    /// Notes who calls.
    pub(crate) fn note_caller(caller: &Arc<str>) {
        let _ = CALL.try_with(|call| call.caller.set(Arc::clone(caller)));
    }

    /// Notes how the call fails, unless it goes on and succeeds.
    pub(crate) fn note_failure(failure: CallStatus) {
        let _ = CALL.try_with(|call| call.failure.set(Some(failure)));
    }

    /// The failure that was noted last.
    pub(crate) fn failure() -> Option<CallStatus> {
        CALL.try_with(|call| call.failure.get()).ok().flatten()
    }

    /// The call that this task works on.
    pub(crate) fn current() -> Option<Self> {
        CALL.try_with(Clone::clone).ok()
    }

    /// Has the log lines of `work` name this call.
    pub(crate) fn scope<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        CALL.scope(self, work)
    }

    /// The line with what is known of the call at its end.
    fn mark(&self, line: &[u8], format: LogFormat) -> Vec<u8> {
        let line = line.trim_ascii_end();
        let traced = self.span.get().map(|span| span.trace_id());
        let trace = traced.as_deref().or_else(|| self.trace.as_ref().and_then(spans::trace_id));
        let fields = [
            ("request_id", self.id.to_str().unwrap_or_default()),
            ("trace_id", trace.unwrap_or_default()),
            ("caller", self.caller.get().map_or("", |caller| &**caller)),
            ("method", self.method.get()),
            ("path", self.uri.path()),
        ];
        let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
        if let (LogFormat::Json, Some(object)) = (format, line.strip_suffix(b"}")) {
            let fields = fields.map(|(name, value)| format!(",\"{name}\":{}", json!(value)));
            return [object, fields.collect::<Vec<_>>().concat().as_bytes(), b"}\n"].concat();
        }
        let fields = fields.map(|(name, value)| format!(" {name}={value:?}"));
        [line, fields.collect::<Vec<_>>().concat().as_bytes(), b"\n"].concat()
    }
}

/// Starts a task, whose log lines and spans are those of the call that starts it.
pub(crate) fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match CallContext::current() {
        Some(call) => tokio::spawn(call.scope(work)),
        None => tokio::spawn(work),
    }
}

/// The same text for the life of the process. For names of which there are few: each is kept once.
pub(crate) fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.into());
    names.insert(kept);
    kept
}

/// Takes lines from the library, each whole, to stderr.
struct Lines(LogFormat);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match CallContext::current() {
            Some(call) => io::stderr().write_all(&call.mark(line, self.0))?,
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Changes which lines are written.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Leaves out the libraries' lines about migrations, notices and single connections: the probe reports the state of the
/// database.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(format!(
        "sea_orm_migration=warn,sqlx=warn,sqlx::postgres::notice=error,sqlx::pool=error,sqlx_core::pool=error,{level}"
    ))
}

/// Writes log lines from here on, as the settings say. A second call changes nothing.
///
/// A panic becomes a line with its location; its message could hold anything and is left out.
pub(crate) fn start(config: &Config) {
    let (filter, handle) = reload::Layer::new(filter(&config.log.level));
    let format = config.log.format;
    let lines = fmt::layer().with_writer(move || Lines(format)).with_target(false);
    let lines_of_level = registry().with(filter);
    let begun = match format {
        LogFormat::Text => {
            lines_of_level.with(lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))).try_init()
        }
        LogFormat::Json => lines_of_level.with(lines.json().flatten_event(true)).try_init(),
    };
    if begun.is_ok() {
        let _ = FILTER.set(handle);
        std::panic::set_hook(Box::new(|panic| {
            let location = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(location, "panicked");
        }));
    }
}

/// Writes lines of another level, or by another filter, from here on.
pub(crate) fn set_level(level: &str) {
    if let Some(Err(error)) = FILTER.get().map(|handle| handle.reload(filter(level))) {
        tracing::warn!(%error, "log.level cannot be changed");
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::config::TracesSettings;

    #[test]
    fn a_line_ends_with_the_call() {
        let parent = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let uri = Uri::from_static("/v1/users?search=ada");
        let call = CallContext::new(HeaderValue::from_static("a1"), uri, Some(parent));
        let text = call.mark(b"INFO done\n", LogFormat::Text);
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let want = format!("INFO done request_id=\"a1\" trace_id=\"{trace}\" path=\"/v1/users\"\n");
        assert_eq!(String::from_utf8(text).unwrap(), want);
        call.method.set("users.Users/List");
        call.caller.set("shop".into()).unwrap();
        let json = call.mark(b"{\"level\":\"INFO\"}\n", LogFormat::Json);
        let want = format!(
            "{{\"level\":\"INFO\",\"request_id\":\"a1\",\"trace_id\":\"{trace}\",\"caller\":\"shop\",\
             \"method\":\"users.Users/List\",\"path\":\"/v1/users\"}}\n"
        );
        assert_eq!(String::from_utf8(json).unwrap(), want);
    }

    #[tokio::test]
    async fn a_line_of_a_traced_call_names_the_trace_that_it_begins() {
        let settings = TracesSettings { endpoint: Some("http://127.0.0.1:1".into()), one_in: 1 };
        let span = Traces::new(&settings).unwrap().begin(&HeaderMap::new()).unwrap();
        let trace = span.trace_id();
        let call = CallContext::new(HeaderValue::from_static("a1"), Uri::from_static("/"), None);
        call.span.set(span).unwrap();
        let line = String::from_utf8(call.mark(b"INFO done\n", LogFormat::Text)).unwrap();
        assert_eq!(line, format!("INFO done request_id=\"a1\" trace_id=\"{trace}\" path=\"/\"\n"));
    }
}

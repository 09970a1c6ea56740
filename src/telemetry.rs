//! Log lines on stderr. Those of a call end with its id and path.

use std::io::{self, Write};

use http::{HeaderValue, Uri};
use serde_json::json;
use tokio::task::futures::TaskLocalFuture;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

tokio::task_local! {
    static CALL: CallContext;
}

/// The call that its log lines name. Not a span: the library writes the fields of each span into a text as it begins,
/// which cost 6 % of a call, and few calls have a line.
#[derive(Clone)]
pub(crate) struct CallContext {
    id: HeaderValue,
    uri: Uri,
}

impl CallContext {
    pub(crate) fn new(id: HeaderValue, uri: Uri) -> Self {
        Self { id, uri }
    }

    /// The call that this task works on.
    pub(crate) fn current() -> Option<Self> {
        CALL.try_with(Clone::clone).ok()
    }

    /// Has the log lines of `work` name this call.
    pub(crate) fn scope<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        CALL.scope(self, work)
    }

    /// The line with the call's id and path at its end.
    fn mark(&self, line: &[u8], format: LogFormat) -> Vec<u8> {
        let (id, path) = (self.id.to_str().unwrap_or_default(), self.uri.path());
        let line = line.trim_ascii_end();
        match (format, line.strip_suffix(b"}")) {
            (LogFormat::Json, Some(object)) => {
                let end = format!(",\"request_id\":{},\"path\":{}}}\n", json!(id), json!(path));
                [object, end.as_bytes()].concat()
            }
            _ => [line, format!(" request_id={id:?} path={path:?}\n").as_bytes()].concat(),
        }
    }
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
    let format = config.log.format;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Lines(format))
        .with_target(false);
    let begun = match format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    if begun.is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let location = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(location, "panicked");
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_with_the_call() {
        let call = CallContext::new(HeaderValue::from_static("a1"), Uri::from_static("/v1/users?search=ada"));
        let text = call.mark(b"INFO done\n", LogFormat::Text);
        assert_eq!(text, b"INFO done request_id=\"a1\" path=\"/v1/users\"\n");
        let json = call.mark(b"{\"level\":\"INFO\"}\n", LogFormat::Json);
        assert_eq!(json, b"{\"level\":\"INFO\",\"request_id\":\"a1\",\"path\":\"/v1/users\"}\n");
    }
}

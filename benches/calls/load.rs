//! `h2load`: the load, and what it saw.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::kinds::Call;
use crate::Result;
use crate::wire::Wire;

/// Connections and streams on each: 64 gRPC calls are in flight at a time, and 32 over HTTP/1.1.
const GRPC_SHAPE: [&str; 4] =
    ["--clients=4", "--max-concurrent-streams=16", "--threads=1", "--no-tls-proto=h2c"];
const JSON_SHAPE: [&str; 4] = ["--clients=32", "--max-concurrent-streams=1", "--threads=1", "--h1"];
const JSON_CONNECTIONS: usize = 32;

/// One connection and one call at a time.
const GRPC_ALONE: [&str; 4] =
    ["--clients=1", "--max-concurrent-streams=1", "--threads=1", "--no-tls-proto=h2c"];
const JSON_ALONE: [&str; 4] = ["--clients=1", "--max-concurrent-streams=1", "--threads=1", "--h1"];

/// What the callers saw of one load.
pub(crate) struct Load {
    pub(crate) calls_a_second: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Whether `h2load` is there at all.
pub(crate) async fn check() -> Result<()> {
    let done = Command::new("h2load").arg("--version").output().await;
    match done {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err("h2load makes the load and is not \
            installed: on Debian and Ubuntu `apt-get install nghttp2-client`, on Fedora `dnf install nghttp2`"
            .into()),
        Err(error) => Err(format!("h2load: {error}").into()),
    }
}

/// Makes `calls` calls and insists that every one succeeded. `answer_bytes` is what one answer's body holds, and
/// where all calls are the same one, all answers must: `h2load` does not read `grpc-status`, but a gRPC call that
/// failed has no body. `round` chooses among the paths if there are many.
pub(crate) async fn run(
    call: &Call,
    server: SocketAddr,
    calls: usize,
    round: usize,
    answer_bytes: usize,
    dir: &Path,
) -> Result<Load> {
    let shape = if call.wire == Wire::Json { JSON_SHAPE } else { GRPC_SHAPE };
    drive(shape, call, server, calls, round, answer_bytes, dir).await
}

/// As [`run`], one call after the other.
pub(crate) async fn run_alone(
    call: &Call,
    server: SocketAddr,
    calls: usize,
    answer_bytes: usize,
    dir: &Path,
) -> Result<Load> {
    let shape = if call.wire == Wire::Json { JSON_ALONE } else { GRPC_ALONE };
    drive(shape, call, server, calls, 0, answer_bytes, dir).await
}

async fn drive(
    shape: [&str; 4],
    call: &Call,
    server: SocketAddr,
    calls: usize,
    round: usize,
    answer_bytes: usize,
    dir: &Path,
) -> Result<Load> {
    let log = dir.join("load.log");
    let _ = fs::remove_file(&log); // h2load appends
    let mut command = Command::new("h2load");
    command.kill_on_drop(true).process_group(0).stdin(Stdio::null());
    command.args(shape);
    command.arg(format!("--requests={calls}")).arg("--log-file").arg(&log);
    command.arg("-H").arg(format!("content-type: {}", call.wire.content_type()));
    if call.wire != Wire::Json {
        command.args(["-H", "te: trailers"]);
    }
    command.arg("-H").arg(format!("authorization: Bearer {}", call.key));
    if let Some(body) = &call.body {
        fs::write(dir.join("body"), body)?;
        command.arg("-d").arg(dir.join("body"));
    }
    if let [path] = call.paths.as_slice() {
        command.arg(format!("http://{server}{path}"));
    } else {
        // Every connection goes through the list from its start.
        let each = calls.div_ceil(JSON_CONNECTIONS);
        let skipped = each * round % call.paths.len();
        let chosen = call.paths.iter().cycle().skip(skipped).take(each);
        let uris: Vec<String> = chosen.map(|path| format!("http://{server}{path}")).collect();
        fs::write(dir.join("uris"), uris.join("\n"))?;
        command.arg("-i").arg(dir.join("uris"));
    }
    let said = String::from_utf8(command.output().await?.stdout)?;
    let answer_bytes = (call.paths.len() == 1).then_some(answer_bytes);
    seen(&said, &fs::read_to_string(&log)?, calls, answer_bytes)
        .map_err(|error| format!("{}: {error}\n{said}", call.name).into())
}

fn seen(said: &str, log: &str, calls: usize, answer_bytes: Option<usize>) -> Result<Load> {
    let mut micros = Vec::with_capacity(calls);
    for row in log.lines() {
        let mut columns = row.split('\t').skip(1);
        let (status, micro) = (columns.next().unwrap_or_default(), columns.next().unwrap_or_default());
        if !status.starts_with('2') {
            return Err(format!("a call was answered with status {status}").into());
        }
        micros.push(micro.parse::<f64>()?);
    }
    if micros.len() != calls {
        return Err(format!("{} of {calls} calls were answered", micros.len()).into());
    }
    // "finished in 1.20s, 25000.10 req/s, 5.10MB/s"
    let rate = after(said, "finished in").and_then(|line| between(line, ", ", " req/s"));
    // "traffic: 4.31MB (4519210) total, 58.60KB (60010) headers (space savings 95.00%), 4.01MB (4200000) data"
    let data = after(said, "traffic:").and_then(|line| line.rsplit_once('(')?.1.strip_suffix(") data"));
    let bytes: usize = data.ok_or("h2load tells no amount of data")?.parse()?;
    if let Some(each) = answer_bytes
        && bytes != calls * each
    {
        return Err(format!("{calls} answers held {bytes} bytes, not {each} each: some failed").into());
    }
    micros.sort_by(f64::total_cmp);
    Ok(Load {
        calls_a_second: rate.ok_or("h2load tells no rate")?.parse()?,
        p50: micros[calls / 2],
        p99: micros[calls * 99 / 100],
    })
}

/// The rest of the line that begins with `start`.
fn after<'a>(said: &'a str, start: &str) -> Option<&'a str> {
    said.lines().find_map(|line| line.strip_prefix(start))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(found, _)| found)
}

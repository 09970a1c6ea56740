//! `usersd health`: asks a running server whether it is ready, for containers that have no other program.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use super::{CommandError, print};

/// The longest time for the connection, and for the answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The answer is a line.
const MAX_ANSWER: u64 = 64 * 1024;

/// Runs `usersd health`.
pub(super) fn execute(address: SocketAddr) -> Result<ExitCode, CommandError> {
    let failed = |error: std::io::Error| CommandError::Failed(format!("{address} does not answer: {error}"));
    let answer = ask(address).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    print(body)?;
    let ready = head.split(' ').nth(1) == Some("200");
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

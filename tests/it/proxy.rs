//! A way to PostgreSQL that can be made silent or cut.

use std::str::FromStr as _;
use std::time::Duration;

use sea_orm::sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::support::random;

/// By how many milliseconds something is late: most of it by little, so that much overtakes what is not.
const LATE: [u64; 4] = [0, 0, 1, 6];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Forward,
    /// What comes through is late, each time by another time.
    Jitter,
    /// Connections are accepted and stay open, and nothing comes through.
    Silent,
    /// Connections are closed, and new ones refused.
    Refused,
}

pub(crate) struct Proxy {
    /// The database behind it.
    pub(crate) url: String,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// A way to the database of `url`, whose server asks this machine for no password.
    pub(crate) async fn to(url: &str) -> Self {
        let target = PgConnectOptions::from_str(url).unwrap();
        let (user, name) = (target.get_username(), target.get_database().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://{user}@{}/{name}", listener.local_addr().unwrap());
        let mode = watch::Sender::new(Mode::Forward);
        tokio::spawn(serve(listener, target, mode.subscribe()));
        Self { url, mode }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn serve(listener: TcpListener, target: PgConnectOptions, mut mode: watch::Receiver<Mode>) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    loop {
        let refused = *mode.borrow_and_update() == Mode::Refused;
        if refused {
            listener = None;
        }
        let Some(open) = &listener else {
            if mode.wait_for(|mode| *mode != Mode::Refused).await.is_err() {
                return;
            }
            listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break Some(listener),
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            };
            continue;
        };
        tokio::select! {
            accepted = open.accept() => {
                tokio::spawn(connect(accepted.unwrap().0, target.clone(), mode.clone()));
            }
            changed = mode.changed() => if changed.is_err() { return },
        }
    }
}

async fn connect(near: TcpStream, target: PgConnectOptions, mode: watch::Receiver<Mode>) {
    let (near_read, near_write) = tokio::io::split(near);
    let socket = target.get_socket().map(|folder| folder.join(format!(".s.PGSQL.{}", target.get_port())));
    let host = target.get_host();
    let socket = socket
        .or_else(|| host.starts_with('/').then(|| format!("{host}/.s.PGSQL.{}", target.get_port()).into()));
    if let Some(socket) = socket {
        let Ok(far) = UnixStream::connect(socket).await else { return };
        let (read, write) = tokio::io::split(far);
        tokio::join!(pump(near_read, write, mode.clone()), pump(read, near_write, mode));
    } else {
        let Ok(far) = TcpStream::connect((host, target.get_port())).await else { return };
        let (read, write) = tokio::io::split(far);
        tokio::join!(pump(near_read, write, mode.clone()), pump(read, near_write, mode));
    }
}

/// Hands on what comes, until either end or the proxy closes.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut mode: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let mut cut = mode.clone();
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = cut.wait_for(|mode| *mode == Mode::Refused) => 0,
        };
        let mode = mode.wait_for(|mode| *mode != Mode::Silent).await.map_or(Mode::Refused, |mode| *mode);
        if mode == Mode::Jitter {
            let late = LATE[usize::from(random()[0]) % LATE.len()];
            tokio::time::sleep(Duration::from_millis(late)).await;
        }
        let open = mode != Mode::Refused;
        if read == 0 || !open || to.write_all(&buffer[..read]).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}

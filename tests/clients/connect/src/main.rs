//! The server under test of Connect's conformance suite: reads from stdin what the suite asks for, serves the suite's service
//! on the server of the product, and writes to stdout where it listens. Ends at SIGTERM.

mod replies;
mod service;

use std::error::Error;
use std::io::{Read, Write};
use std::path::Path;

use prost::Message;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use usersd::auth::keyring::KeyRing;
use usersd::clock::Clock;
use usersd::config::{Auth, Config};
use usersd::devices::Devices;
use usersd::hasher::{Hasher, HasherConfig};
use usersd::ops::{Operations, Rules};
use usersd::server::{Server, Tls};
use usersd::store::Store;

use pb::{ServerCompatRequest, ServerCompatResponse};

/// What the suite's proto was compiled to.
#[expect(dead_code, reason = "some messages are for the suite itself")]
mod pb {
    tonic::include_proto!("connectrpc.conformance.v1");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let asked: ServerCompatRequest = read(std::io::stdin())?;
    let folder = TempDir::new()?;
    let config = config(&asked, folder.path())?;
    let server = server(&config).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let pem_cert = asked.server_creds.filter(|_| asked.use_tls).unwrap_or_default().cert;
    let (host, port) = (address.ip().to_string(), address.port().into());
    write(std::io::stdout(), &ServerCompatResponse { host, port, pem_cert })?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminated.recv().await;
        stopping.cancel();
    });
    server.serve(listener, stop).await;
    Ok(())
}

/// Reads a message behind its length.
fn read<M: Message + Default>(mut from: impl Read) -> Result<M, Box<dyn Error>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut message = vec![0; usize::try_from(u32::from_be_bytes(length))?];
    from.read_exact(&mut message)?;
    Ok(M::decode(&*message)?)
}

/// Writes a message behind its length.
fn write(mut to: impl Write, message: &impl Message) -> Result<(), Box<dyn Error>> {
    to.write_all(&u32::try_from(message.encoded_len())?.to_be_bytes())?;
    to.write_all(&message.encode_to_vec())?;
    Ok(to.flush()?)
}

/// The settings that the suite asks for. Its certificates are written to files in `folder`.
fn config(asked: &ServerCompatRequest, folder: &Path) -> Result<Config, Box<dyn Error>> {
    let database = format!("sqlite://{}/users.db?mode=rwc", folder.display());
    let mut config = Config { database, auth: Auth::Off, ..Config::default() };
    if asked.message_receive_limit > 0 {
        config.http.max_body = usize::try_from(asked.message_receive_limit)?;
    }
    if let Some(creds) = asked.server_creds.as_ref().filter(|_| asked.use_tls) {
        let file = |name: &str, pem: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, pem).map(|()| Some(path))
        };
        config.tls.cert = file("cert.pem", &creds.cert)?;
        config.tls.key = file("key.pem", &creds.key)?;
        if !asked.client_tls_cert.is_empty() {
            config.tls.client_ca = file("clients.pem", &asked.client_tls_cert)?;
        }
    }
    Ok(config)
}

/// The server with the suite's service in place of users and keys.
async fn server(config: &Config) -> Result<Server, Box<dyn Error>> {
    let store = Store::connect(&config.database, config.pool.connections).await?;
    store.migrate().await?;
    let hashing = HasherConfig {
        cost: config.passwords.cost,
        workers: 1,
        lanes: Some(1),
        max_wait: config.passwords.max_wait,
        min_cpu_percent: 100,
    };
    let (hasher, clock) = (Hasher::new(hashing)?, Clock::System);
    let (rules, devices) = (Rules::from(config), Devices::open(None)?);
    let ops = Operations::new(store.clone(), hasher, clock.clone(), rules, devices).await?;
    let keys = KeyRing::load(store, clock).await?;
    let services = service::services(config.http.max_body);
    Ok(Server::with_services(config, ops, keys, Tls::open(config)?, services).await?)
}

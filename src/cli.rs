//! The command line. What a person reads goes to stderr, what a program reads to stdout.

mod backup;
mod copy;
mod doctor;
mod health;
mod keys;
mod namespaces;
mod schema;
mod signals;
mod start;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::auth::keyring::KeyRing;
use crate::blocklist::Blocklist;
use crate::clock::Clock;
use crate::config::{Auth, Config, LogFormat, Overrides};
use crate::devices::Devices;
use crate::error::with_causes;
use crate::hasher::{Hasher, HasherConfig, Peppers};
use crate::ops::{Operations, Rules};
use crate::server::{Server, Tls};
use crate::store::{ConnectError, Store};
use crate::telemetry;

use signals::{DrainDelaySkip, Hangup, Source, StopSignals};

/// `EX_USAGE` of sysexits.h: the command or the settings are wrong, and trying again cannot help.
const EX_USAGE: u8 = 64;

/// The longest time that closing the connections to the database may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Accounts, passwords and sessions for other services, over gRPC and JSON.
#[derive(Parser)]
#[command(
    name = "usersd",
    version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_COMMIT"), ")"),
    after_help = "\
Every setting can come from the file, from the environment as USERSD_<SECTION>_<KEY>, and these two from the
command line; the command line wins over the environment, the environment over the file. deploy/usersd.toml
lists them all.

First steps, on this machine, where no key is needed until there is one:
  usersd
  curl -d '{\"username\":\"ada\",\"password\":\"correct horse\"}' http://127.0.0.1:8080/v1/users -H 'content-type: application/json'

With a key, from anywhere:
  KEY=$(usersd key create --namespace default --scopes users.read,users.write --name first)
  curl -H \"authorization: Bearer $KEY\" http://127.0.0.1:8080/v1/users

Exit status: 0 done, 1 failed, 64 wrong use or configuration."
)]
struct Command {
    #[command(subcommand)]
    action: Option<Action>,
    /// The address to listen on, such as 127.0.0.1:8080; port 0 takes a free one
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The database, such as `sqlite://FILE?mode=rwc` or `postgres://USER@HOST/NAME`
    #[arg(long, global = true, value_name = "URL")]
    database: Option<String>,
    /// The file with the settings
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Action {
    /// Start the server (the default)
    Serve,
    /// Show or apply database migrations
    Migrate {
        #[command(subcommand)]
        step: schema::Migrate,
    },
    /// Create, list and revoke API keys
    Key {
        #[command(subcommand)]
        step: keys::Step,
    },
    /// Create, limit, list and delete namespaces
    Namespace {
        #[command(subcommand)]
        step: namespaces::Step,
    },
    /// Copy an SQLite database to a new file, also while servers run on it
    Backup {
        /// The file to write; it must not exist yet
        file: PathBuf,
    },
    /// Copy everything to another database, of the same kind or the other, while no server runs on either
    Copy(copy::Addresses),
    /// Check the database for problems, also while servers run on it
    Doctor {
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask a running server whether it is ready
    Health {
        /// Its address for metrics and health
        #[arg(default_value = "127.0.0.1:9464")]
        address: SocketAddr,
    },
    /// Check the settings and print them, as TOML, without opening anything
    CheckConfig,
}

/// The error of a command, for the operator.
#[derive(Debug)]
enum CommandError {
    /// Wrong use or configuration.
    Usage(String),
    /// The rest.
    Failed(String),
}

impl<E: std::error::Error + 'static> From<E> for CommandError {
    fn from(error: E) -> Self {
        Self::Failed(with_causes(&error))
    }
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => {
            // Help and version are asked for, and go to stdout; everything else is wrong use.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match execute(&command) {
        Ok(code) => code,
        Err(CommandError::Usage(text)) => {
            eprintln!("usersd: {}", text.replace('\n', "\nusersd: "));
            ExitCode::from(EX_USAGE)
        }
        Err(CommandError::Failed(text)) => {
            eprintln!("usersd: {text}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: &Command) -> Result<ExitCode, CommandError> {
    if let Some(Action::Health { address }) = command.action {
        return health::execute(address);
    }
    let overrides = Overrides { listen: command.listen.clone(), database: command.database.clone() };
    let (config, warnings) = Config::load(command.config.as_deref(), &overrides)
        .map_err(|problems| CommandError::Usage(problems.to_string()))?;
    if let Some(Action::CheckConfig) = command.action {
        for warning in warnings {
            eprintln!("usersd: {warning}");
        }
        print(&config.to_toml())?;
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::start(&config);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // A thread for each CPU, tokio's default. On two CPUs a cached call takes 0.9 times the CPU time with one thread, which
    // leaves the other CPU idle, and 1.02 (gRPC) to 1.10 times (JSON) with four.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        start::turn_sigxfsz_into_error()?;
        match &command.action {
            Some(Action::Migrate { step }) => schema::execute(&config, step).await,
            Some(Action::Backup { file }) => Box::pin(backup::execute(&config, file)).await,
            Some(Action::Copy(addresses)) => Box::pin(copy::execute(addresses)).await,
            Some(Action::Doctor { json }) => {
                Box::pin(doctor::execute(&config, command.config.as_deref(), *json)).await
            }
            Some(Action::Key { step }) => Box::pin(keys::execute(&config, step)).await,
            Some(Action::Namespace { step }) => Box::pin(namespaces::execute(&config, step)).await,
            _ => Box::pin(serve(&config, Source { path: command.config.clone(), overrides })).await,
        }
    });
    // What cannot be stopped, such as the look-up of a name, is not waited for.
    runtime.shutdown_background();
    done
}

/// Prints to stdout, for programs. Fails if nobody reads it any more.
fn print(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{}", text.trim_end())
}

async fn serve(config: &Config, source: Source) -> Result<ExitCode, CommandError> {
    // Before anything is opened, which may take long: from here on a signal ends the process in order.
    let (signals, hangup) = (StopSignals::catch()?, Hangup::catch()?);
    let (stop, skip_drain_delay) = (CancellationToken::new(), DrainDelaySkip::default());
    let settings = source.path.as_ref().map(|path| path.display().to_string());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        commit = env!("BUILD_COMMIT"),
        settings,
        database = config.shown_database(),
        "starting"
    );
    let watched = tokio::spawn(signals.watch(stop.clone(), skip_drain_delay.clone()));
    let (server, listener, store) = tokio::select! {
        started = start(config) => started?,
        () = stop.cancelled() => {
            tracing::info!("stopped during startup");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let _ = skip_drain_delay.set(server.skip_drain_delay().clone());
    let reloading = tokio::spawn(hangup.watch(source, config.clone(), server.clone()));
    let drained = server.serve(listener, stop).await;
    watched.abort();
    reloading.abort();
    // A connection whose call was cut off is given back when the database answers, which may be never.
    if store.health().is_unusable() {
        tracing::warn!("stopped without closing the database file, which is damaged or was replaced");
        std::process::exit(1);
    }
    let closed = tokio::time::timeout(CLOSE_TIMEOUT, store.close()).await.is_ok();
    if drained && closed {
        tracing::info!("stopped");
    } else {
        tracing::warn!("stopped with calls in flight: the grace period was too short for them");
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that serving needs, with the port open.
async fn start(config: &Config) -> Result<(Server, TcpListener, Store), CommandError> {
    // First: a machine that cannot hash must not touch the database.
    let hasher = hasher(config)?;
    let (devices, blocklist) = (devices(config)?, blocklist(config)?);
    let tls = Tls::open(config).map_err(|error| CommandError::Usage(error.to_string()))?;
    let store = open(config, config.pool.wait).await?;
    let keys = Box::pin(KeyRing::load(store.clone(), Clock::System)).await?;
    let ops = Operations::new(store.clone(), hasher, Clock::System, Rules::from(config), devices).await?;
    let ops = ops.with_blocklist(blocklist);
    let server = Server::new(config, ops, keys.clone(), tls).await?;
    refuse_unauthenticated_listener(config, &keys)?;
    raise_nofile_limit(config);
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| CommandError::Failed(format!("cannot listen on {}: {error}", config.listen)))?;
    start::monitor(config, &server).await?;
    announce(config, &server, &listener, &store)?;
    Ok((server, listener, store))
}

/// The database of the settings, as this program needs it, after waiting for it if it does not answer.
async fn open(config: &Config, wait: Duration) -> Result<Store, CommandError> {
    let store = start::connect(config, wait).await?;
    store.check_file().await?;
    store.check_writable().await?;
    if config.migrate {
        schema::migrate(&store).await?;
    }
    schema::check(&store).await?;
    Ok(store)
}

/// The database as it is, if this program can use it.
async fn open_without_migrating(config: &Config) -> Result<Store, CommandError> {
    let store = Store::connect(&config.database, config.pool.connections).await?;
    schema::check(&store).await?;
    Ok(store)
}

/// The database at `url`, which has to be there.
async fn open_existing(url: &str) -> Result<Store, CommandError> {
    match Store::connect(&url.replace("mode=rwc", "mode=rw"), 1).await {
        Err(ConnectError::Missing(path) | ConnectError::Empty(path)) => {
            Err(CommandError::Failed(format!("there is no database in {path}")))
        }
        opened => Ok(opened?),
    }
}

/// Without keys, anyone who reaches the port has full access: only a loopback address is safe by itself.
fn refuse_unauthenticated_listener(config: &Config, keys: &KeyRing) -> Result<(), CommandError> {
    let known = config.auth == Auth::Off || !config.tls.callers.is_empty() || !keys.is_empty_ever();
    if known || config.listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(CommandError::Usage(format!(
        "{} can be reached from other machines and no API key was ever created, so anyone there would have full \
         access.\nCreate a key first, with the same settings, and start again:\n  usersd key create --namespace default \
         --scopes users.read,users.write,sessions.read,sessions.write --name NAME\nOr listen on a loopback address such \
         as 127.0.0.1:8080, or, if a firewall or proxy restricts access, set auth = \"off\" (USERSD_AUTH=off).",
        config.listen
    )))
}

/// As many open files as connections need, if the system gives them: shells commonly give 1,024 of many more.
fn raise_nofile_limit(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// For the database, the listener, logs, certificates.
    const RESERVED_FDS: u64 = 128;
    let limit = getrlimit(Resource::Nofile);
    let wanted = config.limits.connections as u64 + RESERVED_FDS;
    let (Some(now), most) = (limit.current, limit.maximum) else { return };
    let current = wanted.min(most.unwrap_or(u64::MAX)).max(now);
    let raised = Rlimit { current: Some(current), maximum: most };
    if setrlimit(Resource::Nofile, raised).is_err() || current < wanted {
        tracing::warn!(
            open_files = current,
            wanted,
            "the limit of open files is lower than limits.connections needs: further connections wait"
        );
    }
}

/// A country database that is named but cannot be used is a fault of the settings, found before the
/// service is up and not by the first call that needs it.
fn devices(config: &Config) -> Result<Devices, CommandError> {
    Devices::open(config.geoip.database.as_deref()).map_err(|error| CommandError::Usage(with_causes(&error)))
}

/// The same of the list of passwords that are refused.
fn blocklist(config: &Config) -> Result<Option<Blocklist>, CommandError> {
    let list = config.passwords.blocklist.as_deref().map(Blocklist::open).transpose();
    list.map_err(|error| CommandError::Usage(with_causes(&error)))
}

fn hasher(config: &Config) -> Result<Hasher, CommandError> {
    let peppers = Peppers::open(config.passwords.pepper.as_deref())
        .map_err(|error| CommandError::Usage(with_causes(&error)))?;
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let hasher = Hasher::new(HasherConfig {
        cost: config.passwords.cost,
        workers: config.passwords.workers.unwrap_or(cpus),
        lanes: config.passwords.lanes,
        max_wait: config.passwords.max_wait,
        min_cpu_percent: config.passwords.floor,
    })?;
    Ok(hasher.with_peppers(peppers))
}

fn announce(config: &Config, server: &Server, listener: &TcpListener, store: &Store) -> std::io::Result<()> {
    let (version, kind) = (env!("CARGO_PKG_VERSION"), store.kind().name());
    if config.auth == Auth::Off {
        tracing::warn!("auth is off: anyone who reaches the port has full access");
    } else if server.is_local_mode() {
        tracing::info!(
            "no API key was ever created: programs on this machine need none; the first `usersd key create` ends that"
        );
    }
    let line = format!("usersd {version} listening on {} database {kind}", listener.local_addr()?);
    match config.log.format {
        LogFormat::Text => eprintln!("{line}"),
        LogFormat::Json => tracing::info!("{line}"),
    }
    Ok(())
}

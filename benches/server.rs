//! The servers under load: child processes, what they cost, and their end.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::Result;
use crate::databases::Place;
use crate::postgres::psql;

/// Longest wait for the start line, and for the end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that was started here. Dropping it kills the process.
pub(crate) struct Server {
    child: Child,
    /// Its process.
    pub(crate) pid: u32,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where it serves metrics, if it does.
    pub(crate) monitor: Option<SocketAddr>,
}

/// The setting of that address.
pub(crate) const METRICS: &str = "USERSD_METRICS_LISTEN";

/// The scopes that every build has.
pub(crate) const SCOPES: &str = "users.admin,users.read,users.write,sessions.read,sessions.write";

/// Nanoseconds on a CPU, user and system, by thread; threads that hash passwords are not among them.
pub(crate) struct CpuTimes(HashMap<String, u64>);

impl Server {
    /// Starts usersd on the database at `url`, in `dir` so that no configuration of someone else's is near.
    pub(crate) async fn usersd(binary: &Path, dir: &Path, url: &str) -> Result<Self> {
        Self::usersd_with(binary, dir, url, &[]).await
    }

    /// The same with these settings in its environment.
    pub(crate) async fn usersd_with(
        binary: &Path,
        dir: &Path,
        url: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = Self::command(binary, dir);
        command.args(["--listen", "127.0.0.1:0", "--database", url]).envs(settings.iter().copied());
        if settings.iter().all(|(name, _)| *name != METRICS) {
            without_metrics(&mut command);
        }
        Self::start(command).await
    }

    /// Makes an API key with these scopes in the namespace `default`.
    pub(crate) async fn new_key(binary: &Path, dir: &Path, url: &str, scopes: &str) -> Result<String> {
        let mut command = Self::command(binary, dir);
        command.args(["key", "create", "--namespace", "default", "--name", "bench", "--scopes", scopes]);
        let done = command.args(["--database", url]).output().await?;
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into_owned().into());
        }
        Ok(String::from_utf8(done.stdout)?.trim().to_owned())
    }

    fn command(binary: &Path, dir: &Path) -> Command {
        let mut command = Command::new(binary.canonicalize().unwrap_or_else(|_| binary.to_owned()));
        #[expect(
            clippy::disallowed_methods,
            reason = "what is set for others is not for the server measured"
        )]
        let variables = std::env::vars_os();
        for (name, _) in variables {
            if name.to_string_lossy().starts_with("USERSD_") {
                command.env_remove(name); // it would be a setting, or an unknown one
            }
        }
        command
            .current_dir(dir)
            .env("USERSD_PASSWORDS_COST", "10")
            .env("USERSD_PASSWORDS_SCREENING", "false");
        command
    }

    /// Starts a server that says on standard error where it is listening, as usersd does.
    pub(crate) async fn start(mut command: Command) -> Result<Self> {
        // What ends when its standard input does outlives no bench that was killed.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0);
        let program = command.as_std().get_program().to_owned();
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let pid = child.id().ok_or("the server ended at once")?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?).lines();

        let (mut said, mut monitor) = (String::new(), None);
        let address = loop {
            let Some(line) = timeout(PATIENCE, lines.next_line()).await?? else {
                let status = child.wait().await?;
                return Err(
                    format!("{} ended before it served ({status}):\n{said}", program.display()).into()
                );
            };
            if let Some((_, rest)) = line.split_once(" listening on ") {
                break rest.split(' ').next().unwrap_or_default().parse()?;
            }
            if let Some((_, rest)) = line.split_once("metrics and health are served address=") {
                monitor = Some(rest.parse()?);
            }
            said += &line;
            said.push('\n');
        };
        // A full pipe would stop the server.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, pid, address, monitor })
    }

    /// CPU time so far, without hashing.
    pub(crate) fn cpu_times(&self) -> Result<CpuTimes> {
        CpuTimes::of(&[self.pid])
    }

    /// CPU time so far, of all threads.
    pub(crate) fn cpu_times_with_hashing(&self) -> Result<CpuTimes> {
        CpuTimes::of_threads(&[self.pid], |_| true)
    }

    /// Memory as `/proc/PID/status` has it under that name: `VmRSS` or `RssAnon`.
    pub(crate) fn mebibytes(&self, name: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kibibytes: f64 = line.ok_or("no such memory")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes / 1024.0)
    }

    /// Asks the server to end and waits for it, so that its database is left as an operator would leave it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.pid)).status().await?;
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await?;
            return Err(format!("the server did not end within {} s of SIGTERM", PATIENCE.as_secs()).into());
        }
        Ok(())
    }
}

/// Has a server open no second port, on which two of a run would meet. A build from before there was one refuses the setting.
pub(crate) fn without_metrics(command: &mut Command) {
    const OFF: (&str, &str) = (METRICS, "off");
    let mut ask = std::process::Command::new(command.as_std().get_program());
    let asked = ask.arg("check-config").current_dir("/").env_clear().envs([OFF]).output();
    if asked.is_ok_and(|output| output.status.success()) {
        command.envs([OFF]);
    }
}

impl CpuTimes {
    /// CPU time of processes of this machine so far, without what hashing passwords takes.
    pub(crate) fn of(processes: &[u32]) -> Result<Self> {
        Self::of_threads(processes, |name| !name.starts_with("hasher-"))
    }

    /// The same of the threads whose names are `counted`, from the scheduler's own count: that of `/proc/PID/stat` moves in
    /// steps of 10 ms.
    fn of_threads(processes: &[u32], counted: impl Fn(&str) -> bool) -> Result<Self> {
        let mut times = HashMap::new();
        for process in processes {
            for thread in fs::read_dir(format!("/proc/{process}/task"))? {
                let thread = thread?;
                if fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| !counted(&name)) {
                    continue;
                }
                let text = match fs::read_to_string(thread.path().join("schedstat")) {
                    Ok(text) => text,
                    // The thread ended while we looked.
                    Err(error) if error.kind() == ErrorKind::NotFound && thread.path().exists() => {
                        return Err("the kernel keeps no schedstat (CONFIG_SCHED_INFO)".into());
                    }
                    Err(_) => continue,
                };
                let nanos = text.split(' ').next().unwrap_or_default().parse()?;
                times.insert(thread.file_name().to_string_lossy().into_owned(), nanos);
            }
        }
        Ok(Self(times))
    }

    /// Of a server and, on PostgreSQL, of the processes that serve its database.
    pub(crate) fn of_server_and_database(server: &Server, place: &Place) -> Result<Self> {
        let mut processes = vec![server.pid];
        if place.file.is_none() {
            let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                       AND pid <> pg_backend_pid()";
            for line in psql(&place.url, sql)?.lines() {
                processes.push(line.parse()?);
            }
        }
        Self::of(&processes)
    }

    /// Nanoseconds since `earlier`. A thread that ended between the two takes its share along.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        let before = |thread| earlier.0.get(thread).copied().unwrap_or_default();
        self.0.iter().map(|(thread, nanos)| nanos.saturating_sub(before(thread))).sum()
    }
}

//! A PostgreSQL server of a test's own, which can be stopped and started.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

pub(crate) struct Cluster {
    folder: TempDir,
    programs: PathBuf,
    /// User and group of its processes: it refuses to run as root.
    owner: Option<(u32, u32)>,
    /// The database.
    pub(crate) url: String,
}

impl Cluster {
    /// A server that is started.
    pub(crate) async fn start() -> Self {
        // The path of a socket has at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("usersd.").tempdir_in("/tmp").unwrap();
        let owner = rustix::process::geteuid().is_root().then(postgres);
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let url = format!("postgres:///postgres?host={}&user=postgres", folder.path().display());
        let cluster = Self { folder, programs: programs(), owner, url };
        let data = cluster.data();
        let options = ["-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C", "-D"];
        cluster.run("initdb", options.iter().map(OsStr::new).chain([data.as_os_str()])).await;
        cluster.go_on().await;
        cluster
    }

    /// Starts it again.
    pub(crate) async fn go_on(&self) {
        let folder = self.folder.path().display();
        let options = format!("-k {folder} -c listen_addresses='' -c max_connections=60 -c fsync=off");
        let log = self.folder.path().join("log");
        let arguments = ["-s", "-w", "-l"].map(OsStr::new).into_iter().chain([log.as_os_str()]);
        let arguments = arguments.chain(["-o", &options, "start", "-D"].map(OsStr::new));
        self.run("pg_ctl", arguments.chain([self.data().as_os_str()])).await;
    }

    /// Ends its processes as a crash would.
    pub(crate) async fn stop(&self) {
        let status = tokio::process::Command::from(self.stopping()).status().await.unwrap();
        assert!(status.success(), "{status}");
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn stopping(&self) -> Command {
        let mut command = self.command("pg_ctl");
        command.args(["-s", "-m", "immediate", "stop", "-D"]).arg(self.data());
        command
    }

    async fn run<'a>(&self, program: &str, arguments: impl Iterator<Item = &'a OsStr>) {
        let mut command = self.command(program);
        command.args(arguments);
        let status = tokio::process::Command::from(command).status().await.unwrap();
        assert!(status.success(), "{program}: {status}");
    }

    fn command(&self, program: &str) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(self.programs.join(program));
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.data().join("postmaster.pid").exists() {
            let _ = self.stopping().status();
        }
    }
}

/// The newest of the server's programs; distributions do not put them on the path.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest =
        versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
    newest.unwrap_or_else(|| {
        let said = Command::new("pg_config").arg("--bindir").output().unwrap().stdout;
        Path::new(String::from_utf8(said).unwrap().trim()).to_owned()
    })
}

/// User and group of the account that the distribution makes for the server.
fn postgres() -> (u32, u32) {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let account = accounts.lines().find(|line| line.starts_with("postgres:")).unwrap();
    let mut numbers = account.split(':').skip(2).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

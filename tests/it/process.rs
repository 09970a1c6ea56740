//! The built program as processes of their own, which can be stopped, continued and killed.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};
use usersd::pb::namespaces_client::NamespacesClient;
use usersd::pb::users_client::UsersClient;

/// A running `usersd`, killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    /// The lines on stderr before the one that tells its address.
    pub(crate) said: String,
    pub(crate) users: UsersClient<Channel>,
    pub(crate) namespaces: NamespacesClient<Channel>,
}

impl Process {
    /// One that serves the database of `url`, with settings as environment variables.
    pub(crate) async fn start(url: &str, settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_usersd"))
            .args(["--listen", "127.0.0.1:0", "--database", url])
            .env_clear()
            .env("USERSD_METRICS_LISTEN", "off")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let address = loop {
            let line = lines.next_line().await.unwrap().unwrap_or_else(|| panic!("it did not start: {said}"));
            if let Some((_, rest)) = line.split_once(" listening on ") {
                break rest.split_once(' ').unwrap().0.to_owned();
            }
            said.push_str(&line);
        };
        // What nobody reads would block it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let channel = Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap();
        let (users, namespaces) = (UsersClient::new(channel.clone()), NamespacesClient::new(channel));
        Self { child, said, users, namespaces }
    }

    fn id(&self) -> i32 {
        self.child.id().unwrap().try_into().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.id()).unwrap(), signal).unwrap();
    }

    /// Stops it where it is while `meanwhile` happens.
    pub(crate) async fn pause(&self, meanwhile: impl Future<Output = ()>) {
        self.signal(Signal::STOP);
        meanwhile.await;
        self.signal(Signal::CONT);
    }

    /// Ends it at once, whatever it does.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}

//! The schedule of `history` against processes of their own, which stop and go on, and whose database does.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::cluster::Cluster;
use crate::history::{History, MAX_AGE, Watched};
use crate::process::Process;
use crate::proxy::{Mode, Proxy};
use crate::support::{Backend, Service};

crate::on_every_backend!(no_process_shows_what_ended_longer_ago_than_max_age);

const SETTINGS: &[(&str, &str)] =
    &[("USERSD_CACHE_MAX_AGE", "200ms"), ("USERSD_CACHE_POLL", "20ms"), ("USERSD_PASSWORDS_COST", "10")];

/// How often the database stops while a schedule runs.
const OUTAGES: u32 = 2;

async fn no_process_shows_what_ended_longer_ago_than_max_age(service: &Service) {
    match service.backend {
        Backend::Sqlite => {
            let processes = [start(service.url()).await, start(service.url()).await];
            run(&processes, None).await;
        }
        Backend::Postgres => {
            let cluster = Cluster::start().await;
            let first = start(&cluster.url).await;
            // Where answers overtake each other, one who read before a change may get the row after it.
            let late = Proxy::to(&cluster.url).await;
            late.set(Mode::Jitter);
            let processes = [first, start(&late.url).await, start(&late.url).await];
            run(&processes, None).await;
            run(&processes, Some(&cluster)).await;
        }
    }
}

async fn start(url: &str) -> Process {
    Process::start(url, SETTINGS).await
}

/// The last of the processes is stopped and goes on, again and again; so is the database, if there is one.
async fn run(processes: &[Process], database: Option<&Cluster>) {
    let unsteady = database.is_some();
    let watched =
        |(number, process): (usize, &Process)| Watched { number, users: process.users.clone(), unsteady };
    let replicas: Vec<_> = processes.iter().enumerate().map(watched).collect();
    let name = if unsteady { "away" } else { "there" };
    let history = History::begin(&replicas[0].users, name).await;
    let pauses = async {
        while !history.is_over() {
            tokio::time::sleep(MAX_AGE * 3).await;
            pause(processes.last().unwrap(), replicas.last().unwrap(), &history).await;
        }
    };
    let outages = async {
        let Some(database) = database else { return };
        for _ in 0..OUTAGES {
            // However slow the machine is, something happens in between.
            let ended = history.ended();
            while history.ended() < ended + 2 && !history.is_over() {
                tokio::time::sleep(MAX_AGE / 10).await;
            }
            database.stop().await;
            tokio::time::sleep(MAX_AGE * 2).await;
            database.go_on().await;
        }
    };
    tokio::join!(history.run(&replicas, replicas.len()), pauses, outages);
}

/// Stops a process until others have ended a session and its time to answer from memory is over. Reads that begin then are the
/// first that it has to do when it goes on, with what it knew before.
async fn pause(process: &Process, replica: &Watched, history: &Arc<History>) {
    let mut reads = Vec::new();
    let meanwhile = async {
        let ended = history.ended();
        let others = async {
            while history.ended() == ended && !history.is_over() {
                tokio::time::sleep(MAX_AGE / 10).await;
            }
        };
        // They may all wait for this process.
        let _ = tokio::time::timeout(MAX_AGE * 10, others).await;
        tokio::time::sleep(MAX_AGE).await;
        reads = history.begin_reads(replica);
        tokio::time::sleep(MAX_AGE / 10).await;
    };
    process.pause(meanwhile).await;
    for read in join_all(reads).await {
        read.unwrap();
    }
}

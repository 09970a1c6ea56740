//! JSON of ours beside grpc-gateway in front of the same server's gRPC: the CPU of a call, of the gateway and the server
//! together, and the latency that JSON adds to that of gRPC.

use std::net::SocketAddr;
use std::path::Path;

use tokio::process::Command;

use super::compare::{Build, micros_each};
use super::kinds::Call;
use super::load::{self, Load};
use crate::Result;
use crate::figures::{Figure, Target};
use crate::options::Options;
use crate::server::{CpuTimes, Server};
use crate::wire::Client;

/// Calls made one after the other for each that is made beside others.
const ALONE: usize = 10;

/// A quarter of the CPU, and a third of the latency that is added.
const CPU: Target = Target::AtMost(0.25);
const ADDED: Target = Target::AtMost(1.0 / 3.0);

/// One of the two ways to a reply in JSON.
struct Way {
    address: SocketAddr,
    processes: Vec<u32>,
    /// Of each round, in microseconds.
    cpu: Vec<f64>,
    added: Vec<f64>,
}

/// Measures `options.server` on SQLite beside the gateway that is built at `program`.
pub(crate) async fn measure(options: &Options, program: &Path, dir: &Path) -> Result<Vec<Figure>> {
    let build = Build::start(&options.server, dir, None, "gateway").await?;
    let server = &build.server;
    let mut command = Command::new(program.canonicalize()?);
    command.arg(server.address.to_string());
    let gateway = Server::start(command).await?;
    let [grpc_read, grpc_session, read, session, ..] = &build.calls[..] else {
        return Err("calls are missing".into());
    };
    let mut figures = Vec::new();
    for (grpc, json) in [(grpc_read, read), (grpc_session, session)] {
        let way = |address, processes| Way { address, processes, cpu: Vec::new(), added: Vec::new() };
        let mut ways =
            [way(server.address, vec![server.pid]), way(gateway.address, vec![server.pid, gateway.pid])];
        // The first round warms up and does not count. Every second one begins with the other way.
        for round in 0..=options.rounds {
            eprintln!("{}: round {round} of {}", json.name, options.rounds);
            let of_grpc = alone(grpc, server.address, options, dir).await?.p50;
            for turn in [round % 2, (round + 1) % 2] {
                ways[turn].measure(json, of_grpc, options, dir).await?;
            }
            if round == 0 {
                ways.iter_mut().for_each(Way::forget);
            }
        }
        let [ours, theirs] = &ways;
        let name = format!("{}, beside grpc-gateway", json.name);
        figures.push(Figure::beside(format!("{name}, CPU"), "µs", &ours.cpu, &theirs.cpu, CPU));
        figures.push(Figure::beside(format!("{name}, added p50"), "µs", &ours.added, &theirs.added, ADDED));
    }
    gateway.stop().await?;
    build.server.stop().await?;
    Ok(figures)
}

impl Way {
    async fn measure(&mut self, json: &Call, of_grpc: f64, options: &Options, dir: &Path) -> Result<()> {
        let answer = json.answer(&Client::new(), self.address).await?.len();
        let before = CpuTimes::of(&self.processes)?;
        load::run(json, self.address, options.calls, 0, answer, dir).await?;
        self.cpu.push(micros_each(CpuTimes::of(&self.processes)?.since(&before), options.calls));
        let alone = alone(json, self.address, options, dir).await?.p50;
        self.added.push((alone - of_grpc).max(0.0)); // JSON over HTTP/1.1 may be the quicker of the two
        Ok(())
    }

    fn forget(&mut self) {
        self.cpu.clear();
        self.added.clear();
    }
}

/// Calls on one connection, one after the other.
async fn alone(call: &Call, server: SocketAddr, options: &Options, dir: &Path) -> Result<Load> {
    let answer = call.answer(&Client::new(), server).await?.len();
    load::run_alone(call, server, options.calls.div_ceil(ALONE), answer, dir).await
}

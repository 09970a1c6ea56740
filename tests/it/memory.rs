//! What a process remembers of what it was asked in vain: nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tonic::Code;
use usersd::pb::ReadSessionRequest;

use crate::process::Process;
use crate::support::{Service, random};

crate::on_every_backend!(tokens_that_open_nothing_do_not_grow_the_process);

const CALLERS: usize = 32;

/// What the allocator may keep for more of the same.
const SLACK: usize = 8 * 1024 * 1024;

/// Asks for sessions of different tokens for `span`, and for some in any case.
async fn guess(process: &Process, span: Duration) -> u64 {
    let (begun, calls) = (Instant::now(), &AtomicU64::new(0));
    let callers = (0..CALLERS).map(|_| async {
        let mut users = process.users.clone();
        while begun.elapsed() < span || calls.load(Relaxed) < 1_000 {
            let session_id = format!("ses_{}{}", hex::encode(random()), hex::encode(random()));
            let refused =
                users.read_session(ReadSessionRequest { session_id, max_age: None }).await.unwrap_err();
            assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
            calls.fetch_add(1, Relaxed);
        }
    });
    join_all(callers.collect::<Vec<_>>()).await;
    calls.load(Relaxed)
}

async fn tokens_that_open_nothing_do_not_grow_the_process(service: &Service) {
    let process = Process::start(service.url(), &[]).await;
    guess(&process, Duration::from_secs(1)).await;
    let before = process.resident();
    let calls = guess(&process, Duration::from_secs(4)).await;
    let grown = process.resident().saturating_sub(before);
    println!("{calls} tokens; {before} bytes before, {grown} more after");
    assert!(grown < SLACK, "{grown} bytes after {calls} tokens");
}

//! The number of users of a namespace, which nobody counts one by one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use tonic::transport::Channel;
use usersd::pb::users_client::UsersClient;
use usersd::pb::{CreateRequest, ListRequest};

use crate::process::Process;
use crate::steps::{RIVAL, delete, deletion, purge, purging, restore, restoring};
use crate::support::{Service, create, from, nth, random};

crate::on_every_backend!(
    the_total_is_of_its_own_namespace_alone,
    deleted_users_count_in_the_trash_until_they_are_purged,
    a_total_that_is_wrong_is_corrected,
    totals_are_exact_at_every_moment_also_when_a_process_is_killed,
);

/// How many users are live and how many are in the trash.
async fn totals(service: &Service, namespace: &str) -> (i64, i64) {
    let request = || from(namespace, ListRequest { limit: Some(1), ..ListRequest::default() });
    let live = service.users().list(request()).await.unwrap().into_inner().total;
    let trashed = service.users().list_trash(request()).await.unwrap().into_inner().total;
    (live.unwrap(), trashed.unwrap())
}

async fn the_total_is_of_its_own_namespace_alone(service: &Service) {
    assert_eq!(totals(service, "default").await, (0, 0));
    let user = create(service, nth(1)).await;
    service.users().create(from(RIVAL, nth(1))).await.unwrap();
    service.users().create(from(RIVAL, nth(2))).await.unwrap();
    delete(service, &user.id).await;
    assert_eq!(totals(service, "default").await, (0, 1));
    assert_eq!(totals(service, RIVAL).await, (2, 0));
}

async fn deleted_users_count_in_the_trash_until_they_are_purged(service: &Service) {
    let user = create(service, nth(1)).await;
    create(service, nth(2)).await;
    assert_eq!(totals(service, "default").await, (2, 0));
    delete(service, &user.id).await;
    assert_eq!(totals(service, "default").await, (1, 1));
    restore(service, &user.id).await;
    assert_eq!(totals(service, "default").await, (2, 0));
    delete(service, &user.id).await;
    purge(service, &user.id).await;
    assert_eq!(totals(service, "default").await, (1, 0));
}

async fn a_total_that_is_wrong_is_corrected(service: &Service) {
    create(service, nth(1)).await;
    service.users().create(from(RIVAL, nth(1))).await.unwrap();
    service.execute("UPDATE user_totals SET live = live + 5, trashed = 7 WHERE namespace = 'default'").await;
    assert_eq!(totals(service, "default").await, (6, 7));
    service.replica.ops.check_totals().await.unwrap();
    assert_eq!(totals(service, "default").await, (1, 0));
    service.execute("DELETE FROM user_totals").await;
    assert_eq!(totals(service, RIVAL).await, (0, 0));
    service.replica.ops.check_totals().await.unwrap();
    assert_eq!(totals(service, "default").await, (1, 0));
    assert_eq!(totals(service, RIVAL).await, (1, 0));
}

/// Creates, deletes, restores and purges users, and counts what succeeds, until the server is gone.
async fn churn(mut users: UsersClient<Channel>, done: &AtomicUsize, over: &AtomicBool) {
    while !over.load(SeqCst) {
        let username = hex::encode(random());
        let request = CreateRequest { username, sso_enabled: true, ..CreateRequest::default() };
        let Ok(created) = users.create(request).await else { continue };
        let id = created.into_inner().user.unwrap().id;
        let steps = [
            users.delete(deletion(&id)).await.is_ok(),
            users.restore(restoring(&id)).await.is_ok(),
            users.delete(deletion(&id)).await.is_ok(),
            // Some stay in the trash.
            id.ends_with(['0', '1', '2', '3']) || users.purge(purging(&id)).await.is_ok(),
        ];
        done.fetch_add(steps.into_iter().filter(|done| *done).count(), SeqCst);
    }
}

async fn totals_are_exact_at_every_moment_also_when_a_process_is_killed(service: &Service) {
    // In one statement, so at one moment.
    let count = |column, condition| {
        format!(
            "(SELECT count(*) FROM users WHERE {condition}) - \
             (SELECT CAST(coalesce(sum({column}), 0) AS BIGINT) FROM user_totals)"
        )
    };
    let wrong =
        format!("SELECT abs({}) + abs({})", count("live", "deleted = 0"), count("trashed", "deleted > 0"));
    for _ in 0..2 {
        let mut processes =
            [Process::start(service.url(), &[]).await, Process::start(service.url(), &[]).await];
        let (done, over) = (&AtomicUsize::new(0), &AtomicBool::new(false));
        let callers = (0..64).map(|n| churn(processes[n % 2].users.clone(), done, over));
        let callers = join_all(callers.collect::<Vec<_>>());
        let killer = async {
            while done.load(SeqCst) < 150 {
                assert_eq!(service.number(&wrong).await, 0);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            for process in &mut processes {
                process.kill().await;
                assert_eq!(service.number(&wrong).await, 0);
            }
            over.store(true, SeqCst);
        };
        tokio::join!(callers, killer);
        assert_eq!(service.number(&wrong).await, 0);
    }
    let (live, trashed) = totals(service, "default").await;
    assert_eq!(live, service.number("SELECT count(*) FROM users WHERE deleted = 0").await);
    assert_eq!(trashed, service.number("SELECT count(*) FROM users WHERE deleted > 0").await);
}

//! A name that was freed by a deletion: calls that were admitted before it add nothing to the namespace that comes after.

use std::pin::pin;
use std::time::Duration;

use tonic::Code;
use usersd::domain::caller::Caller;
use usersd::domain::namespace::{Namespace, NamespaceRecord, NamespaceState};
use usersd::error::Error;
use usersd::pb::NamespaceState as State;
use usersd::store::{Directory, Transaction};

use crate::namespaces::{create_namespace, deletion, limits, read_namespace};
use crate::support::{Replica, Service, ada, assert_refused, from, until};

crate::on_every_backend!(
    a_call_from_before_the_deletion_adds_nothing_under_the_name,
    a_call_that_waits_for_its_connection_learns_of_the_deletion,
    a_server_that_did_not_run_asks_before_it_writes,
    a_deletion_takes_its_time_whatever_a_clock_says,
);

fn shop() -> Namespace {
    Namespace::parse("shop").unwrap()
}

#[track_caller]
fn assert_deleted(begun: Result<Transaction, Error>) {
    assert!(matches!(begun, Err(Error::NamespaceBeingDeleted)), "{begun:?}");
}

async fn delete(replica: &Replica) {
    replica.namespaces().delete_namespace(deletion("shop")).await.unwrap();
}

/// Lets the deletion come to its end.
async fn free(service: &Service) {
    service.replica.ops.delete_namespaces().await.unwrap();
    service.clock.advance(Duration::from_secs(15));
    until(async || {
        match service.replica.ops.delete_namespaces().await {
            // On a busy machine the database may not answer in time; the server tries again, too.
            Err(Error::DatabaseUnavailable(_)) => return false,
            done => done.unwrap(),
        }
        read_namespace(&service.replica, "shop").await.is_err()
    })
    .await;
    let status = read_namespace(&service.replica, "shop").await.unwrap_err();
    assert_refused(&status, Code::NotFound, "NAMESPACE_NOT_FOUND");
}

/// However long it waited for a hash. Also on a server that learned of the deletion by reading.
async fn a_call_from_before_the_deletion_adds_nothing_under_the_name(service: &Service) {
    let another = service.another(|_| {}).await;
    service.users().create(from("shop", ada())).await.unwrap();
    let before = Caller::server(shop());
    drop(another.store.begin(&before).await.unwrap());
    delete(&service.replica).await;
    // A deletion takes longer than it takes to learn of it.
    until(async || another.store.begin(&Caller::server(shop())).await.is_err()).await;
    free(service).await;
    for replica in [&service.replica, &another] {
        // The other one knows when it serves the name again.
        until(async || replica.store.begin(&Caller::server(shop())).await.is_ok()).await;
        assert_deleted(replica.store.begin(&before).await);
    }
    let elsewhere = Caller { namespace: Namespace::default(), ..before.clone() };
    drop(service.replica.store.begin(&elsewhere).await.unwrap());
    // Nor where it was created anew, whose changes are no deletions.
    create_namespace(&service.replica, "shop", limits(Some(1), None)).await.unwrap();
    assert_deleted(service.replica.store.begin(&before).await);
    let after = Caller::server(shop());
    let request =
        usersd::pb::UpdateNamespaceRequest { name: "shop".into(), limits: Some(limits(Some(2), None)) };
    service.replica.namespaces().update_namespace(request).await.unwrap();
    for replica in [&service.replica, &another] {
        let knows =
            async || replica.store.directory().limits(&shop()) != usersd::domain::quota::Quotas::default();
        until(knows).await;
        drop(replica.store.begin(&after).await.unwrap());
    }
}

async fn a_call_that_waits_for_its_connection_learns_of_the_deletion(service: &Service) {
    let single = service.another(|config| config.pool.connections = 1).await;
    let held = single.store.begin_as_server().await.unwrap();
    let caller = Caller::server(shop());
    let mut waiting = pin!(single.store.begin(&caller));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let record =
        NamespaceRecord { state: NamespaceState::Deleting, version: 1, ..NamespaceRecord::implicit(shop()) };
    single.store.apply_namespace(record).await;
    drop(held);
    assert_deleted(waiting.await);
}

/// Such as one that was frozen: its calls go on when it does.
async fn a_server_that_did_not_run_asks_before_it_writes(service: &Service) {
    let another = service.another(|_| {}).await;
    // What it does beside is over; its calls would go on.
    another.stop.cancel();
    until(async || another.running.is_finished()).await;
    service.users().create(from("shop", ada())).await.unwrap();
    tokio::time::sleep(Directory::TRUSTED + Duration::from_millis(100)).await;
    delete(&service.replica).await;
    assert_deleted(another.store.begin(&Caller::server(shop())).await);
}

async fn a_deletion_takes_its_time_whatever_a_clock_says(service: &Service) {
    service.users().create(from("shop", ada())).await.unwrap();
    delete(&service.replica).await;
    service.replica.ops.delete_namespaces().await.unwrap();
    service.clock.set(service.clock.now().plus(Duration::from_hours(1)));
    service.replica.ops.delete_namespaces().await.unwrap();
    let (namespace, _) = read_namespace(&service.replica, "shop").await.unwrap();
    assert_eq!(namespace.state(), State::Deleting);
    free(service).await;
}

//! The number of users of a namespace, which nobody counts one by one.

use usersd::pb::ListRequest;

use crate::steps::{RIVAL, delete, purge, restore};
use crate::support::{Service, create, from, nth};

crate::on_every_backend!(
    the_total_is_of_its_own_namespace_alone,
    deleted_users_count_in_the_trash_until_they_are_purged,
    a_total_that_is_wrong_is_corrected,
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

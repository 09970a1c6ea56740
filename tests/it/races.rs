//! Many callers at the same time over one address.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tonic::{Code, Status};
use usersd::pb::{CreateOrRestoreRequest, CreateRequest, LoginRequest, UserStatus};

use crate::steps::{RIVAL, deletion, ids, purging, restoring, set_status};
use crate::support::{PASSWORD, Service, ada, assert_refused, create, from, reason};

crate::on_every_backend!(
    of_many_sign_ups_with_one_address_one_succeeds,
    an_address_has_at_most_one_user_and_no_change_is_lost,
    a_user_is_restored_and_purged_by_one_caller_each,
    blocking_during_a_log_in_leaves_no_session,
);

const ADDRESS: &str = "ada@example.com";

/// One by number, all of one address.
fn nth(n: usize) -> CreateRequest {
    CreateRequest {
        id: format!("user{n}"),
        email: ADDRESS.into(),
        sso_enabled: true,
        ..CreateRequest::default()
    }
}

fn again() -> CreateOrRestoreRequest {
    CreateOrRestoreRequest {
        email: ADDRESS.into(),
        sso_enabled: Some(true),
        ..CreateOrRestoreRequest::default()
    }
}

async fn live(service: &Service) -> i64 {
    service.number("SELECT count(*) FROM users WHERE deleted = 0 AND namespace = 'default'").await
}

async fn of_many_sign_ups_with_one_address_one_succeeds(service: &Service) {
    let other = service.another(|_| {}).await; // the databases decide, not a server
    let creating = (0..64).map(|n| {
        let mut users = if n % 2 == 0 { service.users() } else { other.users.clone() };
        tokio::spawn(async move { users.create(nth(n)).await })
    });
    let mut created = 0;
    for done in join_all(creating.collect::<Vec<_>>()).await {
        match done.unwrap() {
            Ok(_) => created += 1,
            Err(status) => assert_refused(&status, Code::AlreadyExists, "EMAIL_TAKEN"),
        }
    }
    assert_eq!((created, live(service).await), (1, 1));
    assert_eq!(service.counts().await[..3], [1, 0, 1], "and one event");
    // Elsewhere the address is free.
    service.users().create(from(RIVAL, nth(0))).await.unwrap();
}

/// One caller's part in the crowd: what was acknowledged, by the name of its event.
async fn act(service: &Service, n: usize) -> Vec<&'static str> {
    let mut users = service.users();
    let mut acknowledged = Vec::new();
    let mut note = |event: &'static str, done: Result<(), Status>| match done {
        Ok(()) => acknowledged.push(event),
        Err(status) => {
            let known = ["USER_NOT_FOUND", "EMAIL_TAKEN", "ID_TAKEN"];
            assert!(known.contains(&reason(&status).as_str()), "{status:?}");
        }
    };
    let target = format!("user{}", (n + 1) % 8);
    for round in 0..3 {
        match (n + round) % 5 {
            0 => note("USER_CREATED", users.create(nth(n % 8)).await.map(|_| ())),
            1 => note("USER_DELETED", users.delete(deletion(&target)).await.map(|_| ())),
            2 => note("USER_RESTORED", users.restore(restoring(&target)).await.map(|_| ())),
            3 => note("USER_PURGED", users.purge(purging(&target)).await.map(|_| ())),
            _ => match users.create_or_restore(again()).await {
                Ok(reply) if reply.get_ref().restored => note("USER_RESTORED", Ok(())),
                Ok(_) => note("USER_CREATED", Ok(())),
                Err(status) => note("", Err(status)),
            },
        }
        assert!(live(service).await <= 1);
    }
    acknowledged
}

async fn an_address_has_at_most_one_user_and_no_change_is_lost(service: &Service) {
    let acts = join_all((0..64).map(|n| act(service, n))).await;
    let mut acknowledged = BTreeMap::<&str, i64>::new();
    for event in acts.into_iter().flatten() {
        *acknowledged.entry(event).or_default() += 1;
    }
    let events = ["USER_CREATED", "USER_DELETED", "USER_PURGED", "USER_RESTORED"];
    for event in events {
        let written = format!("SELECT count(*) FROM events WHERE action = '{event}'");
        let acknowledged = acknowledged.get(event).copied().unwrap_or_default();
        assert_eq!(service.number(&written).await, acknowledged, "{event}");
    }
    let of = |event: &str| acknowledged.get(event).copied().unwrap_or_default();
    assert!(of("USER_CREATED") > 0);
    // The rows are what the events say, and so is the search index.
    let left = of("USER_CREATED") - of("USER_PURGED");
    assert_eq!(service.number("SELECT count(*) FROM users").await, left);
    assert_eq!(service.number("SELECT count(*) FROM users_search").await, left);
    let alive = of("USER_CREATED") - of("USER_DELETED") + of("USER_RESTORED");
    assert_eq!(live(service).await, alive);
    let total = "SELECT CAST(SUM(live) AS BIGINT) FROM user_totals";
    assert_eq!(service.number(total).await, alive);
    let total = "SELECT CAST(SUM(trashed) AS BIGINT) FROM user_totals";
    assert_eq!(service.number(total).await, left - alive);
    assert_eq!(
        ids(service, false).await.len() + ids(service, true).await.len(),
        usize::try_from(left).unwrap()
    );
}

async fn a_user_is_restored_and_purged_by_one_caller_each(service: &Service) {
    for n in 0..8 {
        create(service, nth(n)).await;
        service.users().delete(deletion(&format!("user{n}"))).await.unwrap();
    }
    // Each is restored by two, purged by two; nobody else has the address but one of them at a time.
    let calls = (0..32).map(|n| {
        let (mut users, id) = (service.users(), format!("user{}", n % 8));
        tokio::spawn(async move {
            match n / 8 {
                0 | 1 => users.purge(purging(&id)).await.map(|_| "USER_PURGED"),
                _ => users.restore(restoring(&id)).await.map(|_| "USER_RESTORED"),
            }
        })
    });
    let mut acknowledged = Vec::new();
    for done in join_all(calls.collect::<Vec<_>>()).await {
        match done.unwrap() {
            Ok(event) => acknowledged.push(event),
            Err(status) => assert!(["USER_NOT_FOUND", "EMAIL_TAKEN"].contains(&reason(&status).as_str())),
        }
    }
    let count =
        |event: &str| i64::try_from(acknowledged.iter().filter(|done| **done == event).count()).unwrap();
    for event in ["USER_PURGED", "USER_RESTORED"] {
        let written = format!("SELECT count(*) FROM events WHERE action = '{event}'");
        assert_eq!(service.number(&written).await, count(event), "{event}");
    }
    assert!(live(service).await <= 1);
    assert_eq!(live(service).await, count("USER_RESTORED"));
    assert_eq!(service.number("SELECT count(*) FROM users").await, 8 - count("USER_PURGED"));
}

async fn blocking_during_a_log_in_leaves_no_session(service: &Service) {
    let user = create(service, ada()).await;
    let signing_in = (0..16).map(|_| {
        let mut users = service.users();
        let request =
            LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
        tokio::spawn(async move { users.login(request).await })
    });
    let signing_in: Vec<_> = signing_in.collect();
    set_status(service, &user.id, UserStatus::Blocked).await;
    for done in join_all(signing_in).await {
        if let Err(status) = done.unwrap() {
            assert_refused(&status, Code::PermissionDenied, "USER_BLOCKED");
        }
    }
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 0);
}

//! Sessions and users that are answered from memory: when they may be, and when not.

use std::time::Duration;

use tonic::{Code, Status};
use usersd::config::Config;
use usersd::pb::{
    CreateRequest, DeleteSessionRequest, DeleteSessionsRequest, LogoutRequest, ReadSessionRequest, Session,
    SetPasswordRequest, UpdatePasswordRequest, UpdateRequest, User, UserStatus,
};

use crate::steps::{RIVAL, assert_alike, becoming, by_id, deletion, is_open};
use crate::support::{PASSWORD, Replica, Service, ada, assert_refused, create, from, login, nth, until};

crate::on_every_backend!(
    a_cached_session_or_user_is_nobodys_elses,
    what_ends_a_session_here_is_felt_here_at_once,
    what_happens_on_another_replica_is_felt_within_max_age,
    where_the_log_cannot_be_read_the_database_is_asked,
    what_was_not_found_is_not_remembered,
    without_memory_everything_is_read_from_the_database,
    a_cached_session_ends_by_itself_like_any_other,
    a_change_that_was_made_before_is_felt_by_who_asks_for_it_again,
);

/// What the settings are by default.
const MAX_AGE: Duration = Duration::from_millis(500);

/// A replica whose cache is used however slow the machine is.
async fn lasting(service: &Service) -> Replica {
    service.another(|config| config.cache.max_age = Duration::from_hours(1)).await
}

async fn read_session(replica: &Replica, token: &str) -> Result<Session, Status> {
    let request = ReadSessionRequest { session_id: token.into(), max_age: None };
    Ok(replica.users.clone().read_session(request).await?.into_inner().session.unwrap())
}

async fn read(replica: &Replica, id: &str) -> Result<User, Status> {
    Ok(replica.users.clone().read(by_id(id)).await?.into_inner().user.unwrap())
}

#[track_caller]
fn is_refused(found: Result<Session, Status>) {
    assert_refused(&found.unwrap_err(), Code::NotFound, "SESSION_NOT_FOUND");
}

/// How often the replica asks its database about one of `names` during `call`.
async fn asked(replica: &Replica, names: &[&str], call: impl Future) -> usize {
    *replica.statements.lock().unwrap() = Some(Vec::new());
    call.await;
    let statements = replica.statements.lock().unwrap().take().unwrap();
    let about = |text: String| names.iter().any(|name| text.to_lowercase().contains(name));
    statements.into_iter().filter(|statement| about(statement.to_string())).count()
}

fn digest(token: &str) -> String {
    hex::encode(<sha2::Sha256 as sha2::Digest>::digest(token.as_bytes()))
}

/// Waits until both are answered without the database.
async fn until_cached(replica: &Replica, token: &str, id: &str) {
    let digest = digest(token);
    until(async || {
        let both = async {
            read_session(replica, token).await.unwrap();
            read(replica, id).await.unwrap();
        };
        asked(replica, &[&digest, id], both).await == 0
    })
    .await;
}

async fn a_cached_session_or_user_is_nobodys_elses(service: &Service) {
    let replica = lasting(service).await;
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    until_cached(&replica, &session.id, &user.id).await;

    let as_rival = |token: &str| from(RIVAL, ReadSessionRequest { session_id: token.into(), max_age: None });
    let mut users = replica.users.clone();
    let there = users.read_session(as_rival(&session.id)).await.unwrap_err();
    let nowhere = users.read_session(as_rival(&format!("ses_{}", "0".repeat(64)))).await.unwrap_err();
    assert_refused(&there, Code::NotFound, "SESSION_NOT_FOUND");
    assert_alike(&there, &nowhere);
    let there = users.read(from(RIVAL, by_id(&user.id))).await.unwrap_err();
    let nowhere = users.read(from(RIVAL, by_id("nobody"))).await.unwrap_err();
    assert_refused(&there, Code::NotFound, "USER_NOT_FOUND");
    assert_alike(&there, &nowhere);
    // A user of the same id there is another one.
    let twin = CreateRequest { id: user.id.clone(), ..nth(1) };
    users.create(from(RIVAL, twin)).await.unwrap();
    until(async || {
        let read = async { users.clone().read(from(RIVAL, by_id(&user.id))).await.unwrap() };
        asked(&replica, &[&user.id], async {
            assert_eq!(read.await.into_inner().user.unwrap().username, "user1");
        })
        .await
            == 0
    })
    .await;
    assert_eq!(read(&replica, &user.id).await.unwrap().username, "ada");
    assert_eq!(read_session(&replica, &session.id).await.unwrap().username, "ada");
}

/// Every way to end a session, by a caller of `replica`.
async fn end(replica: &Replica, way: usize, id: &str, session: &Session) {
    let (mut users, user_id) = (replica.users.clone(), id.to_owned());
    match way {
        0 => drop(users.logout(LogoutRequest { session_id: session.id.clone() }).await.unwrap()),
        1 => {
            let request = DeleteSessionRequest { user_id, session_id: session.public_id.clone() };
            users.delete_session(request).await.unwrap();
        }
        2 => drop(users.delete_sessions(DeleteSessionsRequest { user_id }).await.unwrap()),
        3 => drop(users.update_status(becoming(id, UserStatus::Blocked)).await.unwrap()),
        4 => {
            let request = UpdatePasswordRequest {
                user_id,
                old_password: PASSWORD.into(),
                new_password: "another horse".into(),
                ..UpdatePasswordRequest::default()
            };
            users.update_password(request).await.unwrap();
        }
        5 => {
            let new_password = "another horse".into();
            let request = SetPasswordRequest { user_id, new_password, ..SetPasswordRequest::default() };
            users.set_password(request).await.unwrap();
        }
        6 => {
            let request = UpdateRequest {
                id: user_id,
                password: Some("another horse".into()),
                ..UpdateRequest::default()
            };
            users.update(request).await.unwrap();
        }
        _ => drop(users.delete(deletion(id)).await.unwrap()),
    }
}

/// How many there are.
const WAYS: usize = 8;

/// Fails unless the replica shows what `way` has done.
async fn assert_ended(replica: &Replica, way: usize, user: &User, session: &Session) {
    is_refused(read_session(replica, &session.id).await);
    let now = read(replica, &user.id).await;
    match way {
        0..=2 => assert_eq!(now.unwrap(), *user),
        3 => assert_eq!(now.unwrap().status(), UserStatus::Blocked),
        4..=6 => assert_ne!(now.unwrap().etag, user.etag),
        _ => assert_refused(&now.unwrap_err(), Code::NotFound, "USER_NOT_FOUND"),
    }
}

async fn what_ends_a_session_here_is_felt_here_at_once(service: &Service) {
    let replica = lasting(service).await;
    for way in 0..WAYS {
        let user = create(service, nth(way)).await;
        let session = login(service, &user.username).await;
        until_cached(&replica, &session.id, &user.id).await;
        end(&replica, way, &user.id, &session).await;
        assert_ended(&replica, way, &user, &session).await;
    }
    // A session that shows its user's name, and a user who comes back.
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    until_cached(&replica, &session.id, &user.id).await;
    let rename =
        UpdateRequest { id: user.id.clone(), username: Some("countess".into()), ..UpdateRequest::default() };
    replica.users.clone().update(rename).await.unwrap();
    assert_eq!(read_session(&replica, &session.id).await.unwrap().username, "countess");
    assert_eq!(read(&replica, &user.id).await.unwrap().username, "countess");
}

async fn what_happens_on_another_replica_is_felt_within_max_age(service: &Service) {
    let replica = service.another(|_| {}).await;
    for way in 0..WAYS {
        let user = create(service, nth(way)).await;
        let session = login(service, &user.username).await;
        until_cached(&replica, &session.id, &user.id).await;
        end(&service.replica, way, &user.id, &session).await;
        tokio::time::sleep(MAX_AGE).await;
        assert_ended(&replica, way, &user, &session).await;
    }
    // By the log alone, long before the cached record is too old to be used.
    let replica = lasting(service).await;
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    until_cached(&replica, &session.id, &user.id).await;
    let request = LogoutRequest { session_id: session.id.clone() };
    service.users().logout(request).await.unwrap();
    until(async || read_session(&replica, &session.id).await.is_err()).await;
}

async fn where_the_log_cannot_be_read_the_database_is_asked(service: &Service) {
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    until_cached(&service.replica, &session.id, &user.id).await;
    service.execute("ALTER TABLE events RENAME TO events_away").await;
    tokio::time::sleep(MAX_AGE).await;
    let digest = digest(&session.id);
    for _ in 0..3 {
        let call = async { read_session(&service.replica, &session.id).await.unwrap() };
        assert_ne!(asked(&service.replica, &[&digest], call).await, 0);
        let call = async { read(&service.replica, &user.id).await.unwrap() };
        assert_ne!(asked(&service.replica, &[&user.id], call).await, 0);
    }
    service.execute("DELETE FROM sessions").await;
    is_refused(read_session(&service.replica, &session.id).await);
    service.execute("ALTER TABLE events_away RENAME TO events").await;
    let session = login(service, "ada").await;
    until_cached(&service.replica, &session.id, &user.id).await;
}

async fn what_was_not_found_is_not_remembered(service: &Service) {
    let replica = lasting(service).await;
    let session = {
        create(service, nth(1)).await;
        login(service, "user1").await
    };
    let token = format!("ses_{}", "0".repeat(64));
    let unknown = digest(&token);
    for _ in 0..3 {
        assert_ne!(
            asked(&replica, &[&unknown], async { is_refused(read_session(&replica, &token).await) }).await,
            0
        );
        assert_refused(&read(&replica, "later").await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    }
    create(service, CreateRequest { id: "later".into(), ..ada() }).await;
    assert_eq!(read(&replica, "later").await.unwrap().username, "ada");
    read_session(&replica, &session.id).await.unwrap();
}

async fn without_memory_everything_is_read_from_the_database(service: &Service) {
    let off = |config: &mut Config| {
        config.cache.memory = 0;
        config.cache.max_age = Duration::from_hours(1);
    };
    let replica = service.another(off).await;
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    until_cached(&service.replica, &session.id, &user.id).await;
    let digest = digest(&session.id);
    for _ in 0..3 {
        let call = async { read_session(&replica, &session.id).await.unwrap() };
        assert_eq!(asked(&replica, &[&digest], call).await, 1);
        let call = async { read(&replica, &user.id).await.unwrap() };
        assert_eq!(asked(&replica, &[&user.id], call).await, 1);
    }
    service.execute("DELETE FROM sessions").await;
    is_refused(read_session(&replica, &session.id).await);
}

async fn a_cached_session_ends_by_itself_like_any_other(service: &Service) {
    let strict = |config: &mut Config| {
        config.cache.max_age = Duration::from_hours(1);
        config.sessions.idle = Some(Duration::from_hours(1));
    };
    let (one, two) = (service.another(strict).await, service.another(strict).await);
    let user = create(service, ada()).await;
    let session = login(service, "ada").await;
    for replica in [&one, &two] {
        until_cached(replica, &session.id, &user.id).await;
    }
    // Read on one replica alone: the other one has it cached as unread.
    service.clock.advance(Duration::from_mins(50));
    read_session(&one, &session.id).await.unwrap();
    until(async || service.number("SELECT max(seen) FROM sessions").await == service.clock.now().0).await;
    service.clock.advance(Duration::from_mins(50));
    read_session(&two, &session.id).await.unwrap();
    until_cached(&two, &session.id, &user.id).await;
    service.clock.advance(Duration::from_hours(1));
    is_refused(read_session(&one, &session.id).await);
    is_refused(read_session(&two, &session.id).await);
    // Without the limit it goes on, until its own end.
    let last = lasting(service).await;
    until_cached(&last, &session.id, &user.id).await;
    service.clock.advance(Duration::from_hours(7 * 24));
    is_refused(read_session(&last, &session.id).await);
    assert!(!is_open(service, &session.id).await);
}

/// A COMMIT that the database got to after its caller was told that nobody knows: here a statement past the program.
async fn a_change_that_was_made_before_is_felt_by_who_asks_for_it_again(service: &Service) {
    let replica = lasting(service).await;
    for way in 0..4 {
        let user = create(service, nth(way)).await;
        let session = login(service, &user.username).await;
        until_cached(&replica, &session.id, &user.id).await;
        let blocked = format!("UPDATE users SET status = 3 WHERE id = '{}'", user.id);
        service.execute(&format!("DELETE FROM sessions; {}", if way == 3 { &blocked } else { "" })).await;
        let (mut users, user_id) = (replica.users.clone(), user.id.clone());
        let session_id = session.public_id.clone();
        match way {
            0 => {
                let request = LogoutRequest { session_id: session.id.clone() };
                assert_refused(
                    &users.logout(request).await.unwrap_err(),
                    Code::NotFound,
                    "SESSION_NOT_FOUND",
                );
            }
            1 => {
                let request = DeleteSessionRequest { user_id, session_id };
                let refused = users.delete_session(request).await.unwrap_err();
                assert_refused(&refused, Code::NotFound, "SESSION_NOT_FOUND");
            }
            2 => drop(users.delete_sessions(DeleteSessionsRequest { user_id }).await.unwrap()),
            _ => drop(users.update_status(becoming(&user.id, UserStatus::Blocked)).await.unwrap()),
        }
        assert_ended(&replica, way, &user, &session).await;
    }
}

//! Deletion of a namespace: callers are refused at once, rows go in batches, and other namespaces keep all of theirs.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Statement};
use tonic::{Code, Request, Status};
use usersd::domain::scope::Scopes;
use usersd::error::Error;
use usersd::ops::keys;
use usersd::pb::{
    CodeForm, CodePurpose, ConfirmTotpRequest, CreateCodeRequest, CreateKeyRequest, EnrollTotpRequest,
    ListRequest, LoginRequest, NamespaceState, ReadSessionRequest, UpdateNamespaceRequest,
    VerifyEmailRequest,
};
use usersd::store::deletion::{TABLES, has_older_transactions};

use crate::factors::{code, give_keys};
use crate::namespaces::{create_namespace, deletion, limits, read_namespace, with_key};
use crate::process::Process;
use crate::support::{
    Backend, PASSWORD, Replica, START, Service, ada, assert_refused, from, nth, reason, until,
};

crate::on_every_backend!(
    every_call_in_it_is_refused_from_the_reply_on,
    nothing_of_it_is_left_and_nobody_else_is_touched,
    the_name_is_free_when_nobody_can_add_to_it_any_more,
    a_session_of_before_opens_nothing_in_a_namespace_of_the_same_name,
    a_server_that_is_killed_goes_on_after_its_restart,
    one_that_fails_does_not_keep_others_nor_their_trash,
    an_open_transaction_of_any_role_is_noticed,
);

async fn delete_namespace(replica: &Replica, name: &str) -> Result<(), Status> {
    let deleted =
        replica.namespaces().delete_namespace(deletion(name)).await?.into_inner().namespace.unwrap();
    assert_eq!(deleted.state(), NamespaceState::Deleting);
    Ok(())
}

/// Users, sessions, events, failures, idempotency keys, codes, second factors and trash of a namespace. Returns the token of
/// a session.
async fn fill(service: &Service, namespace: &str) -> String {
    let mut users = service.users();
    users.create(from(namespace, ada())).await.unwrap();
    let repeatable = usersd::pb::CreateRequest { idempotency_key: "once".into(), ..nth(1) };
    let user = users.create(from(namespace, repeatable)).await.unwrap().into_inner().user.unwrap();
    users
        .delete(from(namespace, usersd::pb::DeleteRequest { id: user.id, ..Default::default() }))
        .await
        .unwrap();
    fill_with_codes(service, namespace).await;
    let login = |password: &str| LoginRequest {
        username: "ada".into(),
        password: password.into(),
        device: Some(usersd::pb::Device { address: "192.0.2.7".into(), ..Default::default() }),
        ..LoginRequest::default()
    };
    users.login(from(namespace, login("wrong"))).await.unwrap_err();
    users.login(from(namespace, login(PASSWORD))).await.unwrap().into_inner().session.unwrap().id
}

/// A code, an attempt with it, and a user with a second factor.
async fn fill_with_codes(service: &Service, namespace: &str) {
    let mut users = service.users();
    let (email, length) = ("ada@example.com".to_owned(), 10);
    let (purpose, form) = (CodePurpose::EmailVerification.into(), CodeForm::Digits.into());
    let asking = CreateCodeRequest { email: email.clone(), purpose, form, length, ..Default::default() };
    users.create_code(from(namespace, asking)).await.unwrap();
    let wrong = VerifyEmailRequest { code: "0".repeat(10), email, ..VerifyEmailRequest::default() };
    users.verify_email(from(namespace, wrong)).await.unwrap_err();
    give_keys(service, &[1]);
    let user_id = users.create(from(namespace, nth(2))).await.unwrap().into_inner().user.unwrap().id;
    let password = PASSWORD.into();
    let request = EnrollTotpRequest { user_id: user_id.clone(), password, ..EnrollTotpRequest::default() };
    let secret = users.enroll_totp(from(namespace, request)).await.unwrap().into_inner().secret;
    let totp = code(&secret, service.clock.now().seconds() - START);
    let request = ConfirmTotpRequest { user_id, totp, ..ConfirmTotpRequest::default() };
    users.confirm_totp(from(namespace, request)).await.unwrap();
}

/// Gives each namespace a key and one that was revoked. Returns a root key, without which no call is served from now on.
async fn fill_with_keys(service: &Service, namespaces: &[&str]) -> String {
    for namespace in namespaces {
        service.key(namespace, Scopes::ALL).await;
        let (_, revoked) = service.key(namespace, Scopes::ALL).await;
        keys::revoke(&service.replica.store, &service.clock, &revoked, false).await.unwrap();
    }
    service.key("*", Scopes::ALL).await.0
}

/// The message as a caller with a key sends it for a namespace.
fn of_namespace<T>(key: &str, namespace: &str, message: T) -> Request<T> {
    let mut request = with_key(key, message);
    request.metadata_mut().insert("usersd-namespace", namespace.parse().unwrap());
    request
}

/// Fails unless each table of tenants is among the rows. A purged user's row is gone with its events.
#[track_caller]
fn assert_complete(rows: &[String]) {
    for table in TABLES.into_iter().filter(|table| *table != "purged") {
        assert!(rows.iter().any(|row| row.starts_with(&format!("{table} "))), "no row in {table}");
    }
}

/// Every row of a namespace, as text.
async fn rows(service: &Service, namespace: &str) -> Vec<String> {
    let mut all = Vec::new();
    for table in TABLES {
        let sql = match service.backend {
            Backend::Postgres => format!("SELECT t::text AS row FROM {table} t WHERE namespace = $1"),
            Backend::Sqlite => {
                let columns = format!(
                    "SELECT group_concat('quote(' || name || ')', ' || ') AS row FROM pragma_table_info('{table}')"
                );
                let columns = Statement::from_string(service.backend.kind(), columns);
                let row = service.replica.store.reader().query_one_raw(columns).await.unwrap().unwrap();
                let columns: String = row.try_get("", "row").unwrap();
                format!("SELECT {columns} AS row FROM {table} WHERE namespace = $1")
            }
        };
        let select = Statement::from_sql_and_values(service.backend.kind(), &sql, [namespace.into()]);
        for row in service.replica.store.reader().query_all_raw(select).await.unwrap() {
            all.push(format!("{table} {}", row.try_get::<String>("", "row").unwrap()));
        }
    }
    all.sort();
    all
}

#[expect(clippy::too_many_lines, reason = "one story")]
async fn every_call_in_it_is_refused_from_the_reply_on(service: &Service) {
    let token = fill(service, "shop").await;
    fill(service, "default").await;
    let (own, _) = service.key("shop", Scopes::ALL).await;
    let (root, _) = service.key("*", Scopes::ALL).await;
    let another = service.another(|_| {}).await;
    let list = async |replica: &Replica, key: &str, namespace: &str| {
        let list = of_namespace(key, namespace, ListRequest::default());
        replica.users.clone().list(list).await.map(|_| ())
    };
    let read =
        |key: &str| with_key(key, ReadSessionRequest { session_id: token.clone(), ..Default::default() });
    // In memory from now on.
    service.users().read_session(read(&own)).await.unwrap();
    another.users.clone().read_session(read(&own)).await.unwrap();

    let request = with_key(&root, deletion("shop"));
    service.replica.namespaces().delete_namespace(request).await.unwrap();
    let refused = [
        service.users().read_session(read(&own)).await.map(|_| ()),
        list(&service.replica, &own, "shop").await,
        list(&service.replica, &root, "shop").await,
    ];
    for answer in refused {
        let status = answer.unwrap_err();
        assert!(
            ["NAMESPACE_BEING_DELETED", "KEY_MISSING_OR_UNKNOWN"].contains(&reason(&status).as_str()),
            "{status:?}"
        );
    }
    let status = list(&service.replica, &root, "shop").await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "NAMESPACE_BEING_DELETED");
    list(&service.replica, &root, "default").await.unwrap();
    until(async || another.users.clone().read_session(read(&own)).await.is_err()).await;
    until(async || list(&another, &root, "shop").await.is_err()).await;
    list(&another, &root, "default").await.unwrap();

    // Nothing is created under the name; a repeat succeeds, and the limits cannot be changed.
    let again = with_key(&root, deletion("shop"));
    service.replica.namespaces().delete_namespace(again).await.unwrap();
    let mut client = service.replica.namespaces();
    let (name, limits) = ("shop".to_owned(), Some(limits(Some(1), None)));
    let creation = usersd::pb::CreateNamespaceRequest { name: name.clone(), limits };
    let status = client.create_namespace(with_key(&root, creation)).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "NAMESPACE_BEING_DELETED");
    let status =
        client.update_namespace(with_key(&root, UpdateNamespaceRequest { name, limits })).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "NAMESPACE_BEING_DELETED");
    let late = CreateKeyRequest { name: "late".into(), scopes: vec!["users.read".into()], expires: 0 };
    let status = service.replica.keys_client().create(of_namespace(&root, "shop", late)).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "NAMESPACE_BEING_DELETED");
}

async fn nothing_of_it_is_left_and_nobody_else_is_touched(service: &Service) {
    for namespace in ["shop", "shop2", "default"] {
        fill(service, namespace).await;
    }
    let root = fill_with_keys(service, &["shop", "shop2", "default"]).await;
    let before = [rows(service, "shop2").await, rows(service, "default").await];
    for rows in before.iter().chain([&rows(service, "shop").await]) {
        assert_complete(rows);
    }
    service.replica.namespaces().delete_namespace(with_key(&root, deletion("shop"))).await.unwrap();
    until(async || rows(service, "shop").await.is_empty()).await;
    assert_eq!([rows(service, "shop2").await, rows(service, "default").await], before);
    // Nor is the search index.
    let search = ListRequest { search: "user1@".into(), ..ListRequest::default() };
    let found =
        service.users().list_trash(of_namespace(&root, "default", search)).await.unwrap().into_inner().users;
    assert_eq!(found.len(), 1);
    if service.backend == Backend::Sqlite {
        let entries = "SELECT count(*) FROM users_search_docsize WHERE id NOT IN (SELECT num FROM users)";
        assert_eq!(service.number(entries).await, 0);
    }
}

async fn the_name_is_free_when_nobody_can_add_to_it_any_more(service: &Service) {
    fill(service, "shop").await;
    create_namespace(&service.replica, "shop", limits(Some(7), None)).await.unwrap();
    let another = service.another(|_| {}).await;
    delete_namespace(&service.replica, "shop").await.unwrap();
    until(async || rows(service, "shop").await.is_empty()).await;
    // What a call of before adds after all, on a server that did not know yet, goes as well.
    service.execute(&user_rows(service.backend, "shop", 3)).await;
    service.replica.ops.delete_namespaces().await.unwrap();
    assert_eq!(rows(service, "shop").await, Vec::<String>::new());
    let (namespace, usage) = read_namespace(&service.replica, "shop").await.unwrap();
    assert_eq!((namespace.state(), usage.users), (NamespaceState::Deleting, 0));

    service.clock.advance(Duration::from_secs(15));
    until(async || {
        service.replica.ops.delete_namespaces().await.unwrap();
        read_namespace(&service.replica, "shop").await.is_err()
    })
    .await;
    let status = read_namespace(&service.replica, "shop").await.unwrap_err();
    assert_refused(&status, Code::NotFound, "NAMESPACE_NOT_FOUND");
    assert_refused(
        &delete_namespace(&service.replica, "shop").await.unwrap_err(),
        Code::NotFound,
        "NAMESPACE_NOT_FOUND",
    );
    // Its limits are gone with it.
    until(async || another.users.clone().create(from("shop", ada())).await.is_ok()).await;
    let (namespace, usage) = read_namespace(&another, "shop").await.unwrap();
    assert_eq!(
        (namespace.state(), namespace.limits, usage.users),
        (NamespaceState::Implicit, Some(limits(None, None)), 1)
    );
    create_namespace(&another, "shop", limits(Some(2), None)).await.unwrap();
}

async fn a_session_of_before_opens_nothing_in_a_namespace_of_the_same_name(service: &Service) {
    let another = service.another(|_| {}).await;
    let token = fill(service, "shop").await;
    let read = async |replica: &Replica| {
        let request = ReadSessionRequest { session_id: token.clone(), ..Default::default() };
        replica.users.clone().read_session(from("shop", request)).await
    };
    read(&service.replica).await.unwrap();
    read(&another).await.unwrap();
    delete_namespace(&service.replica, "shop").await.unwrap();
    until(async || rows(service, "shop").await.is_empty()).await;
    service.clock.advance(Duration::from_secs(15));
    for replica in [&service.replica, &another] {
        until(async || {
            // On a busy machine the database may not answer in time; the server tries again, too.
            match replica.ops.delete_namespaces().await {
                Err(Error::DatabaseUnavailable(_)) => return false,
                done => done.unwrap(),
            }
            read(replica).await.is_err_and(|status| status.code() == Code::NotFound)
        })
        .await;
    }
}

/// An INSERT of users that have no names.
fn user_rows(backend: Backend, namespace: &str, rows: u32) -> String {
    let (pad, numbers) = match backend {
        Backend::Sqlite => (
            "printf('%06d', n)",
            format!(
                "(WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {rows}) \
                 SELECT n FROM counted)"
            ),
        ),
        Backend::Postgres => {
            ("lpad(n::text, 6, '0')", format!("(SELECT generate_series(1, {rows}) AS n) AS numbers"))
        }
    };
    format!(
        "INSERT INTO users (namespace, id, generation, version, username, email, email_verified, name, status, \
         sso_enabled, password_hash, password_updated, prefs, labels, metadata, created, updated, deleted, \
         id_folded, name_folded) SELECT '{namespace}', 'id' || {pad}, n, 1, '', '', (n < 0), '', 2, (n > 0), '', 0, \
         '{{}}', '[]', '{{}}', {START}000000, {START}000000, 0, 'id' || {pad}, '' FROM {numbers}"
    )
}

/// Has the deletion stop at the last user, wherever it comes.
fn obstacle(backend: Backend) -> &'static str {
    match backend {
        Backend::Sqlite => {
            "CREATE TRIGGER obstacle BEFORE DELETE ON users WHEN OLD.id = 'id004000' BEGIN SELECT RAISE(ABORT, 'no'); END"
        }
        Backend::Postgres => {
            "CREATE FUNCTION obstacle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; \
             CREATE TRIGGER obstacle BEFORE DELETE ON users FOR EACH ROW WHEN (OLD.id = 'id004000') \
             EXECUTE FUNCTION obstacle()"
        }
    }
}

async fn a_server_that_is_killed_goes_on_after_its_restart(service: &Service) {
    fill(service, "neighbour").await;
    fill(service, "shop").await;
    let root = fill_with_keys(service, &["neighbour", "shop"]).await;
    service.execute(&user_rows(service.backend, "neighbour", 1_000)).await;
    service.execute(&user_rows(service.backend, "shop", 4_000)).await;
    service.execute(obstacle(service.backend)).await;
    let before = rows(service, "neighbour").await;
    assert_complete(&before);
    assert_complete(&rows(service, "shop").await);
    // Only processes do the work.
    service.replica.stop.cancel();
    until(async || service.replica.running.is_finished()).await;

    let left = async || service.number("SELECT count(*) FROM users WHERE namespace = 'shop'").await;
    let mut process = Process::start(service.url(), &[]).await;
    process.namespaces.delete_namespace(with_key(&root, deletion("shop"))).await.unwrap();
    until(async || left().await < 4_000).await;
    process.kill().await;
    assert!(left().await > 0);
    let drop = if service.backend == Backend::Postgres { " ON users" } else { "" };
    service.execute(&format!("DROP TRIGGER obstacle{drop}")).await;

    let mut process = Process::start(service.url(), &[]).await;
    let list = of_namespace(&root, "shop", ListRequest::default());
    let status = process.users.list(list).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "NAMESPACE_BEING_DELETED");
    until(async || rows(service, "shop").await.is_empty()).await;
    assert_eq!(rows(service, "neighbour").await, before);
    process.kill().await;
}

async fn one_that_fails_does_not_keep_others_nor_their_trash(service: &Service) {
    service.execute(&user_rows(service.backend, "stuck", 1)).await;
    // First, since housekeeping purges who is in the trash for so long.
    service.execute(obstacle(service.backend)).await;
    service.execute("UPDATE users SET id = 'id004000', deleted = 1 WHERE namespace = 'stuck'").await;
    delete_namespace(&service.replica, "stuck").await.unwrap();
    let due = async || {
        let cutoff = service.clock.now();
        usersd::store::users::trashed_before(service.replica.store.reader(), cutoff, 0, 1).await.unwrap()
    };
    assert!(due().await.is_empty(), "what is being deleted is not purged");
    for name in ["a", "shop", "z"] {
        service.execute(&user_rows(service.backend, name, 1)).await;
        delete_namespace(&service.replica, name).await.unwrap();
    }
    service.replica.ops.delete_namespaces().await.unwrap_err();
    assert_eq!(service.number("SELECT count(*) FROM users").await, 1);
    let user = service.users().create(from("default", ada())).await.unwrap().into_inner().user.unwrap();
    let deletion = usersd::pb::DeleteRequest { id: user.id, ..Default::default() };
    service.users().delete(deletion).await.unwrap();
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(due().await.len(), 1);
}

async fn an_open_transaction_of_any_role_is_noticed(service: &Service) {
    if service.backend == Backend::Sqlite {
        return;
    }
    let mut options = sea_orm::ConnectOptions::new(service.url());
    options.max_connections(1);
    let other = sea_orm::Database::connect(options).await.unwrap();
    other.execute_unprepared("SET application_name = 'usersd'; BEGIN; SELECT 1").await.unwrap();
    // The second role sees no time of other roles.
    let is_seen = async |role: &str| {
        let tx = service.replica.store.begin_as_server().await.unwrap();
        tx.execute_unprepared(&format!("SET LOCAL ROLE {role}")).await.unwrap();
        has_older_transactions(&tx, 0).await.unwrap()
    };
    // Its own transactions end by themselves: only that one stays.
    service.replica.stop.cancel();
    until(async || service.replica.running.is_finished()).await;
    assert!(is_seen("NONE").await);
    assert!(is_seen("pg_signal_backend").await);
    other.execute_unprepared("COMMIT").await.unwrap();
    until(async || !is_seen("NONE").await).await;
    until(async || !is_seen("pg_signal_backend").await).await;
    other.close().await.unwrap();
}

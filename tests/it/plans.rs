//! What the databases make of our statements where there are many users.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait as _, Statement};
use usersd::pb::{
    BatchReadRequest, CodePurpose, CompleteLoginRequest, CreateOrRestoreRequest, DeleteRequest,
    DeleteSessionRequest, DeleteSessionsRequest, ListFactorsRequest, ListKeyLogsRequest, ListLogsRequest,
    ListNamespacesRequest, ListRequest, ListSessionsRequest, LogEvent, LoginRequest, LogoutRequest,
    PurgeRequest, ReadPrefsRequest, ReadRequest, ReadSessionRequest, ReadTrashRequest, RemoveTotpRequest,
    RestoreRequest, SearchRequest, SetPasswordRequest, UpdatePasswordRequest, UpdatePrefsRequest,
    UpdateRequest, UpdateStatusRequest, UpdateVerificationRequest, UserStatus,
};

use usersd::domain::list::Filters;
use usersd::domain::namespace::Namespace;
use usersd::store::search::probes;

use crate::codes::{NEW_EMAIL, PURPOSES, asking, code, digits, uses};
use crate::factors;
use crate::namespaces::{create_namespace, deletion, read_namespace};
use crate::support::{Backend, PASSWORD, START, Service, ada, create, from, login, nth};

crate::on_every_backend!(no_statement_reads_a_whole_table);

/// Users, sessions and events of the tables that are too large to be read.
const ROWS: i64 = 100_000;

/// More users than a list sorts.
const MANY: i64 = 2_000;

/// Most rows that a statement may look at, unless it counts: what a page passes over where few users fit is
/// bounded.
const MOST: f64 = 5_000.0;

async fn no_statement_reads_a_whole_table(service: &Service) {
    seed(service).await;
    *service.replica.statements.lock().unwrap() = Some(Vec::new());
    call_everything(service).await;
    let noted = service.replica.statements.lock().unwrap().take().unwrap();
    // By their text, each with the values of up to three calls: what PostgreSQL does depends on them.
    let mut statements: BTreeMap<String, Vec<Statement>> = BTreeMap::new();
    for statement in noted {
        let known = statements.entry(statement.sql.clone()).or_default();
        if known.len() < 3 && !known.contains(&statement) {
            known.push(statement);
        }
    }
    assert!(statements.len() > 100, "only {} statements were noted", statements.len());
    let mut wrong = Vec::new();
    for statement in statements.into_values().flatten() {
        let plan = explain(service, &statement).await;
        if let Some(why) = fault(service.backend, &statement, &plan) {
            wrong.push(format!("{why}\n{statement}\n{}", plan.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{} plans:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

/// Rows like ours, nine of ten of one tenant, but for the search index: it holds little beside what is asked
/// for. On SQLite its plan is always the same, so there it is only long enough to find many.
async fn seed(service: &Service) {
    let words = Words::of(service.backend);
    for statement in [words.users(), words.index(service.backend), words.sessions(), words.events()] {
        service.execute(&statement).await;
    }
    if service.backend == Backend::Postgres {
        service.execute("ANALYZE users; ANALYZE users_search; ANALYZE sessions; ANALYZE events").await;
    }
}

/// What the searches ask for that are to find many.
fn common_terms() -> Vec<u64> {
    let search = Filters { search: "user".into(), ..Filters::default() };
    let verified = Filters { email_verified: Some(true), ..Filters::default() };
    let of = |filters: &Filters| probes(&Namespace::default(), false, filters).concat();
    [of(&search), of(&verified)].concat()
}

/// The tenant, a time and an id of row `n`, and all `n`.
const NAMESPACE: &str = "CASE WHEN n % 10 = 0 THEN 'small' ELSE 'default' END";
const TIME: &str = "1699999900000000 + n";

struct Words {
    pad: &'static str,
    digest: &'static str,
    numbers: String,
}

impl Words {
    fn of(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => Self {
                pad: "printf('%07d', n)",
                digest: "CAST(printf('%032d', n) AS BLOB)",
                numbers: format!(
                    "(WITH RECURSIVE all_of (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM all_of WHERE n < {ROWS}) \
                     SELECT n FROM all_of)"
                ),
            },
            Backend::Postgres => Self {
                pad: "lpad(n::text, 7, '0')",
                digest: "decode(lpad(n::text, 64, '0'), 'hex')",
                numbers: format!("(SELECT generate_series(1, {ROWS}) AS n) AS numbers"),
            },
        }
    }

    fn users(&self) -> String {
        let Self { pad, numbers, .. } = self;
        format!(
            "INSERT INTO users (namespace, id, generation, version, username, email, email_verified, name, status, \
             sso_enabled, password_hash, password_updated, prefs, labels, metadata, created, updated, deleted, \
             id_folded, name_folded) SELECT {NAMESPACE}, 'id' || {pad}, n, 1, 'user' || {pad}, \
             'mail' || {pad} || '@example.com', (n % 2 = 0), 'Name ' || {pad}, \
             CASE WHEN n % 1000 = 1 THEN 3 ELSE 2 END, (n % 2 = 0), '', 0, '{{}}', '[]', '{{}}', {TIME}, {TIME}, \
             CASE WHEN n % 100 = 7 THEN {TIME} ELSE 0 END, 'id' || {pad}, 'name ' || {pad} FROM {numbers}"
        )
    }

    fn index(&self, backend: Backend) -> String {
        let Self { pad, numbers, .. } = self;
        let common = common_terms();
        if backend == Backend::Sqlite {
            let words: Vec<String> = common.iter().map(|term| format!("{:012x}", term >> 16)).collect();
            let words = words.join(" ");
            return format!(
                "INSERT INTO users_search (rowid, terms) SELECT num, '{words}' FROM users WHERE num <= {MANY}"
            );
        }
        let common: Vec<String> =
            common.iter().map(|term| ((term >> 32) as u32).cast_signed().to_string()).collect();
        let terms = format!("ARRAY[n % 3, 10 + n % 50, 1000 + n % 5000, 100000 + n, {}]", common.join(", "));
        format!("INSERT INTO users_search SELECT {NAMESPACE}, 'id' || {pad}, {terms} FROM {numbers}")
    }

    fn sessions(&self) -> String {
        let Self { pad, digest, numbers } = self;
        format!(
            "INSERT INTO sessions (namespace, digest, public_id, user_id, created, expires, seen, address, user_agent) \
             SELECT {NAMESPACE}, {digest}, 'session' || {pad}, 'id' || {pad}, {TIME}, \
             {TIME} + 604800000000, {TIME}, '', '' FROM {numbers}"
        )
    }

    fn events(&self) -> String {
        let Self { pad, numbers, .. } = self;
        format!(
            "INSERT INTO events (namespace, user_id, at, action, caller, address, user_agent, version, changed) \
             SELECT {NAMESPACE}, 'id' || {pad}, {TIME}, 'USER_CREATED', 'open', '', '', 1, '[]' FROM {numbers}"
        )
    }
}

/// Every RPC, the lists in every order and with every filter, and what goes on in the background.
async fn call_everything(service: &Service) {
    lists(service).await;
    accounts(service).await;
    sessions_and_logs(service).await;
    codes(service).await;
    namespaces(service).await;
    second_factors(service).await;
    service.replica.ops.housekeep().await.unwrap();
    // With an idle limit there are more.
    let replica =
        service.another(|config| config.sessions.idle = Some(std::time::Duration::from_hours(1))).await;
    *replica.statements.lock().unwrap() = Some(Vec::new());
    let session = login(service, "ada").await;
    service.clock.advance(std::time::Duration::from_mins(30));
    let mut users = replica.users.clone();
    users.read_session(ReadSessionRequest { session_id: session.id.clone(), max_age: None }).await.unwrap();
    let sessions = ListSessionsRequest { user_id: session.user_id, ..ListSessionsRequest::default() };
    users.list_sessions(sessions).await.unwrap();
    replica.ops.housekeep().await.unwrap();
    let more = replica.statements.lock().unwrap().take().unwrap();
    service.replica.statements.lock().unwrap().as_mut().unwrap().extend(more);
}

async fn lists(service: &Service) {
    let mut users = service.users();
    let filters = [
        ListRequest::default(),
        ListRequest { search: "user0012345".into(), ..ListRequest::default() },
        ListRequest { search: "user".into(), ..ListRequest::default() },
        ListRequest { search: "user".into(), created_from: Some(0), ..ListRequest::default() },
        ListRequest { search: "zz".into(), ..ListRequest::default() },
        ListRequest { status: UserStatus::Blocked.into(), ..ListRequest::default() },
        ListRequest { email_verified: Some(true), ..ListRequest::default() },
        ListRequest { label: "staff".into(), ..ListRequest::default() },
        ListRequest { created_from: Some(START), created_to: Some(START + 9), ..ListRequest::default() },
        ListRequest { created_from: Some(0), ..ListRequest::default() },
        ListRequest { updated_from: Some(START), updated_to: Some(START + 9), ..ListRequest::default() },
        ListRequest { updated_to: Some(START + 9), ..ListRequest::default() },
    ];
    for order in ["created", "updated", "username", "email", "name", "id"] {
        for direction in ["asc", "desc"] {
            for filter in &filters {
                let request = ListRequest {
                    order_by: order.into(),
                    order_dir: direction.into(),
                    limit: Some(2),
                    ..filter.clone()
                };
                let first = users.list(request.clone()).await.unwrap().into_inner();
                if !first.next_page_token.is_empty() {
                    let next = ListRequest { page_token: first.next_page_token, ..request.clone() };
                    users.list(next).await.unwrap();
                }
                users.list_trash(request).await.unwrap();
            }
        }
    }
    for (username, email) in [("user00123", ""), ("", "mail00123"), ("user", "mail"), ("", "")] {
        let request =
            SearchRequest { username: username.into(), email: email.into(), ..SearchRequest::default() };
        users.search(request).await.unwrap();
    }
}

async fn accounts(service: &Service) {
    let mut users = service.users();
    let id = create(service, ada()).await.id;
    let by_email = ReadRequest { email: "ada@example.com".into(), ..ReadRequest::default() };
    users.read(by_email).await.unwrap();
    users.read(ReadRequest { id: id.clone(), ..ReadRequest::default() }).await.unwrap();
    users.create(ada()).await.unwrap_err();
    let ids = vec![id.clone(), "id0000001".into(), "nobody".into()];
    users.batch_read(BatchReadRequest { ids, include_prefs: true }).await.unwrap();
    let rename = UpdateRequest { id: id.clone(), name: Some("Ada".into()), ..UpdateRequest::default() };
    users.update(rename).await.unwrap();
    let status =
        UpdateStatusRequest { id: id.clone(), status: UserStatus::Pending.into(), ..Default::default() };
    users.update_status(status).await.unwrap();
    let verified = UpdateVerificationRequest { id: id.clone(), email_verified: true, ..Default::default() };
    users.update_verification(verified).await.unwrap();
    users.read_prefs(ReadPrefsRequest { id: id.clone() }).await.unwrap();
    let prefs = Some(prost_types::Struct::default());
    users.update_prefs(UpdatePrefsRequest { id: id.clone(), prefs, ..Default::default() }).await.unwrap();
    let set = SetPasswordRequest { user_id: id.clone(), new_password: PASSWORD.into(), ..Default::default() };
    users.set_password(set).await.unwrap();
    let change = UpdatePasswordRequest {
        user_id: id.clone(),
        old_password: PASSWORD.into(),
        new_password: PASSWORD.into(),
        ..UpdatePasswordRequest::default()
    };
    users.update_password(change).await.unwrap();
    let delete = DeleteRequest { id: id.clone(), ..DeleteRequest::default() };
    users.delete(delete.clone()).await.unwrap();
    users.read_trash(ReadTrashRequest { id: id.clone() }).await.unwrap();
    users.restore(RestoreRequest { id: id.clone(), ..RestoreRequest::default() }).await.unwrap();
    users.delete(delete).await.unwrap();
    let again = CreateOrRestoreRequest {
        email: "ada@example.com".into(),
        password: PASSWORD.into(),
        idempotency_key: "again".into(),
        ..CreateOrRestoreRequest::default()
    };
    users.create_or_restore(again).await.unwrap();
    let other = create(service, nth(1_000_000)).await.id;
    users.delete(DeleteRequest { id: other.clone(), ..DeleteRequest::default() }).await.unwrap();
    users.purge(PurgeRequest { id: other, ..PurgeRequest::default() }).await.unwrap();
}

async fn codes(service: &Service) {
    for purpose in PURPOSES {
        for request in [asking(purpose), digits(purpose)] {
            let made = code(service, request).await;
            uses(service, purpose, "000000").await.unwrap_err();
            uses(service, purpose, &made).await.unwrap();
            if purpose == CodePurpose::EmailChange {
                let email = Some("ada@example.com".into());
                let back = ReadRequest { email: NEW_EMAIL.into(), ..ReadRequest::default() };
                let id = service.users().read(back).await.unwrap().into_inner().user.unwrap().id;
                service
                    .users()
                    .update(UpdateRequest { id, email, ..UpdateRequest::default() })
                    .await
                    .unwrap();
            }
        }
    }
    let by_email = ReadRequest { email: "ada@example.com".into(), ..ReadRequest::default() };
    let user_id = service.users().read(by_email).await.unwrap().into_inner().user.unwrap().id;
    let set = SetPasswordRequest { user_id, new_password: PASSWORD.into(), ..SetPasswordRequest::default() };
    service.users().set_password(set).await.unwrap();
}

async fn sessions_and_logs(service: &Service) {
    let mut users = service.users();
    let session = login(service, "ada").await;
    users.read_session(ReadSessionRequest { session_id: session.id.clone(), max_age: None }).await.unwrap();
    let user_id = session.user_id.clone();
    let mut request =
        ListSessionsRequest { user_id: user_id.clone(), limit: Some(1), ..ListSessionsRequest::default() };
    let named = login(service, "ada").await.public_id;
    let page = users.list_sessions(request.clone()).await.unwrap().into_inner();
    request.page_token = page.next_page_token;
    users.list_sessions(request).await.unwrap();
    let delete = DeleteSessionRequest { user_id: user_id.clone(), session_id: named };
    users.delete_session(delete).await.unwrap();
    users.logout(LogoutRequest { session_id: session.id }).await.unwrap();
    users.delete_sessions(DeleteSessionsRequest { user_id: user_id.clone() }).await.unwrap();
    let all = ListLogsRequest { user_id, limit: Some(1), ..ListLogsRequest::default() };
    let some = ListLogsRequest {
        events: vec![LogEvent::SessionCreated.into(), LogEvent::UserCreated.into()],
        time_from: Some(START),
        time_to: Some(START + 9),
        ..all.clone()
    };
    for request in [all, some] {
        let page = users.list_logs(request.clone()).await.unwrap().into_inner();
        users.list_logs(ListLogsRequest { page_token: page.next_page_token, ..request }).await.unwrap();
    }
    let of_keys = ListKeyLogsRequest { limit: Some(1), from: Some(START), ..Default::default() };
    service.replica.keys_client().list_logs(of_keys).await.unwrap();
}

async fn namespaces(service: &Service) {
    let replica = &service.replica;
    let own = crate::namespaces::limits(Some(1_000_000), Some(1_000_000));
    create_namespace(replica, "shop", own).await.unwrap();
    service.users().create(from("shop", ada())).await.unwrap();
    let login = LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..LoginRequest::default() };
    service.users().login(from("shop", login)).await.unwrap();
    read_namespace(replica, "shop").await.unwrap();
    replica.namespaces().list_namespaces(ListNamespacesRequest::default()).await.unwrap();
    replica.namespaces().delete_namespace(deletion("shop")).await.unwrap();
    replica.ops.delete_namespaces().await.unwrap();
    service.clock.advance(std::time::Duration::from_secs(15));
    replica.ops.delete_namespaces().await.unwrap();
}

async fn second_factors(service: &Service) {
    factors::give_keys(service, &[1]);
    let id = create(service, nth(1_000_001)).await.id;
    let (secret, codes) = factors::confirm(service, &id).await;
    service.clock.advance(std::time::Duration::from_secs(30));
    let mut users = service.users();
    for recovery_code in [String::new(), codes[0].clone()] {
        let challenge = factors::challenge(service, "user1000001").await;
        let now = service.clock.now().seconds() - START;
        let totp = if recovery_code.is_empty() { factors::code(&secret, now) } else { String::new() };
        let request = CompleteLoginRequest { challenge, totp, recovery_code, ..Default::default() };
        users.complete_login(request).await.unwrap();
        service.clock.advance(std::time::Duration::from_secs(30));
    }
    users.list_factors(ListFactorsRequest { user_id: id.clone() }).await.unwrap();
    users.remove_totp(RemoveTotpRequest { user_id: id, ..RemoveTotpRequest::default() }).await.unwrap();
}

/// The plan, a line each. What only reads is run on PostgreSQL: its guesses alone do not show what it looks
/// at.
pub(crate) async fn explain(service: &Service, statement: &Statement) -> Vec<String> {
    let how = match service.backend {
        Backend::Sqlite => "EXPLAIN QUERY PLAN",
        Backend::Postgres if statement.sql.starts_with("SELECT") => "EXPLAIN (ANALYZE, TIMING OFF)",
        Backend::Postgres => "EXPLAIN",
    };
    let values = statement.values.clone().map_or_else(Vec::new, |values| values.0);
    let sql = format!("{how} {}", statement.sql);
    let explain = Statement::from_sql_and_values(service.backend.kind(), sql, values);
    let rows = service.replica.store.reader().query_all_raw(explain).await.unwrap();
    let column = if service.backend == Backend::Sqlite { 3 } else { 0 };
    rows.iter().map(|row| row.try_get_by_index(column).unwrap()).collect()
}

/// What is wrong with a plan.
fn fault(backend: Backend, statement: &Statement, plan: &[String]) -> Option<&'static str> {
    let tables = [
        "users",
        "sessions",
        "events",
        "idempotency_keys",
        "codes",
        "code_tries",
        "totp_factors",
        "recovery_codes",
    ];
    let scan = if backend == Backend::Sqlite { "SCAN " } else { "Seq Scan on " };
    let whole = |line: &String| {
        let rest = line.split_once(scan).map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
        rest.is_some_and(|table| tables.contains(&table) || table == "users_search" && scan != "SCAN ")
    };
    if plan.iter().any(whole) {
        return Some("reads a whole table");
    }
    let sql = &statement.sql;
    // Else it would look through all events of a tenant for the few of its keys.
    if sql.contains("'KEY_CREATED'") && !plan.iter().any(|line| line.contains("events_of_keys")) {
        return Some("does not use the index of keys' events");
    }
    let looked_up = sql.contains("json_each") || sql.contains("json_array_elements_text");
    let trash = sql.contains("\"deleted\" > 0");
    // A stretch of the order with both ends: what is sorted is no more than may be looked at.
    let stretch = [") <= (", ") >= ("].iter().any(|end| sql.contains(end));
    let incremental = plan.iter().any(|line| line.contains("Incremental Sort"));
    let sorts = |line: &String| {
        line.contains("TEMP B-TREE FOR ORDER BY") || (line.contains("Sort Key") && !incremental)
    };
    // The few rows of one user are locked in the order of their keys.
    let of_one_user = sql.starts_with("DELETE FROM attempts")
        || sql.starts_with("DELETE FROM code_tries") && sql.contains("ORDER BY mark FOR UPDATE");
    if !looked_up && !trash && !stretch && !of_one_user && plan.iter().any(sorts) {
        return Some("sorts what an index has in order");
    }
    let rows: f64 = plan.iter().map(|line| looked_at(line)).sum();
    if !sql.contains("COUNT(*)") && rows > MOST {
        return Some("looks at too many rows");
    }
    None
}

/// The rows that a line of PostgreSQL's plan tells of: what came of a step, times the times it was done, and
/// what it threw away.
pub(crate) fn looked_at(line: &str) -> f64 {
    let number = |text: &str| {
        let digits: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        digits.parse::<f64>().unwrap_or(0.0)
    };
    if let Some((_, removed)) = line.split_once("Rows Removed by Filter: ") {
        return number(removed);
    }
    let Some((_, actual)) = line.split_once("(actual rows=") else { return 0.0 };
    let loops = actual.split_once("loops=").map_or(1.0, |(_, loops)| number(loops));
    number(actual) * loops
}

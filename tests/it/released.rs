//! Programs of before beside this one, on a database that this one has migrated.
//!
//! Their binaries are not at hand, but what they do to the schema is: the columns that one knows, and statements that it wrote,
//! are data here, by the number of its newest migration. `USERSD_TEST_RECORD=16 cargo test --test it released` records them, with
//! a program whose newest migration is that, when it is released or others are to follow it; what is recorded stays.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sea_orm::{ConnectionTrait as _, Statement};
use usersd::pb::{CodePurpose, CreateRequest};

use crate::codes::{asking, code, digits};
use crate::steps::{delete, read};
use crate::support::{Backend, Service, ada, create, login};

crate::on_every_backend!(
    a_program_of_schema_9_works_on_a_migrated_database,
    a_program_of_schema_16_works_on_a_migrated_database,
);

/// A column, and whether an INSERT that does not name it fails.
const SQLITE: &str = "SELECT t.name AS of, c.name AS name, c.\"notnull\" AND c.dflt_value IS NULL AND c.pk = 0 AS needed
    FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c WHERE t.type = 'table' ORDER BY t.name, c.cid";

const POSTGRES: &str = "SELECT CAST(table_name AS TEXT) AS of, CAST(column_name AS TEXT) AS name,
    CAST(is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO' AND is_generated = 'NEVER' AS INT) AS needed
    FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position";

/// What a program knows of its database.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Program {
    /// By table.
    columns: BTreeMap<String, Vec<String>>,
    /// Statements in their order that create a user, log it in, delete it and create another one, with their values.
    writes: Vec<String>,
}

fn file(schema: &str, backend: Backend) -> PathBuf {
    let kind = match backend {
        Backend::Sqlite => "sqlite",
        Backend::Postgres => "postgres",
    };
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/released/{schema}-{kind}.json"))
}

/// The columns of each table, with whether an INSERT needs them. Not those of libraries.
async fn columns(service: &Service) -> BTreeMap<String, Vec<(String, bool)>> {
    let sql = if service.backend == Backend::Sqlite { SQLITE } else { POSTGRES };
    let rows = service.replica.store.reader();
    let rows = rows.query_all_raw(Statement::from_string(service.backend.kind(), sql)).await.unwrap();
    let mut columns = BTreeMap::<String, Vec<(String, bool)>>::new();
    for row in rows {
        let (table, name): (String, String) =
            (row.try_get_by("of").unwrap(), row.try_get_by("name").unwrap());
        let needed: i32 = row.try_get_by("needed").unwrap();
        if !table.starts_with("seaql_")
            && !table.starts_with("sqlite_")
            && !table.starts_with("users_search_")
        {
            columns.entry(table).or_default().push((name, needed != 0));
        }
    }
    columns
}

#[expect(clippy::disallowed_methods, reason = "the tests' own variable, not a setting")]
fn is_recording(schema: &str) -> bool {
    std::env::var("USERSD_TEST_RECORD").is_ok_and(|recorded| recorded == schema)
}

async fn record(service: &Service, schema: &str) {
    let newest = "SELECT count(*) FROM seaql_migrations";
    assert_eq!(service.number(newest).await.to_string(), schema, "the program has another schema");
    *service.replica.statements.lock().unwrap() = Some(Vec::new());
    let user = |id: &str| CreateRequest { id: id.into(), ..ada() };
    create(service, user("first")).await;
    login(service, "ada").await;
    delete(service, "first").await;
    create(service, CreateRequest { idempotency_key: "once".into(), ..user("second") }).await;
    login(service, "ada").await;
    for request in [asking(CodePurpose::PasswordReset), digits(CodePurpose::Login)] {
        code(service, request).await;
    }
    let noted = service.replica.statements.lock().unwrap().take().unwrap();
    let writes = noted.iter().filter(|noted| !noted.sql.trim_start().starts_with("SELECT"));
    let names = |columns: Vec<(String, bool)>| columns.into_iter().map(|(name, _)| name).collect();
    let program = Program {
        columns: columns(service).await.into_iter().map(|(table, columns)| (table, names(columns))).collect(),
        writes: writes
            .filter(|noted| has_plain_values(service.backend, noted))
            .map(ToString::to_string)
            .collect(),
    };
    let text = serde_json::to_string_pretty(&program).unwrap() + "\n";
    std::fs::write(file(schema, service.backend), text).unwrap();
}

/// Returns true unless the values of a statement have numbers, by which the library does not fill them in for SQLite.
fn has_plain_values(backend: Backend, noted: &Statement) -> bool {
    let starts = ["INSERT INTO \"", "UPDATE \"", "DELETE FROM \""];
    backend == Backend::Postgres || starts.iter().any(|start| noted.sql.starts_with(start))
}

/// It goes on while replicas are replaced one by one: all its columns are there, it need not know of any other to write a
/// row, and what it writes is what this program reads.
async fn works_on_a_migrated_database(service: &Service, schema: &str) {
    if is_recording(schema) {
        record(service, schema).await;
        return;
    }
    let program = std::fs::read_to_string(file(schema, service.backend)).unwrap();
    let program: Program = serde_json::from_str(&program).unwrap();
    let now = columns(service).await;
    for (table, columns) in &program.columns {
        let Some(now) = now.get(table) else { panic!("the table {table} is gone") };
        for column in columns {
            assert!(now.iter().any(|(name, _)| name == column), "{table}.{column} is gone");
        }
        for (name, needed) in now {
            assert!(!needed || columns.contains(name), "the old program cannot write {table}.{name}");
        }
    }
    for write in &program.writes {
        service.execute(write).await;
    }
    assert_eq!(read(service, "second").await.username, "ada");
    login(service, "ada").await;
    assert_eq!(service.number("SELECT count(*) FROM users").await, 2);
    assert_eq!(service.number("SELECT CAST(sum(live) AS BIGINT) FROM user_totals").await, 1);
}

async fn a_program_of_schema_9_works_on_a_migrated_database(service: &Service) {
    works_on_a_migrated_database(service, "9").await;
}

async fn a_program_of_schema_16_works_on_a_migrated_database(service: &Service) {
    works_on_a_migrated_database(service, "16").await;
    for sql in
        ["SELECT count(*) FROM idempotency_keys", "SELECT count(*) FROM codes WHERE user_id = 'second'"]
    {
        // SQLite's are not recorded where the library does not fill in the values.
        assert!(service.backend == Backend::Sqlite || service.number(sql).await > 0, "{sql}");
    }
}

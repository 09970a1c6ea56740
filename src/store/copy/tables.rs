//! The tables that are copied, their rows as both databases have them, and checksums of rows.

use futures_util::TryStreamExt as _;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, QueryResult, Statement, StreamTrait, Value,
};
use sha2::{Digest as _, Sha256};

/// The tables, those first that others refer to. The rest is made again: totals by triggers, the search index from
/// the users; changes of keys are for servers that run.
pub(super) const TABLES: [&str; 19] = [
    "users",
    "sessions",
    "events",
    "keys",
    "keys_ended",
    "keys_version",
    "attempts",
    "familiar_places",
    "purged",
    "idempotency_keys",
    "codes",
    "code_tries",
    "namespaces",
    "namespaces_version",
    "totp_factors",
    "recovery_codes",
    "housekeeping",
    "secrets",
    "assertion_keys",
];

/// Tables that a new database has rows in: they are replaced.
pub(super) const REPLACED: [&str; 4] = ["keys_version", "namespaces_version", "housekeeping", "secrets"];

/// Columns that only one of the two databases has, which fill themselves.
const GENERATED_COLUMNS: [(&str, &str); 2] = [("users", "num"), ("events", "tx")];

/// Most rows of one INSERT, and most bytes of their values: what is in memory at a time.
const MAX_ROWS: usize = 500;
const MAX_BYTES: usize = 1 << 20;

/// The types that both databases have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Text,
    Bytes,
    Integer,
    Small,
    Boolean,
}

/// A column as both databases have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    name: String,
    kind: Type,
}

/// The columns of a table, by name, so that their order in a database does not matter.
pub(super) async fn columns(db: &impl ConnectionTrait, table: &str) -> Result<Vec<Column>, DbErr> {
    let sql = match db.get_database_backend() {
        DbBackend::Sqlite => "SELECT name, lower(type) FROM pragma_table_info($1) ORDER BY name",
        _ => {
            "SELECT column_name::text, data_type::text FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = $1 ORDER BY column_name COLLATE \"C\""
        }
    };
    let rows =
        db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, [table.into()]));
    let mut columns = Vec::new();
    for row in rows.await? {
        let (name, kind): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        if GENERATED_COLUMNS.contains(&(table, name.as_str())) {
            continue;
        }
        let kind = match kind.as_str() {
            "text" => Type::Text,
            "blob" | "bytea" => Type::Bytes,
            "bigint" | "integer" => Type::Integer,
            "smallint" => Type::Small,
            "boolean" => Type::Boolean,
            other => {
                return Err(DbErr::Custom(format!("{table}.{name} has a type that is not known: {other}")));
            }
        };
        columns.push(Column { name, kind });
    }
    Ok(columns)
}

/// The number of rows of a table, and the sum of their hashes, in which their order does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    /// The number of rows.
    pub rows: u64,
    /// The sum of the first half of the SHA-256 of each row.
    pub sum: u128,
}

impl Checksum {
    fn add(&mut self, hash: Sha256) {
        let hash: [u8; 32] = hash.finalize().into();
        let (first, _) = hash.split_at(16);
        self.sum = self.sum.wrapping_add(first.try_into().map_or(0, u128::from_be_bytes));
        self.rows += 1;
    }
}

/// Reads all rows of a table, passes them on in batches, and returns their checksum.
pub(super) async fn read(
    db: &DatabaseTransaction,
    table: &str,
    columns: &[Column],
    mut batch_done: impl AsyncFnMut(Vec<Vec<Value>>, u64) -> Result<(), DbErr>,
) -> Result<Checksum, DbErr> {
    let sql = format!("SELECT {} FROM {table}", names(columns));
    let backend = ConnectionTrait::get_database_backend(db);
    let mut rows = db.stream_raw(Statement::from_string(backend, sql)).await?;
    let (mut checksum, mut batch, mut bytes) = (Checksum::default(), Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let (values, size) = read_row(&row, columns, &mut checksum)?;
        batch.push(values);
        bytes += size;
        if batch.len() == MAX_ROWS || bytes >= MAX_BYTES {
            batch_done(std::mem::take(&mut batch), checksum.rows).await?;
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        batch_done(batch, checksum.rows).await?;
    }
    Ok(checksum)
}

/// The values of a row and their bytes. Each goes into the hash with its length, so that no two rows look alike.
fn read_row(
    row: &QueryResult,
    columns: &[Column],
    checksum: &mut Checksum,
) -> Result<(Vec<Value>, usize), DbErr> {
    let (mut hash, mut size, mut values) = (Sha256::new(), 0, Vec::with_capacity(columns.len()));
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
        size += bytes.len();
    };
    for (index, column) in columns.iter().enumerate() {
        values.push(match column.kind {
            Type::Text => {
                let text: String = row.try_get_by_index(index)?;
                add(text.as_bytes());
                text.into()
            }
            Type::Bytes => {
                let bytes: Vec<u8> = row.try_get_by_index(index)?;
                add(&bytes);
                bytes.into()
            }
            Type::Integer => number(row.try_get_by_index::<i64>(index)?, &mut add),
            Type::Small => number(row.try_get_by_index::<i16>(index)?, &mut add),
            Type::Boolean => {
                let flag: bool = row.try_get_by_index(index)?;
                add(&[flag.into()]);
                flag.into()
            }
        });
    }
    checksum.add(hash);
    Ok((values, size))
}

fn number<T: Into<i64> + Into<Value> + Copy>(number: T, add: &mut impl FnMut(&[u8])) -> Value {
    add(&Into::<i64>::into(number).to_be_bytes());
    number.into()
}

/// Writes rows with one statement.
pub(super) async fn insert(
    db: &impl ConnectionTrait,
    table: &str,
    columns: &[Column],
    rows: Vec<Vec<Value>>,
) -> Result<(), DbErr> {
    let width = columns.len();
    let row = |number: usize| {
        let places: Vec<String> = (1..=width).map(|column| format!("${}", number * width + column)).collect();
        format!("({})", places.join(","))
    };
    let places: Vec<String> = (0..rows.len()).map(row).collect();
    let sql = format!("INSERT INTO {table} ({}) VALUES {}", names(columns), places.join(","));
    let values = rows.into_iter().flatten();
    db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    Ok(())
}

fn names(columns: &[Column]) -> String {
    columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
}

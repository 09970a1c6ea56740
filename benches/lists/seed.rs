//! Fills databases, past the API but through the functions it writes users with.

use std::fs;
use std::path::Path;
use std::time::Instant;

use sea_orm::{ConnectionTrait as _, Statement};
use usersd::domain::list::Listing;
use usersd::domain::namespace::Namespace;
use usersd::domain::password::PasswordHash;
use usersd::domain::user::User;
use usersd::store::list::AccessPath;
use usersd::store::{self, Kind, Store, users};

use super::people::People;
use crate::Result;
use crate::databases::Place;
use crate::postgres::psql;

/// The tenant with few users, wherever it is.
pub(crate) const TENANT: &str = "tenant";
pub(crate) const TENANTS_USERS: usize = 1_000;

/// Users of one transaction.
const BATCH: usize = 10_000;

/// Users that are kept in mind, to search for them.
const SAMPLES: usize = 500;

/// As long as bcrypt's.
const HASH: &str = "$2b$10$usersd.benchmark.no.passwordusersd.benchmark.no.password.";

/// Some users from all over a tenant.
pub(crate) type Samples = Vec<User>;

/// Makes the tables and writes that many users, and the small tenant's behind them.
pub(crate) async fn seed(place: &Place, rows: usize, tenant: bool) -> Result<(Samples, Samples)> {
    let begun = Instant::now();
    let store = Store::connect(&place.url, 4).await?;
    store.migrate().await?;
    let kept = count(&store, &Namespace::default()).await? >= rows;
    let index = if kept || store.kind() == Kind::Sqlite { None } else { Some(drop_index(place)?) };
    let samples = write(&store, &Namespace::default(), People::new(1), rows).await?;
    let tenants = if tenant {
        write(&store, &Namespace::parse(TENANT)?, People::new(2), TENANTS_USERS).await?
    } else {
        Samples::new()
    };
    if let Some(index) = index {
        psql(&place.url, &format!("SET maintenance_work_mem = '512MB'; {index}"))?;
    }
    if store.kind() == Kind::Postgres {
        // As autovacuum does sooner or later.
        store.reader().execute_unprepared("VACUUM ANALYZE").await?;
    }
    store.close().await;
    eprintln!("wrote {rows} users in {:.0} s", begun.elapsed().as_secs_f64());
    Ok((samples, tenants))
}

/// Takes the search index away, which is filled much sooner behind the users than with them. Gives what makes it again.
fn drop_index(place: &Place) -> Result<String> {
    let made = psql(&place.url, "SELECT pg_get_indexdef('users_search_terms'::regclass)")?;
    psql(&place.url, "DROP INDEX users_search_terms")?;
    Ok(made)
}

async fn write(store: &Store, namespace: &Namespace, mut people: People, rows: usize) -> Result<Samples> {
    let mut samples = Samples::new();
    // A run of `calls` leaves some more.
    let kept = count(store, namespace).await? >= rows;
    for begin in (0..rows).step_by(BATCH) {
        let batch = people.take(BATCH.min(rows - begin));
        samples.extend(batch.iter().step_by(rows.div_ceil(SAMPLES)).cloned());
        if !kept {
            write_batch(store, namespace, batch).await?;
        }
    }
    Ok(samples)
}

async fn count(store: &Store, namespace: &Namespace) -> Result<usize> {
    let listing = Listing::default();
    let users = store::list::total(store.reader(), namespace, &listing, &AccessPath::Order).await?;
    Ok(usize::try_from(users)?)
}

async fn write_batch(store: &Store, namespace: &Namespace, batch: Vec<User>) -> Result<()> {
    let password = PasswordHash::from_trusted(HASH.to_owned());
    let accounts: Vec<_> = batch.into_iter().map(|user| (user, Some(password.clone()))).collect();
    let tx = store.begin_as_server().await?;
    users::insert_all(&tx, namespace, &accounts).await?;
    Ok(tx.commit().await?)
}

/// Bytes of the whole database, and of its tables and indexes, the largest first.
pub(crate) async fn sizes(place: &Place) -> Result<(u64, Vec<(String, u64)>)> {
    let store = Store::connect(&place.url, 2).await?;
    let of_parts = match store.kind() {
        Kind::Sqlite => "SELECT name, SUM(pgsize) FROM dbstat GROUP BY name ORDER BY 2 DESC LIMIT 12",
        Kind::Postgres => {
            "SELECT relname::text, pg_table_size(oid) FROM pg_class WHERE relkind IN ('r', 'i') \
             AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC LIMIT 12"
        }
    };
    let backend = store.reader().get_database_backend();
    let mut parts = Vec::new();
    for row in store.reader().query_all_raw(Statement::from_string(backend, of_parts)).await? {
        parts.push((row.try_get_by_index(0)?, u64::try_from(row.try_get_by_index::<i64>(1)?)?));
    }
    let whole = match store.kind() {
        Kind::Sqlite => None,
        Kind::Postgres => {
            let of_all = Statement::from_string(backend, "SELECT pg_database_size(current_database())");
            store.reader().query_one_raw(of_all).await?
        }
    };
    let whole =
        whole.map(|row| row.try_get_by_index::<i64>(0)).transpose()?.map(u64::try_from).transpose()?;
    store.close().await; // and with that, everything is in the file
    let file = place.file.as_deref().map(file_size).transpose()?;
    Ok((whole.or(file).ok_or("a database of no size")?, parts))
}

fn file_size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)?.len())
}

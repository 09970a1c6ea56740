//! Making the search index of all users.

use std::fmt::Display;

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement};

use crate::domain::email::Email;
use crate::domain::namespace::Namespace;
use crate::domain::prefs::Prefs;
use crate::domain::time::Timestamp;
use crate::domain::user::{Labels, Metadata, Name, Status, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::with_causes;

/// Users read at a time, in the order of their key: what the search index holds of them. Named one by one and
/// not by their entity, which has columns that are not there yet when the migration runs.
const BATCH: &str = "
SELECT namespace, id, username, email, email_verified, name, status, labels, deleted FROM users
WHERE (namespace, id) > ($1, $2) ORDER BY namespace, id LIMIT 500";

/// Writes the terms of every user to the index, which has none of them yet.
pub(in crate::store) async fn index_all(db: &impl ConnectionTrait) -> Result<(), DbErr> {
    let mut after = (String::new(), String::new());
    loop {
        let values = [after.0.as_str().into(), after.1.as_str().into()];
        let rows = db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), BATCH, values));
        let users = rows.await?.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let Some((namespace, last)) = users.last() else { return Ok(()) };
        after = (namespace.clone(), last.id.as_str().to_owned());
        for tenants in users.chunk_by(|(one, _), (next, _)| one == next) {
            let Some((namespace, _)) = tenants.first() else { continue };
            let namespace = Namespace::parse(namespace).map_err(custom)?;
            let users = tenants.iter().map(|(_, user)| user);
            super::write_all(db, &namespace, users).await.map_err(|error| custom(with_causes(&error)))?;
        }
    }
}

/// A row of [`BATCH`]: a namespace and a user, of whom nothing else is read.
fn read(row: &QueryResult) -> Result<(String, User), DbErr> {
    let text = |column| row.try_get::<String>("", column);
    let (username, email) = (text("username")?, text("email")?);
    let deleted = row.try_get::<i64>("", "deleted")?;
    let user = User {
        id: UserId::from_trusted(text("id")?),
        username: (!username.is_empty()).then(|| Username::from_trusted(username)),
        email: (!email.is_empty()).then(|| Email::from_trusted(email)),
        name: Name::from_trusted(text("name")?),
        status: Status::from_number(row.try_get::<i16>("", "status")?.into())
            .ok_or_else(|| custom("unknown status"))?,
        email_verified: row.try_get("", "email_verified")?,
        labels: Labels::from_trusted(serde_json::from_str(&text("labels")?).map_err(custom)?),
        deleted: (deleted > 0).then_some(Timestamp(deleted)),
        password_updated: None,
        prefs: Prefs::default(),
        metadata: Metadata::default(),
        sso_enabled: false,
        created: Timestamp(0),
        updated: Timestamp(0),
        version: 0,
        generation: 0,
    };
    Ok((text("namespace")?, user))
}

fn custom(error: impl Display) -> DbErr {
    DbErr::Custom(error.to_string())
}

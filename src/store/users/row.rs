//! A user as a row of the table.

use crate::domain::email::Email;
use crate::domain::namespace::Namespace;
use crate::domain::password::PasswordHash;
use crate::domain::prefs::Prefs;
use crate::domain::time::Timestamp;
use crate::domain::user::{Account, Labels, Metadata, Name, Status, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Result};

use super::super::entity::user;
use super::super::search::Folded;

pub(super) fn row(
    namespace: &Namespace,
    user: &User,
    folded: Folded,
    password_hash: String,
) -> Result<user::Model> {
    Ok(user::Model {
        namespace: namespace.as_str().to_owned(),
        id: user.id.as_str().to_owned(),
        generation: user.generation,
        version: user.version,
        username: user.username.as_ref().map_or("", Username::as_str).to_owned(),
        email: user.email.as_ref().map_or("", Email::as_str).to_owned(),
        email_verified: user.email_verified,
        name: user.name.as_str().to_owned(),
        status: user.status as i16,
        sso_enabled: user.sso_enabled,
        password_hash,
        password_updated: user.password_updated.map_or(0, |at| at.0),
        prefs: user.prefs.as_str().to_owned(),
        labels: serde_json::to_string(user.labels.as_slice()).map_err(Error::internal)?,
        metadata: serde_json::to_string(user.metadata.as_map()).map_err(Error::internal)?,
        created: user.created.0,
        updated: user.updated.0,
        deleted: user.deleted.map_or(0, |at| at.0),
        id_folded: folded.id,
        name_folded: folded.name,
    })
}

/// The account in a row, unless it is in the trash.
pub(super) fn account(row: Option<user::Model>) -> Result<Option<Account>> {
    row.filter(|row| row.deleted == 0).map(Account::try_from).transpose()
}

/// The account in a row, if it is in the trash.
pub(super) fn trashed(row: Option<user::Model>) -> Result<Option<Account>> {
    row.filter(|row| row.deleted != 0).map(Account::try_from).transpose()
}

impl TryFrom<user::Model> for Account {
    type Error = Error;

    fn try_from(mut row: user::Model) -> Result<Self> {
        let password = std::mem::take(&mut row.password_hash);
        let password = (!password.is_empty()).then(|| PasswordHash::from_trusted(password));
        Ok(Self { user: row.try_into()?, password })
    }
}

/// Every row was checked before it was written, so it is not checked again: hot reads come through here.
impl TryFrom<user::Model> for User {
    type Error = Error;

    fn try_from(row: user::Model) -> Result<Self> {
        Ok(Self {
            id: UserId::from_trusted(row.id),
            username: present(row.username).map(Username::from_trusted),
            email: present(row.email).map(Email::from_trusted),
            name: Name::from_trusted(row.name),
            status: Status::from_number(row.status.into())
                .ok_or_else(|| Error::internal("unknown status"))?,
            email_verified: row.email_verified,
            password_updated: time(row.password_updated),
            prefs: Prefs::from_trusted(row.prefs),
            labels: Labels::from_trusted(parsed(serde_json::from_str(&row.labels))?),
            metadata: Metadata::from_trusted(parsed(serde_json::from_str(&row.metadata))?),
            sso_enabled: row.sso_enabled,
            created: Timestamp(row.created),
            updated: Timestamp(row.updated),
            deleted: time(row.deleted),
            version: row.version,
            generation: row.generation,
        })
    }
}

pub(super) fn parsed<T, E: std::error::Error + Send + Sync + 'static>(value: Result<T, E>) -> Result<T> {
    value.map_err(Error::internal)
}

fn present(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn time(micros: i64) -> Option<Timestamp> {
    (micros != 0).then_some(Timestamp(micros))
}

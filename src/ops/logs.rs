//! The event log of a user.

use crate::domain::caller::Caller;
use crate::domain::device::Details;
use crate::domain::event::{LogFilter, LogRecord};
use crate::domain::page_token::ListDigest;
use crate::domain::session::Device;
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};
use crate::store;

use super::Operations;
use super::list::{ListPage, PageRequest};

impl Operations {
    /// A page of a user's events, the newest first; also of one in the trash.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], and [`Error::Invalid`] for a page token that is not of this list.
    pub async fn list_logs(
        &self,
        caller: &Caller,
        user: &UserId,
        filter: &LogFilter,
        wanted: &PageRequest,
    ) -> Result<ListPage<(LogRecord, Details)>> {
        let (db, namespace) = (self.read_list(caller).await?, &caller.namespace);
        let digest = filter.digest(namespace, user);
        let start = self.start(&wanted.page, &digest, |cursor| cursor.parse().ok())?;
        if !store::users::exists(&db, namespace, user).await? {
            return Err(Error::UserNotFound);
        }
        // One row more than asked for shows whether more follow.
        let limit = wanted.page.limit;
        let mut rows = store::events::of_user(&db, namespace, user, filter, &start, limit + 1).await?;
        // An id is free again once its user was purged: what is not cleared yet is not the new user's.
        if let Some(last) = store::purged::up_to(&db, namespace, user).await? {
            for row in rows.iter_mut().filter(|row| row.seq <= last) {
                row.device = Device::default();
            }
        }
        let next = self.truncate_page(&mut rows, limit, &digest, |last| last.seq.to_string());
        let total = if wanted.total {
            Some(store::events::count_of_user(&db, namespace, user, filter).await?)
        } else {
            None
        };
        drop(db);
        Ok(self.with_device_details(ListPage { rows, total, next }, |record| &record.device).await)
    }

    /// Drops the row that is one too many and returns the token of the next page.
    pub(super) fn truncate_page<T>(
        &self,
        rows: &mut Vec<T>,
        limit: u64,
        list: &ListDigest,
        cursor: impl FnOnce(&T) -> String,
    ) -> String {
        let more = rows.len() as u64 > limit;
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        rows.last()
            .filter(|_| more)
            .map_or_else(String::new, |last| self.page_tokens.seal(list, &cursor(last)))
    }
}

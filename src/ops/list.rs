//! Lists and their pages.

use std::collections::HashMap;

use crate::domain::caller::Caller;
use crate::domain::device::Details;
use crate::domain::list::{Filters, Listing, Order, Position, SortValue, Start};
use crate::domain::namespace::Namespace;
use crate::domain::page::Page;
use crate::domain::page_token::ListDigest;
use crate::domain::session::Device;
use crate::domain::user::User;
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};
use crate::store;
use crate::store::list::Part;

use super::Operations;

/// A page of a list.
#[derive(Debug)]
pub struct ListPage<T> {
    /// The rows of the page.
    pub rows: Vec<T>,
    /// The number of rows on all pages; `None` if it was not asked for.
    pub total: Option<u64>,
    /// Leads to the next page; empty on the last.
    pub next: String,
}

/// Users with their prefs that are read at a time: all of them together are too long for a reply.
const PREFS_CHUNK: usize = 50;

/// The result of a batch read.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order of the ids.
    pub users: Vec<User>,
    /// Those that no live user has.
    pub missing: Vec<UserId>,
    /// Those from the first one on that did not fit.
    pub unread: Vec<UserId>,
}

/// The page of a list to return, and what it includes.
#[derive(Debug)]
pub struct PageRequest {
    /// Which part.
    pub page: Page,
    /// Counts the rows of all pages.
    pub total: bool,
    /// Includes the users' prefs.
    pub prefs: bool,
}

impl Operations {
    /// A page of users.
    pub async fn list(
        &self,
        caller: &Caller,
        listing: &Listing,
        wanted: &PageRequest,
    ) -> Result<ListPage<User>> {
        let digest = listing.digest(&caller.namespace);
        let start = self.start(&wanted.page, &digest, position)?;
        let from_replica = match self.store.read_replica(caller, self.rules.list_timeout).await? {
            Some(db) => match read_page(&db, &caller.namespace, listing, &start, wanted).await {
                Err(error) if self.store.is_replica_failure(&error) => None,
                read => Some(read?),
            },
            None => None,
        };
        let (page, total) = match from_replica {
            Some(read) => read,
            None => {
                read_page(&self.read_list(caller).await?, &caller.namespace, listing, &start, wanted).await?
            }
        };
        let next = page.users.last().filter(|_| page.more).map_or_else(String::new, |last| {
            self.page_tokens.seal(&digest, &cursor(&Position::of(last, listing.order)))
        });
        Ok(ListPage { rows: page.users, total, next })
    }

    /// Live users by prefixes of their names, in the order of their usernames.
    pub async fn search(
        &self,
        caller: &Caller,
        username: String,
        email: String,
        page: Page,
        prefs: bool,
    ) -> Result<Vec<User>> {
        if !username.is_ascii() || !email.is_ascii() {
            return Ok(Vec::new()); // no name begins with it
        }
        let filters = Filters { username, email, ..Filters::default() };
        let listing = Listing { filters, order: Order::Username, ..Listing::default() };
        Ok(self.list(caller, &listing, &PageRequest { page, total: false, prefs }).await?.rows)
    }

    /// The live users among `ids`, as many as one reply can hold. No more than that are read, but for a few.
    pub async fn batch_read(&self, caller: &Caller, ids: Vec<UserId>, prefs: bool) -> Result<Batch> {
        // Every id may be among the missing or the unread: two bytes go before each.
        let named: usize = ids.iter().map(|id| id.as_str().len() + 2).sum();
        let mut room = Page::MAX_BYTES.saturating_sub(named);
        let mut batch = Batch::default();
        let at_once = if prefs { PREFS_CHUNK } else { ids.len().max(1) };
        for some in ids.chunks(at_once) {
            if !batch.unread.is_empty() {
                batch.unread.extend_from_slice(some);
                continue;
            }
            let found =
                store::users::find_all(&self.store.read(caller).await?, &caller.namespace, some, prefs)
                    .await?;
            let mut found: HashMap<UserId, User> =
                found.into_iter().map(|user| (user.id.clone(), user)).collect();
            for id in some {
                match found.remove(id) {
                    None => batch.missing.push(id.clone()),
                    Some(user) if batch.unread.is_empty() && user.message_size() <= room => {
                        room -= user.message_size();
                        batch.users.push(user);
                    }
                    Some(_) => batch.unread.push(id.clone()),
                }
            }
        }
        Ok(batch)
    }

    /// The rows with the details of their devices. Each device is parsed once: most rows of a user are of one
    /// or two.
    pub(super) async fn with_device_details<T>(
        &self,
        listed: ListPage<T>,
        device: impl Fn(&T) -> &Device,
    ) -> ListPage<(T, Details)> {
        let mut known: HashMap<Device, Details> = HashMap::new();
        let mut rows = Vec::with_capacity(listed.rows.len());
        for row in listed.rows {
            let device = device(&row);
            let details = if let Some(details) = known.get(device) {
                details.clone()
            } else {
                // A user agent made to be slow takes milliseconds: other calls have their turn in between.
                tokio::task::yield_now().await;
                known.entry(device.clone()).or_insert(self.devices.describe(device)).clone()
            };
            rows.push((row, details));
        }
        ListPage { rows, total: listed.total, next: listed.next }
    }

    /// Returns the position in `list` at which the page begins.
    pub(super) fn start<P>(
        &self,
        page: &Page,
        list: &ListDigest,
        read: impl FnOnce(&str) -> Option<P>,
    ) -> Result<Start<P>> {
        if page.token.is_empty() {
            return Ok(Start::Offset(page.offset));
        }
        let cursor = self.page_tokens.decrypt(list, &page.token);
        cursor.and_then(|cursor| read(&cursor)).map(Start::After).ok_or_else(|| {
            Error::invalid("page_token", "is not of this list with these filters and this order")
        })
    }
}

/// The users of a page, and the number of users on all pages if it is wanted.
async fn read_page(
    db: &store::Reader,
    namespace: &Namespace,
    listing: &Listing,
    start: &Start<Position>,
    wanted: &PageRequest,
) -> Result<(store::list::Rows, Option<u64>)> {
    let part = Part { start, limit: wanted.page.limit, include_prefs: wanted.prefs, room: Page::MAX_BYTES };
    store::list::page(db, namespace, listing, &part, wanted.total).await
}

/// A position as a page token holds it.
fn cursor(position: &Position) -> String {
    match &position.key {
        SortValue::Number(number) => serde_json::json!([number, position.id]),
        SortValue::Text(text) => serde_json::json!([text, position.id]),
    }
    .to_string()
}

fn position(cursor: &str) -> Option<Position> {
    let (key, id): (serde_json::Value, String) = serde_json::from_str(cursor).ok()?;
    let key = match key {
        serde_json::Value::String(text) => SortValue::Text(text),
        number => SortValue::Number(number.as_i64()?),
    };
    Some(Position { key, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_back() {
        for key in [
            SortValue::Number(-1),
            SortValue::Number(i64::MAX),
            SortValue::Text("7".into()),
            SortValue::Text("\"é".into()),
        ] {
            let there = Position { key, id: "x".into() };
            assert_eq!(position(&cursor(&there)), Some(there));
        }
    }
}

//! Pages of searches for few letters on PostgreSQL, whose index finds all that have a text before it tells of the first: many of
//! them need not be found.

use sea_orm::{ConnectionTrait, DbBackend, StreamTrait};

use crate::domain::list::{Listing, Order, Start};
use crate::domain::namespace::Namespace;
use crate::domain::user::User;
use crate::error::Result;

use super::super::totals;
use super::candidates::{found_by_creation, has_range_of_other_order, uncounted_path};
use super::{AccessPath, Part, Rows, position_at, read};

/// Users that are passed along the order, one step after the other.
const STEPS: [u64; 3] = [1_000, 4_000, 20_000];

/// The index takes as long to find one user as a scan along the order takes to pass three. Measured: 1.8 and 0.6 µs in order of
/// creation, which the index has; 5 and 1.4 µs in order of e-mail addresses, where each user that is found is looked up.
const PASSED_PER_FOUND: u64 = 3;

/// The page: along the order as long as that is likely to take less than the index. `None` if that cannot be told.
pub(super) async fn page(
    db: &(impl ConnectionTrait + StreamTrait),
    namespace: &Namespace,
    listing: &Listing,
    part: &Part<'_>,
) -> Result<Option<Rows>> {
    if let Some(page) = along_order(db, namespace, listing, part).await? {
        return Ok(Some(page));
    }
    if part.start.offset() > 0 || has_range_of_other_order(listing) {
        return Ok(None);
    }
    // They are few, as far as that tells.
    if listing.order == Order::Created
        && let Some(page) = by_creation(db, namespace, listing, part).await?
    {
        return Ok(Some(page));
    }
    let path = uncounted_path(DbBackend::Postgres, namespace, listing);
    read(db, namespace, listing, &path, part, None).await.map(Some)
}

/// The page, if it is found along the order sooner than by the index, as far as those that were found so far tell.
async fn along_order(
    db: &(impl ConnectionTrait + StreamTrait),
    namespace: &Namespace,
    listing: &Listing,
    part: &Part<'_>,
) -> Result<Option<Rows>> {
    let (mut page, mut start, mut passed) = (Rows::default(), part.start.clone(), 0);
    let mut room = part.room;
    for (step, most) in STEPS.into_iter().enumerate() {
        let until = position_at(db, namespace, listing, start.after(), most).await?;
        let limit = part.limit - page.users.len() as u64;
        let rest = Part { start: &start, limit, room, ..*part };
        let rows = read(db, namespace, listing, &AccessPath::Order, &rest, until.as_ref()).await?;
        room -= rows.users.iter().map(User::message_size).sum::<usize>();
        page.users.extend(rows.users);
        page.more = rows.more;
        let Some(reached) = until.filter(|_| !page.more) else { return Ok(Some(page)) };
        passed += most;
        // How many of those before an offset were passed is not known.
        let (0, Some(next)) = (start.offset(), STEPS.get(step + 1)) else { break };
        // One more than were found: none so far does not mean none.
        let (found, left) = (page.users.len() as u64, part.limit + 1 - page.users.len() as u64);
        let by_index = PASSED_PER_FOUND * (found + 1) * totals::total(db, namespace, false).await? / passed;
        if left * passed / (found + 1) > by_index && *next > by_index {
            break;
        }
        start = Start::After(reached);
    }
    Ok(None)
}

/// The page, if all of it is among twice as many users that the search index finds first in order of creation. Some of those may
/// not be in the list: a term does not tell all.
async fn by_creation(
    db: &(impl ConnectionTrait + StreamTrait),
    namespace: &Namespace,
    listing: &Listing,
    part: &Part<'_>,
) -> Result<Option<Rows>> {
    let most = 2 * (part.limit + 1);
    let Some((found, path)) = found_by_creation(db, namespace, listing, part.start.after(), most).await?
    else {
        return Ok(None);
    };
    let page = read(db, namespace, listing, &path, part, None).await?;
    Ok((page.more || found < most).then_some(page))
}

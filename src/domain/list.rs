//! Which users a list shows, and in which order.

use super::namespace::Namespace;
use super::page_token::{ListDigest, ListFields};
use super::time::Timestamp;
use super::user::{Status, User};
use super::username::Username;
use super::value::named_enum;

/// A list of users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Those in the trash, and not those that live.
    pub trash: bool,
    /// All of them must fit.
    pub filters: Filters,
    /// The order of the rows.
    pub order: Order,
    /// True for descending order.
    pub descending: bool,
}

impl Listing {
    /// Returns the digest that page tokens of this list are bound to.
    pub fn digest(&self, namespace: &Namespace) -> ListDigest {
        let Self { trash, filters, order, descending } = self;
        let Filters { search, username, email, status, email_verified, label, created, updated } = filters;
        let fields = ListFields::new("users", namespace.as_str()).flag(*trash).flag(*descending);
        let fields = fields.text(order.name()).text(search).text(username).text(email);
        let fields = fields.optional(status.map(|status| (status as i32).to_string()).as_deref());
        let fields = fields.optional(email_verified.map(|verified| if verified { "true" } else { "false" }));
        updated.write(created.write(fields.optional(label.as_deref()))).digest()
    }
}

/// The filters of a list. One that is empty or `None` matches every user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Folded text: a part of the id, username, e-mail address or name, or with fewer than
    /// [`Filters::SUBSTRING`] characters what one of them begins with.
    pub search: String,
    /// A prefix of the username.
    pub username: String,
    /// A prefix of the e-mail address.
    pub email: String,
    /// The status.
    pub status: Option<Status>,
    /// The verification of the e-mail address.
    pub email_verified: Option<bool>,
    /// A label it has.
    pub label: Option<String>,
    /// When it was created.
    pub created: TimeRange,
    /// When it last changed.
    pub updated: TimeRange,
}

impl Filters {
    /// From this many characters on a search is for a part, below it for a beginning: fewer are in too many
    /// texts for an index of parts to be of help.
    pub const SUBSTRING: usize = 3;
    /// Most characters of a search.
    pub const MAX_SEARCH: usize = 256;

    /// Returns true if the search matches prefixes only.
    pub fn searches_prefix(&self) -> bool {
        self.search.chars().nth(Self::SUBSTRING - 1).is_none()
    }
}

/// Times from `from` to before `to`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// The first of them.
    pub from: Option<Timestamp>,
    /// The first value after them.
    pub to: Option<Timestamp>,
}

impl TimeRange {
    /// Adds both ends to the fields of a list.
    pub(super) fn write(self, fields: ListFields) -> ListFields {
        fields.time(self.from).time(self.to)
    }

    /// Returns true if it matches every time.
    pub fn is_open(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }
}

named_enum! {
    /// The column that a list is ordered by; users with equal values follow each other by id.
    #[derive(Default)]
    Order {
        /// When they were created.
        #[default]
        Created = "created",
        /// When they last changed.
        Updated = "updated",
        /// Those without one first.
        Username = "username",
        /// Those without one first.
        Email = "email",
        /// The name in lower case; those without one first.
        Name = "name",
        /// The id, byte for byte.
        Id = "id",
    }
}

/// A cursor: the position after the user with this key and id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The value in the column of the order.
    pub key: SortValue,
    /// The id.
    pub id: String,
}

/// A value that an order compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortValue {
    /// Microseconds.
    Number(i64),
    /// Folded text; empty for an order by id.
    Text(String),
}

impl Position {
    /// The cursor of `user` in a list of that order.
    pub fn of(user: &User, order: Order) -> Self {
        let key = match order {
            Order::Created => SortValue::Number(user.created.0),
            Order::Updated => SortValue::Number(user.updated.0),
            Order::Username => {
                SortValue::Text(user.username.as_ref().map_or("", Username::as_str).to_owned())
            }
            Order::Email => {
                SortValue::Text(user.email.as_ref().map_or("", |email| email.as_str()).to_owned())
            }
            Order::Name => SortValue::Text(super::text::fold(user.name.as_str())),
            Order::Id => SortValue::Text(String::new()),
        };
        Self { key, id: user.id.as_str().to_owned() }
    }
}

/// The start of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start<P> {
    /// An offset from the first row.
    Offset(u64),
    /// After this cursor.
    After(P),
}

impl<P> Start<P> {
    /// Rows to pass over.
    pub fn offset(&self) -> u64 {
        match self {
            Self::Offset(rows) => *rows,
            Self::After(_) => 0,
        }
    }

    /// The cursor to go on after.
    pub fn after(&self) -> Option<&P> {
        match self {
            Self::Offset(_) => None,
            Self::After(cursor) => Some(cursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_and_the_order_make_another_list() {
        let span = TimeRange { from: Some(Timestamp(1)), to: None };
        let ends = TimeRange { from: None, to: Some(Timestamp(1)) };
        let filters = [
            Filters::default(),
            Filters { search: "ada".into(), ..Filters::default() },
            Filters { username: "ada".into(), ..Filters::default() },
            Filters { email: "ada".into(), ..Filters::default() },
            Filters { status: Some(Status::Active), ..Filters::default() },
            Filters { status: Some(Status::Blocked), ..Filters::default() },
            Filters { email_verified: Some(true), ..Filters::default() },
            Filters { email_verified: Some(false), ..Filters::default() },
            Filters { label: Some(String::new()), ..Filters::default() },
            Filters { label: Some("ada".into()), ..Filters::default() },
            Filters { created: span, ..Filters::default() },
            Filters { created: ends, ..Filters::default() },
            Filters { updated: span, ..Filters::default() },
            Filters { updated: ends, ..Filters::default() },
        ];
        let mut lists: Vec<Listing> =
            filters.into_iter().map(|filters| Listing { filters, ..Listing::default() }).collect();
        lists.extend([
            Listing { trash: true, ..Listing::default() },
            Listing { descending: true, ..Listing::default() },
        ]);
        let orders = Order::ALL.into_iter().skip(1); // the first is the default
        lists.extend(orders.map(|order| Listing { order, ..Listing::default() }));
        let (one, two) = (Namespace::parse("one").unwrap(), Namespace::parse("two").unwrap());
        let digests: Vec<ListDigest> =
            [&one, &two].into_iter().flat_map(|of| lists.iter().map(|list| list.digest(of))).collect();
        for (at, digest) in digests.iter().enumerate() {
            assert_eq!(digests.iter().position(|other| other == digest), Some(at));
        }
    }
}

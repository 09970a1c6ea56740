//! The calls that are measured.

use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request};
use usersd::domain::email::Email;
use usersd::domain::user::User;
use usersd::domain::username::Username;
use usersd::pb::users_client::UsersClient;
use usersd::pb::{ListRequest, ReadRequest, SearchRequest, UserStatus};

use super::people::RARE_LABEL;
use super::seed::{Samples, TENANT};
use crate::Result;

/// What the calls are made with.
pub(crate) type Client = UsersClient<Channel>;

/// Users of a page, and pages before the deep one. Of ten thousand users that many pages are there only of two each.
const PAGE: i64 = 25;
const SHORT_PAGE: i64 = 2;
const DEPTH: i64 = 4_999;

/// Users that one offset passes over, where there are as many.
const OFFSET: i64 = 100_000;

/// Kinds that are compared with each other.
pub(crate) const FIRST: &str = "first page";
pub(crate) const FIRST_SHORT: &str = "first page of 2";
pub(crate) const DEEP: &str = "page 5,000 by token";
pub(crate) const DEEP_SHORT: &str = "page 5,000 of 2 by token";

/// What a kind of call is held to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// It must not cost more with more users.
    Steady,
    /// Nor that, and the slowest must be quick.
    Quick,
    /// It may cost more, but the slowest must be quick.
    Typed,
    /// It may cost more, but not too much.
    Far,
    /// As good as no growth.
    Counted,
    /// The same in time.
    Point,
    /// It may cost what it must.
    Open,
}

/// A kind of call.
pub(crate) struct Case {
    /// As the table shows it.
    pub(crate) name: &'static str,
    pub(crate) target: Target,
    /// Whether the small tenant makes it.
    pub(crate) tenant: bool,
    /// Whether it takes so long that few calls must do.
    pub(crate) long: bool,
    /// The call of that number.
    make: fn(&Known, usize) -> Call,
}

/// A call.
enum Call {
    List(ListRequest),
    Search(SearchRequest),
    Read(ReadRequest),
}

/// What is known of a tenant's users.
pub(crate) struct Known {
    rows: usize,
    samples: Samples,
    /// Leads to the deep page; empty where there are not as many users.
    deep: String,
    /// To the one of short pages.
    deep_short: String,
}

impl Case {
    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        let kind = |target, name, make| Self { name, target, tenant: false, long: false, make };
        let steady = |name, make| kind(Target::Steady, name, make);
        let quick = |name, make| kind(Target::Quick, name, make);
        let open = |name, make| kind(Target::Open, name, make);
        let typed = |name, make| kind(Target::Typed, name, make);
        let far = |name, make| Self { long: true, ..kind(Target::Far, name, make) };
        let long = |name, make| Self { long: true, ..kind(Target::Open, name, make) };
        let tenants = |name, make| Self { tenant: true, ..kind(Target::Open, name, make) };
        vec![
            steady(FIRST, |_, _| page(PAGE)),
            open(DEEP, |known, _| token(PAGE, &known.deep)),
            steady(FIRST_SHORT, |_, _| page(SHORT_PAGE)),
            steady(DEEP_SHORT, |known, _| token(SHORT_PAGE, &known.deep_short)),
            steady("first page by name, descending", |_, _| by_name()),
            steady("Search, username", |known, n| search(known.username(n), "")),
            steady("Search, username, many hits", |_, _| search("m", "")),
            steady("Search, address", |known, n| search("", known.email(n))),
            open("Search, address, many hits", |_, _| search("", "m")),
            open("Search, address, 'com'", |_, _| search("", "com")),
            quick("few hits, across a name", |known, n| find(&known.across_name(n))),
            quick("few hits, in a username", |known, n| find(inside(known.username(n), 1, 16))),
            quick("few hits, in an address", |known, n| find(inside(known.email(n), 2, 16))),
            quick("one hit, 8 digits of an id", |known, n| find(inside(known.id(n), 28, 8))),
            quick("few hits, whole address", |known, n| find(known.email(n))),
            quick("few hits, status", |known, n| active(&known.across_name(n))),
            quick("no hit", |_, _| find("quizzaciously")),
            steady("label of few", |_, _| labelled(RARE_LABEL)),
            kind(Target::Point, "Read by username", |known, n| read(known.username(n))),
            typed("prefix, 2 letters", |known, n| find(start(known.username(n), 2))),
            typed("many hits, 3 letters", |known, n| find(inside(known.username(n), 1, 3))),
            open("many hits, '.com'", |_, _| find(".com")),
            open("many hits, label", |_, _| labelled("beta")),
            open("many hits, status", |_, _| active("")),
            far("offset 100,000", |known, _| offset(known)),
            kind(Target::Counted, "first page, total", |_, _| total("")),
            long("few hits, across a name, total", |known, n| total(&known.across_name(n))),
            long("many hits, 3 letters, total", |known, n| total(inside(known.username(n), 1, 3))),
            long("many hits, '.com', total", |_, _| total(".com")),
            tenants("first page, total", |_, _| total("")),
            tenants("few hits, in a username", |known, n| find(inside(known.username(n), 1, 16))),
            tenants("one hit, 8 digits of an id", |known, n| find(inside(known.id(n), 28, 8))),
            tenants("no hit", |_, _| find("quizzaciously")),
            tenants("many hits, 3 letters", |known, n| find(inside(known.username(n), 1, 3))),
            tenants("many hits, '.com'", |_, _| find(".com")),
            tenants("many hits, '.com', total", |_, _| total(".com")),
        ]
    }

    /// Whether these users are enough for it.
    pub(crate) fn fits(&self, known: &Known) -> bool {
        self.name != DEEP || !known.deep.is_empty()
    }

    /// Makes the call and gives how many users came back: none where counting took longer than the server allows.
    pub(crate) async fn call(&self, client: &mut Client, known: &Known, number: usize) -> Result<usize> {
        Ok(match (self.make)(known, number) {
            Call::List(message) => match client.list(self.request(message)).await {
                Err(status) if self.long && status.code() == Code::ResourceExhausted => 0,
                done => done?.into_inner().users.len(),
            },
            Call::Search(message) => client.search(self.request(message)).await?.into_inner().users.len(),
            Call::Read(message) => {
                usize::from(client.read(self.request(message)).await?.into_inner().user.is_some())
            }
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if self.tenant {
            request.metadata_mut().insert("usersd-namespace", MetadataValue::from_static(TENANT));
        }
        request
    }
}

impl Known {
    /// Users of a tenant with that many of them.
    pub(crate) fn new(rows: usize, samples: Samples) -> Self {
        Self { rows, samples, deep: String::new(), deep_short: String::new() }
    }

    /// Goes to where the deep pages begin.
    pub(crate) async fn dive(&mut self, client: &mut Client) -> Result<()> {
        self.deep_short = self.behind(client, DEPTH * SHORT_PAGE).await?;
        if i64::try_from(self.rows)? >= (DEPTH + 1) * PAGE {
            self.deep = self.behind(client, DEPTH * PAGE).await?;
        }
        Ok(())
    }

    /// The token of the page that begins behind so many users. Pages of a list may be of any length.
    async fn behind(&self, client: &mut Client, users: i64) -> Result<String> {
        let (mut left, mut page_token) = (users, String::new());
        while left > 0 {
            let limit = left.min(1_000);
            let message =
                ListRequest { limit: Some(limit), page_token, skip_total: true, ..ListRequest::default() };
            page_token = client.list(message).await?.into_inner().next_page_token;
            left -= limit;
        }
        if page_token.is_empty() { Err("the list ended before its deep page".into()) } else { Ok(page_token) }
    }

    /// Another one for each number, from all over the tenant.
    fn sample(&self, number: usize) -> &User {
        const STEP: usize = 7_919; // a prime: everyone has a turn
        &self.samples[number * STEP % self.samples.len()]
    }

    fn id(&self, number: usize) -> &str {
        self.sample(number).id.as_str()
    }

    fn username(&self, number: usize) -> &str {
        self.sample(number).username.as_ref().map_or("", Username::as_str)
    }

    fn email(&self, number: usize) -> &str {
        self.sample(number).email.as_ref().map_or("", Email::as_str)
    }

    /// The end of the given name and the beginning of the family's.
    fn across_name(&self, number: usize) -> String {
        let name = self.sample(number).name.as_str();
        let middle = name.find(' ').unwrap_or_default();
        inside(name, middle.saturating_sub(3), 10).to_owned()
    }
}

fn start(text: &str, length: usize) -> &str {
    inside(text, 0, length)
}

/// What is left of a text from `from` on, up to that many characters of it.
fn inside(text: &str, from: usize, length: usize) -> &str {
    text.get(from..text.len().min(from + length)).unwrap_or(text)
}

fn plain(limit: i64) -> ListRequest {
    ListRequest { limit: Some(limit), skip_total: true, ..ListRequest::default() }
}

fn page(limit: i64) -> Call {
    Call::List(plain(limit))
}

fn token(limit: i64, page_token: &str) -> Call {
    Call::List(ListRequest { page_token: page_token.to_owned(), ..plain(limit) })
}

fn by_name() -> Call {
    Call::List(ListRequest { order_by: "name".to_owned(), order_dir: "desc".to_owned(), ..plain(PAGE) })
}

fn find(text: &str) -> Call {
    Call::List(ListRequest { search: text.to_owned(), ..plain(PAGE) })
}

fn total(text: &str) -> Call {
    Call::List(ListRequest { search: text.to_owned(), limit: Some(PAGE), ..ListRequest::default() })
}

fn labelled(label: &str) -> Call {
    Call::List(ListRequest { label: label.to_owned(), ..plain(PAGE) })
}

fn active(text: &str) -> Call {
    let (search, status, order_by) = (text.to_owned(), UserStatus::Active.into(), "email".to_owned());
    Call::List(ListRequest { search, status, order_by, ..plain(PAGE) })
}

/// As far as there are users.
fn offset(known: &Known) -> Call {
    let rows = i64::try_from(known.rows).unwrap_or(i64::MAX);
    Call::List(ListRequest { offset: OFFSET.min(rows - PAGE), ..plain(PAGE) })
}

/// By a name, which the cache does not know users by.
fn read(username: &str) -> Call {
    Call::Read(ReadRequest { username: username.to_owned(), ..ReadRequest::default() })
}

fn search(username: &str, email: &str) -> Call {
    let (username, email) = (username.to_owned(), email.to_owned());
    Call::Search(SearchRequest { username, email, limit: PAGE, ..SearchRequest::default() })
}

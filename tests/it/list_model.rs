//! Lists beside a model of them: whichever way a list is found, it is what it says.

use std::cmp::Ordering;

use usersd::domain::email::Email;
use usersd::domain::namespace::Namespace;
use usersd::domain::prefs::Prefs;
use usersd::domain::text::fold;
use usersd::domain::time::Timestamp;
use usersd::domain::user::{Labels, Metadata, Name, Status, User};
use usersd::domain::user_id::UserId;
use usersd::domain::username::Username;
use usersd::pb::{ListRequest, UserStatus};
use usersd::store;

use crate::support::{START, Service};

crate::on_every_backend!(a_list_is_the_same_however_it_is_found);

/// More than are sorted: what many fit is found along an order.
const USERS: usize = 1_500;
const QUESTIONS: usize = 150;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // Knuth's MMIX generator; its low bits are poor.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }

    fn chance(&mut self, of: usize) -> bool {
        self.roll(of) == 0
    }

    fn word(&mut self) -> String {
        let syllables = ["an", "be", "co", "da", "el", "fi", "o'", "zé", "%_", "学", "-x"];
        (0..=self.roll(3)).map(|_| self.pick(&syllables)).collect()
    }

    fn user(&mut self, n: usize) -> User {
        let plain = |text: String| text.replace(['\'', '%', '_', 'é', '学'], "").trim_matches('-').to_owned();
        let time = Timestamp(START * 1_000_000 + i64::try_from(self.roll(50)).unwrap() * 500_000);
        let username =
            (!self.chance(5)).then(|| Username::parse(&format!("{}{n}", plain(self.word()))).unwrap());
        let local = format!("{}.{n}", plain(self.word()));
        let email = Email::parse(&format!("{}@example.com", local.trim_matches('.'))).unwrap();
        let labels =
            ["staff", "beta", "a,b"].into_iter().filter(|_| self.chance(4)).map(str::to_owned).collect();
        User {
            id: UserId::parse(&format!("{}{n:04}", self.pick(&["A", "a", "u|"]))).unwrap(),
            email: (username.is_none() || !self.chance(4)).then_some(email),
            username,
            name: Name::parse(&format!("{} {}", self.word(), self.word())).unwrap(),
            status: self.pick(&[Status::Active, Status::Active, Status::Active, Status::Pending]),
            email_verified: self.chance(3),
            password_updated: None,
            prefs: Prefs::default(),
            labels: Labels::from_trusted(labels),
            metadata: Metadata::default(),
            sso_enabled: true,
            created: time,
            updated: Timestamp(time.0 + i64::try_from(self.roll(9)).unwrap() * 1_000_000),
            deleted: self.chance(10).then_some(time),
            version: 1,
            generation: 1,
        }
    }

    /// A random list. Its searches are parts of what users have, and now and then of
    /// nobody's.
    fn question(&mut self, users: &[User]) -> ListRequest {
        let mut request = ListRequest { limit: Some(self.pick(&[1, 7, 25, 400])), ..ListRequest::default() };
        if !self.chance(4) {
            let user = &users[self.roll(users.len())];
            let text: Vec<char> = self.pick(&texts(user).each_ref().map(String::as_str)).chars().collect();
            let start = if text.is_empty() { 0 } else { self.roll(text.len()) };
            request.search = text.into_iter().skip(start).take(self.pick(&[1, 2, 3, 4, 8])).collect();
        }
        if self.chance(4) {
            request.status =
                self.pick(&[UserStatus::Active, UserStatus::Pending, UserStatus::Blocked]).into();
        }
        if self.chance(4) {
            request.email_verified = Some(self.chance(2));
        }
        if self.chance(5) {
            request.label = self.pick(&["staff", "a,b", "nobody"]).into();
        }
        if self.chance(4) {
            request.created_from = Some(START + i64::try_from(self.roll(30)).unwrap());
        }
        if self.chance(4) {
            request.updated_to = Some(START + i64::try_from(self.roll(40)).unwrap());
        }
        request.order_by = self.pick(&["created", "updated", "username", "email", "name", "id"]).into();
        request.order_dir = self.pick(&["asc", "desc"]).into();
        request
    }
}

fn texts(user: &User) -> [String; 4] {
    let username = user.username.as_ref().map_or("", Username::as_str);
    let email = user.email.as_ref().map_or("", Email::as_str);
    [fold(user.id.as_str()), username.to_owned(), email.to_owned(), fold(user.name.as_str())]
}

fn fits(user: &User, request: &ListRequest) -> bool {
    let search = fold(&request.search);
    let texts = texts(user);
    let found = match search.chars().count() {
        0 => true,
        1 | 2 => texts.iter().any(|text| text.starts_with(&search)),
        _ => texts.iter().any(|text| text.contains(&search)),
    };
    let label = request.label.is_empty() || user.labels.as_slice().contains(&request.label);
    found
        && label
        && (request.status == 0 || user.status as i32 == request.status)
        && request.email_verified.is_none_or(|verified| user.email_verified == verified)
        && request.created_from.is_none_or(|from| user.created.0 >= from * 1_000_000)
        && request.updated_to.is_none_or(|to| user.updated.0 < to * 1_000_000)
}

fn order(one: &User, other: &User, by: &str) -> Ordering {
    let text = |user: &User, n: usize| texts(user)[n].clone();
    let first = match by {
        "created" => one.created.cmp(&other.created),
        "updated" => one.updated.cmp(&other.updated),
        "username" => text(one, 1).cmp(&text(other, 1)),
        "email" => text(one, 2).cmp(&text(other, 2)),
        "name" => text(one, 3).cmp(&text(other, 3)),
        _ => Ordering::Equal,
    };
    first.then_with(|| one.id.as_str().cmp(other.id.as_str()))
}

async fn a_list_is_the_same_however_it_is_found(service: &Service) {
    let mut dice = Dice(2026);
    let namespace = Namespace::default();
    let everyone: Vec<User> = (0..USERS).map(|n| dice.user(n)).collect();
    let (ops, store) = (&service.replica.ops, &service.replica.store);
    for some in everyone.chunks(USERS / 15) {
        let tx = store.begin_as_server().await.unwrap();
        for user in some {
            store::users::insert(&tx, &namespace, user, None).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
    for n in 0..QUESTIONS {
        if n == QUESTIONS / 2 {
            ops.merge_search_index().await.unwrap();
            assert!(service.search_segments().await <= 4);
        }
        let (trash, request) = (dice.chance(5), dice.question(&everyone));
        let mut want: Vec<&User> =
            everyone.iter().filter(|user| user.deleted.is_some() == trash && fits(user, &request)).collect();
        want.sort_by(|one, other| order(one, other, &request.order_by));
        if request.order_dir == "desc" {
            want.reverse();
        }
        let want: Vec<&str> = want.into_iter().map(|user| user.id.as_str()).collect();
        assert_pages(service, trash, &request, &want, dice.roll(want.len() + 2)).await;
    }
}

/// A page at some offset, and the two pages that follow it by token.
async fn assert_pages(service: &Service, trash: bool, request: &ListRequest, want: &[&str], offset: usize) {
    let mut users = service.users();
    let limit = usize::try_from(request.limit.unwrap()).unwrap();
    let mut request = ListRequest { offset: i64::try_from(offset).unwrap(), ..request.clone() };
    for page in 0..3 {
        let asked = request.clone();
        let listed = if trash { users.list_trash(asked).await } else { users.list(asked).await };
        let listed = listed.unwrap().into_inner();
        let came: Vec<&str> = listed.users.iter().map(|user| user.id.as_str()).collect();
        let start = (offset + page * limit).min(want.len());
        let end = (start + limit).min(want.len());
        assert_eq!(came, want[start..end], "page {page} of {request:?}, trash: {trash}");
        assert_eq!(listed.total, i64::try_from(want.len()).ok(), "{request:?}");
        assert_eq!(listed.next_page_token.is_empty(), end == want.len(), "{request:?}");
        if listed.next_page_token.is_empty() {
            break;
        }
        (request.page_token, request.offset) = (listed.next_page_token, 0);
    }
}

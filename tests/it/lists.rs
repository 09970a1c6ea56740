//! Lists of users: searches, filters, orders and pages.

use std::collections::BTreeMap;
use std::time::Duration;

use tonic::Code;
use usersd::pb::{
    CreateRequest, DeleteRequest, ListRequest, ListResponse, RestoreRequest, UpdatePrefsRequest,
    UpdateRequest, UpdateStatusRequest, UpdateVerificationRequest, User, UserStatus,
};

use crate::support::{START, Service, ada, assert_refused, create, fields, from, nth};

crate::on_every_backend!(
    another_namespace_is_not_listed,
    a_search_finds_any_part_of_any_text_every_character_as_it_is,
    one_or_two_characters_are_what_a_text_begins_with,
    a_search_sees_a_change_at_once,
    filters_must_all_fit,
    ranges_take_their_beginning_and_not_their_end,
    every_order_goes_both_ways_and_breaks_ties_by_id,
    pages_by_token_skip_and_repeat_no_user_while_users_come_and_go,
    a_page_token_is_valid_for_its_own_list_only,
    a_limit_may_be_none_and_an_offset_any,
    every_bad_field_of_a_list_is_named_at_once,
    a_page_stays_under_the_size_of_a_reply_and_leads_on,
);

async fn list(service: &Service, request: ListRequest) -> ListResponse {
    service.users().list(request).await.unwrap().into_inner()
}

fn names(listed: &ListResponse) -> Vec<&str> {
    listed.users.iter().map(|user| user.username.as_str()).collect()
}

fn searching(text: &str) -> ListRequest {
    ListRequest { search: text.into(), order_by: "username".into(), ..ListRequest::default() }
}

async fn found(service: &Service, text: &str) -> Vec<String> {
    let listed = list(service, searching(text)).await;
    assert_eq!(listed.total, i64::try_from(listed.users.len()).ok(), "{text:?}");
    names(&listed).into_iter().map(str::to_owned).collect()
}

/// A user without a password, which saves a hash.
fn named(username: &str) -> CreateRequest {
    CreateRequest { username: username.into(), sso_enabled: true, ..CreateRequest::default() }
}

async fn another_namespace_is_not_listed(service: &Service) {
    let mut users = service.users();
    let twin = CreateRequest { id: "twin".into(), labels: vec!["staff".into()], ..ada() };
    for namespace in ["one", "two"] {
        users.create(from(namespace, twin.clone())).await.unwrap();
        // With an id of its own: in hexadecimal digits "ada" can be found.
        let (id, username) = (format!("{namespace}-x"), format!("{namespace}-only"));
        let other = CreateRequest { id, username, ..named("x") };
        users.create(from(namespace, other)).await.unwrap();
    }
    users.delete(from("two", DeleteRequest { id: "twin".into(), ..Default::default() })).await.unwrap();

    let all = users.list(from("one", searching(""))).await.unwrap().into_inner();
    assert_eq!((names(&all), all.total), (vec!["ada", "one-only"], Some(2)));
    for request in [
        searching("ada"),
        searching("a"),
        searching("@example"),
        ListRequest { label: "staff".into(), ..ListRequest::default() },
    ] {
        let one = users.list(from("one", request.clone())).await.unwrap().into_inner();
        assert_eq!((names(&one), one.total), (vec!["ada"], Some(1)), "{request:?}");
        let two = users.list(from("two", request.clone())).await.unwrap().into_inner();
        assert_eq!((names(&two), two.total), (vec![], Some(0)), "{request:?}");
        let trashed = users.list_trash(from("one", request.clone())).await.unwrap().into_inner();
        assert_eq!((names(&trashed), trashed.total), (vec![], Some(0)), "{request:?}");
        let trashed = users.list_trash(from("two", request)).await.unwrap().into_inner();
        assert_eq!((names(&trashed), trashed.total), (vec!["ada"], Some(1)));
    }
    let nobody = users.list(from("three", ListRequest::default())).await.unwrap().into_inner();
    assert_eq!((nobody.users.len(), nobody.total), (0, Some(0)));

    // A token of one tenant leads nowhere in another.
    let page = ListRequest { limit: Some(1), ..ListRequest::default() };
    let token = users.list(from("one", page.clone())).await.unwrap().into_inner().next_page_token;
    let status = users.list(from("two", ListRequest { page_token: token, ..page })).await.unwrap_err();
    assert_eq!(fields(&status), ["page_token"]);
}

async fn a_search_finds_any_part_of_any_text_every_character_as_it_is(service: &Service) {
    let people = [
        ("alpha", "o'hara_x@example.com", "Élodie \"Lo\" O'Hara"),
        ("beta", "100%+x@example.com", "50% off*"),
        ("gamma", "under_score@sub.example.com", "back\\slash AND NEAR(x)"),
        ("delta", "www@com.example.org", "数学者 ß ΣΑΣ"),
    ];
    for (username, email, name) in people {
        let person = CreateRequest { email: email.into(), name: name.into(), ..named(username) };
        create(service, CreateRequest { id: format!("id-{username}|7"), ..person }).await;
    }
    let cases = [
        ("example", &["alpha", "beta", "delta", "gamma"][..]),
        ("EXAMPLE.COM", &["alpha", "beta", "gamma"]),
        ("@example", &["alpha", "beta"]),
        ("ara_x@e", &["alpha"]),
        ("o'h", &["alpha"]),
        ("\"lo\"", &["alpha"]),
        ("100%", &["beta"]),
        ("0%+", &["beta"]),
        ("%%%", &[]),
        ("___", &[]),
        ("er_sc", &["gamma"]),
        ("erxsc", &[]),
        ("off*", &["beta"]),
        ("***", &[]),
        ("k\\s", &["gamma"]),
        ("\\\\\\", &[]),
        (" and ", &["gamma"]),
        ("NEAR(", &["gamma"]),
        ("www", &["delta"]),
        ("数学者", &["delta"]),
        ("ÉLO", &["alpha"]),
        ("e\u{301}lo", &["alpha"]),
        ("elo", &[]),
        ("id-beta|", &["beta"]),
        ("alphabeta", &[]),
        // Every part of it is in a text of the user's, but not all of it in one.
        ("alpha@example", &[]),
        ("o'hara_x@example.com\"lo\"", &[]),
    ];
    for (text, want) in cases {
        assert_eq!(found(service, text).await, want, "{text:?}");
    }
}

async fn one_or_two_characters_are_what_a_text_begins_with(service: &Service) {
    for (username, email, name) in [
        ("ada", "x@example.com", "数学"),
        ("bab", "adb@example.com", ""),
        ("cab", "", "Äda"),
        ("abc", "", "'q"),
    ] {
        create(
            service,
            CreateRequest {
                id: format!("z{username}"),
                email: email.into(),
                name: name.into(),
                ..named(username)
            },
        )
        .await;
    }
    let cases = [
        ("a", &["abc", "ada", "bab"][..]),
        ("ad", &["ada", "bab"]),
        ("AD", &["ada", "bab"]),
        ("ä", &["cab"]),
        ("äd", &["cab"]),
        ("数", &["ada"]),
        ("'", &["abc"]),
        ("z", &["abc", "ada", "bab", "cab"]),
        ("%", &[]),
        ("_", &[]),
        ("*", &[]),
        ("@", &[]),
        ("da", &[]),
    ];
    for (text, want) in cases {
        assert_eq!(found(service, text).await, want, "{text:?}");
    }
}

async fn a_search_sees_a_change_at_once(service: &Service) {
    let mut users = service.users();
    let id = create(service, CreateRequest { labels: vec!["old".into()], ..ada() }).await.id;
    let labelled = |label: &str| ListRequest { label: label.into(), ..ListRequest::default() };
    let update = UpdateRequest {
        id: id.clone(),
        username: Some("countess".into()),
        email: Some("lovelace@example.org".into()),
        name: Some("Augusta".into()),
        labels: vec!["new".into()],
        ..UpdateRequest::default()
    };
    users.update(update).await.unwrap();
    for gone in ["ada@", "example.com"] {
        assert_eq!(found(service, gone).await, [""; 0], "{gone}");
    }
    for there in ["countess", "love", "example.org", "gust"] {
        assert_eq!(found(service, there).await, ["countess"], "{there}");
    }
    assert_eq!(list(service, labelled("old")).await.total, Some(0));
    assert_eq!(list(service, labelled("new")).await.total, Some(1));

    let blocked = ListRequest { status: UserStatus::Blocked.into(), ..ListRequest::default() };
    let verified = ListRequest { email_verified: Some(true), ..ListRequest::default() };
    assert_eq!(list(service, blocked.clone()).await.total, Some(0));
    assert_eq!(list(service, verified.clone()).await.total, Some(0));
    let block =
        UpdateStatusRequest { id: id.clone(), status: UserStatus::Blocked.into(), ..Default::default() };
    users.update_status(block).await.unwrap();
    let verify = UpdateVerificationRequest { id: id.clone(), email_verified: true, ..Default::default() };
    users.update_verification(verify).await.unwrap();
    assert_eq!(list(service, blocked).await.total, Some(1));
    assert_eq!(list(service, verified).await.total, Some(1));

    users.delete(DeleteRequest { id: id.clone(), ..Default::default() }).await.unwrap();
    assert_eq!(found(service, "countess").await, [""; 0]);
    let trashed = users.list_trash(searching("countess")).await.unwrap().into_inner();
    assert_eq!((names(&trashed), trashed.total), (vec!["countess"], Some(1)));
    users.restore(RestoreRequest { id, ..Default::default() }).await.unwrap();
    assert_eq!(found(service, "countess").await, ["countess"]);
    assert_eq!(users.list_trash(searching("countess")).await.unwrap().into_inner().total, Some(0));
}

async fn filters_must_all_fit(service: &Service) {
    let mut users = service.users();
    for n in 0..4 {
        let labels = if n % 2 == 0 { vec!["a,\"b".into(), format!("n{n}")] } else { vec!["a".into()] };
        let status = if n < 2 { UserStatus::Pending } else { UserStatus::Active };
        let request = CreateRequest { labels, status: status.into(), ..named(&format!("user{n}")) };
        create(service, CreateRequest { email: format!("user{n}@example.com"), ..request }).await;
    }
    let third = list(service, searching("user3")).await.users.remove(0);
    let verify = UpdateVerificationRequest { id: third.id, email_verified: true, ..Default::default() };
    users.update_verification(verify).await.unwrap();
    let pending = UserStatus::Pending.into();
    let cases = [
        (ListRequest { status: pending, ..Default::default() }, vec!["user0", "user1"]),
        (ListRequest { label: "a,\"b".into(), ..Default::default() }, vec!["user0", "user2"]),
        (ListRequest { label: "a".into(), ..Default::default() }, vec!["user1", "user3"]),
        (ListRequest { label: ",".into(), ..Default::default() }, vec![]),
        (ListRequest { label: "A".into(), ..Default::default() }, vec![]),
        (ListRequest { label: "a".into(), status: pending, ..Default::default() }, vec!["user1"]),
        (ListRequest { email_verified: Some(true), ..Default::default() }, vec!["user3"]),
        (ListRequest { email_verified: Some(false), ..Default::default() }, vec!["user0", "user1", "user2"]),
        (ListRequest { search: "user2".into(), status: pending, ..Default::default() }, vec![]),
        (ListRequest { search: "user1@".into(), status: pending, ..Default::default() }, vec!["user1"]),
    ];
    for (request, want) in cases {
        let listed = list(service, ListRequest { order_by: "username".into(), ..request.clone() }).await;
        assert_eq!(names(&listed), want, "{request:?}");
        assert_eq!(listed.total, i64::try_from(want.len()).ok(), "{request:?}");
    }
}

async fn ranges_take_their_beginning_and_not_their_end(service: &Service) {
    for n in 0..4 {
        create(service, named(&format!("user{n}"))).await;
        service.clock.advance(Duration::from_millis(10_500));
    }
    let first = list(service, searching("user0")).await.users.remove(0);
    let rename = UpdateRequest { id: first.id, name: Some("x".into()), ..UpdateRequest::default() };
    service.users().update(rename).await.unwrap();
    // Created at 0, 10.5, 21 and 31.5 seconds behind START; the first one changed at 42.
    let created = |from: i64, to: i64| ListRequest {
        created_from: Some(START + from),
        created_to: Some(START + to),
        ..ListRequest::default()
    };
    let cases = [
        (created(0, 21), vec!["user0", "user1"]),
        (created(0, 22), vec!["user0", "user1", "user2"]),
        (created(10, 11), vec!["user1"]),
        (created(11, 21), vec![]),
        (created(21, 21), vec![]),
        (created(9, 0), vec![]),
        (ListRequest { created_to: Some(START), ..ListRequest::default() }, vec![]),
        (ListRequest { created_from: Some(i64::MAX), ..ListRequest::default() }, vec![]),
        (ListRequest { updated_from: Some(START + 42), ..ListRequest::default() }, vec!["user0"]),
        (ListRequest { updated_to: Some(START + 21), ..ListRequest::default() }, vec!["user1"]),
    ];
    for order in ["created", "updated", "username"] {
        for (request, want) in &cases {
            let request = ListRequest { order_by: order.into(), ..request.clone() };
            let mut listed = list(service, request.clone()).await;
            listed.users.sort_by(|one, other| one.username.cmp(&other.username));
            assert_eq!(names(&listed), *want, "{request:?}");
            assert_eq!(listed.total, i64::try_from(want.len()).ok(), "{request:?}");
        }
    }
}

async fn every_order_goes_both_ways_and_breaks_ties_by_id(service: &Service) {
    for (n, id) in ["b", "a", "D", "c"].into_iter().enumerate() {
        let (username, name) = if n < 2 { (format!("user{n}"), "Zoë") } else { (String::new(), "ada") };
        let email = format!("{id}@example.com");
        let request = CreateRequest { id: id.into(), email, name: name.into(), ..named("") };
        create(service, CreateRequest { username, ..request }).await;
        if n == 1 {
            service.clock.advance(Duration::from_secs(1));
        }
    }
    let update = UpdateRequest { id: "a".into(), name: Some("ZOË".into()), ..UpdateRequest::default() };
    service.users().update(update).await.unwrap();
    // Capital letters sort before small ones, and D's address is d@example.com.
    let cases = [
        ("created", ["a", "b", "D", "c"]),
        ("", ["a", "b", "D", "c"]),
        ("updated", ["b", "D", "a", "c"]),
        ("username", ["D", "c", "b", "a"]),
        ("email", ["a", "b", "c", "D"]),
        ("name", ["D", "c", "a", "b"]),
        ("id", ["D", "a", "b", "c"]),
    ];
    for (order, want) in cases {
        assert_order(service, order, &want).await;
    }
}

/// The list in one piece, page by page, and both the other way round.
async fn assert_order(service: &Service, order: &str, want: &[&str]) {
    let ids = |users: &[User]| users.iter().map(|user| user.id.clone()).collect::<Vec<_>>();
    for direction in ["", "asc", "DESC"] {
        let mut want = want.to_vec();
        if direction == "DESC" {
            want.reverse();
        }
        let request =
            ListRequest { order_by: order.into(), order_dir: direction.into(), ..ListRequest::default() };
        assert_eq!(ids(&list(service, request.clone()).await.users), want, "{order} {direction}");
        let mut pages = Vec::new();
        let mut page = ListRequest { limit: Some(1), ..request.clone() };
        loop {
            let listed = list(service, page.clone()).await;
            assert_eq!(listed.total, Some(4));
            pages.extend(ids(&listed.users));
            if listed.next_page_token.is_empty() {
                break;
            }
            page.page_token = listed.next_page_token;
        }
        assert_eq!(pages, want, "{order} {direction}, page by page");
        let behind = ListRequest { limit: Some(2), offset: 1, ..request };
        assert_eq!(ids(&list(service, behind).await.users), want[1..3], "{order} {direction}, by offset");
    }
}

async fn pages_by_token_skip_and_repeat_no_user_while_users_come_and_go(service: &Service) {
    let mut users = service.users();
    for n in 0..20 {
        create(service, named(&format!("user{:02}", 2 * n))).await;
    }
    let mut request = ListRequest { limit: Some(3), order_by: "username".into(), ..ListRequest::default() };
    let mut seen = Vec::new();
    for round in 0.. {
        let listed = list(service, request.clone()).await;
        seen.extend(names(&listed).into_iter().map(str::to_owned));
        if listed.next_page_token.is_empty() {
            break;
        }
        request.page_token = listed.next_page_token;
        // One comes before the place where we are and one behind it, and the one that we were at goes.
        create(service, named(&format!("user{:02}", 2 * round + 1))).await;
        create(service, named(&format!("user{:02}x", 38 - round))).await;
        let last = listed.users.last().unwrap().id.clone();
        users.delete(DeleteRequest { id: last, ..Default::default() }).await.unwrap();
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(seen, sorted, "nobody twice, and in order");
    for n in 0..20 {
        let name = format!("user{:02}", 2 * n);
        assert!(seen.contains(&name), "{name} was there all the time");
    }
}

async fn a_page_token_is_valid_for_its_own_list_only(service: &Service) {
    let mut users = service.users();
    for n in 0..3 {
        create(service, CreateRequest { labels: vec!["x".into()], ..named(&format!("user{n}")) }).await;
    }
    let request = ListRequest { limit: Some(1), ..searching("user") };
    let token = list(service, request.clone()).await.next_page_token;
    let next = ListRequest { page_token: token.clone(), ..request.clone() };
    // What does not change which users are listed, and in which order, may change from page to page.
    let same = [
        next.clone(),
        ListRequest { limit: Some(2), ..next.clone() },
        ListRequest { skip_total: true, include_prefs: true, ..next.clone() },
    ];
    for request in same {
        assert_eq!(names(&list(service, request).await)[0], "user1");
    }
    let others = [
        ListRequest { search: String::new(), ..next.clone() },
        ListRequest { search: "USERS".into(), ..next.clone() },
        ListRequest { order_by: "id".into(), ..next.clone() },
        ListRequest { order_dir: "desc".into(), ..next.clone() },
        ListRequest { status: UserStatus::Active.into(), ..next.clone() },
        ListRequest { email_verified: Some(false), ..next.clone() },
        ListRequest { label: "x".into(), ..next.clone() },
        ListRequest { created_from: Some(0), ..next.clone() },
        ListRequest { updated_to: Some(i64::MAX), ..next.clone() },
        ListRequest { offset: 1, ..next.clone() },
        ListRequest { page_token: token[1..].to_owned(), ..next.clone() },
        ListRequest { page_token: format!("{token}A"), ..next.clone() },
        ListRequest { page_token: "x".into(), ..next.clone() },
        ListRequest { page_token: "\u{0}é".into(), ..next.clone() },
    ];
    for request in others {
        let status = users.list(request.clone()).await.unwrap_err();
        assert_eq!(fields(&status), ["page_token"], "{request:?}");
    }
    let status = users.list_trash(next.clone()).await.unwrap_err();
    assert_eq!(fields(&status), ["page_token"]);
    // Every replica takes it.
    let mut other = service.another(|_| {}).await;
    assert_eq!(names(&other.users.list(next).await.unwrap().into_inner()), ["user1"]);
}

async fn a_limit_may_be_none_and_an_offset_any(service: &Service) {
    for n in 0..30 {
        create(service, named(&format!("user{n:02}"))).await;
    }
    let cases = [
        (None, 0, 25, true),
        (Some(0), 0, 0, false),
        (Some(1_000), 0, 30, false),
        (Some(30), 0, 30, false),
        (Some(29), 0, 29, true),
        (None, 28, 2, false),
        (None, 30, 0, false),
        (None, 1_000_000, 0, false),
    ];
    for (limit, offset, users, more) in cases {
        for search in ["", "user", "us"] {
            let request = ListRequest { limit, offset, search: search.into(), ..ListRequest::default() };
            let listed = list(service, request.clone()).await;
            assert_eq!((listed.users.len(), listed.total), (users, Some(30)), "{request:?}");
            assert_eq!(!listed.next_page_token.is_empty(), more, "{request:?}");
            let bare = list(service, ListRequest { skip_total: true, ..request }).await;
            assert_eq!((bare.users.len(), bare.total), (users, None));
        }
    }
}

async fn every_bad_field_of_a_list_is_named_at_once(service: &Service) {
    let request = ListRequest {
        search: "x".repeat(257),
        status: 9,
        label: "x".repeat(37),
        order_by: "password".into(),
        order_dir: "up".into(),
        limit: Some(1_001),
        offset: -1,
        ..ListRequest::default()
    };
    let status = service.users().list(request.clone()).await.unwrap_err();
    let all = ["search", "status", "label", "order_by", "order_dir", "limit", "offset"];
    assert_eq!(fields(&status), all);
    assert_eq!(fields(&service.users().list_trash(request).await.unwrap_err()), all);
    for request in [searching("a\0b"), searching("\u{7f}"), ListRequest { limit: Some(-1), ..searching("") }]
    {
        assert_refused(
            &service.users().list(request).await.unwrap_err(),
            Code::InvalidArgument,
            "FIELD_INVALID",
        );
    }
    list(service, searching(&"ä".repeat(256))).await;
}

async fn a_page_stays_under_the_size_of_a_reply_and_leads_on(service: &Service) {
    let mut users = service.users();
    let number = prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(1.0)) };
    let list_of = prost_types::ListValue { values: vec![number; 20_000] };
    let value = prost_types::Value { kind: Some(prost_types::value::Kind::ListValue(list_of)) };
    let prefs = prost_types::Struct { fields: BTreeMap::from([("k".into(), value)]) };
    let replica = service.another(|config| config.http.max_body = 4 * 1024 * 1024).await;
    for n in 1..20 {
        let id =
            create(service, CreateRequest { sso_enabled: true, password: String::new(), ..nth(n) }).await.id;
        let update = UpdatePrefsRequest { id, prefs: Some(prefs.clone()), ..Default::default() };
        replica.users.clone().update_prefs(update).await.unwrap();
    }
    let mut request = ListRequest {
        limit: Some(1_000),
        include_prefs: true,
        search: "user".into(),
        ..ListRequest::default()
    };
    let mut seen = Vec::new();
    loop {
        let listed = users.list(request.clone()).await.unwrap().into_inner();
        assert!(prost::Message::encoded_len(&listed) < 3 * 1024 * 1024 + 4096);
        assert!(listed.users.iter().all(|user| user.prefs.as_ref() == Some(&prefs)));
        seen.extend(listed.users.into_iter().map(|user| user.username));
        if listed.next_page_token.is_empty() {
            break;
        }
        request.page_token = listed.next_page_token;
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 19);
    // Without prefs all of them fit in one.
    request.include_prefs = false;
    request.page_token = String::new();
    assert_eq!(list(service, request).await.users.len(), 19);
}

//! Searches of which so many users are hits that they are not sorted, and so few that none is near.

use sea_orm::Statement;
use usersd::domain::list::Filters;
use usersd::domain::namespace::Namespace;
use usersd::pb::ListRequest;
use usersd::store::search::probes;

use crate::plans::{explain, looked_at};
use crate::support::{Backend, Service};

crate::on_every_backend!(
    hits_far_along_the_order_are_found,
    hits_that_are_near_are_found_without_the_index,
    hits_that_are_far_cost_no_more_than_they_are,
    times_of_creation_that_are_changed_by_hand_are_the_order_of_hits,
);

/// Users of whom every hundredth is a hit: more than are looked at along the order, and ten times as many as are hits.
const OTHERS: i64 = 25_000;

/// Users behind them who are all hits: more than are sorted.
const HITS: i64 = 2_200;

/// What they have in their names, and the others do not.
const WORD: &str = "zed";

/// Of the users of whom the index tells that they may be hits, and who are none: twice as many as hits among the others.
const FALSE_HITS: &str = "generation % 50 = 1";

/// Writes the others, then the hits, into the table, and the hits into the index with some who are none. On PostgreSQL half of
/// them have no time of creation there, as those of an earlier program.
async fn seed(service: &Service) {
    let (pad, numbers) = match service.backend {
        Backend::Sqlite => (
            "printf('%07d', n)",
            format!(
                "(WITH RECURSIVE all_of (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM all_of WHERE n < {}) \
                 SELECT n FROM all_of)",
                OTHERS + HITS
            ),
        ),
        Backend::Postgres => (
            "lpad(n::text, 7, '0')",
            format!("(SELECT generate_series(1, {}) AS n) AS numbers", OTHERS + HITS),
        ),
    };
    let name = format!("CASE WHEN n > {OTHERS} OR n % 100 = 0 THEN '{WORD}' ELSE 'other' END || {pad}");
    service
        .execute(&format!(
            "INSERT INTO users (namespace, id, generation, version, username, email, email_verified, name, status, \
             sso_enabled, password_hash, password_updated, prefs, labels, metadata, created, updated, deleted, \
             id_folded, name_folded) SELECT 'default', 'id' || {pad}, n, 1, {name}, '', (n % 2 = 0), {name}, 2, \
             (n % 2 = 0), '', 0, '{{}}', '[]', '{{}}', 1000000 * CAST(n AS BIGINT), 1000000 * CAST(n AS BIGINT), 0, 'id' || {pad}, {name} FROM {numbers}"
        ))
        .await;
    let search = Filters { search: WORD.into(), ..Filters::default() };
    let terms = probes(&Namespace::default(), false, &search).concat();
    let index = match service.backend {
        Backend::Sqlite => {
            let words: Vec<String> = terms.iter().map(|term| format!("{:012x}", term >> 16)).collect();
            format!(
                "INSERT INTO users_search (rowid, terms) SELECT num, '{}' FROM users \
                 WHERE name LIKE '{WORD}%' OR {FALSE_HITS}",
                words.join(" ")
            )
        }
        Backend::Postgres => {
            let numbers: Vec<String> =
                terms.iter().map(|term| ((term >> 32) as u32).cast_signed().to_string()).collect();
            format!(
                "INSERT INTO users_search SELECT namespace, id, ARRAY[{}] FROM users WHERE name LIKE '{WORD}%' OR {FALSE_HITS}; \
                 ALTER TABLE users_search DISABLE TRIGGER users_search_created; \
                 UPDATE users_search SET created = NULL WHERE created % 4000000 > 1000000; \
                 ALTER TABLE users_search ENABLE TRIGGER users_search_created; \
                 ANALYZE users; ANALYZE users_search",
                numbers.join(", ")
            )
        }
    };
    service.execute(&index).await;
}

fn search(order_dir: &str, skip_total: bool, limit: i64) -> ListRequest {
    let order_dir = order_dir.into();
    ListRequest { search: WORD.into(), order_dir, skip_total, limit: Some(limit), ..ListRequest::default() }
}

fn hits() -> Vec<String> {
    let all = (1..=OTHERS + HITS).filter(|n| *n > OTHERS || n % 100 == 0);
    all.map(|n| format!("id{n:07}")).collect()
}

async fn hits_far_along_the_order_are_found(service: &Service) {
    seed(service).await;
    // The few of the first page suggest that it is near, or that it is not.
    for (order_dir, skip_total, limit) in
        [("asc", true, 40), ("asc", true, 500), ("desc", true, 500), ("desc", false, 500)]
    {
        let mut request = search(order_dir, skip_total, limit);
        let mut found = Vec::new();
        loop {
            let page = service.users().list(request.clone()).await.unwrap().into_inner();
            assert_eq!(page.total, (!skip_total).then_some(HITS + OTHERS / 100));
            found.extend(page.users.into_iter().map(|user| user.id));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        let mut hits = hits();
        if order_dir == "desc" {
            hits.reverse();
        }
        assert!(found == hits, "{order_dir}: {} users, from {:?}", found.len(), found.first());
    }
}

/// The statements of the first page.
async fn statements(service: &Service, request: ListRequest) -> Vec<Statement> {
    *service.replica.statements.lock().unwrap() = Some(Vec::new());
    let page = service.users().list(request).await.unwrap().into_inner();
    let noted = service.replica.statements.lock().unwrap().take().unwrap();
    assert_eq!(page.users.len(), 500);
    // Others read and write in the background, in no order of creation.
    let of_list = |sql: &str| {
        sql.contains("\"users\".\"created\"") || sql.contains("SELECT") && sql.contains("users_search")
    };
    noted.into_iter().filter(|statement| of_list(&statement.sql)).collect()
}

async fn hits_that_are_near_are_found_without_the_index(service: &Service) {
    seed(service).await;
    // In the order of the list, and in the range of it that the list asks for.
    let range = ListRequest { created_from: Some(OTHERS + 1), ..search("asc", true, 500) };
    for request in [search("desc", true, 500), range] {
        let noted = statements(service, request).await;
        let asked = noted.iter().any(|statement| statement.sql.contains("users_search"));
        // SQLite's index stops at the first that are asked for.
        assert_eq!(asked, service.backend == Backend::Sqlite, "{noted:#?}");
    }
}

async fn hits_that_are_far_cost_no_more_than_they_are(service: &Service) {
    seed(service).await;
    let noted = statements(service, search("asc", true, 500)).await;
    let mut plan = Vec::new();
    for statement in &noted {
        plan.extend(explain(service, statement).await);
    }
    let text = plan.join("\n");
    match service.backend {
        // Looked for along the order, by their numbers, which its index has: nobody else's row is read.
        Backend::Sqlite => {
            assert!(text.contains("users_by_created"), "{text}");
            assert!(text.contains("LIST SUBQUERY"), "{text}");
            assert!(!text.contains("ORDER BY"), "{text}");
        }
        Backend::Postgres => {
            // The index, its rows, their list, the users and their order.
            let rows: f64 = plan.iter().map(|line| looked_at(line)).sum();
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            let most = 8.0 * HITS as f64;
            assert!(rows < most, "{rows} rows\n{text}");
        }
    }
}

async fn times_of_creation_that_are_changed_by_hand_are_the_order_of_hits(service: &Service) {
    seed(service).await;
    if service.backend == Backend::Postgres {
        // With false hits between them the page is found by looking up all.
        service
            .execute(&format!(
                "DELETE FROM users_search USING users WHERE users.id = users_search.id AND {FALSE_HITS}"
            ))
            .await;
    }
    // The last of the hits among the others becomes the first of all.
    service.execute(&format!("UPDATE users SET created = 0 WHERE generation = {OTHERS}")).await;
    let page = service.users().list(search("asc", true, 40)).await.unwrap().into_inner();
    let found: Vec<String> = page.users.into_iter().map(|user| user.id).collect();
    let expected = [OTHERS].into_iter().chain((1..40).map(|n| n * 100)).map(|n| format!("id{n:07}"));
    assert_eq!(found, expected.collect::<Vec<_>>());
}

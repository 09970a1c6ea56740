//! What users prefer: any JSON object, kept as it was given.

use http::{Method, StatusCode};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::{Value, json};
use tonic::Code;
use usersd::pb::{
    BatchReadRequest, ListRequest, LogEvent, ReadPrefsRequest, SearchRequest, UpdatePrefsRequest, User,
};

use crate::steps::{RIVAL, assert_hidden, delete, events, log, prefer, preferring, read, restore, structure};
use crate::support::{Service, ada, assert_refused, create, fields, from};

crate::on_every_backend!(
    another_namespace_sees_and_changes_nothing,
    twins_in_two_namespaces_never_touch,
    keys_are_written_removed_and_left_alone,
    a_replacement_leaves_nothing_else,
    stored_prefs_come_back_unchanged,
    numbers_keep_every_bit,
    what_json_cannot_hold_is_refused,
    at_most_thirty_two_levels_are_stored,
    all_together_have_at_most_64_kib,
    what_is_missing_is_named,
    a_stale_etag_changes_nothing,
    a_change_is_one_event_and_no_change_is_none,
    lists_leave_prefs_out_unless_asked,
    json_shows_prefs_as_they_are,
);

async fn stored(service: &Service, id: &str) -> Struct {
    let request = ReadPrefsRequest { id: id.into() };
    service.users().read_prefs(request).await.unwrap().into_inner().prefs.unwrap()
}

async fn another_namespace_sees_and_changes_nothing(service: &Service) {
    let user = create(service, ada()).await;
    let prefs = prefer(service, &user.id, &json!({"theme": "dark"})).await;
    let reading = |id: &str| ReadPrefsRequest { id: id.into() };
    assert_hidden(service, &user.id, reading, async |request| service.users().read_prefs(request).await)
        .await;
    let changes = json!({"theme": "light"});
    let writing = |id: &str| preferring(id, &changes);
    assert_hidden(service, &user.id, writing, async |request| service.users().update_prefs(request).await)
        .await;
    let replacing = |id: &str| UpdatePrefsRequest { replace: true, etag: "\"x\"".into(), ..writing(id) };
    assert_hidden(service, &user.id, replacing, async |request| service.users().update_prefs(request).await)
        .await;
    assert_eq!(stored(service, &user.id).await, prefs);
}

async fn twins_in_two_namespaces_never_touch(service: &Service) {
    let mut users = service.users();
    let twin = usersd::pb::CreateRequest { id: "twin".into(), ..ada() };
    for namespace in ["default", RIVAL] {
        users.create(from(namespace, twin.clone())).await.unwrap();
    }
    prefer(service, "twin", &json!({"of": "default"})).await;
    let before = read(service, "twin").await;
    let request = UpdatePrefsRequest { replace: true, ..preferring("twin", &json!({"of": RIVAL})) };
    users.update_prefs(from(RIVAL, request)).await.unwrap();
    assert_eq!(read(service, "twin").await, before);
    let theirs = users.read_prefs(from(RIVAL, ReadPrefsRequest { id: "twin".into() })).await.unwrap();
    assert_eq!(theirs.into_inner().prefs, Some(structure(&json!({"of": RIVAL}))));
    assert_eq!(events(service, "twin").await, [LogEvent::PrefsUpdated, LogEvent::UserCreated]);
}

async fn keys_are_written_removed_and_left_alone(service: &Service) {
    let user = create(service, ada()).await;
    assert_eq!(stored(service, &user.id).await, Struct::default());
    prefer(service, &user.id, &json!({"a": 1, "b": {"x": 1}, "c": [1], "": "no name"})).await;
    let changes = json!({"b": {"y": 2, "z": null}, "c": null, "never": null, "d": {}, "e": []});
    let all = prefer(service, &user.id, &changes).await;
    let expected = structure(&json!({"a": 1, "b": {"y": 2, "z": null}, "d": {}, "e": [], "": "no name"}));
    assert_eq!(all, expected);
    assert_eq!(stored(service, &user.id).await, expected);
    assert_eq!(read(service, &user.id).await.prefs, Some(expected.clone()));
    // They are in the trash with the user, and come back.
    assert_eq!(delete(service, &user.id).await.prefs, Some(expected.clone()));
    assert_eq!(restore(service, &user.id).await.prefs, Some(expected));
}

async fn a_replacement_leaves_nothing_else(service: &Service) {
    let user = create(service, ada()).await;
    prefer(service, &user.id, &json!({"a": 1, "b": 2})).await;
    for (given, left) in [(json!({"b": 3, "c": null}), json!({"b": 3})), (json!({}), json!({}))] {
        let request = UpdatePrefsRequest { replace: true, ..preferring(&user.id, &given) };
        let reply = service.users().update_prefs(request).await.unwrap().into_inner();
        assert_eq!(reply.prefs, Some(structure(&left)));
        // The user comes without them, which stand beside it.
        let user = read(service, &user.id).await;
        assert_eq!(user.prefs, Some(structure(&left)));
        assert_eq!(reply.user, Some(User { prefs: None, ..user }));
    }
}

async fn stored_prefs_come_back_unchanged(service: &Service) {
    let user = create(service, ada()).await;
    let prefs = json!({
        "whole": 3, "negative": -7, "fraction": 0.1, "huge": 1e300, "tiny": 5e-324, "yes": true, "no": false,
        "unicode": "数学者 \u{1F469}\u{200D}\u{1F4BB} é e\u{301}", "control": "\0\u{1}\u{7f}\u{2028}\"\\\n", "ключ": "значение",
        "empty": "", "{}": {}, "[]": [], "nested": {"list": [1, [2, [3, {}]], null, {"a": []}], "null": null},
    });
    assert_eq!(prefer(service, &user.id, &prefs).await, structure(&prefs));
    assert_eq!(stored(service, &user.id).await, structure(&prefs));
}

/// Every double has a text, but not every reader of the text finds the double.
async fn numbers_keep_every_bit(service: &Service) {
    let user = create(service, ada()).await;
    let mut bits = 0x9E37_79B9_7F4A_7C15_u64;
    let random = std::iter::repeat_with(|| {
        // Marsaglia's xorshift: always the same numbers.
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        f64::from_bits(bits)
    });
    let edges =
        [f64::MAX, f64::MIN, f64::MIN_POSITIVE, f64::EPSILON, 9_007_199_254_740_991.0, 1e21, 1.0 / 3.0];
    let edges = edges.into_iter().chain([9_007_199_254_740_992.0, 9_007_199_254_740_994.0, 1e15, 1e16, 1e17]);
    let numbers: Vec<f64> = edges.chain(random.filter(|number| number.is_finite()).take(1000)).collect();
    let value = |number: f64| prost_types::Value { kind: Some(Kind::NumberValue(number)) };
    let list = ListValue { values: numbers.iter().copied().map(value).collect() };
    let value = prost_types::Value { kind: Some(Kind::ListValue(list)) };
    let prefs = Struct { fields: [("numbers".to_owned(), value)].into() };
    let request = UpdatePrefsRequest {
        prefs: Some(prefs.clone()),
        id: user.id.clone(),
        ..UpdatePrefsRequest::default()
    };
    service.users().update_prefs(request).await.unwrap();
    // Others are read and written again each time.
    prefer(service, &user.id, &json!({"other": 1})).await;
    let stored = stored(service, &user.id).await;
    let Some(Kind::ListValue(list)) = &stored.fields["numbers"].kind else { panic!("no list") };
    assert_eq!(list.values.len(), numbers.len());
    for (value, number) in list.values.iter().zip(numbers) {
        assert_eq!(value.kind, Some(Kind::NumberValue(number)));
    }
}

async fn what_json_cannot_hold_is_refused(service: &Service) {
    let user = create(service, ada()).await;
    prefer(service, &user.id, &json!({"a": 1})).await;
    let before = service.counts().await;
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut nested = structure(&json!({"a": 2, "b": {"c": [0]}}));
        let bad = prost_types::Value { kind: Some(Kind::NumberValue(number)) };
        let list =
            prost_types::Value { kind: Some(Kind::ListValue(ListValue { values: vec![bad.clone()] })) };
        nested.fields.insert("b".into(), list);
        for prefs in [Struct { fields: [("n".to_owned(), bad)].into() }, nested] {
            let request = UpdatePrefsRequest { prefs: Some(prefs), ..preferring(&user.id, &json!({})) };
            assert_eq!(fields(&service.users().update_prefs(request).await.unwrap_err()), ["prefs"]);
        }
    }
    let path = format!("/v1/users/{}/prefs", user.id);
    for number in ["1e400", "-1e400", "NaN", "01"] {
        let body = format!(r#"{{"prefs":{{"n":{number}}}}}"#);
        let (status, answer) = service.replica.json(Method::PATCH, &path, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{number}: {answer}");
    }
    assert_eq!(service.counts().await, before);
}

/// The object itself is the first level.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }))
}

fn nested_lists(levels: usize) -> Value {
    json!({ "a": (2..levels).fold(json!([]), |inner, _| json!([inner])) })
}

async fn at_most_thirty_two_levels_are_stored(service: &Service) {
    let user = create(service, ada()).await;
    let path = format!("/v1/users/{}/prefs", user.id);
    let before = service.counts().await;
    for deep in [nested(33), nested_lists(33)] {
        let status = service.users().update_prefs(preferring(&user.id, &deep)).await.unwrap_err();
        assert_eq!(fields(&status), ["prefs"]);
        let (status, answer) =
            service.replica.json(Method::PATCH, &path, &json!({"prefs": deep}).to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(answer["details"][1]["fieldViolations"][0]["field"], "prefs", "{answer}");
    }
    assert_eq!(service.counts().await, before);
    for deepest in [nested(32), nested_lists(32)] {
        assert_eq!(prefer(service, &user.id, &deepest).await, structure(&deepest));
        // Every reply that shows them can be read.
        assert_eq!(read(service, &user.id).await.prefs, Some(structure(&deepest)));
        let list = ListRequest { include_prefs: true, ..ListRequest::default() };
        let list = service.users().list(list).await.unwrap().into_inner();
        assert_eq!(list.users[0].prefs, Some(structure(&deepest)));
        let (status, answer) =
            service.replica.json(Method::PATCH, &path, &json!({"prefs": deepest}).to_string()).await;
        assert_eq!((status, &answer["prefs"]), (StatusCode::OK, &deepest));
        let (_, answer) = service.replica.json(Method::GET, "/v1/users?includePrefs=true", "").await;
        assert_eq!(answer["users"][0]["prefs"], deepest);
    }
}

async fn all_together_have_at_most_64_kib(service: &Service) {
    let user = create(service, ada()).await;
    prefer(service, &user.id, &json!({"a": "x".repeat(40_000)})).await;
    // `{"a":"...","b":"..."}` is 15 bytes and the texts.
    let rest = 64 * 1024 - 40_000 - 15;
    let before = service.counts().await;
    let request = preferring(&user.id, &json!({"b": "x".repeat(rest + 1)}));
    assert_eq!(fields(&service.users().update_prefs(request).await.unwrap_err()), ["prefs"]);
    assert_eq!(service.counts().await, before);
    prefer(service, &user.id, &json!({"b": "x".repeat(rest)})).await;
    let all = stored(service, &user.id).await;
    assert_eq!(all, structure(&json!({"a": "x".repeat(40_000), "b": "x".repeat(rest)})));
    // What is removed makes room in the same call; as bytes, not as characters.
    let request = preferring(&user.id, &json!({"a": null, "ä": "ä".repeat(20_000 - 1)}));
    service.users().update_prefs(request).await.unwrap();
    // In one piece, where messages may be that long.
    let mut wide = service.another(|config| config.http.max_body = 1024 * 1024).await;
    for (length, fits) in [(64 * 1024 - 8, true), (64 * 1024 - 7, false)] {
        let prefs = json!({"a": "x".repeat(length)});
        let request = UpdatePrefsRequest { replace: true, ..preferring(&user.id, &prefs) };
        match wide.users.update_prefs(request).await {
            Ok(_) => assert!(fits),
            Err(status) => assert_eq!((fields(&status), fits), (vec!["prefs".to_owned()], false)),
        }
    }
}

async fn what_is_missing_is_named(service: &Service) {
    let mut users = service.users();
    for id in ["", "no id"] {
        let read = ReadPrefsRequest { id: id.into() };
        assert_eq!(fields(&users.read_prefs(read).await.unwrap_err()), ["id"]);
        let write = UpdatePrefsRequest { id: id.into(), replace: true, ..UpdatePrefsRequest::default() };
        assert_eq!(fields(&users.update_prefs(write).await.unwrap_err()), ["id", "prefs"]);
    }
    let nobody = ReadPrefsRequest { id: "nobody".into() };
    assert_refused(&users.read_prefs(nobody).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    let nobody = preferring("nobody", &json!({}));
    assert_refused(&users.update_prefs(nobody).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
}

async fn a_stale_etag_changes_nothing(service: &Service) {
    let user = create(service, ada()).await;
    let write = |n: i32, etag: &str| UpdatePrefsRequest {
        etag: etag.into(),
        ..preferring(&user.id, &json!({"n": n}))
    };
    let mut users = service.users();
    let reply = users.update_prefs(write(1, &user.etag)).await.unwrap().into_inner();
    let before = service.counts().await;
    for stale in [&user.etag, "\"nonsense\"", "*"] {
        // Also where nothing would change.
        for n in [1, 2] {
            let status = users.update_prefs(write(n, stale)).await.unwrap_err();
            assert_refused(&status, Code::Aborted, "ETAG_MISMATCH");
        }
    }
    assert_eq!(service.counts().await, before);
    users.update_prefs(write(2, &reply.user.unwrap().etag)).await.unwrap();
}

async fn a_change_is_one_event_and_no_change_is_none(service: &Service) {
    let user = create(service, ada()).await;
    let prefs = json!({"b": 1, "a": [1.5, {"y": 1, "x": 2}]});
    prefer(service, &user.id, &prefs).await;
    let changed = read(service, &user.id).await;
    assert!(changed.etag != user.etag && changed.etag.ends_with("-2\""), "{}", changed.etag);
    let entries = log(service, &user.id).await;
    assert_eq!(events(service, &user.id).await, [LogEvent::PrefsUpdated, LogEvent::UserCreated]);
    assert_eq!(
        (entries[0].changed.as_slice(), entries[0].caller.as_str()),
        (&["prefs".to_owned()][..], "open")
    );

    let before = service.counts().await;
    service.clock.advance(std::time::Duration::from_secs(1));
    for same in [json!({}), json!({"b": 1}), json!({"nothing": null}), prefs.clone()] {
        prefer(service, &user.id, &same).await;
    }
    let request = UpdatePrefsRequest { replace: true, ..preferring(&user.id, &prefs) };
    let reply = service.users().update_prefs(request).await.unwrap().into_inner();
    assert_eq!(reply.user, Some(User { prefs: None, ..changed }));
    assert_eq!(service.counts().await, before);
}

async fn lists_leave_prefs_out_unless_asked(service: &Service) {
    let user = create(service, ada()).await;
    let prefs = Some(prefer(service, &user.id, &json!({"theme": "dark"})).await);
    for (include_prefs, shown) in [(false, None), (true, prefs)] {
        let mut users = service.users();
        let list = ListRequest { include_prefs, ..ListRequest::default() };
        let search = SearchRequest { include_prefs, ..SearchRequest::default() };
        let batch = BatchReadRequest { include_prefs, ids: vec![user.id.clone()] };
        let mut found = users.list(list.clone()).await.unwrap().into_inner().users;
        found.extend(users.search(search).await.unwrap().into_inner().users);
        found.extend(users.batch_read(batch).await.unwrap().into_inner().users);
        delete(service, &user.id).await;
        found.extend(users.list_trash(list).await.unwrap().into_inner().users);
        restore(service, &user.id).await;
        assert_eq!(found.len(), 4);
        assert!(found.iter().all(|user| user.prefs == shown), "{found:?}");
    }
}

async fn json_shows_prefs_as_they_are(service: &Service) {
    let user = create(service, ada()).await;
    let path = format!("/v1/users/{}/prefs", user.id);
    let body = r#"{"prefs":{"whole":3,"also":3.0,"big":1e300,"half":0.5,"yes":true,"text":"3","o":{},"l":[],"n":{"n":null}}}"#;
    let (status, answer) = service.replica.json(Method::PATCH, &path, body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(answer["user"]["etag"].is_string() && answer["user"].get("prefs").is_none(), "{answer}");
    let (status, answer) = service.replica.json(Method::GET, &path, "").await;
    // By their text: `3` is not `3.0`.
    let expected = r#"{"prefs":{"also":3,"big":1e+300,"half":0.5,"l":[],"n":{"n":null},"o":{},"text":"3","whole":3,"yes":true}}"#;
    assert_eq!((status, answer.to_string()), (StatusCode::OK, expected.into()));
    let body = r#"{"prefs":{"big":null,"half":null,"n":null,"o":null,"l":null,"text":null,"also":null}}"#;
    let (_, answer) = service.replica.json(Method::PATCH, &path, body).await;
    assert_eq!(answer["prefs"], json!({"whole": 3, "yes": true}));
    let (_, answer) = service.replica.json(Method::PATCH, &path, r#"{"prefs":{"a":1},"replace":true}"#).await;
    assert_eq!(answer["prefs"], json!({"a": 1}));
    let (_, answer) = service.replica.json(Method::GET, &format!("/v1/users/{}", user.id), "").await;
    assert_eq!(answer["user"]["prefs"], json!({"a": 1}));
    for (body, field) in [("{}", "prefs"), (r#"{"prefs":null}"#, "prefs")] {
        let (status, answer) = service.replica.json(Method::PATCH, &path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(answer["details"][1]["fieldViolations"][0]["field"], field, "{answer}");
    }
}

//! The rules of `google/api/http.proto`, by the names they have in the notes: P paths, B bodies, Q queries, M
//! verbs.

use serde_json::{Value, json};

use super::{Got, MAX_BODY, echo, request, send};

/// The message of a request as the echo returns it; a `FileReply`, so `title` is the name and `tags` are left
/// out.
async fn file(verb: &str, path: &str) -> Got {
    send(&echo(), request(verb, path, "")).await
}

async fn all(verb: &str, path: &str, body: &str) -> Value {
    let got = send(&echo(), request(verb, path, body)).await;
    assert_eq!(got.status, 200, "{verb} {path} {body} {got:?}");
    got.json()
}

async fn refused(path: &str) -> Vec<String> {
    send(&echo(), request("GET", path, "")).await.fields()
}

#[tokio::test]
async fn p3_p5_a_variable_holds_the_whole_text_it_matched() {
    for (path, want) in [
        ("/v1/files/7", "files/7"),
        ("/v1/files/a:b", "files/a:b"),
        ("/v1/files/a%3Adisable", "files/a:disable"),
        ("/v1/files/a%2Fb", "files/a%2Fb"),
        ("/v1/files/a%2fb%20c", "files/a%2fb c"),
        ("/v1/files/%C3%A4", "files/ä"),
        ("/v1/files/a+b", "files/a+b"),
        ("/v1/all", ""),
        ("/v1/all/x/y/z", "x/y/z"),
        ("/v1/any", ""),
        ("/v1/files:lookup", ""),
        ("/v1/files/main", ""), // the literal wins
        ("/v1/%66iles/7", "files/7"),
    ] {
        let got = file("GET", path).await;
        assert_eq!(got.status, 200, "{path} {got:?}");
        assert_eq!(got.json()["title"], want, "{path}");
    }
    // A single segment is decoded entirely.
    assert_eq!(all("PUT", "/v1/echo/a%2Fb/n", "{}").await["aString"], "a/b");
}

#[tokio::test]
async fn p6_a_malformed_escape_is_400() {
    for path in ["/v1/files/%zz", "/v1/files/%2", "/v1/files/%", "/v1/files/%FF"] {
        let got = file("GET", path).await;
        assert_eq!(got.status, 400, "{path}");
        assert_eq!(got.json()["details"][0]["reason"], "MALFORMED");
    }
}

#[tokio::test]
async fn p8_a_verb_is_one_only_where_it_is_registered() {
    for (path, want) in [("/v1/files/a:disable", "files/a"), ("/v1/files/a:b:disable", "files/a:b")] {
        assert_eq!(file("POST", path).await.json()["title"], want);
    }
    let got = file("GET", "/v1/files/a:disable").await;
    assert_eq!((got.status.as_u16(), got.header("allow")), (405, "POST, OPTIONS"));
}

#[tokio::test]
async fn p9_p12_no_segment_is_empty() {
    for path in ["/v1/files/", "/v1//files/7", "/v1/files/7/", "/", "/v1/all/", "/V1/files/7", "/v1/collect"]
    {
        let got = file("GET", path).await;
        assert_eq!(got.status, 404, "{path}");
        assert_eq!(got.json()["code"], 5);
        assert_eq!(got.json()["details"][0]["reason"], "METHOD_UNKNOWN");
    }
}

#[tokio::test]
async fn m2_m3_verbs() {
    let got = file("PUT", "/v1/files/7").await;
    assert_eq!((got.status.as_u16(), got.header("allow")), (405, "DELETE, GET, PURGE, HEAD, OPTIONS"));
    assert_eq!(got.json()["code"], 12);
    let got = file("OPTIONS", "/v1/files/7").await;
    assert_eq!((got.status.as_u16(), got.header("allow")), (204, "DELETE, GET, PURGE, HEAD, OPTIONS"));
    assert_eq!(file("OPTIONS", "/v1/nothing").await.status, 404);
    let (get, head) = (file("GET", "/v1/files/7").await, file("HEAD", "/v1/files/7").await);
    assert_eq!((head.status, head.body.len()), (get.status, 0));
    assert_eq!(head.header("content-length"), get.body.len().to_string());
    // M5: no verb but the one on the request line.
    let mut request = request("POST", "/v1/files/7", "");
    request.headers_mut().insert("x-http-method-override", "DELETE".parse().unwrap());
    assert_eq!(send(&echo(), request).await.status, 405);
}

#[tokio::test]
async fn b8_custom_verbs() {
    assert_eq!(file("PURGE", "/v1/files/7").await.json()["title"], "files/7");
    for verb in ["GET", "POST", "REPORT", "OPTIONS"] {
        assert_eq!(file(verb, "/v1/any").await.status, 200, "{verb}");
    }
}

#[tokio::test]
async fn b1_a_body_that_is_not_mapped_is_not_read() {
    let long = "x".repeat(MAX_BODY + 1);
    let mut request = request("DELETE", "/v1/files/7", &long);
    request.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    let got = send(&echo(), request).await;
    assert_eq!((got.status.as_u16(), got.json()), (200, json!("files/7")));
}

#[tokio::test]
async fn b2_with_all_in_the_body_a_query_key_is_a_fault() {
    let got = send(&echo(), request("POST", "/v1/echo?aString=q&x=1", r#"{"nope": 1}"#)).await;
    assert_eq!(got.fields(), ["nope", "aString", "x"]);
}

#[tokio::test]
async fn b3_b4_path_beats_body_beats_query() {
    let got = all("PUT", "/v1/echo/p/n", r#"{"aString": "b", "nested": {"name": "b", "count": 7}}"#).await;
    assert_eq!(got["aString"], "p");
    assert_eq!(got["nested"]["name"], "n");
    assert_eq!(got["nested"]["count"], "7");

    let got = all("PATCH", "/v1/echo/p?anInt32=5&aString=q&nested.name=q", r#"{"count": 1}"#).await;
    assert_eq!((&got["aString"], &got["anInt32"]), (&json!("p"), &json!(5)));
    assert_eq!(got["nested"], json!({"name": "", "count": "1", "more": []}));

    let got = send(&echo(), request("PATCH", "/v1/echo/p?bad=1", r#"{"count": "x", "more": [{}, 3]}"#)).await;
    assert_eq!(got.fields(), ["nested.count", "nested.more[1]", "bad"]);
}

#[tokio::test]
async fn b5_no_body_is_an_empty_message() {
    assert_eq!(all("POST", "/v1/echo", "").await["aString"], "");
    assert_eq!(all("PATCH", "/v1/echo/p", "").await["nested"], json!({"name": "", "count": "0", "more": []}));
}

#[tokio::test]
async fn b6_response_body_is_the_field_alone() {
    assert_eq!(file("DELETE", "/v1/files/7").await.json(), json!("files/7"));
    assert_eq!(file("GET", "/v1/deep/a/x/b").await.json(), json!(["\n\u{5}a/x/b"]));
}

#[tokio::test]
async fn b10_bytes_behind_the_end_are_malformed() {
    let got = send(&echo(), request("POST", "/v1/echo", "{} {}")).await;
    assert_eq!(got.status, 400);
    assert_eq!(got.json()["details"][0]["reason"], "MALFORMED");
    assert_eq!(
        got.json()["message"],
        "the request does not decode: line 1 column 4: the text goes on behind its value"
    );
}

#[tokio::test]
async fn media_types() {
    for (media, want) in [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/merge-patch+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/octet-stream", 415),
    ] {
        let mut request = request("POST", "/v1/echo", "{}");
        request.headers_mut().insert("content-type", media.parse().unwrap());
        let got = send(&echo(), request).await;
        assert_eq!(got.status.as_u16(), want, "{media}");
        if want == 415 {
            assert_eq!(got.json()["details"][0]["reason"], "MALFORMED");
        }
    }
}

#[tokio::test]
async fn q1_q2_q3_q4_names_lists_and_nesting() {
    let got = all(
        "GET",
        "/v1/echo?a_string=a+b%2B&anInt64=-9223372036854775808&nested.name=n&nested.flag=false&strings=x&strings=&int32s=1&int32s=2",
        "",
    )
    .await;
    assert_eq!(got["aString"], "a b+");
    assert_eq!(got["anInt64"], "-9223372036854775808");
    assert_eq!(got["nested"], json!({"name": "n", "count": "0", "flag": false, "more": []}));
    assert_eq!(got["strings"], json!(["x", ""]));
    assert_eq!(got["int32s"], json!([1, 2]));
    assert_eq!(refused("/v1/echo?aString=1&a_string=2").await, ["aString"]);
    assert_eq!(
        refused("/v1/echo?strings.x=1&nested.nope=2&stringMap=3&nested=4&any=5").await,
        ["strings.x", "nested.nope", "stringMap", "nested", "any"]
    );
    assert_eq!(refused("/v1/echo?stringMap[a]=b").await, ["stringMap[a]"]);
}

#[tokio::test]
async fn q5_unknown_keys_are_named_all_at_once() {
    let got = send(&echo(), request("GET", "/v1/echo?pageSize=1&aBool=maybe&x.y=", "")).await;
    assert_eq!(
        got.faults(),
        [
            ("pageSize".into(), "is not a field of All".into()),
            ("aBool".into(), "must be true or false".into()),
            ("x.y".into(), "is not a field of All".into()),
        ]
    );
}

#[tokio::test]
async fn q6_q7_enums_booleans_bytes_numbers() {
    for (query, field, want) in [
        ("color=COLOR_RED", "color", json!("COLOR_RED")),
        ("color=-1", "color", json!("COLOR_BELOW")),
        ("aBool=1", "aBool", json!(true)),
        ("aBool=TRUE", "aBool", json!(true)),
        ("aBool=f", "aBool", json!(false)),
        ("someBytes=_-8", "someBytes", json!("/+8=")),
        ("someBytes=%2F%2B8%3D", "someBytes", json!("/+8=")),
        ("aDouble=-1.5e3", "aDouble", json!(-1500)),
        ("maybeInt32=0", "maybeInt32", json!(0)),
        ("maybeString=", "maybeString", json!("")),
        ("choiceInt32=0", "choiceInt32", json!(0)),
    ] {
        assert_eq!(all("GET", &format!("/v1/echo?{query}"), "").await[field], want, "{query}");
    }
    for (query, field) in [
        ("color=NOPE", "color"),
        ("color=color_red", "color"),
        ("color=9", "color"),
        ("anInt32=0x10", "anInt32"),
        ("anInt32=", "anInt32"),
        ("anInt32=abc", "anInt32"),
        ("anInt32=2147483648", "anInt32"),
        ("someBytes=*", "someBytes"),
    ] {
        assert_eq!(refused(&format!("/v1/echo?{query}")).await, [field], "{query}");
    }
}

#[tokio::test]
async fn q8_q9_well_known_types() {
    for (query, field, want) in [
        ("mask=displayName,a.user_id", "mask", json!("displayName,a.userId")),
        ("timestamp=2026-01-02T03:04:05Z", "timestamp", json!("2026-01-02T03:04:05Z")),
        ("duration=1.5s", "duration", json!("1.500s")),
        ("boolValue=true", "boolValue", json!(true)),
        ("int64Value=0", "int64Value", json!("0")),
        ("struct=%7B%22a%22:[1,null]%7D", "struct", json!({"a": [1, null]})),
    ] {
        assert_eq!(all("GET", &format!("/v1/echo?{query}"), "").await[field], want, "{query}");
    }
    for (query, field) in [("mask=a,,b", "mask"), ("timestamp=now", "timestamp"), ("struct=[", "struct")] {
        assert_eq!(refused(&format!("/v1/echo?{query}")).await, [field], "{query}");
    }
}

#[tokio::test]
async fn q10_q11_oneofs_and_escapes() {
    assert_eq!(refused("/v1/echo?choiceString=a&choiceInt32=1").await, ["choiceInt32"]);
    assert_eq!(send(&echo(), request("GET", "/v1/echo?aString=%zz", "")).await.status, 400);
    assert_eq!(all("GET", "/v1/echo?&&aString=%26%3D", "").await["aString"], "&=");
}

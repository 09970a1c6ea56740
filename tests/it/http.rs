//! JSON over HTTP by the paths in the proto, and the micro service's.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use usersd::pb::CreateRequest;

use crate::support::{PASSWORD, START, Service, ada, create, login};

crate::on_every_backend!(
    every_call_has_its_canonical_path,
    errors_have_code_message_and_details,
    an_unknown_path_is_404_and_a_wrong_verb_405_with_allow,
    a_body_of_another_type_is_415,
    get_and_delete_ignore_a_body,
    both_spellings_are_read_and_lower_camel_is_written,
    a_mask_is_a_text_in_json,
    a_patch_of_the_whole_message_is_given_no_mask,
    replies_are_not_cacheable,
    the_request_id_comes_back,
    etags_are_http_preconditions,
    fields_at_fault_are_spelled_as_in_json,
    metadata_that_would_not_be_read_is_refused,
    numbers_in_urls_may_have_zeros_and_a_plus,
    a_form_content_type_is_json_for_micro,
    micro_errors_have_its_body,
    namespaces_are_separate_on_every_path,
);

async fn every_call_has_its_canonical_path(service: &Service) {
    let http = &service.replica;
    let new =
        json!({"id": "7", "username": "Ada", "email": "ada@example.com", "password": PASSWORD}).to_string();
    let (status, body) = http.json(Method::POST, "/v1/users", &new).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let user = body["user"].clone();
    let expected = json!({
        "id": "7", "username": "ada", "email": "ada@example.com", "created": START.to_string(),
        "updated": START.to_string(), "name": "", "status": "USER_STATUS_ACTIVE", "emailVerified": false,
        "passwordUpdated": START.to_string(), "prefs": {}, "labels": [], "metadata": {}, "ssoEnabled": false,
        "deleted": "0", "etag": user["etag"],
    });
    assert_eq!(user, expected);
    for path in ["/v1/users/7", "/v1/users:lookup?username=ADA", "/v1/users:lookup?email=ada%40example.com"] {
        assert_eq!(http.json(Method::GET, path, "").await, (StatusCode::OK, json!({"user": user})), "{path}");
    }
    let (_, body) = http.json(Method::GET, "/v1/users:search?username=a&limit=10", "").await;
    assert_eq!(body["users"][0]["id"], "7");
    assert_eq!(body["users"][0].get("prefs"), None);
    let (_, body) = http.json(Method::PATCH, "/v1/users/7", r#"{"name":"Countess"}"#).await;
    assert_eq!(body["user"]["name"], "Countess");

    let (status, body) = http
        .json(Method::POST, "/v1/sessions", &json!({"username": "ada", "password": PASSWORD}).to_string())
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let token = json!({"session_id": body["session"]["id"]}).to_string();
    let (_, read) = http.json(Method::POST, "/v1/sessions:read", &token).await;
    assert_eq!(read, body);
    let (status, body) = http.json(Method::POST, "/v1/sessions:logout", &token).await;
    assert_eq!((status, body), (StatusCode::OK, json!({})));
    let change = json!({"oldPassword": PASSWORD, "newPassword": "another horse"}).to_string();
    let (status, body) = http.json(Method::POST, "/v1/users/7:updatePassword", &change).await;
    assert_eq!((status, &body["user"]["id"]), (StatusCode::OK, &json!("7")));
    let (status, body) = http.json(Method::DELETE, "/v1/users/7", "").await;
    assert_eq!((status, &body["user"]["deleted"]), (StatusCode::OK, &json!(START.to_string())));
}

async fn errors_have_code_message_and_details(service: &Service) {
    create(service, ada()).await;
    let (status, body) = service.replica.json(Method::GET, "/v1/users/nobody", "").await;
    let expected = json!({
        "code": 5, "message": "no such user",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "USER_NOT_FOUND",
            "domain": "usersd", "metadata": {}}],
    });
    assert_eq!((status, body), (StatusCode::NOT_FOUND, expected));
    let taken = json!({"username": "ada", "ssoEnabled": true}).to_string();
    let (status, body) = service.replica.json(Method::POST, "/v1/users", &taken).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!(6)));
    assert_eq!(body["details"][0]["metadata"]["field"], "username");
    let wrong = json!({"username": "ada", "password": "wrong"}).to_string();
    let json = [("content-type", "application/json")];
    let (status, headers, _) = service.replica.request(Method::POST, "/v1/sessions", wrong, &json).await;
    assert_eq!((status, headers["www-authenticate"].to_str().unwrap()), (StatusCode::UNAUTHORIZED, "Bearer"));
}

async fn an_unknown_path_is_404_and_a_wrong_verb_405_with_allow(service: &Service) {
    let http = &service.replica;
    for path in
        ["/", "/v1", "/v1/", "/v1/users/", "/v1//users", "/v1/users/7/", "/v2/users", "/v1/users:nothing"]
    {
        let (status, body) = http.json(Method::GET, path, "").await;
        assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!(5)), "{path}");
    }
    for (path, verb, allowed) in [
        ("/v1/users", Method::PUT, "GET, POST, HEAD, OPTIONS"),
        ("/v1/users/7", Method::POST, "DELETE, GET, PATCH, HEAD, OPTIONS"),
        ("/v1/sessions:read", Method::GET, "POST, OPTIONS"),
        ("/users/Users/Read", Method::GET, "POST"),
    ] {
        let (status, headers, _) = http.request(verb, path, "", &[]).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(headers["allow"].to_str().unwrap(), allowed, "{path}");
    }
    let (_, body) = http.json(Method::PUT, "/v1/users", "").await;
    assert_eq!(body["message"], "method not allowed; allowed: GET, POST, HEAD, OPTIONS");
}

async fn a_body_of_another_type_is_415(service: &Service) {
    let body = r#"{"username":"ada","ssoEnabled":true}"#;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/xml", "multipart/form-data"]
    {
        let headers = [("content-type", kind)];
        let (status, _, _) = service.replica.request(Method::POST, "/v1/users", body, &headers).await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    assert_eq!(service.counts().await, [0; 4]);
    let headers = [("content-type", "application/json; charset=utf-8")];
    let (status, _, _) = service.replica.request(Method::POST, "/v1/users", body, &headers).await;
    assert_eq!(status, StatusCode::OK);
    let other = body.replace("ada", "bob");
    let (status, _, _) = service.replica.request(Method::POST, "/v1/users", other, &[]).await;
    assert_eq!(status, StatusCode::OK, "a body without a type is JSON");
}

async fn get_and_delete_ignore_a_body(service: &Service) {
    let user = create(service, ada()).await;
    let path = format!("/v1/users/{}", user.id);
    for (verb, body) in [(Method::GET, "null"), (Method::GET, "{not json"), (Method::DELETE, "{}")] {
        let headers = [("content-type", "application/json")];
        let (status, _, answer) = service.replica.request(verb.clone(), &path, body, &headers).await;
        assert_eq!(status, StatusCode::OK, "{verb} {body}: {answer}");
    }
}

async fn both_spellings_are_read_and_lower_camel_is_written(service: &Service) {
    for (name, body) in [("a", r#""sso_enabled":true"#), ("b", r#""ssoEnabled":true"#)] {
        let body = format!(r#"{{"username":"{name}",{body},"email":null}}"#);
        let (status, answer) = service.replica.json(Method::POST, "/v1/users", &body).await;
        assert_eq!((status, &answer["user"]["ssoEnabled"]), (StatusCode::OK, &json!(true)), "{answer}");
        assert_eq!(answer["user"].get("sso_enabled"), None);
    }
    let both = r#"{"username":"c","ssoEnabled":true,"sso_enabled":true}"#;
    let (status, _) = service.replica.json(Method::POST, "/v1/users", both).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

async fn a_mask_is_a_text_in_json(service: &Service) {
    let user = create(service, ada()).await;
    let path = format!("/v1/users/{}", user.id);
    let (status, answer) = service
        .replica
        .json(Method::PATCH, &path, r#"{"updateMask":"email,ssoEnabled","ssoEnabled":true}"#)
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!((&answer["user"]["email"], &answer["user"]["ssoEnabled"]), (&json!(""), &json!(true)));
}

/// grpc-gateway makes a mask of the fields that the body names, but not where the proto says `body: "*"`.
async fn a_patch_of_the_whole_message_is_given_no_mask(service: &Service) {
    let user = create(service, CreateRequest { labels: vec!["vip".into()], ..ada() }).await;
    let path = format!("/v1/users/{}", user.id);
    for (mask, want) in [("", json!(["vip"])), (r#","updateMask":"name,labels""#, json!([]))] {
        let change = format!(r#"{{"name":"Countess","labels":[]{mask}}}"#);
        let (status, body) = service.replica.json(Method::PATCH, &path, &change).await;
        assert_eq!((status, &body["user"]["labels"]), (StatusCode::OK, &want), "{change}: {body}");
    }
}

async fn replies_are_not_cacheable(service: &Service) {
    create(service, ada()).await;
    for path in ["/v1/users:lookup?username=ada", "/v1/users/nobody", "/nothing"] {
        let (_, headers, _) = service.replica.request(Method::GET, path, "", &[]).await;
        assert_eq!(headers["cache-control"], "no-store", "{path}");
        assert_eq!(headers["content-type"], "application/json", "{path}");
    }
}

async fn the_request_id_comes_back(service: &Service) {
    let http = &service.replica;
    let (_, headers, _) = http.request(Method::GET, "/v1/users/x", "", &[("x-request-id", "my-id-7")]).await;
    assert_eq!(headers["x-request-id"], "my-id-7");
    let too_long = "x".repeat(65);
    let mut made = Vec::new();
    for said in ["", "two words", "a\"b", &too_long] {
        let (_, headers, _) = http.request(Method::GET, "/v1/users/x", "", &[("x-request-id", said)]).await;
        made.push(headers["x-request-id"].to_str().unwrap().to_owned());
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 4, "{made:?}");
}

/// RFC 9110 §13.
async fn etags_are_http_preconditions(service: &Service) {
    let http = &service.replica;
    let user = create(service, ada()).await;
    let path = format!("/v1/users/{}", user.id);
    let get = async |headers: &[(&str, &str)]| http.request(Method::GET, &path, "", headers).await;
    let change = async |tag: &str| {
        http.request(Method::PATCH, &path, r#"{"name":"Countess"}"#, &[JSON, ("if-match", tag)]).await
    };
    let (_, headers, body) = get(&[]).await;
    assert_eq!((headers["etag"].to_str().unwrap(), &body["user"]["etag"]), (&*user.etag, &json!(user.etag)));
    for known in [user.etag.clone(), format!("\"other\", W/{}", user.etag), "*".to_owned()] {
        let (status, headers, body) = get(&[("if-none-match", &known)]).await;
        assert_eq!((status, body), (StatusCode::NOT_MODIFIED, Value::Null), "{known}");
        assert_eq!(headers["etag"].to_str().unwrap(), user.etag);
    }
    let (status, ..) = get(&[("if-none-match", "\"other\"")]).await;
    assert_eq!(status, StatusCode::OK);

    let (status, headers, body) = change(&user.etag).await;
    assert_eq!((status, &body["user"]["name"]), (StatusCode::OK, &json!("Countess")));
    assert_ne!(headers["etag"].to_str().unwrap(), user.etag);
    let (status, _, body) = change(&user.etag).await;
    let reason = (status, &body["details"][0]["reason"]);
    assert_eq!(reason, (StatusCode::PRECONDITION_FAILED, &json!("ETAG_MISMATCH")));
    assert_eq!(change("*").await.0, StatusCode::OK);
    for wrong in ["", &format!("\"other\", {}", user.etag)] {
        let (status, _, body) = change(wrong).await;
        assert_eq!(
            (status, field_at_fault(&body)),
            (StatusCode::BAD_REQUEST, "if-match".to_owned()),
            "{wrong}"
        );
    }
    let (status, _, body) = get(&[("if-match", &user.etag)]).await;
    assert_eq!((status, field_at_fault(&body)), (StatusCode::BAD_REQUEST, "if-match".to_owned()));
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// The field of the first violation, which is the second detail.
fn field_at_fault(body: &Value) -> String {
    body["details"][1]["fieldViolations"][0]["field"].as_str().unwrap_or_default().to_owned()
}

/// As `google/rpc/error_details.proto` says of `FieldViolation.field`.
async fn fields_at_fault_are_spelled_as_in_json(service: &Service) {
    let http = &service.replica;
    let (status, body) = http.json(Method::GET, "/v1/users?page_token=none", "").await;
    assert_eq!((status, field_at_fault(&body)), (StatusCode::BAD_REQUEST, "pageToken".to_owned()), "{body}");
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("pageToken ") && !message.contains("page_token"), "{message}");
    let new = json!({"username": "ada", "ssoEnabled": 1, "metadata": {"a_key.b_c": 1}}).to_string();
    let (_, body) = http.json(Method::POST, "/v1/users", &new).await;
    let violations = body["details"][1]["fieldViolations"].as_array().unwrap();
    let fields: Vec<_> = violations.iter().map(|violation| violation["field"].as_str().unwrap()).collect();
    assert_eq!(fields, [r#"metadata["a_key.b_c"]"#, "ssoEnabled"], "a key is no field: {body}");
}

async fn metadata_that_would_not_be_read_is_refused(service: &Service) {
    for name in
        ["grpc-metadata-usersd-namespace", "grpc-metadata-x-appwrite-project", "Grpc-Metadata-Authorization"]
    {
        let (status, _, body) =
            service.replica.request(Method::GET, "/v1/users", "", &[(name, "other")]).await;
        let expected = (StatusCode::BAD_REQUEST, name.to_lowercase());
        assert_eq!((status, field_at_fault(&body)), expected, "{body}");
    }
    let other = [("grpc-metadata-color", "blue")];
    assert_eq!(service.replica.request(Method::GET, "/v1/users", "", &other).await.0, StatusCode::OK);
}

async fn numbers_in_urls_may_have_zeros_and_a_plus(service: &Service) {
    create(service, ada()).await;
    for limit in ["02", "%2B2", "%2b002"] {
        let (status, body) = service.replica.json(Method::GET, &format!("/v1/users?limit={limit}"), "").await;
        assert_eq!(
            (status, &body["users"][0]["username"]),
            (StatusCode::OK, &json!("ada")),
            "{limit}: {body}"
        );
    }
    for limit in ["+-2", "2%2B", "0x2", "%2B"] {
        let (status, body) = service.replica.json(Method::GET, &format!("/v1/users?limit={limit}"), "").await;
        assert_eq!((status, field_at_fault(&body)), (StatusCode::BAD_REQUEST, "limit".to_owned()), "{limit}");
    }
}

const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];

async fn a_form_content_type_is_json_for_micro(service: &Service) {
    let body = json!({"username": "ada", "password": PASSWORD, "email": "ada@example.com", "unknown": 1})
        .to_string();
    for (n, path) in ["/users/Users/Create", "/users/create"].into_iter().enumerate() {
        let body = body.replace("ada", &format!("ada{n}"));
        let (status, _, answer) = service.replica.request(Method::POST, path, body, &FORM).await;
        assert_eq!((status, answer), (StatusCode::OK, json!({})), "{path}");
    }
    let body = r#"{"username":"ada0"}"#;
    let (_, _, answer) = service.replica.request(Method::POST, "/users/Users/Search", body, &FORM).await;
    let user = &answer["users"][0];
    assert_eq!((&user["username"], &user["created"]), (&json!("ada0"), &json!(START.to_string())));
    assert_eq!(user.get("name"), None, "zero values are left out");
    let (_, _, answer) = service.replica.request(Method::POST, "/users/search", "", &FORM).await;
    assert_eq!(answer["users"].as_array().map(Vec::len), Some(2), "an empty body is {{}}");
    let session = login(service, "ada0").await;
    for path in ["/users/readSession", "/users/read-session", "/users/Users/ReadSession"] {
        let body = json!({"sessionId": session.id}).to_string();
        let (_, _, answer) = service.replica.request(Method::POST, path, body, &FORM).await;
        assert_eq!(answer["session"]["username"], "ada0", "{path}");
    }
}

async fn micro_errors_have_its_body(service: &Service) {
    let body = r#"{"id":"nobody"}"#;
    let (status, _, answer) = service.replica.request(Method::POST, "/users/Users/Read", body, &FORM).await;
    let expected = json!({"id": "users.Read", "code": 404, "detail": "no such user", "status": "Not Found"});
    assert_eq!((status, answer), (StatusCode::NOT_FOUND, expected));
    let (status, _, answer) =
        service.replica.request(Method::POST, "/users/Users/Nothing", "{}", &FORM).await;
    assert_eq!((status, &answer["code"]), (StatusCode::NOT_FOUND, &json!(404)));
    let (status, _, answer) = service.replica.request(Method::POST, "/users/Users/Read", "{", &FORM).await;
    assert_eq!((status, &answer["id"]), (StatusCode::BAD_REQUEST, &json!("users.Read")));
}

async fn namespaces_are_separate_on_every_path(service: &Service) {
    let user = create(service, ada()).await;
    let read = json!({"id": user.id}).to_string();
    for header in ["usersd-namespace", "micro-namespace", "x-appwrite-project"] {
        let rival = [(header, "rival")];
        let (status, _, answer) =
            service.replica.request(Method::GET, &format!("/v1/users/{}", user.id), "", &rival).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{header}: {answer}");
        let (status, _, answer) =
            service.replica.request(Method::POST, "/users/Users/Read", read.clone(), &rival).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{header}: {answer}");
        let frame = [vec![0, 0, 0, 0, u8::try_from(read.len()).unwrap()], read.clone().into_bytes()].concat();
        let headers = [(header, "rival"), ("content-type", "application/grpc+json")];
        let (status, headers, _) =
            service.replica.request(Method::POST, "/users.Users/Read", frame, &headers).await;
        assert_eq!((status, headers["grpc-status"].to_str().unwrap()), (StatusCode::OK, "5"), "{header}");
        let said = percent(headers["grpc-message"].to_str().unwrap());
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&said["id"], &said["code"]), (&json!("users.Read"), &json!(404)));
        assert!(!headers.contains_key("grpc-status-details-bin"));
    }
}

fn percent(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

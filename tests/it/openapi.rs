//! The description of the JSON API, and the page that shows it.

use std::collections::BTreeSet;

use http::{HeaderMap, Method, StatusCode};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;
use transcode::route::RouteMatch;
use usersd::domain::scope::Scopes;
use usersd::http::Schema;
use usersd::pb::{CodePurpose, CreateCodeRequest};

use crate::factors;
use crate::peppers::key_file;
use crate::support::{Replica, Service};

crate::on_every_backend!(
    the_examples_of_all_operations_work,
    it_is_served_without_a_key_unless_reflection_needs_one,
);

const DOCUMENT: &str = include_str!("../../proto/openapi.json");

/// The operations in an order in which each example works, from an empty database on.
const ORDER: [&str; 54] = [
    "Users_Create",
    "Users_Read",
    "Users_Read_1",
    "Users_Search",
    "Users_List",
    "Users_Update",
    "Users_UpdateStatus",
    "Users_UpdateVerification",
    "Users_Unlock",
    "Users_UpdatePrefs",
    "Users_ReadPrefs",
    "Users_BatchRead",
    "Users_UpdatePassword",
    "Users_SetPassword",
    "Users_Login",
    "Users_VerifyPassword",
    "Users_ReadSession",
    "Users_IssueAssertion",
    "Users_ListSessions",
    "Users_Logout",
    "Users_Login",
    "Users_DeleteSession",
    "Users_DeleteSessions",
    "Users_EnrollTotp",
    "Users_ConfirmTotp",
    "Users_ListFactors",
    "Users_CreateRecoveryCodes",
    "Users_CompleteLogin",
    "Users_RemoveTotp",
    "Users_ListLogs",
    "Users_CreateCode",
    "Users_VerifyEmail",
    "Users_ResetPassword",
    "Users_LoginWithCode",
    "Users_ConfirmEmailChange",
    "Users_CreateOrRestore",
    "Users_Delete",
    "Users_ReadTrash",
    "Users_ListTrash",
    "Users_Restore",
    "Users_Delete",
    "Users_Purge",
    "Namespaces_CreateNamespace",
    "Namespaces_UpdateNamespace",
    "Namespaces_ReadNamespace",
    "Namespaces_ListNamespaces",
    "Namespaces_DeleteNamespace",
    "Keys_List",
    "Keys_ListLogs",
    "Keys_Create",
    "Keys_List",
    "Keys_ListLogs",
    "Keys_Delete",
    "Keys_List",
];

/// Verb, path and operation of the document.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, verbs): (&String, &Value)| {
        let verbs = verbs.as_object().unwrap().clone();
        verbs.into_iter().map(|(verb, operation)| (verb, path.clone(), operation)).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

/// Verb and path of a rule of the proto and of its additional ones.
fn bindings(rule: &DynamicMessage) -> Vec<(String, String)> {
    let verbs = ["get", "put", "post", "delete", "patch"];
    let verb = verbs.into_iter().find(|verb| rule.has_field_by_name(verb)).unwrap();
    let path = rule.get_field_by_name(verb).unwrap().as_str().unwrap().to_owned();
    let more = rule.get_field_by_name("additional_bindings").unwrap();
    let more = more.as_list().unwrap().iter().flat_map(|rule| bindings(rule.as_message().unwrap()));
    [(verb.to_owned(), path)].into_iter().chain(more.collect::<Vec<_>>()).collect()
}

#[test]
fn the_document_has_the_routes_of_the_proto_and_no_others() {
    let pool = DescriptorPool::decode(usersd::DESCRIPTOR_SET).unwrap();
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let declared: BTreeSet<_> = methods
        .flat_map(|method| bindings(method.options().get_extension(&http).as_message().unwrap()))
        .collect();
    let document = serde_json::from_str(DOCUMENT).unwrap();
    let documented: BTreeSet<_> =
        operations(&document).into_iter().map(|(verb, path, _)| (verb, path)).collect();
    assert_eq!(documented, declared);
    let schema = Schema::decode(usersd::DESCRIPTOR_SET).unwrap();
    for (verb, path) in documented {
        let verb: Method = verb.to_uppercase().parse().unwrap();
        let found = schema.router.find(&verb, &path.replace(['{', '}'], ""));
        assert!(matches!(found, Ok(RouteMatch::Binding(..))), "{verb} {path}");
    }
    let tried: BTreeSet<_> = ORDER.into_iter().collect();
    let named = operations(&document);
    let named: BTreeSet<_> = named.iter().map(|(.., of)| of["operationId"].as_str().unwrap()).collect();
    assert_eq!(tried, named);
}

/// The path and the query of an operation, of its examples.
fn target(path: &str, operation: &Value) -> String {
    let (mut path, mut query) = (path.to_owned(), Vec::new());
    for parameter in operation["parameters"].as_array().unwrap() {
        let Some(example) = parameter["example"].as_str() else { continue };
        let name = parameter["name"].as_str().unwrap();
        match parameter["in"].as_str() {
            Some("path") => path = path.replace(&format!("{{{name}}}"), example),
            _ => query.push(format!("{name}={example}")),
        }
    }
    format!("{path}?{}", query.join("&"))
}

async fn the_examples_of_all_operations_work(service: &Service) {
    let (status, _, document) = get(&service.replica, "/openapi.json", &[]).await;
    assert_eq!(status, StatusCode::OK);
    let operations = operations(&document);
    let replica = service.another(|config| config.assertions.audiences = vec!["shop".into()]).await;
    let keys = key_file(&[1]);
    for replica in [&replica, &service.replica] {
        replica.ops.reload_peppers(Some(keys.path())).unwrap();
    }
    // What an example cannot know: the token, the id and the codes that the call before it made.
    let (mut token, mut id, mut key) = (String::new(), String::new(), None);
    let (mut totp, mut recovery_codes, mut challenge) = (String::new(), Vec::<String>::new(), String::new());
    for name in ORDER {
        let (verb, path, operation) =
            operations.iter().find(|(.., operation)| operation["operationId"] == name).unwrap();
        let example = &operation["requestBody"]["content"]["application/json"]["example"];
        assert_eq!(example.is_null(), operation["requestBody"].is_null(), "{name} has no example");
        let body = if example.is_null() { String::new() } else { example.to_string() };
        let body = body.replace(&format!("ses_{}", "0".repeat(64)), &token).replace("123456", &totp);
        let body = body.replace(&format!("code_{}", "0".repeat(64)), &code_for(service, name).await);
        let mut body = body.replace("CHALLENGE", &challenge);
        if body.contains("0123ab-4567cd-89efgh-jkmnpq") {
            body = body.replace("0123ab-4567cd-89efgh-jkmnpq", &recovery_codes.pop().unwrap());
        }
        let path = target(path, operation).replace("01a2155f-a03a-798f-a7c1-36e5163b19cc", &id);
        let bearer = key.as_ref().map(|key| format!("Bearer {key}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        let verb = verb.to_uppercase().parse().unwrap();
        let (status, _, reply) = replica.request(verb, &path, body, &headers).await;
        assert_eq!(status, StatusCode::OK, "{name} {path}: {reply}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match name {
            "Users_Login" => {
                (token, id) = (text(&reply["session"]["id"]), text(&reply["session"]["publicId"]));
            }
            "Users_EnrollTotp" => totp = factors::code(&text(&reply["secret"]), 0),
            "Users_ConfirmTotp" | "Users_CreateRecoveryCodes" => {
                recovery_codes = reply["recoveryCodes"].as_array().unwrap().iter().map(text).collect();
                challenge = factors::challenge(service, "ada").await;
            }
            "Keys_Create" => {
                id = text(&reply["key"]["id"]);
                key = Some(service.key("default", Scopes::ALL).await.0);
                replica.keys.refresh().await.unwrap();
            }
            _ => {}
        }
    }
}

/// A code for the operation, if it takes one.
async fn code_for(service: &Service, operation: &str) -> String {
    let (purpose, new_email) = match operation {
        "Users_VerifyEmail" => (CodePurpose::EmailVerification, ""),
        "Users_ConfirmEmailChange" => (CodePurpose::EmailChange, "ada@example.org"),
        "Users_ResetPassword" => (CodePurpose::PasswordReset, ""),
        "Users_LoginWithCode" => (CodePurpose::Login, ""),
        _ => return String::new(),
    };
    let request = CreateCodeRequest {
        id: "ada".into(),
        purpose: purpose.into(),
        new_email: new_email.into(),
        ..CreateCodeRequest::default()
    };
    service.users().create_code(request).await.unwrap().into_inner().code
}

async fn get(replica: &Replica, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Value) {
    replica.request(Method::GET, path, "", headers).await
}

async fn it_is_served_without_a_key_unless_reflection_needs_one(service: &Service) {
    service.key("default", Scopes::ALL).await;
    let replica = &service.replica;
    let (status, headers, document) = get(replica, "/openapi.json", &[]).await;
    assert_eq!((status, &headers["content-type"]), (StatusCode::OK, &"application/json".parse().unwrap()));
    assert_eq!(document, serde_json::from_str::<Value>(DOCUMENT).unwrap());
    assert!(headers.contains_key("x-request-id"));
    let etag = headers["etag"].to_str().unwrap();
    let (status, headers, _) = get(replica, "/openapi.json", &[("if-none-match", etag)]).await;
    assert_eq!((status, &headers["etag"]), (StatusCode::NOT_MODIFIED, &etag.parse().unwrap()));
    assert_eq!(headers["cache-control"], "no-cache");
    for (verb, want) in [
        (Method::HEAD, StatusCode::OK),
        (Method::OPTIONS, StatusCode::NO_CONTENT),
        (Method::POST, StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let (status, headers, _) = replica.request(verb.clone(), "/openapi.json", "", &[]).await;
        assert_eq!(status, want, "{verb}");
        assert!(verb == Method::HEAD || headers["allow"] == "GET, HEAD, OPTIONS", "{headers:?}");
    }
    // The page and all that it is made of, and nothing from another host.
    for path in ["/docs", "/docs/start.js", "/docs/swagger-ui.js", "/docs/swagger-ui.css"] {
        let (status, headers, _) = get(replica, path, &[]).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("http"), "{policy}");
    }
    assert_eq!(get(replica, "/docs/nothing", &[]).await.0, StatusCode::NOT_FOUND);

    let closed = service.another(|config| config.open.reflection = false).await;
    for path in ["/openapi.json", "/docs"] {
        assert_eq!(get(&closed, path, &[]).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
}

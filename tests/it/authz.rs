//! Nobody does what their key does not allow: every method of the proto and every route of every dialect,
//! with every kind of key that is not the right one.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{Method, StatusCode};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use usersd::auth::policy::scope_of;
use usersd::domain::key::{AllowedNamespaces, KeyName, NewKey};
use usersd::domain::scope::{Scope, Scopes};
use usersd::ops::keys;
use usersd::pb::{CreateCodeRequest, DeleteRequest};

use crate::peppers::key_file;
use crate::support::{PASSWORD, Service, create, login, nth, raw_with, reason};
use crate::{appwrite, factors, meiro};

crate::on_every_backend!(
    rows_of_another_tenant_are_not_found,
    every_method_rejects_unauthorized_callers,
    every_dialect_rejects_unauthorized_callers,
    each_scope_is_enough_for_its_methods,
    a_password_in_an_update_needs_more_than_the_update,
);

/// A call of an RPC: its message, and its canonical verb and path.
struct Call {
    rpc: &'static str,
    message: Value,
    verb: Method,
    path: String,
}

impl Call {
    fn grpc_path(&self) -> String {
        format!("/users.{}", self.rpc)
    }

    fn scope(&self) -> Scope {
        scope_of(&self.grpc_path()).unwrap()
    }

    fn encoded(&self) -> Vec<u8> {
        let pool = DescriptorPool::decode(usersd::DESCRIPTOR_SET).unwrap();
        let (service, method) = self.rpc.split_once('/').unwrap();
        let service = pool.get_service_by_name(&format!("users.{service}")).unwrap();
        let input = service.methods().find(|known| known.name() == method).unwrap().input();
        DynamicMessage::deserialize(input, &self.message).unwrap().encode_to_vec()
    }

    fn body(&self) -> String {
        if [Method::GET, Method::DELETE].contains(&self.verb) {
            String::new()
        } else {
            self.message.to_string()
        }
    }
}

/// What the calls are about.
struct Scene {
    user: String,
    trashed: String,
    /// In the trash, too.
    purged: String,
    token: String,
    session: String,
    /// One for each purpose, in the order of their numbers, of a user each.
    codes: Vec<String>,
    /// Whose secret is not confirmed yet, with its next code.
    enrolled: (String, String),
    /// Who has a second factor, with its next code, the challenge of a log-in, and a recovery code.
    protected: (String, String, String, String),
    /// Whose secret is not confirmed and to be removed.
    unconfirmed: String,
}

async fn scene(service: &Service) -> Scene {
    let user = create(service, nth(1)).await.id;
    let (trashed, purged) = (create(service, nth(2)).await.id, create(service, nth(3)).await.id);
    for id in [&trashed, &purged] {
        service.users().delete(DeleteRequest { id: id.clone(), ..Default::default() }).await.unwrap();
    }
    let (token, session) = (login(service, "user1").await.id, login(service, "user1").await.public_id);
    let mut codes = Vec::new();
    for purpose in 1..=4 {
        let id = create(service, nth(3 + purpose)).await.id;
        let new_email = if purpose == 2 { "new4@example.com".to_owned() } else { String::new() };
        let purpose = i32::try_from(purpose).unwrap();
        let request = CreateCodeRequest { id, purpose, new_email, ..CreateCodeRequest::default() };
        codes.push(service.users().create_code(request).await.unwrap().into_inner().code);
    }
    factors::give_keys(service, &[1]);
    let (enrolled, protected) = (create(service, nth(8)).await.id, create(service, nth(9)).await.id);
    let secret = factors::enroll(service, &enrolled).await;
    let enrolled = (enrolled, factors::code(&secret, 30));
    let (secret, recovery) = factors::confirm(service, &protected).await;
    let challenge = factors::challenge(service, "user9").await;
    let protected = (protected, factors::code(&secret, 30), challenge, recovery[0].clone());
    let unconfirmed = create(service, nth(20)).await.id;
    factors::enroll(service, &unconfirmed).await;
    Scene { user, trashed, purged, token, session, codes, enrolled, protected, unconfirmed }
}

/// A call of an RPC by its verb and path.
fn call(rpc: &'static str, verb: &str, path: impl AsRef<str>, message: Value) -> Call {
    Call { rpc, message, verb: verb.parse().unwrap(), path: format!("/v1/{}", path.as_ref()) }
}

/// A call of every RPC, in an order in which each can be done.
fn calls(scene: &Scene, key: &str) -> Vec<Call> {
    let mut calls = reads(scene);
    calls.extend(of_codes(scene));
    calls.extend(second_factors(scene));
    calls.extend(changes(scene));
    calls.extend([
        call("Keys/Create", "POST", "keys", json!({"name": "another", "scopes": ["keys.admin"]})),
        call("Keys/List", "GET", "keys", json!({})),
        call("Keys/Delete", "DELETE", format!("keys/{key}"), json!({"id": key})),
        call("Keys/ListLogs", "GET", "keys:logs", json!({})),
        call("Namespaces/CreateNamespace", "POST", "namespaces", json!({"name": "shop"})),
        call("Namespaces/ReadNamespace", "GET", "namespaces/shop", json!({"name": "shop"})),
        call("Namespaces/ListNamespaces", "GET", "namespaces", json!({})),
        call("Namespaces/UpdateNamespace", "PATCH", "namespaces/shop", json!({"name": "shop"})),
        call(
            "Namespaces/DeleteNamespace",
            "DELETE",
            "namespaces/shop?confirmName=shop",
            json!({"name": "shop", "confirmName": "shop"}),
        ),
    ]);
    calls
}

fn reads(Scene { user, trashed, token, .. }: &Scene) -> Vec<Call> {
    let (id, of) = (json!({"id": user}), json!({"userId": user}));
    let assertion = json!({"sessionId": token, "audience": "shop"});
    vec![
        call("Users/Read", "GET", format!("users/{user}"), id.clone()),
        call("Users/Read", "GET", "users:lookup?username=user1", json!({"username": "user1"})),
        call("Users/BatchRead", "POST", "users:batchRead", json!({"ids": [user]})),
        call("Users/Search", "GET", "users:search", json!({})),
        call("Users/List", "GET", "users", json!({})),
        call("Users/ReadTrash", "GET", format!("trash/{trashed}"), json!({"id": trashed})),
        call("Users/ListTrash", "GET", "trash", json!({})),
        call("Users/ReadPrefs", "GET", format!("users/{user}/prefs"), id),
        call("Users/ListLogs", "GET", format!("users/{user}/logs"), of.clone()),
        call("Users/ListSessions", "GET", format!("users/{user}/sessions"), of),
        call("Users/ReadSession", "POST", "sessions:read", json!({"sessionId": token})),
        call("Users/IssueAssertion", "POST", "sessions:issueAssertion", assertion),
    ]
}

fn of_codes(Scene { user, codes, .. }: &Scene) -> Vec<Call> {
    let code = |n: usize| json!({"code": codes[n]});
    let reset = json!({"code": codes[2], "newPassword": "battery staple"});
    let new = json!({"id": user, "purpose": "CODE_PURPOSE_LOGIN"});
    vec![
        call("Users/CreateCode", "POST", "codes", new),
        call("Users/VerifyEmail", "POST", "users:verifyEmail", code(0)),
        call("Users/ConfirmEmailChange", "POST", "users:confirmEmailChange", code(1)),
        call("Users/ResetPassword", "POST", "users:resetPassword", reset),
        call("Users/LoginWithCode", "POST", "sessions:loginWithCode", code(3)),
    ]
}

/// In the order in which a user comes to have one.
fn second_factors(Scene { user, enrolled, protected, unconfirmed, .. }: &Scene) -> Vec<Call> {
    let (enrolled, confirming) = enrolled;
    let (protected, totp, challenge, recovery) = protected;
    let mine = json!({"userId": user, "password": PASSWORD});
    let renewed = json!({"userId": protected, "recoveryCode": recovery});
    let removed = json!({"userId": unconfirmed, "password": PASSWORD});
    let confirmed = json!({"userId": enrolled, "totp": confirming});
    let completed = json!({"challenge": challenge, "totp": totp});
    let path = |user: &str, rest: &str| format!("users/{user}/{rest}");
    vec![
        call("Users/EnrollTotp", "POST", path(user, "totp:enroll"), mine),
        call("Users/ConfirmTotp", "POST", path(enrolled, "totp:confirm"), confirmed),
        call("Users/ListFactors", "GET", path(user, "factors"), json!({"userId": user})),
        call("Users/CompleteLogin", "POST", "sessions:complete", completed),
        call("Users/CreateRecoveryCodes", "POST", path(protected, "recoveryCodes"), renewed),
        call("Users/RemoveTotp", "POST", path(unconfirmed, "totp:remove"), removed),
    ]
}

fn changes(Scene { user, trashed, purged, token, session, .. }: &Scene) -> Vec<Call> {
    let at = |rest: &str| format!("users/{user}{rest}");
    let with = |name: &str, value: Value| json!({"id": user, name: value});
    let id = json!({"id": user});
    let of = json!({"userId": user});
    let one = json!({"userId": user, "sessionId": session});
    let change = json!({"userId": user, "oldPassword": PASSWORD, "newPassword": "battery staple"});
    let verifying = json!({"userId": user, "password": PASSWORD});
    let set = json!({"userId": user, "newPassword": "battery staple"});
    let new = json!({"username": "newest", "password": PASSWORD});
    let returning = json!({"username": "new", "email": "new@example.com", "password": PASSWORD});
    let signing_in = json!({"username": "user1", "password": PASSWORD});
    let pending = with("status", json!("USER_STATUS_PENDING"));
    vec![
        call("Users/Create", "POST", "users", new),
        call("Users/Login", "POST", "sessions", signing_in),
        call("Users/VerifyPassword", "POST", at(":verifyPassword"), verifying),
        call("Users/Logout", "POST", "sessions:logout", json!({"sessionId": token})),
        call("Users/DeleteSession", "DELETE", at(&format!("/sessions/{session}")), one),
        call("Users/UpdatePrefs", "PATCH", at("/prefs"), with("prefs", json!({"a": 1}))),
        call("Users/Update", "PATCH", at(""), with("name", json!("Eve"))),
        call("Users/UpdateVerification", "PATCH", at("/verification"), with("emailVerified", json!(true))),
        call("Users/UpdateStatus", "PATCH", at("/status"), pending),
        call("Users/Unlock", "POST", at(":unlock"), id.clone()),
        call("Users/UpdatePassword", "POST", at(":updatePassword"), change),
        call("Users/SetPassword", "POST", at(":setPassword"), set),
        call("Users/DeleteSessions", "DELETE", at("/sessions"), of),
        call("Users/CreateOrRestore", "POST", "users:createOrRestore", returning),
        call("Users/Restore", "POST", format!("trash/{trashed}:restore"), json!({"id": trashed})),
        call("Users/Purge", "DELETE", format!("trash/{purged}"), json!({"id": purged})),
        call("Users/Delete", "DELETE", at(""), id),
    ]
}

/// Headers of a request that is to be refused, with the code and the reason.
struct Intruder {
    what: &'static str,
    headers: Vec<(&'static str, String)>,
    code: Code,
    reason: &'static str,
}

/// Callers that every call rejects, and callers that only calls of one scope reject.
struct Intruders {
    all: Vec<Intruder>,
    without: Vec<(Scope, Intruder)>,
    /// A key that nothing is wrong with, and its id.
    good: (String, String),
}

impl Intruders {
    fn of(&self, scope: Scope) -> impl Iterator<Item = &Intruder> {
        let lacking = self.without.iter().filter(move |(lacking, _)| *lacking == scope);
        // A call about namespaces as wholes is made in none.
        let fits = move |intruder: &&Intruder| {
            scope != Scope::NamespacesAdmin || intruder.reason != "NAMESPACE_MISSING"
        };
        self.all.iter().filter(fits).chain(lacking.map(|(_, intruder)| intruder))
    }
}

fn but(scope: Scope) -> Scopes {
    Scopes::ALL.without(Scopes::parse([scope.name()]).unwrap())
}

fn bearer(key: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {key}"))
}

impl Intruder {
    fn unknown(what: &'static str, headers: Vec<(&'static str, String)>) -> Self {
        Self { what, headers, code: Code::Unauthenticated, reason: "KEY_MISSING_OR_UNKNOWN" }
    }

    /// One with two keys.
    fn ambiguous(good: &str, header: &'static str, other: String) -> Self {
        let headers = vec![bearer(good), (header, other)];
        Self { what: "two keys", headers, code: Code::Unauthenticated, reason: "KEY_AMBIGUOUS" }
    }

    fn elsewhere(key: &str, header: &'static str, namespace: &str) -> Self {
        let headers = vec![bearer(key), (header, namespace.to_owned())];
        let code = Code::PermissionDenied;
        Self { what: "another namespace", headers, code, reason: "NAMESPACE_MISMATCH" }
    }

    fn lacking(key: &str) -> Self {
        let headers = vec![bearer(key)];
        Self { what: "a scope missing", headers, code: Code::PermissionDenied, reason: "SCOPE_MISSING" }
    }
}

/// Two keys that were good: one that has expired, one that was revoked.
async fn ended(service: &Service) -> (String, String) {
    let (revoked, id) = service.key("default", Scopes::ALL).await;
    keys::revoke(&service.replica.store, &service.clock, &id, false).await.unwrap();
    let minute = Duration::from_mins(1);
    let short = NewKey {
        namespaces: AllowedNamespaces::parse("default").unwrap(),
        name: KeyName::parse("short").unwrap(),
        scopes: Scopes::ALL,
        expires: Some(service.clock.now().plus(minute)),
    };
    let (expired, _) = service.key_like(short).await;
    service.clock.advance(minute);
    (expired, revoked)
}

async fn intruders(service: &Service) -> Intruders {
    let (good, id) = service.key("default", Scopes::ALL).await;
    let (other, _) = service.key("other", Scopes::ALL).await;
    let (root, _) = service.key("*", Scopes::ALL).await;
    let (expired, revoked) = ended(service).await;
    service.replica.keys.refresh().await.unwrap();
    let last = if good.ends_with('0') { "1" } else { "0" };
    let rootless = Intruder {
        what: "a root key without a namespace",
        headers: vec![bearer(&root)],
        code: Code::InvalidArgument,
        reason: "NAMESPACE_MISSING",
    };
    let all = vec![
        Intruder::unknown("no key", vec![]),
        Intruder::unknown("an unknown key", vec![bearer(&format!("usk_{}", "0".repeat(64)))]),
        Intruder::unknown("a key cut short", vec![bearer(&good[..67])]),
        Intruder::unknown("one character more", vec![bearer(&format!("{good}0"))]),
        Intruder::unknown("one character changed", vec![bearer(&format!("{}{last}", &good[..67]))]),
        Intruder::unknown("upper case", vec![bearer(&good.to_uppercase())]),
        Intruder::unknown("another scheme", vec![("authorization", format!("Basic {good}"))]),
        Intruder::unknown("an expired key", vec![bearer(&expired)]),
        Intruder::unknown("a revoked key", vec![bearer(&revoked)]),
        Intruder::unknown("a session token", vec![bearer(&format!("ses_{}", &good[4..]))]),
        Intruder::elsewhere(&good, "usersd-namespace", "other"),
        Intruder::elsewhere(&good, "x-appwrite-project", "other"),
        Intruder::elsewhere(&other, "micro-namespace", "default"),
        Intruder::ambiguous(&good, "x-access-token", other.clone()),
        Intruder::ambiguous(&good, "x-appwrite-key", expired),
        Intruder::ambiguous(&good, "authorization", format!("Bearer {other}")),
        rootless,
    ];
    let mut without = Vec::new();
    for scope in Scope::ALL {
        let (key, _) = service.key("default", but(scope)).await;
        without.push((scope, Intruder::lacking(&key)));
    }
    Intruders { all, without, good: (good, id) }
}

fn borrowed<'a>(headers: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// Everything that a call could change, keys too.
async fn state(service: &Service) -> ([i64; 4], i64, i64) {
    let keys = "SELECT count(*) FROM keys";
    (
        service.counts().await,
        service.number(keys).await,
        service.number("SELECT version FROM keys_version").await,
    )
}

#[track_caller]
fn assert_rejected(what: &str, status: &Status, intruder: &Intruder, scope: Scope) {
    let told = (status.code(), reason(status));
    assert_eq!(told, (intruder.code, intruder.reason.to_owned()), "{what}, {}: {status:?}", intruder.what);
    if intruder.reason == "SCOPE_MISSING" {
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["scope"], scope.name(), "{what}");
    }
}

async fn rows_of_another_tenant_are_not_found(service: &Service) {
    let scene = scene(service).await;
    let (_, mine) = service.key("default", Scopes::ALL).await;
    let (theirs, _) = service.key("other", Scopes::ALL).await;
    let bearer = format!("Bearer {theirs}");
    let nobody = Scene {
        user: "nobody".into(),
        trashed: "nobody".into(),
        purged: "nobody".into(),
        token: format!("ses_{}", "0".repeat(64)),
        session: "none".into(),
        codes: vec![format!("code_{}", "0".repeat(64)); 4],
        enrolled: ("nobody".into(), scene.enrolled.1.clone()),
        protected: ("nobody".into(), scene.protected.1.clone(), "none".into(), scene.protected.3.clone()),
        unconfirmed: "nobody".into(),
    };
    let before = state(service).await;
    for (call, none) in
        calls(&scene, &mine).iter().zip(calls(&nobody, "018bcfe5-0000-7000-8000-000000000000"))
    {
        // That of a password is the throttle's to hide.
        const OTHERWISE: [&str; 14] = [
            "Users/Create",
            "Users/CreateOrRestore",
            "Keys/Create",
            "Users/Login",
            "Users/VerifyPassword",
            "Users/UpdatePassword",
            // A refusal is logged: see `codes.rs`.
            "Users/VerifyEmail",
            "Users/ConfirmEmailChange",
            "Users/ResetPassword",
            "Users/LoginWithCode",
            "Users/EnrollTotp",
            "Users/ConfirmTotp",
            "Users/CreateRecoveryCodes",
            "Users/RemoveTotp",
        ];
        if OTHERWISE.contains(&call.rpc) {
            continue;
        }
        let theirs = as_another(service, call, &bearer).await;
        let none = as_another(service, &none, &bearer).await;
        // A batch tells which of its own ids are missing.
        let theirs = (theirs.0, theirs.1.replace(&scene.user, "nobody"), theirs.2);
        assert_eq!(theirs, none, "{} {}", call.verb, call.path);
    }
    assert_eq!(state(service).await, before);
}

/// Status and body of the answer, and the statements that it took: the same work takes the same time.
async fn as_another(service: &Service, call: &Call, bearer: &str) -> (StatusCode, String, Vec<String>) {
    let headers = [("authorization", bearer), ("content-type", "application/json")];
    *service.replica.statements.lock().unwrap() = Some(Vec::new());
    let answer = service.replica.request(call.verb.clone(), &call.path, call.body(), &headers).await;
    let statements = service.replica.statements.lock().unwrap().take().unwrap();
    // What the server does beside is none of the call's.
    let own =
        statements.into_iter().map(|statement| statement.sql).filter(|sql| !sql.contains("keys_version"));
    (answer.0, answer.2.to_string(), own.collect())
}

async fn every_method_rejects_unauthorized_callers(service: &Service) {
    let scene = scene(service).await;
    let intruders = intruders(service).await;
    let calls = calls(&scene, &intruders.good.1);
    let pool = DescriptorPool::decode(usersd::DESCRIPTOR_SET).unwrap();
    let methods: BTreeSet<String> = pool
        .services()
        .flat_map(|service| {
            service
                .methods()
                .map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(calls.iter().map(Call::grpc_path).collect::<BTreeSet<_>>(), methods, "every method is called");
    let before = state(service).await;
    for call in &calls {
        let message = call.encoded();
        for intruder in intruders.of(call.scope()) {
            let headers = borrowed(&intruder.headers);
            let status =
                raw_with(&service.replica, &call.grpc_path(), message.clone(), &headers).await.unwrap_err();
            assert_rejected(call.rpc, &status, intruder, call.scope());
            // Bytes that are no message are refused the same: nothing is read without authentication.
            let status =
                raw_with(&service.replica, &call.grpc_path(), vec![0xFF], &headers).await.unwrap_err();
            assert_rejected(call.rpc, &status, intruder, call.scope());
            assert_rejected_over_http(service, call, intruder).await;
            assert_rejected_in_other_frames(service, call, &message, intruder).await;
        }
    }
    assert_eq!(state(service).await, before);
}

/// The canonical path, and that of the first service.
async fn assert_rejected_over_http(service: &Service, call: &Call, intruder: &Intruder) {
    let mut headers = borrowed(&intruder.headers);
    headers.push(("content-type", "application/json"));
    let (status, told, body) =
        service.replica.request(call.verb.clone(), &call.path, call.body(), &headers).await;
    let what = format!("{} {}, {}: {body}", call.verb, call.path, intruder.what);
    let want = match intruder.code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    assert_eq!((status, &body["details"][0]["reason"]), (want, &json!(intruder.reason)), "{what}");
    let challenge = told.get("www-authenticate").map(|value| value.to_str().unwrap());
    assert_eq!(challenge, (want == StatusCode::UNAUTHORIZED).then_some("Bearer"), "{what}");
    if call.rpc.starts_with("Users/") {
        let path = format!("/users/{}", call.rpc);
        let body = if intruder.what == "no key" { "{".to_owned() } else { call.message.to_string() };
        let (status, _, body) = service.replica.request(Method::POST, &path, body, &headers).await;
        assert_eq!(
            (status, &body["code"]),
            (want, &json!(want.as_u16())),
            "{path}, {}: {body}",
            intruder.what
        );
    }
}

/// gRPC-Web, and JSON in gRPC's frames: their refusals have the status in the headers.
async fn assert_rejected_in_other_frames(
    service: &Service,
    call: &Call,
    message: &[u8],
    intruder: &Intruder,
) {
    let json = call.message.to_string();
    for (media, message) in [
        ("application/grpc-web+proto", message),
        ("application/grpc-web", &[0xFF][..]),
        ("application/grpc+json", json.as_bytes()),
        ("application/grpc+json", b"{"),
    ] {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let frame = [&[0], &length[..], message].concat();
        let mut headers = borrowed(&intruder.headers);
        headers.push(("content-type", media));
        let (_, told, _) = service.replica.request(Method::POST, &call.grpc_path(), frame, &headers).await;
        let status = told["grpc-status"].to_str().unwrap().parse::<i32>().unwrap();
        assert_eq!(Code::from(status), intruder.code, "{} as {media}, {}", call.rpc, intruder.what);
    }
}

async fn every_dialect_rejects_unauthorized_callers(service: &Service) {
    let scene = scene(service).await;
    let intruders = intruders(service).await;
    let before = state(service).await;
    for (verb, path, body) in routes(&scene) {
        for intruder in intruders.of(route_scope(&verb, &path)) {
            let mut headers = borrowed(&intruder.headers);
            headers.push(("content-type", "application/json"));
            let (status, _, answer) =
                service.replica.request(verb.clone(), &path, body.to_string(), &headers).await;
            let what = format!("{verb} {path}, {}: {answer}", intruder.what);
            let message = answer["message"].as_str().unwrap();
            let appwrite = path.starts_with("/appwrite/");
            let want = match (intruder.code, intruder.reason) {
                (Code::Unauthenticated, _) if appwrite && headers.len() == 1 => 400,
                (Code::PermissionDenied, "SCOPE_MISSING") if appwrite => 401,
                (Code::Unauthenticated, _) => 401,
                (Code::PermissionDenied, _) => 403,
                _ => 400,
            };
            assert_eq!(status.as_u16(), want, "{what}");
            if appwrite && want == 401 {
                let role = if intruder.reason == "SCOPE_MISSING" { "application" } else { "guest" };
                assert!(message.contains(&format!("(role: {role}) missing scope (")), "{what}");
            }
            if appwrite && want == 400 {
                assert_eq!(message, "Missing or unknown project ID", "{what}");
            }
        }
    }
    assert_eq!(state(service).await, before);
}

/// What a route of a dialect needs.
fn route_scope(verb: &Method, path: &str) -> Scope {
    let ends = |end: &str| path.ends_with(end);
    if path.contains("/sessions") {
        return if verb == Method::GET { Scope::SessionsRead } else { Scope::SessionsWrite };
    }
    match (verb.as_str(), path.starts_with("/appwrite/")) {
        ("GET", _) => Scope::UsersRead,
        ("PATCH", true) if ends("/status") || ends("/verification") || ends("/password") => Scope::UsersAdmin,
        ("POST", false) if ends("/create_or_restore") => Scope::UsersAdmin,
        _ => Scope::UsersWrite,
    }
}

/// Every route of the dialects that have paths of their own.
fn routes(scene: &Scene) -> Vec<(Method, String, Value)> {
    let verb = |verb: &str| verb.parse::<Method>().unwrap();
    let new = json!({"email": "new@example.com", "password": PASSWORD});
    let appwrite = appwrite::operations(&scene.user, &scene.session).into_iter();
    let meiro = meiro::operations(&scene.user).into_iter();
    let mut routes = vec![
        (Method::POST, "/appwrite/v1/users".to_owned(), new.clone()),
        (Method::GET, "/appwrite/v1/users".to_owned(), Value::Null),
        (Method::POST, "/meiro/users".to_owned(), new.clone()),
        (Method::POST, "/meiro/users/create_or_restore".to_owned(), new),
        (Method::GET, "/meiro/users".to_owned(), Value::Null),
        (Method::GET, "/meiro/users/trash".to_owned(), Value::Null),
        (Method::PATCH, format!("/meiro/users/trash/{}", scene.trashed), json!({})),
    ];
    routes.extend(appwrite.map(|(name, path, body)| (verb(name), format!("/appwrite/v1{path}"), body)));
    routes.extend(meiro.map(|(name, path, body, _)| (verb(name), format!("/meiro{path}"), body)));
    routes
}

async fn each_scope_is_enough_for_its_methods(service: &Service) {
    let scene = scene(service).await;
    let (_, other) = service.key("default", Scopes::ALL).await;
    let mut keys = Vec::new();
    for scope in Scope::ALL {
        let namespaces = if scope == Scope::NamespacesAdmin { "*" } else { "default" };
        keys.push((scope, service.key(namespaces, Scopes::parse([scope.name()]).unwrap()).await.0));
    }
    let replica = service.another(|config| config.assertions.audiences = vec!["shop".into()]).await;
    replica.ops.reload_peppers(Some(key_file(&[1]).path())).unwrap();
    for call in calls(&scene, &other) {
        let (_, key) = keys.iter().find(|(scope, _)| *scope == call.scope()).unwrap();
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        let done = raw_with(&replica, &call.grpc_path(), call.encoded(), &headers).await;
        assert!(done.is_ok(), "{}: {done:?}", call.rpc);
    }
}

async fn a_password_in_an_update_needs_more_than_the_update(service: &Service) {
    let user = create(service, nth(1)).await.id;
    let (writer, _) = service.key("default", but(Scope::UsersAdmin)).await;
    let before = state(service).await;
    let bearer = format!("Bearer {writer}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = json!({"name": "Eve", "password": "battery staple"}).to_string();
    for path in [format!("/v1/users/{user}"), format!("/meiro/users/{user}")] {
        let (status, _, answer) = service.replica.request(Method::PATCH, &path, body.clone(), &headers).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains("users.admin"), "{path}: {answer}");
    }
    assert_eq!(state(service).await, before);
    let name = json!({"name": "Eve"}).to_string();
    let (status, _, _) =
        service.replica.request(Method::PATCH, &format!("/v1/users/{user}"), name, &headers).await;
    assert_eq!(status, StatusCode::OK);
}

//! Administration of namespaces: who may do it, limits and usage.

use tonic::{Code, Request, Status};
use usersd::domain::scope::Scopes;
use usersd::pb::{
    CreateNamespaceRequest, DeleteNamespaceRequest, ListKeyLogsRequest, ListNamespacesRequest, LogEvent,
    Namespace, NamespaceLimits, NamespaceState, NamespaceUsage, ReadNamespaceRequest, UpdateNamespaceRequest,
};

use crate::steps::{RIVAL, delete};
use crate::support::{Replica, Service, assert_refused, create, fields, from, login, nth, until};

crate::on_every_backend!(
    only_root_callers_manage_namespaces,
    a_namespace_that_nobody_created_can_be_read_and_given_limits,
    limits_are_set_changed_and_left_to_the_settings_again,
    every_bad_field_is_named_at_once,
    what_a_namespace_holds_is_its_own,
    namespaces_are_listed_in_pages_by_name,
    changes_are_events_of_the_root_log_alone,
    another_replica_knows_a_change_without_being_asked,
);

pub(crate) fn limits(users: Option<i64>, sessions: Option<i64>) -> NamespaceLimits {
    NamespaceLimits { max_users: users, max_sessions: sessions, ..NamespaceLimits::default() }
}

pub(crate) async fn create_namespace(
    replica: &Replica,
    name: &str,
    limits: NamespaceLimits,
) -> Result<Namespace, Status> {
    let request = CreateNamespaceRequest { name: name.into(), limits: Some(limits) };
    Ok(replica.namespaces().create_namespace(request).await?.into_inner().namespace.unwrap())
}

async fn update(replica: &Replica, name: &str, limits: NamespaceLimits) -> Result<Namespace, Status> {
    let request = UpdateNamespaceRequest { name: name.into(), limits: Some(limits) };
    Ok(replica.namespaces().update_namespace(request).await?.into_inner().namespace.unwrap())
}

pub(crate) async fn read_namespace(
    replica: &Replica,
    name: &str,
) -> Result<(Namespace, NamespaceUsage), Status> {
    let request = ReadNamespaceRequest { name: name.into() };
    let read = replica.namespaces().read_namespace(request).await?.into_inner();
    Ok((read.namespace.unwrap(), read.usage.unwrap()))
}

pub(crate) fn deletion(name: &str) -> DeleteNamespaceRequest {
    DeleteNamespaceRequest { name: name.into(), confirm_name: name.into() }
}

/// The message as a caller with that key sends it.
pub(crate) fn with_key<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

async fn only_root_callers_manage_namespaces(service: &Service) {
    service.users().create(from("shop", nth(1))).await.unwrap();
    let (own, _) = service.key("shop", Scopes::ALL).await;
    let (other, _) = service.key(RIVAL, Scopes::ALL).await;
    let before = service.number("SELECT version FROM namespaces_version").await;
    let mut client = service.replica.namespaces();
    for key in [&own, &other] {
        let name = || "shop".to_owned();
        let limits = Some(limits(Some(1), None));
        let answers = [
            client
                .create_namespace(with_key(key, CreateNamespaceRequest { name: name(), limits }))
                .await
                .map(|_| ()),
            client.read_namespace(with_key(key, ReadNamespaceRequest { name: name() })).await.map(|_| ()),
            client.list_namespaces(with_key(key, ListNamespacesRequest::default())).await.map(|_| ()),
            client
                .update_namespace(with_key(key, UpdateNamespaceRequest { name: name(), limits }))
                .await
                .map(|_| ()),
            client.delete_namespace(with_key(key, deletion("shop"))).await.map(|_| ()),
        ];
        for answer in answers {
            assert_refused(&answer.unwrap_err(), Code::PermissionDenied, "NAMESPACE_MISMATCH");
        }
    }
    assert_eq!(service.number("SELECT version FROM namespaces_version").await, before);
    assert_eq!(service.number("SELECT count(*) FROM users").await, 1);
    let (root, _) = service.key("*", Scopes::parse(["namespaces.admin"]).unwrap()).await;
    client.read_namespace(with_key(&root, ReadNamespaceRequest { name: "shop".into() })).await.unwrap();
}

async fn a_namespace_that_nobody_created_can_be_read_and_given_limits(service: &Service) {
    let replica = &service.replica;
    let missing = read_namespace(replica, "shop").await.unwrap_err();
    assert_refused(&missing, Code::NotFound, "NAMESPACE_NOT_FOUND");
    service.users().create(from("shop", nth(1))).await.unwrap();
    let (namespace, usage) = read_namespace(replica, "shop").await.unwrap();
    assert_eq!((namespace.state(), namespace.created), (NamespaceState::Implicit, 0));
    assert_eq!(namespace.limits, Some(NamespaceLimits::default()));
    assert_eq!(usage.users, 1);
    let status = update(replica, "shop", limits(Some(1), None)).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "NAMESPACE_NOT_FOUND");

    let namespace = create_namespace(replica, "shop", limits(Some(7), None)).await.unwrap();
    assert_eq!(namespace.state(), NamespaceState::Active);
    assert_eq!(read_namespace(replica, "shop").await.unwrap().1.users, 1);
    let status = create_namespace(replica, "shop", limits(None, None)).await.unwrap_err();
    assert_refused(&status, Code::AlreadyExists, "NAMESPACE_TAKEN");
}

async fn limits_are_set_changed_and_left_to_the_settings_again(service: &Service) {
    let replica = service.another(|config| config.namespaces.max_sessions = 50).await;
    let namespace = create_namespace(&replica, "shop", limits(Some(7), Some(-1))).await.unwrap();
    assert_eq!(namespace.limits, Some(limits(Some(7), None)));
    let none = NamespaceLimits { max_keys: Some(0), max_calls_per_second: Some(0), ..limits(None, None) };
    let effective = NamespaceLimits { max_users: Some(7), max_sessions: Some(50), ..none };
    assert_eq!(namespace.effective_limits, Some(effective));

    let namespace = update(&replica, "shop", limits(None, Some(0))).await.unwrap();
    assert_eq!(namespace.limits, Some(limits(Some(7), Some(0))));
    let namespace = update(&replica, "shop", limits(Some(-1), None)).await.unwrap();
    assert_eq!(namespace.limits, Some(limits(None, Some(0))));
    assert_eq!(read_namespace(&replica, "shop").await.unwrap().0, namespace);
}

async fn every_bad_field_is_named_at_once(service: &Service) {
    let limits = NamespaceLimits {
        max_users: Some(-2),
        max_sessions: Some(1_000_000_001),
        max_keys: Some(5),
        max_calls_per_second: Some(1_000_001),
    };
    let named = ["name", "limits.max_users", "limits.max_sessions", "limits.max_calls_per_second"];
    for name in ["", "Shop", "*", "a b"] {
        let status = create_namespace(&service.replica, name, limits).await.unwrap_err();
        assert_eq!(fields(&status), named, "{name:?}");
        let status = update(&service.replica, name, limits).await.unwrap_err();
        assert_eq!(fields(&status), named, "{name:?}");
    }
    service.users().create(from("shop", nth(1))).await.unwrap();
    for confirm_name in ["", "sho", "SHOP"] {
        let request = DeleteNamespaceRequest { name: "shop".into(), confirm_name: confirm_name.into() };
        let status = service.replica.namespaces().delete_namespace(request).await.unwrap_err();
        assert_eq!(fields(&status), ["confirm_name"]);
    }
    assert_eq!(read_namespace(&service.replica, "shop").await.unwrap().0.state(), NamespaceState::Implicit);
}

async fn what_a_namespace_holds_is_its_own(service: &Service) {
    let users = [create(service, nth(1)).await, create(service, nth(2)).await];
    login(service, "user2").await;
    login(service, "user2").await;
    for n in 1..4 {
        service.users().create(from(RIVAL, nth(n))).await.unwrap();
    }
    delete(service, &users[0].id).await;
    let (_, usage) = read_namespace(&service.replica, "default").await.unwrap();
    let counted = (usage.users, usage.trashed, usage.sessions, usage.keys, usage.events);
    assert_eq!(counted, (1, 1, 2, 0, 5));
    assert!(usage.bytes > 1_000, "{usage:?}");
    let (_, usage) = read_namespace(&service.replica, RIVAL).await.unwrap();
    assert_eq!((usage.users, usage.trashed, usage.sessions, usage.events), (3, 0, 0, 3));
    service.key(RIVAL, Scopes::ALL).await;
    let (root, _) = service.key("*", Scopes::ALL).await;
    let request = with_key(&root, ReadNamespaceRequest { name: RIVAL.into() });
    let read = service.replica.namespaces().read_namespace(request).await.unwrap().into_inner();
    assert_eq!(read.usage.unwrap().keys, 1);
}

async fn namespaces_are_listed_in_pages_by_name(service: &Service) {
    for name in ["c", "a"] {
        create_namespace(&service.replica, name, limits(Some(3), None)).await.unwrap();
    }
    for name in ["b", "a", "d"] {
        service.users().create(from(name, nth(1))).await.unwrap();
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListNamespacesRequest { limit: Some(3), page_token };
        let page = service.replica.namespaces().list_namespaces(request).await.unwrap().into_inner();
        names
            .extend(page.namespaces.into_iter().map(|namespace| (namespace.name.clone(), namespace.state())));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let (active, implicit) = (NamespaceState::Active, NamespaceState::Implicit);
    let want = [("a", active), ("b", implicit), ("c", active), ("d", implicit)];
    assert_eq!(names, want.map(|(name, state)| (name.to_owned(), state)));
    let request = ListNamespacesRequest { limit: Some(-1), page_token: String::new() };
    let status = service.replica.namespaces().list_namespaces(request).await.unwrap_err();
    assert_eq!(fields(&status), ["limit"]);
}

async fn changes_are_events_of_the_root_log_alone(service: &Service) {
    let replica = &service.replica;
    create_namespace(replica, "shop", limits(Some(3), None)).await.unwrap();
    update(replica, "shop", limits(Some(4), None)).await.unwrap();
    // Nothing changes.
    update(replica, "shop", limits(Some(4), None)).await.unwrap();
    service.key("*", Scopes::parse(["users.read"]).unwrap()).await;
    let (root, _) = service.key("*", Scopes::ALL).await;
    replica.namespaces().delete_namespace(with_key(&root, deletion("shop"))).await.unwrap();
    let log = async |root_log: bool| {
        let request = ListKeyLogsRequest { root: root_log, ..ListKeyLogsRequest::default() };
        let mut request = with_key(&root, request);
        request.metadata_mut().insert("usersd-namespace", "default".parse().unwrap());
        let logs = replica.keys_client().list_logs(request).await.unwrap().into_inner().logs;
        logs.into_iter()
            .map(|entry| (entry.event(), entry.namespace, entry.key_id.is_empty()))
            .collect::<Vec<_>>()
    };
    let shop = |event| (event, "shop".to_owned(), true);
    let key = || (LogEvent::KeyCreated, String::new(), false);
    let want = [
        shop(LogEvent::NamespaceDeleted),
        key(),
        key(),
        shop(LogEvent::NamespaceUpdated),
        shop(LogEvent::NamespaceCreated),
    ];
    assert_eq!(log(true).await, want);
    assert_eq!(log(false).await, []);
}

async fn another_replica_knows_a_change_without_being_asked(service: &Service) {
    let another = service.another(|_| {}).await;
    let known = async |users: i64| {
        until(async || {
            read_namespace(&another, "shop")
                .await
                .is_ok_and(|(namespace, _)| namespace.effective_limits.unwrap().max_users == Some(users))
        })
        .await;
        let shop = usersd::domain::namespace::Namespace::parse("shop").unwrap();
        let quota = usersd::domain::quota::Quota::Users;
        until(async || another.store.directory().limits(&shop).most(quota).map(i64::from) == Some(users))
            .await;
    };
    create_namespace(&service.replica, "shop", limits(Some(3), None)).await.unwrap();
    known(3).await;
    update(&service.replica, "shop", limits(Some(4), None)).await.unwrap();
    known(4).await;
}

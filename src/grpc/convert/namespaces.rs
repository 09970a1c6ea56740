//! Namespaces between messages and records.

use crate::domain::namespace::{Namespace, NamespaceState, NamespaceUsage};
use crate::domain::quota::{LimitChanges, Quota, Quotas};
use crate::error::{Error, Fields, Result};
use crate::ops::list::{ListPage, PageRequest};
use crate::ops::namespaces::NamespaceView;
use crate::pb;

use super::list::page;

/// Reads the name of a namespace.
pub(in crate::grpc) fn namespace_name(raw: &str) -> Result<Namespace> {
    Namespace::parse(raw).map_err(|why| Error::invalid("name", why.to_string()))
}

/// Reads a namespace to create.
pub(in crate::grpc) fn new_namespace(request: &pb::CreateNamespaceRequest) -> Result<(Namespace, Quotas)> {
    let (name, changes) = named(&request.name, request.limits)?;
    Ok((name, Quotas::default().with(changes)))
}

/// Reads changes of limits.
pub(in crate::grpc) fn namespace_limits(
    request: &pb::UpdateNamespaceRequest,
) -> Result<(Namespace, LimitChanges)> {
    named(&request.name, request.limits)
}

fn named(name: &str, limits: Option<pb::NamespaceLimits>) -> Result<(Namespace, LimitChanges)> {
    let mut fields = Fields::default();
    let name = fields.check("name", Namespace::parse(name));
    let limits = limits.unwrap_or_default();
    let given = [limits.max_users, limits.max_sessions, limits.max_keys, limits.max_calls_per_second];
    let mut changes = LimitChanges::default();
    for ((quota, limit), change) in Quota::ALL.into_iter().zip(given).zip(&mut changes.0) {
        *change = match limit {
            None => None,
            Some(-1) => Some(None),
            Some(limit) => {
                let limit = u32::try_from(limit).ok().filter(|limit| *limit <= quota.max());
                let limit = limit.ok_or_else(|| format!("must be -1 to {}", quota.max()));
                fields.check(&format!("limits.{}", quota.name()), limit).map(Some)
            }
        };
    }
    fields.none()?;
    let name = name.ok_or_else(|| Error::internal("a name without a fault is there"))?;
    Ok((name, changes))
}

/// Reads the namespace to delete, which must be named twice.
pub(in crate::grpc) fn to_delete(request: &pb::DeleteNamespaceRequest) -> Result<Namespace> {
    let mut fields = Fields::default();
    let name = fields.check("name", Namespace::parse(&request.name));
    if request.confirm_name.is_empty() || request.confirm_name != request.name {
        fields.add("confirm_name", "must be the name once more");
    }
    fields.none()?;
    name.ok_or_else(|| Error::internal("a name without a fault is there"))
}

pub(in crate::grpc) fn namespaces_page(request: pb::ListNamespacesRequest) -> Result<PageRequest> {
    let mut fields = Fields::default();
    let page = page(request.limit, 0, request.page_token, &mut fields).ok_or(Error::Invalid(fields))?;
    Ok(PageRequest { page, total: false, prefs: false })
}

pub(in crate::grpc) fn listed_namespaces(listed: ListPage<NamespaceView>) -> pb::ListNamespacesResponse {
    pb::ListNamespacesResponse {
        namespaces: listed.rows.into_iter().map(NamespaceView::into).collect(),
        next_page_token: listed.next,
    }
}

impl From<NamespaceView> for pb::Namespace {
    fn from(view: NamespaceView) -> Self {
        let NamespaceView { record, effective } = view;
        let state = match record.state {
            NamespaceState::Implicit => pb::NamespaceState::Implicit,
            NamespaceState::Active => pb::NamespaceState::Active,
            NamespaceState::Deleting => pb::NamespaceState::Deleting,
        };
        Self {
            name: record.name.as_str().to_owned(),
            state: state as i32,
            created: record.created.seconds(),
            limits: Some(limits(record.limits)),
            effective_limits: Some(limits(effective)),
        }
    }
}

fn limits(limits: Quotas) -> pb::NamespaceLimits {
    let limit = |quota| limits.get(quota).map(i64::from);
    pb::NamespaceLimits {
        max_users: limit(Quota::Users),
        max_sessions: limit(Quota::Sessions),
        max_keys: limit(Quota::Keys),
        max_calls_per_second: limit(Quota::CallsPerSecond),
    }
}

pub(in crate::grpc) fn namespace_usage(usage: NamespaceUsage) -> pb::NamespaceUsage {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    pb::NamespaceUsage {
        users: number(usage.users),
        trashed: number(usage.trashed),
        sessions: number(usage.sessions),
        keys: number(usage.keys),
        events: number(usage.events),
        bytes: number(usage.bytes),
    }
}

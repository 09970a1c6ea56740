//! Lists: filters, pages and replies.

use crate::domain::device::Details;
use crate::domain::event::{Action, LogFilter, LogRecord};
use crate::domain::list::{Filters, Listing, Order, TimeRange};
use crate::domain::page::Page;
use crate::domain::session::{Device, StoredSession};
use crate::domain::text::{fold, plain};
use crate::domain::time::Timestamp;
use crate::domain::user::{Labels, Status, User};
use crate::domain::user_id::UserId;
use crate::error::{Error, Fields, Result};
use crate::ops::list::{Batch, ListPage, PageRequest};
use crate::pb;

use super::sessions::methods;
use super::user_views;

pub(in crate::grpc) fn listing(request: pb::ListRequest, trash: bool) -> Result<(Listing, PageRequest)> {
    let mut fields = Fields::default();
    let search = fields.check("search", plain(&request.search, Filters::MAX_SEARCH));
    let status = match request.status {
        0 => None,
        other => fields.check("status", Status::from_number(other).ok_or("is not a status")),
    };
    let label = fields.check("label", plain(&request.label, Labels::MAX_CHARS));
    let order = order(&request.order_by, &mut fields);
    let descending = direction(&request.order_dir, &mut fields);
    let page = page(request.limit, request.offset, request.page_token, &mut fields);
    let filters = Filters {
        search: fold(&search.unwrap_or_default()),
        status,
        email_verified: request.email_verified,
        label: label.filter(|label| !label.is_empty()),
        created: span(request.created_from, request.created_to),
        updated: span(request.updated_from, request.updated_to),
        ..Filters::default()
    };
    let (Some(order), Some(descending), Some(page)) = (order, descending, page) else {
        return Err(Error::Invalid(fields));
    };
    let listing = Listing { trash, filters, order, descending };
    fields.none()?;
    Ok((listing, PageRequest { page, total: !request.skip_total, prefs: request.include_prefs }))
}

fn order(raw: &str, fields: &mut Fields) -> Option<Order> {
    match raw {
        "" => Some(Order::default()),
        name => {
            let known = Order::ALL.map(Order::name).join(", ");
            fields.check("order_by", Order::from_name(name).ok_or_else(|| format!("must be one of {known}")))
        }
    }
}

/// Reads a direction: true for descending.
fn direction(raw: &str, fields: &mut Fields) -> Option<bool> {
    match raw.to_ascii_lowercase().as_str() {
        "" | "asc" => Some(false),
        "desc" => Some(true),
        _ => fields.check("order_dir", Err("must be asc or desc")),
    }
}

pub(super) fn span(from: Option<i64>, to: Option<i64>) -> TimeRange {
    let time = |seconds: i64| Timestamp(seconds.saturating_mul(1_000_000));
    TimeRange { from: from.map(time), to: to.map(time) }
}

pub(super) fn page(limit: Option<i64>, offset: i64, token: String, fields: &mut Fields) -> Option<Page> {
    let limit = fields.check("limit", Page::limit(limit.unwrap_or(Page::DEFAULT_LIMIT)));
    let offset = fields.check("offset", Page::offset(offset));
    if !token.is_empty() && offset.is_some_and(|offset| offset > 0) {
        fields.add("page_token", "cannot be given together with offset");
    }
    Some(Page { limit: limit?, offset: offset?, token })
}

/// Reads a search of the first contract: the prefixes and the page.
pub(in crate::grpc) fn search(request: &pb::SearchRequest) -> Result<(String, String, Page)> {
    let mut fields = Fields::default();
    let username = prefix("username", &request.username, super::Username::MAX, &mut fields);
    let email = prefix("email", &request.email, super::Email::MAX_BYTES, &mut fields);
    // It reads a limit of 0 as an absent one.
    let limit = (request.limit != 0).then_some(request.limit);
    let page = page(limit, request.offset, String::new(), &mut fields);
    match (username, email, page) {
        (Some(username), Some(email), Some(page)) => Ok((username, email, page)),
        _ => Err(Error::Invalid(fields)),
    }
}

/// Reads a prefix of a name, folded as names are.
fn prefix(field: &str, raw: &str, most: usize, fields: &mut Fields) -> Option<String> {
    if raw.len() > most {
        fields.add(field, format!("must have at most {most} bytes"));
        return None;
    }
    if raw.chars().any(char::is_control) {
        fields.add(field, "must not contain control characters");
        return None;
    }
    Some(raw.to_ascii_lowercase())
}

/// Most ids of one `BatchRead`.
const MAX_IDS: usize = 1_000;

/// The ids, each once, in their order.
pub(in crate::grpc) fn ids(raw: &[String]) -> Result<Vec<UserId>> {
    if raw.len() > MAX_IDS {
        return Err(Error::invalid("ids", format!("must have at most {MAX_IDS} ids")));
    }
    let mut fields = Fields::default();
    let mut ids = Vec::with_capacity(raw.len());
    let mut seen = std::collections::HashSet::new();
    for (at, id) in raw.iter().enumerate() {
        let id = fields.check(&format!("ids[{at}]"), UserId::parse(id));
        ids.extend(id.filter(|id| seen.insert(id.clone())));
    }
    fields.none().map_err(Error::Invalid).map(|()| ids)
}

pub(in crate::grpc) fn batch(batch: Batch, prefs: bool) -> pb::BatchReadResponse {
    let texts = |ids: Vec<UserId>| ids.into_iter().map(UserId::into_string).collect();
    pb::BatchReadResponse {
        missing: texts(batch.missing),
        unread: texts(batch.unread),
        users: user_views(batch.users, prefs),
    }
}

pub(in crate::grpc) fn listed(listed: ListPage<User>, prefs: bool) -> pb::ListResponse {
    pb::ListResponse {
        users: user_views(listed.rows, prefs),
        total: count(listed.total),
        next_page_token: listed.next,
    }
}

pub(super) fn count(total: Option<u64>) -> Option<i64> {
    total.map(|total| i64::try_from(total).unwrap_or(i64::MAX))
}

pub(in crate::grpc) fn parse_list_sessions(
    request: pb::ListSessionsRequest,
) -> Result<(UserId, PageRequest)> {
    let mut fields = Fields::default();
    let user = fields.check("user_id", UserId::parse(&request.user_id));
    let page = page(request.limit, 0, request.page_token, &mut fields);
    let (Some(user), Some(page)) = (user, page) else { return Err(Error::Invalid(fields)) };
    Ok((user, PageRequest { page, total: !request.skip_total, prefs: false }))
}

pub(in crate::grpc) fn sessions(listed: ListPage<(StoredSession, Details)>) -> pb::ListSessionsResponse {
    let info = |(session, details): (StoredSession, Details)| pb::SessionInfo {
        id: session.public_id,
        user_id: session.user.into_string(),
        created: session.created.seconds(),
        expires: session.expires.seconds(),
        auth_time: session.auth_time.seconds(),
        amr: methods(&session.amr),
        device: Some(device(session.device, details)),
    };
    pb::ListSessionsResponse {
        sessions: listed.rows.into_iter().map(info).collect(),
        total: count(listed.total),
        next_page_token: listed.next,
    }
}

/// Whose session, and which.
pub(in crate::grpc) fn session_ref(request: pb::DeleteSessionRequest) -> Result<(UserId, String)> {
    let mut fields = Fields::default();
    let user = fields.check("user_id", UserId::parse(&request.user_id));
    if request.session_id.is_empty() {
        fields.add("session_id", "is required");
    }
    match user {
        Some(user) => fields.none().map_err(Error::Invalid).map(|()| (user, request.session_id)),
        None => Err(Error::Invalid(fields)),
    }
}

pub(in crate::grpc) fn parse_list_logs(
    request: pb::ListLogsRequest,
) -> Result<(UserId, LogFilter, PageRequest)> {
    let mut fields = Fields::default();
    let user = fields.check("user_id", UserId::parse(&request.user_id));
    let mut actions = Vec::new();
    // More can only be repeats, each of which would cost time.
    let most = Action::ALL.len();
    if request.events.len() > most {
        fields.add("events", format!("must have at most {most} events"));
    }
    for (at, number) in request.events.iter().take(most).enumerate() {
        let known = pb::LogEvent::try_from(*number).ok();
        let action = known.and_then(|event| Action::from_name(event.as_str_name()));
        actions.extend(fields.check(&format!("events[{at}]"), action.ok_or("is not an event")));
    }
    actions.sort_by_key(|action| action.name());
    actions.dedup();
    let page = page(request.limit, request.offset, request.page_token, &mut fields);
    let (Some(user), Some(page)) = (user, page) else { return Err(Error::Invalid(fields)) };
    let filter = LogFilter { actions, span: span(request.time_from, request.time_to) };
    fields
        .none()
        .map_err(Error::Invalid)
        .map(|()| (user, filter, PageRequest { page, total: !request.skip_total, prefs: false }))
}

pub(in crate::grpc) fn logs(listed: ListPage<(LogRecord, Details)>) -> pb::ListLogsResponse {
    let entry = |(record, details): (LogRecord, Details)| pb::LogEntry {
        event: event(&record) as i32,
        time: record.at.seconds(),
        caller: record.caller,
        device: Some(device(record.device, details)),
        changed: record.changed,
        session_id: record.session,
    };
    pb::ListLogsResponse {
        logs: listed.rows.into_iter().map(entry).collect(),
        total: count(listed.total),
        next_page_token: listed.next,
    }
}

/// The event of a record; unspecified if only a newer server knows it.
pub(super) fn event(record: &LogRecord) -> pb::LogEvent {
    record.action.and_then(|action| pb::LogEvent::from_str_name(action.name())).unwrap_or_default()
}

pub(super) fn device(device: Device, details: Details) -> pb::DeviceDetails {
    pb::DeviceDetails {
        address: device.address.map_or_else(String::new, |address| address.to_string()),
        user_agent: device.user_agent,
        os_code: details.os_code.to_owned(),
        os_name: details.os_name.into_owned(),
        os_version: details.os_version,
        client_type: details.client_type.to_owned(),
        client_code: details.client_code.to_owned(),
        client_name: details.client_name.into_owned(),
        client_version: details.client_version,
        client_engine: details.client_engine.to_owned(),
        client_engine_version: details.client_engine_version,
        device_name: details.device_name.to_owned(),
        device_brand: details.device_brand,
        device_model: details.device_model,
        country_code: details.country.code.into_owned(),
        country_name: details.country.name.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_an_event_of_the_proto_and_the_other_way_round() {
        for action in Action::ALL {
            assert!(pb::LogEvent::from_str_name(action.name()).is_some(), "{}", action.name());
        }
        let events = (1..1_000).filter_map(|number| pb::LogEvent::try_from(number).ok());
        let named: Vec<_> = events.map(|event| Action::from_name(event.as_str_name()).unwrap()).collect();
        assert_eq!(named.len(), Action::ALL.len());
    }
}

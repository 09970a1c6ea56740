//! Keys between messages and records.

use crate::domain::device::Details;
use crate::domain::event::{KeyLogFilter, LogRecord};
use crate::domain::key::{Key, KeyName};
use crate::domain::scope::Scopes;
use crate::domain::time::Timestamp;
use crate::error::{Error, Fields, Result};
use crate::ops::list::{ListPage, PageRequest};
use crate::pb;

use super::list::{count, device, event, page, span};

/// Reads a new key.
pub(in crate::grpc) fn new_key(
    request: &pb::CreateKeyRequest,
) -> Result<(KeyName, Scopes, Option<Timestamp>)> {
    let mut faults = Fields::default();
    let name = faults.check("name", KeyName::parse(&request.name));
    let scopes = faults.check("scopes", Scopes::parse(request.scopes.iter().map(String::as_str)));
    let micros = request.expires.checked_mul(1_000_000).filter(|micros| *micros >= 0);
    let expires = faults.check("expires", micros.ok_or("must be Unix seconds, or 0"));
    match (name, scopes, expires) {
        (Some(name), Some(scopes), Some(micros)) => {
            Ok((name, scopes, (micros > 0).then_some(Timestamp(micros))))
        }
        _ => Err(Error::Invalid(faults)),
    }
}

impl From<Key> for pb::Key {
    fn from(key: Key) -> Self {
        let seconds = |at: Option<Timestamp>| at.map_or(0, Timestamp::seconds);
        Self {
            id: key.id,
            name: key.name.as_str().to_owned(),
            namespace: key.namespaces.as_str().to_owned(),
            scopes: key.scopes.names().map(str::to_owned).collect(),
            created: key.created.seconds(),
            expires: seconds(key.expires),
            last_used: seconds(key.last_used),
            created_by: key.created_by,
        }
    }
}

/// The id of a key to revoke, and whether its descendants go with it.
pub(in crate::grpc) fn key_to_delete(request: pb::DeleteKeyRequest) -> Result<(String, bool)> {
    if request.id.is_empty() {
        return Err(Error::invalid("id", "is required"));
    }
    Ok((request.id, request.with_descendants))
}

/// Which events of keys are asked for.
pub(in crate::grpc) fn parse_key_logs(
    request: pb::ListKeyLogsRequest,
) -> Result<(KeyLogFilter, PageRequest)> {
    let mut fields = Fields::default();
    let page = page(request.limit, request.offset, request.page_token, &mut fields);
    // PostgreSQL takes no text with a NUL in it.
    let key = Some(request.key_id).filter(|key| !key.is_empty());
    if key.as_ref().is_some_and(|key| uuid::Uuid::try_parse(key).is_err()) {
        fields.add("key_id", "must be the id of a key, a UUID");
    }
    fields.none()?;
    let page = page.ok_or_else(|| Error::internal("a page without a fault is there"))?;
    let filter = KeyLogFilter { root: request.root, key, span: span(request.from, request.to) };
    Ok((filter, PageRequest { page, total: !request.skip_total, prefs: false }))
}

pub(in crate::grpc) fn key_logs(listed: ListPage<(LogRecord, Details)>) -> pb::ListKeyLogsResponse {
    let entry = |(record, details): (LogRecord, Details)| {
        let (event, of_key) = (event(&record), record.is_of_key());
        let (key_id, namespace) =
            if of_key { (record.session, String::new()) } else { (String::new(), record.session) };
        pb::KeyLogEntry {
            event: event as i32,
            time: record.at.seconds(),
            key_id,
            caller: record.caller,
            device: Some(device(record.device, details)),
            scopes: if of_key { record.changed } else { Vec::new() },
            namespace,
        }
    };
    pb::ListKeyLogsResponse {
        logs: listed.rows.into_iter().map(entry).collect(),
        total: count(listed.total),
        next_page_token: listed.next,
    }
}

//! Keys between messages and records.

use crate::domain::key::{Key, KeyName};
use crate::domain::scope::Scopes;
use crate::domain::time::Timestamp;
use crate::error::{Error, Fields, Result};
use crate::pb;

/// What a new key is to be.
///
/// # Errors
///
/// [`Error::Invalid`] with every field at fault.
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
            namespace: key.reach.as_str().to_owned(),
            scopes: key.scopes.names().map(str::to_owned).collect(),
            created: key.created.seconds(),
            expires: seconds(key.expires),
            last_used: seconds(key.last_used),
        }
    }
}

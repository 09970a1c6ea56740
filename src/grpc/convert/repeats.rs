//! Calls that their callers may repeat, by their idempotency keys.

use std::mem;

use prost::Message;

use crate::domain::idempotency::{IdempotencyHeader, IdempotencyKey, RepeatableCall};
use crate::error::Fields;
use crate::pb;

use super::non_empty;

/// A message that may have an idempotency key.
pub(super) trait Repeatable: Message {
    const RPC: &'static str;

    fn key(&mut self) -> &mut String;

    /// The fields of which no digest may be stored.
    fn secrets(&mut self) -> Vec<&mut String>;
}

impl Repeatable for pb::CreateRequest {
    const RPC: &'static str = "Create";

    fn key(&mut self) -> &mut String {
        &mut self.idempotency_key
    }

    fn secrets(&mut self) -> Vec<&mut String> {
        vec![&mut self.password, &mut self.password_hash]
    }
}

impl Repeatable for pb::CreateOrRestoreRequest {
    const RPC: &'static str = "CreateOrRestore";

    fn key(&mut self) -> &mut String {
        &mut self.idempotency_key
    }

    fn secrets(&mut self) -> Vec<&mut String> {
        vec![&mut self.password]
    }
}

/// Returns the call if it has an idempotency key: in the message, in the header, or the same one in both.
pub(super) fn repeatable_call<M: Repeatable>(
    request: &mut M,
    header: Option<&IdempotencyHeader>,
    fields: &mut Fields,
) -> Option<RepeatableCall> {
    let given = mem::take(request.key());
    let given = fields.check_optional("idempotency_key", non_empty(&given).map(IdempotencyKey::parse));
    let sent = fields.check_optional("idempotency-key", header.map(IdempotencyHeader::parse));
    let (given, sent) = (given?, sent?);
    if given.is_some() && sent.is_some() && given != sent {
        fields.add("idempotency_key", "must be the same as in the header idempotency-key");
    }
    let key = given.or(sent)?;
    Some(RepeatableCall { key, rpc: M::RPC, message: encode_without_secrets(request) })
}

/// Encodes the message with a mark in place of each secret that is there.
fn encode_without_secrets(request: &mut impl Repeatable) -> Vec<u8> {
    let mark = |secret: &mut String| {
        let mark = if secret.is_empty() { "" } else { "x" };
        mem::replace(secret, mark.to_owned())
    };
    let secrets: Vec<String> = request.secrets().into_iter().map(mark).collect();
    let message = request.encode_to_vec();
    for (field, secret) in request.secrets().into_iter().zip(secrets) {
        *field = secret;
    }
    message
}

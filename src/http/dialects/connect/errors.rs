//! A status as Connect's clients read it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tonic::{Code, Status};

use crate::grpc::status::code_name;
use crate::http::reply;
use transcode::json;

/// `{"code": "not_found", "message": ..., "details": [{"type": ..., "value": ..., "debug": ...}]}`.
pub(super) fn body(status: &Status) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(b"{\"code\":");
    json::write_string(&mut body, &name(status.code()));
    body.extend_from_slice(b",\"message\":");
    json::write_string(&mut body, status.message());
    let mut between: &[u8] = b",\"details\":[";
    for detail in reply::details(status.details()) {
        body.extend_from_slice(between);
        between = b",";
        body.extend_from_slice(b"{\"type\":");
        json::write_string(&mut body, &detail.name);
        body.extend_from_slice(b",\"value\":");
        json::write_string(&mut body, &STANDARD_NO_PAD.encode(detail.value));
        let end = body.len();
        body.extend_from_slice(b",\"debug\":");
        if !detail.write(&mut body) {
            body.truncate(end);
        }
        body.push(b'}');
    }
    body.extend_from_slice(if between == b"," { b"]}" } else { b"}" });
    body
}

fn name(code: Code) -> String {
    match code {
        Code::Cancelled => "canceled".to_owned(),
        code => code_name(code).to_ascii_lowercase(),
    }
}

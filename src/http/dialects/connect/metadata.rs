//! Metadata: of a call all headers of its request, of a reply all that the RPC adds to it.

use http::header::{self, HeaderName};
use http::{HeaderMap, Response};
use tonic::body::Body;
use tonic::metadata::MetadataMap;

use crate::http::coding::GRPC_ENCODING;
use transcode::json;

/// The metadata of a call.
pub(super) fn of_call(mut headers: HeaderMap) -> MetadataMap {
    // tonic would look for compressed messages, and is given none.
    headers.remove(GRPC_ENCODING);
    MetadataMap::from_headers(headers)
}

/// Returns true for what an RPC adds, false for what gRPC itself does.
fn is_added(name: &HeaderName) -> bool {
    *name != header::CONTENT_TYPE && !name.as_str().starts_with("grpc-")
}

/// Adds metadata to the headers of a response.
pub(super) fn add(metadata: &HeaderMap, response: &mut Response<Body>) {
    for (name, value) in metadata.iter().filter(|(name, _)| is_added(name)) {
        response.headers_mut().append(name, value.clone());
    }
}

/// Appends `before` and `"metadata":{"name":["value"]}`, or nothing if there is none.
pub(super) fn write(metadata: &HeaderMap, before: &[u8], out: &mut Vec<u8>) {
    let mut names = metadata.keys().filter(|name| is_added(name)).peekable();
    if names.peek().is_none() {
        return;
    }
    out.extend_from_slice(before);
    out.extend_from_slice(b"\"metadata\":");
    let mut between = b'{';
    for name in names {
        out.push(between);
        between = b',';
        json::write_string(out, name.as_str());
        out.push(b':');
        let mut between = b'[';
        for value in metadata.get_all(name) {
            out.push(between);
            between = b',';
            json::write_string(out, &String::from_utf8_lossy(value.as_bytes()));
        }
        out.push(b']');
    }
    out.push(b'}');
}

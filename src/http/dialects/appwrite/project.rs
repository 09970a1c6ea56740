//! The origin of a request and its project, which is its namespace.

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, header};

use crate::headers::{APPWRITE_PROJECT, KEY, NAMESPACE};
use crate::http::dialects::params;

/// Returns true if `field` of a refusal is one of the headers that name the namespace.
pub(super) fn is_named_by(field: &str) -> bool {
    NAMESPACE.contains(&field)
}

/// Puts the project of the query into the header where authentication looks for it, and returns true if the
/// request names a project or carries a key, which has a namespace of its own. One in the query goes beside
/// one in the header: a request that names two is refused.
pub(super) fn apply_project_header(head: &mut Parts) -> bool {
    if head.headers.get(APPWRITE_PROJECT).is_some_and(HeaderValue::is_empty) {
        head.headers.remove(APPWRITE_PROJECT);
    }
    match params::parameter(head, "project") {
        Ok(Some(project)) if !project.is_empty() => match HeaderValue::try_from(project) {
            Ok(project) => {
                head.headers.append(APPWRITE_PROJECT, project);
            }
            Err(_) => return false,
        },
        Ok(_) => {}
        Err(_) => return false,
    }
    let given = |name: &&str| head.headers.get(*name).is_some_and(|value| !value.is_empty());
    NAMESPACE.iter().chain(&KEY).any(given)
}

/// The parts of a request's origin that refusals name.
#[derive(Debug)]
pub(super) struct Origin {
    project: Option<HeaderValue>,
    page: Option<HeaderValue>,
    host: Option<HeaderValue>,
    authority: Option<Authority>,
}

impl Origin {
    pub(super) fn of(head: &Parts) -> Self {
        let header = |name: &str| head.headers.get(name).cloned();
        Self {
            project: header(APPWRITE_PROJECT),
            page: header(header::ORIGIN.as_str()),
            host: header(header::HOST.as_str()),
            authority: head.uri.authority().cloned(),
        }
    }

    pub(super) fn project(&self) -> &str {
        text(self.project.as_ref()).unwrap_or_default()
    }

    /// The host of the web page that sent the request.
    pub(super) fn page(&self) -> Option<String> {
        let origin = text(self.page.as_ref())?;
        let uri = origin.parse::<http::Uri>().ok();
        Some(uri.and_then(|uri| Some(uri.host()?.to_owned())).unwrap_or_else(|| origin.to_owned()))
    }

    /// The name under which we were called, without the port.
    pub(super) fn host(&self) -> &str {
        let host = text(self.host.as_ref()).or_else(|| self.authority.as_ref().map(Authority::as_str));
        let host = host.unwrap_or_default();
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        }
    }
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}

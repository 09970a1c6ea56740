//! Web pages: a browser sends what any page asks for, from inside the network and with the certificate of
//! its reader.

use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, header};

use crate::config::Config;
use crate::error::{Error, Result};

/// The header in which browsers describe the page that sends a request (Fetch Metadata).
const FETCH_SITE: &str = "sec-fetch-site";

/// Tells what a web page sends, where no key says who calls.
#[derive(Clone, Debug)]
pub(super) struct BrowserRequests {
    /// Names of hosts that are served, beside those of every machine.
    hosts: Vec<String>,
    /// Origins whose pages are served.
    origins: Vec<String>,
}

impl BrowserRequests {
    pub(super) fn new(config: &Config) -> Self {
        Self { hosts: config.http.hosts.clone(), origins: config.http.cors_origins.clone() }
    }

    /// Refuses what a web page sends and, with `local_only`, what no program of this machine would.
    pub(super) fn reject_browser_requests(&self, head: &Parts, local_only: bool) -> Result<()> {
        // A web page open in a browser must not reach this server: not directly (`Origin`), nor by a host
        // name of its own that leads here (`Host`). The server's own pages, on a loopback address, may, and
        // those of listed origins.
        let headers = &head.headers;
        if comes_from_page(headers) && !is_own_page(head) && !self.is_listed(headers) {
            return Err(Error::ForeignOrigin(
                "no API key is required here, so requests from web pages are refused: Origin or Sec-Fetch-Site names another site, and http.cors_origins does not list it",
            ));
        }
        if hosts(head).all(|host| self.serves(host, local_only)) {
            return Ok(());
        }
        Err(Error::ForeignOrigin(if local_only {
            "no API key is required here, so Host must be this machine or listed in http.hosts"
        } else {
            "no API key is required here, so a Host with a dot must be listed in http.hosts"
        }))
    }

    fn is_listed(&self, headers: &HeaderMap) -> bool {
        only(headers, header::ORIGIN).is_some_and(|origin| self.origins.iter().any(|listed| listed == origin))
    }

    fn serves(&self, host: &str, local_only: bool) -> bool {
        host_name(host).is_some_and(|name| {
            is_loopback(&name)
                || (!local_only && is_private(&name))
                || self.hosts.iter().any(|listed| covers(listed, &name))
        })
    }
}

/// Refuses a certificate for what a web page sends: the reader's browser sends it unasked,
/// so it does not say that its owner wants the call.
pub(super) fn reject_browser_certificate(headers: &HeaderMap) -> Result<()> {
    if comes_from_page(headers) {
        return Err(Error::ForeignOrigin(
            "a client certificate does not authenticate a request from a web page: send an API key",
        ));
    }
    Ok(())
}

/// Returns true for what a web page sends: a browser names its origin, but for some of its GETs only its relation to this one.
fn comes_from_page(headers: &HeaderMap) -> bool {
    let own = |site: &header::HeaderValue| site == "same-origin" || site == "none";
    headers.contains_key(header::ORIGIN) || !headers.get_all(FETCH_SITE).iter().all(own)
}

/// Returns true if the one `Origin` is the one host that is asked, and that is this machine.
fn is_own_page(head: &Parts) -> bool {
    // HTTP/2 has it as `:authority` instead.
    let host = if head.headers.contains_key(header::HOST) {
        only(&head.headers, header::HOST)
    } else {
        head.uri.authority().map(http::uri::Authority::as_str)
    };
    let (Some(origin), Some(host)) = (only(&head.headers, header::ORIGIN), host) else { return false };
    let of_origin = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    of_origin == Some(host) && host_name(host).is_some_and(|name| is_loopback(&name))
}

/// The value of a header that is there once.
fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
}

/// Every host that the request names: that of its target, and those of its headers.
fn hosts(head: &Parts) -> impl Iterator<Item = &str> {
    let target = head.uri.authority().map(http::uri::Authority::as_str);
    target
        .into_iter()
        .chain(head.headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or("?")))
}

/// A host's name or address, without the port, in lower case; `None` if it is none.
fn host_name(host: &str) -> Option<String> {
    let authority = host.parse::<http::uri::Authority>().ok()?;
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    Some(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase())
}

/// Returns true for a loopback address, `localhost` and names under it (RFC 6761 §6.3).
fn is_loopback(name: &str) -> bool {
    let address = name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    address || name == "localhost" || name.ends_with(".localhost")
}

/// Returns true for a host that no page on the Internet can have: an address, since DNS rebinding needs a
/// name; and a name without a dot, as services of a cluster have, since such a name cannot be registered.
fn is_private(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok() || (!name.is_empty() && !name.contains('.'))
}

/// Returns true if `listed` is the name, or `*.` and its end.
fn covers(listed: &str, name: &str) -> bool {
    match listed.strip_prefix('*') {
        Some(end) => name.len() > end.len() && name.ends_with(end),
        None => name == listed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn without_keys_pages_cannot_lead_here() {
        let listed = vec!["users.example.com".into(), "*.svc.cluster.local".into()];
        let browser = BrowserRequests { hosts: listed, origins: Vec::new() };
        // Whether it is served to this machine only, and with auth = "off".
        let cases = [
            (vec![("host", "localhost:8080")], true, true),
            (vec![("host", "127.0.0.1:8080")], true, true),
            (vec![("host", "[::1]:8080")], true, true),
            (vec![("host", "usersd.localhost")], true, true),
            (vec![("host", "evil.example")], false, false),
            (vec![("host", "127.0.0.1.evil.example")], false, false),
            (vec![("host", "localhost.evil.example:8080")], false, false),
            (vec![("host", "evil.example.")], false, false),
            (vec![("host", "svc.cluster.local")], false, false),
            (vec![("host", "users.example.com.evil.example")], false, false),
            (vec![("host", "localhost"), ("host", "evil.example")], false, false),
            (vec![("host", "10.0.0.7:8080")], false, true),
            (vec![("host", "[2001:db8::7]")], false, true),
            (vec![("host", "usersd:8080")], false, true),
            (vec![("host", "Users.Example.COM:443")], true, true),
            (vec![("host", "users.shop.svc.cluster.local.")], true, true),
            (vec![("host", "")], false, false),
            (vec![("origin", "http://localhost:8080")], false, false),
            (vec![("origin", "null")], false, false),
            (vec![("host", "localhost:8080"), ("origin", "http://localhost:8080")], true, true),
            (vec![("host", "[::1]:8080"), ("origin", "https://[::1]:8080")], true, true),
            (vec![("host", "localhost:8080"), ("origin", "http://localhost:3000")], false, false),
            (vec![("host", "evil.example"), ("origin", "http://evil.example")], false, false),
            (vec![("host", "10.0.0.7:8080"), ("origin", "http://10.0.0.7:8080")], false, false),
            (vec![], true, true),
        ];
        for (headers, local, off) in cases {
            let head = request(&headers);
            assert_eq!(browser.reject_browser_requests(&head, true).is_ok(), local, "{headers:?}");
            assert_eq!(
                browser.reject_browser_requests(&head, false).is_ok(),
                off,
                "{headers:?} with auth = \"off\""
            );
        }
        let mut head = request(&[("host", "localhost")]);
        head.uri = "http://evil.example/v1/users".parse().unwrap();
        assert!(
            browser.reject_browser_requests(&head, false).is_err(),
            "the target's host counts (RFC 9112 3.2.2)"
        );
    }

    #[test]
    fn without_keys_pages_of_listed_origins_are_served() {
        let (app, other) = (("origin", "https://app.example.com"), ("origin", "http://app.example.com"));
        let browser = BrowserRequests { hosts: Vec::new(), origins: vec![app.1.into()] };
        for (headers, good) in [
            (vec![("host", "localhost"), app], true),
            (vec![("host", "localhost"), other], false),
            (vec![("host", "evil.example"), app], false),
            (vec![("host", "localhost"), app, ("origin", "null")], false),
            (vec![("host", "localhost"), app, (FETCH_SITE, "cross-site")], true),
            // A page's GET that a browser sends without an origin.
            (vec![("host", "localhost"), (FETCH_SITE, "cross-site")], false),
            (vec![("host", "localhost"), (FETCH_SITE, "none")], true),
        ] {
            for local_only in [true, false] {
                let served = browser.reject_browser_requests(&request(&headers), local_only);
                assert_eq!(served.is_ok(), good, "{headers:?}");
            }
        }
    }

    #[test]
    fn a_certificate_does_not_count_for_what_a_page_sends() {
        for (headers, good) in [
            (vec![], true),
            (vec![(FETCH_SITE, "none")], true),
            (vec![(FETCH_SITE, "same-origin")], true),
            (vec![(FETCH_SITE, "same-site")], false),
            (vec![(FETCH_SITE, "cross-site")], false),
            (vec![(FETCH_SITE, "none"), (FETCH_SITE, "cross-site")], false),
            (vec![("origin", "https://evil.example")], false),
            (vec![("origin", "null"), (FETCH_SITE, "same-origin")], false),
        ] {
            let head = request(&headers);
            assert_eq!(reject_browser_certificate(&head.headers).is_ok(), good, "{headers:?}");
        }
    }
}

//! The gate: from a request's connection and headers to its [`Caller`].

use std::net::IpAddr;

use http::{HeaderMap, Request, header};
use ipnet::IpNet;
use tonic::transport::server::TcpConnectInfo;

use crate::config::{Auth, Config};
use crate::domain::caller::Caller;
use crate::domain::namespace::Namespace;
use crate::domain::session::Device;
use crate::error::{Error, Result};

/// Headers that name the namespace; all that are there must agree. The aliases are those of the systems whose
/// callers moved in.
const NAMESPACE_HEADERS: [&str; 3] = ["usersd-namespace", "micro-namespace", "x-appwrite-project"];

/// Lets calls in.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Whether only programs of this machine are served. Without keys a web page that somebody looks at must not
    /// reach us: not directly (`Origin`, never served), nor by a host name of its own that leads here (`Host`).
    local_only: bool,
    trusted_proxies: Vec<IpNet>,
}

impl Gate {
    /// The gate that the settings ask for.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { local_only: config.auth == Auth::Keys, trusted_proxies: config.http_trusted_proxies.clone() }
    }

    /// Who makes this request.
    ///
    /// # Errors
    ///
    /// [`Error::NamespaceMismatch`], and [`Error::Invalid`] if a header names no
    /// namespace.
    pub fn admit<B>(&self, request: &Request<B>) -> Result<Caller> {
        let headers = request.headers();
        let user_agent =
            headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
        Ok(Caller {
            name: Caller::OPEN,
            namespace: namespace(headers)?,
            address: self.address(request),
            user_agent: user_agent.map_or_else(String::new, |raw| Device::clean_user_agent(&raw)),
        })
    }

    /// Refuses what a web page sends and, where only programs of this machine are served, what none of them would.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignOrigin`]
    pub fn check_origin<B>(&self, request: &Request<B>) -> Result<()> {
        if request.headers().contains_key(header::ORIGIN) {
            return Err(Error::ForeignOrigin("without API keys no web page is served (Origin is set)"));
        }
        if !self.local_only {
            return Ok(());
        }
        let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
        let host = host.or_else(|| request.uri().authority().map(http::uri::Authority::as_str));
        if host.is_none_or(is_loopback) {
            Ok(())
        } else {
            Err(Error::ForeignOrigin("without API keys only this machine is served (Host is another)"))
        }
    }

    /// Where the call came from: the peer, or the hop before it if the peer is a proxy that we trust.
    fn address<B>(&self, request: &Request<B>) -> Option<IpAddr> {
        let peer = request.extensions().get::<TcpConnectInfo>()?.remote_addr()?.ip().to_canonical();
        let forwarded = request.headers().get_all("x-forwarded-for").iter();
        let hops: Vec<&str> =
            forwarded.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(',')).collect();
        let mut client = peer;
        for hop in hops.into_iter().rev() {
            if !self.trusted_proxies.iter().any(|network| network.contains(&client)) {
                break;
            }
            let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
            client = address.to_canonical();
        }
        Some(client)
    }
}

/// The namespace that the headers name.
fn namespace(headers: &HeaderMap) -> Result<Namespace> {
    let mut named: Option<(&str, &str)> = None;
    for name in NAMESPACE_HEADERS {
        for value in headers.get_all(name) {
            let value = value.to_str().unwrap_or("?");
            match named {
                Some((_, other)) if other != value => return Err(Error::NamespaceMismatch),
                _ => named = Some((name, value)),
            }
        }
    }
    match named {
        Some((name, value)) => Namespace::parse(value).map_err(|why| Error::invalid(name, why.to_string())),
        None => Ok(Namespace::default()),
    }
}

/// Whether a `Host` is this machine: `localhost` (and names under it, RFC 6761 §6.3) or a loopback address.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address = name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    let name = name.to_ascii_lowercase();
    address || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(trusted: &[&str]) -> Gate {
        Gate {
            local_only: true,
            trusted_proxies: trusted.iter().map(|network| network.parse().unwrap()).collect(),
        }
    }

    fn request(headers: &[(&str, &str)], peer: &str) -> Request<()> {
        let mut request = Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let address = format!("{peer}:1").parse().unwrap();
        let info = TcpConnectInfo { local_addr: None, remote_addr: Some(address) };
        request.extension(info).body(()).unwrap()
    }

    #[test]
    fn namespaces_must_agree() {
        let named = |headers: &[(&str, &str)]| {
            gate(&[]).admit(&request(headers, "127.0.0.1")).map(|caller| caller.namespace.as_str().to_owned())
        };
        assert_eq!(named(&[]).unwrap(), "default");
        assert_eq!(named(&[("usersd-namespace", "a"), ("micro-namespace", "a")]).unwrap(), "a");
        assert_eq!(named(&[("x-appwrite-project", "b")]).unwrap(), "b");
        let mixed = [("usersd-namespace", "a"), ("x-appwrite-project", "b")];
        assert!(matches!(named(&mixed), Err(Error::NamespaceMismatch)));
        let twice = [("usersd-namespace", "a"), ("usersd-namespace", "b")];
        assert!(matches!(named(&twice), Err(Error::NamespaceMismatch)));
        for wrong in ["", "A", "*", "a b", "../a", "é"] {
            assert!(matches!(named(&[("usersd-namespace", wrong)]), Err(Error::Invalid(_))), "{wrong:?}");
        }
    }

    #[test]
    fn only_this_machine_is_served_without_keys() {
        let cases = [
            (vec![("host", "localhost:8080")], true),
            (vec![("host", "127.0.0.1:8080")], true),
            (vec![("host", "[::1]:8080")], true),
            (vec![("host", "usersd.localhost")], true),
            (vec![("host", "evil.example")], false),
            (vec![("host", "127.0.0.1.evil.example")], false),
            (vec![("host", "localhost.evil.example:8080")], false),
            (vec![("host", "")], false),
            (vec![("origin", "http://localhost:8080")], false),
            (vec![("origin", "null")], false),
            (vec![], true),
        ];
        for (headers, good) in cases {
            assert_eq!(gate(&[]).check_origin(&request(&headers, "127.0.0.1")).is_ok(), good, "{headers:?}");
        }
    }

    #[test]
    fn the_address_is_the_hop_before_the_trusted_proxies() {
        let cases = [
            (&[][..], "203.0.113.9", "10.0.0.1", "10.0.0.1"),
            (&["10.0.0.0/8"], "203.0.113.9", "10.0.0.1", "203.0.113.9"),
            (&["10.0.0.0/8"], "6.6.6.6, 203.0.113.9", "10.0.0.1", "203.0.113.9"),
            (&["10.0.0.0/8"], "203.0.113.9, 10.0.0.7", "10.0.0.1", "203.0.113.9"),
            (&["10.0.0.0/8"], "nonsense", "10.0.0.1", "10.0.0.1"),
            (&["10.0.0.0/8"], "::ffff:203.0.113.9", "10.0.0.1", "203.0.113.9"),
        ];
        for (trusted, forwarded, peer, want) in cases {
            let request = request(&[("x-forwarded-for", forwarded)], peer);
            assert_eq!(gate(trusted).address(&request), Some(want.parse().unwrap()), "{forwarded:?}");
        }
    }
}

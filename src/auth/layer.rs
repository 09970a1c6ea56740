//! The gate: from a request's connection and headers to its [`Caller`].

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, header};
use ipnet::IpNet;
use tonic::transport::server::TcpConnectInfo;

use crate::config::{Auth, Config};
use crate::domain::caller::Caller;
use crate::domain::key::{ApiKey, Reach};
use crate::domain::namespace::Namespace;
use crate::domain::session::Device;
use crate::error::{Error, Result};

use super::keyring::{KeyRing, Known};
use super::policy;

/// Headers that name the namespace; all that are there must agree. The aliases are those of the systems whose
/// callers moved in.
const NAMESPACE_HEADERS: [&str; 3] = ["usersd-namespace", "micro-namespace", "x-appwrite-project"];

/// Headers that may carry a key, beside `authorization`. The same aliases.
const KEY_HEADERS: [&str; 2] = ["x-access-token", "x-appwrite-key"];

/// Who a connection's certificate says is at its other end. Set where connections are accepted.
#[derive(Clone, Debug)]
pub struct Peer(pub Arc<Known>);

/// Lets calls in.
#[derive(Clone, Debug)]
pub struct Gate {
    auth: Auth,
    /// Whether programs of this machine are served without keys as long as there never was one.
    opens: bool,
    open: Arc<Known>,
    keys: KeyRing,
    trusted_proxies: Vec<IpNet>,
}

impl Gate {
    /// The gate that the settings ask for.
    #[must_use]
    pub fn new(config: &Config, keys: KeyRing) -> Self {
        Self {
            auth: config.auth,
            opens: config.auth == Auth::Keys
                && config.tls_callers.is_empty()
                && config.listen.ip().to_canonical().is_loopback(),
            open: Arc::new(Known::open()),
            keys,
            trusted_proxies: config.http_trusted_proxies.clone(),
        }
    }

    /// Whether programs of this machine are served without a key now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.opens && self.keys.is_new()
    }

    /// Who makes this request, whatever it asks for.
    ///
    /// # Errors
    ///
    /// [`Error::KeyUnknown`] and [`Error::KeyAmbiguous`]; without keys [`Error::ForeignOrigin`];
    /// [`Error::DatabaseUnavailable`] if it cannot be known which keys there are.
    pub fn identify(&self, head: &Parts) -> Result<Arc<Known>> {
        if self.check_open(head)? {
            if self.auth == Auth::Keys {
                // The first key may have been made meanwhile.
                self.keys.check()?;
            }
            return Ok(Arc::clone(&self.open));
        }
        match key(&head.headers)? {
            Some(key) => {
                self.keys.check()?;
                ApiKey::digest_of(key).and_then(|digest| self.keys.find(&digest)).ok_or(Error::KeyUnknown)
            }
            None => head.extensions.get::<Peer>().map(|peer| Arc::clone(&peer.0)).ok_or(Error::KeyUnknown),
        }
    }

    /// Refuses what may not even be looked at, where no key is needed: what a web page sends, and what no program
    /// of this machine would.
    ///
    /// Says whether no key is needed.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignOrigin`]
    pub fn check_open(&self, head: &Parts) -> Result<bool> {
        let local_only = self.is_open();
        if !local_only && self.auth == Auth::Keys {
            return Ok(false);
        }
        refuse_pages(head, local_only)?;
        Ok(true)
    }

    /// Who makes this request, if they may call the RPC of `path`, and in which namespace.
    ///
    /// # Errors
    ///
    /// Those of [`Gate::identify`]; [`Error::MethodUnknown`]; [`Error::ScopeMissing`]; [`Error::NamespaceMismatch`],
    /// [`Error::NamespaceMissing`], and [`Error::Invalid`] if a header names no namespace.
    pub fn authorize(&self, head: &Parts, path: &str) -> Result<(Arc<Known>, Namespace)> {
        let scope = policy::scope_of(path).ok_or(Error::MethodUnknown)?;
        let known = self.identify(head)?;
        if !known.scopes.contains(scope) {
            return Err(Error::ScopeMissing { scope: scope.name() });
        }
        let namespace = self.namespace(&known, &head.headers)?;
        Ok((known, namespace))
    }

    /// As [`Gate::authorize`], with the caller that the call is made as.
    ///
    /// # Errors
    ///
    /// Those of [`Gate::authorize`].
    pub fn admit(&self, head: &Parts, path: &str) -> Result<(Arc<Known>, Caller)> {
        let (known, namespace) = self.authorize(head, path)?;
        let user_agent =
            head.headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let caller = Caller {
            name: Arc::clone(&known.name),
            identity: known.identity,
            root: known.reach == Reach::Every || known.is_open(),
            namespace,
            scopes: known.scopes,
            address: address(head, &self.trusted_proxies),
            user_agent: user_agent.map_or_else(String::new, |raw| Device::clean_user_agent(&raw)),
            deadline: None,
        };
        Ok((known, caller))
    }

    /// The namespace of a call: the caller's own, which the headers may repeat, or the one that they choose.
    fn namespace(&self, known: &Arc<Known>, headers: &HeaderMap) -> Result<Namespace> {
        let named = named_namespace(headers)?;
        if Arc::ptr_eq(known, &self.open) {
            return Ok(named.unwrap_or_default());
        }
        match (&known.reach, named) {
            (Reach::One(own), Some(named)) if *own != named => Err(Error::NamespaceMismatch),
            (Reach::One(own), _) => Ok(own.clone()),
            (Reach::Every, named) => named.ok_or(Error::NamespaceMissing),
        }
    }
}

/// Refuses what a web page sends and, with `local_only`, what no program of this machine would.
fn refuse_pages(head: &Parts, local_only: bool) -> Result<()> {
    // A page that somebody looks at must not reach us: not directly (`Origin`), nor by a host name of its own that
    // leads here (`Host`).
    if head.headers.contains_key(header::ORIGIN) {
        return Err(Error::ForeignOrigin("without API keys no web page is served (Origin is set)"));
    }
    let host = head.headers.get(header::HOST).map(text);
    let host = host.or_else(|| head.uri.authority().map(http::uri::Authority::as_str));
    if local_only && !host.is_none_or(is_loopback) {
        return Err(Error::ForeignOrigin("without API keys only this machine is served (Host is another)"));
    }
    Ok(())
}

/// Where the call came from: the peer, or the hop before it if the peer is a proxy that we trust.
fn address(head: &Parts, trusted_proxies: &[IpNet]) -> Option<IpAddr> {
    let peer = head.extensions.get::<TcpConnectInfo>()?.remote_addr()?.ip().to_canonical();
    let forwarded = head.headers.get_all("x-forwarded-for").iter();
    let hops: Vec<&str> =
        forwarded.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(',')).collect();
    let mut client = peer;
    for hop in hops.into_iter().rev() {
        if !trusted_proxies.iter().any(|network| network.contains(&client)) {
            break;
        }
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        client = address.to_canonical();
    }
    Some(client)
}

/// The namespace that the headers name, if they name one.
fn named_namespace(headers: &HeaderMap) -> Result<Option<Namespace>> {
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
    let parse = |(name, value)| Namespace::parse(value).map_err(|why| Error::invalid(name, why.to_string()));
    named.map(parse).transpose()
}

/// The key that the headers carry, if they carry one. What is no key is given as it is: it opens nothing.
fn key(headers: &HeaderMap) -> Result<Option<&str>> {
    let bearer = headers.get_all(header::AUTHORIZATION).iter().map(|value| bearer(text(value)));
    let others = KEY_HEADERS.iter().flat_map(|name| headers.get_all(*name)).map(text);
    let mut found = None;
    for key in bearer.chain(others).filter(|key| !key.is_empty()) {
        match found {
            Some(other) if other != key => return Err(Error::KeyAmbiguous),
            _ => found = Some(key),
        }
    }
    Ok(found)
}

fn text(value: &header::HeaderValue) -> &str {
    value.to_str().unwrap_or("?")
}

/// What stands behind the scheme, whose case does not matter (RFC 9110 §11.1); all of it if that is another one.
fn bearer(value: &str) -> &str {
    const SCHEME: &str = "Bearer ";
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(SCHEME) => key.trim_start_matches(' '),
        _ => value,
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

    fn request(headers: &[(&str, &str)], peer: &str) -> Parts {
        let mut request = http::Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let address = format!("{peer}:1").parse().unwrap();
        let info = TcpConnectInfo { local_addr: None, remote_addr: Some(address) };
        request.extension(info).body(()).unwrap().into_parts().0
    }

    #[test]
    fn namespaces_must_agree() {
        let named = |headers: &[(&str, &str)]| {
            named_namespace(&request(headers, "127.0.0.1").headers)
                .map(|named| named.map(|namespace| namespace.as_str().to_owned()))
        };
        assert_eq!(named(&[]).unwrap(), None);
        assert_eq!(named(&[("usersd-namespace", "a"), ("micro-namespace", "a")]).unwrap().unwrap(), "a");
        assert_eq!(named(&[("x-appwrite-project", "b")]).unwrap().unwrap(), "b");
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
            assert_eq!(refuse_pages(&request(&headers, "127.0.0.1"), true).is_ok(), good, "{headers:?}");
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
            let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
            let request = request(&[("x-forwarded-for", forwarded)], peer);
            assert_eq!(address(&request, &trusted), Some(want.parse().unwrap()), "{forwarded:?}");
        }
    }

    #[test]
    fn a_key_comes_in_one_of_three_headers_or_in_several_the_same() {
        let of = |headers: &[(&str, &str)]| {
            key(&request(headers, "127.0.0.1").headers).map(|key| key.map(str::to_owned)).ok()
        };
        let found = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(of(&[]), Some(None));
        assert_eq!(of(&[("authorization", "")]), Some(None));
        for header in [
            ("authorization", "Bearer k"),
            ("authorization", "bearer  k"),
            ("x-access-token", "k"),
            ("x-appwrite-key", "k"),
        ] {
            assert_eq!(of(&[header]), found("k"), "{header:?}");
            assert_eq!(of(&[header, ("x-access-token", "k")]), found("k"), "{header:?}");
            for (name, other) in
                [("authorization", "Bearer l"), ("authorization", "Basic k"), ("x-appwrite-key", "K")]
            {
                assert_eq!(of(&[header, (name, other)]), None, "{header:?} {name} {other}");
            }
        }
        assert_eq!(of(&[("authorization", "Basic k")]), found("Basic k"));
    }
}

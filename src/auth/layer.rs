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
use super::pages::{self, Pages};
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
    pages: Pages,
}

impl Gate {
    /// The gate that the settings ask for.
    #[must_use]
    pub fn new(config: &Config, keys: KeyRing) -> Self {
        Self {
            auth: config.auth,
            opens: config.auth == Auth::Keys
                && config.tls.callers.is_empty()
                && config.listen.ip().to_canonical().is_loopback(),
            open: Arc::new(Known::open()),
            keys,
            trusted_proxies: config.http.trusted_proxies.clone(),
            pages: Pages::new(config),
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
    /// [`Error::KeyUnknown`] and [`Error::KeyAmbiguous`]; [`Error::ForeignOrigin`] for what a web page sends without a key;
    /// [`Error::DatabaseUnavailable`] if it cannot be known which keys there are.
    pub fn identify(&self, head: &Parts) -> Result<Arc<Known>> {
        if self.check_open(head)? {
            if self.auth == Auth::Keys {
                // The first key may have been made meanwhile.
                self.keys.check()?;
            }
            return Ok(Arc::clone(&self.open));
        }
        if let Some(key) = key(&head.headers)? {
            self.keys.check()?;
            let digest = ApiKey::digest_of(key);
            return digest.and_then(|digest| self.keys.find(&digest)).ok_or(Error::KeyUnknown);
        }
        let peer = head.extensions.get::<Peer>().ok_or(Error::KeyUnknown)?;
        pages::refuse_readers_certificate(&head.headers)?;
        Ok(Arc::clone(&peer.0))
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
        self.pages.refuse(head, local_only)?;
        Ok(true)
    }

    /// Who makes this request, if they may call the RPC of `path`, and in which namespace.
    ///
    /// # Errors
    ///
    /// Those of [`Gate::identify`]; [`Error::MethodUnknown`]; [`Error::ScopeMissing`]; [`Error::NamespaceMismatch`],
    /// [`Error::NamespaceMissing`], and [`Error::Invalid`] if a header names no namespace.
    pub fn authorize(&self, head: &Parts, path: &str) -> Result<(Arc<Known>, Namespace)> {
        // An unknown method is refused first, with or without a key.
        policy::scope_of(path).ok_or(Error::MethodUnknown)?;
        let known = self.identify(head)?;
        Self::check_scope(&known, path)?;
        let namespace = self.namespace(&known, &head.headers)?;
        Ok((known, namespace))
    }

    /// Refuses a caller that lacks the scope of the RPC of `path`.
    ///
    /// # Errors
    ///
    /// [`Error::MethodUnknown`]; [`Error::ScopeMissing`].
    pub fn check_scope(known: &Known, path: &str) -> Result<()> {
        let scope = policy::scope_of(path).ok_or(Error::MethodUnknown)?;
        if known.scopes.contains(scope) { Ok(()) } else { Err(Error::ScopeMissing { scope: scope.name() }) }
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
        let (address, proxied) = address(head, &self.trusted_proxies).unzip();
        let caller = Caller {
            name: Arc::clone(&known.name),
            identity: known.identity,
            root: known.reach == Reach::Every || known.is_open(),
            namespace,
            scopes: known.scopes,
            address,
            proxied: proxied.unwrap_or_default(),
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

/// Returns the address that the call came from, and true if a trusted proxy named it: the peer, or the hop before it if the
/// peer is a proxy that we trust.
fn address(head: &Parts, trusted_proxies: &[IpNet]) -> Option<(IpAddr, bool)> {
    let peer = head.extensions.get::<TcpConnectInfo>()?.remote_addr()?.ip().to_canonical();
    let forwarded = head.headers.get_all("x-forwarded-for").iter();
    let hops: Vec<&str> =
        forwarded.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(',')).collect();
    let (mut client, mut proxied) = (peer, false);
    for hop in hops.into_iter().rev() {
        if !trusted_proxies.iter().any(|network| network.contains(&client)) {
            break;
        }
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        (client, proxied) = (address.to_canonical(), true);
    }
    Some((client, proxied))
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
            let want = (want.parse().unwrap(), want != peer);
            assert_eq!(address(&request, &trusted), Some(want), "{forwarded:?}");
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

//! Authentication and authorization: from a request's connection and headers to its [`Principal`] and its
//! [`Caller`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderMap, header};
use ipnet::IpNet;

use crate::config::{Auth, Config};
use crate::domain::caller::Caller;
use crate::domain::key::AllowedNamespaces;
use crate::domain::namespace::Namespace;
use crate::domain::quota::Quotas;
use crate::domain::scope::Scope;
use crate::domain::session::Device;
use crate::error::{Error, Result};
use crate::headers::{FORWARDED_FOR, KEY, NAMESPACE};

use super::browser::{self, BrowserRequests};
use super::keyring::{KeyRing, Principal};

/// The peer of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The principal that its client certificate names.
    pub certificate: Option<Arc<Principal>>,
}

/// Authenticates and authorizes requests.
#[derive(Clone, Debug)]
pub struct Authenticator {
    auth: Auth,
    /// True if programs of this machine are served without keys until the first key is created.
    allows_local_mode: bool,
    anonymous: Arc<Principal>,
    keys: KeyRing,
    trusted_proxies: Vec<IpNet>,
    browser: BrowserRequests,
}

impl Authenticator {
    /// As the settings ask for.
    pub fn new(config: &Config, keys: KeyRing) -> Self {
        Self {
            auth: config.auth,
            allows_local_mode: config.auth == Auth::Keys
                && config.tls.callers.is_empty()
                && config.listen.ip().to_canonical().is_loopback(),
            anonymous: Arc::new(Principal::anonymous()),
            keys,
            trusted_proxies: config.http.trusted_proxies.clone(),
            browser: BrowserRequests::new(config),
        }
    }

    /// Returns true while programs of this machine are served without a key.
    pub fn is_local_mode(&self) -> bool {
        self.allows_local_mode && self.keys.is_empty_ever()
    }

    /// Returns the limits that were set for a namespace.
    pub fn limits(&self, namespace: &Namespace) -> Quotas {
        self.keys.directory().limits(namespace)
    }

    /// Returns the principal of a request, by the key that it carries or the certificate of its connection.
    /// Fails with [`Error::KeyUnknown`] and [`Error::KeyAmbiguous`]; [`Error::ForeignOrigin`] for what a web
    /// page sends without a key; [`Error::DatabaseUnavailable`] if it cannot be known which keys there are.
    pub fn authenticate(&self, head: &Parts, peer: &Peer) -> Result<Arc<Principal>> {
        if self.check_local_mode(head)? {
            if self.auth == Auth::Keys {
                // The first key may have been created meanwhile.
                self.keys.check()?;
            }
            return Ok(Arc::clone(&self.anonymous));
        }
        if let Some(key) = key(&head.headers)? {
            return self.keys.authenticate(key);
        }
        let certificate = peer.certificate.as_ref().ok_or(Error::KeyUnknown)?;
        browser::reject_browser_certificate(&head.headers)?;
        Ok(Arc::clone(certificate))
    }

    /// As [`Authenticator::authenticate`], for RPCs that the settings make public. Where no key is needed, it
    /// still rejects requests of web pages.
    pub fn authenticate_infra(&self, head: &Parts, peer: &Peer, public: bool) -> Result<Arc<Principal>> {
        if public {
            self.check_local_mode(head).map(|_| Arc::clone(&self.anonymous))
        } else {
            self.authenticate(head, peer)
        }
    }

    /// Returns true if no key is needed, and then rejects what a web page sends, and what no program of this
    /// machine would.
    fn check_local_mode(&self, head: &Parts) -> Result<bool> {
        let local_only = self.is_local_mode();
        if !local_only && self.auth == Auth::Keys {
            return Ok(false);
        }
        self.browser.reject_browser_requests(head, local_only)?;
        Ok(true)
    }

    /// Returns the caller as which the principal makes a call that needs these scopes: its namespace, and
    /// where it comes from. A call about namespaces as wholes has none of its own, and is for root callers. Fails with
    /// [`Error::ScopeMissing`]; [`Error::NamespaceMismatch`], [`Error::NamespaceMissing`],
    /// [`Error::NamespaceBeingDeleted`], and [`Error::Invalid`] if a header names no namespace.
    pub fn authorize(
        &self,
        principal: &Arc<Principal>,
        head: &Parts,
        peer: &Peer,
        scopes: impl IntoIterator<Item = Scope>,
    ) -> Result<Caller> {
        let mut is_about_namespaces = false;
        for scope in scopes {
            if !principal.scopes.contains(scope) {
                return Err(Error::ScopeMissing { scope: scope.name() });
            }
            is_about_namespaces |= scope == Scope::NamespacesAdmin;
        }
        let root = principal.namespaces == AllowedNamespaces::All || principal.is_anonymous();
        let namespace = match is_about_namespaces {
            true if root => Namespace::root(),
            true => return Err(Error::NamespaceMismatch),
            false => self.namespace(principal, &head.headers)?,
        };
        let admitted = Instant::now();
        self.keys.directory().check(&namespace, admitted)?;
        let user_agent =
            head.headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let (address, proxied) = address(&head.headers, peer.address.ip(), &self.trusted_proxies);
        Ok(Caller {
            name: Arc::clone(&principal.name),
            identity: principal.identity,
            root,
            namespace,
            scopes: principal.scopes,
            address: Some(address),
            proxied,
            user_agent: user_agent.map_or_else(String::new, |raw| Device::clean_user_agent(&raw)),
            deadline: None,
            admitted,
        })
    }

    /// The namespace of a call: the principal's own, which the headers may repeat, or the one that they
    /// choose.
    fn namespace(&self, principal: &Arc<Principal>, headers: &HeaderMap) -> Result<Namespace> {
        let named = named_namespace(headers)?;
        if Arc::ptr_eq(principal, &self.anonymous) {
            return Ok(named.unwrap_or_default());
        }
        match (&principal.namespaces, named) {
            (AllowedNamespaces::One(own), Some(named)) if *own != named => Err(Error::NamespaceMismatch),
            (AllowedNamespaces::One(own), _) => Ok(own.clone()),
            (AllowedNamespaces::All, named) => named.ok_or(Error::NamespaceMissing),
        }
    }
}

/// Returns the address that the call came from, and true if a trusted proxy named it: the peer, or the hop
/// before it if the peer is a proxy that we trust.
fn address(headers: &HeaderMap, peer: IpAddr, trusted_proxies: &[IpNet]) -> (IpAddr, bool) {
    let (mut client, mut proxied) = (peer.to_canonical(), false);
    let forwarded = headers.get_all(FORWARDED_FOR).iter();
    let hops: Vec<&str> =
        forwarded.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(',')).collect();
    for hop in hops.into_iter().rev() {
        if !trusted_proxies.iter().any(|network| network.contains(&client)) {
            break;
        }
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        (client, proxied) = (address.to_canonical(), true);
    }
    (client, proxied)
}

/// The namespace that the headers name, if they name one.
fn named_namespace(headers: &HeaderMap) -> Result<Option<Namespace>> {
    let mut named: Option<(&str, &str)> = None;
    for name in NAMESPACE {
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

/// The key that the headers carry, if they carry one. Text that is no key is returned as it is: it
/// authenticates no request.
fn key(headers: &HeaderMap) -> Result<Option<&str>> {
    let bearer = headers.get_all(header::AUTHORIZATION).iter().map(|value| bearer(text(value)));
    let others = KEY[1..].iter().flat_map(|name| headers.get_all(*name)).map(text);
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

/// Returns the token after the scheme, whose case does not matter (RFC 9110 §11.1); the whole value if the
/// scheme is another one.
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

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn namespaces_must_agree() {
        let named = |all: &[(&str, &str)]| {
            named_namespace(&headers(all)).map(|named| named.map(|namespace| namespace.as_str().to_owned()))
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
            let headers = headers(&[("x-forwarded-for", forwarded)]);
            let want = (want.parse().unwrap(), want != peer);
            assert_eq!(address(&headers, peer.parse().unwrap(), &trusted), want, "{forwarded:?}");
        }
    }

    #[test]
    fn a_key_comes_in_one_of_three_headers_or_in_several_the_same() {
        let of = |all: &[(&str, &str)]| key(&headers(all)).map(|key| key.map(str::to_owned)).ok();
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

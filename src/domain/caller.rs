//! The caller of an operation.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::namespace::Namespace;
use super::scope::{Scope, Scopes};
use super::session::Device;

/// The way a caller authenticated. Never derived from its name: names are chosen by people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// By an API key.
    Key,
    /// By a client certificate.
    Certificate,
    /// Not at all: none was needed.
    Open,
    /// It is the server itself, or its command line.
    Server,
}

/// The authenticated program that makes a call. Only the `Authenticator` makes one.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name of the caller in the event log.
    pub name: Arc<str>,
    /// The way it authenticated.
    pub identity: Identity,
    /// True if it may work in every namespace.
    pub root: bool,
    /// The tenant it works in.
    pub namespace: Namespace,
    /// The scopes that it has.
    pub scopes: Scopes,
    /// The address that the call came from: the peer, or the hop before the trusted proxies.
    pub address: Option<IpAddr>,
    /// True if a trusted proxy named `address`, which then is the end user's; else it is the calling
    /// program's own.
    pub proxied: bool,
    /// Its `User-Agent`; empty if it sent none.
    pub user_agent: String,
    /// When it stops waiting for the answer, if it said so.
    pub deadline: Option<Instant>,
    /// When its call was admitted: it changes nothing in a namespace whose deletion began later.
    pub admitted: Instant,
}

impl Caller {
    /// The name of a caller that needs no key.
    pub const OPEN: &str = "open";
    /// The name of the server itself, in what it does in the background.
    pub const SERVER: &str = "usersd";

    /// The server itself, in what it does in the background.
    pub fn server(namespace: Namespace) -> Self {
        let name = Self::SERVER.into();
        Self {
            name,
            identity: Identity::Server,
            root: true,
            namespace,
            scopes: Scopes::ALL,
            address: None,
            proxied: false,
            user_agent: String::new(),
            deadline: None,
            admitted: Instant::now(),
        }
    }

    /// Returns true if it has the scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }

    /// Returns the IP address of the end user: the one that the call names, else the one that it came from.
    pub fn device(&self, said: &Device) -> Device {
        let user_agent = if said.user_agent.is_empty() { &self.user_agent } else { &said.user_agent };
        Device { address: said.address.or(self.address), user_agent: user_agent.clone() }
    }

    /// The end user's address: the one that was said, else the one that a trusted proxy names. The address of
    /// a program that calls for many users is none.
    pub fn end_user_address(&self, said: &Device) -> Option<IpAddr> {
        said.address.or(self.address.filter(|_| self.proxied))
    }

    /// The same caller for work that goes on after the call has ended, and so after its deadline.
    pub fn detached(&self) -> Self {
        Self { deadline: None, ..self.clone() }
    }

    /// Whose turn it is where callers wait.
    pub fn flow(&self) -> Flow {
        Flow { namespace: self.namespace.shared(), key: Arc::clone(&self.name) }
    }
}

/// The calls that share one turn where callers wait: first the namespaces take turns, then the keys of each.
/// A tenant makes its keys itself, so more of them must not get it more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The tenant that is served. A key for all namespaces counts in the one that its call names.
    pub namespace: Arc<str>,
    /// The name of the key, which distinguishes the calls of one tenant.
    pub key: Arc<str>,
}

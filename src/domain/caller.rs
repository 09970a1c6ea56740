//! Who calls.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::namespace::Namespace;
use super::scope::{Scope, Scopes};
use super::session::Device;

/// The program behind a call, as the stack's gate found it. Only the gate makes one.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What events name as the one who did it.
    pub name: Arc<str>,
    /// The tenant it works in.
    pub namespace: Namespace,
    /// What it may do.
    pub scopes: Scopes,
    /// Where the call came from: the peer, or the hop before the trusted proxies.
    pub address: Option<IpAddr>,
    /// True if a trusted proxy named `address`, which then is the end user's; else it is the calling program's own.
    pub proxied: bool,
    /// Its `User-Agent`; empty if it sent none.
    pub user_agent: String,
    /// When it stops waiting for the answer, if it said so.
    pub deadline: Option<Instant>,
}

impl Caller {
    /// The name of a caller that needs no key.
    pub const OPEN: &str = "open";
    /// The name of the server itself, in what it does in the background.
    pub const SERVER: &str = "usersd";

    /// The server itself, in what it does in the background.
    #[must_use]
    pub fn server(namespace: Namespace) -> Self {
        let name = Self::SERVER.into();
        Self {
            name,
            namespace,
            scopes: Scopes::ALL,
            address: None,
            proxied: false,
            user_agent: String::new(),
            deadline: None,
        }
    }

    /// Whether it may do what is [`Scope`]'s.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }

    /// Where the end user sits: what was said of it, else where the call came from.
    #[must_use]
    pub fn device(&self, said: &Device) -> Device {
        let user_agent = if said.user_agent.is_empty() { &self.user_agent } else { &said.user_agent };
        Device { address: said.address.or(self.address), user_agent: user_agent.clone() }
    }

    /// The end user's address: the one that was said, else the one that a trusted proxy names. The address of a program
    /// that calls for many users is none.
    #[must_use]
    pub fn end_user_address(&self, said: &Device) -> Option<IpAddr> {
        said.address.or(self.address.filter(|_| self.proxied))
    }

    /// The same caller for work that goes on after the call has ended, and so after its deadline.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { deadline: None, ..self.clone() }
    }

    /// What tells it from other callers, where they wait in line.
    #[must_use]
    pub fn line(&self) -> Arc<str> {
        format!("{} {}", self.namespace.as_str(), self.name).into()
    }
}

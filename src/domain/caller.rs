//! Who calls.

use std::net::IpAddr;

use super::namespace::Namespace;
use super::session::Device;

/// The program behind a call, as the stack's gate found it. Only the gate makes one.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What events name as the one who did it.
    pub name: &'static str,
    /// The tenant it works in.
    pub namespace: Namespace,
    /// Where the call came from: the peer, or the hop before the trusted proxies.
    pub address: Option<IpAddr>,
    /// Its `User-Agent`; empty if it sent none.
    pub user_agent: String,
}

impl Caller {
    /// Where the end user sits: what was said of it, else where the call came from.
    #[must_use]
    pub fn device(&self, said: &Device) -> Device {
        let user_agent = if said.user_agent.is_empty() { &self.user_agent } else { &said.user_agent };
        Device { address: said.address.or(self.address), user_agent: user_agent.clone() }
    }

    /// The name of a caller that needs no key.
    pub const OPEN: &str = "open";
    /// The name of the server itself, in what it does in the background.
    pub const SERVER: &str = "usersd";
}

//! All connections: how many there may be, of one address and in all, and which is closed to make room.
//!
//! One that showed a valid key or certificate stays. Of the others, the oldest is closed when there is no
//! room: a client that holds connections open without a key keeps out no client that has one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::tally::LogLimiter;
use crate::metrics::{ByLabel, Counter, Registry, gauge, number};

/// Limits the log line about connections at a limit.
static LIMITED: LogLimiter = LogLimiter::after(1);

/// The connections of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    permits: Arc<Semaphore>,
    max_per_address: usize,
    /// Trusted proxies: each stands for many clients, and limits these itself.
    exempt: Arc<[IpNet]>,
    table: Arc<Mutex<Table>>,
    max: usize,
    refused: ByLabel<Counter, 2>,
}

/// The limits: of all connections, and of those of one address.
const ALL: usize = 0;
const PER_ADDRESS: usize = 1;

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// Those that showed no key, by number, the oldest first.
    keyless: BTreeMap<u64, (Option<IpAddr>, CancellationToken)>,
    addresses: HashMap<IpAddr, Address>,
}

/// Room for one more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// Another connection was closed for it.
    Made,
    None,
}

#[derive(Debug, Default)]
struct Address {
    open: usize,
    keyless: BTreeSet<u64>,
}

/// A counted connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    connections: Connections,
    number: u64,
    peer: SocketAddr,
    address: Option<IpAddr>,
    signal: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(config.limits.connections)),
            max_per_address: config.limits.connections_per_address,
            exempt: config.http.trusted_proxies.clone().into(),
            table: Arc::default(),
            max: config.limits.connections,
            refused: ByLabel::new("limit", ["connections", "connections_per_address"], Counter::default),
        }
    }

    /// Registers the metrics of connections.
    pub(super) fn register(&self, registry: &mut Registry) {
        let (permits, max) = (Arc::clone(&self.permits), self.max);
        gauge(registry, "usersd_connections_open", "Connections of callers that are open", move || {
            Some(number(max.saturating_sub(permits.available_permits())))
        });
        registry.register(
            "usersd_connections_limited",
            "Connections that came when a limit was reached, by its setting: the oldest without a key is closed for each, or it is refused",
            self.refused.clone(),
        );
    }

    /// Admits a connection, which ends with `stop`. Where there is no room, the oldest of those without a
    /// key is closed, of the same address or of all; where all have one, this waits for one to end.
    ///
    /// `None` if its address has as many as it may have, and all of them a key.
    pub(super) async fn admit(&self, peer: SocketAddr, stop: &CancellationToken) -> Option<Entry> {
        let address = self.counted(peer.ip());
        let room =
            address.map_or(Room::Free, |address| self.table().make_room_for(address, self.max_per_address));
        if room != Room::Free {
            self.refused.of(PER_ADDRESS).inc();
        }
        if room == Room::None {
            tracing::debug!(%peer, "connection refused: limits.connections_per_address is reached");
            return None;
        }
        let permit = if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            permit
        } else {
            self.refused.of(ALL).inc();
            self.table().make_room();
            Arc::clone(&self.permits).acquire_owned().await.ok()?
        };
        let signal = stop.child_token();
        let number = self.table().add(address, signal.clone());
        Some(Entry { connections: self.clone(), number, peer, address, signal, _permit: permit })
    }

    /// Returns the address under which a connection is counted: an IPv6 network of 64 bits is one customer's.
    /// `None` for trusted proxies.
    fn counted(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        if self.exempt.iter().any(|network| network.contains(&address)) {
            return None;
        }
        Some(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn add(&mut self, address: Option<IpAddr>, signal: CancellationToken) -> u64 {
        self.next += 1;
        self.keyless.insert(self.next, (address, signal));
        if let Some(address) = address {
            let counted = self.addresses.entry(address).or_default();
            counted.open += 1;
            counted.keyless.insert(self.next);
        }
        self.next
    }

    /// Makes room for one more connection of the address, if it can.
    fn make_room_for(&mut self, address: IpAddr, max: usize) -> Room {
        let Some(counted) = self.addresses.get(&address).filter(|counted| counted.open >= max) else {
            return Room::Free;
        };
        let Some(oldest) = counted.keyless.first().copied() else { return Room::None };
        self.close(oldest);
        log("limits.connections_per_address");
        Room::Made
    }

    fn make_room(&mut self) {
        if let Some(oldest) = self.keyless.keys().next().copied() {
            self.close(oldest);
        }
        log("limits.connections");
    }

    fn close(&mut self, number: u64) {
        if let Some(signal) = self.keep(number) {
            signal.cancel();
        }
    }

    /// Takes a connection out of those that may have to go.
    fn keep(&mut self, number: u64) -> Option<CancellationToken> {
        let (address, signal) = self.keyless.remove(&number)?;
        if let Some(counted) = address.and_then(|address| self.addresses.get_mut(&address)) {
            counted.keyless.remove(&number);
        }
        Some(signal)
    }

    fn remove(&mut self, number: u64, address: Option<IpAddr>) {
        self.keep(number);
        let Some(address) = address else { return };
        if let Some(counted) = self.addresses.get_mut(&address) {
            counted.open -= 1;
            if counted.open == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}

/// Logs that a limit is reached, once a minute with the number of connections that came too many.
fn log(limit: &str) {
    if let Some(connections) = LIMITED.count() {
        tracing::warn!(
            limit,
            connections,
            "connection limit is reached: the oldest connections without a key are closed for new ones"
        );
    }
}

impl Entry {
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(super) fn signal(&self) -> &CancellationToken {
        &self.signal
    }

    /// Takes the connection out of those that may have to go.
    pub(super) fn keep(&self) {
        self.connections.table().keep(self.number);
    }

    /// A duration between nine and eleven tenths of `span`, another one for each connection.
    pub(super) fn jitter(&self, span: Duration) -> Duration {
        let fifth = RandomState::new().hash_one(self.number) % 201;
        let tenths = u32::try_from(fifth).unwrap_or_default() + 900;
        (span / 1000).saturating_mul(tenths)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.table().remove(self.number, self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(all: usize, per_address: usize, proxies: &[&str]) -> Connections {
        let proxies = proxies.iter().map(|network| network.parse().unwrap()).collect();
        let mut config = Config::default();
        config.limits.connections = all;
        config.limits.connections_per_address = per_address;
        config.http.trusted_proxies = proxies;
        Connections::new(&config)
    }

    async fn admit(connections: &Connections, peer: &str) -> Option<Entry> {
        connections.admit(peer.parse().unwrap(), &CancellationToken::new()).await
    }

    #[tokio::test]
    async fn the_oldest_without_a_key_makes_room() {
        let connections = connections(3, 9, &[]);
        let mut open = Vec::new();
        for peer in ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1"] {
            open.push(admit(&connections, peer).await.unwrap());
        }
        open[0].keep();
        let next = tokio::spawn({
            let connections = connections.clone();
            async move { admit(&connections, "192.0.2.3:1").await.unwrap() }
        });
        open[1].signal().cancelled().await;
        assert!(!open[0].signal().is_cancelled() && !open[2].signal().is_cancelled());
        open.remove(1);
        next.await.unwrap();
    }

    #[tokio::test]
    async fn an_address_has_a_maximum_and_proxies_have_none() {
        let connections = connections(99, 2, &["198.51.100.0/24"]);
        let mut open = Vec::new();
        for peer in ["[2001:db8::1]:1", "[2001:db8::2]:1"] {
            open.push(admit(&connections, peer).await.unwrap());
        }
        let third = admit(&connections, "[2001:db8::3]:1").await.unwrap();
        assert!(open.remove(0).signal().is_cancelled());
        open[0].keep();
        third.keep();
        assert!(admit(&connections, "[2001:db8::4]:1").await.is_none(), "both showed a key");
        assert!(admit(&connections, "[2001:db8:0:1::4]:1").await.is_some(), "another network");
        drop(third);
        assert!(admit(&connections, "[2001:db8::4]:1").await.is_some());
        for _ in 0..5 {
            open.push(admit(&connections, "198.51.100.7:1").await.unwrap());
        }
        drop(open);
        assert!(connections.table().addresses.is_empty() && connections.table().keyless.is_empty());
    }
}

//! The buckets of an attempt: those of the name that was used, of the account, of the IP address and of the
//! caller.

use std::net::IpAddr;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::domain::caller::Caller;
use crate::domain::email::Email;
use crate::domain::user::User;
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::Result;
use crate::store;

use super::{Throttle, known_ips};

/// Finds a bucket: a keyed digest, so that the table holds no name and no address.
pub(super) type BucketKey = [u8; 32];

/// A row of counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) key: BucketKey,
    /// The key of the account whose failures it counts. Addresses and callers belong to no account.
    pub(super) account: Option<BucketKey>,
}

/// The names of the user that an attempt is about, each in its canonical form: another spelling counts in the
/// same bucket.
#[derive(Clone, Debug)]
pub(crate) struct LoginIdentifier {
    names: Vec<String>,
    is_second_factor: bool,
}

impl LoginIdentifier {
    /// By a username, an e-mail address, or both.
    pub(crate) fn by_names(username: Option<&str>, email: Option<&str>) -> Self {
        Self::of_password([username, email].map(|name| name.unwrap_or_default().to_owned()).into())
    }

    /// By an id.
    pub(crate) fn by_id(id: &UserId) -> Self {
        Self::of_password(vec![id.as_str().to_owned()])
    }

    fn of_password(names: Vec<String>) -> Self {
        Self { names, is_second_factor: false }
    }

    /// By an id, for codes of a second factor: wrong ones make the next code wait and not the next password, and a right
    /// password does not end their streak.
    pub(crate) fn by_second_factor(id: &UserId) -> Self {
        Self { names: ["second factor", id.as_str(), ""].map(str::to_owned).into(), is_second_factor: true }
    }

    /// Every identifier of a user.
    pub(super) fn all_of(user: &User) -> [Self; 5] {
        let username = user.username.as_ref().map(Username::as_str);
        let email = user.email.as_ref().map(Email::as_str);
        [
            Self::by_id(&user.id),
            Self::by_second_factor(&user.id),
            Self::by_names(username, None),
            Self::by_names(None, email),
            Self::by_names(username, email),
        ]
    }

    pub(super) fn parts(&self) -> Vec<&[u8]> {
        self.names.iter().map(String::as_bytes).collect()
    }
}

/// The origin of an attempt, as far as that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// The end user's address.
    pub(crate) ip: Option<IpAddr>,
    /// The public id of an open session of the same user that the end user holds. It is as good as a known
    /// IP.
    pub(crate) session: Option<&'a str>,
}

/// The buckets that an attempt counts in, and what is known of its origin.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    /// Counts failures in a row.
    pub(super) streak: BucketKey,
    /// Counts all failures of the account.
    pub(super) account: BucketKey,
    /// The buckets of unknown origins that several users share, and their limits.
    pub(super) shared: Vec<(BucketKey, u32)>,
    /// The user whose password it is, if there is one.
    pub(super) user: Option<UserId>,
    /// True if the user has a session there or signed in from there before.
    pub(super) is_known: bool,
    /// True if the attempt is about a code of a second factor, false if about a password.
    pub(super) is_second_factor: bool,
    /// The end user's address.
    pub(super) ip: Option<BucketKey>,
    /// True if the user signed in from that address before.
    pub(super) is_known_ip: bool,
}

impl Buckets {
    pub(super) fn keys(&self) -> Vec<BucketKey> {
        [self.streak, self.account].into_iter().chain(self.shared.iter().map(|(key, _)| *key)).collect()
    }

    /// The rows, those of the account first.
    pub(super) fn all(&self) -> Vec<Bucket> {
        let of = |(n, key)| Bucket { key, account: (n < 2).then_some(self.account) };
        self.keys().into_iter().enumerate().map(of).collect()
    }
}

impl Throttle {
    /// Finds the buckets of an attempt, by the same statements for a user who exists and one who does not.
    pub(super) async fn buckets(
        &self,
        db: &store::Reader,
        caller: &Caller,
        identifier: &LoginIdentifier,
        user: Option<&UserId>,
        origin: Origin<'_>,
    ) -> Result<Buckets> {
        let keyer = &self.keyer;
        let account =
            user.map_or_else(|| keyer.key("account", &identifier.parts()), |user| keyer.account(user));
        let ip = origin.ip.map(|ip| keyer.ip(ip));
        let is_known_ip = match &ip {
            Some(ip) => {
                known_ips::is_known_ip(db, &caller.namespace, user.map_or("", UserId::as_str), ip).await?
            }
            None => false,
        };
        let session = origin.session.map(|session| keyer.key("session", &[session.as_bytes()]));
        let known = ip.filter(|_| is_known_ip).or(session);
        // At a known origin the names of a user share a streak, and codes have another one than passwords there, too.
        let streak = match &known {
            Some(origin) if identifier.is_second_factor => keyer.key("familiar factor", &[&account, origin]),
            Some(origin) => keyer.key("familiar", &[&account, origin]),
            None => keyer.name(identifier),
        };
        let mut shared: Vec<_> = ip.map(|ip| (ip, self.limits.address)).into_iter().collect();
        shared.push((keyer.key("caller", &[caller.name.as_bytes()]), self.limits.caller));
        // A limit that is off is not counted: all calls of a caller would wait for one row.
        shared.retain(|(_, limit)| *limit > 0);
        Ok(Buckets {
            streak,
            account,
            shared,
            user: user.cloned(),
            is_known: known.is_some(),
            is_second_factor: identifier.is_second_factor,
            ip,
            is_known_ip,
        })
    }
}

/// Derives bucket keys and pseudo-random numbers, the same ones on all replicas.
#[derive(Clone)]
pub(super) struct BucketKeyer(Arc<[u8]>);

impl BucketKeyer {
    /// With the key that all replicas share.
    pub(super) fn from_trusted(key: Vec<u8>) -> Self {
        Self(key.into())
    }

    /// The key of the bucket of `parts`, for one purpose.
    pub(super) fn key(&self, purpose: &str, parts: &[&[u8]]) -> BucketKey {
        // HMAC takes a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return BucketKey::default() };
        for part in [&[purpose.as_bytes()], parts].concat() {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The bucket of failures in a row under a name.
    pub(super) fn name(&self, identifier: &LoginIdentifier) -> BucketKey {
        self.key("name", &identifier.parts())
    }

    /// The bucket of all failures of a user.
    pub(super) fn account(&self, user: &UserId) -> BucketKey {
        self.key("account", &[user.as_str().as_bytes()])
    }

    /// The bucket of an address. The holder of an IPv6 network has all of its addresses, at least 2^64 of
    /// them.
    pub(super) fn ip(&self, address: IpAddr) -> BucketKey {
        match address.to_canonical() {
            IpAddr::V4(address) => self.key("address", &[&address.octets()]),
            IpAddr::V6(address) => self.key("address", &[&address.octets()[..8]]),
        }
    }

    /// A number that looks random and is always the same for `parts`.
    pub(super) fn pseudo_random(&self, parts: &[&[u8]]) -> i64 {
        self.key("lot", parts).iter().take(8).fold(0, |number, byte| number << 8 | i64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_purpose_part_and_secret_and_no_split_looks_like_another() {
        let keyer = BucketKeyer::from_trusted(vec![1; 32]);
        let keys = [
            keyer.key("name", &[b"ab"]),
            keyer.key("name", &[b"a", b"b"]),
            keyer.key("name", &[b"", b"ab"]),
            keyer.key("account", &[b"ab"]),
            BucketKeyer::from_trusted(vec![2; 32]).key("name", &[b"ab"]),
        ];
        for (n, key) in keys.iter().enumerate() {
            assert!(!keys[..n].contains(key), "{n}");
        }
        assert_eq!(keys[0], keyer.key("name", &[b"ab"]));
        assert_ne!(keyer.pseudo_random(&[b"a"]), keyer.pseudo_random(&[b"b"]));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let keyer = BucketKeyer::from_trusted(vec![1; 32]);
        let of = |text: &str| keyer.ip(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    }
}

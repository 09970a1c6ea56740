//! The limits on creating codes: by the end user's IP address first, then by identifier.

use std::net::IpAddr;

use crate::config::Codes;
use crate::domain::caller::Caller;
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};

use super::Throttle;
use super::buckets::{Bucket, BucketKey, LoginIdentifier};
use super::counts::{self, Attempt};
use super::limits::{Count, Headroom, Period};

impl Throttle {
    /// Returns a placeholder, which is not a valid id, for an identifier that no user has. Its codes are stored under it, so
    /// that unknown users cost the same writes as known ones.
    pub(crate) fn placeholder_user_id(&self, identifier: &LoginIdentifier) -> UserId {
        UserId::from_trusted(format!("?{}", hex::encode(self.keyer.key("nobody", &identifier.parts()))))
    }

    /// Counts a code before it is created; fails with [`Error::TooManyCodes`]. A refused one does not count.
    ///
    /// Counts by the identifier that was used, not by the user: a shared limit would reveal that two identifiers belong to one
    /// user.
    pub(crate) async fn count_code(
        &self,
        caller: &Caller,
        identifier: &LoginIdentifier,
        ip: Option<IpAddr>,
        settings: &Codes,
    ) -> Result<()> {
        let address =
            ip.map(|ip| (self.keyer.key("codes for address", &[&self.keyer.ip(ip)]), settings.per_address));
        let name = (self.keyer.key("codes for name", &identifier.parts()), settings.per_user);
        // A limit that is off is not counted.
        let limits: Vec<(BucketKey, u32)> =
            address.into_iter().chain([name]).filter(|(_, limit)| *limit > 0).collect();
        if limits.is_empty() {
            return Ok(());
        }
        let (namespace, now) = (&caller.namespace, self.clock.now());
        let check = |counts: Vec<Count>| {
            let mut waits =
                counts.iter().zip(&limits).map(|(count, (_, limit))| Headroom::of(count, *limit, now));
            let refusal = waits.find_map(Headroom::retry_after);
            refusal.map_or(Ok(()), |retry_after| Err(Error::TooManyCodes { retry_after }))
        };
        let keys: Vec<BucketKey> = limits.iter().map(|(key, _)| *key).collect();
        let preview =
            counts::preview(&self.store.read(caller).await?, namespace, &keys, Period::at(now)).await?;
        check(preview)?; // refused by a read: writes are scarce
        let buckets: Vec<_> = keys.into_iter().map(|key| Bucket { key, account: None }).collect();
        let tx = self.store.begin(caller).await?; // any `?` from here to commit counts nothing
        let counted = counts::reserve(&tx, namespace, &buckets, Period::at(now), Attempt::Final).await?;
        // This one is counted already.
        let counts =
            counted.into_iter().map(|(count, _)| Count { used: count.used - 1, pending: 1, ..count });
        check(counts.collect())?;
        tx.commit().await
    }
}

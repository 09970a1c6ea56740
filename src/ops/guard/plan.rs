//! Where an attempt counts: under the name that was used, for the account, its address and its caller.

use std::net::IpAddr;

use crate::domain::caller::Caller;
use crate::domain::guard::{Counter, Mark};
use crate::domain::session::SessionToken;
use crate::domain::user_id::UserId;
use crate::error::Result;
use crate::store;

use super::super::Operations;
use super::Alias;

/// Where an attempt comes from, as far as it is told.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Origin<'a> {
    /// The end user's address.
    pub(in super::super) address: Option<IpAddr>,
    /// A session that the end user holds. A live one of the same user is as good as an address that the user signed in from.
    pub(in super::super) session: Option<&'a SessionToken>,
}

/// Where an attempt counts.
pub(super) struct Plan {
    /// Where failures in a row are counted.
    pub(super) streak: Mark,
    /// Where all failures of the account are counted.
    pub(super) account: Mark,
    /// What strangers share with others, and its limit.
    pub(super) shared: Vec<(Mark, u32)>,
    /// The user whose password it is, if there is one.
    pub(super) user: Option<UserId>,
    /// True if the user is known where it comes from.
    pub(super) known: bool,
    /// The end user's address.
    pub(super) address: Option<Mark>,
    /// True if the user signed in from that address before.
    pub(super) address_known: bool,
}

impl Plan {
    pub(super) fn marks(&self) -> Vec<Mark> {
        [self.streak, self.account].into_iter().chain(self.shared.iter().map(|(mark, _)| *mark)).collect()
    }

    /// The rows that it counts in, those of the account first.
    pub(super) fn counters(&self) -> Vec<Counter> {
        let of = |(n, mark)| Counter { mark, owner: (n < 2).then_some(self.account) };
        self.marks().into_iter().enumerate().map(of).collect()
    }
}

impl Operations {
    /// Finds out where an attempt counts. The same statements for a user who exists and one who does not.
    pub(super) async fn plan(
        &self,
        db: &store::Reader,
        caller: &Caller,
        alias: &Alias,
        user: Option<&UserId>,
        origin: Origin<'_>,
    ) -> Result<Plan> {
        let account = self.account_mark(alias, user);
        let address = origin.address.map(|address| self.marker.address(address));
        let mut known = match origin.session {
            Some(token) => self.session_mark(db, caller, user, token).await?,
            None => None,
        };
        let mut address_known = false;
        if let Some(address) = address {
            let user = user.map_or("", UserId::as_str);
            address_known = store::addresses::is_familiar(db, &caller.namespace, user, &address).await?;
            known = if address_known { Some(address) } else { known };
        }
        let streak = match &known {
            Some(origin) => self.marker.mark("familiar", &[&account, origin]),
            None => self.marker.mark("name", &alias.parts()),
        };
        let (shared, user) = (self.shared(caller, address), user.cloned());
        Ok(Plan { streak, account, shared, user, known: known.is_some(), address, address_known })
    }

    /// Returns the mark of the session that `token` opens, if it is open and the user's.
    async fn session_mark(
        &self,
        db: &store::Reader,
        caller: &Caller,
        user: Option<&UserId>,
        token: &SessionToken,
    ) -> Result<Option<Mark>> {
        let session = store::sessions::find(db, &caller.namespace, token.digest()).await?;
        let own = session.filter(|session| self.is_open(session) && Some(&session.user) == user);
        Ok(own.map(|session| self.marker.mark("session", &[session.public_id.as_bytes()])))
    }

    /// What strangers share with others, and its limit. Where the user is known, nobody else's failures keep the user out.
    /// A limit that is off is not counted: all calls of a caller would wait for one row.
    fn shared(&self, caller: &Caller, address: Option<Mark>) -> Vec<(Mark, u32)> {
        let limits = &self.rules.guard;
        let mut shared: Vec<_> = address.map(|address| (address, limits.address)).into_iter().collect();
        shared.push((self.marker.mark("caller", &[caller.name.as_bytes()]), limits.caller));
        shared.retain(|(_, limit)| *limit > 0);
        shared
    }

    pub(super) fn account_mark(&self, alias: &Alias, user: Option<&UserId>) -> Mark {
        match user {
            Some(id) => self.marker.mark("account", &[id.as_str().as_bytes()]),
            None => self.marker.mark("account", &alias.parts()),
        }
    }
}

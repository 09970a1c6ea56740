//! Use of a code: verifies it, then deletes it and runs its operation in one transaction.

use crate::domain::caller::Caller;
use crate::domain::code::{Binding, CodePurpose, EnteredCode, StoredCode};
use crate::domain::event::{Action, Event};
use crate::domain::password::{Password, PasswordHash};
use crate::domain::session::Device;
use crate::domain::user::{Account, Status, User};
use crate::error::{Error, Result};
use crate::store::{self, Transaction};
use crate::throttle::DigitsReservation;

use super::Operations;
use super::codes::CodeUse;
use super::users::UserRef;

/// A verified code, in the transaction that took it.
pub(super) struct VerifiedCode {
    /// The user as `tx` has locked it.
    pub(super) user: User,
    pub(super) code: StoredCode,
    /// The hash of [`Redemption::new_password`].
    pub(super) new_password: Option<PasswordHash>,
    pub(super) device: Device,
}

/// The operation that a code is for.
pub(super) trait Redemption: Sync {
    const PURPOSE: CodePurpose;

    /// True if wrong digits of before count no more.
    const RESETS_DIGITS: bool = false;

    type Output: Send;

    /// The password that it sets.
    fn new_password(&self) -> Option<&Password> {
        None
    }

    /// Runs it in the transaction that took the code, which is committed after it.
    fn act(
        &self,
        ops: &Operations,
        caller: &Caller,
        tx: &Transaction,
        verified: VerifiedCode,
    ) -> impl Future<Output = Result<Self::Output>> + Send;
}

impl Operations {
    /// Verifies a code and runs `redemption`, its operation.
    ///
    /// # Errors
    ///
    /// [`Error::BadCode`], [`Error::UserBlocked`] after a verified one only, [`Error::HasherBusy`],
    /// [`Error::TooManyAttempts`], and those of the operation, which leave the code valid.
    ///
    /// # Cancel safety
    ///
    /// If dropped before the code is verified, the attempt is refunded. Once storing the result has begun, it completes.
    pub(super) async fn redeem<R: Redemption>(
        &self,
        caller: &Caller,
        entered: &CodeUse,
        redemption: &R,
    ) -> Result<R::Output> {
        let permit = match entered.code {
            EnteredCode::Digits(_) => Some(self.reserve_hash(caller)?),
            EnteredCode::Link(_) => None,
            EnteredCode::Malformed => return Err(Error::BadCode),
        };
        let named = match &entered.user {
            Some(user) => self.find(caller, user).await?.map(|account| account.user.id),
            None => None,
        };
        let mut about = named.clone();
        let (code, mut reservation) = match (&entered.code, &entered.user, permit) {
            (EnteredCode::Digits(digits), Some(user), Some(permit)) => {
                let identifier = user.identifier();
                let of = named.unwrap_or_else(|| self.throttle.placeholder_user_id(&identifier));
                let reservation = self.throttle.reserve_digits(caller, &identifier, &of, R::PURPOSE).await?;
                let hash = reservation.code().map(|code| PasswordHash::from_trusted(code.secret.clone()));
                let is_verified = permit.verify_code(digits, hash.as_ref()).await?;
                (reservation.accept(is_verified), Some(reservation))
            }
            (EnteredCode::Link(digest), user, _) => {
                let db = self.store.read(caller).await?;
                let code = store::codes::find_link(&db, &caller.namespace, *digest).await?;
                let fits = |code: &StoredCode| {
                    let is_valid = code.purpose == R::PURPOSE && code.expires > self.clock.now();
                    is_valid && (user.is_none() || named.as_ref() == Some(&code.user))
                };
                about = about.or_else(|| code.as_ref().and_then(StoredCode::owner));
                (code.filter(fits), None)
            }
            _ => return Err(Error::BadCode),
        };
        let is_verified = code.is_some();
        let done = match code {
            Some(code) => self.take(caller, entered, redemption, &code, reservation.as_mut()).await,
            None => Err(Error::BadCode),
        };
        let Err(verdict @ (Error::BadCode | Error::UserBlocked)) = done else { return done };
        let event = Event::new(self.clock.now(), Action::CodeRefused, about).from(entered.device.clone());
        self.throttle
            .refuse_code(caller, reservation, event.changing(0, vec![R::PURPOSE.name()]), is_verified)
            .await?;
        Err(verdict)
    }

    /// Deletes a verified code and runs its operation, in one transaction.
    async fn take<R: Redemption>(
        &self,
        caller: &Caller,
        entered: &CodeUse,
        redemption: &R,
        code: &StoredCode,
        mut reservation: Option<&mut DigitsReservation>,
    ) -> Result<R::Output> {
        let new_password = match redemption.new_password() {
            Some(new) => Some(self.hash_by_code(caller, code, new).await?),
            None => None,
        };
        let verified = |user| VerifiedCode {
            user,
            code: code.clone(),
            new_password: new_password.clone(),
            device: entered.device.clone(),
        };
        match self.take_once(caller, redemption, code, verified, reservation.as_deref_mut()).await {
            // Two that wait for each other's addresses: the other one is done now.
            Err(error) if store::is_deadlock(&error) => {
                self.take_once(caller, redemption, code, verified, reservation).await
            }
            done => done,
        }
    }

    async fn take_once<R: Redemption>(
        &self,
        caller: &Caller,
        redemption: &R,
        code: &StoredCode,
        verified: impl FnOnce(User) -> VerifiedCode,
        reservation: Option<&mut DigitsReservation>,
    ) -> Result<R::Output> {
        let namespace = &caller.namespace;
        let tx = self.store.begin(caller).await?; // any `?` from here to commit leaves the code valid
        let account = store::users::lock(&tx, namespace, &code.user).await?;
        self.note_read_for_change(caller, &code.user);
        let user = recheck_code(account, code)?;
        // Before the code's row is locked, and all rows at once: see `throttle::digits`.
        if R::RESETS_DIGITS {
            self.throttle.reset_digits(&tx, caller, &user, reservation.as_deref()).await?;
        } else if let Some(reservation) = &reservation {
            reservation.refund_in(&tx).await?;
        }
        if !store::codes::take(&tx, namespace, code).await? {
            return Err(Error::BadCode);
        }
        let renamed = User { email: code.new_email.clone(), username: None, ..user.clone() };
        match redemption.act(self, caller, &tx, verified(user)).await {
            // A code is used up where the challenge of a second factor takes its place (R15).
            done @ (Ok(_) | Err(Error::SecondFactorRequired { .. })) => {
                match reservation {
                    Some(reservation) => reservation.commit(tx).await?,
                    None => tx.commit().await?,
                }
                done
            }
            Err(error) => {
                drop(tx);
                Err(self.with_conflict_holder(caller, &renamed, Some(&renamed.id), error).await)
            }
        }
    }

    /// Checks and hashes the new password. Only after a verified code, since the checks reveal the user's names.
    async fn hash_by_code(&self, caller: &Caller, code: &StoredCode, new: &Password) -> Result<PasswordHash> {
        let account = self.find(caller, &UserRef::Id(code.user.clone())).await?;
        self.screen("new_password", new, &recheck_code(account, code)?).await?;
        self.reserve_hash(caller)?.hash(new).await
    }
}

/// The user, if the code that was verified before this transaction may still be used. Anything else fails like a wrong one.
fn recheck_code(account: Option<Account>, code: &StoredCode) -> Result<User> {
    let user = account.ok_or(Error::BadCode)?.user;
    if Binding::of(&user) != code.bound || !code.purpose.fits(&user) {
        return Err(Error::BadCode);
    }
    match user.status {
        Status::Blocked => Err(Error::UserBlocked),
        Status::Pending | Status::Active => Ok(user),
    }
}

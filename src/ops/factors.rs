//! Second factors of users: enrolled, confirmed, removed.

use crate::domain::caller::Caller;
use crate::domain::email::Email;
use crate::domain::event::{Action, Event};
use crate::domain::password::Password;
use crate::domain::scope::Scope;
use crate::domain::session::{Device, SessionToken};
use crate::domain::totp::{Issuer, RecoveryCode, TotpEnrollment, TotpSecret};
use crate::domain::user::{Account, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Result};
use crate::store::factors::StoredTotp;
use crate::store::{self, Transaction};
use crate::throttle::{AttemptReservation, LoginIdentifier};

use super::second_factor::{FactorCode, FactorCodeAction, check_code};
use super::users::UserRef;
use super::verify::{PasswordAction, PasswordAttempt, Verified, recheck_credentials};
use super::{Operations, require};

/// The proof that a user wants a change of its second factors.
#[derive(Debug)]
pub enum FactorProof {
    /// None: an administrator wants it.
    Admin,
    /// The user's password.
    Password(Password),
    /// A code of a second factor.
    Code(FactorCode),
}

/// The user whose second factors are to change, and its proof.
#[derive(Debug)]
pub struct FactorRequest {
    /// Whose.
    pub user: UserId,
    /// Its proof.
    pub proof: FactorProof,
    /// The session that stays open, if the change ends sessions.
    pub keep: Option<SessionToken>,
    /// The end user's device, as far as the caller says.
    pub device: Device,
}

/// The second factors of a user.
#[derive(Debug)]
pub struct Factors {
    /// Its TOTP secret, confirmed or not.
    pub totp: Option<StoredTotp>,
    /// The number of recovery codes that are left.
    pub recovery_codes: u64,
}

/// A change of the second factors of a user whose row is locked.
trait Change: Sync {
    /// True if a user with a confirmed second factor must prove that: a stolen password alone must not remove it.
    const NEEDS_FACTOR: bool = false;

    type Output: Send;

    fn apply(
        &self,
        ops: &Operations,
        tx: &Transaction,
        caller: &Caller,
        user: &User,
        request: &FactorRequest,
    ) -> impl Future<Output = Result<Self::Output>> + Send;
}

struct Enroll<'a>(&'a Issuer);

impl Change for Enroll<'_> {
    type Output = TotpEnrollment;

    async fn apply(
        &self,
        ops: &Operations,
        tx: &Transaction,
        caller: &Caller,
        user: &User,
        request: &FactorRequest,
    ) -> Result<TotpEnrollment> {
        let (namespace, now) = (&caller.namespace, ops.clock.now());
        let secret = TotpSecret::generate().map_err(Error::internal)?;
        let sealed = ops.encrypt_secret(namespace, user, &secret)?;
        if !store::factors::enroll(tx, namespace, &user.id, sealed, now).await? {
            return Err(Error::FactorExists);
        }
        ops.note_factor_change(tx, caller, request, Action::TotpEnrolled).await?;
        let email = user.email.as_ref().map(Email::as_str);
        let account = email.or(user.username.as_ref().map(Username::as_str)).unwrap_or_default();
        secret.expose(self.0, account).map_err(Error::internal)
    }
}

struct Remove;

impl Change for Remove {
    const NEEDS_FACTOR: bool = true;

    type Output = ();

    async fn apply(
        &self,
        ops: &Operations,
        tx: &Transaction,
        caller: &Caller,
        user: &User,
        request: &FactorRequest,
    ) -> Result<()> {
        if !store::factors::delete(tx, &caller.namespace, &user.id).await? {
            return Err(Error::FactorNotFound);
        }
        let keep = request.keep.as_ref().map(SessionToken::digest);
        store::sessions::delete_of_user(tx, &caller.namespace, &user.id, keep).await?;
        ops.note_factor_change(tx, caller, request, Action::TotpRemoved).await
    }
}

struct NewRecoveryCodes;

impl Change for NewRecoveryCodes {
    type Output = Vec<RecoveryCode>;

    async fn apply(
        &self,
        ops: &Operations,
        tx: &Transaction,
        caller: &Caller,
        user: &User,
        request: &FactorRequest,
    ) -> Result<Vec<RecoveryCode>> {
        let factor = store::factors::find_confirmed(tx, &caller.namespace, &user.id).await?;
        factor.ok_or(Error::FactorNotFound)?;
        ops.note_factor_change(tx, caller, request, Action::RecoveryCodesCreated).await?;
        new_recovery_codes(tx, caller, user).await
    }
}

/// A change that the user's password was given for.
struct ByPassword<'a, C> {
    password: &'a Password,
    request: &'a FactorRequest,
    change: &'a C,
}

impl<C: Change> PasswordAction for ByPassword<'_, C> {
    type Output = C::Output;

    fn password_attempt(&self) -> PasswordAttempt<'_> {
        PasswordAttempt {
            identifier: LoginIdentifier::by_id(&self.request.user),
            password: self.password,
            device: &self.request.device,
            session: self.request.keep.as_ref(),
            refusal: Action::FactorRefused,
        }
    }

    async fn find(&self, ops: &Operations, caller: &Caller) -> Result<Option<Account>> {
        ops.find(caller, &UserRef::Id(self.request.user.clone())).await
    }

    async fn act(
        &self,
        ops: &Operations,
        caller: &Caller,
        attempt: &mut AttemptReservation,
        verified: Verified<'_>,
    ) -> Result<C::Output> {
        let tx = ops.store.begin(caller).await?;
        let account = store::users::lock(&tx, &caller.namespace, &self.request.user).await?;
        let user = recheck_credentials(account, verified.hash)?;
        if C::NEEDS_FACTOR
            && store::factors::find_confirmed(&tx, &caller.namespace, &user.id).await?.is_some()
        {
            return Err(Error::FactorCodeRequired);
        }
        let output = self.change.apply(ops, &tx, caller, &user, self.request).await?;
        attempt.succeed(tx).await?;
        Ok(output)
    }
}

/// A change that a code was given for.
struct ByCode<'a, C> {
    code: &'a FactorCode,
    request: &'a FactorRequest,
    change: &'a C,
}

impl<C: Change> FactorCodeAction for ByCode<'_, C> {
    type Output = C::Output;

    const REFUSAL: Action = Action::FactorRefused;

    async fn act(
        &self,
        ops: &Operations,
        tx: &Transaction,
        caller: &Caller,
        attempt: &AttemptReservation,
        user: Option<User>,
    ) -> Result<C::Output> {
        let user = user.ok_or(Error::BadFactorCode)?;
        ops.require_code(tx, caller, attempt, &user, &self.request.device, self.code).await?;
        self.change.apply(ops, tx, caller, &user, self.request).await
    }
}

/// The first code of a secret, which confirms it.
struct Confirm<'a> {
    code: &'a str,
    request: &'a FactorRequest,
}

impl FactorCodeAction for Confirm<'_> {
    type Output = Vec<RecoveryCode>;

    const REFUSAL: Action = Action::FactorRefused;

    async fn act(
        &self,
        ops: &Operations,
        tx: &Transaction,
        caller: &Caller,
        attempt: &AttemptReservation,
        user: Option<User>,
    ) -> Result<Vec<RecoveryCode>> {
        let (user, namespace, now) = (user.ok_or(Error::BadFactorCode)?, &caller.namespace, ops.clock.now());
        let factor = store::factors::find(tx, namespace, &user.id).await?;
        let factor = factor.filter(|factor| factor.confirmed.is_none());
        let secret = factor.and_then(|factor| ops.decrypt_secret(namespace, &user, &factor.secret));
        let step = secret.and_then(|secret| secret.step_of(self.code, now));
        check_code(attempt, step.is_some(), &user)?;
        store::factors::confirm(tx, namespace, &user.id, step.unwrap_or_default(), now).await?;
        let keep = self.request.keep.as_ref().map(SessionToken::digest);
        store::sessions::delete_of_user(tx, namespace, &user.id, keep).await?;
        ops.note_factor_change(tx, caller, self.request, Action::TotpConfirmed).await?;
        new_recovery_codes(tx, caller, &user).await
    }
}

impl Operations {
    /// Gives a user a secret that counts once it is confirmed. `issuer` is what apps show; `None`: the namespace.
    ///
    /// # Errors
    ///
    /// [`Error::EncryptionKeyMissing`], [`Error::FactorExists`], and those of the proof: [`Error::BadCredentials`],
    /// [`Error::BadFactorCode`], [`Error::UserBlocked`], [`Error::HasherBusy`], [`Error::TooManyAttempts`],
    /// [`Error::ScopeMissing`] and [`Error::UserNotFound`] without one.
    pub async fn enroll_totp(
        &self,
        caller: &Caller,
        request: &FactorRequest,
        issuer: Option<Issuer>,
    ) -> Result<TotpEnrollment> {
        if self.hasher.peppers().keys().current().is_none() {
            return Err(Error::EncryptionKeyMissing);
        }
        let issuer = match issuer {
            Some(issuer) => issuer,
            None => Issuer::parse(caller.namespace.as_str()).map_err(Error::internal)?,
        };
        self.change_factors(caller, request, &Enroll(&issuer)).await
    }

    /// Confirms a user's secret by its code, and gives the user recovery codes. Ends all sessions but one.
    ///
    /// # Errors
    ///
    /// [`Error::BadFactorCode`], also where there is nothing to confirm; [`Error::UserBlocked`],
    /// [`Error::TooManyAttempts`].
    pub async fn confirm_totp(
        &self,
        caller: &Caller,
        request: &FactorRequest,
        code: &str,
    ) -> Result<Vec<RecoveryCode>> {
        let confirm = Confirm { code, request };
        self.with_code(caller, &request.user, &request.device, request.keep.as_ref(), &confirm).await
    }

    /// Removes a user's secret and recovery codes. Ends all sessions but one.
    ///
    /// # Errors
    ///
    /// [`Error::FactorNotFound`], those of the proof, and [`Error::FactorCodeRequired`] for the password alone where the secret is
    /// confirmed.
    pub async fn remove_totp(&self, caller: &Caller, request: &FactorRequest) -> Result<()> {
        self.change_factors(caller, request, &Remove).await
    }

    /// Replaces a user's recovery codes.
    ///
    /// # Errors
    ///
    /// [`Error::FactorNotFound`], and those of the proof.
    pub async fn create_recovery_codes(
        &self,
        caller: &Caller,
        request: &FactorRequest,
    ) -> Result<Vec<RecoveryCode>> {
        self.change_factors(caller, request, &NewRecoveryCodes).await
    }

    /// The second factors of a user.
    pub async fn list_factors(&self, caller: &Caller, user: &UserId) -> Result<Factors> {
        let (db, namespace) = (self.store.read(caller).await?, &caller.namespace);
        store::users::find(&db, namespace, user).await?.ok_or(Error::UserNotFound)?;
        Ok(Factors {
            totp: store::factors::find(&db, namespace, user).await?,
            recovery_codes: store::factors::count_recovery_codes(&db, namespace, user).await?,
        })
    }

    /// Makes a change that its proof allows.
    async fn change_factors<C: Change>(
        &self,
        caller: &Caller,
        request: &FactorRequest,
        change: &C,
    ) -> Result<C::Output> {
        let FactorRequest { user, device, keep, .. } = request;
        match &request.proof {
            FactorProof::Password(password) => {
                self.with_verified_password(caller, &ByPassword { password, request, change }).await
            }
            FactorProof::Code(code) => {
                let by_code = ByCode { code, request, change };
                self.with_code(caller, user, device, keep.as_ref(), &by_code).await
            }
            FactorProof::Admin => {
                require(caller, Scope::UsersAdmin)?;
                let tx = self.store.begin(caller).await?;
                let account = store::users::lock(&tx, &caller.namespace, user).await?;
                self.note_read_for_change(caller, user);
                let user = account.ok_or(Error::UserNotFound)?.user;
                let output = change.apply(self, &tx, caller, &user, request).await?;
                tx.commit().await?;
                Ok(output)
            }
        }
    }

    async fn note_factor_change(
        &self,
        tx: &Transaction,
        caller: &Caller,
        request: &FactorRequest,
        action: Action,
    ) -> Result<()> {
        let event = Event::new(self.clock.now(), action, Some(request.user.clone()));
        store::events::append(tx, caller, &event.from(request.device.clone())).await
    }
}

async fn new_recovery_codes(tx: &Transaction, caller: &Caller, user: &User) -> Result<Vec<RecoveryCode>> {
    let codes: Vec<_> = (0..RecoveryCode::COUNT)
        .map(|_| RecoveryCode::generate())
        .collect::<Result<_, _>>()
        .map_err(Error::internal)?;
    store::factors::replace_recovery_codes(tx, &caller.namespace, &user.id, &codes).await?;
    Ok(codes)
}

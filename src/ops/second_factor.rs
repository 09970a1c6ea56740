//! The second factor of a log-in: the challenge that asks for it, and the code that answers it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::caller::Caller;
use crate::domain::event::{Action, Event};
use crate::domain::key_file::Sealed;
use crate::domain::namespace::Namespace;
use crate::domain::page_token::{ListDigest, ListFields};
use crate::domain::session::{Amr, Device, Session, SessionRequest, SessionToken};
use crate::domain::time::Timestamp;
use crate::domain::totp::{RecoveryCode, TotpSecret};
use crate::domain::user::{Status, User};
use crate::domain::user_id::UserId;
use crate::error::tally::LogLimiter;
use crate::error::{Challenge, Error, Result};
use crate::store::factors::StoredTotp;
use crate::store::{self, Transaction};
use crate::throttle::{AttemptReservation, LoginIdentifier, Origin};

use super::Operations;
use super::users::UserRef;
use super::verify::with_verdict;

/// The time for which a challenge is good.
const CHALLENGE_LIFETIME: Duration = Duration::from_mins(5);

/// Limits the log line about secrets that cannot be decrypted.
static UNREADABLE: LogLimiter = LogLimiter::after(1);

/// A code of a second factor, as typed.
pub enum FactorCode {
    /// Of an authenticator app.
    Totp(String),
    /// A recovery code.
    Recovery(String),
}

impl fmt::Debug for FactorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FactorCode(…)")
    }
}

/// The second step of a log-in.
#[derive(Debug)]
pub struct SecondStep {
    /// The challenge of the first step, as sent.
    pub challenge: Challenge,
    /// The code that answers it.
    pub code: FactorCode,
    /// The session to open.
    pub session: SessionRequest,
}

/// A log-in whose first proof was right, as its challenge keeps it. What it says of the user must still hold when it is
/// completed. Replicas of two versions accept each other's challenges as long as they have the same fields.
#[derive(Serialize, Deserialize)]
struct PendingLogin {
    user: String,
    generation: i64,
    password_updated: i64,
    sso_enabled: bool,
    /// When the second factor was enrolled.
    factor: i64,
    /// When the first proof was given.
    issued: i64,
    /// The names of its methods.
    amr: Vec<String>,
}

impl PendingLogin {
    fn new(user: &User, factor: &StoredTotp, issued: Timestamp, amr: &[Amr]) -> Self {
        Self {
            user: user.id.as_str().to_owned(),
            generation: user.generation,
            password_updated: user.password_updated.map_or(0, |at| at.0),
            sso_enabled: user.sso_enabled,
            factor: factor.created.0,
            issued: issued.0,
            amr: amr.iter().map(|method| method.name().to_owned()).collect(),
        }
    }

    /// Returns true if nothing that the first proof depends on has changed, no later log-in was completed, and the user's
    /// sessions were not ended since.
    fn still_holds(&self, user: &User, factor: &StoredTotp) -> bool {
        let now = Self::new(user, factor, Timestamp(self.issued), &[]);
        (self.generation, self.password_updated) == (now.generation, now.password_updated)
            && (self.sso_enabled, self.factor) == (now.sso_enabled, now.factor)
            && factor.challenge.0 < self.issued
    }
}

/// The operation that a code of a second factor is taken for.
pub(super) trait FactorCodeAction: Sync {
    type Output: Send;

    /// The event of a refusal.
    const REFUSAL: Action;

    /// Takes the code and does what it was given for, in a transaction that has the user's row locked, if there is one.
    fn act(
        &self,
        ops: &Operations,
        tx: &Transaction,
        caller: &Caller,
        attempt: &AttemptReservation,
        user: Option<User>,
    ) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// A second step whose challenge was opened.
struct OpenedStep<'a> {
    pending: PendingLogin,
    step: &'a SecondStep,
}

impl FactorCodeAction for OpenedStep<'_> {
    type Output = (SessionToken, Session);

    const REFUSAL: Action = Action::LoginRefused;

    async fn act(
        &self,
        ops: &Operations,
        tx: &Transaction,
        caller: &Caller,
        attempt: &AttemptReservation,
        user: Option<User>,
    ) -> Result<Self::Output> {
        let user = user.ok_or(Error::ChallengeInvalid)?;
        let factor = store::factors::find_confirmed(tx, &caller.namespace, &user.id).await?;
        factor.filter(|factor| self.pending.still_holds(&user, factor)).ok_or(Error::ChallengeInvalid)?;
        let SecondStep { code, session, .. } = self.step;
        ops.require_code(tx, caller, attempt, &user, &session.device, code).await?;
        let issued = Timestamp(self.pending.issued);
        store::factors::end_challenges(tx, &caller.namespace, &user.id, issued).await?;
        let mut amr: Vec<Amr> = self.pending.amr.iter().filter_map(|name| Amr::from_name(name)).collect();
        amr.push(match code {
            FactorCode::Totp(_) => Amr::Otp,
            FactorCode::Recovery(_) => Amr::Recovery,
        });
        ops.open_session_in(tx, caller, &user, session, &amr, Some(issued)).await
    }
}

impl Operations {
    /// Refuses a session that is to be opened by a first proof alone, where the user has a second factor.
    ///
    /// # Errors
    ///
    /// [`Error::SecondFactorRequired`] with the challenge.
    pub(super) async fn check_second_factor(
        &self,
        tx: &Transaction,
        caller: &Caller,
        user: &User,
        amr: &[Amr],
    ) -> Result<()> {
        let namespace = &caller.namespace;
        let Some(factor) = store::factors::find_confirmed(tx, namespace, &user.id).await? else {
            return Ok(());
        };
        // Later than the one that ended the others, whose replica may have a clock that is ahead.
        let issued = self.clock.now().max(Timestamp(factor.challenge.0 + 1));
        let pending = PendingLogin::new(user, &factor, issued, amr);
        let pending = serde_json::to_string(&pending).map_err(Error::internal)?;
        let challenge = Challenge(self.challenges.seal(&challenge_digest(namespace), &pending));
        Err(Error::SecondFactorRequired { challenge })
    }

    /// Opens the session of a log-in that a second factor was required for.
    ///
    /// # Errors
    ///
    /// [`Error::ChallengeInvalid`], [`Error::BadFactorCode`], [`Error::UserBlocked`] after the right code only,
    /// [`Error::TooManyAttempts`].
    pub async fn complete_login(
        &self,
        caller: &Caller,
        step: &SecondStep,
    ) -> Result<(SessionToken, Session)> {
        let opened = self.challenges.decrypt(&challenge_digest(&caller.namespace), &step.challenge.0);
        let pending: Option<PendingLogin> = opened.and_then(|text| serde_json::from_str(&text).ok());
        let now = self.clock.now();
        let is_good = |pending: &PendingLogin| Timestamp(pending.issued).plus(CHALLENGE_LIFETIME) > now;
        let pending = pending.filter(is_good).ok_or(Error::ChallengeInvalid)?;
        let user = UserId::from_trusted(pending.user.clone());
        let opened = OpenedStep { pending, step };
        let SessionRequest { device, replaces, .. } = &step.session;
        self.with_code(caller, &user, device, replaces.as_ref(), &opened).await
    }

    /// Lets `action` take a code within the limits of guessing.
    ///
    /// # Cancel safety
    ///
    /// As [`with_verified_password`](Self::with_verified_password).
    pub(super) async fn with_code<A: FactorCodeAction>(
        &self,
        caller: &Caller,
        user: &UserId,
        device: &Device,
        session: Option<&SessionToken>,
        action: &A,
    ) -> Result<A::Output> {
        let found = self.find(caller, &UserRef::Id(user.clone())).await?.map(|account| account.user.id);
        let session = self.own_session(caller, found.as_ref(), session).await?;
        let origin = Origin { ip: caller.end_user_address(device), session: session.as_deref() };
        let identifier = LoginIdentifier::by_second_factor(user);
        let mut attempt = self.throttle.reserve(caller, &identifier, found.as_ref(), origin).await?;
        let done = self.act_by_code(caller, user, &mut attempt, action).await;
        with_verdict(attempt, done, A::REFUSAL, device).await
    }

    async fn act_by_code<A: FactorCodeAction>(
        &self,
        caller: &Caller,
        user: &UserId,
        attempt: &mut AttemptReservation,
        action: &A,
    ) -> Result<A::Output> {
        let tx = self.store.begin(caller).await?; // any `?` from here to commit takes no code
        let account = store::users::lock(&tx, &caller.namespace, user).await?;
        let user = account.map(|account| account.user);
        let output = action.act(self, &tx, caller, attempt, user).await?;
        attempt.succeed(tx).await?;
        Ok(output)
    }

    /// Takes a code of a user whose row `tx` has locked.
    ///
    /// # Errors
    ///
    /// [`Error::BadFactorCode`], and [`Error::UserBlocked`] after the right one only.
    pub(super) async fn require_code(
        &self,
        tx: &Transaction,
        caller: &Caller,
        attempt: &AttemptReservation,
        user: &User,
        device: &Device,
        code: &FactorCode,
    ) -> Result<()> {
        let verified = match code {
            FactorCode::Totp(code) => self.take_totp(tx, caller, user, code).await?,
            FactorCode::Recovery(code) => self.take_recovery_code(tx, caller, user, device, code).await?,
        };
        check_code(attempt, verified, user)
    }

    async fn take_totp(&self, tx: &Transaction, caller: &Caller, user: &User, code: &str) -> Result<bool> {
        let (namespace, now) = (&caller.namespace, self.clock.now());
        let factor = store::factors::find_confirmed(tx, namespace, &user.id).await?;
        let Some(secret) = factor.and_then(|factor| self.decrypt_secret(namespace, user, &factor.secret))
        else {
            return Ok(false);
        };
        let Some(step) = secret.step_of(code, now) else { return Ok(false) };
        let sealed = self.encrypt_secret(namespace, user, &secret)?;
        store::factors::take_step(tx, namespace, &user.id, step, sealed, now).await
    }

    async fn take_recovery_code(
        &self,
        tx: &Transaction,
        caller: &Caller,
        user: &User,
        device: &Device,
        code: &str,
    ) -> Result<bool> {
        let Some(digest) = RecoveryCode::digest_of(code) else { return Ok(false) };
        let taken = store::factors::take_recovery_code(tx, &caller.namespace, &user.id, digest).await?;
        if taken {
            let event = Event::new(self.clock.now(), Action::RecoveryCodeUsed, Some(user.id.clone()));
            store::events::append(tx, caller, &event.from(device.clone())).await?;
        }
        Ok(taken)
    }

    /// Encrypts a secret for its user with the first key of `passwords.pepper`.
    pub(super) fn encrypt_secret(
        &self,
        namespace: &Namespace,
        user: &User,
        secret: &TotpSecret,
    ) -> Result<Sealed> {
        let keys = self.hasher.peppers().keys();
        keys.seal(&location(namespace, user), secret.as_bytes()).ok_or(Error::EncryptionKeyMissing)
    }

    /// The secret of a user; `None` if it cannot be decrypted: then no code of it is right.
    pub(super) fn decrypt_secret(
        &self,
        namespace: &Namespace,
        user: &User,
        sealed: &Sealed,
    ) -> Option<TotpSecret> {
        let keys = self.hasher.peppers().keys();
        let secret = keys.open(&location(namespace, user), sealed);
        let secret = secret.and_then(|bytes| TotpSecret::from_bytes(&bytes));
        if secret.is_none()
            && let Some(codes) = UNREADABLE.count()
        {
            let key = sealed.version;
            tracing::warn!(
                codes,
                key,
                "TOTP codes are rejected: passwords.pepper lacks the key of their secrets; `usersd doctor` counts them"
            );
        }
        secret
    }
}

/// Checks that a code proves something, and that its user is not blocked.
pub(super) fn check_code(attempt: &AttemptReservation, verified: bool, user: &User) -> Result<()> {
    if !attempt.accepts(verified) {
        return Err(Error::BadFactorCode);
    }
    if user.status == Status::Blocked { Err(Error::UserBlocked) } else { Ok(()) }
}

/// The location of a user's secret in the database, which it is encrypted for.
fn location<'a>(namespace: &'a Namespace, user: &'a User) -> [&'a [u8]; 3] {
    [b"totp", namespace.as_str().as_bytes(), user.id.as_str().as_bytes()]
}

/// Binds a challenge to a namespace.
fn challenge_digest(namespace: &Namespace) -> ListDigest {
    ListFields::new("challenge", namespace.as_str()).digest()
}

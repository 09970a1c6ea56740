//! Signing in with a password, and proving it once more.

use crate::domain::caller::Caller;
use crate::domain::email::Email;
use crate::domain::event::Action;
use crate::domain::password::{Password, PasswordHash};
use crate::domain::session::{Amr, Device, Session, SessionRequest, SessionToken};
use crate::domain::user::{Account, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Result};
use crate::store;
use crate::throttle::{AttemptReservation, LoginIdentifier};

use super::Operations;
use super::users::UserRef;
use super::verify::{PasswordAction, PasswordAttempt, Verified, recheck_credentials};

/// The credentials of a log-in, as typed. A text that cannot be a name matches no user.
#[derive(Debug)]
pub struct Login {
    /// The username.
    pub username: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// The password to try.
    pub password: Password,
    /// The session to open.
    pub session: SessionRequest,
}

/// The user that a log-in names.
struct Named {
    /// `None` if one of the texts cannot be a name, so that no user matches.
    user: Option<UserRef>,
    /// The address that this user must have too.
    email: Option<Email>,
    identifier: LoginIdentifier,
}

impl Login {
    /// Parses the names. A text that cannot be one identifies the attempt as it is.
    fn named(&self) -> Named {
        let username = self.username.as_deref().map(|raw| Username::parse(raw).map_err(|_| raw));
        let email = self.email.as_deref().map(|raw| Email::parse(raw).map_err(|_| raw));
        let name = username.as_ref().map(|name| name.as_ref().map_or_else(|raw| *raw, Username::as_str));
        let address = email.as_ref().map(|name| name.as_ref().map_or_else(|raw| *raw, Email::as_str));
        let identifier = LoginIdentifier::by_names(name, address);
        let (Ok(username), Ok(email)) = (username.transpose(), email.transpose()) else {
            return Named { user: None, email: None, identifier };
        };
        let user = username.map(UserRef::Username).or_else(|| email.clone().map(UserRef::Email));
        Named { user, email, identifier }
    }
}

/// A log-in whose names are parsed.
struct NamedLogin {
    login: Login,
    named: Named,
}

impl PasswordAction for NamedLogin {
    type Output = (SessionToken, Session);

    fn password_attempt(&self) -> PasswordAttempt<'_> {
        PasswordAttempt {
            identifier: self.named.identifier.clone(),
            password: &self.login.password,
            device: &self.login.session.device,
            session: self.login.session.replaces.as_ref(),
            refusal: Action::LoginRefused,
        }
    }

    async fn find(&self, ops: &Operations, caller: &Caller) -> Result<Option<Account>> {
        ops.find_named(caller, &self.named).await
    }

    async fn act(
        &self,
        ops: &Operations,
        caller: &Caller,
        attempt: &mut AttemptReservation,
        verified: Verified<'_>,
    ) -> Result<Self::Output> {
        let rehashed = ops.rehash_if_outdated(caller, &self.login.password, verified.hash).await;
        ops.open_session(caller, attempt, verified, rehashed, &self.login.session).await
    }
}

/// A password to verify, and nothing else.
#[derive(Debug)]
pub struct PasswordCheck {
    /// Whose.
    pub user: UserId,
    /// The password to try.
    pub password: Password,
    /// A session of the user. While it is open, the user is known wherever the attempt comes from.
    pub session: Option<SessionToken>,
    /// The end user's device, as far as the caller says.
    pub device: Device,
}

impl PasswordAction for PasswordCheck {
    type Output = User;

    fn password_attempt(&self) -> PasswordAttempt<'_> {
        PasswordAttempt {
            identifier: LoginIdentifier::by_id(&self.user),
            password: &self.password,
            device: &self.device,
            session: self.session.as_ref(),
            refusal: Action::LoginRefused,
        }
    }

    async fn find(&self, ops: &Operations, caller: &Caller) -> Result<Option<Account>> {
        ops.find(caller, &UserRef::Id(self.user.clone())).await
    }

    async fn act(
        &self,
        ops: &Operations,
        caller: &Caller,
        attempt: &mut AttemptReservation,
        verified: Verified<'_>,
    ) -> Result<User> {
        let tx = ops.store.begin(caller).await?;
        let account = store::users::lock(&tx, &caller.namespace, &self.user).await?;
        let user = recheck_credentials(account, verified.hash)?;
        attempt.succeed(tx).await?;
        Ok(user)
    }
}

impl Operations {
    /// Opens a session. The token is handed out here and never again.
    ///
    /// # Errors
    ///
    /// Those of a proof: `BadCredentials`, `UserBlocked` after the right password only, `HasherBusy`, `TooManyAttempts`.
    pub async fn login(&self, caller: &Caller, login: Login) -> Result<(SessionToken, Session)> {
        self.with_verified_password(caller, &NamedLogin { named: login.named(), login }).await
    }

    /// Verifies the password of a user, within the limits of guessing, and opens no session.
    ///
    /// # Errors
    ///
    /// Those of [`Operations::login`].
    pub async fn verify_password(&self, caller: &Caller, check: PasswordCheck) -> Result<User> {
        self.with_verified_password(caller, &check).await
    }

    /// The hash as we write it now, if the one that was verified is another system's or cheaper. If there is
    /// no time for it, the next log-in will do.
    async fn rehash_if_outdated(
        &self,
        caller: &Caller,
        password: &Password,
        hash: &PasswordHash,
    ) -> Option<PasswordHash> {
        if self.hasher.is_current(hash) {
            return None;
        }
        self.reserve_hash(caller).ok()?.hash(password).await.ok()
    }

    /// The live user that a log-in names.
    async fn find_named(&self, caller: &Caller, named: &Named) -> Result<Option<Account>> {
        let Some(user) = &named.user else { return Ok(None) };
        let account = self.find(caller, user).await?;
        Ok(account.filter(|account| named.email.is_none() || account.user.email == named.email))
    }

    async fn open_session(
        &self,
        caller: &Caller,
        attempt: &mut AttemptReservation,
        verified: Verified<'_>,
        rehashed: Option<PasswordHash>,
        wanted: &SessionRequest,
    ) -> Result<(SessionToken, Session)> {
        let id = &verified.user.id;
        let tx = self.store.begin(caller).await?;
        let account = store::users::lock(&tx, &caller.namespace, id).await?;
        let user = recheck_credentials(account, verified.hash)?;
        if let Some(rehashed) = &rehashed {
            store::users::renew_password(&tx, &caller.namespace, id, rehashed).await?;
        }
        match self.open_session_in(&tx, caller, &user, wanted, &[Amr::Password], None).await {
            // The second proof comes without the password, by which the hash was renewed.
            Err(required @ Error::SecondFactorRequired { .. }) if rehashed.is_some() => {
                tx.commit().await?;
                Err(required)
            }
            opened => {
                let opened = opened?;
                attempt.succeed(tx).await?;
                Ok(opened)
            }
        }
    }
}

//! Codes: created here, delivered by the caller, used in `redeem`.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::domain::caller::Caller;
use crate::domain::code::{Binding, CodeForm, CodePurpose, EnteredCode, LinkCode, StoredCode, random_digits};
use crate::domain::email::Email;
use crate::domain::event::{Action, Event};
use crate::domain::password::Password;
use crate::domain::session::{Amr, Device, Session, SessionRequest, SessionToken};
use crate::domain::time::Timestamp;
use crate::domain::user::{Changes, User};
use crate::error::{Error, Result};
use crate::store::{self, Transaction};
use crate::throttle::LoginIdentifier;

use super::Operations;
use super::edits::Edit;
use super::redeem::{Redemption, VerifiedCode};
use super::users::UserRef;

/// The maximum lifetime of numeric codes, and of codes that sign in (R16).
const MAX_SHORT_LIFETIME: Duration = Duration::from_mins(10);

/// A code to make.
#[derive(Debug)]
pub struct NewCode {
    /// The user.
    pub user: UserRef,
    /// The purpose.
    pub purpose: CodePurpose,
    /// The form.
    pub form: CodeForm,
    /// The address to be; only for [`CodePurpose::EmailChange`].
    pub new_email: Option<Email>,
    /// The end user's device, as far as the caller says.
    pub device: Device,
}

/// A code that an end user entered.
#[derive(Debug)]
pub struct CodeUse {
    /// The code.
    pub code: EnteredCode,
    /// The user; required for a numeric code.
    pub user: Option<UserRef>,
    /// The end user's device, as far as the caller says.
    pub device: Device,
}

impl UserRef {
    /// The identifier under which attempts are counted.
    pub(super) fn identifier(&self) -> LoginIdentifier {
        match self {
            Self::Id(id) => LoginIdentifier::by_id(id),
            Self::Username(username) => LoginIdentifier::by_names(Some(username.as_str()), None),
            Self::Email(email) => LoginIdentifier::by_names(None, Some(email.as_str())),
        }
    }
}

impl Operations {
    /// Creates a code, which replaces the user's code for the same purpose. For a name that no user has, does the same work
    /// and returns a code that is never accepted. Returns the code, which is stored only as a hash, and when it expires.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyCodes`], [`Error::HasherBusy`], and [`Error::UserNotFound`] for an unknown id.
    pub async fn create_code(&self, caller: &Caller, new: NewCode) -> Result<(Zeroizing<String>, Timestamp)> {
        let permit = match new.form {
            CodeForm::Digits(_) => Some(self.reserve_hash(caller)?),
            CodeForm::Link => None,
        };
        let user = self.find(caller, &new.user).await?.map(|account| account.user);
        if user.is_none() && matches!(new.user, UserRef::Id(_)) {
            return Err(Error::UserNotFound);
        }
        let (identifier, ip) = (new.user.identifier(), caller.end_user_address(&new.device));
        self.throttle.count_code(caller, &identifier, ip, &self.rules.codes).await?;
        let (code, secret) = if let (CodeForm::Digits(length), Some(permit)) = (new.form, permit) {
            let digits = random_digits(length).map_err(Error::internal)?;
            let hash = permit.hash_code(&Password::attempt((*digits).clone())).await?;
            (digits, hash.into_string())
        } else {
            let link = LinkCode::generate().map_err(Error::internal)?;
            (link.expose().to_owned().into(), hex::encode(link.digest().as_bytes()))
        };
        let now = self.clock.now();
        let mut stored = StoredCode {
            user: user
                .as_ref()
                .map_or_else(|| self.throttle.placeholder_user_id(&identifier), |user| user.id.clone()),
            purpose: new.purpose,
            secret,
            expires: now.plus(self.lifetime(new.purpose, new.form)),
            new_email: new.new_email,
            bound: user.as_ref().map(Binding::of).unwrap_or_default(),
        };
        let event = Event::new(now, Action::CodeCreated, user.map(|user| user.id));
        let event = event.changing(0, vec![new.purpose.name()]).from(new.device);
        let tx = self.store.begin(caller).await?;
        // A placeholder finds no row by the same statement. A code for a user who was deleted or changed since is stored
        // under the placeholder, too: no call accepts it.
        let live = store::users::lock(&tx, &caller.namespace, &stored.user).await?;
        if live.is_none_or(|live| Binding::of(&live.user) != stored.bound) {
            stored.user = self.throttle.placeholder_user_id(&identifier);
        }
        store::codes::replace(&tx, &caller.namespace, &stored).await?;
        store::events::append(&tx, caller, &event).await?;
        tx.commit().await?;
        Ok((code, stored.expires))
    }

    fn lifetime(&self, purpose: CodePurpose, form: CodeForm) -> Duration {
        let settings = &self.rules.codes;
        let longest = match purpose {
            CodePurpose::EmailVerification => settings.email_verification,
            CodePurpose::EmailChange => settings.email_change,
            CodePurpose::PasswordReset => settings.password_reset,
            CodePurpose::Login => MAX_SHORT_LIFETIME,
        };
        if form == CodeForm::Link { longest } else { longest.min(MAX_SHORT_LIFETIME) }
    }

    /// Verifies the user's address.
    ///
    /// # Errors
    ///
    /// Those of every code: [`Error::BadCode`], [`Error::UserBlocked`] after a verified one only,
    /// [`Error::TooManyAttempts`], [`Error::HasherBusy`].
    pub async fn verify_email(&self, caller: &Caller, used: &CodeUse) -> Result<User> {
        self.redeem(caller, used, &VerifyEmail).await
    }

    /// Replaces the user's address by the one that the code was made for.
    ///
    /// # Errors
    ///
    /// Those of every code, and [`Error::EmailTaken`].
    pub async fn confirm_email_change(&self, caller: &Caller, used: &CodeUse) -> Result<User> {
        self.redeem(caller, used, &ConfirmEmailChange).await
    }

    /// Sets a new password, ends all sessions and resets what was counted of failed log-ins and of wrong numeric codes.
    ///
    /// # Errors
    ///
    /// Those of every code, and after a verified one [`Error::Invalid`] if the password holds one of the user's names.
    pub async fn reset_password(&self, caller: &Caller, used: &CodeUse, new: Password) -> Result<User> {
        self.redeem(caller, used, &ResetPassword(new)).await
    }

    /// Opens a session.
    ///
    /// # Errors
    ///
    /// Those of every code.
    pub async fn login_with_code(
        &self,
        caller: &Caller,
        used: &CodeUse,
        wanted: SessionRequest,
    ) -> Result<(SessionToken, Session)> {
        self.redeem(caller, used, &LoginWithCode(wanted)).await
    }
}

struct VerifyEmail;

impl Redemption for VerifyEmail {
    const PURPOSE: CodePurpose = CodePurpose::EmailVerification;
    type Output = User;

    async fn act(
        &self,
        ops: &Operations,
        caller: &Caller,
        tx: &Transaction,
        verified: VerifiedCode,
    ) -> Result<User> {
        let edit = |user: &mut User| {
            let was_verified = std::mem::replace(&mut user.email_verified, true);
            if was_verified { Edit::default() } else { Edit::of("email_verified") }
        };
        ops.edit_by_code(caller, tx, verified, Action::VerificationUpdated, edit).await
    }
}

struct ConfirmEmailChange;

impl Redemption for ConfirmEmailChange {
    const PURPOSE: CodePurpose = CodePurpose::EmailChange;
    type Output = User;

    async fn act(
        &self,
        ops: &Operations,
        caller: &Caller,
        tx: &Transaction,
        verified: VerifiedCode,
    ) -> Result<User> {
        let changes = Changes { email: Some(verified.code.new_email.clone()), ..Changes::default() };
        let edit = |user: &mut User| {
            let was_verified = user.email_verified;
            let mut fields = user.apply(&changes);
            user.email_verified = true;
            fields.extend((!was_verified).then_some("email_verified"));
            Edit { fields, ..Edit::default() }
        };
        ops.edit_by_code(caller, tx, verified, Action::UserUpdated, edit).await
    }
}

struct ResetPassword(Password);

impl Redemption for ResetPassword {
    const PURPOSE: CodePurpose = CodePurpose::PasswordReset;
    const RESETS_DIGITS: bool = true;
    type Output = User;

    fn new_password(&self) -> Option<&Password> {
        Some(&self.0)
    }

    async fn act(
        &self,
        ops: &Operations,
        caller: &Caller,
        tx: &Transaction,
        mut verified: VerifiedCode,
    ) -> Result<User> {
        let password = verified.new_password.take();
        let edit = |_: &mut User| Edit { password, end_sessions: true, ..Edit::of("password") };
        let user = ops.edit_by_code(caller, tx, verified, Action::PasswordReset, edit).await?;
        ops.throttle.reset(tx, caller, &user).await?;
        Ok(user)
    }
}

struct LoginWithCode(SessionRequest);

impl Redemption for LoginWithCode {
    const PURPOSE: CodePurpose = CodePurpose::Login;
    type Output = (SessionToken, Session);

    async fn act(
        &self,
        ops: &Operations,
        caller: &Caller,
        tx: &Transaction,
        verified: VerifiedCode,
    ) -> Result<Self::Output> {
        ops.open_session_in(tx, caller, &verified.user, &self.0, &[Amr::Code], None).await
    }
}

impl Operations {
    /// Lets `edit` change the user of a verified code. Where nothing is to change only the event is written.
    async fn edit_by_code(
        &self,
        caller: &Caller,
        tx: &Transaction,
        verified: VerifiedCode,
        action: Action,
        edit: impl FnOnce(&mut User) -> Edit,
    ) -> Result<User> {
        let VerifiedCode { user: before, device, .. } = verified;
        let mut user = before.clone();
        let edit = edit(&mut user);
        let event = Event::new(self.clock.now(), action, Some(before.id.clone())).from(device);
        if edit.fields.is_empty() {
            store::events::append(tx, caller, &event).await?;
            return Ok(before);
        }
        self.touch(&mut user);
        self.write_edit(tx, caller, &before, &mut user, edit, event).await?;
        Ok(user)
    }
}

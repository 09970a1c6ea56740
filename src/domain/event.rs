//! Events: changes of users and of API keys.

use super::key::AllowedNamespaces;
use super::list::TimeRange;
use super::namespace::Namespace;
use super::page_token::{ListDigest, ListFields};
use super::session::Device;
use super::time::Timestamp;
use super::user_id::UserId;
use super::value::named_enum;

named_enum! {
    /// The action of an event. The names are stored: never change one.
    Action {
        /// A user was created.
        UserCreated = "USER_CREATED",
        /// Fields of a user changed.
        UserUpdated = "USER_UPDATED",
        /// A user went to the trash.
        UserDeleted = "USER_DELETED",
        /// A user came back from the trash.
        UserRestored = "USER_RESTORED",
        /// A user was removed from the trash.
        UserPurged = "USER_PURGED",
        /// A password was replaced by one who knew the old one.
        PasswordUpdated = "PASSWORD_UPDATED",
        /// A password was replaced without the old one.
        PasswordSet = "PASSWORD_SET",
        /// A password could not be replaced: the old one was wrong, or the user unknown or blocked.
        PasswordRefused = "PASSWORD_REFUSED",
        /// The status of a user changed.
        StatusUpdated = "STATUS_UPDATED",
        /// The verification of the e-mail address changed.
        VerificationUpdated = "VERIFICATION_UPDATED",
        /// The prefs of a user changed.
        PrefsUpdated = "PREFS_UPDATED",
        /// A user signed in.
        SessionCreated = "SESSION_CREATED",
        /// A session was ended, by its token or by its name.
        SessionDeleted = "SESSION_DELETED",
        /// All sessions of a user were ended by a caller.
        SessionsDeleted = "SESSIONS_DELETED",
        /// A log-in failed.
        LoginRefused = "LOGIN_REFUSED",
        /// The failures of a user to sign in were forgotten.
        UserUnlocked = "USER_UNLOCKED",
        /// Failures locked an account for some time.
        LockedOut = "LOCKED_OUT",
        /// An API key was made.
        KeyCreated = "KEY_CREATED",
        /// An API key was revoked.
        KeyRevoked = "KEY_REVOKED",
        /// An API key ended by itself.
        KeyExpired = "KEY_EXPIRED",
        /// A code was made.
        CodeCreated = "CODE_CREATED",
        /// A code was wrong.
        CodeRefused = "CODE_REFUSED",
        /// A password was replaced by a code.
        PasswordReset = "PASSWORD_RESET",
        /// A namespace was created.
        NamespaceCreated = "NAMESPACE_CREATED",
        /// Limits of a namespace changed.
        NamespaceUpdated = "NAMESPACE_UPDATED",
        /// A namespace began to be deleted.
        NamespaceDeleted = "NAMESPACE_DELETED",
        /// Nothing of a deleted namespace is left.
        NamespacePurged = "NAMESPACE_PURGED",
        /// A TOTP secret was made, which is not confirmed yet.
        TotpEnrolled = "TOTP_ENROLLED",
        /// A TOTP secret was confirmed.
        TotpConfirmed = "TOTP_CONFIRMED",
        /// A TOTP secret was removed.
        TotpRemoved = "TOTP_REMOVED",
        /// Recovery codes were replaced.
        RecoveryCodesCreated = "RECOVERY_CODES_CREATED",
        /// A recovery code was used.
        RecoveryCodeUsed = "RECOVERY_CODE_USED",
        /// A code was refused, or a change of the second factors.
        FactorRefused = "FACTOR_REFUSED",
    }
}

/// One row of the log. Who called and in which namespace is the caller's part.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it happened.
    pub at: Timestamp,
    /// The action.
    pub action: Action,
    /// The user; `None` where no user has the name that was tried.
    pub user: Option<UserId>,
    /// The user's version after it; 0 if the user did not change.
    pub version: i64,
    /// The names of the fields that changed; of a new key, its scopes; of a code, its purpose.
    pub changed: Vec<&'static str>,
    /// From where; what is not known is taken from the caller.
    pub device: Device,
    /// The public id of the session, the id of the key, or the name of the namespace, it is about; empty if it is about none.
    pub session: String,
}

impl Event {
    /// An event that changed no field of the user.
    pub fn new(at: Timestamp, action: Action, user: Option<UserId>) -> Self {
        Self {
            at,
            action,
            user,
            version: 0,
            changed: Vec::new(),
            device: Device::default(),
            session: String::new(),
        }
    }

    /// The same event as a change of a user's fields.
    pub fn changing(mut self, version: i64, changed: Vec<&'static str>) -> Self {
        self.version = version;
        self.changed = changed;
        self
    }

    /// The same event as one about a session or a key.
    pub fn about(mut self, session: &str) -> Self {
        session.clone_into(&mut self.session);
        self
    }

    /// The same event from a given device.
    pub fn from(mut self, device: Device) -> Self {
        self.device = device;
        self
    }
}

/// A row of the log as read back.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// Grows with each event. Of all tenants together: nothing that callers may see.
    pub seq: i64,
    /// When it happened.
    pub at: Timestamp,
    /// The action; `None` if only a newer server knows it.
    pub action: Option<Action>,
    /// The caller's name.
    pub caller: String,
    /// From where.
    pub device: Device,
    /// The names of the fields that changed; of a new key, its scopes.
    pub changed: Vec<String>,
    /// The public id of the session, or the id of the key, it is about; empty if it is about none.
    pub session: String,
}

impl LogRecord {
    /// Returns true if it is about an API key.
    pub fn is_of_key(&self) -> bool {
        matches!(self.action, Some(Action::KeyCreated | Action::KeyRevoked | Action::KeyExpired))
    }
}

/// Which events a log shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Only these; none: all.
    pub actions: Vec<Action>,
    /// When they happened.
    pub span: TimeRange,
}

impl LogFilter {
    /// Returns the digest that page tokens of this log of `user` are bound to.
    pub fn digest(&self, namespace: &Namespace, user: &UserId) -> ListDigest {
        let Self { actions, span } = self;
        let fields = ListFields::new("logs", namespace.as_str()).text(user.as_str());
        span.write(fields.texts(actions.iter().map(|action| action.name()))).digest()
    }
}

/// Which events of keys a log shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyLogFilter {
    /// Selects the events of root keys and of namespaces as wholes in place of those of the caller's namespace.
    pub root: bool,
    /// Only those about this key.
    pub key: Option<String>,
    /// When they happened.
    pub span: TimeRange,
}

impl KeyLogFilter {
    /// Returns the digest that page tokens of this log of keys of `namespaces` are bound to.
    pub fn digest(&self, namespaces: &AllowedNamespaces) -> ListDigest {
        let Self { root, key, span } = self;
        let fields = ListFields::new("key logs", namespaces.as_str()).flag(*root);
        span.write(fields.optional(key.as_deref())).digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_read_back_by_its_name() {
        for action in Action::ALL {
            assert_eq!(Action::from_name(action.name()), Some(action));
        }
        assert_eq!(Action::from_name("SOMETHING_NEW"), None);
    }
}

//! What happened to a user.

use super::session::Device;
use super::time::Timestamp;
use super::user_id::UserId;

/// What was done, or tried. The names are stored: never change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A user was created.
    UserCreated,
    /// Fields of a user changed.
    UserUpdated,
    /// A user went to the trash.
    UserDeleted,
    /// A user left the trash for good.
    UserPurged,
    /// A password was replaced.
    PasswordUpdated,
    /// A password could not be replaced: the old one was wrong, or the user unknown or blocked.
    PasswordRefused,
    /// A user signed in.
    SessionCreated,
    /// A session was ended by its token.
    SessionDeleted,
    /// Somebody failed to sign in.
    LoginRefused,
}

impl Action {
    /// The stored name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UserCreated => "USER_CREATED",
            Self::UserUpdated => "USER_UPDATED",
            Self::UserDeleted => "USER_DELETED",
            Self::UserPurged => "USER_PURGED",
            Self::PasswordUpdated => "PASSWORD_UPDATED",
            Self::PasswordRefused => "PASSWORD_REFUSED",
            Self::SessionCreated => "SESSION_CREATED",
            Self::SessionDeleted => "SESSION_DELETED",
            Self::LoginRefused => "LOGIN_REFUSED",
        }
    }
}

/// One row of the log. Who called and in which namespace is the caller's part.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub action: Action,
    /// To whom; `None` where nobody has the name that was tried.
    pub user: Option<UserId>,
    /// The user's version after it; 0 if the user did not change.
    pub version: i64,
    /// The names of the fields that changed.
    pub changed: Vec<&'static str>,
    /// From where; what is not known is taken from the caller.
    pub device: Device,
}

impl Event {
    /// An event that changed no field of the user.
    #[must_use]
    pub fn new(at: Timestamp, action: Action, user: Option<UserId>) -> Self {
        Self { at, action, user, version: 0, changed: Vec::new(), device: Device::default() }
    }

    /// The same event as a change of a user's fields.
    #[must_use]
    pub fn changing(mut self, version: i64, changed: Vec<&'static str>) -> Self {
        self.version = version;
        self.changed = changed;
        self
    }

    /// The same event from a given device.
    #[must_use]
    pub fn from(mut self, device: Device) -> Self {
        self.device = device;
        self
    }
}

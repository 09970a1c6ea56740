//! The errors of calls, and what their callers see of them.

pub mod tally;

use std::time::Duration;

use tonic::Code;

use crate::pb::ErrorReason;

pub use transcode::Fields;

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A challenge of a log-in, as callers get it and send it back. Not shown in log lines.
pub struct Challenge(pub String);

impl std::fmt::Debug for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Challenge(…)")
    }
}

/// An error of a call. `Display` is the message to the caller, so it holds no secret and no cause;
/// the cause is the `source` and goes to the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One or more request fields break their rule.
    #[error("some fields are not valid: {0}")]
    Invalid(Fields),
    /// The request's bytes are not the message they should be.
    #[error("the request does not decode: {0}")]
    Malformed(String),
    /// The request is longer than this many bytes.
    #[error("the message is longer than {0} bytes")]
    TooLarge(usize),
    /// The user authenticated longer ago than the caller accepts.
    #[error("the user has to authenticate again")]
    Reauthenticate,
    /// No live user in the caller's namespace.
    #[error("no such user")]
    UserNotFound,
    /// The token opens no session.
    #[error("no such session")]
    SessionNotFound,
    /// A user of the namespace, perhaps in the trash, has the id.
    #[error("id is taken")]
    IdTaken,
    /// Another live user has the username.
    #[error("username is taken")]
    UsernameTaken {
        /// The id of the user that has it, unless that user let go of it meanwhile.
        holder: Option<String>,
    },
    /// Another live user has the e-mail address.
    #[error("email is taken")]
    EmailTaken {
        /// The id of the user that has it, unless that user let go of it meanwhile.
        holder: Option<String>,
    },
    /// The user changed since the caller read it.
    #[error("the user has changed since its etag was read")]
    EtagMismatch,
    /// The user's e-mail address is not the one that the caller names.
    #[error("the user's email address has changed")]
    EmailMismatch,
    /// A call with the same idempotency key is in progress.
    #[error("a call with this idempotency key is in progress")]
    IdempotencyKeyInUse,
    /// Another call was made with the same idempotency key.
    #[error("the idempotency key was used for another call")]
    IdempotencyKeyReused,
    /// Unknown user or wrong password: one answer for both, so that names cannot be probed.
    #[error("username or password is wrong")]
    BadCredentials,
    /// A code of a second factor is wrong or was used before.
    #[error("the code is wrong or was used before")]
    BadFactorCode,
    /// The password or code is right, and the user has a second factor.
    #[error("the user has a second factor: complete the log-in with a TOTP or recovery code")]
    SecondFactorRequired {
        /// For the completion of the log-in.
        challenge: Challenge,
    },
    /// The password is right, and the user has a second factor, a code of which is required in its place.
    #[error("the user has a second factor: send a TOTP or recovery code in place of the password")]
    FactorCodeRequired,
    /// The challenge of a log-in has expired, was used or is not valid.
    #[error("the challenge has expired or is not valid: log in again")]
    ChallengeInvalid,
    /// The user has a confirmed second factor of that kind.
    #[error("the user already has a confirmed second factor of this kind")]
    FactorExists,
    /// The user has no such second factor.
    #[error("the user has no such second factor")]
    FactorNotFound,
    /// There is no key to encrypt a secret with.
    #[error("the server has no key to encrypt secrets with")]
    EncryptionKeyMissing,
    /// The password is right and the user may not sign in.
    #[error("the user is blocked")]
    UserBlocked,
    /// The code is wrong, used, replaced or expired: one answer for all, so that a guess reveals nothing.
    #[error("the code is not valid")]
    BadCode,
    /// Too many codes were created for the IP address or the identifier.
    #[error("too many codes were created")]
    TooManyCodes {
        /// When the caller may try again.
        retry_after: Duration,
    },
    /// The password could not be hashed in time.
    #[error("password hashing is busy")]
    HasherBusy {
        /// When the caller may try again.
        retry_after: Duration,
    },
    /// Too many passwords or codes were wrong.
    #[error("too many failed attempts")]
    TooManyAttempts {
        /// When the caller may try again.
        retry_after: Duration,
    },
    /// No key, or none that is valid.
    #[error("the call needs a valid API key: none was sent, or it is unknown, expired or revoked")]
    KeyUnknown,
    /// Two different keys in one request.
    #[error("the request carries two different API keys")]
    KeyAmbiguous,
    /// The caller may not make such calls.
    #[error("the key lacks the scope {scope}")]
    ScopeMissing {
        /// The scope it would need.
        scope: &'static str,
    },
    /// The key is of another namespace, two headers of one request name different ones, or the call needs a root key.
    #[error(
        "the request names a namespace that is not its key's, or two different ones, or needs a root key"
    )]
    NamespaceMismatch,
    /// A key for every namespace needs one to be named.
    #[error("the key works in every namespace: name one in the header usersd-namespace")]
    NamespaceMissing,
    /// No key with that id in the caller's namespace.
    #[error("no such key")]
    KeyNotFound,
    /// The namespace has as many keys as it may have.
    #[error("the namespace has the maximum number of keys: delete unused ones")]
    TooManyKeys,
    /// The namespace was never created and holds nothing.
    #[error("no such namespace")]
    NamespaceNotFound,
    /// The namespace was created before.
    #[error("the namespace was created before")]
    NamespaceTaken,
    /// The namespace is being deleted.
    #[error("the namespace is being deleted")]
    NamespaceBeingDeleted,
    /// The namespace has reached a limit.
    #[error("the namespace has reached its limit of {value} {subject}")]
    QuotaExceeded {
        /// The namespace.
        namespace: String,
        /// The name of the limit.
        limit: &'static str,
        /// The things that it counts, in words for people.
        subject: &'static str,
        /// Its value.
        value: u32,
        /// When the caller may try again, if time helps.
        retry_after: Option<Duration>,
    },
    /// There is no such RPC.
    #[error("no such method")]
    MethodUnknown,
    /// Without keys only programs of this machine are served.
    #[error("{0}")]
    ForeignOrigin(&'static str),
    /// As many calls are worked on as the server takes, at a time or a second.
    #[error("the server is at its limit of calls")]
    Overloaded {
        /// When the caller may try again.
        retry_after: Duration,
    },
    /// As many calls of the caller or its namespace are worked on as may be, at a time or a second.
    #[error("the caller or its namespace is at its limit of calls")]
    CallerLimited {
        /// When the caller may try again.
        retry_after: Duration,
    },
    /// A list took longer than `pool.list_timeout`.
    #[error(
        "the list takes too long: use page_token instead of a large offset, and set skip_total if the total is not needed"
    )]
    ListTooSlow,
    /// The caller's own deadline passed.
    #[error("the deadline of the call has passed")]
    DeadlinePassed,
    /// The database does not answer, or has to be asked again. It has changed nothing.
    #[error("the database is unavailable")]
    DatabaseUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database ended a statement that took too long. It has changed nothing, and would not the next
    /// time.
    #[error("the database did not answer in time")]
    DatabaseTooSlow(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection to the database was lost during the COMMIT.
    #[error(
        "the connection to the database was lost during the commit: the change may or may not have been made; read before you repeat it"
    )]
    OutcomeUnknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A fault of the server.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// The code and the stable reason. One row a variant; this table is the whole mapping.
    #[expect(clippy::too_many_lines, reason = "a table")]
    pub fn kind(&self) -> (Code, ErrorReason) {
        match self {
            Self::Invalid(_) => (Code::InvalidArgument, ErrorReason::FieldInvalid),
            Self::Malformed(_) => (Code::InvalidArgument, ErrorReason::Malformed),
            Self::TooLarge(_) => (Code::OutOfRange, ErrorReason::TooLarge),
            Self::UserNotFound => (Code::NotFound, ErrorReason::UserNotFound),
            Self::SessionNotFound => (Code::NotFound, ErrorReason::SessionNotFound),
            Self::Reauthenticate => (Code::FailedPrecondition, ErrorReason::Reauthenticate),
            Self::IdTaken => (Code::AlreadyExists, ErrorReason::IdTaken),
            Self::UsernameTaken { .. } => (Code::AlreadyExists, ErrorReason::UsernameTaken),
            Self::EmailTaken { .. } => (Code::AlreadyExists, ErrorReason::EmailTaken),
            Self::EtagMismatch => (Code::Aborted, ErrorReason::EtagMismatch),
            Self::EmailMismatch => (Code::Aborted, ErrorReason::EmailMismatch),
            Self::IdempotencyKeyInUse => (Code::Aborted, ErrorReason::IdempotencyKeyInUse),
            Self::IdempotencyKeyReused => (Code::FailedPrecondition, ErrorReason::IdempotencyKeyReused),
            Self::BadCredentials | Self::BadFactorCode => {
                (Code::Unauthenticated, ErrorReason::BadCredentials)
            }
            Self::SecondFactorRequired { .. } | Self::FactorCodeRequired => {
                (Code::FailedPrecondition, ErrorReason::SecondFactorRequired)
            }
            Self::ChallengeInvalid => (Code::Unauthenticated, ErrorReason::ChallengeInvalid),
            Self::FactorExists => (Code::AlreadyExists, ErrorReason::FactorExists),
            Self::FactorNotFound => (Code::NotFound, ErrorReason::FactorNotFound),
            Self::EncryptionKeyMissing => (Code::FailedPrecondition, ErrorReason::EncryptionKeyMissing),
            Self::UserBlocked => (Code::PermissionDenied, ErrorReason::UserBlocked),
            Self::BadCode => (Code::Unauthenticated, ErrorReason::BadCode),
            Self::TooManyCodes { .. } => (Code::ResourceExhausted, ErrorReason::TooManyCodes),
            Self::TooManyAttempts { .. } => (Code::ResourceExhausted, ErrorReason::TooManyAttempts),
            Self::HasherBusy { .. } => (Code::ResourceExhausted, ErrorReason::HasherBusy),
            Self::KeyUnknown => (Code::Unauthenticated, ErrorReason::KeyMissingOrUnknown),
            Self::KeyAmbiguous => (Code::Unauthenticated, ErrorReason::KeyAmbiguous),
            Self::ScopeMissing { .. } => (Code::PermissionDenied, ErrorReason::ScopeMissing),
            Self::NamespaceMissing => (Code::InvalidArgument, ErrorReason::NamespaceMissing),
            Self::KeyNotFound => (Code::NotFound, ErrorReason::KeyNotFound),
            Self::TooManyKeys => (Code::ResourceExhausted, ErrorReason::TooManyKeys),
            Self::NamespaceNotFound => (Code::NotFound, ErrorReason::NamespaceNotFound),
            Self::NamespaceTaken => (Code::AlreadyExists, ErrorReason::NamespaceTaken),
            Self::NamespaceBeingDeleted => (Code::FailedPrecondition, ErrorReason::NamespaceBeingDeleted),
            Self::QuotaExceeded { .. } => (Code::ResourceExhausted, ErrorReason::QuotaExceeded),
            Self::MethodUnknown => (Code::Unimplemented, ErrorReason::MethodUnknown),
            Self::NamespaceMismatch => (Code::PermissionDenied, ErrorReason::NamespaceMismatch),
            Self::ForeignOrigin(_) => (Code::PermissionDenied, ErrorReason::ForeignOrigin),
            Self::Overloaded { .. } => (Code::ResourceExhausted, ErrorReason::Overloaded),
            Self::CallerLimited { .. } => (Code::ResourceExhausted, ErrorReason::CallerLimited),
            Self::ListTooSlow => (Code::ResourceExhausted, ErrorReason::ListTooSlow),
            Self::DeadlinePassed => (Code::DeadlineExceeded, ErrorReason::DeadlinePassed),
            Self::DatabaseUnavailable(_) | Self::DatabaseTooSlow(_) => {
                (Code::Unavailable, ErrorReason::DatabaseUnavailable)
            }
            Self::OutcomeUnknown(_) => (Code::Unavailable, ErrorReason::OutcomeUnknown),
            Self::Internal(_) => (Code::Internal, ErrorReason::Internal),
        }
    }

    /// A fault of the server, with its cause for the log.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }

    /// One field at fault.
    pub fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        let mut fields = Fields::default();
        fields.add(field, why);
        Self::Invalid(fields)
    }
}

impl From<Fields> for Error {
    fn from(fields: Fields) -> Self {
        Self::Invalid(fields)
    }
}

/// An error and what lies under it, outermost first.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string();
        // Many libraries print their source as part of themselves.
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        next = cause.source();
    }
    text
}

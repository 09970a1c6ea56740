//! Sessions: what a log-in asks for, and what callers see of them.

use std::time::Duration;

use crate::domain::password::Password;
use crate::domain::session::{Session, SessionRequest, SessionToken};
use crate::domain::user_id::UserId;
use crate::error::{Error, Fields, Result};
use crate::ops::assertions::AssertionRequest;
use crate::ops::login::{Login, PasswordCheck};
use crate::pb;

use super::{device_of, non_empty};

/// The longest lifetime of an assertion, and the default.
const MAX_ASSERTION_LIFETIME: Duration = Duration::from_mins(5);
const DEFAULT_ASSERTION_LIFETIME: Duration = Duration::from_mins(1);

/// A session token that is needed. Whether it can be one of ours is the operation's to say.
pub(in crate::grpc) fn token(raw: String) -> Result<String> {
    if raw.is_empty() { Err(Error::invalid("session_id", "is required")) } else { Ok(raw) }
}

/// The token of a session that the end user holds; the empty text is none.
#[expect(clippy::option_option, reason = "outer: at fault or not; inner: there or not")]
pub(super) fn own_session(field: &str, raw: &str, fields: &mut Fields) -> Option<Option<SessionToken>> {
    let raw = non_empty(raw);
    fields.check_optional(field, raw.map(|raw| SessionToken::parse(raw).ok_or("is not a session token")))
}

/// The session that a log-in asks for.
pub(super) fn session_request(
    device: Option<pb::Device>,
    lifetime: Option<i64>,
    old_session: &str,
    longest: Duration,
    fields: &mut Fields,
) -> Option<SessionRequest> {
    let device = device_of(device, fields);
    let lifetime =
        fields.check_optional("lifetime", lifetime.map(|seconds| parse_lifetime(seconds, longest)));
    let replaces = own_session("replace_session", old_session, fields);
    Some(SessionRequest { device: device?, lifetime: lifetime?, replaces: replaces? })
}

fn parse_lifetime(seconds: i64, longest: Duration) -> Result<Duration, String> {
    let lifetime = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let fitting = lifetime.filter(|lifetime| *lifetime <= longest);
    fitting.ok_or_else(|| format!("must be from 1 to {} seconds", longest.as_secs()))
}

/// A log-in, of which a session may last as long as `longest`.
pub(in crate::grpc) fn login(request: pb::LoginRequest, longest: Duration) -> Result<Login> {
    let mut fields = Fields::default();
    if request.username.is_empty() && request.email.is_empty() {
        fields.add("username", "or email is required");
    }
    let pb::LoginRequest { username, email, password, device, lifetime, replace_session } = request;
    let session = session_request(device, lifetime, &replace_session, longest, &mut fields);
    let Some(session) = session else { return Err(Error::Invalid(fields)) };
    fields.none().map_err(Error::Invalid).map(|()| Login {
        username: Some(username).filter(|text| !text.is_empty()),
        email: Some(email).filter(|text| !text.is_empty()),
        password: Password::attempt(password),
        session,
    })
}

/// A password to verify.
pub(in crate::grpc) fn password_check(request: pb::VerifyPasswordRequest) -> Result<PasswordCheck> {
    let mut fields = Fields::default();
    let user = fields.check("user_id", UserId::parse(&request.user_id));
    if request.password.is_empty() {
        fields.add("password", "is required");
    }
    let session = own_session("session_id", &request.session_id, &mut fields);
    let device = device_of(request.device, &mut fields);
    let (Some(user), Some(session), Some(device)) = (user, session, device) else {
        return Err(Error::Invalid(fields));
    };
    let password = Password::attempt(request.password);
    fields.none().map_err(Error::Invalid).map(|()| PasswordCheck { user, password, session, device })
}

/// The token of a session to read, and the longest time since the user authenticated.
pub(in crate::grpc) fn session_to_read(
    request: pb::ReadSessionRequest,
) -> Result<(String, Option<Duration>)> {
    let mut fields = Fields::default();
    let pb::ReadSessionRequest { session_id, max_age } = request;
    let token = fields.check("session_id", Some(session_id).filter(|id| !id.is_empty()).ok_or("is required"));
    let max_age = fields.check_optional("max_age", max_age.map(parse_max_age));
    token.zip(max_age).ok_or(Error::Invalid(fields))
}

fn parse_max_age(seconds: i64) -> Result<Duration, &'static str> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or("must be at least 1 second")
}

/// An assertion to issue, for one of `audiences`.
pub(in crate::grpc) fn assertion_request(
    request: pb::IssueAssertionRequest,
    audiences: &[String],
) -> Result<AssertionRequest> {
    let pb::IssueAssertionRequest { session_id, audience, lifetime } = request;
    let mut fields = Fields::default();
    let token = fields.check("session_id", Some(session_id).filter(|id| !id.is_empty()).ok_or("is required"));
    let known = Some(audience).filter(|audience| audiences.contains(audience));
    let audience = fields.check("audience", known.ok_or("is not one of the server's audiences"));
    let lifetime = lifetime.map(|seconds| parse_lifetime(seconds, MAX_ASSERTION_LIFETIME));
    let lifetime = fields.check_optional("lifetime", lifetime);
    let (Some(token), Some(audience), Some(lifetime)) = (token, audience, lifetime) else {
        return Err(Error::Invalid(fields));
    };
    Ok(AssertionRequest { token, audience, lifetime: lifetime.unwrap_or(DEFAULT_ASSERTION_LIFETIME) })
}

pub(in crate::grpc) fn session(session: Session, token: String) -> pb::Session {
    pb::Session {
        id: token,
        username: session.username,
        email: session.email,
        created: session.created.seconds(),
        expires: session.expires.seconds(),
        user_id: session.user.into_string(),
        public_id: session.public_id,
        auth_time: session.auth_time.seconds(),
        amr: methods(&session.amr),
    }
}

/// The names of the methods that are stored with a session.
pub(super) fn methods(amr: &str) -> Vec<String> {
    amr.split_ascii_whitespace().map(str::to_owned).collect()
}

//! Requests about codes.

use std::time::Duration;

use crate::domain::code::{CodeForm, CodePurpose, DIGITS, EnteredCode};
use crate::domain::email::Email;
use crate::domain::password::{Password, PasswordPolicy};
use crate::domain::session::SessionRequest;
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Fields, Result};
use crate::ops::codes::{CodeUse, NewCode};
use crate::ops::users::UserRef;
use crate::pb;

use super::sessions::session_request;
use super::{device_of, non_empty, required_password};

/// The texts by which a request names a user: id, username and e-mail address.
type Names = [String; 3];

/// A code to make.
pub(in crate::grpc) fn new_code(request: pb::CreateCodeRequest) -> Result<NewCode> {
    let mut fields = Fields::default();
    let form = form(&request, &mut fields);
    let purpose = fields.check("purpose", purpose(request.purpose).ok_or("is required"));
    let user = user(&[request.id, request.username, request.email], &mut fields);
    if matches!(user, Some(None)) {
        fields.add("id", "or username or email is required");
    }
    let new_email = fields.check_optional("new_email", non_empty(&request.new_email).map(Email::parse));
    match purpose {
        Some(CodePurpose::EmailChange) if request.new_email.is_empty() => {
            fields.add("new_email", "is required");
        }
        Some(CodePurpose::EmailChange) | None => {}
        Some(_) if request.new_email.is_empty() => {}
        Some(_) => fields.add("new_email", "is only for CODE_PURPOSE_EMAIL_CHANGE"),
    }
    let device = device_of(request.device, &mut fields);
    match (user.flatten(), purpose, form, new_email, device) {
        (Some(user), Some(purpose), Some(form), Some(new_email), Some(device)) => {
            fields.none().map_err(Error::Invalid).map(|()| NewCode { user, purpose, form, new_email, device })
        }
        _ => Err(Error::Invalid(fields)),
    }
}

fn purpose(number: i32) -> Option<CodePurpose> {
    match pb::CodePurpose::try_from(number).ok()? {
        pb::CodePurpose::Unspecified => None,
        pb::CodePurpose::EmailVerification => Some(CodePurpose::EmailVerification),
        pb::CodePurpose::EmailChange => Some(CodePurpose::EmailChange),
        pb::CodePurpose::PasswordReset => Some(CodePurpose::PasswordReset),
        pb::CodePurpose::Login => Some(CodePurpose::Login),
    }
}

fn form(request: &pb::CreateCodeRequest, fields: &mut Fields) -> Option<CodeForm> {
    let form = pb::CodeForm::try_from(request.form).map_err(|_| "is not a known form");
    match fields.check("form", form)? {
        pb::CodeForm::Digits => {
            let length = if request.length == 0 {
                *DIGITS.start()
            } else {
                u32::try_from(request.length).unwrap_or(0)
            };
            let why = format!("must be {} to {}", DIGITS.start(), DIGITS.end());
            fields
                .check("length", Some(length).filter(|length| DIGITS.contains(length)).ok_or(why))
                .map(CodeForm::Digits)
        }
        pb::CodeForm::Unspecified | pb::CodeForm::Link => {
            let none = (request.length == 0).then_some(CodeForm::Link);
            fields.check("length", none.ok_or("is only for CODE_FORM_DIGITS"))
        }
    }
}

/// The user that a request names by one text at most.
#[expect(clippy::option_option, reason = "outer: at fault or not; inner: there or not")]
fn user([id, username, email]: &Names, fields: &mut Fields) -> Option<Option<UserRef>> {
    let texts = [("id", id), ("username", username), ("email", email)];
    let given: Vec<_> = texts.into_iter().filter(|(_, text)| !text.is_empty()).collect();
    if given.len() > 1 {
        for (name, _) in given {
            fields.add(name, "must be the only one of id, username and email");
        }
        return None;
    }
    let id = fields.check_optional("id", non_empty(id).map(UserId::parse))?;
    let username = fields.check_optional("username", non_empty(username).map(Username::parse))?;
    let email = fields.check_optional("email", non_empty(email).map(Email::parse))?;
    let username = username.map(UserRef::Username);
    Some(id.map(UserRef::Id).or(username).or(email.map(UserRef::Email)))
}

/// A code that was entered.
pub(in crate::grpc) fn code_use(code: String, names: &Names, device: Option<pb::Device>) -> Result<CodeUse> {
    let mut fields = Fields::default();
    let used = entered(code, names, device, &mut fields);
    used.filter(|_| fields.is_empty()).ok_or(Error::Invalid(fields))
}

/// A code that was entered, and the session that it is to open, which may last as long as `longest`.
pub(in crate::grpc) fn code_login(
    request: pb::LoginWithCodeRequest,
    longest: Duration,
) -> Result<(CodeUse, SessionRequest)> {
    let mut fields = Fields::default();
    let pb::LoginWithCodeRequest { code, id, username, email, device, lifetime, replace_session } = request;
    let used = entered(code, &[id, username, email], device.clone(), &mut fields);
    let wanted = session_request(device, lifetime, &replace_session, longest, &mut fields);
    used.zip(wanted).filter(|_| fields.is_empty()).ok_or(Error::Invalid(fields))
}

/// A code that was entered, and the password that it sets.
pub(in crate::grpc) fn password_reset(
    request: pb::ResetPasswordRequest,
    policy: &PasswordPolicy,
) -> Result<(CodeUse, Password)> {
    let mut fields = Fields::default();
    let names = [request.id, request.username, request.email];
    let used = entered(request.code, &names, request.device, &mut fields);
    let new = fields.check("new_password", required_password(request.new_password, policy));
    used.zip(new).filter(|_| fields.is_empty()).ok_or(Error::Invalid(fields))
}

fn entered(code: String, names: &Names, device: Option<pb::Device>, fields: &mut Fields) -> Option<CodeUse> {
    if code.is_empty() {
        fields.add("code", "is required");
    }
    let (code, user) = (EnteredCode::parse(code), user(names, fields));
    if matches!((&code, &user), (EnteredCode::Digits(_), Some(None))) {
        fields.add("id", "or username or email is required with a numeric code");
    }
    let device = device_of(device, fields)?;
    Some(CodeUse { code, user: user?, device })
}

//! Second factors.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::domain::password::Password;
use crate::domain::time::Timestamp;
use crate::domain::totp::{Issuer, RecoveryCode};
use crate::domain::user_id::UserId;
use crate::error::{Challenge, Error, Fields, Result};
use crate::ops::factors::{FactorProof, FactorRequest, Factors};
use crate::ops::second_factor::{FactorCode, SecondStep};
use crate::pb;

use super::sessions::{own_session, session_request};
use super::{device_of, non_empty};

/// The proofs that a request may give, as sent.
struct Proofs {
    password: String,
    totp: String,
    recovery_code: String,
}

impl Proofs {
    /// The one that is given; none: an administrator's request.
    fn only(self, fields: &mut Fields) -> FactorProof {
        let Self { password, totp, recovery_code } = self;
        let all = [("password", &password), ("totp", &totp), ("recovery_code", &recovery_code)];
        let given: Vec<&str> =
            all.iter().filter(|(_, text)| !text.is_empty()).map(|(name, _)| *name).collect();
        match given[..] {
            [] => FactorProof::Admin,
            ["password"] => FactorProof::Password(Password::attempt(password)),
            ["totp"] => FactorProof::Code(FactorCode::Totp(totp)),
            ["recovery_code"] => FactorProof::Code(FactorCode::Recovery(recovery_code)),
            _ => {
                for name in given {
                    fields.add(name, "must be the only proof");
                }
                FactorProof::Admin
            }
        }
    }
}

/// The request that these fields make, unless there are faults among them or before.
fn request(
    user: &str,
    proofs: Proofs,
    keep: &str,
    device: Option<pb::Device>,
    mut fields: Fields,
) -> Result<FactorRequest> {
    let user = fields.check("user_id", UserId::parse(user));
    let proof = proofs.only(&mut fields);
    let keep = own_session("keep_session", keep, &mut fields);
    let device = device_of(device, &mut fields);
    let (Some(user), Some(keep), Some(device)) = (user, keep, device) else {
        return Err(Error::Invalid(fields));
    };
    fields.none().map_err(Error::Invalid).map(|()| FactorRequest { user, proof, keep, device })
}

pub(in crate::grpc) fn enrollment(message: pb::EnrollTotpRequest) -> Result<(FactorRequest, Option<Issuer>)> {
    let mut fields = Fields::default();
    let issuer = fields.check_optional("issuer", non_empty(&message.issuer).map(Issuer::parse));
    let proofs = Proofs { password: message.password, totp: String::new(), recovery_code: String::new() };
    let request = request(&message.user_id, proofs, "", message.device, fields)?;
    Ok((request, issuer.flatten()))
}

/// The user, and the code that confirms its secret.
pub(in crate::grpc) fn confirmation(
    message: pb::ConfirmTotpRequest,
) -> Result<(FactorRequest, Zeroizing<String>)> {
    let mut fields = Fields::default();
    if message.totp.is_empty() {
        fields.add("totp", "is required");
    }
    let proofs = Proofs { password: String::new(), totp: String::new(), recovery_code: String::new() };
    let request = request(&message.user_id, proofs, &message.keep_session, message.device, fields)?;
    Ok((request, Zeroizing::new(message.totp)))
}

pub(in crate::grpc) fn removal(message: pb::RemoveTotpRequest) -> Result<FactorRequest> {
    let pb::RemoveTotpRequest { user_id, password, totp, recovery_code, device, keep_session } = message;
    request(&user_id, Proofs { password, totp, recovery_code }, &keep_session, device, Fields::default())
}

pub(in crate::grpc) fn new_codes(message: pb::CreateRecoveryCodesRequest) -> Result<FactorRequest> {
    let pb::CreateRecoveryCodesRequest { user_id, totp, recovery_code, device } = message;
    let proofs = Proofs { password: String::new(), totp, recovery_code };
    request(&user_id, proofs, "", device, Fields::default())
}

pub(in crate::grpc) fn recovery_codes(codes: &[RecoveryCode]) -> Vec<String> {
    codes.iter().map(RecoveryCode::expose).collect()
}

pub(in crate::grpc) fn factors(factors: &Factors) -> pb::ListFactorsResponse {
    let seconds = |at: Option<Timestamp>| at.map_or(0, Timestamp::seconds);
    let totp = factors.totp.as_ref().map(|totp| pb::Factor {
        kind: pb::FactorKind::Totp.into(),
        created: totp.created.seconds(),
        confirmed: seconds(totp.confirmed),
        used: seconds(totp.used),
    });
    let recovery_codes = i64::try_from(factors.recovery_codes).unwrap_or(i64::MAX);
    pb::ListFactorsResponse { factors: totp.into_iter().collect(), recovery_codes }
}

/// The second step of a log-in, of which a session may last as long as `longest`.
pub(in crate::grpc) fn second_step(
    message: pb::CompleteLoginRequest,
    longest: Duration,
) -> Result<SecondStep> {
    let pb::CompleteLoginRequest { challenge, totp, recovery_code, device, lifetime, replace_session } =
        message;
    let mut fields = Fields::default();
    if challenge.is_empty() {
        fields.add("challenge", "is required");
    }
    let code = match (totp.is_empty(), recovery_code.is_empty()) {
        (false, true) => FactorCode::Totp(totp),
        (true, false) => FactorCode::Recovery(recovery_code),
        (none, _) => {
            fields.add(
                "totp",
                if none { "or recovery_code is required" } else { "cannot be given with recovery_code" },
            );
            FactorCode::Totp(totp)
        }
    };
    let session = session_request(device, lifetime, &replace_session, longest, &mut fields);
    let Some(session) = session else { return Err(Error::Invalid(fields)) };
    fields.none().map_err(Error::Invalid).map(|()| SecondStep {
        challenge: Challenge(challenge),
        code,
        session,
    })
}

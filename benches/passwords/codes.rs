//! Whether the time of making a code, and of trying a wrong one, tells who exists.

use std::time::Instant;

use usersd::domain::caller::Caller;
use usersd::domain::code::{CodeForm, CodePurpose, EnteredCode};
use usersd::domain::session::{Device, SessionRequest};
use usersd::domain::username::Username;
use usersd::error::Error;
use usersd::ops::Operations;
use usersd::ops::codes::{CodeUse, NewCode};
use usersd::ops::users::UserRef;

use crate::Result;
use crate::figures::median;

/// Each of a name of its own: a user can try ten wrong digits a day.
const SAMPLES: u32 = 1_000;

/// The larger difference of the medians of known and unknown names, in seconds. The known ones are the users that `timing`
/// made for its comparison where costs differ.
pub(super) async fn differ(ops: &Operations, caller: &Caller) -> Result<f64> {
    let mut times = [const { Vec::new() }; 4];
    for n in 0..SAMPLES {
        // In turns, forward and backward: the one before may leave something behind.
        let names = [format!("mixed-{n}"), format!("nobody-{n}")];
        for turn in 0..2 {
            let class = (n as usize + turn) % 2;
            let (made, tried) = sample(ops, caller, &names[class]).await?;
            times[class].push(made);
            times[2 + class].push(tried);
        }
    }
    let [made, nobody, tried, nobodys] = times.map(|times| median(&times));
    eprintln!(
        "timing: codes made {:.3}, for nobody {:.3} ms; wrong {:.3}, of nobody {:.3} ms",
        made * 1e3,
        nobody * 1e3,
        tried * 1e3,
        nobodys * 1e3
    );
    Ok((made - nobody).abs().max((tried - nobodys).abs()))
}

/// Seconds for making digits, and for trying wrong ones.
async fn sample(ops: &Operations, caller: &Caller, name: &str) -> Result<(f64, f64)> {
    let user = UserRef::Username(Username::parse(name)?);
    let new = NewCode {
        user: user.clone(),
        purpose: CodePurpose::Login,
        form: CodeForm::Digits(6),
        new_email: None,
        device: Device::default(),
    };
    let begun = Instant::now();
    let (code, _) = ops.create_code(caller, new).await?;
    let made = begun.elapsed().as_secs_f64();
    let wrong = if *code == *"000000" { "000001" } else { "000000" };
    let entered =
        CodeUse { code: EnteredCode::parse(wrong.to_owned()), user: Some(user), device: Device::default() };
    let begun = Instant::now();
    let answer = ops.login_with_code(caller, &entered, SessionRequest::default()).await;
    let tried = begun.elapsed().as_secs_f64();
    match answer {
        Err(Error::BadCode) => Ok((made, tried)),
        other => Err(format!("wrong digits of {name}: {other:?}").into()),
    }
}

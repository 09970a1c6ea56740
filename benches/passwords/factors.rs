//! What a second factor adds to a log-in.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use super::load::{Clients, Login, credentials};
use super::{ROUNDS, float, start_server};
use crate::Result;
use crate::figures::{Figure, Target};

/// Log-ins of a turn, each of another user: a code is taken once.
const LOGINS: usize = 12;

/// CPU time of the server for a log-in with a code of an app, hashing included, beside one without, in turns.
pub(crate) async fn measure(binary: &Path) -> Result<Figure> {
    let dir = tempfile::Builder::new().prefix("usersd-bench-").tempdir()?;
    let keys = dir.path().join("keys");
    std::fs::write(&keys, format!("1 {}=\n", "A".repeat(43)))?;
    let server = start_server(binary, dir.path(), Some(&keys)).await?;
    let clients = Clients::seed(server.address).await?;
    let mut millis = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let first = round * LOGINS;
        let mut secrets = Vec::new();
        for user in first..first + LOGINS {
            secrets.push((user, enroll(&clients, user).await?));
        }
        for turn in [round % 2, (round + 1) % 2] {
            let before = server.cpu_times_with_hashing()?;
            for (user, secret) in &secrets {
                if turn == 1 {
                    sign_in(&clients, *user, secret).await?;
                } else if !matches!(clients.login(user + ROUNDS * LOGINS).await, Login::Done) {
                    return Err("a log-in without a second factor failed".into());
                }
            }
            let nanos = server.cpu_times_with_hashing()?.since(&before);
            millis[turn].push(Duration::from_nanos(nanos).as_secs_f64() * 1e3 / float(LOGINS));
        }
    }
    server.stop().await?;
    let [without, with] = millis;
    let name = "a log-in with a second factor, CPU with hashing, beside one without";
    Ok(Figure::beside(name, "ms", &with, &without, Target::AtMost(1.02)))
}

/// Gives a user a second factor. Returns its secret, of which the present code is used up.
async fn enroll(clients: &Clients, user: usize) -> Result<String> {
    let (_, found) = clients.get(&format!("/v1/users:lookup?username=bench-{user}")).await?;
    let path = format!("/v1/users/{}/totp", found["user"]["id"].as_str().ok_or("no user")?);
    let shown = call(clients, &format!("{path}:enroll"), json!({}), StatusCode::OK).await?;
    let secret = shown["secret"].as_str().ok_or("no secret")?.to_owned();
    call(clients, &format!("{path}:confirm"), json!({"totp": code(&secret, 0)?}), StatusCode::OK).await?;
    Ok(secret)
}

async fn sign_in(clients: &Clients, user: usize, secret: &str) -> Result<()> {
    let password = serde_json::from_str(&credentials(user))?;
    let refused = call(clients, "/v1/sessions", password, StatusCode::BAD_REQUEST).await?;
    let challenge = &refused["details"][0]["metadata"]["challenge"];
    // The next code: that of now confirmed the secret.
    let completion = json!({"challenge": challenge, "totp": code(secret, 30)?});
    call(clients, "/v1/sessions:complete", completion, StatusCode::OK).await.map(|_| ())
}

async fn call(clients: &Clients, path: &str, body: Value, wanted: StatusCode) -> Result<Value> {
    let (status, answer) = clients.post(path, body.to_string()).await?;
    if status != wanted {
        return Err(format!("{path}: {status} {answer:?}").into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

#[expect(clippy::disallowed_methods, reason = "the code of an app follows from the machine's clock")]
fn code(secret: &str, later: u64) -> Result<String> {
    let secret = Secret::try_from_base32(secret).map_err(|error| format!("{error:?}"))?;
    let totp = Builder::new().with_secret(secret).build().map_err(|error| error.to_string())?;
    Ok(totp.generate(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + later).to_string())
}

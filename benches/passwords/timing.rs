//! Whether time tells who exists: every way to fail, in turns, by the operation itself.

use std::time::{Duration, Instant};

use usersd::clock::Clock;
use usersd::config::Config;
use usersd::config::ThrottleLimits;
use usersd::devices::Devices;
use usersd::domain::caller::Caller;
use usersd::domain::namespace::Namespace;
use usersd::domain::password::Password;
use usersd::domain::session::SessionRequest;
use usersd::domain::user::{Labels, Metadata, Name, NewUser, Status};
use usersd::domain::username::Username;
use usersd::error::Error;
use usersd::hasher::{Hasher, HasherConfig};
use usersd::ops::login::Login;
use usersd::ops::{Operations, Rules};
use usersd::store::Store;

use crate::Result;
use crate::figures::{Figure, Target, median};

/// Hashes of some milliseconds: what else differs shows all the more.
const COST: u32 = 7;

const SAMPLES: usize = 1_000;

/// Users of the comparison where costs differ; each name is drawn a hash by chance, so few names would tell chance's.
const MIXED: u32 = 2_000;

/// Users by what is the matter with them, and passwords.
const CLASSES: [(&str, &str, usize); 6] = [
    ("unknown", "nobody", 13),
    ("wrong", "ada", 13),
    ("blocked", "blocked", 13),
    ("no password", "bare", 13),
    ("empty", "ada", 0),
    ("over-long", "ada", 20_000),
];

/// The largest difference of two medians, in percent of a hash.
#[expect(clippy::too_many_lines, reason = "a list of what is compared")]
pub(crate) async fn measure() -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let url = format!("sqlite://{}?mode=rwc", dir.path().join("usersd.db").display());
    let store = Store::connect(&url, 4).await?;
    store.migrate().await?;
    let setup = HasherConfig {
        cost: COST,
        workers: 1,
        lanes: Some(1),
        max_wait: Duration::from_mins(1),
        min_cpu_percent: 100,
    };
    let mut rules = Rules { throttle: unlimited(), ..Rules::from(&Config::default()) };
    rules.codes.per_user = 0;
    let devices = Devices::open(None)?;
    let ops = Operations::new(store.clone(), Hasher::new(setup)?, Clock::System, rules, devices).await?;
    let caller = Caller::server(Namespace::parse("default")?);
    for (name, status, password) in [
        ("ada", Status::Active, Some("correct horse")),
        ("blocked", Status::Blocked, Some("correct horse")),
        ("bare", Status::Active, None),
    ] {
        ops.create(&caller, user(name, status, password)?, None).await?;
    }
    let mut times = [const { Vec::new() }; CLASSES.len()];
    for sample in 0..SAMPLES {
        // From each in turn, forward and backward: the one before may leave something behind.
        for turn in 0..CLASSES.len() {
            let class = (sample + turn * (1 + sample % 2 * 4)) % CLASSES.len();
            let ((_, name, length), times) = (&CLASSES[class], &mut times[class]);
            times.push(refused(&ops, &caller, name, *length).await?);
        }
    }
    let medians = times.map(|times| median(&times));
    for ((class, ..), median) in CLASSES.iter().zip(medians) {
        eprintln!("timing: {class:12} {:8.3} ms", median * 1e3);
    }
    let (least, most) = medians.iter().fold((f64::MAX, 0.0), |(a, b), m| (m.min(a), m.max(b)));
    let hash = 1.0 / super::crate_rate(1, Duration::from_secs(1)) / f64::from(1_u32 << (super::COST - COST));
    let of_a_hash = |name: &str, seconds: f64| {
        Figure::alone(name, "% of a hash", seconds / hash * 100.0, Target::AtMost(3.0))
    };
    let figures = vec![
        of_a_hash("whether time tells who exists: largest difference of medians", most - least),
        of_a_hash("the same, unknown and wrong where costs differ, means", mixed(&ops, &caller).await?),
        of_a_hash(
            "the same, making a code and trying wrong digits",
            super::codes::differ(&ops, &caller).await?,
        ),
    ];
    store.close().await;
    Ok(figures)
}

/// Among users with hashes of another system, every other one at half the cost: the difference of the means of unknown
/// names and of wrong passwords, each name once. What a name costs is a matter of chance then, and has to be for
/// unknown ones as for others.
async fn mixed(ops: &Operations, caller: &Caller) -> Result<f64> {
    let mut hashes = Vec::new();
    for cost in [COST - 1, COST] {
        hashes.push(
            bcrypt::hash_with_salt("correct horse", cost, [7; 16])
                .map_err(|error| error.to_string())?
                .to_string(),
        );
    }
    for (n, hash) in (0..MIXED).zip(hashes.iter().cycle()) {
        let user = user(&format!("mixed-{n}"), Status::Active, None)?;
        let user = NewUser { password_hash: Some(hash.clone()), sso_enabled: false, ..user };
        ops.create(caller, user, None).await?;
    }
    let (mut unknown, mut wrong) = (0.0, 0.0);
    for n in 0..MIXED {
        unknown += refused(ops, caller, &format!("nobody-{n}"), 13).await?;
        wrong += refused(ops, caller, &format!("mixed-{n}"), 13).await?;
    }
    let mean = |sum: f64| sum / f64::from(MIXED);
    eprintln!(
        "timing: mixed costs, means: unknown {:.3} ms, wrong {:.3} ms",
        mean(unknown) * 1e3,
        mean(wrong) * 1e3
    );
    Ok((mean(unknown) - mean(wrong)).abs())
}

/// Seconds until a log-in with a password of so many characters is refused, which is wrong.
async fn refused(ops: &Operations, caller: &Caller, name: &str, length: usize) -> Result<f64> {
    let begun = Instant::now();
    let answer = ops.login(caller, attempt(name, length)).await;
    let took = begun.elapsed().as_secs_f64();
    match answer {
        Err(Error::BadCredentials) => Ok(took),
        other => Err(format!("a wrong password of {name}: {other:?}").into()),
    }
}

/// Nobody waits, so that every attempt is made.
fn unlimited() -> ThrottleLimits {
    ThrottleLimits { account: u32::MAX, address: 0, caller: 0, free: u32::MAX, ..ThrottleLimits::default() }
}

fn user(name: &str, status: Status, password: Option<&str>) -> Result<NewUser> {
    Ok(NewUser {
        id: None,
        username: Some(Username::parse(name)?),
        email: None,
        name: Name::default(),
        status,
        labels: Labels::default(),
        metadata: Metadata::default(),
        sso_enabled: password.is_none(),
        password: password.map(|text| Password::attempt(text.to_owned())),
        password_hash: None,
    })
}

fn attempt(name: &str, length: usize) -> Login {
    let password = Password::attempt("x".repeat(length));
    Login { username: Some(name.to_owned()), email: None, password, session: SessionRequest::default() }
}

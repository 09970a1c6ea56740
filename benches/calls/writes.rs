//! What writing costs, with one caller and with many.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prost_types::value::Kind as JsonKind;
use prost_types::{Struct, Value};
use tokio::task::JoinSet;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use usersd::pb::users_client::UsersClient;
use usersd::pb::{
    CodePurpose, CreateCodeRequest, CreateRequest, LoginRequest, LoginWithCodeRequest, LogoutRequest,
    UpdatePrefsRequest, UpdateRequest,
};

use super::idle;
use super::seed::Seeded;
use crate::Result;
use crate::databases::Places;
use crate::figures::{Figure, Target};
use crate::options::Options;
use crate::server::{CpuTimes, Server};

/// Callers at a time.
const CROWD: usize = 64;

/// Writes of one kind in one round by one caller, and by a crowd: log-ins take a hash each.
const CALLS: [usize; 2] = [300, 2_000];
const LOGINS: [usize; 2] = [10, 128];

/// As many codes for a user in an hour as a run of many rounds takes.
const MANY_CODES: (&str, &str) = ("USERSD_CODES_PER_USER", "1000");

/// Users who log in, with this password.
const PEOPLE: usize = 64;
const PASSWORD: &str = "correct horse battery staple";

/// A hash of another system.
const HASH: &str = "$2b$10$abcdefghijklmnopqrstuuBYnKLCwpVyX9FeW6E6YpKoqnCIYA0LW";

/// A write that is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Create,
    Update,
    UpdatePrefs,
    Login,
    LoginWithCode,
    Logout,
}

impl Write {
    const ALL: [(Self, &str); 6] = [
        (Self::Create, "Create with a hash"),
        (Self::Update, "Update"),
        (Self::UpdatePrefs, "UpdatePrefs"),
        (Self::Login, "Login without its hash"),
        (Self::LoginWithCode, "LoginWithCode, a link"),
        (Self::Logout, "Logout"),
    ];
}

/// Makes writes, each of them different.
#[derive(Clone)]
pub(crate) struct Writer {
    client: UsersClient<Channel>,
    key: MetadataValue<Ascii>,
    data: Arc<Data>,
}

struct Data {
    /// Part of the names of users that are made: those of an earlier run may be there.
    run: u64,
    ids: Vec<String>,
    tokens: Vec<String>,
    /// Codes of different users that nobody has used yet.
    codes: Mutex<Vec<String>>,
    /// The number of the next write.
    next: AtomicUsize,
}

/// One round of one kind.
pub(crate) struct Cost {
    calls_a_second: f64,
    /// Milliseconds of each call, in order of length.
    pub(crate) millis: Vec<f64>,
    /// Microseconds a call, of the server without its hashing threads, and of its database.
    cpu: f64,
}

/// Measures every kind on the large database, by one caller and by a crowd in turns.
pub(crate) async fn measure(
    options: &Options,
    dir: &Path,
    places: &Places,
    seeded: &Seeded,
) -> Result<Vec<Figure>> {
    let server = Server::usersd_with(&options.server, dir, &places.large.url, &[MANY_CODES]).await?;
    idle::wait(&server).await?;
    let writer = Writer::connect(&server, seeded).await?;
    for person in 0..PEOPLE {
        writer.create(person, Some(PASSWORD)).await?;
    }
    let [_, most] = CALLS;
    writer.create_users(CROWD, most).await?;
    let mut rounds = Write::ALL.map(|_| [Vec::new(), Vec::new()]);
    for round in 0..options.rounds {
        eprintln!("{}: writes, round {} of {}", places.kind, round + 1, options.rounds);
        for ((write, _), rounds) in Write::ALL.iter().zip(&mut rounds) {
            let calls = if *write == Write::Login { LOGINS } else { CALLS };
            for ((callers, calls), costs) in [1, CROWD].into_iter().zip(calls).zip(rounds) {
                if *write == Write::LoginWithCode {
                    writer.create_codes(calls).await?;
                }
                let before = CpuTimes::of_server_and_database(&server, &places.large)?;
                let mut cost = writer.run(*write, callers, calls).await?;
                let nanos = CpuTimes::of_server_and_database(&server, &places.large)?.since(&before);
                #[expect(clippy::cast_precision_loss, reason = "a round takes far less than 52 days")]
                let cpu = nanos as f64 / 1e3 / calls as f64;
                cost.cpu = cpu;
                costs.push(cost);
            }
        }
    }
    server.stop().await?;
    let figures =
        Write::ALL.iter().zip(&rounds).flat_map(|((_, name), rounds)| figures(places.kind, name, rounds));
    Ok(figures.collect())
}

/// Those of a crowd beside those of one caller.
fn figures(database: &str, name: &str, [one, crowd]: &[Vec<Cost>; 2]) -> [Figure; 3] {
    let figure = |what: &str, unit, figure: fn(&Cost) -> f64| {
        let of = |costs: &[Cost]| costs.iter().map(figure).collect::<Vec<_>>();
        let name = format!("{database}: {name}, {CROWD} callers beside one, {what}");
        Figure::beside(name, unit, &of(crowd), &of(one), Target::None)
    };
    [
        figure("calls", "/s", |cost| cost.calls_a_second),
        figure("p99", "ms", |cost| p99(&cost.millis)),
        figure("CPU", "µs", |cost| cost.cpu),
    ]
}

/// The length that 99 of 100 do not exceed, of lengths in order.
pub(crate) fn p99(millis: &[f64]) -> f64 {
    millis.get(millis.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}

impl Writer {
    pub(crate) async fn connect(server: &Server, seeded: &Seeded) -> Result<Self> {
        let channel =
            Endpoint::new(format!("http://{}", server.address))?.tcp_nodelay(true).connect().await?;
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed()?;
        let data = Data {
            run: since.as_secs(),
            ids: seeded.others.clone(),
            tokens: seeded.tokens.clone(),
            codes: Mutex::default(),
            next: AtomicUsize::new(PEOPLE),
        };
        let key = format!("Bearer {}", seeded.key).parse()?;
        Ok(Self { client: UsersClient::new(channel), key, data: Arc::new(data) })
    }

    /// Makes `calls` writes by so many callers, each of which waits for its last one.
    pub(crate) async fn run(&self, write: Write, callers: usize, calls: usize) -> Result<Cost> {
        let (begun, left) = (Instant::now(), Arc::new(AtomicUsize::new(calls)));
        let mut running = JoinSet::<Result<Vec<f64>>>::new();
        for _ in 0..callers {
            let (writer, left) = (self.clone(), Arc::clone(&left));
            running.spawn(async move {
                let mut millis = Vec::new();
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok()
                {
                    let begun = Instant::now();
                    writer.write(write).await?;
                    millis.push(begun.elapsed().as_secs_f64() * 1e3);
                }
                Ok(millis)
            });
        }
        let mut millis = Vec::new();
        while let Some(done) = running.join_next().await {
            millis.extend(done??);
        }
        millis.sort_by(f64::total_cmp);
        #[expect(clippy::cast_precision_loss, reason = "a count for a ratio")]
        let calls_a_second = calls as f64 / begun.elapsed().as_secs_f64();
        Ok(Cost { calls_a_second, millis, cpu: f64::NAN })
    }

    async fn write(&self, write: Write) -> Result<()> {
        let (number, data) = (self.data.next.fetch_add(1, Ordering::Relaxed), &*self.data);
        let mut client = self.client.clone();
        let id = || data.ids[number % data.ids.len()].clone();
        match write {
            Write::Create => self.create(number, None).await?,
            Write::Update => {
                let name = Some(format!("Augusta Ada King, the {number}th"));
                client.update(self.request(UpdateRequest { id: id(), name, ..Default::default() })).await?;
            }
            Write::UpdatePrefs => {
                let theme = Value { kind: Some(JsonKind::StringValue(format!("shade {number}"))) };
                let prefs = Some(Struct { fields: [("theme".to_owned(), theme)].into() });
                let message = UpdatePrefsRequest { id: id(), prefs, ..Default::default() };
                client.update_prefs(self.request(message)).await?;
            }
            Write::Login => {
                let username = self.username(number % PEOPLE);
                let message = LoginRequest { username, password: PASSWORD.to_owned(), ..Default::default() };
                client.login(self.request(message)).await?;
            }
            Write::LoginWithCode => {
                let code = data.codes.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let code = code.ok_or("no code is left")?;
                let message = LoginWithCodeRequest { code, ..Default::default() };
                client.login_with_code(self.request(message)).await?;
            }
            Write::Logout => {
                let session_id = data.tokens[number % data.tokens.len()].clone();
                client.logout(self.request(LogoutRequest { session_id })).await?;
            }
        }
        Ok(())
    }

    /// Creates the user of this number, with a hash of another system unless there is a password.
    async fn create(&self, number: usize, password: Option<&str>) -> Result<()> {
        let username = self.username(number);
        let message = CreateRequest {
            email: format!("{username}@example.com"),
            username,
            name: "Augusta Ada King, Countess of Lovelace".to_owned(),
            labels: vec!["staff".to_owned(), "beta".to_owned()],
            metadata: [("country", "GB"), ("team", "analytical-engine")]
                .map(|(k, v)| (k.into(), v.into()))
                .into(),
            password: password.unwrap_or_default().to_owned(),
            password_hash: if password.is_some() { String::new() } else { HASH.to_owned() },
            ..Default::default()
        };
        self.client.clone().create(self.request(message)).await?;
        Ok(())
    }

    /// Creates a code to log in with for so many of the users that [`Self::create_users`] made first: a user's newer code
    /// voids the older one.
    async fn create_codes(&self, calls: usize) -> Result<()> {
        for number in PEOPLE..PEOPLE + calls {
            let username = self.username(number);
            let message =
                CreateCodeRequest { username, purpose: CodePurpose::Login.into(), ..Default::default() };
            let code = self.client.clone().create_code(self.request(message)).await?.into_inner().code;
            self.data.codes.lock().unwrap_or_else(PoisonError::into_inner).push(code);
        }
        Ok(())
    }

    fn username(&self, number: usize) -> String {
        format!("bench-{:x}-{number}", self.data.run)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.key.clone());
        request
    }

    /// Creates so many users, as many at a time.
    pub(crate) async fn create_users(&self, callers: usize, calls: usize) -> Result<()> {
        self.run(Write::Create, callers, calls).await.map(|_| ())
    }

    /// Creates a user with a password, logs in and returns the id, the e-mail address and a session's token.
    pub(crate) async fn create_session(&self) -> Result<(String, String, String)> {
        self.create(0, Some(PASSWORD)).await?;
        let message =
            LoginRequest { username: self.username(0), password: PASSWORD.to_owned(), ..Default::default() };
        let session = self.client.clone().login(self.request(message)).await?.into_inner().session;
        let session = session.ok_or("a log-in without a session")?;
        Ok((session.user_id, format!("{}@example.com", self.username(0)), session.id))
    }
}

//! What the calls need: the users of the large database, a session of each of some, and a key.

use std::path::Path;
use std::time::{Duration, Instant};

use sea_orm::ConnectionTrait as _;
use usersd::clock::Clock;
use usersd::domain::namespace::Namespace;
use usersd::domain::session::{Amr, Device, SessionToken, StoredSession};
use usersd::domain::user_id::UserId;
use usersd::store::{Store, Transaction, sessions};

use crate::Result;
use crate::databases::Place;
use crate::lists::seed as users;
use crate::options::Options;
use crate::server::{SCOPES, Server};

/// Sessions that the table has, and how many are written in one transaction.
const SESSIONS: usize = 100_000;
const BATCH: usize = 10_000;

/// How long the sessions last: longer than any run.
const LIFETIME: Duration = Duration::from_hours(30 * 24);

/// What the calls need to know of the data.
pub(crate) struct Seeded {
    /// The id of the user that most calls read, and the e-mail address.
    pub(crate) id: String,
    pub(crate) email: String,
    /// Opens a session of that user.
    pub(crate) token: String,
    /// Open sessions of others.
    pub(crate) tokens: Vec<String>,
    /// Ids of users from all over the table.
    pub(crate) others: Vec<String>,
    /// An API key for every measured call in the namespace `default`.
    pub(crate) key: String,
}

/// Fills the database unless it is, and opens sessions.
pub(crate) async fn seed(options: &Options, dir: &Path, place: &Place) -> Result<Seeded> {
    let (samples, _) = users::seed(place, options.rows.1, true).await?;
    let [user, others @ ..] = &samples[..] else { return Err("no users".into()) };
    let begun = Instant::now();
    let store = Store::connect(&place.url, 2).await?;
    let mut tokens = Vec::new();
    for _ in (0..SESSIONS).step_by(BATCH) {
        let tx = store.begin_as_server().await?;
        for owner in others.iter().cycle().take(BATCH) {
            tokens.push(open_session(&tx, &owner.id, LIFETIME).await?);
        }
        tx.commit().await?;
    }
    let tx = store.begin_as_server().await?;
    let token = open_session(&tx, &user.id, LIFETIME).await?;
    tx.commit().await?;
    store.close().await;
    eprintln!("opened {SESSIONS} sessions in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(Seeded {
        id: user.id.as_str().to_owned(),
        email: user.email.as_ref().ok_or("a user without an address")?.as_str().to_owned(),
        token,
        tokens,
        others: others.iter().map(|user| user.id.as_str().to_owned()).collect(),
        key: Server::new_key(&options.server, dir, &place.url, &format!("{SCOPES},codes.write")).await?,
    })
}

/// Writes so many sessions of each of these users that have ended.
pub(crate) async fn end_sessions(place: &Place, owners: &[String], each: usize) -> Result<()> {
    let store = Store::connect(&place.url, 2).await?;
    for owner in owners {
        let owner = UserId::parse(owner)?;
        let tx = store.begin_as_server().await?;
        for _ in 0..each {
            open_session(&tx, &owner, Duration::ZERO).await?;
        }
        tx.commit().await?;
    }
    store.close().await;
    Ok(())
}

/// Writes so many events of a user who was purged and whose log is still to be cleared.
pub(crate) async fn purge_with_log(place: &Place, events: usize) -> Result<()> {
    let store = Store::connect(&place.url, 2).await?;
    let (now, tx) = (Clock::System.now(), store.begin_as_server().await?);
    let user = Clock::System.new_id()?;
    tx.execute_unprepared(&format!(
        "INSERT INTO events (namespace, user_id, at, action, caller, address, user_agent, version, changed) \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {events}) \
         SELECT 'default', '{user}', {}, 'USER_UPDATED', 'bench', '192.0.2.1', 'curl', 1, '[]' FROM n",
        now.0
    ))
    .await?;
    tx.execute_unprepared(&format!(
        "INSERT INTO purged (namespace, user_id, cleared, last) \
         SELECT 'default', '{user}', 0, max(seq) FROM events WHERE namespace = 'default' AND user_id = '{user}'"
    ))
    .await?;
    tx.commit().await?;
    store.close().await;
    Ok(())
}

/// Opens a session that lasts so long.
async fn open_session(tx: &Transaction, owner: &UserId, lifetime: Duration) -> Result<String> {
    let token = SessionToken::generate()?;
    let now = Clock::System.now();
    let session = StoredSession {
        public_id: Clock::System.new_id()?.to_string(),
        user: owner.clone(),
        created: now,
        expires: now.plus(lifetime),
        auth_time: now,
        amr: Amr::Password.name().to_owned(),
        device: Device::default(),
    };
    sessions::insert(tx, &Namespace::default(), token.digest(), &session).await?;
    Ok(token.expose().to_owned())
}

//! A random schedule of calls against several replicas, and what none of them may show: a session that ended, or a user
//! as it was, longer ago than `cache.max_age`; in the process that made the change, at all.
//!
//! Judged by instants taken around the calls, so that a slow machine makes it see less and never wrong.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};
use usersd::config::Config;
use usersd::pb::users_client::UsersClient;
use usersd::pb::{
    CreateRequest, LoginRequest, LogoutRequest, ReadSessionRequest, SetPasswordRequest,
    UpdatePasswordRequest, UpdateRequest, UserStatus,
};

use crate::proxy::{Mode, Proxy};
use crate::steps::{becoming, by_id, deletion, restoring};
use crate::support::{Backend, PASSWORD, Replica, Service, nth, random};

mod story;

use story::{Done, Known, Story, version};

crate::on_every_backend!(no_replica_shows_what_ended_longer_ago_than_max_age);

pub(crate) const MAX_AGE: Duration = Duration::from_millis(200);

const USERS: usize = 4;

/// Changes of each user: the least, and the most where there is time.
const ROUNDS: (usize, usize) = (4, 40);

/// Changes of one user, one after the other, of which each is made beside a read.
const CHANGES_BESIDE_READS: usize = 8;

/// About the time of a change where the database's answers are late, in microseconds.
const LONGEST_CHANGE: usize = 16_000;

/// So that reads leave changes some of the machine.
const BETWEEN_READS: Duration = Duration::from_millis(1);

/// The time of a schedule, unless it has too few changes by then.
const SPAN: Duration = Duration::from_secs(6);

fn quick(config: &mut Config) {
    config.cache.max_age = MAX_AGE;
    config.cache.poll = Duration::from_millis(20);
}

/// Numbers that look random (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % limit
    }
}

pub(crate) type Users = UsersClient<Channel>;

/// Changes one user again and again, each time by another replica.
#[expect(clippy::too_many_lines, reason = "one match over the ways in which a user changes")]
async fn change(story: Arc<Story>, replicas: Vec<Users>, unsteady: bool, mut numbers: Numbers) {
    let (mut password, begun) = (PASSWORD.to_owned(), Instant::now());
    for round in 0..ROUNDS.1 {
        if round >= ROUNDS.0 && begun.elapsed() > SPAN && story.ended() > 0 {
            return;
        }
        let by = numbers.below(replicas.len());
        let mut users = replicas[by].clone();
        match numbers.below(10) {
            0..=3 => {
                let (username, password) = (story.username.clone(), password.clone());
                let request = LoginRequest { username, password, ..LoginRequest::default() };
                if let Ok(answer) = users.login(request).await {
                    let token = answer.into_inner().session.unwrap().id;
                    let known = Known { token, ending: false.into(), ended: OnceLock::new() };
                    story.sessions.lock().unwrap().push(Arc::new(known));
                }
            }
            4 | 9 => {
                let open = story.open();
                if open.is_empty() {
                    continue;
                }
                let known = &open[numbers.below(open.len())];
                let replica = Watched { number: by, users, unsteady };
                replica.rename(&story, "leaving").await;
                let log_out = replica.log_out(known);
                beside_a_read(log_out, || replica.read_session(known), &mut numbers).await;
            }
            5 => {
                let replica = Watched { number: by, users, unsteady };
                for n in 0..CHANGES_BESIDE_READS {
                    let name = format!("round {round}.{n}");
                    let rename = replica.rename(&story, &name);
                    beside_a_read(rename, || replica.read(&story), &mut numbers).await;
                }
            }
            6 => {
                let block = users.update_status(becoming(&story.id, UserStatus::Blocked));
                story.ends_all(by, async { Ok(block.await?.into_inner().user.unwrap()) }).await;
                let again = numbers.below(replicas.len());
                let allow = becoming(&story.id, UserStatus::Active);
                if let Ok(answer) = replicas[again].clone().update_status(allow).await {
                    story.note_version(&answer.into_inner().user.unwrap(), again);
                }
            }
            7 => {
                let new_password = format!("{PASSWORD} {round}");
                let request = UpdatePasswordRequest {
                    user_id: story.id.clone(),
                    old_password: password.clone(),
                    new_password: new_password.clone(),
                    ..UpdatePasswordRequest::default()
                };
                let change = users.update_password(request);
                if !story.ends_all(by, async { Ok(change.await?.into_inner().user.unwrap()) }).await {
                    // Nobody knows which of the two it has now.
                    let (user_id, new_password) = (story.id.clone(), new_password.clone());
                    let set = SetPasswordRequest { user_id, new_password, ..SetPasswordRequest::default() };
                    let _ = replicas[by].clone().set_password(set).await;
                }
                password = new_password;
            }
            _ => {
                story.deleted.fetch_add(1, SeqCst);
                let delete = users.delete(deletion(&story.id));
                story.ends_all(by, async { Ok(delete.await?.into_inner().user.unwrap()) }).await;
                let again = numbers.below(replicas.len());
                if let Ok(answer) = replicas[again].clone().restore(restoring(&story.id)).await {
                    story.note_version(&answer.into_inner().user.unwrap(), again);
                    story.restored.fetch_add(1, SeqCst);
                }
            }
        }
        if numbers.below(3) == 0 {
            tokio::time::sleep(MAX_AGE * u32::try_from(numbers.below(3)).unwrap() / 2).await;
        }
    }
}

/// Makes a change while what it changes is read, and reads it again. The read may have begun before the change and be
/// answered after it, and what it found must not be kept then.
async fn beside_a_read<R: Future>(change: impl Future, read: impl Fn() -> R, numbers: &mut Numbers) {
    let begins = Duration::from_micros(numbers.below(LONGEST_CHANGE).try_into().unwrap());
    let meanwhile = async {
        tokio::time::sleep(begins).await;
        read().await;
    };
    tokio::join!(change, meanwhile);
    read().await;
}

/// A replica that is read from.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) number: usize,
    pub(crate) users: Users,
    /// Its database comes and goes.
    pub(crate) unsteady: bool,
}

impl Watched {
    async fn watch(self, history: Arc<History>, mut numbers: Numbers) -> u64 {
        let mut calls = 0;
        while !history.is_over() {
            let story = &history.stories[numbers.below(history.stories.len())];
            if numbers.below(3) == 0 {
                self.read(story).await;
            } else {
                let sessions = story.sessions.lock().unwrap().clone();
                // Those that were opened last are open, or have just ended.
                let recent = sessions.len().min(6);
                if recent > 0 {
                    self.read_session(&sessions[sessions.len() - 1 - numbers.below(recent)]).await;
                }
            }
            calls += 1;
            tokio::time::sleep(BETWEEN_READS).await;
        }
        calls
    }

    async fn rename(&self, story: &Story, name: &str) {
        let request =
            UpdateRequest { id: story.id.clone(), name: Some(name.to_owned()), ..UpdateRequest::default() };
        if let Ok(answer) = self.users.clone().update(request).await {
            story.note_version(&answer.into_inner().user.unwrap(), self.number);
        }
    }

    async fn log_out(&self, known: &Known) {
        known.ending.store(true, SeqCst);
        let request = LogoutRequest { session_id: known.token.clone() };
        if self.users.clone().logout(request).await.is_ok() {
            known.ended.set(Done::now(self.number)).ok().unwrap();
        }
    }

    async fn read_session(&self, known: &Known) {
        let (ended, began) = (known.ended.get().copied(), Instant::now());
        let request = ReadSessionRequest { session_id: known.token.clone(), max_age: None };
        match self.users.clone().read_session(request).await {
            Ok(_) => {
                let binds = ended.is_some_and(|done| done.binds(self.number, began));
                let since = ended.map(|done| (done.by, began - done.at));
                assert!(!binds, "replica {} calls a session valid that ended: {since:?}", self.number);
            }
            Err(status) if status.code() == Code::NotFound => {
                assert!(known.ending.load(SeqCst), "replica {} does not know an open session", self.number);
            }
            Err(status) => self.may_fail(&status),
        }
    }

    async fn read(&self, story: &Story) {
        let versions = story.versions.lock().unwrap().clone();
        // In this order: counted in between it is one that was not restored yet.
        let (restored, deleted) = (story.restored.load(SeqCst), story.deleted.load(SeqCst));
        let began = Instant::now();
        let least = versions.iter().filter(|(_, done)| done.binds(self.number, began));
        let least = least.map(|(version, _)| *version).max().unwrap_or(0);
        match self.users.clone().read(by_id(&story.id)).await {
            Ok(answer) => {
                let found = version(&answer.into_inner().user.unwrap());
                assert!(found >= least, "replica {} shows version {found}, not {least}", self.number);
            }
            Err(status) if status.code() == Code::NotFound => {
                let absent = deleted > restored || story.deleted.load(SeqCst) > deleted;
                assert!(absent, "replica {} does not know a user", self.number);
            }
            Err(status) => self.may_fail(&status),
        }
    }

    fn may_fail(&self, status: &Status) {
        assert!(self.unsteady || status.code() == Code::Unavailable, "{status:?}");
    }
}

/// What is known of all users.
pub(crate) struct History {
    stories: Vec<Arc<Story>>,
    over: AtomicBool,
}

impl History {
    /// Of users who are created; `name` tells them from others.
    pub(crate) async fn begin(users: &Users, name: &str) -> Arc<Self> {
        let mut stories = Vec::new();
        for n in 0..USERS {
            let (username, email) = (format!("{name}{n}"), format!("{name}{n}@example.com"));
            let request = CreateRequest { username, email, ..nth(n) };
            let user = users.clone().create(request).await.unwrap().into_inner().user.unwrap();
            stories.push(Arc::new(Story::of(user)));
        }
        Arc::new(Self { stories, over: AtomicBool::new(false) })
    }

    /// Lets the schedule run against `replicas`; those from `acting` on are only read from.
    pub(crate) async fn run(self: &Arc<Self>, replicas: &[Watched], acting: usize) {
        let seed = u64::from_ne_bytes(*random().first_chunk().unwrap()) | 1;
        println!("seed {seed}, {} replicas", replicas.len());
        let mut seeds = Numbers(seed);
        let mut numbers = || Numbers((seeds.below(usize::MAX) as u64) | 1);
        let mut watching = Vec::new();
        for replica in replicas.iter().chain(replicas) {
            watching.push(tokio::spawn(replica.clone().watch(Arc::clone(self), numbers())));
        }
        let clients: Vec<_> = replicas[..acting].iter().map(|replica| replica.users.clone()).collect();
        let unsteady = replicas[..acting].iter().any(|replica| replica.unsteady);
        let changes = self
            .stories
            .iter()
            .map(|story| tokio::spawn(change(Arc::clone(story), clients.clone(), unsteady, numbers())));
        let results = join_all(changes.collect::<Vec<_>>()).await;
        self.over.store(true, SeqCst);
        let mut calls = 0;
        for task in watching {
            calls += task.await.unwrap();
        }
        results.into_iter().for_each(Result::unwrap);
        println!("{calls} reads; {} sessions ended", self.ended());
        assert!(self.ended() > 0);
    }

    /// The number of sessions that have ended for certain.
    pub(crate) fn ended(&self) -> usize {
        self.stories.iter().map(|story| story.ended()).sum()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    /// Begins to read every user and the newest sessions, some times over.
    pub(crate) fn begin_reads(self: &Arc<Self>, replica: &Watched) -> Vec<JoinHandle<()>> {
        let stories = self.stories.iter().cycle().take(self.stories.len() * 4).cloned();
        let read = |story: Arc<Story>| {
            let replica = replica.clone();
            tokio::spawn(async move {
                let sessions = story.sessions.lock().unwrap().clone();
                let sessions = sessions.iter().rev().take(6).map(|known| replica.read_session(known));
                tokio::join!(replica.read(&story), join_all(sessions));
            })
        };
        stories.map(read).collect()
    }
}

fn watched(replicas: &[Replica], steady: usize) -> Vec<Watched> {
    let watched = |(number, replica): (usize, &Replica)| Watched {
        number,
        users: replica.users.clone(),
        unsteady: number >= steady,
    };
    replicas.iter().enumerate().map(watched).collect()
}

async fn run(replicas: &[Replica], steady: usize) {
    let history = History::begin(&replicas[0].users, &format!("{}of", replicas.len())).await;
    history.run(&watched(replicas, steady), steady).await;
}

async fn no_replica_shows_what_ended_longer_ago_than_max_age(service: &Service) {
    let mut replicas = vec![service.another(quick).await];
    match service.backend {
        Backend::Sqlite => {
            run(&replicas, 1).await;
            replicas.push(service.another(quick).await);
            run(&replicas, 2).await;
        }
        Backend::Postgres => {
            for _ in 0..2 {
                replicas.push(service.another(quick).await);
            }
            run(&replicas, 3).await;
            // And one whose connections are cut, or fall silent.
            let proxy = Proxy::to(service.url()).await;
            replicas.push(
                service
                    .another(|config| {
                        quick(config);
                        config.database.clone_from(&proxy.url);
                    })
                    .await,
            );
            let faults = async {
                for mode in [Mode::Refused, Mode::Forward, Mode::Silent, Mode::Forward].into_iter().cycle() {
                    tokio::time::sleep(MAX_AGE * 3).await;
                    proxy.set(mode);
                }
            };
            tokio::select! {
                () = run(&replicas, 3) => {}
                () = faults => {}
            }
        }
    }
}

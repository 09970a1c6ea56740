//! A running service in one line, and clients for it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rand::TryRng as _;
use rand::rngs::SysRng;
use sea_orm::{ConnectionTrait as _, Database, DatabaseBackend, Statement};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use usersd::auth::keyring::KeyRing;
use usersd::blocklist::Blocklist;
use usersd::clock::Clock;
use usersd::config::Config;
use usersd::devices::Devices;
use usersd::domain::caller::Flow;
use usersd::domain::key::{AllowedNamespaces, KeyName, NewKey};
use usersd::domain::password::{Password, PasswordHash};
use usersd::domain::quota::Quotas;
use usersd::domain::scope::Scopes;
use usersd::domain::time::Timestamp;
use usersd::hasher::{Hasher, HasherConfig, Peppers};
use usersd::ops::{Operations, Rules, keys};
use usersd::pb::keys_client::KeysClient;
use usersd::pb::namespaces_client::NamespacesClient;
use usersd::pb::users_client::UsersClient;
use usersd::pb::{CreateRequest, LoginRequest, Session, User};
use usersd::server::{Server, Services, Tls};
use usersd::store::Store;

/// Where the tests' PostgreSQL is; `tests/run` starts one and says so.
const POSTGRES: &str = "USERSD_TEST_POSTGRES";

/// 2023-11-14 22:13:20 UTC, where every test's clock begins.
pub(crate) const START: i64 = 1_700_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    /// As SeaORM calls it.
    pub(crate) fn kind(self) -> DatabaseBackend {
        match self {
            Self::Sqlite => DatabaseBackend::Sqlite,
            Self::Postgres => DatabaseBackend::Postgres,
        }
    }
}

/// A database of a test's own, and its end.
struct Home {
    url: String,
    folder: TempDir,
    name: Option<String>,
}

impl Home {
    async fn new(backend: Backend) -> Self {
        let folder = TempDir::new().unwrap();
        match backend {
            Backend::Sqlite => {
                let url = format!("sqlite://{}/usersd.db?mode=rwc", folder.path().display());
                Self { url, folder, name: None }
            }
            Backend::Postgres => {
                let name = format!("it_{}", uuid::Builder::from_random_bytes(random()).into_uuid().simple());
                admin(&format!("CREATE DATABASE {name}")).await;
                let url = admin_url().replacen("/postgres?", &format!("/{name}?"), 1);
                Self { url, folder, name: Some(name) }
            }
        }
    }

    async fn end(self) {
        if let Some(name) = self.name {
            admin(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }
}

pub(crate) fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    SysRng.try_fill_bytes(&mut bytes).unwrap();
    bytes
}

#[expect(clippy::disallowed_methods, reason = "the tests' own variable, not a setting")]
fn admin_url() -> String {
    std::env::var(POSTGRES).unwrap_or_else(|_| {
        panic!("{POSTGRES} is not set: run tests/run, or name a server like postgres:///postgres?host=/run/postgresql")
    })
}

async fn admin(sql: &str) {
    let db = Database::connect(admin_url()).await.unwrap();
    db.execute_unprepared(sql).await.unwrap();
    db.close().await.unwrap();
}

/// A running service with its database.
pub(crate) struct Service {
    home: Home,
    pub(crate) backend: Backend,
    pub(crate) clock: Clock,
    pub(crate) replica: Replica,
}

/// One server over a database.
pub(crate) struct Replica {
    pub(crate) users: UsersClient<Channel>,
    pub(crate) address: String,
    pub(crate) store: Store,
    pub(crate) hasher: Hasher,
    pub(crate) ops: Operations,
    pub(crate) keys: KeyRing,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<bool>,
    pub(crate) server: Server,
    /// Every statement that was run, while it is `Some`.
    pub(crate) statements: Statements,
    channel: Channel,
    client: Client<HttpConnector, Full<bytes::Bytes>>,
}

/// Where statements are recorded, for tests that ask.
pub(crate) type Statements = Arc<Mutex<Option<Vec<Statement>>>>;

impl Service {
    pub(crate) async fn start(backend: Backend) -> Self {
        let home = Home::new(backend).await;
        let clock = Clock::fixed(Timestamp(START * 1_000_000));
        let replica = Box::pin(Replica::start(&home.url, &clock, |_| {})).await;
        Self { home, backend, clock, replica }
    }

    /// One more server over the same database and clock.
    pub(crate) async fn another(&self, change: impl FnOnce(&mut Config)) -> Replica {
        Box::pin(Replica::start(&self.home.url, &self.clock, change)).await
    }

    /// One more server over the same database and clock, with services of its own.
    pub(crate) async fn another_with(&self, services: Services, change: impl FnOnce(&mut Config)) -> Replica {
        Box::pin(Replica::start_with(&self.home.url, &self.clock, change, Some(services))).await
    }

    /// One more server over the same database, whose clock is `behind`.
    pub(crate) async fn another_behind(&self, behind: Duration, change: impl FnOnce(&mut Config)) -> Replica {
        let clock = Clock::fixed(self.clock.now().minus(behind));
        Box::pin(Replica::start(&self.home.url, &clock, change)).await
    }

    /// Where the database is.
    pub(crate) fn url(&self) -> &str {
        &self.home.url
    }

    /// Every file of an SQLite database.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.home.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// The URL of the database, for other programs.
    pub(crate) fn database(&self) -> &str {
        &self.home.url
    }

    /// A client of a user's own, so that futures of several can run at once.
    pub(crate) fn users(&self) -> UsersClient<Channel> {
        self.replica.users.clone()
    }

    /// A number from the database.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let statement = Statement::from_string(self.backend.kind(), sql);
        let row = self.replica.store.reader().query_one_raw(statement).await;
        row.unwrap().unwrap().try_get_by_index(0).unwrap()
    }

    /// The number of segments that the search index has on SQLite; 1 on PostgreSQL.
    pub(crate) async fn search_segments(&self) -> i64 {
        match self.backend {
            Backend::Sqlite => self.number("SELECT count(DISTINCT segid) FROM users_search_idx").await,
            Backend::Postgres => 1,
        }
    }

    /// A new key, good for every replica that is asked: its secret and its id.
    pub(crate) async fn key(&self, namespaces: &str, scopes: Scopes) -> (String, String) {
        let namespaces = AllowedNamespaces::parse(namespaces).unwrap();
        let new = NewKey { namespaces, name: KeyName::parse("a test").unwrap(), scopes, expires: None };
        self.key_like(new).await
    }

    pub(crate) async fn key_like(&self, new: NewKey) -> (String, String) {
        let (secret, key) =
            keys::create(&self.replica.store, &self.clock, new, Quotas::default()).await.unwrap();
        self.replica.keys.refresh().await.unwrap();
        (secret.expose().to_owned(), key.id)
    }

    /// Runs statements past the service.
    pub(crate) async fn execute(&self, sql: &str) {
        let db = Database::connect(&self.home.url).await.unwrap();
        db.execute_unprepared(sql).await.unwrap();
        db.close().await.unwrap();
    }

    /// Rows of everything that a call could change. Two equal ones: nothing has.
    pub(crate) async fn counts(&self) -> [i64; 4] {
        let versions = "SELECT CAST(coalesce(sum(version), 0) AS BIGINT) FROM users";
        let mut counts = [0; 4];
        for (n, sql) in [
            "SELECT count(*) FROM users",
            "SELECT count(*) FROM sessions",
            "SELECT count(*) FROM events",
            versions,
        ]
        .into_iter()
        .enumerate()
        {
            counts[n] = self.number(sql).await;
        }
        counts
    }

    async fn end(self) {
        self.replica.stop.cancel();
        self.replica.running.await.unwrap();
        self.replica.store.close().await;
        self.home.end().await;
    }
}

impl Replica {
    async fn start(url: &str, clock: &Clock, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(url, clock, change, None).await
    }

    async fn start_with(
        url: &str,
        clock: &Clock,
        change: impl FnOnce(&mut Config),
        services: Option<Services>,
    ) -> Self {
        let mut config = Config { database: url.to_owned(), ..Config::default() };
        config.pool.connections = 8;
        config.http.max_body = 64 * 1024;
        config.grace = Duration::from_secs(10);
        // A list may take as long as it takes on a machine that has other things to do.
        config.pool.list_timeout = Duration::from_mins(1);
        config.passwords.max_wait = Duration::from_mins(5);
        change(&mut config);
        let statements = Statements::default();
        let noted = Arc::clone(&statements);
        let store = Store::connect(&config.database, config.pool.connections).await.unwrap();
        let store = store.observed(move |statement| {
            if let Some(noted) = noted.lock().unwrap().as_mut() {
                noted.push(statement.clone());
            }
        });
        store.migrate().await.unwrap();
        let peppers = Peppers::open(config.passwords.pepper.as_deref()).unwrap();
        let hasher = Hasher::new(hashing(&config)).unwrap().with_peppers(peppers);
        let (rules, devices) =
            (Rules::from(&config), Devices::open(config.geoip.database.as_deref()).unwrap());
        let ops =
            Operations::new(store.clone(), hasher.clone(), clock.clone(), rules, devices).await.unwrap();
        let blocklist = config.passwords.blocklist.as_deref().map(|path| Blocklist::open(path).unwrap());
        let ops = ops.with_blocklist(blocklist);
        let keys = Box::pin(KeyRing::load(store.clone(), clock.clone())).await.unwrap();
        let (max_body, tls) = (config.http.max_body, Tls::open(&config).unwrap());
        let services =
            services.unwrap_or_else(|| Services::users_and_keys(ops.clone(), keys.clone(), max_body));
        let server = Server::with_services(&config, ops.clone(), keys.clone(), tls, services).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.clone().serve(listener, stop.clone()));
        let channel = Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap();
        let users = UsersClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { users, address, store, hasher, ops, keys, stop, running, server, statements, channel, client }
    }

    /// A client of the keys.
    pub(crate) fn keys_client(&self) -> KeysClient<Channel> {
        KeysClient::new(self.channel.clone())
    }

    /// A client of the namespaces.
    pub(crate) fn namespaces(&self) -> NamespacesClient<Channel> {
        NamespacesClient::new(self.channel.clone())
    }

    /// The connection of [`Replica::users`].
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A request as it is; the answer's body as JSON, or `null` if it is none.
    pub(crate) async fn send(
        &self,
        request: http::Request<Full<bytes::Bytes>>,
    ) -> (StatusCode, HeaderMap, Value) {
        let answer = self.client.request(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// A JSON request and its answer. An empty body is none.
    pub(crate) async fn json(&self, verb: Method, path: &str, body: &str) -> (StatusCode, Value) {
        let (status, _, body) =
            self.request(verb, path, body.to_owned(), &[("content-type", "application/json")]).await;
        (status, body)
    }

    /// A request with headers, and its answer.
    pub(crate) async fn request(
        &self,
        verb: Method,
        path: &str,
        body: impl Into<bytes::Bytes>,
        headers: &[(&str, &str)],
    ) -> (StatusCode, HeaderMap, Value) {
        let mut request = http::Request::builder().method(verb).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::new(body.into())).unwrap()).await
    }
}

/// A request with headers, and its answer as it is.
pub(crate) async fn bytes_of(
    replica: &Replica,
    verb: Method,
    path: &str,
    body: impl Into<bytes::Bytes>,
    headers: &[(&str, &str)],
) -> (StatusCode, HeaderMap, bytes::Bytes) {
    let mut request = http::Request::builder().method(verb).uri(format!("http://{}{path}", replica.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = replica.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    (head.status, head.headers, body.collect().await.unwrap().to_bytes())
}

/// Runs `test` on a fresh service.
pub(crate) async fn run(backend: Backend, test: impl AsyncFnOnce(&Service)) {
    let service = Service::start(backend).await;
    test(&service).await;
    Box::pin(service.end()).await;
}

/// Makes each named function a test on every database: `NAME::sqlite` and `NAME::postgres`.
#[macro_export]
macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                $crate::support::run($crate::support::Backend::Sqlite, super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                $crate::support::run($crate::support::Backend::Postgres, super::$name).await;
            }
        }
    )*};
}

/// The request as a caller in `namespace` sends it.
pub(crate) fn from<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("usersd-namespace", namespace.parse().unwrap());
    request
}

pub(crate) const PASSWORD: &str = "correct horse";

/// A user to create.
pub(crate) fn ada() -> CreateRequest {
    CreateRequest {
        username: "ada".into(),
        email: "ada@example.com".into(),
        password: PASSWORD.into(),
        ..CreateRequest::default()
    }
}

/// Another one, by number.
pub(crate) fn nth(n: usize) -> CreateRequest {
    CreateRequest { username: format!("user{n}"), email: format!("user{n}@example.com"), ..ada() }
}

pub(crate) async fn create(service: &Service, request: CreateRequest) -> User {
    service.users().create(request).await.unwrap().into_inner().user.unwrap()
}

/// Signs in by username with [`PASSWORD`].
pub(crate) async fn login(service: &Service, username: &str) -> Session {
    let request =
        LoginRequest { username: username.into(), password: PASSWORD.into(), ..LoginRequest::default() };
    service.users().login(request).await.unwrap().into_inner().session.unwrap()
}

/// Fails unless the status has that code and reason.
#[track_caller]
pub(crate) fn assert_refused(status: &Status, code: Code, reason: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(self::reason(status), reason, "{status:?}");
}

#[track_caller]
pub(crate) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "usersd");
    info.reason
}

/// The fields that the status names, in order.
#[track_caller]
pub(crate) fn fields(status: &Status) -> Vec<String> {
    assert_refused(status, Code::InvalidArgument, "FIELD_INVALID");
    let named = status.get_details_bad_request().unwrap().field_violations;
    named.into_iter().map(|violation| violation.field).collect()
}

/// Messages as bytes: what a client with a mistake sends.
#[derive(Default)]
struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}

/// Sends bytes as the message of a gRPC method.
pub(crate) async fn raw(service: &Service, path: &str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
    raw_with(&service.replica, path, message, &[]).await
}

/// The same with metadata.
pub(crate) async fn raw_with(
    replica: &Replica,
    path: &str,
    message: Vec<u8>,
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>, Status> {
    let mut client = tonic::client::Grpc::new(replica.channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(message);
    for (name, value) in metadata {
        let name = name.parse::<tonic::metadata::AsciiMetadataKey>().unwrap();
        request.metadata_mut().append(name, value.parse().unwrap());
    }
    Ok(client.unary(request, path.parse().unwrap(), Raw).await?.into_inner())
}

/// Hashes of a few milliseconds, two at a time on each of two threads that need not step aside.
fn hashing(config: &Config) -> HasherConfig {
    // The settings allow no cost as low; a test that wants another one says so.
    let cost =
        if config.passwords.cost == Config::default().passwords.cost { 4 } else { config.passwords.cost };
    HasherConfig {
        cost,
        workers: 2,
        lanes: Some(2),
        max_wait: config.passwords.max_wait,
        min_cpu_percent: 100,
    }
}

/// The line in which calls of the tests wait for a hash.
pub(crate) fn line() -> Flow {
    Flow { namespace: "default".into(), key: "open".into() }
}

/// Lets `meanwhile` happen while `call` waits for its first hash, and gives the call's refusal.
///
/// Every worker is kept busy until then by hashes that are given up afterwards, so that however slow the
/// machine is, the call has read what it checks the password against before, and checks it after.
pub(crate) async fn during_the_hash(
    service: &Service,
    call: impl Future<Output = Result<(), Status>> + Send + 'static,
    meanwhile: impl Future<Output = ()>,
) -> Status {
    let hasher = service.replica.hasher.clone();
    let slow = PasswordHash::from_trusted(format!("$2b$10${}", ".".repeat(53)));
    let password = Password::attempt("x".into());
    let blockers = async {
        let jobs = (0..50).map(|_| hasher.admit(&line(), None).unwrap().verify(&password, Some(&slow), None));
        futures_util::future::join_all(jobs).await;
    };
    let before = hasher.work().taken_on;
    #[expect(clippy::async_yields_async, reason = "the log-in is awaited after the blockers are gone")]
    let acting = async {
        // The blockers are there ...
        while hasher.work().taken_on < before + 50 {
            tokio::task::yield_now().await;
        }
        let attempt = tokio::spawn(call);
        // ... and behind them the log-in.
        while hasher.work().taken_on < before + 51 {
            tokio::task::yield_now().await;
        }
        meanwhile.await;
        attempt
    };
    let attempt = tokio::select! {
        biased;
        () = blockers => panic!("the blockers were too quick"),
        attempt = acting => attempt,
    };
    attempt.await.unwrap().unwrap_err()
}

/// What comes by itself has a minute to come, however slow the machine is.
pub(crate) async fn until(happened: impl AsyncFn() -> bool) {
    let waiting = async {
        while !happened().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.unwrap();
}

/// Serves metrics and health of a server on a port of their own, and returns its address.
pub(crate) async fn monitor(replica: &Replica) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(replica.server.serve_monitor(listener));
    address
}

/// The status, the media type and the text of a page.
pub(crate) async fn get(address: &str, path: &str, accept: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let media_type = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    (status, media_type.to_owned(), body.to_owned())
}

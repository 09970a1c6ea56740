//! Every setting: its section, its type, its default, and how it is read. `deploy/usersd.toml` is the manual.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::domain::quota::{Quota, Quotas};

use super::tls_callers;
use super::types::{AppwritePrefs, Auth, ClientAuth, LogFormat, ReadUrl, TlsCaller};
use super::values::{
    Show as _, address, choice, claim, claims, database, days, duration, flag, headers_size, hosts, lifetime,
    log_level, memory, networks, number, number_or, optional_address, optional_duration, optional_endpoint,
    optional_file, origins, replica, size, without_password,
};

/// A setting.
pub struct Setting {
    /// Its key in the file, dotted.
    pub key: &'static str,
    /// Reads it from text; says what it must be if it is not.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// As TOML.
    pub(super) show: fn(&Config) -> String,
    /// Compares its values, also where they are not shown.
    pub(super) differs: fn(&Config, &Config) -> bool,
}

impl Setting {
    /// Its name in the environment.
    pub fn variable(&self) -> String {
        format!("USERSD_{}", self.key.to_uppercase().replace('.', "_"))
    }
}

macro_rules! shown {
    ($value:expr) => {
        $value.show()
    };
    ($value:expr, $show:expr) => {
        $show(&$value)
    };
}

impl NamespaceSettings {
    /// All of them.
    pub fn limits(&self) -> Quotas {
        let Self { max_users, max_sessions, max_keys, max_calls_per_second } = *self;
        Quotas::new([max_users, max_sessions, max_keys, max_calls_per_second].map(Some))
    }
}

/// Declares the settings: `field: type = default, how it is read;`, and `=> how it is shown` where its type
/// does not say. A section is a struct; the key of a setting is its section and its field.
macro_rules! settings {
    (
        {$(
            $(#[$top_doc:meta])* $top:ident: $top_type:ty = $top_default:expr, $top_read:expr $(=> $top_show:expr)?;
        )*}
        $($(#[$doc:meta])* $section:ident: $name:ident {$(
            $(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr, $read:expr;
        )*})*
    ) => {
        /// All settings.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $($(#[$top_doc])* pub $top: $top_type,)*
            $($(#[$doc])* pub $section: $name,)*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($top: $top_default,)* $($section: $name::default(),)* }
            }
        }

        $($(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        })*

        /// Every setting, in the order of the file.
        pub const SETTINGS: &[Setting] = &[
            $(Setting {
                key: stringify!($top),
                set: |config, text| $top_read(text).map(|value| config.$top = value),
                show: |config| shown!(config.$top $(, $top_show)?),
                differs: |one, other| one.$top != other.$top,
            },)*
            $($(Setting {
                key: concat!(stringify!($section), ".", stringify!($field)),
                set: |config, text| $read(text).map(|value| config.$section.$field = value),
                show: |config| config.$section.$field.show(),
                differs: |one, other| one.$section.$field != other.$section.$field,
            },)*)*
        ];
    };
}

/// A day.
pub(super) const DAY: Duration = Duration::from_hours(24);

const KIB: usize = 1024;

settings! {
    {
        /// The address and port of gRPC, gRPC-Web and JSON.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)), address;
        /// The URL of the database.
        database: String = "sqlite://usersd.db?mode=rwc".to_owned(), database => |url: &String| without_password(url);
        /// Which calls need a key.
        auth: Auth = Auth::Keys, choice;
        /// Runs migrations at start.
        migrate: bool = true, flag;
        /// The longest time that calls in flight may take after SIGTERM.
        grace: Duration = Duration::from_secs(30), duration;
    }

    /// Stopping.
    drain: Drain {
        /// The time for which the server shows that it is not ready, and still serves, before it closes its port.
        delay: Duration = Duration::ZERO, duration;
    }

    /// Services that need no key.
    open: Open {
        /// Health checks.
        health: bool = true, flag;
        /// Reflection.
        reflection: bool = true, flag;
    }

    /// TLS, and the certificates of clients.
    tls: Tls {
        /// The server's certificate as PEM; `None`: no TLS.
        cert: Option<PathBuf> = None, optional_file;
        /// Its private key as PEM.
        key: Option<PathBuf> = None, optional_file;
        /// The authorities of clients' certificates as PEM; `None`: clients are not asked for any.
        client_ca: Option<PathBuf> = None, optional_file;
        /// The revocation lists of these authorities as PEM, one for each: of a certificate that no list covers it is not
        /// known whether it is revoked, and it is refused. `None`: none is revoked.
        client_crl: Option<PathBuf> = None, optional_file;
        /// Requires client certificates, or accepts them.
        client_auth: ClientAuth = ClientAuth::Required, choice;
        /// The callers that names in certificates stand for.
        callers: Vec<TlsCaller> = Vec::new(), tls_callers::read;
    }

    /// Passwords and their hashes.
    passwords: Passwords {
        /// The bcrypt cost of new hashes.
        cost: u32 = 12, number(10..=15);
        /// Threads that hash; `None`: as many as there are CPUs.
        workers: Option<usize> = None, number_or("auto", 1..=1024, "");
        /// Hashes that a thread works on at the same time; `None`: five.
        lanes: Option<usize> = None, number_or("auto", 1..=8, "");
        /// The share of one CPU that is kept for hashing, in percent.
        floor: u32 = 10, number(1..=100);
        /// The longest wait for a thread.
        max_wait: Duration = Duration::from_secs(5), duration;
        /// Refuses common passwords, and those that contain the user's names.
        screening: bool = true, flag;
        /// A file of further passwords to refuse; `None`: only the list that is built in.
        blocklist: Option<PathBuf> = None, optional_file;
        /// A file with the peppers of hashes, whose keys encrypt TOTP secrets, too; `None`: there are neither.
        pepper: Option<PathBuf> = None, optional_file;
        /// Fewest characters of a new password.
        min_length: usize = 8, number(1..=128);
        /// Most characters of a new password.
        max_length: usize = 128, number(8..=4096);
    }

    /// Limits on guessing passwords.
    throttle: ThrottleLimits {
        /// Failures of one account in an hour.
        account: u32 = 100, number(1..=1_000);
        /// Failures from one IP address in an hour, unless it is one that the user signed in from before; 0:
        /// any number.
        address: u32 = 300, number(0..=1_000_000);
        /// The same for failures that one caller passes on; 0: any number.
        caller: u32 = 0, number(0..=100_000_000);
        /// Failures in a row before waits begin.
        free: u32 = 5, number(1..=1_000);
        /// The first wait; each further one is twice as long.
        first_wait: Duration = Duration::from_secs(30), duration;
        /// The longest wait.
        longest_wait: Duration = Duration::from_hours(1), duration;
        /// The time for which an IP address stays known after the last log-in from it.
        familiar: Duration = 90 * DAY, duration;
    }

    /// Codes that callers deliver.
    codes: Codes {
        /// The lifetime of a link for `EMAIL_VERIFICATION`. That of a numeric code is at most ten minutes.
        email_verification: Duration = DAY, lifetime;
        /// The same for `EMAIL_CHANGE`.
        email_change: Duration = Duration::from_hours(1), lifetime;
        /// The same for `PASSWORD_RESET`.
        password_reset: Duration = Duration::from_hours(1), lifetime;
        /// Codes that are made within an hour for one address of end users; 0: any number.
        per_address: u32 = 100, number(0..=1_000_000);
        /// The same under one name of a user; 0: any number.
        per_user: u32 = 20, number(0..=1_000_000);
    }

    /// Sessions.
    sessions: Sessions {
        /// The time after which a session ends by itself.
        lifetime: Duration = 7 * DAY, lifetime;
        /// The time after which a session ends that is not read; `None`: only the lifetime counts.
        idle: Option<Duration> = None, optional_duration;
        /// Most sessions of one user; 0: any number.
        max_per_user: u32 = 100, number(0..=1_000_000);
        /// Ends the sessions of a user whose e-mail address or `sso_enabled` changes.
        end_on_change: bool = true, flag;
    }

    /// Signed assertions about sessions.
    assertions: Assertions {
        /// The allowed audiences (claim `aud`); empty: assertions are off.
        audiences: Vec<String> = Vec::new(), claims;
        /// The issuer that they name.
        issuer: String = "usersd".to_owned(), claim;
        /// The age at which another key takes the place of the one that signs.
        rotate: Duration = 30 * DAY, days;
    }

    /// Deleted users.
    trash: Trash {
        /// The time after which they are purged; `None`: never.
        keep: Option<Duration> = Some(30 * DAY), optional_duration;
    }

    /// Events.
    logs: Logs {
        /// The time after which they are removed; `None`: never.
        keep: Option<Duration> = Some(365 * DAY), optional_duration;
    }

    /// Countries of addresses.
    geoip: Geoip {
        /// A database in MaxMind's format; `None`: countries stay unknown.
        database: Option<PathBuf> = None, optional_file;
    }

    /// The Appwrite API.
    appwrite: Appwrite {
        /// The treatment of keys that a request to `UpdatePrefs` does not name.
        prefs: AppwritePrefs = AppwritePrefs::Merge, choice;
    }

    /// Connections and requests.
    http: Http {
        /// Longest request message in bytes.
        max_body: usize = KIB * KIB, size;
        /// Longest headers of a request in bytes.
        max_headers: usize = 16 * KIB, headers_size;
        /// The time for the first request's headers, with the TLS handshake.
        header_timeout: Duration = Duration::from_secs(30), lifetime;
        /// The time that a connection may be without a call.
        idle_timeout: Duration = Duration::from_secs(75), lifetime;
        /// The time that a connection may last, give or take a tenth; `None`: any.
        max_age: Option<Duration> = Some(Duration::from_hours(1)), optional_duration;
        /// Open streams of one HTTP/2 connection.
        max_streams: u32 = 256, number(1..=100_000);
        /// Streams that a client may reset within a minute.
        max_resets: u32 = 500, number(1..=1_000_000);
        /// Pings, settings and the like that a client may send within a minute.
        max_pings: u32 = 1_000, number(1..=1_000_000);
        /// The silence after which an HTTP/2 client is pinged.
        keepalive: Duration = Duration::from_mins(1), lifetime;
        /// The time for the answer to that ping.
        keepalive_timeout: Duration = Duration::from_secs(20), lifetime;
        /// Proxies whose `X-Forwarded-For` is believed.
        trusted_proxies: Vec<IpNet> = Vec::new(), networks;
        /// Further host names that are served where no key is needed, in lower case.
        hosts: Vec<String> = Vec::new(), hosts;
        /// Origins whose web pages may call and read replies, as browsers write them.
        cors_origins: Vec<String> = Vec::new(), origins;
    }

    /// Limits on load.
    limits: Limits {
        /// Calls at the same time.
        calls: usize = 1_000, number(1..=1_000_000);
        /// Calls of one caller at the same time.
        calls_per_caller: usize = 500, number(1..=1_000_000);
        /// Calls of one namespace at the same time.
        calls_per_namespace: usize = 500, number(1..=1_000_000);
        /// Calls a second; `None`: any number.
        rate: Option<u32> = None, number_or("off", 1..=1_000_000, " calls a second");
        /// Calls of one caller a second; `None`: any number.
        rate_per_caller: Option<u32> = None, number_or("off", 1..=1_000_000, " calls a second");
        /// Open connections.
        connections: usize = 10_000, number(1..=1_000_000);
        /// Open connections of one address.
        connections_per_address: usize = 2_000, number(1..=1_000_000);
    }

    /// Limits of namespaces that have none of their own; 0: any number.
    namespaces: NamespaceSettings {
        /// Users, with those in the trash.
        max_users: u32 = 0, number(0..=Quota::MAX_STORED);
        /// Sessions.
        max_sessions: u32 = 0, number(0..=Quota::MAX_STORED);
        /// API keys.
        max_keys: u32 = 0, number(0..=Quota::MAX_STORED);
        /// Calls a second on each replica.
        max_calls_per_second: u32 = 0, number(0..=Quota::MAX_CALLS);
    }

    /// Connections to the database.
    pool: Pool {
        /// The number of connections, on PostgreSQL.
        connections: u32 = 16, number(2..=1_000);
        /// The replica that lists and searches of users are read from, on PostgreSQL; `None`: the primary.
        read_url: Option<ReadUrl> = None, replica;
        /// The longest time that the start waits for the database.
        wait: Duration = Duration::from_secs(30), duration;
        /// The longest time that the statements of a list may take together.
        list_timeout: Duration = Duration::from_secs(2), lifetime;
    }

    /// Sessions and users that stay in memory.
    cache: CacheSettings {
        /// Most memory, in bytes; 0: nothing is cached.
        memory: usize = 64 * KIB * KIB, memory;
        /// The longest time for which a change that another replica made may not be seen.
        max_age: Duration = Duration::from_millis(500), duration;
        /// The time between reads of the log of events for such changes.
        poll: Duration = Duration::from_millis(100), duration;
    }

    /// Metrics.
    metrics: MetricsSettings {
        /// The address and port of metrics and health; `None`: there is none.
        listen: Option<SocketAddr> = Some(SocketAddr::from(([127, 0, 0, 1], 9464))), optional_address;
    }

    /// Log lines.
    log: Log {
        /// The least level, or a filter.
        level: String = "info".to_owned(), log_level;
        /// The format of log lines.
        format: LogFormat = LogFormat::Text, choice;
        /// Calls that take longer have a line; `None`: none has.
        slow_call: Option<Duration> = Some(Duration::from_secs(2)), optional_duration;
    }

    /// Traces.
    traces: TracesSettings {
        /// The collector that spans are sent to, by OTLP over gRPC; `None`: there are none.
        endpoint: Option<String> = None, optional_endpoint;
        /// Of the calls that belong to no trace yet one in so many is traced; 0: none.
        one_in: u32 = 1, number(0..=1_000_000);
    }
}

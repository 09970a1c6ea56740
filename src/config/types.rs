//! The types of single settings.

use clap::ValueEnum;

use crate::domain::key::AllowedNamespaces;
use crate::domain::scope::Scopes;

/// Which calls need a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Callers need keys; on a loopback address, as long as there is none, programs of this machine do not.
    Keys,
    /// None: everyone who reaches the port is served.
    Off,
}

/// Client certificates: required or optional, where `tls.client_ca` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientAuth {
    /// Without one there is no connection.
    Required,
    /// Without one the caller needs a key.
    Optional,
}

/// The caller that the name in a client's certificate stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsCaller {
    /// A subject alternative name: a DNS name or a URI, whole.
    pub san: String,
    /// The namespaces that it may work in.
    pub namespaces: AllowedNamespaces,
    /// The scopes that it has.
    pub scopes: Scopes,
}

/// The treatment of keys that a request to `UpdatePrefs` of the Appwrite API does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AppwritePrefs {
    /// They stay, as its manual says.
    Merge,
    /// They go, as its server did.
    Replace,
}

/// The URL of a read replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadUrl(pub String);

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

//! What was found, and where each value came from.

use std::path::PathBuf;

use super::server::Override;
use crate::source::datastore::Url;

/// What can be found, and otherwise be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The file that the API server is started by.
    Manifest,
    /// etcd's servers.
    Endpoints,
    /// The data directory of a stopped member.
    DataDir,
    /// kine's database.
    Kine,
    /// etcd's CA.
    CaCert,
    /// The client certificate.
    Cert,
    /// Its key.
    Key,
    /// Where keys begin.
    Prefix,
    /// The encryption configuration.
    Config,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// A file, a process or a distribution's default, in words.
    pub from: String,
}

impl<T> Sourced<T> {
    /// Joins the two.
    #[must_use]
    pub fn new(value: T, from: impl Into<String>) -> Self {
        Self { value, from: from.into() }
    }
}

/// Where the entries lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datastore {
    /// etcd servers.
    Endpoints(Vec<String>),
    /// The data directory of a stopped member.
    DataDir(PathBuf),
    /// kine's database.
    Kine(PathBuf),
    /// kine's table on a server.
    Server(Url),
}

/// What a distribution's files and processes say. What they do not is left to the options.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Where the entries lie.
    pub source: Option<Sourced<Datastore>>,
    /// etcd's CA.
    pub cacert: Option<Sourced<PathBuf>>,
    /// The client certificate.
    pub cert: Option<Sourced<PathBuf>>,
    /// Its key.
    pub key: Option<Sourced<PathBuf>>,
    /// The API server's `--etcd-prefix`.
    pub prefix: Option<Sourced<String>>,
    /// The API server's `EncryptionConfiguration`.
    pub config: Option<Sourced<PathBuf>>,
    /// Resources that lie in another etcd.
    pub overrides: Vec<Sourced<Override>>,
    /// What a person must know.
    pub warnings: Vec<String>,
}

impl Found {
    /// etcd's or the database's CA, the client certificate and its key.
    #[must_use]
    pub fn tls_files(&self) -> [Option<PathBuf>; 3] {
        let path = |found: &Option<Sourced<PathBuf>>| found.as_ref().map(|s| s.value.clone());
        [&self.cacert, &self.cert, &self.key].map(path)
    }

    /// The resources that lie in another etcd than those servers.
    #[must_use]
    pub fn overrides_beside(&self, servers: &[String]) -> Vec<Override> {
        let elsewhere = |o: &&Override| !o.servers.iter().any(|s| is_among(s, servers));
        self.overrides.iter().map(|o| &o.value).filter(elsewhere).cloned().collect()
    }
}

/// Whether an endpoint is one of several, however they are written.
fn is_among(endpoint: &str, all: &[String]) -> bool {
    let bare = |text: &str| {
        let text = text.trim().trim_end_matches('/');
        text.split_once("://").map_or(text, |(_, rest)| rest).to_owned()
    };
    all.iter().any(|one| bare(one) == bare(endpoint))
}

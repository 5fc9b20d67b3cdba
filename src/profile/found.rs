//! What was found, and where each value came from.

use std::path::PathBuf;

use super::server::Override;

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
pub enum Place {
    /// etcd servers.
    Endpoints(Vec<String>),
    /// The data directory of a stopped member.
    DataDir(PathBuf),
    /// kine's database.
    Kine(PathBuf),
}

/// What a distribution's files and processes say. What they do not is left to the options.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Where the entries lie.
    pub source: Option<Sourced<Place>>,
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

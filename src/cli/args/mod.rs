//! The options that commands share, in groups: a command takes exactly the groups that it
//! honours, so that its help and its completions are true, and anything else is wrong usage.
//! Opens nothing.

mod apiserver;
mod connection;
mod order;
mod output;
mod reading;
mod selection;
mod source;
mod tempo;

pub use apiserver::ApiServer;
pub use connection::{Connection, Hidden};
pub use order::{Arranged, arrange, known};
pub use output::{ColorWhen, Output, TableOrJson, formats};
pub use reading::{Decrypting, Identities, KmsExec, Reading, ReadingInside};
pub use selection::{AllowEmpty, Lost, Namespaces, Prefix, Resources, Revision, Selection};
pub use source::{Distribution, Etcd, EtcdOrKine, Kine, Profile, SnapshotFile, Source};
pub use tempo::Tempo;

use std::path::PathBuf;
use std::time::Duration;

/// What the groups of a command say, all together; what the command does not take is empty.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // flags are what a command line has
pub struct Shared {
    /// The command reads a source.
    pub takes_source: bool,
    /// `--endpoints`
    pub endpoints: Vec<String>,
    /// `--snapshot`
    pub snapshot: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--kine`
    pub kine: Option<Kine>,
    /// `--profile`
    pub profile: Option<Profile>,
    /// Resources that the profile's API server keeps in another etcd
    pub overrides: Vec<crate::profile::Override>,
    /// `--manifest`
    pub manifest: Option<PathBuf>,
    /// `--root`
    pub root: Option<PathBuf>,
    /// `--skip-hash-check`
    pub skip_hash_check: bool,
    /// `--salvage`
    pub salvage: bool,
    /// `--cacert`
    pub cacert: Option<PathBuf>,
    /// `--cert`
    pub cert: Option<PathBuf>,
    /// `--key`, of the connection
    pub key: Option<PathBuf>,
    /// `--user`
    pub user: Option<Hidden>,
    /// `--password`
    pub password: Option<Hidden>,
    /// `--password-file`
    pub password_file: Option<PathBuf>,
    /// `--insecure-skip-tls-verify`
    pub insecure_skip_tls_verify: bool,
    /// `--insecure-transport`
    pub insecure_transport: bool,
    /// `--dial-timeout`
    pub dial_timeout: Duration,
    /// `--command-timeout`
    pub command_timeout: Duration,
    /// `--keepalive-time`
    pub keepalive_time: Duration,
    /// `--keepalive-timeout`
    pub keepalive_timeout: Duration,
    /// `--gentle`, `--fast` and `--qps`, of reading
    pub tempo: crate::source::live::Tempo,
    /// `--prefix`
    pub prefix: Option<String>,
    /// `--proxy-namespace`
    pub proxy_namespace: Option<String>,
    /// `--resource`
    pub resource: Vec<String>,
    /// `--all-resources`
    pub all_resources: bool,
    /// `--allow-empty`
    pub allow_empty: bool,
    /// `--namespace`
    pub namespace: Vec<String>,
    /// `--revision`
    pub revision: Option<i64>,
    /// The command knows `--lost`.
    pub takes_lost: bool,
    /// `--lost`
    pub lost: bool,
    /// `--encryption-config`
    pub encryption_config: Vec<PathBuf>,
    /// `--kms-exec`
    pub kms_exec: Vec<KmsExec>,
    /// `--kms-timeout`
    pub kms_timeout: Option<Duration>,
    /// `--kms-escrow`
    pub kms_escrow: Vec<PathBuf>,
    /// `--identity`
    pub identity: Vec<PathBuf>,
    /// The command reads several files, any of which an identity may open
    pub reads_several: bool,
    /// The command writes an escrow, which an identity is good for as well
    pub makes_escrow: bool,
    /// `--token`
    pub token: Option<Hidden>,
    /// `--token-file`
    pub token_file: Option<PathBuf>,
    /// `--quiet`
    pub quiet: bool,
    /// `--no-progress`
    pub no_progress: bool,
    /// `--color`
    pub color: ColorWhen,
}

impl Shared {
    /// The options of these groups.
    #[must_use]
    pub fn of(groups: &[&dyn Group]) -> Self {
        let mut shared = Self::default();
        for group in groups {
            group.put(&mut shared);
        }
        shared
    }

    /// What `--user` says.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_ref().map(Hidden::expose)
    }

    /// Whether the entries come from a file, not from a server.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.snapshot.is_some() || self.data_dir.is_some() || self.kine.is_some()
    }
}

/// A number of entries in a second.
pub fn rate(text: &str) -> Result<f64, String> {
    let n = text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.001);
    n.ok_or_else(|| format!("`{text}` is not a number of entries in a second"))
}

/// Options that go together.
pub trait Group {
    /// Adds them to those of the other groups.
    fn put(&self, shared: &mut Shared);
}

/// Which options stood on the command line, as opposed to the environment.
#[derive(Clone, Debug, Default)]
pub struct Given(Vec<String>);

impl Given {
    /// Those of the command whose matches these are.
    #[must_use]
    pub fn new(matches: &clap::ArgMatches) -> Self {
        let given = |id: &&clap::Id| {
            matches.value_source(id.as_str()) == Some(clap::parser::ValueSource::CommandLine)
        };
        Self(matches.ids().filter(given).map(|id| id.as_str().replace('_', "-")).collect())
    }

    /// Whether `--NAME` stood there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|given| given == name)
    }

    /// The first option or argument that is not one of `honoured`.
    #[must_use]
    pub fn first_but(&self, honoured: &[&str]) -> Option<&str> {
        self.0.iter().map(String::as_str).find(|name| !honoured.contains(name))
    }

    /// The first option of how to connect that is not one of `honoured`.
    #[must_use]
    pub fn connection_but(&self, honoured: &[&str]) -> Option<&'static str> {
        connection::NAMES.into_iter().find(|name| self.has(name) && !honoured.contains(name))
    }

    /// The first option of how to connect.
    #[must_use]
    pub fn connection(&self) -> Option<&'static str> {
        connection::NAMES.into_iter().find(|name| self.has(name))
    }
}

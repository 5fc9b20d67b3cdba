//! Shapes of the shared arguments. Opens nothing.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::duration;

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // flags are what a command line has
pub struct Global {
    /// etcd endpoints, comma-separated
    #[arg(
        long,
        global = true,
        value_name = "URL[,URL…]",
        env = "ETCDCTL_ENDPOINTS",
        value_delimiter = ',',
        hide_env_values = true,
        help_heading = "Source"
    )]
    pub endpoints: Vec<String>,

    /// Read a snapshot file (`etcdctl snapshot save`) or a copy of `member/snap/db`
    #[arg(long, global = true, value_name = "FILE", help_heading = "Source", conflicts_with_all = ["data_dir", "kine"])]
    pub snapshot: Option<PathBuf>,

    /// Read the data directory of a stopped etcd member, write-ahead log included
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Source",
        conflicts_with = "kine"
    )]
    pub data_dir: Option<PathBuf>,

    /// Read a k3s/kine SQLite database
    #[arg(long, global = true, value_name = "FILE", help_heading = "Source")]
    pub kine: Option<PathBuf>,

    /// Fill in source, certificates, prefix and configuration from a distribution's places
    #[arg(long, global = true, help_heading = "Source")]
    pub profile: Option<Profile>,

    /// The kube-apiserver manifest that `--profile kubeadm` reads
    #[arg(long, global = true, value_name = "FILE", help_heading = "Source")]
    pub manifest: Option<PathBuf>,

    /// Look for the profile's files below this directory, such as a mounted disk
    #[arg(long, global = true, value_name = "DIR", help_heading = "Source")]
    pub root: Option<PathBuf>,

    /// Read a snapshot although its SHA-256 does not match or is missing
    #[arg(long, global = true, help_heading = "Source")]
    pub skip_hash_check: bool,

    /// Read what is left of a damaged file by sweeping all its pages
    #[arg(long, global = true, help_heading = "Source")]
    pub salvage: bool,

    /// Verify the server against this CA bundle
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "ETCDCTL_CACERT",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub cacert: Option<PathBuf>,

    /// Client certificate
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "ETCDCTL_CERT",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub cert: Option<PathBuf>,

    /// Client key
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "ETCDCTL_KEY",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub key: Option<PathBuf>,

    /// User, as `name[:password]`
    #[arg(
        long,
        global = true,
        env = "ETCDCTL_USER",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub user: Option<Hidden>,

    /// Password of the user (then `--user` is the name alone)
    #[arg(
        long,
        global = true,
        env = "ETCDCTL_PASSWORD",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub password: Option<Hidden>,

    /// Do not verify the server's certificate (for tests only)
    #[arg(long, global = true, value_name = "BOOL", env = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY", hide_env_values = true, num_args = 0..=1, require_equals = true, value_parser = boolean, default_value_t = false, default_missing_value = "true", hide_default_value = true, help_heading = "Connection", action = clap::ArgAction::Set)]
    pub insecure_skip_tls_verify: bool,

    /// Use plaintext for endpoints without a scheme when no certificate is given
    #[arg(long, global = true, value_name = "BOOL", env = "ETCDCTL_INSECURE_TRANSPORT", hide_env_values = true, num_args = 0..=1, require_equals = true, value_parser = boolean, default_value_t = true, default_missing_value = "true", help_heading = "Connection", action = clap::ArgAction::Set)]
    pub insecure_transport: bool,

    /// How long connecting may take
    #[arg(long, global = true, value_name = "DURATION", env = "ETCDCTL_DIAL_TIMEOUT", hide_env_values = true, default_value = "2s", value_parser = duration::parse, help_heading = "Connection")]
    pub dial_timeout: Duration,

    /// How long one request may take
    #[arg(long, global = true, value_name = "DURATION", env = "ETCDCTL_COMMAND_TIMEOUT", hide_env_values = true, default_value = "5s", value_parser = duration::parse, help_heading = "Connection")]
    pub command_timeout: Duration,

    /// Time between keepalive probes
    #[arg(long, global = true, value_name = "DURATION", env = "ETCDCTL_KEEPALIVE_TIME", hide_env_values = true, default_value = "2s", value_parser = duration::parse, help_heading = "Connection")]
    pub keepalive_time: Duration,

    /// How long a keepalive probe may stay unanswered
    #[arg(long, global = true, value_name = "DURATION", env = "ETCDCTL_KEEPALIVE_TIMEOUT", hide_env_values = true, default_value = "6s", value_parser = duration::parse, help_heading = "Connection")]
    pub keepalive_timeout: Duration,

    /// Accepted for etcdctl's sake
    #[arg(long, global = true, hide = true, value_name = "BOOL", env = "ETCDCTL_DEBUG", hide_env_values = true, num_args = 0..=1, require_equals = true, value_parser = boolean, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub debug: bool,

    /// The API server's `--etcd-prefix`, or a key prefix below it [default: /registry/]
    #[arg(long, global = true, value_name = "PREFIX", help_heading = "Selection")]
    pub prefix: Option<String>,

    /// Resource, such as `secrets`, `deployments.apps`, `*.example.com` (repeatable)
    #[arg(
        long,
        global = true,
        value_name = "RES",
        value_delimiter = ',',
        help_heading = "Selection",
        conflicts_with = "all_resources"
    )]
    pub resource: Vec<String>,

    /// Every resource
    #[arg(long, global = true, help_heading = "Selection")]
    pub all_resources: bool,

    /// Only this namespace (repeatable)
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAMESPACE",
        value_delimiter = ',',
        help_heading = "Selection"
    )]
    pub namespace: Vec<String>,

    /// Read as of this etcd revision
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(i64).range(1..), help_heading = "Selection")]
    pub revision: Option<i64>,

    /// `EncryptionConfiguration`; the first decides what is current, all are tried for reading
    #[arg(long, global = true, value_name = "FILE", help_heading = "Selection")]
    pub encryption_config: Vec<PathBuf>,

    /// Output format; which ones depends on the command
    ///
    /// The first is the default:
    ///   scan                  table, json, jsonl, csv, prometheus, html
    ///   history, keys         table, json, jsonl, csv
    ///   residue               table, json, jsonl
    ///   migrate, rewrite      table, json
    ///   get, decode           yaml, json, fields
    ///   export                yaml, json
    ///   config check|explain  text, json
    #[arg(short = 'w', long, global = true, value_name = "FORMAT", help_heading = "Output")]
    #[arg(verbatim_doc_comment)]
    pub write_out: Option<String>,

    /// Results and errors only
    #[arg(short, long, global = true, help_heading = "Output")]
    pub quiet: bool,

    /// No progress bar
    #[arg(long, global = true, help_heading = "Output")]
    pub no_progress: bool,

    /// When to colour
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Output"
    )]
    pub color: ColorWhen,
}

/// Distributions whose places are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// The flags of the kube-apiserver static pod
    Kubeadm,
    /// k3s
    K3s,
    /// RKE2
    Rke2,
    /// OpenShift: the static pod of the running revision
    Openshift,
    /// MicroShift: its data directory
    Microshift,
}

/// `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// A password or a text that may contain one: never printed.
#[derive(Clone)]
pub struct Hidden(zeroize::Zeroizing<String>);

impl Hidden {
    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(zeroize::Zeroizing::new(text))
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hidden>")
    }
}

/// The words that etcdctl takes (Go `strconv.ParseBool`).
fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false"),
    }
}

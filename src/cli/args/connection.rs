//! How to connect, with etcdctl's names, meanings, defaults and variables.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Group, Shared};
use crate::cli::duration;

/// The names of these options.
pub(super) const NAMES: [&str; 15] = [
    "cacert",
    "cert",
    "key",
    "user",
    "password",
    "password-file",
    "insecure-skip-tls-verify",
    "insecure-transport",
    "dial-timeout",
    "command-timeout",
    "keepalive-time",
    "keepalive-timeout",
    "gentle",
    "fast",
    "qps",
];

/// How to connect to etcd.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Verify the server against this CA bundle
    #[arg(
        long,
        value_name = "FILE",
        env = "ETCDCTL_CACERT",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    cacert: Option<PathBuf>,

    /// Client certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "ETCDCTL_CERT",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    cert: Option<PathBuf>,

    /// Client key
    #[arg(
        long,
        value_name = "FILE",
        env = "ETCDCTL_KEY",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    key: Option<PathBuf>,

    /// User; without a password anywhere, the terminal is asked for it
    ///
    /// As `name[:password]`, which other users of the machine can see on a command line.
    #[arg(long, env = "ETCDCTL_USER", hide_env_values = true, help_heading = "Connection")]
    user: Option<Hidden>,

    /// Password of the user (then `--user` is the name alone); others can see a command line
    #[arg(long, env = "ETCDCTL_PASSWORD", hide_env_values = true, help_heading = "Connection")]
    password: Option<Hidden>,

    /// File with the user's password in its first line (then `--user` is the name alone)
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    password_file: Option<PathBuf>,

    /// Do not verify the server's certificate (for tests only)
    #[arg(long, value_name = "BOOL", env = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY", hide_env_values = true, num_args = 0..=1, require_equals = true, value_parser = boolean, default_value_t = false, default_missing_value = "true", hide_default_value = true, help_heading = "Connection", action = clap::ArgAction::Set)]
    insecure_skip_tls_verify: bool,

    /// Use plaintext for endpoints without a scheme when no certificate is given
    #[arg(long, value_name = "BOOL", env = "ETCDCTL_INSECURE_TRANSPORT", hide_env_values = true, num_args = 0..=1, require_equals = true, value_parser = boolean, default_value_t = true, default_missing_value = "true", help_heading = "Connection", action = clap::ArgAction::Set)]
    insecure_transport: bool,

    /// How long connecting may take
    #[arg(long, value_name = "DURATION", env = "ETCDCTL_DIAL_TIMEOUT", hide_env_values = true, default_value = "2s", value_parser = duration::parse, help_heading = "Connection")]
    dial_timeout: Duration,

    /// How long one request may take
    #[arg(long, value_name = "DURATION", env = "ETCDCTL_COMMAND_TIMEOUT", hide_env_values = true, default_value = "5s", value_parser = duration::parse, help_heading = "Connection")]
    command_timeout: Duration,

    /// Time between keepalive probes
    #[arg(long, value_name = "DURATION", env = "ETCDCTL_KEEPALIVE_TIME", hide_env_values = true, default_value = "2s", value_parser = duration::parse, help_heading = "Connection")]
    keepalive_time: Duration,

    /// How long a keepalive probe may stay unanswered
    #[arg(long, value_name = "DURATION", env = "ETCDCTL_KEEPALIVE_TIMEOUT", hide_env_values = true, default_value = "6s", value_parser = duration::parse, help_heading = "Connection")]
    keepalive_timeout: Duration,

    /// Accepted for etcdctl's sake
    #[arg(long, hide = true, value_name = "BOOL", env = "ETCDCTL_DEBUG", hide_env_values = true, num_args = 0..=1, require_equals = true, value_parser = boolean, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    #[allow(dead_code)] // etcdctl prints its own requests with it; there is nothing to do
    debug: bool,
}

impl Group for Connection {
    fn put(&self, shared: &mut Shared) {
        shared.cacert.clone_from(&self.cacert);
        shared.cert.clone_from(&self.cert);
        shared.key.clone_from(&self.key);
        shared.user.clone_from(&self.user);
        shared.password.clone_from(&self.password);
        shared.password_file.clone_from(&self.password_file);
        shared.insecure_skip_tls_verify = self.insecure_skip_tls_verify;
        shared.insecure_transport = self.insecure_transport;
        shared.dial_timeout = self.dial_timeout;
        shared.command_timeout = self.command_timeout;
        shared.keepalive_time = self.keepalive_time;
        shared.keepalive_timeout = self.keepalive_timeout;
    }
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

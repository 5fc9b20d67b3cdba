//! Connections to the members of a cluster: endpoints, TLS, tokens, failover, and what a failure
//! of them means.

mod agree;
mod call;
mod dial;
mod endpoint;
mod explain;
mod facts;
mod handshake;
mod metrics;
mod request;
mod session;
mod shown;
mod tls;
mod token;
mod told;
mod usable;

pub(super) use call::{CallError, Refusal};
pub(super) use explain::{refusal, refusal_to};
pub(super) use session::Session;
pub use shown::shown;
#[cfg(feature = "datastore")]
pub(crate) use tls::{TlsFiles, Verify};
pub(crate) use tls::{Trust, system_roots};

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

/// How to reach an etcd. Names and meanings are etcdctl's.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// `host:port`, `http://…`, `https://…` or `unix://…`; the first that can be reached is used.
    pub endpoints: Vec<String>,
    /// PEM bundle that servers are verified against; the system's if none.
    pub cacert: Option<PathBuf>,
    /// PEM client certificate.
    pub cert: Option<PathBuf>,
    /// PEM client key: PKCS#8, PKCS#1 or SEC1.
    pub key: Option<PathBuf>,
    /// User and password.
    pub credentials: Option<Credentials>,
    /// Accept any server certificate.
    pub insecure_skip_tls_verify: bool,
    /// Endpoints without a scheme use no TLS unless a certificate option is given.
    pub insecure_transport: bool,
    /// How long connecting may take, and how long the TLS handshake may.
    pub dial_timeout: Duration,
    /// How long one request may take.
    pub command_timeout: Duration,
    /// Time between keepalive probes (never less than 10 s, as in etcdctl).
    pub keepalive_time: Duration,
    /// How long a probe may stay unanswered.
    pub keepalive_timeout: Duration,
    /// How much of the members' time reading may take.
    pub tempo: Tempo,
}

/// How much of the members' time reading may take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tempo {
    /// How what else they have to do is respected.
    pub manner: Manner,
    /// Entries a second, at most.
    pub qps: Option<f64>,
}

/// How a read respects what else a member has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Not at all.
    Fast,
    /// Less is asked for at once when answers take longer than they did.
    #[default]
    Usual,
    /// Little is asked for at once, and with pauses.
    Gentle,
}

/// User and password. `Debug` hides both.
#[derive(Clone)]
pub struct Credentials(Arc<(String, Zeroizing<String>)>);

impl Credentials {
    /// Joins the two.
    #[must_use]
    pub fn new(user: &str, password: &str) -> Self {
        Self(Arc::new((user.to_owned(), Zeroizing::new(password.to_owned()))))
    }

    pub(in crate::source) fn user(&self) -> &str {
        &self.0.0
    }

    pub(in crate::source) fn password(&self) -> &str {
        &self.0.1
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hidden>")
    }
}

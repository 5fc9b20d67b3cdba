//! A live etcd: a synchronous face over an asynchronous client.
//!
//! Reads go through the hand-written range request of [`wire`], whose pages are read in place;
//! what is not hot uses generated messages.

mod client;
mod der;
mod dial;
mod endpoint;
mod events;
mod explain;
pub mod kv;
mod narrow;
mod pages;
mod past;
mod said;
mod session;
mod stride;
mod tls;
mod txn;
pub mod watch;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::{
    EntrySink, EtcdError, Query, RecordSink, Source, SourceError, SourceInfo, SourceKind, Visit,
};
use session::Session;

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

    fn user(&self) -> &str {
        &self.0.0
    }

    fn password(&self) -> &str {
        &self.0.1
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hidden>")
    }
}

/// A connected etcd.
pub struct Live {
    /// `None` only while dropping.
    runtime: Option<Runtime>,
    session: Arc<Session>,
}

impl Live {
    /// Connects to the first endpoint that can be reached and authenticates.
    ///
    /// # Errors
    /// When a file cannot be used, no endpoint can be reached, or the credentials are wrong.
    pub fn connect(options: &LiveOptions) -> Result<Self, SourceError> {
        let session = Arc::new(Session::new(options)?);
        // One worker receives while the caller's thread reads what has arrived.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("atrest-etcd")
            .enable_all()
            .build()
            .map_err(EtcdError::Runtime)?;
        runtime.block_on(session.open()).map_err(|refusal| explain::refusal(&session, &refusal))?;
        Ok(Self { runtime: Some(runtime), session })
    }

    fn runtime(&self) -> Result<&Runtime, EtcdError> {
        self.runtime.as_ref().ok_or(EtcdError::Closed)
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.session.learner.load(Ordering::Relaxed) {
            notes.push(
                "the member is a learner: its own state was read, which may lag behind the cluster"
                    .to_owned(),
            );
        }
        if self.session.auth_off.load(Ordering::Relaxed) {
            notes.push(
                "the cluster has authentication disabled; user and password were not needed"
                    .to_owned(),
            );
        }
        notes
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Pages may be in flight that nobody wants any more.
            runtime.shutdown_background();
        }
    }
}

impl Source for Live {
    fn info(&self) -> SourceInfo {
        let endpoints: Vec<_> =
            self.session.members.iter().map(|m| m.target.text.as_str()).collect();
        SourceInfo { kind: SourceKind::Etcd, location: endpoints.join(",") }
    }

    fn estimate(&mut self, query: &Query) -> Option<u64> {
        self.runtime().ok()?.block_on(pages::count(&self.session, query))
    }

    fn visit(&mut self, query: &Query, sink: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
        let revision = pages::visit(self.runtime()?, &self.session, query, sink)?;
        Ok(Visit { revision, notes: self.notes(), ..Visit::default() })
    }

    fn history(&mut self, query: &Query, sink: &mut RecordSink<'_>) -> Result<Visit, SourceError> {
        let mut visit = past::history(self.runtime()?, &self.session, query, sink)?;
        visit.notes.extend(self.notes());
        Ok(visit)
    }
}

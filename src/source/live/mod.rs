//! A live etcd: a synchronous face over an asynchronous client.
//!
//! `connection` reaches the members and tells why it cannot; `wire` knows the messages; `reading`
//! makes whole reads of them, `writing` the requests of a migration. All responses stay as bytes
//! that are read in place.

mod connection;
mod reading;
mod wire;
mod writing;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::runtime::Runtime;

pub use self::connection::{Credentials, LiveOptions, Manner, Tempo, shown};
#[cfg(feature = "datastore")]
pub(crate) use self::connection::{TlsFiles, Verify};
pub(crate) use self::connection::{Trust, system_roots};
pub use self::reading::follow::{Changes, Notice, Watcher};
pub use self::reading::member::{ListedMember, MemberStatus, NO_SPACE};
pub use self::wire::txn::Put;
pub use self::writing::each::{Admission, Gate};
pub use self::writing::{Commit, Kv, KvError};

use self::connection::Session;
use self::reading::{pages, past};
use super::{
    EntrySink, EtcdError, Query, RecordSink, Source, SourceError, SourceInfo, SourceKind, Visit,
};

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
        runtime
            .block_on(session.open())
            .map_err(|refusal| connection::refusal(&session, &refusal))?;
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
        SourceInfo { kind: SourceKind::Etcd, location: self.session.location() }
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

//! Each new answer must agree with what the members have told about their cluster.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::call::{CallError, Refusal};
use super::session::Session;
use crate::source::Untrue;
use crate::source::live::wire::guaranteed::Flaw;
use crate::source::live::wire::kv::RANGE;
use crate::source::live::wire::status::STATUS;
use crate::source::live::wire::txn::TXN;
use crate::source::live::wire::{Header, header};

/// Room for an answer, bytes.
const LIMIT: usize = 1 << 20;

impl From<Flaw> for CallError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Malformed(e) => Self::Malformed(e),
            Flaw::Untrue(e) => Self::Untrue(Box::new(e)),
        }
    }
}

impl Session {
    /// The newest revision that was told. What is read after this, with a majority's consent, is
    /// no older: etcd's reads are linearizable.
    pub(super) fn newest(&self) -> i64 {
        self.told.lock().newest
    }

    /// Takes note of an answer's header.
    ///
    /// # Errors
    /// When the member belongs to another cluster than was said before, by it or by another.
    pub fn hear(&self, index: usize, said: Header) -> Result<(), Untrue> {
        let mut told = self.told.lock();
        if let Some((&other, &cluster)) = told.clusters.iter().next()
            && cluster != said.cluster
        {
            // The endpoint's own word first, where it says another now.
            let (other, cluster) = match told.clusters.get(&index) {
                Some(&before) => (index, before),
                None => (other, cluster),
            };
            let named = [(other, cluster), (index, said.cluster)];
            let untrue = Untrue::Clusters(named.map(|(i, id)| (self.member(i), id)).into());
            told.divided = Some((index, untrue.clone()));
            return Err(untrue);
        }
        told.clusters.entry(index).or_insert(said.cluster);
        told.newest = told.newest.max(said.revision);
        Ok(())
    }

    /// Takes note of a response to one request; `newest` is what was known when it was sent, if
    /// the answer cannot be older.
    pub(super) fn heard(
        &self,
        index: usize,
        path: &'static str,
        message: &[u8],
        newest: Option<i64>,
    ) -> Result<(), Flaw> {
        let said = header(message)?;
        // The answer about alarms has an empty header (etcd
        // `server/etcdserver/api/v3rpc/maintenance.go`).
        if said.cluster != 0 || matches!(path, RANGE | TXN) {
            self.hear(index, said)?;
        }
        if let Some(before) = newest {
            if said.revision < 1 {
                return Err(Untrue::Revision(said.revision).into());
            }
            if said.revision < before {
                return Err(Untrue::WentBack { before, now: said.revision }.into());
            }
        }
        Ok(())
    }

    /// Nothing, unless two clusters have answered.
    ///
    /// # Errors
    /// When two have.
    pub fn undivided(&self) -> Result<(), Refusal> {
        match self.told.lock().divided.clone() {
            None => Ok(()),
            Some((index, untrue)) => {
                Err(Refusal { failures: vec![(index, CallError::Untrue(Box::new(untrue)))] })
            }
        }
    }

    /// Begins to ask the endpoints but this one which cluster they belong to. Those that cannot
    /// be reached or do not say have no part in any result.
    pub(super) fn ask_others(self: &Arc<Self>, but: usize) {
        if self.members.len() == 1 {
            return;
        }
        let mut asking = JoinSet::new();
        for index in (0..self.members.len()).filter(|index| *index != but) {
            let session = Arc::clone(self);
            asking.spawn(async move {
                // Nothing of this member is used, so why it fails is of no interest.
                let _ = session.identify(index).await;
            });
        }
        self.told.lock().asking = Some((asking, Instant::now() + self.dial_timeout));
    }

    /// Asks a member which cluster it belongs to, unless it has told. Not with the user's
    /// password: the endpoint may be a stranger's.
    pub(super) async fn identify(self: &Arc<Self>, index: usize) -> Result<(), CallError> {
        if self.told.lock().clusters.contains_key(&index) {
            return Ok(());
        }
        self.once(index, STATUS, Bytes::new(), LIMIT, None).await.map(drop)
    }

    /// To be called before a result is given: waits until every endpoint has told its cluster, as
    /// long as connecting may take.
    ///
    /// # Errors
    /// When there are two clusters.
    pub async fn settle(&self) -> Result<(), Refusal> {
        let asking = self.told.lock().asking.take();
        if let Some((mut asking, until)) = asking {
            let all = async { while asking.join_next().await.is_some() {} };
            let _ = tokio::time::timeout_at(until, all).await;
        }
        self.undivided()
    }
}

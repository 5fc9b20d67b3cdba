//! Single keys and transactions, which only `migrate` and `delete-unreadable` write; leases; and the
//! upkeep of `scrub`.

pub mod each;
mod lease;
mod maintenance;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message;
use tokio::runtime::Handle;

use super::Live;
use super::connection::{self, CallError, Refusal, Session};
use super::wire::kv::{self, PageInfo, RangeRequest};
use super::wire::said::{Said, plain};
use super::wire::txn::{Put, Response, TXN, TxnRequest};
use crate::entry::Entry;
use crate::proto::Malformed;
use crate::source::{EtcdError, SourceError, Untrue, Wish};

/// Room for responses, bytes: a batch is bounded by its requester.
const LIMIT: usize = 256 << 20;
/// Range requests in flight for one reading.
const READS: usize = 32;

/// Why a request on keys failed.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The server has more to do than it can.
    #[error("etcd is busy")]
    Busy,
    /// The request is larger, or has more operations, than the server takes.
    #[error("{0}")]
    TooLarge(String),
    /// The database has reached its quota; nothing is written until that changes.
    #[error("the database has reached its quota")]
    NoSpace,
    /// The revision is no longer held.
    #[error("the revision has been compacted")]
    Compacted,
    /// No member answered. A write may or may not have happened.
    #[error(transparent)]
    Lost(SourceError),
    /// Anything else; trying again does not help.
    #[error(transparent)]
    Refused(SourceError),
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Everything was written, at this revision.
    Done(i64),
    /// Nothing was written: these are the revisions of the keys now, in order; none is gone.
    Conflict(Vec<Option<i64>>),
}

/// Keys of a live etcd, usable from any thread that is not one of a runtime.
#[derive(Clone)]
pub struct Kv {
    handle: Handle,
    session: Arc<Session>,
}

impl Kv {
    /// The entries of all `runs`, in their order; none where there is no such key. Each run is
    /// sorted, and read at once: its keys should be neighbours. Without a revision each run is read
    /// as it is now.
    ///
    /// Transactions that only read would do this in fewer requests, but etcd before 3.5.5 ends
    /// with a panic when one is abandoned (etcd-io/etcd issue 14110).
    ///
    /// # Errors
    /// See [`KvError`].
    pub fn read(
        &self,
        runs: &[&[&[u8]]],
        revision: Option<i64>,
    ) -> Result<Vec<Option<Entry>>, KvError> {
        let mut entries = Vec::new();
        for wave in runs.chunks(READS) {
            let found = self.handle.block_on(async {
                let mut reading = Vec::with_capacity(wave.len());
                for run in wave {
                    let keys = run.iter().map(|k| k.to_vec()).collect();
                    let run = read_run(Arc::clone(&self.session), keys, revision.unwrap_or(0));
                    reading.push(tokio::spawn(run));
                }
                let mut found = Vec::with_capacity(wave.len());
                for run in reading {
                    found.push(run.await);
                }
                found
            });
            for run in found {
                let run = run.map_err(|e| refused(EtcdError::Interrupted(e.into())))?;
                entries.extend(run.map_err(|e| match e {
                    ReadError::Refusal(refusal) => self.classify(&refusal),
                    ReadError::Malformed(e) => malformed(e),
                })?);
            }
        }
        Ok(entries)
    }

    /// Writes all of `puts`, or none if one of their keys has changed. Leases stay.
    ///
    /// # Errors
    /// See [`KvError`]. After [`KvError::Lost`] the outcome is unknown; asking again is safe,
    /// because a write that did happen is a changed revision.
    pub fn commit(&self, puts: &[Put<'_>]) -> Result<Commit, KvError> {
        let body = Bytes::from(TxnRequest::write(puts).encode_to_vec());
        let bytes = self.handle.block_on(self.call(body))?;
        self.outcome(&bytes, puts)
    }

    /// Deletes a key if it has not changed.
    ///
    /// # Errors
    /// See [`KvError`]. After [`KvError::Lost`] the outcome is unknown; asking again is safe,
    /// because a key that was deleted is a conflict with nothing.
    pub fn delete(&self, key: &[u8], mod_revision: i64) -> Result<Commit, KvError> {
        let body = Bytes::from(TxnRequest::delete(key, mod_revision).encode_to_vec());
        let bytes = self.handle.block_on(self.call(body))?;
        self.outcome(&bytes, &[Put { key, mod_revision, value: &[] }])
    }

    /// What the response to a transaction says.
    pub(super) fn outcome(&self, bytes: &[u8], puts: &[Put<'_>]) -> Result<Commit, KvError> {
        let response = Response::read(bytes).map_err(malformed)?;
        let revision = response.revision;
        if response.succeeded {
            // It is a revision of its own, after those that it was conditional on.
            let newest = puts.iter().map(|p| p.mod_revision).max().unwrap_or_default();
            if revision <= newest {
                return Err(self.untrue(Untrue::WentBack { before: newest, now: revision }));
            }
            return Ok(Commit::Done(revision));
        }
        if response.ranges.len() != puts.len() {
            return Err(malformed(Malformed { offset: 0 }));
        }
        let mut now = Vec::with_capacity(puts.len());
        for (range, put) in response.ranges.iter().zip(puts) {
            let entry = kv::entries(range).next().transpose().map_err(malformed)?;
            if let Some(entry) = &entry {
                if entry.key != put.key {
                    return Err(self.untrue(Untrue::OutOfRange(entry.key.to_vec())));
                }
                if entry.mod_revision > revision {
                    let (key, mod_revision) = (entry.key.to_vec(), entry.mod_revision);
                    return Err(self.untrue(Untrue::Newer { key, mod_revision, at: revision }));
                }
            }
            now.push(entry.map(|e| e.mod_revision));
        }
        Ok(Commit::Conflict(now))
    }

    fn untrue(&self, what: Untrue) -> KvError {
        let member = self.session.member(self.session.current.load(Ordering::Relaxed));
        refused(EtcdError::Untrue { member, what })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Asks the current member once, so that a busy one is noticed; others take over from a lost
    /// one.
    pub(super) async fn call(&self, body: Bytes) -> Result<Bytes, KvError> {
        match self.session.call_current(TXN, body.clone(), LIMIT).await {
            Ok(bytes) => return Ok(bytes),
            Err(CallError::Status(s)) if Said::of(s.message()) == Said::Busy => {
                return Err(KvError::Busy);
            }
            Err(e) if e.is_passing() => {}
            Err(e) => {
                let index = self.session.current.load(Ordering::Relaxed);
                return Err(self.unwritten(&Refusal { failures: vec![(index, e)] }));
            }
        }
        self.session.call(TXN, body, LIMIT).await.map_err(|refusal| self.unwritten(&refusal))
    }

    fn unwritten(&self, refusal: &Refusal) -> KvError {
        match self.classify(refusal) {
            KvError::Refused(_) => {
                refused(connection::refusal_to(&self.session, refusal, Wish::Write))
            }
            other => other,
        }
    }

    fn classify(&self, refusal: &Refusal) -> KvError {
        match refusal.said() {
            Some(Said::Busy) => KvError::Busy,
            Some(Said::NoSpace) => KvError::NoSpace,
            Some(Said::Compacted) => KvError::Compacted,
            Some(Said::TooLarge) => {
                KvError::TooLarge(plain(refusal.message().unwrap_or_default()).to_owned())
            }
            _ if refusal.is_too_large() => {
                KvError::TooLarge("the request is larger than the server takes".to_owned())
            }
            _ => {
                let error = connection::refusal(&self.session, refusal);
                if refusal.failures.iter().all(|(_, e)| e.is_passing()) {
                    KvError::Lost(error.into())
                } else {
                    KvError::Refused(error.into())
                }
            }
        }
    }
}

enum ReadError {
    Refusal(Refusal),
    Malformed(Malformed),
}

impl From<Malformed> for ReadError {
    fn from(e: Malformed) -> Self {
        Self::Malformed(e)
    }
}

/// Sorted keys, in one request where nobody else has keys between them.
async fn read_run(
    session: Arc<Session>,
    keys: Vec<Vec<u8>>,
    revision: i64,
) -> Result<Vec<Option<Entry>>, ReadError> {
    let mut found = Vec::with_capacity(keys.len());
    while let Some((first, rest)) = keys.get(found.len()..).and_then(<[_]>::split_first) {
        let mut request = RangeRequest { key: first.clone(), revision, ..RangeRequest::default() };
        if let Some(last) = rest.last() {
            request.range_end = [last.as_slice(), &[0]].concat();
            request.limit = i64::try_from(rest.len() + 1).unwrap_or(i64::MAX);
        }
        let page = session.range(&request, LIMIT).await.map_err(ReadError::Refusal)?;
        found.extend(decided(&page, keys.get(found.len()..).unwrap_or_default())?);
    }
    Ok(found)
}

/// The entries of as many of the sorted `keys` as a page tells about, one at least: the range
/// began with the first.
fn decided(page: &[u8], keys: &[Vec<u8>]) -> Result<Vec<Option<Entry>>, Malformed> {
    let info = PageInfo::read(page)?;
    let end = info.last.filter(|_| info.more);
    let beyond = |key: &&Vec<u8>| end.as_ref().is_some_and(|end| *key > end);
    let count = keys.iter().take_while(|k| !beyond(k)).count().max(1);
    let mut entries = HashMap::new();
    for entry in kv::entries(page) {
        let entry = entry?;
        entries.insert(entry.key, entry);
    }
    let take = |key: &Vec<u8>| entries.get(key.as_slice()).map(crate::entry::EntryRef::to_entry);
    Ok(keys.iter().take(count).map(take).collect())
}

fn malformed(e: Malformed) -> KvError {
    refused(e.into())
}

fn refused(e: EtcdError) -> KvError {
    KvError::Refused(e.into())
}

impl Live {
    /// Single keys and transactions.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn kv(&self) -> Result<Kv, SourceError> {
        Ok(Kv { handle: self.runtime()?.handle().clone(), session: Arc::clone(&self.session) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_decides_about_the_keys_that_it_reaches() {
        let keys: Vec<Vec<u8>> = ["b", "d", "f"].map(|k| k.as_bytes().to_vec()).into();
        let kv = |key: u8| [0x12, 5, 0x0a, 1, key, 0x18, 7];
        let names = |page: &[u8]| -> Vec<_> {
            let found = decided(page, &keys).unwrap();
            found.iter().map(|e| e.as_ref().map(|e| e.key.clone())).collect()
        };
        // All of it: what is not there does not exist.
        let whole = [&kv(b'b')[..], &kv(b'c'), &kv(b'f')].concat();
        assert_eq!(names(&whole), [Some(b"b".to_vec()), None, Some(b"f".to_vec())]);
        // Others have put keys in between, so the page ends early.
        let more = [&kv(b'b')[..], &kv(b'c'), &kv(b'e'), &[0x18, 1]].concat();
        assert_eq!(names(&more), [Some(b"b".to_vec()), None]);
        let before = [&kv(b'b')[..], &[0x18, 1]].concat();
        assert_eq!(names(&before), [Some(b"b".to_vec())]);
        assert_eq!(names(&[]), [None, None, None]);
        assert!(decided(&whole[..6], &keys).is_err());
    }
}

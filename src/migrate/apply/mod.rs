//! Rewrites the entries of a plan: the only writer to etcd.
//!
//! Each entry gets a transaction, and so a revision, of its own: a watch that ends within a
//! revision is resumed after it, so that of several writes at one revision a client of the API
//! server can miss some for good. Only where no API server runs, several go together.
//!
//! Every write is a transaction that compares mod revisions, so nothing that changed meanwhile is
//! overwritten, and a transaction with an unknown outcome may be sent again: if it did happen,
//! the revision has changed, and reading the key shows the very bytes that were sent. Stopping at
//! any moment leaves each entry either as it was or rewritten.

mod batch;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::followed::Followed;
use super::plan::{Failed, Item, Plan};
use super::throttle::{Entrance, Throttle};
use crate::apiserver::ApiError;
use crate::entry::Entry;
use crate::source::SourceError;
use crate::source::live::{Commit, Gate, Kv, KvError, Put};

/// Most operations of a transaction (etcd `server/embed/config.go`: `DefaultMaxTxnOps`).
pub const MAX_OPS: usize = 128;
/// What a transaction may weigh, bytes: etcd takes 1.5 MiB (`DefaultMaxRequestBytes`) and adds
/// its own header.
const MAX_BYTES: usize = 1_400_000;
/// How often an entry that changes each time is tried again.
const MAX_TRIES: u32 = 10;
/// First pause before another try; it doubles up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// How long a cluster may be away before a run gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before a lost cluster is asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// Where entries are read and written.
pub trait Keyspace: Sync {
    /// The entries of all `runs` of neighbours in order, see [`Kv::read`].
    ///
    /// # Errors
    /// See [`KvError`].
    fn read(&self, runs: &[&[&[u8]]], revision: Option<i64>)
    -> Result<Vec<Option<Entry>>, KvError>;

    /// Writes all or nothing, see [`Kv::commit`].
    ///
    /// # Errors
    /// See [`KvError`].
    fn commit(&self, puts: &[Put<'_>]) -> Result<Commit, KvError>;

    /// Writes each by itself, many at once, see [`Kv::commit_each`].
    fn commit_each(
        &self,
        puts: &[Put<'_>],
        gate: &dyn Gate,
        done: &mut dyn FnMut(usize, Result<Commit, KvError>) -> bool,
    );
}

impl Keyspace for Kv {
    fn read(
        &self,
        runs: &[&[&[u8]]],
        revision: Option<i64>,
    ) -> Result<Vec<Option<Entry>>, KvError> {
        Self::read(self, runs, revision)
    }

    fn commit(&self, puts: &[Put<'_>]) -> Result<Commit, KvError> {
        Self::commit(self, puts)
    }

    fn commit_each(
        &self,
        puts: &[Put<'_>],
        gate: &dyn Gate,
        done: &mut dyn FnMut(usize, Result<Commit, KvError>) -> bool,
    ) {
        Self::commit_each(self, puts, gate, done);
    }
}

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Transactions at once.
    pub concurrency: u32,
    /// Entries a second.
    pub qps: Option<f64>,
    /// Entries of a transaction. More than one only while no API server runs.
    pub batch: usize,
}

/// Entries that are read, encrypted and read back together, whatever transactions they have.
const CHUNK: usize = 128;
/// Threads that read and encrypt while others write, beside those that `concurrency` keeps busy.
const AHEAD: usize = 3;

/// Why a run ended before everything was tried.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Somebody asked for it.
    #[error("interrupted")]
    Interrupted,
    /// The database has reached its quota.
    #[error("etcd's database has reached its quota: nothing more can be written")]
    NoSpace,
    /// The cluster has been away for too long, or refuses.
    #[error(transparent)]
    Source(SourceError),
    /// The write provider does not work any more.
    #[error("{0}")]
    Provider(String),
    /// A value that was written does not read back as it should.
    #[error("{0}")]
    Mismatch(String),
    /// The API server that was to write does not.
    #[error("{0}")]
    Api(String),
    /// The API server that was to write does not answer.
    #[error(transparent)]
    NoAnswer(ApiError),
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Entries rewritten.
    pub written: u64,
    /// Entries that were read back, decrypted and found equal.
    pub verified: u64,
    /// How often somebody else changed an entry at the same time.
    pub conflicts: u64,
    /// Entries that somebody else deleted before their turn.
    pub deleted: u64,
    /// Entries that somebody else made current before their turn.
    pub already: u64,
    /// Entries that could not be rewritten.
    pub failed: Vec<Failed>,
    /// How often etcd said that it had too many requests.
    pub busy: u64,
    /// Migrations of the cluster's own that were followed.
    pub migrations: Vec<Followed>,
    /// Why the run ended early.
    pub stop: Option<Stop>,
}

impl Outcome {
    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        self.written += other.written;
        self.verified += other.verified;
        self.conflicts += other.conflicts;
        self.deleted += other.deleted;
        self.already += other.already;
        self.failed.extend(other.failed);
        self.busy += other.busy;
        self.migrations.extend(other.migrations);
        self.stop = self.stop.take().or(other.stop);
    }
}

/// One run over a plan.
struct Run<'a, K> {
    keys: &'a K,
    plan: &'a Plan,
    throttle: Throttle,
    /// Each entry has a transaction of its own.
    alone: bool,
    /// Entries of a transaction otherwise; shrinks when a server takes fewer.
    batch: AtomicUsize,
    interrupted: &'a AtomicBool,
    halted: AtomicBool,
    outcome: Mutex<Outcome>,
    advance: &'a (dyn Fn(u64) + Sync),
}

/// Rewrites what `plan` names. `interrupted` ends it after what is in flight; `advance` gets the
/// number of entries dealt with.
pub fn apply<K: Keyspace>(
    keys: &K,
    plan: &Plan,
    pace: Pace,
    interrupted: &AtomicBool,
    advance: &(dyn Fn(u64) + Sync),
) -> Outcome {
    // With a rate, transactions stay small enough not to come in bursts.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
    let smooth = pace.qps.map_or(MAX_OPS, |q| (q / 10.0).clamp(1.0, 128.0) as usize);
    let batch = pace.batch.min(smooth).clamp(1, MAX_OPS);
    let concurrency = usize::try_from(pace.concurrency.max(1)).unwrap_or(1);
    let (chunk, threads) = match batch {
        1 => (CHUNK.min(smooth), concurrency.div_ceil(CHUNK) + AHEAD),
        batch => (batch, concurrency),
    };
    let run = Run {
        keys,
        plan,
        throttle: Throttle::new(pace.concurrency, pace.qps),
        alone: batch == 1,
        batch: AtomicUsize::new(batch),
        interrupted,
        halted: AtomicBool::new(false),
        outcome: Mutex::default(),
        advance,
    };
    let chunks = chunks(&plan.items, chunk);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(chunks.len()) {
            scope.spawn(|| {
                while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result =
                        if run.stopped() { Err(Stop::Interrupted) } else { run.chunk(chunk) };
                    if let Err(stop) = result {
                        run.halt(stop);
                        break;
                    }
                }
            });
        }
    });
    let busy = run.throttle.times_busy();
    let mut outcome = run.outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.busy = busy;
    outcome
}

/// Neighbours that fit into one request.
fn chunks(items: &[Item], most: usize) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (i, item) in items.iter().enumerate() {
        let weight = batch::weight(item.key.len(), item.size);
        if i > start && (i - start >= most || bytes + weight > MAX_BYTES) {
            chunks.push(start..i);
            (start, bytes) = (i, 0);
        }
        bytes += weight;
    }
    if start < items.len() {
        chunks.push(start..items.len());
    }
    chunks
}

impl<K: Keyspace> Run<'_, K> {
    fn stopped(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) || self.halted.load(Ordering::Relaxed)
    }

    /// The first reason to stop is the one that is told.
    fn halt(&self, stop: Stop) {
        let mut outcome = self.outcome();
        if !self.halted.swap(true, Ordering::Relaxed) {
            outcome.stop = Some(stop);
        }
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, item: &Item, reason: String) {
        let resource = self.plan.resources[item.resource].transformers.resource().to_owned();
        self.outcome().failed.push(Failed { key: item.key.to_vec(), resource, reason });
    }

    /// Repeats `ask` while the cluster is away or busy.
    fn patiently<T>(&self, ask: impl Fn() -> Result<T, KvError>) -> Result<T, Asked> {
        let start = Instant::now();
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(KvError::TooLarge(text)) => return Err(Asked::TooLarge(text)),
                Err(KvError::Compacted) => return Err(Asked::Compacted),
                Err(KvError::NoSpace) => return Err(Asked::Stop(Stop::NoSpace)),
                Err(KvError::Refused(e)) => return Err(Asked::Stop(Stop::Source(e))),
                Err(KvError::Lost(_) | KvError::Busy) if self.stopped() => {
                    return Err(Asked::Stop(Stop::Interrupted));
                }
                Err(KvError::Lost(e)) if start.elapsed() > PATIENCE => {
                    return Err(Asked::Stop(Stop::Source(e)));
                }
                Err(KvError::Busy | KvError::Lost(_)) => std::thread::sleep(AGAIN),
            }
        }
    }

    /// The entries of items, which the plan numbers.
    fn read(&self, items: &[usize], revision: Option<i64>) -> Result<Vec<Option<Entry>>, Asked> {
        let item = |i: &usize| self.plan.items.get(*i);
        let keys: Vec<&[u8]> = items.iter().filter_map(item).map(|i| &*i.key).collect();
        let mut runs: Vec<&[&[u8]]> = Vec::new();
        let mut start = 0;
        for at in 1..=items.len() {
            let joined = at < items.len()
                && items[at] == items[at - 1] + 1
                && item(&items[at]).is_some_and(|i| i.neighbour);
            if !joined {
                runs.extend(keys.get(start..at));
                start = at;
            }
        }
        self.patiently(|| self.keys.read(&runs, revision))
    }

    /// Sends one transaction when it may be sent, until its outcome is known.
    fn commit(&self, puts: &[Put<'_>]) -> Result<Commit, Asked> {
        self.patiently(|| {
            loop {
                if !self.throttle.begin(puts.len(), &|| self.stopped()) {
                    return Err(KvError::Busy);
                }
                let start = Instant::now();
                match self.keys.commit(puts) {
                    Ok(commit) => {
                        self.throttle.answered(start.elapsed());
                        return Ok(commit);
                    }
                    Err(KvError::Busy) => self.throttle.busy(),
                    Err(e) => {
                        self.throttle.failed();
                        return Err(e);
                    }
                }
            }
        })
    }
}

/// Why an answer did not come.
enum Asked {
    TooLarge(String),
    Compacted,
    Stop(Stop),
}

#[cfg(test)]
mod tests;

//! Sources produce entries at one revision. They know nothing of encryption or Kubernetes, and
//! they are never written to, locked exclusively or repaired.

pub mod data_dir;
pub mod datastore;
mod error;
mod file;
mod fold;
pub mod incremental;
mod input;
#[cfg(feature = "kine")]
pub mod kine;
#[cfg(feature = "live")]
pub mod live;
mod lzw;
mod magic;
pub mod map;
pub mod objects;
mod packed;
pub mod pieces;
pub mod snapshot;
mod trail;
pub(crate) mod walk;

use std::ops::ControlFlow;

use crate::entry::EntryRef;

pub use crate::range::KeyRange;
pub use error::{
    Cause, DataDirError, DatastoreError, EtcdError, FileError, Foreign, KineError, MemberStory,
    NoHistory, RevisionError, SourceError, Story, TlsFileError, TlsStory, Trials, Untrue, Wish,
};
pub use file::may_be_backup;
pub use input::Input;
pub(crate) use input::open_file;

/// What to read.
#[derive(Clone, Debug)]
pub struct Query {
    /// Ranges to read, ascending and disjoint.
    pub ranges: Vec<KeyRange>,
    /// Read as of this revision; `None` is the newest.
    pub revision: Option<i64>,
    /// Entries must arrive in ascending key order. Offline sources are faster without.
    pub ordered: bool,
}

impl Query {
    /// Whether `key` lies in one of the ranges.
    #[must_use]
    pub fn wants(&self, key: &[u8]) -> bool {
        self.ranges.iter().any(|r| r.contains(key))
    }
}

/// The kinds of source, as `scan -w json` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A live etcd.
    Etcd,
    /// A snapshot file or a bare `db` copy.
    Snapshot,
    /// A stopped member's data directory.
    DataDir,
    /// kine's table, in an `SQLite` database or on a server.
    Kine,
    /// Objects that Velero saved.
    Velero,
    /// Objects that rancher-backup saved.
    Rancher,
}

impl SourceKind {
    /// The word in JSON output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Snapshot => "snapshot",
            Self::DataDir => "data-dir",
            Self::Kine => "kine",
            Self::Velero => "velero",
            Self::Rancher => "rancher",
        }
    }

    /// Whether it is an archive of objects: without revisions and history, and perhaps without
    /// some of the objects that the cluster has.
    #[must_use]
    pub fn is_archive(self) -> bool {
        matches!(self, Self::Velero | Self::Rancher)
    }
}

/// Which source this is.
#[derive(Clone, Debug)]
pub struct SourceInfo {
    /// Kind of source.
    pub kind: SourceKind,
    /// Path or endpoints, as the user would write them.
    pub location: String,
}

/// Something that could not be read. Always changes the exit code (4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where: `page 17`, `record 3 of page 12`, `0000…-….wal offset 4096`.
    pub location: String,
    /// What is wrong, without any stored bytes.
    pub what: String,
}

/// What a completed visit can say about itself.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    /// The one revision that all entries were read at; 0 for an archive of objects, which were
    /// read one after the other.
    pub revision: i64,
    /// Revisions older than this were compacted away, as far as the source says; 0 for none.
    pub compacted: i64,
    /// Of [`Source::held`]: it told every write since the first, whatever compaction took.
    pub whole: bool,
    /// Parts that could not be read.
    pub damage: Vec<Damage>,
    /// Remarks for stderr that do not change the exit code.
    pub notes: Vec<String>,
}

/// One stored revision of a key.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// The key was written.
    Put(EntryRef<'a>),
    /// The key was deleted.
    Delete {
        /// The full etcd key.
        key: &'a [u8],
        /// Revision of the deletion.
        revision: i64,
    },
}

/// Receives entries; `Break` ends the visit early.
pub type EntrySink<'s> = dyn FnMut(EntryRef<'_>) -> ControlFlow<()> + 's;
/// Receives stored revisions in ascending revision order; `Break` ends the visit early.
pub type RecordSink<'s> = dyn FnMut(Record<'_>) -> ControlFlow<()> + 's;
/// Receives revisions and what holds them, in ascending revision order; `Break` ends the visit
/// early.
pub type HeldSink<'s> = dyn FnMut(Record<'_>, Holder) -> ControlFlow<()> + 's;

/// Counts entries.
pub trait Census {
    /// A record that is at hand, but may turn out not to be live. A number stands for how it
    /// counts if it is: [`Census::count`] is called with it then. `None` is "show me the entry".
    fn glance(&mut self, entry: EntryRef<'_>) -> Option<u32>;

    /// A live entry that [`Census::glance`] had a number for; `bytes` is the size of its value.
    fn count(&mut self, number: u32, bytes: u64);

    /// A live entry.
    fn entry(&mut self, entry: EntryRef<'_>);
}

/// A place that entries come from.
///
/// The interface is synchronous; the live source drives its own runtime.
pub trait Source: Send {
    /// Which source this is.
    fn info(&self) -> SourceInfo;

    /// About how many entries a visit will bring, for a progress bar. Costs at most one cheap
    /// request.
    fn estimate(&mut self, query: &Query) -> Option<u64> {
        let _ = query;
        None
    }

    /// Calls `sink` once for every entry that is live at the queried revision.
    ///
    /// # Errors
    /// When the source cannot be read as a whole at one revision. Single unreadable records are
    /// not errors but [`Visit::damage`].
    fn visit(&mut self, query: &Query, sink: &mut EntrySink<'_>) -> Result<Visit, SourceError>;

    /// As [`Source::visit`], for a caller that counts, and throws away what it has learnt when
    /// this fails: entries may be shown before the source has been checked as a whole.
    ///
    /// # Errors
    /// As [`Source::visit`].
    fn survey(&mut self, query: &Query, census: &mut dyn Census) -> Result<Visit, SourceError> {
        self.visit(query, &mut |entry| {
            census.entry(entry);
            ControlFlow::Continue(())
        })
    }

    /// The state at `revision`, to be read piece by piece by what is noted of where entries lie;
    /// `None` where the source is better asked for each piece. Use [`pieces::of`].
    ///
    /// # Errors
    /// As [`Source::visit`].
    fn pieces(
        &mut self,
        revision: Option<i64>,
    ) -> Result<Option<Box<dyn pieces::Pieces>>, SourceError> {
        let _ = revision;
        Ok(None)
    }

    /// Calls `sink` for every revision that is still held of every key in the query's ranges
    /// (up to the queried revision), deletions included, in ascending revision order.
    ///
    /// # Errors
    /// As [`Source::visit`].
    fn history(&mut self, query: &Query, sink: &mut RecordSink<'_>) -> Result<Visit, SourceError>;

    /// As [`Source::history`], with those revisions that were compacted away and are still
    /// written elsewhere, where the source knows of any.
    ///
    /// # Errors
    /// As [`Source::visit`].
    fn held(&mut self, query: &Query, sink: &mut HeldSink<'_>) -> Result<Visit, SourceError> {
        self.history(query, &mut |record| sink(record, Holder::KeySpace))
    }
}

/// What holds a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The key space: a server would return it.
    KeySpace,
    /// The write-ahead log alone: it is compacted away.
    Wal,
    /// kine's copy beside the value that superseded it: it is compacted away.
    KineOldValue,
}

impl Holder {
    /// The word in JSON output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeySpace => "key-space",
            Self::Wal => "wal",
            Self::KineOldValue => "kine-old-value",
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_packed;

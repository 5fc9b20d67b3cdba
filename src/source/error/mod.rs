//! Why a source cannot be read: what happened, not what to do about it. Each error is one line
//! without stored bytes, its cause the underlying error; `cli::failure` has the advice.

mod datastore;
mod etcd;
mod file;
mod untrue;

pub use datastore::DatastoreError;
pub use etcd::{EtcdError, MemberStory, Story, TlsFileError, TlsStory, Trials, Wish};
pub use file::{DataDirError, FileError, Foreign, KineError};
pub use untrue::Untrue;

use std::path::PathBuf;

use super::objects::Objects;

/// An error of a library, whichever it is.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A snapshot, or another file that etcd wrote.
    #[error(transparent)]
    File(#[from] FileError),
    /// A member's data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// kine's database.
    #[error(transparent)]
    Kine(#[from] KineError),
    /// A server that has kine's table.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// The revision that was asked for.
    #[error(transparent)]
    Revision(#[from] RevisionError),
    /// Revisions of what has none.
    #[error(transparent)]
    NoHistory(#[from] NoHistory),
    /// A live etcd.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// Revisions were asked for, and there are none.
#[derive(Debug, thiserror::Error)]
#[error("not examined: an archive of objects has no history, and {} is {what}", .path.display())]
pub struct NoHistory {
    /// The archive.
    pub path: PathBuf,
    /// Who made it.
    pub what: Objects,
}

impl SourceError {
    /// Whether the user lacks the right to read some of what was asked for.
    #[must_use]
    pub fn is_unreadable_to_user(&self) -> bool {
        matches!(self, Self::Etcd(EtcdError::Denied { wish: Wish::Read(_), .. }))
    }

    /// Whether revisions were asked for where there are none.
    #[must_use]
    pub fn is_no_history(&self) -> bool {
        matches!(self, Self::NoHistory(_))
    }

    /// Whether a server says what cannot be: nothing else that it says is worth more.
    #[must_use]
    pub fn is_untrue(&self) -> bool {
        matches!(self, Self::Etcd(EtcdError::Untrue { .. }))
    }
}

/// Why there is no result at a revision.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// A file does not reach it.
    #[error("revision {wanted} is in the future of {}, which ends at {newest}", .path.display())]
    Future {
        /// The revision that was asked for.
        wanted: i64,
        /// The file's oldest revision, 0 if it was never compacted.
        compacted: i64,
        /// The file's newest revision.
        newest: i64,
        /// The file or directory.
        path: PathBuf,
    },
    /// A file does not go back to it.
    #[error("revision {wanted} has been compacted: {} goes back to {compacted}", .path.display())]
    Compacted {
        /// The revision that was asked for.
        wanted: i64,
        /// The file's oldest revision.
        compacted: i64,
        /// The file's newest revision.
        newest: i64,
        /// The file or directory.
        path: PathBuf,
    },
    /// A live etcd has not reached it.
    #[error("revision {0} does not exist yet")]
    NotReached(i64),
    /// A live etcd no longer holds it.
    #[error("revision {0} has been compacted: etcd no longer holds it")]
    Forgotten(i64),
    /// It was compacted between two pages of a scan.
    #[error("revision {0} was compacted during the scan, so no complete result exists")]
    CompactedMeanwhile(i64),
    /// It was compacted while its history was read.
    #[error("etcd compacted revision {0}, so its history cannot be read as a whole")]
    HistoryCompacted(i64),
    /// A request named one that was compacted before it was served.
    #[error("the revision has been compacted")]
    Gone,
}

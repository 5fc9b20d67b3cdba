//! Answers of a live etcd that no etcd gives.

use crate::visible::shortened;

/// Most characters of a key that are shown.
const SHOWN: usize = 200;

/// What etcd guarantees (etcd `api/etcdserverpb/rpc.proto`, website `learning/api_guarantees`) and
/// an answer breaks. There is no result of such answers, not even of a part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrue {
    /// A store's revision is 1 or more.
    #[error("the store's revision is given as {0}")]
    Revision(i64),
    /// Revisions only grow.
    #[error("the store's revision went back from {before} to {now}")]
    WentBack {
        /// The newest one seen before the request.
        before: i64,
        /// The answer's.
        now: i64,
    },
    /// Keys of a page ascend.
    #[error("key {} follows {}", shown(.key), shown(.before))]
    Order {
        /// The key before.
        before: Vec<u8>,
        /// The one that follows it.
        key: Vec<u8>,
    },
    /// A key is there once.
    #[error("key {} is there twice", shown(.0))]
    Repeated(Vec<u8>),
    /// Only what was asked for is sent.
    #[error("key {} was not asked for", shown(.0))]
    OutOfRange(Vec<u8>),
    /// Entries are no newer than the revision that is read.
    #[error("key {} was written at revision {mod_revision}, later than revision {at}, which was read", shown(.key))]
    Newer {
        /// The entry's key.
        key: Vec<u8>,
        /// When it was last written.
        mod_revision: i64,
        /// The revision that was read.
        at: i64,
    },
    /// A key is created before it is changed.
    #[error("key {} was created at revision {created} and last written at {written}", shown(.key))]
    Created {
        /// The entry's key.
        key: Vec<u8>,
        /// Its `create_revision`.
        created: i64,
        /// Its `mod_revision`.
        written: i64,
    },
    /// More follows what is there.
    #[error("more keys are said to follow a page that has none")]
    More,
    /// No more is sent than was asked for.
    #[error("{sent} keys were sent where {limit} were asked for")]
    Limit {
        /// Keys in the page.
        sent: u64,
        /// The request's limit.
        limit: i64,
    },
    /// What is sent is counted.
    #[error("{counted} keys are counted where {sent} were sent")]
    Count {
        /// The answer's `count`.
        counted: i64,
        /// Keys in the page.
        sent: u64,
    },
    /// At one revision, what was counted once stays.
    #[error("{counted} keys are counted where {expected} can be left")]
    Left {
        /// The page's `count`.
        counted: u64,
        /// What earlier pages leave.
        expected: u64,
    },
    /// A watch tells what happened since its beginning, in order.
    #[error("a watch that has come to revision {after} tells of revision {revision}")]
    Past {
        /// What was told of, or asked for, before.
        after: i64,
        /// The event's revision.
        revision: i64,
    },
    /// A watch of everything has an event of every revision.
    #[error("the history goes from revision {before} to {after} without what is between")]
    Gap {
        /// The last revision that was told of.
        before: i64,
        /// The next one.
        after: i64,
    },
    /// Only what was forgotten cannot be watched.
    #[error("revision {from} is said to be compacted by a compaction of revision {compacted}")]
    Compacted {
        /// Where the watch began.
        from: i64,
        /// What the answer says.
        compacted: i64,
    },
    /// All members are of one cluster, and stay so.
    #[error("{}", clusters(.0))]
    Clusters(Vec<(String, u64)>),
}

impl Untrue {
    /// Whether the endpoints, and not the server, may be at fault.
    #[must_use]
    pub fn is_clusters(&self) -> bool {
        matches!(self, Self::Clusters(_))
    }
}

/// A key in an error.
pub(super) fn shown(key: &[u8]) -> String {
    format!("\"{}\"", shortened(&String::from_utf8_lossy(key), SHOWN))
}

/// Cluster ids are written as `etcdctl member list` writes ids.
fn clusters(told: &[(String, u64)]) -> String {
    if let [(member, before), (again, now)] = told
        && member == again
    {
        return format!("{member} belonged to cluster {before:x} before, and to {now:x} now");
    }
    let each: Vec<_> = told.iter().map(|(member, id)| format!("{member} to {id:x}")).collect();
    format!("the endpoints belong to different clusters: {}", each.join(", "))
}

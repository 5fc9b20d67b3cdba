//! The old plaintext removed from the databases of an etcd cluster, member by member: the past
//! forgotten, then one member after the other defragmented, the leader last, and each searched
//! before and after. Ending it at any moment is safe: nothing is half done, and what is done is
//! seen by the next run.

mod cluster;
#[cfg(feature = "kine")]
pub mod database;
mod search;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::cluster::Cluster;
pub use self::search::Found;
use super::Observer;
use crate::forensics::Targets;
use crate::source::SourceError;
use crate::source::live::LiveOptions;

/// How long a member may take to write its file anew, or to forget.
const SLOW: Duration = Duration::from_mins(30);
/// Between two looks at members that have to catch up.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a look waits for a cluster that is electing a leader.
const LOOK: Duration = Duration::from_secs(30);
/// How often a member is defragmented that has not forgotten everything yet.
const TRIES: u32 = 6;

/// What to do.
pub struct Options<'o> {
    /// How to reach the members. Those that no endpoint leads to are reached where they say that
    /// they serve clients.
    pub connection: LiveOptions,
    /// What is looked for.
    pub targets: &'o Targets,
    /// Remove it; otherwise only look.
    pub apply: bool,
    /// Forget the past although an API server has a compactor of its own, which keeps five minutes.
    pub compact_now: bool,
    /// Room on the members' disks by their names, bytes.
    pub free: BTreeMap<String, u64>,
    /// Data directories of members on this machine by their names: their disk is looked at.
    pub data_dirs: BTreeMap<String, PathBuf>,
    /// How long members may take to catch up after each step.
    pub settle: Duration,
    /// Somebody wants it to end.
    pub stop: &'o AtomicBool,
}

impl Options<'_> {
    /// How long the members may take to begin with: who only looks does not want to wait long.
    fn patience(&self) -> Duration {
        if self.apply { self.settle } else { self.settle.min(LOOK) }
    }
}

/// How far a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not searched.
    Unknown,
    /// Nothing was found from the start.
    Clean,
    /// Something was found, and is still there.
    Pending,
    /// Nothing is found any more.
    Scrubbed,
    /// Something is found in spite of everything.
    Left,
}

impl Progress {
    /// The word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Clean => "clean",
            Self::Pending => "pending",
            Self::Scrubbed => "scrubbed",
            Self::Left => "left",
        }
    }
}

/// A member and what was found in its database.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where it was reached.
    pub endpoint: String,
    /// It led the cluster when it was looked at last.
    pub leader: bool,
    /// It does not vote.
    pub learner: bool,
    /// etcd's version.
    pub version: String,
    /// Size of its file, bytes.
    pub size: u64,
    /// The part of it that is in use, which is what a new file needs.
    pub in_use: u64,
    /// Room on its disk, where that is known, bytes.
    pub free: Option<u64>,
    /// How far it is.
    pub progress: Progress,
    /// What was found first.
    pub before: Option<Found>,
    /// What was found at the end.
    pub after: Option<Found>,
}

/// Why it did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Somebody asked for it.
    #[error("interrupted")]
    Interrupted,
    /// A member is not well: taking another one away would risk the quorum.
    #[error("the member {member} is not healthy: {why}")]
    Unhealthy {
        /// Name and address.
        member: String,
        /// Why.
        why: String,
    },
    /// The cluster complains.
    #[error("the cluster has the alarm {0}")]
    Alarm(String),
    /// What is live is not encrypted.
    #[error("{0} live entries are stored unencrypted")]
    Live(u64),
    /// A database could not be read as a whole.
    #[error("the database of {member} cannot be read as a whole: {what}")]
    Damaged {
        /// Name and address.
        member: String,
        /// What is wrong.
        what: String,
    },
    /// A new file may not fit.
    #[error("how much room the disk of {member} has is not known: a new file needs {needed} bytes")]
    Room {
        /// The member's name.
        member: String,
        /// Bytes.
        needed: u64,
    },
    /// A new file does not fit.
    #[error("the disk of {member} has {free} bytes, and a new file needs {needed}")]
    NoRoom {
        /// The member's name.
        member: String,
        /// Bytes.
        free: u64,
        /// Bytes.
        needed: u64,
    },
    /// The API server forgets the past by itself, some minutes later.
    #[error("the API server's compactor has not come to revision {0} yet")]
    Compactor(i64),
    /// A member refused, or did not answer.
    #[error("{what} of {member} failed: {why}")]
    Failed {
        /// Name and address.
        member: String,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        why: String,
    },
}

/// What was found and done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The members, in the order in which they are dealt with.
    pub members: Vec<Member>,
    /// The revision that the past is forgotten up to; none where nothing of it is plaintext.
    pub compaction: Option<i64>,
    /// That was done.
    pub compacted: bool,
    /// An API server forgets by itself.
    pub compactor: bool,
    /// Why it did not come to its end, or would not.
    pub stop: Option<Stop>,
}

impl Outcome {
    /// Whether every member was searched, and nothing is found in any.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let clean = |m: &Member| matches!(m.progress, Progress::Clean | Progress::Scrubbed);
        !self.members.is_empty() && self.members.iter().all(clean)
    }
}

/// Looks at every member and, if so wanted, removes what is found. `finished` is told of each member
/// that has come to its end.
///
/// # Errors
/// When no member can be reached to begin with, or they cannot be listed.
pub fn run(
    options: &Options<'_>,
    observer: &mut dyn Observer,
    finished: &mut dyn FnMut(&Member),
) -> Result<Outcome, SourceError> {
    let mut cluster = Cluster::find(options)?;
    let mut outcome = Outcome { compactor: cluster.has_compactor(), ..Outcome::default() };
    let mut stop = settle(options, options.patience(), &mut cluster).err();
    for at in 0..cluster.members.len() {
        observer.note(&format!("searching a snapshot of {}", cluster.name(at)));
        let found = match cluster.search(at) {
            Ok(found) => found,
            Err(e) => {
                stop = stop.or(Some(e));
                continue;
            }
        };
        let member = &mut cluster.members[at];
        let clean = found.is_clean();
        member.progress = if clean { Progress::Clean } else { Progress::Pending };
        member.before = Some(found);
        if options.stop.load(Ordering::Relaxed) {
            stop = Some(Stop::Interrupted);
            break;
        }
    }
    let past = |m: &Member| m.before.as_ref().is_some_and(|f| f.superseded() > 0);
    if cluster.members.iter().any(past) {
        let revisions = cluster.members.iter().filter_map(|m| m.before.as_ref());
        outcome.compaction = revisions.map(|f| f.revision).min();
    }
    let stop = stop.or_else(|| cluster.obstacle());
    outcome.stop = match stop {
        None if options.apply => {
            scrub(options, &mut cluster, &mut outcome, observer, finished).err()
        }
        stop => stop,
    };
    outcome.members = cluster.members;
    Ok(outcome)
}

fn scrub(
    options: &Options<'_>,
    cluster: &mut Cluster<'_>,
    outcome: &mut Outcome,
    observer: &mut dyn Observer,
    finished: &mut dyn FnMut(&Member),
) -> Result<(), Stop> {
    let stopped = || options.stop.load(Ordering::Relaxed);
    for member in cluster.members.iter().filter(|m| m.progress == Progress::Clean) {
        finished(member);
    }
    if let Some(revision) = outcome.compaction {
        if outcome.compactor && !options.compact_now {
            return Err(Stop::Compactor(revision));
        }
        if stopped() {
            return Err(Stop::Interrupted);
        }
        cluster.compact(revision)?;
        outcome.compacted = true;
        observer.note(&format!("compacted to revision {revision}"));
        settle(options, options.settle, cluster)?;
    }
    loop {
        if stopped() {
            return Err(Stop::Interrupted);
        }
        // Who leads is seen before the next one is chosen.
        settle(options, options.settle, cluster)?;
        let Some(at) = cluster.next() else { return Ok(()) };
        for attempt in 0.. {
            // Searching takes its time: a member that was lost meanwhile is seen before this one is
            // taken away for a while.
            settle(options, options.settle, cluster)?;
            observer.note(&format!("defragmenting {}", cluster.name(at)));
            cluster.defragment(at)?;
            settle(options, options.settle, cluster)?;
            let found = cluster.search(at)?;
            let clean = found.is_clean();
            cluster.members[at].after = Some(found);
            cluster.members[at].progress = if clean { Progress::Scrubbed } else { Progress::Left };
            // A follower forgets a little later than it says.
            if clean || attempt + 1 >= TRIES {
                break;
            }
            if stopped() {
                return Err(Stop::Interrupted);
            }
            std::thread::sleep(PAUSE * 2u32.pow(attempt));
        }
        finished(&cluster.members[at]);
    }
}

/// Waits until every member is well and has caught up.
fn settle(
    options: &Options<'_>,
    patience: Duration,
    cluster: &mut Cluster<'_>,
) -> Result<(), Stop> {
    let start = Instant::now();
    loop {
        match cluster.health() {
            Ok(()) => return Ok(()),
            Err(stop) if start.elapsed() >= patience => return Err(stop),
            Err(_) if options.stop.load(Ordering::Relaxed) => return Err(Stop::Interrupted),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

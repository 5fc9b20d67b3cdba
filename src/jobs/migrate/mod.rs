//! What is not stored as the configuration says, rewritten in a live etcd.
//!
//! | file | what it does |
//! | --- | --- |
//! | `servers` | asks etcd, and the API servers themselves, whether they can read what is written |
//! | `canary` | a made-up object that those who do not tell are to read |
//! | `look` | reads everything that was asked for, and plans |
//! | `checks` | what must hold before anything is written |
//! | `backup` | a snapshot of the member, saved first |
//! | `write` | rewrites what was planned, pass by pass |
//! | `whole` | has an API server store every object anew, where etcd is out of reach |

mod backup;
pub mod canary;
mod checks;
mod look;
pub mod servers;
pub mod whole;
mod write;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::checks::Database;
use self::servers::Known;
use super::Observer;
use crate::apiserver::Client;
use crate::migrate::apply;
use crate::migrate::latest::Later;
use crate::migrate::plan::{Share, Written};
use crate::resource::{Selection, Selector};
use crate::scan::GroupKey;
use crate::source::live::Live;
use crate::source::{Source as _, SourceError, SourceInfo, Visit};
use crate::transform::Transformers;

/// What to rewrite, and how.
pub struct Options<'o> {
    /// Which entries.
    pub selection: &'o Selection,
    /// What the configuration serves: whether something of that is left is said although nobody
    /// asked for it.
    pub configured: Vec<Selector>,
    /// Read the entries and write them.
    pub transformers: &'o Transformers,
    /// Write; otherwise only a plan is made.
    pub apply: bool,
    /// Where to save a snapshot of the member before writing. It must not exist.
    pub backup: Option<PathBuf>,
    /// The quota that etcd was started with, for members that do not tell. Bytes.
    pub quota: Option<u64>,
    /// Who writes.
    pub writer: Writer<'o>,
    /// Transactions or requests at once; otherwise what is usual for the writer.
    pub concurrency: Option<u32>,
    /// Entries a second, at most.
    pub qps: Option<f64>,
    /// What is known of the API servers, where somebody is to be warned of it.
    pub servers: Option<&'o Known>,
    /// Somebody wants it to end.
    pub stop: &'o AtomicBool,
}

/// Who writes.
#[derive(Clone, Copy)]
pub enum Writer<'o> {
    /// This program, to etcd.
    Etcd {
        /// Entries of one transaction. More than one only while no API server runs.
        batch: usize,
    },
    /// An API server, object by object; etcd is only read.
    Api(&'o Client),
    /// The cluster's own controller, resource by resource; etcd is only read.
    Cluster(&'o Client),
}

/// Why nothing was written, or no more than is said in passing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// etcd.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Stopped early enough.
    #[error("interrupted before anything was written")]
    Interrupted,
    /// The cluster is not well.
    #[error("the cluster has the alarm {0}")]
    Alarm(String),
    /// The write provider does not read what it writes, in words.
    #[error("the write provider cannot be used: {0}")]
    Provider(String),
    /// The database is full.
    #[error("etcd's database has reached its quota: nothing can be written")]
    NoSpace,
    /// It would be.
    #[error("the database would grow to {after} bytes of {quota}")]
    Quota {
        /// What it would have, bytes.
        after: u64,
        /// What it may have, bytes.
        quota: u64,
    },
    /// It may be, for all that is known.
    #[error("the database would grow to {after} bytes, and its quota is not told")]
    QuotaUnknown {
        /// What it would have, bytes.
        after: u64,
    },
    /// The cluster cannot migrate by itself, with the reason.
    #[error("the cluster's own migration cannot be used: {0}")]
    NoMigrator(String),
    /// The API server.
    #[error("the API server cannot be asked")]
    Api(#[source] apply::Stop),
    /// There is a file where the backup belongs.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The backup's file.
    #[error("cannot write {}", .0.display())]
    Backup(PathBuf, #[source] io::Error),
}

/// What is to be known meanwhile, in the order in which it is met.
pub enum Remark<'a> {
    /// So many entries that the configuration serves and nobody asked for are not current.
    Elsewhere(u64),
    /// Whether the cluster is well is not known.
    AlarmsUnknown(&'a SourceError),
    /// The cluster is not well.
    Alarm(&'a str),
    /// The database is full.
    Full,
    /// The database grows to the end of its quota.
    Quota {
        /// What it would have, bytes.
        after: u64,
        /// What it may have, where that is known, bytes.
        quota: Option<u64>,
    },
    /// Entries lose their encryption: meant, or a resource is missing in the configuration.
    Unencrypted {
        /// Of which resource.
        resource: &'a str,
        /// How many.
        entries: u64,
    },
    /// Random nonces of AES-GCM repeat themselves sooner or later.
    Nonces {
        /// Provider and key.
        key: &'a str,
        /// How many values it would encrypt.
        entries: u64,
    },
    /// Whether every API server can read what is written is not known.
    Servers {
        /// What is known.
        known: &'a Known,
        /// Which keys the values get.
        keys: &'a str,
    },
    /// Something wrote otherwise after the configuration was in use.
    Later(&'a Later),
    /// A snapshot was saved.
    Backup {
        /// Where.
        path: &'a Path,
        /// Bytes.
        size: u64,
    },
    /// The values as they were are still in etcd's history and files.
    ValuesRemain,
}

/// What was planned and, if so wanted, done.
pub struct Outcome {
    /// The etcd.
    pub info: SourceInfo,
    /// The visit that the plan comes from.
    pub visit: Visit,
    /// Entries to rewrite, by how they were stored.
    pub groups: BTreeMap<GroupKey, Share>,
    /// How each resource is written.
    pub written_by: BTreeMap<String, Written>,
    /// Entries of the plan.
    pub planned: u64,
    /// Entries that were current before.
    pub current: u64,
    /// What was done.
    pub done: apply::Outcome,
    /// Entries that are not current now, those that cannot be read included.
    pub remaining: u64,
    /// The database before; none if the member does not tell.
    pub database: Option<Database>,
    /// Where the backup is.
    pub backup: Option<PathBuf>,
    /// Somebody wanted it to end.
    pub interrupted: bool,
}

/// Looks at everything that must hold, plans and, if so wanted, rewrites. `remark` is told what is
/// to be known meanwhile.
///
/// # Errors
/// See [`Error`]. What ends the writing itself is told by [`apply::Outcome::stop`].
pub fn run(
    live: &mut Live,
    options: &Options<'_>,
    observer: &mut dyn Observer,
    remark: &mut dyn FnMut(&Remark<'_>),
) -> Result<Outcome, Error> {
    if let Writer::Cluster(client) = options.writer {
        whole::migrator(client, options.stop)?;
    }
    let look = look::Look::of(options);
    let (plan, seen) = look.plan(live, &HashSet::new(), observer)?;
    if seen.elsewhere > 0 {
        remark(&Remark::Elsewhere(seen.elsewhere));
    }
    for later in plan.last_writes.later() {
        remark(&Remark::Later(&later));
    }
    let full = checks::alarms(live, options.apply, remark)?;
    for note in &seen.visit.notes {
        observer.note(note);
    }
    let written_by = plan.self_test().map_err(Error::Provider)?;
    let database = checks::database(live, &plan, &written_by, options.quota, full);
    if !plan.items.is_empty() {
        checks::quota(database.as_ref(), options.apply, remark)?;
        checks::unencrypted(&plan, &written_by, remark);
        checks::nonces(&plan, &written_by, remark);
        if let Some(known) = options.servers.filter(|known| !known.is_enough()) {
            remark(&Remark::Servers { known, keys: &checks::keys(&written_by) });
        }
    }
    let planned = plan.items.len() as u64;
    let mut outcome = Outcome {
        info: live.info(),
        visit: seen.visit,
        groups: plan.groups.clone(),
        written_by,
        planned,
        current: plan.current,
        done: apply::Outcome { failed: plan.unreadable.clone(), ..apply::Outcome::default() },
        remaining: plan.remaining(planned),
        database,
        backup: None,
        interrupted: false,
    };
    if options.apply && !plan.items.is_empty() {
        if full {
            return Err(Error::NoSpace);
        }
        if let Some(path) = &options.backup {
            let size = backup::save(live, path, options.stop)?;
            remark(&Remark::Backup { path, size });
            outcome.backup = Some(path.clone());
        }
        outcome.remaining = write::all(live, options, plan, observer, &mut outcome.done)?;
        if outcome.done.written > 0 {
            remark(&Remark::ValuesRemain);
        }
    }
    outcome.interrupted = options.stop.load(Ordering::Relaxed);
    Ok(outcome)
}

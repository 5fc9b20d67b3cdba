//! The old plaintext removed from kine's `SQLite` database, while no server has it open: what
//! superseded it is forgotten as kine forgets, the file is written anew, its write-ahead log is
//! emptied, and all is searched before and after.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Found, Progress};
use crate::chain::chain;
use crate::forensics::Targets;
use crate::forensics::residue::{Bytes, Finding, Place, Sink};
use crate::jobs::Observer;
use crate::jobs::residue::search::{self, Hunt};
use crate::jobs::residue::{Error, Opened};
use crate::source::KineError;
use crate::source::kine::erase::{Alone, Forgotten, Holder, holders};
use crate::source::kine::{Kine, Part};

/// Where `SQLite` puts the copy that it makes of the file while that is written anew: the first of
/// these that there is (sqlite.org/tempfiles.html §5).
const TEMPORARY: [&str; 3] = ["/var/tmp", "/usr/tmp", "/tmp"];

/// What to do.
pub struct Options<'o> {
    /// The database.
    pub path: &'o Path,
    /// What is looked for.
    pub targets: &'o Targets,
    /// Remove it; otherwise only look.
    pub apply: bool,
    /// Somebody wants it to end.
    pub stop: &'o AtomicBool,
}

/// Why it did not come to its end, or would not.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Somebody asked for it.
    #[error("interrupted")]
    Interrupted,
    /// It is in use.
    #[error("the database is open: {0}")]
    Open(String),
    /// What is live is not encrypted.
    #[error("{0} live entries are stored unencrypted")]
    Live(u64),
    /// It could not be read as a whole.
    #[error("the database cannot be read as a whole: {0}")]
    Damaged(String),
    /// A new file does not fit.
    #[error("{} has {free} bytes free, and writing the file anew needs {needed}", .place.display())]
    NoRoom {
        /// A directory on that disk.
        place: PathBuf,
        /// Bytes.
        free: u64,
        /// Bytes.
        needed: u64,
    },
    /// A step failed.
    #[error("{what} failed: {why}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        why: String,
    },
}

/// What was found and done.
#[derive(Debug)]
pub struct Outcome {
    /// The database.
    pub path: PathBuf,
    /// How far it is.
    pub progress: Progress,
    /// What was found first.
    pub before: Found,
    /// What was found at the end.
    pub after: Option<Found>,
    /// What was forgotten.
    pub forgotten: Option<Forgotten>,
    /// Why it did not come to its end, or would not.
    pub stop: Option<Stop>,
}

impl Outcome {
    /// Whether something of the past has to be forgotten: rows, or copies in rows.
    #[must_use]
    pub fn has_past(&self) -> bool {
        let found = |place| self.before.totals.get(place) > 0;
        found(Place::SupersededRevision) || found(Place::KineOldValue)
    }
}

/// Looks at the database and, if so wanted, removes what is found.
///
/// # Errors
/// When it cannot be read.
pub fn run(options: &Options<'_>, observer: &mut dyn Observer) -> Result<Outcome, Error> {
    let before = look(options, observer)?;
    let clean = before.is_clean();
    let mut outcome = Outcome {
        path: options.path.to_owned(),
        progress: if clean { Progress::Clean } else { Progress::Pending },
        before,
        after: None,
        forgotten: None,
        stop: None,
    };
    outcome.stop = obstacle(options, &outcome);
    if outcome.stop.is_some() || clean || !options.apply {
        return Ok(outcome);
    }
    if let Err(stop) = scrub(options, &mut outcome, observer) {
        outcome.stop = Some(stop);
        return Ok(outcome);
    }
    let after = look(options, observer)?;
    outcome.progress = if after.is_clean() { Progress::Scrubbed } else { Progress::Left };
    outcome.after = Some(after);
    Ok(outcome)
}

/// What speaks against it.
fn obstacle(options: &Options<'_>, outcome: &Outcome) -> Option<Stop> {
    if options.stop.load(Ordering::Relaxed) {
        return Some(Stop::Interrupted);
    }
    if let Some(what) = outcome.before.damage.first() {
        return Some(Stop::Damaged(what.clone()));
    }
    if outcome.before.live > 0 {
        return Some(Stop::Live(outcome.before.live));
    }
    if outcome.progress == Progress::Clean {
        return None;
    }
    open_in(options.path)
}

/// Who has it open.
fn open_in(path: &Path) -> Option<Stop> {
    let by = holders(path, Path::new("/proc"));
    let name = |h: &Holder| format!("{} (process {})", h.name, h.pid);
    let names: Vec<_> = by.iter().map(name).collect();
    (!names.is_empty()).then(|| Stop::Open(names.join(", ")))
}

fn scrub(
    options: &Options<'_>,
    outcome: &mut Outcome,
    observer: &mut dyn Observer,
) -> Result<(), Stop> {
    let stopped = || {
        let wanted = options.stop.load(Ordering::Relaxed);
        if wanted { Err(Stop::Interrupted) } else { Ok(()) }
    };
    let mut alone = Alone::open(options.path).map_err(|e| failed("opening the database", &e))?;
    if let Some(what) = alone.damage().map_err(|e| failed("checking the database", &e))? {
        return Err(Stop::Damaged(what));
    }
    let needed = alone.in_use().map_err(|e| failed("checking the database", &e))?;
    room(options.path, needed)?;
    stopped()?;
    if outcome.has_past() {
        let forgotten = alone.forget().map_err(|e| failed("compacting", &e))?;
        observer.note(&format!("compacted to revision {}", forgotten.revision));
        outcome.forgotten = Some(forgotten);
        stopped()?;
    }
    observer.note("writing the file anew");
    alone.rebuild().map_err(|e| failed("writing the file anew", &e))?;
    observer.note("emptying the write-ahead log");
    alone.checkpoint().map_err(|e| failed("emptying the write-ahead log", &e))?;
    alone.close().map_err(|e| failed("closing the database", &e))
}

fn failed(what: &'static str, e: &KineError) -> Stop {
    match e {
        KineError::Locked { .. } => Stop::Open("another process has it locked".to_owned()),
        KineError::Damaged { .. } => Stop::Damaged(chain(e)),
        e => Stop::Failed { what, why: chain(e) },
    }
}

/// Whether the disks have room for the new file twice: `SQLite` makes a temporary copy, and the
/// write-ahead log or journal takes all of it before the file does.
fn room(path: &Path, needed: u64) -> Result<(), Stop> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(real) = path.canonicalize() else { return Ok(()) };
    let own = real.parent().unwrap_or(Path::new("/"));
    let named = ["SQLITE_TMPDIR", "TMPDIR"].into_iter().filter_map(std::env::var_os);
    let places = named.map(PathBuf::from).chain(TEMPORARY.map(PathBuf::from));
    let temporary = places.into_iter().find(|p| p.is_dir()).unwrap_or_else(|| own.to_owned());
    let device = |p: &Path| p.metadata().map(|m| m.dev()).ok();
    let shared = device(own) == device(&temporary);
    let fits = |place: &Path, needed: u64| {
        let Ok(disk) = rustix::fs::statvfs(place) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= needed {
            return Ok(());
        }
        Err(Stop::NoRoom { place: place.to_owned(), free, needed })
    };
    fits(own, if shared { needed.saturating_mul(2) } else { needed })?;
    if shared { Ok(()) } else { fits(&temporary, needed) }
}

/// Findings of a search, counted and listed.
struct Collected(Found);

impl Sink for Collected {
    fn found(&mut self, finding: Finding, _: Bytes<'_>) {
        self.0.add(finding);
    }
}

impl Hunt for Collected {}

/// Searches the rows, and the bytes of the file and of those beside it.
fn look(options: &Options<'_>, observer: &mut dyn Observer) -> Result<Found, Error> {
    observer.note(&format!("searching {}", options.path.display()));
    let source = Kine::open(options.path).map_err(Error::Source)?;
    let size = |part: &Part| part.path.metadata().map_or(0, |m| m.len());
    let size = source.files().iter().map(size).sum();
    let mut found = Collected(Found::new(size));
    let opened = Opened::Kine(Box::new(source));
    let searched = search::search(opened, false, options.targets, &mut found)?;
    let Collected(mut found) = found;
    found.revision = searched.visit.revision;
    found.live = searched.head.sum();
    let damage = searched.visit.damage.into_iter();
    found.damage.extend(damage.map(|d| format!("{}: {}", d.location, d.what)));
    Ok(found)
}

//! Every backup below some directories: what it is, whether it can be read, which keys it needs.

mod count;
mod listing;
pub mod saved;
mod shard;
pub mod summary;

#[cfg(feature = "remote")]
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::Observer;
use crate::agefile::{Sealed, Unlock};
use crate::archive::Archive;
use crate::bolt::Db;
use crate::chain::chain;
use crate::envelope::Provider;
use crate::forensics::Targets;
use crate::forensics::keys::KeyName;
use crate::forensics::residue::{self, Bytes, Finding};
#[cfg(feature = "remote")]
use crate::remote::{Address, Fetched, Remote, RemoteError};
use crate::resource::Selection;
use crate::scan::Totals;
use crate::source::data_dir::DataDir;
use crate::source::incremental::Incremental;
use crate::source::kine::Kine;
use crate::source::objects::Objects;
use crate::source::snapshot::{Snapshot, SnapshotOptions};
use crate::source::{FileError, Foreign, Input, KineError, SourceError};
use crate::transform::Transformers;

pub use self::shard::Shard;

use self::count::{count, count_changes};
use self::listing::Listed;

/// What to do.
pub struct Options<'a> {
    /// Directories and files.
    pub locations: Vec<PathBuf>,
    /// What lies elsewhere, and how to reach it.
    #[cfg(feature = "remote")]
    pub elsewhere: Option<(&'a Remote, Vec<Address>)>,
    /// Which entries `totals` and `residue` count. Keys are counted over everything.
    pub selection: Selection,
    /// Decrypt every value with these, and say what is readable.
    pub transformers: Option<&'a Transformers>,
    /// The part of what is listed that is judged; `None` for all of it.
    pub shard: Option<Shard>,
    /// Opens what age encrypted.
    pub unlock: Unlock,
    /// What was judged before, by location.
    pub earlier: Option<&'a Earlier>,
}

/// Judgements of earlier runs, by location: each holds as long as its backup has this identity.
pub type Earlier = BTreeMap<String, Backup>;

/// What a file or directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A database, as `etcdctl snapshot save` or a copy leaves it, packed or not.
    Snapshot,
    /// The data directory of a member.
    DataDir,
    /// kine's database.
    Kine,
    /// Objects that Velero saved.
    Velero,
    /// Objects that rancher-backup saved.
    Rancher,
    /// A snapshot of Gardener's etcd-backup-restore.
    Gardener,
    /// Encrypted by age, and not opened: whatever it is was not examined.
    Age,
    /// Nothing of these.
    NotABackup,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Snapshot,
        Self::DataDir,
        Self::Kine,
        Self::Velero,
        Self::Rancher,
        Self::Gardener,
        Self::Age,
        Self::NotABackup,
    ];

    /// The word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::DataDir => "data-dir",
            Self::Kine => "kine",
            Self::Velero => "velero",
            Self::Rancher => "rancher",
            Self::Gardener => "gardener",
            Self::Age => "age",
            Self::NotABackup => "not-a-backup",
        }
    }
}

/// A provider and the name of its key or KMS plugin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The provider.
    pub provider: Provider,
    /// `None` where the value names none.
    pub name: Option<String>,
}

/// What was found out about one file or directory.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Where it is.
    pub location: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// The time in its name if there is one in seconds since 1970, else when it was last written.
    pub taken: Option<jiff::Timestamp>,
    /// etcd's revision.
    pub revision: Option<i64>,
    /// Of what was selected; `None` where it could not be read.
    pub totals: Option<Totals>,
    /// Values were decrypted.
    pub verified: bool,
    /// Encrypted entries by key, those that were not selected included.
    pub keys: BTreeMap<Key, u64>,
    /// Of those that KMS encrypted, by the plugin's own key. Not in what was saved.
    pub kms: BTreeMap<KeyName, u64>,
    /// Places with plaintext outside the live state; `None` where nobody looked.
    pub residue: Option<u64>,
    /// Why it, or a part of it, could not be read.
    pub error: Option<String>,
    /// What tells it from another one at the same place; `None` where nobody asked, or nothing
    /// does.
    pub identity: Option<String>,
}

/// Which backups a key is needed for.
#[derive(Clone, Debug)]
pub struct Needed {
    /// The key.
    pub key: Key,
    /// How many.
    pub backups: u64,
    /// The time of the first.
    pub oldest: Option<jiff::Timestamp>,
    /// The time of the last: until it is destroyed, the key is needed.
    pub newest: Option<jiff::Timestamp>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// In the order of their paths.
    pub backups: Vec<Backup>,
    /// In the order of their names.
    pub keys: Vec<Needed>,
    /// The part of a listing that these are; `None` for all of it.
    pub shard: Option<Shard>,
    /// How many files and directories were listed, those of other parts included.
    pub listed: u64,
    /// How many of `backups` had been judged before.
    pub skipped: u64,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A location cannot be listed.
    #[error("cannot list {}", .path.display())]
    List {
        /// The location.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: std::io::Error,
    },
    /// Nor can one elsewhere.
    #[cfg(feature = "remote")]
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

/// Finds and judges them: those of this machine several at once, those elsewhere one after the
/// other, since each is put into a temporary file. `judged` sees each one as soon as it is.
///
/// # Errors
/// When a location cannot be listed.
pub fn run(
    options: &Options<'_>,
    judged: &mut dyn FnMut(&Backup),
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let mut listed = listing::list(options)?;
    let all = listed.len() as u64;
    listed.retain(|one| options.shard.is_none_or(|shard| shard.takes(&one.path)));
    let mut outcome = Outcome { shard: options.shard, listed: all, ..Outcome::default() };
    observer.begin("backups", &mut || Some(listed.len() as u64));
    let (here, there): (Vec<_>, Vec<_>) = listed.iter().partition(|one| one.is_here());
    // A part at a time, so that somebody can be told.
    let parts = here.chunks(2 * rayon::current_num_threads()).chain(there.chunks(1));
    for part in parts {
        let one = |listed: &&Listed| judge_unless_known(listed, options);
        let done: Vec<_> = if part.iter().all(|one| one.is_here()) {
            part.par_iter().map(one).collect()
        } else {
            part.iter().map(one).collect()
        };
        for (backup, known) in done {
            judged(&backup);
            outcome.skipped += u64::from(known);
            outcome.backups.push(backup);
        }
        observer.advance(part.len() as u64);
    }
    observer.end();
    outcome.keys = needed(&outcome.backups);
    Ok(outcome)
}

/// Judges one, unless that was done before; and whether it was.
fn judge_unless_known(listed: &Listed, options: &Options<'_>) -> (Backup, bool) {
    let identity = options.earlier.and_then(|_| listed.identity());
    let before = options.earlier.and_then(|all| all.get(listed.path.to_str()?));
    // What nobody could open may be opened now.
    let before = before.filter(|b| b.kind != Kind::Age);
    if let Some(before) = before.filter(|b| b.identity.is_some() && b.identity == identity) {
        return (before.clone(), true);
    }
    #[cfg(feature = "remote")]
    if let (Some((remote, _)), Some(object)) = (&options.elsewhere, &listed.object) {
        return (Backup { identity, ..judge_object(remote, object, options) }, false);
    }
    (Backup { identity, ..judge(&listed.path, options) }, false)
}

/// Which backups each key is needed for, in the order of the keys' names.
fn needed(backups: &[Backup]) -> Vec<Needed> {
    let mut needed: BTreeMap<Key, Needed> = BTreeMap::new();
    for backup in backups {
        for key in backup.keys.keys() {
            let entry = needed.entry(key.clone()).or_insert_with(|| Needed {
                key: key.clone(),
                backups: 0,
                oldest: backup.taken,
                newest: backup.taken,
            });
            entry.backups += 1;
            entry.oldest = entry.oldest.min(backup.taken);
            entry.newest = entry.newest.max(backup.taken);
        }
    }
    needed.into_values().collect()
}

/// Fetches an object, unless its first bytes say that it is none, and judges it.
#[cfg(feature = "remote")]
fn judge_object(remote: &Remote, object: &crate::remote::Object, options: &Options<'_>) -> Backup {
    let path = Path::new(object.address.shown());
    let modified =
        (object.modified > 0).then(|| jiff::Timestamp::from_second(object.modified).ok()).flatten();
    let mut backup = Backup::new(path, time_in(object.address.name()).or(modified));
    let sealed = Cell::new(false);
    let wanted = |head: &[u8]| {
        sealed.set(crate::agefile::is_age(head) && !options.unlock.is_given());
        !sealed.get() && crate::source::may_be_backup(head)
    };
    match remote.fetch(&object.address, &wanted, &mut |_| ()) {
        Ok(Fetched::Whole(file)) => {
            let file = Input::new(file, &options.unlock);
            let again = || file.try_clone().map_err(|cause| unreadable(path, cause));
            let opened = |o: &SnapshotOptions| Snapshot::of_file(path, again()?, o);
            let kine = || Kine::of_file(path, again()?);
            let archive = || Archive::of_file(path, again()?);
            let data_dir = || DataDir::of_file(path, again()?, &SnapshotOptions::default());
            let changes = || Ok(Incremental::of_file(path, again()?));
            let openers = Openers {
                snapshot: &opened,
                kine: &kine,
                archive: &archive,
                data_dir: &data_dir,
                changes: &changes,
            };
            judge_file(object.address.name(), &openers, options, &mut backup);
        }
        Ok(Fetched::Unwanted) if sealed.get() => unopened(Sealed::Locked, &mut backup),
        Ok(Fetched::Unwanted) => backup.kind = Kind::NotABackup,
        Err(e) => backup.error = Some(chain(&e)),
    }
    backup
}

fn unreadable(path: &Path, cause: std::io::Error) -> SourceError {
    FileError::Unreadable { path: path.to_owned(), cause }.into()
}

impl Backup {
    fn new(location: &Path, taken: Option<jiff::Timestamp>) -> Self {
        Self {
            location: location.to_owned(),
            kind: Kind::Snapshot,
            taken,
            revision: None,
            totals: None,
            verified: false,
            keys: BTreeMap::new(),
            kms: BTreeMap::new(),
            residue: None,
            error: None,
            identity: None,
        }
    }
}

fn judge(path: &Path, options: &Options<'_>) -> Backup {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut backup = Backup::new(path, time_in(&name).or_else(|| listing::modified(path)));
    if path.is_dir() {
        backup.kind = Kind::DataDir;
        match DataDir::open(path, &SnapshotOptions::default()) {
            Ok(mut dir) => count(&mut dir, options, &mut backup),
            Err(e) => backup.error = Some(chain(&e)),
        }
        return backup;
    }
    let again = || Input::open(path, &options.unlock).map_err(|cause| unreadable(path, cause));
    let snapshot = |o: &SnapshotOptions| Snapshot::of_file(path, again()?, o);
    let kine = || Kine::open_with(path, &options.unlock);
    let archive = || Archive::of_file(path, again()?);
    let data_dir = || DataDir::of_file(path, again()?, &SnapshotOptions::default());
    let changes = || Ok(Incremental::of_file(path, again()?));
    let openers = Openers {
        snapshot: &snapshot,
        kine: &kine,
        archive: &archive,
        data_dir: &data_dir,
        changes: &changes,
    };
    judge_file(&name, &openers, options, &mut backup);
    backup
}

/// The ways to open one file.
struct Openers<'f> {
    snapshot: &'f dyn Fn(&SnapshotOptions) -> Result<Snapshot, SourceError>,
    kine: &'f dyn Fn() -> Result<Kine, SourceError>,
    archive: &'f dyn Fn() -> Result<Archive, SourceError>,
    data_dir: &'f dyn Fn() -> Result<DataDir, SourceError>,
    changes: &'f dyn Fn() -> Result<Incremental, SourceError>,
}

/// Judges a file by what it is: opened as a snapshot, or else as what it turns out to be.
fn judge_file(name: &str, file: &Openers<'_>, options: &Options<'_>, backup: &mut Backup) {
    let Openers { snapshot, kine, archive, data_dir, changes } = file;
    match snapshot(&SnapshotOptions::default()) {
        Ok(mut file) => {
            if file.bytes().with_log() {
                backup.kind = Kind::DataDir;
                match data_dir() {
                    Ok(mut dir) => count(&mut dir, options, backup),
                    Err(e) => backup.error = Some(chain(&e)),
                }
                return;
            }
            // gardener/etcd-backup-restore `pkg/types/snapstore.go`: `Full-<first>-<last>-<time>`.
            if name.starts_with("Full-") {
                backup.kind = Kind::Gardener;
            }
            if let Err(e) = file.verify() {
                backup.error = Some(chain(&e));
                let tolerant = SnapshotOptions { skip_hash_check: true, salvage: false };
                match snapshot(&tolerant) {
                    Ok(again) => file = again,
                    Err(_) => return,
                }
            }
            count(&mut file, options, backup);
            backup.residue = remains(&file, options);
        }
        Err(SourceError::File(FileError::Foreign { what: Foreign::Sqlite, .. })) => {
            backup.kind = Kind::Kine;
            match kine() {
                Ok(mut kine) => count(&mut kine, options, backup),
                Err(SourceError::Kine(KineError::NotKine { .. } | KineError::NoColumn { .. })) => {
                    backup.kind = Kind::NotABackup;
                }
                Err(e) => backup.error = Some(chain(&e)),
            }
        }
        Err(SourceError::File(FileError::Objects { what, .. })) => {
            backup.kind = match what {
                Objects::Velero => Kind::Velero,
                Objects::Rancher => Kind::Rancher,
            };
            match archive() {
                Ok(mut archive) => count(&mut archive, options, backup),
                Err(e) => backup.error = Some(chain(&e)),
            }
        }
        // A data directory may hold databases that etcd left behind.
        Err(e @ SourceError::File(FileError::Databases { .. })) => match data_dir() {
            Ok(mut dir) => {
                backup.kind = Kind::DataDir;
                count(&mut dir, options, backup);
            }
            Err(_) => unread(&e, backup),
        },
        Err(SourceError::File(
            e @ (FileError::Foreign { what: Foreign::Incremental, .. }
            | FileError::NoDatabase { members: 0, .. }),
        )) => match changes().and_then(|changes| count_changes(&changes, options, backup)) {
            Ok(true) => backup.kind = Kind::Gardener,
            Ok(false) => unread(&e.into(), backup),
            Err(e) => backup.error = Some(chain(&e)),
        },
        Err(e) => unread(&e, backup),
    }
}

/// Says what a file is that is not read.
fn unread(error: &SourceError, backup: &mut Backup) {
    let SourceError::File(error) = error else {
        backup.error = Some(chain(error));
        return;
    };
    match error {
        FileError::Foreign { what: Foreign::Value, .. }
        | FileError::NotSnapshot { .. }
        | FileError::NotEtcd { .. }
        | FileError::NoDatabase { .. } => backup.kind = Kind::NotABackup,
        FileError::Sealed { why, .. } => unopened(*why, backup),
        _ => backup.error = Some(chain(error)),
    }
}

/// Says that a file stays encrypted.
fn unopened(why: Sealed, backup: &mut Backup) {
    backup.kind = Kind::Age;
    backup.error = Some(match why {
        Sealed::Locked => "age-encrypted: not examined".to_owned(),
        why => format!("age-encrypted: not examined: {why}"),
    });
}

/// Places with plaintext outside the live state.
fn remains(file: &Snapshot, options: &Options<'_>) -> Option<u64> {
    let Selection { scope, resources, namespaces } = options.selection.clone();
    let targets = Targets::new(scope, resources, namespaces);
    let bytes = file.bytes();
    let db = Db::open(bytes).ok()?;
    let mut found = 0;
    let mut sink = |_: Finding, _: Bytes<'_>| found += 1;
    residue::examine(&db, &targets, &|_| None, &|part| bytes.forget(part), &mut sink);
    Some(found)
}

/// Ten digits that stand alone in a name, as k3s and Gardener write the time.
fn time_in(name: &str) -> Option<jiff::Timestamp> {
    let digits = name.split(|c: char| !c.is_ascii_digit()).rfind(|part| part.len() == 10)?;
    jiff::Timestamp::from_second(digits.parse().ok()?).ok()
}

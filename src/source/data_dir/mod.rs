//! The data directory of a stopped member, packed or not: its database, and the write-ahead log applied on top,
//! so that the state is what etcd would serve after a restart.

mod files;
mod held;
mod packed;
mod replayed;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub use files::Leftover;
pub(in crate::source) use files::leftovers;
use files::{member_dir, open_segments};

use super::file::{Bytes, InUse, read};
use super::fold::fold;
use super::input::Input;
use super::packed::is_packed;
use super::pieces::{EntryPosition, Pieces, Positions};
use super::snapshot::{SnapshotOptions, checked, open_store, records, revision};
use super::trail::Trail;
use super::{
    DataDirError, EntrySink, FileError, HeldSink, KeyRange, Query, Record, RecordSink, Source,
    SourceError, SourceInfo, SourceKind, Visit,
};
use crate::agefile::Unlock;
use crate::entry::{BoundTo, EntryRef, Value};
use crate::mvcc::Store;
use crate::wal::replay::{Change, Live};
use crate::wal::{Log, Segment};

/// An open data directory.
#[derive(Debug)]
pub struct DataDir {
    dir: PathBuf,
    member: PathBuf,
    db_path: PathBuf,
    db: Bytes,
    segments: Vec<(String, Bytes)>,
    salvage: bool,
    /// Of one that was packed: the files that etcd does not use.
    leftovers: Option<Vec<Leftover>>,
}

/// Whether an etcd runs on a data directory. Its lock is tried, and given back at once.
///
/// # Errors
/// When the database cannot be opened.
pub fn in_use(dir: &Path) -> std::io::Result<bool> {
    Ok(super::file::in_use(&std::fs::File::open(dir.join("member/snap/db"))?))
}

impl DataDir {
    /// Opens a data directory, or the `member` directory in one.
    ///
    /// # Errors
    /// When it is none, when a part is missing, or when an etcd uses it. With `salvage` only when
    /// there is no database.
    pub fn open(dir: &Path, options: &SnapshotOptions) -> Result<Self, SourceError> {
        Self::open_with(dir, &Unlock::default(), options)
    }

    /// As [`DataDir::open`], of one that may be packed in a file, which age may have encrypted.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(
        dir: &Path,
        unlock: &Unlock,
        options: &SnapshotOptions,
    ) -> Result<Self, SourceError> {
        let unreadable = |cause| FileError::Unreadable { path: dir.to_owned(), cause };
        if std::fs::metadata(dir).is_ok_and(|m| m.is_file()) {
            let input = Input::open(dir, unlock).map_err(unreadable)?;
            return Self::of_file(dir, input, options);
        }
        let member = member_dir(dir)?;
        let db_path = member.join("snap").join("db");
        if !db_path.exists() {
            return Err(DataDirError::NoDatabase { path: dir.to_owned(), db: db_path }.into());
        }
        let in_use = if options.salvage { InUse::Allow } else { InUse::Refuse };
        let db = read(&db_path, in_use)?;
        let wal = member.join("wal");
        let segments = if options.salvage && !wal.is_dir() {
            Vec::new()
        } else {
            open_segments(dir, &wal, &db_path)?
        };
        let salvage = options.salvage;
        let dir = dir.to_owned();
        Self { dir, member, db_path, db, segments, salvage, leftovers: None }.whole()
    }

    /// Opens one that is packed in a file, which is open already; `name` stands for its path.
    ///
    /// # Errors
    /// As [`DataDir::open`], and when it cannot be unpacked.
    pub fn of_file(
        name: &Path,
        file: impl Into<Input>,
        options: &SnapshotOptions,
    ) -> Result<Self, SourceError> {
        let (dir, input) = (name.to_owned(), file.into());
        let unreadable = |cause| FileError::Unreadable { path: name.to_owned(), cause };
        if !is_packed(input.file()).map_err(unreadable)? {
            return Err(DataDirError::File { path: dir }.into());
        }
        let packed::Parts { member, db, segments, leftovers } =
            packed::unpack(&input, name, options.salvage)?;
        let (db_path, leftovers) = (member.join("snap").join("db"), Some(leftovers));
        Self { dir, member, db_path, db, segments, salvage: options.salvage, leftovers }.whole()
    }

    /// Refuses one whose database is cut short.
    fn whole(self) -> Result<Self, SourceError> {
        let (salvage, opened) = (self.salvage, self);
        let store = opened.store()?;
        if store.db().is_truncated() && !salvage {
            let (needs, has) = (store.db().needed_bytes(), opened.db.len());
            return Err(FileError::CutShort { path: opened.db_path.clone(), needs, has }.into());
        }
        Ok(opened)
    }

    /// The `member` directory.
    #[must_use]
    pub fn member(&self) -> &Path {
        &self.member
    }

    /// Files in it that etcd does not read, or only in passing, but that can hold entries:
    /// `db.tmp.*`, `*.snap.db`, `*.snap`, `*.broken`, `*.tmp`.
    ///
    /// # Errors
    /// When a directory cannot be listed.
    pub fn leftovers(&self) -> std::io::Result<Vec<Leftover>> {
        self.leftovers.clone().map_or_else(|| leftovers(&self.member), Ok)
    }

    /// Path and bytes of the database.
    #[must_use]
    pub fn database(&self) -> (&Path, &Bytes) {
        (&self.db_path, &self.db)
    }

    /// The segments of the log in order: file name and bytes.
    #[must_use]
    pub fn segments(&self) -> &[(String, Bytes)] {
        &self.segments
    }

    /// The log of these segments.
    #[must_use]
    pub fn log(&self) -> Log<'_> {
        let segments: Vec<_> =
            self.segments.iter().map(|(name, data)| Segment { name, data }).collect();
        Log::read(&segments)
    }

    fn store(&self) -> Result<Store<'_>, FileError> {
        open_store(&self.db_path, &self.db, self.salvage)
    }

    /// As [`Source::visit`], which needs no more than this.
    ///
    /// # Errors
    /// As [`Source::visit`].
    pub fn entries(&self, query: &Query, sink: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
        let mut replayed = self.replayed()?;
        let mut visit = std::mem::take(&mut replayed.visit);
        let (state, newest) = fold(
            &replayed.store,
            query,
            self.salvage,
            Trail::new(&self.db),
            &mut visit,
            &mut |_| (),
        );
        let (newest, compacted) = replayed.bounds(newest);
        visit.revision = revision(&self.dir, query, newest, compacted)?;
        let mut entries: hashbrown::HashMap<&[u8], EntryRef<'_>> = state
            .into_records(false)
            .filter_map(|held| checked(&held, &mut visit.damage))
            .map(|entry| (entry.key, entry))
            .collect();
        for change in replayed.changes(query) {
            match &change.live {
                Some(live) => entries.insert(change.key, entry(change.key, live)),
                None => entries.remove(change.key),
            };
        }
        let mut entries: Vec<_> = entries.into_values().collect();
        if query.ordered {
            entries.sort_unstable_by_key(|e| e.key);
        }
        let _ = entries.into_iter().try_for_each(sink);
        Ok(visit)
    }

    /// Where the live entries lie. What the log adds is kept: it is what etcd had not yet written
    /// to its database, a fraction of a second's changes.
    fn positions(&self, revision: Option<i64>) -> Result<Positions, SourceError> {
        let query = Query { ranges: vec![KeyRange::prefix(b"")], revision, ordered: true };
        let mut replayed = self.replayed()?;
        let mut visit = std::mem::take(&mut replayed.visit);
        let trail = Trail::new(&self.db);
        let (state, newest) =
            fold(&replayed.store, &query, self.salvage, trail, &mut visit, &mut |_| ());
        let (newest, compacted) = replayed.bounds(newest);
        visit.revision = self::revision(&self.dir, &query, newest, compacted)?;
        let mut places: Vec<(&[u8], EntryPosition)> = Vec::new();
        let mut changed: BTreeMap<&[u8], Option<EntryPosition>> = BTreeMap::new();
        let mut beside = Vec::new();
        for change in replayed.changes(&query) {
            let place = change.live.as_ref().map(|live| {
                let index = u32::try_from(beside.len()).unwrap_or(u32::MAX);
                beside.push(entry(change.key, live).to_entry());
                EntryPosition::Beside(index)
            });
            changed.insert(change.key, place);
        }
        for held in state.into_records(false) {
            let Some(entry) = checked(&held, &mut visit.damage) else { continue };
            if !changed.contains_key(entry.key) {
                places.extend(Positions::place(&self.db, held.record).map(|p| (entry.key, p)));
            }
        }
        places.extend(changed.into_iter().filter_map(|(key, place)| Some((key, place?))));
        places.sort_unstable_by_key(|(key, _)| *key);
        let places = places.into_iter().map(|(_, place)| place).collect();
        Ok(Positions { info: self.info(), visit, bytes: self.db.clone(), places, beside })
    }

    /// What the log adds to the database: the newest revision of each key that it changes, and
    /// whether that is a deletion.
    ///
    /// # Errors
    /// As [`Source::visit`].
    pub fn newer(&self) -> Result<hashbrown::HashMap<Vec<u8>, (i64, bool)>, SourceError> {
        let replayed = self.replayed()?;
        let newest = |c: &Change<'_>| (c.key.to_vec(), (c.revision.main, c.live.is_none()));
        Ok(replayed.machine.changes.iter().map(newest).collect())
    }
}

fn live(entry: EntryRef<'_>) -> Live<'_> {
    Live {
        value: entry.stored(),
        create_revision: entry.create_revision,
        mod_revision: entry.mod_revision,
        version: entry.version,
        lease: entry.lease,
    }
}

fn entry<'a>(key: &'a [u8], live: &Live<'a>) -> EntryRef<'a> {
    EntryRef {
        key,
        value: Value(live.value),
        create_revision: live.create_revision,
        mod_revision: live.mod_revision,
        version: live.version,
        lease: live.lease,
        bound_to: BoundTo::Key,
    }
}

fn record<'a>(change: &Change<'a>) -> Record<'a> {
    match &change.live {
        Some(live) => Record::Put(entry(change.key, live)),
        None => Record::Delete { key: change.key, revision: change.revision.main },
    }
}

impl Source for DataDir {
    fn info(&self) -> SourceInfo {
        SourceInfo { kind: SourceKind::DataDir, location: self.dir.to_string_lossy().into_owned() }
    }

    fn visit(&mut self, query: &Query, sink: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
        self.entries(query, sink)
    }

    fn pieces(&mut self, revision: Option<i64>) -> Result<Option<Box<dyn Pieces>>, SourceError> {
        self.positions(revision).map(|positions| Some(Box::new(positions) as Box<dyn Pieces>))
    }

    fn history(&mut self, query: &Query, sink: &mut RecordSink<'_>) -> Result<Visit, SourceError> {
        let mut replayed = self.replayed()?;
        let mut visit = std::mem::take(&mut replayed.visit);
        let mut flow = ControlFlow::Continue(());
        let newest = records(&replayed.store, query, self.salvage, &mut visit, &mut |record| {
            flow = sink(record);
            flow
        });
        let (newest, compacted) = replayed.bounds(newest);
        visit.compacted = compacted.max(0);
        // What was compacted, the log may still tell: that is no reason to refuse.
        visit.revision = revision(&self.dir, query, newest, 0)?;
        for change in replayed.changes(query) {
            if flow.is_break() {
                break;
            }
            flow = sink(record(change));
        }
        Ok(visit)
    }

    fn held(&mut self, query: &Query, sink: &mut HeldSink<'_>) -> Result<Visit, SourceError> {
        held::read(self, query, sink)
    }
}

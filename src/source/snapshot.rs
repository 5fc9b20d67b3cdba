//! A snapshot file, or a bare copy of `member/snap/db`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use ring::digest::{Context, SHA256};

pub use super::file::Bytes;
use super::file::{InUse, not_a_database, read};
use super::fold::{broken_record, damages, fold, limit, swept};
use super::input::Input;
use super::pieces::{Pieces, Positions};
use super::trail::{Pace, Trail};
use super::{
    Census, Damage, EntrySink, FileError, KeyRange, Query, Record, RecordSink, RevisionError,
    Source, SourceError, SourceInfo, SourceKind, Visit,
};
use crate::bolt::Db;
use crate::entry::EntryRef;
use crate::mvcc::{NotedRecord, Revision, State, Store, Stored, key_value};

/// Bytes of the SHA-256 that `etcdctl snapshot save` appends.
const TRAILER: usize = 32;

/// Bytes that are hashed before their memory is given back.
const HASHED: usize = 1 << 20;

/// How to read a file that is not quite right.
#[derive(Clone, Copy, Debug, Default)]
pub struct SnapshotOptions {
    /// Read it although the SHA-256 does not match.
    pub skip_hash_check: bool,
    /// Read what is left of a damaged file.
    pub salvage: bool,
}

impl SnapshotOptions {
    fn tolerant(self) -> bool {
        self.skip_hash_check || self.salvage
    }
}

/// An open snapshot.
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
    bytes: Bytes,
    options: SnapshotOptions,
    /// Checks the trailer beside the walk; `None` once joined or when there is none.
    hash: Option<JoinHandle<bool>>,
    hashed: Arc<Pace>,
    has_trailer: bool,
}

impl Snapshot {
    /// Opens a file.
    ///
    /// # Errors
    /// When it is no database that can be read as a whole; with options that tolerate damage,
    /// when there is nothing to read at all.
    pub fn open(path: &Path, options: &SnapshotOptions) -> Result<Self, SourceError> {
        Self::of(path, read(path, in_use(*options))?, *options)
    }

    /// As [`Snapshot::open`], of a file that is open already; `name` stands for its path.
    ///
    /// # Errors
    /// As there.
    pub fn of_file(
        name: &Path,
        file: impl Into<Input>,
        options: &SnapshotOptions,
    ) -> Result<Self, SourceError> {
        Self::of(name, super::file::of(&file.into(), name, in_use(*options))?, *options)
    }

    fn of(path: &Path, bytes: Bytes, options: SnapshotOptions) -> Result<Self, SourceError> {
        let has_trailer = bytes.len() % 512 == TRAILER;
        let db = open_db(path, &bytes, options.salvage)?;
        if !options.tolerant() {
            whole(path, &db, has_trailer)?;
        }
        let hashed = Arc::new(Pace::default());
        let hash = has_trailer.then(|| {
            let (bytes, pace) = (bytes.clone(), hashed.clone());
            std::thread::spawn(move || sums_up(&bytes, &pace))
        });
        if hash.is_none() {
            drop(hashed.runner());
        }
        Ok(Self { path: path.to_owned(), bytes, options, hash, hashed, has_trailer })
    }

    /// The bytes of the file, trailer included.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Waits for the check of the file's SHA-256. Returns what a reader should know about the
    /// file as a whole.
    ///
    /// # Errors
    /// When it does not match, unless that is tolerated.
    pub fn verify(&mut self) -> Result<Vec<String>, SourceError> {
        let mut notes = Vec::new();
        self.verified(&mut notes)?;
        Ok(notes)
    }

    /// Waits for the hash, then says what a reader should know about the file as a whole.
    fn verified(&mut self, notes: &mut Vec<String>) -> Result<(), SourceError> {
        if let Some(hash) = self.hash.take()
            && !hash.join().unwrap_or(false)
        {
            if !self.options.tolerant() {
                return Err(FileError::Digest { path: self.path.clone() }.into());
            }
            notes.push("the file does not match its own SHA-256; what follows may be wrong".into());
        }
        if self.bytes.with_log() {
            notes.push(
                "a write-ahead log lies beside the database and was not applied: what etcd would serve may be newer"
                    .into(),
            );
        }
        if !self.has_trailer {
            notes.push(
                "the file has no SHA-256 at its end (a copy of member/snap/db?); its integrity is not checked"
                    .into(),
            );
        }
        Ok(())
    }
}

fn in_use(options: SnapshotOptions) -> InUse {
    if options.salvage { InUse::Allow } else { InUse::Refuse }
}

impl Source for Snapshot {
    fn info(&self) -> SourceInfo {
        SourceInfo {
            kind: SourceKind::Snapshot,
            location: self.path.to_string_lossy().into_owned(),
        }
    }

    fn estimate(&mut self, query: &Query) -> Option<u64> {
        // Counting costs as much as reading, which takes less than a progress bar is worth.
        let _ = query;
        None
    }

    fn visit(&mut self, query: &Query, sink: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
        let bytes = self.bytes.clone();
        let store = open_store(&self.path, &bytes, self.options.salvage)?;
        let trail = Trail::beside(&bytes, &self.hashed);
        let mut visit = Visit::default();
        let compacted = store.bookkeeping.compacted();
        let (state, newest) =
            fold(&store, query, self.options.salvage, trail, &mut visit, &mut |_| ());
        visit.revision = revision(&self.path, query, newest, compacted)?;
        self.verified(&mut visit.notes)?;
        note_metas(store.db(), &mut visit.notes);
        give(state, query, &store, &bytes, &mut visit, sink);
        Ok(visit)
    }

    fn survey(&mut self, query: &Query, census: &mut dyn Census) -> Result<Visit, SourceError> {
        let bytes = self.bytes.clone();
        let store = open_store(&self.path, &bytes, self.options.salvage)?;
        let trail = Trail::beside(&bytes, &self.hashed);
        let mut visit = Visit::default();
        let compacted = store.bookkeeping.compacted();
        let mut note = |stored: &Stored<'_>| {
            // What is to be told about a record is told when it is given out.
            let entry = consistent(stored.record, stored.revision)?;
            Some((census.glance(entry)?, u32::try_from(entry.stored().len()).ok()?))
        };
        let (mut state, newest) =
            fold(&store, query, self.options.salvage, trail, &mut visit, &mut note);
        visit.revision = revision(&self.path, query, newest, compacted)?;
        let mut notes = std::mem::take(&mut visit.notes);
        // The hash of the whole file takes longest: the entries are given out meanwhile.
        state.retain(|held| {
            if let Some((group, bytes)) = held.note {
                census.count(group, u64::from(bytes));
            }
            held.note.is_none()
        });
        let mut sink = |entry: EntryRef<'_>| {
            census.entry(entry);
            ControlFlow::Continue(())
        };
        give(state, query, &store, &bytes, &mut visit, &mut sink);
        self.verified(&mut notes)?;
        note_metas(store.db(), &mut notes);
        visit.notes = notes;
        Ok(visit)
    }

    fn pieces(&mut self, revision: Option<i64>) -> Result<Option<Box<dyn Pieces>>, SourceError> {
        let query = Query { ranges: vec![KeyRange::prefix(b"")], revision, ordered: true };
        let bytes = self.bytes.clone();
        let store = open_store(&self.path, &bytes, self.options.salvage)?;
        let trail = Trail::beside(&bytes, &self.hashed);
        let mut visit = Visit::default();
        let compacted = store.bookkeeping.compacted();
        let (state, newest) =
            fold(&store, &query, self.options.salvage, trail, &mut visit, &mut |_| ());
        visit.revision = self::revision(&self.path, &query, newest, compacted)?;
        self.verified(&mut visit.notes)?;
        note_metas(store.db(), &mut visit.notes);
        let mut places = Vec::new();
        for held in state.into_records(true) {
            if checked(&held, &mut visit.damage).is_some() {
                places.extend(Positions::place(&bytes, held.record));
            }
        }
        let (info, bytes) = (self.info(), bytes.clone());
        Ok(Some(Box::new(Positions { info, visit, bytes, places, beside: Vec::new() })))
    }

    fn history(&mut self, query: &Query, sink: &mut RecordSink<'_>) -> Result<Visit, SourceError> {
        let mut visit = Visit::default();
        self.verified(&mut visit.notes)?;
        let bytes = self.bytes.clone();
        let store = open_store(&self.path, &bytes, self.options.salvage)?;
        note_metas(store.db(), &mut visit.notes);
        visit.compacted = store.bookkeeping.compacted();
        let newest = records(&store, query, self.options.salvage, &mut visit, sink);
        visit.revision = revision(&self.path, query, newest, visit.compacted)?;
        Ok(visit)
    }
}

/// Calls `sink` for the records that `query` wants, by ascending revision. Returns the newest
/// revision of the file.
pub(super) fn records(
    store: &Store<'_>,
    query: &Query,
    salvage: bool,
    visit: &mut Visit,
    sink: &mut RecordSink<'_>,
) -> i64 {
    let limit = limit(query);
    let mut unread = Vec::new();
    let mut flow = ControlFlow::Continue(());
    let mut give = |stored: Stored<'_>| {
        if flow.is_break() || stored.revision.main > limit {
            return;
        }
        match key_value(stored.record) {
            Ok(entry) if entry.key.is_empty() || !query.wants(entry.key) => {}
            Ok(entry) => {
                flow = sink(if stored.revision.tombstone {
                    Record::Delete { key: entry.key, revision: stored.revision.main }
                } else {
                    Record::Put(entry)
                });
            }
            Err(_) => unread.push(broken_record(stored.page, stored.revision)),
        }
    };
    let (newest, damage) = if salvage {
        let mut all = Vec::new();
        let read = store.read(&mut |stored| all.push(stored));
        let mut newest = read.newest;
        if !read.gaps.is_empty() {
            let before = all.len();
            newest = newest.max(store.sweep(&read, &mut |stored| all.push(stored)));
            visit.notes.push(swept((all.len() - before) as u64));
        }
        all.sort_by_key(|stored| stored.revision);
        all.dedup_by_key(|stored| stored.revision);
        all.into_iter().for_each(give);
        (newest, read.damage)
    } else {
        store.records(&mut give)
    };
    visit.damage.extend(damages(damage, unread));
    newest
}

/// The revision that is read: the one asked for, if the file can show it.
pub(super) fn revision(
    path: &Path,
    query: &Query,
    newest: i64,
    compacted: i64,
) -> Result<i64, RevisionError> {
    let Some(wanted) = query.revision.filter(|r| *r > 0) else { return Ok(newest) };
    if wanted > newest {
        return Err(RevisionError::Future { wanted, compacted, newest, path: path.to_owned() });
    }
    if wanted < compacted {
        return Err(RevisionError::Compacted { wanted, compacted, newest, path: path.to_owned() });
    }
    Ok(wanted)
}

/// Gives out what is live.
fn give<N: Copy>(
    state: State<'_, N>,
    query: &Query,
    store: &Store<'_>,
    bytes: &Bytes,
    visit: &mut Visit,
    sink: &mut EntrySink<'_>,
) {
    let mut trail = Trail::new(bytes);
    for held in state.into_records(query.ordered) {
        if !query.ordered {
            trail.at(store.db().offset(held.page));
        }
        let Some(entry) = checked(&held, &mut visit.damage) else { continue };
        if sink(entry).is_break() {
            break;
        }
    }
}

/// Decodes a live record; one that contradicts its place is told, but kept.
pub(super) fn checked<'a, N>(
    held: &NotedRecord<'a, N>,
    damage: &mut Vec<Damage>,
) -> Option<EntryRef<'a>> {
    let Ok(entry) = key_value(held.record) else {
        damage.extend(damages(vec![], vec![broken_record(held.page, held.revision)]));
        return None;
    };
    if entry.mod_revision != held.revision.main {
        damage.push(Damage {
            location: format!("page {}", held.page),
            what: format!(
                "a record stored at revision {} says it is of revision {}",
                held.revision.main, entry.mod_revision
            ),
        });
    }
    Some(entry)
}

/// The entry of a record of which [`checked`] has nothing to tell.
fn consistent(record: &[u8], revision: Revision) -> Option<EntryRef<'_>> {
    let entry = key_value(record).ok()?;
    (!revision.tombstone && entry.mod_revision == revision.main).then_some(entry)
}

/// A damaged meta page is no loss while the other holds, but someone should know.
pub(super) fn note_metas(db: &Db<'_>, notes: &mut Vec<String>) {
    if let [Err(what), Ok(_)] | [Ok(_), Err(what)] = db.metas() {
        let page = usize::from(db.metas()[0].is_ok());
        notes.push(format!("meta page {page} is damaged ({what}); the other one was used"));
    }
}

/// Whether a snapshot ends in the SHA-256 of what comes before.
fn sums_up(bytes: &Bytes, pace: &Pace) -> bool {
    let runner = pace.runner();
    let (body, trailer) = bytes.split_at(bytes.len() - TRAILER);
    let mut hash = Context::new(&SHA256);
    for (i, part) in body.chunks(HASHED).enumerate() {
        hash.update(part);
        let (from, to) = (i * HASHED, i * HASHED + part.len());
        bytes.forget(from..to);
        runner.at(to);
    }
    hash.finish().as_ref() == trailer
}

/// Refuses a file that has lost its end, wherever it was cut.
fn whole(path: &Path, db: &Db<'_>, has_trailer: bool) -> Result<(), FileError> {
    let (size, path) = (db.data().len(), path.to_owned());
    if db.is_truncated() {
        return Err(FileError::CutShort { path, needs: db.needed_bytes(), has: size });
    }
    // A bare copy ends at a page; anything else has lost part of its trailer.
    if !has_trailer && size % db.page_size() != 0 {
        return Err(FileError::Size { path, bytes: size });
    }
    if !has_trailer && is_copy(db) && size as u64 == db.needed_bytes() {
        return Err(FileError::NoDigest { path });
    }
    Ok(())
}

/// Whether bbolt's copy routine, which makes snapshots, wrote the metas: one state in both, the
/// newer number in page 0 (etcd-io/bbolt `tx.go`: `WriteTo`). A member's own commits write to
/// page `txid mod 2`, and one that stops can leave the same state in both, so only an odd number
/// in page 0 is proof.
fn is_copy(db: &Db<'_>) -> bool {
    match db.metas() {
        [Ok(a), Ok(b)] => {
            a.root == b.root
                && a.high_water_mark == b.high_water_mark
                && a.txid == b.txid.wrapping_add(1)
                && a.txid % 2 == 1
        }
        _ => false,
    }
}

fn open_db<'b>(path: &Path, bytes: &'b Bytes, salvage: bool) -> Result<Db<'b>, FileError> {
    let db = if salvage { Db::salvage(bytes) } else { Db::open(bytes) };
    db.map_err(|e| not_a_database(path, bytes, e))
}

/// Opens etcd's view of the file.
pub(super) fn open_store<'b>(
    path: &Path,
    bytes: &'b Bytes,
    salvage: bool,
) -> Result<Store<'b>, FileError> {
    let store = Store::open(open_db(path, bytes, salvage)?);
    // A damaged list of buckets may have held it; that is told as damage.
    if store.has_keys() || !store.damage().is_empty() {
        return Ok(store);
    }
    Err(FileError::NotEtcd { path: path.to_owned() })
}

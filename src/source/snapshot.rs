//! A snapshot file, or a bare copy of `member/snap/db`.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use ring::digest::{SHA256, digest};

use super::map::Mapped;
use super::{
    Damage, EntrySink, Query, Record, RecordSink, Source, SourceError, SourceInfo, SourceKind,
    Visit,
};
use crate::bolt::{BoltError, Db, PageDamage};
use crate::mvcc::{State, Store, Stored, key_value, record_key};

/// Bytes of the SHA-256 that `etcdctl snapshot save` appends.
const TRAILER: usize = 32;

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

/// The bytes of a database file.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// Mapped from a file.
    Mapped(Arc<Mapped>),
    /// Unpacked from an archive.
    Owned(Arc<Vec<u8>>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(m) => m,
            Self::Owned(v) => v,
        }
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
    has_trailer: bool,
}

impl Snapshot {
    /// Opens a file.
    ///
    /// # Errors
    /// When it is no database that can be read as a whole; with options that tolerate damage,
    /// when there is nothing to read at all.
    pub fn open(path: &Path, options: &SnapshotOptions) -> Result<Self, SourceError> {
        let bytes = read(path)?;
        let size = bytes.len();
        let has_trailer = size % 512 == TRAILER;
        let db = Db::open(&bytes).map_err(|e| not_a_database(path, &bytes, &e))?;
        if db.is_truncated() && !options.tolerant() {
            return Err(SourceError::new(format!(
                "{} is cut short: its database needs {} bytes, the file has {size}",
                path.display(),
                db.needed_bytes()
            ))
            .hint("take a whole copy; --salvage reads what is there"));
        }
        // A bare copy ends at a page; anything else has lost part of its trailer.
        if !has_trailer && size % db.page_size() != 0 && !options.tolerant() {
            return Err(SourceError::new(format!(
                "{} is cut short: {size} bytes are neither whole pages nor a snapshot with its SHA-256",
                path.display()
            ))
            .hint("take a whole copy; --skip-hash-check reads it all the same"));
        }
        if !has_trailer && is_copy(&db) && size as u64 == db.needed_bytes() && !options.tolerant() {
            return Err(SourceError::new(format!(
                "{} is cut short: it is a snapshot without its SHA-256",
                path.display()
            ))
            .hint("take a whole copy; --skip-hash-check reads it all the same"));
        }
        let hash = has_trailer.then(|| {
            let bytes = bytes.clone();
            std::thread::spawn(move || {
                let (body, trailer) = bytes.split_at(bytes.len() - TRAILER);
                digest(&SHA256, body).as_ref() == trailer
            })
        });
        Ok(Self { path: path.to_owned(), bytes, options: *options, hash, has_trailer })
    }

    /// The bytes of the file, trailer included.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Waits for the hash, then says what a reader should know about the file as a whole.
    fn verified(&mut self, notes: &mut Vec<String>) -> Result<(), SourceError> {
        if let Some(hash) = self.hash.take()
            && !hash.join().unwrap_or(false)
        {
            if !self.options.tolerant() {
                return Err(SourceError::new(format!(
                    "{} does not match its own SHA-256: it was cut short or changed after it was saved",
                    self.path.display()
                ))
                .hint("take a whole copy; --skip-hash-check reads it all the same"));
            }
            notes.push("the file does not match its own SHA-256; what follows may be wrong".into());
        }
        if !self.has_trailer {
            notes.push(
                "the file has no SHA-256 at its end (a copy of member/snap/db?); its integrity is not checked"
                    .into(),
            );
        }
        Ok(())
    }

    fn check_revision(
        &self,
        query: &Query,
        newest: i64,
        compacted: i64,
    ) -> Result<i64, SourceError> {
        let Some(wanted) = query.revision else { return Ok(newest) };
        if wanted > newest {
            return Err(SourceError::new(format!(
                "revision {wanted} is in the future of {}, which ends at {newest}",
                self.path.display()
            )));
        }
        if wanted < compacted {
            return Err(SourceError::new(format!(
                "revision {wanted} has been compacted: {} goes back to {compacted}",
                self.path.display()
            )));
        }
        Ok(wanted)
    }
}

impl Source for Snapshot {
    fn info(&self) -> SourceInfo {
        SourceInfo {
            kind: SourceKind::Snapshot,
            location: self.path.to_string_lossy().into_owned(),
        }
    }

    fn visit(&mut self, query: &Query, sink: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
        let bytes = self.bytes.clone();
        let store = open_store(&self.path, &bytes)?;
        let limit = query.revision.unwrap_or(i64::MAX);
        // About one key a page at the most, for secrets of some hundred bytes.
        let mut state = State::new((bytes.len() / 4096).min(1 << 20));
        let mut unread = Vec::new();
        let (newest, damage) = store.records(&mut |stored| {
            if stored.revision.main > limit {
                return;
            }
            match record_key(stored.record) {
                // An empty key is the marker of `snapshot restore --bump-revision`.
                Some([]) => {}
                Some(key) if query.wants(key) => state.apply(key, stored),
                Some(_) => {}
                None => unread.push(broken_record(&stored)),
            }
        });
        let revision = self.check_revision(query, newest, store.bookkeeping.compacted())?;
        let mut visit = Visit { revision, ..Visit::default() };
        self.verified(&mut visit.notes)?;
        visit.damage = damages(damage, unread);
        for (_, stored) in state.into_records(query.ordered) {
            match key_value(stored.record) {
                Ok(entry) => {
                    if entry.mod_revision != stored.revision.main {
                        visit.damage.push(Damage {
                            location: format!("page {}", stored.page),
                            what: format!(
                                "a record stored at revision {} says it is of revision {}",
                                stored.revision.main, entry.mod_revision
                            ),
                        });
                    }
                    if sink(entry).is_break() {
                        break;
                    }
                }
                Err(_) => visit.damage.extend(damages(vec![], vec![broken_record(&stored)])),
            }
        }
        Ok(visit)
    }

    fn history(&mut self, query: &Query, sink: &mut RecordSink<'_>) -> Result<Visit, SourceError> {
        let mut visit = Visit::default();
        self.verified(&mut visit.notes)?;
        let bytes = self.bytes.clone();
        let store = open_store(&self.path, &bytes)?;
        let limit = query.revision.unwrap_or(i64::MAX);
        let mut unread = Vec::new();
        let mut flow = ControlFlow::Continue(());
        let (newest, damage) = store.records(&mut |stored| {
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
                Err(_) => unread.push(broken_record(&stored)),
            }
        });
        visit.revision = query.revision.unwrap_or(newest);
        visit.damage = damages(damage, unread);
        Ok(visit)
    }
}

/// bbolt's copy routine, which makes snapshots, writes one state into both meta pages, the older
/// number second (etcd-io/bbolt `tx.go`: `WriteTo`). In a member's own file they differ.
fn is_copy(db: &Db<'_>) -> bool {
    match db.metas() {
        [Ok(a), Ok(b)] => {
            a.root == b.root
                && a.high_water_mark == b.high_water_mark
                && a.txid == b.txid.wrapping_add(1)
        }
        _ => false,
    }
}

fn open_store<'b>(path: &Path, bytes: &'b Bytes) -> Result<Store<'b>, SourceError> {
    let db = Db::open(bytes).map_err(|e| not_a_database(path, bytes, &e))?;
    let store = Store::open(db);
    if store.has_keys() || store.db().is_truncated() {
        return Ok(store);
    }
    Err(SourceError::new(format!(
        "{} is a bbolt file, but not etcd's: it has no bucket `key`",
        path.display()
    ))
    .hint("give a file that `etcdctl snapshot save` wrote, or a copy of member/snap/db"))
}

fn broken_record(stored: &Stored<'_>) -> PageDamage {
    let what = format!("the record of revision {} cannot be decoded", stored.revision.main);
    PageDamage { page: stored.page, what }
}

fn damages(pages: Vec<PageDamage>, records: Vec<PageDamage>) -> Vec<Damage> {
    let damage = |d: PageDamage| Damage { location: format!("page {}", d.page), what: d.what };
    pages.into_iter().chain(records).map(damage).collect()
}

/// Opens and maps a file, after looking at what it is.
fn read(path: &Path) -> Result<Bytes, SourceError> {
    let name = path.display();
    let cannot = |e: std::io::Error| {
        let hint = match e.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "run as a user who may read it, such as root",
            _ => return SourceError::new(format!("cannot read {name}")).because(e),
        };
        SourceError::new(format!("cannot read {name}")).because(e).hint(hint)
    };
    let mut file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.is_dir() {
        return Err(SourceError::new(format!("{name} is a directory"))
            .hint("a member's data directory is opened with --data-dir"));
    }
    if !metadata.is_file() {
        return Err(SourceError::new(format!("{name} is not a regular file"))
            .hint("save it to a file first; the pages of a database are not read in order"));
    }
    if metadata.len() == 0 {
        return Err(SourceError::new(format!("{name} is empty"))
            .hint("`etcdctl snapshot save` leaves a .part file behind when it fails"));
    }
    not_in_use(&file, path)?;
    let mut magic = [0; 4];
    if file.read_exact(&mut magic).is_ok() && magic == *b"PK\x03\x04" {
        return unzip(file, path);
    }
    file.rewind().map_err(cannot)?;
    Ok(Bytes::Mapped(Arc::new(Mapped::new(&file).map_err(cannot)?)))
}

/// etcd holds an exclusive `flock` for its lifetime. A shared one is tried, and given back at
/// once.
fn not_in_use(file: &File, path: &Path) -> Result<(), SourceError> {
    use rustix::fs::{FlockOperation, flock};
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            // Closing the file would do it too; the mapping may keep it open for long.
            let _ = flock(file, FlockOperation::Unlock);
            Ok(())
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SourceError::new(format!(
            "{} is in use by a running etcd",
            path.display()
        ))
        .hint(
            "read the running etcd with --endpoints, or take a copy with `etcdctl snapshot save`",
        )),
        // File systems without locks have no running etcd either.
        Err(_) => Ok(()),
    }
}

/// k3s and RKE2 can compress snapshots: a zip file with one member.
fn unzip(file: File, path: &Path) -> Result<Bytes, SourceError> {
    let bad = |e: zip::result::ZipError| {
        SourceError::new(format!("cannot unpack {}", path.display())).because(e)
    };
    let mut archive = zip::ZipArchive::new(file).map_err(bad)?;
    if archive.len() != 1 {
        return Err(SourceError::new(format!(
            "{} is a zip file with {} members, not a compressed snapshot",
            path.display(),
            archive.len()
        ))
        .hint("unpack it and give the snapshot file"));
    }
    let mut member = archive.by_index(0).map_err(bad)?;
    let mut bytes = Vec::new();
    member
        .read_to_end(&mut bytes)
        .map_err(|e| SourceError::new(format!("cannot unpack {}", path.display())).because(e))?;
    Ok(Bytes::Owned(Arc::new(bytes)))
}

fn not_a_database(path: &Path, bytes: &[u8], e: &BoltError) -> SourceError {
    let name = path.display();
    let known: [(&[u8], &str, &str); 4] = [
        (
            b"SQLite format 3\0",
            "an SQLite database",
            "a k3s or kine database is opened with --kine",
        ),
        (b"\x1f\x8b", "gzip-compressed", "unpack it with gunzip first"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed", "unpack it with `zstd -d` first"),
        (b"k8s:enc:", "a stored value", "pipe a single value into `atrest decode`"),
    ];
    if let Some((_, what, hint)) = known.iter().find(|(magic, ..)| bytes.starts_with(magic)) {
        return SourceError::new(format!("{name} is {what}, not an etcd snapshot")).hint(*hint);
    }
    match e {
        BoltError::NotBolt | BoltError::TooShort(_) => {
            SourceError::new(format!("{name} is not an etcd snapshot"))
                .because(e.clone())
                .hint("give a file that `etcdctl snapshot save` wrote, or a copy of member/snap/db")
        }
        BoltError::NoMeta { .. } => SourceError::new(format!("{name} is a damaged etcd snapshot"))
            .because(e.clone())
            .hint("take another copy; --salvage reads what is left"),
    }
}

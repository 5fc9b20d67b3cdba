//! Opening a database file: what it is, whether an etcd uses it, and its bytes.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::input::{Input, open_file};
use super::magic::EVENTS;
use super::map::Mapped;
use super::{FileError, Foreign, packed};
use crate::bolt::BoltError;

/// The bytes of a database file, mapped; of what it unpacks to, if it is packed.
#[derive(Clone, Debug)]
pub struct Bytes {
    mapped: Arc<Mapped>,
    /// A write-ahead log lies beside it, in the archive that it was packed in.
    with_log: bool,
}

impl Bytes {
    pub(super) fn new(mapped: Mapped) -> Self {
        Self { mapped: Arc::new(mapped), with_log: false }
    }

    /// Whether it was packed in an archive that has a write-ahead log as well.
    #[must_use]
    pub fn with_log(&self) -> bool {
        self.with_log
    }

    /// Lets the system take back the memory of bytes that will not be read soon; they stay
    /// readable.
    pub fn forget(&self, range: Range<usize>) {
        self.mapped.forget(range);
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.mapped
    }
}

/// Whether a file that begins so may be a backup, packed or not: what it is, reading it tells.
#[must_use]
pub fn may_be_backup(head: &[u8]) -> bool {
    packed::is_known(head) || KNOWN.iter().any(|(magic, _)| head.starts_with(magic))
}

/// First bytes of files that are no etcd database.
const KNOWN: [(&[u8], Foreign); 4] = [
    (b"SQLite format 3\0", Foreign::Sqlite),
    (b"BZh", Foreign::Bzip2),
    (EVENTS, Foreign::Incremental),
    (b"k8s:enc:", Foreign::Value),
];

/// Whether a file that a running etcd holds is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum InUse {
    /// Its pages may change while they are read.
    Refuse,
    /// The user wants what can be had.
    Allow,
}

/// Opens and maps a file, after looking at what it is.
pub(super) fn read(path: &Path, in_use: InUse) -> Result<Bytes, FileError> {
    let cannot = |cause| FileError::Unreadable { path: path.to_owned(), cause };
    of(&open_file(path).map_err(cannot)?.into(), path, in_use)
}

/// As [`read`], of a file that is open already; `path` is what it is called.
pub(super) fn of(input: &Input, path: &Path, in_use: InUse) -> Result<Bytes, FileError> {
    let file = input.file();
    let cannot = |cause| FileError::Unreadable { path: path.to_owned(), cause };
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.is_dir() {
        return Err(FileError::Directory { path: path.to_owned() });
    }
    if !metadata.is_file() {
        return Err(FileError::NotRegular { path: path.to_owned() });
    }
    if metadata.len() == 0 {
        return Err(FileError::Empty { path: path.to_owned() });
    }
    if in_use == InUse::Refuse && self::in_use(file) {
        return Err(FileError::InUse { path: path.to_owned() });
    }
    if packed::is_packed(file).map_err(cannot)? {
        let (mapped, with_log) = packed::unpack(input, path)?;
        return Ok(Bytes { with_log, ..Bytes::new(mapped) });
    }
    Ok(Bytes::new(Mapped::new(file).map_err(cannot)?))
}

/// etcd holds an exclusive `flock` for its lifetime. A shared one is tried, and given back at
/// once.
pub(super) fn in_use(file: &File) -> bool {
    use rustix::fs::{FlockOperation, flock};
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            // Closing the file would do it too; the mapping may keep it open for long.
            let _ = flock(file, FlockOperation::Unlock);
            false
        }
        // File systems without locks have no running etcd either.
        Err(e) => e == rustix::io::Errno::WOULDBLOCK,
    }
}

/// Why a file is no database, by its first bytes.
pub(super) fn not_a_database(path: &Path, bytes: &[u8], cause: BoltError) -> FileError {
    let path = path.to_owned();
    if let Some((_, what)) = KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return FileError::Foreign { path, what: *what };
    }
    match cause {
        BoltError::NotBolt | BoltError::TooShort(_) => FileError::NotSnapshot { path, cause },
        BoltError::NoMeta { .. } => FileError::Damaged { path, cause },
    }
}

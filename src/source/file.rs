//! Opening a database file: what it is, whether an etcd uses it, and its bytes.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::map::Mapped;
use super::{FileError, Foreign};
use crate::bolt::BoltError;

/// Unpacked, a compressed snapshot lies in memory; nobody has one this large (etcd's own limit
/// for a database is 8 GiB).
const LARGEST_UNPACKED: u64 = 32 << 30;

/// The bytes of a database file.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// Mapped from a file.
    Mapped(Arc<Mapped>),
    /// Unpacked from an archive.
    Owned(Arc<Vec<u8>>),
}

impl Bytes {
    /// Lets the system take back the memory of bytes that will not be read soon; they stay
    /// readable.
    pub fn forget(&self, range: Range<usize>) {
        if let Self::Mapped(mapped) = self {
            mapped.forget(range);
        }
    }
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
    let mut file = File::open(path).map_err(cannot)?;
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
    if in_use == InUse::Refuse && self::in_use(&file) {
        return Err(FileError::InUse { path: path.to_owned() });
    }
    let mut magic = [0; 4];
    if file.read_exact(&mut magic).is_ok() && magic == *b"PK\x03\x04" {
        return unzip(file, path);
    }
    file.rewind().map_err(cannot)?;
    Ok(Bytes::Mapped(Arc::new(Mapped::new(&file).map_err(cannot)?)))
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

/// k3s and RKE2 can compress snapshots: a zip file with one member.
fn unzip(file: File, path: &Path) -> Result<Bytes, FileError> {
    let bad =
        |e: zip::result::ZipError| FileError::Unpack { path: path.to_owned(), cause: e.into() };
    let mut archive = zip::ZipArchive::new(file).map_err(bad)?;
    if archive.len() != 1 {
        return Err(FileError::Members { path: path.to_owned(), members: archive.len() });
    }
    let mut member = archive.by_index(0).map_err(bad)?;
    if member.size() > LARGEST_UNPACKED {
        return Err(FileError::Bomb { path: path.to_owned(), bytes: member.size() });
    }
    let mut bytes = Vec::new();
    // No more than it says, whatever it unpacks to.
    let limit = member.size() + 1;
    (&mut member)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|e| FileError::Unpack { path: path.to_owned(), cause: e.into() })?;
    Ok(Bytes::Owned(Arc::new(bytes)))
}

/// Why a file is no database, by its first bytes.
pub(super) fn not_a_database(path: &Path, bytes: &[u8], cause: BoltError) -> FileError {
    const KNOWN: [(&[u8], Foreign); 4] = [
        (b"SQLite format 3\0", Foreign::Sqlite),
        (b"\x1f\x8b", Foreign::Gzip),
        (b"\x28\xb5\x2f\xfd", Foreign::Zstd),
        (b"k8s:enc:", Foreign::Value),
    ];
    let path = path.to_owned();
    if let Some((_, what)) = KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return FileError::Foreign { path, what: *what };
    }
    match cause {
        BoltError::NotBolt | BoltError::TooShort(_) => FileError::NotSnapshot { path, cause },
        BoltError::NoMeta { .. } => FileError::Damaged { path, cause },
    }
}

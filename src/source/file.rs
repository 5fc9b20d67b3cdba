//! Opening a database file: what it is, whether an etcd uses it, and its bytes.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::SourceError;
use super::map::Mapped;
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
pub(super) fn read(path: &Path, in_use: InUse) -> Result<Bytes, SourceError> {
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
    if in_use == InUse::Refuse {
        not_in_use(&file, path)?;
    }
    let mut magic = [0; 4];
    if file.read_exact(&mut magic).is_ok() && magic == *b"PK\x03\x04" {
        return unzip(file, path);
    }
    file.rewind().map_err(cannot)?;
    Ok(Bytes::Mapped(Arc::new(Mapped::new(&file).map_err(cannot)?)))
}

fn not_in_use(file: &File, path: &Path) -> Result<(), SourceError> {
    if in_use(file) {
        return Err(SourceError::new(format!("{} is in use by a running etcd", path.display()))
            .hint(
            "read the running etcd with --endpoints, or take a copy with `etcdctl snapshot save`",
        ));
    }
    Ok(())
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
    if member.size() > LARGEST_UNPACKED {
        return Err(SourceError::new(format!(
            "{} says it unpacks to {} bytes",
            path.display(),
            member.size()
        ))
        .hint("unpack it and give the snapshot file"));
    }
    let mut bytes = Vec::new();
    // No more than it says, whatever it unpacks to.
    let limit = member.size() + 1;
    (&mut member)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|e| SourceError::new(format!("cannot unpack {}", path.display())).because(e))?;
    Ok(Bytes::Owned(Arc::new(bytes)))
}

pub(super) fn not_a_database(path: &Path, bytes: &[u8], e: &BoltError) -> SourceError {
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

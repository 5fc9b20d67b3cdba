//! What can be wrong with files.

use std::io;
use std::path::PathBuf;

use super::{Cause, Objects};
use crate::agefile::Sealed;
use crate::bolt::BoltError;

/// Why a file that etcd wrote cannot be read. Every one names the file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "fields are the file and the numbers that the message shows")]
pub enum FileError {
    /// The system refuses.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// It is a directory.
    #[error("{} is a directory", .path.display())]
    Directory { path: PathBuf },
    /// It is a pipe, a device or the like: its pages cannot be read in any order.
    #[error("{} is not a regular file", .path.display())]
    NotRegular { path: PathBuf },
    /// It has no bytes.
    #[error("{} is empty", .path.display())]
    Empty { path: PathBuf },
    /// A running etcd holds it.
    #[error("{} is in use by a running etcd", .path.display())]
    InUse { path: PathBuf },
    /// It is a compressed file or an archive that cannot be unpacked.
    #[error("cannot unpack {}", .path.display())]
    Unpack {
        path: PathBuf,
        #[source]
        cause: Cause,
    },
    /// A part of the data directory that is packed in it is no file of it.
    #[error("{} is refused: its member {member} {what}", .path.display())]
    Member { path: PathBuf, member: String, what: &'static str },
    /// age encrypted it, and it stays so.
    #[error("{} is encrypted by age: {why}", .path.display())]
    Sealed { path: PathBuf, why: Sealed },
    /// There is no room for what it unpacks to.
    #[error("cannot unpack {} into a temporary file", .path.display())]
    NoRoom {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// It is a compressed file or an archive of something else.
    #[error("{} holds no etcd database{}", .path.display(), in_members(*.members))]
    NoDatabase { path: PathBuf, members: usize },
    /// It is an archive of several databases.
    #[error("{} holds {databases} etcd databases", .path.display())]
    Databases { path: PathBuf, databases: usize },
    /// It is an archive of objects.
    #[error("{} is {what}: it holds objects, not a database", .path.display())]
    Objects { path: PathBuf, what: Objects },
    /// It unpacks to more than any snapshot has.
    #[error("{} unpacks to more than {bytes} bytes", .path.display())]
    Bomb { path: PathBuf, bytes: u64 },
    /// It is a file of another kind.
    #[error("{} is {what}, not an etcd snapshot", .path.display())]
    Foreign { path: PathBuf, what: Foreign },
    /// It is no bbolt file.
    #[error("{} is not an etcd snapshot", .path.display())]
    NotSnapshot {
        path: PathBuf,
        #[source]
        cause: BoltError,
    },
    /// It is a bbolt file that cannot be entered.
    #[error("{} is a damaged etcd snapshot", .path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        cause: BoltError,
    },
    /// It is a bbolt file of another program.
    #[error("{} is a bbolt file, but not etcd's: it has no bucket `key`", .path.display())]
    NotEtcd { path: PathBuf },
    /// Its last bytes are not the SHA-256 of those before.
    #[error("{} does not match its own SHA-256: it was cut short or changed after it was saved", .path.display())]
    Digest { path: PathBuf },
    /// Its database is longer than it is.
    #[error("{} is cut short: its database needs {needs} bytes, the file has {has}", .path.display())]
    CutShort { path: PathBuf, needs: u64, has: usize },
    /// Its size is that of no snapshot and no database.
    #[error("{} has {bytes} bytes, which are neither whole pages nor a snapshot with its SHA-256", .path.display())]
    Size { path: PathBuf, bytes: usize },
    /// It is a snapshot that has lost its last bytes.
    #[error("{} is cut short: it is a snapshot without its SHA-256", .path.display())]
    NoDigest { path: PathBuf },
}

fn in_members(members: usize) -> String {
    match members {
        0 => String::new(),
        1 => " in its one member".to_owned(),
        n => format!(" in its {n} members"),
    }
}

/// What a file is instead of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// A database of kine, perhaps.
    #[error("an SQLite database")]
    Sqlite,
    /// Compressed by bzip2.
    #[error("bzip2-compressed")]
    Bzip2,
    /// Changes that Gardener's etcd-backup-restore saved.
    #[error(
        "an incremental snapshot of Gardener's etcd-backup-restore, the changes since another one"
    )]
    Incremental,
    /// The value of a single key.
    #[error("a stored value")]
    Value,
}

/// Why a directory cannot be read as a member's.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "fields are the paths and the numbers that the message shows")]
pub enum DataDirError {
    /// It is a file.
    #[error("{} is a file, not a data directory", .path.display())]
    File { path: PathBuf },
    /// It has no `member/snap`.
    #[error("{} is no etcd data directory: it has no member/snap", .path.display())]
    NotEtcd { path: PathBuf },
    /// It is an archive of several.
    #[error("{} holds {found} data directories", .path.display())]
    Several { path: PathBuf, found: usize },
    /// Its database is missing.
    #[error("{} has no database: {} does not exist", .path.display(), .db.display())]
    NoDatabase { path: PathBuf, db: PathBuf },
    /// Its write-ahead log is missing.
    #[error("{} has no write-ahead log: {} does not exist", .path.display(), .wal.display())]
    NoLog { path: PathBuf, wal: PathBuf, db: PathBuf },
    /// Its write-ahead log has no files.
    #[error("{} has no write-ahead log: {} has no .wal files", .path.display(), .wal.display())]
    EmptyLog { path: PathBuf, wal: PathBuf, db: PathBuf },
    /// The log does not continue the database.
    #[error("{}: the log goes on at entry {found}, but entry {expected} is missing; the database and the log do not belong together", .path.display())]
    Gap { path: PathBuf, found: u64, expected: u64 },
}

/// Why a file cannot be read as kine's database. Every one names the file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "fields are the file and what the message shows")]
pub enum KineError {
    /// The system refuses.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// It is a directory.
    #[error("{} is a directory", .path.display())]
    Directory { path: PathBuf },
    /// It is a pipe, a device or the like.
    #[error("{} is not a regular file", .path.display())]
    NotRegular { path: PathBuf },
    /// It has no bytes.
    #[error("{} is empty", .path.display())]
    Empty { path: PathBuf },
    /// It is a file of another kind; an etcd's, perhaps, as it is or in a zip file.
    #[error("{} is not an SQLite database", .path.display())]
    NotSqlite { path: PathBuf, bolt: bool, zip: bool },
    /// It is a database of another program.
    #[error("{} is an SQLite database, but not kine's: it has no table `kine`", .path.display())]
    NotKine { path: PathBuf },
    /// It has a table of that name that is not kine's.
    #[error("{} is not a kine database: its table `kine` has no column `{column}`", .path.display())]
    NoColumn { path: PathBuf, column: &'static str },
    /// `SQLite` finds it damaged.
    #[error("{} is a damaged SQLite database", .path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        cause: Cause,
    },
    /// Another process holds it.
    #[error("{} is locked by another process", .path.display())]
    Locked {
        path: PathBuf,
        #[source]
        cause: Cause,
    },
    /// `SQLite` fails in another way.
    #[error("cannot read {}", .path.display())]
    Failed {
        path: PathBuf,
        #[source]
        cause: Cause,
    },
    /// It was opened for writing, and may only be read.
    #[error("{} may not be written", .path.display())]
    Unwritable { path: PathBuf },
    /// `SQLite` cannot write to it.
    #[error("cannot write {}", .path.display())]
    Unwritten {
        path: PathBuf,
        #[source]
        cause: Cause,
    },
    /// It can only be read from a copy, and there is no room for one.
    #[error("cannot copy {} to a private place", .path.display())]
    Copy {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// Somebody writes to it all the time.
    #[error("{} changes while it is copied", .path.display())]
    Restless { path: PathBuf },
    /// Somebody has written to it.
    #[error("{} changed while it was read", .path.display())]
    Changed { path: PathBuf },
}

//! Opening kine's database so that nothing is written beside it, whether k3s runs or not.
//!
//! kine keeps its database in WAL mode (k3s-io/kine `pkg/drivers/sqlite/sqlite.go`), where even a
//! reader usually creates or changes the `-shm` file. Three ways avoid that:
//!
//! | files | opened |
//! | --- | --- |
//! | no `-wal`, or an empty one without `-shm` | as it lies (`immutable=1`): all of it is in the main file |
//! | `-wal` and `-shm` | `mode=ro&readonly_shm=1`: a running writer's index is used, a dead one's ignored |
//! | `-wal` alone, or a journal left by a crash | a private copy, because `SQLite` would have to write |

use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::agefile::Unlock;
use crate::hex::percent;
use crate::source::{Input, KineError, SourceError};
use crate::temporary;

/// First bytes of every `SQLite` database (sqlite.org/fileformat2.html §1.3.1).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Where and how bbolt says what its file is (etcd-io/bbolt `db.go`: `magic`).
const BOLT_MAGIC: &[u8] = &0xED0C_DAEDu32.to_le_bytes();
/// Offset of the "file format read version": 1 is a rollback journal, 2 is WAL.
const READ_VERSION: usize = 19;
/// How often a copy of files that change meanwhile is tried.
const COPY_ATTEMPTS: usize = 3;
/// How long another process's exclusive lock is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// An open database.
#[derive(Debug)]
pub(super) struct Opened {
    /// The connection.
    pub(super) connection: Connection,
    /// What the files were when they were opened in a way that needs them to stay so.
    pub(super) unlocked: Option<Stamp>,
    /// What the private copy was made of where that has no name: the file itself, then its WAL and
    /// journal by the endings of their names.
    pub(super) parts: Vec<(&'static str, std::fs::File)>,
    /// The private copy that the connection reads; removed when dropped.
    pub(super) copy: Option<Copy>,
}

/// A private copy of the files.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) dir: tempfile::TempDir,
    _noted: temporary::Noted,
}

/// What changes when a file is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// [`FileStamp`]s of the database, its WAL and its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([Option<FileStamp>; 3]);

impl Stamp {
    /// Looks at the files beside `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self(["", "-wal", "-journal"].map(|suffix| {
            let meta = std::fs::metadata(beside(path, suffix)).ok()?;
            // An empty WAL or journal is none.
            (meta.len() > 0).then(|| FileStamp {
                inode: meta.ino(),
                size: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
            })
        }))
    }

    fn wal(&self) -> bool {
        self.0[1].is_some()
    }

    fn journal(&self) -> bool {
        self.0[2].is_some()
    }
}

/// `state.db` → `state.db-wal`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens the database at `path`, which stays as it is.
pub(super) fn open(path: &Path) -> Result<Opened, KineError> {
    let uses_wal = look(path)?;
    // SQLite puts the WAL beside the file that a symbolic link leads to.
    let real = path.canonicalize().map_err(|e| cannot(path, e))?;
    let stamp = Stamp::of(&real);
    let shm = beside(&real, "-shm").exists();
    if stamp.journal() || (stamp.wal() && !shm) {
        return copied(path, &real);
    }
    if uses_wal && !shm {
        let connection = connect(path, &real, "immutable=1", true)?;
        return Ok(Opened { connection, unlocked: Some(stamp), parts: vec![], copy: None });
    }
    let connection = connect(path, &real, "mode=ro&readonly_shm=1", true)?;
    match probe(&connection) {
        Ok(()) => Ok(Opened { connection, unlocked: None, parts: vec![], copy: None }),
        // The index is of another version, locked in another way, or on a file system that
        // cannot share memory.
        Err(e) if needs_copy(&e) => copied(path, &real),
        Err(e) => Err(unreadable(path, e)),
    }
}

/// Refuses what is no `SQLite` database. Returns whether it is in WAL mode.
fn look(path: &Path) -> Result<bool, KineError> {
    let mut file = crate::source::open_file(path).map_err(|e| cannot(path, e))?;
    let metadata = file.metadata().map_err(|e| cannot(path, e))?;
    if metadata.is_dir() {
        return Err(KineError::Directory { path: path.to_owned() });
    }
    if !metadata.is_file() {
        return Err(KineError::NotRegular { path: path.to_owned() });
    }
    if metadata.len() == 0 {
        return Err(KineError::Empty { path: path.to_owned() });
    }
    recognised(path, &mut file)
}

/// Refuses what does not begin as `SQLite`'s. Returns whether it is in WAL mode.
fn recognised(path: &Path, file: &mut std::fs::File) -> Result<bool, KineError> {
    let mut head = Vec::new();
    file.by_ref().take(100).read_to_end(&mut head).map_err(|e| cannot(path, e))?;
    if head.starts_with(MAGIC) {
        return Ok(head.get(READ_VERSION) == Some(&2));
    }
    Err(KineError::NotSqlite {
        path: path.to_owned(),
        bolt: head.get(16..20) == Some(BOLT_MAGIC),
        zip: head.starts_with(b"PK\x03\x04"),
    })
}

/// Opens the database at `path` for writing, with all others kept out once it is used.
pub(super) fn alone(path: &Path) -> Result<Connection, KineError> {
    look(path)?;
    // The index of a write-ahead log lies in memory, so that no file with it is left behind.
    let real = path.canonicalize().map_err(|e| cannot(path, e))?;
    let connection = connect(path, &real, "mode=rw", false)?;
    // SQLite opens for reading what it may not write.
    if connection.is_readonly(rusqlite::MAIN_DB).map_err(|e| unreadable(path, e))? {
        return Err(KineError::Unwritable { path: path.to_owned() });
    }
    connection
        .pragma_update(None, "locking_mode", "EXCLUSIVE")
        .and_then(|()| probe(&connection))
        .map_err(|e| unreadable(path, e))?;
    Ok(connection)
}

fn cannot(path: &Path, cause: std::io::Error) -> KineError {
    KineError::Unreadable { path: path.to_owned(), cause }
}

/// `SQLite` could not do it without writing.
fn needs_copy(e: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, FileLockingProtocolFailed, ReadOnly, SystemIoFailure};
    matches!(
        e.sqlite_error_code(),
        Some(CannotOpen | ReadOnly | FileLockingProtocolFailed | SystemIoFailure)
    )
}

/// Makes `SQLite` read the file for the first time.
fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

fn connect(
    path: &Path,
    real: &Path,
    parameters: &str,
    read_only: bool,
) -> Result<Connection, KineError> {
    let access = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    };
    let flags = access | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connect = || {
        let connection = Connection::open_with_flags(uri(real, parameters), flags)?;
        connection.busy_timeout(BUSY)?;
        // The file is someone else's: its schema is not trusted, and closing it changes nothing.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        Ok(connection)
    };
    connect().map_err(|e| unreadable(path, e))
}

/// sqlite.org/uri.html: everything that could mean something is escaped.
fn uri(path: &Path, parameters: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    format!("file:{}?{parameters}", percent(path.as_os_str().as_bytes(), plain))
}

/// Copies the database with its WAL or journal where only we can read it, and lets `SQLite`
/// recover the copy.
fn copied(path: &Path, real: &Path) -> Result<Opened, KineError> {
    let failed = |cause| KineError::Copy { path: path.to_owned(), cause };
    let copy = private_dir().map_err(failed)?;
    let target = copy.dir.path().join("kine.db");
    for _ in 0..COPY_ATTEMPTS {
        let before = Stamp::of(real);
        for suffix in ["", "-wal", "-journal"] {
            let to = beside(&target, suffix);
            match private_copy(&beside(real, suffix), &to) {
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && !suffix.is_empty() => {
                    if let Err(e) = std::fs::remove_file(&to)
                        && e.kind() != std::io::ErrorKind::NotFound
                    {
                        return Err(failed(e));
                    }
                }
                Err(e) => return Err(failed(e)),
            }
        }
        if Stamp::of(real) == before {
            return recovered(path, &target, copy);
        }
    }
    Err(KineError::Restless { path: path.to_owned() })
}

/// Lets `SQLite` recover a private copy, and takes its names away.
fn recovered(path: &Path, target: &Path, copy: Copy) -> Result<Opened, KineError> {
    let failed = |cause| KineError::Copy { path: path.to_owned(), cause };
    let connection = connect(path, target, "mode=rw", false)?;
    // Nobody else uses it: no shared index is needed, and no file is opened again.
    let alone = connection.pragma_update(None, "locking_mode", "EXCLUSIVE");
    alone.and_then(|()| probe(&connection)).map_err(|e| unreadable(path, e))?;
    // The files are open; without names nothing is left of them however the program ends.
    for suffix in ["", "-wal", "-journal", "-shm"] {
        match std::fs::remove_file(beside(target, suffix)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
    }
    Ok(Opened { connection, unlocked: None, parts: vec![], copy: Some(copy) })
}

/// Opens a database that lies in files without names, by way of a private copy; `path` is what it
/// is called.
pub(super) fn of_parts(
    path: &Path,
    mut parts: Vec<(&'static str, std::fs::File)>,
) -> Result<Opened, KineError> {
    use std::io::Seek as _;
    let failed = |cause| KineError::Copy { path: path.to_owned(), cause };
    let copy = private_dir().map_err(failed)?;
    let target = copy.dir.path().join("kine.db");
    for (ending, file) in &mut parts {
        file.rewind().map_err(|e| cannot(path, e))?;
        if ending.is_empty() {
            recognised(path, file)?;
            file.rewind().map_err(|e| cannot(path, e))?;
        }
        write_private(file, &beside(&target, ending)).map_err(failed)?;
    }
    Ok(Opened { parts, ..recovered(path, &target, copy)? })
}

/// What a packed file holds, if it is packed and holds a database.
pub(super) fn packed(
    path: &Path,
    unlock: &Unlock,
) -> Result<Vec<(&'static str, std::fs::File)>, SourceError> {
    let input = Input::open(path, unlock).map_err(|e| cannot(path, e))?;
    let regular = input.file().metadata().is_ok_and(|m| m.is_file());
    if !regular || !crate::source::packed::is_packed(input.file()).map_err(|e| cannot(path, e))? {
        return Ok(Vec::new());
    }
    Ok(crate::source::packed::unpack_sqlite(&input, path)?)
}

/// Copies a file so that only we can read it.
fn private_copy(from: &Path, to: &Path) -> std::io::Result<u64> {
    write_private(&mut crate::source::open_file(from)?, to)
}

fn write_private(from: &mut std::fs::File, to: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut to = options.write(true).create(true).truncate(true).mode(0o600).open(to)?;
    std::io::copy(from, &mut to)
}

/// A directory for the copy: `$TMPDIR` if set, else in memory if the system has such a place, so
/// that no plaintext reaches a disk.
fn private_dir() -> std::io::Result<Copy> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("atrest-kine-");
    let (dir, noted) = temporary::make(|| match std::env::var_os("TMPDIR") {
        None => builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()),
        Some(_) => builder.tempdir(),
    })?;
    Ok(Copy { dir, _noted: noted })
}

/// What an error of `SQLite` says about the file.
pub(super) fn unreadable(path: &Path, e: rusqlite::Error) -> KineError {
    use rusqlite::ErrorCode;
    let (path, code) = (path.to_owned(), e.sqlite_error_code());
    let cause = e.into();
    match code {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            KineError::Damaged { path, cause }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            KineError::Locked { path, cause }
        }
        _ => KineError::Failed { path, cause },
    }
}

//! Databases in compressed and encrypted files and archives, as backups are stored.
//!
//! The pages of a database are not read in order, so what is unpacked goes into a temporary file
//! that has no name and that nobody else can open; it is gone when the program ends, however it
//! does.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::Path;

use super::input::Input;
use super::magic::{EVENTS, is_database};
use super::map::Mapped;
use super::objects::{self, Objects};
use super::walk::{Failed, LARGEST, Visitor, head, is_packing, spool, walk};
use super::{FileError, Foreign};
use crate::agefile::Sealed;
use crate::wal::parse_name;

/// Most members that may belong to a database.
const MOST_BESIDE: usize = 8;

/// Whether bytes begin as a database or as a packing.
pub(super) fn is_known(head: &[u8]) -> bool {
    is_database(head) || is_packing(head)
}

/// Whether the file is packed at all.
///
/// # Errors
/// When it cannot be read.
pub(super) fn is_packed(mut file: &File) -> io::Result<bool> {
    let head = head(&mut file)?;
    file.rewind()?;
    Ok(is_packing(&head) && !is_database(&head))
}

/// Whether a member of an archive is a segment of etcd's log.
fn is_segment(name: &[u8]) -> bool {
    let mut parts = name.rsplit(|b| *b == b'/');
    let file = parts.next().and_then(|file| std::str::from_utf8(file).ok());
    parts.next() == Some(b"wal") && file.is_some_and(|file| parse_name(file).is_some())
}

/// The one database that is packed in a file, and whether a write-ahead log lies beside it.
///
/// # Errors
/// When there is none or there are several, when it cannot be unpacked, or when there is no room.
pub(super) fn unpack(input: &Input, path: &Path) -> Result<(Mapped, bool), FileError> {
    let unpacker = Unpacker::run(input, path, is_database, |_| false)?;
    match (unpacker.found, unpacker.databases) {
        (Some(found), 1) => Mapped::new(&found.file)
            .map(|mapped| (mapped, unpacker.with_log))
            .map_err(|cause| FileError::NoRoom { path: path.to_owned(), cause }),
        (_, 0) if unpacker.is_incremental.get() => {
            Err(FileError::Foreign { path: path.to_owned(), what: Foreign::Incremental })
        }
        (_, 0) => Err(match (unpacker.objects, unpacker.sealed) {
            (Some(what), _) => FileError::Objects { path: path.to_owned(), what },
            (None, Some(why)) => FileError::Sealed { path: path.to_owned(), why },
            (None, None) => {
                FileError::NoDatabase { path: path.to_owned(), members: unpacker.members }
            }
        }),
        (_, databases) => Err(FileError::Databases { path: path.to_owned(), databases }),
    }
}

/// The one `SQLite` database that is packed in a file, with what lies beside it in the archive, by
/// the endings that `SQLite` gives their names: none, `-wal`, `-journal`. Empty if there is none.
///
/// # Errors
/// As [`unpack`].
#[cfg(feature = "kine")]
pub(super) fn unpack_sqlite(
    input: &Input,
    path: &Path,
) -> Result<Vec<(&'static str, File)>, FileError> {
    let unpacker = Unpacker::run(input, path, is_sqlite, is_sqlite_log)?;
    let Some(found) = unpacker.found else {
        return match unpacker.sealed {
            Some(why) => Err(FileError::Sealed { path: path.to_owned(), why }),
            None => Ok(Vec::new()),
        };
    };
    if unpacker.databases > 1 {
        let databases = unpacker.databases;
        return Err(FileError::Databases { path: path.to_owned(), databases });
    }
    let mut parts = Vec::new();
    for log in unpacker.beside {
        let mut endings = ["-wal", "-journal"].into_iter();
        let ending = endings.find(|e| log.name == [&found.name, e.as_bytes()].concat());
        parts.extend(ending.map(|ending| (ending, log.file)));
    }
    parts.insert(0, ("", found.file));
    Ok(parts)
}

/// sqlite.org/fileformat2.html §1.3.1.
#[cfg(feature = "kine")]
fn is_sqlite(head: &[u8]) -> bool {
    head.starts_with(b"SQLite format 3\0")
}

/// A WAL or a rollback journal (sqlite.org/fileformat2.html §4.1, §3).
#[cfg(feature = "kine")]
fn is_sqlite_log(head: &[u8]) -> bool {
    matches!(head, [0x37, 0x7F, 0x06, 0x82 | 0x83, ..])
        || head.starts_with(&[0xD9, 0xD5, 0x05, 0xF9, 0x20, 0xA1, 0x63, 0xD7])
}

/// A member that was put down.
struct Found {
    /// Its name in an archive; empty outside of any.
    #[cfg_attr(not(feature = "kine"), allow(dead_code))]
    name: Vec<u8>,
    file: File,
}

struct Unpacker {
    is_database: fn(&[u8]) -> bool,
    /// What else is put down: it may belong to the database.
    is_beside: fn(&[u8]) -> bool,
    /// The first database.
    found: Option<Found>,
    beside: Vec<Found>,
    databases: usize,
    /// Files in archives.
    members: usize,
    /// What an archive without a database is.
    objects: Option<Objects>,
    /// A list of changes was seen.
    is_incremental: Cell<bool>,
    /// An archive has a write-ahead log, which belongs to the database.
    with_log: bool,
    /// Why a file in an archive stays encrypted.
    sealed: Option<Sealed>,
}

impl Unpacker {
    fn run(
        input: &Input,
        path: &Path,
        is_database: fn(&[u8]) -> bool,
        is_beside: fn(&[u8]) -> bool,
    ) -> Result<Self, FileError> {
        let mut unpacker = Self {
            is_database,
            is_beside,
            found: None,
            beside: Vec::new(),
            databases: 0,
            members: 0,
            objects: None,
            is_incremental: Cell::new(false),
            with_log: false,
            sealed: None,
        };
        match walk(input, &mut unpacker) {
            Ok(()) | Err(Failed::Enough) => Ok(unpacker),
            // What objects are left of a damaged archive, who reads objects will tell.
            Err(Failed::Unpack(_)) if unpacker.databases == 0 && unpacker.objects.is_some() => {
                Ok(unpacker)
            }
            Err(failed) => Err(failed.of(path)),
        }
    }

    fn is_beside(&self, head: &[u8]) -> bool {
        (self.is_beside)(head) && self.beside.len() < MOST_BESIDE
    }
}

impl Visitor for Unpacker {
    fn member(&mut self, name: &[u8]) -> Result<bool, Failed> {
        self.members += 1;
        self.with_log |= is_segment(name);
        self.objects = self.objects.or_else(|| objects::archive_of(name));
        Ok(true)
    }

    fn takes(&self, head: &[u8]) -> bool {
        if head.starts_with(EVENTS) {
            self.is_incremental.set(true);
        }
        (self.is_database)(head) || self.is_beside(head)
    }

    fn sealed(&mut self, why: Sealed) {
        self.sealed.get_or_insert(why);
    }

    fn take(&mut self, name: &[u8], reader: &mut dyn Read) -> Result<(), Failed> {
        let head = head(reader)?;
        let mut reader = head.as_slice().chain(reader);
        let name = name.to_owned();
        if !(self.is_database)(&head) {
            self.beside.push(Found { name, file: spool(&mut reader)? });
            return Ok(());
        }
        self.databases += 1;
        if self.found.is_none() {
            self.found = Some(Found { name, file: spool(&mut reader)? });
        }
        Ok(())
    }
}

impl Failed {
    /// As an error about a file.
    #[must_use]
    pub fn of(self, path: &Path) -> FileError {
        let path = path.to_owned();
        match self {
            Self::Unpack(cause) => FileError::Unpack { path, cause: cause.into() },
            Self::Member(member, what) => FileError::Member { path, member, what },
            Self::Sealed(why) => FileError::Sealed { path, why },
            Self::Room(cause) => FileError::NoRoom { path, cause },
            Self::Bomb => FileError::Bomb { path, bytes: LARGEST },
            Self::Enough => FileError::NoDatabase { path, members: 0 },
        }
    }
}

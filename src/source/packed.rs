//! Databases in compressed files and archives, as backups are stored: gzip, zstd, xz, zlib, zip
//! and tar, and one inside another, recognised by content and not by name.
//!
//! The pages of a database are not read in order, so what is unpacked goes into a temporary file
//! that has no name and that nobody else can open; it is gone when the program ends, however it
//! does. Memory is bounded by the unpackers' windows.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::FileError;
use super::map::Mapped;

/// Nobody has a database this large: etcd's own limit is 8 GiB, and a file that unpacks to more
/// is made to fill a disk.
const LARGEST: u64 = 32 << 30;
/// Packings inside of one another: a gzipped tar archive with a gzipped snapshot in it has three.
const DEEPEST: usize = 4;
/// How much of a file is looked at: both meta pages of a database with the largest pages in use.
const HEAD: usize = (64 << 10) + 64;
/// Most members of an archive that are looked at.
const MOST_MEMBERS: usize = 1 << 20;
/// Most members that may belong to a database.
const MOST_BESIDE: usize = 8;
/// Window of a zstd frame, log 2: what `zstd --long` makes by default.
const ZSTD_WINDOW: u32 = 27;
/// Memory that xz may use; the largest preset needs 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;
/// What is written at once; a chunk of zeros is left as a hole.
const CHUNK: usize = 128 << 10;

/// A way of packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zstd,
    Xz,
    Zlib,
    Zip,
    Tar,
}

/// The packing that bytes begin as.
fn packing(head: &[u8]) -> Option<Packing> {
    match head {
        [0x1F, 0x8B, 0x08, ..] => Some(Packing::Gzip),
        // A frame, or a skippable one before it (RFC 8878 §3.1.2).
        [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Some(Packing::Zstd),
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Some(Packing::Xz),
        [b'P', b'K', 3, 4, ..] => Some(Packing::Zip),
        // RFC 1950 §2.2: deflate, its window, and a check over both bytes.
        [0x78, flags @ (0x01 | 0x5E | 0x9C | 0xDA), ..]
            if (0x7800 + u16::from(*flags)) % 31 == 0 =>
        {
            Some(Packing::Zlib)
        }
        _ if head.get(257..262) == Some(b"ustar") => Some(Packing::Tar),
        _ => None,
    }
}

/// Whether bytes begin as a database of bbolt, in either byte order, with one damaged meta page at
/// most (etcd-io/bbolt `db.go`: `magic`).
fn is_database(head: &[u8]) -> bool {
    const MAGIC: [u8; 4] = 0xED0C_DAEDu32.to_le_bytes();
    const SWAPPED: [u8; 4] = 0xED0C_DAEDu32.to_be_bytes();
    let pages = std::iter::once(0).chain((12..=16).map(|log| 1usize << log));
    pages
        .filter_map(|page| head.get(page + 16..page + 20))
        .any(|magic| magic == MAGIC || magic == SWAPPED)
}

/// Whether bytes begin as a database or as a packing.
pub(super) fn is_known(head: &[u8]) -> bool {
    is_database(head) || packing(head).is_some()
}

/// Whether the file is packed at all.
///
/// # Errors
/// When it cannot be read.
pub(super) fn is_packed(file: &mut File) -> io::Result<bool> {
    let head = head(file)?;
    file.rewind()?;
    Ok(packing(&head).is_some() && !is_database(&head))
}

/// The one database that is packed in a file.
///
/// # Errors
/// When there is none or there are several, when it cannot be unpacked, or when there is no room.
pub(super) fn unpack(file: File, path: &Path) -> Result<Mapped, FileError> {
    let unpacker = Unpacker::run(file, path, is_database, |_| false)?;
    match (unpacker.found, unpacker.databases) {
        (Some(found), 1) => Mapped::new(&found.file)
            .map_err(|cause| FileError::NoRoom { path: path.to_owned(), cause }),
        (_, 0) => Err(match unpacker.backup {
            Some(what) => FileError::Objects { path: path.to_owned(), what },
            None => FileError::NoDatabase { path: path.to_owned(), members: unpacker.members },
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
    file: File,
    path: &Path,
) -> Result<Vec<(&'static str, File)>, FileError> {
    let unpacker = Unpacker::run(file, path, is_sqlite, is_sqlite_log)?;
    let Some(found) = unpacker.found else { return Ok(Vec::new()) };
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

enum Failed {
    /// It is damaged.
    Unpack(io::Error),
    /// The temporary file cannot be written.
    Room(io::Error),
    /// It unpacks to more than any database has.
    Bomb,
}

impl From<io::Error> for Failed {
    fn from(e: io::Error) -> Self {
        Self::Unpack(e)
    }
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
    /// What an archive without a database seems to be.
    backup: Option<&'static str>,
}

impl Unpacker {
    fn run(
        file: File,
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
            backup: None,
        };
        let path = path.to_owned();
        unpacker.file(file).map_err(|e| match e {
            Failed::Unpack(cause) => FileError::Unpack { path, cause: cause.into() },
            Failed::Room(cause) => FileError::NoRoom { path, cause },
            Failed::Bomb => FileError::Bomb { path, bytes: LARGEST },
        })?;
        Ok(unpacker)
    }

    /// A file on disk: the only place where a zip archive can be read from its end.
    fn file(&mut self, mut file: File) -> Result<(), Failed> {
        let head = head(&mut file)?;
        file.rewind()?;
        if packing(&head) == Some(Packing::Zip) {
            return self.zip(file);
        }
        self.stream(&mut file, 0, b"")
    }

    fn stream(&mut self, reader: &mut dyn Read, depth: usize, name: &[u8]) -> Result<(), Failed> {
        let head = head(reader)?;
        let is_database = (self.is_database)(&head);
        let packed = if is_database { None } else { packing(&head) };
        let mut reader = head.as_slice().chain(reader);
        if packed.is_some() && depth >= DEEPEST {
            return Ok(());
        }
        match packed {
            None if is_database => {
                self.databases += 1;
                if self.found.is_none() {
                    self.found = Some(Found { name: name.to_owned(), file: spool(&mut reader)? });
                }
                Ok(())
            }
            None if (self.is_beside)(&head) && self.beside.len() < MOST_BESIDE => {
                self.beside.push(Found { name: name.to_owned(), file: spool(&mut reader)? });
                Ok(())
            }
            None => Ok(()),
            Some(Packing::Gzip) => {
                self.stream(&mut flate2::read::MultiGzDecoder::new(reader), depth + 1, name)
            }
            Some(Packing::Zlib) => {
                self.stream(&mut flate2::read::ZlibDecoder::new(reader), depth + 1, name)
            }
            Some(Packing::Zstd) => {
                let mut decoder = zstd::stream::read::Decoder::new(reader)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                self.stream(&mut decoder, depth + 1, name)
            }
            Some(Packing::Xz) => {
                use liblzma::stream::{CONCATENATED, Stream};
                let decoder = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED);
                let decoder = decoder.map_err(io::Error::from)?;
                let mut decoder = liblzma::read::XzDecoder::new_stream(reader, decoder);
                self.stream(&mut decoder, depth + 1, name)
            }
            Some(Packing::Tar) => self.tar(&mut reader, depth + 1),
            Some(Packing::Zip) => {
                // Inside of another packing, it has to be put down first.
                let file = spool(&mut reader)?;
                self.zip(file)
            }
        }
    }

    fn tar(&mut self, reader: &mut dyn Read, depth: usize) -> Result<(), Failed> {
        for member in tar::Archive::new(&mut *reader).entries()?.take(MOST_MEMBERS) {
            let mut member = member?;
            let kind = member.header().entry_type();
            if !(kind.is_file() || kind.is_gnu_sparse()) {
                continue;
            }
            self.members += 1;
            self.backup = self.backup.or_else(|| backup_of(&member.path_bytes()));
            let name = member.path_bytes().into_owned();
            self.stream(&mut member, depth, &name)?;
        }
        // What packs the archive has a checksum at its end.
        io::copy(&mut reader.take(LARGEST), &mut io::sink())?;
        Ok(())
    }

    fn zip(&mut self, file: File) -> Result<(), Failed> {
        let mut archive = zip::ZipArchive::new(file).map_err(io::Error::from)?;
        for index in 0..archive.len().min(MOST_MEMBERS) {
            let mut member = archive.by_index(index).map_err(io::Error::from)?;
            if !member.is_file() {
                continue;
            }
            self.members += 1;
            // One level: a zip inside of a zip is nobody's snapshot.
            let name = member.name_raw().to_vec();
            self.stream(&mut member, DEEPEST - 1, &name)?;
        }
        Ok(())
    }
}

/// Backups of objects instead of pages, by the names of their members.
fn backup_of(member: &[u8]) -> Option<&'static str> {
    let path = String::from_utf8_lossy(member);
    let path = path.trim_start_matches("./");
    let is_json = path.strip_suffix(".json").is_some();
    if path.starts_with("resources/") && is_json || path == "metadata/version" {
        // vmware-tanzu/velero `pkg/archive/parser.go`.
        return Some("a Velero backup");
    }
    // rancher/backup-restore-operator `pkg/resourcesets/collector.go`: `secrets.#v1/ns/name.json`.
    let first = path.split('/').next()?;
    (is_json && first.contains('#')).then_some("a rancher-backup archive")
}

/// The first bytes of a stream.
fn head(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    reader.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Puts a stream into a nameless temporary file (mode 0600), without writing what is zero.
fn spool(reader: &mut dyn Read) -> Result<File, Failed> {
    let mut file = tempfile::tempfile().map_err(Failed::Room)?;
    let mut chunk = zeroize::Zeroizing::new(vec![0; CHUNK]);
    let mut len = 0u64;
    loop {
        let mut filled = 0;
        while filled < CHUNK {
            match reader.read(&mut chunk[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        len += filled as u64;
        if len > LARGEST {
            return Err(Failed::Bomb);
        }
        let data = &chunk[..filled];
        if filled == CHUNK && data.iter().all(|b| *b == 0) {
            file.seek(SeekFrom::Start(len)).map_err(Failed::Room)?;
        } else {
            file.write_all(data).map_err(Failed::Room)?;
        }
        if filled < CHUNK {
            break;
        }
    }
    file.set_len(len).map_err(Failed::Room)?;
    file.rewind().map_err(Failed::Room)?;
    Ok(file)
}

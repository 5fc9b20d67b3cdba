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
    let mut unpacker = Unpacker { found: None, databases: 0, members: 0, backup: None };
    unpacker.file(file).map_err(|e| match e {
        Failed::Unpack(cause) => FileError::Unpack { path: path.to_owned(), cause: cause.into() },
        Failed::Room(cause) => FileError::NoRoom { path: path.to_owned(), cause },
        Failed::Bomb => FileError::Bomb { path: path.to_owned(), bytes: LARGEST },
    })?;
    match (unpacker.found, unpacker.databases) {
        (Some(file), 1) => {
            Mapped::new(&file).map_err(|cause| FileError::NoRoom { path: path.to_owned(), cause })
        }
        (_, 0) => Err(match unpacker.backup {
            Some(what) => FileError::Objects { path: path.to_owned(), what },
            None => FileError::NoDatabase { path: path.to_owned(), members: unpacker.members },
        }),
        (_, databases) => Err(FileError::Databases { path: path.to_owned(), databases }),
    }
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

struct Unpacker {
    /// The first database.
    found: Option<File>,
    databases: usize,
    /// Files in archives.
    members: usize,
    /// What an archive without a database seems to be.
    backup: Option<&'static str>,
}

impl Unpacker {
    /// A file on disk: the only place where a zip archive can be read from its end.
    fn file(&mut self, mut file: File) -> Result<(), Failed> {
        let head = head(&mut file)?;
        file.rewind()?;
        if packing(&head) == Some(Packing::Zip) {
            return self.zip(file);
        }
        self.stream(&mut file, 0)
    }

    fn stream(&mut self, reader: &mut dyn Read, depth: usize) -> Result<(), Failed> {
        let head = head(reader)?;
        let packed = if is_database(&head) { None } else { packing(&head) };
        let mut reader = head.as_slice().chain(reader);
        if packed.is_some() && depth >= DEEPEST {
            return Ok(());
        }
        match packed {
            None if is_database(&head) => {
                self.databases += 1;
                if self.found.is_none() {
                    self.found = Some(spool(&mut reader)?);
                }
                Ok(())
            }
            None => Ok(()),
            Some(Packing::Gzip) => {
                self.stream(&mut flate2::read::MultiGzDecoder::new(reader), depth + 1)
            }
            Some(Packing::Zlib) => {
                self.stream(&mut flate2::read::ZlibDecoder::new(reader), depth + 1)
            }
            Some(Packing::Zstd) => {
                let mut decoder = zstd::stream::read::Decoder::new(reader)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                self.stream(&mut decoder, depth + 1)
            }
            Some(Packing::Xz) => {
                use liblzma::stream::{CONCATENATED, Stream};
                let decoder = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED);
                let decoder = decoder.map_err(io::Error::from)?;
                self.stream(&mut liblzma::read::XzDecoder::new_stream(reader, decoder), depth + 1)
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
            self.stream(&mut member, depth)?;
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
            self.stream(&mut member, DEEPEST - 1)?;
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

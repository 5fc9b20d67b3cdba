//! Files in compressed and encrypted files and archives: gzip, zstd, xz, zlib, LZW, zip, tar and age,
//! and one inside another, recognised by content and not by name. Memory is bounded by the unpackers'
//! windows.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};

use zeroize::Zeroizing;

use super::input::Input;
use super::lzw::{self, is_lzw};
use crate::agefile::{Sealed, Unlock, is_age};

/// Nobody has a database this large: etcd's own limit is 8 GiB, and a file that unpacks to more
/// is made to fill a disk.
pub const LARGEST: u64 = 32 << 30;
/// Packings inside of one another: an encrypted, gzipped tar archive with a gzipped snapshot in it
/// has four.
const DEEPEST: usize = 5;
/// How much of a file is looked at: both meta pages of a database with the largest pages in use.
const HEAD: usize = (64 << 10) + 64;
/// Most members of an archive that are looked at.
pub const MOST_MEMBERS: usize = 1 << 20;
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
    Lzw,
    Age,
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
        _ if is_age(head) => Some(Packing::Age),
        _ if is_lzw(head) => Some(Packing::Lzw),
        _ if head.get(257..262) == Some(b"ustar") => Some(Packing::Tar),
        _ => None,
    }
}

/// Whether bytes begin as a packing.
pub(super) fn is_packing(head: &[u8]) -> bool {
    packing(head).is_some()
}

/// Why a walk ended before its end.
#[derive(Debug)]
pub enum Failed {
    /// What is read is damaged, or cannot be read.
    Unpack(io::Error),
    /// A member of an archive, by its name, is refused for this reason.
    Member(String, &'static str),
    /// It is encrypted by age, and stays so.
    Sealed(Sealed),
    /// The temporary file cannot be written.
    Room(io::Error),
    /// It unpacks to more than any database has.
    Bomb,
    /// The visitor has seen enough.
    Enough,
}

impl From<io::Error> for Failed {
    fn from(e: io::Error) -> Self {
        Self::Unpack(e)
    }
}

/// Is shown what is unpacked.
pub trait Visitor {
    /// A file in an archive, before it is looked into; says whether it is to be.
    ///
    /// # Errors
    /// Ends the walk.
    fn member(&mut self, name: &[u8]) -> Result<bool, Failed>;

    /// Whether a file that begins so is taken as it is, whatever it may be packed as.
    fn takes(&self, head: &[u8]) -> bool;

    /// Takes a file; `name` is the one that it has in an archive, empty outside of any.
    ///
    /// # Errors
    /// Ends the walk.
    fn take(&mut self, name: &[u8], reader: &mut dyn Read) -> Result<(), Failed>;

    /// A link or a device in an archive, which is not looked into.
    ///
    /// # Errors
    /// Ends the walk.
    fn special(&mut self, name: &[u8]) -> Result<(), Failed> {
        let _ = name;
        Ok(())
    }

    /// A file in an archive is encrypted by age and stays so; the others are shown all the same.
    fn sealed(&mut self, why: Sealed) {
        let _ = why;
    }

    /// A tar archive was read to its end; `whole` says whether that was marked as such.
    fn ended(&mut self, whole: bool) {
        let _ = whole;
    }
}

/// Shows a file on disk, and what is packed in it, to a visitor.
///
/// # Errors
/// When it cannot be unpacked, and what the visitor says.
pub fn walk(input: &Input, visitor: &mut dyn Visitor) -> Result<(), Failed> {
    let mut file = input.file();
    file.rewind()?;
    let head = head(&mut file)?;
    file.rewind()?;
    let mut walk = Walk { unlock: input.unlock(), visitor };
    // The only place where a zip archive can be read from its end.
    if packing(&head) == Some(Packing::Zip) {
        return walk.zip(file);
    }
    walk.stream(&mut file, 0, b"")
}

struct Walk<'w> {
    unlock: &'w Unlock,
    visitor: &'w mut dyn Visitor,
}

impl Walk<'_> {
    fn stream(&mut self, reader: &mut dyn Read, depth: usize, name: &[u8]) -> Result<(), Failed> {
        let mut head = Zeroizing::new(Vec::with_capacity(HEAD));
        // What is cut soon has shown something all the same.
        let broken = Broken((&mut *reader).take(HEAD as u64).read_to_end(&mut head).err());
        let takes = self.visitor.takes(&head);
        let packed = packing(&head).filter(|_| depth < DEEPEST);
        let mut reader = head.as_slice().chain(broken).chain(reader);
        if takes {
            return self.visitor.take(name, &mut reader);
        }
        let Some(packed) = packed else {
            let (first, _) = reader.into_inner();
            return first.into_inner().1.0.map_or(Ok(()), |e| Err(e.into()));
        };
        match packed {
            Packing::Gzip => {
                self.stream(&mut flate2::read::MultiGzDecoder::new(reader), depth + 1, name)
            }
            Packing::Zlib => {
                self.stream(&mut flate2::read::ZlibDecoder::new(reader), depth + 1, name)
            }
            Packing::Lzw => self.stream(&mut lzw::Unpacked::new(reader), depth + 1, name),
            Packing::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(reader)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                self.stream(&mut decoder, depth + 1, name)
            }
            Packing::Xz => {
                use liblzma::stream::{CONCATENATED, Stream};
                let decoder = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED);
                let decoder = decoder.map_err(io::Error::from)?;
                let mut decoder = liblzma::read::XzDecoder::new_stream(reader, decoder);
                self.stream(&mut decoder, depth + 1, name)
            }
            Packing::Tar => self.tar(&mut reader, depth + 1),
            // Inside of another packing, it has to be put down first.
            Packing::Zip => self.zip(&spool(&mut reader)?),
            Packing::Age => match self.unlock.open(&head, reader) {
                Ok(mut opened) => self.stream(&mut opened, depth + 1, name),
                Err(why) if name.is_empty() => Err(Failed::Sealed(why)),
                Err(why) => {
                    self.visitor.sealed(why);
                    Ok(())
                }
            },
        }
    }

    fn tar(&mut self, reader: &mut dyn Read, depth: usize) -> Result<(), Failed> {
        let mut reader = Ending { reader, zeros: 0 };
        for member in tar::Archive::new(&mut reader).entries()?.take(MOST_MEMBERS) {
            let mut member = member?;
            let kind = member.header().entry_type();
            if !(kind.is_file() || kind.is_gnu_sparse()) {
                if !(kind.is_dir() || kind.is_pax_global_extensions()) {
                    self.visitor.special(&member.path_bytes())?;
                }
                continue;
            }
            let name = member.path_bytes().into_owned();
            if self.visitor.member(&name)? {
                self.stream(&mut member, depth, &name)?;
            }
        }
        // What packs the archive has a checksum at its end.
        io::copy(&mut (&mut reader).take(LARGEST), &mut io::sink())?;
        self.visitor.ended(reader.is_marked());
        Ok(())
    }

    fn zip(&mut self, file: &File) -> Result<(), Failed> {
        let mut archive = zip::ZipArchive::new(file).map_err(io::Error::from)?;
        for index in 0..archive.len().min(MOST_MEMBERS) {
            let mut member = archive.by_index(index).map_err(io::Error::from)?;
            if !member.is_file() {
                if !member.is_dir() {
                    self.visitor.special(member.name_raw())?;
                }
                continue;
            }
            let name = member.name_raw().to_vec();
            // Two levels, compressed and encrypted: no more is anybody's snapshot.
            if self.visitor.member(&name)? {
                self.stream(&mut member, DEEPEST - 2, &name)?;
            }
        }
        Ok(())
    }
}

/// Fails as what was read fails, if it does.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.as_ref().map_or(Ok(0), |e| Err(io::Error::new(e.kind(), e.to_string())))
    }
}

/// Sees whether a tar archive ends as one: with two blocks of zeros (POSIX.1-2017 `pax`, ustar
/// Interchange Format). One that is cut between two members reads well otherwise.
struct Ending<R> {
    reader: R,
    /// Zeros that were read last.
    zeros: u64,
}

impl<R> Ending<R> {
    fn is_marked(&self) -> bool {
        self.zeros >= 1024
    }
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        let read = &buffer[..n];
        match read.iter().rposition(|b| *b != 0) {
            Some(last) => self.zeros = (n - 1 - last) as u64,
            None => self.zeros += n as u64,
        }
        Ok(n)
    }
}

/// The first bytes of a stream.
pub(super) fn head(reader: &mut dyn Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // It may be the whole of a Secret.
    let mut head = Zeroizing::new(Vec::with_capacity(HEAD));
    reader.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Puts a stream into a nameless temporary file (mode 0600), without writing what is zero.
pub(super) fn spool(reader: &mut dyn Read) -> Result<File, Failed> {
    let mut file = tempfile::tempfile().map_err(Failed::Room)?;
    let mut chunk = Zeroizing::new(vec![0; CHUNK]);
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

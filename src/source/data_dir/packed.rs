//! A data directory in an archive, compressed and encrypted or not.
//!
//! Each file of it is put into a nameless temporary file: nothing gets a name that stands in the
//! archive, and nothing is left however the program ends.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::files::{Leftover, describe};
use crate::agefile::Sealed;
use crate::source::file::Bytes;
use crate::source::input::Input;
use crate::source::map::Mapped;
use crate::source::walk::{Failed, LARGEST, Visitor, spool, walk};
use crate::source::{DataDirError, FileError, SourceError};
use crate::visible::shortened;
use crate::wal::parse_name;

/// Most files of a data directory; etcd keeps five segments and as many raft snapshots.
const MOST_FILES: usize = 4096;
/// Characters of a member's name that are shown.
const SHOWN: usize = 300;

/// What a data directory is made of.
pub(super) struct Parts {
    /// Where its `member` directory would be.
    pub member: PathBuf,
    pub db: Bytes,
    /// In order.
    pub segments: Vec<(String, Bytes)>,
    pub leftovers: Vec<Leftover>,
}

/// The one data directory that is packed in a file.
///
/// # Errors
/// When there is none or there are several, when a part is missing or no file, when it cannot be
/// unpacked, or when there is no room.
pub(super) fn unpack(input: &Input, path: &Path, salvage: bool) -> Result<Parts, SourceError> {
    let mut unpacker = Unpacker::default();
    walk(input, &mut unpacker).map_err(|failed| failed.of(path))?;
    let Unpacker { found, sealed, .. } = unpacker;
    let path_of = || path.to_owned();
    let mut whole = found.into_iter().filter(|(_, parts)| parts.is_member());
    let Some((base, parts)) = whole.next() else {
        return Err(match sealed {
            Some(why) => FileError::Sealed { path: path_of(), why }.into(),
            None => DataDirError::NotEtcd { path: path_of() }.into(),
        });
    };
    let others = whole.count();
    if others > 0 {
        return Err(DataDirError::Several { path: path_of(), found: others + 1 }.into());
    }
    let member = path.join(base);
    let db_path = member.join("snap/db");
    let wal = member.join("wal");
    let Some(db) = parts.db else {
        return Err(DataDirError::NoDatabase { path: path_of(), db: db_path }.into());
    };
    if parts.segments.is_empty() && !salvage {
        return Err(DataDirError::EmptyLog { path: path_of(), wal, db: path_of() }.into());
    }
    let leftover = |(name, what, bytes): (String, &'static str, Option<Bytes>)| Leftover {
        path: member.join(name),
        what,
        size: bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
        bytes,
    };
    Ok(Parts {
        db,
        segments: parts.segments.into_iter().collect(),
        leftovers: parts.leftovers.into_iter().map(leftover).collect(),
        member,
    })
}

/// Files of one `member` directory.
#[derive(Default)]
struct Files {
    db: Option<Bytes>,
    /// By name, and so in order.
    segments: BTreeMap<String, Bytes>,
    leftovers: Vec<(String, &'static str, Option<Bytes>)>,
}

impl Files {
    fn is_member(&self) -> bool {
        self.db.is_some() || !self.segments.is_empty()
    }
}

/// What a member of an archive is to a data directory.
struct Part {
    /// The directory that has `snap` and `wal`.
    base: String,
    /// `snap` or `wal`.
    of: &'static str,
    /// Below that.
    name: String,
}

/// By its name; none for what belongs to no data directory.
fn part(member: &[u8]) -> Option<Part> {
    let text = std::str::from_utf8(member).ok()?;
    let names: Vec<&str> = text.split('/').filter(|n| !matches!(*n, "" | ".")).collect();
    let of = |name: &str| ["snap", "wal"].into_iter().find(|of| *of == name);
    let at = |i: &usize| of(names[*i]).is_some();
    let below_member = |i: &usize| at(i) && *i > 0 && names[*i - 1] == "member";
    let places = 0..names.len().checked_sub(1)?;
    let place = places.clone().find(below_member).or_else(|| places.clone().find(at))?;
    let part = Part {
        base: names[..place].join("/"),
        of: of(names[place])?,
        name: names[place + 1..].join("/"),
    };
    // Beside etcd's own files, nothing tells that a directory of this name is etcd's.
    (below_member(&place) || part.is_db() || part.is_segment()).then_some(part)
}

impl Part {
    fn is_db(&self) -> bool {
        self.of == "snap" && self.name == "db"
    }

    fn is_segment(&self) -> bool {
        self.of == "wal" && parse_name(&self.name).is_some()
    }
}

#[derive(Default)]
struct Unpacker {
    /// By the path of their `member` directory.
    found: BTreeMap<String, Files>,
    /// What the member is.
    current: Option<Part>,
    files: usize,
    bytes: u64,
    /// Why a file stays encrypted.
    sealed: Option<Sealed>,
}

fn refused(name: &[u8], what: &'static str) -> Failed {
    Failed::Member(shortened(&String::from_utf8_lossy(name), SHOWN), what)
}

impl Visitor for Unpacker {
    fn member(&mut self, name: &[u8]) -> Result<bool, Failed> {
        self.current = part(name);
        if self.current.is_some() && name.split(|b| *b == b'/').any(|n| n == b"..") {
            return Err(refused(name, "leads out of the archive"));
        }
        Ok(true)
    }

    fn special(&mut self, name: &[u8]) -> Result<(), Failed> {
        match part(name) {
            Some(_) => Err(refused(name, "is a link or a device, not a file")),
            None => Ok(()),
        }
    }

    fn takes(&self, _head: &[u8]) -> bool {
        self.current.is_some()
    }

    fn take(&mut self, _name: &[u8], reader: &mut dyn Read) -> Result<(), Failed> {
        let Some(part) = self.current.take() else { return Ok(()) };
        self.files += 1;
        if self.files > MOST_FILES {
            return Err(Failed::Bomb);
        }
        let left = LARGEST - self.bytes;
        let file = spool(&mut reader.take(left + 1))?;
        let len = file.metadata().map_err(Failed::Room)?.len();
        if len > left {
            return Err(Failed::Bomb);
        }
        self.bytes += len;
        // Nothing can be mapped of an empty file.
        let bytes = (len > 0).then(|| Mapped::new(&file)).transpose().map_err(Failed::Room)?;
        let bytes = bytes.map(Bytes::new);
        let files = self.found.entry(part.base.clone()).or_default();
        match bytes {
            // As tar itself does it, what comes last of a name stays.
            Some(bytes) if part.is_db() => files.db = Some(bytes),
            Some(bytes) if part.is_segment() => drop(files.segments.insert(part.name, bytes)),
            bytes => {
                let what = describe(part.of, &part.name).unwrap_or("an empty file");
                files.leftovers.push((format!("{}/{}", part.of, part.name), what, bytes));
            }
        }
        Ok(())
    }

    fn sealed(&mut self, why: Sealed) {
        self.sealed.get_or_insert(why);
    }
}

//! The files of a data directory: which it has, and which lie beside those that etcd uses.

use std::path::{Path, PathBuf};

use crate::source::file::{Bytes, InUse, read};
use crate::source::{DataDirError, FileError, SourceError};
use crate::wal::parse_name;

/// A file that a running or crashed etcd left beside the ones it uses.
#[derive(Clone, Debug)]
pub struct Leftover {
    /// Where it is.
    pub path: PathBuf,
    /// What it is, in words.
    pub what: &'static str,
    /// Its size, bytes.
    pub size: u64,
    /// Where it was packed, or its file has no name.
    pub(super) bytes: Option<Bytes>,
}

impl Leftover {
    /// Its bytes.
    ///
    /// # Errors
    /// When it cannot be read, or is no regular file or empty.
    pub fn read(&self) -> Result<Bytes, SourceError> {
        match &self.bytes {
            Some(bytes) => Ok(bytes.clone()),
            None => Ok(read(&self.path, InUse::Allow)?),
        }
    }
}

pub(super) fn member_dir(dir: &Path) -> Result<PathBuf, SourceError> {
    let metadata = std::fs::metadata(dir).map_err(|e| unreadable(dir, e))?;
    if !metadata.is_dir() {
        return Err(DataDirError::File { path: dir.to_owned() }.into());
    }
    for candidate in [dir.join("member"), dir.to_owned()] {
        if candidate.join("snap").is_dir() || candidate.join("wal").is_dir() {
            return Ok(candidate);
        }
        // Without the right to look inside, "nothing there" would be a guess.
        if let Err(e) = std::fs::read_dir(&candidate)
            && e.kind() == std::io::ErrorKind::PermissionDenied
        {
            return Err(unreadable(&candidate, e));
        }
    }
    Err(DataDirError::NotEtcd { path: dir.to_owned() }.into())
}

fn unreadable(path: &Path, cause: std::io::Error) -> SourceError {
    FileError::Unreadable { path: path.to_owned(), cause }.into()
}

pub(super) fn open_segments(
    dir: &Path,
    wal: &Path,
    db: &Path,
) -> Result<Vec<(String, Bytes)>, SourceError> {
    let (path, wal_path, db) = (dir.to_owned(), wal.to_owned(), db.to_owned());
    if !wal.is_dir() {
        return Err(DataDirError::NoLog { path, wal: wal_path, db }.into());
    }
    let cannot = |e| unreadable(wal, e);
    let mut names = Vec::new();
    for file in std::fs::read_dir(wal).map_err(cannot)? {
        let name = file.map_err(cannot)?.file_name();
        names.extend(name.to_str().filter(|n| parse_name(n).is_some()).map(str::to_owned));
    }
    names.sort_unstable();
    if names.is_empty() {
        return Err(DataDirError::EmptyLog { path, wal: wal_path, db }.into());
    }
    names
        .into_iter()
        .map(|name| {
            // Logs carry other locks than databases; the database's says whether etcd runs.
            let bytes = read(&wal.join(&name), InUse::Allow)?;
            Ok((name, bytes))
        })
        .collect()
}

/// Files in a `member` directory that etcd does not read, or only in passing, but that can hold
/// entries: `db.tmp.*`, `*.snap.db`, `*.snap`, `*.broken`, `*.tmp`.
///
/// # Errors
/// When a directory cannot be listed.
pub fn leftovers(member: &Path) -> std::io::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for part in ["snap", "wal"] {
        let dir = member.join(part);
        if dir.is_dir() {
            collect(&dir, part, None, &mut found)?;
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn collect(
    dir: &Path,
    part: &str,
    inherited: Option<&'static str>,
    found: &mut Vec<Leftover>,
) -> std::io::Result<()> {
    for file in std::fs::read_dir(dir)? {
        let file = file?;
        let path = file.path();
        let name = file.file_name();
        let name = name.to_string_lossy();
        let what = inherited.or_else(|| describe(part, &name));
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            // `wal.tmp` and `wal.broken.<time>` hold whole logs.
            if inherited.is_none() {
                collect(
                    &path,
                    part,
                    Some(what.unwrap_or("a directory that is not etcd's")),
                    found,
                )?;
            }
        } else if let Some(what) = what {
            found.push(Leftover { path, what, size: metadata.len(), bytes: None });
        }
    }
    Ok(())
}

/// What a file beside the used ones is; `None` for those in use.
pub(super) fn describe(part: &str, name: &str) -> Option<&'static str> {
    let ends = |suffix| name.ends_with(suffix);
    match part {
        "snap" if name == "db" => None,
        "snap" if name.starts_with("db.tmp") => Some("an unfinished defragmentation"),
        "snap" if ends(".snap.db") => Some("a database received from a leader"),
        "snap" if ends(".snap") => Some("a raft snapshot"),
        "wal" if parse_name(name).is_some() => None,
        "wal" if ends(".tmp") => Some("a preallocated segment"),
        _ if ends(".broken") => Some("set aside by a repair"),
        _ if name.starts_with("tmp") => Some("a partial file"),
        _ => Some("a file that is not etcd's"),
    }
}

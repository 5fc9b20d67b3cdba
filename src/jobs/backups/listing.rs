//! What lies below the locations, and what tells one file from another at the same place.

use std::fmt::Write as _;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::{Error, Options};

/// Deepest directory that is looked into, so that a loop of links ends.
const DEEPEST: usize = 32;
/// What SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A file or data directory that may be a backup.
pub(super) struct Listed {
    /// Where it is.
    pub path: PathBuf,
    /// Elsewhere.
    #[cfg(feature = "remote")]
    pub object: Option<crate::remote::Object>,
}

impl Listed {
    fn here(path: PathBuf) -> Self {
        Self {
            path,
            #[cfg(feature = "remote")]
            object: None,
        }
    }

    /// On this machine.
    #[cfg(feature = "remote")]
    pub fn is_here(&self) -> bool {
        self.object.is_none()
    }

    /// On this machine.
    #[cfg(not(feature = "remote"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub fn is_here(&self) -> bool {
        true
    }

    /// What changes when it does: sizes, times and inodes, or what a store says of an object.
    /// `None` where that cannot be told, or the path is no text.
    pub fn identity(&self) -> Option<String> {
        self.path.to_str()?;
        #[cfg(feature = "remote")]
        if let Some(object) = &self.object {
            let known = object.size > 0 && object.modified > 0;
            let tag = object.tag.as_deref().unwrap_or_default();
            return known.then(|| format!("{} {} {tag}", object.size, object.modified));
        }
        let mut all = String::new();
        describe(&self.path, 0, &mut all).ok()?;
        for end in BESIDE {
            let mut beside = self.path.clone().into_os_string();
            beside.push(end);
            if let Ok(metadata) = std::fs::symlink_metadata(&beside) {
                line(end, &metadata, &mut all);
            }
        }
        Some(crate::hex::hex(&Sha256::digest(all.as_bytes())))
    }
}

/// Everything that lies below the locations, each once: on this machine, then elsewhere, both in
/// the order of their names.
///
/// # Errors
/// When a location cannot be listed.
pub(super) fn list(options: &Options<'_>) -> Result<Vec<Listed>, Error> {
    let mut found = Vec::new();
    for location in &options.locations {
        find(location, 0, &mut found)
            .map_err(|cause| Error::List { path: location.clone(), cause })?;
    }
    found.sort();
    found.dedup();
    #[cfg_attr(not(feature = "remote"), expect(unused_mut, reason = "nothing is elsewhere"))]
    let mut listed: Vec<_> = found.into_iter().map(Listed::here).collect();
    #[cfg(feature = "remote")]
    listed.extend(elsewhere(options)?.into_iter().map(|object| Listed {
        path: PathBuf::from(object.address.shown()),
        object: Some(object),
    }));
    Ok(listed)
}

#[cfg(feature = "remote")]
fn elsewhere(
    options: &Options<'_>,
) -> Result<Vec<crate::remote::Object>, crate::remote::RemoteError> {
    let mut all = Vec::new();
    let Some((remote, addresses)) = &options.elsewhere else { return Ok(all) };
    for address in addresses {
        all.extend(remote.list(address)?);
    }
    all.sort_by(|a, b| a.address.cmp(&b.address));
    all.dedup_by(|a, b| a.address == b.address);
    Ok(all)
}

/// Files and data directories below `path`.
fn find(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !std::fs::metadata(path)?.is_dir() || path.join("member/snap/db").is_file() {
        found.push(path.to_owned());
        return Ok(());
    }
    if depth >= DEEPEST {
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let name = path.to_string_lossy();
        // SQLite's own files beside a database are part of it.
        let of_database = BESIDE.iter().any(|end| {
            name.strip_suffix(end).is_some_and(|database| Path::new(database).is_file())
        });
        // What is neither file nor directory, and links that lead nowhere, are no backups.
        if !of_database && std::fs::metadata(&path).is_ok_and(|m| m.is_file() || m.is_dir()) {
            find(&path, depth + 1, found)?;
        }
    }
    Ok(())
}

/// What the system says of a file, or of everything below a directory.
fn describe(path: &Path, depth: usize, all: &mut String) -> std::io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    line(&path.to_string_lossy(), &metadata, all);
    if metadata.is_dir() && depth < DEEPEST {
        let mut below: Vec<_> =
            std::fs::read_dir(path)?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
        below.sort();
        for path in below {
            describe(&path, depth + 1, all)?;
        }
    }
    Ok(())
}

fn line(name: &str, m: &Metadata, all: &mut String) {
    let (written, changed) = ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
    // Writing into a text does not fail.
    let _ = writeln!(all, "{name:?} {} {} {} {written:?} {changed:?}", m.len(), m.dev(), m.ino());
}

/// When it was last written.
pub(super) fn modified(path: &Path) -> Option<jiff::Timestamp> {
    let since = std::fs::metadata(path).ok()?.modified().ok()?;
    let since = since.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    jiff::Timestamp::from_second(i64::try_from(since.as_secs()).ok()?).ok()
}

//! Decrypted objects → manifests on disk.
//!
//! Directories are 0700 and files 0600 from the moment they exist. No symlink is followed below
//! the chosen directory, nothing is overwritten unless asked, and each file appears whole or not
//! at all.

mod names;
mod prepare;

pub use names::{file_name, top};
pub(crate) use prepare::LAST_APPLIED;
pub use prepare::clean;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, Mode, OFlags, linkat, mkdirat, openat, renameat, renameat_with, unlinkat,
};

/// Why an object could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file exists and overwriting was not asked for.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// A path component is a symbolic link or not a directory.
    #[error("{0} is a symbolic link or not a directory; it is not followed")]
    NotADirectory(PathBuf),
    /// Anything else the system said.
    #[error("cannot write {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A directory tree that objects are written into.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
    force: bool,
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

const FILE: Mode = Mode::RUSR.union(Mode::WUSR);

fn failed(e: rustix::io::Errno, path: &Path) -> ExportError {
    match e {
        rustix::io::Errno::EXIST => ExportError::Exists(path.to_owned()),
        e => ExportError::Io { path: path.to_owned(), source: e.into() },
    }
}

impl Tree {
    /// Opens `path`, making it and missing parents with mode 0700. With `force`, existing files
    /// are replaced.
    ///
    /// # Errors
    /// When `path` is a symlink or no directory, or cannot be made.
    pub fn open(path: &Path, force: bool) -> Result<Self, ExportError> {
        use std::os::unix::fs::DirBuilderExt;
        let io_error = |source| ExportError::Io { path: path.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| {
            if path.is_symlink() || path.exists() {
                ExportError::NotADirectory(path.to_owned())
            } else {
                io_error(e)
            }
        })?;
        let root = rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(|e| {
            if matches!(e, rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) {
                ExportError::NotADirectory(path.to_owned())
            } else {
                io_error(e.into())
            }
        })?;
        Ok(Self { root, path: path.to_owned(), force })
    }

    /// Whether others than the owner can look into the directory.
    #[must_use]
    pub fn is_open_to_others(&self) -> bool {
        rustix::fs::fstat(&self.root).is_ok_and(|s| s.st_mode & 0o077 != 0)
    }

    /// What whoever writes into the directory must know: whether others can look into it, and
    /// whether it is somebody else's, who can replace what is written.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let owner = rustix::fs::fstat(&self.root).map_or(0, |s| s.st_uid);
        if owner != rustix::process::geteuid().as_raw() && owner != 0 {
            remarks.push(format!(
                "the output directory belongs to another user (uid {owner}), who can replace what is written there: choose one of your own"
            ));
        }
        if self.is_open_to_others() {
            let open =
                "others can look into the output directory; the files themselves are private";
            remarks.push(open.to_owned());
        }
        remarks
    }

    /// Writes `content` to `directories…/file`, to stay after [`Tree::sync`]; each part is made safe by [`file_name`].
    /// Returns the path of the file.
    ///
    /// # Errors
    /// See [`ExportError`]; then no part of the file is left behind.
    pub fn write(
        &self,
        directories: &[impl AsRef<[u8]>],
        name: impl AsRef<[u8]>,
        extension: &str,
        content: &[u8],
    ) -> Result<PathBuf, ExportError> {
        let mut path = self.path.clone();
        let mut below: Option<OwnedFd> = None;
        for directory in directories {
            let part = file_name(directory, "");
            path.push(&part);
            let parent = below.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            match mkdirat(parent, &part, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(ExportError::Io { path, source: e.into() }),
            }
            match openat(parent, &part, DIRECTORY, Mode::empty()) {
                Ok(fd) => below = Some(fd),
                Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
                    return Err(ExportError::NotADirectory(path));
                }
                Err(e) => return Err(ExportError::Io { path, source: e.into() }),
            }
        }
        let file = file_name(name, extension);
        path.push(&file);
        let directory = below.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
        self.place(directory, &file, content, FILE).map_err(|e| failed(e, &path))?;
        Ok(path)
    }

    /// Writes a script that its owner can run to the top of the tree, as [`Tree::write`] does.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub fn write_script(&self, name: &str, content: &[u8]) -> Result<PathBuf, ExportError> {
        let path = self.path.join(name);
        self.place(self.root.as_fd(), name, content, Mode::RWXU).map_err(|e| failed(e, &path))?;
        Ok(path)
    }

    /// Waits until everything that was written is on the disk, names and all: once, because for
    /// each file it takes far longer than writing it.
    ///
    /// # Errors
    /// When the system could not write it.
    pub fn sync(&self) -> Result<(), ExportError> {
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(&self.root)
            .map_err(|e| ExportError::Io { path: self.path.clone(), source: e.into() })?;
        #[cfg(not(target_os = "linux"))]
        rustix::fs::sync();
        Ok(())
    }

    /// Writes a file that has no name, then gives it its name in one step: a hard link fails where
    /// the name is taken. `None` where the system has no such files.
    #[cfg(target_os = "linux")]
    fn place_unnamed(
        &self,
        directory: rustix::fd::BorrowedFd<'_>,
        file: &str,
        content: &[u8],
        mode: Mode,
    ) -> Option<Result<(), rustix::io::Errno>> {
        use rustix::fd::AsRawFd as _;
        use rustix::io::Errno;
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = openat(directory, ".", flags, mode).ok()?;
        let from = format!("/proc/self/fd/{}", fd.as_raw_fd());
        std::fs::metadata(&from).ok()?;
        let mut handle = std::fs::File::from(fd);
        if let Err(e) = handle.write_all(content) {
            return Some(Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)));
        }
        let follow = AtFlags::SYMLINK_FOLLOW;
        Some(match linkat(rustix::fs::CWD, &from, directory, file, follow) {
            Err(Errno::EXIST) if self.force => {
                // What it replaces is not lost before it is there.
                let synced = handle.sync_data();
                synced.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO)).and_then(|()| {
                    let whole = format!(".atrest-{}.tmp", std::process::id());
                    // Left by a killed run whose process id came round again.
                    let _ = unlinkat(directory, &whole, AtFlags::empty());
                    linkat(rustix::fs::CWD, &from, directory, &whole, follow)?;
                    renameat(directory, &whole, directory, file)
                })
            }
            done => done,
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn place_unnamed(
        &self,
        _: rustix::fd::BorrowedFd<'_>,
        _: &str,
        _: &[u8],
        _: Mode,
    ) -> Option<Result<(), rustix::io::Errno>> {
        None
    }

    /// As [`Tree::place_unnamed`], or else by way of a temporary file beside the target, which a
    /// rename gives its name.
    fn place(
        &self,
        directory: rustix::fd::BorrowedFd<'_>,
        file: &str,
        content: &[u8],
        mode: Mode,
    ) -> Result<(), rustix::io::Errno> {
        if let Some(placed) = self.place_unnamed(directory, file, content, mode) {
            return placed;
        }
        let temporary = format!(".atrest-{}.tmp", std::process::id());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(directory, &temporary, flags, mode);
        let fd = match open() {
            // Left by a killed run whose process id came round again.
            Err(rustix::io::Errno::EXIST) => {
                unlinkat(directory, &temporary, AtFlags::empty())?;
                open()?
            }
            other => other?,
        };
        let mut handle = std::fs::File::from(fd);
        let errno =
            |e: io::Error| rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO);
        let placed = handle.write_all(content).map_err(errno).and_then(|()| {
            if self.force {
                // What it replaces is not lost before it is there.
                handle.sync_data().map_err(errno)?;
                renameat(directory, &temporary, directory, file)
            } else {
                match linkat(directory, &temporary, directory, file, AtFlags::empty()) {
                    // File systems without hard links.
                    Err(rustix::io::Errno::PERM | rustix::io::Errno::OPNOTSUPP) => {
                        let keep = rustix::fs::RenameFlags::NOREPLACE;
                        renameat_with(directory, &temporary, directory, file, keep)
                    }
                    other => other,
                }
            }
        });
        // After a rename there is nothing left to remove; a link keeps the content.
        match unlinkat(directory, &temporary, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => placed,
            Err(e) => placed.and(Err(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_are_private_whole_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("out");
        let tree = Tree::open(&root, false).unwrap();
        assert!(!tree.is_open_to_others());
        let path = tree.write(&["core", "secrets", "ns"], "a", ".yaml", b"one").unwrap();
        assert_eq!(path, root.join("core/secrets/ns/a.yaml"));
        assert_eq!((mode(&root), mode(path.parent().unwrap()), mode(&path)), (0o700, 0o700, 0o600));
        assert!(matches!(
            tree.write(&["core", "secrets", "ns"], "a", ".yaml", b"two"),
            Err(ExportError::Exists(_))
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        Tree::open(&root, true)
            .unwrap()
            .write(&["core", "secrets", "ns"], "a", ".yaml", b"two")
            .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file is left");
    }

    #[test]
    fn symlinks_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        let root = dir.path().join("out");
        let tree = Tree::open(&root, true).unwrap();
        std::os::unix::fs::symlink(&elsewhere, root.join("ns")).unwrap();
        assert!(matches!(
            tree.write(&["ns"], "a", ".yaml", b"x"),
            Err(ExportError::NotADirectory(_))
        ));
        let target = elsewhere.join("victim");
        std::fs::write(&target, b"old").unwrap();
        std::os::unix::fs::symlink(&target, root.join("b.yaml")).unwrap();
        tree.write(&[""; 0], "b", ".yaml", b"new").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"old", "the link is replaced, not followed");
        std::os::unix::fs::symlink(&elsewhere, dir.path().join("link")).unwrap();
        assert!(matches!(
            Tree::open(&dir.path().join("link"), false),
            Err(ExportError::NotADirectory(_))
        ));
    }

    #[test]
    fn names_stay_inside_and_apart() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path(), false).unwrap();
        for name in ["..", ".", "../x", "A", "a", "a:b", "con/../../etc", "", "é"] {
            let path = tree.write(&["ns"], name, ".yaml", b"x").unwrap();
            assert_eq!(path.parent().unwrap(), dir.path().join("ns"), "{name}");
        }
        assert_eq!(std::fs::read_dir(dir.path().join("ns")).unwrap().count(), 9);
    }
}

//! Files that hold plaintext or keys only while the program runs, however it ends.
//!
//! An [`Unplaced`] file has no name until it is whole, so nothing can be left of it. What needs a
//! name meanwhile is noted, and goes also when a signal ends the program that can be caught.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static PATHS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn paths() -> MutexGuard<'static, Vec<PathBuf>> {
    PATHS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path that [`remove_all`] removes as long as this value lives.
#[derive(Debug)]
pub struct Noted(PathBuf);

impl Drop for Noted {
    fn drop(&mut self) {
        let mut paths = paths();
        if let Some(at) = paths.iter().position(|p| *p == self.0) {
            paths.swap_remove(at);
        }
    }
}

/// Makes a file or directory that removes itself when it is dropped, and notes its path for the
/// case that it never is.
///
/// # Errors
/// When it cannot be made.
pub fn make<T: AsRef<Path>>(make: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Noted)> {
    // Locked, so that none is made without being noted.
    let mut paths = paths();
    let file = make()?;
    let noted = Noted(file.as_ref().to_owned());
    paths.push(noted.0.clone());
    Ok((file, noted))
}

/// Removes what is noted. Nothing can be made after this: the program must end.
pub fn remove_all() {
    let paths = paths();
    for path in paths.iter() {
        // Nobody is left to tell that it failed.
        let _ =
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
    std::mem::forget(paths);
}

/// A file that is written in the file system of the place where it belongs, with mode 0600, and
/// gets its name when it is whole. Until then it has none, where the system can do that
/// (`O_TMPFILE`); elsewhere it has one beside its place, and goes with this value.
#[derive(Debug)]
pub struct Unplaced {
    file: File,
    now: PathBuf,
    to: PathBuf,
    named: Option<(tempfile::TempPath, Noted)>,
}

impl Unplaced {
    /// Makes one that belongs at `path`.
    ///
    /// # Errors
    /// When its directory cannot be written to.
    pub fn beside(path: &Path) -> io::Result<Self> {
        let to = path.to_owned();
        if let Ok(file) = unnamed(directory_of(path)) {
            let now = of_descriptor(&file);
            return Ok(Self { file, now, to, named: None });
        }
        let mut file = None;
        // O_EXCL: nothing that lies there is followed or reused.
        let (temporary, noted) = make(|| {
            let (made, temporary) = beside().tempfile_in(directory_of(path))?.into_parts();
            file = Some(made);
            Ok(temporary)
        })?;
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let now = temporary.to_path_buf();
        Ok(Self { file, now, to, named: Some((temporary, noted)) })
    }

    /// The file.
    pub fn as_file_mut(&mut self) -> &mut File {
        &mut self.file
    }

    /// Where this process can open it now.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.now
    }

    /// Waits until it is on the disk, and gives it its name. A symbolic link there is replaced,
    /// never followed.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is taken, unless `replace`; or when the system fails.
    pub fn place(self, replace: bool) -> io::Result<()> {
        self.file.sync_all()?;
        let (temporary, _noted) = match self.named {
            Some(named) => named,
            None => match link(&self.file, &self.to) {
                // A link replaces nothing; a rename does, and the file is whole.
                Err(e) if replace && e.kind() == io::ErrorKind::AlreadyExists => make(|| {
                    let linked =
                        beside().make_in(directory_of(&self.to), |path| link(&self.file, path))?;
                    Ok(linked.into_temp_path())
                })?,
                done => return done,
            },
        };
        let placed = if replace {
            temporary.persist(&self.to)
        } else {
            temporary.persist_noclobber(&self.to)
        };
        placed.map_err(|e| e.error)
    }
}

/// Writes a file with mode 0600, whole or not at all. A symbolic link at its place is replaced,
/// never followed.
///
/// # Errors
/// `AlreadyExists` where the name is taken, unless `replace`; or when the system fails.
pub fn write(path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    let mut file = Unplaced::beside(path)?;
    file.write_all(bytes)?;
    file.place(replace)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".atrest-").suffix(".tmp");
    builder
}

impl Write for Unplaced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Unplaced {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// A file in a directory's file system that has no name, if one can be given to it later.
#[cfg(target_os = "linux")]
fn unnamed(directory: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(open(directory, flags, Mode::RUSR | Mode::WUSR)?);
    // Without /proc it would have no way to a name.
    std::fs::metadata(of_descriptor(&file))?;
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

fn of_descriptor(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn link(file: &File, target: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    Ok(linkat(CWD, of_descriptor(file), CWD, target, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        let target = dir.path().join("a");
        let made = |target: &Path, content: &[u8]| {
            let mut file = Unplaced::beside(target).unwrap();
            file.write_all(content).unwrap();
            assert_eq!(std::fs::read(file.path()).unwrap(), content);
            file
        };
        let unfinished = made(&target, b"one");
        assert_eq!(names(), usize::from(unfinished.named.is_some()));
        drop(unfinished);
        assert_eq!(names(), 0);
        made(&target, b"two").place(false).unwrap();
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        let taken = made(&target, b"three").place(false).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&target).unwrap(), b"two");
        made(&target, b"four").place(true).unwrap();
        made(&dir.path().join("b"), b"five").place(true).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"four");
        assert_eq!(names(), 2);
    }
}

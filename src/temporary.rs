//! Files that hold plaintext or keys only while the program runs, and go also when a signal ends
//! it.

use std::io;
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

/// A file that is written beside the place where it belongs, with mode 0600, and gets its name
/// when it is whole. Until then it goes with this value.
#[derive(Debug)]
pub struct Unplaced {
    file: tempfile::NamedTempFile,
    to: PathBuf,
    _noted: Noted,
}

impl Unplaced {
    /// Makes one that belongs at `path`.
    ///
    /// # Errors
    /// When its directory cannot be written to.
    pub fn beside(path: &Path) -> io::Result<Self> {
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        // O_EXCL: nothing that lies there is followed or reused.
        let (file, noted) = make(|| {
            tempfile::Builder::new().prefix(".atrest-").suffix(".tmp").tempfile_in(directory)
        })?;
        Ok(Self { file, to: path.to_owned(), _noted: noted })
    }

    /// The file.
    pub fn as_file_mut(&mut self) -> &mut std::fs::File {
        self.file.as_file_mut()
    }

    /// Where it is now.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Waits until it is on the disk, and gives it its name. A symbolic link there is replaced,
    /// never followed.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is taken, unless `replace`; or when the system fails.
    pub fn place(self, replace: bool) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        let placed = if replace {
            self.file.persist(&self.to)
        } else {
            self.file.persist_noclobber(&self.to)
        };
        placed.map(|_| ()).map_err(|e| e.error)
    }
}

impl io::Write for Unplaced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl io::Seek for Unplaced {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
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

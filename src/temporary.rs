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

//! A file that is opened, and what opens what is in it.

use std::fs::File;
use std::path::Path;

use crate::agefile::Unlock;

/// A file, and what opens it where age encrypted it.
#[derive(Debug)]
pub struct Input {
    file: File,
    unlock: Unlock,
}

impl Input {
    /// Opens a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path, unlock: &Unlock) -> std::io::Result<Self> {
        Ok(Self::new(open_file(path)?, unlock))
    }

    /// Of a file that is open already.
    #[must_use]
    pub fn new(file: File, unlock: &Unlock) -> Self {
        Self { file, unlock: unlock.clone() }
    }

    /// The same file.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, unlock: self.unlock.clone() })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn unlock(&self) -> &Unlock {
        &self.unlock
    }
}

impl From<File> for Input {
    fn from(file: File) -> Self {
        Self { file, unlock: Unlock::default() }
    }
}

/// Opens a file for reading without waiting for anybody: opening a pipe waits for its writer.
pub(crate) fn open_file(path: &Path) -> std::io::Result<File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(open(path, flags, Mode::empty())?))
}

//! The one place that maps a file into memory.

use std::fs::File;
use std::io;

/// The bytes of a file, mapped read-only.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a whole file.
    ///
    /// # Errors
    /// What the system says.
    #[allow(unsafe_code)]
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private and read-only, and readers treat the bytes as untrusted
        // at every access, so a file that changes under us yields damage reports, not undefined
        // behaviour in safe code that assumes UTF-8 or valid enums. A file that shrinks under us
        // raises SIGBUS; sources that may (a running member's) are refused before this.
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }
}

impl std::ops::Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

//! The one place that maps a file into memory.

use std::fs::File;
use std::io;
use std::ops::Range;

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

    /// Lets the system take back the memory of some bytes that will not be read soon. They stay
    /// readable. `range` is taken in whole pages of memory, the last one only if it is complete.
    #[allow(unsafe_code)]
    pub fn forget(&self, range: Range<usize>) {
        // No machine's pages are larger.
        const PAGE: usize = 64 << 10;
        let start = range.start / PAGE * PAGE;
        let end = range.end.min(self.0.len()) / PAGE * PAGE;
        if start < end {
            // SAFETY: the mapping is of a file and never written to, so pages that are dropped
            // come back from the file with the same bytes.
            let dropped = unsafe {
                self.0.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    start,
                    end - start,
                )
            };
            // Only memory is lost when the system will not.
            let _ = dropped;
        }
    }
}

impl std::ops::Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

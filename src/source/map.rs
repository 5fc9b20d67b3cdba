//! The one place that maps a file into memory, and so the one that says what happens when the
//! file shrinks meanwhile.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Once;

/// What is said when pages of a mapped file are gone. The program ends inside a signal handler,
/// where nothing else may be called: no value unwinds, no other room is asked.
const SHRUNK: &[u8] = b"error: a file became shorter, or its disk failed, while it was read\n\
    hint: copy it while nobody writes to it, and give the copy\n";

extern "C" fn shrunk(_: libc::c_int) {
    // Nobody is left to tell that it failed.
    let _ = rustix::io::write(rustix::stdio::stderr(), SHRUNK);
    #[allow(unsafe_code)]
    // SAFETY: ends the process at once and runs nothing of it.
    unsafe {
        libc::_exit(1)
    }
}

/// From now on a page that cannot be read ends the program with words instead of SIGBUS.
#[allow(unsafe_code)]
fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let handler: extern "C" fn(libc::c_int) = shrunk;
        // SAFETY: all-zero is a valid `sigaction`: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_ONSTACK;
        // SAFETY: the handler makes two system calls, both safe in a signal handler, and does not
        // return. It stands in for the standard library's, which would end the program as well.
        let installed =
            unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
        // Otherwise the system's own way stays.
        let _ = installed;
    });
}

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
        // raises SIGBUS, which `watch` turns into an error; sources that may (a running member's)
        // are refused before this.
        watch();
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

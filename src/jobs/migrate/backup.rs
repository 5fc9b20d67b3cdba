//! A snapshot of the member, private from the start and under its name only when complete.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Error;
use crate::source::live::Live;
use crate::temporary::Unplaced;

/// Takes bytes until somebody interrupts.
struct Until<'a, W> {
    stop: &'a AtomicBool,
    out: W,
}

impl<W: Write> Write for Until<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Saves it, and returns its size in bytes.
pub(super) fn save(live: &Live, path: &Path, stop: &AtomicBool) -> Result<u64, Error> {
    if path.exists() {
        return Err(Error::Exists(path.to_owned()));
    }
    let cannot = |e: io::Error| Error::Backup(path.to_owned(), e);
    let temporary = Unplaced::beside(path).map_err(cannot)?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary);
    let written = live.backup(&mut Until { stop, out: &mut out });
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    let size = written?;
    let temporary = out.into_inner().map_err(|e| cannot(e.into_error()))?;
    temporary.place(false).map_err(cannot)?;
    Ok(size)
}

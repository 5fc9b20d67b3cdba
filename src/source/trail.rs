//! Keeping little of a large mapped file in memory while two threads read it front to back.

use std::sync::{Condvar, Mutex, PoisonError};

use super::file::Bytes;

/// How far one reader runs ahead of the other before it waits, bytes.
const LEAD: usize = 8 << 20;

/// Bytes that a reader without another gives back at once.
const LENGTH: usize = 4 << 20;

/// How far a reader has come that gives back what lies behind it and waits for nobody.
#[derive(Debug, Default)]
pub(super) struct Pace {
    at: Mutex<usize>,
    moved: Condvar,
}

/// The reader of a [`Pace`]. Whatever becomes of it, in the end nobody waits for it.
pub(super) struct Runner<'p>(&'p Pace);

impl Pace {
    pub(super) fn runner(&self) -> Runner<'_> {
        Runner(self)
    }

    fn set(&self, at: usize) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = at;
        self.moved.notify_all();
    }

    /// Waits until the reader has come to `at`, bytes; returns how far it has come.
    fn reached(&self, at: usize) -> usize {
        let now = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.moved.wait_while(now, |now| *now < at);
        *now.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runner<'_> {
    /// The reader has come to an offset of the file, bytes.
    pub(super) fn at(&self, offset: usize) {
        self.0.set(offset);
    }
}

impl Drop for Runner<'_> {
    fn drop(&mut self) {
        self.0.set(usize::MAX);
    }
}

/// A reader that goes through a file mostly front to back. Beside another, it runs a little
/// ahead: then each part is fetched into memory, and given back, only once.
pub(super) struct Trail<'b> {
    bytes: &'b Bytes,
    other: Option<&'b Pace>,
    from: usize,
}

impl<'b> Trail<'b> {
    pub(super) fn new(bytes: &'b Bytes) -> Self {
        Self { bytes, other: None, from: 0 }
    }

    /// Beside another reader of the same bytes.
    pub(super) fn beside(bytes: &'b Bytes, other: &'b Pace) -> Self {
        Self { bytes, other: Some(other), from: 0 }
    }

    /// The reader has come to an offset of the file, bytes.
    pub(super) fn at(&mut self, offset: usize) {
        if offset < self.from + LENGTH {
            return;
        }
        // What the other has not read yet, it will give back.
        let both =
            self.other.map_or(offset, |o| o.reached(offset.saturating_sub(LEAD)).min(offset));
        if both > self.from {
            self.bytes.forget(self.from..both);
        }
        self.from = offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_reader_that_is_gone() {
        let pace = Pace::default();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| pace.reached(10));
            let runner = pace.runner();
            runner.at(5);
            drop(runner);
            assert_eq!(waits.join().unwrap(), usize::MAX);
        });
        assert_eq!(pace.reached(0), usize::MAX);
    }
}

//! One state of a source, read piece by piece and in any order: by positions where the source is
//! a file, by asking it anew where it is a server.

use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};

use super::file::Bytes;
use super::{Damage, EntrySink, KeyRange, Query, Source, SourceError, SourceInfo, Visit};
use crate::entry::{Entry, EntryRef};
use crate::mvcc::{key_value, record_key};

/// A state that pieces are read of. Its memory grows with the number of keys at most, never with
/// their values.
pub trait Pieces: Send + Sync {
    /// Which source this is.
    fn info(&self) -> SourceInfo;

    /// What opening it had to tell: its revision, damage and notes. `None` where every read is of
    /// the newest state.
    fn opened(&self) -> Option<&Visit>;

    /// Calls `sink` for the entries of `range` in key order, until it breaks. `revision` asks for
    /// the state at that revision, where [`Pieces::opened`] is none.
    ///
    /// # Errors
    /// As [`Source::visit`].
    fn read(
        &self,
        range: &KeyRange,
        revision: Option<i64>,
        sink: &mut EntrySink<'_>,
    ) -> Result<Visit, SourceError>;

    /// How many keys `range` has, where that is known without reading.
    fn count(&self, range: &KeyRange) -> Option<usize>;
}

/// The state of `source` at `revision`, by the best way that it has.
///
/// # Errors
/// As [`Source::visit`].
pub fn of(
    mut source: Box<dyn Source>,
    revision: Option<i64>,
) -> Result<Box<dyn Pieces>, SourceError> {
    if let Some(pieces) = source.pieces(revision)? {
        return Ok(pieces);
    }
    let info = source.info();
    Ok(Box::new(Asked { info, source: Mutex::new(source), revision }))
}

/// A source that is asked for each piece.
struct Asked {
    info: SourceInfo,
    source: Mutex<Box<dyn Source>>,
    revision: Option<i64>,
}

impl Pieces for Asked {
    fn info(&self) -> SourceInfo {
        self.info.clone()
    }

    fn opened(&self) -> Option<&Visit> {
        None
    }

    fn read(
        &self,
        range: &KeyRange,
        revision: Option<i64>,
        sink: &mut EntrySink<'_>,
    ) -> Result<Visit, SourceError> {
        let revision = revision.or(self.revision);
        let query = Query { ranges: vec![range.clone()], revision, ordered: true };
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        source.visit(&query, sink)
    }

    fn count(&self, _range: &KeyRange) -> Option<usize> {
        None
    }
}

/// Where a live entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryPosition {
    /// A record of the database: its offset in the file and its length, bytes.
    Record { offset: u64, len: u32 },
    /// An entry that the file does not have: its index.
    Beside(u32),
}

/// A file and where its live entries lie.
pub(super) struct Positions {
    pub info: SourceInfo,
    pub visit: Visit,
    pub bytes: Bytes,
    /// By key.
    pub places: Vec<EntryPosition>,
    /// Entries that a log adds.
    pub beside: Vec<Entry>,
}

impl Positions {
    /// Where `record`, a part of `bytes`, lies.
    pub fn place(bytes: &[u8], record: &[u8]) -> Option<EntryPosition> {
        let offset = (record.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
        let inside = offset + record.len() <= bytes.len();
        let len = u32::try_from(record.len()).ok().filter(|_| inside)?;
        Some(EntryPosition::Record { offset: offset as u64, len })
    }

    fn record(&self, offset: u64, len: u32) -> &[u8] {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        self.bytes.get(from..from.saturating_add(len as usize)).unwrap_or_default()
    }

    fn key(&self, place: EntryPosition) -> &[u8] {
        match place {
            EntryPosition::Record { offset, len } => {
                record_key(self.record(offset, len)).unwrap_or_default()
            }
            EntryPosition::Beside(index) => {
                self.beside.get(index as usize).map_or(&[][..], |e| e.key.as_slice())
            }
        }
    }

    fn entry(&self, place: EntryPosition) -> Option<EntryRef<'_>> {
        match place {
            EntryPosition::Record { offset, len } => key_value(self.record(offset, len)).ok(),
            EntryPosition::Beside(index) => self.beside.get(index as usize).map(Entry::as_ref),
        }
    }

    fn within(&self, range: &KeyRange) -> Range<usize> {
        let from = self.places.partition_point(|p| self.key(*p) < range.start.as_slice());
        let to = match &range.end {
            Some(end) => self.places.partition_point(|p| self.key(*p) < end.as_slice()),
            None => self.places.len(),
        };
        from..to.max(from)
    }
}

impl Pieces for Positions {
    fn info(&self) -> SourceInfo {
        self.info.clone()
    }

    fn opened(&self) -> Option<&Visit> {
        Some(&self.visit)
    }

    fn read(
        &self,
        range: &KeyRange,
        _revision: Option<i64>,
        sink: &mut EntrySink<'_>,
    ) -> Result<Visit, SourceError> {
        let mut visit = Visit { revision: self.visit.revision, ..Visit::default() };
        for place in &self.places[self.within(range)] {
            match self.entry(*place) {
                Some(entry) if sink(entry) == ControlFlow::Break(()) => break,
                Some(_) => {}
                // It could be decoded when the positions were taken.
                None => visit.damage.push(Damage {
                    location: self.info.location.clone(),
                    what: "a record changed while it was read".to_owned(),
                }),
            }
        }
        Ok(visit)
    }

    fn count(&self, range: &KeyRange) -> Option<usize> {
        Some(self.within(range).len())
    }
}

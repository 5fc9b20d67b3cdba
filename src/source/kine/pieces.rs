//! One state of the database, read piece by piece: the names of its live keys are kept, their
//! values are read when they are asked for.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::rows::{self, Folded};
use super::{Kine, unreadable};
use crate::source::pieces::Pieces;
use crate::source::snapshot::revision as checked_revision;
use crate::source::{EntrySink, KeyRange, Query, Source as _, SourceError, SourceInfo, Visit};

/// The live keys by name, and the database that has their values.
pub(super) struct Rows {
    info: SourceInfo,
    opened: Visit,
    live: Vec<(Box<[u8]>, Folded)>,
    kine: Mutex<Kine>,
}

impl Rows {
    pub fn new(mut kine: Kine, revision: Option<i64>) -> Result<Self, SourceError> {
        let query = Query { ranges: vec![KeyRange::prefix(b"")], revision, ordered: true };
        let mut live = Vec::new();
        let opened = kine.transaction(|path, c, visit| {
            let broken = |e| unreadable(path, e);
            let newest = rows::newest(c).map_err(broken)?;
            let compacted = rows::compacted(c).map_err(broken)?;
            visit.revision = checked_revision(path, &query, newest, compacted)?;
            live = rows::fold(c, &query, &mut visit.damage).map_err(broken)?.into_live(true);
            Ok(())
        })?;
        Ok(Self { info: kine.info(), opened, live, kine: Mutex::new(kine) })
    }

    fn within(&self, range: &KeyRange) -> Range<usize> {
        let from = self.live.partition_point(|(key, _)| **key < *range.start);
        let to = match &range.end {
            Some(end) => self.live.partition_point(|(key, _)| **key < **end),
            None => self.live.len(),
        };
        from..to.max(from)
    }
}

impl Pieces for Rows {
    fn info(&self) -> SourceInfo {
        self.info.clone()
    }

    fn opened(&self) -> Option<&Visit> {
        Some(&self.opened)
    }

    fn read(
        &self,
        range: &KeyRange,
        _revision: Option<i64>,
        sink: &mut EntrySink<'_>,
    ) -> Result<Visit, SourceError> {
        let live = &self.live[self.within(range)];
        let mut kine = self.kine.lock().unwrap_or_else(PoisonError::into_inner);
        // A value that a compaction has removed meanwhile is told as damage.
        kine.transaction(|path, c, visit| {
            visit.revision = self.opened.revision;
            Ok(rows::give(c, live, &mut visit.damage, sink).map_err(|e| unreadable(path, e))?)
        })
    }

    fn count(&self, range: &KeyRange) -> Option<usize> {
        Some(self.within(range).len())
    }
}

//! One state of the database, read piece by piece: the names of its live keys are kept, their
//! values are read when they are asked for.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::database::Database;
use super::table::{Folded, fold};
use crate::source::pieces::Pieces;
use crate::source::snapshot::revision as checked_revision;
use crate::source::{EntrySink, KeyRange, Query, SourceError, SourceInfo, Visit};

/// The live keys by name, and the database that has their values.
pub(super) struct Rows {
    info: SourceInfo,
    opened: Visit,
    live: Vec<(Box<[u8]>, Folded)>,
    database: Mutex<Box<dyn Database>>,
}

impl Rows {
    pub fn new(
        mut database: Box<dyn Database>,
        revision: Option<i64>,
    ) -> Result<Self, SourceError> {
        let query = Query { ranges: vec![KeyRange::prefix(b"")], revision, ordered: true };
        let (info, name) = (database.info(), database.name());
        let mut live = Vec::new();
        let opened = database.transaction(&mut |table, visit| {
            let (newest, compacted) = (table.newest()?, table.compacted()?);
            visit.revision = checked_revision(&name, &query, newest, compacted)?;
            live = fold(table, &query, &mut visit.damage)?.into_live(true);
            Ok(())
        })?;
        Ok(Self { info, opened, live, database: Mutex::new(database) })
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
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        // A value that a compaction has removed meanwhile is told as damage.
        database.transaction(&mut |table, visit| {
            visit.revision = self.opened.revision;
            table.give(live, true, &mut visit.damage, sink)
        })
    }

    fn count(&self, range: &KeyRange) -> Option<usize> {
        Some(self.within(range).len())
    }
}

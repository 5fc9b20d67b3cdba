//! Reads made of kine's table, whatever database keeps it.

use super::database::Database;
use super::table::{State, fold};
use super::{held, pieces, record};
use crate::source::pieces::Pieces;
use crate::source::snapshot::revision;
use crate::source::{
    EntrySink, HeldSink, Query, RecordSink, Source, SourceError, SourceInfo, Visit,
};

impl<D: Database> Source for D {
    fn info(&self) -> SourceInfo {
        Database::info(self)
    }

    fn visit(&mut self, query: &Query, sink: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
        let name = self.name();
        self.transaction(&mut |table, visit| {
            let (newest, compacted) = (table.newest()?, table.compacted()?);
            visit.revision = revision(&name, query, newest, compacted)?;
            let live = fold(table, query, &mut visit.damage)?.into_live(query.ordered);
            table.give(&live, query.ordered, &mut visit.damage, sink)
        })
    }

    fn pieces(&mut self, revision: Option<i64>) -> Result<Option<Box<dyn Pieces>>, SourceError> {
        // A connection of its own: it outlives this one.
        let rows = pieces::Rows::new(Database::again(self)?, revision)?;
        Ok(Some(Box::new(rows)))
    }

    fn history(&mut self, query: &Query, sink: &mut RecordSink<'_>) -> Result<Visit, SourceError> {
        let mut state = State::default();
        Database::rows(self, query, &mut |row| {
            let version = state.apply(&row);
            sink(record(&row, version))
        })
    }

    fn held(&mut self, query: &Query, sink: &mut HeldSink<'_>) -> Result<Visit, SourceError> {
        let name = self.name();
        self.transaction(&mut |table, visit| {
            // Of what was compacted, later rows may still have a copy.
            visit.revision = revision(&name, query, table.newest()?, 0)?;
            held::read(table, query, visit, sink)
        })
    }
}

//! A database that has kine's table, and its transactions.

use std::path::PathBuf;

use super::RowSink;
use super::table::Table;
use crate::source::snapshot::revision;
use crate::source::{Query, SourceError, SourceInfo, SourceKind, Visit};

/// What is done with the table in one transaction.
pub(crate) type Body<'b> = dyn FnMut(&mut dyn Table, &mut Visit) -> Result<(), SourceError> + 'b;

/// A database that has kine's table.
pub(crate) trait Database: Send {
    /// What to call it.
    fn name(&self) -> PathBuf;

    /// Runs `body` in one read transaction, so that all it sees is of one moment.
    fn transaction(&mut self, body: &mut Body<'_>) -> Result<Visit, SourceError>;

    /// Another connection to it.
    fn again(&self) -> Result<Box<dyn Database>, SourceError>;

    /// Which source this is.
    fn info(&self) -> SourceInfo {
        let location = self.name().to_string_lossy().into_owned();
        SourceInfo { kind: SourceKind::Kine, location }
    }

    /// Calls `sink` for every row that is still held of every key in the query's ranges (up to
    /// the queried revision), by ascending revision, kine's own rows left out.
    fn rows(&mut self, query: &Query, sink: &mut RowSink<'_>) -> Result<Visit, SourceError> {
        let name = self.name();
        self.transaction(&mut |table, visit| {
            // Of what was compacted, later rows may still have a copy.
            visit.revision = revision(&name, query, table.newest()?, 0)?;
            table.walk(true, query, &mut visit.damage, sink)
        })
    }
}

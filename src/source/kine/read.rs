//! Reads made of kine's table, whatever database keeps it.

use super::database::Database;
use super::table::{State, fold};
use super::{held, pieces, record};
use crate::source::pieces::Pieces;
use crate::source::snapshot::revision;
use crate::source::{EntrySink, HeldSink, Query, RecordSink, SourceError, Visit};

/// As [`crate::source::Source::visit`].
pub(super) fn visit(
    database: &mut dyn Database,
    query: &Query,
    sink: &mut EntrySink<'_>,
) -> Result<Visit, SourceError> {
    let name = database.name();
    database.transaction(&mut |table, visit| {
        let (newest, compacted) = (table.newest()?, table.compacted()?);
        visit.revision = revision(&name, query, newest, compacted)?;
        let live = fold(table, query, &mut visit.damage)?.into_live(query.ordered);
        table.give(&live, query.ordered, &mut visit.damage, sink)
    })
}

/// As [`crate::source::Source::pieces`].
pub(super) fn pieces(
    database: &dyn Database,
    revision: Option<i64>,
) -> Result<Option<Box<dyn Pieces>>, SourceError> {
    // One of its own: it outlives this one.
    pieces::Rows::new(database.again()?, revision)
        .map(|rows| Some(Box::new(rows) as Box<dyn Pieces>))
}

/// As [`crate::source::Source::history`].
pub(super) fn history(
    database: &mut dyn Database,
    query: &Query,
    sink: &mut RecordSink<'_>,
) -> Result<Visit, SourceError> {
    let mut state = State::default();
    database.rows(query, &mut |row| {
        let version = state.apply(&row);
        sink(record(&row, version))
    })
}

/// As [`crate::source::Source::held`].
pub(super) fn held(
    database: &mut dyn Database,
    query: &Query,
    sink: &mut HeldSink<'_>,
) -> Result<Visit, SourceError> {
    let name = database.name();
    database.transaction(&mut |table, visit| {
        // Of what was compacted, later rows may still have a copy.
        visit.revision = revision(&name, query, table.newest()?, 0)?;
        held::read(table, query, visit, sink)
    })
}

//! Revisions that kine has compacted away, and that the row behind them still has a copy of.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::Connection;

use super::{Row, rows, unreadable};
use crate::entry::EntryRef;
use crate::source::{HeldSink, Holder, KineError, Query, Record, Visit};

/// As [`crate::source::Source::held`].
pub(super) fn read(
    path: &Path,
    c: &Connection,
    query: &Query,
    visit: &mut Visit,
    sink: &mut HeldSink<'_>,
) -> Result<(), KineError> {
    let broken = |e| unreadable(path, e);
    visit.compacted = rows::compacted(c).map_err(broken)?;
    let mut rows_held = HashSet::new();
    // The row that has the copy, by the revision that it is of.
    let mut copies: BTreeMap<i64, i64> = BTreeMap::new();
    rows::outline(c, query, &mut Vec::new(), &mut |row| {
        rows_held.insert(row.id);
        // What a row that creates supersedes is a deletion.
        if !row.created && row.prev_revision > 0 && !rows_held.contains(&row.prev_revision) {
            copies.insert(row.prev_revision, row.id);
        }
        ControlFlow::Continue(())
    })
    .map_err(broken)?;
    let mut state = rows::State::default();
    let mut failed = None;
    rows::read(c, query, &mut visit.damage, &mut |row| {
        while let Some(first) = copies.first_entry().filter(|e| *e.key() < row.id) {
            match copy(c, query, first.remove(), sink) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return ControlFlow::Break(()),
                Err(e) => {
                    failed = Some(e);
                    return ControlFlow::Break(());
                }
            }
        }
        let version = state.apply(&row);
        sink(super::record(&row, version), Holder::KeySpace)
    })
    .map_err(broken)?;
    failed.map_or(Ok(()), |e| Err(broken(e)))
}

fn copy(
    c: &Connection,
    query: &Query,
    id: i64,
    sink: &mut HeldSink<'_>,
) -> rusqlite::Result<ControlFlow<()>> {
    let mut flow = ControlFlow::Continue(());
    // Damage is told when the row itself is read.
    rows::one(c, id, query, &mut |row: Row<'_>| {
        if !row.old_value.0.is_empty() {
            let created = Some(row.create_revision).filter(|r| *r <= row.prev_revision);
            let entry = EntryRef {
                key: row.name,
                value: row.old_value,
                create_revision: created.unwrap_or(0),
                mod_revision: row.prev_revision,
                version: 0,
                lease: 0,
            };
            flow = sink(Record::Put(entry), Holder::KineOldValue);
        }
        ControlFlow::Continue(())
    })?;
    Ok(flow)
}

//! Revisions that kine has compacted away, and that the row behind them still has a copy of.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use super::table::{State, Table};
use crate::entry::{BoundTo, EntryRef};
use crate::source::{HeldSink, Holder, Query, Record, SourceError, Visit};

/// How many rows are asked for at once, where they are not read in their own order. A server's
/// answer is kept until it is whole.
pub(super) const AT_ONCE: usize = 64;

/// As [`crate::source::Source::held`].
pub(super) fn read(
    table: &mut dyn Table,
    query: &Query,
    visit: &mut Visit,
    sink: &mut HeldSink<'_>,
) -> Result<(), SourceError> {
    visit.compacted = table.compacted()?;
    let mut rows_held = HashSet::new();
    // What is told, in order: of each revision, the row that has it, and whether as a copy.
    let mut plan: BTreeMap<i64, (i64, bool)> = BTreeMap::new();
    let mut unnamed = Vec::new();
    table.walk(false, query, &mut unnamed, &mut |row| {
        rows_held.insert(row.id);
        plan.insert(row.id, (row.id, false));
        // What a row that creates supersedes is a deletion.
        if !row.created && row.prev_revision > 0 && !rows_held.contains(&row.prev_revision) {
            plan.insert(row.prev_revision, (row.id, true));
        }
        ControlFlow::Continue(())
    })?;
    let mut state = State::default();
    if plan.values().all(|(_, copy)| !copy) {
        return table.walk(true, query, &mut visit.damage, &mut |row| {
            let version = state.apply(&row);
            sink(super::record(&row, version), Holder::KeySpace)
        });
    }
    drop(rows_held);
    visit.damage.append(&mut unnamed);
    let plan: Vec<_> = plan.into_values().collect();
    for part in plan.chunks(AT_ONCE) {
        let ids: Vec<_> = part.iter().map(|(id, _)| *id).collect();
        let mut next = part.iter().peekable();
        let mut flow = ControlFlow::Continue(());
        let mut unread = Vec::new();
        table.lookup(&ids, query, &mut unread, &mut |row| {
            // A row that is not given leaves its place in the plan behind.
            let copy = next.find(|(id, _)| *id == row.id).is_some_and(|(_, copy)| *copy);
            flow = if copy {
                copied(&row, sink)
            } else {
                let version = state.apply(&row);
                sink(super::record(&row, version), Holder::KeySpace)
            };
            flow
        })?;
        // A row is read twice, and told once.
        unread.retain(|d| !visit.damage.contains(d));
        visit.damage.append(&mut unread);
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

fn copied(row: &super::KineRow<'_>, sink: &mut HeldSink<'_>) -> ControlFlow<()> {
    if row.old_value.0.is_empty() {
        return ControlFlow::Continue(());
    }
    let created = Some(row.create_revision).filter(|r| *r <= row.prev_revision);
    let entry = EntryRef {
        key: row.name,
        value: row.old_value,
        create_revision: created.unwrap_or(0),
        mod_revision: row.prev_revision,
        version: 0,
        lease: 0,
        bound_to: BoundTo::Key,
    };
    sink(Record::Put(entry), Holder::KineOldValue)
}

//! What holds of kine's table whatever database keeps it: which rows are data, and the state they
//! fold into.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::{KineRow, RowSink};
use crate::entry::{BoundTo, EntryRef, Value};
use crate::source::{Damage, EntrySink, Query, SourceError};

/// kine's own row: its `prev_revision` is the revision that was last compacted to
/// (k3s-io/kine `pkg/drivers/generic/generic.go`: `compactRevSQL`).
const COMPACT_KEY: &[u8] = b"compact_rev_key";

/// The columns that every version of kine creates.
pub(super) const COLUMNS: [&str; 9] = [
    "id",
    "name",
    "created",
    "deleted",
    "create_revision",
    "prev_revision",
    "lease",
    "value",
    "old_value",
];

/// kine's table, as one read transaction sees it.
pub(crate) trait Table {
    /// The newest revision: rows of kine itself count too. A compaction up to the newest row
    /// removes it if it is a deletion or fills a gap; the revision stays.
    fn newest(&mut self) -> Result<i64, SourceError>;

    /// The revision of the last compaction, 0 for none.
    fn compacted(&mut self) -> Result<i64, SourceError>;

    /// Calls `sink` for the rows that `query` wants, by ascending revision; without `values` both
    /// values of a row are empty, and are not read.
    fn walk(
        &mut self,
        values: bool,
        query: &Query,
        damage: &mut Vec<Damage>,
        sink: &mut RowSink<'_>,
    ) -> Result<(), SourceError>;

    /// Calls `sink` for the rows with these ids, in the order of `ids`, values included.
    fn lookup(
        &mut self,
        ids: &[i64],
        query: &Query,
        damage: &mut Vec<Damage>,
        sink: &mut RowSink<'_>,
    ) -> Result<(), SourceError>;

    /// Calls `sink` for the live keys, with their values; `ordered` in the order of `live`, else
    /// in any.
    fn give(
        &mut self,
        live: &[(Box<[u8]>, Folded)],
        ordered: bool,
        damage: &mut Vec<Damage>,
        sink: &mut EntrySink<'_>,
    ) -> Result<(), SourceError>;
}

/// The state at the queried revision, values left out.
pub(super) fn fold(
    table: &mut dyn Table,
    query: &Query,
    damage: &mut Vec<Damage>,
) -> Result<State, SourceError> {
    let mut state = State::default();
    table.walk(false, query, damage, &mut |row| {
        state.apply(&row);
        ControlFlow::Continue(())
    })?;
    Ok(state)
}

/// Rows that are no data: the mark of the last compaction, and the fillers of revisions that were
/// never used (k3s-io/kine `pkg/logstructured/sqllog/sql.go`: `gap-<revision>`).
pub(super) fn is_own(name: &[u8], id: i64, deleted: bool) -> bool {
    let filler = || name.strip_prefix(b"gap-").is_some_and(|n| n == id.to_string().as_bytes());
    name == COMPACT_KEY || (deleted && filler())
}

/// The revision that created a row's key: kine writes 0 on rows that create.
pub(super) fn created_at(id: i64, created: bool, written: i64) -> i64 {
    if created { id } else { written }
}

/// A row that no key can be told of.
pub(super) fn nameless(id: i64) -> Damage {
    Damage { location: format!("row {id}"), what: "it has no name".into() }
}

/// Keys that exist, without their values.
#[derive(Debug, Default)]
pub(super) struct State(HashMap<Box<[u8]>, Folded>);

/// What is known of a live key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Folded {
    /// The row that has its value.
    pub(super) id: i64,
    create_revision: i64,
    lease: i64,
    version: i64,
}

impl Folded {
    /// As an entry.
    pub(super) fn entry<'a>(&self, key: &'a [u8], value: Value<'a>) -> EntryRef<'a> {
        EntryRef {
            key,
            value,
            create_revision: self.create_revision,
            mod_revision: self.id,
            version: self.version,
            lease: self.lease,
            bound_to: BoundTo::Key,
        }
    }
}

impl State {
    /// Applies the next row. Returns the number of puts since the key was created, 0 for a
    /// deletion and when the row that created it is compacted away.
    pub(super) fn apply(&mut self, row: &KineRow<'_>) -> i64 {
        if row.deleted {
            self.0.remove(row.name);
            return 0;
        }
        let known = self.0.get(row.name).map_or(0, |before| before.version);
        let version = match (row.created, known) {
            (true, _) => 1,
            (false, 0) => 0,
            (false, n) => n + 1,
        };
        let folded =
            Folded { id: row.id, create_revision: row.create_revision, lease: row.lease, version };
        match self.0.get_mut(row.name) {
            Some(place) => *place = folded,
            None => {
                self.0.insert(row.name.into(), folded);
            }
        }
        version
    }

    /// The keys: by name, or in the order in which their rows lie.
    pub(super) fn into_live(self, by_name: bool) -> Vec<(Box<[u8]>, Folded)> {
        let mut live: Vec<_> = self.0.into_iter().collect();
        if by_name {
            live.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        } else {
            live.sort_unstable_by_key(|(_, folded)| folded.id);
        }
        live
    }
}

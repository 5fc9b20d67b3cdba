//! Rows of the table and the state they fold into.
//!
//! The table is read by its own tree, in the order of `id`, never by an index: an index that
//! misses a row would hide an entry.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};

use super::{Row, RowSink};
use crate::entry::{EntryRef, Value};
use crate::source::{Damage, EntrySink, Query};

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

/// The newest revision: rows of kine itself count too. A compaction up to the newest row removes
/// it if it is a deletion or fills a gap; the revision stays.
pub(super) fn newest(c: &Connection) -> rusqlite::Result<i64> {
    let last = c.query_row("SELECT max(id) FROM kine", [], |row| row.get::<_, Option<i64>>(0))?;
    Ok(last.unwrap_or_default().max(compacted(c)?))
}

/// The revision of the last compaction, 0 for none.
pub(super) fn compacted(c: &Connection) -> rusqlite::Result<i64> {
    // As kine asks it; the row is among the first of the table, so the walk is short.
    c.query_row(
        "SELECT prev_revision FROM kine NOT INDEXED WHERE name = 'compact_rev_key' ORDER BY id LIMIT 1",
        [],
        |row| Ok(integer(row.get_ref(0)?)),
    )
    .optional()
    .map(Option::unwrap_or_default)
}

/// Calls `sink` for the rows that `query` wants, values included.
pub(super) fn read(
    c: &Connection,
    query: &Query,
    damage: &mut Vec<Damage>,
    sink: &mut RowSink<'_>,
) -> rusqlite::Result<()> {
    walk(c, true, None, query, damage, sink)
}

/// As [`read`], values left out.
pub(super) fn outline(
    c: &Connection,
    query: &Query,
    damage: &mut Vec<Damage>,
    sink: &mut RowSink<'_>,
) -> rusqlite::Result<()> {
    walk(c, false, None, query, damage, sink)
}

/// As [`read`], one row.
pub(super) fn one(
    c: &Connection,
    id: i64,
    query: &Query,
    sink: &mut RowSink<'_>,
) -> rusqlite::Result<()> {
    walk(c, true, Some(id), query, &mut Vec::new(), sink)
}

/// The state at the queried revision, values left out.
pub(super) fn fold(
    c: &Connection,
    query: &Query,
    damage: &mut Vec<Damage>,
) -> rusqlite::Result<State> {
    let mut state = State::default();
    outline(c, query, damage, &mut |row| {
        state.apply(&row);
        ControlFlow::Continue(())
    })?;
    Ok(state)
}

fn walk(
    c: &Connection,
    values: bool,
    only: Option<i64>,
    query: &Query,
    damage: &mut Vec<Damage>,
    sink: &mut RowSink<'_>,
) -> rusqlite::Result<()> {
    // Values that are not asked for are not read: they lie last in a row, mostly on other pages.
    let columns = if values { COLUMNS.as_slice() } else { &COLUMNS[..7] };
    let sql = format!(
        "SELECT {} FROM kine NOT INDEXED WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
        columns.join(", ")
    );
    let limit = query.revision.filter(|r| *r > 0).unwrap_or(i64::MAX);
    let mut statement = c.prepare(&sql)?;
    let (from, to) = only.map_or((i64::MIN, limit), |id| (id, id));
    let mut rows = statement.query([from, to])?;
    while let Some(row) = rows.next()? {
        let id = integer(row.get_ref(0)?);
        let Some(name) = name(row.get_ref(1)?) else {
            damage.push(Damage { location: format!("row {id}"), what: "it has no name".into() });
            continue;
        };
        let deleted = integer(row.get_ref(3)?) != 0;
        if !query.wants(&name) || is_own(&name, id, deleted) {
            continue;
        }
        let mut blob = |column| -> rusqlite::Result<Value<'_>> {
            if !values {
                return Ok(Value(&[]));
            }
            Ok(bytes(row.get_ref(column)?).unwrap_or_else(|| {
                damage.push(no_bytes(id, COLUMNS[column]));
                Value(&[])
            }))
        };
        let created = integer(row.get_ref(2)?) != 0;
        let (value, old_value) = (blob(7)?, blob(8)?);
        let row = Row {
            name: &name,
            id,
            created,
            deleted,
            // kine writes 0 on rows that create.
            create_revision: if created { id } else { integer(row.get_ref(4)?) },
            prev_revision: integer(row.get_ref(5)?),
            lease: integer(row.get_ref(6)?),
            value,
            old_value,
        };
        if sink(row).is_break() {
            break;
        }
    }
    Ok(())
}

/// Rows that are no data: the mark of the last compaction, and the fillers of revisions that were
/// never used (k3s-io/kine `pkg/logstructured/sqllog/sql.go`: `gap-<revision>`).
fn is_own(name: &[u8], id: i64, deleted: bool) -> bool {
    let filler = || name.strip_prefix(b"gap-").is_some_and(|n| n == id.to_string().as_bytes());
    name == COMPACT_KEY || (deleted && filler())
}

/// Keys are text; before kine 0.16.3 the column turned one of nothing but digits into a number.
fn name(value: ValueRef<'_>) -> Option<Cow<'_, [u8]>> {
    match value {
        ValueRef::Text(b) | ValueRef::Blob(b) => Some(Cow::Borrowed(b)),
        ValueRef::Integer(n) => Some(Cow::Owned(n.to_string().into_bytes())),
        ValueRef::Null | ValueRef::Real(_) => None,
    }
}

fn bytes(value: ValueRef<'_>) -> Option<Value<'_>> {
    match value {
        ValueRef::Text(b) | ValueRef::Blob(b) => Some(Value(b)),
        ValueRef::Null => Some(Value(&[])),
        ValueRef::Integer(_) | ValueRef::Real(_) => None,
    }
}

/// kine writes numbers; NULL is what it reads as 0.
fn integer(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::Integer(n) => n,
        _ => 0,
    }
}

fn no_bytes(id: i64, column: &str) -> Damage {
    Damage { location: format!("row {id}"), what: format!("its {column} is a number, not bytes") }
}

/// Keys that exist, without their values.
#[derive(Debug, Default)]
pub(super) struct State(HashMap<Box<[u8]>, Folded>);

/// What is known of a live key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Folded {
    id: i64,
    create_revision: i64,
    lease: i64,
    version: i64,
}

impl State {
    /// Applies the next row. Returns the number of puts since the key was created, 0 for a
    /// deletion and when the row that created it is compacted away.
    pub(super) fn apply(&mut self, row: &Row<'_>) -> i64 {
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

/// Calls `sink` for the live keys, with their values.
pub(super) fn give(
    c: &Connection,
    live: &[(Box<[u8]>, Folded)],
    damage: &mut Vec<Damage>,
    sink: &mut EntrySink<'_>,
) -> rusqlite::Result<()> {
    let mut statement = c.prepare("SELECT value FROM kine WHERE id = ?1")?;
    for (name, folded) in live {
        let mut rows = statement.query([folded.id])?;
        let read = rows.next().and_then(|row| row.map(|r| r.get_ref(0)).transpose());
        let value = match read {
            Ok(Some(value)) => bytes(value),
            // One value on damaged pages is not the end of the others.
            Err(e) if e.sqlite_error_code() != Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
                return Err(e);
            }
            Ok(None) | Err(_) => {
                damage.push(Damage {
                    location: format!("row {}", folded.id),
                    what: "its value lies on damaged pages".into(),
                });
                continue;
            }
        };
        let Some(value) = value else {
            damage.push(no_bytes(folded.id, "value"));
            continue;
        };
        let entry = EntryRef {
            key: name,
            value,
            create_revision: folded.create_revision,
            mod_revision: folded.id,
            version: folded.version,
            lease: folded.lease,
        };
        if sink(entry).is_break() {
            break;
        }
    }
    Ok(())
}

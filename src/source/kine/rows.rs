//! Rows of the table in an `SQLite` database.
//!
//! The table is read by its own tree, in the order of `id`, never by an index: an index that
//! misses a row would hide an entry.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};

use super::table::{COLUMNS, Folded, Table, created_at, is_own, nameless};
use super::{KineRow, RowSink, unreadable};
use crate::entry::Value;
use crate::source::{Damage, EntrySink, Query, SourceError};

/// The table within a transaction.
pub(super) struct Sqlite<'c> {
    /// For messages.
    pub path: &'c Path,
    pub c: &'c Connection,
}

impl Sqlite<'_> {
    fn told(&self) -> impl Fn(rusqlite::Error) -> SourceError {
        |e| unreadable(self.path, e).into()
    }
}

impl Table for Sqlite<'_> {
    fn newest(&mut self) -> Result<i64, SourceError> {
        newest(self.c).map_err(self.told())
    }

    fn compacted(&mut self) -> Result<i64, SourceError> {
        compacted(self.c).map_err(self.told())
    }

    fn walk(
        &mut self,
        values: bool,
        query: &Query,
        damage: &mut Vec<Damage>,
        sink: &mut RowSink<'_>,
    ) -> Result<(), SourceError> {
        walk(self.c, values, None, query, damage, sink).map(drop).map_err(self.told())
    }

    fn lookup(
        &mut self,
        ids: &[i64],
        query: &Query,
        damage: &mut Vec<Damage>,
        sink: &mut RowSink<'_>,
    ) -> Result<(), SourceError> {
        for id in ids {
            let flow = walk(self.c, true, Some(*id), query, damage, sink).map_err(self.told())?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn give(
        &mut self,
        live: &[(Box<[u8]>, Folded)],
        _ordered: bool,
        damage: &mut Vec<Damage>,
        sink: &mut EntrySink<'_>,
    ) -> Result<(), SourceError> {
        give(self.c, live, damage, sink).map_err(self.told())
    }
}

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

fn walk(
    c: &Connection,
    values: bool,
    only: Option<i64>,
    query: &Query,
    damage: &mut Vec<Damage>,
    sink: &mut RowSink<'_>,
) -> rusqlite::Result<ControlFlow<()>> {
    // Values that are not asked for are not read: they lie last in a row, mostly on other pages.
    let columns = if values { COLUMNS.as_slice() } else { &COLUMNS[..7] };
    let sql = format!(
        "SELECT {} FROM kine NOT INDEXED WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
        columns.join(", ")
    );
    let limit = query.revision.filter(|r| *r > 0).unwrap_or(i64::MAX);
    let mut statement = c.prepare_cached(&sql)?;
    let (from, to) = only.map_or((i64::MIN, limit), |id| (id, id));
    let mut rows = statement.query([from, to])?;
    while let Some(row) = rows.next()? {
        let id = integer(row.get_ref(0)?);
        let Some(name) = name(row.get_ref(1)?) else {
            damage.push(nameless(id));
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
        let row = KineRow {
            name: &name,
            id,
            created,
            deleted,
            create_revision: created_at(id, created, integer(row.get_ref(4)?)),
            prev_revision: integer(row.get_ref(5)?),
            lease: integer(row.get_ref(6)?),
            value,
            old_value,
        };
        if sink(row).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
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

/// Calls `sink` for the live keys, with their values.
fn give(
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
        if sink(folded.entry(name, value)).is_break() {
            break;
        }
    }
    Ok(())
}

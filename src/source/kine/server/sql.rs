//! The queries, in words that hold nothing but numbers and hexadecimal digits of what was asked.
//!
//! The table is read by its primary key, in the order of `id` (k3s-io/kine
//! `pkg/drivers/pgsql/pgsql.go`, `pkg/drivers/mysql/mysql.go`: `schema`), never by an index of
//! names: one that misses a row would hide an entry. Names are compared byte by byte, whatever the
//! column's collation.

use std::fmt::Write as _;

use crate::hex::hex;
use crate::source::{KeyRange, Query};

/// Whose SQL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `PostgreSQL`'s.
    Postgres,
    /// `MySQL`'s and `MariaDB`'s.
    MySql,
}

/// Ranges beyond which all between the first and the last is asked for.
const RANGES: usize = 32;

/// The columns of the table, in the place of a row's name.
pub(super) fn columns(kind: Dialect) -> &'static str {
    match kind {
        // A view of that name would not be kine's, whatever it shows.
        Dialect::Postgres => {
            "SELECT NULL::int8, a.attname::text, 0::int8, 0::int8, 0::int8, 0::int8, 0::int8, NULL::bytea, NULL::bytea \
             FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
             WHERE c.oid = to_regclass('kine') AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped"
        }
        Dialect::MySql => {
            "SELECT NULL, CAST(c.column_name AS BINARY), 0, 0, 0, 0, 0, NULL, NULL \
             FROM information_schema.tables t JOIN information_schema.columns c \
             ON c.table_schema = t.table_schema AND c.table_name = t.table_name \
             WHERE t.table_schema = DATABASE() AND t.table_name = 'kine' AND t.table_type = 'BASE TABLE'"
        }
    }
}

/// The newest row's number, in the place of its id (k3s-io/kine `pkg/drivers/generic/generic.go`:
/// `revSQL`).
pub(super) fn newest(kind: Dialect) -> &'static str {
    match kind {
        Dialect::Postgres => {
            "SELECT max(id)::int8, NULL::text, 0::int8, 0::int8, 0::int8, 0::int8, 0::int8, NULL::bytea, NULL::bytea FROM kine"
        }
        Dialect::MySql => "SELECT max(id), NULL, 0, 0, 0, 0, 0, NULL, NULL FROM kine",
    }
}

/// The row of the last compaction (k3s-io/kine `pkg/drivers/generic/generic.go`: `compactRevSQL`).
pub(super) fn compacted(kind: Dialect) -> String {
    let from = match kind {
        Dialect::Postgres => "FROM kine",
        Dialect::MySql => "FROM kine FORCE INDEX (PRIMARY)",
    };
    let columns = selected(kind, Values::None);
    format!("SELECT {columns} {from} WHERE name = 'compact_rev_key' ORDER BY id LIMIT 1")
}

/// Which values are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    None,
    Value,
    Both,
}

/// Rows that may be wanted, by ascending number.
pub(super) fn walk(kind: Dialect, values: Values, query: &Query) -> String {
    let limit = query.revision.filter(|r| *r > 0).unwrap_or(i64::MAX);
    let columns = selected(kind, values);
    let mut sql = match kind {
        Dialect::Postgres => format!("SELECT {columns} FROM kine WHERE id <= {limit}"),
        Dialect::MySql => {
            format!("SELECT {columns} FROM kine FORCE INDEX (PRIMARY) WHERE id <= {limit}")
        }
    };
    sql += &named(kind, &query.ranges);
    sql += " ORDER BY id";
    sql
}

/// Rows by their numbers, in any order.
pub(super) fn lookup(kind: Dialect, values: Values, ids: &[i64]) -> String {
    let columns = selected(kind, values);
    let mut sql = format!("SELECT {columns} FROM kine WHERE id IN (");
    for (i, id) in ids.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = write!(sql, "{}{id}", if i > 0 { "," } else { "" });
    }
    sql.push(')');
    sql
}

fn selected(kind: Dialect, values: Values) -> String {
    let value = |column: &'static str, read: bool| match (read, kind) {
        (true, _) => column,
        (false, Dialect::Postgres) => "NULL::bytea",
        (false, Dialect::MySql) => "NULL",
    };
    let (value, old) =
        (value("value", values != Values::None), value("old_value", values == Values::Both));
    match kind {
        // Numbers were narrower before kine's migrations.
        Dialect::Postgres => format!(
            "id::int8, name::text, created::int8, deleted::int8, create_revision::int8, prev_revision::int8, lease::int8, {value}, {old}"
        ),
        Dialect::MySql => format!(
            "id, {NAME_BYTES}, created, deleted, create_revision, prev_revision, lease, {value}, {old}"
        ),
    }
}

/// A name's bytes, whatever characters the column is made of.
const NAME_BYTES: &str = "CAST(CONVERT(name USING utf8mb4) AS BINARY)";

/// A condition that holds for names in the ranges, and for rows without a name.
fn named(kind: Dialect, ranges: &[KeyRange]) -> String {
    let hull;
    let ranges = match ranges {
        [first, .., last] if ranges.len() > RANGES => {
            hull = [KeyRange { start: first.start.clone(), end: last.end.clone() }];
            hull.as_slice()
        }
        ranges => ranges,
    };
    let (name, literal): (_, fn(&[u8]) -> String) = match kind {
        Dialect::Postgres => {
            ("convert_to(name, 'UTF8')", |b| format!("decode('{}', 'hex')", hex(b)))
        }
        Dialect::MySql => (NAME_BYTES, |b| format!("x'{}'", hex(b))),
    };
    let mut sql = " AND (name IS NULL".to_owned();
    for range in ranges {
        let _ = write!(sql, " OR ({name} >= {}", literal(&range.start));
        if let Some(end) = &range.end {
            let _ = write!(sql, " AND {name} < {}", literal(end));
        }
        sql.push(')');
    }
    sql.push(')');
    sql
}

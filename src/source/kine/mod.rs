//! kine's database: one table, one row per revision (k3s-io/kine `pkg/drivers/sqlite/sqlite.go`,
//! `pkg/drivers/generic/generic.go`), in an `SQLite` file or on a server.
//!
//! A row's `id` is the revision it was written at. The state at revision R is, per name, the row
//! with the largest id ≤ R, unless that row is a deletion.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `table` | which rows are data, and the state they fold into |
//! | `database` | transactions |
//! | `read`, `held`, `pieces` | reads made of such a table, whatever keeps it |
//! | `open`, `rows` | `SQLite` files |
//! | `erase` | what such a file held before, removed from it |
//! | `server` | `PostgreSQL`, `MySQL` and `MariaDB` |

pub(crate) mod database;
pub mod erase;
mod held;
mod open;
mod pieces;
mod read;
mod rows;
#[cfg(feature = "datastore")]
pub mod server;
pub(crate) mod table;

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use self::database::Database;
use self::open::{Opened, Stamp, beside, unreadable};
use super::packed;
use super::{Input, KineError, Record, SourceError, Visit};
use crate::agefile::Unlock;
use crate::entry::{BoundTo, EntryRef, Value};

/// An open kine database.
#[derive(Debug)]
pub struct Kine {
    path: PathBuf,
    opened: Opened,
}

/// A file that holds bytes of a database.
#[derive(Debug)]
pub struct Part {
    /// Its path; of a database that was packed or fetched, what it would be called.
    pub path: PathBuf,
    file: Option<File>,
}

impl Part {
    /// Opens it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(&self) -> std::io::Result<File> {
        use std::io::Seek as _;
        let Some(file) = &self.file else { return File::open(&self.path) };
        let mut file = file.try_clone()?;
        file.rewind()?;
        Ok(file)
    }
}

/// One row as kine stored it, superseded or not.
#[derive(Clone, Copy, Debug)]
pub struct KineRow<'a> {
    /// The etcd key.
    pub name: &'a [u8],
    /// The revision.
    pub id: i64,
    /// The row creates the key.
    pub created: bool,
    /// The row deletes the key.
    pub deleted: bool,
    /// Revision that created the key: the row's own if it does.
    pub create_revision: i64,
    /// Revision of the row that this one supersedes, 0 for none.
    pub prev_revision: i64,
    /// Time to live, seconds; 0 for none.
    pub lease: i64,
    /// The stored value; of a deletion, what kine left there.
    pub value: Value<'a>,
    /// kine's copy of the superseded row's value. It stays as long as this row, encrypted or not.
    pub old_value: Value<'a>,
}

impl<'a> KineRow<'a> {
    /// As an entry; kine itself counts no versions.
    fn entry(&self, version: i64) -> EntryRef<'a> {
        EntryRef {
            key: self.name,
            value: self.value,
            create_revision: self.create_revision,
            mod_revision: self.id,
            version,
            lease: self.lease,
            bound_to: BoundTo::Key,
        }
    }
}

/// Receives rows in ascending order of revision; `Break` ends the visit early.
pub type RowSink<'s> = dyn FnMut(KineRow<'_>) -> ControlFlow<()> + 's;

impl Kine {
    /// Opens a database. Nothing is written to it or beside it.
    ///
    /// # Errors
    /// When it is no `SQLite` database, not kine's, or cannot be read.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        Self::open_with(path, &Unlock::default())
    }

    /// As [`Kine::open`], of one that age may have encrypted.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(path: &Path, unlock: &Unlock) -> Result<Self, SourceError> {
        let parts = open::packed(path, unlock)?;
        let opened =
            if parts.is_empty() { open::open(path)? } else { open::of_parts(path, parts)? };
        Self::of(path, opened)
    }

    /// As [`Kine::open`], of a file that is open already; `name` stands for its path.
    ///
    /// # Errors
    /// As there.
    pub fn of_file(name: &Path, file: impl Into<Input>) -> Result<Self, SourceError> {
        let input = file.into();
        let is_packed = packed::is_packed(input.file()).map_err(|cause| unread(name, cause))?;
        let mut parts = if is_packed { packed::unpack_sqlite(&input, name)? } else { vec![] };
        if parts.is_empty() {
            parts = vec![("", input.file().try_clone().map_err(|cause| unread(name, cause))?)];
        }
        Self::of(name, open::of_parts(name, parts)?)
    }

    fn of(path: &Path, opened: Opened) -> Result<Self, SourceError> {
        check_schema(path, &opened.connection)?;
        Ok(Self { path: path.to_owned(), opened })
    }

    /// Another connection to the same state of the same files, as far as they have not changed.
    fn again(&self) -> Result<Self, SourceError> {
        if self.opened.parts.is_empty() {
            return Self::open(&self.path);
        }
        let cloned = |(ending, file): &(&'static str, File)| Ok((*ending, file.try_clone()?));
        let parts: std::io::Result<Vec<_>> = self.opened.parts.iter().map(cloned).collect();
        let parts = parts.map_err(|cause| unread(&self.path, cause))?;
        Self::of(&self.path, open::of_parts(&self.path, parts)?)
    }

    /// The files that hold the database's bytes: itself and, when there are any, its WAL and its
    /// journal. `SQLite` keeps deleted rows in them until the space is used again.
    #[must_use]
    pub fn files(&self) -> Vec<Part> {
        let parts = &self.opened.parts;
        let named = |ending: &str| Part { path: beside(&self.path, ending), file: None };
        if parts.is_empty() {
            return ["", "-wal", "-journal"]
                .into_iter()
                .map(named)
                .filter(|part| part.path.metadata().is_ok_and(|m| m.len() > 0))
                .collect();
        }
        // What cannot be opened again is told when it is read.
        let unnamed = |(ending, file): &(&'static str, File)| Part {
            file: file.try_clone().ok(),
            ..named(ending)
        };
        parts.iter().map(unnamed).collect()
    }

    /// The revision that kine last compacted to; 0 for never.
    ///
    /// # Errors
    /// When the database cannot be read.
    #[cfg(test)]
    fn compacted(&self) -> Result<i64, SourceError> {
        Ok(rows::compacted(&self.opened.connection).map_err(|e| unreadable(&self.path, e))?)
    }

    /// Calls `sink` for every row that is still held of every key in the query's ranges (up to
    /// the queried revision), by ascending revision, kine's own rows left out.
    ///
    /// # Errors
    /// As [`super::Source::history`].
    #[cfg(test)]
    fn rows(&mut self, query: &super::Query, sink: &mut RowSink<'_>) -> Result<Visit, SourceError> {
        Database::rows(self, query, sink)
    }

    /// As [`Database::transaction`].
    fn within(&mut self, body: &mut database::Body<'_>) -> Result<Visit, SourceError> {
        let mut visit = Visit::default();
        if self.opened.copy.is_some() && self.opened.parts.is_empty() {
            visit.notes.push(
                "the database has a write-ahead log or journal that cannot be read in place; a private copy was read"
                    .into(),
            );
        }
        let path = self.path.as_path();
        let transaction = self
            .opened
            .connection
            .transaction_with_behavior(TransactionBehavior::Deferred)
            .map_err(|e| unreadable(path, e))?;
        body(&mut rows::Sqlite { path, c: &transaction }, &mut visit)?;
        transaction.finish().map_err(|e| unreadable(path, e))?;
        self.unchanged()?;
        Ok(visit)
    }

    /// A file that was opened without locks must not have been written to meanwhile.
    fn unchanged(&self) -> Result<(), KineError> {
        let Some(before) = self.opened.unlocked else { return Ok(()) };
        let now = self.path.canonicalize().map(|real| Stamp::of(&real));
        if now.is_ok_and(|now| now == before) {
            return Ok(());
        }
        Err(KineError::Changed { path: self.path.clone() })
    }
}

fn unread(path: &Path, cause: std::io::Error) -> KineError {
    KineError::Unreadable { path: path.to_owned(), cause }
}

fn record<'a>(row: &KineRow<'a>, version: i64) -> Record<'a> {
    if row.deleted {
        Record::Delete { key: row.name, revision: row.id }
    } else {
        Record::Put(row.entry(version))
    }
}

impl Database for Kine {
    fn name(&self) -> PathBuf {
        self.path.clone()
    }

    fn transaction(&mut self, body: &mut database::Body<'_>) -> Result<Visit, SourceError> {
        self.within(body)
    }

    fn again(&self) -> Result<Box<dyn Database>, SourceError> {
        Ok(Box::new(Kine::again(self)?))
    }
}

/// Refuses a database that is not kine's.
fn check_schema(path: &Path, connection: &Connection) -> Result<(), KineError> {
    let columns = || -> rusqlite::Result<Vec<String>> {
        // A view of that name would not be kine's, whatever it shows.
        let mut statement = connection.prepare(
            "SELECT lower(c.name) FROM sqlite_schema t JOIN pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name = 'kine'",
        )?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    let columns = columns().map_err(|e| unreadable(path, e))?;
    let path = path.to_owned();
    if columns.is_empty() {
        return Err(KineError::NotKine { path });
    }
    if let Some(missing) = table::COLUMNS.iter().find(|c| !columns.iter().any(|have| have == *c)) {
        return Err(KineError::NoColumn { path, column: missing });
    }
    Ok(())
}

#[cfg(test)]
mod tests;

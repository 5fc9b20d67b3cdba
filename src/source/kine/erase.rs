//! A database that no server has open, so that what it held before can be removed from its file.
//!
//! Each step is one transaction of `SQLite`'s or none, and does nothing where it was done before:
//! whenever the program ends, the database is whole, and the next run goes on.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _};

use super::open::{self, beside};
use super::{KineError, check_schema, rows, unreadable};

/// What kine's compaction deletes up to a revision: rows that a later one supersedes, and
/// deletions (k3s-io/kine `pkg/drivers/sqlite/sqlite.go`: `CompactSQL`).
const COMPACT: &str = "DELETE FROM kine AS kv WHERE kv.id IN (
    SELECT kp.prev_revision AS id FROM kine AS kp
    WHERE kp.name != 'compact_rev_key' AND kp.prev_revision != 0 AND kp.id <= ?1
    UNION
    SELECT kd.id AS id FROM kine AS kd WHERE kd.deleted != 0 AND kd.id <= ?1)";

/// kine's own row, once: of several, the one that it keeps (k3s-io/kine
/// `pkg/logstructured/sqllog/sql.go`: `compactStart`).
const ONE_MARK: &str = "DELETE FROM kine WHERE name = 'compact_rev_key' AND id != (
    SELECT id FROM kine WHERE name = 'compact_rev_key' ORDER BY prev_revision DESC, id LIMIT 1)";

/// How far it is compacted (k3s-io/kine `pkg/drivers/generic/generic.go`: `UpdateCompactSQL`).
const MARK: &str = "UPDATE kine SET prev_revision = ?1
    WHERE name = 'compact_rev_key' AND prev_revision < ?1";

/// The same row where there is none yet (`compactStart` there, `InsertSQL` here).
const FIRST_MARK: &str = "INSERT INTO kine
    (name, created, deleted, create_revision, prev_revision, lease, value, old_value)
    SELECT 'compact_rev_key', 1, 0, 0, ?1, 0, x'', NULL
    WHERE NOT EXISTS (SELECT 1 FROM kine WHERE name = 'compact_rev_key')";

/// kine's row for a revision that was never used (`FillSQL` there).
const FILL: &str = "INSERT INTO kine
    (id, name, created, deleted, create_revision, prev_revision, lease, value, old_value)
    VALUES (?1, 'gap-' || ?1, 0, 1, 0, 0, 0, NULL, NULL)";

/// kine's copies of superseded values. It gives them to watches that begin before the row only
/// (`AfterOldValSQL` there), and refuses those that begin before the compaction (`After` in
/// `pkg/logstructured/sqllog/sql.go`), so nobody can ask for these any more.
const COPIES: &str = "UPDATE kine SET old_value = NULL WHERE id <= ?1 AND old_value IS NOT NULL";

/// A process that has a file open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its program's name.
    pub name: String,
}

/// Other processes that have the database or a file beside it open, as far as the system shows
/// them: to root all of this machine, to others their own.
#[must_use]
pub fn holders(path: &Path, proc: &Path) -> Vec<Holder> {
    let known = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let Ok(real) = path.canonicalize() else { return Vec::new() };
    let files = ["", "-wal", "-shm", "-journal"].map(|suffix| beside(&real, suffix));
    let files: Vec<_> = files.iter().filter_map(|f| f.metadata().ok().map(known)).collect();
    let Ok(processes) = std::fs::read_dir(proc) else { return Vec::new() };
    let mut found: Vec<Holder> = processes
        .flatten()
        .filter_map(|process| {
            let pid: u32 = process.file_name().to_str()?.parse().ok()?;
            let mut open = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
            let ours = |fd: std::fs::DirEntry| {
                std::fs::metadata(fd.path()).is_ok_and(|meta| files.contains(&known(meta)))
            };
            if pid == std::process::id() || !open.any(ours) {
                return None;
            }
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            Some(Holder { pid, name: name.trim_end().to_owned() })
        })
        .collect();
    found.sort_by_key(|h| h.pid);
    found
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// The revision that it is compacted to.
    pub revision: i64,
    /// Superseded rows and deletions.
    pub rows: usize,
    /// kine's copies of superseded values.
    pub copies: usize,
}

/// A database that nobody else can open until this is dropped.
#[derive(Debug)]
pub struct Alone {
    path: PathBuf,
    connection: Connection,
}

impl Alone {
    /// Opens it for writing, and keeps all others out: a server that has it open keeps it
    /// ([`KineError::Locked`]), one that starts meanwhile waits.
    ///
    /// # Errors
    /// When it is not kine's, somebody has it open, or it cannot be written.
    pub fn open(path: &Path) -> Result<Self, KineError> {
        let connection = open::alone(path)?;
        check_schema(path, &connection)?;
        // Whoever closes a write-ahead log last removes it.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            .and_then(|_| connection.execute_batch("PRAGMA secure_delete = ON"))
            .and_then(|()| connection.execute_batch("BEGIN EXCLUSIVE; COMMIT"))
            .map_err(|e| unwritten(path, e))?;
        Ok(Self { path: path.to_owned(), connection })
    }

    fn told<T>(&self, result: rusqlite::Result<T>) -> Result<T, KineError> {
        result.map_err(|e| unwritten(&self.path, e))
    }

    /// What is wrong with the file, if anything is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn damage(&self) -> Result<Option<String>, KineError> {
        let said: String =
            self.told(self.connection.query_row("PRAGMA integrity_check(1)", [], |r| r.get(0)))?;
        Ok((said != "ok").then_some(said))
    }

    /// How large the file is once it is written anew, bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn in_use(&self) -> Result<u64, KineError> {
        let pragma = |name: &str| {
            let sql = format!("PRAGMA {name}");
            self.told(self.connection.query_row(&sql, [], |r| r.get::<_, i64>(0)))
        };
        let pages = pragma("page_count")? - pragma("freelist_count")?;
        Ok(u64::try_from(pages * pragma("page_size")?).unwrap_or_default())
    }

    /// Compacts to the newest revision as kine does, and clears its copies of what was superseded.
    ///
    /// # Errors
    /// When it cannot be written; then nothing is forgotten.
    pub fn forget(&mut self) -> Result<Forgotten, KineError> {
        let forgotten = self.connection.transaction().and_then(|t| {
            let revision = compactable(&t)?;
            t.execute(ONE_MARK, [])?;
            let rows = t.execute(COMPACT, [revision])?;
            t.execute(MARK, [revision])?;
            t.execute(FIRST_MARK, [revision])?;
            let copies = t.execute(COPIES, [revision])?;
            t.commit()?;
            Ok(Forgotten { revision, rows, copies })
        });
        forgotten.map_err(|e| unwritten(&self.path, e))
    }

    /// Writes the whole file anew, without its free pages.
    ///
    /// # Errors
    /// When it cannot be written; then the file is as it was.
    pub fn rebuild(&self) -> Result<(), KineError> {
        self.told(self.connection.execute_batch("VACUUM"))
    }

    /// Brings the write-ahead log into the file, and cuts it off.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn checkpoint(&self) -> Result<(), KineError> {
        let busy: i64 =
            self.told(
                self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0)),
            )?;
        if busy == 0 {
            return Ok(());
        }
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        self.told(Err(rusqlite::Error::SqliteFailure(busy, None)))
    }

    /// Closes it, which takes the write-ahead log away.
    ///
    /// # Errors
    /// When `SQLite` cannot.
    pub fn close(self) -> Result<(), KineError> {
        let Self { path, connection } = self;
        connection.close().map_err(|(_, e)| unwritten(&path, e))
    }
}

/// As [`unreadable`], of what writes.
fn unwritten(path: &Path, e: rusqlite::Error) -> KineError {
    match unreadable(path, e) {
        KineError::Failed { path, cause } => KineError::Unwritten { path, cause },
        other => other,
    }
}

/// The revision that can be compacted to. kine takes its largest row for the current revision and
/// never removes it, as it keeps the last thousand: where that row is a deletion, one that fills a
/// gap goes behind it.
fn compactable(c: &Connection) -> rusqlite::Result<i64> {
    let newest = c
        .query_row("SELECT id, name, deleted FROM kine ORDER BY id DESC LIMIT 1", [], |r| {
            let (id, name): (i64, rusqlite::types::Value) = (r.get(0)?, r.get(1)?);
            let filler = rusqlite::types::Value::Text(format!("gap-{id}"));
            Ok((id, r.get::<_, Option<i64>>(2)?.unwrap_or_default() != 0, name == filler))
        })
        .optional()?;
    let Some((newest, deleted, filler)) = newest else { return Ok(0) };
    let compacted = rows::compacted(c)?;
    if newest >= compacted {
        if !deleted {
            return Ok(newest);
        }
        if filler {
            return Ok(newest - 1);
        }
    }
    let newest = newest.max(compacted);
    c.execute(FILL, [newest + 1])?;
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(rows: &str) -> (tempfile::TempDir, PathBuf, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let c = Connection::open(&path).unwrap();
        c.execute_batch(&format!(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE kine (
                id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER,
                deleted INTEGER, create_revision INTEGER, prev_revision INTEGER, lease INTEGER,
                value BLOB, old_value BLOB);
             CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON kine (name, prev_revision);
             INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease,
                value, old_value) VALUES {rows};"
        ))
        .unwrap();
        (dir, path, c)
    }

    fn rows(path: &Path) -> Vec<(i64, String, i64)> {
        let c = Connection::open(path).unwrap();
        let mut all = c.prepare("SELECT id, name, prev_revision FROM kine ORDER BY id").unwrap();
        let row = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?));
        all.query_map([], row).unwrap().map(Result::unwrap).collect()
    }

    /// SQLite itself keeps apart who is in another container, whose files are not shown.
    #[test]
    fn who_has_it_open_keeps_it() {
        let (_dir, path, c) = database("(1, 'a', 1, 0, 0, 0, 0, 'x', NULL)");
        let refused = Alone::open(&path).unwrap_err();
        assert!(matches!(refused, KineError::Locked { .. }), "{refused:?}");
        drop(c);
        let alone = Alone::open(&path).unwrap();
        let late = Connection::open(&path).unwrap();
        late.busy_timeout(std::time::Duration::ZERO).unwrap();
        assert!(late.execute("DELETE FROM kine", []).is_err());
        alone.close().unwrap();
        assert_eq!(rows(&path).len(), 1);
    }

    #[test]
    fn kines_own_row_is_there_once() {
        let of = |marks: &str| {
            let (dir, path, c) = database(&format!(
                "(5, 'a', 1, 0, 0, 0, 0, 'x', NULL), (6, 'a', 0, 0, 5, 5, 0, 'y', 'x'){marks}"
            ));
            drop(c);
            let mut alone = Alone::open(&path).unwrap();
            let forgotten = alone.forget().unwrap();
            assert_eq!((forgotten.rows, forgotten.copies), (1, 1));
            assert_eq!(alone.forget().unwrap().rows, 0, "once is enough");
            alone.close().unwrap();
            let rows = rows(&path);
            drop(dir);
            (forgotten.revision, rows)
        };
        let a = (6, "a".to_owned(), 5);
        let mark = |id, at| (id, "compact_rev_key".to_owned(), at);
        // Its own revision counts the second time.
        assert_eq!(of(""), (6, vec![a.clone(), mark(7, 7)]));
        let two = ", (1, 'compact_rev_key', 1, 0, 0, 2, 0, '', NULL), (2, 'compact_rev_key', 1, 0, 0, 3, 0, '', NULL)";
        assert_eq!(of(two), (6, vec![mark(2, 6), a.clone()]));
        // What was compacted to is not taken back, and not the largest row's past.
        let ahead = ", (1, 'compact_rev_key', 1, 0, 0, 9, 0, '', NULL)";
        let filler = (10, "gap-10".to_owned(), 0);
        assert_eq!(of(ahead), (9, vec![mark(1, 9), a, filler]));
    }
}

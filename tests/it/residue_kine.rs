//! `residue --kine`: rows, kine's copies of superseded values, and what `SQLite` did not erase.

use std::path::{Path, PathBuf};

use memchr::memmem::Finder;
use rusqlite::{Connection, params};
use serde_json::Value;

use crate::support::bin;

pub struct Database {
    dir: tempfile::TempDir,
    pub c: Connection,
}

impl Database {
    /// kine's table (k3s-io/kine `pkg/drivers/sqlite/sqlite.go`), with a page size of its own.
    pub fn new(journal: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let c = Connection::open(dir.path().join("state.db")).unwrap();
        c.execute_batch(&format!(
            "PRAGMA journal_mode = {journal};
             PRAGMA synchronous = OFF;
             CREATE TABLE kine (
                id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER,
                deleted INTEGER, create_revision INTEGER, prev_revision INTEGER, lease INTEGER,
                value BLOB, old_value BLOB);
             CREATE INDEX kine_name_index ON kine (name);
             CREATE INDEX kine_name_id_index ON kine (name,id);
             CREATE INDEX kine_id_deleted_index ON kine (id,deleted);
             CREATE INDEX kine_prev_revision_index ON kine (prev_revision);
             CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON kine (name, prev_revision);
             INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
             VALUES ('compact_rev_key', 1, 0, 0, 0, 0, '');"
        ))
        .unwrap();
        Self { dir, c }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("state.db")
    }

    /// Writes a key as kine does; returns the row's id.
    pub fn write(&self, name: &str, value: &[u8], deleted: bool) -> i64 {
        let before: Option<(i64, i64, Vec<u8>)> = self
            .c
            .query_row(
                "SELECT id, create_revision, value FROM kine WHERE name = ? ORDER BY id DESC LIMIT 1",
                [name],
                |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
            )
            .ok();
        let (prev, create, old) = match before {
            Some((id, 0, value)) => (id, id, Some(value)),
            Some((id, create, value)) => (id, create, Some(value)),
            None => (0, 0, None),
        };
        let sql = "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value, old_value)
             VALUES (?, ?, ?, ?, ?, 0, ?, ?)";
        let created = i64::from(prev == 0);
        let values = params![name, created, i64::from(deleted), create, prev, value, old];
        self.c.execute(sql, values).unwrap();
        self.c.last_insert_rowid()
    }

    pub fn put(&self, name: &str, value: &[u8]) -> i64 {
        self.write(name, value, false)
    }

    fn residue(&self) -> Value {
        let done = bin().words("residue -w json --kine").arg(self.path()).run().ok();
        done.json()
    }
}

fn secret(i: usize, word: &str) -> Vec<u8> {
    format!("k8s\0\n\x0c\n\x02v1\x12\x06Secret secret-value-{word}-{i:04}-{}", "x".repeat(i * 3))
        .into_bytes()
}

fn key(i: usize) -> String {
    format!("/registry/secrets/ns/name-{i:04}")
}

fn total(document: &Value, place: &str) -> u64 {
    document["totals"][place].as_u64().unwrap()
}

fn count(path: &Path, word: &str) -> usize {
    Finder::new(word).find_iter(&std::fs::read(path).unwrap()).count()
}

#[test]
fn superseded_rows_and_copies_of_old_values_are_found() {
    let db = Database::new("WAL");
    let first = db.put(&key(1), &secret(1, "one"));
    let second = db.put(&key(1), b"k8s:enc:secretbox:v1:key1:abc");
    let live = db.put(&key(2), &secret(2, "one"));
    db.put("/registry/configmaps/ns/c", &secret(3, "other resource"));
    let found = db.residue();
    assert_eq!(found["head"]["plaintext"], 1, "row {live}");
    assert_eq!((total(&found, "superseded-revision"), total(&found, "kine-old-value")), (1, 1));
    let findings = found["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 2, "what lies in the log is those rows: {found}");
    assert_eq!(findings[0]["location"], format!("row {first}"));
    assert_eq!(findings[1]["location"], format!("row {second}"));
    for f in findings {
        assert_eq!((&f["revision"], &f["key"]), (&first.into(), &key(1).into()));
        assert_eq!(f["resource"], "secrets");
    }
    let remedy = found["remedy"].to_string();
    assert!(remedy.contains("VACUUM"), "{remedy}");
}

/// After compaction the rows are gone, but not their bytes.
#[test]
fn deleted_rows_are_found_in_pages_and_in_the_log() {
    for journal in ["DELETE", "WAL"] {
        let db = Database::new(journal);
        for i in 0..200 {
            db.put(&key(i), &secret(i, "gone"));
        }
        if journal == "WAL" {
            db.c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        }
        for i in 0..200 {
            db.put(&key(i), b"k8s:enc:secretbox:v1:key1:abcdefghijkl");
        }
        // kine's compaction deletes superseded rows; the newest keep their copies until written.
        db.c.execute_batch(
            "DELETE FROM kine WHERE prev_revision = 0 AND name LIKE '/registry/%';
             UPDATE kine SET old_value = NULL WHERE name LIKE '/registry/%';",
        )
        .unwrap();
        let found = db.residue();
        assert_eq!(found["head"]["plaintext"], 0);
        assert_eq!(total(&found, "superseded-revision") + total(&found, "kine-old-value"), 0);
        let keys: std::collections::BTreeSet<_> = found["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["key"].as_str().unwrap().to_owned())
            .collect();
        // Independently: which values are still in the bytes.
        let wal = db.dir.path().join("state.db-wal");
        let there = (0..200).filter(|i| {
            let word = format!("secret-value-gone-{i:04}");
            count(&db.path(), &word) + if wal.exists() { count(&wal, &word) } else { 0 } > 0
        });
        let there: Vec<_> = there.map(key).collect();
        assert!(there.len() > 100, "{journal}: deleting does not erase");
        let missed = there.iter().filter(|k| !keys.contains(*k)).count();
        assert_eq!(missed, 0, "{journal}: of {}", there.len());
        assert_eq!(keys.len(), there.len(), "{journal}: nothing else");

        db.c.execute_batch("VACUUM").unwrap();
        if journal == "WAL" {
            db.c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        }
        assert_eq!(db.residue()["verdict"], "clean", "the remedy works");
    }
}

#[test]
fn a_database_of_encrypted_rows_is_clean() {
    let db = Database::new("WAL");
    for round in 0..3 {
        for i in 0..100 {
            db.put(&key(i), format!("k8s:enc:aescbc:v1:k:{round}{}", "y".repeat(i)).as_bytes());
        }
    }
    for i in 0..50 {
        db.write(&key(i), b"", true);
    }
    db.c.execute("DELETE FROM kine WHERE id < 150", []).unwrap();
    assert_eq!(db.residue()["verdict"], "clean");
    let gate = bin().words("residue --fail-on plaintext --kine").arg(db.path()).run();
    assert_eq!(gate.code, Some(0));
}

/// Values of several pages go on in others; in the log, each page lies in a frame of its own.
#[test]
fn large_values_are_followed_from_page_to_page() {
    for journal in ["WAL", "DELETE"] {
        let db = Database::new(journal);
        let value = |i: usize| {
            let noise = (0u32..).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
            let mut value = secret(i, "large");
            value.extend(noise.take(i * 997 % 40_000));
            value
        };
        for i in 0..60 {
            db.put(&key(i), &value(i));
        }
        // Each key has one row left, which holds nothing of the old one.
        for i in 0..60 {
            db.put(&key(i), b"k8s:enc:secretbox:v1:key1:abc");
        }
        db.c.execute_batch(
            "DELETE FROM kine WHERE prev_revision = 0 AND name LIKE '/registry/%';
             UPDATE kine SET old_value = NULL WHERE name LIKE '/registry/%';",
        )
        .unwrap();
        let out = tempfile::tempdir().unwrap();
        let to = out.path().join("recovered");
        let done = bin()
            .words("residue -w json --recover")
            .arg(&to)
            .arg("--kine")
            .arg(db.path())
            .run()
            .ok();
        let document = done.json();
        let findings = document["findings"].as_array().unwrap();
        for i in 0..60 {
            let word = format!("secret-value-large-{i:04}");
            let wal = db.dir.path().join("state.db-wal");
            let there =
                count(&db.path(), &word) + if wal.exists() { count(&wal, &word) } else { 0 };
            let of_key: Vec<_> = findings.iter().filter(|f| f["key"] == key(i)).collect();
            assert_eq!(there > 0, !of_key.is_empty(), "{journal}: {i} lies there {there} times");
            if journal == "WAL" {
                let len = value(i).len();
                let whole = of_key.iter().any(|f| f["partial"] == false && f["size"] == len);
                assert!(whole, "{i}, {len} bytes: {of_key:?}");
            }
        }
        // The bytes themselves, of no object that could be shown as YAML.
        let mut whole = 0;
        for file in std::fs::read_dir(to.join("core/secrets/ns")).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            whole += usize::from((0..60).any(|i| bytes == value(i)));
        }
        assert!(whole >= if journal == "WAL" { 60 } else { 30 }, "{journal}: {whole} are whole");
    }
}

/// kine's copy of an encrypted value whose own row is gone.
#[test]
fn encrypted_old_values_are_seen_by_recovery() {
    let db = Database::new("DELETE");
    let first = db.put(&key(1), b"k8s:enc:secretbox:v1:key1:first");
    db.put(&key(1), b"k8s:enc:secretbox:v1:key1:second");
    db.c.execute("DELETE FROM kine WHERE id = ?", [first]).unwrap();
    assert_eq!(db.residue()["verdict"], "clean");
    let out = tempfile::tempdir().unwrap();
    let done = bin()
        .words("residue -w json --recover")
        .arg(out.path().join("recovered"))
        .arg("--kine")
        .arg(db.path())
        .run();
    done.code(4).says("not recovered: ").says(&key(1));
}

/// A copy of what is live is nothing lost.
#[test]
fn copies_of_live_values_are_not_recovered() {
    let db = Database::new("DELETE");
    for n in [1, 2, 1] {
        db.put(&key(1), format!("k8s:enc:secretbox:v1:key1:{n}").as_bytes());
    }
    let out = tempfile::tempdir().unwrap();
    let done = bin()
        .words("residue -w json --recover")
        .arg(out.path().join("recovered"))
        .arg("--kine")
        .arg(db.path())
        .run();
    done.code(4).says(&format!("not recovered: {}: encrypted", key(1)));
}

/// A database in a packing, with its log where it has one, is searched to the last byte.
#[test]
fn a_packed_database_is_searched_like_one_that_is_not() {
    let db = Database::new("WAL");
    for i in 0..40 {
        db.put(&key(i), &secret(i, "first"));
        db.put(&key(i), b"k8s:enc:secretbox:v1:k:made-up");
    }
    // As compaction does it; the rows are still in pages and in the log.
    db.c.execute("DELETE FROM kine WHERE prev_revision = 0 AND name <> 'compact_rev_key'", [])
        .unwrap();
    db.c.execute("UPDATE kine SET old_value = NULL", []).unwrap();
    let expected = db.residue();
    assert!(!expected["findings"].as_array().unwrap().is_empty(), "{expected}");

    let dir = tempfile::tempdir().unwrap();
    let names = ["state.db", "state.db-wal", "state.db-shm"];
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(
        std::fs::File::create(dir.path().join("db.tgz")).unwrap(),
        flate2::Compression::fast(),
    ));
    for name in names {
        archive.append_path_with_name(db.dir.path().join(name), format!("db/{name}")).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap();
    let residue = |path: &Path| bin().words("residue -w json --kine").arg(path).run().ok().json();
    let packed = residue(&dir.path().join("db.tgz"));
    assert_eq!(packed["totals"], expected["totals"]);
    assert_eq!(
        packed["findings"].as_array().unwrap().len(),
        expected["findings"].as_array().unwrap().len()
    );

    db.c.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let whole = db.residue();
    let bytes = std::fs::read(db.path()).unwrap();
    let zst = dir.path().join("state.db.zst");
    std::fs::write(&zst, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
    let packed = residue(&zst);
    assert_eq!(packed["totals"], whole["totals"]);
    let scan = |path: &Path| {
        let done = bin().words("scan -w json --list --kine").arg(path).run().ok();
        let mut document = done.json();
        document["source"]["location"].take();
        document
    };
    assert_eq!(scan(&zst), scan(&db.path()));
    std::fs::write(&zst, zstd::encode_all(&b"nothing"[..], 1).unwrap()).unwrap();
    bin().words("scan --kine").arg(&zst).run().fails_with_hint(1);
}

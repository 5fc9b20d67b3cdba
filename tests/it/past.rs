//! Earlier revisions: every source answers alike.

use std::collections::HashMap;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use atrest::source::snapshot::{Snapshot, SnapshotOptions};
use atrest::source::{KeyRange, Query, Record, Source as _};
use rusqlite::{Connection, params};
use serde_json::Value;

use crate::support::plugs::Plugs;
use crate::support::{Etcd, Version, bin, corpus};

const PHASE: &str = "p7-migrated-uncompacted";

/// A revision while some secrets were plaintext and some were not, and two that were deleted
/// later were there.
const THEN: &str = "600";

/// The snapshot as k3s compresses it.
fn zipped(path: &Path) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("etcd-snapshot-node-1-1700000000", options).unwrap();
    zip.write_all(&std::fs::read(corpus::db(PHASE)).unwrap()).unwrap();
    zip.finish().unwrap();
}

/// The snapshot's history in kine's table (k3s-io/kine `pkg/drivers/sqlite/sqlite.go`).
pub fn kine(path: &Path) -> Connection {
    let c = Connection::open(path).unwrap();
    c.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER,
            deleted INTEGER, create_revision INTEGER, prev_revision INTEGER, lease INTEGER,
            value BLOB, old_value BLOB);
         BEGIN;",
    )
    .unwrap();
    let query = Query { ranges: vec![KeyRange::prefix(b"/")], revision: None, ordered: true };
    let mut last: HashMap<Vec<u8>, (i64, i64, Vec<u8>)> = HashMap::new();
    let mut source = Snapshot::open(&corpus::db(PHASE), &SnapshotOptions::default()).unwrap();
    source
        .history(&query, &mut |record| {
            let (key, id, value) = match record {
                Record::Put(e) => (e.key, e.mod_revision, Some(e.stored().to_vec())),
                Record::Delete { key, revision } => (key, revision, None),
            };
            let before = last.remove(key);
            let (create, prev) = before.as_ref().map_or((0, 0), |(create, id, _)| (*create, *id));
            let old = before.map(|(.., value)| value);
            let name = std::str::from_utf8(key).unwrap();
            let row = params![id, name, prev == 0, value.is_none(), create, prev, value, old];
            c.execute("INSERT INTO kine VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)", row).unwrap();
            if let Some(value) = value {
                let create = if prev == 0 { id } else { create };
                last.insert(key.to_vec(), (create, id, value));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    c.execute_batch("COMMIT").unwrap();
    c
}

#[test]
fn every_source_shows_the_same_past() {
    let plugs = Plugs::start("kek-2026-02");
    let dir = tempfile::tempdir().unwrap();
    let (zip, sqlite) = (dir.path().join("s.zip"), dir.path().join("state.db"));
    zipped(&zip);
    let _writer = kine(&sqlite);
    let etcd = Etcd::builder(Version::V35).restore(corpus::db(PHASE)).start();
    let live = etcd.args();
    let run = |source: &[std::ffi::OsString], words: &str| {
        let config = plugs.config("p6-sb2");
        let done = bin().words(words).args(source).arg("--encryption-config").arg(config).run();
        done.ok()
    };
    let commands = [
        "get secrets/default/login1 --reveal -w json --revision",
        "get secrets/team-b/sb-1 --reveal -w json --revision",
        "export -w json --resource secrets --revision",
        "scan -w json --verify --resource secrets,configmaps --revision",
    ]
    .map(|c| format!("{c} {THEN}"));
    let history = "history secrets/ configmaps/ -w jsonl";
    let answers = |source: &[std::ffi::OsString]| -> Vec<Value> {
        let mut all: Vec<Value> = commands.iter().map(|c| run(source, c).json()).collect();
        all[3]["source"].take();
        all[3]["config"].take();
        let rows = run(source, history).jsonl().into_iter().map(|mut row| {
            // kine counts no writes.
            row["version_count"].take();
            row
        });
        all.push(rows.collect());
        all
    };
    let source = |option: &str, path: &Path| vec![option.into(), path.into()];
    let expected = answers(&source("--snapshot", &corpus::db(PHASE)));
    // What is deleted now was there then.
    assert_eq!(expected[1]["metadata"]["name"], "sb-1");
    assert_ne!(expected[3]["totals"]["plaintext"], 0);
    let check = |what: &str, got: Vec<Value>| {
        let names = ["get", "get of a deleted one", "export", "scan", "history"];
        for ((got, expected), name) in got.into_iter().zip(&expected).zip(names) {
            assert!(got == *expected, "{name} of {what}");
        }
    };
    check("a zip file", answers(&source("--snapshot", &zip)));
    check("a live etcd", answers(&live));
    check("kine, while it writes", answers(&source("--kine", &sqlite)));
    let stopped = etcd.stop();
    check("a data directory", answers(&source("--data-dir", &stopped.path().join("etcd"))));
    // Deleted by now.
    let gone = bin().words("get secrets/team-b/sb-1 --kine").arg(&sqlite).run();
    gone.fails_with_hint(1);
}

/// kine compacts superseded rows away, and the row behind each keeps a copy of its value.
#[test]
fn copies_of_compacted_rows_are_history_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let c = kine(&path);
    let key = "/registry/secrets/default/login1";
    let history = || {
        let done = bin().words("history -w jsonl --kine").arg(&path).arg(key).run().ok();
        done.jsonl()
            .iter()
            .map(|r| (r["revision"].as_i64().unwrap(), r["held_in"].clone(), r["provider"].clone()))
            .collect::<Vec<_>>()
    };
    let row = |revision, held: &str, provider: &str| (revision, held.into(), provider.into());
    let whole = [row(210, "key-space", "identity"), row(603, "key-space", "secretbox")];
    assert_eq!(history(), whole);
    c.execute(
        "DELETE FROM kine WHERE id IN (SELECT prev_revision FROM kine WHERE prev_revision <> 0)",
        [],
    )
    .unwrap();
    assert_eq!(history(), [row(210, "kine-old-value", "identity"), whole[1].clone()]);
    let table = bin().words("history --kine").arg(&path).arg(key).run().ok();
    assert!(table.text().contains("1 of them compacted and not yet gone"), "{}", table.text());
    // Written once more, as the remedy says, the copy is one of the encrypted value.
    c.execute(
        "INSERT INTO kine SELECT 700, name, 0, 0, create_revision, id, 0, value, value FROM kine
         WHERE id = 603",
        [],
    )
    .unwrap();
    c.execute("DELETE FROM kine WHERE id = 603", []).unwrap();
    let last = [row(603, "kine-old-value", "secretbox"), row(700, "key-space", "secretbox")];
    assert_eq!(history(), last);
}

//! `--kine`: the same answers as from etcd, while a server writes.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use atrest::entry::Entry;
use atrest::source::snapshot::{Snapshot, SnapshotOptions};
use atrest::source::{KeyRange, Query, Source as _};
use rusqlite::{Connection, params};
use serde_json::Value;

use crate::support::{bin, corpus};

const PHASE: &str = "p1b-partial-migration";

/// The schema of kine 0.13 (k3s-io/kine `pkg/drivers/sqlite/sqlite.go`).
const SCHEMA: &str = "
    CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER,
        deleted INTEGER, create_revision INTEGER, prev_revision INTEGER, lease INTEGER,
        value BLOB, old_value BLOB);
    CREATE INDEX kine_name_index ON kine (name);
    CREATE INDEX kine_name_id_index ON kine (name, id);
    CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON kine (name, prev_revision);
    PRAGMA journal_mode = WAL;";

fn entries(phase: &str) -> Vec<Entry> {
    let mut all = Vec::new();
    let query = Query { ranges: vec![KeyRange::prefix(b"/")], revision: None, ordered: false };
    Snapshot::open(&corpus::db(phase), &SnapshotOptions::default())
        .unwrap()
        .visit(&query, &mut |e| {
            all.push(e.to_entry());
            ControlFlow::Continue(())
        })
        .unwrap();
    all.sort_by_key(|e| e.mod_revision);
    all
}

/// The entries of a phase, each at its own revision, in kine's table. Two entries of one revision
/// (one transaction of etcd's) do not occur there.
pub fn kine(dir: &Path, phase: &str) -> (PathBuf, Connection) {
    let path = dir.join("state.db");
    let c = Connection::open(&path).unwrap();
    c.execute_batch(SCHEMA).unwrap();
    let all = entries(phase);
    c.execute_batch("BEGIN").unwrap();
    for e in &all {
        let created = e.create_revision == e.mod_revision;
        c.execute(
            "INSERT INTO kine VALUES (?, CAST(? AS TEXT), ?, 0, ?, ?, 0, ?, NULL)",
            params![
                e.mod_revision,
                e.key,
                created,
                if created { 0 } else { e.create_revision },
                if created { 0 } else { e.mod_revision - 1 },
                e.value
            ],
        )
        .unwrap();
    }
    let revision = corpus::entries(phase).revision;
    c.execute(
        "INSERT INTO kine VALUES (?, ?, 0, 1, 0, 0, 0, NULL, NULL) ON CONFLICT DO NOTHING",
        params![revision, format!("gap-{revision}")],
    )
    .unwrap();
    c.execute_batch("COMMIT").unwrap();
    (path, c)
}

fn scan(source: &str, path: &Path, rest: &str) -> Value {
    let config = corpus::private_config("p1-secretbox");
    bin()
        .arg("scan")
        .arg(source)
        .arg(path)
        .words("-w json --encryption-config")
        .arg(config)
        .words(rest)
        .run()
        .ok()
        .json()
}

#[test]
fn the_same_groups_as_from_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (path, connection) = kine(dir.path(), PHASE);
    for rest in ["", "--verify", "--all-resources", "--list -n team-a"] {
        let expected = scan("--snapshot", &corpus::db(PHASE), rest);
        let mut got = scan("--kine", &path, rest);
        assert_eq!(got["source"]["kind"], "kine");
        assert_eq!(got["source"]["revision"], expected["source"]["revision"]);
        assert_eq!(got["groups"], expected["groups"], "{rest}");
        assert_eq!(got["totals"], expected["totals"], "{rest}");
        assert!(got["totals"]["entries"].as_u64().unwrap() > 0);
        if let Some(list) = got["entries"].as_array_mut() {
            for (got, expected) in list.iter_mut().zip(expected["entries"].as_array().unwrap()) {
                // Where the row that created the key is not held, nobody counted.
                let version = got["version_count"].as_i64().unwrap();
                assert!(version == 0 || version == expected["version_count"]);
                got["version_count"] = expected["version_count"].clone();
            }
            assert_eq!(got["entries"], expected["entries"]);
        }
    }
    // The server stopped: the log is gone, the answer is not.
    connection.close().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let expected = scan("--snapshot", &corpus::db(PHASE), "");
    assert_eq!(scan("--kine", &path, "")["groups"], expected["groups"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was written beside it");
}

#[test]
fn revisions_deletions_and_history() {
    let dir = tempfile::tempdir().unwrap();
    let (path, c) = kine(dir.path(), PHASE);
    let key = "/registry/secrets/default/login2";
    let before = corpus::entries(PHASE).revision;
    let (id, value): (i64, Vec<u8>) = c
        .query_row("SELECT id, value FROM kine WHERE name = ?", [key], |r| {
            Ok((r.get(0)?, r.get(1)?))
        })
        .unwrap();
    c.execute(
        "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value,
            old_value) VALUES (?, 0, 1, ?, ?, 0, ?, ?)",
        params![key, id, id, value, value],
    )
    .unwrap();
    let expected = scan("--snapshot", &corpus::db(PHASE), "");
    let count = |v: &Value| v["totals"]["entries"].as_u64().unwrap();
    assert_eq!(count(&scan("--kine", &path, "")), count(&expected) - 1);
    let then = scan("--kine", &path, &format!("--revision {before}"));
    assert_eq!(then["groups"], expected["groups"]);
    assert_eq!(then["source"]["revision"], before);

    let rows = bin().words("history -w jsonl --kine").arg(&path).arg(key).run().ok().jsonl();
    let told: Vec<_> = rows.iter().map(|r| (&r["revision"], r["deleted"] == true)).collect();
    assert_eq!(told, [(&Value::from(id), false), (&Value::from(before + 1), true)]);
    bin().words("get --kine").arg(&path).arg(key).run().fails(1);

    for command in ["scan", "history secrets/", "get secrets/a/b"] {
        let late = format!("{command} --revision {} --kine", before + 2);
        bin().words(&late).arg(&path).run().fails_with_hint(1).says("future");
    }
}

#[test]
fn k3s_s_profile() {
    let root = tempfile::tempdir().unwrap();
    let server = root.path().join("var/lib/rancher/k3s/server");
    fs::create_dir_all(server.join("db")).unwrap();
    fs::create_dir_all(server.join("cred")).unwrap();
    let (_, _connection) = kine(&server.join("db"), PHASE);
    let config = server.join("cred/encryption-config.json");
    fs::copy(corpus::private_config("p1-secretbox"), config).unwrap();
    let got = bin().words("scan -w json --profile k3s --root").arg(root.path()).run().ok().json();
    let expected = scan("--snapshot", &corpus::db(PHASE), "");
    assert_eq!(got["source"]["kind"], "kine");
    assert_eq!(got["groups"], expected["groups"]);
}

#[test]
fn what_is_no_kine_database() {
    let refused = |path: &Path| bin().words("scan --kine").arg(path).run().fails_with_hint(1);
    refused(Path::new("/nonexistent"));
    refused(&corpus::db("p9-defragged")).says("--snapshot");
    let dir = tempfile::tempdir().unwrap();
    refused(dir.path());
    let (path, c) = kine(dir.path(), PHASE);
    c.close().unwrap();
    bin().words("scan --snapshot").arg(&path).run().fails_with_hint(1).says("--kine");
    // Cut short in the middle.
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let done = bin().words("scan --all-resources --kine").arg(&path).run();
    assert!(matches!(done.code, Some(1 | 4)), "{done}");
}

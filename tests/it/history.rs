//! `history`: every revision that a source still holds.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::certs::Certs;
use crate::support::{Etcd, Version, bin, corpus};

fn history(phase: &str, key: &str) -> Vec<Value> {
    bin().words("history -w jsonl --snapshot").arg(corpus::db(phase)).arg(key).run().ok().jsonl()
}

/// The newest revision of every key is what a live Range returned.
#[test]
fn the_newest_revisions_are_the_live_state() {
    for phase in ["p0-plaintext", "p7-migrated-uncompacted", "p9-defragged"] {
        let expected = corpus::entries(phase);
        let mut newest: BTreeMap<String, Value> = BTreeMap::new();
        let mut before = 0;
        for row in history(phase, "/registry/") {
            let revision = row["revision"].as_i64().unwrap();
            assert!(revision >= before, "ascending");
            assert_eq!(row["mod_revision"], row["revision"]);
            before = revision;
            newest.insert(row["key"].as_str().unwrap().to_owned(), row);
        }
        newest.retain(|_, row| row["deleted"] == false);
        assert_eq!(newest.len(), expected.entries.len(), "{phase}");
        for e in &expected.entries {
            let row = &newest[&e.key];
            assert_eq!(row["revision"], e.mod_revision, "{}", e.key);
            assert_eq!(row["create_revision"], e.create_revision);
            assert_eq!(row["version_count"], e.version);
            assert_eq!(row["size"], e.size);
        }
    }
}

#[test]
fn superseded_and_deleted_revisions_are_there_until_compaction() {
    let key = "/registry/secrets/default/login1";
    for name in [key, "secrets/default/login1"] {
        let rows = history("p7-migrated-uncompacted", name);
        let words: Vec<_> = rows.iter().map(|r| r["provider"].as_str().unwrap()).collect();
        assert_eq!(words, ["identity", "secretbox"]);
        assert!(rows.iter().all(|r| r["key"] == key && r["deleted"] == false));
    }
    let rows = history("p7-migrated-uncompacted", "secrets/");
    let deleted: Vec<_> = rows.iter().filter(|r| r["deleted"] == true).collect();
    assert_eq!(deleted.len(), 2, "two secrets were deleted");
    for row in deleted {
        assert!(row["provider"].is_null() && row["size"] == 0);
        let gone = row["key"].as_str().unwrap();
        let own = history("p7-migrated-uncompacted", gone);
        assert_eq!(own.last().unwrap()["deleted"], true);
        assert!(own.len() > 1, "its writes are still held");
        let after = bin()
            .words("history --snapshot")
            .arg(corpus::db("p8-compacted-not-defragged"))
            .arg(gone)
            .run();
        after.fails_with_hint(1);
    }
    assert_eq!(history("p8-compacted-not-defragged", key).len(), 1);
}

/// What was compacted away is still written in the log: together they are the history from before
/// the compaction.
#[test]
fn a_data_directory_has_what_its_log_holds_too() {
    let dir = corpus::data_dir();
    let done = bin().words("history -w jsonl /registry/ --data-dir").arg(dir.path()).run().ok();
    let (mut rows, mut kept) = (done.jsonl(), Vec::new());
    for row in &mut rows {
        if row["held_in"] == "key-space" {
            kept.push(row.clone());
        } else {
            assert_eq!(row["held_in"], "wal");
            row["held_in"] = "key-space".into();
        }
        // The revision before was compacted away, too.
        row["changes"] = Value::Null;
    }
    let without_changes = |phase| {
        let mut rows = history(phase, "/registry/");
        for row in &mut rows {
            row["changes"] = Value::Null;
        }
        rows
    };
    assert!(
        kept == without_changes("p8-compacted-not-defragged"),
        "the key space is the snapshot's"
    );
    assert!(rows == without_changes("p7-migrated-uncompacted"), "nothing is lost to compaction");
    let table = bin().words("history secrets/default/login1 --data-dir").arg(dir.path()).run().ok();
    assert!(table.text().contains("1 of them compacted and not yet gone"), "{}", table.text());
}

/// The log of a restored member begins anew on data that it never saw. It tells no revisions.
#[test]
fn a_log_that_began_on_restored_data_is_not_believed() {
    let etcd = Etcd::builder(Version::V35).restore(corpus::db("p7-migrated-uncompacted")).start();
    let key = "/registry/secrets/ns/new";
    etcd.put(key, b"k8s\0 one");
    etcd.put(key, b"k8s:enc:secretbox:v1:key1:two");
    etcd.ctl(&["compact", "678", "--physical"]);
    let dir = etcd.stop();
    let path = dir.path().join("etcd");
    let done = bin().words("history -w jsonl --data-dir").arg(&path).arg(key).run().ok();
    let rows: Vec<_> = done.jsonl();
    let seen: Vec<_> = rows.iter().map(|r| (&r["revision"], &r["held_in"])).collect();
    assert_eq!(seen, [(&678.into(), &"key-space".into())]);
    done.says("does not reach back");
    let found = bin().words("residue -w json --data-dir").arg(&path).run().ok().json();
    let of_log: Vec<_> =
        found["findings"].as_array().unwrap().iter().filter(|f| f["where"] == "wal").collect();
    assert_eq!(of_log.len(), 1, "{found}");
    assert_eq!((&of_log[0]["key"], &of_log[0]["revision"]), (&key.into(), &Value::Null));
}

/// As `scan` and a server have it.
#[test]
fn a_revision_that_is_not_there_is_no_empty_history() {
    let of = |option: &str, path: &std::path::Path, revision: &str| {
        let words = format!("history secrets/team-a/ --revision {revision}");
        bin().words(&words).arg(option).arg(path).run()
    };
    let (whole, compacted) =
        (corpus::db("p7-migrated-uncompacted"), corpus::db("p8-compacted-not-defragged"));
    of("--snapshot", &whole, "676").ok();
    of("--snapshot", &whole, "677").fails_with_hint(1).says("future");
    of("--snapshot", &compacted, "250").fails_with_hint(1).says("compacted");
    let dir = corpus::data_dir();
    of("--data-dir", dir.path(), "250").ok();
    of("--data-dir", dir.path(), "100000").fails_with_hint(1).says("future");
}

fn live(etcd: &Etcd, words: &str) -> Vec<Value> {
    bin().words(words).args(etcd.args()).run().ok().jsonl()
}

/// A server tells its history as its snapshot does, deletions and compaction included.
#[test]
fn a_live_etcd_has_the_history_of_its_snapshot() {
    let certs = Certs::new();
    let out = tempfile::tempdir().unwrap();
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::builder(version)
            .tls(&certs)
            .restore(corpus::db("p7-migrated-uncompacted"))
            .start();
        let words = "history -w jsonl /registry/";
        let expected = history("p7-migrated-uncompacted", "/registry/");
        assert_eq!(live(&etcd, words), expected);
        let until: Vec<_> =
            expected.into_iter().filter(|r| r["revision"].as_i64() <= Some(600)).collect();
        assert_eq!(live(&etcd, "history -w jsonl /registry/ --revision 600"), until);

        etcd.ctl(&["compact", "600", "--physical"]);
        let file = out.path().join(format!("{version:?}.db"));
        etcd.snapshot(&file);
        let after =
            bin().words("history -w jsonl /registry/ --snapshot").arg(&file).run().ok().jsonl();
        assert_eq!(live(&etcd, words), after);
        let counts = |more: &str| {
            let done = bin().words("keys -w json --all-resources").words(more);
            done.args(etcd.args()).run().ok().json()["keys"].clone()
        };
        let offline = bin().words("keys -w json --all-resources --snapshot").arg(&file).run().ok();
        assert_eq!(counts(""), offline.json()["keys"]);

        // Nothing is left but the state.
        etcd.ctl(&["compact", "676", "--physical"]);
        let rows = live(&etcd, words);
        assert_eq!(rows.len(), corpus::entries("p7-migrated-uncompacted").entries.len());
    }
}

#[test]
fn an_empty_etcd_has_no_history() {
    let etcd = Etcd::plain(Version::V35);
    let done = bin().words("history -w jsonl /registry/").args(etcd.args()).run().code(1);
    assert_eq!(done.says("no revision of /registry/ is held").text(), "");
    etcd.put("/registry/secrets/a/b", br#"{"apiVersion":"v1","kind":"Secret"}"#);
    etcd.ctl(&["del", "/registry/secrets/a/b"]);
    etcd.put("/other", b"x");
    let rows = live(&etcd, "history -w jsonl secrets/a/b");
    let deleted: Vec<_> = rows.iter().map(|r| r["deleted"] == true).collect();
    assert_eq!(deleted, [false, true]);
}

/// Values that were written over are residue that a server still serves.
#[test]
fn a_live_etcd_shows_superseded_plaintext() {
    let etcd = Etcd::builder(Version::V35).restore(corpus::db("p7-migrated-uncompacted")).start();
    let done = bin().words("residue -w json").args(etcd.args()).run().ok();
    let found = done.json();
    assert_eq!(found["totals"]["superseded-revision"], 32);
    assert_eq!(found["head"]["plaintext"], 0);
    assert_eq!(found["verdict"], "residue");
    assert!(!found["not_examined"].as_array().unwrap().is_empty());
    assert_eq!(found["remedy"][0], "compact to revision 676");
}

#[test]
fn changes_are_names_and_lengths_unless_values_are_asked_for() {
    let etcd = Etcd::plain(Version::V35);
    for data in [r#"{"keep":"b25l","pass":"b2xkLXNlY3JldA=="}"#, r#"{"keep":"b25l","pass":"bmV3"}"#]
    {
        let object = format!(
            r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"b","namespace":"a"}},"data":{data}}}"#
        );
        etcd.put("/registry/secrets/a/b", object.as_bytes());
    }
    let rows = live(&etcd, "history -w jsonl secrets/a/b");
    assert_eq!(rows[0]["changes"], Value::Null, "nothing to compare with");
    let expected =
        serde_json::json!([{"name": "pass", "change": "changed", "old_size": 10, "size": 3}]);
    assert_eq!(rows[1]["changes"], expected);
    for format in ["table", "json", "jsonl", "csv"] {
        let done = bin().words("history secrets/a/b -w").arg(format).args(etcd.args()).run().ok();
        for secret in ["old-secret", "b2xkLXNlY3JldA", "bmV3"] {
            assert!(!done.text().contains(secret), "{format} shows a value");
        }
        assert!(done.text().contains("pass"), "{format} names the key");
    }
    let shown = live(&etcd, "history -w jsonl secrets/a/b --reveal");
    assert_eq!(shown[1]["changes"][0]["old"], "b2xkLXNlY3JldA==");
    assert_eq!(shown[1]["changes"][0]["new"], "bmV3");
}

/// Encrypted revisions are compared as well, with the keys to read them.
#[test]
fn migrated_secrets_have_the_same_data() {
    let done = bin()
        .words("history -w jsonl secrets/default/login1 --snapshot")
        .arg(corpus::db("p7-migrated-uncompacted"))
        .arg("--encryption-config")
        .arg(corpus::config("p6-sb2"))
        .run()
        .ok();
    let rows = done.jsonl();
    assert_eq!(rows[1]["changes"], serde_json::json!([]));
    assert_eq!((&rows[0]["status"], &rows[1]["status"]), (&"stale".into(), &"current".into()));
}

/// What the configuration cannot read is told by the exit code as well; without one, nothing was
/// to be read.
#[test]
fn revisions_that_cannot_be_read_are_no_success() {
    let history = |config: Option<&str>| {
        let mut run = bin().words("history -w jsonl secrets/default/login1 --snapshot");
        run = run.arg(corpus::db("p7-migrated-uncompacted"));
        if let Some(config) = config {
            run = run.arg("--encryption-config").arg(corpus::config(config));
        }
        run.run()
    };
    assert!(history(None).ok().stderr.contains("note: the data of 1 revision"));
    let done = history(Some("p2-aescbc")).code(4);
    assert!(done.stderr.contains("warning: the data of 1 revision"), "{done}");
    assert_eq!(done.jsonl()[1]["status"], "unreadable");
}

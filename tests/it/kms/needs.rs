//! `kms needs`: what depends on which key.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::keyring::{Keyring, hex};
use crate::support::bin::{Bin, bin};
use crate::support::corpus;
use crate::support::plugs::Plugs;
use crate::support::snapshot::Crafted;

fn needs(db: &Path) -> Bin {
    bin().words("kms needs -w json --snapshot").arg(db)
}

/// Every key of a document: provider, version and key ID → the key.
fn keys(document: &Value) -> BTreeMap<(String, String, Option<String>), Value> {
    let mut all = BTreeMap::new();
    for provider in document["providers"].as_array().unwrap() {
        let word = |name: &str| provider[name].as_str().unwrap().to_owned();
        for key in provider["keys"].as_array().unwrap() {
            let id = key["key_id"].as_str().map(str::to_owned);
            all.insert((word("name"), word("version"), id), key.clone());
        }
    }
    all
}

/// Counts are those of `keys`, which counts by prefixes.
#[test]
fn counts_are_those_of_keys() {
    for phase in ["p4-kmsv1", "p5-kmsv2", "p6-mixed", "p7-migrated-uncompacted"] {
        let db = corpus::db(phase);
        let document = needs(&db).run().ok().json();
        assert_eq!(document["schema"], "atrest.kms-needs/v1");
        let found: Vec<_> = keys(&document)
            .into_iter()
            .map(|(name, key)| (name, key["entries"].clone(), key["history_entries"].clone()))
            .collect();
        let counted =
            bin().words("keys --all-resources -w json --snapshot").arg(&db).run().ok().json();
        let mut expected: Vec<_> = counted["keys"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|k| k["provider"] == "kms")
            .map(|k| {
                let word = |name: &str| k[name].as_str().map(str::to_owned);
                let name = (word("key").unwrap(), word("version").unwrap(), word("kms_key_id"));
                (name, k["entries"].clone(), k["history_entries"].clone())
            })
            .collect();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert!(!found.is_empty(), "{phase}");
        assert_eq!(found, expected, "{phase}");
        for (name, key) in keys(&document) {
            let total: u64 = key["resources"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r["entries"].as_u64().unwrap())
                .sum();
            assert_eq!(key["entries"], total, "{name:?}");
            let live = total > 0;
            let words = key["if_destroyed"].as_str().unwrap();
            assert_eq!(words.contains("live entr"), live, "{words}");
        }
    }
}

#[test]
fn data_keys_are_named_by_the_digest_of_their_wrapping() {
    let db = corpus::db("p5-kmsv2");
    let ring = Keyring::of(&db);
    let done = needs(&db).run().ok();
    let document = done.json();
    ring.assert_absent(&done.stdout);
    for (name, wrapped, _) in &ring.keys {
        let id = (name.name.clone(), name.version.as_str().to_owned(), wrapped.key_id.clone());
        let key = &keys(&document)[&id];
        if wrapped.kind.is_none() {
            assert_eq!(key["data_keys"], ring.count(&name.name), "v1: one for each value");
            assert_eq!(key["sources"], Value::Null);
            continue;
        }
        let sources = key["sources"].as_array().unwrap();
        assert_eq!(key["data_keys"], sources.len());
        let digest = hex(&wrapped.digest());
        let source = sources.iter().find(|s| s["sha256"] == digest).unwrap();
        assert_eq!((&source["kind"], &source["bytes"]), (&json!("seed"), &json!(60)));
        assert_eq!(source["annotations"], json!(["version.example.com"]));
    }
    let table = bin().words("kms needs --snapshot").arg(&db).run().ok();
    assert!(
        table.text().contains("if it is destroyed:\n  vault-v1: nobody reads 19 live entries (")
    );
}

#[test]
fn the_key_that_is_written_with_is_needed_whatever_it_encrypted() {
    let plugs = Plugs::start("kek-2026-02");
    let run = || {
        let config = plugs.config("p5-kmsv2");
        let done = needs(&corpus::db("p5-kmsv2")).arg("--encryption-config").arg(config).run().ok();
        keys(&done.json())
    };
    let v2 = |id: &str| ("vault-v2".to_owned(), "v2".to_owned(), Some(id.to_owned()));
    let now = run();
    let current = |all: &BTreeMap<_, Value>, id: &str| all[&v2(id)]["current"].clone();
    assert_eq!([current(&now, "kek-2026-01"), current(&now, "kek-2026-02")], [false, true]);
    plugs.rotate("kek-2026-03");
    let rotated = run();
    assert_eq!(current(&rotated, "kek-2026-02"), false);
    let fresh = &rotated[&v2("kek-2026-03")];
    assert_eq!((&fresh["entries"], &fresh["current"]), (&json!(0), &json!(true)));
    assert_eq!(
        fresh["if_destroyed"],
        "secrets, configmaps, widgets.example.com can no longer be written"
    );
    // Its plugin cannot be asked; what depends on what is known all the same.
    drop(plugs);
    let done = bin()
        .words("kms needs --encryption-config")
        .arg(corpus::private_config("p4-kmsv1"))
        .arg("--snapshot")
        .arg(corpus::db("p5-kmsv2"))
        .run()
        .ok();
    let line = done.text().lines().find(|l| l.starts_with("vault-v2")).unwrap();
    assert!(line.contains("not configured"), "{line}");
}

#[test]
fn backups_count_too() {
    let dir = tempfile::tempdir().unwrap();
    let old = corpus::db("p4-kmsv1");
    std::fs::copy(&old, dir.path().join("etcd-snapshot-node-1735689600")).unwrap();
    std::fs::copy(corpus::db("p5-kmsv2"), dir.path().join("etcd-snapshot-node-1767225600"))
        .unwrap();
    let run = |code: i32| {
        needs(&corpus::db("p1-secretbox")).arg("--backups").arg(dir.path()).run().code(code)
    };
    let all = keys(&run(0).json());
    let v1 = &all[&("vault-v1".to_owned(), "v1".to_owned(), None)];
    assert_eq!((&v1["entries"], v1["backups"].as_array().unwrap().len()), (&json!(0), 2));
    let words = v1["if_destroyed"].as_str().unwrap();
    assert_eq!(words, "nobody reads 2 backups (the newest of 2026-01-01T00:00:00Z) any more");
    let v2 = &all[&("vault-v2".to_owned(), "v2".to_owned(), Some("kek-2026-02".to_owned()))];
    assert_eq!(v2["backups"].as_array().unwrap().len(), 1);
    assert_eq!(v2["backups"][0]["taken"], "2026-01-01T00:00:00Z");
    // One that cannot be read may need anything.
    let bytes = std::fs::read(&old).unwrap();
    std::fs::write(dir.path().join("cut.db"), &bytes[..bytes.len() - 8192]).unwrap();
    run(4).says("cut.db");
}

#[test]
fn damaged_values_are_told_and_nothing_is_no_error() {
    let file = Crafted::new()
        .put("/registry/secrets/a/b", b"k8s:enc:kms:v2:p:\xff\xff".to_vec())
        .put("/registry/secrets/a/c", b"k8s:enc:kms:v1:q:\x00".to_vec())
        .file();
    let done = needs(file.path()).run().code(4).says("1 live value under `p` is damaged");
    assert_eq!(done.json()["providers"][0]["malformed"]["entries"], 1);

    let table = bin().words("kms needs --snapshot").arg(corpus::db("p1-secretbox")).run().ok();
    assert!(table.text().contains("\nnothing here depends on a KMS plugin\n"), "{table}");
    assert!(table.text().contains("\nnot examined: the write-ahead logs"), "{table}");
    needs(&corpus::db("p1-secretbox")).words("--prefix /nowhere").run().fails_with_hint(1);
    needs(&corpus::db("p1-secretbox")).words("--prefix /nowhere --allow-empty").run().ok();
}

/// How many records of each key only lie in files still.
fn left(document: &Value) -> BTreeMap<(String, String, Option<String>), u64> {
    let left = |key: &Value| key["residue_entries"].as_u64().unwrap();
    keys(document).into_iter().map(|(name, key)| (name, left(&key))).collect()
}

/// What was compacted away lies in free pages and in the log, and still needs its keys.
#[test]
fn records_that_were_compacted_away_count() {
    let before = needs(&corpus::db("p7-migrated-uncompacted")).run().ok().json();
    assert!(left(&before).values().all(|n| *n == 0), "history has them: {before}");
    let path = corpus::db("p8-compacted-not-defragged");
    let document = needs(&path).run().ok().json();
    let left_now = left(&document);
    assert_eq!(left_now.len(), 3, "v1, and two keys of v2");
    for (name, n) in &left_now {
        let history = keys(&before)[name]["history_entries"].as_u64().unwrap();
        assert!((1..=history).contains(n), "{name:?}: {n} of {history}");
        let key = &keys(&document)[name];
        assert_eq!(key["only_residue"], false, "config maps are still under it");
        let words = key["if_destroyed"].as_str().unwrap();
        assert!(words.contains(&format!("and {n} record")), "{words}");
    }
    // Each counts once, and has its bytes in the file.
    let bytes = std::fs::read(&path).unwrap();
    let prefixes = memchr::memmem::find_iter(&bytes, b"k8s:enc:kms:v2:vault-v2:").count() as u64;
    let plugin = named(&document, "vault-v2");
    let counted: u64 = ["entries", "history_entries", "residue_entries"]
        .iter()
        .map(|name| plugin[name].as_u64().unwrap())
        .sum();
    assert!(counted <= prefixes, "{counted} of {prefixes}");
    assert_eq!(document["broken_residue"], 0);
    assert_eq!(document["not_examined"].as_array().unwrap().len(), 1, "its members' logs");
    // The log of the member has every one that history had.
    let dir = corpus::data_dir();
    let member = bin().words("kms needs -w json --data-dir").arg(dir.path()).run().ok().json();
    for (name, n) in left(&member) {
        let history = keys(&before)[&name]["history_entries"].as_u64().unwrap();
        assert!(n >= history && n >= left_now[&name], "{name:?}: {n} of {history}");
    }
    // Defragmented, nothing of them is in the file; a past revision says nothing of files.
    let clean = needs(&corpus::db("p9-defragged")).run().ok().json();
    assert!(left(&clean).values().all(|n| *n == 0), "{clean}");
    let now = document["source"]["revision"].to_string();
    let past = needs(&path).words("--revision").arg(&now).run().ok();
    let past = past.says("what files still hold of older values was not counted").json();
    assert_eq!(past["broken_residue"], Value::Null);
    let table = bin().words("kms needs --snapshot").arg(&path).run().ok();
    assert!(table.text().contains("RESIDUE"), "{}", table.text());
}

/// Nothing of KMS is served any more.
#[test]
fn a_key_that_only_residue_needs_is_told() {
    let etcd = crate::support::Etcd::builder(crate::support::Version::V35)
        .restore(corpus::db("p8-compacted-not-defragged"))
        .start();
    for prefix in ["/registry/configmaps/", "/registry/example.com/"] {
        etcd.ctl(&["del", "--prefix", prefix]);
    }
    let status = etcd.ctl(&["get", "x", "-w", "json"]);
    let status: Value = serde_json::from_slice(&status).unwrap();
    etcd.ctl(&["compact", "--physical", &status["header"]["revision"].to_string()]);
    let dir = etcd.stop();
    let member = dir.path().join("etcd");
    let document = bin().words("kms needs -w json --data-dir").arg(member).run().ok().json();
    for (name, key) in keys(&document) {
        let n = key["residue_entries"].as_u64().unwrap();
        assert!(n > 0 && key["only_residue"] == true, "{name:?}: {key}");
        let words = key["if_destroyed"].as_str().unwrap();
        assert!(words.starts_with("only residue needs it; nobody reads "), "{words}");
    }
    assert_eq!(keys(&document).len(), 3);
}

fn named<'v>(document: &'v Value, name: &str) -> &'v Value {
    document["providers"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()
}

/// A served key space has no files, and that is told.
#[test]
fn what_a_live_etcd_does_not_show_is_told() {
    let etcd = crate::support::Etcd::builder(crate::support::Version::V35)
        .restore(corpus::db("p8-compacted-not-defragged"))
        .start();
    let done = bin().words("kms needs -w json").args(etcd.args()).run().ok();
    let document = done.json();
    assert_eq!(document["not_examined"].as_array().unwrap().len(), 2, "{document}");
    assert_eq!(document["broken_residue"], Value::Null);
}

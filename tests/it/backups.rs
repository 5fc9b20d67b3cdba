//! `backups`: a directory of whole, packed, cut and foreign files.

use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::support::{bin, corpus};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn at<'v>(document: &'v Value, name: &str) -> &'v Value {
    let all = document["backups"].as_array().unwrap();
    all.iter().find(|b| b["location"].as_str().unwrap().ends_with(name)).unwrap()
}

fn fill(dir: &Path) {
    let p1 = std::fs::read(corpus::db("p1b-partial-migration")).unwrap();
    let p2 = std::fs::read(corpus::db("p2-aescbc")).unwrap();
    std::fs::create_dir(dir.join("older")).unwrap();
    std::fs::write(dir.join("etcd-snapshot-node-1767225600"), &p1).unwrap();
    std::fs::write(dir.join("older/etcd-snapshot-node-1735689600.gz"), gzip(&p1)).unwrap();
    std::fs::write(dir.join("cbc.db.zst"), zstd::encode_all(&p2[..], 1).unwrap()).unwrap();
    std::fs::write(dir.join("cut.db"), &p1[..p1.len() - 8192]).unwrap();
    std::fs::write(dir.join("notes.txt"), "no backup").unwrap();
}

#[test]
fn each_is_judged_and_each_key_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let done = bin()
        .words("backups -w json --encryption-config")
        .arg(corpus::private_config("p1-secretbox"))
        .arg(dir.path())
        .run()
        .code(4);
    let document = done.json();
    assert_eq!(document["schema"], "atrest.backups/v1");
    assert_eq!(document["backups"].as_array().unwrap().len(), 5);
    let whole = at(&document, "node-1767225600");
    assert_eq!((&whole["kind"], &whole["error"]), (&"snapshot".into(), &Value::Null));
    assert_eq!(whole["taken"], "2026-01-01T00:00:00Z");
    assert_eq!(whole["revision"], corpus::entries("p1b-partial-migration").revision);
    assert!(whole["totals"]["plaintext"].as_u64().unwrap() > 0);
    assert_eq!(whole["totals"]["unreadable"], 0);
    let packed = at(&document, ".gz");
    for field in ["revision", "totals", "keys", "residue"] {
        assert_eq!(packed[field], whole[field], "{field}");
    }
    assert!(at(&document, "cbc.db.zst")["totals"]["unreadable"].as_u64().unwrap() > 0);
    assert!(at(&document, "cut.db")["error"].is_string());
    assert_eq!(at(&document, "notes.txt")["kind"], "not-a-backup");
    let keys = document["keys"].as_array().unwrap();
    let first = keys.iter().find(|k| k["key"] == "secret-key-1").unwrap();
    assert_eq!(first["oldest"], "2025-01-01T00:00:00Z");
    assert!(keys.iter().any(|k| k["key"] == "cbc-2" && k["backups"] == 1));
}

#[test]
fn nothing_found_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    bin().arg("backups").arg(dir.path()).run().fails_with_hint(1);
    std::fs::write(dir.path().join("notes.txt"), "no backup").unwrap();
    bin().arg("backups").arg(dir.path()).run().fails_with_hint(1).says("no backup among 1 file");
    bin().arg("backups").arg(dir.path().join("none")).run().fails_with_hint(1);
}

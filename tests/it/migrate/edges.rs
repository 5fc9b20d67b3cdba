//! Entries at the edges of what etcd takes: too large once they are encrypted, gone with their
//! lease, under deletion.

use serde_json::json;

use super::{applied, migrate, number, state};
use crate::support::{Etcd, Version, corpus};

/// etcd's `--max-request-bytes` by default (etcd `server/embed/config.go`); it counts the whole
/// request.
const LIMIT: usize = 1_572_864;

fn object(name: &str, data: usize, more: &str) -> String {
    let data = "A".repeat(data / 4 * 4);
    format!(
        r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"{name}","namespace":"a"{more}}},"data":{{"v":"{data}"}}}}"#
    )
}

/// What grows beyond etcd's limit stays as it is, is named, and stops nothing else; what still
/// fits is rewritten.
#[test]
fn a_value_that_no_longer_fits_is_named_and_stays() {
    for (version, config) in [(Version::V34, "p2-aescbc"), (Version::V35, "p1-secretbox")] {
        let etcd = Etcd::plain(version);
        let put = |name: &str, size: usize| {
            etcd.put(&format!("/registry/secrets/a/{name}"), object(name, size, "").as_bytes());
        };
        put("fits", LIMIT - 1024);
        put("grows", LIMIT - 180);
        put("small", 100);
        let before = state(&etcd);
        let grows = "/registry/secrets/a/grows";
        assert!(before[grows].value.len() < LIMIT);
        let config = corpus::private_config(config);
        let done = migrate(&etcd, &[&config], "--apply --no-backup -w json").run().code(4);
        let report = done.says(grows).json();
        assert_eq!((number(&report, "planned"), number(&report, "written")), (3, 2));
        assert_eq!(number(&report, "remaining"), 1);
        assert_eq!(report["failed"][0]["key"], grows);
        let reason = report["failed"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("too large"), "{reason}");
        let after = state(&etcd);
        assert!(after[grows] == before[grows], "what cannot be written is not touched");
        assert!(after["/registry/secrets/a/fits"].value.starts_with(b"k8s:enc:"));
    }
}

/// An object under deletion is rewritten as it is: its finalizers still hold it.
#[test]
fn objects_under_finalizers_are_rewritten_whole() {
    let etcd = Etcd::plain(Version::V35);
    let under = r#","deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":0,"finalizers":["example.com/hold"]"#;
    let text = object("held", 40, under);
    etcd.put("/registry/secrets/a/held", text.as_bytes());
    let config = corpus::private_config("p1-secretbox");
    assert_eq!(number(&applied(&etcd, &[&config], ""), "written"), 1);
    let get = crate::support::bin().words("get secrets/a/held -w json --encryption-config");
    let read = get.arg(&config).args(etcd.args()).run().ok().json();
    assert_eq!(read["metadata"]["finalizers"], json!(["example.com/hold"]));
    assert_eq!(read["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
}

/// An entry that goes with its lease before it is written is not written again.
#[test]
fn an_entry_whose_lease_ends_stays_gone() {
    let etcd = Etcd::plain(Version::V35);
    let granted = String::from_utf8(etcd.ctl(&["lease", "grant", "3600"])).unwrap();
    let lease = granted.split_whitespace().nth(1).unwrap().to_owned();
    let text = object("leased", 40, "");
    etcd.ctl(&["put", "--lease", &lease, "/registry/secrets/a/leased", &text]);
    for n in 0..200 {
        etcd.put(&format!("/registry/secrets/a/b-{n:03}"), object("b", 40, "").as_bytes());
    }
    let config = corpus::private_config("p1-secretbox");
    // Slowly, in the order of the keys: the leased entry is the last.
    let words = "--apply --no-backup --qps 100 --concurrency 1 -w json";
    let running = migrate(&etcd, &[&config], words).spawn();
    let first = "/registry/secrets/a/b-000";
    while !etcd.get(first).is_some_and(|value| value.starts_with(b"k8s:enc:")) {
        std::thread::yield_now();
    }
    etcd.ctl(&["lease", "revoke", &lease]);
    let done = running.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((number(&report, "written"), number(&report, "deleted")), (200, 1));
    assert!(!state(&etcd).contains_key("/registry/secrets/a/leased"));
}

//! Values that are no objects: empty, cut off, garbage.

use std::collections::BTreeSet;

use super::{applied, config, migrate, number, providers, state};
use crate::support::plugs::Plugs;
use crate::support::{Etcd, Version, corpus, secret};

/// A Secret as the API server stores it.
fn stored(name: &str) -> Vec<u8> {
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": name, "namespace": "a"},
        "data": {"password": "bWFkZS11cA=="},
    });
    atrest::storage::encode(&object).unwrap().to_vec()
}

#[test]
fn they_are_named_and_left_and_the_rest_is_done() {
    let whole = stored("cut");
    let bad: [(&str, &[u8]); 4] = [
        ("/registry/secrets/a/empty", b""),
        ("/registry/secrets/a/cut", &whole[..whole.len() / 2]),
        ("/registry/secrets/a/garbage", b"\xf3\x91\x07\xb2 no envelope, no object"),
        ("/registry/secrets/a/typeless", b"{\"data\":{}}"),
    ];
    let names: BTreeSet<&str> = bad.iter().map(|(key, _)| *key).collect();
    let plugs = Plugs::start("kek-2026-02");
    let dir = tempfile::tempdir().unwrap();
    for (provider, text) in providers(&plugs) {
        let etcd = Etcd::plain(Version::V35);
        for i in 0..20 {
            etcd.put(&format!("/registry/secrets/a/s{i:02}"), &stored(&format!("s{i:02}")));
        }
        for (key, value) in bad {
            etcd.put(key, value);
        }
        let file = config(dir.path(), provider, &format!("{text}\n  - identity: {{}}"));
        let before = state(&etcd);
        let plan = migrate(&etcd, &[&file], "-w json").run().code(4).json();
        assert_eq!(number(&plan, "planned"), 20, "{provider}");
        // Again and again, until somebody deals with them.
        for written in [20, 0] {
            let done = migrate(&etcd, &[&file], "--apply --no-backup -w json").run().code(4);
            let report = done.json();
            assert_eq!(number(&report, "written"), written, "{provider}");
            assert_eq!(number(&report, "verified"), written, "{provider}");
            assert_eq!(number(&report, "remaining"), 4, "{provider}");
            let failed = report["failed"].as_array().unwrap();
            assert_eq!(failed.len(), 4);
            assert!(failed.iter().all(|f| names.contains(f["key"].as_str().unwrap())));
            assert!(names.iter().all(|name| done.stderr.contains(name)), "{done}");
        }
        let after = state(&etcd);
        for (key, row) in &before {
            if names.contains(key.as_str()) {
                assert!(*row == after[key], "{provider}: {key} was touched");
            } else {
                assert!(after[key].value.starts_with(b"k8s:enc:"), "{provider}: {key} was not");
            }
        }
    }
}

/// One among many: the size at which chunks, threads and passes all have their part.
#[test]
fn one_of_two_thousand_stops_nothing() {
    let plugs = Plugs::start("kek-2026-02");
    let dir = tempfile::tempdir().unwrap();
    let bad = "/registry/secrets/a/s1000";
    for (i, (provider, text)) in providers(&plugs).into_iter().enumerate() {
        let etcd = Etcd::plain(Version::V35);
        let object = |i: usize| {
            let (key, name) = (format!("/registry/secrets/a/s{i:04}"), format!("s{i:04}"));
            let metadata = serde_json::json!({"name": name, "namespace": "a"});
            let object = serde_json::json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"k": "dg=="},
            });
            (key, object.to_string())
        };
        etcd.put_many((0..2000).map(object));
        let whole = stored("s1000");
        let value = if i % 2 == 0 { &b""[..] } else { &whole[..whole.len() - 20] };
        etcd.put(bad, value);
        let file = config(dir.path(), provider, &format!("{text}\n  - identity: {{}}"));
        for written in [1999, 0] {
            let done = migrate(&etcd, &[&file], "--apply --no-backup -w json").run().code(4);
            let report = done.json();
            let numbers = ["written", "verified", "remaining"].map(|n| number(&report, n));
            assert_eq!(numbers, [written, written, 1], "{provider}: {done}");
            let failed = report["failed"].as_array().unwrap();
            assert_eq!((failed.len(), &failed[0]["key"]), (1, &bad.into()), "{provider}");
            assert!(done.stderr.contains(bad), "{done}");
        }
        let after = state(&etcd);
        assert!(after[bad].value == value, "{provider}: it was touched");
        let rest = after.iter().filter(|(key, _)| *key != bad);
        assert!(rest.clone().count() == 1999, "{provider}");
        assert!(rest.clone().all(|(_, row)| row.value.starts_with(b"k8s:enc:")), "{provider}");
    }
}

/// Without encryption nothing is to be rewritten, and what is no object is told all the same.
#[test]
fn they_are_told_where_nothing_is_encrypted() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/good", &stored("good"));
    etcd.put("/registry/secrets/a/empty", b"");
    let dir = tempfile::tempdir().unwrap();
    let identity = config(dir.path(), "identity", "identity: {}");
    let report = migrate(&etcd, &[&identity], "-w json").run().code(4).json();
    assert_eq!(report["failed"][0]["key"], "/registry/secrets/a/empty");
    assert_eq!(number(&report, "current_before"), 1);
}

/// kube-apiserver `--storage-media-type=application/yaml`.
#[test]
fn yaml_is_an_object_under_every_provider() {
    let plugs = Plugs::start("kek-2026-02");
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::plain(Version::V35);
    let yaml = "apiVersion: v1\ndata:\n  k: dg==\nkind: Secret\nmetadata:\n  name: plain\n  namespace: a\n";
    etcd.put("/registry/secrets/a/plain", yaml.as_bytes());
    etcd.put("/registry/secrets/a/json", secret("json").as_bytes());
    let mut previous = corpus::private_config("p1-secretbox");
    for (provider, text) in providers(&plugs) {
        let next = config(dir.path(), provider, &text);
        assert_eq!(number(&applied(&etcd, &[&next, &previous], ""), "written"), 2, "{provider}");
        previous = next;
    }
    let identity = config(dir.path(), "identity", "identity: {}");
    applied(&etcd, &[&identity, &previous], "");
    assert!(etcd.get("/registry/secrets/a/plain").unwrap() == yaml.as_bytes());
}

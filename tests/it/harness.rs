//! The tests' own tools do what the other tests rely on.

use crate::support::certs::Certs;
use crate::support::{Etcd, Version, bin, corpus};

#[test]
fn the_binary_tells_its_version() {
    for word in ["--version", "version"] {
        let done = bin().arg(word).run().ok();
        assert_eq!(done.text(), concat!("atrest ", env!("CARGO_PKG_VERSION"), "\n"));
        assert_eq!(done.stderr, "");
    }
}

#[test]
fn the_corpus_is_whole() {
    for phase in corpus::PHASES {
        let entries = corpus::entries(phase);
        assert!(entries.revision > 0 && entries.entries.len() > 200, "{phase}");
        assert!(corpus::db(phase).exists());
        assert!(corpus::kubectl(phase)["items"].as_array().is_some_and(|i| i.len() > 10));
    }
    assert!(corpus::kubectl_all().contains_key("secrets"));
    assert!(corpus::data_dir().path().join("member/snap/db").exists());
}

#[test]
fn etcd_starts_plain_and_keeps_bytes() {
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::plain(version);
        etcd.put("/registry/x", b"k8s\0\n\xff\n");
        assert_eq!(etcd.get("/registry/x").unwrap(), b"k8s\0\n\xff\n");
        assert_eq!(etcd.get("/registry/y"), None);
    }
}

#[test]
fn etcd_restores_a_snapshot_and_serves_it_over_mutual_tls() {
    let certs = Certs::new();
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::builder(version).tls(&certs).restore(corpus::db("p0-plaintext")).start();
        let got = etcd.ctl(&["get", "/registry/", "--prefix", "--keys-only", "-w", "json"]);
        let got: serde_json::Value = serde_json::from_slice(&got).unwrap();
        let expected = corpus::entries("p0-plaintext").entries.len();
        assert_eq!(got["count"].as_u64(), Some(expected as u64));
    }
}

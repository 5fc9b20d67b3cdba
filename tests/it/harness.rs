//! The tests' own tools do what the other tests rely on.

use crate::support::certs::Certs;
use crate::support::{Etcd, Version, bin, corpus};

#[test]
fn the_binary_tells_its_version() {
    let first = concat!("atrest ", env!("CARGO_PKG_VERSION"));
    for word in ["--version", "version"] {
        let done = bin().arg(word).run().ok();
        let lines: Vec<_> = done.text().lines().collect();
        let names: Vec<_> = lines[1..].iter().filter_map(|l| Some(l.split_once(':')?.0)).collect();
        assert_eq!(lines[0], first);
        assert_eq!(names, ["commit", "date", "target", "features"], "{word}");
        assert_eq!(done.stderr, "");
    }
    assert_eq!(bin().arg("-V").run().ok().text(), format!("{first}\n"));
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

//! `residue --every-member`: what the files of a running cluster's members hold.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::bin;
use crate::support::cluster::Cluster;
use crate::support::etcd::{Etcd, free_ports};
use crate::support::tools::{self, Version};

/// Throwaway data of the test.
const PLAIN: &str = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"b","namespace":"a"},"data":{"k":"dg=="}}"#;
const SEALED: &str = "k8s:enc:secretbox:v1:key1:abcdef";
const COUNT: usize = 40;

fn key(n: usize) -> String {
    format!("/registry/secrets/a/s{n:02}")
}

fn places(document: &Value, only: &str) -> BTreeSet<(String, String)> {
    let all = document["findings"].as_array().unwrap().iter();
    let of_kind = all.filter(|f| f["where"].as_str().unwrap() == only);
    of_kind.map(|f| (f["location"].to_string(), f["key"].to_string())).collect()
}

#[test]
fn free_pages_of_a_running_member_are_searched() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put_many((0..COUNT).map(|n| (key(n), PLAIN.to_owned())));
    etcd.put_many((0..COUNT).map(|n| (key(n), SEALED.to_owned())));
    let got: Value = serde_json::from_slice(&etcd.ctl(&["get", "x", "-w", "json"])).unwrap();
    etcd.ctl(&["compact", "--physical", &got["header"]["revision"].to_string()]);
    let run = |words: &str| bin().words("residue -w json").words(words).args(etcd.args()).run();
    let served = run("").ok().says("--every-member searches a snapshot of each member").json();
    assert_eq!((&served["verdict"], &served["head"]["plaintext"]), (&"clean".into(), &0.into()));
    assert!(served["not_examined"][0].as_str().unwrap().starts_with("free pages"), "{served}");
    let found = run("--every-member").ok().json();
    assert_eq!(found["verdict"], "residue", "{found}");
    assert_eq!(found["source"]["kind"], "etcd");
    let not_examined = found["not_examined"].as_array().unwrap();
    assert_eq!(not_examined.len(), 1, "{not_examined:?}");
    // What etcdctl's snapshot of the same state shows.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.db");
    etcd.snapshot(&file);
    let of_file = bin().words("residue -w json --snapshot").arg(&file).run().ok().json();
    let keys = |document: &Value| -> BTreeSet<String> {
        let all = document["findings"].as_array().unwrap().iter();
        all.map(|f| f["key"].to_string()).filter(|k| k != "null").collect()
    };
    assert_eq!(keys(&found), keys(&of_file));
    assert_eq!(run("--every-member --fail-on residue").code, Some(3));
    etcd.ctl(&["defrag"]);
    let clean = run("--every-member --fail-on residue").ok().json();
    assert_eq!(clean["verdict"], "clean");
}

#[test]
fn each_member_has_places_of_its_own_and_one_history() {
    let mut cluster = Cluster::start(Version::V35);
    for value in [PLAIN, SEALED] {
        for n in 0..4 {
            cluster.ctl(&["put", &key(n)], value);
        }
    }
    let endpoints = cluster.endpoints();
    let run = || {
        let residue = bin().words("residue --every-member -w json --dial-timeout 2s --endpoints");
        residue.arg(&endpoints).run()
    };
    let found = run().ok().json();
    // Every member has the same revisions: they count once.
    assert_eq!(found["totals"]["superseded-revision"], 4, "{found}");
    let revision = cluster.ctl(&["get", &key(0), "-w", "json"], "");
    let revision: Value = serde_json::from_slice(&revision).unwrap();
    let revision = revision["header"]["revision"].to_string();
    cluster.ctl_at(0, &["compact", "--physical", &revision]);
    let found = run().ok().json();
    let pages = places(&found, "free-page");
    for name in ["m0", "m1", "m2"] {
        let of_member = pages.iter().filter(|(at, _)| at.starts_with(&format!("\"{name}: page ")));
        assert!(of_member.count() > 0, "nothing of {name}: {found}");
    }
    cluster.kill(2);
    let found = run().ok().json();
    let missing = found["not_examined"][0].as_str().unwrap();
    assert!(missing.starts_with("member m2 (http://127.0.0.1:"), "{missing}");
    assert!(places(&found, "free-page").iter().all(|(at, _)| !at.contains("m2")), "{found}");
}

/// Keys have another prefix in the files than through a proxy with a namespace: nothing found
/// there is no proof.
#[test]
fn behind_a_proxy_with_a_namespace_the_files_prove_nothing() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put(&format!("/tenant{}", key(0)), PLAIN.as_bytes());
    etcd.put(&format!("/tenant{}", key(0)), SEALED.as_bytes());
    let [port] = free_ports();
    let at = format!("127.0.0.1:{port}");
    let mut proxy = Command::new(tools::program(Version::V35, "etcd"))
        .args(["grpc-proxy", "start", "--namespace=/tenant", "--endpoints", &etcd.endpoint()])
        .arg(format!("--listen-addr={at}"))
        .arg(format!("--advertise-client-url={at}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while TcpStream::connect(&at).is_err() {
        assert!(start.elapsed() < Duration::from_mins(1), "the proxy does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let run = bin().words("residue --every-member -w json --endpoints").arg(&at).run();
    proxy.kill().unwrap();
    proxy.wait().unwrap();
    let found = run.ok().json();
    assert_eq!(found["totals"]["superseded-revision"], 1, "{found}");
    let pages = found["not_examined"].to_string();
    assert!(pages.contains("behind a proxy with a namespace"), "{pages}");
}

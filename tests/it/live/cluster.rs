//! Several members: one that goes away is replaced.

use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::bin::Bin;
use crate::support::certs::Certs;
use crate::support::etcd::free_ports;
use crate::support::proxy::Proxy;
use crate::support::{Etcd, Version, bin};

/// A cluster with 8 MB of Secrets, and its certificates.
fn filled() -> ([Etcd; 3], Certs) {
    let certs = Certs::new();
    let members = Etcd::cluster(Version::V35, &certs);
    let value = "v".repeat(40_000);
    let name = |i| (format!("/registry/secrets/default/s{i:03}"), value.clone());
    members[0].put_many((0..200).map(name));
    (members, certs)
}

/// Options for `first` and, after it, other members.
fn connected(command: Bin, first: &str, members: &[&Etcd]) -> Bin {
    let mut endpoints = vec![first.to_owned()];
    endpoints.extend(members.iter().map(|m| m.endpoint()));
    // The certificates are the same for all.
    let certificates = members[0].args().split_off(2);
    command.arg("--endpoints").arg(endpoints.join(",")).args(certificates)
}

/// Deletes below a prefix once the cluster has a leader again: while it elects one, etcd refuses
/// some requests and lets others time out.
fn delete(member: &Etcd, prefix: &str) {
    let start = Instant::now();
    loop {
        let done = member.try_ctl(&["--command-timeout=30s", "del", "--prefix", prefix], b"");
        if done.status.success() {
            break;
        }
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(start.elapsed() < Duration::from_mins(1), "{stderr}");
    }
}

/// A scan that is held at the first member after its first page.
fn held(proxy: &Proxy, members: &[&Etcd]) -> Child {
    proxy.hold_after(3 << 20);
    let command = bin().words("scan -w json --command-timeout 2s --dial-timeout 1s");
    let child = connected(command, &proxy.endpoint, members).spawn();
    proxy.wait_until_held();
    child
}

#[track_caller]
fn whole(child: Child) {
    let done = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{stderr}");
    let json: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(json["totals"]["entries"], 200);
}

#[test]
fn a_member_that_dies_during_a_scan_is_replaced() {
    let ([mut first, second, third], _certs) = filled();
    let proxy = Proxy::new(&first.endpoint());
    let child = held(&proxy, &[&second, &third]);
    first.kill();
    proxy.cut();
    whole(child);
}

#[test]
fn a_member_that_hangs_during_a_scan_is_replaced() {
    let ([first, second, third], _certs) = filled();
    let proxy = Proxy::new(&first.endpoint());
    let child = held(&proxy, &[&second, &third]);
    first.signal("-STOP");
    proxy.release();
    whole(child);
    // It hangs still, and is passed over from the start.
    let start = Instant::now();
    let words = "scan -w json --dial-timeout 500ms";
    let done = connected(bin().words(words), &first.endpoint(), &[&second, &third]).run().ok();
    assert_eq!(done.json()["totals"]["entries"], 200);
    assert!(start.elapsed() < Duration::from_mins(1));
}

#[test]
fn a_cluster_that_loses_its_quorum_during_a_scan_is_an_error() {
    let ([first, mut second, mut third], _certs) = filled();
    let proxy = Proxy::new(&first.endpoint());
    let child = held(&proxy, &[&second, &third]);
    second.kill();
    third.kill();
    proxy.release();
    let done = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(done.stdout.is_empty(), "a partial result");
    assert!(stderr.starts_with("error: no etcd endpoint could be used"), "{stderr}");
    assert!(stderr.contains(&second.endpoint()) && stderr.contains("hint: "), "{stderr}");
}

#[test]
fn a_watch_goes_on_at_another_member() {
    use std::io::BufRead as _;
    let ([first, second, third], _certs) = filled();
    let words = "scan --watch --until-done -n default";
    let command = connected(bin().words(words), &first.endpoint(), &[&second, &third]);
    let mut child = command.spawn();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(line["remaining"], 200);
    drop(first);
    delete(&second, "/registry/secrets/default/s0");
    let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(line["remaining"], 100);
    delete(&second, "/registry/secrets/default/s1");
    let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(line["remaining"], 0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_learner_serves_its_own_state() {
    let certs = Certs::new();
    let [first, second]: [u16; 2] = free_ports();
    let peers = [first, second].map(|port| format!("http://127.0.0.1:{port}"));
    let cluster = format!("--initial-cluster=m0={},m1={}", peers[0], peers[1]);
    let member = |name: &str, peer: &str| {
        Etcd::builder(Version::V35)
            .tls(&certs)
            .arg(format!("--name={name}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
    };
    let voter = member("m0", &peers[0]).arg(format!("--initial-cluster=m0={}", peers[0])).start();
    let secret = br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"b","namespace":"a"}}"#;
    voter.put("/registry/secrets/a/b", secret);
    voter.ctl(&["member", "add", "m1", "--learner", &format!("--peer-urls={}", peers[1])]);
    let learner = member("m1", &peers[1]).arg(cluster).arg("--initial-cluster-state=existing");
    let learner = learner.start();
    // It may have to catch up.
    let start = Instant::now();
    loop {
        let done = bin().words("scan -w json").args(learner.args()).run().ok().says("learner");
        if done.json()["totals"]["entries"] == 1 {
            break;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "{done}");
    }
    let history = || bin().words("history -w jsonl secrets/a/b");
    history().args(learner.args()).run().fails_with_hint(1).says("learner").says("voting member");
    // Another member takes over what it does not serve.
    let both = connected(history(), &learner.endpoint(), &[&voter]).run().ok();
    assert_eq!(both.jsonl().len(), 1);
    let both = connected(bin().words("scan -w json"), &learner.endpoint(), &[&voter]).run().ok();
    assert!(!both.stderr.contains("learner"), "{both}");
}

//! What goes wrong during a scan.

use std::process::{Child, Output};

use serde_json::Value;

use crate::support::proxy::Proxy;
use crate::support::{Etcd, Version, bin};

/// 12 MB in pages that a test can stop between.
fn filled(version: Version) -> Etcd {
    let etcd = Etcd::plain(version);
    let value = "v".repeat(40_000);
    let name = |i| (format!("/registry/secrets/default/s{i:03}"), value.clone());
    etcd.put_many((0..300).map(name));
    etcd
}

/// A scan that is held after its first page.
fn held(proxy: &Proxy, endpoints: &str) -> Child {
    proxy.hold_after(5 << 20);
    let child =
        bin().words("scan -w json --command-timeout 20s --endpoints").arg(endpoints).spawn();
    proxy.wait_until_held();
    child
}

fn end(child: Child) -> (Output, String) {
    let done = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
    (done, stderr)
}

#[track_caller]
fn whole(child: Child, revision: i64) {
    let (done, stderr) = end(child);
    assert_eq!(done.status.code(), Some(0), "{stderr}");
    let json: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(json["totals"]["entries"], 300);
    assert_eq!(json["totals"]["plaintext"], 300);
    assert_eq!(json["source"]["revision"], revision);
}

fn revision(etcd: &Etcd) -> i64 {
    let out = etcd.ctl(&["get", "x", "-w", "json"]);
    serde_json::from_slice::<Value>(&out).unwrap()["header"]["revision"].as_i64().unwrap()
}

#[test]
fn writes_during_a_scan_do_not_show() {
    let etcd = filled(Version::V35);
    let at = revision(&etcd);
    let proxy = Proxy::new(&etcd.endpoint());
    let child = held(&proxy, &proxy.endpoint);
    etcd.ctl(&["del", "/registry/secrets/default/s299"]);
    etcd.put("/registry/secrets/default/s298", b"k8s:enc:secretbox:v1:k:x");
    etcd.put("/registry/secrets/default/t", b"k8s:enc:secretbox:v1:k:x");
    proxy.release();
    whole(child, at);
}

#[test]
fn a_compaction_during_a_scan_is_named() {
    for version in [Version::V34, Version::V35] {
        let etcd = filled(version);
        let at = revision(&etcd);
        let proxy = Proxy::new(&etcd.endpoint());
        let child = held(&proxy, &proxy.endpoint);
        etcd.put("/registry/secrets/default/t", b"x");
        etcd.ctl(&["compact", &(at + 1).to_string()]);
        proxy.release();
        let (done, stderr) = end(child);
        assert_eq!(done.status.code(), Some(1), "{stderr}");
        assert!(done.stdout.is_empty(), "a partial result");
        let error = format!("error: revision {at} was compacted during the scan");
        assert!(stderr.starts_with(&error), "{stderr}");
        assert!(stderr.contains("\nhint: "), "{stderr}");
    }
}

#[test]
fn a_member_that_goes_away_is_replaced_at_the_same_revision() {
    let etcd = filled(Version::V35);
    let at = revision(&etcd);
    let (first, second) = (Proxy::new(&etcd.endpoint()), Proxy::new(&etcd.endpoint()));
    let child = held(&first, &format!("{},{}", first.endpoint, second.endpoint));
    etcd.put("/registry/secrets/default/t", b"x");
    // It has told which cluster it belongs to, and no key.
    assert!(second.passed() < 4096);
    first.cut();
    whole(child, at);
    assert!(second.passed() > 1 << 20);
}

#[test]
fn a_lost_connection_is_made_again() {
    let etcd = filled(Version::V34);
    let at = revision(&etcd);
    let proxy = Proxy::new(&etcd.endpoint());
    let child = held(&proxy, &proxy.endpoint);
    proxy.drop_connections();
    whole(child, at);
}

#[test]
fn the_only_member_going_away_is_an_error() {
    let etcd = filled(Version::V35);
    let proxy = Proxy::new(&etcd.endpoint());
    let child = held(&proxy, &proxy.endpoint);
    proxy.cut();
    let (done, stderr) = end(child);
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(done.stdout.is_empty(), "a partial result");
    assert!(stderr.starts_with("error: ") && stderr.contains(&proxy.endpoint), "{stderr}");
    assert!(stderr.contains("\nhint: "), "{stderr}");
}

#[test]
fn pages_come_in_while_others_are_read() {
    // The reader of stdout is not what holds a scan up, so what a page costs is seen in the
    // bytes that the server could send while the first page was held.
    let etcd = filled(Version::V35);
    let proxy = Proxy::new(&etcd.endpoint());
    let child = held(&proxy, &proxy.endpoint);
    proxy.release();
    let at = revision(&etcd);
    whole(child, at);
    let sent = proxy.passed();
    assert!(sent < 14_000_000, "nothing is fetched twice, but the server sent {sent} bytes");
}

#[test]
fn a_member_that_hangs_is_given_up() {
    let etcd = filled(Version::V35);
    let proxy = Proxy::new(&etcd.endpoint());
    proxy.hold_after(5 << 20);
    let words = "scan -w json --command-timeout 1s --endpoints";
    let child = bin().words(words).arg(&proxy.endpoint).spawn();
    proxy.wait_until_held();
    etcd.signal("-STOP");
    proxy.release();
    let (done, stderr) = end(child);
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(done.stdout.is_empty(), "a partial result");
    assert!(stderr.contains("no answer within 1s") && stderr.contains("\nhint: "), "{stderr}");
    assert!(stderr.contains(": reading broke off after "), "{stderr}");
}

#[test]
fn a_history_that_breaks_off_is_none() {
    let etcd = filled(Version::V35);
    for command in ["history -w jsonl /registry/", "keys -w json", "residue -w json"] {
        let proxy = Proxy::new(&etcd.endpoint());
        proxy.hold_after(2 << 20);
        let child = bin().words(command).arg("--endpoints").arg(&proxy.endpoint).spawn();
        proxy.wait_until_held();
        proxy.cut();
        let (done, stderr) = end(child);
        assert_eq!(done.status.code(), Some(1), "{command}: {stderr}");
        assert!(done.stdout.is_empty(), "{command}: a partial result");
        assert!(stderr.starts_with("error: ") && stderr.contains("\nhint: "), "{stderr}");
    }
}

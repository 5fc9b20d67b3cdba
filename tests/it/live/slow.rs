//! Links that are slow, and links that break.

use std::time::{Duration, Instant};

use crate::support::certs::Certs;
use crate::support::corpus;
use crate::support::proxy::Proxy;
use crate::support::{Etcd, Version, bin};

fn filled(version: Version, entries: usize) -> Etcd {
    fill(Etcd::plain(version), entries)
}

/// Entries of 30,000 bytes each.
fn fill(etcd: Etcd, entries: usize) -> Etcd {
    let value = "v".repeat(30_000);
    etcd.put_many((0..entries).map(|i| (format!("/registry/secrets/a/s{i:03}"), value.clone())));
    etcd
}

/// The first page, of a hundred entries, needs five seconds here, and the limit is three.
#[test]
fn a_slow_link_gets_smaller_pages() {
    for version in [Version::V34, Version::V35] {
        let etcd = filled(version, 130);
        let proxy = Proxy::new(&etcd.endpoint());
        proxy.slow(600_000);
        let words = "scan -w json --command-timeout 3s --endpoints";
        let done = bin().words(words).arg(&proxy.endpoint).run().ok();
        assert_eq!(done.json()["totals"]["entries"], 130);
    }
}

/// At this rate, a single entry needs four seconds, and the limit is three.
#[test]
fn a_link_that_is_too_slow_says_so() {
    let etcd = filled(Version::V35, 110);
    let proxy = Proxy::new(&etcd.endpoint());
    proxy.slow(8_000);
    let words = "scan --command-timeout 3s --endpoints";
    let done = bin().words(words).arg(&proxy.endpoint).run().fails_with_hint(1);
    let done = done.says("the answer was still coming in after 3s").says("--command-timeout");
    assert!(!done.stderr.contains("cannot connect"), "{done}");
}

/// Whoever has answered a hundred entries speaks the right protocol.
#[test]
fn a_peer_that_hangs_up_half_way_is_not_asked_for_tls() {
    let certs = Certs::new();
    let plain = Etcd::plain(Version::V35);
    let secure = Etcd::builder(Version::V35).tls(&certs).start();
    for etcd in [plain, secure] {
        let etcd = fill(etcd, 200);
        let proxy = Proxy::new(&etcd.endpoint());
        // Pages after the first are under way.
        proxy.hold_after(4 << 20);
        let scan = bin().words("scan --command-timeout 60s --endpoints").arg(&proxy.endpoint);
        let child = scan.args(etcd.args().split_off(2)).spawn();
        proxy.wait_until_held();
        proxy.hang_up();
        let done = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{stderr}");
        assert!(done.stdout.is_empty(), "a partial result");
        let told = stderr.split("reading broke off after ").nth(1).unwrap_or_default();
        let read = told.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        assert!((100..200).contains(&read), "{stderr}");
        let place = format!("at key \"/registry/secrets/a/s{:03}\"", read - 1);
        assert!(stderr.starts_with("error: etcd at http"), "{stderr}");
        assert!(stderr.contains(&place), "{stderr}");
        assert!(stderr.contains("\nhint: check that the member is healthy"), "{stderr}");
        assert!(!stderr.contains("try http"), "{stderr}");
    }
}

#[test]
fn etcd_is_read_as_fast_as_is_asked_for() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put_many((0..700).map(|i| (format!("/registry/secrets/a/s{i:03}"), "v".to_owned())));
    let scan = |words: &str| {
        let begun = Instant::now();
        let scan = bin().words("scan -w json --command-timeout 60s").words(words);
        let done = scan.args(etcd.args()).run().ok();
        assert_eq!(done.json()["totals"]["entries"], 700, "{words}");
        begun.elapsed()
    };
    for words in ["", "--fast", "--gentle"] {
        scan(words);
    }
    // The last page, of one second's entries at most, is waited for and not after.
    assert!(scan("--qps 200") >= Duration::from_secs(2));
}

#[test]
fn how_fast_is_one_word_and_about_a_live_etcd() {
    let db = corpus::db("p1-secretbox");
    for words in ["--gentle", "--fast", "--qps 5"] {
        bin().words("scan --snapshot").arg(&db).words(words).run().fails(2);
    }
    bin().words("scan --gentle --fast").run().fails(2);
    for rate in ["0", "-1", "nan", "soon"] {
        bin().words("scan --qps").arg(rate).run().fails(2);
    }
}

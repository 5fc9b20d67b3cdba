//! Real etcd servers as a source.

pub mod auth;
mod certificates;
mod cluster;
mod endpoints;
mod failures;
mod faults;
pub mod otherwise;
mod passwords;
mod slow;
mod watching;

use serde_json::Value;

use crate::support::certs::Certs;
use crate::support::{Etcd, Version, bin, corpus};

/// `scan -w json` of a server with further words of arguments.
#[track_caller]
fn scan(etcd: &Etcd, words: &str) -> Value {
    let done = bin().words("scan -w json").words(words).args(etcd.args()).run();
    // 4: done, and some entries are unreadable.
    assert!(matches!(done.code, Some(0 | 4)), "{done}");
    done.json()
}

#[test]
fn a_live_scan_equals_the_offline_one() {
    let certs = Certs::new();
    let phases = [
        (Version::V35, "p1b-partial-migration", "p1-secretbox"),
        (Version::V34, "p1b-partial-migration", "p1-secretbox"),
        (Version::V35, "p6-mixed", "p6-sb2"),
        (Version::V34, "p6-mixed", "p6-sb2"),
    ];
    for (version, phase, config) in phases {
        let db = corpus::db(phase);
        let etcd = Etcd::builder(version).tls(&certs).restore(&db).start();
        let config = corpus::private_config(config);
        let config = format!("--encryption-config {}", config.display());
        for words in
            ["", "--all-resources", "--resource configmaps,secrets -n team-a", "--list", &config]
        {
            let live = scan(&etcd, words);
            let offline = bin().words("scan -w json").words(words).arg("--snapshot").arg(&db).run();
            let offline = offline.json();
            for part in ["groups", "totals", "never_encrypted", "config", "entries"] {
                assert_eq!(live[part], offline[part], "{version:?} {phase} {words} {part}");
            }
            assert!(live["totals"]["entries"].as_u64() > Some(10));
            assert_eq!(live["source"]["revision"], offline["source"]["revision"]);
            assert_eq!(live["source"]["kind"], "etcd");
        }
    }
}

#[test]
fn a_scan_reads_as_of_a_revision() {
    let phase = "p7-migrated-uncompacted";
    let etcd = Etcd::restored(Version::V35, &corpus::db(phase));
    let now = scan(&etcd, "");
    let then = corpus::entries("p6-mixed").revision;
    let before = scan(&etcd, &format!("--revision {then}"));
    let expected = bin().words("scan -w json --snapshot").arg(corpus::db("p6-mixed")).run().ok();
    assert_eq!(before["groups"], expected.json()["groups"]);
    assert_ne!(before["groups"], now["groups"]);
    bin()
        .words("scan --revision 999999")
        .args(etcd.args())
        .run()
        .fails_with_hint(1)
        .says("revision 999999 does not exist yet");
    etcd.ctl(&["compact", &then.to_string()]);
    for command in ["scan", "history secrets/", "export", "keys", "get secrets/default/login1"] {
        let done = bin().words(command).words(&format!("--revision {}", then - 1));
        let done = done.args(etcd.args()).run().fails_with_hint(1).says("has been compacted");
        assert!(done.stderr.contains("--revision") && done.stdout.is_empty(), "{done}");
    }
}

#[test]
fn no_size_of_values_stops_a_scan() {
    let big = vec![b'x'; 900_000];
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::plain(version);
        for i in 0..40 {
            etcd.put(&format!("/registry/secrets/big/s{i:02}"), &big);
        }
        // Small ones first, so that the scan expects more of them.
        for i in 0..30 {
            etcd.put(&format!("/registry/secrets/a/s{i:02}"), b"k8s:enc:secretbox:v1:k:x");
        }
        let seen = scan(&etcd, "");
        assert_eq!(seen["totals"]["plaintext"], 40);
        assert_eq!(seen["totals"]["encrypted"], 30);
        assert_eq!(seen["groups"][0]["bytes"], 40 * 900_000);
    }
}

#[test]
fn guessed_pages_hold_every_key_once_and_in_order() {
    let etcd = Etcd::plain(Version::V35);
    let random = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // Names that count up, names without an order, and one namespace after the other.
    let name = |i: u64| match i % 5 {
        0 => format!("ns-{:03}/secret-{i:05}", i % 300),
        1 => format!("big/{:016x}", random(i)),
        2 => format!("team-{}/sh.helm.release.v1.app-{}.v{i}", i % 7, random(i) >> 50),
        3 => format!("big/default-token-{}", random(i)),
        _ => format!("zz-{i}/x"),
    };
    // Sizes jump in places.
    let value = |i: u64| "v".repeat(if i % 97 == 1 { 40_000 } else { 1_500 });
    etcd.put_many((0..5000).map(|i| (format!("/registry/secrets/{}", name(i)), value(i))));
    let keys = etcd.ctl(&["get", "--prefix", "--keys-only", "/registry/secrets/"]);
    let keys = String::from_utf8(keys).unwrap();
    let keys: Vec<_> = keys.lines().filter(|l| !l.is_empty()).collect();
    assert_eq!(keys.len(), 5000);
    let listed = bin().words("scan -w jsonl").args(etcd.args()).run().ok().jsonl();
    let listed: Vec<_> = listed.iter().map(|e| e["key"].as_str().unwrap()).collect();
    assert_eq!(listed, keys);
}

//! `scan --verify`: what decrypting shows and what it cannot show (`docs/verify.md`).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use atrest::resource::{DEFAULT_PREFIX, Scope, Selector};
use atrest::source::snapshot::{Snapshot, SnapshotOptions};
use atrest::source::{Query, Source as _};
use serde_json::Value;

use crate::support::plugs::{PHASES, Plugs};
use crate::support::snapshot::Crafted;
use crate::support::{bin, corpus};

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The stored values of all secrets, by etcd key.
fn secrets(phase: &str) -> BTreeMap<String, Vec<u8>> {
    let mut source = Snapshot::open(&corpus::db(phase), &SnapshotOptions::default()).unwrap();
    let ranges = Scope::new(DEFAULT_PREFIX).ranges(&[Selector::Exact("secrets".to_owned())]);
    let mut all = BTreeMap::new();
    let mut keep = |entry: atrest::entry::EntryRef<'_>| {
        let key = String::from_utf8(entry.key.to_vec()).unwrap();
        all.insert(key, entry.stored().to_vec());
        ControlFlow::Continue(())
    };
    source.visit(&Query { ranges, revision: None, ordered: true }, &mut keep).unwrap();
    all
}

/// Everything of every phase can be read with the configuration of its time, and decrypting
/// gives the statuses that the prefixes promise.
#[test]
fn every_phase_is_readable_and_prefixes_tell_the_same() {
    for (phase, config, key_id) in PHASES {
        let plugs = Plugs::start(key_id);
        let run = |more: &str| {
            bin()
                .words("scan -w jsonl --snapshot")
                .arg(corpus::db(phase))
                .arg("--encryption-config")
                .arg(plugs.config(config))
                .words(more)
                .run()
                .ok()
                .jsonl()
        };
        let (by_prefix, by_reading) = (run(""), run("--verify"));
        assert!(by_reading.len() > 20, "{phase}");
        assert_eq!(by_prefix.len(), by_reading.len(), "{phase}");
        for (prefix, reading) in by_prefix.iter().zip(&by_reading) {
            assert_ne!(reading["status"], "unreadable", "{phase}: {reading}");
            assert_eq!(prefix["status"], reading["status"], "{phase}: {prefix}, {reading}");
            assert_eq!(reading["reason"].is_null(), reading["status"] == "current", "{reading}");
        }
    }
}

/// After the migration everything is current; half-way through it, what was written before is not.
#[test]
fn statuses_follow_the_migration() {
    let totals = |phase: &str, config: &str| {
        let plugs = Plugs::start("kek-2026-02");
        let run = bin().words("scan --verify -w json --resource secrets --snapshot");
        let run = run.arg(corpus::db(phase)).arg("--encryption-config").arg(plugs.config(config));
        let totals = run.run().ok().json()["totals"].clone();
        ["entries", "current", "stale", "unreadable"].map(|n| totals[n].as_u64().unwrap())
    };
    let [entries, current, stale, unreadable] = totals("p7-migrated-uncompacted", "p6-sb2");
    assert_eq!([current, stale, unreadable], [entries, 0, 0]);
    let [entries, current, stale, _] = totals("p1b-partial-migration", "p1-secretbox");
    assert_eq!((entries, current, stale), (42, 18, 24));
    // Another key of the same provider writes now.
    let [entries, current, stale, _] = totals("p6-mixed", "p6-sb2");
    assert_eq!((entries, current, stale), (105, 9, 96));
}

#[test]
fn without_its_plugin_a_kms_value_is_unreadable_only_when_read() {
    let run = |more: &str| {
        bin()
            .words("scan -w json --resource secrets --snapshot")
            .arg(corpus::db("p5-kmsv2"))
            .arg("--encryption-config")
            .arg(corpus::config("p5-kmsv2"))
            .words(more)
            .run()
    };
    assert_eq!(run("").ok().json()["totals"]["unreadable"], 0);
    let read = run("--verify").code(4);
    let report = read.json();
    for g in report["groups"].as_array().unwrap() {
        assert_eq!(g["status"] == "unreadable", g["provider"] == "kms", "{g}");
    }
    assert!(report["totals"]["unreadable"].as_u64().unwrap() >= 27);
}

/// Which changes of a stored value `--verify` notices, as the table in `docs/verify.md` says.
#[test]
fn what_decrypting_detects() {
    let values = secrets("p6-mixed");
    let value = |name: &str| {
        let (key, value) = values.iter().find(|(k, _)| k.contains(name)).unwrap();
        (key.clone(), value.clone())
    };
    // Beginning of a name, whether a changed value and whether a moved one is noticed.
    let providers = [
        ("/sb-", "secretbox", true, false),
        ("/cbc1-", "aescbc", false, false),
        ("/gcm-", "aesgcm", true, true),
        ("/kmsv1-", "kms", true, true),
        ("/kmsv2-", "kms", true, true),
    ];
    let mut crafted = Crafted::new();
    for (name, ..) in providers {
        let (key, stored) = value(name);
        crafted = crafted.put(key.clone(), stored.clone());
        crafted = crafted.put(format!("/registry/secrets/moved{name}"), stored.clone());
        let mut changed = stored;
        // Not in the last two blocks, where CBC keeps its padding.
        let at = changed.len() - 48;
        changed[at] ^= 1;
        crafted = crafted.put(format!("/registry/secrets/changed{name}"), changed);
    }
    let file = crafted.file();
    let plugs = Plugs::start("kek-2026-02");
    let done = bin()
        .words("scan --verify -w jsonl --resource secrets --snapshot")
        .arg(file.path())
        .arg("--encryption-config")
        .arg(plugs.config("p6-sb2"))
        .run()
        .code(4);
    let entries = done.jsonl();
    for (name, provider, changed, moved) in providers {
        let readable = |key: &str| {
            let e = entries.iter().find(|e| text(&e["key"]) == key).unwrap();
            assert_eq!(e["provider"], provider, "{e}");
            e["status"] != "unreadable"
        };
        assert!(readable(&value(name).0), "{name} as it was stored");
        assert_eq!(!readable(&format!("/registry/secrets/moved{name}")), moved, "{name} moved");
        let key = format!("/registry/secrets/changed{name}");
        // A changed value under the same key's path: only the change is new.
        if provider == "secretbox" || provider == "aescbc" {
            assert_eq!(!readable(&key), changed, "{name} changed");
        } else {
            assert!(!readable(&key), "{name} changed and moved");
        }
    }
}

/// No part of a secret shows, whatever is wrong.
#[test]
fn nothing_decrypted_is_printed() {
    let plugs = Plugs::start("kek-2026-02");
    let run = |config: std::path::PathBuf, format: &str| {
        let run = bin().words("scan --verify --list -w").arg(format).arg("--snapshot");
        run.arg(corpus::db("p6-mixed")).arg("--encryption-config").arg(config).run()
    };
    let values: Vec<Vec<u8>> = corpus::kubectl("p6-mixed")["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|o| o["kind"] == "Secret")
        .filter_map(|o| o["data"].as_object())
        .flat_map(|data| data.values())
        .filter_map(|v| base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text(v)).ok())
        .filter(|v| v.len() >= 8 && v.len() < 200)
        .collect();
    assert!(values.len() > 50);
    for config in [plugs.config("p6-sb2"), corpus::config("p1-secretbox")] {
        for format in ["table", "json", "jsonl", "csv", "prometheus", "html"] {
            let done = run(config.clone(), format);
            let shown = [done.stdout.as_slice(), done.stderr.as_bytes()].concat();
            for value in &values {
                assert!(
                    memchr::memmem::find(&shown, value).is_none(),
                    "a secret value of {} bytes is printed as {format}",
                    value.len()
                );
            }
        }
    }
}

/// Masters whose files disagree: the first decides what is current, the keys of all read, and the
/// report says whose key read how much.
#[test]
fn several_configurations() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("first.yaml");
    std::fs::write(
        &first,
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers:\n  - aesgcm:\n      keys:\n      \
         - {name: new, secret: MDEyMzQ1Njc4OWFiY2RlZg==}\n  - identity: {}\n",
    )
    .unwrap();
    std::fs::set_permissions(&first, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let old = corpus::config("p1-secretbox");
    let run = |words: &str, configs: &[&std::path::Path]| {
        let mut run = bin().words(words).arg("--snapshot").arg(corpus::db("p1b-partial-migration"));
        for config in configs {
            run = run.arg("--encryption-config").arg(config);
        }
        run.run()
    };
    // The first alone cannot read what the old key wrote.
    let alone = run("scan --verify -w json", &[&first]).code(4).json();
    assert_eq!(alone["totals"]["unreadable"], 18);

    let both = run("scan --verify -w json", &[&first, &old]).ok().json();
    assert_eq!(both["totals"]["unreadable"], 0);
    assert_eq!(both["totals"]["stale"], 42, "only the first says what is current");
    assert_eq!(both["config"]["location"], first.to_str().unwrap());
    assert_eq!(both["config"]["also"][0]["location"], old.to_str().unwrap());
    let reads = |config: &std::path::Path, provider: &str| {
        let all = both["reads"].as_array().unwrap();
        let one = all
            .iter()
            .find(|r| text(&r["config"]) == config.to_str().unwrap() && r["provider"] == provider);
        one.map(|r| (text(&r["key"]), r["entries"].as_u64().unwrap()))
    };
    assert_eq!(reads(&old, "secretbox"), Some(("secret-key-1".to_owned(), 18)));
    assert_eq!(reads(&first, "aesgcm"), None, "nothing was written with it");

    let table = run("scan --verify", &[&first, &old]).ok();
    let table = table.text();
    assert!(table.contains(&format!("reading also with {}", old.display())), "{table}");
    let line = format!("read by secretbox secret-key-1 of {}: 18 entries", old.display());
    assert!(table.contains(&line), "{table}");
    // From the prefix alone the keys of all files count, too.
    let prefix = run("scan -w json", &[&first, &old]).ok().json();
    for word in ["entries", "current", "stale", "unreadable", "unknown"] {
        assert_eq!(prefix["totals"][word], both["totals"][word], "{word}");
    }
}

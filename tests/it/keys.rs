//! `keys`: what each key is needed for.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{bin, corpus};

fn keys(phase: &str, more: &str) -> Vec<Value> {
    let done = bin()
        .words("keys -w json --snapshot")
        .arg(corpus::db(phase))
        .arg("--encryption-config")
        .arg(corpus::config("p6-sb2"))
        .words(more)
        .run()
        .ok();
    let document = done.json();
    assert_eq!(document["schema"], "atrest.keys/v1");
    document["keys"].as_array().unwrap().clone()
}

fn named<'a>(keys: &'a [Value], key: &str) -> &'a Value {
    keys.iter().find(|k| k["key"] == key).unwrap_or_else(|| panic!("{key} is not listed"))
}

/// Live counts agree with the prefixes that a live Range returned.
#[test]
fn live_counts_are_the_prefixes_of_the_live_state() {
    for phase in ["p0-plaintext", "p6-mixed", "p7-migrated-uncompacted", "p9-defragged"] {
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        for e in corpus::entries(phase).entries.iter().filter(|e| !e.prefix.is_empty()) {
            // `k8s:enc:secretbox:v1:NAME:`
            let words: Vec<_> = e.prefix.split(':').collect();
            *expected.entry(format!("{} {} {}", words[2], words[3], words[4])).or_default() += 1;
        }
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        for k in keys(phase, "--all-resources") {
            let entries = k["entries"].as_u64().unwrap();
            if k["provider"] != "identity" && entries > 0 {
                let word = |name: &str| k[name].as_str().unwrap().to_owned();
                let name = format!("{} {} {}", word("provider"), word("version"), word("key"));
                *found.entry(name).or_default() += entries;
            }
        }
        assert_eq!(found, expected, "{phase}");
    }
}

#[test]
fn a_migrated_key_may_go_and_history_says_what_that_costs() {
    let before = keys("p6-mixed", "");
    let old = named(&before, "secret-key-1");
    assert_eq!((&old["safe_to_remove"], &old["configured"]), (&false.into(), &true.into()));
    assert!(old["reason"].as_str().unwrap().contains("18 entries"), "{old}");

    let migrated = keys("p7-migrated-uncompacted", "");
    let old = named(&migrated, "secret-key-1");
    assert_eq!((&old["entries"], &old["history_entries"]), (&0.into(), &18.into()));
    assert_eq!(old["safe_to_remove"], true);
    assert!(old["reason"].as_str().unwrap().contains("superseded"), "{old}");
    let write = named(&migrated, "secret-key-2");
    assert_eq!(write["safe_to_remove"], false);
    let writes = ["secrets", "configmaps", "widgets.example.com"];
    assert_eq!(write["write_key_for"], serde_json::json!(writes));
    // Never used, and listed all the same.
    assert_eq!(named(&migrated, "gcm-b")["reason"], "needed by no entry");

    let compacted = keys("p9-defragged", "");
    assert_eq!(named(&compacted, "secret-key-1")["history_entries"], 0);
}

/// Configmaps under the key keep it needed, whatever was asked for.
#[test]
fn a_narrow_question_gets_no_wrong_answer() {
    let narrow = keys("p7-migrated-uncompacted", "--resource secrets -n default");
    let other = named(&narrow, "cbc-1");
    assert_eq!((&other["entries"], &other["safe_to_remove"]), (&0.into(), &false.into()));
}

/// `config rotate` lets go of the keys that may go, and of no other.
#[test]
fn a_key_is_retired_only_when_nothing_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut refused, mut retired) = (0, 0);
    for phase in ["p6-mixed", "p7-migrated-uncompacted"] {
        for key in keys(phase, "") {
            let word = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
            let (provider, name) = (word("provider"), word("key"));
            // The key that writes is not for retiring, and the API server reads plaintext anyway.
            let writes = key["write_key_for"].as_array().is_some_and(|w| !w.is_empty());
            if writes || provider == "identity" || key["configured"] != true {
                continue;
            }
            let out = dir.path().join(format!("{phase}-{provider}-{name}-{}", word("kms_key_id")));
            let done = bin()
                .words("config rotate --step retire --provider")
                .args([&provider, "--key-name", &name, "--encryption-config"])
                .arg(corpus::private_config("p6-sb2"))
                .arg("--snapshot")
                .arg(corpus::db(phase))
                .arg("--out")
                .arg(&out)
                .run();
            if key["safe_to_remove"] == true {
                done.ok().says("nothing is stored under");
                assert!(!std::fs::read_to_string(&out).unwrap().contains(&format!("{name}\n")));
                retired += 1;
            } else {
                done.fails_with_hint(1).says("still stored under");
                assert!(!out.exists());
                refused += 1;
            }
        }
    }
    assert!(refused >= 12 && retired >= 3, "{refused} refused, {retired} retired");
}

//! Situations that people told of, each with the answer that is right.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::Value;

use crate::support::bin::Done;
use crate::support::kms_plugin::{Behaviour, Listen, Running};
use crate::support::snapshot::Crafted;
use crate::support::{Etcd, Version, bin};

fn private(path: &Path, text: &str) -> PathBuf {
    std::fs::write(path, text).unwrap();
    let only_me = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, only_me).unwrap();
    path.to_owned()
}

fn config(path: &Path, providers: &str) -> PathBuf {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers:\n{providers}  - identity: {{}}\n"
    );
    private(path, &text)
}

/// Keys of 32 equal bytes, thrown away with the test.
fn aescbc(keys: &[(&str, u8)]) -> String {
    let key = |(name, byte): &(&str, u8)| {
        let secret = base64::prelude::BASE64_STANDARD.encode([*byte; 32]);
        format!("      - {{name: '{name}', secret: {secret}}}\n")
    };
    format!("  - aescbc:\n      keys:\n{}", keys.iter().map(key).collect::<String>())
}

/// What the API server stores for `default/name` with a configuration.
fn stored(config: &Path, key: &str, name: &str) -> Vec<u8> {
    let manifest = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: default}}\ndata: {{k: dg==}}\n"
    );
    let encode = bin().args(["-q", "encode", "--key", key, "--encryption-config"]).arg(config);
    encode.stdin(manifest).run().ok().stdout
}

fn key_of(name: &str) -> String {
    format!("/registry/secrets/default/{name}")
}

fn row<'v>(rows: &'v Value, field: &str, is: &str) -> &'v Value {
    let rows = rows.as_array().unwrap();
    rows.iter().find(|row| row[field] == is).unwrap_or_else(|| panic!("no {is}: {rows:?}"))
}

/// k3s and RKE2 name rotated keys by the time: two of one hour are two, and the one that is missing
/// is named so that it can be searched for.
#[test]
fn keys_that_are_named_by_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let keys = [
        ("aescbckey-2026-03-09T09:46:54+01:00", 1),
        ("aescbckey-2026-03-09T09:58:02+01:00", 2),
        ("aescbckey-2026-03-09T08:58:02Z", 3),
        ("aescbckey", 4),
    ];
    let mut snapshot = Crafted::new();
    for (i, key) in keys.iter().enumerate() {
        let config = config(&dir.path().join("one.yaml"), &aescbc(&[*key]));
        let name = key_of(&format!("s{i}"));
        snapshot = snapshot.put(name.clone(), stored(&config, &name, &format!("s{i}")));
    }
    let file = snapshot.file();
    let newest = config(&dir.path().join("newest.yaml"), &aescbc(&keys[1..2]));
    let all = config(&dir.path().join("all.yaml"), &aescbc(&keys));
    let run = |words: &str, config: Option<&PathBuf>| -> Done {
        let run = bin().words(words).arg("--snapshot").arg(file.path());
        match config {
            Some(config) => run.arg("--encryption-config").arg(config).run(),
            None => run.run(),
        }
    };
    for config in [None, Some(&newest), Some(&all)] {
        let report = run("scan -w json", config).json();
        for (name, _) in keys {
            assert_eq!(row(&report["groups"], "key", name)["entries"], 1, "{name}");
        }
    }
    let totals = run("scan -w json --verify", Some(&all)).ok().json()["totals"].clone();
    assert_eq!((&totals["current"], &totals["stale"]), (&1.into(), &3.into()));
    let done = run("scan --verify", Some(&newest)).code(4);
    for (name, _) in [keys[0], keys[2], keys[3]] {
        assert!(done.stderr.contains(&format!("`{name}`")), "{name}: {done}");
    }
    let report = run("keys -w json", Some(&newest)).json();
    for (name, _) in [keys[0], keys[2], keys[3]] {
        let key = row(&report["keys"], "key", name);
        assert_eq!((&key["configured"], &key["safe_to_remove"]), (&false.into(), &false.into()));
    }
    run("get secrets/default/s0", Some(&newest)).code(4).says(keys[0].0);
    run("get secrets/default/s0", Some(&all)).ok();
}

/// Aggregated API servers whose prefix names the group, which stands in the path once more.
#[test]
fn aggregated_servers_with_a_prefix_of_their_own() {
    let etcd = Etcd::plain(Version::V35);
    let object = |api: &str, kind: &str, name: &str| {
        format!(
            r#"{{"apiVersion":"{api}","kind":"{kind}","metadata":{{"name":"{name}","namespace":"a"}}}}"#
        )
    };
    let flunder = |name: &str| object("wardle.example.com/v1", "Flunder", name);
    let doubled = "/registry/wardle.example.com/wardle.example.com/flunders/a/f";
    etcd.put(doubled, flunder("f").as_bytes());
    let broker = "/registry/servicecatalog.k8s.io/clusterservicebrokers/b";
    let text = r#"{"apiVersion":"servicecatalog.k8s.io/v1","kind":"ClusterServiceBroker","metadata":{"name":"b"}}"#;
    etcd.put(broker, text.as_bytes());
    let run = |words: &str| bin().words(words).args(etcd.args()).run();
    let report = run("scan --all-resources --list -w json").ok().json();
    for (key, resource) in [
        (doubled, "flunders.wardle.example.com"),
        (broker, "clusterservicebrokers.servicecatalog.k8s.io"),
    ] {
        assert_eq!(row(&report["entries"], "key", key)["resource"], resource);
        assert_eq!(row(&report["groups"], "resource", resource)["entries"], 1);
        let one = run(&format!("scan -w json --list --resource {resource}")).ok().json();
        assert_eq!(one["totals"]["entries"], 1, "{resource}");
        assert_eq!(one["entries"][0]["key"], key);
    }
    let items = run("export --all-resources -w json").ok().json()["items"].clone();
    assert_eq!(items.as_array().unwrap().len(), 2, "nothing is lost");
    let below = run("scan -w json --all-resources --prefix /registry/wardle.example.com/").ok();
    assert_eq!(below.json()["groups"][0]["resource"], "flunders.wardle.example.com");
}

/// A duration without a unit: what the message says to write is a valid file.
#[test]
fn what_is_said_of_a_timeout_helps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enc.yaml");
    let check = |timeout: &str| {
        let kms = format!(
            "  - kms: {{apiVersion: v2, name: p, endpoint: 'unix:///var/run/kms.sock', timeout: {timeout}}}\n"
        );
        config(&path, &kms);
        bin().words("config check").arg(&path).run()
    };
    for wrong in ["3", "'3'", "3.5", "''"] {
        let done = check(wrong).code(3);
        let said = done.text().to_owned() + &done.stderr;
        let line =
            said.lines().find(|l| l.contains("timeout: ")).unwrap_or_else(|| panic!("{said}"));
        let suggested = line.rsplit("such as `").next().unwrap().split('`').next().unwrap();
        assert!(!suggested.is_empty() && suggested.len() < 10, "{line}");
        check(suggested).ok();
    }
}

/// The KEK was rotated twice and the oldest is destroyed: what can be read, and what cannot.
#[test]
fn a_plugin_whose_oldest_key_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("atrest-cases-{}", std::process::id());
    let plugin = Running::start(Listen::Abstract(socket.clone()), Behaviour::new("kek-1"));
    let kms =
        format!("  - kms: {{apiVersion: v2, name: 1_secrets, endpoint: 'unix:///@{socket}'}}\n");
    let config = config(&dir.path().join("enc.yaml"), &kms);
    let mut snapshot = Crafted::new();
    for id in ["kek-1", "kek-2", "kek-3"] {
        plugin.set(|b| id.clone_into(&mut b.key_id));
        snapshot = snapshot.put(key_of(id), stored(&config, &key_of(id), id));
    }
    plugin.set(|b| b.destroyed = vec!["kek-1".to_owned()]);
    let file = snapshot.file();
    let run = |words: &str| {
        let run = bin().words(words).arg("--encryption-config").arg(&config);
        run.arg("--snapshot").arg(file.path()).run()
    };
    let done = run("scan --verify --list -w json").code(4).says("has been destroyed");
    let report = done.json();
    for (id, status) in [("kek-1", "unreadable"), ("kek-2", "stale"), ("kek-3", "current")] {
        assert_eq!(row(&report["entries"], "key", &key_of(id))["status"], status, "{id}");
    }
    let keys = run("keys -w json").ok().json();
    for id in ["kek-1", "kek-2", "kek-3"] {
        assert_eq!(row(&keys["keys"], "kms_key_id", id)["entries"], 1, "{id}");
    }
    drop(plugin);
    // Nobody says which is the current one.
    let totals = run("scan -w json").ok().says("unknown").json()["totals"].clone();
    assert_eq!((&totals["unknown"], &totals["current"]), (&3.into(), &0.into()));
}

/// The prefix of an API server, as its manifest spells it.
#[test]
fn the_prefix_of_a_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let gcm =
        "  - aesgcm: {keys: [{name: a, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}\n";
    let config = config(&dir.path().join("enc.yaml"), gcm);
    let etcd = Etcd::plain(Version::V35);
    for (flag, prefix) in [
        ("foo", "/foo"),
        ("foo//bar", "/foo/bar"),
        ("foo/./bar2", "/foo/bar2"),
        ("/registry/cluster1", "/registry/cluster1"),
        ("/kubernetes.io/cluster1/", "/kubernetes.io/cluster1"),
    ] {
        let key = format!("{prefix}/secrets/default/a");
        etcd.put(&key, &stored(&config, &key, "a"));
        let manifest = dir.path().join("m.yaml");
        let text = format!(
            "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command: \
             [kube-apiserver, '--etcd-servers={}', '--etcd-prefix={flag}']\n",
            etcd.url()
        );
        std::fs::write(&manifest, text).unwrap();
        let scan = bin().words("scan -w json --verify --profile kubeadm --encryption-config");
        let scan = scan.arg(&config).arg("--manifest").arg(&manifest).run().ok();
        let totals = &scan.json()["totals"];
        assert_eq!((&totals["entries"], &totals["current"]), (&1.into(), &1.into()), "{flag}");
    }
}

/// A proxy's namespace that ends with a slash leaves two of them in the keys, which no prefix of an
/// API server has.
#[test]
fn what_is_said_of_a_proxy_s_double_slash_helps() {
    let file = Crafted::new().put("/tenant-a//registry/secrets/default/a", "{}").file();
    let scan =
        |more: &str| bin().words("scan").words(more).arg("--snapshot").arg(file.path()).run();
    let done = scan("").fails_with_hint(1);
    let hint = done.stderr.lines().find_map(|l| l.strip_prefix("hint: name it: ")).unwrap();
    let options = hint.split(';').next().unwrap();
    assert_eq!(options, "--proxy-namespace /tenant-a/");
    assert!(scan(options).ok().text().contains("1 entry"));
}

/// The right secret under another name: `keys` says which key is needed, and which secret it is.
#[test]
fn a_key_that_is_needed_under_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (aescbc(&[("key2", 1)]), aescbc(&[("key1", 1)]));
    let stored_with = config(&dir.path().join("stored.yaml"), &right);
    let name = key_of("a");
    let file = Crafted::new().put(name.clone(), stored(&stored_with, &name, "a")).file();
    let keys = |providers: &str| {
        let config = config(&dir.path().join("config.yaml"), providers);
        let run = bin().words("keys -w json --encryption-config").arg(config);
        run.arg("--snapshot").arg(file.path()).run().ok()
    };
    let done = keys(&wrong);
    let key = row(&done.json()["keys"], "key", "key2").clone();
    assert_eq!((&key["configured"], &key["entries"]), (&false.into(), &1.into()));
    done.says("warning: aescbc key `key2` is needed by live entries and in no configuration")
        .says("the secret of `key1` reads it");
    let other = keys(&aescbc(&[("key1", 3)]));
    assert!(!other.stderr.contains("reads it"), "{other}");
    other.says("`key2` is needed by live entries and in no configuration");
    assert!(!keys(&right).stderr.contains("is needed"));
    // Nothing is stored under its name, and yet it is the one that must not go.
    let behind = keys(&aescbc(&[("new", 3), ("key1", 1)])).json();
    let key = row(&behind["keys"], "key", "key1");
    assert_eq!(key["safe_to_remove"], false, "{key}");
    assert!(key["reason"].as_str().unwrap().contains("`key2`"), "{key}");
}

/// Behind a proxy the API server authenticated other keys than etcd holds: the note names the
/// option that says so, and with it the value is read.
#[test]
fn what_is_said_of_keys_behind_a_proxy_helps() {
    let dir = tempfile::tempdir().unwrap();
    let gcm =
        "  - aesgcm: {keys: [{name: a, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}\n";
    let config = config(&dir.path().join("enc.yaml"), gcm);
    let value = stored(&config, &key_of("a"), "a");
    let file = Crafted::new().put(format!("/tenant-a{}", key_of("a")), value).file();
    for command in ["scan --verify", "get secrets/default/a", "export"] {
        let run = |more: &str| {
            let run = bin().words(command).words(more).arg("--encryption-config").arg(&config);
            run.arg("--snapshot").arg(file.path()).run()
        };
        let done = run("--prefix /tenant-a/registry").code(4);
        let note = done.stderr.lines().find(|l| l.starts_with("note: if an etcd proxy put"));
        let note = note.unwrap_or_else(|| panic!("no note: {done}"));
        let option = note.split("others: ").nth(1).unwrap().split(" in place").next().unwrap();
        assert_eq!(option, "--proxy-namespace /tenant-a");
        run(option).ok();
    }
}

/// A value without a prefix that is no object: judged by its prefix it counts as plaintext, which
/// is said to be doubtful; what decrypts says what it is.
#[test]
fn plaintext_that_begins_as_no_object() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir.path().join("enc.yaml"), &aescbc(&[("key1", 1)]));
    let garbage: Vec<u8> = (0..160u8).map(|i| i.wrapping_mul(197).wrapping_add(131)).collect();
    let file = Crafted::new()
        .put(key_of("db"), garbage)
        .put(key_of("empty"), "")
        .put(key_of("good"), stored(&config, &key_of("good"), "good"))
        .file();
    let scan = |more: &str| {
        bin().words("scan -w json").words(more).arg("--snapshot").arg(file.path()).run()
    };
    let with = format!("--encryption-config {}", config.display());
    for words in ["", &with, &format!("--list {with}")] {
        let done = scan(words).ok();
        assert_eq!(done.json()["totals"]["plaintext"], 2);
        done.says("no object: 2 entries: stored unencrypted, but it begins as no object")
            .says(&key_of("db"))
            .says("--verify");
    }
    let done = scan(&format!("--verify {with}")).code(4);
    assert_eq!(done.json()["totals"]["unreadable"], 2);
    assert!(!done.stderr.contains("no object: 2"), "{done}");
}

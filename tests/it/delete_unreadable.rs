//! `delete-unreadable`, on real etcd servers.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use atrest::config::{ConfigSet, load};
use atrest::kms::NoPlugins;
use atrest::secret::Plaintext;
use atrest::transform::Transformers;
use atrest::transform::kms_v2::{Object, SourceType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::bin::{Bin, bin};
use crate::support::etcd::{Etcd, Version};
use crate::support::tools;

/// Throwaway keys.
const SECRETS: [&str; 2] = [
    "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI=",
];

fn text(secret: &str, more: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers:\n  - secretbox: {{keys: [{{name: k, secret: '{secret}'}}]}}\n{more}"
    )
}

const KMS: &str =
    "  - kms: {apiVersion: v2, name: p, endpoint: 'unix:///nowhere/p.sock', timeout: 60s}\n";

fn path_of(name: &str) -> String {
    format!("/registry/secrets/default/{name}")
}

fn secret(name: &str, secret: &str) -> Vec<u8> {
    let set = ConfigSet::new(load(text(secret, "").as_bytes(), "test").unwrap()).unwrap();
    let secrets =
        Transformers::new(&set, std::sync::Arc::new(NoPlugins)).unwrap().for_resource("secrets");
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "default", "name": name}});
    let plain = Plaintext::new(object.to_string().into_bytes());
    secrets.write(path_of(name).as_bytes(), &plain).unwrap()
}

fn kms() -> Vec<u8> {
    let mut value = b"k8s:enc:kms:v2:p:".to_vec();
    let object = Object {
        data: &[7; 80],
        key_id: "kek",
        source: b"wrapped",
        annotations: Vec::new(),
        source_type: SourceType::HkdfSeed,
    };
    object.encode(&mut value).unwrap();
    value
}

struct Rig {
    etcd: Etcd,
    dir: tempfile::TempDir,
}

impl Rig {
    /// Two that can be read, one that was changed, one that was cut, one of a key that is not
    /// configured; and who may delete them.
    fn new() -> Self {
        let etcd = Etcd::plain(Version::V35);
        let rig = Self { etcd, dir: tempfile::tempdir().unwrap() };
        rig.put("a", &secret("a", SECRETS[0]));
        rig.put("z", &secret("z", SECRETS[0]));
        let mut changed = secret("changed", SECRETS[0]);
        *changed.last_mut().unwrap() ^= 1;
        rig.put("changed", &changed);
        rig.put("cut", b"k8s:enc:secretbox:v1:k:short");
        rig.put("old", b"k8s:enc:aescbc:v1:old:0123456789abcdef0123456789abcdef");
        let rbac = |plural: &str, name: &str, mut object: Value| {
            object["apiVersion"] = "rbac.authorization.k8s.io/v1".into();
            object["metadata"] = json!({"name": name});
            rig.etcd.put(&format!("/registry/{plural}/{name}"), object.to_string().as_bytes());
        };
        rbac(
            "clusterroles",
            "wrecker",
            json!({"kind": "ClusterRole", "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["delete", "unsafe-delete-ignore-read-errors"]}]}),
        );
        rbac(
            "clusterrolebindings",
            "wreckers",
            json!({"kind": "ClusterRoleBinding", "roleRef": {"kind": "ClusterRole", "name": "wrecker"}, "subjects": [{"kind": "User", "name": "ann"}]}),
        );
        rig.config("c", &text(SECRETS[0], ""));
        rig
    }

    fn put(&self, name: &str, value: &[u8]) {
        self.etcd.put(&path_of(name), value);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, name: &str, text: &str) {
        let path = self.file(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Of the configuration `c`, or another one.
    fn run(&self, config: &str, words: &str) -> Bin {
        let bin = bin().words("delete-unreadable -w json").args(self.etcd.args());
        bin.arg("--encryption-config").arg(self.file(config)).words(words)
    }

    fn apply(&self, config: &str, words: &str) -> Bin {
        self.run(config, words).arg("--apply").arg("--backup").arg(self.file("saved"))
    }

    /// Everything that etcd holds.
    fn state(&self) -> BTreeMap<String, (String, i64)> {
        let all = self.etcd.ctl(&["get", "/", "--prefix", "-w", "json"]);
        let all: Value = serde_json::from_slice(&all).unwrap();
        let of = |kv: &Value| {
            let key = STANDARD.decode(kv["key"].as_str().unwrap()).unwrap();
            let value = kv["value"].as_str().unwrap().to_owned();
            (String::from_utf8(key).unwrap(), (value, kv["mod_revision"].as_i64().unwrap()))
        };
        all["kvs"].as_array().unwrap().iter().map(of).collect()
    }
}

fn entries(document: &Value) -> BTreeMap<String, Value> {
    let all = document["entries"].as_array().unwrap().iter();
    all.map(|e| (e["name"].as_str().unwrap().to_owned(), e.clone())).collect()
}

#[test]
fn a_plan_says_why_and_who_and_how_and_changes_nothing() {
    let rig = Rig::new();
    let before = rig.state();
    let document = rig.run("c", "").run().code(4).json();
    assert_eq!(document["schema"], "atrest.delete-unreadable/v1");
    let found = entries(&document);
    let why: Vec<_> = found
        .values()
        .map(|e| {
            (
                e["name"].as_str().unwrap(),
                e["why"].as_str().unwrap(),
                e["certain"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        why,
        [("changed", "wrong-key", true), ("cut", "damaged", true), ("old", "no-key", false)]
    );
    assert_eq!(found["cut"]["who"], json!(["User ann"]));
    assert_eq!(
        found["cut"]["request"],
        json!({"method": "DELETE", "path": "/api/v1/namespaces/default/secrets/cut", "body": {"kind": "DeleteOptions", "apiVersion": "v1", "ignoreStoreReadErrorWithClusterBreakingPotential": true}})
    );
    let totals = &document["totals"];
    assert_eq!((&totals["entries"], &totals["certain"]), (&json!(5), &json!(2)));
    assert_eq!(rig.state(), before);
    let table = bin().words("delete-unreadable").args(rig.etcd.args());
    let table = table.arg("--encryption-config").arg(rig.file("c")).run().code(4);
    assert!(
        table.text().contains("kubectl delete --raw '/api/v1/namespaces/default/secrets/cut' -f -")
    );
    assert!(table.text().contains("  User ann: all of them\n"), "{}", table.text());
    // A key that opens nothing may be the wrong one, under the right name.
    rig.config("wrong", &text(SECRETS[1], ""));
    let found = entries(&rig.run("wrong", "").run().code(4).json());
    assert_eq!(
        (&found["a"]["why"], &found["a"]["certain"]),
        (&json!("unproven-key"), &json!(false))
    );
    assert_eq!(found["cut"]["why"], "damaged");
}

#[test]
fn what_is_certain_goes_and_its_neighbours_stay_and_it_can_be_put_back() {
    let rig = Rig::new();
    let before = rig.state();
    rig.apply("c", "--all-listed 3").run().fails(1).says("of 2 entries it is certain");
    assert_eq!(rig.state(), before);
    assert!(!rig.file("saved").exists());
    let document = rig.apply("c", "--all-listed 2").run().ok().json();
    assert_eq!((&document["applied"], &document["totals"]["deleted"]), (&json!(true), &json!(2)));
    let results: Vec<_> = entries(&document).values().map(|e| e["result"].clone()).collect();
    assert_eq!(results, [json!("deleted"), json!("deleted"), Value::Null]);
    let mut expected = before.clone();
    expected.retain(|key, _| !["changed", "cut"].map(path_of).contains(key));
    assert_eq!(rig.state(), expected);

    let saved = rig.file("saved");
    assert_eq!(std::fs::metadata(&saved).unwrap().permissions().mode() & 0o777, 0o600);
    let saved: Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    assert_eq!(saved["schema"], "atrest.deleted-entries/v1");
    assert_eq!(saved["entries"].as_array().unwrap().len(), 2);
    for entry in saved["entries"].as_array().unwrap() {
        let bytes = |field: &str| STANDARD.decode(entry[field].as_str().unwrap()).unwrap();
        let key = String::from_utf8(bytes("key")).unwrap();
        assert_eq!(entry["mod_revision"], before[&key].1);
        rig.etcd.put(&key, &bytes("value"));
    }
    let values = |state: BTreeMap<String, (String, i64)>| -> Vec<_> {
        state.into_iter().map(|(key, (value, _))| (key, value)).collect()
    };
    assert_eq!(values(rig.state()), values(before));
    // No backup is overwritten.
    rig.apply("c", "--all-listed 2").run().fails_with_hint(1).says("exists already");
}

#[test]
fn what_is_named_goes_if_it_cannot_be_read() {
    let rig = Rig::new();
    let before = rig.state();
    for (words, says) in [
        ("secrets/default/old secrets/default/a", "/registry/secrets/default/a can be read"),
        ("secrets/default/old secrets/default/none", "secrets/default/none is not there"),
    ] {
        rig.apply("c", words).run().fails(1).says(says).says("nothing was deleted");
        assert_eq!(rig.state(), before);
    }
    let document = rig.apply("c", "secrets/default/old").run().ok().json();
    assert_eq!(document["totals"]["deleted"], 1);
    let mut expected = before;
    expected.remove(&path_of("old"));
    assert_eq!(rig.state(), expected);
}

#[test]
fn a_kms_that_does_not_answer_is_no_reason() {
    let rig = Rig::new();
    rig.config("kms", &text(SECRETS[0], KMS));
    rig.put("sealed", &kms());
    let before = rig.state();
    let plan = rig.run("kms", "").run().code(4).says("readable or not, unknown");
    assert_eq!(plan.json()["totals"]["unknown"], 1);
    assert!(!entries(&plan.json()).contains_key("sealed"));
    for words in ["--all-listed 2", "secrets/default/sealed"] {
        rig.apply("kms", words).run().fails(1).says("what is unknown is not unreadable");
    }
    // Refused is not the same: the person may know that the key is gone.
    let refuses = |bin: Bin| bin.arg("--kms-exec=p=exit 9").arg("--kms-timeout=100s").run();
    let found = entries(&refuses(rig.run("kms", "")).code(4).json());
    assert_eq!(
        (&found["sealed"]["why"], &found["sealed"]["certain"]),
        (&json!("kms-refuses"), &json!(false))
    );
    assert_eq!(rig.state(), before);
    refuses(rig.apply("kms", "secrets/default/sealed")).ok();
    let mut expected = before;
    expected.remove(&path_of("sealed"));
    assert_eq!(rig.state(), expected);
}

/// The program that is asked for a data key writes the very entry that is to be deleted.
#[test]
fn what_changes_meanwhile_stays() {
    let rig = Rig::new();
    rig.config("kms", &text(SECRETS[0], KMS));
    rig.put("sealed", &kms());
    let etcdctl = tools::program(Version::V35, "etcdctl");
    let command = format!(
        "ETCDCTL_API=3 '{}' --endpoints {} put {} written-meanwhile >/dev/null; exit 9",
        etcdctl.display(),
        rig.etcd.endpoint(),
        path_of("changed")
    );
    let done = rig
        .apply("kms", "secrets/default/changed secrets/default/cut")
        .arg(format!("--kms-exec=p={command}"))
        .arg("--kms-timeout=100s")
        .run()
        .code(4)
        .says("after it was looked at: it was left alone");
    let found = entries(&done.json());
    assert_eq!(
        (&found["changed"]["result"], &found["cut"]["result"]),
        (&json!("changed"), &json!("deleted"))
    );
    assert_eq!(rig.etcd.get(&path_of("changed")).as_deref(), Some(&b"written-meanwhile"[..]));
    assert_eq!(rig.etcd.get(&path_of("cut")), None);
    let saved: Value = serde_json::from_slice(&std::fs::read(rig.file("saved")).unwrap()).unwrap();
    assert_eq!(saved["entries"].as_array().unwrap().len(), 1);
}

#[test]
fn usage_is_checked() {
    let rig = Rig::new();
    let before = rig.state();
    let none = bin().words("delete-unreadable").args(rig.etcd.args());
    none.run()
        .fails_with_hint(2)
        .says("without a configuration every encrypted entry is unreadable");
    rig.apply("c", "").run().fails_with_hint(2).says("deletes what is named");
    rig.run("c", "--apply --all-listed 2").run().code(2);
    rig.run("c", "--all-listed 2").run().code(2);
    rig.apply("c", "--all-listed 2 secrets/default/cut").run().code(2);
    let snapshot = |path: &Path| {
        bin()
            .words("delete-unreadable -w json --snapshot")
            .arg(path)
            .arg("--encryption-config")
            .arg(rig.file("c"))
    };
    let saved = rig.file("s.db");
    rig.etcd.snapshot(&saved);
    let file = snapshot(&saved).words("--apply --all-listed 2 --backup /nowhere/x").run();
    file.fails(2).says("a file is read");
    assert_eq!(entries(&snapshot(&saved).run().code(4).json()).len(), 3);
    assert_eq!(rig.state(), before);
    rig.run("c", "-n nowhere").run().fails(1);
}

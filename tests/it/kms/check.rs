//! `kms check`: what plugins say, beside what entries name.

use serde_json::{Value, json};

use crate::support::bin::{Bin, bin};
use crate::support::corpus;
use crate::support::kms_plugin::{Behaviour, Listen, Running};
use crate::support::plugs::Plugs;

fn check() -> Bin {
    bin().words("kms check -w json")
}

fn named<'v>(document: &'v Value, name: &str) -> &'v Value {
    let all = document["providers"].as_array().unwrap();
    all.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("{name} is missing"))
}

/// A configuration with one plugin, whose settings tests change.
struct One {
    dir: tempfile::TempDir,
    plugin: Running,
}

impl One {
    fn start(version: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("p.sock");
        let config = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - resources: [secrets]\n  providers:\n  - kms: {{apiVersion: {version}, name: p, \
             endpoint: 'unix://{}', timeout: 60s}}\n",
            socket.display()
        );
        std::fs::write(dir.path().join("c.yaml"), config).unwrap();
        let plugin = Running::start(Listen::Path(socket), Behaviour::new("kek"));
        Self { dir, plugin }
    }

    /// Runs the command, and returns what it says of the plugin with its exit code.
    fn check(&self, change: impl FnOnce(&mut Behaviour)) -> (Value, i32) {
        self.plugin.set(|b| {
            *b = Behaviour::new("kek");
            change(b);
        });
        let done = check().arg("--encryption-config").arg(self.dir.path().join("c.yaml")).run();
        let document = done.json();
        let code = done.code.unwrap();
        let said = done.stderr.contains("warning: KMS provider `p`");
        assert_eq!(said, code != 0, "{done}");
        (named(&document, "p").clone(), code)
    }
}

#[test]
fn both_versions_say_all_that_they_can() {
    let plugs = Plugs::start("kek-2026-02");
    let done = check().arg("--encryption-config").arg(plugs.config("p5-kmsv2")).run().ok();
    let document = done.json();
    assert_eq!(document["schema"], "atrest.kms-check/v1");
    assert_eq!(document["source"], Value::Null);
    let v2 = named(&document, "vault-v2");
    let fields = ["version", "result", "error", "protocol", "healthz", "key_id", "round_trip"];
    assert_eq!(
        fields.map(|f| v2[f].clone()),
        [
            json!("v2"),
            json!("ok"),
            Value::Null,
            json!("v2"),
            json!("ok"),
            json!("kek-2026-02"),
            json!(true)
        ]
    );
    assert_eq!(v2["encrypt_key_id"], "kek-2026-02");
    assert_eq!(v2["annotations"], json!(["version.example.com"]));
    assert_eq!(v2["writes"], json!(["secrets", "configmaps", "widgets.example.com"]));
    assert_eq!(v2["key_ids"], Value::Null, "no source was read");
    for call in ["connect", "status", "encrypt", "decrypt"] {
        assert!(v2["latency_ms"][call].as_f64().unwrap() >= 0.0, "{call}");
    }
    let v1 = named(&document, "vault-v1");
    assert_eq!(
        fields.map(|f| v1[f].clone()),
        [
            json!("v1"),
            json!("ok"),
            Value::Null,
            json!("v1beta1"),
            Value::Null,
            Value::Null,
            json!(true)
        ]
    );
    assert_eq!((&v1["runtime"], &v1["writes"]), (&json!("atrest-test-plugin 0"), &json!([])));
    done.says("no source was named");

    let table =
        bin().words("kms check --encryption-config").arg(plugs.config("p5-kmsv2")).run().ok();
    let line = table.text().lines().find(|l| l.starts_with("vault-v2")).unwrap();
    assert!(line.contains("ok") && line.contains("kek-2026-02") && line.contains(" ms"), "{line}");
}

#[test]
fn entries_are_compared_with_what_is_written_now() {
    let plugs = Plugs::start("kek-2026-02");
    let run = |config: &str| {
        check()
            .arg("--snapshot")
            .arg(corpus::db("p5-kmsv2"))
            .arg("--encryption-config")
            .arg(plugs.config(config))
            .run()
            .ok()
    };
    let live = corpus::entries("p5-kmsv2");
    let under = |name: &str| {
        let prefix = format!("k8s:enc:kms:{name}:");
        live.entries.iter().filter(|e| e.prefix == prefix).count() as u64
    };
    let document = run("p5-kmsv2").json();
    assert_eq!(document["source"]["revision"], live.revision);
    let ids = |document: &Value| {
        let ids = named(document, "vault-v2")["key_ids"].as_array().unwrap().clone();
        let total: u64 = ids.iter().map(|k| k["entries"].as_u64().unwrap()).sum();
        assert_eq!(total, under("v2:vault-v2"));
        ids.into_iter().map(|k| (k["key_id"].clone(), k["current"].clone())).collect::<Vec<_>>()
    };
    let (first, second) = (json!("kek-2026-01"), json!("kek-2026-02"));
    let now = ids(&document);
    assert!(now.contains(&(second.clone(), json!(true))), "{now:?}");
    assert!(now.iter().all(|(id, current)| (*id == second) == (*current == json!(true))));
    plugs.rotate("kek-2026-03");
    let rotated = ids(&run("p5-kmsv2").json());
    assert!(rotated.iter().all(|(_, current)| *current == json!(false)), "{rotated:?}");
    assert!(rotated.iter().all(|(id, _)| [&first, &second].contains(&id)));

    // Under a configuration that does not have the plugin, its entries are not passed over.
    let done = run("p4-kmsv1").says("no configuration has the KMS provider `vault-v2`");
    let document = done.json();
    assert_eq!(document["unconfigured"][0]["name"], "vault-v2");
    assert!(document["unconfigured"][0]["key_ids"][0]["entries"].as_u64().unwrap() > 0);
}

#[test]
fn a_plugin_that_is_away_fails_the_check_and_the_others_are_asked() {
    let dir = tempfile::tempdir().unwrap();
    let text = |socket: &str| format!("unix://{}", dir.path().join(socket).display());
    let config = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers:\n\
         \x20 - kms: {{apiVersion: v2, name: here, endpoint: '{}', timeout: 60s}}\n\
         \x20 - kms: {{apiVersion: v2, name: away, endpoint: '{}', timeout: 60s}}\n",
        text("here.sock"),
        text("away.sock")
    );
    let path = dir.path().join("c.yaml");
    std::fs::write(&path, config).unwrap();
    let _here = Running::start(Listen::Path(dir.path().join("here.sock")), Behaviour::new("kek"));
    let done = check().arg("--encryption-config").arg(&path).run().code(1);
    let document = done.json();
    assert_eq!(named(&document, "here")["result"], "ok");
    let away = named(&document, "away");
    assert_eq!((&away["result"], &away["round_trip"]), (&json!("failed"), &Value::Null));
    assert!(away["error"].as_str().unwrap().contains("cannot be reached"), "{away}");
    done.says("warning: KMS provider `away`");
}

#[test]
fn what_the_api_server_would_not_use_fails() {
    let v2 = One::start("v2");
    let (said, code) = v2.check(|b| "vault sealed".clone_into(&mut b.healthz));
    assert_eq!((&said["healthz"], code), (&json!("vault sealed"), 1));
    assert!(said["error"].as_str().unwrap().contains("its status is `vault sealed`"), "{said}");
    // It still decrypts, which is worth knowing.
    assert_eq!(said["round_trip"], true);

    let (said, code) = v2.check(|b| b.encrypt_key_id = Some("other".to_owned()));
    assert_eq!(
        (&said["key_id"], &said["encrypt_key_id"], code),
        (&json!("kek"), &json!("other"), 1)
    );
    let (said, code) = v2.check(|b| b.encrypts = 0);
    assert_eq!((&said["round_trip"], &said["healthz"], code), (&Value::Null, &json!("ok"), 1));
    assert!(said["error"].as_str().unwrap().contains("the vault is sealed"), "{said}");
    let (said, code) = v2.check(|b| b.destroyed.push("kek".to_owned()));
    assert!(said["error"].as_str().unwrap().contains("destroyed") && code == 1, "{said}");
    let (said, code) = v2.check(|b| {
        b.alpha = true;
        "v2alpha1".clone_into(&mut b.v2_version);
    });
    assert_eq!((&said["result"], &said["protocol"], code), (&json!("ok"), &json!("v2alpha1"), 0));
    let (said, code) = v2.check(|b| b.key_id = "k".repeat(2000));
    assert_eq!((&said["key_id"], code), (&Value::Null, 1));

    let v1 = One::start("v1");
    let (said, code) = v1.check(|_| ());
    assert_eq!((&said["result"], code), (&json!("ok"), 0));
    let (said, code) = v1.check(|b| "v1beta9".clone_into(&mut b.v1_version));
    assert_eq!((&said["protocol"], code), (&json!("v1beta9"), 1));
}

#[test]
fn without_a_plugin_there_is_nothing_to_check() {
    bin().words("kms check").run().fails_with_hint(2);
    bin()
        .words("kms check --encryption-config")
        .arg(corpus::config("p1-secretbox"))
        .run()
        .fails_with_hint(1)
        .says("names no KMS provider");
}

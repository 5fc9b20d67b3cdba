//! `posture`: beside what another implementation sealed, and an evaluator of RBAC written anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::bin::Done;
use crate::support::plugs::Plugs;
use crate::support::snapshot::Crafted;
use crate::support::{bin, corpus};

fn posture(snapshot: &Path, words: &str) -> Done {
    bin().arg("--snapshot").arg(snapshot).words("posture").words(words).run()
}

fn p9(plugs: &Plugs, words: &str) -> Done {
    bin()
        .arg("--snapshot")
        .arg(corpus::db("p9-defragged"))
        .arg("--encryption-config")
        .arg(plugs.config("p6-sb2"))
        .words("posture")
        .words(words)
        .run()
}

/// Where objects of these kinds are kept.
fn key(object: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let kind = text(&object["kind"]);
    let group = match text(&object["apiVersion"]).split_once('/') {
        Some((group, _))
            if !group.starts_with("rbac")
                && !["apps", "batch", "networking.k8s.io"].contains(&group) =>
        {
            format!("{group}/")
        }
        _ => String::new(),
    };
    let plural = match kind.as_str() {
        "Ingress" => "ingress".to_owned(),
        "SecretProviderClass" => "secretproviderclasses".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    let (namespace, name) =
        (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    let below = if namespace.is_empty() { name } else { format!("{namespace}/{name}") };
    format!("/registry/{group}{plural}/{below}")
}

fn cluster(dir: &Path, objects: &[Value]) -> PathBuf {
    let path = dir.join("db");
    let put = |c: Crafted, o: &Value| c.put(key(o), o.to_string());
    objects.iter().fold(Crafted::new(), put).write(&path);
    path
}

fn secret<'v>(document: &'v Value, name: &str) -> &'v Value {
    document["secrets"].as_array().unwrap().iter().find(|s| s["name"] == name).unwrap()
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
}

#[test]
fn which_key_opens_what() {
    let text = std::fs::read_to_string(corpus::fixtures("posture/sealed.json")).unwrap();
    let objects: Vec<Value> = serde_json::from_str(&text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let done = posture(&cluster(dir.path(), &objects), "-w json").ok();
    let document = done.json();
    let keys = document["sealing_keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    assert_eq!(
        (&keys[0]["name"], &keys[0]["active"]),
        (&json!("kube-system/sealed-secrets-keyold"), &json!(false))
    );
    assert_eq!(words(&keys[0]["opens"]), ["shop/both", "shop/strict-old"]);
    assert_eq!(keys[1]["active"], true);
    assert_eq!(
        words(&keys[1]["opens"]),
        ["shop/both", "shop/everywhere", "shop/half-lost", "shop/strict-new", "shop/wide"]
    );
    assert_eq!(words(&document["unsealable"]), ["shop/half-lost", "shop/lost", "shop/renamed"]);
    let ids: Vec<&str> = document["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.iter().filter(|id| **id == "sealed-scope-wide").count(), 2);
    assert!(ids.contains(&"sealing-key-old"));
    assert_eq!(secret(&document, "sealed-secrets-keynew")["origin"], "sealing-key");
    // Nothing of a key is told.
    for object in &objects[..2] {
        let pem = object["data"]["tls.key"].as_str().unwrap();
        assert!(!done.text().contains(&pem[100..160]));
    }
}

/// Whether a subject may do something, step by step as the authorizer goes: every rule of every
/// binding is asked, with nothing prepared.
fn may(objects: &[Value], subject: &str, verb: &str, namespace: &str, name: &str) -> bool {
    let all = |kind: &str| objects.iter().filter(move |o| o["kind"] == kind).collect::<Vec<_>>();
    let is_subject = |binding: &Value| {
        binding["subjects"].as_array().is_some_and(|subjects| {
            subjects.iter().any(|s| {
                let said = match s["kind"].as_str().unwrap() {
                    "ServiceAccount" => format!(
                        "ServiceAccount {}/{}",
                        s["namespace"].as_str().unwrap(),
                        s["name"].as_str().unwrap()
                    ),
                    kind => format!("{kind} {}", s["name"].as_str().unwrap()),
                };
                said == subject
            })
        })
    };
    let covers = |list: &Value, wanted: &str| {
        list.as_array().is_some_and(|l| l.iter().any(|w| w == "*" || w == wanted))
    };
    let allows = |role: &Value| {
        role["rules"].as_array().is_some_and(|rules| {
            rules.iter().any(|rule| {
                let names = rule["resourceNames"].as_array().cloned().unwrap_or_default();
                covers(&rule["verbs"], verb)
                    && covers(&rule["apiGroups"], "")
                    && covers(&rule["resources"], "secrets")
                    && (names.is_empty() || names.iter().any(|n| n == name))
            })
        })
    };
    let named = |kind: &str, of: Option<&str>, name: &Value| {
        all(kind).into_iter().any(|role| {
            role["metadata"]["name"] == *name
                && of.is_none_or(|of| role["metadata"]["namespace"] == of)
                && allows(role)
        })
    };
    for binding in all("ClusterRoleBinding") {
        if is_subject(binding)
            && binding["roleRef"]["kind"] == "ClusterRole"
            && named("ClusterRole", None, &binding["roleRef"]["name"])
        {
            return true;
        }
    }
    for binding in all("RoleBinding") {
        let role = &binding["roleRef"];
        let bound = match role["kind"].as_str().unwrap() {
            "ClusterRole" => named("ClusterRole", None, &role["name"]),
            _ => named("Role", Some(namespace), &role["name"]),
        };
        if binding["metadata"]["namespace"] == namespace && is_subject(binding) && bound {
            return true;
        }
    }
    false
}

/// Every subject that a binding names.
fn subjects(objects: &[Value]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for object in objects {
        for s in object["subjects"].as_array().into_iter().flatten() {
            let name = s["name"].as_str().unwrap();
            all.insert(match s["namespace"].as_str() {
                Some(namespace) => format!("ServiceAccount {namespace}/{name}"),
                None => format!("{} {name}", s["kind"].as_str().unwrap()),
            });
        }
    }
    all
}

fn compare(document: &Value, objects: &[Value]) {
    for secret in document["secrets"].as_array().unwrap() {
        let (namespace, name) =
            (secret["namespace"].as_str().unwrap(), secret["name"].as_str().unwrap());
        let expected: Vec<String> = subjects(objects)
            .into_iter()
            .filter(|s| {
                ["get", "list", "watch"].iter().any(|v| may(objects, s, v, namespace, name))
            })
            .collect();
        assert_eq!(words(&secret["readers"]), expected, "{namespace}/{name}");
    }
}

#[test]
fn readers_of_a_real_cluster() {
    let plugs = Plugs::start("kek-2026-02");
    let document = p9(&plugs, "-w json").ok().json();
    let mut objects = Vec::new();
    for (_, list) in corpus::kubectl_all().into_iter().filter(|(r, _)| r.contains("role")) {
        objects.extend(list["items"].as_array().unwrap().clone());
    }
    assert!(objects.len() > 50);
    compare(&document, &objects);
    // One word of a real server's defaults.
    assert!(words(&secret(&document, "login1")["readers"]).contains(&"Group system:masters"));
}

#[test]
fn readers_by_every_form_of_a_rule() {
    let rule = |verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]| json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names});
    let forms = [
        ("plain", rule(&["get"], &[""], &["secrets"], &[])),
        ("wild-verb", rule(&["*"], &[""], &["secrets"], &[])),
        ("wild-group", rule(&["list"], &["*"], &["secrets"], &[])),
        ("wild-resource", rule(&["watch"], &[""], &["*"], &[])),
        ("named", rule(&["get"], &[""], &["secrets"], &["one"])),
        ("writes-only", rule(&["create", "delete"], &[""], &["secrets"], &[])),
        ("other-group", rule(&["get"], &["apps"], &["secrets"], &[])),
        ("subresource", rule(&["get"], &[""], &["secrets/status", "*/status"], &[])),
        ("config-maps", rule(&["get"], &[""], &["configmaps"], &[])),
    ];
    let rbac = "rbac.authorization.k8s.io/v1";
    let mut objects = Vec::new();
    for (name, rule) in &forms {
        objects.push(json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": name}, "rules": [rule]}));
        objects.push(json!({"apiVersion": rbac, "kind": "Role", "metadata": {"name": name, "namespace": "a"}, "rules": [rule]}));
        for (kind, role, namespace) in [
            ("ClusterRoleBinding", "ClusterRole", None),
            ("RoleBinding", "ClusterRole", Some("a")),
            ("RoleBinding", "Role", Some("a")),
            // A role of another namespace: nothing.
            ("RoleBinding", "Role", Some("b")),
            // A binding of the cluster to a role of a namespace: nothing.
            ("ClusterRoleBinding", "Role", None),
        ] {
            let id = format!(
                "{name}-{}-{}-{}",
                kind.to_lowercase(),
                role.to_lowercase(),
                namespace.unwrap_or("all")
            );
            let mut metadata = json!({"name": id});
            if let Some(namespace) = namespace {
                metadata["namespace"] = namespace.into();
            }
            objects.push(json!({"apiVersion": rbac, "kind": kind, "metadata": metadata,
                "roleRef": {"kind": role, "name": name},
                "subjects": [{"kind": "User", "name": id},
                             {"kind": "ServiceAccount", "name": id, "namespace": "sa"}]}));
        }
    }
    for (namespace, name) in [("a", "one"), ("a", "two"), ("b", "one")] {
        objects.push(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}}));
    }
    let dir = tempfile::tempdir().unwrap();
    let document = posture(&cluster(dir.path(), &objects), "-w json").ok().json();
    compare(&document, &objects);
    assert_eq!(secret(&document, "two")["readers"].as_array().unwrap().len(), 2 * 4 * 3);
}

#[test]
fn origins_uses_and_findings() {
    let metadata = |name: &str| json!({"name": name, "namespace": "n"});
    let pod_spec = json!({
        "volumes": [{"name": "v", "secret": {"secretName": "mounted"}}],
        "containers": [{"name": "c", "image": "i", "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "in-env", "key": "k"}}},
            {"name": "DB_PASSWORD", "value": "hunter2-in-env"}]}]});
    let objects = [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("mounted"), "type": "Opaque", "data": {"p": "aHVudGVyMi1kYXRh"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("in-env"), "type": "Opaque"}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("idle"), "type": "Opaque"}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("token"), "type": "kubernetes.io/service-account-token"}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("cm"), "data": {"key": "-----BEGIN PRIVATE KEY-----\nhunter2-map"}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("web"), "spec": {"template": {
            "metadata": {"annotations": {"vault.hashicorp.com/agent-inject": "true", "vault.hashicorp.com/agent-inject-secret-x": "kv/x"}},
            "spec": pod_spec}}}),
        json!({"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass", "metadata": metadata("spc"),
               "spec": {"parameters": {"vaultAddress": "http://vault:8200", "vaultSkipTLSVerify": "true"}}}),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = cluster(dir.path(), &objects);
    let done = posture(&path, "-w json").ok();
    let document = done.json();
    assert_eq!(words(&secret(&document, "mounted")["used_as"]), ["volume"]);
    assert_eq!(words(&secret(&document, "mounted")["used_by"]), ["Deployment n/web"]);
    assert_eq!(words(&secret(&document, "in-env")["used_as"]), ["env"]);
    assert_eq!(words(&secret(&document, "idle")["findings"]), ["stored-plaintext", "unused"]);
    assert_eq!(secret(&document, "token")["origin"], "service-account");
    let ids: BTreeSet<&str> = document["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["id"].as_str().unwrap())
        .collect();
    for id in [
        "credential-in-config-map",
        "credential-in-env",
        "vault-plain-http",
        "vault-skip-tls",
        "legacy-service-account-token",
        "stored-plaintext",
        "unused",
    ] {
        assert!(ids.contains(id), "{id}: {ids:?}");
    }
    assert_eq!(document["totals"]["delivery"]["vault-agent-sidecar"], 1);
    assert_eq!(document["vault_paths"]["kv/x"], 1);
    // No format tells a value.
    for words in ["-w json", "-w csv", "-w html --list", "--list"] {
        let done = posture(&path, words).ok();
        assert!(!done.text().contains("hunter2") && !done.text().contains("aHVudGVyMi"), "{words}");
        assert!(
            done.text().contains("mounted") || done.text().contains("stored-plaintext"),
            "{words}"
        );
    }
    posture(&path, "--fail-on vault-plain-http").code(3);
    posture(&path, "--fail-on unsealable,certificate-expired").ok();
    posture(&path, "--fail-on nonsense").code(2).says("there is no such finding");
}

#[test]
fn what_cannot_be_read_is_unknown_not_well() {
    let done = bin()
        .arg("--snapshot")
        .arg(corpus::db("p9-defragged"))
        .words("posture -w json")
        .run()
        .code(4);
    let done = done.says("unreadable:").says("no --encryption-config was given");
    assert!(done.json()["totals"]["unread"].as_u64().unwrap() > 0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    Crafted::new().put("/registry/x", "y").write(&path);
    posture(&path, "").fails_with_hint(1);
}

/// A socket that is away is one line with a count and the first names, whatever the command.
#[test]
fn a_plugin_that_is_away_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("config.yaml");
    let text = std::fs::read_to_string(corpus::config("p5-kmsv2")).unwrap();
    std::fs::write(&kept, text.replace("/run/kms/", &format!("{}/", dir.path().display())))
        .unwrap();
    let (now, before) = (corpus::db("p5-kmsv2"), corpus::db("p4-kmsv1"));
    let places = [&before, &now].map(|db| format!("snapshot:{}", db.display()));
    let out = dir.path().join("out");
    for words in [
        "scan --verify".to_owned(),
        "posture".to_owned(),
        format!("export --out {}", out.display()),
        format!("export --restore --out {}", dir.path().join("restored").display()),
        format!("diff {} {}", places[0], places[1]),
    ] {
        let run = bin().words(&words).arg("--encryption-config").arg(&kept);
        let run = if words.starts_with("diff") { run } else { run.arg("--snapshot").arg(&now) };
        let done = run.run();
        let about = |l: &&str| l.starts_with("warning: ") && l.contains(".sock");
        let lines: Vec<_> = done.stderr.lines().filter(about).collect();
        assert!(!lines.is_empty() && lines.len() <= 3, "{words}: {done}");
        // One of them is another in the two snapshots.
        let several = lines.iter().any(|l| l.contains(" entries: "));
        assert!(several || words.starts_with("diff"), "{words}: {done}");
    }
}

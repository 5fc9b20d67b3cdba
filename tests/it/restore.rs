//! `export --restore` and `restore plan`: what an empty cluster is given.

mod apply;
mod rules;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::bin::Done;
use crate::support::plugs::Plugs;
use crate::support::snapshot::Crafted;
use crate::support::{bin, corpus, openapi};

/// All files below, by path relative to the directory.
pub fn files(dir: &Path) -> BTreeMap<String, fs::Metadata> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if meta.is_dir() {
                assert_eq!(meta.permissions().mode() & 0o777, 0o700, "{name}");
                open.push(path);
            } else {
                found.insert(name, meta);
            }
        }
    }
    found
}

/// The objects of an export, by path relative to its directory.
pub fn objects(dir: &Path) -> BTreeMap<String, Value> {
    let names = files(dir).into_keys().filter(|n| n != "apply.sh");
    names
        .map(|name| {
            let text = fs::read_to_string(dir.join(&name)).unwrap();
            let object = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, object)
        })
        .collect()
}

/// A snapshot with these objects, stored as JSON under their keys below `/registry/`.
pub fn cluster(objects: &[(&str, Value)]) -> tempfile::NamedTempFile {
    let all = objects.iter().fold(Crafted::new(), |crafted, (key, object)| {
        crafted.put(format!("/registry/{key}"), object.to_string())
    });
    all.file()
}

/// Exports a snapshot for an empty cluster.
pub fn restore(snapshot: &Path, extra: &str) -> (tempfile::TempDir, Done) {
    let dir = tempfile::tempdir().unwrap();
    let done = bin()
        .arg("--snapshot")
        .arg(snapshot)
        .words("export --restore --out")
        .arg(dir.path().join("out"))
        .words(extra)
        .run();
    (dir, done)
}

/// What is written of a cluster of these objects, by path; everything is exported.
pub fn written(objects_of: &[(&str, Value)], extra: &str) -> BTreeMap<String, Value> {
    let (dir, done) = restore(cluster(objects_of).path(), extra);
    done.ok();
    objects(&dir.path().join("out"))
}

fn p9(command: &str) -> (tempfile::TempDir, Done) {
    let plugs = Plugs::start("kek-2026-02");
    let dir = tempfile::tempdir().unwrap();
    let done = bin()
        .arg("--snapshot")
        .arg(corpus::db("p9-defragged"))
        .arg("--encryption-config")
        .arg(plugs.config("p6-sb2"))
        .words(command)
        .current_dir(dir.path())
        .run();
    (dir, done)
}

fn id(o: &Value) -> (String, String, String) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let kind = format!("{} {}", text(&o["apiVersion"]), text(&o["kind"]));
    (kind, text(&o["metadata"]["namespace"]), text(&o["metadata"]["name"]))
}

/// What the server fills in goes, of kubectl's objects as of ours.
fn clean(object: &mut Value) {
    atrest::export::clean(object);
}

/// The objects of a real cluster, as the API server itself serves them in the version that is
/// written, are what is written, but for what is said.
#[test]
fn a_real_cluster_is_written_as_its_server_shows_it() {
    let (dir, done) = p9("export --restore --out out");
    let done = done.ok();
    let found = objects(&dir.path().join("out"));
    let mut theirs = BTreeMap::new();
    for (_, list) in corpus::kubectl_all() {
        for object in list["items"].as_array().unwrap() {
            theirs.insert(id(object), object.clone());
        }
    }
    let mut different = Vec::new();
    for (path, ours) in &found {
        let Some(mut expected) = theirs.remove(&id(ours)) else {
            different.push(format!("{path} is served by no such version"));
            continue;
        };
        clean(&mut expected);
        let spec = |e: &mut Value, names: &[&str]| {
            for name in names {
                assert!(e["spec"].as_object_mut().unwrap().remove(*name).is_some(), "{name}");
            }
        };
        match ours["kind"].as_str().unwrap() {
            "Namespace" => drop(expected.as_object_mut().unwrap().remove("spec")),
            "Service" => spec(&mut expected, &["clusterIP", "clusterIPs"]),
            "Pod" => spec(&mut expected, &["priority"]),
            "Job" => {
                spec(&mut expected, &["selector", "manualSelector"]);
                for labels in ["/metadata", "/spec/template/metadata"] {
                    let metadata = expected.pointer_mut(labels).unwrap().as_object_mut().unwrap();
                    assert_eq!(metadata.remove("labels").unwrap().as_object().unwrap().len(), 4);
                }
            }
            _ => {}
        }
        if *ours != expected {
            different.push(path.clone());
        }
    }
    assert!(different.is_empty(), "{different:#?}");
    let left: Vec<_> = theirs.keys().filter(|(k, ..)| !k.starts_with("rbac.")).collect();
    assert!(
        left.iter().all(|(kind, _, name)| {
            matches!(
                kind.rsplit(' ').next().unwrap(),
                "APIService"
                    | "Endpoints"
                    | "EndpointSlice"
                    | "Event"
                    | "FlowSchema"
                    | "IPAddress"
                    | "Lease"
                    | "PriorityLevelConfiguration"
                    | "ServiceCIDR"
            ) || matches!(
                name.as_str(),
                "kubernetes"
                    | "default"
                    | "kube-system"
                    | "kube-public"
                    | "kube-node-lease"
                    | "system-cluster-critical"
                    | "system-node-critical"
                    | "extension-apiserver-authentication"
                    | "kube-apiserver-legacy-service-account-token-tracking"
            )
        }),
        "{left:#?}"
    );
    done.says(&format!("{} objects written", found.len())).says("apply them: sh out/apply.sh");
}

#[test]
fn everything_that_is_exported_is_valid_at_the_version_it_claims() {
    let api = openapi::v1_36();
    let custom = |o: &Value| o["apiVersion"] == "example.com/v1";
    let (_dir, plain) = p9("export --all-resources -w json");
    let plain = plain.ok().json();
    let mut faults = Vec::new();
    let mut valid = 0;
    for object in plain["items"].as_array().unwrap() {
        // As it is stored, though no server has served that since 1.22.
        let stored_only = object["apiVersion"] == "apiextensions.k8s.io/v1beta1";
        if !custom(object) && !stored_only {
            valid += 1;
            // A list that is nil in Go is printed as null, by the API server too.
            let wrong = api.faults(object).into_iter().filter(|f| !f.ends_with(": is null"));
            faults.extend(wrong.map(|f| format!("{:?}{f}", id(object))));
        }
    }
    assert!(valid > 400, "{valid}");
    for command in [
        "export --restore --out out --for 1.36",
        "export --restore --out out --for 1.36 --keep-ips --keep-owners",
    ] {
        let (dir, done) = p9(command);
        done.ok();
        for (path, object) in objects(&dir.path().join("out")) {
            if !custom(&object) {
                faults.extend(api.faults(&object).into_iter().map(|f| format!("{path}{f}")));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn files_are_private_and_the_script_runs() {
    let (dir, done) = restore(&corpus::db("p0-plaintext"), "");
    done.ok();
    let found = files(&dir.path().join("out"));
    for (name, meta) in &found {
        let mode = if name == "apply.sh" { 0o700 } else { 0o600 };
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{name}");
    }
    assert!(found.contains_key("10-namespaces/namespaces/team-a.yaml"), "{:?}", found.keys());
    assert!(found.contains_key("50-secrets-and-configmaps/secrets/team-a/app-1.yaml"));
}

#[test]
fn a_directory_that_holds_something_is_not_mixed_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let run = |extra: &str| {
        bin()
            .arg("--snapshot")
            .arg(corpus::db("p0-plaintext"))
            .words("export --restore --out")
            .arg(&out)
            .words(extra)
            .run()
    };
    run("").ok();
    run("").fails_with_hint(1).says("is not empty");
    run("--force").ok().says("will be applied, too");
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let usage = |line: &str| bin().words(line).run().fails(2);
    for option in ["--for 1.30", "--keep-owners", "--keep-ips"] {
        usage(&format!("export --out x {option}")).says("--restore");
    }
    usage("export --out x --explain");
    usage("export --restore");
    usage("export --restore --out x --show-managed-fields");
    usage("export --restore --out x --for 1.19").says("1.20 to 1.37");
    usage("export --restore --out x --for yesterday");
    usage("restore plan -w csv");
}

#[test]
fn a_plan_says_what_the_export_does() {
    let snapshot = corpus::db("p0-plaintext");
    let plan = |extra: &str| {
        bin().arg("--snapshot").arg(&snapshot).words("restore plan").words(extra).run().ok()
    };
    let document = plan("-w json").json();
    let (dir, _) = restore(&snapshot, "");
    let found = objects(&dir.path().join("out"));
    assert_eq!(document["schema"], "atrest.restore/v1");
    assert_eq!(document["for"], "1.37");
    assert_eq!(document["totals"]["written"], found.len());
    let mut steps: Vec<_> = found.keys().map(|n| n.split('/').next().unwrap()).collect();
    steps.dedup();
    let planned: Vec<_> =
        document["steps"].as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
    assert_eq!(planned, steps);
    let converted = &document["converted"][0];
    assert_eq!(converted["from"], "apiextensions.k8s.io/v1beta1");
    assert_eq!(converted["to"], "apiextensions.k8s.io/v1");
    let all = corpus::entries("p0-plaintext").entries.len() as u64;
    let totals = |name: &str| document["totals"][name].as_u64().unwrap();
    // Two keys are the API server's own bookkeeping.
    let internal = all - totals("written") - totals("left_out");
    assert!(internal < 8, "{internal}");
    let counted: u64 = document["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| r["sentence"].as_str().unwrap().starts_with("left out"))
        .map(|r| r["objects"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, totals("left_out"));
    let table = plan("");
    assert!(table.text().contains("10-namespaces"), "{}", table.text());
    let explained = bin()
        .arg("--snapshot")
        .arg(&snapshot)
        .words("export --restore --explain --out")
        .arg(dir.path().join("again"))
        .run()
        .ok();
    for reason in ["server-made", "job-selector", "service-address"] {
        assert!(table.text().contains(reason) && explained.text().contains(reason), "{reason}");
    }
    let page = plan("-w html");
    assert!(page.text().starts_with("<!DOCTYPE html>") && page.text().ends_with("</html>\n"));
    assert!(page.text().contains("<td>widgets.example.com</td>"));
}

/// Without a choice it is the cluster; a namespace comes with the namespace itself.
#[test]
fn a_namespace_alone() {
    let (dir, done) = restore(&corpus::db("p0-plaintext"), "-n team-b");
    done.ok();
    let found = objects(&dir.path().join("out"));
    assert!(found.contains_key("10-namespaces/namespaces/team-b.yaml"), "{:?}", found.keys());
    assert!(found.len() > 10);
    for (path, object) in &found {
        let namespace = &object["metadata"]["namespace"];
        assert!(*namespace == "team-b" || object["kind"] == "Namespace", "{path}");
    }
}

#[test]
fn what_cannot_be_converted_is_named() {
    let snapshot = cluster(&[
        (
            "podsecuritypolicy/strict",
            json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy",
                   "metadata": {"name": "strict"}, "spec": {}}),
        ),
        (
            "secrets/a/b",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b", "namespace": "a"}}),
        ),
    ]);
    let (dir, done) = restore(snapshot.path(), "");
    done.code(4).says("podsecuritypolicies.policy strict cannot be converted");
    assert_eq!(objects(&dir.path().join("out")).len(), 1);
    let (_dir, done) = restore(snapshot.path(), "--for 1.24");
    done.ok();
    let plan: PathBuf = snapshot.path().to_owned();
    let plan = bin().arg("--snapshot").arg(plan).words("restore plan -w json").run().code(4).json();
    assert_eq!(plan["cannot_convert"][0]["name"], "strict");
}

#[test]
fn what_cannot_be_read_is_named() {
    let done = bin()
        .arg("--snapshot")
        .arg(corpus::db("p1-secretbox"))
        .words("restore plan -w json")
        .run()
        .code(4);
    let document = done.json();
    let unreadable = document["unreadable"].as_array().unwrap();
    assert!(unreadable.iter().any(|u| u["name"] == "login2"), "{unreadable:?}");
}

//! `export`: what it writes is what kubectl shows, and where it writes is safe.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::Value;

use crate::support::plugs::{PHASES, Plugs};
use crate::support::snapshot::Crafted;
use crate::support::{bin, corpus};

type Objects = BTreeMap<(String, String, String), Value>;

fn objects(list: &Value) -> Objects {
    assert_eq!((list["kind"].as_str(), list["apiVersion"].as_str()), (Some("List"), Some("v1")));
    let items = list["items"].as_array().unwrap();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let all: Objects = items
        .iter()
        .map(|o| {
            let meta = &o["metadata"];
            ((text(&o["kind"]), text(&meta["namespace"]), text(&meta["name"])), o.clone())
        })
        .collect();
    assert_eq!(all.len(), items.len(), "an object occurs twice");
    all
}

/// Fails with the names of what differs: the objects themselves are secrets.
fn assert_same(phase: &str, ours: &Objects, theirs: &Objects) {
    let keys = |o: &Objects| o.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(ours), keys(theirs), "{phase}");
    let different: Vec<_> =
        ours.iter().filter(|(k, v)| theirs[*k] != **v).map(|(k, _)| k).collect();
    assert!(different.is_empty(), "{phase}: {different:?}");
}

#[test]
fn secrets_and_config_maps_of_every_phase_equal_kubectls() {
    for (phase, config, key_id) in PHASES {
        let plugs = Plugs::start(key_id);
        let done = bin()
            .words("export --resource secrets --resource configmaps -w json --snapshot")
            .arg(corpus::db(phase))
            .arg("--encryption-config")
            .arg(plugs.config(config))
            .run()
            .ok();
        assert_eq!(done.stderr, "", "{phase}");
        assert_same(phase, &objects(&done.json()), &objects(&corpus::kubectl(phase)));
    }
}

#[test]
fn without_the_plugin_only_its_own_entries_are_missing() {
    let config = corpus::private_config("p5-kmsv2");
    let done = bin()
        .words("export --resource secrets --resource configmaps -w json --snapshot")
        .arg(corpus::db("p5-kmsv2"))
        .arg("--encryption-config")
        .arg(&config)
        .run()
        .code(4)
        .says("cannot be reached");
    let (ours, theirs) = (objects(&done.json()), objects(&corpus::kubectl("p5-kmsv2")));
    let missing = theirs.len() - ours.len();
    assert!(missing > 0);
    let total = format!("warning: {missing} entries could not be exported\n");
    // Three causes, by plugin and key ID, each told once.
    let causes = done.stderr.lines().filter(|l| l.starts_with("warning: cannot export "));
    assert_eq!((causes.count(), done.stderr.ends_with(&total)), (3, true), "{}", done.stderr);
    let theirs = theirs.into_iter().filter(|(k, _)| ours.contains_key(k)).collect();
    assert_same("p5-kmsv2", &ours, &theirs);
}

/// All files below, by path relative to the directory.
fn files(dir: &Path) -> BTreeMap<String, fs::Metadata> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                assert_eq!(meta.permissions().mode() & 0o777, 0o700, "{}", path.display());
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.insert(name, meta);
            }
        }
    }
    found
}

#[test]
fn a_tree_of_private_files_that_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    bin()
        .words("export --resource secrets --resource configmaps --snapshot")
        .arg(corpus::db("p0-plaintext"))
        .arg("--out")
        .arg(&out)
        .run()
        .ok();
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o700);
    let found = files(&out);
    assert!(found.contains_key("core/secrets/default/login1.yaml"), "{:?}", found.keys());
    let mut items = Vec::new();
    for (name, meta) in &found {
        assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{name}");
        let text = fs::read_to_string(out.join(name)).unwrap();
        items.push(serde_saphyr::from_str::<Value>(&text).unwrap());
    }
    let ours = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
    assert_same("p0", &objects(&ours), &objects(&corpus::kubectl("p0-plaintext")));
}

#[test]
fn nothing_is_overwritten_unless_asked() {
    let dir = tempfile::tempdir().unwrap();
    let export = |extra: &str| {
        bin()
            .words("export --snapshot")
            .arg(corpus::db("p0-plaintext"))
            .arg("--out")
            .arg(dir.path())
            .words(extra)
            .run()
    };
    export("").ok();
    let login = dir.path().join("core/secrets/default/login1.yaml");
    fs::write(&login, "mine").unwrap();
    export("").fails_with_hint(1).says("exists already");
    assert_eq!(fs::read_to_string(&login).unwrap(), "mine");
    export("--force").ok();
    assert!(fs::read_to_string(&login).unwrap().contains("kind: Secret"));
}

#[test]
fn symlinks_are_not_followed() {
    let (dir, aim) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(dir.path().join("core")).unwrap();
    symlink(aim.path(), dir.path().join("core/secrets")).unwrap();
    bin()
        .words("export --force --snapshot")
        .arg(corpus::db("p0-plaintext"))
        .arg("--out")
        .arg(dir.path())
        .run()
        .fails_with_hint(1)
        .says("not followed");
    assert_eq!(fs::read_dir(aim.path()).unwrap().count(), 0);
}

#[test]
fn clean_objects_have_nothing_of_their_old_cluster() {
    let done =
        bin().words("export --clean -w json --snapshot").arg(corpus::db("p0-plaintext")).run().ok();
    for (key, object) in objects(&done.json()) {
        for field in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "managedFields",
            "selfLink",
            "generation",
        ] {
            assert!(object["metadata"].get(field).is_none(), "{key:?} {field}");
        }
        assert!(object.get("status").is_none());
        let applied = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";
        assert!(object.pointer(applied).is_none(), "{key:?}");
    }
}

#[test]
fn a_deleted_secret_comes_back_from_an_earlier_revision() {
    let plugs = Plugs::start("kek-2026-02");
    let export = |revision: &[&str]| {
        let done = bin()
            .words("export -w json --snapshot")
            .arg(corpus::db("p7-migrated-uncompacted"))
            .arg("--encryption-config")
            .arg(plugs.config("p6-sb2"))
            .words("--resource secrets")
            .args(revision)
            .run()
            .ok();
        objects(&done.json())
    };
    let now = export(&[]);
    let p6 = corpus::entries("p6-mixed").revision.to_string();
    let before = export(&["--revision", &p6]);
    let deleted = before.keys().filter(|k| !now.contains_key(*k)).count();
    assert_eq!(deleted, 2);
    let truth: Objects = objects(&corpus::kubectl("p6-mixed"))
        .into_iter()
        .filter(|(k, _)| k.0 == "Secret")
        .collect();
    assert_same("p6 out of p7", &before, &truth);
}

#[test]
fn a_full_disk_is_an_error() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_atrest"))
        .args(["export", "-w", "json", "--snapshot"])
        .arg(corpus::db("p0-plaintext"))
        .stdout(full)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn every_resource_equals_kubectls_where_the_stored_version_is_shown() {
    let plugs = Plugs::start("kek-2026-02");
    let done = bin()
        .words("export --all-resources -w json --snapshot")
        .arg(corpus::db("p9-defragged"))
        .arg("--encryption-config")
        .arg(plugs.config("p6-sb2"))
        .run()
        .ok();
    let list = done.json();
    let mut ours: BTreeMap<(String, String, String), Value> = BTreeMap::new();
    let id = |o: &Value| {
        let group = o["apiVersion"].as_str().unwrap().split_once('/').map_or("", |(g, _)| g);
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let kind = text(&o["kind"]);
        (format!("{group}/{kind}"), text(&o["metadata"]["namespace"]), text(&o["metadata"]["name"]))
    };
    for item in list["items"].as_array().unwrap() {
        ours.insert(id(item), item.clone());
    }
    let (mut equal, mut other_version, mut different) = (0, BTreeMap::new(), Vec::new());
    for (resource, list) in corpus::kubectl_all() {
        for theirs in list["items"].as_array().unwrap() {
            let Some(ours) = ours.get(&id(theirs)) else {
                different.push(format!("{resource}: missing {:?}", id(theirs)));
                continue;
            };
            if ours["apiVersion"] != theirs["apiVersion"] {
                let stored = ours["apiVersion"].as_str().unwrap().to_owned();
                *other_version.entry((resource.clone(), stored)).or_insert(0) += 1;
            } else if ours == theirs {
                equal += 1;
            } else {
                let fields: Vec<_> = theirs
                    .as_object()
                    .unwrap()
                    .keys()
                    .chain(ours.as_object().unwrap().keys())
                    .filter(|k| ours.get(*k) != theirs.get(*k))
                    .collect();
                different.push(format!("{resource}: {:?} differs in {fields:?}", id(theirs)));
            }
        }
    }
    // Each of these the API server makes up when it reads; none of it is stored.
    different.retain(|d| {
        // The same events a second time, in the shape of another group.
        !d.starts_with("events.events.k8s.io: missing")
            // Labels of the pod template, where a job has none (pkg/apis/batch/v1/defaults.go).
            && d != r#"jobs.batch: ("batch/Job", "team-a", "j") differs in ["metadata", "metadata"]"#
            // Renewed every few seconds, so between the snapshot and kubectl.
            && !d.starts_with("leases.coordination.k8s.io: (\"coordination.k8s.io/Lease\", \"kube-system\", \"apiserver-")
    });
    assert!(different.is_empty(), "{different:#?}");
    let crd = "customresourcedefinitions.apiextensions.k8s.io".to_owned();
    let stored_older = BTreeMap::from([((crd, "apiextensions.k8s.io/v1beta1".to_owned()), 1)]);
    assert_eq!(other_version, stored_older);
    assert_eq!(equal, 457);
}

/// Names that are no text do not become the same file.
#[test]
fn names_that_are_no_text_stay_apart() {
    let value = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}"#;
    let key = |tail: &[u8]| [b"/registry/secrets/", tail].concat();
    let snapshot = Crafted::new()
        .put(key(b"ns/\xFF\xFE"), value)
        .put(key(b"ns/\xFE\xFF"), value)
        .put(key(b"\xFF/a"), value)
        .put(key(b"\xFE/a"), value)
        .file();
    let dir = tempfile::tempdir().unwrap();
    let run = bin().words("export --include-misplaced --snapshot").arg(snapshot.path());
    run.arg("--out").arg(dir.path()).run().ok();
    let names: Vec<_> = files(dir.path()).into_keys().collect();
    let under = |path: &str| format!("core/secrets/{path}.yaml");
    assert_eq!(names, ["%FE/a", "%FF/a", "ns/%FE%FF", "ns/%FF%FE"].map(under));
}

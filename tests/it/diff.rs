//! `diff`: two sources, object by object.

// Objects are written where they are handed over.
#![allow(clippy::needless_pass_by_value)]

use std::path::Path;

use serde_json::{Value, json};

use crate::support::bin::{Bin, Done};
use crate::support::plugs::Plugs;
use crate::support::snapshot::Crafted;
use crate::support::{Etcd, Version, bin, corpus};

fn place(kind: &str, path: &Path) -> String {
    format!("{kind}:{}", path.display())
}

fn diff(a: &str, b: &str) -> Bin {
    bin().arg("diff").arg(a).arg(b)
}

fn secret(name: &str, data: Value) -> String {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "a"}, "data": data})
        .to_string()
}

/// Keys of a list of the document.
fn keys(done: &Done, list: &str) -> Vec<String> {
    let document = done.json();
    let rows = document[list].as_array().unwrap().clone();
    rows.iter().map(|r| r["key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_source_equals_itself() {
    let db = place("snapshot", &corpus::db("p9-defragged"));
    let done = diff(&db, &db).words("-w json").run().ok();
    let document = done.json();
    assert_eq!(document["schema"], "atrest.diff/v1");
    let entries = corpus::entries("p9-defragged");
    assert_eq!(document["sources"][1]["revision"], entries.revision);
    // All but the API server's own bookkeeping.
    let equal = document["equal"].as_u64().unwrap();
    assert!(entries.entries.len() as u64 - equal < 8, "{equal}");
    for list in ["added", "removed", "changed", "unknown", "rewritten"] {
        assert_eq!(document[list], json!([]), "{list}");
    }
}

/// Every Secret of p7 was rewritten through the API server under other keys, and two deleted: that
/// nothing else became of them is what this is for.
#[test]
fn a_migration_is_proved() {
    let plugs = Plugs::start("kek-2026-02");
    let (a, b) = (corpus::db("p6-mixed"), corpus::db("p7-migrated-uncompacted"));
    let run = |more: &str| {
        diff(&place("snapshot", &a), &place("snapshot", &b))
            .arg("--encryption-config")
            .arg(plugs.config("p6-sb2"))
            .words("--resource secrets")
            .words(more)
            .run()
            .code(1)
    };
    let done = run("-w json");
    assert_eq!(keys(&done, "removed").len(), 2);
    assert_eq!(keys(&done, "added"), Vec::<String>::new());
    let document = done.json();
    // What was done with kubectl: `apply` noted a copy of each, which changed that of three.
    let changed = document["changed"].as_array().unwrap();
    let applied =
        json!([r#"metadata.annotations["kubectl.kubernetes.io/last-applied-configuration"]"#]);
    assert!(changed.len() == 3 && changed.iter().all(|c| c["fields"] == applied), "{changed:?}");
    let rewritten: u64 = document["rewritten"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["entries"].as_u64().unwrap())
        .sum();
    assert!(rewritten > 20, "{rewritten}");
    assert!(
        document["rewritten"]
            .as_array()
            .unwrap()
            .iter()
            .all(|r| { r["stored"][1] == "encrypted by secretbox v1 key secret-key-2" })
    );
    let table = run("");
    assert!(table.text().contains("2 removed, 3 changed, "), "{}", table.text());
}

#[test]
fn two_revisions_of_one_file_are_two_sources() {
    let plugs = Plugs::start("kek-2026-02");
    let db = place("snapshot", &corpus::db("p7-migrated-uncompacted"));
    let p6 = corpus::entries("p6-mixed").revision;
    let run = |a: &str, b: &str| {
        diff(a, b)
            .arg("--encryption-config")
            .arg(plugs.config("p6-sb2"))
            .words("--resource secrets -w json")
            .run()
            .code(1)
    };
    let before = format!("{db}@{p6}");
    let forth = run(&before, &db);
    let back = run(&db, &before);
    assert_eq!(forth.json()["sources"][0]["revision"], p6);
    assert_eq!(keys(&forth, "removed").len(), 2);
    assert_eq!(keys(&forth, "removed"), keys(&back, "added"));
}

#[test]
fn what_differs_is_named_and_secrets_by_their_length() {
    let config_map = |v: &str, more: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "a",
            "managedFields": [{"manager": v}], "labels": more}, "data": {"k": v}})
        .to_string()
    };
    let a = Crafted::new()
        .put("/registry/configmaps/a/c", config_map("one", json!({"x/y": "1"})))
        .put("/registry/secrets/a/gone", secret("gone", json!({})))
        .put("/registry/secrets/a/s", secret("s", json!({"p": "aHVudGVyMg=="})))
        .put("/registry/secrets/a/same", secret("same", json!({})))
        .file();
    let b = Crafted::new()
        .put("/registry/configmaps/a/c", config_map("two", json!({"x/y": "2"})))
        .put("/registry/secrets/a/new", secret("new", json!({})))
        .put("/registry/secrets/a/s", secret("s", json!({"p": "aHVudGVyMw==", "q": "eA=="})))
        .put("/registry/secrets/a/same", secret("same", json!({})))
        .file();
    let (a, b) = (place("snapshot", a.path()), place("snapshot", b.path()));
    let done = diff(&a, &b).words("-w json").run().code(1);
    let document = done.json();
    assert_eq!(keys(&done, "added"), ["/registry/secrets/a/new"]);
    assert_eq!(keys(&done, "removed"), ["/registry/secrets/a/gone"]);
    assert_eq!(document["equal"], 1);
    let changed: Vec<_> = document["changed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["key"].as_str().unwrap(), c["fields"].clone(), c["stored"].clone()))
        .collect();
    let plain = json!(["stored unencrypted", "stored unencrypted"]);
    assert_eq!(
        changed,
        [
            (
                "/registry/configmaps/a/c",
                json!(["data.k", "metadata.labels[\"x/y\"]"]),
                plain.clone()
            ),
            ("/registry/secrets/a/s", json!(["data.p", "data.q"]), plain),
        ]
    );
    let table = diff(&a, &b).run().code(1);
    let text = table.text();
    assert!(text.contains("7 bytes") && text.contains("\"one\""), "{text}");
    for hidden in ["hunter", "aHVudGVy"] {
        assert!(!text.contains(hidden) && !done.text().contains(hidden));
    }
    let narrowed = diff(&a, &b).words("--resource secrets -n a -w json").run().code(1);
    assert_eq!(keys(&narrowed, "changed"), ["/registry/secrets/a/s"]);
}

#[test]
fn what_cannot_be_read_is_never_called_equal() {
    let a = Crafted::new().put("/registry/secrets/a/s", "k8s:enc:secretbox:v1:k:one").file();
    let b = Crafted::new().put("/registry/secrets/a/s", "k8s:enc:secretbox:v1:k:two").file();
    let done = diff(&place("snapshot", a.path()), &place("snapshot", b.path()))
        .words("-w json")
        .run()
        .code(4)
        .says("cannot compare /registry/secrets/a/s");
    assert_eq!(done.json()["equal"], 0);
    assert_eq!(keys(&done, "unknown"), ["/registry/secrets/a/s"]);
    // The same bytes are the same object, whatever they are.
    diff(&place("snapshot", a.path()), &place("snapshot", a.path())).run().ok();
}

#[test]
fn errors_are_no_difference() {
    let db = place("snapshot", &corpus::db("p0-plaintext"));
    for (a, b) in [("snapshot:/nowhere", db.as_str()), (db.as_str(), "snapshot:/nowhere")] {
        diff(a, b).run().fails(1).says("/nowhere");
    }
    diff(&db, &db).words("-n nowhere").run().fails_with_hint(1).says("nothing to compare");
    diff(&db, &format!("{db}@999999")).run().fails(1).says("999999");
    for line in [
        "x",
        "snapshot:x y",
        "snapshot:x snapshot:y@0",
        "snapshot:x snapshot:y --revision 1",
        "snapshot:x snapshot:y --cacert z",
        "snapshot:x snapshot:y --clean --restored",
        "snapshot:x snapshot:y --snapshot z",
        "kine:x kine:y --skip-hash-check",
    ] {
        bin().arg("diff").words(line).run().fails(2);
    }
}

#[test]
fn a_live_etcd_and_a_data_directory_are_sources() {
    let etcd =
        Etcd::builder(Version::V35).restore(corpus::db("p8-compacted-not-defragged")).start();
    let data = corpus::data_dir();
    let (file, dir) = (
        place("snapshot", &corpus::db("p8-compacted-not-defragged")),
        place("data-dir", data.path()),
    );
    let live = |b: &str| diff("etcd:", b).arg("--endpoints").arg(etcd.endpoint());
    live(&file).run().ok();
    live(&dir).run().ok();
    diff(&format!("etcd:{}", etcd.endpoint()), &file).run().ok();
    etcd.put("/registry/secrets/default/extra", secret("extra", json!({})).as_bytes());
    let done = live(&file).words("-w json").run().code(1);
    assert_eq!(keys(&done, "removed"), ["/registry/secrets/default/extra"]);
}

/// A restored cluster has other UIDs, times and addresses, and none of what is left out.
#[test]
fn a_restore_is_proved() {
    let service = |uid: &str, ip: &str, port: u16| {
        json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "a", "uid": uid}, "spec": {"clusterIP": ip, "ports": [{"port": port}]}}).to_string()
    };
    let a = Crafted::new()
        .put("/registry/leases/a/l", json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l", "namespace": "a"}}).to_string())
        .put("/registry/services/specs/a/s", service("1", "10.0.0.1", 80))
        .file();
    let b = Crafted::new().put("/registry/services/specs/a/s", service("2", "10.9.0.1", 80)).file();
    let c = Crafted::new().put("/registry/services/specs/a/s", service("2", "10.9.0.1", 81)).file();
    let run = |b: &Path, more: &str| {
        diff(&place("snapshot", a.path()), &place("snapshot", b)).words(more).words("-w json").run()
    };
    assert_eq!(
        run(b.path(), "").code(1).json()["changed"][0]["fields"],
        json!(["metadata.uid", "spec.clusterIP"])
    );
    assert_eq!(
        run(b.path(), "--clean").code(1).json()["changed"][0]["fields"],
        json!(["spec.clusterIP"])
    );
    let proved = run(b.path(), "--restored").ok().json();
    assert_eq!((&proved["equal"], &proved["left_out"]), (&json!(1), &json!(1)));
    let other = run(c.path(), "--restored").code(1).json();
    assert_eq!(other["changed"][0]["fields"], json!(["spec.ports[0].port"]));
}

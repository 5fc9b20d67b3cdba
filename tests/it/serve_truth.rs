//! `serve` beside a real API server on the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::plugs::Plugs;
use crate::support::served::Served;
use crate::support::{bin, corpus};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// What the real server answered, by part and path.
fn truth() -> Value {
    let path = corpus::fixtures("apiserver/p9.json.zst");
    let text = zstd::decode_all(&std::fs::read(path).unwrap()[..]).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn p9(plugs: &Plugs, options: &str) -> Served {
    let bin = bin()
        .arg("--snapshot")
        .arg(corpus::db("p9-defragged"))
        .arg("--encryption-config")
        .arg(plugs.config("p6-sb2"));
    Served::start(bin, options)
}

/// `apis_apps_v1_deployments` → `/apis/apps/v1/deployments`.
fn path(name: &str) -> String {
    format!("/{}", name.replace('_', "/"))
}

/// Items by namespace and name, those that the real server wrote itself after it was started left
/// out: they are not in the snapshot.
fn items(list: &Value, newest: i64) -> BTreeMap<(String, String), Value> {
    let old = |item: &&Value| {
        let version = item["metadata"]["resourceVersion"].as_str().unwrap_or("0");
        version.parse::<i64>().unwrap() <= newest
    };
    let key = |item: &Value| {
        let text = |field: &str| item["metadata"][field].as_str().unwrap_or_default().to_owned();
        ((text("namespace"), text("name")), item.clone())
    };
    list["items"].as_array().into_iter().flatten().filter(old).map(key).collect()
}

/// The fields of the first level or two that differ.
fn differing(a: &Value, b: &Value) -> Vec<String> {
    let fields = |v: &Value| -> BTreeSet<String> {
        v.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect()
    };
    let all: BTreeSet<String> = fields(a).union(&fields(b)).cloned().collect();
    all.into_iter().filter(|k| a[k] != b[k]).collect()
}

#[test]
fn lists() {
    let plugs = Plugs::start("kek-2026-02");
    let served = p9(&plugs, "--reveal");
    let newest = corpus::entries("p9-defragged").revision;
    let truth = truth();
    let mut different = Vec::new();
    for (name, expected) in truth["lists"].as_object().unwrap() {
        if name == "api_v1_componentstatuses" {
            // Not stored: the server asks around.
            continue;
        }
        let got = served.get(&path(name));
        assert_eq!(got["kind"], expected["kind"], "{name}");
        assert_eq!(got["apiVersion"], expected["apiVersion"], "{name}");
        assert_eq!(got["metadata"]["resourceVersion"], newest.to_string(), "{name}");
        let later = items(expected, i64::MAX);
        let (got, expected) = (items(&got, newest), items(expected, newest));
        for (key, expected) in &expected {
            match got.get(key) {
                None => different.push(format!("{name} {key:?} is missing")),
                Some(got) => {
                    let (mut got, mut expected) = (got.clone(), expected.clone());
                    if key.1 == "big-900k" {
                        got["data"] = Value::Null;
                        expected["data"] = Value::Null;
                    }
                    if got != expected {
                        different.push(format!("{name} {key:?}: {:?}", differing(&got, &expected)));
                    }
                }
            }
        }
        for key in got.keys().filter(|k| !later.contains_key(*k)) {
            different.push(format!("{name} {key:?} is too much"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn tables() {
    let plugs = Plugs::start("kek-2026-02");
    let served = p9(&plugs, "");
    let truth = truth();
    let mut different = Vec::new();
    for (name, expected) in truth["tables"].as_object().unwrap() {
        if name == "api_v1_componentstatuses" {
            continue;
        }
        let got = served.ask("GET", &path(name), TABLE).json();
        assert_eq!(got["columnDefinitions"], expected["columnDefinitions"], "{name}");
        let columns = got["columnDefinitions"].as_array().unwrap();
        let named = columns.iter().position(|c| c["format"] == "name").unwrap();
        // The clock of the capture is not ours.
        let timeless = |row: &Value| -> Vec<Value> {
            let cells = row["cells"].as_array().unwrap().iter().zip(columns);
            let is_age =
                |c: &Value| ["Age", "Last Seen", "First Seen"].iter().any(|n| c["name"] == *n);
            cells.filter(|(_, c)| !is_age(c)).map(|(cell, _)| cell.clone()).collect()
        };
        let rows = |table: &Value| -> BTreeMap<String, Vec<Vec<Value>>> {
            let mut rows: BTreeMap<String, Vec<Vec<Value>>> = BTreeMap::new();
            for row in table["rows"].as_array().into_iter().flatten() {
                rows.entry(row["cells"][named].as_str().unwrap().to_owned())
                    .or_default()
                    .push(timeless(row));
            }
            rows
        };
        let (got, expected) = (rows(&got), rows(expected));
        for (key, row) in &got {
            match expected.get(key) {
                Some(expected) if expected == row => {}
                other => different.push(format!("{name} {key}\n  {row:?}\n  {other:?}")),
            }
        }
        for key in expected.keys().filter(|k| !got.contains_key(*k)) {
            different.push(format!("{name} {key} is missing"));
        }
        // What the real server wrote after it was started is not in the snapshot.
        let own = [
            "kubernetes.18eb211f2b49a8fc",
            "openshift-kube-apiserver.18eb211f7330795c",
            "apiserver-wlv32tlttr4jl3gtroqexyxapa",
        ];
        different.retain(|d| !own.iter().any(|name| d.contains(name)));
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Everything that can be read is discovered as a real server has it; nothing else is offered.
#[test]
fn discovery() {
    let plugs = Plugs::start("kek-2026-02");
    let served = p9(&plugs, "");
    let truth = truth();
    // Plural → what a client takes from it.
    let resources = |list: &Value| -> BTreeMap<String, Value> {
        let wire = |r: &Value| {
            let mut r = r.clone();
            let map = r.as_object_mut().unwrap();
            let verbs = map.remove("verbs").unwrap();
            // Which version the running server writes cannot be told from what is stored.
            map.remove("storageVersionHash");
            let reads: BTreeSet<String> = verbs
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|v| v.as_str())
                .filter(|v| ["get", "list", "watch"].contains(v))
                .map(str::to_owned)
                .collect();
            map.insert("reads".to_owned(), reads.into_iter().collect());
            (r["name"].as_str().unwrap().to_owned(), r)
        };
        list["resources"].as_array().unwrap().iter().map(wire).collect()
    };
    for (name, expected) in truth["discovery"].as_object().unwrap() {
        let Some(group) = name.strip_prefix("apis_").or_else(|| (name == "api_v1").then_some("v1"))
        else {
            continue;
        };
        let got = served.get(&path(name));
        assert_eq!(got["groupVersion"], expected["groupVersion"]);
        let (got, expected) = (resources(&got), resources(expected));
        for (plural, expected) in expected {
            // What is not stored is not offered: reviews, bindings, what a node or a controller does.
            let (resource, sub) = plural.split_once('/').unwrap_or((&plural, ""));
            let reads = expected["reads"].as_array().unwrap();
            let offered = match sub {
                "" => reads.len() == 3 || plural.starts_with("selfsubject"),
                "status" | "approval" | "ephemeralcontainers" | "resize" => true,
                _ => false,
            };
            assert_eq!(got.contains_key(&plural), offered, "{group} {resource} {sub}");
            if offered {
                assert_eq!(got[&plural], expected, "{group}");
            }
        }
    }
    let groups = |list: &Value| -> Vec<Value> { list["groups"].as_array().unwrap().clone() };
    assert_eq!(groups(&served.get("/apis")), groups(&truth["discovery"]["apis"]));
    let media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (at, name) in [("/api", "api.aggregated"), ("/apis", "apis.aggregated")] {
        let answer = served.ask("GET", at, media);
        assert!(answer.head.contains(&format!("content-type: {media}")), "{}", answer.head);
        let names = |document: &Value| -> Vec<Value> {
            document["items"].as_array().unwrap().iter().map(|g| g["metadata"].clone()).collect()
        };
        let (got, expected) = (answer.json(), &truth["discovery"][name]);
        assert_eq!(names(&got).len(), names(expected).len());
        let find = |document: &Value, plural: &str| -> Value {
            let mut all = document["items"].as_array().unwrap().iter().flat_map(|g| {
                g["versions"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .flat_map(|v| v["resources"].as_array().unwrap())
            });
            all.find(|r| r["resource"] == plural).cloned().unwrap_or_default()
        };
        for plural in ["pods", "secrets", "deployments", "widgets", "customresourcedefinitions"] {
            let (got, expected) = (find(&got, plural), find(expected, plural));
            for field in ["responseKind", "scope", "singularResource", "shortNames", "categories"] {
                assert_eq!(got[field], expected[field], "{plural} {field}");
            }
        }
    }
}

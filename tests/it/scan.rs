//! `scan`: what it counts, on every snapshot of the corpus and on live servers.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::certs::Certs;
use crate::support::corpus::{self, Expected};
use crate::support::snapshot::Crafted;
use crate::support::{Etcd, Version, bin};

/// Resource, provider, version, key → entries and bytes.
type Groups = BTreeMap<[String; 4], (u64, u64)>;

/// Storage segments of the corpus whose resource has another name.
const GROUPED: [(&str, &str); 24] = [
    ("clusterrolebindings", "clusterrolebindings.rbac.authorization.k8s.io"),
    ("clusterroles", "clusterroles.rbac.authorization.k8s.io"),
    ("cronjobs", "cronjobs.batch"),
    ("deployments", "deployments.apps"),
    ("endpointslices", "endpointslices.discovery.k8s.io"),
    ("flowschemas", "flowschemas.flowcontrol.apiserver.k8s.io"),
    ("horizontalpodautoscalers", "horizontalpodautoscalers.autoscaling"),
    ("ingress", "ingresses.networking.k8s.io"),
    ("ipaddresses", "ipaddresses.networking.k8s.io"),
    ("jobs", "jobs.batch"),
    ("leases", "leases.coordination.k8s.io"),
    ("poddisruptionbudgets", "poddisruptionbudgets.policy"),
    ("priorityclasses", "priorityclasses.scheduling.k8s.io"),
    ("prioritylevelconfigurations", "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"),
    ("rolebindings", "rolebindings.rbac.authorization.k8s.io"),
    ("roles", "roles.rbac.authorization.k8s.io"),
    ("servicecidrs", "servicecidrs.networking.k8s.io"),
    ("services/specs", "services"),
    ("services/endpoints", "endpoints"),
    (
        "apiextensions.k8s.io/customresourcedefinitions",
        "customresourcedefinitions.apiextensions.k8s.io",
    ),
    ("apiregistration.k8s.io/apiservices", "apiservices.apiregistration.k8s.io"),
    ("example.com/widgets", "widgets.example.com"),
    // Never encrypted, so in no group.
    ("masterleases", ""),
    ("ranges", ""),
];

/// The resource of a key of the corpus, by a table of its own.
fn resource(key: &str) -> Option<String> {
    let path = key.strip_prefix("/registry/").unwrap();
    if path.starts_with("peerserverleases/") {
        return None;
    }
    let known = GROUPED
        .iter()
        .find(|(segment, _)| path.strip_prefix(segment).is_some_and(|rest| rest.starts_with('/')));
    match known {
        Some((_, "")) => None,
        Some((_, resource)) => Some((*resource).to_owned()),
        None => Some(path.split('/').next().unwrap().to_owned()),
    }
}

/// `[resource, provider, version, key]` by the prefix that a live Range returned.
fn expected_group(entry: &Expected) -> Option<[String; 4]> {
    let resource = resource(&entry.key)?;
    // `k8s:enc:secretbox:v1:NAME:`
    let words: Vec<&str> = entry.prefix.split(':').collect();
    let word = |i: usize| words.get(i).copied().unwrap_or_default().to_owned();
    let provider = if entry.prefix.is_empty() { "identity".to_owned() } else { word(2) };
    Some([resource, provider, word(3), word(4)])
}

fn expected(phase: &str, wanted: impl Fn(&Expected) -> bool) -> Groups {
    let mut groups = Groups::new();
    for entry in corpus::entries(phase).entries.iter().filter(|e| wanted(e)) {
        if let Some(group) = expected_group(entry) {
            let (entries, bytes) = groups.entry(group).or_default();
            *entries += 1;
            *bytes += entry.size;
        }
    }
    groups
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The groups of a report, KMS key IDs taken together.
fn groups(report: &Value) -> Groups {
    let mut groups = Groups::new();
    for g in report["groups"].as_array().unwrap() {
        let name = ["resource", "provider", "version", "key"].map(|n| text(&g[n]));
        let (entries, bytes) = groups.entry(name).or_default();
        *entries += g["entries"].as_u64().unwrap();
        *bytes += g["bytes"].as_u64().unwrap();
    }
    groups
}

fn scan(phase: &str, more: &str) -> Value {
    scan_file(&corpus::db(phase), more)
}

fn scan_file(path: &Path, more: &str) -> Value {
    bin().words("scan -w json --snapshot").arg(path).words(more).run().ok().json()
}

/// A key with a lease may come or go between the listing and the snapshot.
fn lasting(entry: &Expected) -> bool {
    entry.lease == 0
}

fn core(resource: &'static str) -> impl Fn(&Expected) -> bool {
    move |e| e.key.starts_with(&format!("/registry/{resource}/"))
}

#[test]
fn groups_of_every_phase_are_what_etcd_itself_returned() {
    for phase in corpus::PHASES {
        let report = scan(phase, "--all-resources");
        // The listing was made right after the snapshot; an event may have come between.
        let listed = corpus::entries(phase);
        let revision = report["source"]["revision"].as_i64().unwrap();
        let newest = listed.entries.iter().filter(|e| lasting(e)).map(|e| e.mod_revision).max();
        assert!(newest <= Some(revision) && revision <= listed.revision, "{phase}: {revision}");
        let leased = ["events", "leases.coordination.k8s.io"];
        let mut found = groups(&report);
        found.retain(|g, _| !leased.contains(&g[0].as_str()));
        let mut expected = expected(phase, lasting);
        expected.retain(|g, _| !leased.contains(&g[0].as_str()));
        assert_eq!(found, expected, "{phase}");
    }
}

#[test]
fn totals_are_the_sums_of_the_groups() {
    for phase in corpus::PHASES {
        let report = scan(phase, "--all-resources");
        let sum = |plain: fn(&str) -> bool| -> u64 {
            let groups = groups(&report);
            groups.iter().filter(|(g, _)| plain(&g[1])).map(|(_, n)| n.0).sum()
        };
        let totals = &report["totals"];
        assert_eq!(totals["plaintext"], sum(|p| p == "identity"), "{phase}");
        assert_eq!(totals["encrypted"], sum(|p| p != "identity"), "{phase}");
        assert_eq!(totals["entries"], sum(|_| true), "{phase}");
        for status in ["current", "stale", "unreadable"] {
            assert!(totals[status].is_null(), "{phase}: {status} without a configuration");
        }
        assert!(report["config"].is_null() && report.get("entries").is_none(), "{phase}");
    }
}

/// `--list` has every key with the revisions, version and size that etcd itself returned.
#[test]
fn listed_entries_of_every_phase_are_what_etcd_itself_returned() {
    for phase in corpus::PHASES {
        let report = scan(phase, "--all-resources --list");
        let mut found: BTreeMap<String, &Value> = BTreeMap::new();
        for e in report["entries"].as_array().unwrap() {
            assert!(found.insert(text(&e["key"]), e).is_none(), "{phase}: {e} twice");
        }
        for e in corpus::entries(phase).entries.iter().filter(|e| lasting(e)) {
            let Some(group) = expected_group(e) else {
                assert!(!found.contains_key(&e.key), "{phase}: {} is no finding", e.key);
                continue;
            };
            let f = found.remove(&e.key).unwrap_or_else(|| panic!("{phase}: {} lacks", e.key));
            let name = ["resource", "provider", "version", "key_name"].map(|n| text(&f[n]));
            assert_eq!(name, group, "{phase} {}", e.key);
            let numbers = ["create_revision", "mod_revision", "version_count"];
            let numbers = numbers.map(|n| f[n].as_i64().unwrap());
            assert_eq!(
                numbers,
                [e.create_revision, e.mod_revision, e.version],
                "{phase} {}",
                e.key
            );
            assert_eq!(f["size"], e.size, "{phase} {}", e.key);
            assert!(e.key.ends_with(&text(&f["name"])), "{f}");
            let namespace = text(&f["namespace"]);
            assert!(namespace.is_empty() || e.key.contains(&format!("/{namespace}/")), "{f}");
        }
        assert!(found.keys().all(|k| k.contains("/events/") || k.contains("/leases/")), "{phase}");
    }
}

#[test]
fn secrets_are_the_default() {
    assert_eq!(groups(&scan("p6-mixed", "")), expected("p6-mixed", core("secrets")));
}

#[test]
fn a_configurations_resources_are_the_default() {
    let config = corpus::config("p2-aescbc");
    let report = scan("p2-aescbc", &format!("--encryption-config {}", config.display()));
    let both = |e: &Expected| core("secrets")(e) || core("configmaps")(e);
    assert_eq!(groups(&report), expected("p2-aescbc", both));
}

#[test]
fn resources_add_up_in_every_form() {
    let resources = |names: &'static [&'static str]| {
        expected("p6-mixed", move |e| resource(&e.key).is_some_and(|r| names.contains(&r.as_str())))
    };
    for (options, names) in [
        ("--resource secrets --resource configmaps", &["secrets", "configmaps"][..]),
        ("--resource secrets,configmaps", &["secrets", "configmaps"]),
        ("--resource secrets --resource secrets", &["secrets"]),
        ("--resource deployments.apps", &["deployments.apps"]),
        ("--resource deployments", &["deployments.apps"]),
        ("--resource *.apps", &["deployments.apps"]),
        ("--resource *.batch", &["jobs.batch", "cronjobs.batch"]),
        ("--resource *.example.com", &["widgets.example.com"]),
        (
            "--resource widgets.example.com --resource services",
            &["widgets.example.com", "services"],
        ),
        ("--resource endpoints", &["endpoints"]),
        ("--resource ingresses.networking.k8s.io", &["ingresses.networking.k8s.io"]),
        ("--resource *.apiextensions.k8s.io", &["customresourcedefinitions.apiextensions.k8s.io"]),
    ] {
        assert_eq!(groups(&scan("p6-mixed", options)), resources(names), "{options}");
    }
    let core_group: Groups = expected("p6-mixed", |e| lasting(e) && !core("events")(e))
        .into_iter()
        .filter(|(g, _)| !g[0].contains('.'))
        .collect();
    let mut found = groups(&scan("p6-mixed", "--resource *."));
    found.retain(|g, _| g[0] != "events");
    assert_eq!(found, core_group);
    let all = groups(&scan("p6-mixed", "--resource *.*"));
    assert_eq!(all, groups(&scan("p6-mixed", "--all-resources")));
}

#[test]
fn namespaces_narrow() {
    let within = |namespaces: &'static [&'static str]| {
        expected("p6-mixed", move |e| {
            namespaces.iter().any(|n| e.key.starts_with(&format!("/registry/secrets/{n}/")))
        })
    };
    for (options, namespaces) in [
        ("-n team-a", &["team-a"][..]),
        ("--namespace team-a", &["team-a"]),
        ("-n team-a -n team-b", &["team-a", "team-b"]),
        ("-n team-a,team-b", &["team-a", "team-b"]),
    ] {
        assert_eq!(groups(&scan("p6-mixed", options)), within(namespaces), "{options}");
    }
}

#[test]
fn a_prefix_is_the_api_servers() {
    let all = groups(&scan("p6-mixed", ""));
    for prefix in ["/registry/", "/registry", "registry", "//registry/./x/.."] {
        assert_eq!(groups(&scan("p6-mixed", &format!("--prefix {prefix}"))), all, "{prefix}");
    }
    for elsewhere in ["/kubernetes.io/", "/other", "/registry2/"] {
        let options = ["scan", "-w", "json", "--prefix", elsewhere, "--snapshot"];
        let done = bin().args(options).arg(corpus::db("p6-mixed")).run().code(1);
        done.says("the source holds entries under /registry/");
    }
}

/// Later phases of the same cluster, not compacted, still hold the state of earlier ones.
#[test]
fn a_revision_is_the_state_at_that_revision() {
    for then in ["p0-plaintext", "p1-secretbox", "p4-kmsv1", "p6-mixed"] {
        let revision = corpus::entries(then).revision;
        let options = format!("--resource secrets,configmaps --revision {revision}");
        let report = scan("p7-migrated-uncompacted", &options);
        assert_eq!(report["source"]["revision"], revision, "{then}");
        let both = |e: &Expected| core("secrets")(e) || core("configmaps")(e);
        assert_eq!(groups(&report), expected(then, both), "{then}");
    }
}

#[test]
fn a_live_server_gives_the_same_groups_over_mutual_tls() {
    let certs = Certs::new();
    for version in [Version::V34, Version::V35] {
        for phase in ["p6-mixed", "p7-migrated-uncompacted"] {
            let etcd = Etcd::builder(version).tls(&certs).restore(corpus::db(phase)).start();
            for options in ["", "--resource configmaps --resource *.apps", "-n team-a"] {
                let live = bin().words("scan -w json").args(etcd.args()).words(options);
                let live = live.run().ok().json();
                assert_eq!(live["source"]["kind"], "etcd");
                let offline = scan(phase, options);
                for part in ["groups", "totals", "never_encrypted"] {
                    assert_eq!(live[part], offline[part], "{version:?} {phase} {options}: {part}");
                }
            }
            let list = bin().words("scan -w jsonl --list").args(etcd.args()).run().ok().jsonl();
            let offline = bin().words("scan -w jsonl --snapshot").arg(corpus::db(phase));
            assert_eq!(list, offline.run().ok().jsonl(), "{version:?} {phase}");
        }
    }
}

/// Every kind of key and value at once, offline and live.
#[test]
fn strange_keys_and_values() {
    let crafted = Crafted::new()
        .put("/registry/secrets/default/empty", "")
        .put("/registry/secrets/default/name:with:colons", "k8s\0plain")
        .put("/registry/secrets/default/mentions", "x k8s:enc:secretbox:v1:k:")
        .put("/registry/secrets/default/short", "k8s:enc")
        .put("/registry/secrets/default/unknown", "k8s:enc:rot13:v1:key:abc")
        .put("/registry/secrets/default/no-version", "k8s:enc:secretbox:key:abc")
        .put("/registry/secrets/default/no-name", "k8s:enc:aescbc:v1:abc")
        .put("/registry/secrets/default/cbc", "k8s:enc:aescbc:v1:a:b:0123456789abcdef")
        .put("/registry/secrets/default/newline", "k8s:enc:aesgcm:v1:gcm:payload\n")
        .put("/registry/secrets/default/line\nbreak", "plain")
        .put(&b"/registry/secrets/default/not-utf8-\xff\xfe"[..], "plain")
        .put("/registry/secrets/deep/er/name", "plain")
        .put("/registry/secrets/cluster-scoped", "plain")
        .put("/registry/secretsx/default/other", "plain")
        .put("/registry/masterleases/10.0.0.1", "x")
        .put("/registry/ranges/serviceips", "x")
        .put("compact_rev_key", "7")
        .put("/unrelated", "x");
    let file = crafted.file();
    let etcd = Etcd::restored(Version::V35, file.path());
    let offline = scan_file(file.path(), "--list");
    let live = bin().words("scan -w json --list").args(etcd.args()).run().ok().json();
    for part in ["groups", "totals", "entries"] {
        assert_eq!(live[part], offline[part], "{part}");
    }

    let entries = offline["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 13);
    let named = |name: &str| {
        let found = entries.iter().find(|e| e["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not listed"))
    };
    for (name, provider, version, key) in [
        ("empty", "identity", None, None),
        ("name:with:colons", "identity", None, None),
        ("mentions", "identity", None, None),
        ("short", "identity", None, None),
        ("line\nbreak", "identity", None, None),
        ("unknown", "unknown", None, None),
        ("no-version", "unknown", None, None),
        // A name runs to the next colon; a configuration could tell a name with a colon in it.
        ("cbc", "aescbc", Some("v1"), Some("a")),
        ("newline", "aesgcm", Some("v1"), Some("gcm")),
    ] {
        let e = named(name);
        assert_eq!(e["provider"], provider, "{name}");
        assert_eq!(e["version"].as_str(), version, "{name}");
        assert_eq!(e["key_name"].as_str(), key, "{name}");
    }
    assert_eq!(named("newline")["size"], 30);
    assert_eq!(named("no-name")["key_name"], Value::Null);
    let raw = entries.iter().find(|e| e.get("key_b64").is_some()).expect("one key is not UTF-8");
    assert!(raw.get("key").is_none());
    assert_eq!(raw["key_b64"], "L3JlZ2lzdHJ5L3NlY3JldHMvZGVmYXVsdC9ub3QtdXRmOC3//g==");
}

/// Lists with keys named `a`, `a:b` and `a:b:c`: the longest that fits is the key's name.
#[test]
fn a_configured_name_with_colons_is_recognised() {
    let secret = "c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQ/ITEyMzQ=";
    let key = |name: &str| format!("        - {{name: '{name}', secret: {secret}}}\n");
    let config = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers:\n  - secretbox:\n      keys:\n{}{}  - identity: {{}}\n",
        key("a"),
        key("a:b"),
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    let crafted = Crafted::new()
        .put("/registry/secrets/x/1", "k8s:enc:secretbox:v1:a:b:payload")
        .put("/registry/secrets/x/2", "k8s:enc:secretbox:v1:a:payload")
        .put("/registry/secrets/x/3", "k8s:enc:secretbox:v1:c:d:payload")
        .file();
    let done = bin()
        .words("scan -w jsonl --snapshot")
        .arg(crafted.path())
        .arg("--encryption-config")
        .arg(file.path())
        .run()
        .code(4);
    let found: Vec<_> =
        done.jsonl().iter().map(|e| [&e["key_name"], &e["status"]].map(text)).collect();
    assert_eq!(found[0][0], "a:b");
    assert_eq!(found[1], ["a", "current"]);
    assert_eq!(found[2], ["c", "unreadable"]);
}

//! What a client learns of the resources: the documents of `/api` and `/apis`, one by one and
//! aggregated (apimachinery `pkg/apis/meta/v1`; `k8s.io/api/apidiscovery/v2`).

use serde_json::{Value, json};

use super::catalogue::{Catalogue, Resource, api_version};

/// What can be done with everything that is stored.
const VERBS: [&str; 3] = ["get", "list", "watch"];

/// Reviews that are answered without being stored: group, resource, kind.
pub(super) const REVIEWS: [(&str, &str, &str); 3] = [
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
];

/// `/api`.
#[must_use]
pub fn core_versions(address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
           "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
}

/// `/apis`.
#[must_use]
pub fn groups(catalogue: &Catalogue) -> Value {
    let named = catalogue.groups.iter().filter(|(name, _)| !name.is_empty());
    let groups: Vec<Value> = named.map(|(name, versions)| group(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
#[must_use]
pub fn one_group(catalogue: &Catalogue, name: &str) -> Option<Value> {
    let (name, versions) = catalogue.groups.iter().find(|(n, _)| n == name)?;
    let mut value = group(name, versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

fn group(name: &str, versions: &[String]) -> Value {
    let wire = |v: &String| json!({"groupVersion": api_version(name, v), "version": v});
    let versions: Vec<Value> = versions.iter().map(wire).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
#[must_use]
pub fn resources(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    let known = catalogue.groups.iter().find(|(n, _)| n == group)?;
    known.1.iter().find(|v| *v == version)?;
    let mut list = Vec::new();
    for r in of_version(catalogue, group, version) {
        let mut wire = json!({"name": r.plural, "singularName": r.singular,
            "namespaced": r.namespaced, "kind": r.kind, "verbs": VERBS});
        for (field, words) in [("shortNames", &r.short_names), ("categories", &r.categories)] {
            if !words.is_empty() {
                wire[field] = words.clone().into();
            }
        }
        list.push(wire);
        for sub in &r.subresources {
            list.push(json!({"name": format!("{}/{sub}", r.plural), "singularName": "",
                "namespaced": r.namespaced, "kind": r.kind, "verbs": ["get"]}));
        }
    }
    for (_, plural, kind) in REVIEWS.iter().filter(|(g, ..)| *g == group) {
        list.push(json!({"name": plural, "singularName": kind.to_lowercase(),
            "namespaced": false, "kind": kind, "verbs": ["create"]}));
    }
    let mut wire = json!({"kind": "APIResourceList", "groupVersion": api_version(group, version),
                          "resources": list});
    if !group.is_empty() {
        wire["apiVersion"] = "v1".into();
    }
    Some(wire)
}

/// All resources of the core group, or of all others, in one document.
#[must_use]
pub fn aggregated(catalogue: &Catalogue, core: bool, document: &str) -> Value {
    let wanted = catalogue.groups.iter().filter(|(name, _)| name.is_empty() == core);
    let items: Vec<Value> = wanted
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    json!({"version": version, "freshness": "Current",
                           "resources": aggregated_version(catalogue, name, version)})
                })
                .collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{document}"),
           "metadata": {}, "items": items})
}

fn aggregated_version(catalogue: &Catalogue, group: &str, version: &str) -> Vec<Value> {
    let mut list = Vec::new();
    for r in of_version(catalogue, group, version) {
        // Built-in kinds are of the group that the document says.
        let kind = if r.custom {
            json!({"group": r.group, "version": r.version, "kind": r.kind})
        } else {
            json!({"group": "", "version": "", "kind": r.kind})
        };
        let mut wire = json!({"resource": r.plural, "responseKind": kind,
            "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": r.singular, "verbs": VERBS});
        for (field, words) in [("shortNames", &r.short_names), ("categories", &r.categories)] {
            if !words.is_empty() {
                wire[field] = words.clone().into();
            }
        }
        if !r.subresources.is_empty() {
            let sub = |name: &String| json!({"subresource": name, "responseKind": kind, "verbs": ["get"]});
            wire["subresources"] = r.subresources.iter().map(sub).collect();
        }
        list.push(wire);
    }
    for (_, plural, kind) in REVIEWS.iter().filter(|(g, ..)| *g == group) {
        list.push(json!({"resource": plural, "scope": "Cluster",
            "responseKind": {"group": "", "version": "", "kind": kind},
            "singularResource": kind.to_lowercase(), "verbs": ["create"]}));
    }
    list
}

fn of_version<'c>(
    catalogue: &'c Catalogue,
    group: &'c str,
    version: &'c str,
) -> impl Iterator<Item = &'c Resource> {
    let all = catalogue.resources.iter().map(AsRef::as_ref);
    all.filter(move |r: &&Resource| r.group == group && r.version == version)
}

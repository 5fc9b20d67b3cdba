//! Resources that the source itself defines (apiextensions `pkg/apis/apiextensions/v1`), or that
//! it merely holds.

use std::cmp::Reverse;
use std::ops::ControlFlow;

use serde_json::Value;

use super::{Column, Printer, Resource};
use crate::objects::Objects;
use crate::resource::{Scope, Selector};
use crate::serve::jsonpath::JsonPath;
use crate::source::SourceError;
use crate::source::pieces::Pieces;
use crate::storage::Object;

const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// The resources of all `CustomResourceDefinition`s, the preferred version of each first.
pub(super) fn definitions(
    pieces: &dyn Pieces,
    objects: &Objects,
    scope: &Scope,
    notes: &mut Vec<String>,
) -> Result<Vec<Resource>, SourceError> {
    let mut resources = Vec::new();
    for range in scope.ranges(&[Selector::Exact(DEFINITIONS.to_owned())]) {
        pieces.read(&range, None, &mut |entry| {
            match objects.object(DEFINITIONS, entry) {
                Ok(object) => resources.extend(defined(&object.json)),
                Err(why) => {
                    let key = String::from_utf8_lossy(entry.key).escape_debug().to_string();
                    notes.push(format!(
                        "{key} cannot be read ({why}), so what it defines may be missing"
                    ));
                }
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(resources)
}

/// What one definition of `v1` or `v1beta1` defines.
fn defined(definition: &Value) -> Vec<Resource> {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(text).collect()
    };
    let (group, plural, kind) =
        (text(&spec["group"]), text(&names["plural"]), text(&names["kind"]));
    if group.is_empty() || plural.is_empty() || kind.is_empty() {
        return Vec::new();
    }
    let single = [serde_json::json!({"name": spec["version"], "served": true})];
    let versions = match spec["versions"].as_array() {
        Some(versions) if !versions.is_empty() => &versions[..],
        _ => &single[..],
    };
    let mut served: Vec<&Value> =
        versions.iter().filter(|v| v["served"].as_bool().unwrap_or(true)).collect();
    served.sort_by_key(|v| Reverse(rank(v["name"].as_str().unwrap_or_default())));
    let webhook = spec["conversion"]["strategy"] == "Webhook";
    let or_kind = |value: &Value, other: String| match value.as_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => other,
    };
    served
        .into_iter()
        .map(|version| {
            let schema =
                [&version["schema"]["openAPIV3Schema"], &spec["validation"]["openAPIV3Schema"]]
                    .into_iter()
                    .find(|s| s.is_object());
            let printed = [&version["additionalPrinterColumns"], &spec["additionalPrinterColumns"]]
                .into_iter()
                .find(|c| c.is_array());
            let subresources = [&version["subresources"], &spec["subresources"]]
                .into_iter()
                .find(|s| s.is_object());
            Resource {
                group: group.clone(),
                version: text(&version["name"]),
                plural: plural.clone(),
                kind: kind.clone(),
                list_kind: or_kind(&names["listKind"], format!("{kind}List")),
                singular: or_kind(&names["singular"], kind.to_lowercase()),
                namespaced: spec["scope"] != "Cluster",
                short_names: list(&names["shortNames"]),
                categories: list(&names["categories"]),
                subresources: match subresources {
                    Some(s) if s.get("status").is_some() => vec!["status".to_owned()],
                    _ => Vec::new(),
                },
                storage: format!("{plural}.{group}"),
                printer: Printer::Paths(columns(printed)),
                custom: true,
                same_at_all_versions: !webhook,
                schema: schema.cloned(),
                selectable: version["selectableFields"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|f| text(&f["jsonPath"]).trim_start_matches('.').to_owned())
                    .collect(),
            }
        })
        .collect()
}

/// The columns after the name (apiextensions-apiserver
/// `pkg/registry/customresource/tableconvertor`).
fn columns(printed: Option<&Value>) -> Vec<(Column, Option<JsonPath>)> {
    let Some(printed) = printed.and_then(Value::as_array).filter(|p| !p.is_empty()) else {
        let age = Column {
            name: "Age".to_owned(),
            kind: "date".to_owned(),
            format: String::new(),
            description: String::new(),
            priority: 0,
        };
        return vec![(age, JsonPath::parse(".metadata.creationTimestamp"))];
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let column = |c: &Value| {
        let path = c["jsonPath"].as_str().or_else(|| c["JSONPath"].as_str()).unwrap_or_default();
        let column = Column {
            name: text(&c["name"]),
            kind: text(&c["type"]),
            format: text(&c["format"]),
            description: text(&c["description"]),
            priority: c["priority"].as_i64().unwrap_or_default(),
        };
        (column, JsonPath::parse(path))
    };
    printed.iter().map(column).collect()
}

/// How a version ranks among others: stable ones first, then beta, then alpha, each by number;
/// others last (apimachinery `pkg/version/helpers.go`).
fn rank(version: &str) -> (u8, u32, u32) {
    let parse = || -> Option<(u8, u32, u32)> {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        Some(match tail {
            "" => (3, major, 0),
            _ if tail.starts_with("beta") => (2, major, tail[4..].parse().ok()?),
            _ if tail.starts_with("alpha") => (1, major, tail[5..].parse().ok()?),
            _ => return None,
        })
    };
    parse().unwrap_or_default()
}

/// A resource that nothing defines, as its first object shows it.
pub(super) fn undefined(
    resource: &str,
    object: &Object,
    scope: &Scope,
    key: &[u8],
) -> Option<Resource> {
    let (plural, _) = resource.split_once('.').unwrap_or((resource, ""));
    let (group, version) =
        object.api_version.split_once('/').unwrap_or(("", object.api_version.as_str()));
    if version.is_empty() || object.kind.is_empty() {
        return None;
    }
    Some(Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        kind: object.kind.clone(),
        list_kind: format!("{}List", object.kind),
        singular: object.kind.to_lowercase(),
        namespaced: scope.locate(key).namespace.is_some(),
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        storage: resource.to_owned(),
        printer: Printer::Paths(columns(None)),
        custom: true,
        same_at_all_versions: false,
        schema: None,
        selectable: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn definitions_of_both_versions() {
        let names = json!({"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]});
        let schema = json!({"type": "object"});
        let old = json!({"spec": {
            "group": "example.com", "version": "v1beta1", "names": names, "scope": "Namespaced",
            "validation": {"openAPIV3Schema": schema},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "JSONPath": ".spec.size"}],
            "versions": [{"name": "v1alpha1", "served": true}, {"name": "v1", "served": true},
                         {"name": "v1beta1", "served": false}]}});
        let resources = defined(&old);
        let versions: Vec<_> = resources.iter().map(|r| r.version.as_str()).collect();
        assert_eq!(versions, ["v1", "v1alpha1"]);
        assert!(resources.iter().all(|r| r.schema.as_ref() == Some(&schema)));
        let Printer::Paths(columns) = &resources[0].printer else { panic!() };
        assert_eq!((columns[0].0.name.as_str(), columns.len()), ("Size", 1));
        let new = json!({"spec": {
            "group": "example.com", "names": names, "scope": "Cluster",
            "conversion": {"strategy": "Webhook"},
            "versions": [{"name": "v1", "served": true, "subresources": {"status": {}}}]}});
        let resources = defined(&new);
        assert_eq!(resources[0].subresources, ["status"]);
        assert!(!resources[0].namespaced && !resources[0].same_at_all_versions);
        assert_eq!(resources[0].list_kind, "WidgetList");
    }

    #[test]
    fn stable_versions_rank_first() {
        let mut versions = vec!["v1alpha1", "foo", "v2beta1", "v1", "v10", "v2beta2", "v2"];
        versions.sort_by_key(|v| Reverse(rank(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta2", "v2beta1", "v1alpha1", "foo"]);
    }
}

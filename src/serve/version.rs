//! Objects at the version that is asked for.

use serde_json::{Map, Value};

use super::catalogue::Resource;
use crate::restore::convert::convert;
use crate::storage::{self, Object};

/// The object at the resource's version. What cannot be converted stays as it is stored, which
/// its `apiVersion` says.
pub(super) fn at(resource: &Resource, object: Object) -> Value {
    let mut json = object.json;
    let wanted = resource.api_version();
    if object.api_version != wanted {
        let converted = match (resource.group.as_str(), resource.plural.as_str()) {
            _ if resource.same_at_all_versions => true,
            ("events.k8s.io", "events") if object.api_version == "v1" => event(&mut json),
            ("autoscaling", _) if wanted == "autoscaling/v1" => autoscaler(&mut json),
            _ if resource.custom => false,
            _ => {
                // One that cannot be converted may be half converted: it is not shown so.
                let mut copy = json.clone();
                let done = convert(&resource.storage, &mut copy, &wanted)
                    .is_ok_and(|lost| lost.is_empty());
                if done {
                    std::mem::swap(&mut json, &mut copy);
                }
                storage::wipe(&mut copy);
                done
            }
        };
        if converted {
            json["apiVersion"] = wanted.into();
        }
    }
    defaults(resource, &mut json);
    json
}

/// What the API server fills in when it reads (kubernetes `pkg/apis/batch/v1/defaults.go`,
/// `pkg/apis/core/v1/defaults.go`): labels that the template has and the object lacks.
fn defaults(resource: &Resource, json: &mut Value) {
    if !matches!(
        (resource.group.as_str(), resource.plural.as_str()),
        ("batch", "jobs") | ("", "replicationcontrollers")
    ) {
        return;
    }
    let labels = json["spec"]["template"]["metadata"]["labels"].clone();
    let Some(metadata) = json["metadata"].as_object_mut() else { return };
    let none = metadata.get("labels").and_then(Value::as_object).is_none_or(Map::is_empty);
    if none && labels.as_object().is_some_and(|l| !l.is_empty()) {
        metadata.insert("labels".into(), labels);
    }
}

/// `v1` → `events.k8s.io/v1` (kubernetes `pkg/apis/events/v1/conversion.go`).
fn event(json: &mut Value) -> bool {
    const NAMES: [(&str, &str); 7] = [
        ("involvedObject", "regarding"),
        ("message", "note"),
        ("source", "deprecatedSource"),
        ("firstTimestamp", "deprecatedFirstTimestamp"),
        ("lastTimestamp", "deprecatedLastTimestamp"),
        ("count", "deprecatedCount"),
        ("reportingComponent", "reportingController"),
    ];
    let Some(map) = json.as_object_mut() else { return false };
    for (old, new) in NAMES {
        if let Some(value) = map.remove(old) {
            map.insert(new.to_owned(), value);
        }
    }
    // The one writes these when they are empty, the other does not.
    for name in ["reportingController", "reportingInstance", "note", "reason", "type", "action"] {
        if map.get(name).is_some_and(|v| v == "") {
            map.remove(name);
        }
    }
    for name in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp"] {
        if map.get(name).is_some_and(Value::is_null) {
            map.remove(name);
        }
    }
    true
}

/// `autoscaling/v2` → `v1`, where that has a place for everything: one target for the CPU
/// (kubernetes `pkg/apis/autoscaling/v1/conversion.go`).
fn autoscaler(json: &mut Value) -> bool {
    let cpu = |metric: &Value, part: &str| {
        (metric["type"] == "Resource" && metric["resource"]["name"] == "cpu")
            .then(|| metric["resource"][part]["averageUtilization"].clone())
            .filter(Value::is_number)
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (wanted, current) =
        (list(&json["spec"]["metrics"]), list(&json["status"]["currentMetrics"]));
    let target: Vec<_> = wanted.iter().filter_map(|m| cpu(m, "target")).collect();
    let now: Vec<_> = current.iter().filter_map(|m| cpu(m, "current")).collect();
    let plain = target.len() == wanted.len()
        && now.len() == current.len()
        && target.len() <= 1
        && now.len() <= 1
        && json["spec"]["behavior"].is_null()
        && list(&json["status"]["conditions"]).is_empty();
    if !plain {
        return false;
    }
    if let Some(spec) = json["spec"].as_object_mut() {
        spec.remove("metrics");
        spec.extend(target.into_iter().map(|t| ("targetCPUUtilizationPercentage".to_owned(), t)));
    }
    if let Some(status) = json["status"].as_object_mut() {
        status.remove("currentMetrics");
        status.remove("conditions");
        status.extend(now.into_iter().map(|c| ("currentCPUUtilizationPercentage".to_owned(), c)));
        status.entry("desiredReplicas").or_insert_with(|| 0.into());
        status.entry("currentReplicas").or_insert_with(|| 0.into());
    }
    true
}

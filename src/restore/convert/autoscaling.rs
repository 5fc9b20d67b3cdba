//! `HorizontalPodAutoscaler` → `autoscaling/v2`, whose fields those of `v2beta2` are, too.

use serde_json::{Map, Value, json};

use super::CannotConvert;
use crate::restore::edit::{self, Object};

/// What `autoscaling/v1` has no fields for
/// (kubernetes/kubernetes `pkg/apis/autoscaling/annotations.go`).
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const STATUS: [&str; 2] = [
    "autoscaling.alpha.kubernetes.io/conditions",
    "autoscaling.alpha.kubernetes.io/current-metrics",
];

pub(super) fn to_v2(object: &mut Value, from: &str) -> Result<(), CannotConvert> {
    match from {
        "v2" | "v2beta2" => Ok(()),
        "v1" | "v2beta1" => {
            if from == "v1" {
                metrics_of_v1(object)?;
            }
            for metric in edit::each(object, &["spec", "metrics"]) {
                targets(metric);
            }
            // The old versions' status has other fields; it is the controller's anyway.
            edit::remove(object, &[], &["status"]);
            Ok(())
        }
        other => {
            Err(CannotConvert::new(format!("no conversion from autoscaling/{other} is known")))
        }
    }
}

/// Moves the CPU percentage and the annotations of `v1` to where `v2beta1` has them.
fn metrics_of_v1(object: &mut Value) -> Result<(), CannotConvert> {
    let document = |name: &str| match edit::annotation(object, name) {
        None => Ok(None),
        Some(text) => serde_json::from_str::<Value>(text)
            .map(Some)
            .map_err(|_| CannotConvert::new(format!("annotation {name} is no JSON"))),
    };
    let others = document(METRICS)?;
    let behavior = document(BEHAVIOR)?;
    let mut metrics = Vec::new();
    let Some(spec) = edit::object(object, &["spec"]) else { return Ok(()) };
    if let Some(percentage) = spec.remove("targetCPUUtilizationPercentage") {
        metrics.push(cpu(&percentage));
    }
    match others {
        None => {}
        Some(Value::Array(others)) => metrics.extend(others),
        Some(_) => return Err(CannotConvert::new(format!("annotation {METRICS} is no list"))),
    }
    if metrics.is_empty() {
        // `autoscaling.DefaultCPUUtilization`
        metrics.push(cpu(&Value::from(80)));
    }
    spec.insert("metrics".into(), metrics.into());
    if let Some(behavior) = behavior {
        spec.insert("behavior".into(), behavior);
    }
    edit::remove_annotations(object, &[METRICS, BEHAVIOR, STATUS[0], STATUS[1]]);
    Ok(())
}

fn cpu(percentage: &Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": percentage}})
}

/// One metric of `v2beta1`, whose targets are fields beside each other, → `v2`.
fn targets(metric: &mut Value) {
    for kind in ["resource", "containerResource"] {
        if let Some(source) = edit::object(metric, &[kind]) {
            let target = target(source, None, "targetAverageValue", "targetAverageUtilization");
            source.insert("target".into(), target);
        }
    }
    if let Some(source) = edit::object(metric, &["pods"]) {
        let target = target(source, None, "targetAverageValue", "");
        source.insert("target".into(), target);
        identify(source, "selector");
    }
    if let Some(source) = edit::object(metric, &["object"]) {
        edit::rename(source, "target", "describedObject");
        // `targetValue` is no pointer: zero where the average is meant.
        if source.contains_key("averageValue") {
            source.remove("targetValue");
        }
        let target = target(source, Some("targetValue"), "averageValue", "");
        source.insert("target".into(), target);
        identify(source, "selector");
    }
    if let Some(source) = edit::object(metric, &["external"]) {
        let target = target(source, Some("targetValue"), "targetAverageValue", "");
        source.insert("target".into(), target);
        identify(source, "metricSelector");
    }
}

/// Moves what identifies a metric below `metric`.
fn identify(source: &mut Object, selector: &str) {
    let mut metric = Map::new();
    metric.insert("name".into(), source.remove("metricName").unwrap_or_default());
    if let Some(selector) = source.remove(selector).filter(|s| !s.is_null()) {
        metric.insert("selector".into(), selector);
    }
    source.insert("metric".into(), metric.into());
}

/// Takes whichever target is there and says its type.
fn target(source: &mut Object, value: Option<&str>, average: &str, utilization: &str) -> Value {
    let mut take = |name: &str| source.remove(name).filter(|v| !v.is_null());
    let (value, average) = (value.and_then(&mut take), take(average));
    match (take(utilization), value, average) {
        (Some(n), ..) => json!({"type": "Utilization", "averageUtilization": n}),
        (_, Some(v), _) => json!({"type": "Value", "value": v}),
        (.., Some(v)) => json!({"type": "AverageValue", "averageValue": v}),
        (None, None, None) => json!({"type": "AverageValue"}),
    }
}

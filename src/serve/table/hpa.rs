//! Horizontal pod autoscalers of `autoscaling/v1` and `v2`.

use serde_json::Value;

use super::{Shown, scalar, some};

pub(super) fn cells(o: &Shown<'_>) -> Vec<Value> {
    let reference =
        format!("{}/{}", o.text("/spec/scaleTargetRef/kind"), o.text("/spec/scaleTargetRef/name"));
    let least = match o.at("/spec/minReplicas") {
        Value::Null => "<unset>".to_owned(),
        number => scalar(number),
    };
    vec![
        o.name(),
        reference.into(),
        targets(o).into(),
        least.into(),
        o.number("/spec/maxReplicas").into(),
        o.number("/status/currentReplicas").into(),
        o.age(),
    ]
}

fn targets(o: &Shown<'_>) -> String {
    // `v1` has one target, and the others in an annotation that only converting brings back.
    if let Some(percent) = o.at("/spec/targetCPUUtilizationPercentage").as_i64() {
        let current = match o.at("/status/currentCPUUtilizationPercentage").as_i64() {
            Some(current) => format!("{current}%"),
            None => "<unknown>".to_owned(),
        };
        return format!("cpu: {current}/{percent}%");
    }
    let specs = o.items("/spec/metrics");
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let statuses = o.items("/status/currentMetrics");
    let list: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| target(spec, statuses.get(i).unwrap_or(&Value::Null)))
        .collect();
    some(&list, 2, ", ")
}

fn target(spec: &Value, status: &Value) -> String {
    let (field, named) = match spec["type"].as_str().unwrap_or_default() {
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "External" => ("external", false),
        _ => return "<unknown type>".to_owned(),
    };
    let (wanted, current) = (&spec[field]["target"], &status[field]["current"]);
    let or_unknown = |value: &Value, unit: &str| match value {
        Value::Null => "<unknown>".to_owned(),
        value => format!("{}{unit}", scalar(value)),
    };
    let name = if named {
        format!("{}: ", spec[field]["name"].as_str().unwrap_or_default())
    } else {
        String::new()
    };
    if !wanted["averageValue"].is_null() {
        let average = if matches!(field, "object" | "external") { " (avg)" } else { "" };
        return format!(
            "{name}{}/{}{average}",
            or_unknown(&current["averageValue"], ""),
            scalar(&wanted["averageValue"])
        );
    }
    if named {
        let wanted = match &wanted["averageUtilization"] {
            Value::Null => "<auto>".to_owned(),
            percent => format!("{}%", scalar(percent)),
        };
        return format!("{name}{}/{wanted}", or_unknown(&current["averageUtilization"], "%"));
    }
    format!("{}/{}", or_unknown(&current["value"], ""), scalar(&wanted["value"]))
}

//! Objects as the rows that `kubectl get` prints (kubernetes
//! `pkg/printers/internalversion/printers.go`; apiextensions-apiserver
//! `pkg/registry/customresource/tableconvertor`).

mod age;
mod cluster;
mod core;
mod hpa;
mod pod;
mod workloads;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::catalogue::{Column, Printer, Resource};
use super::jsonpath::JsonPath;
use age::{ago, since};

/// The columns of a resource.
#[must_use]
pub fn columns(resource: &Resource) -> Value {
    let wire = |c: &Column| {
        json!({"name": c.name, "type": c.kind, "format": c.format,
               "description": c.description, "priority": c.priority})
    };
    match &resource.printer {
        Printer::Kind(columns) => columns.iter().map(wire).collect(),
        Printer::Paths(columns) => {
            let name = json!({"name": "Name", "type": "string", "format": "name",
                              "description": "", "priority": 0});
            std::iter::once(name).chain(columns.iter().map(|(c, _)| wire(c))).collect()
        }
    }
}

/// One row without its object: cells, and conditions where the kind has them.
#[must_use]
pub fn row(resource: &Resource, object: &Value, now: Timestamp) -> Map<String, Value> {
    let mut row = Map::new();
    let cells = match &resource.printer {
        Printer::Kind(columns) => {
            let mut cells =
                cells(&resource.group, &resource.kind, object, now).unwrap_or_else(|| {
                    vec![name(object), object["metadata"]["creationTimestamp"].clone()]
                });
            cells.resize(columns.len(), Value::Null);
            cells
        }
        Printer::Paths(columns) => {
            let cell = |(column, path): &(Column, Option<JsonPath>)| {
                custom(column, path.as_ref(), object, now)
            };
            std::iter::once(name(object)).chain(columns.iter().map(cell)).collect()
        }
    };
    row.insert("cells".into(), cells.into());
    if resource.group.is_empty()
        && resource.kind == "Pod"
        && let Some(conditions) = pod::conditions(object)
    {
        row.insert("conditions".into(), conditions);
    }
    row
}

/// Cells of a built-in kind; `None` for one that has no printer of its own.
fn cells(group: &str, kind: &str, object: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let o = Shown { object, now };
    match group {
        "" if kind == "Pod" => Some(pod::cells(&o)),
        "" | "events.k8s.io" => core::cells(kind, &o),
        "apps" | "batch" | "policy" => workloads::cells(kind, &o),
        "autoscaling" => Some(hpa::cells(&o)),
        _ => cluster::cells(kind, &o),
    }
}

/// A cell of a custom resource.
fn custom(column: &Column, path: Option<&JsonPath>, object: &Value, now: Timestamp) -> Value {
    let Some(path) = path else { return Value::Null };
    let found = path.find(object);
    let Some(first) = found.first() else { return Value::Null };
    match column.kind.as_str() {
        "string" => {
            let words: Vec<String> = found.iter().map(|v| printed(v)).collect();
            words.join(" ").into()
        }
        "integer" => match first {
            Value::Number(n) if n.is_i64() || n.is_u64() => (*first).clone(),
            #[allow(clippy::cast_possible_truncation)] // as Go converts it
            Value::Number(n) => n.as_f64().map_or(Value::Null, |f| (f as i64).into()),
            _ => Value::Null,
        },
        "number" if first.is_number() => (*first).clone(),
        "boolean" if first.is_boolean() => (*first).clone(),
        "date" => match first.as_str() {
            Some(text) => match text.parse::<Timestamp>() {
                Ok(time) => ago(time, now).into(),
                Err(_) => "<invalid>".into(),
            },
            None => Value::Null,
        },
        _ => Value::Null,
    }
}

/// A value as a string column shows it.
fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// An object that is being printed.
struct Shown<'a> {
    object: &'a Value,
    now: Timestamp,
}

impl<'a> Shown<'a> {
    /// A value by its JSON pointer.
    fn at(&self, pointer: &str) -> &'a Value {
        self.object.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// Text, empty when absent.
    fn text(&self, pointer: &str) -> &'a str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    /// Text, or something else where it is absent or empty.
    fn or(&self, pointer: &str, other: &str) -> Value {
        match self.text(pointer) {
            "" => other.into(),
            text => text.into(),
        }
    }

    /// A whole number, 0 when absent.
    fn number(&self, pointer: &str) -> i64 {
        self.at(pointer).as_i64().unwrap_or_default()
    }

    /// Whether a field is true.
    fn is(&self, pointer: &str) -> bool {
        self.at(pointer) == true
    }

    /// The items of a list.
    fn items(&self, pointer: &str) -> &'a [Value] {
        self.at(pointer).as_array().map_or(&[][..], Vec::as_slice)
    }

    fn name(&self) -> Value {
        name(self.object)
    }

    fn age(&self) -> Value {
        self.since("/metadata/creationTimestamp").into()
    }

    /// How long ago a time of the object was.
    fn since(&self, pointer: &str) -> String {
        since(self.text(pointer), self.now)
    }

    /// Whether a condition is true.
    fn condition(&self, kind: &str) -> bool {
        self.items("/status/conditions").iter().any(|c| c["type"] == kind && c["status"] == "True")
    }

    fn is_deleted(&self) -> bool {
        self.at("/metadata/deletionTimestamp").is_string()
    }
}

/// `a=b,c=d`, or `<none>`.
fn labels(value: &Value) -> Value {
    let pairs: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",").into() }
}

/// A label selector as text, or `<none>`.
fn selector(value: &Value) -> Value {
    let mut parts: Vec<(String, String)> = value["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| (k.clone(), format!("{k}={}", v.as_str().unwrap_or_default())))
        .collect();
    for expression in value["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> = expression["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let text = match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key.to_owned(), text));
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let parts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
    if parts.is_empty() { "<none>".into() } else { parts.join(",").into() }
}

/// Names and images of containers.
fn containers(list: &Value) -> [Value; 2] {
    let join = |field: &str| -> Value {
        let words: Vec<&str> = list
            .as_array()
            .into_iter()
            .flatten()
            .map(|c| c[field].as_str().unwrap_or_default())
            .collect();
        words.join(",").into()
    };
    [join("name"), join("image")]
}

/// The first of a list, and how many more there are.
fn some(list: &[String], most: usize, separator: &str) -> String {
    let shown = list.iter().take(most).cloned().collect::<Vec<_>>().join(separator);
    match list.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

/// `True`, `False` or `<unset>`.
fn flag(value: &Value) -> Value {
    match value.as_bool() {
        Some(true) => "True".into(),
        Some(false) => "False".into(),
        None => "<unset>".into(),
    }
}

/// A number or text as text.
fn scalar(value: &Value) -> String {
    printed(value)
}

#[cfg(test)]
mod tests;

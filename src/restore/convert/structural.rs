//! Schemas of `apiextensions.k8s.io/v1beta1` need not be structural, those of `v1` must be
//! (apiextensions-apiserver `pkg/apiserver/schema/{structural,validation}.go`).

use serde_json::{Map, Value, json};

use crate::restore::edit::Object;

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// Keywords that no structural schema has.
const FORBIDDEN: [&str; 11] = [
    "$ref",
    "additionalItems",
    "definitions",
    "dependencies",
    "deprecated",
    "discriminator",
    "id",
    "patternProperties",
    "readOnly",
    "writeOnly",
    "xml",
];
/// Keywords that only the structure itself may have, not its logical parts.
const STRUCTURE: [&str; 5] = ["additionalProperties", "default", "description", "nullable", "type"];
/// What every object has, whatever its definition says, and its type.
const IMPLIED: [(&str, &str); 3] =
    [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")];
const LOGICAL: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Makes a schema structural: types that are missing are added, and keywords that it may not have
/// are dropped. Returns the paths of those that were.
pub(super) fn make(root: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    if let Some(root) = root.as_object_mut() {
        root.insert("type".into(), "object".into());
        // Implied by every definition, and hardly anything may be said about them.
        for (name, kind) in IMPLIED {
            let property = root.get_mut("properties").and_then(|p| p.get_mut(name));
            if let Some(property) = property {
                *property = json!({ "type": kind });
            }
        }
    }
    structure(root, "", &mut dropped);
    dropped
}

fn structure(schema: &mut Value, path: &str, dropped: &mut Vec<String>) {
    let Some(schema) = schema.as_object_mut() else { return };
    for keyword in FORBIDDEN {
        if schema.remove(keyword).is_some() {
            dropped.push(format!("{path}.{keyword}"));
        }
    }
    if schema.get("uniqueItems").is_some_and(|u| *u == true) {
        schema.remove("uniqueItems");
        dropped.push(format!("{path}.uniqueItems"));
    }
    // Said by leaving it out; with properties beside it, it is not allowed.
    let closed = schema.get("additionalProperties").is_some_and(|a| *a == false);
    let both = schema.contains_key("properties") && schema.contains_key("additionalProperties");
    if closed || both {
        schema.remove("additionalProperties");
        dropped.push(format!("{path}.additionalProperties"));
    }
    let typed = schema.get("type").is_some_and(|t| *t != "");
    let exempt =
        [PRESERVE, INT_OR_STRING].iter().any(|x| schema.get(*x).is_some_and(|x| *x == true));
    if !typed && !exempt {
        schema.remove("type");
        if schema.contains_key("properties") || schema.contains_key("additionalProperties") {
            schema.insert("type".into(), "object".into());
        } else if schema.contains_key("items") {
            schema.insert("type".into(), "array".into());
        } else {
            schema.insert(PRESERVE.into(), true.into());
        }
    }
    logical(schema, path, dropped);
    for (name, property) in
        schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
    {
        structure(property, &format!("{path}.{name}"), dropped);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(keyword).filter(|i| i.is_object()) {
            structure(inner, &format!("{path}.{keyword}"), dropped);
        }
    }
}

/// Conditions may say nothing of the structure, and only speak of fields that it has.
fn logical(schema: &mut Object, path: &str, dropped: &mut Vec<String>) {
    let int_or_string = schema.get(INT_OR_STRING).is_some_and(|x| *x == true);
    let outside = Value::Object(
        ["properties", "items", "additionalProperties"]
            .iter()
            .filter_map(|k| schema.get_key_value(*k))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<Map<_, _>>(),
    );
    for keyword in LOGICAL.into_iter().chain(["not"]) {
        // The form that says "a number or a text" is the one exception.
        if int_or_string && keyword != "oneOf" && keyword != "not" {
            continue;
        }
        let fits = match schema.get(keyword) {
            None => continue,
            Some(Value::Array(parts)) => parts.iter().all(|part| is_condition(part, &outside)),
            Some(part) => is_condition(part, &outside),
        };
        if !fits {
            schema.remove(keyword);
            dropped.push(format!("{path}.{keyword}"));
        }
    }
}

fn is_condition(part: &Value, outside: &Value) -> bool {
    let Some(part) = part.as_object() else { return false };
    if part.keys().any(|k| {
        STRUCTURE.contains(&k.as_str())
            || FORBIDDEN.contains(&k.as_str())
            || k.starts_with("x-kubernetes-")
    }) {
        return false;
    }
    let of_properties =
        part.get("properties").and_then(Value::as_object).into_iter().flatten().all(
            |(name, inner)| {
                outside
                    .get("properties")
                    .and_then(|p| p.get(name))
                    .is_some_and(|o| is_condition(inner, o))
            },
        );
    let of_items = part
        .get("items")
        .is_none_or(|inner| outside.get("items").is_some_and(|o| is_condition(inner, o)));
    let nested = LOGICAL.iter().filter_map(|k| part.get(*k).and_then(Value::as_array)).flatten();
    of_properties
        && of_items
        && nested.chain(part.get("not")).all(|inner| is_condition(inner, outside))
}

/// Says at every object whose fields are listed that others are kept, too: at each, because the
/// keyword holds down to where fields are listed again.
pub(super) fn preserve_unknown(root: &mut Value) {
    let metadata = root.get_mut("properties").and_then(|p| p.get_mut("metadata")).map(Value::take);
    preserve_below(root);
    if let Some(metadata) = metadata
        && let Some(place) = root.get_mut("properties").and_then(|p| p.get_mut("metadata"))
    {
        *place = metadata;
    }
}

fn preserve_below(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    let is_map = schema.get("additionalProperties").is_some_and(|a| !a.is_null());
    if schema.get("type").is_some_and(|t| t == "object") && !is_map {
        schema.insert(PRESERVE.into(), true.into());
    }
    for property in schema
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
        .map(|(_, p)| p)
    {
        preserve_below(property);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(keyword) {
            preserve_below(inner);
        }
    }
}

//! Small steps in JSON objects that the rules and conversions are made of.

use serde_json::{Map, Value};

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// The object at a path of names below `value`.
pub(super) fn object<'v>(value: &'v mut Value, path: &[&str]) -> Option<&'v mut Object> {
    path.iter().try_fold(value, |value, name| value.get_mut(name))?.as_object_mut()
}

/// The list at a path, element by element; nothing when there is none.
pub(super) fn each<'v>(
    value: &'v mut Value,
    path: &[&str],
) -> impl Iterator<Item = &'v mut Value> + use<'v> {
    let found = path.iter().try_fold(value, |value, name| value.get_mut(name));
    found.and_then(Value::as_array_mut).into_iter().flatten()
}

/// The text at a path; empty when there is none.
pub(super) fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    let found = path.iter().try_fold(value, |value, name| value.get(name));
    found.and_then(Value::as_str).unwrap_or_default()
}

/// An annotation.
pub(super) fn annotation<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get("metadata")?.get("annotations")?.get(name)?.as_str()
}

/// A label.
pub(super) fn label<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get("metadata")?.get("labels")?.get(name)?.as_str()
}

/// Removes fields of the object at a path; whether any was there.
pub(super) fn remove(value: &mut Value, path: &[&str], names: &[&str]) -> bool {
    let Some(object) = object(value, path) else { return false };
    // All of them: `any` would stop at the first.
    names.iter().filter(|name| object.remove(**name).is_some()).count() > 0
}

/// As [`remove`], of a map that goes as a whole when nothing is left in it.
pub(super) fn remove_from_map(value: &mut Value, path: &[&str], names: &[&str]) -> bool {
    let removed = remove(value, path, names);
    if let Some((last, above)) = path.split_last()
        && removed
        && let Some(parent) = object(value, above)
        && parent.get(*last).and_then(Value::as_object).is_some_and(Map::is_empty)
    {
        parent.remove(*last);
    }
    removed
}

/// Removes annotations; whether any was there.
pub(super) fn remove_annotations(value: &mut Value, names: &[&str]) -> bool {
    remove_from_map(value, &["metadata", "annotations"], names)
}

/// Sets an annotation.
pub(super) fn annotate(value: &mut Value, name: &str, text: impl Into<String>) {
    let Some(metadata) = object(value, &["metadata"]) else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(name.to_owned(), Value::String(text.into()));
    }
}

/// Gives a field another name; one that has the new name already stays.
pub(super) fn rename(object: &mut Object, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.entry(to).or_insert(value);
    }
}

/// Makes a default explicit.
pub(super) fn default(object: &mut Object, name: &str, value: impl Into<Value>) {
    let field = object.entry(name).or_insert(Value::Null);
    if field.is_null() {
        *field = value.into();
    }
}

/// Removes fields that are null, at any depth: Go prints so what is not there.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

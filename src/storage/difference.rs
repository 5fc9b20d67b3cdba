//! What differs between two objects, field by field.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::fields::step;

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `spec.replicas`, `metadata.labels["a/b"]`, `spec.containers[0].image`.
    pub path: String,
    /// What the first has there, in a few words; `None` for nothing.
    pub from: Option<String>,
    /// What the second has.
    pub to: Option<String>,
}

/// Longest value that is shown as it is, characters.
const LONGEST: usize = 60;

/// Compares two objects. `veiled` shows lengths instead of values.
#[must_use]
pub fn differences(a: &Value, b: &Value, veiled: bool) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(Some(a), Some(b), &mut String::new(), veiled, &mut found);
    found
}

fn walk(
    a: Option<&Value>,
    b: Option<&Value>,
    path: &mut String,
    veiled: bool,
    found: &mut Vec<Difference>,
) {
    if a == b {
        return;
    }
    let len = path.len();
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for name in names(a, b) {
                step(path, name);
                walk(a.get(name), b.get(name), path, veiled, found);
                path.truncate(len);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for i in 0..a.len().max(b.len()) {
                // Writing to a String cannot fail.
                let _ = write!(path, "[{i}]");
                walk(a.get(i), b.get(i), path, veiled, found);
                path.truncate(len);
            }
        }
        _ => {
            let is_data = path.starts_with("data");
            let say = |value: &Value| if veiled { length(value, is_data) } else { short(value) };
            found.push(Difference { path: path.clone(), from: a.map(say), to: b.map(say) });
        }
    }
}

/// The names of both, in order.
fn names<'v>(a: &'v Map<String, Value>, b: &'v Map<String, Value>) -> Vec<&'v str> {
    let mut names: Vec<&str> = a.keys().chain(b.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// How long a value is; that of base64, as Secrets hold it, decoded.
fn length(value: &Value, is_data: bool) -> String {
    let len = match value {
        Value::String(text) => match STANDARD.decode(text) {
            Ok(bytes) if is_data => zeroize::Zeroizing::new(bytes).len(),
            _ => text.len(),
        },
        Value::Object(map) => return counted(map.len(), "field"),
        Value::Array(items) => return counted(items.len(), "element"),
        other => other.to_string().len(),
    };
    counted(len, "byte")
}

fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

fn short(value: &Value) -> String {
    match value {
        Value::Object(map) if !map.is_empty() => counted(map.len(), "field"),
        Value::Array(items) if !items.is_empty() => counted(items.len(), "element"),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(LONGEST) {
                None => text,
                Some((cut, _)) => format!("{}… ({} bytes)", &text[..cut], text.len()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(a: &Value, b: &Value, veiled: bool) -> Vec<String> {
        let dash = |v: Option<String>| v.unwrap_or_else(|| "-".to_owned());
        let all = differences(a, b, veiled).into_iter();
        all.map(|d| format!("{}: {} > {}", d.path, dash(d.from), dash(d.to))).collect()
    }

    #[test]
    fn each_field_is_told_once() {
        let a = json!({"a": 1, "b": {"x/y": "p", "z": [1, 2]}, "gone": {"k": 1}, "same": []});
        let b = json!({"a": 2, "b": {"x/y": "q", "z": [1, 3, 4]}, "new": null, "same": []});
        assert_eq!(
            told(&a, &b, false),
            [
                "a: 1 > 2",
                "b[\"x/y\"]: \"p\" > \"q\"",
                "b.z[1]: 2 > 3",
                "b.z[2]: - > 4",
                "gone: 1 field > -",
                "new: - > null"
            ]
        );
        let long = told(&json!("x"), &json!("y".repeat(100)), false);
        assert!(long[0].ends_with("… (102 bytes)"), "{long:?}");
    }

    #[test]
    fn veiled_values_are_lengths() {
        let a = json!({"data": {"p": "aHVudGVyMg=="}, "x": "hunter2", "n": 12345});
        let b = json!({"data": {"p": "aHVudGVyMw=="}, "x": "hunter", "n": 1});
        let told = told(&a, &b, true);
        assert_eq!(
            told,
            ["data.p: 7 bytes > 7 bytes", "n: 5 bytes > 1 byte", "x: 7 bytes > 6 bytes"]
        );
    }
}

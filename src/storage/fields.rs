//! Objects as one line per field, for grep and diff.

use std::fmt::Write as _;

use serde_json::Value;

/// `metadata.labels["a/b"] = "c"`, one line per scalar and per empty list or map.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    walk(value, &mut String::new(), &mut out);
    out
}

fn walk(value: &Value, path: &mut String, out: &mut String) {
    let len = path.len();
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                step(path, key);
                walk(value, path, out);
                path.truncate(len);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                let _ = write!(path, "[{i}]");
                walk(item, path, out);
                path.truncate(len);
            }
        }
        leaf => {
            let _ = writeln!(out, "{path} = {leaf}");
        }
    }
}

/// Goes down to a field: `.name`, or `["name"]` where it is no word.
pub(super) fn step(path: &mut String, name: &str) {
    if is_word(name) {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
    } else {
        // Writing to a String cannot fail.
        let _ = write!(path, "[{}]", Value::from(name));
    }
}

fn is_word(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_has_a_line() {
        let value = serde_json::json!({
            "a": {"b.c": [1, {"d": "x\ny"}], "e": {}, "f": null}, "g": []
        });
        assert_eq!(
            to_string(&value),
            "a[\"b.c\"][0] = 1\na[\"b.c\"][1].d = \"x\\ny\"\na.e = {}\na.f = null\ng = []\n"
        );
    }
}

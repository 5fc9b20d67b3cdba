//! Secret data replaced by their lengths.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroize as _;

/// kubectl keeps a copy of what was applied here, secret data included.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Replaces what a Secret hides by its length in bytes: `data`, `stringData` and the copy of both
/// that `kubectl apply` leaves in an annotation. Other kinds stay as they are.
///
/// What is put there is no base64, so that a redacted object cannot be applied by mistake.
pub fn redact(object: &mut Value) {
    if object["kind"] != "Secret" {
        return;
    }
    for (field, is_base64) in [("data", true), ("stringData", false)] {
        match object.get_mut(field) {
            Some(Value::Object(data)) => {
                data.values_mut().for_each(|value| replace(value, is_base64));
            }
            Some(Value::Null) | None => {}
            Some(other) => replace(other, false),
        }
    }
    if let Some(value) =
        object.pointer_mut(&format!("/metadata/annotations/{}", LAST_APPLIED.replace('/', "~1")))
    {
        replace(value, false);
    }
}

fn replace(value: &mut Value, is_base64: bool) {
    let len = match &*value {
        Value::Null => return,
        Value::String(text) if is_base64 => STANDARD.decode(text).map_or(text.len(), |b| {
            let len = b.len();
            drop(zeroize::Zeroizing::new(b));
            len
        }),
        Value::String(text) => text.len(),
        other => other.to_string().len(),
    };
    wipe(value);
    let unit = if len == 1 { "byte" } else { "bytes" };
    *value = format!("<redacted: {len} {unit}>").into();
}

/// Overwrites all text of an object in memory.
pub fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_of_a_secret_remains() {
        let mut secret = json!({
            "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "a", "annotations": {
                LAST_APPLIED: "{\"data\":{\"p\":\"aHVudGVyMg==\"}}", "b": "c"}},
            "data": {"p": "aHVudGVyMg==", "empty": "", "null": null, "bad": "???"},
            "stringData": {"q": "h"}
        });
        redact(&mut secret);
        assert_eq!(
            secret,
            json!({
                "kind": "Secret", "type": "Opaque",
                "metadata": {"name": "a", "annotations": {
                    LAST_APPLIED: "<redacted: 29 bytes>", "b": "c"}},
                "data": {"p": "<redacted: 7 bytes>", "empty": "<redacted: 0 bytes>",
                         "null": null, "bad": "<redacted: 3 bytes>"},
                "stringData": {"q": "<redacted: 1 byte>"}
            })
        );
    }

    #[test]
    fn data_of_an_unexpected_form_is_hidden_as_well() {
        let mut secret = json!({"kind": "Secret", "data": ["hunter2"]});
        redact(&mut secret);
        assert!(!secret.to_string().contains("hunter2"));
    }

    #[test]
    fn config_maps_are_shown() {
        let mut map = json!({"kind": "ConfigMap", "data": {"a": "b"}});
        redact(&mut map);
        assert_eq!(map["data"]["a"], "b");
    }
}

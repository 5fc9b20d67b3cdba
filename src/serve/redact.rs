//! Secret data that keep their length and form and tell nothing else: typed clients still decode
//! them, and `kubectl describe` still counts their bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroize as _;

use crate::storage;

/// Replaces what a Secret hides: each value by text of the same length, in base64 as before; the
/// copies that `kubectl apply` leaves in an annotation, and whatever else may hide one, by their length.
/// `in_secrets` says that the etcd key is one of a Secret.
pub fn redact(object: &mut Value, in_secrets: bool) {
    if !in_secrets && object["kind"] != "Secret" {
        storage::redact(object, false);
        return;
    }
    let mut kept = serde_json::Map::new();
    if let Some(Value::Object(data)) = object.get_mut("data") {
        for (name, value) in data {
            let Value::String(text) = value else { continue };
            let Ok(mut bytes) = STANDARD.decode(&*text) else { continue };
            kept.insert(name.clone(), STANDARD.encode(cover(bytes.len())).into());
            bytes.zeroize();
        }
    }
    storage::redact(object, in_secrets);
    if let Some(Value::Object(data)) = object.get_mut("data") {
        data.extend(kept);
    }
}

/// So many bytes that say what they are, where there is room for it.
fn cover(len: usize) -> String {
    let unit = if len == 1 { "byte" } else { "bytes" };
    let mut text = format!("<redacted: {len} {unit}>");
    if text.len() > len {
        text.clear();
    }
    text.extend(std::iter::repeat_n('*', len - text.len()));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lengths_stay_and_nothing_else() {
        let mut secret = json!({
            "kind": "Secret",
            "metadata": {"annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{\"p\":\"aHVudGVyMg==\"}"}},
            "data": {"short": "aHVudGVyMg==", "empty": "", "bad": "???",
                     "long": STANDARD.encode("a".repeat(30))},
            "stringData": {"q": "hunter2"},
        });
        redact(&mut secret, true);
        let bytes = |name: &str| STANDARD.decode(secret["data"][name].as_str().unwrap()).unwrap();
        assert_eq!(bytes("short"), b"*******");
        assert_eq!(bytes("empty"), b"");
        assert_eq!(bytes("long"), b"<redacted: 30 bytes>**********");
        assert_eq!(secret["data"]["bad"], "<redacted: 3 bytes>");
        assert!(
            !secret.to_string().contains("hunter2") && !secret.to_string().contains("aHVudGVyMg")
        );
    }

    #[test]
    fn other_kinds_stay() {
        let mut map = json!({"kind": "ConfigMap", "data": {"a": "b"}});
        redact(&mut map, false);
        assert_eq!(map["data"]["a"], "b");
    }
}

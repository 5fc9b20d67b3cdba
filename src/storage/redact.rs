//! Secret data replaced by their lengths.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use zeroize::Zeroize as _;

/// Fields of a Secret that say nothing about what it hides.
const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "type", "immutable"];

/// Fields of its metadata that do not either. Labels and annotations are judged one by one; what
/// managed fields hold is names of fields.
const METADATA: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "labels",
    "annotations",
];

/// Labels and annotations whose values are names, numbers or words of whoever writes them. All
/// others may be a copy of the whole object, as `kubectl apply`, kapp, Rancher's apply and others
/// leave one, or whatever a person put there.
const HARMLESS: [&str; 33] = [
    "app",
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/name",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
    "argocd.argoproj.io/sync-wave",
    "argocd.argoproj.io/tracking-id",
    "cert-manager.io/alt-names",
    "cert-manager.io/certificate-name",
    "cert-manager.io/common-name",
    "cert-manager.io/ip-sans",
    "cert-manager.io/issuer-group",
    "cert-manager.io/issuer-kind",
    "cert-manager.io/issuer-name",
    "cert-manager.io/uri-sans",
    "controller.cert-manager.io/fao",
    "helm.sh/chart",
    "helm.sh/hook",
    "helm.sh/resource-policy",
    "kubernetes.io/legacy-token-invalid-since",
    "kubernetes.io/legacy-token-last-used",
    "kubernetes.io/metadata.name",
    "kubernetes.io/service-account.name",
    "kubernetes.io/service-account.uid",
    "meta.helm.sh/release-name",
    "meta.helm.sh/release-namespace",
    "modifiedAt",
    "name",
    "owner",
    "status",
    "version",
];
/// Longer values are nobody's name.
const HARMLESS_LENGTH: usize = 253;

/// Replaces what a Secret hides by its length in bytes: `data`, `stringData`, every field that a
/// Secret does not have, and every label and annotation that is not known to be harmless. Other
/// kinds stay as they are; `in_secrets` says that the etcd key is one of a Secret, so that the
/// object is treated as one whatever it calls itself.
///
/// What is put there is no base64, so that a redacted object cannot be applied by mistake.
pub fn redact(object: &mut Value, in_secrets: bool) {
    // A list holds objects that are not shown as what they are.
    if let Some(Value::Array(items)) = object.get_mut("items") {
        for item in items.iter_mut() {
            redact(item, in_secrets);
        }
    }
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    if !in_secrets && !kind.eq_ignore_ascii_case("secret") {
        return;
    }
    let Value::Object(fields) = object else { return replace(object, false) };
    for (name, value) in fields.iter_mut() {
        match name.as_str() {
            "data" => each(value, true),
            "stringData" => each(value, false),
            "metadata" => metadata(value),
            name if FIELDS.contains(&name) && !value.is_object() && !value.is_array() => {}
            _ => replace(value, false),
        }
    }
}

/// Replaces each value of a map, or whatever stands in its place.
fn each(value: &mut Value, is_base64: bool) {
    match value {
        Value::Object(data) => data.values_mut().for_each(|value| replace(value, is_base64)),
        other => replace(other, false),
    }
}

fn metadata(value: &mut Value) {
    let Value::Object(fields) = value else { return replace(value, false) };
    for (name, value) in fields.iter_mut() {
        match name.as_str() {
            "labels" | "annotations" => match value {
                Value::Object(all) => known(all),
                other => replace(other, false),
            },
            name if METADATA.contains(&name) => {}
            _ => replace(value, false),
        }
    }
}

fn known(all: &mut Map<String, Value>) {
    for (name, value) in all.iter_mut() {
        let short = value.as_str().is_some_and(|text| text.len() <= HARMLESS_LENGTH);
        if !short || !HARMLESS.contains(&name.as_str()) {
            replace(value, false);
        }
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

    /// A Secret as tools leave it; `hunter2`, its base64 and `topsecret` are what nobody may see.
    fn secret(kind: &str) -> Value {
        let copy = "{\"data\":{\"p\":\"aHVudGVyMg==\"}}";
        json!({
            "apiVersion": "v1", "kind": kind, "type": "Opaque", "immutable": true,
            "metadata": {
                "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "labels": {"app.kubernetes.io/name": "web", "team": "topsecret"},
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": copy,
                    "kapp.k14s.io/original": copy,
                    "banzaicloud.com/last-applied": copy,
                    "objectset.rio.cattle.io/applied": "H4sIAAAAAAAA/topsecret",
                    "meta.helm.sh/release-name": "web",
                    "cert-manager.io/common-name": copy.repeat(40),
                },
                "spec": {"q": "topsecret"},
            },
            "data": {"p": "aHVudGVyMg==", "empty": "", "null": null, "bad": "???"},
            "stringData": {"q": "hunter2"},
            "Data": {"p": "aHVudGVyMg=="}, "spec": "hunter2",
        })
    }

    #[test]
    fn nothing_of_a_secret_remains() {
        for (kind, in_secrets) in
            [("Secret", false), ("Secret", true), ("secret", false), ("Sicret", true), ("", true)]
        {
            let mut object = secret(kind);
            redact(&mut object, in_secrets);
            let text = object.to_string();
            for hidden in ["hunter2", "aHVudGVyMg", "topsecret", "???"] {
                assert!(!text.contains(hidden), "{kind}: {text}");
            }
            let metadata = &object["metadata"];
            let annotations = &metadata["annotations"];
            for name in ["kapp.k14s.io/original", "banzaicloud.com/last-applied"] {
                assert_eq!(annotations[name], "<redacted: 29 bytes>");
            }
            assert_eq!(annotations["meta.helm.sh/release-name"], "web");
            assert_eq!(metadata["labels"]["app.kubernetes.io/name"], "web");
            assert_eq!((&metadata["name"], &metadata["uid"]), (&json!("a"), &json!("u")));
            assert_eq!((&object["type"], &object["immutable"]), (&json!("Opaque"), &json!(true)));
            assert_eq!(object["data"]["p"], "<redacted: 7 bytes>");
            assert_eq!(object["data"]["empty"], "<redacted: 0 bytes>");
            assert_eq!(object["data"]["null"], Value::Null);
            assert_eq!(object["data"]["bad"], "<redacted: 3 bytes>");
        }
    }

    #[test]
    fn what_has_an_unexpected_form_is_hidden_as_well() {
        for mut object in [
            json!({"kind": "Secret", "data": ["hunter2"]}),
            json!({"kind": "Secret", "metadata": "hunter2"}),
            json!({"kind": "Secret", "metadata": {"annotations": ["hunter2"]}}),
            json!({"kind": "Secret", "type": {"a": "hunter2"}}),
            json!({"kind": "List", "items": [{"kind": "Secret", "data": {"a": "hunter2"}}]}),
            json!(["hunter2"]),
        ] {
            let in_secrets = object.is_array();
            redact(&mut object, in_secrets);
            assert!(!object.to_string().contains("hunter2"), "{object}");
        }
    }

    #[test]
    fn config_maps_are_shown() {
        let mut map = json!({"kind": "ConfigMap", "data": {"a": "b"}});
        redact(&mut map, false);
        assert_eq!(map["data"]["a"], "b");
    }
}

//! An object as stored → a manifest for another cluster.

use serde_json::Value;

/// The annotation in which `kubectl apply` keeps a copy of what it was given.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Strips what the server fills in (`uid`, `resourceVersion`, `creationTimestamp`,
/// `managedFields`, `selfLink`, `generation`, `status`) and the last-applied annotation.
pub fn clean(object: &mut Value) {
    let Some(object) = object.as_object_mut() else { return };
    object.remove("status");
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in
        ["uid", "resourceVersion", "creationTimestamp", "managedFields", "selfLink", "generation"]
    {
        metadata.remove(field);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_fills_in_goes() {
        let mut object = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "status": {}, "data": {"status": "eA=="},
            "metadata": {
                "name": "a", "uid": "u", "resourceVersion": "1", "generation": 1,
                "creationTimestamp": "2024-01-01T00:00:00Z", "managedFields": [], "selfLink": "/a",
                "labels": {"uid": "kept"}, "finalizers": ["f"],
                "annotations": {LAST_APPLIED: "{}"}
            }
        });
        clean(&mut object);
        assert_eq!(
            object,
            serde_json::json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"status": "eA=="},
                "metadata": {"name": "a", "labels": {"uid": "kept"}, "finalizers": ["f"]}
            })
        );
    }
}

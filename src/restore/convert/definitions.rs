//! `CustomResourceDefinition`: `v1beta1` → `v1`, and what `v1` asks of a new one.

use serde_json::{Map, Value, json};

use super::structural;
use crate::restore::edit::{self, Object};

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
/// Needed where the group is one of Kubernetes' own
/// (apiextensions-apiserver `pkg/apiserver/…`: `GetAPIApprovalState`).
const APPROVED: &str = "api-approved.kubernetes.io";

/// Moves what `v1` has elsewhere (apiextensions-apiserver
/// `pkg/apis/apiextensions/v1/conversion.go`), and makes it a definition that can be created: see
/// [`normalize`], whose result this returns.
pub(super) fn to_v1(object: &mut Value) -> Vec<String> {
    if let Some(spec) = edit::object(object, &["spec"]) {
        versions(spec);
        conversion(spec);
        // In v1beta1, unknown fields are kept unless it says otherwise; in v1, they are not.
        edit::default(spec, "preserveUnknownFields", true);
    }
    normalize(object)
}

/// What `v1` asks of a definition that is created, though it serves older ones that lack it:
/// a structural schema at every version, which says itself that unknown fields are kept, and an
/// approval for groups of Kubernetes. Returns which parts of a schema could not be kept.
pub fn normalize(object: &mut Value) -> Vec<String> {
    let mut lost = Vec::new();
    if let Some(spec) = edit::object(object, &["spec"]) {
        let preserve = spec.remove("preserveUnknownFields").is_some_and(|p| p == true);
        for version in spec.get_mut("versions").and_then(Value::as_array_mut).into_iter().flatten()
        {
            schema(version, preserve, &mut lost);
        }
    }
    let group = edit::text(object, &["spec", "group"]);
    let protected = [".k8s.io", ".kubernetes.io"].iter().any(|end| group.ends_with(end))
        || matches!(group, "k8s.io" | "kubernetes.io");
    if protected && edit::annotation(object, APPROVED).is_none() {
        edit::annotate(object, APPROVED, "unapproved, restored from a definition without approval");
    }
    lost
}

/// What one definition said for all of its versions is said by each.
fn versions(spec: &mut Object) {
    let version = spec.remove("version").unwrap_or_default();
    let subresources = spec.remove("subresources");
    let schema = spec.remove("validation");
    let columns = spec.remove("additionalPrinterColumns");
    if spec.get("versions").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let only = json!([{"name": version, "served": true, "storage": true}]);
        spec.insert("versions".into(), only);
    }
    let all = spec.get_mut("versions").and_then(Value::as_array_mut).into_iter().flatten();
    for version in all.filter_map(Value::as_object_mut) {
        for (name, common) in [
            ("subresources", &subresources),
            ("schema", &schema),
            ("additionalPrinterColumns", &columns),
        ] {
            if let Some(common) = common.as_ref().filter(|c| !c.is_null()) {
                version.insert(name.into(), common.clone());
            }
        }
        let columns = version.get_mut("additionalPrinterColumns").and_then(Value::as_array_mut);
        for column in columns.into_iter().flatten().filter_map(Value::as_object_mut) {
            edit::rename(column, "JSONPath", "jsonPath");
        }
    }
}

fn conversion(spec: &mut Object) {
    let conversion = spec.entry("conversion").or_insert(Value::Null);
    if conversion.is_null() {
        *conversion = json!({"strategy": "None"});
    }
    let Some(conversion) = conversion.as_object_mut() else { return };
    let client = conversion.remove("webhookClientConfig").filter(|c| !c.is_null());
    let versions = conversion.remove("conversionReviewVersions").filter(|v| !v.is_null());
    if client.is_none() && versions.is_none() {
        return;
    }
    let mut webhook = Map::new();
    if let Some(client) = client {
        webhook.insert("clientConfig".into(), client);
    }
    webhook
        .insert("conversionReviewVersions".into(), versions.unwrap_or_else(|| json!(["v1beta1"])));
    conversion.insert("webhook".into(), webhook.into());
}

/// One version's schema. One that is missing accepts everything, which `v1` has to be told.
fn schema(version: &mut Value, preserve: bool, lost: &mut Vec<String>) {
    let name = edit::text(version, &["name"]).to_owned();
    let Some(version) = version.as_object_mut() else { return };
    let schema = version.entry("schema").or_insert(Value::Null);
    if schema.get("openAPIV3Schema").is_none_or(Value::is_null) {
        *schema = json!({"openAPIV3Schema": {"type": "object", PRESERVE: true}});
        return;
    }
    let Some(root) = schema.get_mut("openAPIV3Schema") else { return };
    if preserve {
        let dropped = structural::make(root);
        lost.extend(dropped.into_iter().map(|path| format!("version {name}: {path}")));
        structural::preserve_unknown(root);
    }
}

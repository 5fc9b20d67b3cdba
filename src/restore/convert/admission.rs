//! Webhook configurations.

use serde_json::{Value, json};

use crate::restore::edit;

/// Writes out what `v1beta1` takes for granted and `v1` does not
/// (kubernetes/kubernetes `pkg/apis/admissionregistration/v1beta1/defaults.go`). Whether `v1`
/// accepts the side effects is not judged here: an object that is stored as `v1` may have the
/// same ones.
pub(super) fn webhooks_to_v1(object: &mut Value) {
    let mutating = object["kind"] == "MutatingWebhookConfiguration";
    for webhook in edit::each(object, &["webhooks"]).filter_map(Value::as_object_mut) {
        edit::default(webhook, "failurePolicy", "Ignore");
        edit::default(webhook, "matchPolicy", "Exact");
        edit::default(webhook, "timeoutSeconds", 30);
        edit::default(webhook, "sideEffects", "Unknown");
        edit::default(webhook, "admissionReviewVersions", json!(["v1beta1"]));
        if mutating {
            edit::default(webhook, "reinvocationPolicy", "Never");
        }
    }
}

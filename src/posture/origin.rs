//! Where a Secret came from, by what those who make Secrets leave on them.

use serde_json::Value;

/// `helm`, `sealed-secret`, …, or `manual` when nothing says otherwise.
#[must_use]
pub fn origin(secret: &Value) -> &'static str {
    let metadata = &secret["metadata"];
    let owned_by = |kind: &str| {
        metadata["ownerReferences"].as_array().into_iter().flatten().any(|o| o["kind"] == kind)
    };
    let label = |name: &str| metadata["labels"][name].as_str();
    let annotated = |name: &str| !metadata["annotations"][name].is_null();
    match secret["type"].as_str().unwrap_or_default() {
        "helm.sh/release.v1" => return "helm",
        "kubernetes.io/service-account-token" => return "service-account",
        "bootstrap.kubernetes.io/token" => return "bootstrap",
        _ => {}
    }
    if label("sealedsecrets.bitnami.com/sealed-secrets-key").is_some() {
        "sealing-key"
    } else if owned_by("SealedSecret") || annotated("sealedsecrets.bitnami.com/managed") {
        "sealed-secret"
    } else if owned_by("ExternalSecret")
        || label("reconcile.external-secrets.io/managed") == Some("true")
        || label("reconcile.external-secrets.io/created-by").is_some()
    {
        "external-secret"
    } else if label("secrets-store.csi.k8s.io/managed") == Some("true")
        || owned_by("SecretProviderClassPodStatus")
    {
        "csi"
    } else if owned_by("Certificate")
        || annotated("cert-manager.io/certificate-name")
        || label("controller.cert-manager.io/fao") == Some("true")
    {
        "cert-manager"
    } else if label("app.kubernetes.io/managed-by") == Some("Helm")
        || annotated("meta.helm.sh/release-name")
    {
        "helm"
    } else {
        "manual"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_maker_is_known_by_its_mark() {
        for (metadata, kind, expected) in [
            (json!({}), "Opaque", "manual"),
            (json!({}), "helm.sh/release.v1", "helm"),
            (json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}}), "Opaque", "helm"),
            (json!({"ownerReferences": [{"kind": "SealedSecret"}]}), "Opaque", "sealed-secret"),
            (json!({"ownerReferences": [{"kind": "ExternalSecret"}]}), "Opaque", "external-secret"),
            (json!({"labels": {"secrets-store.csi.k8s.io/managed": "true"}}), "Opaque", "csi"),
            (
                json!({"annotations": {"cert-manager.io/certificate-name": "c"}}),
                "kubernetes.io/tls",
                "cert-manager",
            ),
            (json!({}), "kubernetes.io/service-account-token", "service-account"),
            (json!({}), "bootstrap.kubernetes.io/token", "bootstrap"),
            (
                json!({"labels": {"sealedsecrets.bitnami.com/sealed-secrets-key": "active"}}),
                "kubernetes.io/tls",
                "sealing-key",
            ),
        ] {
            assert_eq!(
                origin(&json!({"metadata": metadata, "type": kind})),
                expected,
                "{metadata}"
            );
        }
    }
}

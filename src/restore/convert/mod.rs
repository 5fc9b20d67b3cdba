//! Stored version → another version of the same resource, as the API server converts.
//!
//! The API server converts by way of its internal types and applies the defaults of the version
//! that it reads. Here an object goes straight from one version to another; what the old version
//! takes for granted and the new one does not is written out
//! (kubernetes/kubernetes `pkg/apis/*/*/conversion.go` and `defaults.go`).

mod admission;
mod autoscaling;
mod definitions;
mod networking;
mod others;
mod structural;
mod workloads;

pub use definitions::normalize as normalize_definition;

use serde_json::Value;

/// Why an object cannot be written at another version, in words that name no stored values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CannotConvert(pub String);

impl CannotConvert {
    fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

/// Resources that have the same fields at every version from which or to which they are
/// converted here.
const SAME_SHAPE: &[&str] = &[
    "apiservices.apiregistration.k8s.io",
    "clustertrustbundles.certificates.k8s.io",
    "controllerrevisions.apps",
    "cronjobs.batch",
    "csidrivers.storage.k8s.io",
    "csinodes.storage.k8s.io",
    "csistoragecapacities.storage.k8s.io",
    "events.events.k8s.io",
    "flowschemas.flowcontrol.apiserver.k8s.io",
    "ingressclasses.networking.k8s.io",
    "ipaddresses.networking.k8s.io",
    "leases.coordination.k8s.io",
    "mutatingadmissionpolicies.admissionregistration.k8s.io",
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
    "networkpolicies.networking.k8s.io",
    "podsecuritypolicies.policy",
    "priorityclasses.scheduling.k8s.io",
    "servicecidrs.networking.k8s.io",
    "storageclasses.storage.k8s.io",
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    "volumeattachments.storage.k8s.io",
    "volumeattributesclasses.storage.k8s.io",
];

/// Writes an object of `resource` at `group/version` instead of the `apiVersion` it has. Returns
/// what could not be kept; normally nothing.
///
/// # Errors
/// When no conversion between the two is known, or this object has no equal at that version. The
/// object may then be half converted.
pub fn convert(
    resource: &str,
    object: &mut Value,
    api_version: &str,
) -> Result<Vec<String>, CannotConvert> {
    let stored = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    if stored == api_version {
        return Ok(Vec::new());
    }
    let version = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    let (from, to) = (version(&stored), version(api_version));
    let mut lost = Vec::new();
    match (resource, from.as_str(), to.as_str()) {
        ("customresourcedefinitions.apiextensions.k8s.io", "v1beta1", "v1") => {
            lost = definitions::to_v1(object);
        }
        ("horizontalpodautoscalers.autoscaling", from, "v2" | "v2beta2") => {
            autoscaling::to_v2(object, from)?;
        }
        ("ingresses.networking.k8s.io", "v1beta1", "v1") => networking::ingress_to_v1(object),
        ("endpointslices.discovery.k8s.io", "v1beta1", "v1") => networking::slice_to_v1(object),
        ("endpointslices.discovery.k8s.io", "v1", "v1beta1") => networking::slice_to_beta(object),
        (
            "mutatingwebhookconfigurations.admissionregistration.k8s.io"
            | "validatingwebhookconfigurations.admissionregistration.k8s.io",
            "v1beta1",
            "v1",
        ) => admission::webhooks_to_v1(object),
        ("certificatesigningrequests.certificates.k8s.io", "v1beta1", "v1") => {
            others::signing_request_to_v1(object)?;
        }
        ("poddisruptionbudgets.policy", "v1beta1", "v1") => others::budget_to_v1(object),
        ("poddisruptionbudgets.policy", "v1", "v1beta1") => others::budget_to_beta(object),
        ("prioritylevelconfigurations.flowcontrol.apiserver.k8s.io", from, to) => {
            others::priority_level(object, from, to)?;
        }
        (
            "clusterroles.rbac.authorization.k8s.io"
            | "roles.rbac.authorization.k8s.io"
            | "clusterrolebindings.rbac.authorization.k8s.io"
            | "rolebindings.rbac.authorization.k8s.io",
            from,
            "v1",
        ) => others::binding_to_v1(object, from),
        ("runtimeclasses.node.k8s.io", from, "v1" | "v1beta1") => {
            others::runtime_class(object, from)?;
        }
        (resource, from, to) if resource.ends_with(".resource.k8s.io") => {
            others::device(object, from, to)?;
        }
        (
            "deployments.apps" | "daemonsets.apps" | "statefulsets.apps" | "replicasets.apps",
            from,
            "v1",
        ) => workloads::to_v1(resource, object, &stored, from),
        (resource, ..) if SAME_SHAPE.contains(&resource) => {}
        _ => {
            return Err(CannotConvert::new(format!(
                "no conversion of {resource} from {stored} to {api_version} is known"
            )));
        }
    }
    object["apiVersion"] = api_version.into();
    Ok(lost)
}

#[cfg(test)]
mod tests;

//! What a new cluster must not be given at all.

use serde_json::Value;

use super::{Facts, Reason, edit};
use crate::resource::Location;

/// Resources of which nothing is kept, so that none of their objects has to be read.
pub(super) fn whole_resource(resource: &str) -> Option<Reason> {
    Some(match resource {
        "events" | "events.events.k8s.io" => Reason::Event,
        "leases.coordination.k8s.io" | "leasecandidates.coordination.k8s.io" => Reason::Lease,
        "nodes" | "csinodes.storage.k8s.io" | "resourceslices.resource.k8s.io" => Reason::Node,
        "volumeattachments.storage.k8s.io" | "csistoragecapacities.storage.k8s.io" => {
            Reason::StorageState
        }
        "ipaddresses.networking.k8s.io" => Reason::MadeFromService,
        "storageversions.internal.apiserver.k8s.io" | "componentstatuses" => Reason::ServerMade,
        _ => return None,
    })
}

/// Whether one object is left out, and why.
pub(super) fn object(object: &Value, location: &Location<'_>, facts: &Facts) -> Option<Reason> {
    let namespace = location.namespace.as_deref().unwrap_or_default();
    let name = location.name.as_ref();
    if let Some(reason) = made_with_the_cluster(object, &location.resource, namespace, name) {
        return Some(reason);
    }
    match location.resource.as_ref() {
        "pods" if edit::annotation(object, "kubernetes.io/config.mirror").is_some() => {
            return Some(Reason::MirrorPod);
        }
        "secrets" if is_made_token(object, name) => return Some(Reason::ServiceAccountToken),
        "endpoints" if endpoints_are_made(object, namespace, name, facts) => {
            return Some(if edit::annotation(object, LEADER).is_some() {
                Reason::Lease
            } else {
                Reason::MadeFromService
            });
        }
        "configmaps" if edit::annotation(object, LEADER).is_some() && has_no_data(object) => {
            return Some(Reason::Lease);
        }
        "endpointslices.discovery.k8s.io" if slice_is_made(object, namespace, facts) => {
            return Some(Reason::MadeFromService);
        }
        // History of templates, which nothing but their controller understands.
        "controllerrevisions.apps" => return Some(Reason::ControllerMade),
        "pods"
        | "replicasets.apps"
        | "replicationcontrollers"
        | "jobs.batch"
        | "resourceclaims.resource.k8s.io"
            if owners(object).any(|owner| facts.makes_again(owner, namespace)) =>
        {
            return Some(Reason::ControllerMade);
        }
        _ => {}
    }
    is_finished(object, &location.resource).then_some(Reason::Finished)
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten()
}

/// Where leaders were elected before there were Leases
/// (client-go `tools/leaderelection/resourcelock`).
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

fn has_no_data(object: &Value) -> bool {
    ["data", "binaryData"].iter().all(|field| {
        object.get(*field).and_then(Value::as_object).is_none_or(serde_json::Map::is_empty)
    })
}

/// Objects that an API server, its controller manager or an installer makes in every cluster.
fn made_with_the_cluster(
    object: &Value,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Option<Reason> {
    let made = match (resource, namespace, name) {
        ("namespaces", _, "default" | "kube-system" | "kube-public" | "kube-node-lease") => {
            is_plain(object, "metadata", &["kubernetes.io/metadata.name"])
        }
        ("services" | "endpoints" | "endpointslices.discovery.k8s.io", "default", "kubernetes")
        | ("servicecidrs.networking.k8s.io", _, "kubernetes")
        | ("configmaps", _, "kube-root-ca.crt" | "openshift-service-ca.crt")
        | (
            "configmaps",
            "kube-system",
            "extension-apiserver-authentication"
            | "kube-apiserver-legacy-service-account-token-tracking",
        )
        | (
            "priorityclasses.scheduling.k8s.io",
            _,
            "system-cluster-critical" | "system-node-critical",
        ) => true,
        ("serviceaccounts", _, "default") => {
            is_plain(object, "metadata", &[])
                && ["imagePullSecrets", "automountServiceAccountToken"]
                    .iter()
                    .all(|f| object.get(*f).is_none_or(Value::is_null))
        }
        ("configmaps", "kube-public", "cluster-info") => return Some(Reason::InstallerMade),
        ("configmaps", "kube-system", name)
            if matches!(name, "kubeadm-config" | "kubelet-config" | "kube-proxy")
                || name.starts_with("kubelet-config-1.") =>
        {
            return Some(Reason::InstallerMade);
        }
        ("apiservices.apiregistration.k8s.io", ..) => {
            edit::label(object, "kube-aggregator.kubernetes.io/automanaged").is_some()
        }
        (
            "flowschemas.flowcontrol.apiserver.k8s.io"
            | "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
            ..,
        ) => edit::annotation(object, "apf.kubernetes.io/autoupdate-spec") == Some("true"),
        (resource, ..) if resource.ends_with(".rbac.authorization.k8s.io") => {
            edit::label(object, "kubernetes.io/bootstrapping") == Some("rbac-defaults")
                && edit::annotation(object, "rbac.authorization.kubernetes.io/autoupdate")
                    != Some("false")
                && !is_changed_by_hand(object)
        }
        _ => false,
    };
    made.then_some(Reason::ServerMade)
}

/// Nothing but what every cluster has: no label (of others than `known`), no annotation.
fn is_plain(object: &Value, metadata: &str, known: &[&str]) -> bool {
    let map = |field: &str| object.get(metadata)?.get(field)?.as_object();
    map("annotations").into_iter().flatten().all(|(name, _)| name == crate::export::LAST_APPLIED)
        && map("labels").into_iter().flatten().all(|(name, _)| known.contains(&name.as_str()))
}

/// Programs that keep the bootstrap roles: the API server, under the names of the binaries that
/// contain it, and the controllers that fill in aggregated roles.
const KEEPERS: [&str; 7] = [
    "clusterrole-aggregation-controller",
    "hyperkube",
    "k3s",
    "kube-apiserver",
    "kube-controller-manager",
    "kubelite",
    "microshift",
];

/// Whether somebody else than the API server has a field of this object: then it says something
/// that a new cluster does not know.
fn is_changed_by_hand(object: &Value) -> bool {
    let managed = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    managed.into_iter().flatten().any(|m| !KEEPERS.contains(&edit::text(m, &["manager"])))
}

/// A token Secret that a controller made (`NAME-token-xxxxx`), as up to 1.23 for every service
/// account. One with another name was asked for by somebody, who expects it.
fn is_made_token(object: &Value, name: &str) -> bool {
    if object["type"] != "kubernetes.io/service-account-token" {
        return false;
    }
    let account = edit::annotation(object, "kubernetes.io/service-account.name");
    let rest = account.and_then(|a| name.strip_prefix(a)).and_then(|r| r.strip_prefix("-token-"));
    rest.is_some_and(|rest| rest.len() == 5) || account.is_none()
}

fn endpoints_are_made(object: &Value, namespace: &str, name: &str, facts: &Facts) -> bool {
    facts.selects(namespace, name)
        || edit::annotation(object, LEADER).is_some()
        || edit::label(object, "endpoints.kubernetes.io/managed-by").is_some()
}

fn slice_is_made(object: &Value, namespace: &str, facts: &Facts) -> bool {
    let manager = edit::label(object, "endpointslice.kubernetes.io/managed-by");
    manager.is_some_and(|m| m.ends_with(".k8s.io"))
        || edit::label(object, "kubernetes.io/service-name")
            .is_some_and(|service| facts.selects(namespace, service))
}

/// A pod or Job that has run to its end, as its status says.
fn is_finished(object: &Value, resource: &str) -> bool {
    match resource {
        "pods" => matches!(edit::text(object, &["status", "phase"]), "Succeeded" | "Failed"),
        "jobs.batch" => {
            let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
            conditions.into_iter().flatten().any(|c| {
                matches!(edit::text(c, &["type"]), "Complete" | "Failed") && c["status"] == "True"
            }) || !edit::text(object, &["status", "completionTime"]).is_empty()
        }
        _ => false,
    }
}

//! Which kinds the objects of a resource have.
//!
//! Source: kubernetes/apimachinery `pkg/api/meta/restmapper.go` (`UnsafeGuessKindToResource`);
//! kubernetes/kubernetes `pkg/kubeapiserver/default_storage_factory_builder.go` for resources that
//! are, or were, stored under another group than their own.

use super::catalogue::{OPENSHIFT, is_builtin};

/// Whether objects of a kind are of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// They are.
    Yes,
    /// They are of another one.
    No,
    /// Only the resource's definition could tell.
    Unknown,
}

/// The resource that a kind's objects are called by: lower case, in the plural.
#[must_use]
pub fn plural(kind: &str) -> String {
    let mut name = kind.to_ascii_lowercase();
    if name == "endpoints" {
        return name;
    }
    if name.ends_with('s') || name.ends_with('x') || name.ends_with("ch") {
        name.push_str("es");
    } else if name.ends_with('y') && !["ay", "ey", "oy"].iter().any(|end| name.ends_with(end)) {
        name.pop();
        name.push_str("ies");
    } else {
        name.push('s');
    }
    name
}

/// The qualified name of the built-in resource that objects of a kind are stored as.
#[must_use]
pub fn builtin(api_version: &str, kind: &str) -> Option<String> {
    let name = match api_version.split_once('/') {
        Some((group, _)) => format!("{}.{group}", plural(kind)),
        None => plural(kind),
    };
    is_builtin(&name).then_some(name)
}

/// Whether an object that says to be `kind` of `api_version` belongs to `resource`, a qualified
/// name. Says no only where that is certain.
#[must_use]
pub fn fits(resource: &str, api_version: &str, kind: &str) -> Fit {
    let stored_group = api_version.split_once('/').map_or("", |(group, _)| group);
    let (name, group) = resource.split_once('.').unwrap_or((resource, ""));
    // Some definitions write their plural with hyphens.
    let same_name = plural(kind).bytes().eq(name.bytes().filter(|b| *b != b'-'));
    let builtin = is_builtin(resource);
    if builtin || OPENSHIFT.iter().any(|(_, r)| *r == resource) {
        // `extensions` was the first home of what `apps`, `networking.k8s.io` and `policy` have
        // now; events are stored in the core group; OpenShift's own kinds once had no group.
        let same_group = stored_group == group
            || stored_group == "extensions"
            || (name == "events" && stored_group == "events.k8s.io")
            || (!builtin && stored_group.is_empty());
        return if same_name && same_group { Fit::Yes } else { Fit::No };
    }
    // A custom resource has its group in its key. A name with a dot is a path that was not
    // understood, and a name without a group may be of a release that is newer than this program.
    let path = group.strip_suffix(stored_group).is_some_and(|rest| rest.ends_with('.'));
    if path && stored_group.contains('.') {
        return Fit::Unknown;
    }
    match (group.is_empty(), stored_group == group, same_name) {
        (false, false, _) => Fit::No,
        (_, _, true) => Fit::Yes,
        (_, _, false) => Fit::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::catalogue::CORE;

    #[test]
    fn every_builtin_kind_belongs_to_its_own_resource_alone() {
        for (resource, api_version, kind) in [
            ("secrets", "v1", "Secret"),
            ("endpoints", "v1", "Endpoints"),
            ("events", "v1", "Event"),
            ("events", "events.k8s.io/v1", "Event"),
            ("nodes", "v1", "Node"),
            ("ingresses.networking.k8s.io", "networking.k8s.io/v1", "Ingress"),
            ("ingresses.networking.k8s.io", "extensions/v1beta1", "Ingress"),
            ("deployments.apps", "extensions/v1beta1", "Deployment"),
            ("networkpolicies.networking.k8s.io", "networking.k8s.io/v1", "NetworkPolicy"),
            ("priorityclasses.scheduling.k8s.io", "scheduling.k8s.io/v1", "PriorityClass"),
            ("ipaddresses.networking.k8s.io", "networking.k8s.io/v1", "IPAddress"),
            ("csistoragecapacities.storage.k8s.io", "storage.k8s.io/v1", "CSIStorageCapacity"),
            ("podsecuritypolicies.policy", "policy/v1beta1", "PodSecurityPolicy"),
            ("routes.route.openshift.io", "route.openshift.io/v1", "Route"),
            ("routes.route.openshift.io", "v1", "Route"),
            ("identities.user.openshift.io", "user.openshift.io/v1", "Identity"),
            ("widgets.example.com", "example.com/v1", "Widget"),
            ("gateways.gateway.networking.k8s.io", "gateway.networking.k8s.io/v1", "Gateway"),
            (
                "network-attachment-definitions.k8s.cni.cncf.io",
                "k8s.cni.cncf.io/v1",
                "NetworkAttachmentDefinition",
            ),
            ("newthings", "new.k8s.io/v1", "NewThing"),
        ] {
            assert_eq!(fits(resource, api_version, kind), Fit::Yes, "{resource} {kind}");
        }
        for (resource, api_version, kind) in [
            ("secrets", "v1", "ConfigMap"),
            ("configmaps", "v1", "Secret"),
            ("secrets", "example.com/v1", "Secret"),
            ("deployments.apps", "apps/v1", "StatefulSet"),
            ("deployments.apps", "batch/v1", "Deployment"),
            ("widgets.example.com", "v1", "Secret"),
            ("widgets.example.com", "example.org/v1", "Widget"),
            ("roles.rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1", "RoleBinding"),
        ] {
            assert_eq!(fits(resource, api_version, kind), Fit::No, "{resource} {kind}");
        }
        for (resource, api_version, kind) in [
            ("indices.example.com", "example.com/v1", "Index"),
            ("newthings", "v1", "Other"),
            ("wardle.example.com.wardle.example.com", "wardle.example.com/v1", "Flunder"),
        ] {
            assert_eq!(fits(resource, api_version, kind), Fit::Unknown, "{resource} {kind}");
        }
    }

    #[test]
    fn every_core_resource_has_one_kind() {
        for resource in CORE {
            let kinds = [
                "Endpoints",
                "ConfigMap",
                "Event",
                "LimitRange",
                "Namespace",
                "Node",
                "PersistentVolumeClaim",
                "PersistentVolume",
                "Pod",
                "PodTemplate",
                "ReplicationController",
                "ResourceQuota",
                "Secret",
                "ServiceAccount",
                "Service",
            ];
            let fit = kinds.iter().filter(|k| fits(resource, "v1", k) == Fit::Yes).count();
            assert_eq!(fit, 1, "{resource}");
        }
    }
}

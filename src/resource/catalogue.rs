//! Which resources there are, and where the API server keeps them.

/// Storage segment → group, for the segments whose group is not the core group.
/// Sorted by segment; `builtin_group` searches it.
pub(super) const GROUPED: &[(&str, &str)] = &[
    ("certificatesigningrequests", "certificates.k8s.io"),
    ("clusterrolebindings", "rbac.authorization.k8s.io"),
    ("clusterroles", "rbac.authorization.k8s.io"),
    ("clustertrustbundles", "certificates.k8s.io"),
    ("controllerrevisions", "apps"),
    ("cronjobs", "batch"),
    ("csidrivers", "storage.k8s.io"),
    ("csinodes", "storage.k8s.io"),
    ("csistoragecapacities", "storage.k8s.io"),
    ("daemonsets", "apps"),
    ("deployments", "apps"),
    ("deviceclasses", "resource.k8s.io"),
    ("devicetaintrules", "resource.k8s.io"),
    ("endpointslices", "discovery.k8s.io"),
    ("flowschemas", "flowcontrol.apiserver.k8s.io"),
    ("horizontalpodautoscalers", "autoscaling"),
    ("ingress", "networking.k8s.io"),
    ("ingressclasses", "networking.k8s.io"),
    ("ipaddresses", "networking.k8s.io"),
    ("jobs", "batch"),
    ("leasecandidates", "coordination.k8s.io"),
    ("leases", "coordination.k8s.io"),
    ("mutatingadmissionpolicies", "admissionregistration.k8s.io"),
    ("mutatingadmissionpolicybindings", "admissionregistration.k8s.io"),
    ("mutatingwebhookconfigurations", "admissionregistration.k8s.io"),
    ("networkpolicies", "networking.k8s.io"),
    ("podcertificaterequests", "certificates.k8s.io"),
    ("poddisruptionbudgets", "policy"),
    ("podgroups", "scheduling.k8s.io"),
    ("podsecuritypolicies", "policy"),
    ("podsecuritypolicy", "policy"),
    ("priorityclasses", "scheduling.k8s.io"),
    ("prioritylevelconfigurations", "flowcontrol.apiserver.k8s.io"),
    ("replicasets", "apps"),
    ("resourceclaims", "resource.k8s.io"),
    ("resourceclaimtemplates", "resource.k8s.io"),
    ("resourcepoolstatusrequests", "resource.k8s.io"),
    ("resourceslices", "resource.k8s.io"),
    ("rolebindings", "rbac.authorization.k8s.io"),
    ("roles", "rbac.authorization.k8s.io"),
    ("runtimeclasses", "node.k8s.io"),
    ("servicecidrs", "networking.k8s.io"),
    ("statefulsets", "apps"),
    ("storageclasses", "storage.k8s.io"),
    ("storageversionmigrations", "storagemigration.k8s.io"),
    ("storageversions", "internal.apiserver.k8s.io"),
    ("validatingadmissionpolicies", "admissionregistration.k8s.io"),
    ("validatingadmissionpolicybindings", "admissionregistration.k8s.io"),
    ("validatingwebhookconfigurations", "admissionregistration.k8s.io"),
    ("volumeattachments", "storage.k8s.io"),
    ("volumeattributesclasses", "storage.k8s.io"),
    ("workloads", "scheduling.k8s.io"),
];

/// Storage segments whose resource has another name.
pub(super) const RENAMED: &[(&str, &str)] = &[
    ("controllers", "replicationcontrollers"),
    ("ingress", "ingresses"),
    ("minions", "nodes"),
    ("podsecuritypolicy", "podsecuritypolicies"),
];

/// Core resources, to know them from misspellings.
pub(super) const CORE: &[&str] = &[
    "configmaps",
    "endpoints",
    "events",
    "limitranges",
    "namespaces",
    "nodes",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "serviceaccounts",
    "services",
];

/// First segments that the API server stores without any transformer.
pub(super) const INTERNAL: &[&str] = &["health", "masterleases", "peerserverleases", "ranges"];

/// Prefix of `OpenShift`'s aggregated API servers, which share the etcd.
pub(super) const OPENSHIFT_PREFIX: &str = "/openshift.io/";

/// `OpenShift` aggregated API servers: storage path below `/openshift.io/` → qualified resource.
pub(super) const OPENSHIFT: &[(&str, &str)] = &[
    ("brokertemplateinstances", "brokertemplateinstances.template.openshift.io"),
    ("buildconfigs", "buildconfigs.build.openshift.io"),
    ("builds", "builds.build.openshift.io"),
    ("deploymentconfigs", "deploymentconfigs.apps.openshift.io"),
    ("groups", "groups.user.openshift.io"),
    ("images", "images.image.openshift.io"),
    ("imagestreams", "imagestreams.image.openshift.io"),
    ("oauth/accesstokens", "oauthaccesstokens.oauth.openshift.io"),
    ("oauth/authorizetokens", "oauthauthorizetokens.oauth.openshift.io"),
    ("oauth/clientauthorizations", "oauthclientauthorizations.oauth.openshift.io"),
    ("oauth/clients", "oauthclients.oauth.openshift.io"),
    ("rangeallocations", "rangeallocations.security.openshift.io"),
    ("registry/egressnetworkpolicy", "egressnetworkpolicies.network.openshift.io"),
    ("registry/sdnnetworks", "clusternetworks.network.openshift.io"),
    ("registry/sdnnetnamespaces", "netnamespaces.network.openshift.io"),
    ("registry/sdnsubnets", "hostsubnets.network.openshift.io"),
    ("routes", "routes.route.openshift.io"),
    ("templateinstances", "templateinstances.template.openshift.io"),
    ("templates", "templates.template.openshift.io"),
    ("useridentities", "identities.user.openshift.io"),
    ("users", "users.user.openshift.io"),
];

pub(super) fn builtin_group(segment: &str) -> Option<&'static str> {
    GROUPED.binary_search_by(|(s, _)| (*s).cmp(segment)).ok().map(|i| GROUPED[i].1)
}

pub(super) fn lookup(table: &[(&str, &'static str)], key: &str) -> Option<&'static str> {
    table.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
}

/// Built-in resources without namespaces, by their qualified names.
const CLUSTER_SCOPED: &[&str] = &[
    "apiservices.apiregistration.k8s.io",
    "certificatesigningrequests.certificates.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clustertrustbundles.certificates.k8s.io",
    "csidrivers.storage.k8s.io",
    "csinodes.storage.k8s.io",
    "customresourcedefinitions.apiextensions.k8s.io",
    "deviceclasses.resource.k8s.io",
    "devicetaintrules.resource.k8s.io",
    "flowschemas.flowcontrol.apiserver.k8s.io",
    "ingressclasses.networking.k8s.io",
    "ipaddresses.networking.k8s.io",
    "mutatingadmissionpolicies.admissionregistration.k8s.io",
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "namespaces",
    "nodes",
    "persistentvolumes",
    "podsecuritypolicies.policy",
    "priorityclasses.scheduling.k8s.io",
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
    "resourcepoolstatusrequests.resource.k8s.io",
    "resourceslices.resource.k8s.io",
    "runtimeclasses.node.k8s.io",
    "servicecidrs.networking.k8s.io",
    "storageclasses.storage.k8s.io",
    "storageversionmigrations.storagemigration.k8s.io",
    "storageversions.internal.apiserver.k8s.io",
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "volumeattachments.storage.k8s.io",
    "volumeattributesclasses.storage.k8s.io",
];

/// Whether objects of a resource, by its qualified name, lie in namespaces; `None` if that is not
/// known.
#[must_use]
pub fn is_namespaced(resource: &str) -> Option<bool> {
    if CLUSTER_SCOPED.contains(&resource) {
        return Some(false);
    }
    is_builtin(resource).then_some(true)
}

/// Whether a qualified name is that of a built-in resource.
pub(super) fn is_builtin(resource: &str) -> bool {
    let (name, group) = resource.split_once('.').unwrap_or((resource, ""));
    if group.is_empty() {
        return CORE.contains(&name);
    }
    let segment = RENAMED.iter().find(|(_, n)| *n == name).map_or(name, |(s, _)| *s);
    GROUPED.iter().any(|(s, g)| *s == segment && *g == group)
}

/// Whether the first segment of a path below a prefix is that of a built-in resource.
pub(super) fn is_builtin_segment(segment: &[u8]) -> bool {
    let Ok(segment) = std::str::from_utf8(segment) else { return false };
    CORE.contains(&segment)
        || builtin_group(segment).is_some()
        || RENAMED.iter().any(|(s, _)| *s == segment)
}

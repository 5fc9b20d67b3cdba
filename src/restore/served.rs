//! Which versions of which resources each Kubernetes minor release serves.
//!
//! From the lifecycle methods of kubernetes/api (`*/zz_generated.prerelease-lifecycle.go`,
//! `APILifecycleIntroduced` and `APILifecycleRemoved`) and, for what that repository has since
//! dropped, the deprecated API migration guide of the Kubernetes documentation.

use std::fmt;
use std::str::FromStr;

/// A Kubernetes minor release, `1.N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor(u8);

impl Minor {
    /// The oldest release that the table covers.
    pub const OLDEST: Self = Self(20);
    /// The newest release that the table covers.
    pub const NEWEST: Self = Self(37);
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

impl FromStr for Minor {
    type Err = String;

    /// Reads `1.36`, `v1.36` or a whole version (`v1.36.2+k3s1`).
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = |part: &str| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse::<u8>().ok()
        };
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
        let minor = match (parts.next(), parts.next().and_then(digits)) {
            (Some("1"), Some(minor)) => Self(minor),
            _ => return Err(format!("`{text}` is no Kubernetes version like 1.36")),
        };
        if minor < Self::OLDEST || minor > Self::NEWEST {
            let (oldest, newest) = (Self::OLDEST, Self::NEWEST);
            return Err(format!(
                "what {minor} serves is not known here, only {oldest} to {newest}"
            ));
        }
        Ok(minor)
    }
}

/// One version of a resource.
struct Version {
    name: &'static str,
    /// First minor that serves it.
    from: u8,
    /// First minor that no longer does.
    until: u8,
    /// Served without being asked for (`--runtime-config`). Beta versions that came with 1.24 or
    /// later are not (KEP-3136); those of flow control are an exception.
    on: bool,
}

const fn on(name: &'static str, from: u8, until: u8) -> Version {
    Version { name, from, until, on: true }
}

const fn off(name: &'static str, from: u8, until: u8) -> Version {
    Version { name, from, until, on: false }
}

const STILL: u8 = u8::MAX;
const V1: &[Version] = &[on("v1", 0, STILL)];
const UNTIL_22: &[Version] = &[on("v1", 0, STILL), on("v1beta1", 0, 22)];
const RBAC: &[Version] = &[on("v1", 0, STILL), on("v1beta1", 0, 22), off("v1alpha1", 0, 22)];
const VALIDATING_POLICY: &[Version] =
    &[on("v1", 30, STILL), off("v1beta1", 28, 34), off("v1alpha1", 26, 32)];
const MUTATING_POLICY: &[Version] =
    &[on("v1", 36, STILL), off("v1beta1", 34, 40), off("v1alpha1", 32, 38)];
const FLOW: &[Version] = &[
    on("v1", 29, STILL),
    on("v1beta3", 26, 32),
    on("v1beta2", 23, 29),
    on("v1beta1", 20, 26),
    off("v1alpha1", 18, 21),
];
const ADDRESS: &[Version] = &[on("v1", 33, STILL), off("v1beta1", 31, 37), off("v1alpha1", 27, 34)];
const DEVICE: &[Version] = &[
    on("v1", 34, STILL),
    off("v1beta2", 33, 39),
    off("v1beta1", 32, 38),
    off("v1alpha3", 31, 34),
    off("v1alpha2", 26, 31),
];
const GANG: &[Version] = &[
    off("v1beta1", 37, 43),
    off("v1alpha3", 37, 43),
    off("v1alpha2", 36, 37),
    off("v1alpha1", 35, 36),
];
const EVENT: &[Version] = &[on("v1", 19, STILL), on("v1beta1", 8, 25)];

/// Resource → its versions, the most stable first. Sorted; `versions` searches it.
const SERVED: &[(&str, &[Version])] = &[
    ("apiservices.apiregistration.k8s.io", UNTIL_22),
    (
        "certificatesigningrequests.certificates.k8s.io",
        &[on("v1", 19, STILL), on("v1beta1", 12, 22)],
    ),
    ("clusterrolebindings.rbac.authorization.k8s.io", RBAC),
    ("clusterroles.rbac.authorization.k8s.io", RBAC),
    (
        "clustertrustbundles.certificates.k8s.io",
        &[on("v1", 37, STILL), off("v1beta1", 33, 40), off("v1alpha1", 26, 37)],
    ),
    ("configmaps", V1),
    ("controllerrevisions.apps", V1),
    ("cronjobs.batch", &[on("v1", 21, STILL), on("v1beta1", 8, 25), off("v2alpha1", 5, 21)]),
    ("csidrivers.storage.k8s.io", UNTIL_22),
    ("csinodes.storage.k8s.io", UNTIL_22),
    (
        "csistoragecapacities.storage.k8s.io",
        &[on("v1", 24, STILL), on("v1beta1", 21, 27), off("v1alpha1", 19, 24)],
    ),
    ("customresourcedefinitions.apiextensions.k8s.io", UNTIL_22),
    ("daemonsets.apps", V1),
    ("deployments.apps", V1),
    ("deviceclasses.resource.k8s.io", DEVICE),
    (
        "devicetaintrules.resource.k8s.io",
        &[on("v1", 37, STILL), off("v1beta2", 36, 42), off("v1alpha3", 33, 39)],
    ),
    ("endpoints", V1),
    ("endpointslices.discovery.k8s.io", &[on("v1", 21, STILL), on("v1beta1", 17, 25)]),
    ("events", V1),
    ("events.events.k8s.io", EVENT),
    ("flowschemas.flowcontrol.apiserver.k8s.io", FLOW),
    (
        "horizontalpodautoscalers.autoscaling",
        &[on("v2", 23, STILL), on("v2beta2", 12, 26), on("v2beta1", 8, 25), on("v1", 0, STILL)],
    ),
    ("ingressclasses.networking.k8s.io", &[on("v1", 19, STILL), on("v1beta1", 18, 22)]),
    ("ingresses.networking.k8s.io", &[on("v1", 19, STILL), on("v1beta1", 14, 22)]),
    ("ipaddresses.networking.k8s.io", ADDRESS),
    ("jobs.batch", V1),
    (
        "leasecandidates.coordination.k8s.io",
        &[off("v1beta1", 33, 39), off("v1alpha2", 32, 38), off("v1alpha1", 31, 32)],
    ),
    ("leases.coordination.k8s.io", UNTIL_22),
    ("limitranges", V1),
    ("mutatingadmissionpolicies.admissionregistration.k8s.io", MUTATING_POLICY),
    ("mutatingadmissionpolicybindings.admissionregistration.k8s.io", MUTATING_POLICY),
    ("mutatingwebhookconfigurations.admissionregistration.k8s.io", UNTIL_22),
    ("namespaces", V1),
    ("networkpolicies.networking.k8s.io", V1),
    ("nodes", V1),
    ("persistentvolumeclaims", V1),
    ("persistentvolumes", V1),
    (
        "podcertificaterequests.certificates.k8s.io",
        &[on("v1", 37, STILL), off("v1beta1", 35, 40), off("v1alpha1", 34, 37)],
    ),
    ("poddisruptionbudgets.policy", &[on("v1", 21, STILL), on("v1beta1", 5, 25)]),
    ("podgroups.scheduling.k8s.io", GANG),
    ("pods", V1),
    ("podsecuritypolicies.policy", &[on("v1beta1", 10, 25)]),
    ("podtemplates", V1),
    ("priorityclasses.scheduling.k8s.io", RBAC),
    ("prioritylevelconfigurations.flowcontrol.apiserver.k8s.io", FLOW),
    ("replicasets.apps", V1),
    ("replicationcontrollers", V1),
    ("resourceclaims.resource.k8s.io", DEVICE),
    ("resourceclaimtemplates.resource.k8s.io", DEVICE),
    ("resourcequotas", V1),
    ("resourceslices.resource.k8s.io", DEVICE),
    ("rolebindings.rbac.authorization.k8s.io", RBAC),
    ("roles.rbac.authorization.k8s.io", RBAC),
    (
        "runtimeclasses.node.k8s.io",
        &[on("v1", 20, STILL), on("v1beta1", 14, 25), off("v1alpha1", 12, 23)],
    ),
    ("secrets", V1),
    ("serviceaccounts", V1),
    ("servicecidrs.networking.k8s.io", ADDRESS),
    ("services", V1),
    ("statefulsets.apps", V1),
    ("storageclasses.storage.k8s.io", UNTIL_22),
    (
        "storageversionmigrations.storagemigration.k8s.io",
        &[on("v1", 37, STILL), off("v1beta1", 35, 40), off("v1alpha1", 30, 35)],
    ),
    ("validatingadmissionpolicies.admissionregistration.k8s.io", VALIDATING_POLICY),
    ("validatingadmissionpolicybindings.admissionregistration.k8s.io", VALIDATING_POLICY),
    ("validatingwebhookconfigurations.admissionregistration.k8s.io", UNTIL_22),
    ("volumeattachments.storage.k8s.io", UNTIL_22),
    (
        "volumeattributesclasses.storage.k8s.io",
        &[on("v1", 34, STILL), off("v1beta1", 31, 37), off("v1alpha1", 29, 35)],
    ),
    ("workloads.scheduling.k8s.io", GANG),
];

fn versions(resource: &str) -> Option<&'static [Version]> {
    SERVED.binary_search_by(|(r, _)| (*r).cmp(resource)).ok().map(|i| SERVED[i].1)
}

/// Whether the resource is one of Kubernetes itself, of any release.
#[must_use]
pub fn is_built_in(resource: &str) -> bool {
    versions(resource).is_some()
}

/// At which version a built-in resource that is stored as `stored` (`v1beta1`; empty when that is
/// a version of another group) is written for a target, and whether the target serves it without
/// being asked to. `None` when it serves the resource at no version.
///
/// A stored version that is served stays, because what is not converted loses nothing; but
/// `autoscaling/v1` keeps its metrics as text in annotations, so `v2` says the same better.
#[must_use]
pub fn choose(resource: &str, stored: &str, target: Minor) -> Option<(&'static str, bool)> {
    let all = versions(resource)?;
    let served = |v: &&Version| v.from <= target.0 && target.0 < v.until;
    let keep = |v: &&Version| v.name == stored && !(resource.ends_with(".autoscaling"));
    let find = |on: bool| {
        let fits = || all.iter().filter(served).filter(move |v| v.on || !on);
        fits().find(keep).or_else(|| fits().next())
    };
    find(true).or_else(|| find(false)).map(|v| (v.name, v.on))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(resource: &str, stored: &str, target: &str) -> Option<(&'static str, bool)> {
        choose(resource, stored, target.parse().unwrap())
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(SERVED.is_sorted_by_key(|(resource, _)| resource));
    }

    #[test]
    fn versions_are_read_as_people_write_them() {
        for text in ["1.36", "v1.36", "v1.36.2", "1.36.2+k3s1", "1.36+"] {
            assert_eq!(text.parse::<Minor>().unwrap().to_string(), "1.36", "{text}");
        }
        for text in ["", "1", "36", "2.0", "1.19", "1.38", "1.x", "latest", "1.300"] {
            assert!(text.parse::<Minor>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_served_stays_and_what_is_not_becomes_the_most_stable() {
        let pdb = "poddisruptionbudgets.policy";
        assert_eq!(at(pdb, "v1beta1", "1.24"), Some(("v1beta1", true)));
        assert_eq!(at(pdb, "v1beta1", "1.25"), Some(("v1", true)));
        assert_eq!(at(pdb, "v1", "1.20"), Some(("v1beta1", true)));
        let flow = "flowschemas.flowcontrol.apiserver.k8s.io";
        assert_eq!(at(flow, "v1beta1", "1.37"), Some(("v1", true)));
        assert_eq!(at(flow, "v1", "1.28"), Some(("v1beta3", true)));
        assert_eq!(at(flow, "v1beta2", "1.28"), Some(("v1beta2", true)));
        let hpa = "horizontalpodautoscalers.autoscaling";
        assert_eq!(at(hpa, "v1", "1.37"), Some(("v2", true)));
        assert_eq!(at(hpa, "v2", "1.22"), Some(("v2beta2", true)));
        assert_eq!(at("podsecuritypolicies.policy", "v1beta1", "1.24"), Some(("v1beta1", true)));
        assert_eq!(at("podsecuritypolicies.policy", "v1beta1", "1.25"), None);
    }

    #[test]
    fn a_version_that_must_be_asked_for_is_the_last_choice() {
        let policy = "validatingadmissionpolicies.admissionregistration.k8s.io";
        assert_eq!(at(policy, "v1beta1", "1.33"), Some(("v1", true)));
        assert_eq!(at(policy, "v1beta1", "1.29"), Some(("v1beta1", false)));
        assert_eq!(at(policy, "v1", "1.25"), None);
    }
}

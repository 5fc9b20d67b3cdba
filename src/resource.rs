//! etcd key → resource, namespace and name; and back from a resource to the key ranges that
//! hold it.
//!
//! Source of the layout: kubernetes/apiserver `pkg/storage/etcd3/store.go`,
//! `pkg/server/storage/storage_factory.go`; kubernetes/kubernetes
//! `pkg/kubeapiserver/default_storage_factory_builder.go`, `test/integration/etcd/data.go`;
//! openshift/openshift-apiserver `pkg/cmd/openshift-apiserver/openshiftapiserver/etcd.go`.

use std::borrow::Cow;

use crate::range::KeyRange;

pub mod kind;

/// The API server's default `--etcd-prefix`, with the slash it appends.
pub const DEFAULT_PREFIX: &str = "/registry/";

/// Prefix of `OpenShift`'s aggregated API servers.
const OPENSHIFT_PREFIX: &str = "/openshift.io/";

/// Prefixes that are stripped whatever `--prefix` says.
const KNOWN_PREFIXES: [&str; 3] = [DEFAULT_PREFIX, "/kubernetes.io/", OPENSHIFT_PREFIX];

/// What `--prefix` means: where keys begin, and how much of that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// As the user gave it.
    pub prefix: String,
    /// API server prefixes that resources are looked for under, each ending in `/`.
    pub bases: Vec<String>,
    /// Keys outside are not wanted.
    pub within: KeyRange,
}

impl Scope {
    /// Reads a prefix. One that reaches further down than a well-known prefix
    /// (`/registry/secrets/ns/`) narrows the selection; `/` means all well-known prefixes.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let slashed = if prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") };
        let bases: Vec<String> = if slashed == "/" {
            KNOWN_PREFIXES.map(str::to_owned).to_vec()
        } else if let Some(base) = KNOWN_PREFIXES.iter().find(|p| slashed.starts_with(*p)) {
            vec![(*base).to_owned()]
        } else {
            vec![slashed.clone()]
        };
        let within = if slashed == "/" {
            KeyRange::prefix(prefix.as_bytes())
        } else if bases.contains(&slashed) {
            KeyRange::prefix(slashed.as_bytes())
        } else {
            // Below a base the prefix is one of keys, as etcdctl's is: no slash is added.
            KeyRange::prefix(prefix.as_bytes())
        };
        Self { prefix: prefix.to_owned(), bases, within }
    }

    /// The base that keys are most likely below.
    #[must_use]
    pub fn base(&self) -> &str {
        self.bases.first().map_or(DEFAULT_PREFIX, String::as_str)
    }

    /// Key ranges that can hold the selected resources, ascending and disjoint. They may hold
    /// others too.
    #[must_use]
    pub fn ranges(&self, selectors: &[Selector]) -> Vec<KeyRange> {
        let mut ranges = Vec::new();
        for base in &self.bases {
            for selector in selectors {
                ranges.extend(selector.ranges(base));
            }
        }
        if self.bases.iter().any(|b| b == "/kubernetes.io/")
            && self.prefix.len() <= "/kubernetes.io/".len()
        {
            // OpenShift's aggregated servers share the etcd but not the prefix.
            for (path, resource) in OPENSHIFT {
                if selectors.iter().any(|s| s.matches(resource)) {
                    ranges.push(KeyRange::prefix(format!("{OPENSHIFT_PREFIX}{path}/").as_bytes()));
                }
            }
            return merge_ranges(ranges);
        }
        merge_ranges(ranges.iter().filter_map(|r| r.intersect(&self.within)).collect())
    }

    /// Where a key belongs.
    #[must_use]
    pub fn locate<'a>(&self, key: &'a [u8]) -> Location<'a> {
        locate(key, self.base().as_bytes())
    }
}

/// Where a key belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location<'a> {
    /// Group-qualified resource: `secrets`, `deployments.apps`, `widgets.example.com`.
    pub resource: Cow<'a, str>,
    /// Namespace, or `None` for cluster-scoped objects.
    pub namespace: Option<Cow<'a, str>>,
    /// Object name; may itself contain `:` and dots.
    pub name: Cow<'a, str>,
    /// Written by the API server without a transformer, so never encrypted even under `*.*`
    /// (kubernetes/kubernetes `pkg/registry/core/rest/storage_core.go`, `pkg/controlplane`), or
    /// not an API object at all.
    pub internal: bool,
    /// Where namespace and name begin in the key, bytes: all keys with the same beginning belong
    /// to the same resource.
    pub object_at: usize,
}

impl Location<'_> {
    /// Namespace and name with the bytes that `key` has, which need not be text; `key` is the one
    /// that was located.
    #[must_use]
    pub fn exactly<'k>(&self, key: &'k [u8]) -> (Option<&'k [u8]>, &'k [u8]) {
        let object = key.get(self.object_at..).unwrap_or_default();
        match object.iter().position(|b| *b == b'/').filter(|_| self.namespace.is_some()) {
            Some(slash) => (Some(&object[..slash]), &object[slash + 1..]),
            None => (None, object),
        }
    }
}

/// Storage segment → group, for the segments whose group is not the core group.
/// Sorted by segment; `builtin_group` searches it.
const GROUPED: &[(&str, &str)] = &[
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
const RENAMED: &[(&str, &str)] = &[
    ("controllers", "replicationcontrollers"),
    ("ingress", "ingresses"),
    ("minions", "nodes"),
    ("podsecuritypolicy", "podsecuritypolicies"),
];

/// Core resources, to know them from misspellings.
const CORE: &[&str] = &[
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
const INTERNAL: &[&str] = &["health", "masterleases", "peerserverleases", "ranges"];

/// `OpenShift` aggregated API servers: storage path below `/openshift.io/` → qualified resource.
const OPENSHIFT: &[(&str, &str)] = &[
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

fn builtin_group(segment: &str) -> Option<&'static str> {
    GROUPED.binary_search_by(|(s, _)| (*s).cmp(segment)).ok().map(|i| GROUPED[i].1)
}

fn lookup(table: &[(&str, &'static str)], key: &str) -> Option<&'static str> {
    table.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Splits off the first path segment and the slash after it.
fn segment(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'/', path) {
        Some(i) => (&path[..i], Some(&path[i + 1..])),
        None => (path, None),
    }
}

fn internal<'a>(resource: impl Into<Cow<'a, str>>, name: &'a [u8]) -> Location<'a> {
    let object_at = name.len();
    Location {
        resource: resource.into(),
        namespace: None,
        name: text(name),
        internal: true,
        object_at,
    }
}

fn object<'a>(resource: Cow<'a, str>, rest: &'a [u8]) -> Location<'a> {
    let object_at = rest.len();
    let (first, second) = segment(rest);
    match second {
        Some(name) => Location {
            resource,
            namespace: Some(text(first)),
            name: text(name),
            internal: false,
            object_at,
        },
        None => {
            Location { resource, namespace: None, name: text(first), internal: false, object_at }
        }
    }
}

/// Finds out which resource an etcd key belongs to.
///
/// `base` is the API server's `--etcd-prefix`; the well-known ones are recognised without it.
#[must_use]
pub fn locate<'a>(key: &'a [u8], base: &[u8]) -> Location<'a> {
    let mut location = locate_below(key, base);
    // The helpers count from the key's end, which they share with it.
    location.object_at = key.len() - location.object_at;
    location
}

fn locate_below<'a>(key: &'a [u8], base: &[u8]) -> Location<'a> {
    let known = KNOWN_PREFIXES.iter().find(|p| key.starts_with(p.as_bytes()));
    let (rest, openshift) = if base.len() > 1 && key.starts_with(base) {
        (&key[base.len()..], base == OPENSHIFT_PREFIX.as_bytes())
    } else if let Some(p) = known {
        (&key[p.len()..], *p == OPENSHIFT_PREFIX)
    } else {
        return internal("", key);
    };
    let (first, rest_after) = segment(rest);
    let Some(after) = rest_after else {
        return internal(text(first), rest);
    };
    let first_text = text(first);
    if openshift {
        let (second, third) = segment(after);
        if let Some(third) = third
            && let Some(q) = lookup(OPENSHIFT, &format!("{first_text}/{}", text(second)))
        {
            return object(Cow::Borrowed(q), third);
        }
        if let Some(q) = lookup(OPENSHIFT, &first_text) {
            return object(Cow::Borrowed(q), after);
        }
    }
    if INTERNAL.contains(&first_text.as_ref()) {
        return internal(first_text, after);
    }
    if first == b"services" {
        // `services/specs/…` and `services/endpoints/…` share the first segment.
        let (second, third) = segment(after);
        if let Some(third) = third {
            match second {
                b"specs" => return object(Cow::Borrowed("services"), third),
                b"endpoints" => return object(Cow::Borrowed("endpoints"), third),
                _ => {}
            }
        }
    }
    if first.contains(&b'.') {
        let (second, third) = segment(after);
        let Some(third) = third else {
            return internal(first_text, after);
        };
        return object(Cow::Owned(format!("{}.{first_text}", text(second))), third);
    }
    let resource = lookup(RENAMED, &first_text);
    match (resource, builtin_group(&first_text)) {
        (renamed, Some(group)) => {
            let name = renamed.unwrap_or(&first_text);
            object(Cow::Owned(format!("{name}.{group}")), after)
        }
        (Some(renamed), None) => object(Cow::Borrowed(renamed), after),
        (None, None) => object(first_text, after),
    }
}

/// A resource as `--resource` and `EncryptionConfiguration` write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `secrets`, `deployments.apps`: one resource, by its qualified name.
    Exact(String),
    /// `*.apps`; the empty group is the core group (`*.`).
    Group(String),
    /// `*.*`
    All,
}

impl Selector {
    /// Reads a selector. A bare name of a resource that only one built-in group has is completed
    /// (`deployments` → `deployments.apps`), as kubectl does.
    ///
    /// # Errors
    /// When the text is empty or has a wildcard elsewhere than as a whole part.
    pub fn parse(raw: &str) -> Result<Self, String> {
        let name = raw.trim_end_matches('.');
        match raw.split_once('.') {
            _ if raw == "*.*" => Ok(Self::All),
            Some(("*", group)) if !group.contains('*') => Ok(Self::Group(group.to_owned())),
            _ if name.is_empty() || name.contains(['*', '/']) => Err(format!(
                "`{raw}` is not a resource: use a form like `secrets`, `deployments.apps`, `*.example.com` or `*.*`"
            )),
            Some((_, group)) if !group.is_empty() => Ok(Self::Exact(name.to_owned())),
            _ => Ok(Self::Exact(complete(name))),
        }
    }

    /// Whether a qualified resource name is selected.
    #[must_use]
    pub fn matches(&self, resource: &str) -> bool {
        match self {
            Self::Exact(name) => name == resource,
            Self::Group(group) => group_of(resource) == group,
            Self::All => true,
        }
    }

    /// Key ranges below `prefix` (which ends in `/`) that can hold the selected resources; they
    /// may hold others too, so entries are matched again.
    #[must_use]
    pub fn ranges(&self, prefix: &str) -> Vec<KeyRange> {
        let below = |path: &str| KeyRange::prefix(format!("{prefix}{path}/").as_bytes());
        let whole = || vec![KeyRange::prefix(prefix.as_bytes())];
        if prefix.starts_with(OPENSHIFT_PREFIX) {
            if let Self::Exact(name) = self
                && let Some((path, _)) = OPENSHIFT.iter().find(|(_, q)| q == name)
            {
                return vec![below(path)];
            }
            return whole();
        }
        match self {
            Self::All => whole(),
            Self::Exact(name) => match name.as_str() {
                "services" => vec![below("services/specs")],
                "endpoints" => vec![below("services/endpoints")],
                _ => {
                    let (resource, group) = name.split_once('.').unwrap_or((name, ""));
                    let segments = segments_of(resource);
                    if group.is_empty() {
                        segments.iter().map(|s| below(s)).collect()
                    } else if let Some(s) =
                        segments.iter().find(|s| builtin_group(s) == Some(group))
                    {
                        vec![below(s)]
                    } else {
                        vec![below(&format!("{group}/{resource}"))]
                    }
                }
            },
            Self::Group(group) if group.is_empty() => whole(),
            Self::Group(group) => {
                let mut ranges: Vec<_> =
                    GROUPED.iter().filter(|(_, g)| g == group).map(|(s, _)| below(s)).collect();
                if group.contains('.') {
                    ranges.push(below(group));
                }
                ranges.sort_by(|a, b| a.start.cmp(&b.start));
                ranges
            }
        }
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Group(group) => write!(f, "*.{group}"),
            Self::All => f.write_str("*.*"),
        }
    }
}

/// The group of a qualified resource name; empty for the core group.
#[must_use]
pub fn group_of(resource: &str) -> &str {
    resource.split_once('.').map_or("", |(_, group)| group)
}

fn segments_of(resource: &str) -> Vec<&str> {
    match RENAMED.iter().find(|(_, name)| *name == resource) {
        Some((segment, _)) => vec![segment],
        None => vec![resource],
    }
}

fn complete(name: &str) -> String {
    if CORE.contains(&name) {
        return name.to_owned();
    }
    let segment = segments_of(name)[0];
    match builtin_group(segment) {
        Some(group) => format!("{name}.{group}"),
        None => name.to_owned(),
    }
}

/// Sorts ranges and joins those that touch or overlap, so that no entry is read twice.
#[must_use]
pub fn merge_ranges(mut ranges: Vec<KeyRange>) -> Vec<KeyRange> {
    ranges.sort_by(|a, b| a.start.cmp(&b.start));
    let mut merged: Vec<KeyRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end.as_deref().is_none_or(|end| range.start.as_slice() <= end) => {
                if last.end.is_some() && (range.end.is_none() || range.end > last.end) {
                    last.end = range.end;
                }
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests;

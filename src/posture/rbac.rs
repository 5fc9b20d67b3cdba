//! Who may read Secrets, as the API server's RBAC authorizer decides it (kubernetes
//! `plugin/pkg/auth/authorizer/rbac/rbac.go`, `pkg/apis/rbac/v1/evaluation_helpers.go`).
//!
//! Roles are evaluated as they are stored, and so are aggregated ones: a controller has written
//! into them what they add up to.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::Name;

/// What a grant allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// get, list or watch on Secrets.
    Read,
    /// Creating what runs in the namespace, which can mount its Secrets.
    Workload,
    /// `escalate` on roles: the subject can write any right into one that it has.
    Escalate,
    /// `bind` on roles: the subject can bind itself to any.
    Bind,
    /// `impersonate`: the subject can act as somebody else.
    Impersonate,
}

impl By {
    /// The word in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Workload => "create-workloads",
            Self::Escalate => "escalate",
            Self::Bind => "bind",
            Self::Impersonate => "impersonate",
        }
    }
}

/// One subject's right from one binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// `User alice`, `Group g`, `ServiceAccount ns/name`.
    pub subject: String,
    /// What it allows.
    pub by: By,
    /// The namespace it is for; `None` is all of them.
    pub namespace: Option<String>,
    /// The only names it is for; empty is all of them.
    pub names: Vec<String>,
    /// `RoleBinding` or `ClusterRoleBinding`.
    pub binding_kind: &'static str,
    /// The binding that gives it, with its namespace.
    pub binding: String,
    /// The role that it binds.
    pub role: String,
    /// One of those that every cluster has.
    pub is_default: bool,
}

impl Grant {
    /// Where it holds, for a sentence.
    #[must_use]
    pub fn reach(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("namespace {namespace}"),
            None => "every namespace".to_owned(),
        }
    }
}

/// A part of a role that matters here.
#[derive(Clone, Debug)]
struct Right {
    by: By,
    names: Vec<String>,
}

/// Namespace (`None` for a cluster role) and name.
pub(super) type RoleId = (Option<String>, String);

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Which role an object is.
pub(super) fn role_id(resource: &str, object: &Value) -> RoleId {
    let metadata = &object["metadata"];
    let namespace = resource.starts_with("role").then(|| text(&metadata["namespace"]));
    (namespace, text(&metadata["name"]))
}

/// Who is bound to a role, and where.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    kind: &'static str,
    pub(super) namespace: Option<String>,
    name: String,
    pub(super) role: RoleId,
    pub(super) subjects: Vec<String>,
    is_default: bool,
}

impl Binding {
    pub(super) fn of(resource: &str, object: &Value) -> Self {
        let metadata = &object["metadata"];
        let (namespace, name) = role_id(resource, object);
        let of_cluster = object["roleRef"]["kind"] == "ClusterRole";
        // To a binding of the cluster, a role of a namespace is nothing: no namespace is empty.
        let of = (!of_cluster).then(|| namespace.clone().unwrap_or_default());
        let role = (of, text(&object["roleRef"]["name"]));
        let subject = |s: &Value| {
            let name = text(&s["name"]);
            match text(&s["kind"]).as_str() {
                "ServiceAccount" => {
                    let of = s["namespace"].as_str().or(namespace.as_deref()).unwrap_or_default();
                    format!("ServiceAccount {of}/{name}")
                }
                kind => format!("{kind} {name}"),
            }
        };
        let subjects = object["subjects"].as_array().into_iter().flatten().map(subject).collect();
        Self {
            kind: if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" },
            is_default: metadata["labels"]["kubernetes.io/bootstrapping"] == "rbac-defaults",
            namespace,
            name,
            role,
            subjects,
        }
    }
}

/// Roles and bindings, as far as they matter.
#[derive(Clone, Debug, Default)]
pub struct Access {
    roles: HashMap<RoleId, Vec<Right>>,
    bindings: Vec<Binding>,
}

impl Access {
    /// Learns from a role or a binding.
    pub(super) fn see(&mut self, resource: &str, object: &Value) {
        if resource.starts_with("roles") || resource.starts_with("clusterroles") {
            let rules = object["rules"].as_array().map_or(&[][..], Vec::as_slice);
            let rights: Vec<Right> = rules.iter().flat_map(rights).collect();
            if !rights.is_empty() {
                self.roles.insert(role_id(resource, object), rights);
            }
            return;
        }
        self.bindings.push(Binding::of(resource, object));
    }

    /// Everything that is granted, sorted.
    #[must_use]
    pub fn grants(&self) -> Vec<Grant> {
        let mut grants = Vec::new();
        for binding in &self.bindings {
            // A binding of the cluster to a role of a namespace binds nothing.
            let Some(rights) = self.roles.get(&binding.role) else { continue };
            for subject in &binding.subjects {
                for right in rights {
                    grants.push(Grant {
                        subject: subject.clone(),
                        by: right.by,
                        namespace: binding.namespace.clone(),
                        names: right.names.clone(),
                        binding_kind: binding.kind,
                        binding: match &binding.namespace {
                            Some(namespace) => format!("{namespace}/{}", binding.name),
                            None => binding.name.clone(),
                        },
                        role: match &binding.role {
                            (Some(namespace), name) => format!("Role {namespace}/{name}"),
                            (None, name) => format!("ClusterRole {name}"),
                        },
                        is_default: binding.is_default,
                    });
                }
            }
        }
        grants.sort();
        grants.dedup();
        grants
    }

    /// Who reads what, ready to be asked for one Secret after another.
    #[must_use]
    pub fn readers(&self) -> Readers {
        let mut readers = Readers::default();
        for grant in self.grants().into_iter().filter(|g| g.by == By::Read) {
            if grant.names.is_empty() {
                let whole = readers.whole.entry(grant.namespace).or_default();
                whole.insert(grant.subject);
            } else {
                for name in grant.names {
                    let named = readers.named.entry((grant.namespace.clone(), name)).or_default();
                    named.insert(grant.subject.clone());
                }
            }
        }
        readers
    }
}

/// Who reads which Secrets.
#[derive(Clone, Debug, Default)]
pub struct Readers {
    /// By namespace; `None` is all of them.
    whole: HashMap<Option<String>, BTreeSet<String>>,
    named: HashMap<(Option<String>, String), BTreeSet<String>>,
}

impl Readers {
    /// The subjects that read a Secret, sorted.
    #[must_use]
    pub fn of(&self, secret: &Name) -> Vec<&str> {
        let mut all = BTreeSet::new();
        for namespace in [None, Some(secret.0.clone())] {
            let named = self.named.get(&(namespace.clone(), secret.1.clone()));
            for set in self.whole.get(&namespace).into_iter().chain(named) {
                all.extend(set.iter().map(String::as_str));
            }
        }
        all.into_iter().collect()
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// What a rule grants of what matters here.
fn rights(rule: &Value) -> Vec<Right> {
    let has = |field: &str, wanted: &[&str]| {
        rule[field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .any(|word| word == "*" || wanted.contains(&word))
    };
    let names: Vec<String> = rule["resourceNames"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|n| n.as_str().map(str::to_owned))
        .collect();
    // By, verbs, groups, resources.
    let table: [(By, &[&str], &[&str], &[&str]); 8] = [
        (By::Read, &["get", "list", "watch"], &[""], &["secrets"]),
        (By::Workload, &["create"], &[""], &["pods", "replicationcontrollers"]),
        (
            By::Workload,
            &["create"],
            &["apps"],
            &["deployments", "daemonsets", "statefulsets", "replicasets"],
        ),
        (By::Workload, &["create"], &["batch"], &["jobs", "cronjobs"]),
        (By::Escalate, &["escalate"], &[RBAC], &["roles", "clusterroles"]),
        (By::Bind, &["bind"], &[RBAC], &["roles", "clusterroles"]),
        (By::Impersonate, &["impersonate"], &[""], &["users", "groups", "serviceaccounts"]),
        (By::Impersonate, &["impersonate"], &["authentication.k8s.io"], &["uids", "userextras"]),
    ];
    let mut rights: Vec<Right> = Vec::new();
    for (by, verbs, groups, resources) in table {
        let granted =
            has("verbs", verbs) && has("apiGroups", groups) && has("resources", resources);
        // A creation has no name yet, so a rule for names grants none.
        let usable = names.is_empty() || by != By::Workload;
        if granted && usable && !rights.iter().any(|r| r.by == by) {
            rights.push(Right { by, names: names.clone() });
        }
    }
    rights
}

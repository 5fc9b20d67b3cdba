//! What must be known of a whole cluster before one of its objects can be judged.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::edit;
use crate::resource::{Location, Selector};

/// A version of a custom resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServedVersion {
    pub name: String,
    pub served: bool,
    pub storage: bool,
    /// `status` is written apart from the rest, by whoever acts on the object.
    pub status: bool,
}

/// What a `CustomResourceDefinition` says about its objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Definition {
    pub kind: String,
    pub versions: Vec<ServedVersion>,
    /// A webhook converts between versions; else nothing but `apiVersion` differs.
    pub webhook: bool,
}

/// Facts of a source, gathered in a first pass.
#[derive(Debug, Default)]
pub struct Facts {
    /// The resources of the export.
    selected: Vec<Selector>,
    /// Whatever an object refers to is there.
    assumed: bool,
    /// By resource, `widgets.example.com`.
    pub(super) definitions: HashMap<String, Definition>,
    /// Objects that others depend on: resource, namespace, name.
    present: HashSet<(String, String, String)>,
    /// Services whose endpoints a controller looks up: namespace, name.
    selecting: HashSet<(String, String)>,
}

const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const SERVICES: &str = "services";

/// Kinds whose controllers make pods and the like, and their resources.
const CONTROLLERS: [(&str, &str); 8] = [
    ("Deployment", "deployments.apps"),
    ("ReplicaSet", "replicasets.apps"),
    ("StatefulSet", "statefulsets.apps"),
    ("DaemonSet", "daemonsets.apps"),
    ("ReplicationController", "replicationcontrollers"),
    ("Job", "jobs.batch"),
    ("CronJob", "cronjobs.batch"),
    ("Pod", "pods"),
];
const BY_NAME: [&str; 2] = ["persistentvolumes", "persistentvolumeclaims"];

/// What a first pass reads for an export of `selected`: nothing that the export does not ask
/// about, because whoever reads only Secrets may have no right to read the rest.
#[must_use]
pub fn wanted(selected: &[Selector]) -> Vec<Selector> {
    let any = |resources: &[&str]| resources.iter().any(|r| selected.iter().any(|s| s.matches(r)));
    let custom = selected.iter().any(|s| match s {
        Selector::Exact(resource) => !super::is_built_in(resource),
        Selector::Group(group) => group.contains('.'),
        Selector::All => true,
    });
    let mut wanted = Vec::new();
    if custom || any(&[DEFINITIONS]) {
        wanted.push(DEFINITIONS);
    }
    if any(&["endpoints", "endpointslices.discovery.k8s.io"]) {
        wanted.push(SERVICES);
    }
    let made = ["pods", "replicasets.apps", "jobs.batch", "controllerrevisions.apps"];
    if any(&made) || custom {
        // Pods own nothing that is made again from them alone.
        wanted.extend(CONTROLLERS.iter().map(|(_, r)| *r).filter(|r| *r != "pods"));
    }
    if any(&BY_NAME) {
        wanted.extend(BY_NAME);
    }
    wanted.into_iter().map(|r| Selector::Exact(r.to_owned())).collect()
}

impl Facts {
    /// Nothing is known yet; `selected` are the resources of the export.
    #[must_use]
    pub fn new(selected: &[Selector]) -> Self {
        Self { selected: selected.to_vec(), ..Self::default() }
    }

    /// Nothing was read beforehand: whatever an object refers to is taken to be there. For
    /// comparing two clusters by the rules of a restore.
    #[must_use]
    pub fn assumed() -> Self {
        Self { assumed: true, selected: vec![Selector::All], ..Self::default() }
    }

    /// Whether an object of this resource has to be decoded for [`Facts::learn`].
    #[must_use]
    pub fn reads(resource: &str) -> bool {
        matches!(resource, DEFINITIONS | SERVICES)
    }

    /// An object of the export is there.
    pub fn note(&mut self, location: &Location<'_>) {
        if Self::reads(&location.resource) {
            return;
        }
        self.present.insert((
            location.resource.clone().into_owned(),
            location.namespace.as_deref().unwrap_or_default().to_owned(),
            location.name.clone().into_owned(),
        ));
    }

    /// Takes in a definition or a Service, as stored.
    pub fn learn(&mut self, location: &Location<'_>, object: &Value) {
        if location.resource == SERVICES {
            let selector = object.pointer("/spec/selector").and_then(Value::as_object);
            if selector.is_some_and(|s| !s.is_empty()) {
                let namespace = location.namespace.as_deref().unwrap_or_default();
                self.selecting.insert((namespace.to_owned(), location.name.clone().into_owned()));
            }
        } else if location.resource == DEFINITIONS {
            let spec = &object["spec"];
            let (plural, group) =
                (edit::text(spec, &["names", "plural"]), edit::text(spec, &["group"]));
            self.definitions.insert(format!("{plural}.{group}"), definition(spec));
        }
    }

    /// Whether the source has a definition of a custom resource.
    #[must_use]
    pub fn defines(&self, resource: &str) -> bool {
        self.definitions.contains_key(resource)
    }

    /// Whether an object of the export is there.
    pub(super) fn has(&self, resource: &str, namespace: &str, name: &str) -> bool {
        // Looking up borrowed parts would need a key type of its own; these are few.
        self.assumed
            || self.present.contains(&(resource.to_owned(), namespace.to_owned(), name.to_owned()))
    }

    /// Whether a controller fills in the endpoints of this Service.
    pub(super) fn selects(&self, namespace: &str, name: &str) -> bool {
        self.assumed || self.selecting.contains(&(namespace.to_owned(), name.to_owned()))
    }

    /// Whether the controller that an owner reference names is in the export, and so makes again
    /// what it owns.
    pub(super) fn makes_again(&self, owner: &Value, namespace: &str) -> bool {
        if owner.get("controller").is_none_or(|c| c != true) {
            return false;
        }
        let (kind, name) = (edit::text(owner, &["kind"]), edit::text(owner, &["name"]));
        let api_version = edit::text(owner, &["apiVersion"]);
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        if let Some((_, resource)) = CONTROLLERS.iter().find(|(k, _)| *k == kind)
            && (crate::resource::group_of(resource) == group || group == "extensions")
        {
            return self.has(resource, namespace, name);
        }
        // An operator's: its objects are too many to list them all beforehand, and one that is
        // gone would have taken with it what it owned.
        self.definitions.iter().any(|(resource, definition)| {
            definition.kind == kind
                && crate::resource::group_of(resource) == group
                && self.selected.iter().any(|s| s.matches(resource))
        })
    }
}

fn definition(spec: &Value) -> Definition {
    let common = spec.pointer("/subresources/status").is_some_and(|s| !s.is_null());
    let version = |v: &Value| ServedVersion {
        name: edit::text(v, &["name"]).to_owned(),
        served: v["served"] == true,
        storage: v["storage"] == true,
        status: common || v.pointer("/subresources/status").is_some_and(|s| !s.is_null()),
    };
    let mut versions: Vec<_> =
        spec["versions"].as_array().into_iter().flatten().map(version).collect();
    if versions.is_empty() {
        let name = edit::text(spec, &["version"]).to_owned();
        versions.push(ServedVersion { name, served: true, storage: true, status: common });
    }
    Definition {
        kind: edit::text(spec, &["names", "kind"]).to_owned(),
        versions,
        webhook: edit::text(spec, &["conversion", "strategy"]) == "Webhook",
    }
}

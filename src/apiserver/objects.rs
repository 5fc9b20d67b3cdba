//! What an API server says that it serves, and which objects it lists: pure readers of its
//! documents (kubernetes/apimachinery `pkg/apis/meta/v1/types.go`: `APIGroup`, `APIResourceList`,
//! `PartialObjectMetadata`).

use serde::Deserialize;

/// Of an answer that lists objects, their metadata alone: no data is asked for, and a server that
/// has no such form refuses.
pub const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// Of an answer that is one object, its metadata alone.
pub const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// A resource that a server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Group and version, `v1` or `apps/v1`.
    pub api_version: String,
    /// Name within its group, `deployments`.
    pub plural: String,
    /// The type of its objects, `Deployment`.
    pub kind: String,
    /// Its objects are in namespaces.
    pub namespaced: bool,
    /// What can be done with it, `list`, `patch`, …
    pub verbs: Vec<String>,
    /// The same for each name of what is stored once, as events in both of their groups; empty
    /// where the server does not say.
    pub storage: String,
}

impl Served {
    /// Its qualified name, `deployments.apps`.
    #[must_use]
    pub fn resource(&self) -> String {
        match self.api_version.split_once('/') {
            Some((group, _)) => format!("{}.{group}", self.plural),
            None => self.plural.clone(),
        }
    }

    /// The path of its objects, or of those in a namespace.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>) -> String {
        let place = namespace.map_or(String::new(), |n| format!("/namespaces/{}", encoded(n)));
        format!("{}{place}/{}", root(&self.api_version), self.plural)
    }
}

/// Where the resources of a version are.
#[must_use]
pub fn root(api_version: &str) -> String {
    format!("/{}/{api_version}", if api_version.contains('/') { "apis" } else { "api" })
}

/// A path segment: names may have a colon, a percent sign or a space.
#[must_use]
pub fn encoded(segment: &str) -> String {
    crate::hex::percent(segment.as_bytes(), |b| b.is_ascii_alphanumeric() || b"-._~:".contains(&b))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceList {
    group_version: String,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    storage_version_hash: String,
}

/// The resources of an `APIResourceList`, without those that are parts of others.
///
/// # Errors
/// When it is none.
pub fn resources(body: &[u8]) -> Result<Vec<Served>, serde_json::Error> {
    let list: ResourceList = serde_json::from_slice(body)?;
    let own = list.resources.into_iter().filter(|r| !r.name.contains('/'));
    Ok(own
        .map(|r| Served {
            api_version: list.group_version.clone(),
            plural: r.name,
            kind: r.kind,
            namespaced: r.namespaced,
            verbs: r.verbs,
            storage: r.storage_version_hash,
        })
        .collect())
}

#[derive(Deserialize)]
struct GroupList {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    #[serde(default)]
    versions: Vec<Version>,
    preferred_version: Option<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

/// The names of the groups of an `APIGroupList`.
///
/// # Errors
/// When it is none.
pub fn groups(body: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    let list: GroupList = serde_json::from_slice(body)?;
    Ok(list.groups.into_iter().map(|g| g.name).collect())
}

/// The versions of an `APIGroup` with its name, the preferred one first.
///
/// # Errors
/// When it is none.
pub fn versions(body: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    let group: Group = serde_json::from_slice(body)?;
    let mut all: Vec<String> =
        group.preferred_version.into_iter().map(|v| v.group_version).collect();
    for version in group.versions {
        if !all.contains(&version.group_version) {
            all.push(version.group_version);
        }
    }
    Ok(all)
}

/// An object, by its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// Where it is, if it is in a namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Which one of that name.
    #[serde(default)]
    pub uid: String,
    /// When it was stored last.
    #[serde(default)]
    pub resource_version: String,
}

impl Object {
    /// Where it stands among the others of its resource: they are stored in this order.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

#[derive(Deserialize)]
struct List {
    kind: String,
    #[serde(default)]
    metadata: ListMeta,
    items: Option<Vec<Item>>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    more: String,
}

#[derive(Deserialize)]
struct Item {
    metadata: Object,
}

/// A page of a list.
pub struct Page {
    /// The objects.
    pub objects: Vec<Object>,
    /// What continues it.
    pub next: Option<String>,
}

/// A page of a `PartialObjectMetadataList`; none if the document is something else.
#[must_use]
pub fn page(body: &[u8]) -> Option<Page> {
    let list: List = serde_json::from_slice(body).ok()?;
    (list.kind == "PartialObjectMetadataList").then(|| Page {
        objects: list.items.unwrap_or_default().into_iter().map(|i| i.metadata).collect(),
        next: Some(list.metadata.more).filter(|more| !more.is_empty()),
    })
}

/// The token with which a list goes on that has expired, from a `Status`; some servers give none.
#[must_use]
pub fn expired(body: &[u8]) -> Option<String> {
    let status: Expired = serde_json::from_slice(body).ok()?;
    Some(status.metadata.more).filter(|more| !more.is_empty())
}

#[derive(Deserialize)]
struct Expired {
    metadata: ListMeta,
}

/// The metadata of an object.
#[must_use]
pub fn object(body: &[u8]) -> Option<Object> {
    serde_json::from_slice::<Item>(body).ok().map(|i| i.metadata)
}

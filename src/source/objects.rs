//! Archives of objects instead of pages, known by the names of their members.
//!
//! Velero: vmware-tanzu/velero `pkg/archive/filesystem.go` (`GetVersionedItemFilePath`),
//! `pkg/backup/item_backupper.go`. rancher-backup: rancher/backup-restore-operator
//! `pkg/resourcesets/collector.go` (`WriteBackupObjects`), `pkg/controllers/restore/download.go`
//! (`loadDataFromFile`).

/// Who made an archive of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objects {
    /// Velero: `resources/secrets/namespaces/ns/name.json`.
    #[error("a Velero backup")]
    Velero,
    /// The backup operator of Rancher: `secrets.#v1/ns/name.json`.
    #[error("a rancher-backup archive")]
    Rancher,
}

/// Which object a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectPath<'a> {
    /// Who writes such paths.
    pub archive: Objects,
    /// The group-qualified resource.
    pub resource: &'a str,
    /// None for objects without one.
    pub namespace: Option<&'a str>,
    /// The object's name.
    pub name: &'a str,
    /// Of members for the same object, the one with the least is it: Velero writes an object
    /// again below each version that it saves.
    pub rank: u8,
}

/// What Velero puts behind the version that the API server prefers (`pkg/apis/velero/v1`).
const PREFERRED: &str = "-preferredversion";

/// The archive that has such a member, if any has.
#[must_use]
pub fn archive_of(member: &[u8]) -> Option<Objects> {
    if below(member) == Some("metadata/version") {
        return Some(Objects::Velero);
    }
    object_path(member).map(|path| path.archive)
}

/// Whether a member belongs to the archives of objects without being one.
#[must_use]
pub fn is_about(member: &[u8]) -> bool {
    below(member).is_some_and(|path| path.starts_with("metadata/") || path.starts_with("filters/"))
}

/// The object that a member is by its name. None for names that lead elsewhere.
#[must_use]
pub fn object_path(member: &[u8]) -> Option<ObjectPath<'_>> {
    let parts: Vec<&str> = below(member)?.split('/').collect();
    let (file, folders) = parts.split_last()?;
    let name = file.strip_suffix(".json")?;
    if !parts.iter().chain([&name]).all(|part| is_name(part)) {
        return None;
    }
    let velero = |resource, namespace, rank| ObjectPath {
        archive: Objects::Velero,
        resource,
        namespace,
        name,
        rank,
    };
    let rank = |version: &str| if version.ends_with(PREFERRED) { 1 } else { 2 };
    match *folders {
        ["resources", resource, "cluster"] => Some(velero(resource, None, 0)),
        ["resources", resource, "namespaces", ns] => Some(velero(resource, Some(ns), 0)),
        ["resources", resource, version, "cluster"] => Some(velero(resource, None, rank(version))),
        ["resources", resource, version, "namespaces", ns] => {
            Some(velero(resource, Some(ns), rank(version)))
        }
        [versioned] | [versioned, _] => {
            let (resource, version) = versioned.split_once('#')?;
            // The group is empty for the core group; the point is there all the same.
            let (_, _) = resource.split_once('.')?;
            let resource = resource.strip_suffix('.').unwrap_or(resource);
            let namespace = folders.get(1).copied();
            let named = is_name(resource) && is_name(version);
            named.then_some(ObjectPath {
                archive: Objects::Rancher,
                resource,
                namespace,
                name,
                rank: 0,
            })
        }
        _ => None,
    }
}

fn below(member: &[u8]) -> Option<&str> {
    let path = std::str::from_utf8(member).ok()?;
    Some(path.strip_prefix("./").unwrap_or(path))
}

/// Longest name of a file in use.
const LONGEST: usize = 255;

fn is_name(part: &str) -> bool {
    !matches!(part, "" | "." | "..") && part.len() <= LONGEST && !part.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(member: &str) -> Option<(Objects, &str, Option<&str>, &str, u8)> {
        let p = object_path(member.as_bytes())?;
        Some((p.archive, p.resource, p.namespace, p.name, p.rank))
    }

    #[test]
    fn members_are_objects_by_their_names() {
        use Objects::{Rancher, Velero};
        for (member, expected) in [
            ("resources/secrets/namespaces/ns/a.json", (Velero, "secrets", Some("ns"), "a", 0)),
            (
                "./resources/secrets/v1-preferredversion/namespaces/ns/a.json",
                (Velero, "secrets", Some("ns"), "a", 1),
            ),
            (
                "resources/deployments.apps/v1beta1/namespaces/ns/a.json",
                (Velero, "deployments.apps", Some("ns"), "a", 2),
            ),
            ("resources/nodes/cluster/a.b.json", (Velero, "nodes", None, "a.b", 0)),
            (
                "resources/clusterroles.rbac.authorization.k8s.io/v1-preferredversion/cluster/system:node.json",
                (Velero, "clusterroles.rbac.authorization.k8s.io", None, "system:node", 1),
            ),
            ("secrets.#v1/ns/a.json", (Rancher, "secrets", Some("ns"), "a", 0)),
            (
                "users.management.cattle.io#v3/u-lqx8j.json",
                (Rancher, "users.management.cattle.io", None, "u-lqx8j", 0),
            ),
        ] {
            assert_eq!(path(member), Some(expected), "{member}");
        }
        let long = format!("secrets.#v1/ns/{}.json", "a".repeat(300));
        for member in [
            "",
            "a.json",
            "filters/filters.json",
            "metadata/version",
            "resources/secrets/a.json",
            "resources/secrets/namespaces/ns/a.yaml",
            "resources/secrets/namespaces/../a.json",
            "resources/../namespaces/ns/a.json",
            "/resources/secrets/namespaces/ns/a.json",
            "secrets.#v1/../a.json",
            "secrets.#v1/ns/...json",
            "secrets.#v1/ns/.json",
            "../secrets.#v1/ns/a.json",
            "secrets#v1/ns/a.json",
            "secrets.#/ns/a.json",
            ".#v1/ns/a.json",
            long.as_str(),
        ] {
            assert_eq!(path(member), None, "{member}");
        }
        assert_eq!(archive_of(b"metadata/version"), Some(Velero));
        assert_eq!(archive_of(b"secrets.#v1/ns/a.json"), Some(Rancher));
        assert_eq!(archive_of(b"etcd/snapshot.db"), None);
    }
}

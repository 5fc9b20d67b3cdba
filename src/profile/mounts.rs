//! From a path in a container to the path on its host.

use std::path::{Component, Path, PathBuf};

use crate::yaml_tree::Node;

/// What a container sees of its host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    at: PathBuf,
    /// The path on the host, or the name of a volume that has none.
    from: Result<PathBuf, String>,
}

impl Mounts {
    /// Reads `spec.volumes` of a pod and `volumeMounts` of one of its containers.
    pub(super) fn new(pod_spec: &Node, container: &Node) -> Self {
        let volumes = items(pod_spec, "volumes");
        let mounts = items(container, "volumeMounts").iter().filter_map(|mount| {
            let (name, at) = (text(mount, "name")?, text(mount, "mountPath")?);
            let host = volumes
                .iter()
                .find(|v| text(v, "name") == Some(name))
                .and_then(|v| text(v.get("hostPath")?, "path"));
            let from = host
                .map(|host| match text(mount, "subPath") {
                    Some(sub) => Path::new(host).join(sub),
                    None => PathBuf::from(host),
                })
                .ok_or_else(|| name.to_owned());
            Some(Mount { at: clean(Path::new(at)), from })
        });
        Self(mounts.collect())
    }

    /// The path on the host. What is not mounted is taken to be the same there.
    ///
    /// # Errors
    /// The name of the volume, when the path lies in one that is no directory of the host.
    pub fn host(&self, path: &Path) -> Result<PathBuf, &str> {
        let path = clean(path);
        let deepest = self
            .0
            .iter()
            .filter_map(|m| Some((m, path.strip_prefix(&m.at).ok()?)))
            .max_by_key(|(m, _)| m.at.components().count());
        match deepest {
            None => Ok(path),
            Some((Mount { from: Ok(host), .. }, rest)) if rest.as_os_str().is_empty() => {
                // The mount is the file itself.
                Ok(host.clone())
            }
            Some((Mount { from: Ok(host), .. }, rest)) => Ok(host.join(rest)),
            Some((Mount { from: Err(volume), .. }, _)) => Err(volume),
        }
    }

    /// The first mounted directory of the host that `wanted` accepts.
    pub fn find(&self, wanted: impl Fn(&Path) -> bool) -> Option<&Path> {
        self.0.iter().filter_map(|m| m.from.as_deref().ok()).find(|host| wanted(host))
    }
}

/// Removes `.`, `..` and doubled slashes by the text alone, as Go's `path.Clean` does.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

pub(super) fn text<'n>(node: &'n Node, name: &str) -> Option<&'n str> {
    node.get(name)?.text()
}

pub(super) fn items<'n>(node: &'n Node, name: &str) -> &'n [Node] {
    node.get(name).map(Node::items).unwrap_or_default()
}

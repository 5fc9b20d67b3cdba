//! Which resources.

use super::catalogue::{CORE, GROUPED, OPENSHIFT, OPENSHIFT_PREFIX, RENAMED, builtin_group};
use crate::range::KeyRange;

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

    /// Key ranges below `base` (which ends in `/`) that can hold the selected resources; they may
    /// hold others too, so entries are matched again.
    #[must_use]
    pub fn ranges(&self, base: &str) -> Vec<KeyRange> {
        let below = |path: &str| KeyRange::prefix(format!("{base}{path}/").as_bytes());
        let whole = || vec![KeyRange::prefix(base.as_bytes())];
        if base.ends_with(OPENSHIFT_PREFIX) {
            let known = OPENSHIFT.iter().filter(|(_, resource)| self.matches(resource));
            return match self {
                Self::All => whole(),
                // Resources that the table does not have.
                Self::Group(group) if group.is_empty() => whole(),
                Self::Exact(name) if !name.contains('.') => vec![below(name)],
                _ => known.map(|(path, _)| below(path)).collect(),
            };
        }
        match self {
            Self::All => whole(),
            Self::Exact(name) => match name.as_str() {
                "services" => vec![below("services/specs")],
                "endpoints" => vec![below("services/endpoints")],
                _ => {
                    let (resource, group) = name.split_once('.').unwrap_or((name, ""));
                    let segment = segment_of(resource);
                    if group.is_empty() || builtin_group(segment) == Some(group) {
                        return vec![below(segment)];
                    }
                    // An aggregated API server may have its group twice.
                    vec![
                        below(&format!("{group}/{resource}")),
                        below(&format!("{group}/{group}/{resource}")),
                    ]
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

/// What the keys of a resource begin with below `base`, by a name that an API server serves it
/// under: some are stored under another group's (kubernetes/kubernetes
/// `pkg/kubeapiserver/default_storage_factory_builder.go`).
#[must_use]
pub fn beginning(served: &str, base: &str) -> Vec<u8> {
    let stored = match served.split_once('.') {
        Some(("events", "events.k8s.io")) => "events".to_owned(),
        Some((name, "extensions")) => complete(name),
        _ => served.to_owned(),
    };
    let ranges = Selector::Exact(stored).ranges(base);
    ranges.into_iter().next().map(|range| range.start).unwrap_or_default()
}

/// The group of a qualified resource name; empty for the core group.
#[must_use]
pub fn group_of(resource: &str) -> &str {
    resource.split_once('.').map_or("", |(_, group)| group)
}

fn segment_of(resource: &str) -> &str {
    RENAMED.iter().find(|(_, name)| *name == resource).map_or(resource, |(segment, _)| segment)
}

fn complete(name: &str) -> String {
    if CORE.contains(&name) {
        return name.to_owned();
    }
    match builtin_group(segment_of(name)) {
        Some(group) => format!("{name}.{group}"),
        None => name.to_owned(),
    }
}

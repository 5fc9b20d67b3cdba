//! How far a run has come that stores every object anew. Names of objects, and nothing of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::apiserver::objects::Object;
use crate::migrate::plan::Failed;

/// The form that is written.
const SCHEMA: &str = "atrest.all-objects/v1";

/// What a run is about: another one cannot go on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The server's address.
    pub server: String,
    /// SHA-256 of the configuration that API servers are to have, where it was given.
    pub config: Option<String>,
    /// Resources, as they were asked for.
    pub resources: Vec<String>,
    /// Namespaces, as they were asked for.
    pub namespaces: Vec<String>,
}

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    schema: String,
    /// What it is about.
    pub about: About,
    /// When it began, RFC 3339.
    pub begun: String,
    /// By resource.
    resources: BTreeMap<String, Passed>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Passed {
    /// The place up to which every object was dealt with, that one included.
    upto: String,
    /// The places before it whose objects failed.
    failed: BTreeSet<String>,
}

/// Why a text is no progress.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    /// It is something else.
    #[error("it does not say how far such a run has come")]
    Foreign(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error("its form is `{0}`, and this program knows {SCHEMA}")]
    Schema(String),
}

impl Progress {
    /// Of a run that begins.
    #[must_use]
    pub fn new(about: About, begun: String) -> Self {
        Self { schema: SCHEMA.to_owned(), about, begun, resources: BTreeMap::new() }
    }

    /// From the bytes of a file.
    ///
    /// # Errors
    /// See [`ProgressError`].
    pub fn read(bytes: &[u8]) -> Result<Self, ProgressError> {
        let progress: Self = serde_json::from_slice(bytes)?;
        if progress.schema != SCHEMA {
            return Err(ProgressError::Schema(crate::visible::visible(&progress.schema)));
        }
        Ok(progress)
    }

    /// As the bytes of a file.
    ///
    /// # Errors
    /// Never, as far as is known.
    pub fn write(&self) -> std::io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Some of these objects failed before.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.resources.values().any(|passed| !passed.failed.is_empty())
    }

    /// What of a resource's objects has not been dealt with.
    #[must_use]
    pub fn left(&self, resource: &str, mut objects: Vec<Object>) -> Vec<Object> {
        if let Some(passed) = self.resources.get(resource) {
            objects.retain(|object| {
                let place = object.place();
                place > passed.upto || passed.failed.contains(&place)
            });
        }
        objects
    }

    /// These objects, which are next, were dealt with, but for those that failed.
    pub fn passed(&mut self, resource: &str, objects: &[Object], failed: &[Failed]) {
        let passed = self.resources.entry(resource.to_owned()).or_default();
        for object in objects {
            let place = object.place();
            passed.failed.remove(&place);
            if place > passed.upto {
                passed.upto = place;
            }
        }
        let places = failed.iter().map(|f| String::from_utf8_lossy(&f.key).into_owned());
        passed.failed.extend(places);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> Object {
        Object { namespace: Some("a".to_owned()), name: name.to_owned(), ..Object::default() }
    }

    #[test]
    fn what_was_passed_is_left_out_and_what_failed_is_not() {
        let about = About {
            server: "https://h".to_owned(),
            config: None,
            resources: vec!["secrets".to_owned()],
            namespaces: Vec::new(),
        };
        let mut progress = Progress::new(about, "2026-01-01T00:00:00Z".to_owned());
        let all = ["a", "b", "c", "d"].map(object);
        let failed = Failed {
            key: b"a/a".to_vec(),
            resource: "secrets".to_owned(),
            reason: "no".to_owned(),
        };
        progress.passed("secrets", &all[..2], &[failed]);
        let mut progress = Progress::read(&progress.write().unwrap()).unwrap();
        let names = |progress: &Progress| {
            let left = progress.left("secrets", all.to_vec());
            left.into_iter().map(|o| o.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&progress), ["a", "c", "d"]);
        assert_eq!(progress.left("configmaps", all.to_vec()).len(), 4);
        assert!(progress.has_failures());
        progress.passed("secrets", &[object("a"), object("c")], &[]);
        assert_eq!(names(&progress), ["d"]);
        assert!(!progress.has_failures());
        assert!(Progress::read(b"{}").is_err());
    }
}

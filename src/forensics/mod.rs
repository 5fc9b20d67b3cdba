//! What a source still holds beside its live state: history, and plaintext left behind.
//!
//! | file | what it knows |
//! | --- | --- |
//! | [`carve`] | finding records in raw bytes, by their structure |
//! | [`changes`] | which data keys differ between revisions |
//! | [`keys`] | which keys are needed, and which may leave the configuration |
//! | [`residue`] | where plaintext lies, place by place, and what removes it |

pub mod carve;
pub mod changes;
pub mod keys;
pub mod residue;

use crate::config::EncryptionConfig;
use crate::resource::{Location, Scope, Selector};
use crate::source::Query;

/// Which keys are looked for. No `Debug`: a configuration holds keys.
#[derive(Clone)]
pub struct Targets {
    scope: Scope,
    selectors: Vec<Selector>,
    namespaces: Vec<String>,
    query: Query,
    /// Only resources that it writes encrypted.
    encrypted_by: Option<EncryptionConfig>,
}

impl Targets {
    /// Objects of `selectors` below `scope`; of all namespaces when none is named.
    #[must_use]
    pub fn new(scope: Scope, selectors: Vec<Selector>, namespaces: Vec<String>) -> Self {
        let query = Query { ranges: scope.ranges(&selectors), revision: None, ordered: false };
        Self { scope, selectors, namespaces, query, encrypted_by: None }
    }

    /// Leaves out resources that `config` writes unencrypted: their plaintext is no leak.
    #[must_use]
    pub fn encrypted_by(mut self, config: EncryptionConfig) -> Self {
        self.encrypted_by = Some(config);
        self
    }

    /// What to ask a source for. It may bring more than is wanted.
    #[must_use]
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Where keys begin.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether objects of a group-qualified resource are looked for.
    #[must_use]
    pub fn wants_resource(&self, resource: &str) -> bool {
        self.selectors.iter().any(|s| s.matches(resource))
            && self
                .encrypted_by
                .as_ref()
                .is_none_or(|config| !config.serving(resource).writes_plaintext())
    }

    /// Where a key belongs, if it is one of those looked for. What the API server never encrypts
    /// is not.
    #[must_use]
    pub fn locate<'k>(&self, key: &'k [u8]) -> Option<Location<'k>> {
        if !self.query.wants(key) {
            return None;
        }
        let location = self.scope.locate(key);
        let namespaced = || {
            self.namespaces.is_empty()
                || location
                    .namespace
                    .as_deref()
                    .is_some_and(|ns| self.namespaces.iter().any(|n| n == ns))
        };
        (!location.internal && self.wants_resource(&location.resource) && namespaced())
            .then_some(location)
    }

    /// Byte strings of which every wanted key begins with one: few, so that each can be searched
    /// for.
    fn needles(&self) -> Vec<Vec<u8>> {
        const MANY: usize = 4;
        let starts: Vec<_> = self.query.ranges.iter().map(|r| r.start.clone()).collect();
        if starts.len() <= MANY {
            return starts;
        }
        let mut needles: Vec<Vec<u8>> = Vec::new();
        for start in starts {
            // The first path segment is the API server's prefix.
            let base = memchr::memchr(b'/', &start[1.min(start.len())..]).map_or(1, |i| i + 2);
            match needles.iter_mut().find(|n| n.len() >= base && n[..base] == start[..base]) {
                Some(needle) => {
                    let same = needle.iter().zip(&start).take_while(|(a, b)| a == b).count();
                    needle.truncate(same);
                }
                None => needles.push(start),
            }
        }
        needles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_resources_are_searched_for_by_what_they_share() {
        let targets = |words: &[&str]| {
            let selectors = words.iter().map(|w| Selector::parse(w).unwrap()).collect();
            Targets::new(Scope::new("/registry/"), selectors, vec![])
        };
        assert_eq!(targets(&["secrets"]).needles(), [b"/registry/secrets/"]);
        assert_eq!(targets(&["*.*"]).needles(), [b"/registry/"]);
        let many = targets(&["secrets", "configmaps", "pods", "events", "deployments.apps"]);
        assert_eq!(many.needles(), [b"/registry/"]);
        assert!(many.locate(b"/registry/pods/a/b").is_some());
        assert!(many.locate(b"/registry/services/specs/a/b").is_none());
        assert!(targets(&["*.*"]).locate(b"/registry/ranges/serviceips").is_none());
    }
}

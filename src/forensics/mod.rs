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
use crate::envelope::{ENCRYPTED_PREFIX, Envelope};
use crate::range::KeyRange;
use crate::resource::{Location, Scope, Selection, Selector};
use crate::source::Query;

/// Which keys are looked for, and which of them are listed one by one. What was asked for decides
/// about the list alone: a verdict is about everything. No `Debug`: a configuration holds keys.
#[derive(Clone)]
pub struct Targets {
    scope: Scope,
    /// Asked for by name.
    named: Vec<Selector>,
    /// Asked for by name; empty is all.
    namespaces: Vec<String>,
    /// Resources of the configuration, of which only those that it writes encrypted.
    configured: Option<(Vec<Selector>, EncryptionConfig)>,
    query: Query,
    /// Encrypted values are looked for, too.
    encrypted: bool,
    /// Deletions are looked for, too.
    deletions: bool,
}

/// What a record says of its key at the time of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The revision that created the key.
    pub create_revision: i64,
    /// Writes since then, this one included.
    pub version: i64,
}

impl Targets {
    /// Objects of `named` resources below `scope`, in every namespace; those in `namespaces` are
    /// listed, which is all of them when none is named.
    #[must_use]
    pub fn new(scope: Scope, named: Vec<Selector>, namespaces: Vec<String>) -> Self {
        let query = Query { ranges: scope.ranges(&named), revision: None, ordered: false };
        Self {
            scope,
            named,
            namespaces,
            configured: None,
            query,
            encrypted: false,
            deletions: false,
        }
    }

    /// Looks for encrypted values as well: they are no residue, but what was lost can be read
    /// from them.
    #[must_use]
    pub fn with_encrypted(mut self) -> Self {
        self.encrypted = true;
        self
    }

    /// Looks for everything that a history is made of, encrypted or not, deletions included, and
    /// for nothing outside `ranges`.
    #[must_use]
    pub fn of_history(mut self, ranges: Vec<KeyRange>) -> Self {
        self.query.ranges = ranges;
        (self.encrypted, self.deletions) = (true, true);
        self
    }

    /// Whether deletions are looked for.
    #[must_use]
    pub fn wants_deletions(&self) -> bool {
        self.deletions
    }

    /// Whether a whole stored value is one of those looked for, object or not: `Some(true)` when
    /// encrypted.
    #[must_use]
    pub fn takes(&self, value: &[u8]) -> Option<bool> {
        let encrypted = !Envelope::of(value).is_plaintext();
        (self.encrypted || !encrypted).then_some(encrypted)
    }

    /// Whether a value that begins so is one of those looked for: `Some(true)` when encrypted.
    #[must_use]
    pub fn sees(&self, value: &[u8]) -> Option<bool> {
        if carve::is_plain_object(value) {
            return Some(false);
        }
        (self.encrypted && value.starts_with(ENCRYPTED_PREFIX)).then_some(true)
    }

    /// Looks for those of `resources` too that `config` writes encrypted: plaintext of the others
    /// is no leak. They are listed if no resource was named.
    #[must_use]
    pub fn configured(mut self, resources: Vec<Selector>, config: EncryptionConfig) -> Self {
        let all: Vec<_> = self.named.iter().chain(&resources).cloned().collect();
        self.query.ranges = self.scope.ranges(&all);
        self.configured = Some((resources, config));
        self
    }

    /// What to ask a source for. It may bring more than is wanted.
    #[must_use]
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// The same, but nothing outside the namespaces that were asked for, for a user who may not
    /// read more; `None` if none were.
    #[must_use]
    pub fn in_namespaces(&self) -> Option<Self> {
        if self.namespaces.is_empty() {
            return None;
        }
        let configured = self.configured.iter().flat_map(|(resources, _)| resources);
        let resources = self.named.iter().chain(configured).cloned().collect();
        let (scope, namespaces) = (self.scope.clone(), self.namespaces.clone());
        let mut narrowed = self.clone();
        narrowed.query.ranges = Selection { scope, resources, namespaces }.ranges();
        Some(narrowed)
    }

    /// The namespaces that were asked for; empty is all.
    #[must_use]
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// Where keys begin.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether objects of a group-qualified resource are looked for.
    #[must_use]
    pub fn wants_resource(&self, resource: &str) -> bool {
        let encrypted = || {
            self.configured.as_ref().is_some_and(|(resources, config)| {
                resources.iter().any(|s| s.matches(resource))
                    && !config.serving(resource).writes_plaintext()
            })
        };
        self.is_named(resource) || encrypted()
    }

    fn is_named(&self, resource: &str) -> bool {
        self.named.iter().any(|s| s.matches(resource))
    }

    /// Where a key belongs, if it is one of those looked for. What the API server never encrypts
    /// is not.
    #[must_use]
    pub fn locate<'k>(&self, key: &'k [u8]) -> Option<Location<'k>> {
        if !self.query.wants(key) {
            return None;
        }
        let location = self.scope.locate(key);
        (!location.internal && self.wants_resource(&location.resource)).then_some(location)
    }

    /// Whether a key that is looked for was asked for, and so is listed.
    #[must_use]
    pub fn lists(&self, key: &[u8]) -> bool {
        let location = self.scope.locate(key);
        let namespaced = self.namespaces.is_empty()
            || location
                .namespace
                .as_deref()
                .is_some_and(|ns| self.namespaces.iter().any(|n| n == ns));
        namespaced && (self.named.is_empty() || self.is_named(&location.resource))
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

    /// A question about one namespace must not turn what lies in another one into "clean".
    #[test]
    fn what_was_asked_for_narrows_the_list_alone() {
        let config = crate::config::load(
            b"apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
              - resources: [secrets]\n  providers: [{secretbox: {keys: [{name: k, secret: \
              AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}}]\n\
              - resources: [events]\n  providers: [{identity: {}}]\n",
            "c.yaml",
        )
        .unwrap()
        .remove(0)
        .config;
        let configured = ["secrets", "events"].map(|s| Selector::parse(s).unwrap()).to_vec();
        let named = vec![Selector::parse("configmaps").unwrap()];
        let scope = || Scope::new("/registry/");
        let targets = Targets::new(scope(), named, vec!["a".to_owned()])
            .configured(configured.clone(), config.clone());
        let seen = |targets: &Targets, key: &str| {
            targets.locate(key.as_bytes()).map(|_| targets.lists(key.as_bytes()))
        };
        assert_eq!(seen(&targets, "/registry/configmaps/a/x"), Some(true));
        assert_eq!(seen(&targets, "/registry/configmaps/b/x"), Some(false));
        assert_eq!(seen(&targets, "/registry/secrets/a/x"), Some(false));
        assert_eq!(seen(&targets, "/registry/events/a/x"), None);
        assert_eq!(seen(&targets, "/registry/pods/a/x"), None);
        let all = Targets::new(scope(), vec![], vec![]).configured(configured, config);
        assert_eq!(seen(&all, "/registry/secrets/a/x"), Some(true));
        assert_eq!(seen(&all, "/registry/events/a/x"), None);
    }
}

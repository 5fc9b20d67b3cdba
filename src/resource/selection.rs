//! What somebody wants to see.

use super::location::Location;
use super::scope::Scope;
use super::selector::Selector;
use crate::range::{KeyRange, merge_ranges};

/// Resources and namespaces below a prefix.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Where keys begin.
    pub scope: Scope,
    /// Resources; empty is none.
    pub resources: Vec<Selector>,
    /// Namespaces; empty is all, and objects without one.
    pub namespaces: Vec<String>,
}

impl Selection {
    /// What a verdict is about: what was asked for and everything that the configuration serves,
    /// in every namespace.
    #[must_use]
    pub fn judged(&self, configured: Option<Vec<Selector>>) -> Self {
        let mut resources = self.resources.clone();
        resources.extend(configured.unwrap_or_default());
        Self { resources, namespaces: Vec::new(), scope: self.scope.clone() }
    }

    /// Key ranges that can hold what is selected, ascending and disjoint. They may hold more.
    #[must_use]
    pub fn ranges(&self) -> Vec<KeyRange> {
        self.namespaced().unwrap_or_else(|| self.scope.ranges(&self.resources))
    }

    /// The ranges of the namespaces alone, which may be all that a user has a right to: an
    /// object's namespace follows what its resource's keys begin with.
    fn namespaced(&self) -> Option<Vec<KeyRange>> {
        if self.namespaces.is_empty() || self.namespaces.iter().any(String::is_empty) {
            return None;
        }
        let mut ranges = Vec::new();
        for base in self.scope.bases() {
            for selector in &self.resources {
                let Selector::Exact(_) = selector else { return None };
                for range in selector.ranges(base) {
                    let prefix = range.as_prefix().filter(|prefix| prefix.ends_with(b"/"))?;
                    ranges.extend(self.namespaces.iter().map(|namespace| {
                        KeyRange::prefix(&[prefix, namespace.as_bytes(), b"/"].concat())
                    }));
                }
            }
        }
        Some(merge_ranges(ranges))
    }

    /// The resources, for a sentence.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<_> = self.resources.iter().map(ToString::to_string).collect();
        names.join(", ")
    }

    /// What is looked for, for a sentence.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = format!("{} under {}", self.names(), self.scope.base());
        if !self.namespaces.is_empty() {
            words += " in namespace ";
            words += &self.namespaces.join(", ");
        }
        words
    }

    /// Whether a key is selected, and where it belongs.
    #[must_use]
    pub fn locate<'k>(&self, key: &'k [u8]) -> Option<Location<'k>> {
        let location = self.scope.locate(key);
        let namespaced = self.namespaces.is_empty()
            || location
                .namespace
                .as_deref()
                .is_some_and(|ns| self.namespaces.iter().any(|n| n == ns));
        (namespaced && self.resources.iter().any(|r| r.matches(&location.resource)))
            .then_some(location)
    }

    /// As [`Selection::locate`], but for what is no API object; and a namespace belongs to what
    /// is in it.
    #[must_use]
    pub fn locate_object<'k>(&self, key: &'k [u8]) -> Option<Location<'k>> {
        let location = self.scope.locate(key);
        let namespace = match location.resource.as_ref() {
            "namespaces" => Some(location.name.as_ref()),
            _ => location.namespace.as_deref(),
        };
        let wanted = !location.internal
            && self.resources.iter().any(|r| r.matches(&location.resource))
            && (self.namespaces.is_empty()
                || namespace.is_some_and(|ns| self.namespaces.iter().any(|n| n == ns)));
        wanted.then_some(location)
    }
}

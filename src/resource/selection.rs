//! What somebody wants to see.

use super::location::Location;
use super::scope::Scope;
use super::selector::Selector;

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

//! Whether what was asked for by name is there.

use super::location::Location;
use super::selection::Selection;
use super::selector::Selector;

/// The names of a selection, and which of them an entry was seen of.
#[derive(Clone, Debug)]
pub struct Sought {
    resources: Vec<(Selector, bool)>,
    namespaces: Vec<(String, bool)>,
    any: bool,
}

impl Sought {
    /// Nothing was seen yet. Resources of a selection that nobody `named` may be missing.
    #[must_use]
    pub fn new(selection: &Selection, named: bool) -> Self {
        let resources = selection.resources.iter().filter(|_| named);
        Self {
            resources: resources.map(|r| (r.clone(), false)).collect(),
            namespaces: selection.namespaces.iter().map(|n| (n.clone(), false)).collect(),
            any: false,
        }
    }

    /// A selected entry lies there.
    pub fn saw(&mut self, location: &Location<'_>) {
        self.saw_resource(&location.resource);
        let namespace = location.namespace.as_deref();
        for (name, seen) in &mut self.namespaces {
            *seen |= namespace == Some(name);
        }
    }

    /// A selected entry is of that resource, and no namespace was asked for.
    pub fn saw_resource(&mut self, resource: &str) {
        self.any = true;
        for (selector, seen) in &mut self.resources {
            *seen |= selector.matches(resource);
        }
    }

    /// Whether any selected entry was seen.
    #[must_use]
    pub fn any(&self) -> bool {
        self.any
    }

    /// Whether everything that was asked for by name was seen.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.any && self.resources().next().is_none() && self.namespaces().next().is_none()
    }

    /// Resources that were asked for by name, and not seen.
    pub fn resources(&self) -> impl Iterator<Item = &Selector> {
        self.resources.iter().filter(|(_, seen)| !seen).map(|(selector, _)| selector)
    }

    /// Namespaces that were asked for, and not seen.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.iter().filter(|(_, seen)| !seen).map(|(name, _)| name.as_str())
    }
}

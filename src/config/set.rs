//! Several configurations: the first says what is current, the keys of all are tried.

use super::loaded::Loaded;
use crate::resource::Selector;

/// One or more configurations. The first decides what is current and what is written.
#[derive(Clone)]
pub struct ConfigSet {
    files: Vec<Loaded>,
}

impl ConfigSet {
    /// Puts configurations in order; `None` without any.
    #[must_use]
    pub fn new(files: Vec<Loaded>) -> Option<Self> {
        (!files.is_empty()).then_some(Self { files })
    }

    /// The configurations, the current one first.
    #[must_use]
    pub fn files(&self) -> &[Loaded] {
        &self.files
    }

    /// The one that says what is current.
    #[must_use]
    pub fn current(&self) -> &Loaded {
        // `new` is the only way to make a set, and it refuses an empty one.
        &self.files[0]
    }

    /// What the configurations cover, as selections of keys, once each.
    #[must_use]
    pub fn resources(&self) -> Vec<Selector> {
        let mut all = Vec::new();
        for gr in self.files.iter().flat_map(|f| f.config.group_resources()) {
            let selector = gr.selector();
            if !all.contains(&selector) {
                all.push(selector);
            }
        }
        all
    }
}

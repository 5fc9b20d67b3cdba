//! Stands in for `config` until it lands.

/// Several configuration files.
#[derive(Debug)]
pub struct ConfigSet(Vec<crate::resource::Selector>);

impl ConfigSet {
    /// The resources that the configurations name.
    #[must_use]
    pub fn resources(&self) -> Vec<crate::resource::Selector> {
        self.0.clone()
    }
}

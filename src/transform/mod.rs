//! Decrypting and encrypting stored values: the only room with cipher calls.
//!
//! One file for each provider; order, prefix matching, fall-through and staleness are the API
//! server's (kubernetes/apiserver `pkg/storage/value/transformer.go`), with one deliberate
//! difference: where CBC padding fits by chance under a wrong key, the result counts only if it
//! is a Kubernetes value, else the next key is tried. What no provider reads may still be read by
//! a secret under another name (`spare`).
//!
//! Nothing can tell that a secretbox or AES-CBC value (or a KMS v1 value with a CBC body) was
//! copied from another etcd key: those modes do not authenticate it.

pub mod aescbc;
pub mod aesgcm;
pub mod bootstrap;
mod classify;
mod engine;
mod error;
pub mod identity;
pub mod kms_v1;
pub mod kms_v2;
mod list;
pub mod secretbox;
mod spare;
mod through;
mod value;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use error::{Attempt, AttemptError, CipherError, ReadError, WriteError};
pub use list::{KeyUse, Opened, ResourceTransformers, Status, Verdict};

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::ConfigSet;
use crate::kms::Unwrap;
use engine::Prepared;
use list::List;
use spare::Spares;

/// The transformers of one or more configurations, keys set up once.
pub struct Transformers {
    set: ConfigSet,
    locations: Vec<Arc<str>>,
    /// By configuration, entry and element.
    prepared: Vec<Vec<Vec<Arc<Prepared>>>>,
    kms: Arc<dyn Unwrap>,
    spares: Arc<Spares>,
    try_keys: bool,
    resources: RwLock<HashMap<String, Arc<ResourceTransformers>>>,
    /// What a proxy puts before the API server's keys.
    proxy_namespace: Arc<[u8]>,
}

impl Transformers {
    /// Sets up every key of every configuration. Plugins are asked only when a value needs them.
    ///
    /// # Errors
    /// When a key's length does not fit its provider; a validated configuration has none such.
    pub fn new(set: &ConfigSet, kms: Arc<dyn Unwrap>) -> Result<Self, CipherError> {
        let prepare = |p: &crate::config::ProviderConfiguration| Prepared::new(p).map(Arc::new);
        let prepared = set
            .files()
            .iter()
            .map(|file| {
                file.config
                    .entries
                    .iter()
                    .map(|entry| entry.providers.iter().map(prepare).collect())
                    .collect()
            })
            .collect::<Result<_, _>>()?;
        let prepared: Vec<Vec<Vec<Arc<Prepared>>>> = prepared;
        Ok(Self {
            spares: Arc::new(Spares::new(set, &prepared)),
            try_keys: false,
            set: set.clone(),
            locations: set.files().iter().map(|f| Arc::from(f.location.as_str())).collect(),
            prepared,
            kms,
            resources: RwLock::default(),
            proxy_namespace: Arc::default(),
        })
    }

    /// For values that were written through a proxy that puts `namespace` before each key: the
    /// API server authenticated its own keys, without it.
    #[must_use]
    pub fn behind(mut self, namespace: &[u8]) -> Self {
        self.proxy_namespace = Arc::from(namespace);
        self.resources = RwLock::default();
        self
    }

    /// From now on a value that no provider reads is read with whichever configured secret fits,
    /// whatever its name. Otherwise the reason why it is unreadable only says which one does.
    #[must_use]
    pub fn try_keys(mut self, yes: bool) -> Self {
        self.try_keys = yes;
        self.resources = RwLock::default();
        self
    }

    /// The transformers that serve a group-qualified resource (`secrets`, `deployments.apps`).
    #[must_use]
    pub fn for_resource(&self, resource: &str) -> Arc<ResourceTransformers> {
        {
            let held = self.resources.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = held.get(resource) {
                return Arc::clone(found);
            }
        }
        let made = Arc::new(self.make(resource));
        let mut held = self.resources.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(held.entry(resource.to_owned()).or_insert(made))
    }

    /// Every provider of every entry, for a value that came without its etcd key, so that nobody
    /// knows its resource. Good for reading; what is current cannot be told from it.
    #[must_use]
    pub fn for_any_resource(&self) -> ResourceTransformers {
        let list = |(config, entries): (usize, &Vec<Vec<Arc<Prepared>>>)| List {
            config,
            location: Arc::clone(&self.locations[config]),
            implied: false,
            providers: entries.iter().flatten().map(Arc::clone).collect(),
        };
        ResourceTransformers {
            resource: "any resource".to_owned(),
            lists: self.prepared.iter().enumerate().map(list).collect(),
            kms: Arc::clone(&self.kms),
            write_key_id: RwLock::default(),
            proxy_namespace: Arc::clone(&self.proxy_namespace),
            spares: Arc::clone(&self.spares),
            try_keys: self.try_keys,
        }
    }

    fn make(&self, resource: &str) -> ResourceTransformers {
        let list = |(config, file): (usize, &crate::config::Loaded)| {
            let serving = file.config.serving(resource);
            let prepared = |s: &crate::config::Served<'_>| {
                Some(Arc::clone(self.prepared.get(config)?.get(s.entry)?.get(s.element)?))
            };
            List {
                config,
                location: Arc::clone(&self.locations[config]),
                implied: serving.is_implied_identity(),
                providers: serving.providers.iter().filter_map(prepared).collect(),
            }
        };
        ResourceTransformers {
            resource: resource.to_owned(),
            lists: self.set.files().iter().enumerate().map(list).collect(),
            kms: Arc::clone(&self.kms),
            write_key_id: RwLock::default(),
            proxy_namespace: Arc::clone(&self.proxy_namespace),
            spares: Arc::clone(&self.spares),
            try_keys: self.try_keys,
        }
    }

    /// The configurations.
    #[must_use]
    pub fn configs(&self) -> &ConfigSet {
        &self.set
    }
}

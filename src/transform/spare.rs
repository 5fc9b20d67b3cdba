//! A right key under a wrong name: what no provider reads is tried with every secret that is
//! configured, whatever its name.
//!
//! The API server never does this. Whoever recovers a cluster by hand has the key more often than
//! its name, and is told which one it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::engine::{Engine, Prepared};
use super::{aescbc, aesgcm, secretbox};
use crate::config::{self, ConfigSet};
use crate::envelope::{Envelope, Provider};
use crate::kms::Unwrap;
use crate::secret::{KeyMaterial, Plaintext};
use crate::storage;

/// Values under one stored name that all secrets may fail on, before the others are spared the
/// trouble: a lost key has lost them all.
const FAILURES: u32 = 3;
/// Secrets that are tried; configurations have a handful.
const SECRETS: usize = 256;
/// A stored name may hold colons itself, so each of the first few may end it.
const COLONS: usize = 4;
/// No name that a value begins with is longer than this.
const NAME: usize = 512;

/// Every configured secret and plugin.
#[derive(Default)]
pub(super) struct Spares {
    secrets: Vec<Secret>,
    plugins: Vec<(usize, Arc<Prepared>)>,
    /// By provider and stored name, how often nothing fitted.
    failed: Mutex<HashMap<(Provider, Box<[u8]>), u32>>,
}

struct Secret {
    config: usize,
    provider: Provider,
    name: Arc<str>,
    bytes: KeyMaterial,
}

/// A value that was read under a name that its key does not have.
pub(super) struct Found {
    pub(super) config: usize,
    /// The name that the key has in the configuration.
    pub(super) name: Arc<str>,
    pub(super) plaintext: Plaintext,
    /// A sentence.
    pub(super) words: String,
}

impl Spares {
    pub(super) fn new(set: &ConfigSet, prepared: &[Vec<Vec<Arc<Prepared>>>]) -> Self {
        let mut secrets: Vec<Secret> = Vec::new();
        for (config, file) in set.files().iter().enumerate() {
            for provider in file.config.entries.iter().flat_map(|e| &e.providers) {
                let keys = match provider {
                    config::ProviderConfiguration::AesCbc(keys)
                    | config::ProviderConfiguration::AesGcm(keys)
                    | config::ProviderConfiguration::Secretbox(keys) => keys.as_slice(),
                    config::ProviderConfiguration::Identity
                    | config::ProviderConfiguration::Kms(_) => &[],
                };
                for key in keys {
                    let known = secrets.iter().any(|s| s.bytes.same(&key.secret));
                    if !known && secrets.len() < SECRETS {
                        secrets.push(Secret {
                            config,
                            provider: provider.provider(),
                            name: Arc::from(&*key.name),
                            bytes: key.secret.clone(),
                        });
                    }
                }
            }
        }
        let plugins = prepared.iter().enumerate().flat_map(|(config, entries)| {
            let all = entries.iter().flatten().filter(|p| p.provider == Provider::Kms);
            all.map(move |p| (config, Arc::clone(p)))
        });
        Self { secrets, plugins: plugins.collect(), failed: Mutex::default() }
    }

    /// Reads a value with whatever fits.
    pub(super) fn read(
        &self,
        authenticated: &[u8],
        envelope: &Envelope<'_>,
        kms: &dyn Unwrap,
    ) -> Option<Found> {
        let body = envelope.body;
        let ends: Vec<usize> =
            memchr::memchr_iter(b':', &body[..NAME.min(body.len())]).take(COLONS).collect();
        let id = (envelope.provider, Box::from(&body[..*ends.first()?]));
        let failed = || self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed().get(&id).is_some_and(|n| *n >= FAILURES) {
            return None;
        }
        let found = ends.iter().find_map(|end| {
            let (name, payload) = (&body[..*end], &body[*end + 1..]);
            match envelope.provider {
                Provider::Kms => self.plugin(envelope, name, authenticated, payload, kms),
                _ => self.secret(envelope.provider, name, authenticated, payload),
            }
        });
        let mut failed = failed();
        match &found {
            Some(_) => drop(failed.remove(&id)),
            // Damaged values name whatever they like.
            None if failed.len() < SECRETS => *failed.entry(id).or_default() += 1,
            None => {}
        }
        found
    }

    fn secret(
        &self,
        provider: Provider,
        stored: &[u8],
        authenticated: &[u8],
        payload: &[u8],
    ) -> Option<Found> {
        self.secrets.iter().find_map(|secret| {
            let bytes = &secret.bytes;
            let opened = match provider {
                Provider::Secretbox => secretbox::Cipher::new(bytes).and_then(|c| c.open(payload)),
                Provider::AesCbc => aescbc::Cipher::new(bytes).and_then(|c| c.open(payload)),
                Provider::AesGcm => {
                    aesgcm::Cipher::new(bytes).and_then(|c| c.open(authenticated, payload))
                }
                Provider::Identity | Provider::Kms | Provider::Unknown => return None,
            };
            // Padding fits by chance; an object does not.
            let plaintext = opened.ok().filter(|p| storage::is_object(p.expose()))?;
            let (name, of) = (&secret.name, secret.provider);
            let same = name.as_bytes() == stored;
            let words = if of == provider && !same {
                format!("the secret of `{name}` reads it")
            } else {
                format!("the secret of {of} key `{name}` reads it")
            };
            Some(Found { config: secret.config, name: Arc::clone(name), plaintext, words })
        })
    }

    fn plugin(
        &self,
        envelope: &Envelope<'_>,
        stored: &[u8],
        authenticated: &[u8],
        payload: &[u8],
        kms: &dyn Unwrap,
    ) -> Option<Found> {
        self.plugins.iter().find_map(|(config, prepared)| {
            let name = &prepared.keys.first()?.name;
            let static_key = !matches!(prepared.engine, Engine::KmsV1(_) | Engine::KmsV2(_));
            // Under its own name it was asked before.
            if static_key || prepared.version != envelope.version || name.as_bytes() == stored {
                return None;
            }
            let opened = prepared.open(0, authenticated, payload, kms).ok()?;
            storage::is_object(opened.plaintext.expose()).then(|| Found {
                config: *config,
                name: Arc::clone(name),
                plaintext: opened.plaintext,
                words: format!("the plugin of `{name}` reads it"),
            })
        })
    }
}

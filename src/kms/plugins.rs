//! Plugins of any number of configurations behind a synchronous face.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::cache::{DataKey, DataKeys};
use super::client::{self, Client};
use super::probe::Probe;
use super::proto::v2;
use super::{KmsError, Sealed, Unwrap, WrappedKey};
use crate::config::Kms;
use crate::envelope::Version;
use crate::secret::KeyMaterial;

/// How long a plugin that cannot be reached is left alone. Every entry in between fails at once.
const LEFT_ALONE: Duration = Duration::from_secs(30);
/// Calls in a row without an answer after which a plugin counts as out of reach.
const MAX_SILENT: u32 = 3;
/// How often a v2 plugin is asked for its key ID, as by the API server.
const STATUS_EVERY: Duration = Duration::from_mins(1);

/// Connects to plugins when they are first needed, and remembers their data keys.
#[derive(Default)]
pub struct Plugins {
    runtime: OnceLock<Option<Runtime>>,
    known: Mutex<HashMap<Id, Arc<Plugin>>>,
    calls: AtomicU64,
}

/// Two providers that talk to one socket in one version talk to one plugin.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Id {
    url: String,
    version: Version,
}

#[derive(Default)]
struct Plugin {
    link: Mutex<Link>,
    status: Mutex<Option<(Arc<str>, Instant)>>,
    data_keys: DataKeys,
    sealed: Mutex<Option<Arc<Sealed>>>,
}

#[derive(Default)]
enum Link {
    #[default]
    New,
    Up {
        client: Arc<Client>,
        silent: u32,
    },
    Down {
        error: KmsError,
        until: Instant,
    },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plugins {
    /// Connects to nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls to plugins that wrapped or unwrapped a key.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Asks a plugin for everything that it can be asked for, once, over a connection of its own:
    /// health, version, key ID, and a round trip of random bytes.
    #[must_use]
    pub fn probe(&self, settings: &Kms) -> Probe {
        let own = settings.clone();
        self.wait(settings, async move { Ok(Probe::of(&own).await) })
            .unwrap_or_else(|error| Probe { error: Some(error), ..Probe::default() })
    }

    fn plugin(&self, settings: &Kms) -> Arc<Plugin> {
        let id = Id { url: settings.endpoint.url.clone(), version: settings.api_version };
        Arc::clone(lock(&self.known).entry(id).or_default())
    }

    /// Runs `future` on the plugins' own runtime and waits for it, from any thread, also one of
    /// another runtime.
    fn wait<T: Send + 'static>(
        &self,
        settings: &Kms,
        future: impl Future<Output = Result<T, KmsError>> + Send + 'static,
    ) -> Result<T, KmsError> {
        let runtime = self.runtime.get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("kms")
                .enable_io()
                .enable_time()
                .build()
                .ok()
        });
        let failed = || KmsError::Unreachable {
            endpoint: settings.endpoint.url.clone(),
            cause: "the system gives no threads".to_owned(),
        };
        let (sender, receiver) = mpsc::sync_channel(1);
        runtime.as_ref().ok_or_else(failed)?.spawn(async move {
            // The receiver waits below.
            let _ = sender.send(future.await);
        });
        receiver.recv().map_err(|_| failed())?
    }

    /// The connected plugin. One thread connects, the others wait for the outcome.
    fn client(&self, plugin: &Plugin, settings: &Kms) -> Result<Arc<Client>, KmsError> {
        let mut link = lock(&plugin.link);
        match &*link {
            Link::Up { client, .. } => return Ok(Arc::clone(client)),
            Link::Down { error, until } if Instant::now() < *until => return Err(error.clone()),
            Link::New | Link::Down { .. } => {}
        }
        let own = settings.clone();
        match self.wait(settings, async move { Client::connect(&own).await }) {
            Ok((client, key_id)) => {
                let client = Arc::new(client);
                *link = Link::Up { client: Arc::clone(&client), silent: 0 };
                *lock(&plugin.status) = key_id.map(|id| (id.into(), Instant::now()));
                Ok(client)
            }
            Err(error) => {
                // A plugin that refuses its first check refuses every key.
                let error = match error {
                    KmsError::Refused { endpoint, cause, .. } => {
                        KmsError::Unusable { endpoint, cause }
                    }
                    error => error,
                };
                let until = Instant::now() + LEFT_ALONE;
                *link = Link::Down { error: error.clone(), until };
                Err(error)
            }
        }
    }

    /// One call; keeps count of those that are not answered.
    fn call<T, F>(
        &self,
        plugin: &Plugin,
        settings: &Kms,
        call: impl FnOnce(Arc<Client>) -> F,
    ) -> Result<T, KmsError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, KmsError>> + Send + 'static,
    {
        let client = self.client(plugin, settings)?;
        let answer = self.wait(settings, call(client));
        let mut link = lock(&plugin.link);
        if let Link::Up { silent, .. } = &mut *link {
            match &answer {
                Err(error @ KmsError::Unreachable { .. }) => {
                    *silent += 1;
                    if *silent >= MAX_SILENT {
                        let until = Instant::now() + LEFT_ALONE;
                        *link = Link::Down { error: error.clone(), until };
                    }
                }
                _ => *silent = 0,
            }
        }
        answer
    }

    /// The data key of `id`: remembered, or from one call that all who ask at once wait for.
    fn data_key<F>(
        &self,
        plugin: &Plugin,
        settings: &Kms,
        id: DataKey,
        call: impl FnOnce(Arc<Client>) -> F,
    ) -> Result<KeyMaterial, KmsError>
    where
        F: Future<Output = Result<KeyMaterial, KmsError>> + Send + 'static,
    {
        plugin.data_keys.get(id, || {
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.call(plugin, settings, call)
        })
    }
}

impl Unwrap for Plugins {
    fn unwrap_v1(&self, settings: &Kms, wrapped: &[u8]) -> Result<KeyMaterial, KmsError> {
        let plugin = self.plugin(settings);
        let id = DataKey::v1(wrapped);
        let cipher = wrapped.to_vec();
        self.data_key(
            &plugin,
            settings,
            id,
            |client| async move { client.decrypt_v1(cipher).await },
        )
    }

    fn unwrap_v2(&self, settings: &Kms, wrapped: WrappedKey<'_>) -> Result<KeyMaterial, KmsError> {
        let plugin = self.plugin(settings);
        let annotations = wrapped.annotations.iter().map(|(n, v)| ((*n).to_owned(), v.to_vec()));
        let request = v2::DecryptRequest {
            ciphertext: wrapped.source.to_vec(),
            uid: client::uid(),
            key_id: wrapped.key_id.to_owned(),
            annotations: annotations.collect(),
        };
        let id = DataKey::v2(wrapped);
        self.data_key(
            &plugin,
            settings,
            id,
            |client| async move { client.decrypt_v2(request).await },
        )
    }

    fn key_id(&self, settings: &Kms) -> Result<Arc<str>, KmsError> {
        let plugin = self.plugin(settings);
        // Connecting asks for the status.
        self.client(&plugin, settings)?;
        if let Some((key_id, at)) = &*lock(&plugin.status)
            && at.elapsed() < STATUS_EVERY
        {
            return Ok(Arc::clone(key_id));
        }
        let key_id: Arc<str> =
            self.call(&plugin, settings, |client| async move { client.status().await })?.into();
        *lock(&plugin.status) = Some((Arc::clone(&key_id), Instant::now()));
        Ok(key_id)
    }

    fn wrap_v1(&self, settings: &Kms, data_key: &KeyMaterial) -> Result<Vec<u8>, KmsError> {
        let plugin = self.plugin(settings);
        let data_key = data_key.clone();
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.call(&plugin, settings, |client| async move { client.encrypt_v1(data_key).await })
    }

    fn seal_v2(&self, settings: &Kms) -> Result<Arc<Sealed>, KmsError> {
        let plugin = self.plugin(settings);
        let key_id = self.key_id(settings)?;
        // Held while the plugin is asked: the others want the same seed.
        let mut held = lock(&plugin.sealed);
        if let Some(sealed) = held.as_ref().filter(|s| *s.key_id == *key_id) {
            return Ok(Arc::clone(sealed));
        }
        let unusable =
            |cause: String| KmsError::Unusable { endpoint: settings.endpoint.url.clone(), cause };
        let seed = crate::secret::KeyMaterial::random().map_err(|e| unusable(e.to_string()))?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        let sealed =
            self.call(&plugin, settings, |client| async move { client.encrypt_v2(seed).await })?;
        if *sealed.key_id != *key_id {
            // The plugin may just have moved to another key.
            *lock(&plugin.status) = None;
            if *sealed.key_id != *self.key_id(settings)? {
                return Err(unusable("it encrypts with another key ID than Status names".into()));
            }
        }
        let sealed = Arc::new(sealed);
        *held = Some(Arc::clone(&sealed));
        Ok(sealed)
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        // Waiting for the runtime would panic inside another one.
        if let Some(Some(runtime)) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

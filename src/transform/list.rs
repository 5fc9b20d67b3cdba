//! The providers of one resource: reading, writing, and where a value's prefix puts it.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::engine::{Engine, Key, Opened as EngineOpened, Prepared};
use super::error::{Attempt, AttemptError, ReadError, WriteError};
use super::spare::Spares;
use super::{classify, identity};
use crate::config::Kms;
use crate::envelope::{Envelope, Provider, Version};
use crate::kms::{KmsError, Unwrap};
use crate::secret::Plaintext;

/// How long a KMS v2 plugin's key ID is taken for current.
const KEY_ID_EVERY: Duration = Duration::from_mins(1);

/// What an entry is relative to the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// What the API server would write now.
    Current,
    /// Readable, but the API server would rewrite it.
    Stale,
    /// No configured provider can read it, or what it reads is no object.
    Unreadable,
    /// Readable as far as anybody can tell, but whether the API server would rewrite it could not
    /// be decided.
    Unknown,
}

impl Status {
    /// The word in options and output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Stale => "stale",
            Self::Unreadable => "unreadable",
            Self::Unknown => "unknown",
        }
    }
}

/// What a value's prefix says, relative to the configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Relative to the first configuration.
    pub status: Status,
    /// Why it is not current, or not known to be.
    pub reason: Option<Cow<'a, str>>,
    /// Provider by the prefix.
    pub provider: Provider,
    /// Format version by the prefix.
    pub version: Option<Version>,
    /// Key or KMS plugin name: the configured one that matches, else up to the first colon.
    pub key_name: Option<Cow<'a, str>>,
    /// KMS v2 key ID, stored in clear.
    pub kms_key_id: Option<Cow<'a, str>>,
}

/// Which key of which configuration read a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyUse {
    /// Index of the configuration.
    pub config: usize,
    /// The provider.
    pub provider: Provider,
    /// Its format version; none for identity.
    pub version: Option<Version>,
    /// Key or KMS plugin name; none for identity.
    pub key: Option<Arc<str>>,
    /// KMS v2: the plugin's key.
    pub kms_key_id: Option<Arc<str>>,
}

impl std::fmt::Display for KeyUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        named(f, self.provider, self.key.as_deref())
    }
}

/// "aescbc key `a`", "kms provider `p`", "identity".
fn named(
    f: &mut impl std::fmt::Write,
    provider: Provider,
    key: Option<&str>,
) -> Result<(), std::fmt::Error> {
    match key {
        Some(key) if provider == Provider::Kms => write!(f, "kms provider `{key}`"),
        Some(key) => write!(f, "{provider} key `{key}`"),
        None => write!(f, "{provider}"),
    }
}

/// A value that was read.
pub struct Opened {
    /// Its plaintext.
    pub plaintext: Plaintext,
    /// Whether the API server would rewrite it, by the first configuration.
    pub stale: bool,
    /// That could not be decided.
    pub undecided: bool,
    /// Why it is stale, or not decided.
    pub reason: Option<String>,
    /// Which key read it.
    pub used: KeyUse,
}

impl Opened {
    /// What the entry is: it was read, so it is not unreadable.
    #[must_use]
    pub fn status(&self) -> Status {
        match (self.stale, self.undecided) {
            (true, _) => Status::Stale,
            (false, true) => Status::Unknown,
            (false, false) => Status::Current,
        }
    }
}

/// The provider list of one configuration for one resource.
pub(super) struct List {
    /// Index of the configuration.
    pub(super) config: usize,
    /// Where the configuration came from.
    pub(super) location: Arc<str>,
    /// Nothing in the configuration serves the resource: unencrypted, and encrypted values are
    /// refused.
    pub(super) implied: bool,
    /// The providers in order.
    pub(super) providers: Vec<Arc<Prepared>>,
}

impl List {
    /// Whether values stored unencrypted can be read, and at which position.
    pub(super) fn identity(&self) -> Option<usize> {
        if self.implied {
            return Some(0);
        }
        self.providers.iter().position(|p| matches!(p.engine, Engine::Identity))
    }
}

/// Reads and writes the values of one resource. From [`super::Transformers::for_resource`].
pub struct ResourceTransformers {
    pub(super) resource: String,
    /// One for each configuration; never empty.
    pub(super) lists: Vec<List>,
    pub(super) kms: Arc<dyn Unwrap>,
    /// The write plugin's key ID and when it was asked for.
    pub(super) write_key_id: RwLock<Option<(Result<Arc<str>, KmsError>, Instant)>>,
    /// What is tried when nothing else reads a value.
    pub(super) spares: Arc<Spares>,
    /// Whether that counts as reading.
    pub(super) try_keys: bool,
}

/// Where a key stands in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of the configuration.
    pub(super) list: usize,
    /// Position of the provider in the list.
    pub(super) provider: usize,
    /// Position of the key in the provider.
    pub(super) key: usize,
}

impl Place {
    pub(super) const WRITE: Self = Self { list: 0, provider: 0, key: 0 };
}

impl ResourceTransformers {
    /// The group-qualified resource.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// Whether a secret under another name may read a value.
    #[must_use]
    pub fn tries_keys(&self) -> bool {
        self.try_keys
    }

    /// The list that decides what is current.
    pub(super) fn first(&self) -> &List {
        // `Transformers::for_resource` makes one list for each configuration, and a set of
        // configurations is never empty.
        &self.lists[0]
    }

    /// The provider and key that the API server writes with, by the first configuration.
    #[must_use]
    pub fn write_key(&self) -> KeyUse {
        let Some(prepared) = self.first().providers.first() else {
            return KeyUse {
                config: 0,
                provider: Provider::Identity,
                version: None,
                key: None,
                kms_key_id: None,
            };
        };
        KeyUse {
            config: 0,
            provider: prepared.provider,
            version: prepared.version,
            key: prepared.keys.first().map(|k| Arc::clone(&k.name)),
            kms_key_id: self.current_key_id().and_then(Result::ok),
        }
    }

    /// The write plugin's key ID now, where the first provider is a KMS v2 plugin.
    pub(super) fn current_key_id(&self) -> Option<Result<Arc<str>, KmsError>> {
        let plugin = self.first().providers.first()?.v2_plugin()?;
        {
            let held = self.write_key_id.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((key_id, at)) = &*held
                && at.elapsed() < KEY_ID_EVERY
            {
                return Some(key_id.clone());
            }
        }
        let key_id = self.kms.key_id(plugin);
        let mut held = self.write_key_id.write().unwrap_or_else(PoisonError::into_inner);
        *held = Some((key_id.clone(), Instant::now()));
        Some(key_id)
    }

    /// Every key name that a configuration of this provider and version has, in order.
    pub fn key_names(&self, provider: Provider, version: Option<Version>) -> Vec<&str> {
        self.lists
            .iter()
            .flat_map(|l| &l.providers)
            .filter(|p| p.provider == provider && p.version == version)
            .flat_map(|p| p.keys.iter().map(|k| &*k.name))
            .collect()
    }

    /// Decides from the prefix alone; allocates nothing when the value is current.
    ///
    /// For KMS v2 the key ID in the value is compared with the one that the plugin reports, which
    /// nobody can who gets no answer ([`Status::Unknown`]), and a data key that is no seed counts as stale, as on Kubernetes 1.29 and
    /// later.
    #[must_use]
    pub fn classify<'a>(&'a self, value: &'a [u8]) -> Verdict<'a> {
        classify::classify(self, value)
    }

    /// Decrypts a value stored at `etcd_key`, trying the first configuration as the API server
    /// does, then the others.
    ///
    /// # Errors
    /// When no key of any configuration reads it.
    pub fn read(&self, etcd_key: &[u8], value: &[u8]) -> Result<Opened, ReadError> {
        let envelope = Envelope::of(value);
        let mut attempts = Vec::new();
        for (index, list) in self.lists.iter().enumerate() {
            if let Some((place, opened)) =
                self.read_list(index, list, etcd_key, &envelope, value, &mut attempts)
            {
                return Ok(self.opened(list, place, opened, &envelope));
            }
        }
        let error = if attempts.is_empty() {
            ReadError::NoProvider(classify::unreadable(self, &envelope).into_owned())
        } else {
            ReadError::of(attempts)
        };
        self.spare(etcd_key, &envelope, error)
    }

    /// The last resort: a secret under another name.
    fn spare(
        &self,
        etcd_key: &[u8],
        envelope: &Envelope<'_>,
        error: ReadError,
    ) -> Result<Opened, ReadError> {
        let read = !matches!(error, ReadError::Malformed(_) | ReadError::KmsUnreachable(_));
        let found = read.then(|| self.spares.read(etcd_key, envelope, &*self.kms)).flatten();
        let Some(found) = found else { return Err(error) };
        if !self.try_keys {
            return Err(ReadError::OtherName { error: Box::new(error), words: found.words });
        }
        Ok(Opened {
            plaintext: found.plaintext,
            stale: true,
            undecided: false,
            reason: Some(format!("{error}; {}", found.words)),
            used: KeyUse {
                config: found.config,
                provider: envelope.provider,
                version: envelope.version,
                key: Some(found.name),
                kms_key_id: None,
            },
        })
    }

    /// The API server's two nested lists: providers, then the keys of a static one. A failure
    /// never ends the search, because the same prefix may come again.
    fn read_list(
        &self,
        index: usize,
        list: &List,
        etcd_key: &[u8],
        envelope: &Envelope<'_>,
        value: &[u8],
        attempts: &mut Vec<Attempt>,
    ) -> Option<(Place, EngineOpened)> {
        if list.implied {
            let opened = EngineOpened::fresh(identity::open(value)?);
            return Some((Place { list: index, provider: 0, key: 0 }, opened));
        }
        for (position, prepared) in list.providers.iter().enumerate() {
            let place = |key| Place { list: index, provider: position, key };
            if let Engine::Identity = prepared.engine {
                // Matches everything; that it refuses encrypted values is no error.
                if let Some(plaintext) = identity::open(value) {
                    return Some((place(0), EngineOpened::fresh(plaintext)));
                }
                continue;
            }
            if envelope.provider != prepared.provider || envelope.version != prepared.version {
                continue;
            }
            let mut failed = |key: Option<&Key>, error| {
                attempts.push(Attempt {
                    config: list.config,
                    provider: prepared.provider,
                    version: prepared.version,
                    key: key.map(|k| Arc::clone(&k.name)),
                    error,
                });
            };
            let mut named = false;
            for (i, key) in prepared.keys.iter().enumerate() {
                let Some(payload) = key.strip(envelope.body) else { continue };
                named = true;
                match prepared.open(i, etcd_key, payload, &*self.kms) {
                    Ok(opened) => return Some((place(i), opened)),
                    Err(error) => failed(Some(key), error),
                }
            }
            // A KMS provider's name is part of its prefix: another name is no match at all.
            if !named && prepared.provider != Provider::Kms {
                failed(None, AttemptError::NoSuchKey);
            }
        }
        None
    }

    fn opened(
        &self,
        list: &List,
        place: Place,
        opened: EngineOpened,
        envelope: &Envelope<'_>,
    ) -> Opened {
        let prepared = list.providers.get(place.provider);
        let used = KeyUse {
            config: list.config,
            provider: envelope.provider,
            version: envelope.version,
            key: prepared.and_then(|p| p.keys.get(place.key)).map(|k| Arc::clone(&k.name)),
            kms_key_id: opened.kms_key_id,
        };
        let mut reason = None;
        let mut undecided = false;
        if place != Place::WRITE {
            reason = Some(classify::place_reason(self, place, envelope).into_owned());
        } else if let Some(why) = opened.stale {
            reason = Some(why.to_owned());
        } else if let Some(key_id) = &used.kms_key_id {
            let (status, why) = classify::key_id(key_id, self.current_key_id());
            undecided = status == Status::Unknown;
            reason = why.map(Cow::into_owned);
        }
        let stale = reason.is_some() && !undecided;
        Opened { plaintext: opened.plaintext, stale, undecided, reason, used }
    }

    /// Encrypts for `etcd_key` with the first provider and key of the first configuration, as
    /// the API server would.
    ///
    /// # Errors
    /// When the plugin does not wrap a key, or the value does not fit.
    pub fn write(&self, etcd_key: &[u8], plaintext: &Plaintext) -> Result<Vec<u8>, WriteError> {
        let Some(prepared) = self.first().providers.first() else {
            return Ok(plaintext.expose().to_vec());
        };
        prepared.write(etcd_key, plaintext, &*self.kms).map_err(|error| {
            let by = self.write_key().to_string();
            match error {
                AttemptError::Kms(error) => WriteError::Kms { by, error },
                AttemptError::Cipher(error) => WriteError::Cipher { by, error },
                AttemptError::NoSuchKey => {
                    WriteError::Cipher { by, error: super::CipherError::Malformed("no key") }
                }
            }
        })
    }
}

impl Prepared {
    fn v2_plugin(&self) -> Option<&Kms> {
        match &self.engine {
            Engine::KmsV2(v2) => Some(&v2.plugin),
            _ => None,
        }
    }
}

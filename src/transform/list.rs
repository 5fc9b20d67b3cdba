//! The providers of one resource: reading, writing, and where a value's prefix puts it.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::engine::{Engine, Prepared};
use super::spare::Spares;
use crate::config::Kms;
use crate::entry::Place;
use crate::envelope::{Provider, Version};
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
        write!(f, "{}", self.provider.with_key(self.key.as_deref()))
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
    /// What a proxy puts before the API server's keys.
    pub(super) proxy_namespace: Arc<[u8]>,
    /// What is tried when nothing else reads a value.
    pub(super) spares: Arc<Spares>,
    /// Whether that counts as reading.
    pub(super) try_keys: bool,
}

/// Where a key stands in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyPosition {
    /// Index of the configuration.
    pub(super) list: usize,
    /// Position of the provider in the list.
    pub(super) provider: usize,
    /// Position of the key in the provider.
    pub(super) key: usize,
}

impl KeyPosition {
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

    /// What was authenticated with a value at `place`.
    pub(super) fn authenticated<'k>(&self, place: Place<'k>) -> Cow<'k, [u8]> {
        place.authenticated(&self.proxy_namespace)
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

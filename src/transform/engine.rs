//! One configured provider with its keys set up.

use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::error::{AttemptError, CipherError};
use super::kms_v2::{self, DataKey, Object, SourceType};
use super::value::is_plausible_object;
use super::{aescbc, aesgcm, kms_v1, secretbox};
use crate::config;
use crate::envelope::{Provider, Version};
use crate::kms::{Unwrap, WrappedKey};
use crate::secret::{KeyMaterial, Plaintext};

/// Unwrapped KMS v2 data keys kept by one provider. Clusters have a handful (one for each start
/// of an API server and each key); Kubernetes 1.25 wrote one for each value.
const MAX_DATA_KEYS: usize = 4096;

/// A key as prefixes name it.
pub(super) struct Key {
    pub(super) name: Arc<str>,
}

impl Key {
    /// What follows `<name>:`. A byte-wise comparison as in the API server: names may hold
    /// colons, and one may be the beginning of another.
    pub(super) fn strip<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        body.strip_prefix(self.name.as_bytes())?.strip_prefix(b":")
    }
}

/// One provider of one configuration.
pub(super) struct Prepared {
    pub(super) provider: Provider,
    pub(super) version: Option<Version>,
    /// Static keys in order, or the KMS provider's own name.
    pub(super) keys: Vec<Key>,
    pub(super) engine: Engine,
}

/// Ciphers, one for each of the keys.
pub(super) enum Engine {
    Identity,
    Secretbox(Vec<secretbox::Cipher>),
    AesCbc(Vec<aescbc::Cipher>),
    AesGcm(Vec<aesgcm::Cipher>),
    KmsV1(config::Kms),
    KmsV2(KmsV2),
}

/// A KMS v2 provider and its unwrapped data keys.
pub(super) struct KmsV2 {
    pub(super) plugin: config::Kms,
    data_keys: RwLock<HashTable<Arc<Cached>>>,
    hasher: DefaultHashBuilder,
}

struct Cached {
    key_id: Arc<str>,
    source: Box<[u8]>,
    annotations: Vec<(Box<str>, Box<[u8]>)>,
    source_type: SourceType,
    data_key: DataKey,
}

impl Cached {
    fn is_of(&self, object: &Object<'_>) -> bool {
        *self.source == *object.source
            && *self.key_id == *object.key_id
            && self.source_type == object.source_type
            && self.annotations.len() == object.annotations.len()
            && self
                .annotations
                .iter()
                .zip(&object.annotations)
                .all(|((n, v), (name, value))| **n == **name && **v == **value)
    }
}

/// What a provider's key made of a payload.
pub(super) struct Opened {
    pub(super) plaintext: Plaintext,
    /// Why the API server would rewrite the value even at the first position, apart from the
    /// KMS key ID.
    pub(super) stale: Option<&'static str>,
    pub(super) kms_key_id: Option<Arc<str>>,
}

impl Opened {
    pub(super) fn fresh(plaintext: Plaintext) -> Self {
        Self { plaintext, stale: None, kms_key_id: None }
    }
}

/// A KMS v1 body from before AES-GCM.
pub(super) const STALE_CBC: &str =
    "its body is AES-CBC, which Kubernetes 1.24 and older wrote; later ones write AES-GCM";
/// A KMS v2 value from before seeds.
pub(super) const STALE_NO_SEED: &str =
    "its data key is no seed, as Kubernetes 1.28 and older wrote it";

impl Prepared {
    /// Sets up the keys of a provider.
    ///
    /// # Errors
    /// When a key's length does not fit; a validated configuration has none such.
    pub(super) fn new(provider: &config::ProviderConfiguration) -> Result<Self, CipherError> {
        use config::ProviderConfiguration as Configured;
        let engine = match provider {
            Configured::Identity => Engine::Identity,
            Configured::Secretbox(keys) => Engine::Secretbox(
                keys.iter().map(|k| secretbox::Cipher::new(&k.secret)).collect::<Result<_, _>>()?,
            ),
            Configured::AesCbc(keys) => Engine::AesCbc(
                keys.iter().map(|k| aescbc::Cipher::new(&k.secret)).collect::<Result<_, _>>()?,
            ),
            Configured::AesGcm(keys) => Engine::AesGcm(
                keys.iter().map(|k| aesgcm::Cipher::new(&k.secret)).collect::<Result<_, _>>()?,
            ),
            Configured::Kms(kms) if kms.api_version == Version::V1 => Engine::KmsV1(kms.clone()),
            Configured::Kms(kms) => Engine::KmsV2(KmsV2 {
                plugin: kms.clone(),
                data_keys: RwLock::default(),
                hasher: DefaultHashBuilder::default(),
            }),
        };
        let keys = provider.names().map(|name| Key { name: Arc::from(name) }).collect();
        Ok(Self { provider: provider.provider(), version: provider.version(), keys, engine })
    }

    /// Decrypts a payload with the key at position `key`.
    pub(super) fn open(
        &self,
        key: usize,
        authenticated: &[u8],
        payload: &[u8],
        kms: &dyn Unwrap,
    ) -> Result<Opened, AttemptError> {
        let missing = AttemptError::NoSuchKey(None);
        match &self.engine {
            // The list handles identity before it asks for a payload.
            Engine::Identity => Err(missing),
            Engine::Secretbox(ciphers) => {
                let cipher = ciphers.get(key).ok_or(missing)?;
                Ok(Opened::fresh(cipher.open(payload)?))
            }
            Engine::AesCbc(ciphers) => {
                let plaintext = ciphers.get(key).ok_or(missing)?.open(payload)?;
                if !is_plausible_object(plaintext.expose()) {
                    return Err(CipherError::NotAnObject.into());
                }
                Ok(Opened::fresh(plaintext))
            }
            Engine::AesGcm(ciphers) => {
                let cipher = ciphers.get(key).ok_or(missing)?;
                Ok(Opened::fresh(cipher.open(authenticated, payload)?))
            }
            Engine::KmsV1(plugin) => {
                let payload = kms_v1::Payload::parse(payload)?;
                let data_key = kms.unwrap_v1(plugin, payload.wrapped)?;
                let (plaintext, cbc) = payload.open(&data_key, authenticated)?;
                Ok(Opened { plaintext, stale: cbc.then_some(STALE_CBC), kms_key_id: None })
            }
            Engine::KmsV2(v2) => {
                let object = Object::parse(payload)?;
                let cached = v2.data_key(&object, kms)?;
                Ok(Opened {
                    plaintext: cached.data_key.open(authenticated, object.data)?,
                    stale: (object.source_type != SourceType::HkdfSeed).then_some(STALE_NO_SEED),
                    kms_key_id: Some(Arc::clone(&cached.key_id)),
                })
            }
        }
    }

    /// Encrypts with the first key: prefix, name and payload.
    pub(super) fn write(
        &self,
        authenticated: &[u8],
        plaintext: &Plaintext,
        kms: &dyn Unwrap,
    ) -> Result<Vec<u8>, AttemptError> {
        let plain = plaintext.expose();
        let missing = AttemptError::NoSuchKey(None);
        // Prefix, nonces, tags and padding are small; a KMS message is not.
        let mut out = Vec::with_capacity(plain.len() + 512);
        if let (Some(version), Some(key)) = (self.version, self.keys.first()) {
            out.extend_from_slice(crate::envelope::ENCRYPTED_PREFIX);
            for part in [self.provider.as_str(), version.as_str(), &*key.name] {
                out.extend_from_slice(part.as_bytes());
                out.push(b':');
            }
        }
        match &self.engine {
            Engine::Identity => out.extend_from_slice(plain),
            Engine::Secretbox(c) => c.first().ok_or(missing)?.seal(plain, &mut out)?,
            Engine::AesCbc(c) => c.first().ok_or(missing)?.seal(plain, &mut out)?,
            Engine::AesGcm(c) => c.first().ok_or(missing)?.seal(authenticated, plain, &mut out)?,
            Engine::KmsV1(plugin) => {
                let data_key = KeyMaterial::random().map_err(CipherError::from)?;
                let wrapped = kms.wrap_v1(plugin, &data_key)?;
                kms_v1::seal(&data_key, &wrapped, authenticated, plain, &mut out)?;
            }
            Engine::KmsV2(v2) => {
                let sealed = kms.seal_v2(&v2.plugin)?;
                let data_key = DataKey::new(SourceType::HkdfSeed, &sealed.seed)?;
                let data = data_key.seal(authenticated, plain)?;
                let mut annotations: kms_v2::Annotations<'_> =
                    sealed.annotations.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
                annotations.sort_unstable();
                let object = Object {
                    data: &data,
                    key_id: &sealed.key_id,
                    source: &sealed.source,
                    annotations,
                    source_type: SourceType::HkdfSeed,
                };
                object.encode(&mut out)?;
            }
        }
        Ok(out)
    }
}

impl KmsV2 {
    /// The unwrapped data key of an object, from the plugin the first time.
    fn data_key(&self, object: &Object<'_>, kms: &dyn Unwrap) -> Result<Arc<Cached>, AttemptError> {
        use std::hash::BuildHasher as _;
        // The wrapped key is random; nothing else is needed to spread the entries.
        let hash = self.hasher.hash_one(object.source);
        {
            let held = self.data_keys.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(cached) = held.find(hash, |c| c.is_of(object)) {
                return Ok(Arc::clone(cached));
            }
        }
        let wrapped = WrappedKey {
            key_id: object.key_id,
            source: object.source,
            annotations: &object.annotations,
        };
        let unwrapped = kms.unwrap_v2(&self.plugin, wrapped)?;
        let cached = Arc::new(Cached {
            key_id: Arc::from(object.key_id),
            source: object.source.into(),
            annotations: object
                .annotations
                .iter()
                .map(|(n, v)| ((*n).into(), (*v).into()))
                .collect(),
            source_type: object.source_type,
            data_key: DataKey::new(object.source_type, &unwrapped)?,
        });
        let mut held = self.data_keys.write().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= MAX_DATA_KEYS {
            held.clear();
        }
        if held.find(hash, |c| c.is_of(object)).is_none() {
            let rehash = |c: &Arc<Cached>| self.hasher.hash_one(&*c.source);
            held.insert_unique(hash, Arc::clone(&cached), rehash);
        }
        Ok(cached)
    }
}

//! Values through the providers of their resource: judged by prefix, read, written.

use std::borrow::Cow;
use std::sync::Arc;

use super::engine::{Engine, Key, Opened as EngineOpened};
use super::error::{Attempt, AttemptError, ReadError, WriteError};
use super::list::{KeyPosition, KeyUse, List, Opened, ResourceTransformers, Status, Verdict};
use super::{classify, identity};
use crate::entry::Place;
use crate::envelope::{Envelope, Provider};
use crate::secret::Plaintext;

impl ResourceTransformers {
    /// Decides from the prefix alone; allocates nothing when the value is current.
    ///
    /// For KMS v2 the key ID in the value is compared with the one that the plugin reports, which
    /// nobody can who gets no answer ([`Status::Unknown`]), and a data key that is no seed counts
    /// as stale, as on Kubernetes 1.29 and later.
    #[must_use]
    pub fn classify<'a>(&'a self, value: &'a [u8]) -> Verdict<'a> {
        classify::classify(self, value)
    }

    /// Decrypts a value by its place, an etcd key or an entry, trying the first configuration as
    /// the API server does, then the others.
    ///
    /// # Errors
    /// When no key of any configuration reads it.
    pub fn read<'k>(&self, place: impl Into<Place<'k>>, value: &[u8]) -> Result<Opened, ReadError> {
        let authenticated = &*self.authenticated(place.into());
        let envelope = Envelope::of(value);
        let mut attempts = Vec::new();
        for (index, list) in self.lists.iter().enumerate() {
            if let Some((place, opened)) =
                self.read_list(index, list, authenticated, &envelope, value, &mut attempts)
            {
                return Ok(self.opened(list, place, opened, &envelope));
            }
        }
        let error = if attempts.is_empty() {
            ReadError::NoProvider(classify::unreadable(self, &envelope).into_owned())
        } else {
            ReadError::of(attempts)
        };
        self.spare(authenticated, &envelope, error)
    }

    /// The last resort: a secret under another name.
    fn spare(
        &self,
        authenticated: &[u8],
        envelope: &Envelope<'_>,
        error: ReadError,
    ) -> Result<Opened, ReadError> {
        let read = !matches!(error, ReadError::Malformed(_) | ReadError::KmsUnreachable(_));
        let found = read.then(|| self.spares.read(authenticated, envelope, &*self.kms)).flatten();
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
        authenticated: &[u8],
        envelope: &Envelope<'_>,
        value: &[u8],
        attempts: &mut Vec<Attempt>,
    ) -> Option<(KeyPosition, EngineOpened)> {
        if list.implied {
            let opened = EngineOpened::fresh(identity::open(value)?);
            return Some((KeyPosition { list: index, provider: 0, key: 0 }, opened));
        }
        for (position, prepared) in list.providers.iter().enumerate() {
            let place = |key| KeyPosition { list: index, provider: position, key };
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
                match prepared.open(i, authenticated, payload, &*self.kms) {
                    Ok(opened) => return Some((place(i), opened)),
                    Err(error) => failed(Some(key), error),
                }
            }
            // A KMS provider's name is part of its prefix: another name is no match at all.
            if !named && prepared.provider != Provider::Kms {
                let name = envelope.split([]).map(|(name, _)| super::classify::shown(name));
                failed(None, AttemptError::NoSuchKey(name));
            }
        }
        None
    }

    fn opened(
        &self,
        list: &List,
        place: KeyPosition,
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
        if place != KeyPosition::WRITE {
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
        let authenticated = &*self.authenticated(etcd_key.into());
        let Some(prepared) = self.first().providers.first() else {
            return Ok(plaintext.expose().to_vec());
        };
        prepared.write(authenticated, plaintext, &*self.kms).map_err(|error| {
            let by = self.write_key().to_string();
            match error {
                AttemptError::Kms(error) => WriteError::Kms { by, error },
                AttemptError::Cipher(error) => WriteError::Cipher { by, error },
                AttemptError::NoSuchKey(_) => {
                    WriteError::Cipher { by, error: super::CipherError::Malformed("no key") }
                }
            }
        })
    }
}

//! Unwrapped data keys, kept in a file for the day when nobody unwraps them any more.
//!
//! | file | what it does |
//! | --- | --- |
//! | `document.rs` | the JSON inside, `atrest.kms-escrow/v1` |
//! | `sealed.rs` | the encryption around it: an age file for age's own recipients |

mod document;
mod sealed;
#[cfg(test)]
mod tests;

pub use document::{Document, Kept, Missing};
pub use sealed::{Recipient, Sealing, open, opens_what_is_for, seal};

use std::collections::HashMap;
use std::io;

use sha2::{Digest as _, Sha256};

use super::WrappedKey;
use crate::envelope::Version;
use crate::secret::KeyMaterial;

/// Which data key: everything that its plugin is handed to unwrap it, the wrapped key itself by
/// its digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The KMS provider.
    pub provider: String,
    /// Of the plugin interface.
    pub version: Version,
    /// v2: the plugin's key.
    pub key_id: Option<String>,
    /// SHA-256 of the wrapped key.
    pub sha256: [u8; 32],
    /// v2: names and values, sorted.
    pub annotations: Vec<(String, Vec<u8>)>,
}

impl Name {
    fn v1(provider: &str, wrapped: &[u8]) -> Self {
        Self {
            provider: provider.to_owned(),
            version: Version::V1,
            key_id: None,
            sha256: Sha256::digest(wrapped).into(),
            annotations: Vec::new(),
        }
    }

    fn v2(provider: &str, wrapped: WrappedKey<'_>) -> Self {
        let annotations = wrapped.annotations.iter().map(|(n, v)| ((*n).to_owned(), v.to_vec()));
        Self {
            provider: provider.to_owned(),
            version: Version::V2,
            key_id: Some(wrapped.key_id.to_owned()),
            sha256: Sha256::digest(wrapped.source).into(),
            annotations: annotations.collect(),
        }
    }
}

/// Why there is no escrow. No variant holds a key.
#[derive(Debug, thiserror::Error)]
pub enum EscrowError {
    /// A recipient that cannot be encrypted to.
    #[error("`{text}` is no age recipient: {why}")]
    Recipient {
        /// As given; recipients are public.
        text: String,
        /// What it is.
        why: &'static str,
    },
    /// Nobody could read it.
    #[error("there is no recipient")]
    NoRecipients,
    /// No age file at all.
    #[error("it is no age file")]
    NotAge,
    /// For others.
    #[error("none of the identities opens it: it was encrypted to other recipients")]
    NotForThese,
    /// Of a person who remembers it, or not.
    #[error("it was encrypted with a passphrase, not to a recipient")]
    Passphrase,
    /// An age file that was changed or cut short.
    #[error("it is damaged or cut short")]
    Damaged,
    /// Decrypted, and something else.
    #[error("what is encrypted in it is no escrow of KMS data keys: {0}")]
    NotAnEscrow(String),
    /// The system failed.
    #[error("it cannot be encrypted")]
    Write(#[source] io::Error),
}

/// The data keys of any number of escrows.
#[derive(Default)]
pub struct Escrow {
    keys: HashMap<Name, KeyMaterial>,
}

impl Escrow {
    /// Adds the keys of one more.
    pub fn add(&mut self, document: Document) {
        self.keys.extend(document.keys.into_iter().map(|kept| (kept.name, kept.key)));
    }

    /// The providers whose data keys it has, sorted.
    #[must_use]
    pub fn providers(&self) -> Vec<&str> {
        let mut all: Vec<_> = self.keys.keys().map(|name| name.provider.as_str()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The data key of a v1 value.
    #[must_use]
    pub fn v1(&self, provider: &str, wrapped: &[u8]) -> Option<KeyMaterial> {
        self.keys.get(&Name::v1(provider, wrapped)).cloned()
    }

    /// A data key or seed of v2.
    #[must_use]
    pub fn v2(&self, provider: &str, wrapped: WrappedKey<'_>) -> Option<KeyMaterial> {
        self.keys.get(&Name::v2(provider, wrapped)).cloned()
    }
}

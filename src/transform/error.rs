//! What can go wrong with one value, in words that hold no plaintext and no key bytes.

use std::sync::Arc;

use crate::envelope::{Provider, Version};
use crate::kms::KmsError;
use crate::random::NoRandom;

/// Why one key did not open (or seal) one payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// The provider takes no key of this length.
    #[error("a key of {0} bytes does not fit this provider")]
    KeyLength(usize),
    /// Shorter than the provider's smallest value.
    #[error("truncated: {len} bytes after the key name, at least {min} are needed")]
    TooShort {
        /// Bytes there are.
        len: usize,
        /// Bytes the layout needs.
        min: usize,
    },
    /// A block cipher's ciphertext is no whole number of blocks.
    #[error("truncated: {len} bytes of ciphertext are not a whole number of 16-byte blocks")]
    Misaligned {
        /// Bytes of ciphertext.
        len: usize,
    },
    /// CBC padding is impossible.
    #[error("the padding does not fit (another key's, or damaged)")]
    Padding,
    /// CBC padding fits by chance: what comes out is no Kubernetes object.
    #[error("what it decrypts to is not a Kubernetes object (another key's, or damaged)")]
    NotAnObject,
    /// The authentication tag does not match, in a mode that does not cover the etcd key.
    #[error("authentication failed (another key's, or damaged)")]
    Authentication,
    /// The authentication tag does not match, in a mode that covers the etcd key.
    #[error("authentication failed (another key's, damaged, or written under another etcd key)")]
    AuthenticationOrPath,
    /// The payload does not have the provider's layout.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// Larger than the provider's format can say.
    #[error("too large for this provider: {0}")]
    TooLarge(&'static str),
    /// The system's random number generator failed.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

impl CipherError {
    /// Whether no key at all could open the payload.
    #[must_use]
    pub fn is_structural(&self) -> bool {
        matches!(self, Self::TooShort { .. } | Self::Misaligned { .. } | Self::Malformed(_))
    }
}

/// Why one configured provider that matches a value's prefix did not read it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AttemptError {
    /// The provider has no key of the name in the value: that name, fit for a line of text, where
    /// the value holds one.
    #[error("has no key {}", .0.as_ref().map_or_else(|| "of this name".to_owned(), |n| format!("`{n}`")))]
    NoSuchKey(Option<String>),
    /// The cipher refused.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// The KMS plugin did not unwrap the data key.
    #[error(transparent)]
    Kms(#[from] KmsError),
}

/// One attempt to read a value.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Index of the configuration.
    pub config: usize,
    /// The provider.
    pub provider: Provider,
    /// Its format version.
    pub version: Option<Version>,
    /// The key (or KMS plugin) that was tried; none when the provider has no such key.
    pub key: Option<Arc<str>>,
    /// What went wrong.
    pub error: AttemptError,
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}: {}", self.provider.with_key(Some(key)), self.error),
            None => write!(f, "{} provider {}", self.provider, self.error),
        }
    }
}

/// Why a value cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// Not any configured provider's: nothing was tried. The reason says what is missing.
    #[error("{0}")]
    NoProvider(String),
    /// A configured provider's, but so damaged that no key could open it.
    #[error("{}", listed(.0))]
    Malformed(Vec<Attempt>),
    /// The only thing that could read it is a KMS plugin that does not answer.
    #[error("{}", listed(.0))]
    KmsUnreachable(Vec<Attempt>),
    /// A configured provider's, but every key that was tried failed.
    #[error("{}", listed(.0))]
    Failed(Vec<Attempt>),
    /// As the error says, but a configured secret reads it that has another name.
    #[error("{error}; {words}")]
    OtherName {
        /// Why the API server cannot read it.
        error: Box<ReadError>,
        /// Which secret reads it.
        words: String,
    },
}

impl ReadError {
    /// Sorts failed attempts; there is at least one.
    #[must_use]
    pub(super) fn of(attempts: Vec<Attempt>) -> Self {
        let all = |test: fn(&AttemptError) -> bool| attempts.iter().all(|a| test(&a.error));
        if all(|e| matches!(e, AttemptError::Cipher(c) if c.is_structural())) {
            Self::Malformed(attempts)
        } else if attempts
            .iter()
            .any(|a| matches!(&a.error, AttemptError::Kms(e) if e.is_unreachable()))
        {
            Self::KmsUnreachable(attempts)
        } else {
            Self::Failed(attempts)
        }
    }

    /// What was tried.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        match self {
            Self::NoProvider(_) => &[],
            Self::Malformed(a) | Self::KmsUnreachable(a) | Self::Failed(a) => a,
            Self::OtherName { error, .. } => error.attempts(),
        }
    }
}

/// Joins attempts; the same text is said once.
fn listed(attempts: &[Attempt]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for attempt in attempts {
        let text = attempt.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.join("; ")
}

/// Why a value cannot be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The cipher refused.
    #[error("cannot encrypt with {by}: {error}")]
    Cipher {
        /// The provider and key.
        by: String,
        /// What went wrong.
        error: CipherError,
    },
    /// The KMS plugin did not wrap the data key.
    #[error("cannot encrypt with {by}: {error}")]
    Kms {
        /// The provider and key.
        by: String,
        /// What went wrong.
        error: KmsError,
    },
}

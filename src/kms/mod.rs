//! KMS plugins: what `transform` asks of them, and clients over unix sockets.
//!
//! Source: kubernetes/kms `apis/v1beta1/api.proto`, `apis/v2/api.proto`; kubernetes/apiserver
//! `pkg/storage/value/encrypt/envelope/grpc_service.go`, `…/kmsv2/grpc_service.go`.

mod cache;
#[cfg(feature = "live")]
mod client;
#[cfg(feature = "escrow")]
pub mod escrow;
mod instead;
mod limits;
#[cfg(feature = "live")]
mod plugins;
#[cfg(feature = "live")]
mod probe;
mod process;
mod program;
#[cfg(feature = "live")]
mod proto;

pub use instead::Instead;
pub(crate) use limits::{validate_annotations, validate_key_id, validate_source};
#[cfg(feature = "live")]
pub use plugins::Plugins;
#[cfg(feature = "live")]
pub use probe::{Probe, Times};
pub use process::kill_all;
pub use program::Program;

use std::sync::Arc;

use crate::config::Kms;
use crate::secret::KeyMaterial;

/// Why a plugin did not answer with a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    /// Nobody listens at its endpoint, or it does not answer in time.
    #[error("the KMS plugin at {endpoint} cannot be reached: {cause}")]
    Unreachable {
        /// The endpoint, as configured.
        endpoint: String,
        /// What the system says.
        cause: String,
    },
    /// It answers, and refuses.
    #[error("the KMS plugin at {endpoint} refuses: {cause}")]
    Refused {
        /// The endpoint, as configured.
        endpoint: String,
        /// It does not know the request at all: it speaks another version.
        unknown_request: bool,
        /// The plugin's words.
        cause: String,
    },
    /// It answers with something the API server would not accept.
    #[error("the KMS plugin at {endpoint} is not usable: {cause}")]
    Unusable {
        /// The endpoint, as configured.
        endpoint: String,
        /// What is wrong.
        cause: String,
    },
    /// The program that stands in for the plugin did not give the key.
    #[error("the program that unwraps data keys of `{provider}` {cause}")]
    Program {
        /// The provider's name.
        provider: String,
        /// It cannot be run or does not end, whatever the key.
        silent: bool,
        /// What happened, to be read after its name.
        cause: String,
    },
    /// The escrow lacks the key, and whoever was asked next did not give it.
    #[error("the escrow does not hold this data key, and {then}")]
    NotInEscrow {
        /// Why they did not.
        then: Box<KmsError>,
    },
    /// No plugin is to be asked.
    #[error("no KMS plugin is connected")]
    NotConnected,
}

impl KmsError {
    /// Whether who unwraps keys is itself out of reach, as opposed to refusing one of them.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Refused { .. } => false,
            Self::Program { silent, .. } => *silent,
            Self::NotInEscrow { then } => then.is_unreachable(),
            Self::Unreachable { .. } | Self::Unusable { .. } | Self::NotConnected => true,
        }
    }
}

/// A wrapped data key or seed of KMS v2, with what the plugin needs to unwrap it.
#[derive(Clone, Copy)]
pub struct WrappedKey<'a> {
    /// The plugin's key.
    pub key_id: &'a str,
    /// What the plugin returned when it wrapped the key.
    pub source: &'a [u8],
    /// What the plugin returned beside it.
    pub annotations: &'a [(&'a str, &'a [u8])],
}

/// A fresh seed and its wrapping, for writing.
pub struct Sealed {
    /// The seed.
    pub seed: KeyMaterial,
    /// The plugin's key that wrapped it.
    pub key_id: String,
    /// The wrapped seed.
    pub source: Vec<u8>,
    /// What the plugin wants back with it.
    pub annotations: Vec<(String, Vec<u8>)>,
}

/// The plugins of a configuration, asked synchronously from any thread.
///
/// An implementation remembers answers: callers may ask for the same data key again and again.
pub trait Unwrap: Send + Sync {
    /// Unwraps the data key of a v1 value.
    ///
    /// # Errors
    /// When the plugin is out of reach or refuses.
    fn unwrap_v1(&self, plugin: &Kms, wrapped: &[u8]) -> Result<KeyMaterial, KmsError>;

    /// Unwraps a data key or seed of v2.
    ///
    /// # Errors
    /// When the plugin is out of reach or refuses.
    fn unwrap_v2(&self, plugin: &Kms, wrapped: WrappedKey<'_>) -> Result<KeyMaterial, KmsError>;

    /// The key ID that a v2 plugin's Status reports now.
    ///
    /// # Errors
    /// When the plugin is out of reach or not healthy.
    fn key_id(&self, plugin: &Kms) -> Result<Arc<str>, KmsError>;

    /// Wraps a data key for a v1 value.
    ///
    /// # Errors
    /// When the plugin is out of reach or refuses.
    fn wrap_v1(&self, plugin: &Kms, data_key: &KeyMaterial) -> Result<Vec<u8>, KmsError>;

    /// A seed wrapped under the current key of a v2 plugin; the same one until that changes.
    ///
    /// # Errors
    /// When the plugin is out of reach or refuses.
    fn seal_v2(&self, plugin: &Kms) -> Result<Arc<Sealed>, KmsError>;
}

/// Asks nobody: every KMS value is unreadable.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPlugins;

impl Unwrap for NoPlugins {
    fn unwrap_v1(&self, _: &Kms, _: &[u8]) -> Result<KeyMaterial, KmsError> {
        Err(KmsError::NotConnected)
    }

    fn unwrap_v2(&self, _: &Kms, _: WrappedKey<'_>) -> Result<KeyMaterial, KmsError> {
        Err(KmsError::NotConnected)
    }

    fn key_id(&self, _: &Kms) -> Result<Arc<str>, KmsError> {
        Err(KmsError::NotConnected)
    }

    fn wrap_v1(&self, _: &Kms, _: &KeyMaterial) -> Result<Vec<u8>, KmsError> {
        Err(KmsError::NotConnected)
    }

    fn seal_v2(&self, _: &Kms) -> Result<Arc<Sealed>, KmsError> {
        Err(KmsError::NotConnected)
    }
}

//! A running API server: how to reach it, and what it says about itself.
//!
//! [`kubeconfig`], [`metrics`] and [`objects`] are pure: texts go in. [`Client`] speaks HTTP/1.1 over TLS to
//! one address, and knows nothing of what it asks for.

mod client;
mod error;
pub mod kubeconfig;
pub mod metrics;
pub mod objects;
mod tls;

pub use client::{Answer, Client, Link, Request};
pub use error::ApiError;
pub use kubeconfig::{Access, KubeconfigError};

use sha2::{Digest as _, Sha256};

use crate::hex::hex;

/// What an API server calls itself in its metrics: the hash of its name, which is also the name
/// of its Lease in `kube-system` (kubernetes/apiserver `pkg/server/options/encryptionconfig/
/// metrics/metrics.go`: `getHash`; `pkg/server/config.go`: `APIServerID`).
#[must_use]
pub fn id_hash(name: &str) -> String {
    hash(name.as_bytes())
}

/// A hash as metrics show it: of an API server's name, a KMS key ID, or the bytes of a
/// configuration file.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

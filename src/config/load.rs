//! The forms in which backups hold a configuration.

use sha2::{Digest, Sha256};

use super::finding::{ConfigErrors, Finding};
use super::model::EncryptionConfig;

/// A configuration with where it came from.
#[derive(Clone)]
pub struct Loaded {
    /// File, and the place inside it for archives and manifests.
    pub location: String,
    /// SHA-256 of the configuration's raw bytes, in hex; the API server's metrics show the same
    /// (`sha256:…`), and k3s writes it into `encryption-state.json`.
    pub sha256: String,
    /// What it says.
    pub config: EncryptionConfig,
    /// What a person should know about the text itself.
    pub warnings: Vec<Finding>,
}

/// Why nothing could be loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// It is a configuration, and a wrong one.
    #[error("{location}: {errors}")]
    Invalid {
        /// File, and the place inside it.
        location: String,
        /// What is wrong.
        errors: ConfigErrors,
    },
}

/// Reads the configurations in `bytes`. `origin` names the file in messages.
///
/// # Errors
/// When there is none, or a wrong one.
pub fn load(bytes: &[u8], origin: &str) -> Result<Vec<Loaded>, LoadError> {
    let invalid = |errors| LoadError::Invalid { location: origin.to_owned(), errors };
    let parsed = super::parse(bytes).map_err(invalid)?;
    Ok(vec![Loaded {
        location: origin.to_owned(),
        sha256: hex(&Sha256::digest(bytes)),
        config: parsed.config,
        warnings: parsed.warnings,
    }])
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

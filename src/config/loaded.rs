//! A configuration with where it came from, and the small readings that every form needs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::finding::{ConfigErrors, Finding};
use super::model::EncryptionConfig;
use crate::hex::hex;
use crate::yaml_tree::{self, Node, Value};

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
    /// Warnings about the text itself: the API server does not read it as a person would.
    pub warnings: Vec<Finding>,
    /// What the API server accepts and a person should know, in file order.
    pub advice: Vec<Finding>,
}

/// Why nothing could be loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// It is a configuration, and a wrong one.
    #[error("{location} is not a valid encryption configuration (read as {form})")]
    Invalid {
        /// File, and the place inside it.
        location: String,
        /// How it was read, in words.
        form: &'static str,
        /// What is wrong.
        errors: ConfigErrors,
    },
    /// A readable file with no configuration inside.
    #[error("{origin} holds no encryption configuration (read as {form})")]
    Missing {
        /// The file.
        origin: String,
        /// How it was read, in words.
        form: &'static str,
    },
    /// An archive that cannot be read.
    #[error("{origin} cannot be read as {form}: {message}")]
    Archive {
        /// The file.
        origin: String,
        /// How it was read, in words.
        form: &'static str,
        /// Why not.
        message: String,
    },
    /// RKE encrypts, with a key that it made itself.
    #[error(
        "{origin} turns encryption on and holds no key: RKE made one and keeps it in `cluster.rkestate`, beside `cluster.yml`"
    )]
    Elsewhere {
        /// The file.
        origin: String,
    },
    /// The file beside the configuration.
    #[error(
        "{origin} is the state file of `k3s secrets-encrypt`, not the configuration; the latter is `encryption-config.json` beside it"
    )]
    StateFile {
        /// The file.
        origin: String,
    },
}

const PLAIN: &str = "a configuration file";

/// A text that is a configuration and nothing else.
pub(super) fn plain(bytes: &[u8], location: &str) -> Result<Loaded, LoadError> {
    match super::parse(bytes) {
        Ok(parsed) => Ok(Loaded {
            location: location.to_owned(),
            sha256: hex(&Sha256::digest(bytes)),
            advice: parsed.advice(),
            config: parsed.config,
            warnings: parsed.warnings,
        }),
        Err(errors) => {
            Err(LoadError::Invalid { location: location.to_owned(), form: PLAIN, errors })
        }
    }
}

/// The documents of a text; none where it is neither YAML nor JSON.
pub(super) fn documents(bytes: &[u8]) -> Vec<Node> {
    std::str::from_utf8(bytes).ok().and_then(|t| yaml_tree::parse(t).ok()).unwrap_or_default()
}

/// Data of a Secret or config map; `stringData` wins, as on writing it to a cluster.
pub(super) fn data(secret: &Node) -> Vec<(String, Zeroizing<Vec<u8>>)> {
    let mut all: Vec<(String, Zeroizing<Vec<u8>>)> = Vec::new();
    let fields = if secret.get("kind").and_then(Node::text) == Some("ConfigMap") {
        [("data", false), ("binaryData", true)]
    } else {
        [("stringData", false), ("data", true)]
    };
    for (field, encoded) in fields {
        let Some(Node { value: Value::Map(fields), .. }) = secret.get(field) else { continue };
        for f in fields {
            let Some(text) = f.node.text() else { continue };
            let content = if encoded {
                let packed: Zeroizing<String> =
                    Zeroizing::new(text.chars().filter(|c| !c.is_ascii_whitespace()).collect());
                STANDARD.decode(packed.as_bytes()).ok()
            } else {
                Some(text.as_bytes().to_vec())
            };
            if let Some(content) = content
                && !all.iter().any(|(name, _)| *name == *f.name)
            {
                all.push((f.name.to_string(), Zeroizing::new(content)));
            }
        }
    }
    all
}

//! The forms in which machines and backups hold a configuration:
//!
//! - the file itself, YAML or JSON, which includes `encryption-config.json` of k3s and RKE2;
//! - a Secret manifest that carries it (YAML or JSON, `data` or `stringData`, alone, in a kubectl
//!   `List` or in several YAML documents), as `OpenShift` keeps it
//!   (openshift/library-go `pkg/operator/encryption/encryptiondata`);
//! - a tar archive, gzipped or not, with either inside: `static_kuberesources_*.tar.gz` of an
//!   `OpenShift` backup (`cluster-backup.sh`).

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::finding::{ConfigErrors, Finding};
use super::model::EncryptionConfig;
use crate::hex::hex;
use crate::yaml_tree::{self, Node, Value};

/// Most bytes that an archive may unpack to. `OpenShift`'s have a few megabytes.
const MAX_UNPACKED: u64 = 512 << 20;
/// Largest file in an archive that is looked at: a Secret cannot be larger than 1.5 MiB.
const MAX_MEMBER: u64 = 8 << 20;
/// Data keys that hold a configuration and nothing else, so that what is wrong in them is said.
const DATA_KEYS: [&str; 4] = [
    "encryption-config",
    "encryption-config.yaml",
    "encryption-config.yml",
    "encryption-config.json",
];

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
const SECRET: &str = "a Secret manifest";
const TAR: &str = "a tar archive";
const TAR_GZ: &str = "a gzipped tar archive";

/// Reads the configurations in `bytes`, the current one first. `origin` names the file in
/// messages and locations.
///
/// # Errors
/// When there is none, or a wrong one.
pub fn load(bytes: &[u8], origin: &str) -> Result<Vec<Loaded>, LoadError> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return unzip(bytes, origin);
    }
    if is_tar(bytes) {
        return untar(bytes, origin, TAR);
    }
    if is_state_file(bytes) {
        return Err(LoadError::StateFile { origin: origin.to_owned() });
    }
    if let Some(manifests) = manifests(bytes) {
        return from_manifests(&manifests, origin);
    }
    Ok(vec![plain(bytes, origin)?])
}

fn plain(bytes: &[u8], location: &str) -> Result<Loaded, LoadError> {
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

fn unzip(bytes: &[u8], origin: &str) -> Result<Vec<Loaded>, LoadError> {
    let broken =
        |message: String| LoadError::Archive { origin: origin.to_owned(), form: TAR_GZ, message };
    let mut unpacked = Zeroizing::new(Vec::new());
    let read = flate2::read::MultiGzDecoder::new(bytes)
        .take(MAX_UNPACKED + 1)
        .read_to_end(&mut unpacked)
        .map_err(|e| broken(e.to_string()))?;
    if read as u64 > MAX_UNPACKED {
        return Err(broken("it unpacks to more than 512 MiB".to_owned()));
    }
    if is_tar(&unpacked) {
        return untar(&unpacked, origin, TAR_GZ);
    }
    if unpacked.starts_with(&[0x1f, 0x8b]) {
        return Err(broken("it is gzipped twice".to_owned()));
    }
    load(&unpacked, origin)
}

/// The POSIX magic in the first header.
fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

fn untar(bytes: &[u8], origin: &str, form: &'static str) -> Result<Vec<Loaded>, LoadError> {
    let broken = |e: std::io::Error| LoadError::Archive {
        origin: origin.to_owned(),
        form,
        message: e.to_string(),
    };
    let mut found: Vec<(u64, Loaded)> = Vec::new();
    let mut wrong = None;
    for entry in tar::Archive::new(bytes).entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() || entry.size() > MAX_MEMBER {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = Zeroizing::new(Vec::new());
        entry.read_to_end(&mut content).map_err(broken)?;
        let mentions = |word: &[u8]| memchr::memmem::find(&content, word).is_some();
        // Static pod manifests mention the file, too: they are neither of both kinds.
        let candidate = mentions(b"EncryptionConfig")
            || (mentions(b"Secret") && mentions(b"encryption-config"));
        if !candidate {
            continue;
        }
        let location = format!("{origin}: {path}");
        let loaded = match manifests(&content) {
            Some(secrets) => from_manifests(&secrets, &location),
            None if is_config(&content) => plain(&content, &location).map(|l| vec![l]),
            None => continue,
        };
        match loaded {
            Ok(all) => {
                let revision = pod_revision(&path);
                for one in all {
                    if !found.iter().any(|(_, f)| f.sha256 == one.sha256) {
                        found.push((revision, one));
                    }
                }
            }
            Err(LoadError::Missing { .. }) => {}
            Err(e) => {
                wrong.get_or_insert(e);
            }
        }
    }
    // Newest revision of the static pod first: it says what is current.
    found.sort_by_key(|(revision, _)| std::cmp::Reverse(*revision));
    if found.is_empty() {
        let missing = LoadError::Missing { origin: origin.to_owned(), form };
        return Err(wrong.unwrap_or(missing));
    }
    Ok(found.into_iter().map(|(_, loaded)| loaded).collect())
}

/// `static-pod-resources/kube-apiserver-pod-12/secrets/…` → 12.
fn pod_revision(path: &str) -> u64 {
    path.split('/')
        .filter_map(|part| part.rsplit_once("-pod-")?.1.parse().ok())
        .next_back()
        .unwrap_or(0)
}

/// `<stage>-<sha256 in hex>` and nothing else (k3s `pkg/secretsencrypt/config.go`).
fn is_state_file(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    text.trim().split_once('-').is_some_and(|(stage, hash)| {
        !stage.is_empty()
            && stage.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            && hash.len() == 64
            && hash.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// Whether the text says that it is a configuration.
fn is_config(bytes: &[u8]) -> bool {
    documents(bytes).first().is_some_and(|d| {
        matches!(
            d.get("kind").and_then(Node::text),
            Some("EncryptionConfiguration" | "EncryptionConfig")
        )
    })
}

fn documents(bytes: &[u8]) -> Vec<Node> {
    std::str::from_utf8(bytes).ok().and_then(|t| yaml_tree::parse(t).ok()).unwrap_or_default()
}

/// The Secrets in the text; `None` if it holds no Secret and no list.
fn manifests(bytes: &[u8]) -> Option<Vec<Node>> {
    let mut secrets = Vec::new();
    let mut any = false;
    for document in documents(bytes) {
        any |= collect(document, &mut secrets);
    }
    any.then_some(secrets)
}

fn collect(node: Node, secrets: &mut Vec<Node>) -> bool {
    match node.get("kind").and_then(Node::text) {
        Some("Secret") => {
            secrets.push(node);
            true
        }
        Some("List" | "SecretList") => {
            for item in node.get("items").map_or(&[][..], Node::items) {
                let kind = item.get("kind").and_then(Node::text);
                if matches!(kind, Some("Secret") | None) {
                    secrets.push(item.clone());
                }
            }
            true
        }
        _ => false,
    }
}

fn from_manifests(secrets: &[Node], origin: &str) -> Result<Vec<Loaded>, LoadError> {
    let mut found: Vec<Loaded> = Vec::new();
    let mut wrong = None;
    for secret in secrets {
        let name = secret.get("metadata").map_or_else(String::new, |m| {
            let part = |key| m.get(key).and_then(Node::text).unwrap_or("");
            format!("{}/{}", part("namespace"), part("name"))
        });
        for (key, content) in data(secret) {
            let location = format!("{origin}: Secret {name} key {key}");
            match plain(&content, &location) {
                Ok(one) if found.iter().any(|f| f.sha256 == one.sha256) => {}
                Ok(one) => found.push(one),
                // Other data of the Secret are none of our business.
                Err(e) if DATA_KEYS.contains(&key.as_str()) || is_config(&content) => {
                    wrong.get_or_insert(e);
                }
                Err(_) => {}
            }
        }
    }
    if found.is_empty() {
        let missing = LoadError::Missing { origin: origin.to_owned(), form: SECRET };
        return Err(wrong.unwrap_or(missing));
    }
    Ok(found)
}

/// Data of a Secret; `stringData` wins, as on writing it to a cluster.
fn data(secret: &Node) -> Vec<(String, Zeroizing<Vec<u8>>)> {
    let mut all: Vec<(String, Zeroizing<Vec<u8>>)> = Vec::new();
    for (field, encoded) in [("stringData", false), ("data", true)] {
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

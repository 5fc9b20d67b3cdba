//! The forms in which machines and backups hold a configuration:
//!
//! - the file itself, YAML or JSON, which includes `encryption-config.json` of k3s and RKE2;
//! - a Secret manifest that carries it (YAML or JSON, `data` or `stringData`, alone, in a kubectl
//!   `List` or in several YAML documents), as `OpenShift` keeps it
//!   (openshift/library-go `pkg/operator/encryption/encryptiondata`);
//! - the same in a config map, and the files of RKE, Talos and `OpenShift` that [`super::kept`]
//!   knows, alone or inside of a manifest;
//! - any of these as UTF-16 text, as PowerShell writes it;
//! - a tar archive, gzipped or not, with either inside: `static_kuberesources_*.tar.gz` of an
//!   `OpenShift` backup (`cluster-backup.sh`).

use std::io::Read;

use zeroize::Zeroizing;

use super::loaded::{LoadError, Loaded, data, documents, plain};
use crate::yaml_tree::Node;

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

const MANIFEST_KINDS: [&str; 2] = ["Secret", "ConfigMap"];
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
    if let Some(text) = from_utf16(bytes) {
        return load_text(text.as_bytes(), origin, 0);
    }
    load_text(bytes, origin, 0)
}

/// Text that begins with UTF-16's byte order mark, as UTF-8.
fn from_utf16(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let unit: fn([u8; 2]) -> u16 = match bytes.get(..2)? {
        [0xFF, 0xFE] => u16::from_le_bytes,
        [0xFE, 0xFF] => u16::from_be_bytes,
        _ => return None,
    };
    let (pairs, []) = bytes[2..].as_chunks::<2>() else { return None };
    let units = pairs.iter().map(|pair| unit(*pair));
    char::decode_utf16(units).collect::<Result<String, _>>().ok().map(Zeroizing::new)
}

/// As [`load`], of text that lies inside that many others.
fn load_text(bytes: &[u8], origin: &str, inside: usize) -> Result<Vec<Loaded>, LoadError> {
    if is_state_file(bytes) {
        return Err(LoadError::StateFile { origin: origin.to_owned() });
    }
    let documents = documents(bytes);
    if let Some(found) = super::kept::find(&documents, origin, inside) {
        return found;
    }
    if let Some(manifests) = manifests(documents) {
        return from_manifests(&manifests, origin, inside);
    }
    Ok(vec![plain(bytes, origin)?])
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
            || (mentions(b"Secret") && mentions(b"encryption-config"))
            || mentions(b"EncryptionSecret");
        if !candidate {
            continue;
        }
        let location = format!("{origin}: {path}");
        let documents = documents(&content);
        let loaded = if let Some(found) = super::kept::find(&documents, &location, 0) {
            found
        } else if is_config(&documents) {
            plain(&content, &location).map(|l| vec![l])
        } else if let Some(secrets) = manifests(documents) {
            from_manifests(&secrets, &location, 0)
        } else {
            continue;
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
fn is_config(documents: &[Node]) -> bool {
    documents.first().is_some_and(|d| {
        matches!(
            d.get("kind").and_then(Node::text),
            Some("EncryptionConfiguration" | "EncryptionConfig")
        )
    })
}

/// The Secrets and config maps in the documents; `None` if there is none, and no list.
fn manifests(documents: Vec<Node>) -> Option<Vec<Node>> {
    let mut secrets = Vec::new();
    let mut any = false;
    for document in documents {
        any |= collect(document, &mut secrets);
    }
    any.then_some(secrets)
}

fn collect(node: Node, secrets: &mut Vec<Node>) -> bool {
    match node.get("kind").and_then(Node::text) {
        Some(kind) if MANIFEST_KINDS.contains(&kind) => {
            secrets.push(node);
            true
        }
        Some("List" | "SecretList" | "ConfigMapList") => {
            for item in node.get("items").map_or(&[][..], Node::items) {
                let kind = item.get("kind").and_then(Node::text);
                if kind.is_none_or(|kind| MANIFEST_KINDS.contains(&kind)) {
                    secrets.push(item.clone());
                }
            }
            true
        }
        _ => false,
    }
}

fn from_manifests(secrets: &[Node], origin: &str, inside: usize) -> Result<Vec<Loaded>, LoadError> {
    if let Some(found) = super::kept::openshift(secrets, origin) {
        return found;
    }
    let mut found: Vec<Loaded> = Vec::new();
    let mut wrong = None;
    for secret in secrets {
        let name = secret.get("metadata").map_or_else(String::new, |m| {
            let part = |key| m.get(key).and_then(Node::text).unwrap_or("");
            format!("{}/{}", part("namespace"), part("name"))
        });
        let kind = secret.get("kind").and_then(Node::text).unwrap_or("Secret");
        for (key, content) in data(secret) {
            let location = format!("{origin}: {kind} {name} key {key}");
            let documents = documents(&content);
            let (known, loaded) = match super::kept::find(&documents, &location, inside + 1) {
                Some(all) => (true, all),
                None => (is_config(&documents), plain(&content, &location).map(|l| vec![l])),
            };
            match loaded {
                Ok(all) => {
                    for one in all {
                        if !found.iter().any(|f| f.sha256 == one.sha256) {
                            found.push(one);
                        }
                    }
                }
                // Other data of the Secret are none of our business.
                Err(e) if known || DATA_KEYS.contains(&key.as_str()) => {
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

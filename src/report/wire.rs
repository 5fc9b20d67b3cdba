//! JSON shapes that several commands share.

use base64::Engine as _;
use serde::Serialize;

use crate::scan::Finding;
use crate::source::{SourceInfo, Visit};

/// `"source"`.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    kind: &'static str,
    location: String,
    revision: i64,
}

impl Source {
    /// From a source and what a visit of it said.
    #[must_use]
    pub fn new(info: &SourceInfo, visit: &Visit) -> Self {
        Self { kind: info.kind.as_str(), location: info.location.clone(), revision: visit.revision }
    }
}

/// `"config"`.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// Path as given.
    pub location: String,
    /// SHA-256 of the file's bytes, lowercase hex.
    pub sha256: String,
}

/// One part that could not be read.
#[derive(Clone, Debug, Serialize)]
pub struct Damage {
    location: String,
    what: String,
}

impl From<&crate::source::Damage> for Damage {
    fn from(d: &crate::source::Damage) -> Self {
        Self { location: d.location.clone(), what: d.what.clone() }
    }
}

/// One entry: a member of `entries` or a line of `-w jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    resource: String,
    namespace: Option<String>,
    name: String,
    provider: &'static str,
    version: Option<&'static str>,
    key_name: Option<String>,
    kms_key_id: Option<String>,
    status: Option<&'static str>,
    reason: Option<String>,
    size: u64,
    create_revision: i64,
    mod_revision: i64,
    version_count: i64,
}

impl From<&Finding> for Entry {
    fn from(f: &Finding) -> Self {
        let (key, key_b64) = match std::str::from_utf8(&f.key) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(base64::engine::general_purpose::STANDARD.encode(&f.key))),
        };
        Self {
            key,
            key_b64,
            resource: f.resource.clone(),
            namespace: f.namespace.clone(),
            name: f.name.clone(),
            provider: f.judged.provider.as_str(),
            version: f.judged.version.map(crate::envelope::Version::as_str),
            key_name: f.judged.key_name.clone().map(Into::into),
            kms_key_id: f.judged.kms_key_id.clone().map(Into::into),
            status: f.judged.status.map(crate::scan::Status::as_str),
            reason: f.judged.reason.clone().map(Into::into),
            size: f.size,
            create_revision: f.create_revision,
            mod_revision: f.mod_revision,
            version_count: f.version_count,
        }
    }
}

//! JSON shapes that several commands share.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine as _;
use serde::Serialize;

use super::text::cell;
use crate::resource::Location;
use crate::scan::Finding;
use crate::source::{SourceInfo, Visit};

/// `"source"`.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    kind: &'static str,
    location: String,
    /// None where there are no revisions.
    revision: Option<i64>,
}

impl Source {
    /// From a source and what a visit of it said.
    #[must_use]
    pub fn new(info: &SourceInfo, visit: &Visit) -> Self {
        let revision = (!info.kind.is_archive()).then_some(visit.revision);
        Self { kind: info.kind.as_str(), location: info.location.clone(), revision }
    }
}

/// `"config"`.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// Path as given.
    pub location: String,
    /// SHA-256 of the file's bytes, lowercase hex.
    pub sha256: String,
    /// The further files, whose keys are tried for reading only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Config>,
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

/// An etcd key: as text, or in base64 where it is none.
#[derive(Clone, Debug, Serialize)]
pub struct Key {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
}

impl Key {
    /// Of these bytes.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        let (key, key_b64) = key_fields(key);
        Self { key, key_b64 }
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
    /// `null` only for the deletions of a history.
    provider: Option<&'static str>,
    version: Option<&'static str>,
    key_name: Option<String>,
    kms_key_id: Option<String>,
    status: Option<&'static str>,
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    misplaced: Option<Misplaced>,
    size: u64,
    create_revision: i64,
    mod_revision: i64,
    version_count: i64,
}

/// Which object a misplaced entry holds.
#[derive(Clone, Debug, Serialize)]
pub struct Misplaced {
    kind: String,
    api_version: String,
    namespace: Option<String>,
    name: String,
    uid: Option<String>,
    /// Where the same UID is, if it is where it belongs.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_b64: Option<String>,
}

impl From<&crate::scan::place::Misplaced> for Misplaced {
    fn from(found: &crate::scan::place::Misplaced) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let is_copy = found.at_home == Some(crate::scan::place::AtHome::Same);
        let (at, at_b64) = if is_copy { key_fields(&found.home) } else { (None, None) };
        Self {
            kind: found.object.kind.to_string(),
            api_version: found.object.api_version.to_string(),
            namespace: some(&found.object.namespace),
            name: found.object.name.to_string(),
            uid: some(&found.object.uid),
            at,
            at_b64,
        }
    }
}

impl From<&Finding> for Entry {
    fn from(f: &Finding) -> Self {
        let (key, key_b64) = key_fields(&f.key);
        Self {
            key,
            key_b64,
            resource: f.resource.clone(),
            namespace: f.namespace.clone(),
            name: f.name.clone(),
            provider: Some(f.judged.provider.as_str()),
            version: f.judged.version.map(crate::envelope::Version::as_str),
            key_name: f.judged.key_name.clone().map(Into::into),
            kms_key_id: f.judged.kms_key_id.clone().map(Into::into),
            status: f.judged.status.map(crate::scan::Status::as_str),
            reason: f.judged.why().map(Cow::into_owned),
            misplaced: f.judged.misplaced.as_deref().map(Into::into),
            size: f.size,
            create_revision: f.create_revision,
            mod_revision: f.mod_revision,
            version_count: f.version_count,
        }
    }
}

impl Entry {
    /// The entry that a deletion leaves: nothing but its place and revision.
    #[must_use]
    pub fn deleted(key: &[u8], location: &Location<'_>, revision: i64) -> Self {
        let (text, key_b64) = key_fields(key);
        Self {
            key: text,
            key_b64,
            resource: location.resource.clone().into_owned(),
            namespace: location.namespace.clone().map(std::borrow::Cow::into_owned),
            name: location.name.clone().into_owned(),
            provider: None,
            version: None,
            key_name: None,
            kms_key_id: None,
            status: None,
            reason: None,
            misplaced: None,
            size: 0,
            create_revision: 0,
            mod_revision: revision,
            version_count: 0,
        }
    }
}

/// Columns of an entry in CSV.
pub const COLUMNS: [&str; 14] = [
    "key",
    "resource",
    "namespace",
    "name",
    "provider",
    "version",
    "key_name",
    "kms_key_id",
    "status",
    "reason",
    "size",
    "create_revision",
    "mod_revision",
    "version_count",
];

/// The values of [`COLUMNS`]; what is no text in a key is U+FFFD.
#[must_use]
pub fn row(f: &Finding) -> [Cow<'_, str>; COLUMNS.len()] {
    let j = &f.judged;
    let number = |n: i64| Cow::Owned(n.to_string());
    let cells = [
        String::from_utf8_lossy(&f.key),
        (&*f.resource).into(),
        f.namespace.as_deref().unwrap_or_default().into(),
        (&*f.name).into(),
        j.provider.as_str().into(),
        j.version.map_or("", crate::envelope::Version::as_str).into(),
        j.key_name.as_deref().unwrap_or_default().into(),
        j.kms_key_id.as_deref().unwrap_or_default().into(),
        j.status.map_or("", crate::scan::Status::as_str).into(),
        j.why().unwrap_or_default(),
        f.size.to_string().into(),
        number(f.create_revision),
        number(f.mod_revision),
        number(f.version_count),
    ];
    cells.map(|text: Cow<'_, str>| {
        let changed = match cell(&text) {
            Cow::Owned(shown) => Some(shown),
            Cow::Borrowed(_) => None,
        };
        changed.map_or(text, Cow::Owned)
    })
}

/// `key`, or `key_b64` for a key that is no text.
pub(super) fn key_fields(key: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(key) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(base64::engine::general_purpose::STANDARD.encode(key))),
    }
}

/// How long so many things take at a rate, where one is given.
#[cfg(feature = "live")]
pub(super) fn seconds(planned: u64, a_second: Option<f64>) -> Option<u64> {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // whole seconds of a positive, finite rate
    a_second.map(|rate| (planned as f64 / rate).ceil() as u64)
}

/// A document of `-w json`, with a line feed.
///
/// # Errors
/// When `out` cannot be written.
pub(super) fn document(document: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    writeln!(out)
}

/// The lines of `-w jsonl`.
///
/// # Errors
/// When `out` cannot be written.
pub(super) fn lines(
    rows: impl IntoIterator<Item = impl Serialize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    for row in rows {
        serde_json::to_writer(&mut *out, &row)?;
        writeln!(out)?;
    }
    Ok(())
}

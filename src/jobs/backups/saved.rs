//! Judgements as they are written and read back: in reports, and for a later run. Names of keys and
//! counts; nothing of what is stored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Backup, Earlier, Key, Kind, Needed, Outcome, Shard};
use crate::envelope::Provider;

/// The form of a report.
const REPORT: &str = "atrest.backups/v1";
/// The form of what is kept for a later run.
const STATE: &str = "atrest.backups-state/v1";

/// A report.
#[derive(Debug, Serialize, Deserialize)]
pub struct Document {
    schema: String,
    #[serde(default)]
    shard: Option<Part>,
    #[serde(default)]
    skipped: u64,
    backups: Vec<Row>,
    keys: Vec<Under>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Part {
    index: u32,
    of: u32,
    listed: u64,
}

/// One backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Where it is.
    pub location: String,
    /// What it is.
    pub kind: String,
    /// RFC 3339.
    pub taken: Option<String>,
    /// etcd's.
    pub revision: Option<i64>,
    /// `None` where it could not be read.
    pub totals: Option<Totals>,
    keys: Vec<Entries>,
    /// Places with plaintext outside the live state.
    pub residue: Option<u64>,
    /// Why it, or a part of it, could not be read.
    pub error: Option<String>,
}

/// Counts of entries; those by status only where values were decrypted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Totals {
    /// All of them.
    pub entries: u64,
    /// Stored unencrypted.
    pub plaintext: u64,
    /// Stored with a `k8s:enc:` prefix.
    pub encrypted: u64,
    /// By status.
    pub current: Option<u64>,
    /// See `current`.
    pub stale: Option<u64>,
    /// See `current`.
    pub unreadable: Option<u64>,
    /// See `current`.
    pub unknown: Option<u64>,
    /// Other objects than their keys say.
    pub misplaced: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entries {
    provider: String,
    key: Option<String>,
    #[serde(rename = "entries")]
    count: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Under {
    provider: String,
    key: Option<String>,
    backups: u64,
    oldest: Option<String>,
    newest: Option<String>,
}

/// Why a text is not what was saved.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It is something else.
    #[error("it is not what `backups` writes")]
    Foreign(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error("its form is `{0}`, and this program knows {known}", known = .1)]
    Schema(String, &'static str),
    /// A word that this version does not know.
    #[error("`{0}` is not known")]
    Word(String),
}

impl From<&Backup> for Row {
    fn from(b: &Backup) -> Self {
        let known = |n: u64| b.verified.then_some(n);
        Self {
            location: b.location.display().to_string(),
            kind: b.kind.as_str().to_owned(),
            taken: b.taken.map(|t| t.to_string()),
            revision: b.revision,
            totals: b.totals.map(|t| Totals {
                entries: t.entries,
                plaintext: t.plaintext,
                encrypted: t.encrypted,
                current: known(t.current),
                stale: known(t.stale),
                unreadable: known(t.unreadable),
                unknown: known(t.unknown),
                misplaced: known(t.misplaced),
            }),
            keys: b
                .keys
                .iter()
                .map(|(key, entries)| Entries {
                    provider: key.provider.as_str().to_owned(),
                    key: key.name.clone(),
                    count: *entries,
                })
                .collect(),
            residue: b.residue,
            error: b.error.clone(),
        }
    }
}

impl Row {
    /// The names of the keys that its entries are under, `provider key`.
    pub fn under(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|k| match &k.key {
            Some(name) => format!("{} {name}", k.provider),
            None => k.provider.clone(),
        })
    }

    fn backup(self) -> Result<Backup, SavedError> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == self.kind);
        let kind = kind.ok_or(SavedError::Word(self.kind))?;
        let time = |text: String| text.parse().map_err(|_| SavedError::Word(text));
        let mut keys = BTreeMap::new();
        for k in self.keys {
            let provider = Provider::ALL.into_iter().find(|p| p.as_str() == k.provider);
            let provider = provider.ok_or(SavedError::Word(k.provider))?;
            keys.insert(Key { provider, name: k.key }, k.count);
        }
        Ok(Backup {
            kind,
            taken: self.taken.map(time).transpose()?,
            revision: self.revision,
            verified: self.totals.is_some_and(|t| t.unreadable.is_some()),
            totals: self.totals.map(Into::into),
            keys,
            residue: self.residue,
            error: self.error,
            ..Backup::new(&PathBuf::from(self.location), None)
        })
    }
}

impl From<Totals> for crate::scan::Totals {
    fn from(t: Totals) -> Self {
        Self {
            entries: t.entries,
            plaintext: t.plaintext,
            encrypted: t.encrypted,
            current: t.current.unwrap_or_default(),
            stale: t.stale.unwrap_or_default(),
            unreadable: t.unreadable.unwrap_or_default(),
            unknown: t.unknown.unwrap_or_default(),
            misplaced: t.misplaced.unwrap_or_default(),
        }
    }
}

impl From<&Needed> for Under {
    fn from(n: &Needed) -> Self {
        Self {
            provider: n.key.provider.as_str().to_owned(),
            key: n.key.name.clone(),
            backups: n.backups,
            oldest: n.oldest.map(|t| t.to_string()),
            newest: n.newest.map(|t| t.to_string()),
        }
    }
}

impl From<&Outcome> for Document {
    fn from(outcome: &Outcome) -> Self {
        let part = |s: Shard| Part { index: s.index(), of: s.of(), listed: outcome.listed };
        Self {
            schema: REPORT.to_owned(),
            shard: outcome.shard.map(part),
            skipped: outcome.skipped,
            backups: outcome.backups.iter().map(Row::from).collect(),
            keys: outcome.keys.iter().map(Under::from).collect(),
        }
    }
}

impl Document {
    /// A report from the bytes of `-w json`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(bytes: &[u8]) -> Result<Outcome, SavedError> {
        let document: Self = serde_json::from_slice(bytes)?;
        of_form(&document.schema, REPORT)?;
        let backups: Vec<_> =
            document.backups.into_iter().map(Row::backup).collect::<Result<_, _>>()?;
        let part = document.shard;
        let shard = part.as_ref().map(|p| {
            Shard::new(p.index, p.of)
                .ok_or_else(|| SavedError::Word(format!("{}/{}", p.index, p.of)))
        });
        Ok(Outcome {
            shard: shard.transpose()?,
            listed: part.map_or(backups.len() as u64, |p| p.listed),
            skipped: document.skipped,
            keys: super::needed(&backups),
            backups,
        })
    }
}

fn of_form(schema: &str, known: &'static str) -> Result<(), SavedError> {
    if schema == known {
        return Ok(());
    }
    Err(SavedError::Schema(crate::visible::visible(schema), known))
}

/// What is kept for a later run.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    schema: String,
    judged_by: String,
    backups: Vec<Kept>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    identity: String,
    backup: Row,
}

impl State {
    /// Of these judgements, made by what `by` stands for. Left out is what may turn out
    /// otherwise another time: what could not be read, or depends on a KMS that did not answer.
    pub fn of<'b>(by: String, backups: impl Iterator<Item = &'b Backup>) -> Self {
        let kept = |b: &Backup| {
            let open = b.totals.is_some_and(|t| t.unknown > 0 || t.unreadable > 0);
            let again = b.error.is_some() || open && !b.kms.is_empty();
            let identity = b.identity.clone().filter(|_| !again)?;
            Some(Kept { identity, backup: Row::from(b) })
        };
        Self {
            schema: STATE.to_owned(),
            judged_by: by,
            backups: backups.filter_map(kept).collect(),
        }
    }

    /// What was judged by what `by` stands for; `None` where something else did.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub fn read(bytes: &[u8], by: &str) -> Result<Option<Earlier>, SavedError> {
        let state: Self = serde_json::from_slice(bytes)?;
        of_form(&state.schema, STATE)?;
        if state.judged_by != by {
            return Ok(None);
        }
        let mut earlier = Earlier::new();
        for kept in state.backups {
            let location = kept.backup.location.clone();
            let backup = Backup { identity: Some(kept.identity), ..kept.backup.backup()? };
            earlier.insert(location, backup);
        }
        Ok(Some(earlier))
    }

    /// As the bytes of a file.
    ///
    /// # Errors
    /// Never, as far as is known.
    pub fn write(&self) -> std::io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

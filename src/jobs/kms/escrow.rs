//! Unwraps every data key that live entries and superseded revisions need, shows that each opens a
//! value, and writes them into a file that is encrypted to age recipients.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rayon::prelude::*;

use super::uses::{self, Extent, PluginName, Reading, Tally, Uses, Value, Wrapped, sum};
use crate::agefile::Unlock;
use crate::config::Kms;
use crate::envelope::Version;
use crate::jobs::Observer;
use crate::kms::escrow::{self, Document, EscrowError, Kept, Missing, Name, Recipient, Sealing};
use crate::kms::{KmsError, Unwrap, WrappedKey};
use crate::secret::KeyMaterial;
use crate::source::{Source, SourceError, SourceInfo};
use crate::temporary;
use crate::transform::kms_v2::{DataKey, Object};
use crate::transform::{CipherError, kms_v1};

/// Values of v1 that are held until their keys are unwrapped at once. Each has a key of its own.
const BATCH: usize = 256;
/// And how many bytes of them.
const BATCH_BYTES: usize = 16 << 20;

/// What to read, and who may read the result.
pub struct Options<'a> {
    /// What is read; its configurations name the plugins.
    pub place: Extent<'a>,
    /// What a proxy puts before the API server's keys.
    pub proxy_namespace: &'a [u8],
    /// Unwraps data keys.
    pub kms: &'a dyn Unwrap,
    /// To whom it is encrypted.
    pub recipients: &'a [Recipient],
    /// Written as text.
    pub armor: bool,
    /// The file, and whether it may replace another one; `None` returns its bytes.
    pub out: Option<(&'a Path, bool)>,
    /// Opens the result again, and compares.
    pub check_with: Option<&'a Unlock>,
}

/// What was done.
pub struct Outcome {
    /// What was read.
    pub source: SourceInfo,
    /// What the reading says of itself.
    pub reading: Reading,
    /// By provider.
    pub plugins: Vec<Plugin>,
    /// It was opened again, and has every key.
    pub checked: bool,
    /// The file's bytes, where they were not written.
    pub bytes: Option<Vec<u8>>,
}

/// What became of the data keys of one provider.
#[derive(Debug)]
pub struct Plugin {
    /// Which one.
    pub name: PluginName,
    /// Data keys that are kept, and what needs them.
    pub kept: (u64, Tally),
    /// Those that are not, what needs them, and why, by reason.
    pub missing: BTreeMap<String, (u64, Tally)>,
    /// Values that name it and are damaged: no key reads them.
    pub malformed: Tally,
}

/// Why there is no escrow.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is nothing to keep, and whether anything was read at all.
    #[error("nothing that was read depends on a KMS data key")]
    Nothing(Box<Reading>),
    /// No data key was unwrapped.
    #[error("none of the data keys could be unwrapped")]
    NoneUnwrapped(Vec<Plugin>),
    /// It cannot be encrypted.
    #[error(transparent)]
    Escrow(#[from] EscrowError),
    /// The file cannot be written.
    #[error("the file cannot be written")]
    Write(#[source] io::Error),
    /// It opens, and has not what was put into it.
    #[error("what was written does not read back as it was")]
    Different,
}

/// Keeps the data keys.
///
/// # Errors
/// See [`Error`]; there is no file then, but for one that does not read back.
pub fn run(
    source: &mut dyn Source,
    options: &Options<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let configs = options.place.configs;
    let mut uses = Uses::new(configs);
    let mut found = Found::new(options);
    let take = &mut |value: Value<'_>| found.take(value);
    let reading = uses::read_each(source, (options.place, true), &mut uses, take, observer)?;
    found.unwrap_batch();
    if uses.plugins.values().all(|plugin| plugin.keys.is_empty()) {
        return Err(Error::Nothing(Box::new(reading)));
    }
    let (document, plugins) = sort(&source.info(), &reading, uses, found.keys);
    if document.keys.is_empty() {
        return Err(Error::NoneUnwrapped(plugins));
    }
    let sealing = Sealing { recipients: options.recipients, armor: options.armor };
    let bytes = escrow::seal(&document, sealing)?;
    let bytes = match options.out {
        None => Some(bytes),
        Some((path, replace)) => {
            temporary::write(path, &bytes, replace).map_err(Error::Write)?;
            None
        }
    };
    let checked = match options.check_with {
        None => false,
        Some(unlock) => {
            let written = match (&bytes, options.out) {
                (None, Some((path, _))) => std::fs::read(path).map_err(Error::Write)?,
                (bytes, _) => bytes.clone().unwrap_or_default(),
            };
            check(&document, &escrow::open(&written, unlock)?)?;
            true
        }
    };
    Ok(Outcome { source: source.info(), reading, plugins, checked, bytes })
}

fn check(written: &Document, read: &Document) -> Result<(), Error> {
    let same = |(a, b): (&Kept, &Kept)| a.name == b.name && a.key.same(&b.key);
    let all =
        written.keys.len() == read.keys.len() && written.keys.iter().zip(&read.keys).all(same);
    if all { Ok(()) } else { Err(Error::Different) }
}

/// Data keys that were unwrapped so far, or why not.
struct Found<'a> {
    options: &'a Options<'a>,
    configured: Vec<(PluginName, &'a Kms)>,
    keys: BTreeMap<(PluginName, Wrapped), Result<KeyMaterial, Failed>>,
    batch: Vec<Sample>,
    batch_bytes: usize,
}

/// Why a data key is not kept.
struct Failed {
    /// Another value may still show that the key is right.
    another_may: bool,
    why: String,
}

/// A value, held.
struct Sample {
    plugin: PluginName,
    wrapped: Wrapped,
    etcd_key: Vec<u8>,
    payload: Vec<u8>,
}

impl<'a> Found<'a> {
    fn new(options: &'a Options<'a>) -> Self {
        Self {
            options,
            configured: options.place.configs.map(uses::configured).unwrap_or_default(),
            keys: BTreeMap::new(),
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    fn take(&mut self, value: Value<'_>) {
        let id = (value.plugin.clone(), value.wrapped.clone());
        if self.keys.get(&id).is_some_and(|k| k.as_ref().err().is_none_or(|f| !f.another_may)) {
            return;
        }
        let (plugin, wrapped) = id;
        if plugin.version == Version::V2 {
            let key = self.unwrap(value);
            self.keep((plugin, wrapped), key);
            return;
        }
        self.batch_bytes += value.payload.len();
        self.batch.push(Sample {
            plugin,
            wrapped,
            etcd_key: value.etcd_key.to_vec(),
            payload: value.payload.to_vec(),
        });
        if self.batch.len() >= BATCH || self.batch_bytes >= BATCH_BYTES {
            self.unwrap_batch();
        }
    }

    fn unwrap_batch(&mut self) {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let unwrap = |sample: &Sample| {
            let Sample { plugin, wrapped, etcd_key, payload } = sample;
            self.unwrap(Value { plugin, wrapped, etcd_key, payload })
        };
        let keys: Vec<_> = batch.par_iter().map(unwrap).collect();
        for (sample, key) in batch.into_iter().zip(keys) {
            self.keep((sample.plugin, sample.wrapped), key);
        }
    }

    /// What was shown once stays so.
    fn keep(&mut self, id: (PluginName, Wrapped), key: Result<KeyMaterial, Failed>) {
        let known = self
            .keys
            .entry(id)
            .or_insert_with(|| Err(Failed { another_may: true, why: String::new() }));
        if known.is_err() {
            *known = key;
        }
    }

    /// Has whoever knows the provider unwrap the key, and shows that it opens the value.
    fn unwrap(&self, value: Value<'_>) -> Result<KeyMaterial, Failed> {
        let namespace = self.options.proxy_namespace;
        let etcd_key = value.etcd_key.strip_prefix(namespace).unwrap_or(value.etcd_key);
        let value = Value { etcd_key, ..value };
        let mut failed: Option<Failed> = None;
        for (_, kms) in self.configured.iter().filter(|(name, _)| name == value.plugin) {
            match unwrap(self.options.kms, kms, value) {
                Ok(key) => return Ok(key),
                Err(why) => failed = Some(why),
            }
        }
        Err(failed.unwrap_or_else(|| Failed {
            another_may: false,
            why: "no configuration has this provider".to_owned(),
        }))
    }
}

fn unwrap(kms: &dyn Unwrap, plugin: &Kms, value: Value<'_>) -> Result<KeyMaterial, Failed> {
    let silent = |e: &KmsError| Failed { another_may: false, why: e.to_string() };
    let wrong = |e: &CipherError| Failed {
        another_may: true,
        why: format!("what was unwrapped opens no value: {e}"),
    };
    if plugin.api_version == Version::V1 {
        let payload = kms_v1::Payload::parse(value.payload).map_err(|e| wrong(&e))?;
        let key = kms.unwrap_v1(plugin, payload.wrapped).map_err(|e| silent(&e))?;
        payload.open(&key, value.etcd_key).map_err(|e| wrong(&e))?;
        return Ok(key);
    }
    let object = Object::parse(value.payload).map_err(|e| wrong(&e))?;
    let wrapped = WrappedKey {
        key_id: object.key_id,
        source: object.source,
        annotations: &object.annotations,
    };
    let key = kms.unwrap_v2(plugin, wrapped).map_err(|e| silent(&e))?;
    DataKey::new(object.source_type, &key)
        .and_then(|data_key| data_key.open(value.etcd_key, object.data))
        .map_err(|e| wrong(&e))?;
    Ok(key)
}

/// What goes into the file, and what is told of it.
fn sort(
    info: &SourceInfo,
    reading: &Reading,
    uses: Uses,
    mut found: BTreeMap<(PluginName, Wrapped), Result<KeyMaterial, Failed>>,
) -> (Document, Vec<Plugin>) {
    let mut document = Document {
        created: jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string(),
        source: (info.kind.as_str().to_owned(), info.location.clone(), reading.visit.revision),
        keys: Vec::new(),
        missing: Vec::new(),
    };
    let mut plugins = Vec::new();
    for (plugin, used) in uses.plugins {
        let mut told = Plugin {
            name: plugin.clone(),
            kept: Default::default(),
            missing: BTreeMap::new(),
            malformed: sum(&used.malformed),
        };
        for (wrapped, by) in used.keys {
            let tally = sum(&by);
            let history_entries = reading.with_history.then_some(tally.history);
            let name = name(&plugin, &wrapped);
            let kind = wrapped.kind.map(|kind| kind.as_str().into());
            let count = match found.remove(&(plugin.clone(), wrapped)) {
                Some(Ok(key)) => {
                    let entries = tally.entries;
                    document.keys.push(Kept { name, kind, key, entries, history_entries });
                    &mut told.kept
                }
                failed => {
                    let why = failed.and_then(Result::err).map_or_else(String::new, |f| f.why);
                    document.missing.push(Missing {
                        name,
                        entries: tally.entries,
                        history_entries,
                        reason: why.clone(),
                    });
                    told.missing.entry(why).or_default()
                }
            };
            count.0 += 1;
            count.1.add(tally);
        }
        plugins.push(told);
    }
    (document, plugins)
}

fn name(plugin: &PluginName, wrapped: &Wrapped) -> Name {
    Name {
        provider: plugin.name.clone(),
        version: plugin.version,
        key_id: wrapped.key_id.clone(),
        sha256: wrapped.digest(),
        annotations: wrapped.annotations.clone(),
    }
}

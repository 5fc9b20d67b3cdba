//! Asks every configured plugin for everything once, and compares what it writes with now with
//! what live entries name.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use super::uses::{self, Extent, PluginName, Reading, Uses, sum};
use crate::config::{ConfigSet, Kms};
use crate::jobs::Observer;
use crate::kms::{Plugins, Probe};
use crate::source::{Source, SourceError, SourceInfo};

/// A key ID that live entries name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyId {
    /// The key ID; `None` for v1, whose values name none.
    pub key_id: Option<String>,
    /// How many name it.
    pub entries: u64,
    /// The plugin writes with it now; `None` where that is not known.
    pub current: Option<bool>,
}

/// One plugin.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The provider's name and version.
    pub name: PluginName,
    /// Where it listens, as configured.
    pub endpoint: String,
    /// The configuration that has it.
    pub location: String,
    /// Resources, as configured, that it writes by the first configuration.
    pub writes: Vec<String>,
    /// What it said.
    pub probe: Probe,
    /// What live entries name; `None` where no source was read.
    pub key_ids: Option<Vec<KeyId>>,
}

impl Checked {
    /// Why the API server could not use it, if so.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        if self.probe.is_usable() {
            return None;
        }
        let untold = || "it did not get as far as a round trip".to_owned();
        Some(self.probe.error.as_ref().map_or_else(untold, ToString::to_string))
    }
}

/// Live entries of a provider that no configuration has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfigured {
    /// The provider's name and version, as the values have it.
    pub name: PluginName,
    /// Which of its keys.
    pub key_ids: Vec<KeyId>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// In the order of the configurations.
    pub plugins: Vec<Checked>,
    /// Needed by entries, and nowhere configured.
    pub unconfigured: Vec<Unconfigured>,
    /// What was read.
    pub source: Option<(SourceInfo, Reading)>,
    /// Live values that name a plugin and are damaged.
    pub malformed: u64,
}

/// Asks all plugins at once. With a source, its live entries are counted by key ID.
///
/// # Errors
/// When the source cannot be read.
pub fn run(
    configs: &ConfigSet,
    plugins: &Plugins,
    source: Option<(&mut dyn Source, Extent<'_>)>,
    observer: &mut dyn Observer,
) -> Result<Outcome, SourceError> {
    let mut outcome = Outcome::default();
    let mut counted = None;
    if let Some((source, place)) = source {
        let mut uses = Uses::new(Some(configs));
        let reading = uses::read(source, place, false, &mut uses, observer)?;
        outcome.source = Some((source.info(), reading));
        outcome.malformed = uses.plugins.values().map(|p| sum(&p.malformed).entries).sum();
        counted = Some(uses);
    }
    let configured = uses::configured(configs);
    let probes: Vec<Probe> = thread::scope(|scope| {
        let asked: Vec<_> =
            configured.iter().map(|(_, kms)| scope.spawn(|| plugins.probe(kms))).collect();
        asked.into_iter().map(|asked| asked.join().unwrap_or_default()).collect()
    });
    let names: BTreeSet<&PluginName> = configured.iter().map(|(name, _)| name).collect();
    if let Some(uses) = &counted {
        for (name, used) in uses.plugins.iter().filter(|(name, _)| !names.contains(name)) {
            let key_ids = key_ids(used, None);
            outcome.unconfigured.push(Unconfigured { name: name.clone(), key_ids });
        }
    }
    for ((name, kms), probe) in configured.iter().zip(probes) {
        let used = counted.as_ref().map(|uses| uses.plugins.get(name).cloned().unwrap_or_default());
        outcome.plugins.push(Checked {
            name: name.clone(),
            endpoint: kms.endpoint.url.clone(),
            location: location(configs, kms),
            writes: uses::writes(configs, kms),
            key_ids: used.map(|used| key_ids(&used, probe.key_id.as_deref())),
            probe,
        });
    }
    Ok(outcome)
}

/// Live entries by key ID; `now` is the one that the plugin names.
fn key_ids(used: &uses::Plugin, now: Option<&str>) -> Vec<KeyId> {
    let mut by: BTreeMap<Option<&str>, u64> = BTreeMap::new();
    for (wrapped, resources) in &used.keys {
        *by.entry(wrapped.key_id.as_deref()).or_default() += sum(resources).entries;
    }
    by.into_iter()
        .map(|(key_id, entries)| KeyId {
            key_id: key_id.map(str::to_owned),
            entries,
            current: key_id.zip(now).map(|(id, now)| id == now),
        })
        .collect()
}

/// The first configuration that has the plugin.
fn location(configs: &ConfigSet, kms: &Kms) -> String {
    let has = |file: &&crate::config::Loaded| {
        file.config
            .providers()
            .any(|s| matches!(s.provider, crate::config::ProviderConfiguration::Kms(k) if k == kms))
    };
    configs.files().iter().find(has).map(|file| file.location.clone()).unwrap_or_default()
}

//! What depends on KMS plugins, their keys and the data keys that these wrap: live entries,
//! superseded revisions, what is left of others in files, and backups, by count and resource, and
//! so what breaks when one is destroyed.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use super::left::{self, Left};
use super::uses::{self, ByResource, Extent, PluginName, Reading, Tally, Uses, Wrapped, sum};
use crate::config::Kms;
use crate::envelope::{Provider, Version};
use crate::forensics::keys::KeyName;
use crate::jobs::residue::{Error, Opened};
use crate::jobs::{Observer, backups};
use crate::kms::Unwrap;
use crate::source::SourceInfo;

/// Resources that a sentence names.
const NAMED: usize = 4;

/// What to look at.
pub struct Options<'a> {
    /// Of the source.
    pub place: Extent<'a>,
    /// Is asked what the configured plugins write with now.
    pub kms: &'a dyn Unwrap,
    /// Backups that were judged: their live entries count.
    pub backups: &'a [backups::Backup],
    /// What is left of a damaged file is searched.
    pub salvage: bool,
}

/// What was found.
pub struct Outcome {
    /// What was read.
    pub source: SourceInfo,
    /// What the reading says of itself.
    pub reading: Reading,
    /// What is said of values that the source no longer serves.
    pub left: Left,
    /// By name and version.
    pub plugins: Vec<Plugin>,
    /// What was read, where it can be read on.
    pub opened: Option<Opened>,
}

/// A KMS provider, and what depends on it.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Its name and version.
    pub name: PluginName,
    /// A configuration has it; `None` without any.
    pub configured: Option<bool>,
    /// Resources, as configured, that are written with it.
    pub writes: Vec<String>,
    /// v2 and configured: the key ID that it writes with now, or why that is not known.
    pub now: Option<Result<String, String>>,
    /// By key ID. v1 has one, without an ID.
    pub keys: Vec<Key>,
    /// Values that name it and are damaged, which nobody can read.
    pub malformed: ByResource,
}

/// A key of a plugin, and what depends on it.
#[derive(Clone, Debug, Default)]
pub struct Key {
    /// Its ID; `None` for v1.
    pub id: Option<String>,
    /// The plugin writes with it now; `None` where that is not known.
    pub current: Option<bool>,
    /// What depends on it.
    pub resources: ByResource,
    /// The data keys that it wraps.
    pub data_keys: Vec<(Wrapped, Tally)>,
    /// Backups with live entries under it.
    pub backups: Vec<InBackup>,
}

/// A backup that depends on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InBackup {
    /// Where it is.
    pub location: PathBuf,
    /// When it was taken.
    pub taken: Option<jiff::Timestamp>,
    /// Live entries in it under the key.
    pub entries: u64,
}

/// Counts what depends on what.
///
/// # Errors
/// When the source cannot be read or searched.
pub fn run(
    mut opened: Opened,
    options: &Options<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let configs = options.place.configs;
    let mut uses = Uses::new(configs);
    let mut served = HashSet::new();
    let source = opened.source();
    let info = source.info();
    let mut note = |value: uses::Value<'_>| {
        served.insert(value.digest());
    };
    let place = (options.place, true);
    let mut reading = uses::read_each(source, place, &mut uses, &mut note, observer)?;
    let (mut left, opened) =
        left::read(opened, (options.place, options.salvage), &served, &mut uses)?;
    for part in left.damage.drain(..) {
        if !reading.visit.damage.contains(&part) {
            reading.visit.damage.push(part);
        }
    }
    let mut plugins: BTreeMap<PluginName, Plugin> = BTreeMap::new();
    for (name, used) in uses.plugins {
        plugins.insert(name.clone(), Plugin::of(name, used, configs.is_some()));
    }
    for backup in options.backups {
        for (name, entries) in &backup.kms {
            let Some(plugin) = plugin_name(name) else { continue };
            let plugin = plugins
                .entry(plugin)
                .or_insert_with_key(|name| Plugin::new(name.clone(), configs.is_some()));
            plugin.key(name.kms_key_id.as_deref()).backups.push(InBackup {
                location: backup.location.clone(),
                taken: backup.taken,
                entries: *entries,
            });
        }
    }
    for (name, kms) in configs.map(uses::configured).unwrap_or_default() {
        let plugin = plugins.entry(name).or_insert_with_key(|name| Plugin::new(name.clone(), true));
        plugin.configured = Some(true);
        if plugin.now.is_none() {
            plugin.writes = configs.map(|set| uses::writes(set, kms)).unwrap_or_default();
            plugin.ask(kms, options.kms);
        }
    }
    let plugins = plugins.into_values().collect();
    Ok(Outcome { source: info, reading, left, plugins, opened })
}

fn plugin_name(name: &KeyName) -> Option<PluginName> {
    let version = name.version.filter(|_| name.provider == Provider::Kms)?;
    Some(PluginName { name: name.key.clone().unwrap_or_default(), version })
}

impl Plugin {
    fn new(name: PluginName, with_configuration: bool) -> Self {
        Self {
            name,
            configured: with_configuration.then_some(false),
            writes: Vec::new(),
            now: None,
            keys: Vec::new(),
            malformed: ByResource::new(),
        }
    }

    fn of(name: PluginName, used: uses::Plugin, with_configuration: bool) -> Self {
        let mut plugin = Self::new(name, with_configuration);
        plugin.malformed = used.malformed;
        for (wrapped, by) in used.keys {
            let key = plugin.key(wrapped.key_id.as_deref());
            key.data_keys.push((wrapped, sum(&by)));
            for (resource, tally) in by {
                key.resources.entry(resource).or_default().add(tally);
            }
        }
        plugin
    }

    /// The key of an ID, new if need be.
    fn key(&mut self, id: Option<&str>) -> &mut Key {
        let at = match self.keys.binary_search_by(|k| k.id.as_deref().cmp(&id)) {
            Ok(at) => at,
            Err(at) => {
                self.keys.insert(at, Key { id: id.map(str::to_owned), ..Key::default() });
                at
            }
        };
        &mut self.keys[at]
    }

    /// Has a v2 plugin tell which key it writes with.
    fn ask(&mut self, kms: &Kms, plugins: &dyn Unwrap) {
        if kms.api_version == Version::V1 {
            return;
        }
        let now = plugins.key_id(kms);
        if let Ok(now) = &now {
            self.key(Some(now));
            for key in &mut self.keys {
                key.current = Some(key.id.as_deref() == Some(now));
            }
        }
        self.now = Some(now.map(|id| id.to_string()).map_err(|e| e.to_string()));
    }
}

impl Key {
    /// All that depends on it in the source.
    #[must_use]
    pub fn tally(&self) -> Tally {
        sum(&self.resources)
    }

    /// Nothing that is served or backed up depends on it, but something that is left of what was.
    #[must_use]
    pub fn only_left(&self) -> bool {
        let tally = self.tally();
        tally.residue > 0 && Tally { residue: 0, ..tally }.is_empty() && self.backups.is_empty()
    }

    /// What breaks when it is destroyed, as a sentence. `writes` is what its plugin writes.
    #[must_use]
    pub fn breaks(&self, writes: &[String]) -> String {
        let counted = |n: u64, one: &str, many: &str| match n {
            0 => None,
            1 => Some(format!("1 {one}")),
            n => Some(format!("{n} {many}")),
        };
        let tally = self.tally();
        let live = counted(tally.entries, "live entry", "live entries")
            .map(|text| format!("{text} ({})", self.names()));
        let backups = counted(self.backups.len() as u64, "backup", "backups").map(|text| {
            let newest = self.backups.iter().filter_map(|b| b.taken).max();
            newest.map_or(text.clone(), |t| format!("{text} (the newest of {t})"))
        });
        let lost: Vec<String> = [
            live,
            counted(tally.history, "superseded revision", "superseded revisions"),
            counted(
                tally.residue,
                "record that only lies in files still",
                "records that only lie in files still",
            ),
            backups,
        ]
        .into_iter()
        .flatten()
        .collect();
        let written = (self.current == Some(true) && !writes.is_empty())
            .then(|| format!("{} can no longer be written", writes.join(", ")));
        let read = (!lost.is_empty()).then(|| format!("nobody reads {} any more", and(&lost)));
        let left = self.only_left().then(|| "only residue needs it".to_owned());
        let parts: Vec<String> = left.into_iter().chain(read).chain(written).collect();
        if parts.is_empty() { "nothing here depends on it".to_owned() } else { parts.join("; ") }
    }

    /// Resources of live entries, the most frequent ones first.
    fn names(&self) -> String {
        let mut by: Vec<_> = self.resources.iter().filter(|(_, t)| t.entries > 0).collect();
        by.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.entries));
        let mut names: Vec<String> = by
            .iter()
            .take(NAMED)
            .map(|(name, tally)| format!("{} {name}", tally.entries))
            .collect();
        if by.len() > NAMED {
            names.push("others".to_owned());
        }
        names.join(", ")
    }
}

fn and(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_says_what_breaks() {
        let mut key = Key::default();
        assert_eq!(key.breaks(&["secrets".to_owned()]), "nothing here depends on it");
        key.current = Some(true);
        assert_eq!(key.breaks(&["secrets".to_owned()]), "secrets can no longer be written");
        let tally = |entries, history| Tally { entries, history, residue: 0 };
        key.resources = [
            ("configmaps".to_owned(), tally(1, 0)),
            ("secrets".to_owned(), tally(3, 2)),
            ("widgets.example.com".to_owned(), tally(0, 1)),
        ]
        .into();
        assert_eq!(
            key.breaks(&[]),
            "nobody reads 4 live entries (3 secrets, 1 configmaps) and 3 superseded revisions any more"
        );
        key.resources.clear();
        key.resources = [("secrets".to_owned(), Tally { residue: 2, ..Tally::default() })].into();
        assert_eq!(
            key.breaks(&[]),
            "only residue needs it; nobody reads 2 records that only lie in files still any more"
        );
        key.backups = vec![InBackup { location: "b".into(), taken: None, entries: 5 }];
        assert!(!key.only_left());
        key.resources.clear();
        assert_eq!(key.breaks(&[]), "nobody reads 1 backup any more");
    }
}

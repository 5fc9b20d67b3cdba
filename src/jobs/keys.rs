//! What each key is needed for, by everything that is stored, and whether it may leave the
//! configuration.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use super::Observer;
use crate::config::{ConfigSet, ProviderConfiguration};
use crate::entry::{Entry, EntryRef};
use crate::envelope::{Provider, Version};
use crate::forensics::keys::{KeyName, KeyRow, KeyUses, PluginKeys};
use crate::kms::Unwrap;
use crate::resource::{Selection, Selector, Sought};
use crate::scan::Judge;
use crate::source::{Damage, Query, Record, Source, SourceError, SourceKind, Visit};
use crate::transform::{ReadError, Transformers};

/// What to count.
pub struct Options<'o> {
    /// Entries that are counted as asked for.
    pub selection: &'o Selection,
    /// What must be there of it.
    pub sought: Sought,
    /// The configurations that keys may leave.
    pub configs: Option<&'o ConfigSet>,
    /// How a value is stored.
    pub judge: &'o dyn Judge,
    /// Says which key ID a KMS v2 provider writes with.
    pub plugins: &'o dyn Unwrap,
    /// The configured secrets, to find the one whose name alone is wrong.
    pub transformers: Option<&'o Transformers>,
    /// As of this revision; `None` is the newest.
    pub revision: Option<i64>,
    /// What the verdict is about and lies in another source.
    pub unexamined: Vec<Damage>,
}

/// What was counted.
pub struct Outcome {
    /// What the source said.
    pub visit: Visit,
    /// Every key that is found or configured.
    pub keys: Vec<KeyRow>,
    /// What the KMS plugins that write said of the key that they write with.
    pub plugins: PluginKeys,
    /// Keys that live entries need and no configuration has, by provider, version and name.
    pub missing: Vec<Missing>,
    /// What was seen of what must be there.
    pub sought: Sought,
}

/// A key that is needed and not configured.
pub struct Missing {
    /// The key, without a plugin's own.
    pub name: KeyName,
    /// Which configured secret reads what it encrypted, in words, if one does.
    pub reads: Option<String>,
}

impl Outcome {
    /// Whether a key is not needed by what was counted.
    #[must_use]
    pub fn has_unneeded(&self) -> bool {
        let safe = |key: &KeyRow| key.safe_to_remove && key.configured == Some(true);
        self.keys.iter().any(|key| safe(key) || key.key_id_needed == Some(false))
    }
}

/// Counts what needs which key.
///
/// # Errors
/// When the source cannot be read.
pub fn run(
    source: &mut dyn Source,
    options: &Options<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, SourceError> {
    let configs = options.configs;
    // A key that only other resources or namespaces need is needed all the same, so all are read.
    let everything = Query {
        ranges: options.selection.scope.ranges(&[Selector::All]),
        revision: options.revision,
        ordered: false,
    };
    let mut count = Count {
        options,
        served: HashMap::new(),
        sought: options.sought.clone(),
        uses: KeyUses::default(),
        samples: BTreeMap::new(),
    };
    let (mut all_read, mut served_read) = (true, true);
    let (mut visit, with_history) = match count.everything(source, &everything, observer) {
        // What the user may read is most likely what the configuration serves.
        Err(e) if e.is_unreadable_to_user() => {
            let judged = options.selection.judged(configs.map(ConfigSet::resources));
            let served = Query { ranges: judged.query(None, false).ranges, ..everything };
            all_read = false;
            match count.everything(source, &served, observer) {
                // Or what was asked for.
                Err(e) if e.is_unreadable_to_user() && !options.selection.namespaces.is_empty() => {
                    let asked = options.selection.query(options.revision, false);
                    let counted = count.everything(source, &asked, observer)?;
                    let words = options.selection.words();
                    observer.warning(&format!("only {words} could be read: {e}"));
                    served_read = false;
                    counted
                }
                counted => {
                    let counted = counted?;
                    observer.warning(&format!("only {} could be read: {e}", judged.names()));
                    counted
                }
            }
        }
        counted => counted?,
    };
    visit.damage.extend(options.unexamined.iter().cloned());
    let plugins = configs.map(|set| plugin_keys(set, options.plugins)).unwrap_or_default();
    // What the configuration does not serve is nobody's to read by it; without one, anything may
    // need a key.
    let complete = visit.damage.is_empty() && served_read && (all_read || configs.is_some());
    let archive = source.info().kind.is_archive();
    if archive {
        observer.note(
            "an archive of objects need not hold all that the cluster has: no key is called safe to remove",
        );
    }
    let complete = complete && !archive;
    let mut keys = count.uses.rows(configs, &plugins, with_history, complete);
    let missing = count.missing(&keys);
    for row in &mut keys {
        keep_what_reads(row, &missing);
    }
    Ok(Outcome { visit, keys, plugins, missing, sought: count.sought })
}

/// A secret that reads what another name encrypted is not to go, whatever its own name says.
fn keep_what_reads(row: &mut KeyRow, missing: &[Missing]) {
    let Some(name) = row.name.key.as_deref().map(|key| format!("`{key}`")) else { return };
    let reads = |m: &&Missing| m.reads.as_ref().is_some_and(|words| words.contains(&name));
    if row.safe_to_remove
        && row.configured == Some(true)
        && let Some(other) = missing.iter().find(reads)
    {
        row.safe_to_remove = false;
        let of = other.name.key.as_deref().unwrap_or_default();
        row.reason = format!("its secret reads the entries of `{of}`, which is not configured");
    }
}

/// One live entry, and its resource.
type Sample = (String, Entry);

struct Count<'o> {
    options: &'o Options<'o>,
    /// Whether plaintext of a resource needs an identity provider of the configuration.
    served: HashMap<String, bool>,
    sought: Sought,
    uses: KeyUses,
    /// The first entry of each key, where there are secrets to try on it.
    samples: BTreeMap<KeyName, Sample>,
}

impl Count<'_> {
    /// Counts entries, and superseded revisions where the source tells them: says whether it did.
    fn everything(
        &mut self,
        source: &mut dyn Source,
        query: &Query,
        observer: &mut dyn Observer,
    ) -> Result<(Visit, bool), SourceError> {
        self.uses = KeyUses::default();
        self.samples.clear();
        observer.begin("entries", &mut || source.estimate(query));
        let mut visit = source.visit(query, &mut |entry| {
            observer.advance(1);
            self.live(entry);
            ControlFlow::Continue(())
        })?;
        observer.end();
        let past = Query { revision: Some(visit.revision), ..query.clone() };
        observer.begin("revisions", &mut || None);
        let history = source.history(&past, &mut |record| {
            observer.advance(1);
            if let Record::Put(entry) = record
                && let Some((name, _)) = self.needed(entry)
            {
                self.uses.stored(name);
            }
            ControlFlow::Continue(())
        });
        observer.end();
        match history {
            Ok(past) => {
                add(&mut visit.damage, past.damage);
                add(&mut visit.notes, past.notes);
                Ok((visit, true))
            }
            Err(e)
                if e.is_no_history()
                    || source.info().kind == SourceKind::Etcd && !e.is_untrue() =>
            {
                observer.note(&format!("superseded revisions were not counted: {e}"));
                Ok((visit, false))
            }
            Err(e) => Err(e),
        }
    }

    fn live(&mut self, entry: EntryRef<'_>) {
        if !self.sought.is_complete()
            && let Some(location) = self.options.selection.locate(entry.key)
        {
            self.sought.saw(&location);
        }
        if let Some((name, asked_for)) = self.needed(entry) {
            if self.options.transformers.is_some()
                && name.key.is_some()
                && !self.samples.contains_key(&name)
            {
                let location = self.options.selection.scope.locate(entry.key);
                let sample = (location.resource.into_owned(), entry.to_entry());
                self.samples.insert(name.clone(), sample);
            }
            self.uses.live(name, asked_for);
        }
    }

    /// Which of the keys are needed and not configured, and what reads their values all the same.
    fn missing(&self, keys: &[KeyRow]) -> Vec<Missing> {
        let Some(transformers) = self.options.transformers else { return Vec::new() };
        let mut all: Vec<Missing> = Vec::new();
        for row in keys.iter().filter(|row| row.configured == Some(false)) {
            let name = row.name.configured();
            let Some((resource, entry)) = self.samples.get(&row.name) else { continue };
            if all.iter().any(|missing| missing.name == name) {
                continue;
            }
            let reads = match transformers.for_resource(resource).read(entry, &entry.value) {
                Err(ReadError::OtherName { words, .. }) => Some(words),
                _ => None,
            };
            all.push(Missing { name, reads });
        }
        all
    }

    /// The key that an entry needs, and whether the entry was asked for.
    fn needed(&mut self, entry: EntryRef<'_>) -> Option<(KeyName, bool)> {
        let Options { selection, judge, .. } = self.options;
        let location = selection.scope.locate(entry.key);
        if location.internal {
            return None;
        }
        let judged = judge.judge(&location.resource, entry);
        let asked_for = selection.locate(entry.key).is_some();
        let needs = asked_for
            || judged.provider != Provider::Identity
            || self.is_served(&location.resource);
        needs.then(|| (KeyName::of(&judged), asked_for))
    }

    /// What the configuration does not serve is read without one. Where there is none, Secrets
    /// are taken to be served.
    fn is_served(&mut self, resource: &str) -> bool {
        if let Some(known) = self.served.get(resource) {
            return *known;
        }
        let served = if let Some(set) = self.options.configs {
            set.files().iter().any(|f| !f.config.serving(resource).is_implied_identity())
        } else {
            let asked_for = &self.options.selection.resources;
            resource == "secrets" || asked_for.iter().any(|r| r.matches(resource))
        };
        self.served.insert(resource.to_owned(), served);
        served
    }
}

fn add<T: PartialEq>(all: &mut Vec<T>, more: Vec<T>) {
    for one in more {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

/// Asks the KMS v2 plugins that write what they write with.
fn plugin_keys(set: &ConfigSet, plugins: &dyn Unwrap) -> PluginKeys {
    let config = &set.current().config;
    let mut said = PluginKeys::new();
    for resource in config.group_resources() {
        let serving = config.serving(&resource.to_string());
        if let Some(ProviderConfiguration::Kms(kms)) = serving.providers.first().map(|s| s.provider)
            && kms.api_version == Version::V2
        {
            said.entry(kms.name.clone()).or_insert_with(|| {
                plugins.key_id(kms).map(|id| id.to_string()).map_err(|e| e.to_string())
            });
        }
    }
    said
}

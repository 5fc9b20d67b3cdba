//! Which KMS plugins, key IDs and wrapped data keys stored values name. Nothing is decrypted: all
//! of it is stored in clear.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sha2::{Digest as _, Sha256};

use crate::config::{ConfigSet, Kms, ProviderConfiguration};
use crate::entry::EntryRef;
use crate::envelope::{Envelope, Provider, Version};
use crate::jobs::Observer;
use crate::resource::{Scope, Selector};
use crate::source::{Query, Record, Source, SourceError, SourceKind, Visit};
use crate::transform::kms_v2::{Object, SourceType};
use crate::transform::{CipherError, kms_v1};

/// A KMS provider, as prefixes name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName {
    /// Its name.
    pub name: String,
    /// `v1` or `v2` of the plugin interface.
    pub version: Version,
}

/// What a plugin is handed to unwrap a data key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wrapped {
    /// v2: the plugin's key.
    pub key_id: Option<String>,
    /// The wrapped key or seed.
    pub source: Vec<u8>,
    /// v2: names and values, sorted.
    pub annotations: Vec<(String, Vec<u8>)>,
    /// v2: what `source` is.
    pub kind: Option<SourceType>,
}

impl Wrapped {
    /// SHA-256 of the wrapped key: its name in reports.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.source).into()
    }
}

/// How many values name something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Live entries.
    pub entries: u64,
    /// Superseded revisions that the source still serves.
    pub history: u64,
    /// Values that it no longer serves and that still lie in its files.
    pub residue: u64,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.history += other.history;
        self.residue += other.residue;
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Counts by group-qualified resource.
pub type ByResource = BTreeMap<String, Tally>;

/// The sum over all resources.
#[must_use]
pub fn sum(by: &ByResource) -> Tally {
    let mut all = Tally::default();
    for tally in by.values() {
        all.add(*tally);
    }
    all
}

/// Which state a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is live.
    Live,
    /// It is superseded, and still served.
    Superseded,
    /// It only lies there.
    Left,
}

/// What one plugin is needed for.
#[derive(Clone, Debug, Default)]
pub struct Plugin {
    /// Data keys that can be unwrapped.
    pub keys: BTreeMap<Wrapped, ByResource>,
    /// Values that name the plugin and are damaged, so that nobody can read them.
    pub malformed: ByResource,
}

/// What stored values name.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    /// By plugin.
    pub plugins: BTreeMap<PluginName, Plugin>,
    /// Names of configured plugins, with which a value's name is told from its payload.
    known: Vec<PluginName>,
}

impl Uses {
    /// Counts nothing yet. Where a configuration is known, its names are matched first.
    #[must_use]
    pub fn new(configs: Option<&ConfigSet>) -> Self {
        let known = configs.map(configured).unwrap_or_default().into_iter().map(|(name, _)| name);
        Self { plugins: BTreeMap::new(), known: known.collect() }
    }

    /// Counts a value, if KMS encrypted it. Returns whether it did.
    pub fn add(&mut self, resource: &str, value: &[u8], state: State) -> bool {
        self.add_each(resource, value, state, &mut |_, _, _| ())
    }

    /// Counts a value that its source no longer serves, if KMS encrypted it, it is not damaged and
    /// `new` says of its bytes without their prefix that it was not met before.
    #[cfg(feature = "cli")]
    pub(super) fn add_left(
        &mut self,
        resource: &str,
        value: &[u8],
        new: &mut dyn FnMut(&[u8]) -> bool,
    ) {
        let Some((name, payload)) = self.named(value) else { return };
        if wrapped(name.version, payload).is_ok() && new(payload) {
            self.add(resource, value, State::Left);
        }
    }

    /// The plugin that a value names, and what follows its prefix.
    fn named<'v>(&self, value: &'v [u8]) -> Option<(PluginName, &'v [u8])> {
        let envelope = Envelope::of(value);
        let (Provider::Kms, Some(version)) = (envelope.provider, envelope.version) else {
            return None;
        };
        let known = self.known.iter().filter(|k| k.version == version).map(|k| k.name.as_str());
        let (name, payload) = envelope.split(known).unwrap_or_default();
        Some((PluginName { name: String::from_utf8_lossy(name).into_owned(), version }, payload))
    }

    /// As [`Uses::add`]; `each` gets a value that is not damaged, without its prefix.
    fn add_each(
        &mut self,
        resource: &str,
        value: &[u8],
        state: State,
        each: &mut dyn FnMut(&PluginName, &Wrapped, &[u8]),
    ) -> bool {
        let Some((name, payload)) = self.named(value) else { return false };
        let wrapped = wrapped(name.version, payload);
        if let Ok(wrapped) = &wrapped {
            each(&name, wrapped, payload);
        }
        let plugin = self.plugins.entry(name).or_default();
        let by = match wrapped {
            Ok(wrapped) => plugin.keys.entry(wrapped).or_default(),
            Err(_) => &mut plugin.malformed,
        };
        let mut one = Tally::default();
        match state {
            State::Live => one.entries = 1,
            State::Superseded => one.history = 1,
            State::Left => one.residue = 1,
        }
        match by.get_mut(resource) {
            Some(tally) => tally.add(one),
            None => drop(by.insert(resource.to_owned(), one)),
        }
        true
    }
}

impl Uses {
    /// Adds what others counted.
    fn join(&mut self, others: Self) {
        let join = |by: &mut ByResource, others: ByResource| {
            for (resource, tally) in others {
                by.entry(resource).or_default().add(tally);
            }
        };
        for (name, other) in others.plugins {
            let plugin = self.plugins.entry(name).or_default();
            for (wrapped, by) in other.keys {
                join(plugin.keys.entry(wrapped).or_default(), by);
            }
            join(&mut plugin.malformed, other.malformed);
        }
    }

    /// Takes the live values out of those that are held.
    fn forget(&mut self, live: &Self) {
        let less = |held: &mut ByResource, live: Option<&ByResource>| {
            for (resource, tally) in live.into_iter().flatten() {
                if let Some(held) = held.get_mut(resource) {
                    held.history = held.history.saturating_sub(tally.entries);
                }
            }
            held.retain(|_, tally| !tally.is_empty());
        };
        for (name, held) in &mut self.plugins {
            let live = live.plugins.get(name);
            less(&mut held.malformed, live.map(|l| &l.malformed));
            held.keys.retain(|wrapped, by| {
                less(by, live.and_then(|l| l.keys.get(wrapped)));
                !by.is_empty()
            });
        }
        self.plugins.retain(|_, held| !held.keys.is_empty() || !held.malformed.is_empty());
    }
}

/// What a payload hands the plugin.
fn wrapped(version: Version, payload: &[u8]) -> Result<Wrapped, CipherError> {
    if version == Version::V1 {
        let source = kms_v1::Payload::parse(payload)?.wrapped.to_vec();
        return Ok(Wrapped { key_id: None, source, annotations: Vec::new(), kind: None });
    }
    let object = Object::parse(payload)?;
    let annotations = object.annotations.iter().map(|(n, v)| ((*n).to_owned(), v.to_vec()));
    Ok(Wrapped {
        key_id: Some(object.key_id.to_owned()),
        source: object.source.to_vec(),
        annotations: annotations.collect(),
        kind: Some(object.source_type),
    })
}

/// Every configured plugin by name; of several configurations in their order.
#[must_use]
pub fn configured(set: &ConfigSet) -> Vec<(PluginName, &Kms)> {
    let mut all: Vec<(PluginName, &Kms)> = Vec::new();
    for served in set.files().iter().flat_map(|file| file.config.providers()) {
        let ProviderConfiguration::Kms(kms) = served.provider else { continue };
        let name = PluginName { name: kms.name.clone(), version: kms.api_version };
        if !all.iter().any(|(n, k)| *n == name && k.endpoint == kms.endpoint) {
            all.push((name, kms));
        }
    }
    all
}

/// What a plugin writes by the first configuration.
#[must_use]
pub fn writes(configs: &ConfigSet, kms: &Kms) -> Vec<String> {
    let config = &configs.current().config;
    let first = |resource: &str| config.serving(resource).providers.first().map(|s| s.provider);
    config
        .group_resources()
        .iter()
        .map(ToString::to_string)
        .filter(
            |resource| matches!(first(resource), Some(ProviderConfiguration::Kms(k)) if k == kms),
        )
        .collect()
}

/// What is read.
#[derive(Clone, Copy)]
pub struct Extent<'a> {
    /// Where the API server keeps its objects.
    pub scope: &'a Scope,
    /// As of this revision; `None` is the newest.
    pub revision: Option<i64>,
    /// Which resources are read where the user may not read all.
    pub configs: Option<&'a ConfigSet>,
}

/// What a reading says of itself.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// What the source said.
    pub visit: Visit,
    /// Some entry lies below the prefix, whatever encrypted it.
    pub any: bool,
    /// All of it could be read, and not only what a configuration serves.
    pub all: bool,
    /// Superseded revisions are counted, too.
    pub with_history: bool,
}

/// A value that KMS encrypted and that is not damaged.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    /// Which plugin.
    pub plugin: &'a PluginName,
    /// What the plugin is handed.
    pub wrapped: &'a Wrapped,
    /// Where it is stored.
    pub etcd_key: &'a [u8],
    /// What follows its prefix.
    pub payload: &'a [u8],
}

#[cfg(feature = "cli")]
impl Value<'_> {
    /// By which a value is known again wherever it lies.
    pub(super) fn digest(&self) -> crate::jobs::residue::recover::Digest {
        crate::jobs::residue::recover::digest(self.etcd_key, self.payload)
    }
}

/// Counts the live entries of a source, and superseded revisions if `history` asks for them and
/// the source tells them.
///
/// # Errors
/// When the source cannot be read.
pub fn read(
    source: &mut dyn Source,
    place: Extent<'_>,
    history: bool,
    uses: &mut Uses,
    observer: &mut dyn Observer,
) -> Result<Reading, SourceError> {
    read_each(source, (place, history), uses, &mut |_| (), observer)
}

/// As [`read`] with a `place` and whether history counts; `each` gets every value that is counted,
/// some of them twice.
///
/// # Errors
/// When the source cannot be read.
pub fn read_each(
    source: &mut dyn Source,
    (place, history): (Extent<'_>, bool),
    uses: &mut Uses,
    each: &mut dyn FnMut(Value<'_>),
    observer: &mut dyn Observer,
) -> Result<Reading, SourceError> {
    let Extent { scope, revision, configs } = place;
    let query = Query { ranges: scope.ranges(&[Selector::All]), revision, ordered: false };
    let before = uses.plugins.clone();
    match (everything(source, (scope, &query, history), uses, each, observer), configs) {
        (Err(e), Some(set)) if e.is_unreadable_to_user() => {
            let resources = set.resources();
            let names: Vec<_> = resources.iter().map(ToString::to_string).collect();
            observer.warning(&format!("only {} could be read: {e}", names.join(", ")));
            uses.plugins = before;
            let query = Query { ranges: scope.ranges(&resources), ..query };
            let reading = everything(source, (scope, &query, history), uses, each, observer)?;
            Ok(Reading { all: false, ..reading })
        }
        (read, _) => read,
    }
}

fn everything(
    source: &mut dyn Source,
    (scope, query, history): (&Scope, &Query, bool),
    uses: &mut Uses,
    each: &mut dyn FnMut(Value<'_>),
    observer: &mut dyn Observer,
) -> Result<Reading, SourceError> {
    let mut reading = Reading { all: true, ..Reading::default() };
    let mut live = Uses { plugins: BTreeMap::new(), known: uses.known.clone() };
    observer.begin("entries", &mut || source.estimate(query));
    let visit = source.visit(query, &mut |entry| {
        observer.advance(1);
        reading.any |= count(scope, &mut live, entry, State::Live, each);
        ControlFlow::Continue(())
    });
    observer.end();
    reading.visit = visit?;
    if history {
        past(source, (scope, query), (uses, &live), (&mut reading, each), observer)?;
    }
    uses.join(live);
    Ok(reading)
}

/// Counts an entry that is not etcd's own or the API server's. Returns whether it is one.
fn count(
    scope: &Scope,
    uses: &mut Uses,
    entry: EntryRef<'_>,
    state: State,
    each: &mut dyn FnMut(Value<'_>),
) -> bool {
    let location = scope.locate(entry.key);
    if location.internal {
        return false;
    }
    uses.add_each(&location.resource, entry.stored(), state, &mut |plugin, wrapped, payload| {
        each(Value { plugin, wrapped, etcd_key: entry.key, payload });
    });
    true
}

/// Counts what is held beside the live values, where the source tells it.
fn past(
    source: &mut dyn Source,
    (scope, query): (&Scope, &Query),
    (uses, live): (&mut Uses, &Uses),
    (reading, each): (&mut Reading, &mut dyn FnMut(Value<'_>)),
    observer: &mut dyn Observer,
) -> Result<(), SourceError> {
    let past = Query { revision: Some(reading.visit.revision), ..query.clone() };
    let mut held = Uses { plugins: BTreeMap::new(), known: uses.known.clone() };
    observer.begin("revisions", &mut || None);
    let past = source.history(&past, &mut |record| {
        observer.advance(1);
        if let Record::Put(entry) = record {
            count(scope, &mut held, entry, State::Superseded, each);
        }
        ControlFlow::Continue(())
    });
    observer.end();
    match past {
        Ok(past) => {
            reading.with_history = true;
            add_new(&mut reading.visit.damage, past.damage);
            add_new(&mut reading.visit.notes, past.notes);
            // What is live is held as well.
            held.forget(live);
            uses.join(held);
            Ok(())
        }
        Err(e) if e.is_no_history() || source.info().kind == SourceKind::Etcd => {
            observer.note(&format!("superseded revisions were not counted: {e}"));
            Ok(())
        }
        Err(e) => Err(e),
    }
}

fn add_new<T: PartialEq>(all: &mut Vec<T>, more: Vec<T>) {
    for one in more {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::kms_v2::Annotations;

    fn v2(name: &str, key_id: &str, source: &[u8], kind: SourceType) -> Vec<u8> {
        let mut value = format!("k8s:enc:kms:v2:{name}:").into_bytes();
        let annotations: Annotations<'_> = vec![("a.example.com", b"x")];
        let object = Object { data: b"d", key_id, source, annotations, source_type: kind };
        object.encode(&mut value).unwrap();
        value
    }

    #[test]
    fn values_are_counted_by_plugin_data_key_and_resource() {
        let mut uses = Uses::new(None);
        let seed = SourceType::HkdfSeed;
        for (resource, value, state) in [
            ("secrets", v2("p", "1", b"s", seed), State::Live),
            ("secrets", v2("p", "1", b"s", seed), State::Superseded),
            ("configmaps", v2("p", "1", b"s", seed), State::Live),
            ("secrets", v2("p", "2", b"s", SourceType::AesGcmKey), State::Left),
            ("secrets", b"k8s:enc:kms:v2:p:\xff".to_vec(), State::Live),
            (
                "secrets",
                b"k8s:enc:kms:v1:q:\x00\x02ab__________________________________".to_vec(),
                State::Live,
            ),
        ] {
            assert!(uses.add(resource, &value, state));
        }
        assert!(!uses.add("secrets", b"k8s:enc:aescbc:v1:k:x", State::Live));
        assert!(!uses.add("secrets", b"plain", State::Live));
        let names: Vec<_> = uses.plugins.keys().map(|p| (&*p.name, p.version)).collect();
        assert_eq!(names, [("p", Version::V2), ("q", Version::V1)]);
        let p = &uses.plugins[&PluginName { name: "p".to_owned(), version: Version::V2 }];
        let keys: Vec<_> = p
            .keys
            .iter()
            .map(|(k, by)| (k.key_id.as_deref().unwrap(), k.kind.unwrap(), sum(by)))
            .collect();
        let tally = |entries, history, residue| Tally { entries, history, residue };
        assert_eq!(
            keys,
            [
                ("1", SourceType::HkdfSeed, tally(2, 1, 0)),
                ("2", SourceType::AesGcmKey, tally(0, 0, 1))
            ]
        );
        assert_eq!(sum(&p.malformed), tally(1, 0, 0));
    }
}

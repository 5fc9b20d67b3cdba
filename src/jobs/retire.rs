//! What is stored under a key that is to leave the configuration.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use crate::config::{EncryptionConfig, Rotated};
use crate::entry::EntryRef;
use crate::envelope::{Envelope, Provider};
use crate::resource::{Scope, Selection, Selector};
use crate::source::{Damage, Record, Source, SourceError, Visit};

/// Which key goes.
pub struct Options<'o> {
    /// Where the API server keeps its objects. Every key there is looked at, whatever resources
    /// the step is restricted to: one that left the configuration may still be stored under it.
    pub scope: Scope,
    /// The configuration that has it.
    pub old: &'o EncryptionConfig,
    /// The step that takes it away.
    pub rotated: &'o Rotated,
}

/// What needs it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Entries by resource.
    pub entries: BTreeMap<String, u64>,
    /// The revision, and what could not be read.
    pub visit: Visit,
}

/// Looks at every entry.
///
/// # Errors
/// When the source cannot be read.
pub fn run(source: &mut dyn Source, options: &Options<'_>) -> Result<Outcome, SourceError> {
    let selection = everything(&options.scope);
    let mut entries: BTreeMap<String, u64> = BTreeMap::new();
    let mut under = Under::new(options, &selection);
    let mut visit = source.visit(&selection.query(None, false), &mut |entry| {
        if let Some(resource) = under.resource(entry) {
            *entries.entry(resource.into_owned()).or_default() += 1;
        }
        ControlFlow::Continue(())
    })?;
    let info = source.info();
    if info.kind.is_archive() {
        let what = "an archive of objects need not hold all that the cluster has".to_owned();
        visit.damage.push(Damage { location: info.location, what });
    }
    Ok(Outcome { entries, visit })
}

/// How many revisions that are held were written under it, the live ones included.
///
/// # Errors
/// When the history cannot be read.
pub fn revisions_under(source: &mut dyn Source, options: &Options<'_>) -> Result<u64, SourceError> {
    let selection = everything(&options.scope);
    let mut under = Under::new(options, &selection);
    let mut held = 0;
    source.history(&selection.query(None, false), &mut |record| {
        if let Record::Put(entry) = record {
            held += u64::from(under.resource(entry).is_some());
        }
        ControlFlow::Continue(())
    })?;
    Ok(held)
}

fn everything(scope: &Scope) -> Selection {
    Selection { scope: scope.clone(), resources: vec![Selector::All], namespaces: Vec::new() }
}

/// Sees what needs the key.
struct Under<'o> {
    old: &'o EncryptionConfig,
    rotated: &'o Rotated,
    selection: &'o Selection,
    concerned: HashMap<String, bool>,
}

impl<'o> Under<'o> {
    fn new(options: &Options<'o>, selection: &'o Selection) -> Self {
        let Options { old, rotated, .. } = options;
        Self { old, rotated, selection, concerned: HashMap::new() }
    }

    /// The resource of an entry that does.
    fn resource<'e>(&mut self, entry: EntryRef<'e>) -> Option<Cow<'e, str>> {
        let Self { old, rotated, selection, concerned } = self;
        let location = selection.locate(entry.key)?;
        if location.internal || !is_under(entry.stored(), old, rotated) {
            return None;
        }
        let resource = location.resource;
        // The same name elsewhere in the file may be another key.
        if let Some(concerns) = concerned.get(&*resource) {
            return concerns.then_some(resource);
        }
        let serving = old.serving(&resource);
        let changed = serving.providers.iter().any(|s| rotated.entries.contains(&s.entry));
        // What no entry serves any more cannot be read without the key either. Plaintext can.
        let concerns =
            changed || (serving.is_implied_identity() && rotated.provider != Provider::Identity);
        concerned.insert(resource.clone().into_owned(), concerns);
        concerns.then_some(resource)
    }
}

/// Whether a stored value was written by the provider and key that goes.
fn is_under(value: &[u8], old: &EncryptionConfig, rotated: &Rotated) -> bool {
    let envelope = Envelope::of(value);
    if envelope.provider != rotated.provider {
        return false;
    }
    let Some(name) = &rotated.name else { return true };
    let of_this = old.providers().filter(|s| s.provider.provider() == envelope.provider);
    let known: Vec<&str> = of_this.flat_map(|s| s.provider.names()).collect();
    envelope.split(known).is_some_and(|(n, _)| n == name.as_bytes())
}

//! Single entries as objects.

use std::ops::ControlFlow;

use serde_json::Value;

use crate::entry::Entry;
use crate::objects::{NotShown, Objects};
use crate::resource::key::is_in;
use crate::resource::{NamedKey, Scope, merge_ranges};
use crate::scan::place::Misplaced;
use crate::source::{Query, Source, SourceError, Visit};
use crate::storage;

/// Which entries, and how much of them.
pub struct Options<'o> {
    /// Their keys.
    pub keys: &'o [NamedKey],
    /// Where keys begin.
    pub scope: &'o Scope,
    /// The namespaces that they may be of; empty is all.
    pub namespaces: &'o [String],
    /// As of this revision; `None` is the newest.
    pub revision: Option<i64>,
    /// The data of Secrets, instead of their lengths.
    pub reveal: bool,
}

/// An entry's object.
pub struct Object {
    /// Its etcd key; a value that was pasted may come without one.
    pub key: Vec<u8>,
    /// The object as it is shown. Wiped when it goes.
    pub json: Value,
    /// How it is stored.
    pub stored_as: String,
    /// Bytes of its stored value.
    pub size: usize,
    /// Its revision; 0 where that is not known.
    pub revision: i64,
    /// It is another object than its key says.
    pub misplaced: Option<Box<Misplaced>>,
    /// Why only its metadata are shown, if so.
    pub hollow: Option<String>,
    /// Fields that this version does not know.
    pub unknown: Vec<String>,
}

impl Drop for Object {
    fn drop(&mut self) {
        storage::wipe(&mut self.json);
    }
}

/// What was found.
pub struct Outcome<'o> {
    /// What the source said.
    pub visit: Visit,
    /// The entries in the order of their keys' names, or why one cannot be shown.
    pub shown: Vec<Result<Object, (Vec<u8>, NotShown)>>,
    /// The keys of which there is none.
    pub missing: Vec<&'o NamedKey>,
}

/// Reads entries.
///
/// # Errors
/// When the source cannot be read.
pub fn run<'o>(
    source: &mut dyn Source,
    objects: &Objects,
    options: &Options<'o>,
) -> Result<Outcome<'o>, SourceError> {
    let Options { keys, scope, namespaces, revision, reveal } = *options;
    let query = Query {
        ranges: merge_ranges(keys.iter().flat_map(NamedKey::singles).collect()),
        revision,
        ordered: true,
    };
    let mut found: Vec<Entry> = Vec::new();
    let visit = source.visit(&query, &mut |entry| {
        found.push(entry.to_entry());
        ControlFlow::Continue(())
    })?;
    let mut outcome = Outcome { visit, shown: Vec::new(), missing: Vec::new() };
    let wanted = |e: &&Entry| is_in(&scope.locate_named(&e.key), namespaces);
    for key in keys {
        let means = |e: &&Entry| key.keys.contains(&e.key);
        let Some(entry) = found.iter().filter(wanted).find(means) else {
            outcome.missing.push(key);
            continue;
        };
        let mut shown = show(objects, scope, entry, reveal);
        if let Ok(Object { misplaced: Some(found), .. }) = &mut shown {
            // That nobody can look makes the object no less misplaced.
            let _ = objects.look(source, outcome.visit.revision, scope, &mut [found]);
        }
        outcome.shown.push(shown.map_err(|not| (entry.key.clone(), not)));
    }
    Ok(outcome)
}

/// One entry as an object.
///
/// # Errors
/// Why it cannot be shown.
pub fn show(
    objects: &Objects,
    scope: &Scope,
    entry: &Entry,
    reveal: bool,
) -> Result<Object, NotShown> {
    let location = scope.locate_named(&entry.key);
    let mut shown = objects.read(entry.as_ref(), &location)?;
    if !reveal {
        storage::redact(&mut shown.json, location.resource == "secrets");
    }
    Ok(Object {
        key: entry.key.clone(),
        json: std::mem::take(&mut shown.json),
        stored_as: shown.judged.stored_as(),
        size: entry.value.len(),
        revision: entry.mod_revision,
        misplaced: shown.judged.misplaced.take(),
        hollow: shown.hollow.take().map(|hollow| hollow.reason),
        unknown: std::mem::take(&mut shown.unknown),
    })
}

//! How every selected entry is stored.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rayon::prelude::*;

use super::Observer;
use crate::entry::{Entry, EntryRef};
use crate::envelope::Provider;
use crate::resource::{Location, Selection, Selector, Sought};
use crate::scan::place::look;
use crate::scan::{Causes, Counts, Finding, Judge, Judged, Reads, Status, judge_with};
use crate::source::{Census, Query, Source, SourceError, SourceInfo, Visit};
use crate::storage;
use crate::transform::Transformers;

/// What to scan.
pub struct Options<'o> {
    /// Which entries.
    pub selection: &'o Selection,
    /// What must be there of it.
    pub sought: Sought,
    /// As of this revision; `None` is the newest.
    pub revision: Option<i64>,
    /// The configuration that says what is current; without one, prefixes alone are told.
    pub transformers: Option<&'o Transformers>,
    /// Every value is decrypted, and not judged by its prefix alone.
    pub verify: bool,
    /// Every entry is kept, in the order of keys.
    pub list: bool,
}

/// What was found.
pub struct Outcome {
    /// What the source said.
    pub visit: Visit,
    /// The counts.
    pub counts: Counts,
    /// Every entry, where they were to be kept.
    pub entries: Option<Vec<Finding>>,
    /// Unreadable entries by cause.
    pub unreadable: Causes,
    /// Those whose status could not be decided, by cause.
    pub unknown: Causes,
    /// Entries that are judged by their prefix alone, as stored unencrypted, and begin as no object.
    pub no_objects: Causes,
    /// Misplaced entries, the first few by key.
    pub misplaced: Vec<Finding>,
    /// Which key read how many entries, where they were decrypted.
    pub reads: Vec<Reads>,
    /// What was seen of what must be there.
    pub sought: Sought,
    /// The other sources that were read.
    pub also: Vec<Also>,
    /// Resources of which another source could not be read to its end, and why.
    pub unread: Vec<(Vec<String>, SourceError)>,
    /// Entries in the first source whose resources are kept elsewhere, by resource: nobody reads
    /// them any more, and they are not counted.
    pub left_behind: BTreeMap<String, u64>,
}

/// Resources that are kept in another place than the others.
pub struct Elsewhere {
    /// Which ones.
    pub resources: Vec<String>,
    /// The place, if it can be read.
    pub source: Option<Box<dyn Source>>,
}

/// Another source that was read in the same scan.
#[derive(Clone, Debug)]
pub struct Also {
    /// Which one.
    pub info: SourceInfo,
    /// The revision that it was read at, its own.
    pub revision: i64,
    /// What was read there.
    pub resources: Vec<String>,
}

/// What is said of [`Outcome::no_objects`].
const BEGINS_AS_NOTHING: &str = "stored unencrypted, but it begins as no object of the API server";
/// How many misplaced entries are kept where not all entries are.
const NAMED: usize = 20;
/// Entries waiting to be decrypted by several threads.
const BATCH_ENTRIES: usize = 4096;
const BATCH_BYTES: usize = 16 << 20;

/// Scans once.
///
/// # Errors
/// When the source cannot be read.
pub fn run(
    source: &mut dyn Source,
    options: &Options<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, SourceError> {
    run_all(source, &mut [], options, observer)
}

/// As [`run`], with resources that are kept elsewhere.
///
/// # Errors
/// As there; of the other sources, [`Outcome::unread`] tells.
pub fn run_all(
    source: &mut dyn Source,
    elsewhere: &mut [Elsewhere],
    options: &Options<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, SourceError> {
    let query = options.selection.query(options.revision, options.list);
    let judge = judge_with(options.transformers, options.verify);
    observer.begin("entries", &mut || source.estimate(&query));
    let mut folder = Folder::new(options, judge.as_ref(), observer);
    folder.elsewhere = elsewhere.iter().flat_map(|e| e.resources.iter().cloned()).collect();
    let mut visit = folder.read(source, &query, options)?;
    folder.observer.end();
    folder.elsewhere.clear();
    let (mut also, mut unread) = (Vec::new(), Vec::new());
    for Elsewhere { resources, source } in elsewhere {
        let Some(source) = source else { continue };
        let selectors = resources.iter().cloned().map(Selector::Exact).collect();
        let there = Selection { resources: selectors, ..options.selection.clone() };
        folder.before = None;
        match folder.read(source.as_mut(), &there.query(None, options.list), options) {
            Ok(seen) => {
                let (info, resources) = (source.info(), resources.clone());
                also.push(Also { info, revision: seen.revision, resources });
                visit.damage.extend(seen.damage);
                visit.notes.extend(seen.notes);
            }
            Err(e) => unread.push((resources.clone(), e)),
        }
    }
    let Folder { counts, mut entries, unreadable, unknown, no_objects, misplaced, .. } = folder;
    let (mut sought, left_behind) = (folder.sought, folder.left_behind);
    if let (Some(entries), false) = (&mut entries, also.is_empty()) {
        entries.sort_by(|a, b| a.key.cmp(&b.key));
    }
    if options.selection.namespaces.is_empty() {
        counts.groups().iter().for_each(|(group, _)| sought.saw_resource(&group.resource));
    }
    let reads = judge.reads();
    Ok(Outcome {
        visit,
        counts,
        entries,
        unreadable,
        unknown,
        no_objects,
        misplaced,
        reads,
        sought,
        also,
        unread,
        left_behind,
    })
}

struct Folder<'a> {
    selection: &'a Selection,
    judge: &'a dyn Judge,
    observer: &'a mut dyn Observer,
    sought: Sought,
    /// Resources that are not read here.
    elsewhere: Vec<String>,
    left_behind: BTreeMap<String, u64>,
    counts: Counts,
    entries: Option<Vec<Finding>>,
    /// How the key before began, and its resource: where only counts are wanted, keys that begin
    /// alike need not be taken apart again.
    before: Option<(Vec<u8>, String)>,
    unreadable: Causes,
    unknown: Causes,
    no_objects: Causes,
    misplaced: Vec<Finding>,
}

/// Whether a value that was judged by its prefix begins as none that the API server stores.
fn is_doubtful(judged: &Judged<'_>, value: &[u8]) -> bool {
    judged.provider == Provider::Identity
        && judged.status != Some(Status::Unreadable)
        && !storage::begins_as_object(value)
}

impl<'a> Folder<'a> {
    fn new(options: &'a Options<'_>, judge: &'a dyn Judge, observer: &'a mut dyn Observer) -> Self {
        Self {
            selection: options.selection,
            judge,
            observer,
            sought: options.sought.clone(),
            elsewhere: Vec::new(),
            left_behind: BTreeMap::new(),
            counts: Counts::default(),
            entries: options.list.then(Vec::new),
            before: None,
            unreadable: Causes::default(),
            unknown: Causes::default(),
            no_objects: Causes::default(),
            misplaced: Vec::new(),
        }
    }

    /// Reads one source.
    fn read(
        &mut self,
        source: &mut dyn Source,
        query: &Query,
        options: &Options<'_>,
    ) -> Result<Visit, SourceError> {
        let misplaced: Vec<_> = self.misplaced.iter().map(|f| f.key.clone()).collect();
        let known = (misplaced, self.entries.as_ref().map_or(0, Vec::len));
        let visit =
            if options.verify { self.visit(source, query)? } else { source.survey(query, self)? };
        if let Some(transformers) = options.transformers {
            self.look(source, visit.revision, transformers, &known)?;
        }
        Ok(visit)
    }

    fn is_elsewhere(&self, resource: &str) -> bool {
        self.elsewhere.iter().any(|r| r == resource)
    }

    /// Counts an entry that nobody reads here any more.
    fn leave(&mut self, resource: &str) {
        *self.left_behind.entry(resource.to_owned()).or_default() += 1;
    }

    /// Judges many entries at once, in several threads.
    fn visit(&mut self, source: &mut dyn Source, query: &Query) -> Result<Visit, SourceError> {
        let mut batch: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut sink = |entry: EntryRef<'_>| {
            bytes += entry.stored().len();
            batch.push(entry.to_entry());
            if batch.len() >= BATCH_ENTRIES || bytes >= BATCH_BYTES {
                self.many(&batch);
                batch.clear();
                bytes = 0;
            }
            ControlFlow::Continue(())
        };
        let visit = source.visit(query, &mut sink)?;
        self.many(&batch);
        Ok(visit)
    }

    /// Finds out what is where misplaced objects belong, of those behind the known ones.
    fn look(
        &mut self,
        source: &mut dyn Source,
        revision: i64,
        transformers: &Transformers,
        known: &(Vec<Vec<u8>>, usize),
    ) -> Result<(), SourceError> {
        let mut found: Vec<_> = self
            .misplaced
            .iter_mut()
            .filter(|f| !known.0.contains(&f.key))
            .chain(self.entries.iter_mut().flatten().skip(known.1))
            .filter_map(|f| f.judged.misplaced.as_deref_mut())
            .collect();
        let scope = &self.selection.scope;
        let read = |entry: EntryRef<'_>| {
            let location = scope.locate(entry.key);
            let reader = transformers.for_resource(&location.resource);
            let opened = reader.read(entry, entry.stored()).ok()?;
            Some(storage::type_meta(opened.plaintext.expose()).ok()?.into_owned())
        };
        look(source, revision, &mut found, &read)
    }

    /// The group of an entry like the one before, which needs no more than to be counted.
    fn like_before(&mut self, entry: EntryRef<'_>) -> Option<usize> {
        let (head, resource) = self.before.as_ref()?;
        if self.entries.is_some() || !entry.key.starts_with(head) {
            return None;
        }
        let judged = self.judge.judge(resource, entry);
        let plain = matches!(judged.status, None | Some(Status::Current | Status::Stale));
        let plain = plain && !is_doubtful(&judged, entry.stored());
        plain.then(|| self.counts.group(resource, &judged))
    }

    fn one(&mut self, entry: EntryRef<'_>) {
        if let Some(group) = self.like_before(entry) {
            self.counts.add_to(group, entry.stored().len() as u64);
            return;
        }
        let Some(location) = self.selection.locate(entry.key) else { return };
        if location.internal {
            self.internal(&location);
            return;
        }
        if self.is_elsewhere(&location.resource) {
            self.leave(&location.resource);
            return;
        }
        let judged = self.judge.judge(&location.resource, entry);
        self.fold(entry, &location, judged);
        self.remember(entry.key, location);
    }

    fn internal(&mut self, location: &Location<'_>) {
        self.counts.internal += 1;
        // What lies below another prefix is nothing of this one.
        if !location.resource.is_empty() {
            self.sought.saw(location);
        }
    }

    /// Keys that begin alike belong to the same resource.
    fn remember(&mut self, key: &[u8], location: Location<'_>) {
        if self.selection.namespaces.is_empty() {
            let head = key[..location.object_at].to_vec();
            self.before = Some((head, location.resource.into_owned()));
        }
    }

    fn many(&mut self, batch: &[Entry]) {
        let (selection, judge) = (self.selection, self.judge);
        let judged: Vec<_> = batch
            .par_iter()
            .map(|entry| {
                let location = selection.locate(&entry.key)?;
                let judged =
                    (!location.internal).then(|| judge.judge_at(&location, entry.as_ref()));
                Some((entry, location, judged))
            })
            .collect();
        for (entry, location, judged) in judged.into_iter().flatten() {
            match judged {
                Some(_) if self.is_elsewhere(&location.resource) => self.leave(&location.resource),
                Some(judged) => self.fold(entry.as_ref(), &location, judged),
                None => self.internal(&location),
            }
        }
        self.observer.advance(batch.len() as u64);
    }

    fn fold(&mut self, entry: EntryRef<'_>, location: &Location<'_>, judged: Judged<'_>) {
        self.counts.add(&location.resource, &judged, entry.stored().len() as u64);
        if !self.selection.namespaces.is_empty() {
            self.sought.saw(location);
        }
        if is_doubtful(&judged, entry.stored()) {
            self.no_objects.add(entry.key, BEGINS_AS_NOTHING);
        }
        let causes = match judged.status {
            Some(Status::Unreadable) => Some(&mut self.unreadable),
            Some(Status::Unknown) => Some(&mut self.unknown),
            _ => None,
        };
        if let Some(causes) = causes {
            let reason = judged.reason.as_deref();
            causes.add(entry.key, reason.unwrap_or("no configured provider can read it"));
        }
        // The first in the order of keys, whatever order they come in: the same for every run.
        let place = match self.misplaced.binary_search_by(|f| f.key.as_slice().cmp(entry.key)) {
            Err(place) if judged.misplaced.is_some() && place < NAMED => Some(place),
            _ => None,
        };
        if self.entries.is_none() && place.is_none() {
            return;
        }
        let finding = Finding::new(entry, location, judged);
        if let Some(place) = place {
            self.misplaced.insert(place, finding.clone());
            self.misplaced.truncate(NAMED);
        }
        if let Some(entries) = &mut self.entries {
            entries.push(finding);
        }
    }
}

impl Census for Folder<'_> {
    fn glance(&mut self, entry: EntryRef<'_>) -> Option<u32> {
        if self.entries.is_some() {
            return None;
        }
        let group = self.like_before(entry).or_else(|| {
            let here = |l: &Location<'_>| !l.internal && !self.is_elsewhere(&l.resource);
            let location = self.selection.locate(entry.key).filter(here)?;
            self.remember(entry.key, location);
            self.like_before(entry)
        });
        u32::try_from(group?).ok()
    }

    fn count(&mut self, number: u32, bytes: u64) {
        self.observer.advance(1);
        self.counts.add_to(number as usize, bytes);
    }

    fn entry(&mut self, entry: EntryRef<'_>) {
        self.observer.advance(1);
        self.one(entry);
    }
}

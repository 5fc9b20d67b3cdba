//! Every revision that a source still holds of keys, or of all that begin so.

mod beside;

use std::collections::HashMap;
use std::ops::ControlFlow;

use zeroize::Zeroizing;

use super::Observer;
use super::lost::{Lost, What};
use crate::entry::{BoundTo, EntryRef, Value};
use crate::forensics::Written;
use crate::forensics::changes::{Change, Contents};
use crate::forensics::residue::Place;
use crate::objects::{NotShown, Objects};
use crate::resource::key::is_in;
use crate::resource::{Location, NamedKey, Scope, merge_ranges};
use crate::scan::{Causes, Finding, Status};
use crate::source::{Holder, KeyRange, Query, Record, Source, SourceError, Visit};
use beside::Beside;

/// Whose history.
pub struct Options<'o> {
    /// Keys. Those of which nothing is held are taken for beginnings of others.
    pub keys: &'o [NamedKey],
    /// Where the API server keeps its objects.
    pub scope: &'o Scope,
    /// Objects of these namespaces only; empty is all.
    pub namespaces: &'o [String],
    /// Up to this revision; `None` is the newest.
    pub revision: Option<i64>,
    /// Values are kept, and not their sizes alone.
    pub reveal: bool,
    /// What lies outside the key space, in the order of [`super::lost::Found::records`], to be
    /// told as well. The revision may then be one that was compacted away.
    pub lost: Option<&'o [Lost]>,
}

/// What holds a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// What the source reads by itself.
    By(Holder),
    /// Bytes of a file that nothing leads to any more.
    Lost {
        /// What kind of place they lie in.
        place: Place,
        /// Where exactly, in words.
        location: String,
    },
}

impl Held {
    /// The word in JSON output.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::By(holder) => holder.as_str(),
            Self::Lost { place, .. } => place.as_str(),
        }
    }

    /// Where exactly, of what was lost.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        match self {
            Self::By(_) => None,
            Self::Lost { location, .. } => Some(location),
        }
    }
}

/// One revision of one key.
#[derive(Clone)]
pub enum Revision {
    /// A write.
    Put {
        /// The entry.
        finding: Box<Finding>,
        /// Which data keys differ from the revision before; `None` where that is not known.
        changes: Option<Vec<Change>>,
        /// The data, where values are kept and it could be read.
        data: Vec<(String, Zeroizing<Vec<u8>>)>,
        /// What holds it.
        held: Held,
    },
    /// A deletion.
    Delete {
        /// The full etcd key.
        key: Vec<u8>,
        /// Group-qualified resource, namespace and name.
        location: Location<'static>,
        /// When.
        revision: i64,
        /// What holds it.
        held: Held,
    },
}

impl Revision {
    /// etcd's number of it; `None` where what was lost does not say it.
    #[must_use]
    pub fn number(&self) -> Option<i64> {
        let number = match self {
            Self::Put { finding, .. } => finding.mod_revision,
            Self::Delete { revision, .. } => *revision,
        };
        (number > 0).then_some(number)
    }

    /// What holds it.
    #[must_use]
    pub fn held(&self) -> &Held {
        match self {
            Self::Put { held, .. } | Self::Delete { held, .. } => held,
        }
    }

    /// The full etcd key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { finding, .. } => &finding.key,
            Self::Delete { key, .. } => key,
        }
    }

    fn is_unreadable(&self) -> bool {
        matches!(self, Self::Put { finding, .. } if finding.judged.status == Some(Status::Unreadable))
    }
}

/// What is held.
pub struct Outcome {
    /// What the source said.
    pub visit: Visit,
    /// Every revision held, ascending.
    pub revisions: Vec<Revision>,
    /// Revisions whose data could not be read, and so not be compared.
    pub unread: u64,
    /// Revisions that could be read, and are no objects.
    pub no_objects: Causes,
}

impl Outcome {
    /// The keys of which nothing is held.
    #[must_use]
    pub fn missing<'k>(&self, keys: &'k [NamedKey]) -> Vec<&'k NamedKey> {
        let is_of = |key: &NamedKey, revision: &Revision| {
            key.keys.iter().any(|begin| revision.key().starts_with(begin))
        };
        keys.iter().filter(|key| !self.revisions.iter().any(|r| is_of(key, r))).collect()
    }

    /// Whether a revision is no object, or no configured provider reads it.
    #[must_use]
    pub fn has_unreadable(&self) -> bool {
        !self.no_objects.is_empty() || self.revisions.iter().any(Revision::is_unreadable)
    }
}

/// Reads the history.
///
/// # Errors
/// When the source cannot be read.
pub fn run(
    source: &mut dyn Source,
    objects: &Objects,
    options: &Options<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, SourceError> {
    let mut ranges = Vec::new();
    for key in options.keys {
        // A key that is there is not also the beginning of others.
        let is_lost = || options.lost().iter().any(|lost| key.keys.contains(&lost.key));
        let exact = !key.is_prefix && (is_lost() || has(source, &options.query(key.singles()))?);
        if exact {
            ranges.extend(key.singles());
        } else {
            ranges.extend(key.prefixes());
        }
    }
    let mut reader = Reading {
        objects,
        reveal: options.reveal,
        revisions: Vec::new(),
        before: HashMap::new(),
        unread: 0,
        no_objects: Causes::default(),
    };
    observer.begin("revisions", &mut || None);
    let query = options.query(merge_ranges(ranges));
    let mut beside = Beside::new(options, &query);
    let visit = source.held(&query, &mut |record, holder| {
        let key = match &record {
            Record::Put(entry) => entry.key,
            Record::Delete { key, .. } => key,
        };
        let location = options.scope.locate_named(key);
        if is_in(&location, options.namespaces) && options.reaches(&record) {
            observer.advance(1);
            for lost in beside.before(&record) {
                reader.lost(lost, options.scope.locate_named(&lost.key));
            }
            reader.record(record, location, Held::By(holder));
        }
        ControlFlow::Continue(())
    })?;
    for lost in beside.rest() {
        reader.lost(lost, options.scope.locate_named(&lost.key));
    }
    observer.end();
    let Reading { revisions, unread, no_objects, .. } = reader;
    Ok(Outcome { visit, revisions, unread, no_objects })
}

impl<'o> Options<'o> {
    fn query(&self, ranges: Vec<KeyRange>) -> Query {
        // A source refuses what was compacted away.
        let revision = self.revision.filter(|_| self.lost.is_none());
        Query { ranges, revision, ordered: true }
    }

    fn reaches(&self, record: &Record<'_>) -> bool {
        let revision = match record {
            Record::Put(entry) => entry.mod_revision,
            Record::Delete { revision, .. } => *revision,
        };
        self.revision.is_none_or(|limit| revision <= limit)
    }

    fn lost(&self) -> &'o [Lost] {
        self.lost.unwrap_or_default()
    }
}

/// Whether any revision is held.
fn has(source: &mut dyn Source, query: &Query) -> Result<bool, SourceError> {
    let mut any = false;
    // A server looks that up at once. Why it cannot, the history says, too.
    let head = source.visit(query, &mut |_| {
        any = true;
        ControlFlow::Break(())
    });
    if head.is_ok() && any {
        return Ok(true);
    }
    let past = source.held(query, &mut |_, _| {
        any = true;
        ControlFlow::Break(())
    });
    match past {
        // The right to all that begins so is then asked for, which is enough in any case.
        Err(e) if e.is_unreadable_to_user() => Ok(false),
        past => past.map(|_| any),
    }
}

/// Compares each revision with the one before it.
struct Reading<'a> {
    objects: &'a Objects,
    reveal: bool,
    revisions: Vec<Revision>,
    /// The newest revision of each key so far.
    before: HashMap<Vec<u8>, Before>,
    unread: u64,
    no_objects: Causes,
}

/// A revision that the next one is compared with.
struct Before {
    data: Contents,
    written: Option<Written>,
    lost: bool,
}

impl Before {
    /// Whether no revision came between it and another: where records are lost, more may be.
    fn precedes(&self, next: &Self) -> bool {
        match (self.written, next.written) {
            _ if !self.lost && !next.lost => true,
            (Some(old), Some(new)) => {
                old.create_revision == new.create_revision && old.version + 1 == new.version
            }
            _ => false,
        }
    }
}

impl Reading<'_> {
    /// As [`Reading::record`], of a record that lies outside the key space.
    fn lost(&mut self, lost: &Lost, location: Location<'_>) {
        let held = Held::Lost { place: lost.place, location: lost.location.clone() };
        let revision = lost.revision.unwrap_or_default();
        let record = match &lost.what {
            What::Put { value, written } => Record::Put(EntryRef {
                key: &lost.key,
                value: Value(value),
                create_revision: written.map_or(0, |w| w.create_revision),
                mod_revision: revision,
                version: written.map_or(0, |w| w.version),
                lease: 0,
                bound_to: BoundTo::Key,
            }),
            What::Delete => Record::Delete { key: &lost.key, revision },
        };
        self.record(record, location, held);
    }

    fn record(&mut self, record: Record<'_>, location: Location<'_>, held: Held) {
        let revision = match record {
            Record::Put(entry) => self.put(entry, &location, held),
            Record::Delete { key, revision } => {
                self.before.remove(key);
                Revision::Delete {
                    key: key.to_vec(),
                    location: location.into_owned(),
                    revision,
                    held,
                }
            }
        };
        self.revisions.push(revision);
    }

    fn put(&mut self, entry: EntryRef<'_>, location: &Location<'_>, held: Held) -> Revision {
        let judged = self.objects.judge(&location.resource, entry);
        let mut finding = Box::new(Finding::new(entry, location, judged));
        let (mut changes, mut data) = (None, Vec::new());
        if location.internal {
            // Never an object of the API.
        } else if !matches!(&*location.resource, "secrets" | "configmaps") {
            if let Err(not) = self.objects.open(entry, location) {
                self.not_shown(entry, &mut finding, &not);
            }
        } else {
            let now = self.objects.read(entry, location);
            if let Err(not) = &now {
                // What is no object is told by itself: no key helps.
                self.unread += u64::from(!not.no_object);
                self.not_shown(entry, &mut finding, not);
            }
            let now = now.ok().and_then(|shown| Contents::of(&shown.json, self.reveal));
            data = now.as_ref().map(Contents::values).unwrap_or_default();
            // What has no revision is before or after nothing.
            if entry.mod_revision > 0 {
                let EntryRef { create_revision, version, .. } = entry;
                let written = (version > 0).then_some(Written { create_revision, version });
                let lost = held.location().is_some();
                let now = now.map(|data| Before { data, written, lost });
                let old = self.before.remove(entry.key);
                let pair = now.as_ref().zip(old).filter(|(now, old)| old.precedes(now));
                changes = pair.map(|(now, old)| now.data.since(&old.data));
                self.before.extend(now.map(|now| (entry.key.to_vec(), now)));
            }
        }
        Revision::Put { finding, changes, data, held }
    }

    fn not_shown(&mut self, entry: EntryRef<'_>, finding: &mut Finding, not: &NotShown) {
        let judged = &mut finding.judged;
        if not.judged.status == Some(Status::Unreadable) {
            judged.status = not.judged.status;
        }
        if judged.status == Some(Status::Unreadable) || not.no_object {
            judged.reason = Some(not.reason.clone().into());
        }
        if not.no_object {
            self.no_objects.add(entry.key, &not.reason);
        }
    }
}

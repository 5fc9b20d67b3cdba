//! Every revision that a source still holds of keys, or of all that begin so.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::Observer;
use crate::entry::EntryRef;
use crate::forensics::changes::{Change, Contents};
use crate::objects::{NotShown, Objects};
use crate::resource::key::is_in;
use crate::resource::{Location, NamedKey, Scope, merge_ranges};
use crate::scan::{Causes, Finding, Status};
use crate::source::{Holder, KeyRange, Query, Record, Source, SourceError, Visit};

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
    /// The values that changed are kept, and not their sizes alone.
    pub reveal: bool,
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
        /// What holds it.
        holder: Holder,
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
        holder: Holder,
    },
}

impl Revision {
    /// etcd's number of it.
    #[must_use]
    pub fn number(&self) -> i64 {
        match self {
            Self::Put { finding, .. } => finding.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }

    /// What holds it.
    #[must_use]
    pub fn holder(&self) -> Holder {
        match self {
            Self::Put { holder, .. } | Self::Delete { holder, .. } => *holder,
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
        let exact = !key.is_prefix && has(source, &options.query(key.singles()))?;
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
    let visit = source.held(&options.query(merge_ranges(ranges)), &mut |record, holder| {
        let key = match &record {
            Record::Put(entry) => entry.key,
            Record::Delete { key, .. } => key,
        };
        let location = options.scope.locate_named(key);
        if is_in(&location, options.namespaces) {
            observer.advance(1);
            reader.record(record, location, holder);
        }
        ControlFlow::Continue(())
    })?;
    observer.end();
    let Reading { revisions, unread, no_objects, .. } = reader;
    Ok(Outcome { visit, revisions, unread, no_objects })
}

impl Options<'_> {
    fn query(&self, ranges: Vec<KeyRange>) -> Query {
        Query { ranges, revision: self.revision, ordered: true }
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
    /// The data of the newest revision of each key so far.
    before: HashMap<Vec<u8>, Contents>,
    unread: u64,
    no_objects: Causes,
}

impl Reading<'_> {
    fn record(&mut self, record: Record<'_>, location: Location<'_>, holder: Holder) {
        let revision = match record {
            Record::Put(entry) => self.put(entry, &location, holder),
            Record::Delete { key, revision } => {
                self.before.remove(key);
                Revision::Delete {
                    key: key.to_vec(),
                    location: location.into_owned(),
                    revision,
                    holder,
                }
            }
        };
        self.revisions.push(revision);
    }

    fn put(&mut self, entry: EntryRef<'_>, location: &Location<'_>, holder: Holder) -> Revision {
        let judged = self.objects.judge(&location.resource, entry);
        let mut finding = Box::new(Finding::new(entry, location, judged));
        let mut changes = None;
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
            let old = self.before.remove(entry.key);
            changes = now.as_ref().zip(old).map(|(now, old)| now.since(&old));
            self.before.extend(now.map(|now| (entry.key.to_vec(), now)));
        }
        Revision::Put { finding, changes, holder }
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

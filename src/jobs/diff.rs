//! Two sources, object by object.
//!
//! Each is read by a thread of its own, in the order of keys; what both bring is merged as it
//! comes, so that memory holds a few entries of each and what differs.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde_json::Value;

use super::Observer;
use super::restore::Name;
use crate::entry::Entry;
use crate::envelope::Provider;
use crate::objects::{Objects, Shown};
use crate::resource::{Location, Selection};
use crate::restore::{self, Facts, Verdict};
use crate::source::{Query, Source, SourceError, SourceInfo, Visit};
use crate::storage::difference::{Difference, differences};

/// What is compared.
pub struct Options<'o> {
    /// Which objects.
    pub selection: Selection,
    /// What of them.
    pub form: Form,
    /// Reads them.
    pub reader: &'o Objects,
}

/// In which form objects are compared.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// As they are stored, but for `managedFields`.
    Stored,
    /// As `export --clean` writes them.
    Clean,
    /// As `export --restore` writes them, without what it leaves out.
    Restored(restore::Options),
}

/// Opens a source, in the thread that reads it.
pub type Open<'o, E> = Box<dyn FnOnce() -> Result<Box<dyn Source>, E> + Send + 'o>;

/// One of the two.
pub struct Side<'o, E> {
    /// Opens it.
    pub open: Open<'o, E>,
    /// As of this revision; `None` is the newest.
    pub revision: Option<i64>,
}

/// An object that only one side has.
#[derive(Clone, Debug)]
pub struct Single {
    /// Its etcd key.
    pub key: Vec<u8>,
    /// Which it is.
    pub name: Name,
    /// How it is stored.
    pub stored: String,
}

/// An object that both sides have, and not alike.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Its etcd key.
    pub key: Vec<u8>,
    /// Which it is.
    pub name: Name,
    /// What differs.
    pub fields: Vec<Difference>,
    /// How each is stored.
    pub stored: [String; 2],
}

/// What the comparison found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Which sources, at which revision, with which damage.
    pub sides: Vec<(SourceInfo, Visit)>,
    /// Only the second has them.
    pub added: Vec<Single>,
    /// Only the first has them.
    pub removed: Vec<Single>,
    /// Both have them, and not alike.
    pub changed: Vec<Changed>,
    /// How many are alike.
    pub equal: u64,
    /// How those that are alike but stored differently are stored: first, second, and how many.
    pub rewritten: BTreeMap<[String; 2], u64>,
    /// Which cannot be compared, by key, and why.
    pub unknown: Vec<(Vec<u8>, String)>,
    /// Left out by the rules of a restore.
    pub left_out: u64,
}

impl Outcome {
    /// Whether an object differs.
    #[must_use]
    pub fn differs(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty())
    }

    /// Whether everything was compared.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unknown.is_empty() && self.sides.iter().all(|(_, visit)| visit.damage.is_empty())
    }

    /// How many objects there are on either side.
    #[must_use]
    pub fn objects(&self) -> u64 {
        let listed = self.added.len() + self.removed.len() + self.changed.len();
        self.equal + self.left_out + (listed + self.unknown.len()) as u64
    }
}

enum Message<E> {
    Batch(Vec<Entry>),
    End(SourceInfo, Visit),
    Failed(E),
}

/// Bytes of values that a message holds at most, but for its last entry; messages that wait.
const BATCH: usize = 256 << 10;
const WAITING: usize = 4;

/// Compares `a` with `b`.
///
/// # Errors
/// When one of them cannot be read at one revision.
pub fn run<'o, E: From<SourceError> + Send + 'o>(
    a: Side<'o, E>,
    b: Side<'o, E>,
    options: &Options<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, E> {
    std::thread::scope(|scope| {
        let start = |side: Side<'o, E>| {
            let (sender, receiver) = sync_channel(WAITING);
            scope.spawn(move || feed(side, &options.selection, &sender));
            Stream { receiver, batch: Vec::new().into_iter(), end: None }
        };
        // Named, so that both are dropped, and their threads end, when one of them fails.
        let (mut a, mut b) = (start(a), start(b));
        observer.begin("entries", &mut || None);
        let mut outcome = Outcome::default();
        let merged = merge(&mut a, &mut b, &mut outcome, options, observer);
        observer.end();
        merged?;
        outcome.sides = [a.end, b.end].into_iter().flatten().collect();
        Ok(outcome)
    })
}

fn feed<E: From<SourceError>>(
    side: Side<'_, E>,
    selection: &Selection,
    sender: &SyncSender<Message<E>>,
) {
    let read = || {
        let mut source = (side.open)()?;
        let ranges = selection.scope.ranges(&selection.resources);
        let query = Query { ranges, revision: side.revision, ordered: true };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let visit = source.visit(&query, &mut |entry| {
            if selection.locate_object(entry.key).is_none() {
                return ControlFlow::Continue(());
            }
            bytes += entry.key.len() + entry.stored().len();
            batch.push(entry.to_entry());
            if bytes < BATCH {
                return ControlFlow::Continue(());
            }
            bytes = 0;
            match sender.send(Message::Batch(std::mem::take(&mut batch))) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        // Nobody listens any more once the other side has failed.
        let _ = sender.send(Message::Batch(batch));
        Ok(Message::End(source.info(), visit))
    };
    let _ = sender.send(read().unwrap_or_else(Message::Failed));
}

/// What one side brings.
struct Stream<E> {
    receiver: Receiver<Message<E>>,
    batch: std::vec::IntoIter<Entry>,
    end: Option<(SourceInfo, Visit)>,
}

impl<E> Stream<E> {
    fn next(&mut self) -> Result<Option<Entry>, E> {
        loop {
            if let Some(entry) = self.batch.next() {
                return Ok(Some(entry));
            }
            if self.end.is_some() {
                return Ok(None);
            }
            match self.receiver.recv() {
                Ok(Message::Batch(batch)) => self.batch = batch.into_iter(),
                Ok(Message::End(info, visit)) => self.end = Some((info, visit)),
                Ok(Message::Failed(e)) => return Err(e),
                // Its thread panicked, which the scope passes on.
                Err(_) => return Ok(None),
            }
        }
    }
}

fn merge<E>(
    a: &mut Stream<E>,
    b: &mut Stream<E>,
    outcome: &mut Outcome,
    options: &Options<'_>,
    observer: &mut dyn Observer,
) -> Result<(), E> {
    let facts = Facts::assumed();
    let mut comparison = Comparison { outcome, options, facts: &facts };
    let (mut left, mut right) = (a.next()?, b.next()?);
    loop {
        let order = match (&left, &right) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(x), Some(y)) => x.key.cmp(&y.key),
        };
        observer.advance(1);
        if order == Ordering::Equal {
            if let (Some(x), Some(y)) = (&left, &right) {
                comparison.both(x, y);
            }
        } else if let Some(x) = if order == Ordering::Less { &left } else { &right } {
            comparison.single(x, order == Ordering::Less);
        }
        if order != Ordering::Greater {
            left = a.next()?;
        }
        if order != Ordering::Less {
            right = b.next()?;
        }
    }
}

struct Comparison<'c> {
    outcome: &'c mut Outcome,
    options: &'c Options<'c>,
    facts: &'c Facts,
}

impl Comparison<'_> {
    fn single(&mut self, entry: &Entry, removed: bool) {
        let Some(location) = self.options.selection.locate_object(&entry.key) else { return };
        if let Form::Restored(_) = self.options.form {
            match self.read(entry, &location) {
                Ok(Some(_)) => {}
                Ok(None) => return self.outcome.left_out += 1,
                Err(why) => return self.outcome.unknown.push((entry.key.clone(), why)),
            }
        }
        let (stored, _) = self.stored(entry, &location);
        let single = Single { key: entry.key.clone(), name: (&location).into(), stored };
        if removed { &mut self.outcome.removed } else { &mut self.outcome.added }.push(single);
    }

    fn both(&mut self, a: &Entry, b: &Entry) {
        // The same bytes under the same key are the same object, whatever they are.
        if a.value == b.value {
            self.outcome.equal += 1;
            return;
        }
        let Some(location) = self.options.selection.locate_object(&a.key) else { return };
        let (stored_a, encrypted_a) = self.stored(a, &location);
        let (stored_b, encrypted_b) = self.stored(b, &location);
        let (left, right) = match (self.read(a, &location), self.read(b, &location)) {
            (Ok(left), Ok(right)) => (left, right),
            (Err(why), _) | (_, Err(why)) => {
                return self.outcome.unknown.push((a.key.clone(), why));
            }
        };
        let (Some(left), Some(right)) = (left, right) else {
            return self.outcome.left_out += 1;
        };
        // What was worth encrypting is told by its length.
        let veiled = encrypted_a || encrypted_b || location.resource == "secrets";
        let fields = differences(&left.json, &right.json, veiled);
        let stored = [stored_a, stored_b];
        if fields.is_empty() {
            self.outcome.equal += 1;
            if stored[0] != stored[1] {
                *self.outcome.rewritten.entry(stored).or_default() += 1;
            }
        } else {
            let name = (&location).into();
            self.outcome.changed.push(Changed { key: a.key.clone(), name, fields, stored });
        }
    }

    /// How an entry is stored, and whether encrypted: what its prefix says, whatever a
    /// configuration would make of it.
    fn stored(&self, entry: &Entry, location: &Location<'_>) -> (String, bool) {
        let mut judged = self.options.reader.judge(&location.resource, entry.as_ref());
        judged.status = None;
        (judged.stored_as(), judged.provider != Provider::Identity)
    }

    /// The object in the form that is compared; `None` where that leaves it out.
    fn read(&self, entry: &Entry, location: &Location<'_>) -> Result<Option<Shown>, String> {
        let reader = self.options.reader;
        let mut decoded = reader.read(entry.as_ref(), location).map_err(|not| not.reason)?;
        if let Some(hollow) = &decoded.hollow {
            return Err(hollow.reason.clone());
        }
        if !decoded.unknown.is_empty() {
            return Err(format!(
                "it has fields newer than this program: {}",
                decoded.unknown.join(", ")
            ));
        }
        match self.options.form {
            Form::Stored => strip(&mut decoded.json),
            Form::Clean => crate::export::clean(&mut decoded.json),
            Form::Restored(rules) => {
                match restore::judge(&mut decoded.json, location, self.facts, rules) {
                    Verdict::Write(_) => {}
                    Verdict::LeaveOut(_) => return Ok(None),
                    Verdict::Cannot(why) => return Err(why),
                }
            }
        }
        Ok(Some(decoded))
    }
}

/// What is no part of an object in storage, or only its server's bookkeeping.
fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        metadata.remove("resourceVersion");
    }
}

//! A state that was compacted away, put together from what is left of it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{Found, Lost, What, places};
use crate::entry::{BoundTo, Entry};
use crate::forensics::Written;
use crate::source::{
    Damage, EntrySink, Holder, KeyRange, Query, Record, RecordSink, Source, SourceError,
    SourceInfo, Visit,
};
use crate::visible::visible;

/// Keys that a sentence names.
const NAMED: usize = 5;

/// Which state is put together.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Of these keys.
    pub ranges: Vec<KeyRange>,
    /// As of this revision.
    pub revision: i64,
    /// The keys are named one by one: nothing else can be missing.
    pub named: bool,
}

/// The source with the state that `asked` describes, of what it still holds and what was `found`
/// beside that. The newest record of a key up to the revision counts. Whatever is not certain
/// about that is told as damage of each visit.
///
/// # Errors
/// When the source cannot be read.
pub fn state(
    found: Found,
    mut source: Box<dyn Source>,
    asked: Asked,
) -> Result<Box<dyn Source>, SourceError> {
    let mut stories = Stories { revision: asked.revision, keys: BTreeMap::new() };
    // Of two records of one revision, the one that is held counts.
    let held = source.held(
        &Query { ranges: asked.ranges.clone(), revision: None, ordered: true },
        &mut |record, holder| {
            stories.held(record, holder);
            ControlFlow::Continue(())
        },
    )?;
    // Where every write is held, none is lost.
    for lost in found.records.into_iter().filter(|_| !held.whole) {
        stories.lost(lost);
    }
    let mut visit = Visit { revision: asked.revision, ..held };
    for damage in found.damage {
        if !visit.damage.contains(&damage) {
            visit.damage.push(damage);
        }
    }
    let (entries, missing) = stories.end();
    Ok(Box::new(State { source, asked, visit, entries, missing }))
}

/// What is known of each key.
struct Stories {
    revision: i64,
    keys: BTreeMap<Vec<u8>, Story>,
}

#[derive(Default)]
struct Story {
    /// The newest record up to the revision.
    then: Option<Then>,
    /// The first one behind it, and what it says of its key.
    next: Option<(i64, Option<Written>)>,
}

struct Then {
    revision: i64,
    /// `None` is a deletion.
    entry: Option<Entry>,
    origin: Origin,
}

/// Where a record is from.
#[derive(Clone, PartialEq, Eq)]
enum Origin {
    /// The key space, from which compaction took all that is older: nothing came between.
    KeySpace,
    /// A log that is whole from the first entry on: nothing came between.
    Log,
    /// kine's copy of it, with no word about what came before it.
    Copy,
    /// A place, and where there.
    Place(&'static str, String),
}

impl Origin {
    /// Where it is not the key space: the kind of place, and where exactly.
    fn place(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::KeySpace => None,
            Self::Log => Some((Holder::Wal.as_str(), "the write-ahead log")),
            Self::Copy => Some((Holder::KineOldValue.as_str(), "a later row")),
            Self::Place(place, location) => Some((place, location)),
        }
    }
}

impl Stories {
    fn held(&mut self, record: Record<'_>, holder: Holder) {
        let origin = match holder {
            Holder::KeySpace => Origin::KeySpace,
            Holder::Wal => Origin::Log,
            Holder::KineOldValue => Origin::Copy,
        };
        match record {
            Record::Put(e) => {
                let written = (e.version > 0)
                    .then_some(Written { create_revision: e.create_revision, version: e.version });
                self.take(e.key, e.mod_revision, written, origin, || Some(e.to_entry()));
            }
            Record::Delete { key, revision } => self.take(key, revision, None, origin, || None),
        }
    }

    fn lost(&mut self, lost: Lost) {
        let Lost { key, revision: Some(revision), what, place, location } = lost else { return };
        let origin = Origin::Place(place.as_str(), location);
        match what {
            What::Delete => self.take(&key, revision, None, origin, || None),
            What::Put { value, written } => {
                let entry = || {
                    Some(Entry {
                        key: key.clone(),
                        value: value.to_vec(),
                        create_revision: written.map_or(0, |w| w.create_revision),
                        mod_revision: revision,
                        version: written.map_or(0, |w| w.version),
                        lease: 0,
                        bound_to: BoundTo::Key,
                    })
                };
                self.take(&key, revision, written, origin, entry);
            }
        }
    }

    fn take(
        &mut self,
        key: &[u8],
        revision: i64,
        written: Option<Written>,
        origin: Origin,
        entry: impl FnOnce() -> Option<Entry>,
    ) {
        let story = self.keys.entry(key.to_vec()).or_default();
        if revision > self.revision {
            if story.next.as_ref().is_none_or(|(next, _)| revision < *next) {
                story.next = Some((revision, written));
            }
        } else if story.then.as_ref().is_none_or(|then| then.revision < revision) {
            story.then = Some(Then { revision, entry: entry(), origin });
        }
    }

    /// The state, and the keys of which only that they were there is known.
    fn end(self) -> (BTreeMap<Vec<u8>, Kept>, Vec<Vec<u8>>) {
        let (mut entries, mut missing) = (BTreeMap::new(), Vec::new());
        for (key, Story { then, next }) in self.keys {
            let follows = next.and_then(|(_, written)| written);
            let entry = then.and_then(|then| Some((then.entry?, then.origin)));
            let was_there = follows.is_some_and(|w| w.create_revision <= self.revision);
            let Some((entry, origin)) = entry else {
                if was_there {
                    missing.push(key);
                }
                continue;
            };
            let next_write = follows.is_some_and(|w| {
                w.create_revision == entry.create_revision && w.version == entry.version + 1
            });
            let certain = matches!(origin, Origin::KeySpace | Origin::Log)
                || entry.mod_revision == self.revision
                || next_write;
            entries.insert(key, Kept { entry, origin, certain });
        }
        (entries, missing)
    }
}

/// An entry of the state.
struct Kept {
    entry: Entry,
    origin: Origin,
    /// Nothing can have come between it and the revision that was asked for.
    certain: bool,
}

/// A source of which one state is put together.
struct State {
    source: Box<dyn Source>,
    asked: Asked,
    visit: Visit,
    entries: BTreeMap<Vec<u8>, Kept>,
    missing: Vec<Vec<u8>>,
}

impl State {
    fn holds(&self, range: &KeyRange) -> bool {
        self.asked.ranges.iter().any(|r| r.intersect(range).as_ref() == Some(range))
    }

    /// What must be known of the entries that a query asks for.
    fn tell(&self, query: &Query) -> Visit {
        let mut visit = self.visit.clone();
        let at = self.asked.revision;
        let told = || self.entries.iter().filter(|(key, _)| query.wants(key));
        let lost: Vec<_> =
            told().filter_map(|(key, kept)| Some((key, kept, kept.origin.place()?))).collect();
        if lost.len() <= NAMED {
            visit.notes.extend(lost.iter().map(|(key, kept, (place, location))| {
                format!(
                    "{} is read from {location} ({place}), as revision {} wrote it: it is not in the key space any more",
                    name(key),
                    kept.entry.mod_revision
                )
            }));
        } else {
            visit.notes.push(format!(
                "{} entries are read from outside the key space: {}",
                lost.len(),
                places(lost.iter().map(|(_, _, (place, _))| *place))
            ));
        }
        if visit.whole {
            return visit;
        }
        let unsure: Vec<_> = told().filter(|(_, kept)| !kept.certain).map(|(key, _)| key).collect();
        if !unsure.is_empty() {
            visit.damage.push(Damage {
                location: format!("all that was written up to revision {at}"),
                what: format!(
                    "it was compacted away, and may have changed or deleted {} once more",
                    names(&unsure)
                ),
            });
        }
        let missing: Vec<_> = self.missing.iter().filter(|key| query.wants(key)).collect();
        if !missing.is_empty() {
            visit.damage.push(Damage {
                location: format!("{} as of revision {at}", names(&missing)),
                what: "it was there, and no such record of it is left".to_owned(),
            });
        }
        if !self.asked.named {
            visit.damage.push(Damage {
                location: format!("the whole state at revision {at}"),
                what: "it was compacted away; what is left of it is a part".to_owned(),
            });
        }
        visit
    }
}

fn name(key: &[u8]) -> String {
    visible(&String::from_utf8_lossy(key))
}

fn names(keys: &[&Vec<u8>]) -> String {
    let named: Vec<_> = keys.iter().take(NAMED).map(|key| name(key)).collect();
    match keys.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

impl Source for State {
    fn info(&self) -> SourceInfo {
        self.source.info()
    }

    fn visit(&mut self, query: &Query, sink: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
        if !query.ranges.iter().all(|range| self.holds(range)) {
            // What else is there is asked only to help with a name.
            return self.source.visit(&Query { revision: None, ..query.clone() }, sink);
        }
        let wanted = self.entries.values().filter(|kept| query.wants(&kept.entry.key));
        let _ = wanted.map(|kept| kept.entry.as_ref()).try_for_each(sink);
        Ok(self.tell(query))
    }

    fn history(&mut self, query: &Query, sink: &mut RecordSink<'_>) -> Result<Visit, SourceError> {
        self.source.history(query, sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryRef;
    use crate::forensics::residue::Place;
    use crate::source::SourceKind;

    /// Holds one write of each key.
    struct Held(Vec<(&'static [u8], i64, i64, i64)>);

    impl Source for Held {
        fn info(&self) -> SourceInfo {
            SourceInfo { kind: SourceKind::Snapshot, location: "test".to_owned() }
        }

        fn visit(&mut self, _: &Query, _: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
            Ok(Visit::default())
        }

        fn history(&mut self, _: &Query, sink: &mut RecordSink<'_>) -> Result<Visit, SourceError> {
            for (key, create_revision, mod_revision, version) in self.0.iter().copied() {
                let held = EntryRef::new(key, b"held");
                let entry = EntryRef { create_revision, mod_revision, version, ..held };
                let _ = sink(Record::Put(entry));
            }
            Ok(Visit { revision: 90, compacted: 80, ..Visit::default() })
        }
    }

    fn put(key: &str, revision: i64, create_revision: i64, version: i64) -> Lost {
        let what = What::Put {
            value: zeroize::Zeroizing::new(b"lost".to_vec()),
            written: Some(Written { create_revision, version }),
        };
        lost(key, revision, what)
    }

    fn lost(key: &str, revision: i64, what: What) -> Lost {
        Lost {
            key: key.as_bytes().to_vec(),
            revision: Some(revision),
            what,
            place: Place::FreePage,
            location: "page 9 offset 20".to_owned(),
        }
    }

    /// Of each key: what is lost, what is held, and what is known of it at revision 50.
    #[test]
    fn the_newest_record_up_to_the_revision_counts() {
        let held = vec![
            (&b"/kept"[..], 3, 30, 2),
            (b"/next", 3, 60, 3),
            (b"/later", 60, 60, 1),
            (b"/unknown", 3, 60, 3),
        ];
        let records = vec![
            put("/next", 20, 3, 2),
            put("/kept", 20, 3, 1),
            put("/gone", 20, 20, 1),
            put("/deleted", 20, 20, 1),
            lost("/deleted", 40, What::Delete),
            put("/exact", 50, 20, 2),
            put("/future", 51, 51, 1),
        ];
        let found = Found { records, broken: 0, damage: vec![], opened: None };
        let asked = Asked { ranges: vec![KeyRange::prefix(b"/")], revision: 50, named: false };
        let mut state = state(found, Box::new(Held(held)), asked).unwrap();
        let query = Query { ranges: vec![KeyRange::prefix(b"/")], revision: None, ordered: true };
        let mut seen = Vec::new();
        let visit = state
            .visit(&query, &mut |e| {
                seen.push((String::from_utf8(e.key.to_vec()).unwrap(), e.mod_revision));
                ControlFlow::Continue(())
            })
            .unwrap();
        let expected = [("/exact", 50), ("/gone", 20), ("/kept", 30), ("/next", 20)];
        assert_eq!(seen, expected.map(|(key, at)| (key.to_owned(), at)));
        let told: Vec<_> =
            visit.damage.iter().map(|d| format!("{}: {}", d.location, d.what)).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].ends_with("deleted /gone once more"), "{told:?}");
        assert!(told[1].starts_with("/unknown as of revision 50"), "{told:?}");
        assert_eq!(visit.notes.len(), 3, "what is kept is not lost: {:?}", visit.notes);
        assert_eq!(visit.revision, 50);
    }
}

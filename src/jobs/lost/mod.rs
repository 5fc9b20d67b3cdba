//! Records of keys that no longer belong to the key space and still lie in a file: deleted or
//! superseded, compacted away, and not yet overwritten.

mod state;

use std::collections::{BTreeMap, HashMap, HashSet};

use zeroize::Zeroizing;

pub(super) use super::residue::recover::{Digest, digest};
use super::residue::search::{self, Hunt};
use super::residue::{Error, Opened};
use crate::forensics::residue::{Bytes, Finding, Place, Sink};
use crate::forensics::{Targets, Written};
use crate::resource::{Scope, Selector};
use crate::source::{Damage, KeyRange};

pub use state::{Asked, state};

/// A record.
pub struct Lost {
    /// The full etcd key.
    pub key: Vec<u8>,
    /// The revision that wrote it, where that is known.
    pub revision: Option<i64>,
    /// What was written.
    pub what: What,
    /// What kind of place it lies in.
    pub place: Place,
    /// Where exactly, in words.
    pub location: String,
}

/// What a record says.
pub enum What {
    /// The key was written. No `Debug`: it can be plaintext.
    Put {
        /// The stored value, whole.
        value: Zeroizing<Vec<u8>>,
        /// What the record says of its key, where it does.
        written: Option<Written>,
    },
    /// The key was deleted.
    Delete,
}

/// What was found.
pub struct Found {
    /// Records, each once wherever copies of it lie: ascending by revision, those of which none is
    /// known last. What the key space holds may be among them.
    pub records: Vec<Lost>,
    /// Records of which parts were overwritten: of their values nothing is told.
    pub broken: u64,
    /// What could not be searched.
    pub damage: Vec<Damage>,
    /// What was searched, where it can be read on.
    pub opened: Option<Opened>,
}

/// Searches every place of a source that keeps files for records of keys in `ranges`.
///
/// # Errors
/// As [`super::residue::run`], which searches the same places.
pub fn search(
    opened: Opened,
    salvage: bool,
    scope: &Scope,
    ranges: Vec<KeyRange>,
) -> Result<Found, Error> {
    let targets = Targets::new(scope.clone(), vec![Selector::All], vec![]).of_history(ranges);
    let mut hunt = Collected::default();
    let searched = search::search(opened, salvage, &targets, &mut hunt)?;
    let mut records = hunt.records;
    // A put of a log has no revision unless the log is whole; a page may know it.
    let known: HashSet<Digest> =
        records.iter().filter(|r| r.revision.is_some()).filter_map(Lost::digest).collect();
    records.retain(|r| r.revision.is_some() || r.digest().is_none_or(|d| !known.contains(&d)));
    records.sort_by_key(|r| r.revision.unwrap_or(i64::MAX));
    Ok(Found {
        records,
        broken: hunt.broken.len() as u64,
        damage: searched.visit.damage,
        opened: searched.opened,
    })
}

impl Lost {
    /// Of key and value; `None` for a deletion.
    pub(super) fn digest(&self) -> Option<Digest> {
        match &self.what {
            What::Put { value, .. } => Some(digest(&self.key, value)),
            What::Delete => None,
        }
    }
}

/// How many of them lie in which kind of place: `58 free-page, 2 wal`.
#[must_use]
pub fn places<'l>(places: impl IntoIterator<Item = &'l str>) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for place in places {
        *counts.entry(place).or_default() += 1;
    }
    let words: Vec<_> = counts.iter().map(|(place, n)| format!("{n} {place}")).collect();
    words.join(", ")
}

/// Collects what a search brings.
#[derive(Default)]
struct Collected {
    records: Vec<Lost>,
    /// Copies are kept once.
    seen: HashMap<(Vec<u8>, Option<i64>), HashSet<Option<Digest>>>,
    /// Partial records, by key and place.
    broken: HashSet<(Vec<u8>, String)>,
}

impl Sink for Collected {
    fn found(&mut self, finding: Finding, bytes: Bytes<'_>) {
        // The key space tells its own revisions, and what has lost its key is nobody's.
        let Some(key) = finding.key.filter(|_| finding.place != Place::SupersededRevision) else {
            return;
        };
        if finding.partial {
            self.broken.insert((key, finding.location));
            return;
        }
        let what = if finding.deletion {
            What::Delete
        } else {
            What::Put { value: bytes.value(), written: finding.written }
        };
        let record = Lost {
            key,
            revision: finding.revision,
            what,
            place: finding.place,
            location: finding.location,
        };
        let seen = self.seen.entry((record.key.clone(), record.revision)).or_default();
        if seen.insert(record.digest()) {
            self.records.push(record);
        }
    }
}

impl Hunt for Collected {}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(revision: Option<i64>, place: Place, partial: bool) -> Finding {
        Finding {
            place,
            location: format!("page 3 offset {}", revision.unwrap_or_default()),
            key: Some(b"/registry/secrets/a/b".to_vec()),
            resource: "secrets".to_owned(),
            revision,
            written: None,
            deletion: false,
            size: 1,
            partial,
            encrypted: true,
        }
    }

    #[test]
    fn copies_are_told_once_and_parts_counted() {
        let mut records = Collected::default();
        let whole = 0..1;
        let one = |data| Bytes::new(data, 0, std::slice::from_ref(&whole));
        for (revision, place, data) in [
            (Some(7), Place::FreePage, b"1"),
            (Some(7), Place::PageSlack, b"1"),
            (Some(7), Place::FreePage, b"2"),
            (None, Place::Wal, b"1"),
            (Some(8), Place::SupersededRevision, b"1"),
        ] {
            records.found(finding(revision, place, false), one(data));
        }
        records.found(finding(Some(9), Place::FreePage, true), one(b"1"));
        let revisions: Vec<_> = records.records.iter().map(|r| r.revision).collect();
        assert_eq!(revisions, [Some(7), Some(7), None]);
        assert_eq!(records.broken.len(), 1);
        let places = places(records.records.iter().map(|r| r.place.as_str()));
        assert_eq!(places, "2 free-page, 1 wal");
    }
}

//! Folding a database's records into the state at one revision.

use super::trail::Trail;
use super::{Damage, Query, Visit};
use crate::bolt::PageDamage;
use crate::mvcc::{NotedRecord, Revision, State, Store, Stored, record_key};

/// Leaf pages between two looks at where the reader is.
const LEAVES: usize = 256;

/// Folds the records that `query` wants; `note` looks at each while it is at hand, and what it
/// returns is held with the record. Returns the state and the newest revision of the file.
pub(super) fn fold<'a, N: Copy>(
    store: &Store<'a>,
    query: &Query,
    salvage: bool,
    mut trail: Trail<'_>,
    visit: &mut Visit,
    note: &mut impl FnMut(&Stored<'a>) -> N,
) -> (State<'a, N>, i64) {
    sound(store, query, &mut trail, note).unwrap_or_else(|| {
        let mut state = State::new(0);
        let newest = any(store, query, salvage, &mut state, visit, note);
        (state, newest)
    })
}

fn noted<'a, N>(stored: Stored<'a>, note: &mut impl FnMut(&Stored<'a>) -> N) -> NotedRecord<'a, N> {
    let note = note(&stored);
    let Stored { revision, record, page, .. } = stored;
    NotedRecord { revision, record, page, note }
}

/// The fast way, if nothing about the database is to be reported.
fn sound<'a, N: Copy>(
    store: &Store<'a>,
    query: &Query,
    trail: &mut Trail<'_>,
    note: &mut impl FnMut(&Stored<'a>) -> N,
) -> Option<(State<'a, N>, i64)> {
    let limit = limit(query);
    let leaves = store.leaves()?;
    let mut state = State::new(0);
    let mut newest = store.bookkeeping.compacted().max(1);
    for from in (0..leaves.len()).step_by(LEAVES) {
        let to = leaves.len().min(from + LEAVES);
        let read = Store::read_leaves(&leaves, from..to, &mut |stored| {
            if stored.revision.main <= limit {
                let key = record_key(stored.record)?;
                // An empty key is the marker of `snapshot restore --bump-revision`.
                if !key.is_empty() && query.wants(key) {
                    state.apply_newest(key, noted(stored, note));
                }
            }
            Some(())
        })?;
        newest = newest.max(read);
        trail.at(leaves.offset(to));
    }
    Some((state, newest))
}

/// The way through any database, which knows what to report.
fn any<'a, N: Copy>(
    store: &Store<'a>,
    query: &Query,
    salvage: bool,
    state: &mut State<'a, N>,
    visit: &mut Visit,
    note: &mut impl FnMut(&Stored<'a>) -> N,
) -> i64 {
    let limit = limit(query);
    let mut unread = Vec::new();
    // What swept pages add comes in no order.
    let mut take = |stored: Stored<'a>| {
        if stored.revision.main > limit {
            return;
        }
        match record_key(stored.record) {
            // An empty key is the marker of `snapshot restore --bump-revision`.
            Some([]) => {}
            Some(key) if !query.wants(key) => {}
            Some(key) if salvage => state.apply_newest(key, noted(stored, note)),
            Some(key) => state.apply(key, noted(stored, note)),
            None => unread.push(broken_record(stored.page, stored.revision)),
        }
    };
    let read = store.read(&mut take);
    let mut newest = read.newest;
    if salvage && !read.gaps.is_empty() {
        let mut found = 0u64;
        newest = newest.max(store.sweep(&read, &mut |stored| {
            found += 1;
            take(stored);
        }));
        visit.notes.push(swept(found));
    }
    visit.damage.extend(damages(read.damage, unread));
    newest
}

pub(super) fn swept(found: u64) -> String {
    format!(
        "parts of the database are lost; a sweep of all pages found {found} records for them. \
         What follows is an estimate: deleted and compacted revisions can reappear in it"
    )
}

pub(super) fn limit(query: &Query) -> i64 {
    // As etcd reads it, 0 is "the newest".
    query.revision.filter(|r| *r > 0).unwrap_or(i64::MAX)
}

pub(super) fn broken_record(page: u64, revision: Revision) -> PageDamage {
    let what = format!("the record of revision {} cannot be decoded", revision.main);
    PageDamage { page, what }
}

pub(super) fn damages(pages: Vec<PageDamage>, records: Vec<PageDamage>) -> Vec<Damage> {
    let damage = |d: PageDamage| Damage { location: format!("page {}", d.page), what: d.what };
    pages.into_iter().chain(records).map(damage).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Cursor;
    use std::ops::ControlFlow;

    use proptest::prelude::*;

    use crate::bolt::write::Writer;
    use crate::entry::EntryRef;
    use crate::source::snapshot::{Snapshot, SnapshotOptions};
    use crate::source::{Census, KeyRange, Query, Source as _};

    /// One put, or a deletion where there is no value.
    type Op = (u8, Option<u8>);

    fn record(key: &[u8], revision: u8, value: Option<u8>) -> Vec<u8> {
        let mut record = vec![0x0a, u8::try_from(key.len()).unwrap()];
        record.extend(key);
        if let Some(value) = value {
            record.extend([0x10, 1, 0x18, revision, 0x20, 1, 0x2a, 100]);
            record.extend([value; 100]);
        }
        record
    }

    /// A file with one revision for each operation, from 2 on.
    fn file(ops: &[Op]) -> Vec<u8> {
        let mut writer = Writer::new(Cursor::new(Vec::new()), 1024).unwrap();
        let mut bucket = writer.bucket(b"key");
        for (revision, (key, value)) in (2u8..).zip(ops) {
            let mut bolt_key = u64::from(revision).to_be_bytes().to_vec();
            bolt_key.extend(b"_\0\0\0\0\0\0\0\0");
            if value.is_none() {
                bolt_key.push(b't');
            }
            bucket.put(&bolt_key, &record(&[b'/', b'a' + key], revision, *value)).unwrap();
        }
        bucket.finish().unwrap();
        writer.bucket(b"meta").finish().unwrap();
        writer.finish(2).unwrap().into_inner()
    }

    type Live = BTreeMap<Vec<u8>, (i64, u8)>;

    fn live(entry: EntryRef<'_>) -> (Vec<u8>, (i64, u8)) {
        (entry.key.to_vec(), (entry.mod_revision, entry.stored()[0]))
    }

    /// Knows at a glance how even values count.
    #[derive(Default)]
    struct Parity {
        even: BTreeMap<u32, u64>,
        odd: Live,
    }

    impl Census for Parity {
        fn glance(&mut self, entry: EntryRef<'_>) -> Option<u32> {
            let value = entry.stored()[0];
            value.is_multiple_of(2).then_some(u32::from(value))
        }

        fn count(&mut self, number: u32, bytes: u64) {
            assert_eq!(bytes, 100);
            *self.even.entry(number).or_default() += 1;
        }

        fn entry(&mut self, entry: EntryRef<'_>) {
            let (key, value) = live(entry);
            assert!(self.odd.insert(key, value).is_none(), "an entry is given out once");
        }
    }

    proptest! {
        #![proptest_config(crate::testing::cases(100))]

        /// Given out or counted, in the order of keys or none: it is what the operations lead to.
        #[test]
        fn every_way_leads_to_the_same_state(
            ops in proptest::collection::vec((0u8..12, proptest::option::weighted(0.8, 0u8..6)), 1..120),
            until in proptest::option::of(2u8..120),
        ) {
            let until = until.filter(|until| usize::from(*until) < ops.len() + 2);
            let mut expected = Live::new();
            for (revision, (key, value)) in (2u8..).zip(&ops) {
                if until.is_none_or(|until| revision <= until) {
                    let key = vec![b'/', b'a' + key];
                    match value {
                        Some(value) => expected.insert(key, (i64::from(revision), *value)),
                        None => expected.remove(&key),
                    };
                }
            }
            // A key that nobody asks for.
            expected.remove(&b"/a"[..]);
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("db");
            std::fs::write(&path, file(&ops)).unwrap();
            for salvage in [false, true] {
                let options = SnapshotOptions { skip_hash_check: true, salvage };
                let mut snapshot = Snapshot::open(&path, &options).unwrap();
                let ranges = vec![KeyRange { start: b"/b".to_vec(), end: None }];
                let mut query = Query { ranges, revision: until.map(i64::from), ordered: false };
                for ordered in [false, true] {
                    query.ordered = ordered;
                    let mut found = Vec::new();
                    let visit = snapshot.visit(&query, &mut |entry| {
                        found.push(live(entry));
                        ControlFlow::Continue(())
                    }).unwrap();
                    prop_assert_eq!(&visit.damage, &vec![]);
                    if ordered {
                        prop_assert!(found.is_sorted());
                    }
                    prop_assert_eq!(found.len(), expected.len());
                    prop_assert_eq!(found.into_iter().collect::<Live>(), expected.clone());
                }
                let mut census = Parity::default();
                let visit = snapshot.survey(&query, &mut census).unwrap();
                prop_assert_eq!(&visit.damage, &vec![]);
                for (key, value) in &expected {
                    if value.1 % 2 == 0 {
                        *census.even.get_mut(&u32::from(value.1)).unwrap() -= 1;
                    } else {
                        prop_assert_eq!(census.odd.remove(key), Some(*value));
                    }
                }
                prop_assert!(census.odd.is_empty());
                prop_assert!(census.even.values().all(|n| *n == 0));
            }
        }
    }
}

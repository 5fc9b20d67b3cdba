//! Folding a database's records into the state at one revision.

use super::file::Bytes;
use super::{Damage, Query, Visit};
use crate::bolt::PageDamage;
use crate::mvcc::{Held, Revision, State, Store, Stored, record_key};

/// Leaf pages that are read before their memory is given back: few enough to stay small, enough
/// for the call to cost nothing.
const LEAVES: usize = 1024;

/// Bytes that a [`Trail`] is long.
const TRAIL: usize = 4 << 20;

/// Follows a reader that goes through a file mostly front to back, and gives back the memory of
/// what lies behind.
pub(super) struct Trail<'b> {
    bytes: &'b Bytes,
    from: usize,
}

impl<'b> Trail<'b> {
    pub(super) fn new(bytes: &'b Bytes) -> Self {
        Self { bytes, from: 0 }
    }

    /// The reader is at an offset of the file, bytes.
    pub(super) fn at(&mut self, offset: usize) {
        if offset > self.from + TRAIL {
            self.bytes.forget(self.from..offset);
            self.from = offset;
        }
    }
}

/// Folds the records that `query` wants; `note` looks at each while it is at hand, and what it
/// returns is held with the record. Returns the state and the newest revision of the file.
pub(super) fn fold<'a, N: Copy>(
    store: &Store<'a>,
    query: &Query,
    salvage: bool,
    bytes: &Bytes,
    visit: &mut Visit,
    note: &mut impl FnMut(&Stored<'a>) -> N,
) -> (State<'a, N>, i64) {
    sound(store, query, bytes, note).unwrap_or_else(|| {
        let mut state = State::new(0);
        let newest = any(store, query, salvage, &mut state, visit, note);
        (state, newest)
    })
}

fn held<'a, N>(stored: Stored<'a>, note: &mut impl FnMut(&Stored<'a>) -> N) -> Held<'a, N> {
    let note = note(&stored);
    let Stored { revision, record, page, .. } = stored;
    Held { revision, record, page, note }
}

/// The fast way, if nothing about the database is to be reported.
fn sound<'a, N: Copy>(
    store: &Store<'a>,
    query: &Query,
    bytes: &Bytes,
    note: &mut impl FnMut(&Stored<'a>) -> N,
) -> Option<(State<'a, N>, i64)> {
    let limit = limit(query);
    let leaves = store.leaves()?;
    let mut state = State::new(0);
    let mut newest = store.bookkeeping.compacted().max(1);
    let mut trail = Trail::new(bytes);
    for from in (0..leaves.len()).step_by(LEAVES) {
        let to = leaves.len().min(from + LEAVES);
        let read = Store::read_leaves(&leaves, from..to, &mut |stored| {
            if stored.revision.main <= limit {
                let key = record_key(stored.record)?;
                // An empty key is the marker of `snapshot restore --bump-revision`.
                if !key.is_empty() && query.wants(key) {
                    state.apply_newest(key, held(stored, note));
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
            Some(key) if salvage => state.apply_newest(key, held(stored, note)),
            Some(key) => state.apply(key, held(stored, note)),
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

//! etcd's key space in a bbolt file: revision keys, `KeyValue` records, and folding them into a
//! state.
//!
//! Source: etcd-io/etcd `server/storage/mvcc/{revision,kvstore}.go`,
//! `server/storage/schema/bucket.go`, `api/mvccpb/kv.proto`.

mod state;

pub use state::{NotedRecord, State};

use std::ops::{ControlFlow, Range};

use crate::bolt::{Bucket, Db, Element, Gap, Leaves, PageDamage, PageSet};
use crate::entry::{EntryRef, Value};
use crate::proto::{Fields, Malformed};

/// A bolt key of bucket `key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    /// The revision that clients see.
    pub main: i64,
    /// Position inside the transaction.
    pub sub: i64,
    /// The key was deleted at this revision.
    pub tombstone: bool,
}

impl Revision {
    /// Reads 17 or 18 bytes: main (big-endian), `_`, sub, and `t` for a tombstone.
    #[must_use]
    #[inline]
    pub fn parse(key: &[u8]) -> Option<Self> {
        if !matches!(key.len(), 17 | 18) || key[8] != b'_' {
            return None;
        }
        let main = i64::from_be_bytes(key[..8].try_into().ok()?);
        let sub = i64::from_be_bytes(key[9..17].try_into().ok()?);
        // An 18th byte other than `t` is no tombstone, as etcd reads it.
        let tombstone = key.get(17) == Some(&b't');
        (main >= 0 && sub >= 0).then_some(Self { main, sub, tombstone })
    }
}

/// Reads an `mvccpb.KeyValue`.
///
/// # Errors
/// When the bytes are no such message.
#[inline]
pub fn key_value(record: &[u8]) -> Result<EntryRef<'_>, Malformed> {
    let mut entry = EntryRef::new(&[], &[]);
    for field in Fields::new(record) {
        let field = field?;
        let wrong = Malformed { offset: field.offset };
        match field.number {
            1 => entry.key = field.bytes().ok_or(wrong)?,
            2 => entry.create_revision = field.int64().ok_or(wrong)?,
            3 => entry.mod_revision = field.int64().ok_or(wrong)?,
            4 => entry.version = field.int64().ok_or(wrong)?,
            5 => entry.value = Value(field.bytes().ok_or(wrong)?),
            6 => entry.lease = field.int64().ok_or(wrong)?,
            _ => {}
        }
    }
    Ok(entry)
}

/// The etcd key of a record, without reading the rest when the key comes first, as etcd writes
/// it.
#[must_use]
#[inline]
pub fn record_key(record: &[u8]) -> Option<&[u8]> {
    match Fields::new(record).next() {
        None => Some(&[]),
        Some(Ok(field)) if field.number == 1 => field.bytes(),
        Some(_) => key_value(record).ok().map(|e| e.key),
    }
}

/// One record of bucket `key` and where it lies.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// Its revision.
    pub revision: Revision,
    /// The `KeyValue` message.
    pub record: &'a [u8],
    /// The leaf page.
    pub page: u64,
}

/// What bucket `meta` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bookkeeping {
    /// Raft index of the last applied entry.
    pub consistent_index: Option<u64>,
    /// Raft term of the last applied entry (3.5 and later).
    pub term: Option<u64>,
    /// Revision that a compaction was scheduled for.
    pub scheduled_compaction: Option<i64>,
    /// Revision that a compaction finished at.
    pub finished_compaction: Option<i64>,
}

impl Bookkeeping {
    /// States older than this cannot be read whole. 0 for none.
    #[must_use]
    pub fn compacted(&self) -> i64 {
        // A compaction that was scheduled but not finished has deleted an unknown part.
        self.scheduled_compaction.max(self.finished_compaction).unwrap_or(0)
    }
}

/// What [`Store::read`] came across.
pub struct Read<'a> {
    /// The current revision, as far as it can be read.
    pub newest: i64,
    /// What could not be read.
    pub damage: Vec<PageDamage>,
    /// Stretches of bucket `key` that are missing.
    pub gaps: Vec<Gap<'a>>,
    /// Pages of the trees, overflow pages included.
    pub seen: PageSet,
}

/// etcd's view of a bbolt file.
pub struct Store<'a> {
    db: Db<'a>,
    /// What bucket `meta` says.
    pub bookkeeping: Bookkeeping,
    keys: Option<Bucket<'a>>,
    /// Pages of the tree that lists the buckets.
    seen: PageSet,
    /// Found while opening.
    damage: Vec<PageDamage>,
}

impl<'a> Store<'a> {
    /// Finds etcd's buckets.
    pub fn open(db: Db<'a>) -> Self {
        let mut seen = PageSet::default();
        let mut damage = Vec::new();
        let buckets = db.buckets(&mut seen, &mut damage);
        let find = |name: &[u8]| buckets.iter().find(|(n, _)| *n == name).map(|(_, b)| *b);
        let mut bookkeeping = Bookkeeping::default();
        if let Some(meta) = find(b"meta") {
            let index = |v: &[u8]| v.try_into().ok().map(u64::from_be_bytes);
            // The sink never breaks.
            let _ = db.walk(meta, &mut seen, &mut damage, &mut |_, element| {
                let revision = || Revision::parse(element.value).map(|r| r.main);
                match element.key {
                    b"consistent_index" => bookkeeping.consistent_index = index(element.value),
                    b"term" => bookkeeping.term = index(element.value),
                    b"scheduledCompactRev" => bookkeeping.scheduled_compaction = revision(),
                    b"finishedCompactRev" => bookkeeping.finished_compaction = revision(),
                    _ => {}
                }
                ControlFlow::Continue(())
            });
        }
        let keys = find(b"key");
        Self { db, bookkeeping, keys, seen, damage }
    }

    /// The file.
    pub fn db(&self) -> &Db<'a> {
        &self.db
    }

    /// What could not be read of the list of buckets and of bucket `meta`.
    pub fn damage(&self) -> &[PageDamage] {
        &self.damage
    }

    /// Keys and values of another bucket, as far as they can be read; empty when there is none.
    pub fn rows(&self, bucket: &[u8]) -> Vec<(&'a [u8], &'a [u8])> {
        let (mut seen, mut damage) = (PageSet::default(), Vec::new());
        let mut rows = Vec::new();
        if let Some(bucket) = self.db.bucket(bucket, &mut seen, &mut damage) {
            // The sink never breaks.
            let _ = self.db.walk(bucket, &mut seen, &mut damage, &mut |_, element| {
                rows.push((element.key, element.value));
                ControlFlow::Continue(())
            });
        }
        rows
    }

    /// Whether the file has etcd's bucket of keys.
    pub fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Calls `sink` for every record in ascending revision order. Returns the current revision
    /// and what could not be read.
    pub fn records(&self, sink: &mut dyn FnMut(Stored<'a>)) -> (i64, Vec<PageDamage>) {
        let read = self.read(sink);
        (read.newest, read.damage)
    }

    /// As [`Store::records`], and says which stretches of revisions are missing.
    pub fn read(&self, sink: &mut dyn FnMut(Stored<'a>)) -> Read<'a> {
        let mut read = Read {
            newest: self.bookkeeping.compacted().max(1),
            damage: self.damage.clone(),
            gaps: Vec::new(),
            seen: self.seen.clone(),
        };
        let Some(keys) = self.keys else {
            read.gaps.push(Gap::ALL);
            return read;
        };
        let mut broken = Vec::new();
        let newest = &mut read.newest;
        let (seen, damage, gaps) = (&mut read.seen, &mut read.damage, &mut read.gaps);
        // The sink never breaks.
        let _ = self.db.walk_gaps(keys, seen, damage, gaps, &mut |page, element| {
            let key = element.key;
            let revision = Revision::parse(key).filter(|_| !element.is_bucket);
            let Some(revision) = revision else {
                let what = format!("a key of {} bytes is no revision", key.len());
                broken.push(PageDamage { page: page.id, what });
                return ControlFlow::Continue(());
            };
            if key.len() == 18 && !revision.tombstone {
                // etcd reads it all the same.
                let what = format!("the key of revision {} has a wrong mark", revision.main);
                broken.push(PageDamage { page: page.id, what });
            }
            *newest = (*newest).max(revision.main);
            sink(Stored { revision, record: element.value, page: page.id });
            ControlFlow::Continue(())
        });
        read.damage.append(&mut broken);
        read
    }

    /// The leaves of bucket `key` in the order of the file, if nothing speaks against reading them
    /// so; see [`Store::read_leaves`].
    pub fn leaves(&self) -> Option<Leaves<'a>> {
        self.damage.is_empty().then(|| self.db.leaves(self.keys?, self.seen.clone()))?
    }

    /// Calls `sink` for the records of some of the leaves, in the order of the file. Returns the
    /// newest revision among them.
    ///
    /// `None` at the first thing that [`Store::read`] would report, or when `sink` says so: what
    /// came before is to be forgotten then, and [`Store::read`] to be called.
    pub fn read_leaves(
        leaves: &Leaves<'a>,
        range: Range<usize>,
        sink: &mut impl FnMut(Stored<'a>) -> Option<()>,
    ) -> Option<i64> {
        let mut newest = 0;
        leaves.read(range, &mut |page, element| {
            let revision = Revision::parse(element.key).filter(|_| !element.is_bucket)?;
            if element.key.len() == 18 && !revision.tombstone {
                return None;
            }
            newest = newest.max(revision.main);
            sink(Stored { revision, record: element.value, page: page.id })
        })?;
        Some(newest)
    }

    /// Calls `sink` for every record of the missing stretches of `read` that a sweep of the pages
    /// outside the trees finds, in no order, possibly several times and of any age. Returns the
    /// newest revision among them.
    pub fn sweep(&self, read: &Read<'a>, sink: &mut dyn FnMut(Stored<'a>)) -> i64 {
        let mut newest = 0;
        let mut take = |page: u64, element: Element<'a>| {
            let Some(revision) = Revision::parse(element.key) else { return };
            let missing = read.gaps.iter().any(|gap| gap.contains(element.key));
            // Other buckets' keys can look like revisions; their values are no records.
            let named = || key_value(element.value).is_ok_and(|e| !e.key.is_empty());
            if missing && !element.is_bucket && named() {
                newest = newest.max(revision.main);
                sink(Stored { revision, record: element.value, page });
            }
        };
        for page in self.db.sweep(&read.seen) {
            for element in (0..page.count).filter_map(|i| page.element(i).ok()) {
                // Small databases keep even this bucket inside the list of buckets.
                if element.is_bucket && element.key == b"key" {
                    if let Some((image, _)) = self.db.inline_image(&element) {
                        for inner in (0..image.count).filter_map(|i| image.element(i).ok()) {
                            take(page.id, inner);
                        }
                    }
                } else {
                    take(page.id, element);
                }
            }
        }
        newest
    }

    /// Pages that any bucket uses, overflow pages included.
    #[cfg(test)]
    pub fn reachable(&self) -> PageSet {
        let mut seen = PageSet::default();
        let mut damage = Vec::new();
        for (_, bucket) in self.db.buckets(&mut seen, &mut damage) {
            // The sink never breaks.
            let _ =
                self.db.walk(bucket, &mut seen, &mut damage, &mut |_, _| ControlFlow::Continue(()));
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_keys() {
        let mut key = vec![0, 0, 0, 0, 0, 0, 0x12, 0x34, b'_', 0, 0, 0, 0, 0, 0, 0, 2, b't'];
        let r = Revision::parse(&key).unwrap();
        assert_eq!((r.main, r.sub, r.tombstone), (0x1234, 2, true));
        key[17] = b'x';
        assert!(!Revision::parse(&key).unwrap().tombstone);
        assert!(!Revision::parse(&key[..17]).unwrap().tombstone);
        assert_eq!(Revision::parse(&key[..16]), None);
        key[8] = b'-';
        assert_eq!(Revision::parse(&key), None);
        key[8] = b'_';
        key[0] = 0x80;
        assert_eq!(Revision::parse(&key), None, "negative");
        key.push(0);
        assert_eq!(Revision::parse(&key), None, "19 bytes");
    }

    #[test]
    fn records_with_any_field_order_or_none() {
        assert_eq!(record_key(&[]), Some(&[][..]));
        assert_eq!(record_key(&[0x0a, 1, b'k', 0x10, 1]), Some(&b"k"[..]));
        assert_eq!(record_key(&[0x10, 1, 0x0a, 1, b'k']), Some(&b"k"[..]));
        assert_eq!(record_key(&[0x0a, 9, b'k']), None);
        let e = key_value(&[0x0a, 1, b'k', 0x10, 1, 0x18, 2, 0x20, 3, 0x2a, 1, b'v', 0x30, 4]);
        let e = e.unwrap();
        assert_eq!((e.create_revision, e.mod_revision, e.version, e.lease), (1, 2, 3, 4));
        assert_eq!((e.key, e.stored()), (&b"k"[..], &b"v"[..]));
        assert!(key_value(&[0x0d, 1, 2, 3, 4]).is_err(), "key of another wire type");
    }
}

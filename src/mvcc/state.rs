//! Folding records into the state they add up to.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{Revision, record_key};

/// Where the record of a key is held.
struct Slot {
    /// Of the key: told apart by it, keys need not be fetched from the file to be compared.
    hash: u64,
    index: usize,
}

/// A record that is held, and what its reader wants to remember of it.
#[derive(Clone, Copy)]
pub struct NotedRecord<'a, N> {
    /// When the record was written.
    pub revision: Revision,
    /// The `KeyValue` message.
    pub record: &'a [u8],
    /// The leaf page.
    pub page: u64,
    /// What the reader noted.
    pub note: N,
}

/// Folds records into the newest record of each key. With each goes a note, which may spare a
/// reader from fetching the record again.
pub struct State<'a, N = ()> {
    hasher: DefaultHashBuilder,
    slots: HashTable<Slot>,
    /// In the order of arrival, so that the records are found again in the order of the file.
    /// Deletions stay, to outdo what is older.
    held: Vec<NotedRecord<'a, N>>,
}

impl<'a, N: Copy> State<'a, N> {
    /// An empty state; `expected` is a guess at the number of keys.
    #[must_use]
    pub fn new(expected: usize) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            slots: HashTable::with_capacity(expected),
            held: Vec::with_capacity(expected),
        }
    }

    /// The record held for `key`; if there is none, `new` is put there first.
    #[inline]
    fn newest(&mut self, key: &[u8], new: NotedRecord<'a, N>) -> &mut NotedRecord<'a, N> {
        let hash = self.hasher.hash_one(key);
        let held = &self.held;
        let same =
            |slot: &Slot| slot.hash == hash && record_key(held[slot.index].record) == Some(key);
        let index = if let Some(slot) = self.slots.find(hash, same) {
            slot.index
        } else {
            let index = self.held.len();
            self.slots.insert_unique(hash, Slot { hash, index }, |slot| slot.hash);
            self.held.push(new);
            index
        };
        &mut self.held[index]
    }

    /// Applies one record of `key`, which the record names, in ascending revision order.
    #[inline]
    pub fn apply(&mut self, key: &[u8], new: NotedRecord<'a, N>) {
        *self.newest(key, new) = new;
    }

    /// Whether a record of `key` is held, be it a deletion.
    #[must_use]
    pub fn has(&self, key: &[u8]) -> bool {
        let hash = self.hasher.hash_one(key);
        let same = |slot: &Slot| {
            slot.hash == hash && record_key(self.held[slot.index].record) == Some(key)
        };
        self.slots.find(hash, same).is_some()
    }

    /// As [`State::apply`]; returns the record that it supersedes.
    pub fn supersede(&mut self, key: &[u8], new: NotedRecord<'a, N>) -> Option<NotedRecord<'a, N>> {
        let before = self.held.len();
        let held = self.newest(key, new);
        let old = std::mem::replace(held, new);
        (self.held.len() == before).then_some(old)
    }

    /// Applies one record of `key` that arrives in no order: the newest wins, be it a deletion.
    #[inline]
    pub fn apply_newest(&mut self, key: &[u8], new: NotedRecord<'a, N>) {
        let held = self.newest(key, new);
        if held.revision < new.revision {
            *held = new;
        }
    }

    /// Drops the live records that `keep` says no to; afterwards, nothing more is applied.
    pub fn retain(&mut self, mut keep: impl FnMut(&NotedRecord<'a, N>) -> bool) {
        self.slots = HashTable::new();
        self.held.retain(|held| !held.revision.tombstone && keep(held));
    }

    /// The live records: in key order if asked, otherwise by arrival of the keys.
    pub fn into_records(mut self, ordered: bool) -> impl Iterator<Item = NotedRecord<'a, N>> {
        self.retain(|_| true);
        let mut held = self.held;
        if ordered {
            held.sort_by_cached_key(|held| record_key(held.record));
        }
        held.into_iter()
    }
}

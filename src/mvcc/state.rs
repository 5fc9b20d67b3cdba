//! Folding records into the state they add up to.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{Stored, record_key};

/// Where the record of a key is held.
struct Slot {
    /// Of the key: told apart by it, keys need not be fetched from the file to be compared.
    hash: u64,
    index: usize,
}

/// Folds records into the newest record of each key.
#[derive(Default)]
pub struct State<'a> {
    hasher: DefaultHashBuilder,
    slots: HashTable<Slot>,
    /// In the order of arrival, so that the records are found again in the order of the file.
    /// Deletions stay, to outdo what is older.
    held: Vec<Stored<'a>>,
}

impl<'a> State<'a> {
    /// An empty state; `expected` is a guess at the number of keys.
    #[must_use]
    pub fn new(expected: usize) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            slots: HashTable::with_capacity(expected),
            held: Vec::with_capacity(expected),
        }
    }

    /// The record held for `key`; if there is none, `stored` is put there first.
    #[inline]
    fn held(&mut self, key: &[u8], stored: Stored<'a>) -> &mut Stored<'a> {
        let hash = self.hasher.hash_one(key);
        let held = &self.held;
        let same =
            |slot: &Slot| slot.hash == hash && record_key(held[slot.index].record) == Some(key);
        let index = if let Some(slot) = self.slots.find(hash, same) {
            slot.index
        } else {
            let index = self.held.len();
            self.slots.insert_unique(hash, Slot { hash, index }, |slot| slot.hash);
            self.held.push(stored);
            index
        };
        &mut self.held[index]
    }

    /// Applies one record of `key`, which the record names, in ascending revision order.
    #[inline]
    pub fn apply(&mut self, key: &[u8], stored: Stored<'a>) {
        *self.held(key, stored) = stored;
    }

    /// Applies one record of `key` that arrives in no order: the newest wins, be it a deletion.
    #[inline]
    pub fn apply_newest(&mut self, key: &[u8], stored: Stored<'a>) {
        let held = self.held(key, stored);
        if held.revision < stored.revision {
            *held = stored;
        }
    }

    /// The live records with their keys: in key order if asked, otherwise by arrival of the keys.
    pub fn into_records(self, ordered: bool) -> impl Iterator<Item = (&'a [u8], Stored<'a>)> {
        drop(self.slots);
        let mut held = self.held;
        held.retain(|stored| !stored.revision.tombstone);
        if ordered {
            held.sort_by_cached_key(|stored| record_key(stored.record));
        }
        held.into_iter().filter_map(|stored| Some((record_key(stored.record)?, stored)))
    }
}

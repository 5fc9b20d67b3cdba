//! Counts that stay true while entries change, in little memory.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use hashbrown::HashMap;

use super::Series;
use crate::scan::{Counts, Judged};

/// What stands for an etcd key: 96 bits of two keyed hashes. Of a million keys, two share them with
/// a probability of one in 10¹⁷; the keys themselves would take five times the memory.
type Mark = [u32; 3];

/// Counts, and of every entry which group it counts in.
pub struct Ledger {
    hashers: (RandomState, RandomState),
    counts: Counts,
    groups: HashMap<Mark, u32>,
    /// The lowest modification revision of each group, as of the scan.
    oldest: Vec<i64>,
}

impl Ledger {
    /// For about so many entries: what is foreseen is not moved as it grows.
    #[must_use]
    pub fn new(entries: u64) -> Self {
        Self {
            hashers: (RandomState::new(), RandomState::new()),
            counts: Counts::default(),
            groups: HashMap::with_capacity(usize::try_from(entries).unwrap_or(0).min(1 << 24)),
            oldest: Vec::new(),
        }
    }

    #[allow(clippy::cast_possible_truncation)] // halves of a hash
    fn mark(&self, key: &[u8]) -> Mark {
        let first = self.hashers.0.hash_one(key);
        [first as u32, (first >> 32) as u32, self.hashers.1.hash_one(key) as u32]
    }

    /// An entry was read by a scan, at this modification revision.
    pub fn scanned(&mut self, key: &[u8], resource: &str, judged: &Judged<'_>, revision: i64) {
        let group = self.put(key, resource, judged);
        if self.oldest.len() <= group {
            self.oldest.resize(group + 1, i64::MAX);
        }
        self.oldest[group] = self.oldest[group].min(revision);
    }

    /// An entry was written; returns its group.
    pub fn put(&mut self, key: &[u8], resource: &str, judged: &Judged<'_>) -> usize {
        let group = self.counts.add(resource, judged, 0);
        // There are never four thousand million groups.
        let number = u32::try_from(group).unwrap_or(u32::MAX);
        if let Some(before) = self.groups.insert(self.mark(key), number) {
            self.counts.remove_from(before as usize, 0);
        }
        group
    }

    /// An entry was deleted.
    pub fn delete(&mut self, key: &[u8]) {
        if let Some(before) = self.groups.remove(&self.mark(key)) {
            self.counts.remove_from(before as usize, 0);
        }
    }

    /// The counts, to note what is no entry.
    pub fn counts_mut(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// What is published.
    #[must_use]
    pub fn series(&self) -> Vec<Series> {
        let number = |key| self.counts.number(key);
        self.counts
            .groups()
            .into_iter()
            .map(|(key, tally)| Series {
                oldest_revision: number(key)
                    .and_then(|n| self.oldest.get(n).copied())
                    .filter(|r| *r != i64::MAX),
                entries: tally.entries,
                group: key.clone(),
            })
            .collect()
    }

    /// Sums over everything.
    #[must_use]
    pub fn totals(&self) -> crate::scan::Totals {
        self.counts.totals()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryRef;
    use crate::scan::{Judge, Prefixes};

    #[test]
    fn writes_replace_deletions_take_out_and_the_oldest_is_the_scans() {
        let mut ledger = Ledger::new(2);
        let sealed: &[u8] = b"k8s:enc:secretbox:v1:k:xx";
        let judge = |value| Prefixes.judge("secrets", EntryRef::new(b"", value));
        ledger.scanned(b"/a", "secrets", &judge(b"k8s\0"), 9);
        ledger.scanned(b"/b", "secrets", &judge(b"k8s\0"), 7);
        ledger.put(b"/b", "secrets", &judge(sealed));
        ledger.put(b"/b", "secrets", &judge(sealed));
        ledger.delete(b"/never");
        let seen: Vec<_> = ledger.series().iter().map(|s| (s.entries, s.oldest_revision)).collect();
        assert_eq!(seen, [(1, Some(7)), (1, None)]);
        ledger.delete(b"/a");
        ledger.delete(b"/a");
        assert_eq!(ledger.totals().entries, 1);
        assert_eq!(ledger.totals().plaintext, 0);
    }
}

//! Many entries with one cause: how many, and the first by name.

use std::collections::BTreeMap;

/// Entries that a cause names; what lists everything names them all.
const NAMED: usize = 3;
/// Different causes that are remembered. Causes that name one entry each are no cause of many.
const REMEMBERED: usize = 1000;

/// Entries by what is wrong with them.
#[derive(Clone, Debug, Default)]
pub struct Causes {
    causes: BTreeMap<String, Cause>,
    /// Entries of causes that are too many to remember.
    others: u64,
}

/// What has one cause.
#[derive(Clone, Debug, Default)]
pub struct Cause {
    /// How many entries.
    pub entries: u64,
    /// The keys of the first few in the order of keys, whatever order they come in.
    pub first: Vec<Vec<u8>>,
}

impl Causes {
    /// Notes an entry.
    pub fn add(&mut self, key: &[u8], cause: &str) {
        if !self.causes.contains_key(cause) && self.causes.len() >= REMEMBERED {
            self.others += 1;
            return;
        }
        let found = match self.causes.get_mut(cause) {
            Some(found) => found,
            None => self.causes.entry(cause.to_owned()).or_default(),
        };
        found.entries += 1;
        let place = found.first.partition_point(|k| k.as_slice() < key);
        if place < NAMED {
            found.first.insert(place, key.to_vec());
            found.first.truncate(NAMED);
        }
    }

    /// Whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    /// How many entries were noted.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.causes.values().map(|cause| cause.entries).sum::<u64>() + self.others
    }

    /// Whether one of the causes is such a one.
    #[must_use]
    pub fn any(&self, is: impl Fn(&str) -> bool) -> bool {
        self.causes.keys().any(|cause| is(cause))
    }

    /// The causes that are remembered, by the first key that has each.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&str, &Cause)> {
        let mut causes: Vec<_> = self.causes.iter().map(|(text, c)| (text.as_str(), c)).collect();
        causes.sort_by(|a, b| a.1.first.cmp(&b.1.first));
        causes
    }

    /// Entries with causes that are too many to remember.
    #[must_use]
    pub fn others(&self) -> u64 {
        self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_causes_as_entries_end_somewhere() {
        let mut causes = Causes::default();
        for i in 0..3000 {
            causes.add(format!("/k{i:04}").as_bytes(), &format!("cause {i}"));
        }
        assert_eq!(causes.sorted().len(), REMEMBERED);
        assert_eq!(causes.others(), 2000);
    }
}

//! Counts that stay true while entries change.

use std::collections::HashMap;

use super::{Counts, Judged};

/// Counts, and of every entry what it counts as.
///
/// A watch tells what an entry is now, not reliably what it was: etcd forgets that when it
/// compacts.
#[derive(Debug, Default)]
pub struct Follower {
    counts: Counts,
    /// Group, stored bytes and whether it is misplaced, by key.
    entries: HashMap<Box<[u8]>, (u32, u32, bool)>,
}

impl Follower {
    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The counts, to note what is no entry.
    pub fn counts_mut(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// An entry was read or written; `bytes` is the size of its stored value. Returns whether the
    /// counts changed.
    pub fn put(&mut self, key: &[u8], resource: &str, judged: &Judged<'_>, bytes: usize) -> bool {
        let group = self.counts.add(resource, judged, bytes as u64);
        // etcd's largest values are a few megabytes, and groups are few.
        let new = (
            u32::try_from(group).unwrap_or(u32::MAX),
            u32::try_from(bytes).unwrap_or(u32::MAX),
            judged.misplaced.is_some(),
        );
        let old = if let Some(entry) = self.entries.get_mut(key) {
            Some(std::mem::replace(entry, new))
        } else {
            self.entries.insert(key.into(), new)
        };
        if let Some(old) = old {
            self.take_out(old);
        }
        old != Some(new)
    }

    /// An entry was deleted. Returns whether it was counted.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let old = self.entries.remove(key);
        if let Some(old) = old {
            self.take_out(old);
        }
        old.is_some()
    }

    fn take_out(&mut self, (group, bytes, misplaced): (u32, u32, bool)) {
        self.counts.remove_from(group as usize, u64::from(bytes));
        self.counts.misplaced -= u64::from(misplaced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryRef;
    use crate::scan::{Judge, Prefixes};

    #[test]
    fn writes_replace_and_deletions_take_out() {
        let mut follower = Follower::default();
        let put = |f: &mut Follower, key: &[u8], value: &[u8]| {
            let judged = Prefixes.judge("secrets", EntryRef::new(key, value));
            f.put(key, "secrets", &judged, value.len())
        };
        let sealed = b"k8s:enc:secretbox:v1:k:xx";
        assert!(put(&mut follower, b"/a", b"k8s\0"));
        assert!(put(&mut follower, b"/b", b"k8s\0"));
        assert!(!put(&mut follower, b"/b", b"k8s\0"), "the same again");
        assert!(put(&mut follower, b"/a", sealed));
        let totals = follower.counts().totals();
        assert_eq!((totals.entries, totals.plaintext, totals.encrypted), (2, 1, 1));
        assert_eq!(follower.counts().groups()[1].1.bytes, sealed.len() as u64);
        assert!(follower.delete(b"/b"));
        assert!(!follower.delete(b"/b"));
        assert!(!follower.delete(b"/never"));
        let totals = follower.counts().totals();
        assert_eq!((totals.entries, totals.plaintext, totals.encrypted), (1, 0, 1));
        assert_eq!(follower.counts().groups().len(), 1);
    }
}

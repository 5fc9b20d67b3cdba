//! Folds entries into findings: how is every entry stored. Streams, prints nothing, and keeps
//! only counts unless a list was asked for.

mod causes;
mod configured;
mod follow;
mod judge;
pub mod place;

pub use causes::{Cause, Causes};
pub use configured::{ByPrefix, ByReading, how, judge_with};
pub use follow::Follower;
pub use judge::{Judge, Judged, Prefixes, Reads};

pub use crate::transform::Status;

use std::hash::{Hash, Hasher};

use crate::entry::EntryRef;
use crate::envelope::{Provider, Version};
use crate::resource::Location;

/// One entry's finding, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The full etcd key.
    pub key: Vec<u8>,
    /// Group-qualified resource.
    pub resource: String,
    /// Namespace of a namespaced object.
    pub namespace: Option<String>,
    /// Object name.
    pub name: String,
    /// How it is stored and what that means.
    pub judged: Judged<'static>,
    /// Stored value, bytes.
    pub size: u64,
    /// etcd's revision of the creating put.
    pub create_revision: i64,
    /// etcd's revision of the last put.
    pub mod_revision: i64,
    /// etcd's number of puts since creation.
    pub version_count: i64,
}

impl Finding {
    /// Copies a finding out of borrowed parts.
    #[must_use]
    pub fn new(entry: EntryRef<'_>, location: &Location<'_>, judged: Judged<'_>) -> Self {
        Self {
            key: entry.key.to_vec(),
            resource: location.resource.clone().into_owned(),
            namespace: location.namespace.clone().map(std::borrow::Cow::into_owned),
            name: location.name.clone().into_owned(),
            judged: judged.into_owned(),
            size: entry.stored().len() as u64,
            create_revision: entry.create_revision,
            mod_revision: entry.mod_revision,
            version_count: entry.version,
        }
    }
}

/// What entries are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// Group-qualified resource.
    pub resource: String,
    /// Provider, ordered by its word.
    pub provider: Provider,
    /// Format version.
    pub version: Option<Version>,
    /// Key or plugin name.
    pub key_name: Option<String>,
    /// KMS v2 key ID.
    pub kms_key_id: Option<String>,
    /// Status, where a configuration was given.
    pub status: Option<Status>,
}

#[derive(PartialEq, Eq, Hash)]
struct GroupRef<'a> {
    resource: &'a str,
    provider: Provider,
    version: Option<Version>,
    key_name: Option<&'a str>,
    kms_key_id: Option<&'a str>,
    status: Option<Status>,
}

impl GroupKey {
    fn as_ref(&self) -> GroupRef<'_> {
        GroupRef {
            resource: &self.resource,
            provider: self.provider,
            version: self.version,
            key_name: self.key_name.as_deref(),
            kms_key_id: self.kms_key_id.as_deref(),
            status: self.status,
        }
    }
}

impl<'a> GroupRef<'a> {
    fn new(resource: &'a str, judged: &'a Judged<'_>) -> Self {
        Self {
            resource,
            provider: judged.provider,
            version: judged.version,
            key_name: judged.key_name.as_deref(),
            kms_key_id: judged.kms_key_id.as_deref(),
            status: judged.status,
        }
    }

    fn to_key(&self) -> GroupKey {
        GroupKey {
            resource: self.resource.to_owned(),
            provider: self.provider,
            version: self.version,
            key_name: self.key_name.map(str::to_owned),
            kms_key_id: self.kms_key_id.map(str::to_owned),
            status: self.status,
        }
    }
}

impl hashbrown::Equivalent<Hashed> for GroupRef<'_> {
    fn equivalent(&self, key: &Hashed) -> bool {
        *self == key.0.as_ref()
    }
}

/// Hashes as its borrowed form does, which lookups without allocation rely on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hashed(GroupKey);

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ref().hash(state);
    }
}

/// Entries and stored bytes of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of entries.
    pub entries: u64,
    /// Sum of stored value sizes, bytes.
    pub bytes: u64,
}

/// Counts over everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All entries.
    pub entries: u64,
    /// Stored unencrypted.
    pub plaintext: u64,
    /// Stored with a `k8s:enc:` prefix.
    pub encrypted: u64,
    /// By status; all zero without a configuration.
    pub current: u64,
    /// See [`Status::Stale`].
    pub stale: u64,
    /// See [`Status::Unreadable`].
    pub unreadable: u64,
    /// See [`Status::Unknown`].
    pub unknown: u64,
    /// Other objects than their keys say; counted by their status as well.
    pub misplaced: u64,
}

impl std::ops::Add for Totals {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            entries: self.entries + more.entries,
            plaintext: self.plaintext + more.plaintext,
            encrypted: self.encrypted + more.encrypted,
            current: self.current + more.current,
            stale: self.stale + more.stale,
            unreadable: self.unreadable + more.unreadable,
            unknown: self.unknown + more.unknown,
            misplaced: self.misplaced + more.misplaced,
        }
    }
}

/// Counts of a running or finished scan.
#[derive(Debug, Default)]
pub struct Counts {
    groups: Vec<(GroupKey, Tally)>,
    index: hashbrown::HashMap<Hashed, usize>,
    /// The group of the entry before: neighbours are mostly alike.
    last: usize,
    /// Records that the API server never encrypts, by the resource they would be.
    pub internal: u64,
    /// Entries that hold another object than their key says; they are in the groups, too.
    pub misplaced: u64,
}

impl Counts {
    /// Counts one entry; returns the group's number, for [`Counts::remove_from`].
    pub fn add(&mut self, resource: &str, judged: &Judged<'_>, bytes: u64) -> usize {
        let group = self.group(resource, judged);
        self.misplaced += u64::from(judged.misplaced.is_some());
        self.add_to(group, bytes);
        group
    }

    /// Counts one entry into the group that [`Counts::group`] named.
    pub fn add_to(&mut self, group: usize, bytes: u64) {
        if let Some((_, tally)) = self.groups.get_mut(group) {
            tally.entries += 1;
            tally.bytes += bytes;
        }
    }

    /// The number of the group that an entry belongs to; counts nothing.
    pub fn group(&mut self, resource: &str, judged: &Judged<'_>) -> usize {
        let group = GroupRef::new(resource, judged);
        if self.groups.get(self.last).is_none_or(|(k, _)| k.as_ref() != group) {
            self.last = if let Some(i) = self.index.get(&group) {
                *i
            } else {
                let i = self.groups.len();
                self.groups.push((group.to_key(), Tally::default()));
                self.index.insert(Hashed(group.to_key()), i);
                i
            };
        }
        self.last
    }

    /// The number of a group that was counted.
    #[must_use]
    pub fn number(&self, key: &GroupKey) -> Option<usize> {
        self.index.get(&key.as_ref()).copied()
    }

    /// Takes one entry out of the group that [`Counts::add`] named.
    pub fn remove_from(&mut self, group: usize, bytes: u64) {
        if let Some((_, tally)) = self.groups.get_mut(group) {
            tally.entries = tally.entries.saturating_sub(1);
            tally.bytes = tally.bytes.saturating_sub(bytes);
        }
    }

    /// Groups sorted by resource, provider, version and key.
    #[must_use]
    pub fn groups(&self) -> Vec<(&GroupKey, Tally)> {
        let mut groups: Vec<_> =
            self.groups.iter().filter(|(_, t)| t.entries > 0).map(|(k, t)| (k, *t)).collect();
        groups.sort_unstable_by_key(|(k, _)| *k);
        groups
    }

    /// Sums over all groups.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { misplaced: self.misplaced, ..Totals::default() };
        for (key, tally) in &self.groups {
            totals.entries += tally.entries;
            if key.provider == Provider::Identity {
                totals.plaintext += tally.entries;
            } else {
                totals.encrypted += tally.entries;
            }
            match key.status {
                Some(Status::Current) => totals.current += tally.entries,
                Some(Status::Stale) => totals.stale += tally.entries,
                Some(Status::Unreadable) => totals.unreadable += tally.entries,
                Some(Status::Unknown) => totals.unknown += tally.entries,
                None => {}
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_sorted_and_taken_out_again() {
        let mut counts = Counts::default();
        let judge = Prefixes;
        let values: [&[u8]; 4] = [
            b"k8s:enc:secretbox:v1:k2:xxxx",
            b"k8s\0",
            b"k8s:enc:secretbox:v1:k1:x",
            b"k8s:enc:secretbox:v1:k2:x",
        ];
        let mut numbers = Vec::new();
        for value in values {
            numbers.push(counts.add(
                "secrets",
                &judge.judge("secrets", EntryRef::new(b"/k", value)),
                value.len() as u64,
            ));
        }
        let seen: Vec<_> = counts
            .groups()
            .into_iter()
            .map(|(k, t)| (k.provider.as_str(), k.key_name.clone(), t.entries))
            .collect();
        assert_eq!(
            seen,
            [
                ("identity", None, 1),
                ("secretbox", Some("k1".into()), 1),
                ("secretbox", Some("k2".into()), 2)
            ]
        );
        let totals = counts.totals();
        assert_eq!((totals.entries, totals.plaintext, totals.encrypted), (4, 1, 3));
        counts.remove_from(numbers[1], 4);
        assert_eq!(counts.totals().plaintext, 0);
        assert_eq!(counts.groups().len(), 2);
    }
}

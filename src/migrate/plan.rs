//! What a migration would do: which entries are not as the API server would write them, and
//! whether each of them can be read. Writes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::latest::LastWrites;
use crate::entry::Entry;
use crate::envelope::{Provider, StoredUnder};
use crate::scan::{GroupKey, Status, Tally};
use crate::secret::Plaintext;
use crate::storage;
use crate::transform::{KeyUse, Opened, ResourceTransformers, Transformers};

/// One entry that is to be rewritten. Its value is read again when its turn comes.
#[derive(Clone, Debug)]
pub struct Item {
    /// The etcd key.
    pub key: Box<[u8]>,
    /// Stored value, bytes.
    pub size: usize,
    /// Index into [`Plan::resources`].
    pub resource: usize,
    /// The item before it is its neighbour in etcd too, as far as is known.
    pub neighbour: bool,
}

/// An entry that could not be dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The etcd key.
    pub key: Vec<u8>,
    /// Group-qualified resource.
    pub resource: String,
    /// Why, without any stored bytes.
    pub reason: String,
}

/// What a value is to a migration.
pub enum Examined {
    /// As the API server would write it.
    Current,
    /// To be rewritten, with its plaintext.
    Stale(Opened),
    /// Cannot be read, or is no object.
    Unreadable(String),
}

/// Entries of a plan that are stored alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many, and their stored bytes.
    pub stored: Tally,
    /// Bytes of their plaintext.
    pub plaintext: u64,
}

impl Share {
    /// About what they take when rewritten, bytes.
    #[must_use]
    pub fn bytes_after(&self, by: &Written) -> u64 {
        self.plaintext + self.stored.entries * by.overhead as u64
    }
}

/// One resource of a plan.
pub struct Resource {
    /// Its providers.
    pub transformers: Arc<ResourceTransformers>,
    /// The prefix does not tell which of several keys of one name wrote a value, or the name that
    /// it has is not trusted.
    ambiguous: bool,
}

impl Resource {
    fn new(transformers: Arc<ResourceTransformers>) -> Self {
        let write = transformers.write_key();
        let names = transformers.key_names(write.provider, write.version);
        let same = names.iter().filter(|n| Some(**n) == write.key.as_deref()).count();
        let ambiguous = same > 1 || transformers.tries_keys();
        Self { transformers, ambiguous }
    }

    /// Decides about a stored value, by decrypting it unless its prefix is proof enough. What is
    /// inside must be an object: anything else would only get another envelope, in which nobody
    /// sees any more what it is.
    #[must_use]
    pub fn examine(&self, key: &[u8], value: &[u8]) -> Examined {
        if !self.ambiguous {
            let verdict = self.transformers.classify(value);
            // Without encryption the prefix proves nothing.
            if verdict.status == Status::Current && verdict.provider != Provider::Identity {
                return Examined::Current;
            }
        }
        match self.transformers.read(key, value) {
            Ok(opened) => match storage::type_meta(opened.plaintext.expose()) {
                Err(e) => Examined::Unreadable(format!("{e}; it was left as it is")),
                Ok(_) if opened.stale => Examined::Stale(opened),
                Ok(_) => Examined::Current,
            },
            Err(e) => Examined::Unreadable(e.to_string()),
        }
    }
}

/// What is to be done.
#[derive(Default)]
pub struct Plan {
    /// Entries to rewrite, in key order.
    pub items: Vec<Item>,
    /// The resources that [`Item::resource`] names.
    pub resources: Vec<Resource>,
    /// What is to be rewritten, by how it is stored now.
    pub groups: BTreeMap<GroupKey, Share>,
    /// Entries that cannot be read or are no objects, and so stay as they are.
    pub unreadable: Vec<Failed>,
    /// Entries that were looked at.
    pub entries: u64,
    /// Entries that are current.
    pub current: u64,
    /// Entries that are not, but were tried before and so are no items.
    pub tried: u64,
    /// The newest writes, as the configuration writes and otherwise.
    pub last_writes: LastWrites,
    /// Bytes that the new revisions add to the database, its pages included, beside what
    /// encryption adds to each.
    growth: u64,
}

/// What a self-test of a resource's write provider found.
#[derive(Clone, Debug)]
pub struct Written {
    /// Provider and key that new values get.
    pub by: KeyUse,
    /// Bytes that encryption adds; with padding, on average.
    pub overhead: usize,
}

/// Page size that etcd's database has where nothing else is known, bytes.
const PAGE: u64 = 4096;
/// What bbolt and etcd store beside key and value for each revision: the revision key, an
/// element header and the other fields of `mvccpb.KeyValue`. Bytes.
const RECORD: u64 = 17 + 16 + 40;

/// What one more revision adds to the database: small records fill pages to nine tenths
/// (etcd `server/storage/backend/batch_tx.go`: `FillPercent`), large ones take whole pages.
fn record_growth(key: u64, value: u64) -> u64 {
    let bytes = key + value + RECORD;
    if bytes > PAGE { bytes.div_ceil(PAGE) * PAGE } else { bytes * 10 / 9 }
}

/// Collects a plan from entries as they come.
pub struct Planner<'t> {
    transformers: &'t Transformers,
    by_name: HashMap<String, usize>,
    /// The entry before is an item of this resource.
    previous: Option<usize>,
    plan: Plan,
}

impl<'t> Planner<'t> {
    /// Judges with `transformers`.
    #[must_use]
    pub fn new(transformers: &'t Transformers) -> Self {
        Self { transformers, by_name: HashMap::new(), previous: None, plan: Plan::default() }
    }

    fn resource(&mut self, name: &str) -> usize {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.plan.resources.len();
        self.plan.resources.push(Resource::new(self.transformers.for_resource(name)));
        self.by_name.insert(name.to_owned(), index);
        index
    }

    /// Adds entries, each with its group-qualified resource. Several threads decrypt.
    pub fn add(&mut self, batch: &[(Entry, String)]) {
        use rayon::prelude::*;
        let indices: Vec<usize> = batch.iter().map(|(_, name)| self.resource(name)).collect();
        let resources = &self.plan.resources;
        let judged: Vec<_> = batch
            .par_iter()
            .zip(&indices)
            .map(|((entry, _), index)| match resources[*index].examine(&entry.key, &entry.value) {
                Examined::Current => None,
                Examined::Stale(opened) => Some(Ok(opened.plaintext.len())),
                Examined::Unreadable(reason) => Some(Err(reason)),
            })
            .collect();
        for (((entry, name), index), judged) in batch.iter().zip(indices).zip(judged) {
            self.plan.entries += 1;
            let previous = self.previous.take();
            match judged {
                None => {
                    self.plan.current += 1;
                    self.plan.last_writes.current(name, entry.mod_revision);
                }
                Some(Ok(plaintext)) => {
                    self.stale(entry, plaintext as u64, name, index, previous == Some(index));
                    self.previous = Some(index);
                }
                Some(Err(reason)) => self.plan.unreadable.push(Failed {
                    key: entry.key.clone(),
                    resource: name.clone(),
                    reason,
                }),
            }
        }
    }

    fn stale(
        &mut self,
        entry: &Entry,
        plaintext: u64,
        resource: &str,
        index: usize,
        neighbour: bool,
    ) {
        let verdict = self.plan.resources[index].transformers.classify(&entry.value);
        let under = StoredUnder {
            provider: verdict.provider,
            version: verdict.version,
            key: verdict.key_name.as_deref(),
            kms_key_id: verdict.kms_key_id.as_deref(),
        };
        self.plan.last_writes.otherwise(resource, entry.mod_revision, under);
        let group = GroupKey {
            resource: resource.to_owned(),
            provider: verdict.provider,
            version: verdict.version,
            key_name: verdict.key_name.map(Into::into),
            kms_key_id: verdict.kms_key_id.map(Into::into),
            status: Some(Status::Stale),
        };
        let share = self.plan.groups.entry(group).or_default();
        share.stored.entries += 1;
        share.stored.bytes += entry.value.len() as u64;
        share.plaintext += plaintext;
        self.plan.growth += record_growth(entry.key.len() as u64, plaintext);
        let neighbour = neighbour && self.plan.items.last().is_some_and(|i| *i.key < *entry.key);
        self.plan.items.push(Item {
            key: entry.key.clone().into_boxed_slice(),
            size: entry.value.len(),
            resource: index,
            neighbour,
        });
    }

    /// The plan, without the entries of `except`, which were tried before.
    #[must_use]
    pub fn finish(mut self, except: &HashSet<Vec<u8>>) -> Plan {
        if !except.is_empty() {
            let mut gap = false;
            let tried = &mut self.plan.tried;
            self.plan.items.retain_mut(|i| {
                i.neighbour &= !gap;
                gap = except.contains(&*i.key);
                *tried += u64::from(gap);
                !gap
            });
        }
        self.plan
    }
}

impl Plan {
    /// Writes and reads back a made-up value with the write provider of every resource that has
    /// entries, which asks its KMS plugin for its status too. Not only of those to be rewritten:
    /// without its plugin's answer nobody knows whether a KMS v2 value is current.
    ///
    /// # Errors
    /// With a sentence about the first provider that cannot be used.
    pub fn self_test(&self) -> Result<BTreeMap<String, Written>, String> {
        // What Kubernetes values begin with (kubernetes/apimachinery
        // `pkg/runtime/serializer/protobuf/protobuf.go`). Its length is half a block beyond whole
        // ones, so that padding is what it is on average.
        let sample = Plaintext::new(b"k8s\0a value that atrest made for testing".to_vec());
        let key = b"/registry/atrest/self-test";
        let mut tested = BTreeMap::new();
        for resource in &self.resources {
            let t = &resource.transformers;
            let stored = t.write(key, &sample).map_err(|e| e.to_string())?;
            let opened = t.read(key, &stored).map_err(|e| e.to_string())?;
            let by = t.write_key();
            if opened.stale || !opened.plaintext.same(&sample) {
                return Err(format!("{by} does not read back what it wrote"));
            }
            let overhead = stored.len().saturating_sub(sample.len());
            tested.insert(t.resource().to_owned(), Written { by, overhead });
        }
        Ok(tested)
    }

    /// Entries that are not current when `left` of the items are not.
    #[must_use]
    pub fn remaining(&self, left: u64) -> u64 {
        left + self.unreadable.len() as u64 + self.tried
    }

    /// About what the new revisions add to the database, bytes.
    #[must_use]
    pub fn growth(&self, written_by: &BTreeMap<String, Written>) -> u64 {
        let added = |(k, s): (&GroupKey, &Share)| {
            s.stored.entries * written_by.get(&k.resource).map_or(0, |w| w.overhead as u64)
        };
        self.growth + self.groups.iter().map(added).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::record_growth;

    #[test]
    fn large_records_take_whole_pages() {
        assert_eq!(record_growth(27, 5000), 8192);
        assert_eq!(record_growth(27, 800), 1000);
    }
}

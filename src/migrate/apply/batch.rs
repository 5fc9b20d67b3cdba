//! One chunk of a run: read, encrypt, write, read back, until every entry's fate is known.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::{Asked, Commit, Keyspace, MAX_BYTES, MAX_PAUSE, MAX_TRIES, PAUSE, Put, Run, Stop};
use crate::entry::Entry;
use crate::migrate::plan::{Examined, Item};
use crate::secret::Plaintext;
use crate::source::{EtcdError, RevisionError};
use crate::transform::{ResourceTransformers, WriteError};

/// What an entry adds to a transaction, bytes: its key stands in the comparison, the write and
/// the reading that replaces it.
pub(super) fn weight(key: usize, value: usize) -> usize {
    3 * key + value + 600
}

/// An entry on its way.
struct Work<'p> {
    /// Its number in the plan.
    index: usize,
    item: &'p Item,
    /// How often somebody else was faster.
    tries: u32,
    /// What was sent before without anybody saying that it was written: the stored bytes, which
    /// may be plaintext too, and their plaintext.
    sent: Vec<(Plaintext, Plaintext)>,
}

impl<'p> Work<'p> {
    fn new(index: usize, item: &'p Item) -> Self {
        Self { index, item, tries: 0, sent: Vec::new() }
    }
}

/// An entry that is ready to be written.
struct Ready<'p> {
    work: Work<'p>,
    before: Entry,
    plaintext: Plaintext,
    value: Vec<u8>,
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        // Going back to identity, these are plaintext.
        zeroize::Zeroize::zeroize(&mut self.value);
    }
}

impl<K: Keyspace> Run<'_, K> {
    /// Deals with neighbours of the plan.
    pub(super) fn chunk(&self, range: &Range<usize>) -> Result<(), Stop> {
        let items = self.plan.items.get(range.clone()).unwrap_or_default();
        let mut queue: Vec<Work<'_>> =
            range.clone().zip(items).map(|(index, item)| Work::new(index, item)).collect();
        while !queue.is_empty() {
            if let Some(tries) = queue.iter().map(|w| w.tries).min().filter(|t| *t > 0) {
                std::thread::sleep((PAUSE * 2u32.pow(tries.min(10))).min(MAX_PAUSE));
            }
            let mut again = Vec::new();
            for batch in self.batches(self.prepare(queue)?) {
                self.write(batch, &mut again)?;
            }
            queue = again;
        }
        Ok(())
    }

    /// Reads the entries as they are now and encrypts those that still need it.
    fn prepare<'p>(&self, queue: Vec<Work<'p>>) -> Result<Vec<Ready<'p>>, Stop> {
        let items: Vec<usize> = queue.iter().map(|w| w.index).collect();
        let entries = self.read_all(&items)?;
        let mut ready = Vec::new();
        for (work, entry) in queue.into_iter().zip(entries) {
            let Some(entry) = entry else {
                self.outcome().deleted += 1;
                (self.advance)(1);
                continue;
            };
            if let Some((_, plaintext)) = work.sent.iter().find(|(v, _)| v.expose() == entry.value)
            {
                // The transaction whose answer was lost did happen.
                self.outcome().written += 1;
                self.check(work.item, &entry.value, plaintext)?;
                (self.advance)(1);
                continue;
            }
            if work.tries > 0 {
                self.outcome().conflicts += 1;
            }
            if let Some(made) = self.encrypt(work, entry)? {
                ready.push(made);
            } else {
                (self.advance)(1);
            }
        }
        Ok(ready)
    }

    /// As many readings as the answers' sizes ask for.
    fn read_all(&self, items: &[usize]) -> Result<Vec<Option<Entry>>, Stop> {
        match self.read(items, None) {
            Ok(entries) => Ok(entries),
            Err(Asked::TooLarge(_)) if items.len() > 1 => {
                let (left, right) = items.split_at(items.len() / 2);
                let mut entries = self.read_all(left)?;
                entries.extend(self.read_all(right)?);
                Ok(entries)
            }
            Err(asked) => Err(asked.into()),
        }
    }

    /// The new value of an entry; none if there is nothing to write.
    fn encrypt<'p>(&self, work: Work<'p>, before: Entry) -> Result<Option<Ready<'p>>, Stop> {
        let resource = &self.plan.resources[work.item.resource];
        let opened = match resource.examine(&before.key, &before.value) {
            Examined::Current => {
                self.outcome().already += 1;
                return Ok(None);
            }
            Examined::Unreadable(reason) => {
                self.failed(work.item, reason);
                return Ok(None);
            }
            Examined::Stale(_) if work.tries > MAX_TRIES => {
                let reason = "it was changed by others each time it was about to be rewritten";
                self.failed(work.item, reason.to_owned());
                return Ok(None);
            }
            Examined::Stale(opened) => opened,
        };
        let t = &resource.transformers;
        let value = match t.write(&before.key, &opened.plaintext) {
            Ok(value) => value,
            // What a plugin does not encrypt now, it will not for the next entry.
            Err(e @ WriteError::Kms { .. }) => return Err(Stop::Provider(e.to_string())),
            Err(e) => {
                self.failed(work.item, e.to_string());
                return Ok(None);
            }
        };
        if !reads_back(t, &before.key, &value, &opened.plaintext) {
            return Err(Stop::Provider(format!(
                "{} does not read back what it wrote; nothing was written with it",
                t.write_key()
            )));
        }
        Ok(Some(Ready { work, before, plaintext: opened.plaintext, value }))
    }

    /// Neighbours together as far as a transaction holds them; what was changed by others before
    /// goes alone, so that it does not hold the rest up.
    fn batches<'p>(&self, ready: Vec<Ready<'p>>) -> Vec<Vec<Ready<'p>>> {
        let most = self.batch.load(Ordering::Relaxed);
        let mut batches: Vec<Vec<Ready<'p>>> = Vec::new();
        let (mut open, mut bytes) = (false, 0);
        for made in ready {
            let weight = weight(made.before.key.len(), made.value.len());
            if made.work.tries > 0 {
                batches.push(vec![made]);
                open = false;
                continue;
            }
            match batches.last_mut() {
                Some(last) if open && last.len() < most && bytes + weight <= MAX_BYTES => {
                    last.push(made);
                    bytes += weight;
                }
                _ => {
                    batches.push(vec![made]);
                    (open, bytes) = (true, weight);
                }
            }
        }
        batches
    }

    /// Writes a batch; what has to be tried again goes to `again`.
    fn write<'p>(&self, batch: Vec<Ready<'p>>, again: &mut Vec<Work<'p>>) -> Result<(), Stop> {
        let mut waiting = vec![batch];
        while let Some(batch) = waiting.pop() {
            let puts: Vec<Put<'_>> = batch
                .iter()
                .map(|r| Put {
                    key: &r.before.key,
                    mod_revision: r.before.mod_revision,
                    value: &r.value,
                })
                .collect();
            match self.commit(&puts) {
                Ok(Commit::Done(revision)) => {
                    self.outcome().written += batch.len() as u64;
                    self.verify(&batch, revision)?;
                    (self.advance)(batch.len() as u64);
                }
                Ok(Commit::Conflict(now)) => {
                    for (mut ready, now) in batch.into_iter().zip(now) {
                        let changed = now != Some(ready.before.mod_revision);
                        let value = Plaintext::new(std::mem::take(&mut ready.value));
                        let mut work = Work {
                            index: ready.work.index,
                            item: ready.work.item,
                            tries: ready.work.tries + u32::from(changed),
                            sent: std::mem::take(&mut ready.work.sent),
                        };
                        if changed {
                            work.sent.push((value, ready.plaintext.clone()));
                        }
                        again.push(work);
                    }
                }
                Err(Asked::TooLarge(_)) if batch.len() > 1 => {
                    let mut left = batch;
                    let right = left.split_off(left.len() / 2);
                    // The others need not find out for themselves.
                    self.batch.fetch_min(left.len().max(1), Ordering::Relaxed);
                    waiting.extend([right, left]);
                }
                Err(Asked::TooLarge(text)) => {
                    for ready in &batch {
                        let size = ready.value.len();
                        self.failed(ready.work.item, format!("{text} ({size} bytes)"));
                        (self.advance)(1);
                    }
                }
                Err(asked) => return Err(asked.into()),
            }
        }
        Ok(())
    }

    /// Reads a written batch back as of its own revision, or where that is gone already, as it is
    /// now.
    fn verify(&self, batch: &[Ready<'_>], revision: i64) -> Result<(), Stop> {
        let items: Vec<usize> = batch.iter().map(|r| r.work.index).collect();
        let entries = match self.read(&items, Some(revision)) {
            Ok(entries) => entries,
            Err(Asked::Compacted) => self.read_all(&items)?,
            Err(asked) => return Err(asked.into()),
        };
        let mut result = Ok(());
        for (ready, entry) in batch.iter().zip(entries) {
            match entry {
                Some(e) if e.mod_revision == revision => {
                    if let Err(stop) = self.check(ready.work.item, &e.value, &ready.plaintext) {
                        // What happened to one may have happened to those beside it.
                        let stop = self.put_back(ready, &e.value, revision, stop);
                        result = result.and(Err(stop));
                    }
                }
                // Changed by somebody else since, and our own revision is compacted already.
                _ => self.outcome().conflicts += 1,
            }
        }
        result
    }

    /// Decrypts a stored value and compares it with what it should hold.
    fn check(&self, item: &Item, stored: &[u8], plaintext: &Plaintext) -> Result<(), Stop> {
        let t = &self.plan.resources[item.resource].transformers;
        if reads_back(t, &item.key, stored, plaintext) {
            self.outcome().verified += 1;
            return Ok(());
        }
        let reason = "what was written does not read back as what was read before";
        self.failed(item, reason.to_owned());
        let mut outcome = self.outcome();
        outcome.written = outcome.written.saturating_sub(1);
        drop(outcome);
        Err(Stop::Mismatch(format!("{}: {reason}", String::from_utf8_lossy(&item.key))))
    }

    /// Gives an entry that cannot be read any more its old value again, unless somebody changed
    /// it. One that can be read is left alone whatever it says: an etcd that lost its last writes
    /// in a crash gives their revisions out again, so it may be somebody else's.
    fn put_back(&self, ready: &Ready<'_>, stored: &[u8], revision: i64, stop: Stop) -> Stop {
        let t = &self.plan.resources[ready.work.item.resource].transformers;
        if t.read(&ready.before.key, stored).is_ok() {
            return stop;
        }
        let old =
            Put { key: &ready.before.key, mod_revision: revision, value: &ready.before.value };
        match self.keys.commit(&[old]) {
            Ok(Commit::Done(_)) => Stop::Mismatch(format!("{stop}; its old value was put back")),
            _ => stop,
        }
    }
}

/// Whether `stored` decrypts to `plaintext`, compared in constant time.
fn reads_back(t: &ResourceTransformers, key: &[u8], stored: &[u8], plaintext: &Plaintext) -> bool {
    t.read(key, stored).is_ok_and(|opened| opened.plaintext.same(plaintext))
}

impl From<Asked> for Stop {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Stop(stop) => stop,
            Asked::TooLarge(text) => Self::Source(EtcdError::TooLarge(text).into()),
            Asked::Compacted => Self::Source(RevisionError::Gone.into()),
        }
    }
}

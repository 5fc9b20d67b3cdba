//! One chunk of a run: read, encrypt, write, read back, until every entry's fate is known.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{
    AGAIN, Asked, Commit, Entrance, Keyspace, KvError, MAX_BYTES, MAX_PAUSE, MAX_TRIES, PATIENCE,
    PAUSE, Put, Run, Stop,
};
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

impl<'p> Ready<'p> {
    /// Nothing was written: the key's revision is `now` this one.
    fn again(mut self, now: Option<i64>) -> Work<'p> {
        let changed = now != Some(self.before.mod_revision);
        let value = Plaintext::new(std::mem::take(&mut self.value));
        let mut work = Work {
            index: self.work.index,
            item: self.work.item,
            tries: self.work.tries + u32::from(changed),
            sent: std::mem::take(&mut self.work.sent),
        };
        if changed {
            work.sent.push((value, self.plaintext.clone()));
        }
        work
    }

    fn put(&self) -> Put<'_> {
        Put { key: &self.before.key, mod_revision: self.before.mod_revision, value: &self.value }
    }
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
            let ready = self.prepare(queue)?;
            if self.alone {
                self.write_each(ready, &mut again)?;
            } else {
                for batch in self.batches(ready) {
                    self.write(batch, &mut again)?;
                }
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
        // One value that does not survive its encryption is that value's trouble: the provider as
        // such was tried before anything was written.
        if !reads_back(t, &before.key, &value, &opened.plaintext) {
            let by = t.write_key();
            self.failed(work.item, format!("{by} does not read back what it makes of this value"));
            return Ok(None);
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
            let puts: Vec<Put<'_>> = batch.iter().map(Ready::put).collect();
            match self.commit(&puts) {
                Ok(Commit::Done(revision)) => {
                    self.outcome().written += batch.len() as u64;
                    let count = batch.len() as u64;
                    self.verify(batch.into_iter().map(|r| (r, revision)).collect())?;
                    (self.advance)(count);
                }
                Ok(Commit::Conflict(now)) => {
                    again.extend(batch.into_iter().zip(now).map(|(r, now)| r.again(now)));
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

    /// Reads what was written back as of the newest of its revisions; what somebody else has
    /// changed by then, as of its own, unless that is gone already.
    fn verify(&self, written: Vec<(Ready<'_>, i64)>) -> Result<(), Stop> {
        let Some(newest) = written.iter().map(|(_, revision)| *revision).max() else {
            return Ok(());
        };
        let items: Vec<usize> = written.iter().map(|(ready, _)| ready.work.index).collect();
        let entries = match self.read(&items, Some(newest)) {
            Ok(entries) => entries,
            Err(Asked::Compacted | Asked::TooLarge(_)) => self.read_all(&items)?,
            Err(asked) => return Err(asked.into()),
        };
        let mut result = Ok(());
        for ((ready, revision), entry) in written.into_iter().zip(entries) {
            let entry = match entry.filter(|e| e.mod_revision == revision) {
                Some(entry) => Some(entry),
                None => self.read_past(ready.work.index, revision)?,
            };
            match entry {
                Some(e) => {
                    if let Err(stop) = self.check(ready.work.item, &e.value, &ready.plaintext) {
                        // What happened to one may have happened to those beside it.
                        let stop = self.put_back(&ready, &e.value, revision, stop);
                        result = result.and(Err(stop));
                    }
                }
                // Changed by somebody else since, and our own revision is compacted already.
                None => self.outcome().conflicts += 1,
            }
        }
        result
    }

    /// What was written at a revision, if that is still held.
    fn read_past(&self, item: usize, revision: i64) -> Result<Option<Entry>, Stop> {
        match self.read(&[item], Some(revision)) {
            Ok(mut entries) => Ok(entries.pop().flatten().filter(|e| e.mod_revision == revision)),
            Err(Asked::Compacted) => Ok(None),
            Err(asked) => Err(asked.into()),
        }
    }

    /// Writes each entry in a transaction of its own; what has to be tried again goes to `again`.
    fn write_each<'p>(&self, ready: Vec<Ready<'p>>, again: &mut Vec<Work<'p>>) -> Result<(), Stop> {
        let mut waiting = ready;
        let mut away: Option<Instant> = None;
        while !waiting.is_empty() {
            let mut answers: Vec<Option<Result<Commit, KvError>>> = Vec::new();
            answers.resize_with(waiting.len(), || None);
            let puts: Vec<Put<'_>> = waiting.iter().map(Ready::put).collect();
            let entrance = Entrance { throttle: &self.throttle, stop: &|| self.stopped() };
            self.keys.commit_each(&puts, &entrance, &mut |index, answer| {
                let goes_on = matches!(&answer, Ok(_) | Err(KvError::TooLarge(_)));
                if let Some(place) = answers.get_mut(index) {
                    *place = Some(answer);
                }
                goes_on
            });
            drop(puts);
            let (mut stop, mut lost) = (None, None);
            let (mut written, mut left) = (Vec::new(), Vec::new());
            for (ready, answer) in waiting.into_iter().zip(answers) {
                match answer {
                    Some(Ok(Commit::Done(revision))) => written.push((ready, revision)),
                    Some(Ok(Commit::Conflict(now))) => {
                        again.push(ready.again(now.first().copied().flatten()));
                    }
                    Some(Err(KvError::TooLarge(text))) => {
                        let size = ready.value.len();
                        self.failed(ready.work.item, format!("{text} ({size} bytes)"));
                        (self.advance)(1);
                    }
                    Some(Err(KvError::Lost(e))) => {
                        lost = Some(e);
                        left.push(ready);
                    }
                    Some(Err(KvError::NoSpace)) => stop = Some(Stop::NoSpace),
                    Some(Err(KvError::Refused(e))) => stop = Some(Stop::Source(e)),
                    Some(Err(KvError::Busy | KvError::Compacted)) | None => left.push(ready),
                }
            }
            let count = written.len() as u64;
            self.outcome().written += count;
            self.verify(written)?;
            (self.advance)(count);
            if let Some(stop) = stop {
                return Err(stop);
            }
            if self.stopped() && !left.is_empty() {
                return Err(Stop::Interrupted);
            }
            match lost {
                None => away = None,
                Some(e) if away.is_some_and(|since| since.elapsed() > PATIENCE) => {
                    return Err(Stop::Source(e));
                }
                Some(_) => {
                    away.get_or_insert_with(Instant::now);
                    std::thread::sleep(AGAIN);
                }
            }
            waiting = left;
        }
        Ok(())
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

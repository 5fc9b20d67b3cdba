//! Revisions that the database has compacted away and the log still holds.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{DataDir, record};
use crate::source::{HeldSink, Holder, Query, Record, Source as _, SourceError, Visit};
use crate::wal::Log;
use crate::wal::replay::{Change, whole};

impl DataDir {
    /// What the log changed, by entry, where it is whole from the first entry on. `revision` is
    /// the newest of the database.
    #[must_use]
    pub fn whole_log<'a>(&self, log: &Log<'a>, revision: i64) -> Option<Vec<(u64, Change<'a>)>> {
        let applied = self.store().ok()?.bookkeeping.consistent_index.unwrap_or(0);
        whole(log, applied, revision)
    }

    /// The newest revision of the database alone.
    fn newest(&self) -> Result<i64, SourceError> {
        let store = self.store()?;
        let (newest, _) = store.records(&mut |_| {});
        Ok(newest.max(store.bookkeeping.compacted()).max(1))
    }
}

pub(super) fn read(
    dir: &mut DataDir,
    query: &Query,
    sink: &mut HeldSink<'_>,
) -> Result<Visit, SourceError> {
    let newest = dir.newest()?;
    // The log is borrowed from segments of its own, so that the history can be read meanwhile.
    let segments = dir.segments.clone();
    let segments: Vec<_> =
        segments.iter().map(|(name, data)| crate::wal::Segment { name, data }).collect();
    let log = Log::read(&segments);
    let changes = dir.whole_log(&log, newest);
    let limit = query.revision.filter(|r| *r > 0).unwrap_or(i64::MAX).min(newest);
    let is_whole = changes.is_some();
    let mut pending: BTreeMap<(i64, &[u8]), Change<'_>> = changes
        .into_iter()
        .flatten()
        .map(|(_, c)| ((c.revision.main, c.key), c))
        .filter(|((main, key), _)| *main <= limit && query.wants(key))
        .collect();

    let mut flow = ControlFlow::Continue(());
    let mut visit = dir.history(query, &mut |held| {
        let (main, key) = match held {
            Record::Put(entry) => (entry.mod_revision, entry.key),
            Record::Delete { key, revision } => (revision, key),
        };
        while let Some(first) = pending.first_entry().filter(|e| e.key().0 < main) {
            flow = sink(record(&first.remove()), Holder::Wal);
            if flow.is_break() {
                return flow;
            }
        }
        let mut same = pending.keys().take_while(|(at, _)| *at == main);
        if let Some(known) = same.find(|(_, k)| *k == key).copied() {
            pending.remove(&known);
        }
        flow = sink(held, Holder::KeySpace);
        flow
    })?;
    if flow.is_continue() {
        let _ = pending.into_values().try_for_each(|c| sink(record(&c), Holder::Wal));
    }
    visit.whole = is_whole && visit.damage.is_empty();
    if !is_whole && visit.compacted > 0 && !dir.segments.is_empty() {
        visit.notes.push(
            "the write-ahead log does not reach back to the first entry, so it does not tell which of its writes were compacted; `atrest residue` finds plaintext in it all the same"
                .to_owned(),
        );
    }
    Ok(visit)
}

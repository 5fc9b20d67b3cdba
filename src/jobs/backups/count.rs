//! What a backup holds, by how it is stored.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{Backup, Key, Options};
use crate::chain::chain;
use crate::entry::EntryRef;
use crate::envelope::Provider;
use crate::forensics::keys::KeyName;
use crate::resource::{Selection, Selector};
use crate::scan::{Counts, Judge, Prefixes, judge_with};
use crate::source::incremental::Incremental;
use crate::source::{Query, Record, Source, SourceError, Visit};

/// Counts what is live.
pub(super) fn count(source: &mut dyn Source, options: &Options<'_>, backup: &mut Backup) {
    let scope = &options.selection.scope;
    let query = Query { ranges: scope.ranges(&[Selector::All]), revision: None, ordered: false };
    let mut counting = Counting::new(options);
    let mut is_empty = true;
    let visit = source.visit(&query, &mut |entry| {
        is_empty = false;
        counting.entry(entry);
        ControlFlow::Continue(())
    });
    let revisions = !source.info().kind.is_archive();
    match visit {
        Ok(visit) => {
            counting.finish(&visit, revisions, backup);
            // Nothing was judged, which is no good news.
            if is_empty {
                let base = scope.base();
                backup.error.get_or_insert(format!("it holds nothing under {base}"));
            }
        }
        Err(e) => {
            backup.error.get_or_insert(chain(&e));
        }
    }
}

/// Counts what was written; says whether these are changes at all.
pub(super) fn count_changes(
    changes: &Incremental,
    options: &Options<'_>,
    backup: &mut Backup,
) -> Result<bool, SourceError> {
    let mut counting = Counting::new(options);
    let ranges = options.selection.scope.ranges(&[Selector::All]);
    let visit = changes.changes(&mut |record| {
        if let Record::Put(entry) = record
            && ranges.iter().any(|range| range.contains(entry.key))
        {
            counting.entry(entry);
        }
        ControlFlow::Continue(())
    })?;
    let Some(visit) = visit else { return Ok(false) };
    counting.finish(&visit, true, backup);
    Ok(true)
}

/// The selected entries, and the keys of all.
struct Counting<'o> {
    options: &'o Options<'o>,
    judge: Box<dyn Judge + 'o>,
    counts: Counts,
    keys: BTreeMap<Key, u64>,
    kms: BTreeMap<KeyName, u64>,
}

impl<'o> Counting<'o> {
    fn new(options: &'o Options<'o>) -> Self {
        Self {
            options,
            judge: judge_with(options.transformers, true),
            counts: Counts::default(),
            keys: BTreeMap::new(),
            kms: BTreeMap::new(),
        }
    }

    fn entry(&mut self, entry: EntryRef<'_>) {
        let selection: &Selection = &self.options.selection;
        let location = selection.scope.locate(entry.key);
        let selected = !location.internal && selection.locate(entry.key).is_some();
        let judged = if selected {
            self.judge.judge_at(&location, entry)
        } else {
            Prefixes.judge(&location.resource, entry)
        };
        if judged.provider == Provider::Kms {
            *self.kms.entry(KeyName::of(&judged)).or_default() += 1;
        }
        if judged.provider != Provider::Identity {
            let name = judged.key_name.as_deref().map(str::to_owned);
            *self.keys.entry(Key { provider: judged.provider, name }).or_default() += 1;
        }
        if selected {
            self.counts.add(&location.resource, &judged, entry.stored().len() as u64);
        }
    }

    fn finish(self, visit: &Visit, revisions: bool, backup: &mut Backup) {
        backup.revision = revisions.then_some(visit.revision);
        backup.totals = Some(self.counts.totals());
        backup.verified = self.options.transformers.is_some();
        backup.keys = self.keys;
        backup.kms = self.kms;
        if let Some(damage) = visit.damage.first() {
            backup.error.get_or_insert(format!("{}: {}", damage.location, damage.what));
        }
    }
}

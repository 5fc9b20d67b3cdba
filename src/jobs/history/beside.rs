//! What lies outside the key space, put between the revisions that a source holds.

use std::collections::{HashSet, VecDeque};

use super::Options;
use crate::jobs::lost::{Digest, Lost, digest};
use crate::resource::key::is_in;
use crate::source::{Query, Record};

/// Records that are still to be told.
pub(super) struct Beside<'o> {
    /// Ascending by revision.
    pending: VecDeque<&'o Lost>,
    /// Those of which none is known.
    timeless: Vec<&'o Lost>,
    /// Writes that the source holds, of keys with a timeless record.
    held: HashSet<Digest>,
}

impl<'o> Beside<'o> {
    /// Those that a query wants.
    pub(super) fn new(options: &Options<'o>, query: &Query) -> Self {
        let limit = options.revision;
        let wanted = |lost: &&Lost| {
            query.wants(&lost.key)
                && is_in(&options.scope.locate_named(&lost.key), options.namespaces)
                && limit.is_none_or(|limit| lost.revision.is_some_and(|r| r <= limit))
        };
        let (pending, timeless): (Vec<_>, Vec<_>) =
            options.lost().iter().filter(wanted).partition(|lost| lost.revision.is_some());
        Self { pending: pending.into(), timeless, held: HashSet::new() }
    }

    /// What is to be told before a record that the source holds. A copy of the record is not told
    /// at all.
    pub(super) fn before(&mut self, record: &Record<'_>) -> Vec<&'o Lost> {
        let (key, revision, value) = match record {
            Record::Put(entry) => (entry.key, entry.mod_revision, Some(entry.stored())),
            Record::Delete { key, revision } => (*key, *revision, None),
        };
        let older = self.pending.iter().take_while(|lost| lost.revision < Some(revision)).count();
        let told = self.pending.drain(..older).collect();
        let same = self.pending.iter().take_while(|lost| lost.revision == Some(revision)).count();
        let is_timeless = self.timeless.iter().any(|lost| lost.key == key);
        if same == 0 && !is_timeless {
            return told;
        }
        let own = value.map(|value| digest(key, value));
        let copy =
            self.pending.iter().take(same).position(|lost| lost.key == key && lost.digest() == own);
        if let Some(copy) = copy {
            self.pending.remove(copy);
        }
        if is_timeless {
            self.held.extend(own);
        }
        told
    }

    /// What is to be told after all that the source holds.
    pub(super) fn rest(self) -> impl Iterator<Item = &'o Lost> {
        let Self { pending, timeless, held } = self;
        let new = move |lost: &&Lost| lost.digest().is_none_or(|digest| !held.contains(&digest));
        pending.into_iter().chain(timeless.into_iter().filter(new))
    }
}

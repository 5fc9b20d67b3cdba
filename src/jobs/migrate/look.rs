//! Everything that was asked for, read and planned.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::{Error, Options};
use crate::entry::Entry;
use crate::jobs::Observer;
use crate::migrate::apply::Stop;
use crate::migrate::plan::{Plan, Planner};
use crate::resource::Selection;
use crate::scan::{ByPrefix, Judge as _, Status};
use crate::source::live::Live;
use crate::source::{Source as _, SourceError, Visit};

/// Entries that are judged together by several threads.
const BATCH_ENTRIES: usize = 4096;
const BATCH_BYTES: usize = 16 << 20;

/// Why there is no plan.
pub(super) enum Unplanned {
    Interrupted,
    Source(SourceError),
}

impl From<Unplanned> for Error {
    fn from(why: Unplanned) -> Self {
        match why {
            Unplanned::Interrupted => Self::Interrupted,
            Unplanned::Source(e) => Self::Source(e),
        }
    }
}

impl From<Unplanned> for Stop {
    fn from(why: Unplanned) -> Self {
        match why {
            Unplanned::Interrupted => Self::Interrupted,
            Unplanned::Source(e) => Self::Source(e),
        }
    }
}

/// What was seen beside the plan.
pub(super) struct Seen {
    pub visit: Visit,
    /// Entries that the configuration serves and nobody asked for, and that are not current.
    pub elsewhere: u64,
}

/// What is looked at.
pub(super) struct Look<'o> {
    options: &'o Options<'o>,
    /// What the configuration serves and nobody asked for lies in here; none where everything was
    /// asked for. One visit sees both.
    wider: Option<Selection>,
}

impl<'o> Look<'o> {
    /// At what was asked for, and at what else the configuration serves: a narrow selection
    /// narrows what is rewritten, not whether something is left.
    pub fn of(options: &'o Options<'o>) -> Self {
        let asked = options.selection;
        let judged = asked.judged(Some(options.configured.clone()));
        let whole = judged.resources.iter().all(|r| asked.resources.contains(r));
        let wider = (!whole || !asked.namespaces.is_empty()).then_some(judged);
        Self { options, wider }
    }

    /// At what was asked for alone.
    pub fn narrow(options: &'o Options<'o>) -> Self {
        Self { options, wider: None }
    }

    /// Looks at every entry; those of `except` were tried before.
    pub fn plan(
        &self,
        live: &mut Live,
        except: &HashSet<Vec<u8>>,
        observer: &mut dyn Observer,
    ) -> Result<(Plan, Seen), Unplanned> {
        let Options { selection, transformers, stop, .. } = self.options;
        let query = self.wider.as_ref().unwrap_or(selection).query(None, true);
        observer.begin("entries", &mut || live.estimate(&query));
        let judge = ByPrefix(transformers);
        let mut planner = Planner::new(transformers);
        let mut batch: Vec<(Entry, String)> = Vec::new();
        let (mut bytes, mut elsewhere) = (0, 0);
        let visit = live.visit(&query, &mut |entry| {
            if let Some(location) = selection.locate(entry.key) {
                if !location.internal {
                    bytes += entry.stored().len();
                    batch.push((entry.to_entry(), location.resource.into_owned()));
                }
            } else if let Some(wider) = &self.wider
                && let Some(location) = wider.locate(entry.key).filter(|l| !l.internal)
            {
                let stored = judge.judge(&location.resource, entry);
                elsewhere += u64::from(stored.status != Some(Status::Current));
            }
            if batch.len() >= BATCH_ENTRIES || bytes >= BATCH_BYTES {
                observer.advance(batch.len() as u64);
                planner.add(&batch);
                batch.clear();
                bytes = 0;
            }
            if stop.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        planner.add(&batch);
        observer.advance(batch.len() as u64);
        observer.end();
        if stop.load(Ordering::Relaxed) {
            return Err(Unplanned::Interrupted);
        }
        let visit = visit.map_err(Unplanned::Source)?;
        Ok((planner.finish(except), Seen { visit, elsewhere }))
    }
}

//! How the selected entries of a live etcd are stored, for as long as somebody looks or until
//! nothing is left to rewrite.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::Observer;
use super::follow::{self, Counted, Moment, Rules};
use crate::entry::EntryRef;
use crate::resource::Selection;
use crate::scan::{Counts, Follower, Judge, Totals};
use crate::source::live::Live;
use crate::source::{Record, SourceError, Visit};

/// Failures in a row to count anew, after which it is given up.
const TRIES: u32 = 10;

/// What to follow.
pub struct Options<'o> {
    /// What is shown.
    pub selection: &'o Selection,
    /// What decides whether something is left: the same, or more.
    pub judged: &'o Selection,
    /// How a value is stored.
    pub judge: &'o dyn Judge,
    /// The judge knows a configuration: what it would rewrite is left. Otherwise what is stored
    /// unencrypted is.
    pub with_status: bool,
    /// It ends when nothing is left.
    pub until_done: bool,
}

/// The counts as of one revision.
#[derive(Debug, Default)]
pub struct State {
    with_status: bool,
    /// Of what is shown.
    shown: Follower,
    /// Of what is judged beside it.
    elsewhere: Follower,
    revision: i64,
}

impl State {
    /// The newest revision that the counts hold.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What is shown.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        self.shown.counts()
    }

    /// Sums over everything that is judged, shown or not.
    #[must_use]
    pub fn judged(&self) -> Totals {
        self.shown.counts().totals() + self.elsewhere.counts().totals()
    }

    /// What is still to be rewritten, everywhere.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.left(&self.judged())
    }

    /// What is still to be rewritten of what is not shown.
    #[must_use]
    pub fn remaining_elsewhere(&self) -> u64 {
        self.left(&self.elsewhere.counts().totals())
    }

    fn left(&self, totals: &Totals) -> u64 {
        if self.with_status { totals.stale + totals.unknown } else { totals.plaintext }
    }
}

/// How it ended.
pub struct Outcome {
    /// The counts at the end.
    pub state: State,
    /// Nothing is left. Otherwise it was stopped.
    pub done: bool,
}

/// Follows until `stop` is set, `show` breaks, or nothing is left, if that is wanted. Every state
/// is handed to `show`, at most five a second.
///
/// # Errors
/// When the first connection or scan fails, when etcd refuses the watch, and when counting anew
/// fails too often.
pub fn run(
    connect: &mut dyn FnMut() -> Result<Live, SourceError>,
    options: &Options<'_>,
    show: &mut dyn FnMut(&State) -> ControlFlow<()>,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome, SourceError> {
    let rules = Rules {
        query: options.judged.query(None, false),
        rescan: None,
        resume: true,
        tries: Some(TRIES),
    };
    let mut job = Job { options, show, state: State::default(), done: false };
    follow::run(connect, &rules, &mut job, stop, observer)?;
    Ok(Outcome { state: job.state, done: job.done })
}

struct Job<'a> {
    options: &'a Options<'a>,
    show: &'a mut dyn FnMut(&State) -> ControlFlow<()>,
    state: State,
    done: bool,
}

/// Counts an entry; `scanned` where nothing of it was counted before.
fn put(options: &Options<'_>, state: &mut State, entry: EntryRef<'_>, scanned: bool) {
    let Some(location) = options.judged.locate(entry.key) else { return };
    let is_shown = options.selection.locate(entry.key).is_some();
    if location.internal {
        // Nobody waits for what is never encrypted: its number is the scan's.
        state.shown.counts_mut().internal += u64::from(is_shown && scanned);
        return;
    }
    let value = entry.stored();
    let judged = options.judge.judge_at(&location, entry);
    let follower = if is_shown { &mut state.shown } else { &mut state.elsewhere };
    follower.put(entry.key, &location.resource, &judged, value.len());
}

impl Counted for Job<'_> {
    type Scan = State;

    fn begin(&self, _live: &mut Live) -> State {
        State { with_status: self.options.with_status, ..State::default() }
    }

    fn entry(&self, scan: &mut State, entry: EntryRef<'_>) {
        put(self.options, scan, entry, true);
    }

    fn scanned(&mut self, scan: State, visit: &Visit, _took: Duration) {
        self.state = State { revision: visit.revision, ..scan };
    }

    fn revision(&self) -> i64 {
        self.state.revision
    }

    fn change(&mut self, record: Record<'_>) {
        let state = &mut self.state;
        let revision = match record {
            Record::Put(entry) => {
                put(self.options, state, entry, false);
                entry.mod_revision
            }
            Record::Delete { key, revision } => {
                state.shown.delete(key);
                state.elsewhere.delete(key);
                revision
            }
        };
        state.revision = state.revision.max(revision);
    }

    fn tell(&mut self, moment: Moment) -> ControlFlow<()> {
        if matches!(moment, Moment::Lost { .. }) {
            return ControlFlow::Continue(());
        }
        (self.show)(&self.state)?;
        let settled = matches!(moment, Moment::Scanned | Moment::Quiet);
        self.done = settled && self.options.until_done && self.state.remaining() == 0;
        if self.done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

//! What keeps counts true while a live etcd changes: one scan, then its watch; counted anew, not
//! too often, when the watch lost its thread.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Observer;
use crate::entry::EntryRef;
use crate::source::live::{Live, Notice};
use crate::source::{Query, Record, Source as _, SourceError, Visit};

/// How often changes are told at most, and a stop is noticed.
const BEAT: Duration = Duration::from_millis(200);
/// How long to wait after a failure: doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What has happened to the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Everything was counted anew.
    Scanned,
    /// From here on, changes are followed.
    Watching,
    /// Entries changed.
    Changed,
    /// Nothing changed for a while: what the ranges told belongs together.
    Quiet,
    /// From here on, the counts may be old.
    Lost {
        /// By an error, and not because a scan is due.
        failed: bool,
    },
}

/// Counts that are to be kept true.
pub(super) trait Counted {
    /// Counts of a scan that is not done yet.
    type Scan;

    /// Nothing was counted yet.
    fn begin(&self, live: &mut Live) -> Self::Scan;

    /// A scan met an entry.
    fn entry(&self, scan: &mut Self::Scan, entry: EntryRef<'_>);

    /// A scan is done: its counts replace those from before.
    fn scanned(&mut self, scan: Self::Scan, visit: &Visit, took: Duration);

    /// The newest revision that the counts hold.
    fn revision(&self) -> i64;

    /// An entry changed after the scan.
    fn change(&mut self, record: Record<'_>);

    /// At most once a beat while entries change. `Break` ends it.
    fn tell(&mut self, moment: Moment) -> ControlFlow<()>;
}

/// What is followed, and for how long.
pub(super) struct Rules {
    /// The ranges that hold it.
    pub query: Query,
    /// A full scan at least this often.
    pub rescan: Option<Duration>,
    /// A connection that came back is followed on. Otherwise all is counted anew: it may lead to
    /// another member or a restored cluster, and what it told meanwhile is not known to be whole.
    pub resume: bool,
    /// After so many failures in a row to count anew it is given up, and at once where etcd
    /// refuses the watch; `None` goes on for ever.
    pub tries: Option<u32>,
}

/// Follows until `stop` is set or [`Counted::tell`] ends it.
///
/// # Errors
/// When the first connection or scan fails, and by [`Rules::tries`]. Other failures are warnings,
/// and tried again.
pub(super) fn run<C: Counted>(
    connect: &mut dyn FnMut() -> Result<Live, SourceError>,
    rules: &Rules,
    counted: &mut C,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(), SourceError> {
    let mut job = Job { rules, counted, stop, observer, over: false, failures: 0 };
    let mut live = connect()?;
    job.scan(&mut live)?;
    let mut wait = BACKOFF.0;
    loop {
        let began = Instant::now();
        let ended = job.watch(&live);
        if job.is_over() {
            return Ok(());
        }
        // Whoever makes the watch fail again and again does not make us scan again and again.
        let long = began.elapsed() > BACKOFF.1;
        wait = if long { BACKOFF.0 } else { (wait * 2).min(BACKOFF.1) };
        if long {
            job.failures = 0;
        }
        let mut failed = job.watch_ended(ended)?;
        loop {
            if failed || began.elapsed() < wait {
                job.sleep(wait);
            }
            if job.is_over() {
                return Ok(());
            }
            // A new connection: the member may be another one, and the cluster too.
            match connect().and_then(|mut new| job.scan(&mut new).map(|()| new)) {
                Ok(new) => {
                    live = new;
                    break;
                }
                Err(error) => {
                    failed = true;
                    job.failed(error)?;
                    wait = (wait * 2).min(BACKOFF.1);
                }
            }
        }
    }
}

struct Job<'a, C> {
    rules: &'a Rules,
    counted: &'a mut C,
    stop: &'a AtomicBool,
    observer: &'a mut dyn Observer,
    /// Nobody wants more.
    over: bool,
    /// In a row.
    failures: u32,
}

impl<C: Counted> Job<'_, C> {
    fn is_over(&self) -> bool {
        self.over || self.stop.load(Ordering::Relaxed)
    }

    fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.is_over() && Instant::now() < until {
            std::thread::sleep(BEAT.min(until.saturating_duration_since(Instant::now())));
        }
    }

    fn tell(&mut self, moment: Moment) {
        self.over |= self.counted.tell(moment).is_break();
    }

    /// Returns whether it was by a failure.
    fn watch_ended(&mut self, ended: Result<(), SourceError>) -> Result<bool, SourceError> {
        match ended {
            Ok(()) => {
                self.tell(Moment::Lost { failed: false });
                Ok(false)
            }
            Err(error) if self.rules.tries.is_some() => Err(error),
            Err(error) => self.failed(error).map(|()| true),
        }
    }

    fn failed(&mut self, error: SourceError) -> Result<(), SourceError> {
        self.failures += 1;
        if self.rules.tries.is_some_and(|tries| self.failures >= tries) {
            return Err(error);
        }
        self.observer.warning(&format!("{error}; trying again"));
        self.tell(Moment::Lost { failed: true });
        Ok(())
    }

    /// Counts everything anew. Failed or stopped, the counts stay those from before.
    fn scan(&mut self, live: &mut Live) -> Result<(), SourceError> {
        let began = Instant::now();
        let query = &self.rules.query;
        let mut scan = self.counted.begin(live);
        self.observer.begin("entries", &mut || live.estimate(query));
        let visit = live.visit(query, &mut |entry| {
            self.observer.advance(1);
            self.counted.entry(&mut scan, entry);
            if self.stop.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        self.observer.end();
        let visit = visit?;
        if self.is_over() {
            return Ok(());
        }
        for note in &visit.notes {
            self.observer.note(note);
        }
        self.counted.scanned(scan, &visit, began.elapsed());
        self.tell(Moment::Scanned);
        Ok(())
    }

    /// Follows what changes, until a full scan is due (`Ok`) or the watch fails.
    fn watch(&mut self, live: &Live) -> Result<(), SourceError> {
        if self.is_over() {
            return Ok(());
        }
        let mut watcher = live.watch(&self.rules.query.ranges, self.counted.revision())?;
        let scanned = Instant::now();
        self.tell(Moment::Watching);
        let (mut dirty, mut lost, mut told) = (false, false, Instant::now());
        while !self.is_over() && self.rules.rescan.is_none_or(|most| scanned.elapsed() < most) {
            let wait = if dirty { BEAT.saturating_sub(told.elapsed()) } else { BEAT };
            match watcher.next(wait)? {
                None if dirty || lost => {}
                None => self.tell(Moment::Quiet),
                Some(Notice::Changes(changes)) => {
                    changes.each(|record| {
                        self.counted.change(record);
                        ControlFlow::Continue(())
                    })?;
                    dirty = true;
                }
                Some(Notice::Lost(error)) => {
                    self.observer.warning(&format!("{error}; trying again"));
                    self.tell(Moment::Lost { failed: true });
                    lost = true;
                }
                Some(Notice::Back) if self.rules.resume => {
                    self.observer.note("connected again");
                    lost = false;
                }
                Some(Notice::Back) => {
                    self.observer.note("connected again; scanning");
                    return Ok(());
                }
                Some(Notice::Compacted(revision)) => {
                    self.observer.note(&format!(
                        "etcd compacted revision {revision} before its changes were seen; scanning again"
                    ));
                    return Ok(());
                }
            }
            if dirty && told.elapsed() >= BEAT {
                self.tell(Moment::Changed);
                (dirty, told) = (false, Instant::now());
            }
        }
        Ok(())
    }
}

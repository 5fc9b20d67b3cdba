//! Counts that stay true for as long as it runs: one scan, then etcd's watch; scanned anew when the
//! watch lost its thread.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::Observer;
use crate::exporter::{Ledger, Metrics};
use crate::resource::Location;
use crate::scan::Judge;
use crate::source::live::{Live, Notice};
use crate::source::{Query, Record, Source as _, SourceError};

/// How often the counts are published while entries change, and a stop is noticed.
const BEAT: Duration = Duration::from_millis(200);
/// How long to wait after a failure: doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What is followed.
pub struct Options<'a> {
    /// The ranges that hold it.
    pub query: Query,
    /// Whether a key is followed, and where it belongs.
    pub locate: &'a (dyn for<'k> Fn(&'k [u8]) -> Option<Location<'k>> + 'a),
    /// How a value is stored.
    pub judge: &'a dyn Judge,
    /// Whether the judge knows a configuration.
    pub with_status: bool,
    /// A full scan at least this often: what a watch cannot tell, such as which key ID a KMS plugin
    /// calls current, is found by then.
    pub rescan: Duration,
}

/// Follows until `stop` is set. Every state is handed to `publish`.
///
/// # Errors
/// When the first connection or scan fails. Later failures are warnings, and tried again.
pub fn run(
    connect: &mut dyn FnMut() -> Result<Live, SourceError>,
    options: &Options<'_>,
    publish: &mut dyn FnMut(&Metrics),
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(), SourceError> {
    let metrics = Metrics { with_status: options.with_status, ..Metrics::default() };
    let mut job = Job { options, publish, stop, observer, metrics, ledger: Ledger::new(0) };
    let mut live = connect()?;
    job.scan(&mut live)?;
    let mut wait = BACKOFF.0;
    loop {
        let began = Instant::now();
        let ended = job.follow(&live);
        if job.stopped() {
            return Ok(());
        }
        let mut failed = job.lost(ended);
        // Whoever makes the watch fail again and again does not make us scan again and again.
        wait = if began.elapsed() > BACKOFF.1 { BACKOFF.0 } else { (wait * 2).min(BACKOFF.1) };
        loop {
            if failed || began.elapsed() < wait {
                job.sleep(wait);
            }
            if job.stopped() {
                return Ok(());
            }
            // A new connection: the member may be another one, and the cluster too.
            match connect().and_then(|mut new| job.scan(&mut new).map(|()| new)) {
                Ok(new) => {
                    live = new;
                    break;
                }
                Err(error) => {
                    failed = job.lost(Err(error));
                    wait = (wait * 2).min(BACKOFF.1);
                }
            }
        }
    }
}

struct Job<'a> {
    options: &'a Options<'a>,
    publish: &'a mut dyn FnMut(&Metrics),
    stop: &'a AtomicBool,
    observer: &'a mut dyn Observer,
    metrics: Metrics,
    ledger: Ledger,
}

impl Job<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.stopped() && Instant::now() < until {
            std::thread::sleep(BEAT.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// The counts may be old from here on. Returns whether it was a failure.
    fn lost(&mut self, ended: Result<(), SourceError>) -> bool {
        self.metrics.watching = false;
        let failed = ended.is_err();
        if let Err(error) = ended {
            self.metrics.failures += 1;
            self.observer.warning(&format!("{error}; trying again"));
        }
        (self.publish)(&self.metrics);
        failed
    }

    /// Counts everything anew. Failed or stopped, the counts stay those from before.
    fn scan(&mut self, live: &mut Live) -> Result<(), SourceError> {
        let began = Instant::now();
        let mut ledger = Ledger::new(live.estimate(&self.options.query).unwrap_or(0));
        let (options, stop) = (self.options, self.stop);
        let visit = live.visit(&options.query, &mut |entry| {
            let Some(location) = (options.locate)(entry.key) else {
                return ControlFlow::Continue(());
            };
            if location.internal {
                ledger.counts_mut().internal += 1;
            } else {
                let judged = options.judge.judge(&location.resource, entry.key, entry.stored());
                ledger.scanned(entry.key, &location.resource, &judged, entry.mod_revision);
            }
            if stop.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if self.stopped() {
            return Ok(());
        }
        for note in &visit.notes {
            self.observer.note(note);
        }
        self.ledger = ledger;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.metrics.revision = visit.revision;
        self.metrics.scanned_at = Some(now.map_or(0, |d| d.as_secs()));
        self.metrics.scan_seconds = began.elapsed().as_secs_f64();
        self.metrics.scans += 1;
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        self.metrics.series = self.ledger.series();
        self.metrics.totals = self.ledger.totals();
        (self.publish)(&self.metrics);
    }

    /// Follows what changes, until a full scan is due (`Ok`) or the watch fails.
    fn follow(&mut self, live: &Live) -> Result<(), SourceError> {
        let mut watcher = live.watch(&self.options.query.ranges, self.metrics.revision)?;
        let scanned = Instant::now();
        self.metrics.watching = true;
        self.publish();
        let (mut dirty, mut published) = (false, Instant::now());
        while !self.stopped() && scanned.elapsed() < self.options.rescan {
            match watcher.next(BEAT)? {
                None => {}
                Some(Notice::Changes(changes)) => {
                    changes.each(|record| {
                        self.change(record);
                        ControlFlow::Continue(())
                    })?;
                    dirty = true;
                }
                Some(Notice::Lost(error)) => {
                    self.metrics.watching = false;
                    self.metrics.failures += 1;
                    self.observer.warning(&format!("{error}; trying again"));
                    dirty = true;
                }
                // What came back may be another member or a restored cluster, and what it told
                // meanwhile is not known to be whole: only a scan is.
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
            if dirty && published.elapsed() >= BEAT {
                self.publish();
                (dirty, published) = (false, Instant::now());
            }
        }
        Ok(())
    }

    fn change(&mut self, record: Record<'_>) {
        self.metrics.changes += 1;
        let revision = match record {
            Record::Put(entry) => {
                if let Some(location) = (self.options.locate)(entry.key).filter(|l| !l.internal) {
                    let value = entry.stored();
                    let judged = self.options.judge.judge(&location.resource, entry.key, value);
                    self.ledger.put(entry.key, &location.resource, &judged);
                }
                entry.mod_revision
            }
            Record::Delete { key, revision } => {
                self.ledger.delete(key);
                revision
            }
        };
        self.metrics.revision = self.metrics.revision.max(revision);
    }
}

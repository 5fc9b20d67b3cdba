//! Counts that stay true for as long as it runs: one scan, then etcd's watch; scanned anew when the
//! watch lost its thread.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use super::Observer;
use super::follow::{self, Counted, Moment, Rules};
use crate::entry::EntryRef;
use crate::exporter::{Ledger, Metrics};
use crate::resource::Location;
use crate::scan::Judge;
use crate::source::live::Live;
use crate::source::{Query, Record, Source as _, SourceError, Visit};

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
    let rules = Rules {
        query: options.query.clone(),
        rescan: Some(options.rescan),
        resume: false,
        tries: None,
    };
    let mut job = Job { options, publish, metrics, ledger: Ledger::new(0) };
    follow::run(connect, &rules, &mut job, stop, observer)
}

struct Job<'a> {
    options: &'a Options<'a>,
    publish: &'a mut dyn FnMut(&Metrics),
    metrics: Metrics,
    ledger: Ledger,
}

impl Counted for Job<'_> {
    type Scan = Ledger;

    fn begin(&self, live: &mut Live) -> Ledger {
        Ledger::new(live.estimate(&self.options.query).unwrap_or(0))
    }

    fn entry(&self, ledger: &mut Ledger, entry: EntryRef<'_>) {
        let Some(location) = (self.options.locate)(entry.key) else { return };
        if location.internal {
            ledger.counts_mut().internal += 1;
            return;
        }
        let judged = self.options.judge.judge(&location.resource, entry);
        ledger.scanned(entry.key, &location.resource, &judged, entry.mod_revision);
    }

    fn scanned(&mut self, ledger: Ledger, visit: &Visit, took: Duration) {
        self.ledger = ledger;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.metrics.revision = visit.revision;
        self.metrics.scanned_at = Some(now.map_or(0, |d| d.as_secs()));
        self.metrics.scan_seconds = took.as_secs_f64();
        self.metrics.scans += 1;
    }

    fn revision(&self) -> i64 {
        self.metrics.revision
    }

    fn change(&mut self, record: Record<'_>) {
        self.metrics.changes += 1;
        let revision = match record {
            Record::Put(entry) => {
                if let Some(location) = (self.options.locate)(entry.key).filter(|l| !l.internal) {
                    let judged = self.options.judge.judge(&location.resource, entry);
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

    fn tell(&mut self, moment: Moment) -> ControlFlow<()> {
        match moment {
            Moment::Scanned | Moment::Changed => {}
            Moment::Watching => self.metrics.watching = true,
            Moment::Quiet => return ControlFlow::Continue(()),
            Moment::Lost { failed } => {
                self.metrics.watching = false;
                self.metrics.failures += u64::from(failed);
            }
        }
        self.metrics.series = self.ledger.series();
        self.metrics.totals = self.ledger.totals();
        (self.publish)(&self.metrics);
        ControlFlow::Continue(())
    }
}

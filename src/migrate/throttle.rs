//! How fast to write: no faster than asked for, and slower when etcd has enough to do.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::source::live::{Admission, Gate};

/// First pause after "too many requests"; it doubles up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Answers that come faster than this are never a reason to slow down.
const FAST: Duration = Duration::from_millis(50);
/// How many times the usual latency is a sign of too much work.
const SLOW: u32 = 8;
/// At most one step back in this time: the requests in flight all tell the same story.
const STEP: Duration = Duration::from_millis(500);
/// How much of the time that nobody used is made up for with a rate: a pause of a thread is easily
/// longer than an entry's share of a second.
const CREDIT: Duration = Duration::from_millis(50);
/// Shortest pause before another look at what is free.
const SOON: Duration = Duration::from_millis(1);
/// How long one look at the stop flag may be apart from the next.
const LOOK: Duration = Duration::from_millis(50);

/// Shares permits among threads: additive increase, multiplicative decrease.
pub struct Throttle {
    most: f64,
    /// Entries a second.
    qps: Option<f64>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    allowed: f64,
    in_flight: u32,
    /// Nothing is sent before.
    not_before: Instant,
    /// When the next entry is due.
    due: Instant,
    /// When there was a step back last.
    stepped: Option<Instant>,
    pause: Duration,
    /// Latency of good times.
    usual: Option<Duration>,
    /// How often etcd said that it is busy.
    busy: u64,
}

impl Throttle {
    /// At most `concurrency` writes at once and `qps` entries a second.
    #[must_use]
    pub fn new(concurrency: u32, qps: Option<f64>) -> Self {
        let now = Instant::now();
        let most = f64::from(concurrency.max(1));
        let state = State {
            allowed: most,
            in_flight: 0,
            not_before: now,
            due: now,
            stepped: None,
            pause: PAUSE,
            usual: None,
            busy: 0,
        };
        Self { most, qps, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `entries` be written now, or says how long that has to wait at least.
    fn admit(&self, entries: usize) -> Result<(), Duration> {
        Self::admit_to(&mut self.lock(), self.qps, entries)
    }

    fn admit_to(state: &mut State, qps: Option<f64>, entries: usize) -> Result<(), Duration> {
        let now = Instant::now();
        let when = state.not_before.max(state.due);
        if f64::from(state.in_flight) < state.allowed.max(1.0).floor() && when <= now {
            state.in_flight += 1;
            if let Some(qps) = qps {
                #[allow(clippy::cast_precision_loss)] // a batch has at most 128
                let gap = Duration::from_secs_f64(entries as f64 / qps);
                // Whoever wakes up late makes up for it, but never by a burst.
                let earliest = now.checked_sub(CREDIT).unwrap_or(now);
                state.due = earliest.max(state.due) + gap;
            }
            return Ok(());
        }
        Err(when.saturating_duration_since(now).clamp(SOON, LOOK))
    }

    /// Waits until `entries` may be written; false when `stop` says so first.
    pub fn begin(&self, entries: usize, stop: &dyn Fn() -> bool) -> bool {
        let mut state = self.lock();
        loop {
            if stop() {
                return false;
            }
            let Err(wait) = Self::admit_to(&mut state, self.qps, entries) else { return true };
            state = self
                .changed
                .wait_timeout(state, wait)
                .map_or_else(|e| e.into_inner().0, |(guard, _)| guard);
        }
    }

    /// A write was answered after `latency`.
    pub fn answered(&self, latency: Duration) {
        let mut state = self.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        state.pause = PAUSE;
        let usual = state.usual.unwrap_or(latency);
        if latency > FAST && latency > usual * SLOW {
            Self::step_back(&mut state, 0.7);
        } else {
            state.allowed = (state.allowed + 1.0 / state.allowed.max(1.0)).min(self.most);
        }
        // Follows improvements at once and deteriorations slowly, however many answers one moment
        // brings.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 1 to some thousands
        let weight = 64 * state.allowed.max(1.0) as u32;
        let slowly = (usual * (weight - 1) + latency) / weight;
        state.usual = Some(latency.min(slowly));
        self.changed.notify_all();
    }

    /// etcd said "too many requests".
    pub fn busy(&self) {
        let mut state = self.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        state.busy += 1;
        let now = Instant::now();
        if now >= state.not_before {
            state.not_before = now + state.pause;
            state.pause = (state.pause * 2).min(MAX_PAUSE);
        }
        Self::step_back(&mut state, 0.5);
        self.changed.notify_all();
    }

    /// A write came to nothing.
    pub fn failed(&self) {
        let mut state = self.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        self.changed.notify_all();
    }

    fn step_back(state: &mut State, factor: f64) {
        let now = Instant::now();
        if state.stepped.is_none_or(|at| now.duration_since(at) >= STEP) {
            state.stepped = Some(now);
            state.allowed = (state.allowed * factor).max(1.0);
        }
    }

    /// How often etcd said that it is busy.
    pub fn times_busy(&self) -> u64 {
        self.lock().busy
    }
}

/// A throttle, and what ends the writing: single writes ask both.
pub struct Entrance<'t> {
    /// How fast.
    pub throttle: &'t Throttle,
    /// Whether to stop.
    pub stop: &'t (dyn Fn() -> bool + Sync),
}

impl Gate for Entrance<'_> {
    fn admit(&self) -> Admission {
        if (self.stop)() {
            return Admission::Stop;
        }
        match self.throttle.admit(1) {
            Ok(()) => Admission::Go,
            Err(wait) => Admission::Wait(wait),
        }
    }

    fn answered(&self, latency: Duration) {
        self.throttle.answered(latency);
    }

    fn busy(&self) {
        self.throttle.busy();
    }

    fn failed(&self) {
        self.throttle.failed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO_ON: &dyn Fn() -> bool = &|| false;

    #[test]
    fn entries_are_spread_over_time() {
        let throttle = Throttle::new(4, Some(1000.0));
        let start = Instant::now();
        for _ in 0..5 {
            assert!(throttle.begin(20, GO_ON));
            throttle.answered(Duration::from_millis(1));
        }
        // The fifth may begin once the four before it have had their time.
        assert!(start.elapsed() >= Duration::from_millis(80));
    }

    #[test]
    fn a_rate_is_reached_by_those_who_wake_up_late_too() {
        let throttle = Throttle::new(4, Some(2000.0));
        let at = |ago: u64| Instant::now().checked_sub(Duration::from_millis(ago)).unwrap();
        let admitted = |throttle: &Throttle| {
            let mut n = 0;
            while throttle.admit(1).is_ok() {
                throttle.answered(Duration::from_millis(1));
                n += 1;
            }
            n
        };
        // 20 ms late: 40 entries were due meanwhile.
        throttle.lock().due = at(20);
        let n = admitted(&throttle);
        assert!((40..1000).contains(&n), "{n}");
        // After a long silence it is no more than what 50 ms hold.
        throttle.lock().due = at(5000);
        let n = admitted(&throttle);
        assert!((100..2000).contains(&n), "{n}");
    }

    #[test]
    fn a_busy_server_is_given_time() {
        let throttle = Throttle::new(4, None);
        assert!(throttle.begin(1, GO_ON));
        let start = Instant::now();
        throttle.busy();
        assert!(throttle.begin(1, GO_ON));
        assert!(start.elapsed() >= PAUSE);
        assert!(throttle.lock().allowed <= 2.0);
        assert_eq!(throttle.times_busy(), 1);
    }

    #[test]
    fn rising_latency_means_fewer_at_once() {
        let throttle = Throttle::new(8, None);
        throttle.answered(Duration::from_millis(10));
        throttle.answered(Duration::from_millis(200));
        assert!(throttle.lock().allowed < 8.0);
    }

    /// The requests in flight tell of the same moment.
    #[test]
    fn many_bad_answers_at_once_are_one_step_back() {
        let throttle = Throttle::new(64, None);
        throttle.answered(Duration::from_millis(10));
        throttle.busy();
        assert!(throttle.lock().allowed <= 32.0);
        for _ in 0..20 {
            throttle.answered(Duration::from_secs(1));
        }
        throttle.busy();
        assert!(throttle.lock().allowed > 31.0);
        throttle.lock().stepped = Instant::now().checked_sub(STEP);
        throttle.answered(Duration::from_secs(1));
        assert!(throttle.lock().allowed < 31.0);
    }

    #[test]
    fn waiting_ends_when_told() {
        let throttle = Throttle::new(1, None);
        assert!(throttle.begin(1, GO_ON));
        assert!(!throttle.begin(1, &|| true));
    }
}

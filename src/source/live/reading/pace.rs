//! How many entries a page may have: by their size, and by the time that pages take.
//!
//! A request has a time limit, so on a slow link a page must be small enough to arrive within it.

use std::time::Duration;

/// Entries of the first page, before sizes are known: at etcd's largest they are 150 MB that the
/// server gathers in vain.
const FIRST_LIMIT: i64 = 100;
/// Most entries of a page: bounds what a server gathers when sizes jump. The API server asks for
/// up to 10,000 at once (kubernetes/apiserver `storageWatchListPageSize`).
const MAX_LIMIT: i64 = 4_000;
/// What a page should weigh, bytes. One of twice as many entries is still taken.
const TARGET: usize = 3 << 19;
/// A page should come within this part of the time limit: those in flight share the link.
const SHARE: u32 = 4;
/// How many times the entries of one page the next may have.
const GROWTH: i64 = 8;
/// By how much a page shrinks that was still coming in when its time was up.
const SHRINK: i64 = 4;
/// How often a single entry that does not arrive in time is asked for.
const TRIES: u32 = 2;
/// Pages in flight: enough that a server never waits for the client.
const IN_FLIGHT: usize = 3;

/// The size of the next pages.
#[derive(Debug)]
pub(super) struct Pace {
    limit: i64,
    /// How long a page should take at most.
    share: Duration,
    /// The last page did not arrive in time.
    late: bool,
    /// How often in a row a single entry did not.
    alone: u32,
}

impl Pace {
    /// For requests that may take this long.
    pub fn new(timeout: Duration) -> Self {
        Self { limit: FIRST_LIMIT, share: timeout / SHARE, late: false, alone: 0 }
    }

    /// Most entries of the next page.
    pub fn limit(&self) -> i64 {
        self.limit
    }

    /// How many entries a page should have.
    pub fn aim(&self) -> u64 {
        u64::try_from(self.limit / 2).unwrap_or(0).max(1)
    }

    /// How many pages may be asked for at once.
    pub fn in_flight(&self) -> usize {
        if self.late { 1 } else { IN_FLIGHT }
    }

    /// A page of at most `asked` entries came: so many, of so many bytes, after this time.
    pub fn came(&mut self, asked: i64, entries: usize, bytes: usize, took: Duration) {
        (self.late, self.alone) = (false, 0);
        if entries == 0 {
            return;
        }
        let average = bytes.checked_div(entries).unwrap_or_default().max(1);
        let fitting = i64::try_from(2 * TARGET / average).unwrap_or(MAX_LIMIT);
        // Sizes differ from place to place: grow step by step, shrink at once.
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX).max(1);
        let timely = asked.saturating_mul(micros(self.share)) / micros(took);
        self.limit = fitting.min(timely).min(asked.saturating_mul(GROWTH)).clamp(1, MAX_LIMIT);
    }

    /// A page of at most `asked` entries was still coming in when its time was up; whether to ask
    /// for a smaller one.
    pub fn late(&mut self, asked: i64) -> bool {
        self.late = true;
        self.limit = self.limit.min(asked / SHRINK).max(1);
        if asked <= 1 {
            self.alone += 1;
        }
        self.alone < TRIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(4);

    #[test]
    fn pages_follow_the_size_of_their_entries() {
        let mut pace = Pace::new(TIMEOUT);
        assert_eq!((pace.limit(), pace.in_flight()), (100, 3));
        let soon = Duration::from_millis(1);
        pace.came(100, 100, 100 * 100, soon);
        assert_eq!(pace.limit(), 800, "step by step");
        pace.came(800, 800, 800 * 100, soon);
        assert_eq!(pace.limit(), MAX_LIMIT);
        pace.came(4000, 10, 10 << 20, soon);
        assert_eq!((pace.limit(), pace.aim()), (3, 1), "at once");
        pace.came(3, 0, 40, soon);
        assert_eq!(pace.limit(), 3, "an empty page says nothing");
    }

    #[test]
    fn pages_follow_the_time_that_they_take() {
        let mut pace = Pace::new(TIMEOUT);
        pace.came(100, 100, 100, Duration::from_secs(2));
        assert_eq!(pace.limit(), 50, "a quarter of the time limit");
        pace.came(50, 50, 50, Duration::from_millis(500));
        assert_eq!(pace.limit(), 100, "grown back");
        pace.came(100, 100, 100, Duration::from_hours(1));
        assert_eq!(pace.limit(), 1);
        pace.came(1, 1, 1, Duration::ZERO);
        assert_eq!(pace.limit(), 8);
    }

    #[test]
    fn what_does_not_arrive_in_time_is_asked_for_in_smaller_pages() {
        let mut pace = Pace::new(TIMEOUT);
        let mut limits = Vec::new();
        loop {
            let asked = pace.limit();
            limits.push(asked);
            if !pace.late(asked) {
                break;
            }
            assert_eq!(pace.in_flight(), 1);
        }
        assert_eq!(limits, [100, 25, 6, 1, 1]);
        pace.came(1, 1, 1, Duration::from_millis(1));
        assert_eq!((pace.limit(), pace.in_flight()), (8, 3));
        assert!(pace.late(1), "a new chance");
    }
}

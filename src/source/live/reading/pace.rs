//! How many entries a page may have, how many pages are asked for at once, and when: by the size of
//! entries, by the time that pages take, and by what is left of the member for others.
//!
//! A request has a time limit, so on a slow link a page must be small enough to arrive within it.
//! And a member answers others more slowly while it gathers pages: when its answers take longer
//! than they did, there is something else to do.

use std::time::{Duration, Instant};

use crate::source::live::connection::{Manner, Tempo};

/// Entries of the first page, before sizes are known: at etcd's largest they are 150 MB that the
/// server gathers in vain.
const FIRST_LIMIT: i64 = 100;
/// Most entries of a page: bounds what a server gathers when sizes jump. The API server asks for
/// up to 10,000 at once (kubernetes/apiserver `storageWatchListPageSize`).
const MAX_LIMIT: i64 = 4_000;
/// What a page should weigh, bytes, where nobody else matters. One of twice as many entries is
/// still taken.
const FAST_TARGET: usize = 3 << 19;
/// The same where others do: while a member gathers a page, they wait. Of the sizes that were
/// tried this is the smallest that takes no longer than a list without pages.
const TARGET: usize = 3 << 18;
/// The same where they come first.
const GENTLE_TARGET: usize = 1 << 17;
/// A page should come within this part of the time limit: those in flight share the link.
const SHARE: u32 = 4;
/// How many times the entries of one page the next may have.
const GROWTH: i64 = 8;
/// By how much a page shrinks that was still coming in when its time was up.
const SHRINK: i64 = 4;
/// How often a single entry that does not arrive in time is asked for.
const TRIES: u32 = 2;
/// Pages in flight where nobody else matters: enough that a server never waits for the client.
const FAST_IN_FLIGHT: f64 = 3.0;
/// The same where others do: one that is gathered while one is on its way.
const IN_FLIGHT: f64 = 2.0;
/// Answers that come faster than this are never a reason to slow down.
const FAST: Duration = Duration::from_millis(10);
/// How many times the usual time for each byte is a sign of too much work.
const SLOW: f64 = 2.5;
/// What a request takes whatever it brings, in bytes that take as long.
const OVERHEAD: f64 = 65_536.0;
/// How much of the usual time is forgotten with each answer, so that it follows a link that has
/// become slower for good.
const FORGOTTEN: f64 = 1.0 / 128.0;
/// How many times as long as an answer took, the member is left alone where others come first.
const GENTLE_REST: u32 = 3;

/// The next pages.
#[derive(Debug)]
pub(super) struct Pace {
    tempo: Tempo,
    limit: i64,
    /// How long a page should take at most.
    share: Duration,
    /// The last page did not arrive in time.
    late: bool,
    /// How often in a row a single entry did not.
    alone: u32,
    /// Pages at once: additive increase, multiplicative decrease.
    allowed: f64,
    /// Seconds that a byte takes in good times.
    usual: Option<f64>,
    /// Nothing is asked for before.
    due: Instant,
}

/// Most pages in flight.
fn most(manner: Manner) -> f64 {
    match manner {
        Manner::Fast => FAST_IN_FLIGHT,
        Manner::Usual => IN_FLIGHT,
        Manner::Gentle => 1.0,
    }
}

impl Pace {
    /// For requests that may take this long.
    pub fn new(timeout: Duration, tempo: Tempo) -> Self {
        let mut pace = Self {
            tempo,
            limit: FIRST_LIMIT,
            share: timeout / SHARE,
            late: false,
            alone: 0,
            allowed: most(tempo.manner),
            usual: None,
            due: Instant::now(),
        };
        pace.limit = pace.limit.min(pace.most());
        pace
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
        if self.late || self.tempo.qps.is_some() {
            return 1;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 1 to 3
        let allowed = self.allowed as usize;
        allowed.max(1)
    }

    /// How long to wait before the next request.
    pub fn rest(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Most entries of any page: with a rate, those of one second.
    fn most(&self) -> i64 {
        #[allow(clippy::cast_possible_truncation)] // it saturates
        self.tempo.qps.map_or(MAX_LIMIT, |qps| (qps as i64).clamp(1, MAX_LIMIT))
    }

    /// A page of at most `asked` entries came: so many, of so many bytes, after this time.
    pub fn came(&mut self, asked: i64, entries: usize, bytes: usize, took: Duration) {
        (self.late, self.alone) = (false, 0);
        self.leave_room(entries, bytes, took);
        if entries == 0 {
            return;
        }
        let target = match self.tempo.manner {
            Manner::Fast => FAST_TARGET,
            Manner::Usual => TARGET,
            Manner::Gentle => GENTLE_TARGET,
        };
        let average = bytes.checked_div(entries).unwrap_or_default().max(1);
        let fitting = i64::try_from(2 * target / average).unwrap_or(MAX_LIMIT);
        // Sizes differ from place to place: grow step by step, shrink at once.
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX).max(1);
        let timely = asked.saturating_mul(micros(self.share)) / micros(took);
        let grown = asked.saturating_mul(GROWTH);
        self.limit = fitting.min(timely).min(grown).clamp(1, self.most());
    }

    /// What an answer means for when the next is asked for, and beside how many others.
    fn leave_room(&mut self, entries: usize, bytes: usize, took: Duration) {
        let now = Instant::now();
        match self.tempo.manner {
            Manner::Fast => {}
            Manner::Gentle => self.due = now + took * GENTLE_REST,
            Manner::Usual => {
                #[allow(clippy::cast_precision_loss)] // a page has some megabytes
                let each = took.as_secs_f64() / (bytes as f64 + OVERHEAD);
                let usual = self.usual.unwrap_or(each);
                if took > FAST && each > usual * SLOW {
                    // Alone already: the member is left to others for as long as it took.
                    if self.in_flight() == 1 {
                        self.due = now + took;
                    }
                    self.allowed = (self.allowed * 0.7).max(1.0);
                } else {
                    self.allowed = (self.allowed + 0.1).min(IN_FLIGHT);
                }
                self.usual = Some(each.min(usual * (1.0 + FORGOTTEN)));
            }
        }
        if let Some(qps) = self.tempo.qps {
            #[allow(clippy::cast_precision_loss)] // a page has some thousands
            let gap = Duration::from_secs_f64(entries as f64 / qps);
            self.due = self.due.max(now + gap.saturating_sub(took));
        }
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
    const SOON: Duration = Duration::from_millis(1);

    fn pace(manner: Manner) -> Pace {
        Pace::new(TIMEOUT, Tempo { manner, qps: None })
    }

    #[test]
    fn pages_follow_the_size_of_their_entries() {
        let mut pace = pace(Manner::Fast);
        assert_eq!((pace.limit(), pace.in_flight()), (100, 3));
        pace.came(100, 100, 100 * 100, SOON);
        assert_eq!(pace.limit(), 800, "step by step");
        pace.came(800, 800, 800 * 100, SOON);
        assert_eq!(pace.limit(), MAX_LIMIT);
        pace.came(4000, 10, 10 << 20, SOON);
        assert_eq!((pace.limit(), pace.aim()), (3, 1), "at once");
        pace.came(3, 0, 40, SOON);
        assert_eq!(pace.limit(), 3, "an empty page says nothing");
    }

    #[test]
    fn pages_follow_the_time_that_they_take() {
        let mut pace = pace(Manner::Fast);
        pace.came(100, 100, 100, Duration::from_secs(2));
        assert_eq!(pace.limit(), 50, "a quarter of the time limit");
        pace.came(50, 50, 50, Duration::from_millis(500));
        assert_eq!(pace.limit(), 100, "grown back");
        pace.came(100, 100, 100, Duration::from_hours(1));
        assert_eq!(pace.limit(), 1);
        pace.came(1, 1, 1, Duration::ZERO);
        assert_eq!(pace.limit(), 8);
        assert_eq!(pace.rest(), Duration::ZERO);
    }

    #[test]
    fn what_does_not_arrive_in_time_is_asked_for_in_smaller_pages() {
        let mut pace = pace(Manner::Fast);
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
        pace.came(1, 1, 1, SOON);
        assert_eq!((pace.limit(), pace.in_flight()), (8, 3));
        assert!(pace.late(1), "a new chance");
    }

    #[test]
    fn a_member_with_more_to_do_is_asked_for_less_at_once() {
        let mut pace = pace(Manner::Usual);
        let answered = |pace: &mut Pace, millis| {
            pace.came(1000, 1000, 1 << 20, Duration::from_millis(millis));
        };
        answered(&mut pace, 20);
        assert_eq!((pace.in_flight(), pace.rest()), (2, Duration::ZERO));
        assert_eq!(pace.limit(), 1500, "two times three quarters of a megabyte");
        let mut pages = 0;
        while pace.in_flight() > 1 {
            answered(&mut pace, 200);
            pages += 1;
            assert!(pages < 10, "it takes ten times as long");
        }
        answered(&mut pace, 60_000);
        assert!(pace.rest() > Duration::from_secs(10), "and then in pauses");
        for _ in 0..40 {
            answered(&mut pace, 20);
        }
        assert_eq!(pace.in_flight(), 2, "until it is well again");
        // What is fast enough for anybody is none of that.
        let mut quick = self::pace(Manner::Usual);
        for millis in [1, 1, 1, 9, 9, 9] {
            answered(&mut quick, millis);
        }
        assert_eq!(quick.in_flight(), 2);
    }

    #[test]
    fn a_link_that_is_slow_for_good_becomes_the_usual() {
        let mut pace = pace(Manner::Usual);
        for _ in 0..3 {
            pace.came(1000, 1000, 1 << 20, Duration::from_millis(20));
        }
        for _ in 0..400 {
            pace.came(1000, 1000, 1 << 20, Duration::from_millis(100));
        }
        assert_eq!(pace.in_flight(), 2);
    }

    #[test]
    fn gently_is_one_small_page_at_a_time_and_pauses() {
        let mut pace = pace(Manner::Gentle);
        assert_eq!(pace.in_flight(), 1);
        pace.came(1000, 1000, 1 << 20, Duration::from_secs(100));
        assert!(pace.rest() > Duration::from_secs(200));
        pace.came(1000, 1000, 1 << 20, SOON);
        assert_eq!((pace.in_flight(), pace.limit()), (1, 250), "two times an eighth of a megabyte");
    }

    #[test]
    fn a_rate_is_kept() {
        let mut pace = Pace::new(TIMEOUT, Tempo { manner: Manner::Usual, qps: Some(50.0) });
        assert_eq!((pace.in_flight(), pace.limit()), (1, 50), "what is due in a second");
        pace.came(50, 50, 5000, Duration::ZERO);
        let rest = pace.rest();
        assert!(rest <= Duration::from_secs(1), "{rest:?}");
        pace.came(50, 50, 5000, SOON);
        assert_eq!(pace.limit(), 50);
        pace.came(50, 50 * 3600, 5000, SOON);
        assert!(pace.rest() > Duration::from_mins(30), "an hour's worth");
    }
}

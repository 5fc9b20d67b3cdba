//! One scan as pages: the next ones are fetched while the caller reads the last.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::pace::Pace;
use super::stride::Stride;
use crate::source::live::connection::{self, Refusal, Session};
use crate::source::live::wire::kv::{self, PageInfo, RangeRequest};
use crate::source::live::wire::said::Said;
use crate::source::{
    EntrySink, EtcdError, KeyRange, Query, RevisionError, SourceError, Untrue, Wish,
};

/// What a page of several entries may weigh, bytes: beyond it, fewer are asked for. With those in
/// flight, one that waits, one on its way there and one being read, it bounds the memory.
const MAX_PAGE: usize = 6 << 20;
/// Pages that wait for the caller, besides those in flight.
const WAITING: usize = 1;

/// Counts the keys of a query. `None` when the server will not say.
pub(in crate::source::live) async fn count(session: &Arc<Session>, query: &Query) -> Option<u64> {
    let mut total = 0;
    for range in &query.ranges {
        let mut request = RangeRequest::new(range, query.revision.unwrap_or(0));
        request.count_only = true;
        let page = session.range(&request, 1 << 20).await.ok()?;
        total += u64::try_from(PageInfo::read(&page).ok()?.count).ok()?;
    }
    Some(total)
}

/// Calls `sink` for every entry, and returns the revision of the scan.
pub(in crate::source::live) fn visit(
    runtime: &Runtime,
    session: &Arc<Session>,
    query: &Query,
    sink: &mut EntrySink<'_>,
) -> Result<i64, SourceError> {
    let (sender, mut receiver) = mpsc::channel(WAITING);
    let reader = PageReader {
        session: Arc::clone(session),
        wanted: query.revision,
        revision: query.revision.unwrap_or(0),
        pace: Pace::new(session.command_timeout, session.tempo),
        read: 0,
        last: None,
        asked: KeyRange::single(b"\0"),
        sender,
    };
    let task = runtime.spawn(reader.run(query.ranges.clone()));
    'pages: while let Some(page) = receiver.blocking_recv() {
        for entry in kv::entries(&page) {
            let entry = entry.map_err(EtcdError::Malformed)?;
            if sink(entry).is_break() {
                break 'pages;
            }
        }
    }
    // The reader ends when nobody takes its pages.
    drop(receiver);
    runtime.block_on(task).map_err(|e| EtcdError::Interrupted(e.into()))?
}

/// A part of a range, in the order of keys.
struct Part {
    range: KeyRange,
    /// Keys in it, where a page has told.
    count: Option<u64>,
    /// The number of the guess that its end is.
    guess: Option<u32>,
    /// The page that has been asked for.
    page: Option<Fetch>,
}

impl Part {
    fn new(range: KeyRange, count: Option<u64>) -> Self {
        Self { range, count, guess: None, page: None }
    }
}

/// A request under way; it ends when nobody waits for it any more.
struct Fetch(JoinHandle<Result<Fetched, PageError>>);

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A page that came.
struct Fetched {
    page: Bytes,
    info: PageInfo,
    /// Most entries that were asked for in the end.
    limit: i64,
    /// How long the member took for it.
    took: Duration,
}

enum PageError {
    /// A page of at most this many entries is not to be had.
    Refused(Refusal, i64),
    Malformed(crate::proto::Malformed),
}

/// One page, asked for after a `rest`, with fewer entries than `limit` if it is too large or does
/// not come.
async fn fetch(
    session: Arc<Session>,
    range: KeyRange,
    revision: i64,
    limit: i64,
    rest: Duration,
) -> Result<Fetched, PageError> {
    tokio::time::sleep(rest).await;
    let mut request = RangeRequest::new(&range, revision);
    request.limit = limit;
    loop {
        let begun = Instant::now();
        let (answer, limit) = session.page(&request, MAX_PAGE).await;
        match answer {
            Ok(page) => {
                let info = PageInfo::read(&page).map_err(PageError::Malformed)?;
                return Ok(Fetched { page, info, limit, took: begun.elapsed() });
            }
            Err(refusal) if refusal.is_too_large() && limit > 1 => {
                request.limit = (limit / 4).max(1);
            }
            Err(refusal) => return Err(PageError::Refused(refusal, limit)),
        }
    }
}

/// Reads the entries of one range at one revision into memory-sized pages.
struct PageReader {
    session: Arc<Session>,
    /// The revision that the user asked for.
    wanted: Option<i64>,
    /// The revision of the scan; 0 until the first page says it.
    revision: i64,
    pace: Pace,
    /// The range that is being read.
    asked: KeyRange,
    /// Entries that were read so far.
    read: u64,
    /// The last of them.
    last: Option<Vec<u8>>,
    sender: mpsc::Sender<Bytes>,
}

impl PageReader {
    async fn run(mut self, ranges: Vec<KeyRange>) -> Result<i64, SourceError> {
        for range in ranges {
            if !self.range(range).await? {
                break;
            }
        }
        if self.revision == 0 {
            // Nothing was selected; the revision is still part of the report.
            let nothing = KeyRange::single(b"\0");
            let page = fetch(Arc::clone(&self.session), nothing, 0, 1, Duration::ZERO).await;
            self.revision = page.map_err(|e| self.failed(&e))?.info.revision;
        }
        self.session.settle().await.map_err(|refusal| self.explain(&refusal))?;
        Ok(self.revision)
    }

    /// Sends the pages of one range; false when nobody wants more.
    async fn range(&mut self, range: KeyRange) -> Result<bool, SourceError> {
        self.asked = range.clone();
        let mut stride = Stride::new(&range);
        let mut parts = VecDeque::from([Part::new(range, None)]);
        // Keys that the first page promised, and those that came.
        let (mut total, mut seen) = (None, 0);
        while let Some(mut part) = {
            self.ask(&mut parts, &mut stride, total.map(|total: u64| total.saturating_sub(seen)));
            parts.pop_front()
        } {
            let Some(fetch) = part.page.as_mut() else { continue };
            let came = (&mut fetch.0).await.map_err(|e| EtcdError::Interrupted(e.into()))?;
            let Fetched { page, info, limit, took } = match came {
                Ok(fetched) => fetched,
                Err(PageError::Refused(refusal, limit))
                    if refusal.is_slow() && self.pace.late(limit) =>
                {
                    self.begin_anew(part, &mut parts).await;
                    continue;
                }
                Err(e) => return Err(self.failed(&e)),
            };
            if self.revision == 0 {
                self.revision = info.revision;
            }
            let entries = u64::try_from(info.entries).unwrap_or(u64::MAX);
            let count = u64::try_from(info.count).unwrap_or(0).max(entries);
            let left = match part.count {
                Some(count) => count,
                None => total.map_or(count, |total: u64| total.saturating_sub(seen)),
            };
            if count > left {
                let what = Untrue::Left { counted: count, expected: left };
                let member = self.session.current.load(Ordering::Relaxed);
                return Err(EtcdError::Untrue { member: self.session.member(member), what }.into());
            }
            total = total.or(Some(count));
            seen += entries;
            self.pace.came(limit, info.entries, page.len(), took);
            if entries > 0 {
                self.read += entries;
                self.last.clone_from(&info.last);
                if self.sender.send(page).await.is_err() {
                    return Ok(false);
                }
            }
            let aim = self.pace.aim();
            match (info.first, info.last) {
                (Some(first), Some(last)) if info.more => {
                    // A guess that was a little too far is no reason for another.
                    if part.guess.is_none() || count > 4 * aim {
                        stride.cut(&first, &last, entries, aim);
                    }
                    let start = [&last[..], &[0]].concat();
                    let left = KeyRange { start, end: part.range.end.take() };
                    parts.push_front(Part::new(left, Some(count - entries)));
                }
                // What the guesses of an earlier time found is no news.
                _ if part.guess == Some(stride.number()) => {
                    stride.reached(part.range.end.as_deref().unwrap_or_default(), count, aim);
                }
                _ => {}
            }
        }
        match total {
            // All pages are of one revision, so this is no change meanwhile.
            Some(counted) if counted != seen => {
                Err(EtcdError::Incomplete { counted, sent: seen }.into())
            }
            _ => Ok(true),
        }
    }

    /// What is under way waits for the same slow link as a page that did not come in time: it is
    /// given up, and what has been sent of it with the connection.
    async fn begin_anew(&self, part: Part, parts: &mut VecDeque<Part>) {
        parts.push_front(Part { page: None, ..part });
        for part in parts {
            part.page.take_if(|fetch| !fetch.0.is_finished());
        }
        self.session.connect_anew().await;
    }

    /// Asks for the first parts, dividing those that are too large; `left` keys remain at most.
    fn ask(&self, parts: &mut VecDeque<Part>, stride: &mut Stride, left: Option<u64>) {
        // The first page says where others may begin, and at which revision.
        let known = self.revision != 0 && stride.is_known();
        let most = if known { self.pace.in_flight() } else { 1 };
        let limit = u64::try_from(self.pace.limit()).unwrap_or(1);
        for index in 0..most {
            let Some(part) = parts.get_mut(index) else { return };
            if part.page.is_some() {
                continue;
            }
            let many = part.count.or(left).is_none_or(|count| count > limit);
            let end = if many { stride.end(&part.range) } else { None };
            let rest = end.map(|end| {
                let rest = KeyRange { start: end.clone(), end: part.range.end.replace(end) };
                part.guess = Some(stride.number());
                Part::new(rest, None)
            });
            let range = part.range.clone();
            let (limit, pause) = (self.pace.limit(), self.pace.rest());
            let page = fetch(Arc::clone(&self.session), range, self.revision, limit, pause);
            part.page = Some(Fetch(tokio::spawn(page)));
            if let Some(rest) = rest {
                parts.insert(index + 1, rest);
            }
        }
    }

    fn failed(&self, failure: &PageError) -> SourceError {
        match failure {
            PageError::Refused(refusal, _) => self.explain(refusal),
            PageError::Malformed(e) => EtcdError::from(*e).into(),
        }
    }

    fn explain(&self, refusal: &Refusal) -> SourceError {
        match (refusal.said(), self.wanted) {
            (Some(Said::Compacted), Some(_)) => RevisionError::Forgotten(self.revision).into(),
            (Some(Said::Compacted), None) => {
                RevisionError::CompactedMeanwhile(self.revision).into()
            }
            (Some(Said::Future), Some(_)) => RevisionError::NotReached(self.revision).into(),
            _ => {
                let wish = Wish::Read(self.asked.clone());
                let why = connection::refusal_to(&self.session, refusal, wish);
                match (why, &self.last) {
                    (why @ (EtcdError::Member(_) | EtcdError::NoMember(_)), Some(last)) => {
                        let (entries, last, why) = (self.read, last.clone(), Box::new(why));
                        EtcdError::BrokeOff { entries, last, why }.into()
                    }
                    (why, _) => why.into(),
                }
            }
        }
    }
}

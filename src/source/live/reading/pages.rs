//! One scan as pages: the next ones are fetched while the caller reads the last.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::stride::Stride;
use crate::source::live::connection::{self, Refusal, Session};
use crate::source::live::wire::kv::{self, PageInfo, RangeRequest};
use crate::source::live::wire::said::Said;
use crate::source::{
    EntrySink, EtcdError, KeyRange, Query, RevisionError, SourceError, Untrue, Wish,
};

/// Entries of the first page, before sizes are known: at etcd's largest they are 150 MB that the
/// server gathers in vain.
const FIRST_LIMIT: i64 = 100;
/// Most entries of a page: bounds what a server gathers when sizes jump. The API server asks for
/// up to 10,000 at once (kubernetes/apiserver `storageWatchListPageSize`).
const MAX_LIMIT: i64 = 4_000;
/// What a page should weigh, bytes. One of twice as many entries is still taken.
const TARGET: usize = 3 << 19;
/// What a page of several entries may weigh, bytes: beyond it, fewer are asked for. With those in
/// flight, one that waits, one on its way there and one being read, it bounds the memory.
const MAX_PAGE: usize = 6 << 20;
/// Pages that wait for the caller, besides those in flight.
const WAITING: usize = 1;
/// Pages in flight: enough that a server never waits for the client.
const IN_FLIGHT: usize = 3;

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
    let reader = Reader {
        session: Arc::clone(session),
        wanted: query.revision,
        revision: query.revision.unwrap_or(0),
        limit: FIRST_LIMIT,
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
struct Fetch(JoinHandle<Result<(Bytes, PageInfo, i64), PageError>>);

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum PageError {
    Refused(Refusal),
    Malformed(crate::proto::Malformed),
}

/// One page, with fewer entries than `limit` if it is too large; and the limit that it took.
async fn fetch(
    session: Arc<Session>,
    range: KeyRange,
    revision: i64,
    mut limit: i64,
) -> Result<(Bytes, PageInfo, i64), PageError> {
    loop {
        let mut request = RangeRequest::new(&range, revision);
        request.limit = limit;
        // A single entry is as large as it is.
        let bound = if limit == 1 { usize::MAX } else { MAX_PAGE };
        match session.range(&request, bound).await {
            Ok(page) => {
                let info = PageInfo::read(&page).map_err(PageError::Malformed)?;
                return Ok((page, info, limit));
            }
            Err(refusal) if refusal.is_too_large() && limit > 1 => limit = (limit / 4).max(1),
            Err(refusal) => return Err(PageError::Refused(refusal)),
        }
    }
}

/// Reads the entries of one range at one revision into memory-sized pages.
struct Reader {
    session: Arc<Session>,
    /// The revision that the user asked for.
    wanted: Option<i64>,
    /// The revision of the scan; 0 until the first page says it.
    revision: i64,
    limit: i64,
    /// The range that is being read.
    asked: KeyRange,
    sender: mpsc::Sender<Bytes>,
}

impl Reader {
    async fn run(mut self, ranges: Vec<KeyRange>) -> Result<i64, SourceError> {
        for range in ranges {
            if !self.range(range).await? {
                break;
            }
        }
        if self.revision == 0 {
            // Nothing was selected; the revision is still part of the report.
            let nothing = KeyRange::single(b"\0");
            let page = fetch(Arc::clone(&self.session), nothing, 0, 1).await;
            self.revision = page.map_err(|e| self.failed(&e))?.1.revision;
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
            let (page, info, limit) = match (&mut fetch.0).await {
                Ok(result) => result.map_err(|e| self.failed(&e))?,
                Err(e) => return Err(EtcdError::Interrupted(e.into()).into()),
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
            if entries > 0 {
                let average = page.len().checked_div(info.entries).unwrap_or_default().max(1);
                let fitting = i64::try_from(2 * TARGET / average).unwrap_or(MAX_LIMIT);
                // Sizes differ from place to place: grow step by step, shrink at once.
                self.limit = fitting.clamp(1, MAX_LIMIT).min(limit.saturating_mul(8));
                if self.sender.send(page).await.is_err() {
                    return Ok(false);
                }
            }
            let aim = self.aim();
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

    /// How many entries a page should have.
    fn aim(&self) -> u64 {
        u64::try_from(self.limit / 2).unwrap_or(0).max(1)
    }

    /// Asks for the first parts, dividing those that are too large; `left` keys remain at most.
    fn ask(&self, parts: &mut VecDeque<Part>, stride: &mut Stride, left: Option<u64>) {
        // The first page says where others may begin, and at which revision.
        let most = if self.revision == 0 || !stride.is_known() { 1 } else { IN_FLIGHT };
        let limit = u64::try_from(self.limit).unwrap_or(1);
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
            let page = fetch(Arc::clone(&self.session), range, self.revision, self.limit);
            part.page = Some(Fetch(tokio::spawn(page)));
            if let Some(rest) = rest {
                parts.insert(index + 1, rest);
            }
        }
    }

    fn failed(&self, failure: &PageError) -> SourceError {
        match failure {
            PageError::Refused(refusal) => self.explain(refusal),
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
                connection::refusal_to(&self.session, refusal, wish).into()
            }
        }
    }
}

//! One scan as pages: the next ones are fetched while the caller reads the last.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::explain;
use super::session::{Refusal, Session};
use super::stride::Stride;
use super::wire::{self, PageInfo, RangeRequest};
use crate::source::{EntrySink, KeyRange, Query, SourceError};

/// Entries of the first page, before sizes are known: at etcd's largest they are 150 MB that the
/// server gathers in vain.
const FIRST_LIMIT: i64 = 100;
/// Most entries of a page: bounds what a server gathers when sizes jump.
const MAX_LIMIT: i64 = 2_000;
/// What a page should weigh, bytes.
const TARGET: usize = 1 << 20;
/// What a page of several entries may weigh, bytes: beyond it, fewer are asked for.
const MAX_PAGE: usize = 16 << 20;
/// Pages that wait for the caller, besides the one in flight.
const WAITING: usize = 2;

/// Counts the keys of a query. `None` when the server will not say.
pub(super) async fn count(session: &Arc<Session>, query: &Query) -> Option<u64> {
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
pub(super) fn visit(
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
        sender,
    };
    let task = runtime.spawn(reader.run(query.ranges.clone()));
    while let Some(page) = receiver.blocking_recv() {
        for entry in wire::entries(&page) {
            let entry = entry.map_err(malformed)?;
            if sink(entry).is_break() {
                receiver.close();
                break;
            }
        }
    }
    runtime
        .block_on(task)
        .map_err(|e| SourceError::new("reading from etcd was interrupted").because(e))?
}

/// Reads the entries of one range at one revision into memory-sized pages.
struct Reader {
    session: Arc<Session>,
    /// The revision that the user asked for.
    wanted: Option<i64>,
    /// The revision of the scan; 0 until the first page says it.
    revision: i64,
    limit: i64,
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
            let page = self.page(&nothing).await?;
            self.revision = page.1.revision;
        }
        Ok(self.revision)
    }

    /// Sends the pages of one range; false when nobody wants more.
    async fn range(&mut self, mut range: KeyRange) -> Result<bool, SourceError> {
        let mut stride = Stride::default();
        loop {
            let bound = stride.end(&range);
            let part = KeyRange {
                start: range.start.clone(),
                end: bound.clone().or_else(|| range.end.clone()),
            };
            let (page, info) = self.page(&part).await?;
            if self.revision == 0 {
                self.revision = info.revision;
            }
            let size = page.len();
            if info.entries > 0 && self.sender.send(page).await.is_err() {
                return Ok(false);
            }
            let limit = self.limit;
            if info.entries > 0 {
                let average = size.checked_div(info.entries).unwrap_or_default().max(1);
                let fitting = i64::try_from(TARGET / average).unwrap_or(MAX_LIMIT);
                // Sizes differ from place to place: grow step by step, shrink at once.
                self.limit = fitting.clamp(1, MAX_LIMIT).min(limit.saturating_mul(4));
            }
            match (info.first, info.last, bound) {
                (Some(first), Some(last), _) if info.more => {
                    stride.cut(&first, &last, info.entries, self.limit);
                    range.start = last;
                    range.start.push(0);
                }
                (_, _, Some(bound)) => {
                    stride.reached(info.entries, limit);
                    range.start = bound;
                }
                _ => return Ok(true),
            }
        }
    }

    /// One page, with fewer entries if it is too large.
    async fn page(&mut self, range: &KeyRange) -> Result<(Bytes, PageInfo), SourceError> {
        loop {
            let mut request = RangeRequest::new(range, self.revision);
            request.limit = self.limit;
            // A single entry is as large as it is.
            let bound = if self.limit == 1 { usize::MAX } else { MAX_PAGE };
            match self.session.range(&request, bound).await {
                Ok(page) => {
                    let info = PageInfo::read(&page).map_err(malformed)?;
                    return Ok((page, info));
                }
                Err(refusal) if refusal.is_too_large() && self.limit > 1 => {
                    self.limit = (self.limit / 4).max(1);
                }
                Err(refusal) => return Err(self.explain(&refusal)),
            }
        }
    }

    fn explain(&self, refusal: &Refusal) -> SourceError {
        match refusal.message() {
            Some("etcdserver: mvcc: required revision has been compacted") => {
                if self.wanted.is_some() {
                    SourceError::new(format!(
                        "revision {} has been compacted: etcd no longer holds it",
                        self.revision
                    ))
                    .hint("give a newer --revision, or none for the newest; a snapshot taken before may still hold it")
                } else {
                    SourceError::new(format!(
                        "revision {} was compacted during the scan, so no complete result exists",
                        self.revision
                    ))
                    .hint("run it again; if it happens each time, scan a snapshot (etcdctl snapshot save)")
                }
            }
            Some("etcdserver: mvcc: required revision is a future revision")
                if self.wanted.is_some() =>
            {
                SourceError::new(format!("revision {} does not exist yet", self.revision))
                    .hint("give a --revision that has been reached, or none for the newest")
            }
            _ => explain::refusal(&self.session, refusal),
        }
    }
}

pub(super) fn malformed(e: crate::proto::Malformed) -> SourceError {
    SourceError::new("etcd sent a response that cannot be read")
        .because(e)
        .hint("check that the endpoint is an etcd and not a proxy that changes messages")
}

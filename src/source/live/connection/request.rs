//! Requests with authentication, and with failover from member to member.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tonic::Streaming;
use tonic::metadata::AsciiMetadataValue;

use super::call::{CallError, Refusal};
use super::session::Session;
use super::token::Need;
use crate::source::live::wire::guaranteed;
use crate::source::live::wire::kv::{RANGE, RangeRequest};
use crate::source::live::wire::said::Said;
use crate::source::live::wire::status::SNAPSHOT;

/// How long all members are asked again once the cluster has answered before: an election takes a
/// second or two, the restart of an etcd a few more.
const PATIENCE: Duration = Duration::from_secs(10);
/// First pause before asking all members again; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before asking all members again.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// By how much a page shrinks that a silent member may have needed too long for.
const SHRINK: i64 = 64;
/// Bytes that may come in while a member does not answer: what HTTP/2 says about itself.
const CHATTER: u64 = 1 << 10;

/// An answer under way.
pub(super) type Answer<T> = Pin<Box<dyn Future<Output = Result<T, CallError>> + Send>>;

/// Sends one request to the member with this index, with this token, without another try.
pub(super) type Ask<T> =
    dyn Fn(Arc<Session>, usize, Option<AsciiMetadataValue>) -> Answer<T> + Send + Sync;

/// A request whose response stays as bytes.
fn raw(
    path: &'static str,
    body: Bytes,
    limit: usize,
) -> impl Fn(Arc<Session>, usize, Option<AsciiMetadataValue>) -> Answer<Bytes> {
    move |session, index, token| {
        let body = body.clone();
        Box::pin(async move { session.once(index, path, body, limit, token).await })
    }
}

/// A range request, checked against its answer.
fn ranged(
    request: RangeRequest,
    limit: usize,
) -> impl Fn(Arc<Session>, usize, Option<AsciiMetadataValue>) -> Answer<Bytes> {
    let request = Arc::new(request);
    move |session, index, token| {
        let request = Arc::clone(&request);
        Box::pin(async move { session.once_ranged(index, &request, limit, token).await })
    }
}

/// A page under way, which shrinks each time that a member stays silent.
struct Paged {
    request: RangeRequest,
    /// Most bytes of several entries; a single one is as large as it is.
    bound: usize,
    /// Most entries of the next try.
    next: AtomicI64,
    /// Most entries of the last one.
    asked: AtomicI64,
}

/// A page.
fn paged(
    paged: Arc<Paged>,
) -> impl Fn(Arc<Session>, usize, Option<AsciiMetadataValue>) -> Answer<Bytes> {
    move |session, index, token| {
        let paged = Arc::clone(&paged);
        Box::pin(async move {
            let limit = paged.next.load(Ordering::Relaxed);
            paged.asked.store(limit, Ordering::Relaxed);
            let serializable = session.learner.load(Ordering::Relaxed);
            let request = RangeRequest { limit, serializable, ..paged.request.clone() };
            let bound = if limit == 1 { usize::MAX } else { paged.bound };
            let facts = session.members[index].facts();
            let before = facts.received();
            match session.once_ranged(index, &request, bound, token).await {
                Err(CallError::Timeout(t)) => {
                    let now = session.members[index].facts();
                    let before = if Arc::ptr_eq(&facts, &now) { before } else { 0 };
                    if now.received().saturating_sub(before) > CHATTER {
                        return Err(CallError::Slow(t));
                    }
                    paged.next.store((limit / SHRINK).max(1), Ordering::Relaxed);
                    Err(CallError::Timeout(t))
                }
                answer => answer,
            }
        })
    }
}

impl Session {
    /// One request to one member with the session's token, authenticating where needed.
    async fn authenticated<T>(
        self: &Arc<Self>,
        index: usize,
        send: &Ask<T>,
    ) -> Result<T, CallError> {
        if self.credentials.is_none() {
            return send(Arc::clone(self), index, None).await;
        }
        let mut tries = 0;
        loop {
            let token = self.token(index, Need::Any).await?;
            match send(Arc::clone(self), index, token.clone()).await {
                Err(CallError::Status(status))
                    if tries < 2 && Said::of(status.message()).wants_new_token() =>
                {
                    tries += 1;
                    self.token(index, Need::OtherThan(token)).await?;
                }
                result => return result,
            }
        }
    }

    /// Sends a request to the current member, and to the others while it fails for a reason that
    /// is the member's own.
    pub async fn call(
        self: &Arc<Self>,
        path: &'static str,
        body: Bytes,
        limit: usize,
    ) -> Result<Bytes, Refusal> {
        self.call_with(&raw(path, body, limit)).await
    }

    /// As [`Session::call`], whatever the request is made with.
    pub async fn call_with<T>(self: &Arc<Self>, send: &Ask<T>) -> Result<T, Refusal> {
        // Before anything has answered, a failure is most likely a wrong option.
        let patience =
            if self.answered.load(Ordering::Relaxed) { PATIENCE } else { Duration::ZERO };
        self.call_within(patience, send).await
    }

    /// As [`Session::call_with`], all members again and again for as long as `patience`.
    async fn call_within<T>(
        self: &Arc<Self>,
        patience: Duration,
        send: &Ask<T>,
    ) -> Result<T, Refusal> {
        self.undivided()?;
        let order = self.order();
        let start = tokio::time::Instant::now();
        let mut pause = PAUSE;
        loop {
            let mut failures: Vec<(usize, CallError)> = Vec::new();
            for index in order.clone() {
                match self.authenticated(index, send).await {
                    Ok(answer) => {
                        self.prefer(index);
                        return Ok(answer);
                    }
                    Err(e) if e.is_passing() => failures.push((index, e)),
                    Err(e) => return Err(Refusal { failures: vec![(index, e)] }),
                }
            }
            if start.elapsed() + pause >= patience {
                return Err(Refusal { failures });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// One request to the current member, without another try.
    pub async fn call_current(
        self: &Arc<Self>,
        path: &'static str,
        body: Bytes,
        limit: usize,
    ) -> Result<Bytes, CallError> {
        let index = self.current.load(Ordering::Relaxed);
        let bytes = self.authenticated(index, &raw(path, body, limit)).await?;
        self.answered.store(true, Ordering::Relaxed);
        Ok(bytes)
    }

    /// A range request, whose answer holds what etcd guarantees; a member that is a learner is
    /// asked for what it has.
    pub async fn range(
        self: &Arc<Self>,
        request: &RangeRequest,
        limit: usize,
    ) -> Result<Bytes, Refusal> {
        let mut request = request.clone();
        request.serializable = self.learner.load(Ordering::Relaxed);
        let result = self.call_with(&ranged(request.clone(), limit)).await;
        match result {
            Err(refusal) if !request.serializable && refusal.said() == Some(Said::Learner) => {
                self.learner.store(true, Ordering::Relaxed);
                request.serializable = true;
                self.call_with(&ranged(request, limit)).await
            }
            result => result,
        }
    }

    /// A page of a range, of at most the request's number of entries and `bound` bytes, and the
    /// number that was asked for in the end: where a member stays silent, the next is asked for
    /// less, down to a single entry.
    pub async fn page(
        self: &Arc<Self>,
        request: &RangeRequest,
        bound: usize,
    ) -> (Result<Bytes, Refusal>, i64) {
        let paging = Arc::new(Paged {
            request: request.clone(),
            bound,
            next: AtomicI64::new(request.limit),
            asked: AtomicI64::new(request.limit),
        });
        let learner = self.learner.load(Ordering::Relaxed);
        let patient = self.answered.load(Ordering::Relaxed);
        let send = paged(Arc::clone(&paging));
        let mut answer = self.call_with(&send).await;
        if let Err(refusal) = &answer {
            if !learner && refusal.said() == Some(Said::Learner) {
                self.learner.store(true, Ordering::Relaxed);
                answer = self.call_with(&send).await;
            } else if patient && refusal.is_silence() && paging.asked.load(Ordering::Relaxed) > 1 {
                paging.next.store(1, Ordering::Relaxed);
                answer = self.call_within(Duration::ZERO, &send).await;
            }
        }
        (answer, paging.asked.load(Ordering::Relaxed))
    }

    /// A range request to one member, whose answer holds what etcd guarantees.
    async fn once_ranged(
        self: &Arc<Self>,
        index: usize,
        request: &RangeRequest,
        limit: usize,
        token: Option<AsciiMetadataValue>,
    ) -> Result<Bytes, CallError> {
        let body = request.encode_to_vec().into();
        let page = self.once(index, RANGE, body, limit, token).await?;
        guaranteed::page(request, &page)?;
        Ok(page)
    }

    /// A range request to one member, without another try.
    pub async fn range_at(
        self: &Arc<Self>,
        index: usize,
        request: RangeRequest,
        limit: usize,
    ) -> Result<Bytes, CallError> {
        self.authenticated(index, &ranged(request, limit)).await
    }

    /// Opens a watch at one member, without another try.
    pub async fn watch(
        self: &Arc<Self>,
        index: usize,
        path: &'static str,
        requests: impl tokio_stream::Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, CallError> {
        let token = self.token(index, Need::Any).await?;
        self.duplex(index, path, requests, token).await
    }

    /// Begins a snapshot of a member that answers.
    pub async fn snapshot(self: &Arc<Self>) -> Result<Streaming<Bytes>, Refusal> {
        let send = |session: Arc<Self>, index, token| -> Answer<Streaming<Bytes>> {
            Box::pin(async move {
                // A snapshot has no header to tell its cluster.
                session.identify(index).await?;
                session.download(index, SNAPSHOT, Bytes::new(), token).await
            })
        };
        self.call_with(&send).await
    }

    /// Connects to the first member that can be reached and, with credentials, authenticates.
    pub async fn open(self: &Arc<Self>) -> Result<(), Refusal> {
        let mut failures = Vec::new();
        for index in 0..self.members.len() {
            let result = match self.channel(index).await {
                Ok(_) => self.token(index, Need::Any).await.map(|_| ()),
                Err(e) => Err(e),
            };
            match result {
                Ok(()) => {
                    self.current.store(index, Ordering::Relaxed);
                    self.ask_others(index);
                    return Ok(());
                }
                Err(e) if e.is_passing() => failures.push((index, e)),
                Err(e) => return Err(Refusal { failures: vec![(index, e)] }),
            }
        }
        Err(Refusal { failures })
    }
}

//! What a server still holds of the past: the state at the last compaction, and a watch of
//! everything since.
//!
//! A watch that begins in the past replays every write and deletion with its revision (etcd
//! `server/storage/mvcc/watchable_store.go`). All keys are watched, whatever is asked for: every
//! revision has an event, so the one of the newest revision says that nothing is missing. What a
//! server says about progress does not, before etcd 3.4.25 and 3.5.8.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::events::{Frame, events, revision};
use super::narrow::{self, Held};
use super::said::Said;
use super::session::{CallError, Refusal, Session};
use super::wire::{PageInfo, RangeRequest};
use super::{explain, pages};
use crate::entry::Entry;
use crate::source::{
    EtcdError, KeyRange, Query, Record, RecordSink, RevisionError, SourceError, Visit, Wish,
};

pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// Responses that wait for the caller.
const WAITING: usize = 4;
/// Of an old server that was asked for the history of some keys only.
const UNPROVEN: &str = "the user may not read all keys, and a server older than 3.4.25 or 3.5.8 does not prove that the history of some is whole: what was written and deleted just before may be missing";
/// How often a read is begun again because etcd compacted meanwhile.
const TRIES: usize = 3;

/// `etcdserverpb.WatchCreateRequest` (etcd `api/etcdserverpb/rpc.proto`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    /// Events of one revision may come in several responses.
    #[prost(bool, tag = "8")]
    pub fragment: bool,
}

/// `etcdserverpb.WatchRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub create: Option<WatchCreateRequest>,
    /// Asks how far the watches of the stream are.
    #[prost(message, optional, tag = "3")]
    pub progress: Option<()>,
}

/// Calls `sink` for every revision that the server holds, ascending.
pub(super) fn history(
    runtime: &Runtime,
    session: &Arc<Session>,
    query: &Query,
    sink: &mut RecordSink<'_>,
) -> Result<Visit, SourceError> {
    let newest = runtime.block_on(newest(session, query))?;
    let mut compacted = 0;
    for _ in 0..TRIES {
        // Revision 1 is the empty store's.
        let from = compacted.max(1) + 1;
        let watched = match runtime.block_on(begin(session, from, newest)) {
            // The user may not read all keys: those that are wanted have to do.
            Err(EtcdError::WatchCanceled { denied: true, .. }) if !query.ranges.is_empty() => {
                match runtime.block_on(narrow::read(session, &query.ranges, from, newest))? {
                    Held::Compacted(at) => Begun::Compacted(at),
                    Held::Events { messages, unproven } => Begun::Some { messages, unproven },
                }
            }
            watched => watched?,
        };
        if let Begun::Compacted(at) = watched {
            compacted = at;
            continue;
        }
        if newest < compacted {
            return Err(match query.revision {
                Some(_) => RevisionError::Forgotten(newest),
                None => RevisionError::HistoryCompacted(newest),
            }
            .into());
        }
        // Buffered: the state comes in the order of keys.
        let mut state: Vec<Entry> = Vec::new();
        if compacted > 0 {
            let at = Query { revision: Some(compacted), ..query.clone() };
            pages::visit(runtime, session, &at, &mut |entry| {
                state.push(entry.to_entry());
                ControlFlow::Continue(())
            })?;
        }
        state.sort_by_key(|e| e.mod_revision);
        let mut visit = Visit { revision: newest, compacted, ..Visit::default() };
        for entry in &state {
            if sink(Record::Put(entry.as_ref())).is_break() {
                return Ok(visit);
            }
        }
        match watched {
            Begun::Events(first, stream) => {
                follow(runtime, session, first, stream, newest, query, sink)?;
            }
            Begun::Some { messages, unproven } => {
                Held::each(&messages, newest, sink)?;
                if unproven {
                    visit.notes.push(UNPROVEN.to_owned());
                }
            }
            Begun::Nothing | Begun::Compacted(_) => {}
        }
        return Ok(visit);
    }
    Err(RevisionError::HistoryCompacted(newest).into())
}

/// The revision up to which the past is read.
async fn newest(session: &Arc<Session>, query: &Query) -> Result<i64, SourceError> {
    // One of the keys that are wanted: the user may have no right to others.
    let key = query.ranges.first().map(|r| r.start.as_slice()).filter(|k| !k.is_empty());
    let key = KeyRange::single(key.unwrap_or(b"\0"));
    let mut request = RangeRequest::new(&key, query.revision.filter(|r| *r > 0).unwrap_or(0));
    request.count_only = true;
    let wanted = || query.ranges.first().cloned().unwrap_or_else(|| KeyRange::single(b"\0"));
    let page = session.range(&request, 1 << 20).await;
    let page = page.map_err(|refusal| -> SourceError {
        match refusal.said() {
            Some(Said::Future) => RevisionError::NotReached(request.revision).into(),
            Some(Said::Compacted) => RevisionError::Forgotten(request.revision).into(),
            _ => explain::refusal_to(session, &refusal, Wish::Read(wanted())).into(),
        }
    })?;
    let current = PageInfo::read(&page).map_err(EtcdError::Malformed)?.revision;
    Ok(if request.revision > 0 { request.revision } else { current })
}

enum Begun {
    /// The server has forgotten what was asked for: it goes back to this revision.
    Compacted(i64),
    /// There is nothing between the two revisions.
    Nothing,
    /// The first response with events, and the rest.
    Events(Bytes, Box<Stream>),
    /// All events of the wanted keys alone.
    Some { messages: Vec<Bytes>, unproven: bool },
}

/// A watch at one member.
struct Stream {
    index: usize,
    messages: Streaming<Bytes>,
}

/// Why a watch does not begin.
enum Obstacle {
    /// Another member may do better.
    Member(CallError),
    Request(EtcdError),
}

/// Begins a watch of all keys at `from`, at the first member that answers.
async fn begin(session: &Arc<Session>, from: i64, newest: i64) -> Result<Begun, EtcdError> {
    // A watch would wait for the first event for ever.
    if from > newest {
        return Ok(Begun::Nothing);
    }
    let mut failures = Vec::new();
    for index in session.order() {
        match begin_at(session, index, from, false).await {
            Ok(begun) => return Ok(begun),
            Err(Obstacle::Member(e)) => failures.push((index, e)),
            Err(Obstacle::Request(e)) => return Err(e),
        }
    }
    Err(explain::refusal(session, &Refusal { failures }))
}

async fn begin_at(
    session: &Arc<Session>,
    index: usize,
    from: i64,
    renewed: bool,
) -> Result<Begun, Obstacle> {
    let request = WatchRequest {
        create: Some(WatchCreateRequest {
            key: vec![0],
            range_end: vec![0],
            start_revision: from,
            fragment: true,
        }),
        progress: None,
    };
    let body = request.encode_to_vec().into();
    let messages = session.stream_once(index, WATCH, body).await.map_err(Obstacle::Member)?;
    let mut stream = Stream { index, messages };
    loop {
        let message = stream.next(session).await.map_err(Obstacle::Member)?;
        let frame = Frame::read(&message).map_err(|e| Obstacle::Request(e.into()))?;
        if frame.compact_revision > 0 {
            return Ok(Begun::Compacted(frame.compact_revision));
        }
        if frame.canceled {
            let why = canceled(&frame);
            // etcd says this of an expired token, too.
            if matches!(why, EtcdError::WatchCanceled { denied: true, .. })
                && !renewed
                && session.renew_token(index).await.map_err(Obstacle::Member)?
            {
                return Box::pin(begin_at(session, index, from, true)).await;
            }
            return Err(Obstacle::Request(why));
        }
        if frame.newest > 0 {
            return Ok(Begun::Events(message, Box::new(stream)));
        }
    }
}

fn canceled(frame: &Frame<'_>) -> EtcdError {
    super::events::canceled(frame.cancel_reason, true)
}

/// How long the server may prepare what it sends: it reads the whole history before the first
/// event. That the connection is alive, keepalive probes tell.
pub(super) const PREPARATION: Duration = Duration::from_mins(2);

impl Stream {
    async fn next(&mut self, session: &Session) -> Result<Bytes, CallError> {
        let wait = session.command_timeout.max(PREPARATION);
        match tokio::time::timeout(wait, self.messages.message()).await {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => {
                let status = tonic::Status::unavailable("the server ended the watch");
                Err(CallError::Status(Box::new(status)))
            }
            Ok(Err(status)) => Err(CallError::Status(Box::new(status))),
            Err(_) => Err(CallError::Timeout(wait)),
        }
    }

    fn broke_off(&self, session: &Session, e: CallError) -> EtcdError {
        let why = explain::refusal(session, &Refusal { failures: vec![(self.index, e)] });
        EtcdError::HistoryCut(Box::new(why))
    }
}

fn follow(
    runtime: &Runtime,
    session: &Arc<Session>,
    first: Bytes,
    mut stream: Box<Stream>,
    newest: i64,
    query: &Query,
    sink: &mut RecordSink<'_>,
) -> Result<(), SourceError> {
    let (sender, mut receiver) = mpsc::channel(WAITING);
    let session = Arc::clone(session);
    let task = runtime.spawn(async move {
        let mut message = first;
        loop {
            let frame = Frame::read(&message).map_err(EtcdError::Malformed)?;
            if frame.compact_revision > 0 {
                return Err(RevisionError::HistoryCompacted(newest).into());
            }
            if frame.canceled {
                return Err(canceled(&frame).into());
            }
            let done = frame.newest > newest || frame.newest == newest && !frame.fragment;
            if sender.send(message).await.is_err() || done {
                return Ok(());
            }
            message = stream.next(&session).await.map_err(|e| stream.broke_off(&session, e))?;
        }
    });
    'messages: while let Some(message) = receiver.blocking_recv() {
        for record in events(&message) {
            let record = record.map_err(EtcdError::Malformed)?;
            let key = match &record {
                Record::Put(entry) => entry.key,
                Record::Delete { key, .. } => key,
            };
            if revision(&record) <= newest && query.wants(key) && sink(record).is_break() {
                break 'messages;
            }
        }
    }
    // The watch ends when nobody takes its messages.
    drop(receiver);
    runtime.block_on(task).map_err(|e| EtcdError::Interrupted(e.into()))?
}

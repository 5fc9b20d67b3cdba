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
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::narrow::{self, Remains};
use super::pages;
use super::watch::{PREPARATION, Step, Watch};
use crate::entry::Entry;
use crate::source::live::connection::{self, CallError, Refusal, Session};
use crate::source::live::wire::kv::{PageInfo, RangeRequest};
use crate::source::live::wire::said::Said;
use crate::source::live::wire::watch::{events, revision};
use crate::source::{
    EtcdError, KeyRange, Query, Record, RecordSink, RevisionError, SourceError, Visit, Wish,
};

/// Responses that wait for the caller.
const WAITING: usize = 4;
/// Of an old server that was asked for the history of some keys only.
const UNPROVEN: &str = "the user may not read all keys, and a server older than 3.4.25 or 3.5.8 does not prove that the history of some is whole: what was written and deleted just before may be missing";
/// How often a read is begun again because etcd compacted meanwhile.
const TRIES: usize = 3;

/// Calls `sink` for every revision that the server holds, ascending.
pub(in crate::source::live) fn history(
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
                    Remains::Compacted(at) => Begun::Compacted(at),
                    Remains::Events { messages, unproven } => Begun::Some { messages, unproven },
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
            Begun::Events(first, watch) => {
                follow(runtime, session, first, watch, newest, query, sink)?;
            }
            Begun::Some { messages, unproven } => {
                Remains::each(&messages, newest, sink)?;
                if unproven {
                    visit.notes.push(UNPROVEN.to_owned());
                }
            }
            Begun::Nothing | Begun::Compacted(_) => {}
        }
        let settled = runtime.block_on(session.settle());
        settled.map_err(|refusal| connection::refusal(session, &refusal))?;
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
            _ => connection::refusal_to(session, &refusal, Wish::Read(wanted())).into(),
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
    Events(Events, Box<Watch>),
    /// All events of the wanted keys alone.
    Some { messages: Vec<Bytes>, unproven: bool },
}

/// A response with events.
struct Events {
    message: Bytes,
    newest: i64,
    whole: bool,
}

/// Begins a watch of all keys at `from`, at the first member that answers.
async fn begin(session: &Arc<Session>, from: i64, newest: i64) -> Result<Begun, EtcdError> {
    // A watch would wait for the first event for ever.
    if from > newest {
        return Ok(Begun::Nothing);
    }
    let mut failures = Vec::new();
    for index in session.order() {
        match begin_at(session, index, from).await {
            Ok(begun) => return begun,
            Err(e) => failures.push((index, e)),
        }
        let refusal = Refusal { failures };
        if refusal.flaw().is_some() {
            return Err(connection::refusal(session, &refusal));
        }
        failures = refusal.failures;
    }
    Err(connection::refusal(session, &Refusal { failures }))
}

/// As [`begin`], at one member; with an error, another one may do better.
async fn begin_at(
    session: &Arc<Session>,
    index: usize,
    from: i64,
) -> Result<Result<Begun, EtcdError>, CallError> {
    let everything = KeyRange { start: Vec::new(), end: None };
    let wait = patience(session);
    let mut watch = Watch::new(session, index, everything, false, wait);
    watch.begin(from).await?;
    loop {
        let (message, step) = watch.next(Some(wait)).await?;
        return Ok(match step {
            Step::Compacted(at) => Ok(Begun::Compacted(at)),
            Step::Canceled(e) | Step::Malformed(e) => Err(e),
            Step::Events { newest, whole } => {
                Ok(Begun::Events(Events { message, newest, whole }, Box::new(watch)))
            }
            Step::Quiet { .. } => continue,
        });
    }
}

fn patience(session: &Session) -> Duration {
    session.command_timeout.max(PREPARATION)
}

fn follow(
    runtime: &Runtime,
    session: &Arc<Session>,
    first: Events,
    mut watch: Box<Watch>,
    newest: i64,
    query: &Query,
    sink: &mut RecordSink<'_>,
) -> Result<(), SourceError> {
    let (sender, mut receiver) = mpsc::channel(WAITING);
    let session = Arc::clone(session);
    let task = runtime.spawn(async move {
        let wait = patience(&session);
        let broke_off =
            |index, e| match connection::refusal(&session, &Refusal { failures: vec![(index, e)] })
            {
                e @ (EtcdError::Untrue { .. } | EtcdError::Malformed(_)) => e,
                why => EtcdError::HistoryCut(Box::new(why)),
            };
        let mut last = (first.newest, first.whole);
        let mut message = first.message;
        loop {
            let done = last.0 > newest || last.0 == newest && last.1;
            if sender.send(message).await.is_err() || done {
                return Ok::<_, SourceError>(());
            }
            message = loop {
                let index = watch.index;
                let (message, step) =
                    watch.next(Some(wait)).await.map_err(|e| broke_off(index, e))?;
                match step {
                    Step::Compacted(_) => {
                        return Err(RevisionError::HistoryCompacted(newest).into());
                    }
                    Step::Canceled(e) | Step::Malformed(e) => return Err(e.into()),
                    Step::Events { newest, whole } => {
                        last = (newest, whole);
                        break message;
                    }
                    Step::Quiet { .. } => {}
                }
            };
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

//! The past of some keys alone, for a user who may not read all of them.
//!
//! Only a watch of all keys has an event of every revision, which says by itself that nothing is
//! missing. A watch of some is at its end when the server says so when asked for its progress.
//! Before etcd 3.4.25 and 3.5.8 a server could say that too early (etcd `CHANGELOG-3.5.md`, "watch
//! progress notification"): there, what came is compared with the state that it must lead to.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use tokio_stream::wrappers::ReceiverStream;

use super::watch::{PREPARATION, hear};
use crate::source::live::connection::{self, CallError, Refusal, Session};
use crate::source::live::wire::guaranteed::{Flaw, Watched};
use crate::source::live::wire::kv::{self, RangeRequest};
use crate::source::live::wire::status::{STATUS, Status};
use crate::source::live::wire::watch::{
    Frame, WATCH, canceled, create, events, progress, revision,
};
use crate::source::{EtcdError, KeyRange, Record, RecordSink, Wish};

/// How often the server is asked how far it is.
const ASK: Duration = Duration::from_millis(100);
/// How long nothing may come before an old server's word counts.
const QUIET: Duration = Duration::from_millis(500);

/// What a server still holds.
pub(super) enum Remains {
    /// Only what came after this revision.
    Compacted(i64),
    /// Responses with events, one watch after the other or in turns.
    Events {
        messages: Vec<Bytes>,
        /// The server is one of those whose word is not proof.
        unproven: bool,
    },
}

impl Remains {
    /// Calls `sink` for each write and deletion up to `newest`, ascending.
    pub fn each(
        messages: &[Bytes],
        newest: i64,
        sink: &mut RecordSink<'_>,
    ) -> Result<(), EtcdError> {
        let mut all = Vec::new();
        for message in messages {
            for record in events(message) {
                let record = record?;
                if revision(&record) <= newest {
                    all.push(record);
                }
            }
        }
        // Stable: within a revision, in the order of the server.
        all.sort_by_key(revision);
        for record in all {
            if sink(record).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Reads what happened to the keys of `ranges` from one revision to another.
pub(super) async fn read(
    session: &Arc<Session>,
    ranges: &[KeyRange],
    from: i64,
    newest: i64,
) -> Result<Remains, EtcdError> {
    let status = session.call(STATUS, Bytes::new(), 1 << 20).await;
    let status = status.ok().and_then(|answer| Status::decode(answer).ok());
    let unproven = !status.is_some_and(|s| tells_progress(&s.version));
    let mut failures = Vec::new();
    let all = || ranges.first().cloned().unwrap_or_else(|| KeyRange::single(b"\0"));
    for index in session.order() {
        let mut one = One { session, index, ranges, from, newest, unproven };
        match one.read().await {
            Ok(held) => return Ok(held),
            Err(Obstacle::Member(e)) => {
                let refusal = Refusal { failures: vec![(index, e)] };
                if refusal.flaw().is_some() {
                    return Err(connection::refusal(session, &refusal));
                }
                failures.extend(refusal.failures);
            }
            Err(Obstacle::Request(EtcdError::WatchCanceled { denied: true, .. })) => {
                return Err(EtcdError::Denied {
                    member: session.member(index),
                    user: session.user(),
                    wish: Wish::Read(all()),
                });
            }
            Err(Obstacle::Request(e)) => return Err(e),
        }
    }
    Err(connection::refusal(session, &Refusal { failures }))
}

/// Whether a server of this version says only what is so.
fn tells_progress(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map(|p| p.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 25,
        (3, 5, patch) => patch >= 8,
        (major, minor, _) => (major, minor) > (3, 5),
    }
}

/// Why the watches do not come to their end.
enum Obstacle {
    /// Another member may do better.
    Member(CallError),
    Request(EtcdError),
}

impl From<Flaw> for Obstacle {
    fn from(flaw: Flaw) -> Self {
        Self::Member(flaw.into())
    }
}

impl From<crate::proto::Malformed> for Obstacle {
    fn from(e: crate::proto::Malformed) -> Self {
        Self::Request(e.into())
    }
}

/// The watches at one member.
struct One<'a> {
    session: &'a Arc<Session>,
    index: usize,
    ranges: &'a [KeyRange],
    from: i64,
    newest: i64,
    unproven: bool,
}

impl One<'_> {
    async fn read(&mut self) -> Result<Remains, Obstacle> {
        let (requests, receiver) = tokio::sync::mpsc::channel(self.ranges.len() + 1);
        for range in self.ranges {
            // The channel has room for all.
            let _ = requests.try_send(Bytes::from(create(range, self.from, false)));
        }
        let ask = Bytes::from(progress());
        let stream = self.session.watch(self.index, WATCH, ReceiverStream::new(receiver));
        let mut stream = stream.await.map_err(Obstacle::Member)?;
        let mut messages = Vec::new();
        let mut created = 0;
        // Watches by the ids that the server gives them, in the order of the requests.
        let mut watched: HashMap<i64, Watched> = HashMap::new();
        let mut heard = Instant::now();
        let mut tick = tokio::time::interval(ASK);
        loop {
            let message = tokio::select! {
                message = stream.message() => message,
                _ = tick.tick() => {
                    if heard.elapsed() > PREPARATION {
                        return Err(Obstacle::Member(CallError::Timeout(PREPARATION)));
                    }
                    if created == self.ranges.len() {
                        // Full: a question is under way.
                        let _ = requests.try_send(ask.clone());
                    }
                    continue;
                }
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => {
                    let status = tonic::Status::unavailable("the server ended the watch");
                    return Err(Obstacle::Member(CallError::Status(Box::new(status))));
                }
                Err(status) => return Err(Obstacle::Member(CallError::Status(Box::new(status)))),
            };
            let frame = Frame::read(&message)?;
            hear(self.session, self.index, &frame)?;
            if frame.created
                && let Some(range) = self.ranges.get(created)
            {
                watched.insert(frame.id, Watched::new(range.clone(), self.from));
            }
            match watched.get_mut(&frame.id) {
                Some(watched) => watched.next(&frame, &message)?,
                // Of no watch that was asked for.
                None if frame.newest > 0 => {
                    let none = KeyRange { start: vec![0], end: Some(vec![0]) };
                    Watched::new(none, self.from).next(&frame, &message)?;
                }
                None => {}
            }
            if frame.compact_revision > 0 {
                return Ok(Remains::Compacted(frame.compact_revision));
            }
            if frame.canceled {
                return Err(Obstacle::Request(canceled(&frame, false)));
            }
            if frame.newest > 0 {
                heard = Instant::now();
                messages.push(message);
            } else if frame.created {
                heard = Instant::now();
                created += 1;
            } else if frame.revision >= self.newest && created == self.ranges.len() {
                let proven = !self.unproven
                    || heard.elapsed() > QUIET && self.leads_to_the_state(&messages).await?;
                if proven {
                    return Ok(Remains::Events { messages, unproven: self.unproven });
                }
            }
        }
    }

    /// Whether the events turn the state before them into the one at the newest revision.
    async fn leads_to_the_state(&self, messages: &[Bytes]) -> Result<bool, Obstacle> {
        let mut state = match self.from - 1 {
            // Revision 1 is the empty store's.
            before @ 2.. => self.state(before).await?,
            _ => HashMap::new(),
        };
        let after = self.state(self.newest).await?;
        let mut apply = |record: Record<'_>| {
            match record {
                Record::Put(entry) => {
                    state.insert(entry.key.to_vec(), entry.mod_revision);
                }
                Record::Delete { key, .. } => {
                    state.remove(key);
                }
            }
            ControlFlow::Continue(())
        };
        Remains::each(messages, self.newest, &mut apply).map_err(Obstacle::Request)?;
        Ok(state == after)
    }

    /// The keys of a revision, and when each was last written.
    async fn state(&self, at: i64) -> Result<HashMap<Vec<u8>, i64>, Obstacle> {
        let mut state = HashMap::new();
        for range in self.ranges {
            let mut request = RangeRequest::new(range, at);
            request.keys_only = true;
            let page = self.session.range(&request, usize::MAX).await;
            let page =
                page.map_err(|r| Obstacle::Request(connection::refusal(self.session, &r)))?;
            for entry in kv::entries(&page) {
                let entry = entry?;
                state.insert(entry.key.to_vec(), entry.mod_revision);
            }
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::tells_progress;

    #[test]
    fn versions_that_tell_their_progress() {
        for version in ["3.4.25", "3.5.8", "3.5.21", "3.6.0", "3.6.0-rc.1", "4.0.0"] {
            assert!(tells_progress(version), "{version}");
        }
        for version in ["3.4.23", "3.5.1", "3.3.99", "", "who knows"] {
            assert!(!tells_progress(version), "{version}");
        }
    }
}

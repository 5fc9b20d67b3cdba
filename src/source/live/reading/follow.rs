//! What changes after a revision, as etcd's watch tells it, over lost connections.
//!
//! Each range is a watch of its own, which goes on where it stopped: every event is delivered,
//! some twice. etcd's notice of progress moves a quiet range's place on, so that a compaction of
//! what it has seen long ago does not end it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Code;

use super::watch::{Step, Watch};
use crate::source::live::Live;
use crate::source::live::connection::{self, CallError, Refusal, Session};
use crate::source::live::wire::kv::{PageInfo, RangeRequest};
use crate::source::live::wire::watch::events;
use crate::source::{EtcdError, KeyRange, Record, SourceError, Untrue};

/// Responses that wait for the caller.
const WAITING: usize = 16;
/// First pause before another try; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before another try.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Room for the answer to a count, bytes.
const COUNT_LIMIT: usize = 1 << 20;

/// What a watch reports.
#[derive(Debug)]
pub enum Notice {
    /// Keys changed.
    Changes(Changes),
    /// The connection is gone; it is being made anew. The error says why.
    Lost(SourceError),
    /// The connection is back.
    Back,
    /// Everything up to this revision was compacted before it was seen: only a new scan helps.
    Compacted(i64),
}

/// Writes and deletions that arrived together.
pub struct Changes(Bytes);

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl Changes {
    /// Calls `sink` for each, in the order of revisions.
    ///
    /// # Errors
    /// When the server's message is malformed.
    pub fn each(
        &self,
        mut sink: impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        for record in events(&self.0) {
            if sink(record.map_err(EtcdError::Malformed)?).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// A running watch; it ends when this value goes.
pub struct Watcher<'l> {
    live: &'l Live,
    receiver: mpsc::Receiver<Result<Notice, SourceError>>,
    /// One for each range.
    _tasks: JoinSet<()>,
}

impl Live {
    /// Watches `ranges` for what happens after `revision`.
    ///
    /// # Errors
    /// When the connection was closed.
    pub fn watch(&self, ranges: &[KeyRange], revision: i64) -> Result<Watcher<'_>, SourceError> {
        let runtime = self.runtime()?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let down = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for range in ranges {
            let one = One {
                session: Arc::clone(&self.session),
                range: range.clone(),
                next: revision + 1,
                sender: sender.clone(),
                down: Arc::clone(&down),
                lost: false,
            };
            tasks.spawn_on(one.run(), runtime.handle());
        }
        Ok(Watcher { live: self, receiver, _tasks: tasks })
    }
}

impl Watcher<'_> {
    /// The next notice, or `None` when there is none within `wait`.
    ///
    /// # Errors
    /// When the watch cannot go on, as when the user lost the right to read.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Notice>, SourceError> {
        let receiver = &mut self.receiver;
        let next = async { tokio::time::timeout(wait, receiver.recv()).await };
        match self.live.runtime()?.block_on(next) {
            Err(_) => Ok(None),
            Ok(Some(notice)) => notice.map(Some),
            Ok(None) => Err(EtcdError::WatchEnded.into()),
        }
    }
}

/// Why one connection's watch ended.
enum End {
    /// Nobody wants more.
    Unwanted,
    Compacted(i64),
    /// Another try may do better.
    Lost(CallError),
    /// The server refuses the watch, or breaks the protocol.
    Refused(EtcdError),
}

/// The watch of one range.
struct One {
    session: Arc<Session>,
    range: KeyRange,
    /// Everything before this revision has been seen.
    next: i64,
    sender: mpsc::Sender<Result<Notice, SourceError>>,
    /// Ranges without a connection.
    down: Arc<AtomicUsize>,
    /// This range is one of them.
    lost: bool,
}

impl One {
    async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            let mut failures = Vec::new();
            for index in self.session.order() {
                let before = self.next;
                let end = self.once(index, &mut failures).await;
                if self.next > before || !self.lost {
                    pause = PAUSE;
                }
                let last = match end {
                    End::Unwanted => return,
                    End::Compacted(revision) => Ok(Notice::Compacted(revision)),
                    End::Refused(e) => Err(e.into()),
                    End::Lost(e) if may_pass(&e) => {
                        failures.push((index, e));
                        continue;
                    }
                    End::Lost(e) => {
                        let refusal = Refusal { failures: vec![(index, e)] };
                        Err(connection::refusal(&self.session, &refusal).into())
                    }
                };
                // Whoever is gone needs no last word.
                let _ = self.sender.send(last).await;
                return;
            }
            if !self.lost {
                self.lost = true;
                // One notice for all ranges.
                if self.down.fetch_add(1, Ordering::Relaxed) == 0 {
                    let why = connection::refusal(&self.session, &Refusal { failures });
                    if self.sender.send(Ok(Notice::Lost(why.into()))).await.is_err() {
                        return;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Watches at one member until that ends.
    async fn once(&mut self, index: usize, failures: &mut Vec<(usize, CallError)>) -> End {
        let wait = self.session.command_timeout;
        let mut watch = Watch::new(&self.session, index, self.range.clone(), true, wait);
        // A watch that is accepted says so at once; then it may be silent for hours.
        if let Err(e) = watch.begin(self.next).await {
            return End::Lost(e);
        }
        let mut running = false;
        loop {
            let (message, step) = match watch.next(None).await {
                Ok(next) => next,
                Err(e) => return End::Lost(e),
            };
            match step {
                Step::Compacted(revision) => return End::Compacted(revision),
                // A token that expires meanwhile is renewed by the next beginning.
                Step::Canceled(EtcdError::WatchCanceled { denied: true, .. }) if running => {
                    return Box::pin(self.once(index, failures)).await;
                }
                Step::Canceled(e) | Step::Malformed(e) => return End::Refused(e),
                Step::Events { .. } | Step::Quiet { .. } => {}
            }
            if !running {
                running = true;
                self.session.prefer(index);
                failures.clear();
                if !self.back().await {
                    return End::Unwanted;
                }
            }
            match step {
                // This member may be behind the others, but all of them are not.
                Step::Quiet { created: true, revision } if revision + 1 < self.next => {
                    if let Err(e) = self.has_come_to(index, self.next - 1).await {
                        return End::Lost(e);
                    }
                }
                Step::Events { newest, whole } => {
                    if self.sender.send(Ok(Notice::Changes(Changes(message)))).await.is_err() {
                        return End::Unwanted;
                    }
                    // A revision that came in part is asked for again.
                    self.next = if whole { newest + 1 } else { newest };
                }
                Step::Quiet { created: false, revision } if revision >= self.next => {
                    // Progress: all events up to here have been sent.
                    self.next = revision + 1;
                }
                _ => {}
            }
        }
    }

    /// Whether the store of which this is a member still has this revision: it was seen there. A
    /// cluster that was restored from a backup has not.
    async fn has_come_to(&self, index: usize, before: i64) -> Result<(), CallError> {
        let mut request = RangeRequest::new(&self.range, 0);
        request.count_only = true;
        let page = self.session.range_at(index, request, COUNT_LIMIT).await?;
        let now = PageInfo::read(&page).map_err(CallError::Malformed)?.revision;
        if now < before {
            return Err(CallError::Untrue(Box::new(Untrue::WentBack { before, now })));
        }
        Ok(())
    }

    /// Says that the connection is back, if it was gone and no other range waits for its own.
    /// False when nobody wants to hear it.
    async fn back(&mut self) -> bool {
        if !std::mem::take(&mut self.lost) {
            return true;
        }
        self.down.fetch_sub(1, Ordering::Relaxed) != 1
            || self.sender.send(Ok(Notice::Back)).await.is_ok()
    }
}

/// Whether trying again may help: a server may end a watch for many reasons of its own.
fn may_pass(error: &CallError) -> bool {
    match error {
        CallError::Status(status) => !matches!(
            status.code(),
            Code::Unauthenticated
                | Code::PermissionDenied
                | Code::InvalidArgument
                | Code::FailedPrecondition
                | Code::Unimplemented
        ),
        error => error.is_passing(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::live::wire::watch::Frame;

    #[test]
    fn frames_and_events_are_read() {
        // header { revision: 9 }, fragment, a put of "a" at 8, a deletion of "b" at 9.
        let message = [
            &[0x0a, 2, 0x18, 9, 0x38, 1][..],
            &[0x5a, 10, 0x12, 8, 0x0a, 1, b'a', 0x18, 8, 0x2a, 1, b'v'],
            &[0x5a, 9, 0x08, 1, 0x12, 5, 0x0a, 1, b'b', 0x18, 9],
        ]
        .concat();
        let frame = Frame::read(&message).unwrap();
        assert_eq!(frame, Frame { revision: 9, fragment: true, newest: 9, ..Frame::default() });
        let mut seen = Vec::new();
        let changes = Changes(message.clone().into());
        changes
            .each(|record| {
                seen.push(match record {
                    Record::Put(e) => (e.key.to_vec(), e.mod_revision, Some(e.stored().to_vec())),
                    Record::Delete { key, revision } => (key.to_vec(), revision, None),
                });
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, [(b"a".to_vec(), 8, Some(b"v".to_vec())), (b"b".to_vec(), 9, None)]);
        assert_eq!(format!("{changes:?}"), format!("<{} bytes>", message.len()));
        assert!(Frame::read(&message[..message.len() - 1]).is_err());
        assert!(Frame::read(&[0x5a, 0]).is_err(), "an event without a key");
    }
}

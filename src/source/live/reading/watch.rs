//! A watch at one member: begun with a token that the server takes, and read step by step.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming};

use crate::source::live::connection::{CallError, Session};
use crate::source::live::wire::Header;
use crate::source::live::wire::guaranteed::{Flaw, Watched};
use crate::source::live::wire::watch::{Frame, WATCH, canceled, create};
use crate::source::{EtcdError, KeyRange};

/// How long the server may prepare what it sends: it reads the whole history before the first
/// event. That the connection is alive, keepalive probes tell.
pub(super) const PREPARATION: Duration = Duration::from_mins(2);

/// What one response says.
pub(super) enum Step {
    /// Everything up to this revision was compacted before it was seen.
    Compacted(i64),
    /// The server refuses the watch.
    Canceled(EtcdError),
    /// The response breaks the protocol.
    Malformed(EtcdError),
    /// There are events, up to this revision, of which the last may go on in the next response.
    Events {
        /// Revision of the last event.
        newest: i64,
        /// The last revision is in there as a whole.
        whole: bool,
    },
    /// There are none.
    Quiet {
        /// The store's revision.
        revision: i64,
        /// The watch was accepted; else this is progress: all events up to `revision` were sent.
        created: bool,
    },
}

/// A watch at one member.
pub(super) struct Watch {
    session: Arc<Session>,
    pub index: usize,
    range: KeyRange,
    progress: bool,
    /// How long the server may take to accept it.
    wait: Duration,
    messages: Option<Streaming<Bytes>>,
    /// What it has told.
    watched: Watched,
    /// The first response, when it was looked at before its turn.
    first: Option<Bytes>,
}

impl Watch {
    /// A watch of `range`, not begun; with `progress` the server tells now and then how far it is.
    pub fn new(
        session: &Arc<Session>,
        index: usize,
        range: KeyRange,
        progress: bool,
        wait: Duration,
    ) -> Self {
        let session = Arc::clone(session);
        let watched = Watched::new(range.clone(), 0);
        Self { session, index, range, progress, wait, messages: None, watched, first: None }
    }

    /// Watches from this revision on. A server refuses an expired token as it does a user who may
    /// not read, so one is answered with a new token, once.
    pub async fn begin(&mut self, from: i64) -> Result<(), CallError> {
        let mut renewed = false;
        self.watched = Watched::new(self.range.clone(), from);
        loop {
            let body = Bytes::from(create(&self.range, from, self.progress));
            // The request side stays open as long as the responses are read.
            let requests = tokio_stream::iter([body]).chain(tokio_stream::pending());
            self.messages = Some(self.session.watch(self.index, WATCH, requests).await?);
            let first = self.message(Some(self.wait)).await?;
            let denied = Frame::read(&first).is_ok_and(|frame| frame.is_denied());
            if denied && !renewed && self.session.renew_token(self.index).await? {
                renewed = true;
                continue;
            }
            self.first = Some(first);
            return Ok(());
        }
    }

    /// The next response and what it says; without `wait` it may take for ever.
    pub async fn next(&mut self, wait: Option<Duration>) -> Result<(Bytes, Step), CallError> {
        let message = match self.first.take() {
            Some(first) => first,
            None => self.message(wait).await?,
        };
        let frame = Frame::read(&message);
        if let Ok(frame) = &frame {
            hear(&self.session, self.index, frame)?;
            self.watched.next(frame, &message)?;
        }
        let step = match frame {
            Err(e) => Step::Malformed(e.into()),
            Ok(frame) if frame.compact_revision > 0 => Step::Compacted(frame.compact_revision),
            Ok(frame) if frame.canceled => {
                let all_keys = self.range.start.is_empty() && self.range.end.is_none();
                Step::Canceled(canceled(&frame, all_keys))
            }
            Ok(frame) if frame.newest > 0 => {
                Step::Events { newest: frame.newest, whole: !frame.fragment }
            }
            Ok(frame) => Step::Quiet { revision: frame.revision, created: frame.created },
        };
        Ok((message, step))
    }

    async fn message(&mut self, wait: Option<Duration>) -> Result<Bytes, CallError> {
        let ended = || Box::new(Status::unavailable("the server ended the watch"));
        let Some(messages) = &mut self.messages else { return Err(CallError::Status(ended())) };
        let message = match wait {
            None => messages.message().await,
            Some(wait) => tokio::time::timeout(wait, messages.message())
                .await
                .map_err(|_| CallError::Timeout(wait))?,
        };
        match message {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(CallError::Status(ended())),
            Err(status) => Err(CallError::Status(Box::new(status))),
        }
    }
}

/// Takes note of what a response says of the member's cluster.
pub(super) fn hear(session: &Session, index: usize, frame: &Frame<'_>) -> Result<(), Flaw> {
    match frame.cluster {
        // A proxy's own response.
        0 => Ok(()),
        cluster => Ok(session.hear(index, Header { cluster, revision: frame.revision })?),
    }
}

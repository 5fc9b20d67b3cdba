//! Messages of a bucket.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::StreamExt as _;

use super::State;
use super::format::{Message, Unread};
use super::reach::{Link, failed, requested};
use crate::source::kine::server::{AHEAD, BYTES, GOODBYE, ROWS, Raw, Target};
use crate::source::{DatastoreError, Query};

/// How long the server keeps a reader that nobody asks any more, where it was not told to drop it.
const ABANDONED: Duration = Duration::from_secs(30);
/// How long one request for messages is good.
const REQUEST: Duration = Duration::from_secs(30);
/// How often the server says that it is there while it has nothing to send.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Messages that are asked for at once.
const MESSAGES: usize = 1000;
/// Bytes that are asked for at once: not less than the largest message.
const AT_ONCE: usize = 4 << 20;

/// A read.
pub(super) struct Within<'s> {
    pub runtime: &'s Runtime,
    pub target: &'s Arc<Target>,
    pub link: &'s Arc<Link>,
    pub state: State,
}

/// What is read.
#[derive(Clone)]
pub(super) struct Wanted {
    /// Of which keys.
    pub query: Query,
    /// Up to which sequence.
    pub to: i64,
    /// Values too.
    pub values: bool,
    /// These messages alone.
    pub only: Option<Arc<HashSet<i64>>>,
    /// How many messages there were when the read began: where some of them are gone, those that
    /// have come since then are read too.
    pub messages: Option<u64>,
}

/// A message that was read.
#[derive(Clone)]
pub(super) enum Item {
    /// A row, and whether it is the bucket's own mark of a deletion.
    Row(Raw, bool),
    /// None, by its sequence.
    Unread(i64, Unread),
}

impl Wanted {
    /// The message, if it is wanted.
    fn take(&self, message: &Message<'_>) -> Option<Item> {
        if self.only.as_ref().is_some_and(|only| !only.contains(&message.sequence)) {
            return None;
        }
        let unread = |why| Some(Item::Unread(message.sequence, why));
        let name = match message.key() {
            Ok(name) => name,
            Err(why) => return unread(why),
        };
        if !self.query.wants(&name) {
            return None;
        }
        match message.row(name, self.values) {
            Ok(row) => Some(Item::Row(row, message.is_mark)),
            Err(why) => unread(why),
        }
    }
}

impl Within<'_> {
    /// Calls `each` for messages in the order of the stream, until it breaks.
    pub fn read(
        &self,
        wanted: Wanted,
        each: &mut dyn FnMut(Item) -> ControlFlow<()>,
    ) -> Result<(), DatastoreError> {
        let (send, mut receive) = mpsc::channel(AHEAD);
        let (target, link) = (Arc::clone(self.target), Arc::clone(self.link));
        let task = self.runtime.spawn(async move {
            let read = stream(&link, &target, &wanted, &send);
            link.allowed(&target, read).await
        });
        let silence = self.target.silence;
        loop {
            let part = self
                .runtime
                .block_on(async { tokio::time::timeout(silence, receive.recv()).await });
            match part {
                Ok(Some(items)) => {
                    if items.into_iter().any(|item| each(item).is_break()) {
                        // It notices, and drops what the server keeps for it.
                        drop(receive);
                        let ended = async { tokio::time::timeout(GOODBYE, task).await };
                        let _ = self.runtime.block_on(ended);
                        return Ok(());
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    task.abort();
                    let at = self.target.at.clone();
                    return Err(DatastoreError::Silent { at, within: silence });
                }
            }
        }
        self.runtime.block_on(task).map_err(|_| self.target.lost())?
    }
}

/// Sends messages as they come.
async fn stream(
    link: &Link,
    target: &Target,
    wanted: &Wanted,
    send: &Sender<Vec<Item>>,
) -> Result<(), DatastoreError> {
    // In memory, without a name that would keep it, without acknowledgements: it goes with whoever
    // reads. It is all that is made on the server.
    let config = pull::Config {
        description: Some("atrest reads kine's bucket".to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::None,
        inactive_threshold: ABANDONED,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let mut consumer: PullConsumer =
        link.stream.create_consumer(config).await.map_err(|e| requested(target, &e))?;
    let read = messages(&mut consumer, link, target, wanted, send).await;
    let name = consumer.cached_info().name.clone();
    // The server drops it by itself if this does not reach it.
    let _ = tokio::time::timeout(GOODBYE, link.stream.delete_consumer(&name)).await;
    read
}

async fn messages(
    consumer: &mut PullConsumer,
    link: &Link,
    target: &Target,
    wanted: &Wanted,
    send: &Sender<Vec<Item>>,
) -> Result<(), DatastoreError> {
    if consumer.cached_info().num_pending == 0 {
        return Ok(());
    }
    let mut all = consumer
        .stream()
        .max_messages_per_batch(MESSAGES)
        .max_bytes_per_batch(AT_ONCE.max(2 * link.payload()))
        .expires(REQUEST)
        .heartbeat(HEARTBEAT)
        .messages()
        .await
        .map_err(|e| requested(target, &e))?;
    let mut parts = Parts { send, items: Vec::new(), bytes: 0 };
    let (mut seen, mut delivered) = (0, 0);
    while let Some(message) = all.next().await {
        let message = message.map_err(|e| failed(target, &e))?;
        let info = message.info().map_err(|e| failed(target, &*e))?;
        // One that was lost on the way would not be missed otherwise.
        delivered += 1;
        if info.consumer_sequence != delivered {
            return Err(target.lost());
        }
        let body = &message.payload;
        let read =
            link.read(info.stream_sequence, &message.subject, message.headers.as_ref(), body);
        let within = read.sequence <= wanted.to;
        seen += u64::from(within);
        if (within || wanted.messages.is_some())
            && let Some(item) = wanted.take(&read)
            && !parts.add(item, body.len()).await
        {
            return Ok(());
        }
        let complete = wanted.messages.is_none_or(|messages| seen >= messages);
        if info.pending == 0 || (complete && read.sequence >= wanted.to) {
            parts.finish().await;
            return Ok(());
        }
    }
    Err(target.lost())
}

/// Hands items on in parts.
struct Parts<'s> {
    send: &'s Sender<Vec<Item>>,
    items: Vec<Item>,
    bytes: usize,
}

impl Parts<'_> {
    /// Whether anybody still wants them.
    async fn add(&mut self, item: Item, bytes: usize) -> bool {
        self.bytes += bytes;
        self.items.push(item);
        (self.items.len() < ROWS && self.bytes < BYTES) || self.finish().await
    }

    async fn finish(&mut self) -> bool {
        self.bytes = 0;
        let items = std::mem::take(&mut self.items);
        items.is_empty() || self.send.send(items).await.is_ok()
    }
}

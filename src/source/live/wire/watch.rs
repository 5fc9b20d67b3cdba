//! Watches: the request, and what is sent.

use prost::Message as _;

use super::Header;
use super::kv::RangeRequest;
use super::said::{Said, plain};
use crate::mvcc::key_value;
use crate::proto::{Fields, Malformed};
use crate::source::{EtcdError, KeyRange, Record};

/// The method of watches.
pub(in crate::source::live) const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// `etcdserverpb.WatchCreateRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Create {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    start_revision: i64,
    #[prost(bool, tag = "4")]
    progress_notify: bool,
    #[prost(bool, tag = "8")]
    fragment: bool,
}

/// `etcdserverpb.WatchRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Request {
    #[prost(message, optional, tag = "1")]
    create: Option<Create>,
    /// Asks how far the watches of the stream are.
    #[prost(message, optional, tag = "3")]
    progress: Option<()>,
}

/// The request for what happens in `range` from revision `from` on. Events of one revision may
/// come in several responses. With `notify` the server tells how far the watch is while nothing
/// happens.
pub(in crate::source::live) fn create(range: &KeyRange, from: i64, notify: bool) -> Vec<u8> {
    let RangeRequest { key, range_end, .. } = RangeRequest::new(range, 0);
    let create =
        Create { key, range_end, start_revision: from, progress_notify: notify, fragment: true };
    Request { create: Some(create), progress: None }.encode_to_vec()
}

/// The question how far the watches of the stream are.
pub(in crate::source::live) fn progress() -> Vec<u8> {
    Request { create: None, progress: Some(()) }.encode_to_vec()
}

/// What an `etcdserverpb.WatchResponse` says besides its events.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::source::live) struct Frame<'a> {
    /// The cluster that the member belongs to; 0 where a proxy answers for it (etcd
    /// `server/proxy/grpcproxy/watch_broadcast.go`).
    pub cluster: u64,
    /// The store's revision.
    pub revision: i64,
    /// Which watch of the stream.
    pub id: i64,
    pub created: bool,
    pub canceled: bool,
    pub compact_revision: i64,
    pub cancel_reason: &'a [u8],
    /// The last revision goes on in the next response.
    pub fragment: bool,
    /// Revision of the last event; 0 without any.
    pub newest: i64,
}

impl<'a> Frame<'a> {
    pub fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut frame = Self::default();
        for field in Fields::new(message) {
            let field = field?;
            let flag = || field.varint().is_some_and(|v| v != 0);
            match field.number {
                1 => {
                    let header = Header::read(field)?;
                    (frame.cluster, frame.revision) = (header.cluster, header.revision);
                }
                2 => frame.id = field.int64().unwrap_or_default(),
                3 => frame.created = flag(),
                4 => frame.canceled = flag(),
                5 => frame.compact_revision = field.int64().unwrap_or_default(),
                6 => frame.cancel_reason = field.bytes().unwrap_or_default(),
                7 => frame.fragment = flag(),
                11 => {
                    let event = event(field.bytes().unwrap_or_default())?;
                    frame.newest = frame.newest.max(revision(&event));
                }
                _ => {}
            }
        }
        Ok(frame)
    }

    /// Whether the user may not watch, or the token has expired: etcd says the same of both
    /// (etcd `server/etcdserver/api/v3rpc/watch.go`: `isWatchPermitted`).
    pub fn is_denied(&self) -> bool {
        self.canceled
            && Said::of_watch(&String::from_utf8_lossy(self.cancel_reason)) == Said::Denied
    }
}

/// `mvccpb.Event` (etcd `api/mvccpb/kv.proto`).
pub(in crate::source::live) fn event(message: &[u8]) -> Result<Record<'_>, Malformed> {
    let (mut deleted, mut kv) = (false, None);
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => deleted = field.varint() == Some(1),
            2 => kv = field.bytes(),
            _ => {}
        }
    }
    let entry = key_value(kv.ok_or(Malformed { offset: 0 })?)?;
    Ok(if deleted {
        Record::Delete { key: entry.key, revision: entry.mod_revision }
    } else {
        Record::Put(entry)
    })
}

/// The revision of a write or deletion.
pub(in crate::source::live) fn revision(record: &Record<'_>) -> i64 {
    match record {
        Record::Put(entry) => entry.mod_revision,
        Record::Delete { revision, .. } => *revision,
    }
}

/// The events of a `WatchResponse`, in their order.
pub(in crate::source::live) fn events(
    message: &[u8],
) -> impl Iterator<Item = Result<Record<'_>, Malformed>> {
    Fields::new(message).filter_map(|field| match field {
        Ok(field) if field.number == 11 => Some(event(field.bytes().unwrap_or_default())),
        Ok(_) => None,
        Err(e) => Some(Err(e)),
    })
}

/// Why the server ended a watch, of all keys or some.
pub(in crate::source::live) fn canceled(frame: &Frame<'_>, all_keys: bool) -> EtcdError {
    let reason = String::from_utf8_lossy(frame.cancel_reason);
    EtcdError::WatchCanceled {
        reason: plain(&reason).to_owned(),
        denied: frame.is_denied(),
        all_keys,
    }
}

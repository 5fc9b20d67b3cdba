//! What a watch sends.

use super::said::{Said, plain};
use super::wire;
use crate::mvcc::key_value;
use crate::proto::{Fields, Malformed};
use crate::source::{EtcdError, Record};

/// What an `etcdserverpb.WatchResponse` says besides its events.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// The store's revision.
    pub revision: i64,
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
                1 => frame.revision = wire::header_revision(field)?,
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
}

/// `mvccpb.Event` (etcd `api/mvccpb/kv.proto`).
pub(super) fn event(message: &[u8]) -> Result<Record<'_>, Malformed> {
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
pub(super) fn revision(record: &Record<'_>) -> i64 {
    match record {
        Record::Put(entry) => entry.mod_revision,
        Record::Delete { revision, .. } => *revision,
    }
}

/// The events of a `WatchResponse`, in their order.
pub(super) fn events(message: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Malformed>> {
    Fields::new(message).filter_map(|field| match field {
        Ok(field) if field.number == 11 => Some(event(field.bytes().unwrap_or_default())),
        Ok(_) => None,
        Err(e) => Some(Err(e)),
    })
}

/// Why the server ended a watch, of all keys or some.
pub(super) fn canceled(reason: &[u8], all_keys: bool) -> EtcdError {
    let reason = String::from_utf8_lossy(reason);
    let denied = Said::of_watch(&reason) == Said::Denied;
    EtcdError::WatchCanceled { reason: plain(&reason).to_owned(), denied, all_keys }
}

//! Frames: a length, a record, padding to eight bytes.

use crate::proto::Fields;

pub(super) const METADATA: u64 = 1;
pub(super) const ENTRY: u64 = 2;
pub(super) const STATE: u64 = 3;
pub(super) const CRC: u64 = 4;
pub(super) const SNAPSHOT: u64 = 5;

/// Bytes of the length field.
const LENGTH: usize = 8;
/// Disks write sectors of this size whole or not at all, bytes.
const SECTOR: usize = 512;

/// No request that etcd takes makes a record this long, unless `--max-request-bytes` is far above
/// its default. A broken frame of such a length was damaged, not cut short by a crash: etcd before
/// 3.5.5 does not start on it (`maxWALEntrySizeLimit`), later ones drop it and all that follows.
/// Bytes.
const IMPLAUSIBLE: u64 = 10 * 1024 * 1024;

/// A frame whose bounds hold.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    /// Offset of the length field, bytes.
    pub(super) offset: usize,
    /// The record's bytes.
    bytes: &'a [u8],
}

/// `walpb.Record`.
pub(super) struct Record<'a> {
    pub(super) kind: u64,
    pub(super) crc: u32,
    pub(super) data: &'a [u8],
}

/// A frame that runs over the end.
pub(super) struct Bad {
    pub(super) offset: usize,
    pub(super) what: String,
    /// It can be the beginning of a write that a crash cut short.
    pub(super) at_end: bool,
}

impl<'a> Frame<'a> {
    pub(super) fn record(&self) -> Result<Record<'a>, String> {
        let mut record = Record { kind: 0, crc: 0, data: &[] };
        for field in Fields::new(self.bytes) {
            let malformed = || "a record cannot be decoded".to_owned();
            let field = field.map_err(|_| malformed())?;
            match field.number {
                1 => record.kind = field.varint().ok_or_else(malformed)?,
                2 => {
                    // Bits beyond the 32 are dropped, as by etcd: they say nothing.
                    let crc = field.varint().ok_or_else(malformed)? & u64::from(u32::MAX);
                    record.crc = u32::try_from(crc).map_err(|_| malformed())?;
                }
                3 => record.data = field.bytes().ok_or_else(malformed)?,
                _ => {}
            }
        }
        Ok(record)
    }

    /// Whether a crash during its writing explains a broken record: one of the sectors it spans
    /// is still zero (etcd `server/storage/wal/decoder.go`: `isTornEntry`).
    pub(super) fn is_torn(&self) -> bool {
        if self.bytes.len() as u64 >= IMPLAUSIBLE {
            return false;
        }
        let mut at = self.offset + LENGTH;
        let mut rest = self.bytes;
        while !rest.is_empty() {
            let take = (SECTOR - at % SECTOR).min(rest.len());
            let (chunk, others) = rest.split_at(take);
            if chunk.iter().all(|b| *b == 0) {
                return true;
            }
            rest = others;
            at += take;
        }
        false
    }
}

/// The frames of one segment.
pub(super) struct Frames<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    pub(super) fn next(&mut self) -> Option<Result<Frame<'a>, Bad>> {
        let offset = self.at;
        let rest = self.data.get(offset..)?;
        if rest.is_empty() {
            return None;
        }
        let Some(length) = rest.first_chunk::<LENGTH>() else {
            self.at = self.data.len();
            if rest.iter().all(|b| *b == 0) {
                return None;
            }
            let what = "the log ends inside a length field".into();
            return Some(Err(Bad { offset, what, at_end: true }));
        };
        let length = u64::from_le_bytes(*length);
        if length == 0 {
            // Preallocated space.
            self.at = self.data.len();
            return None;
        }
        // The top byte is 0x80 | padding where there is padding.
        let padding = if length >> 63 == 1 { (length >> 56) & 7 } else { 0 };
        let record = length & ((1 << 56) - 1);
        let start = offset + LENGTH;
        let end = usize::try_from(record).ok().and_then(|n| start.checked_add(n));
        let Some(bytes) = end.and_then(|end| self.data.get(start..end)) else {
            self.at = self.data.len();
            let what = "a frame runs over the end of the segment".into();
            return Some(Err(Bad { offset, what, at_end: record < IMPLAUSIBLE }));
        };
        // At most seven; a file may end without the padding.
        self.at = (start + bytes.len()).saturating_add(usize::try_from(padding).unwrap_or(0));
        Some(Ok(Frame { offset, bytes }))
    }
}

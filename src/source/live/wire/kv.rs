//! Range requests and their pages, which are read in place, without a copy of every value.

use super::Header;
use crate::entry::EntryRef;
use crate::mvcc::key_value;
use crate::proto::{Fields, Malformed};
use crate::source::KeyRange;

/// The method of range requests.
pub(in crate::source::live) const RANGE: &str = "/etcdserverpb.KV/Range";

/// `etcdserverpb.RangeRequest` (etcd `api/etcdserverpb/rpc.proto`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub limit: i64,
    #[prost(int64, tag = "4")]
    pub revision: i64,
    #[prost(bool, tag = "7")]
    pub serializable: bool,
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
    #[prost(bool, tag = "9")]
    pub count_only: bool,
}

impl RangeRequest {
    /// All of `range` at `revision`, 0 for the newest.
    pub fn new(range: &KeyRange, revision: i64) -> Self {
        // An empty key is an error to etcd; its first key is one zero byte.
        let key = if range.start.is_empty() { vec![0] } else { range.start.clone() };
        let range_end = range.end.clone().unwrap_or_else(|| vec![0]);
        Self { key, range_end, revision, ..Self::default() }
    }

    /// Whether a key is one of those that are asked for.
    pub fn holds(&self, key: &[u8]) -> bool {
        match self.range_end.as_slice() {
            [] => key == self.key,
            [0] => key >= self.key.as_slice(),
            end => key >= self.key.as_slice() && key < end,
        }
    }
}

/// What an `etcdserverpb.RangeResponse` says besides its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::source::live) struct PageInfo {
    /// The store's revision, also where the request named an older one.
    pub revision: i64,
    /// Entries remain after the limit.
    pub more: bool,
    /// Keys in the range, whatever the limit.
    pub count: i64,
    /// Entries in the page.
    pub entries: usize,
    /// The page's first key.
    pub first: Option<Vec<u8>>,
    /// The page's last key.
    pub last: Option<Vec<u8>>,
}

impl PageInfo {
    /// Reads the frame of a response without its entries.
    pub fn read(message: &[u8]) -> Result<Self, Malformed> {
        let mut info = Self::default();
        let (mut first, mut last) = (None, None);
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => info.revision = Header::read(field)?.revision,
                2 => {
                    info.entries += 1;
                    first = first.or(field.bytes());
                    last = field.bytes();
                }
                3 => info.more = field.varint().is_some_and(|v| v != 0),
                4 => info.count = field.int64().unwrap_or_default(),
                _ => {}
            }
        }
        let key =
            |kv: Option<&[u8]>| kv.map(|kv| key_value(kv).map(|e| e.key.to_vec())).transpose();
        info.first = key(first)?;
        info.last = key(last)?;
        Ok(info)
    }
}

/// The entries of an `etcdserverpb.RangeResponse`.
pub(in crate::source::live) fn entries(
    message: &[u8],
) -> impl Iterator<Item = Result<EntryRef<'_>, Malformed>> {
    Fields::new(message).filter_map(|field| match field {
        Ok(field) if field.number == 2 => Some(key_value(field.bytes().unwrap_or_default())),
        Ok(_) => None,
        Err(e) => Some(Err(e)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_in_place() {
        let kv = [&[0x0a, 2][..], b"/a", &[0x10, 3, 0x18, 4, 0x20, 1, 0x2a, 1], b"v"].concat();
        let mut page = vec![0x0a, 2, 0x18, 9, 0x12, u8::try_from(kv.len()).unwrap()];
        page.extend_from_slice(&kv);
        page.extend_from_slice(&[0x18, 1, 0x20, 7]);
        let info = PageInfo::read(&page).unwrap();
        let key = || Some(b"/a".to_vec());
        let (first, last) = (key(), key());
        assert_eq!(info, PageInfo { revision: 9, more: true, count: 7, entries: 1, first, last });
        let seen: Vec<_> = entries(&page).map(|e| e.unwrap().to_entry()).collect();
        assert_eq!((seen[0].create_revision, seen[0].mod_revision, seen[0].version), (3, 4, 1));
        assert_eq!(seen[0].value, b"v");
        page.truncate(10);
        assert!(PageInfo::read(&page).is_err());
        assert!(entries(&page).last().unwrap().is_err());
    }

    #[test]
    fn ranges_without_bounds_are_written_as_etcd_reads_them() {
        let all = RangeRequest::new(&KeyRange { start: Vec::new(), end: None }, 0);
        assert_eq!((all.key, all.range_end), (vec![0], vec![0]));
    }
}

//! What etcd guarantees of the entries and events that it sends.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use super::kv::{RangeRequest, entries};
use super::watch::{Frame, events, revision};
use super::{Header, header};
use crate::entry::EntryRef;
use crate::proto::{Fields, Malformed};
use crate::source::{KeyRange, Record, Untrue};

/// Why an answer is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::live) enum Flaw {
    Malformed(Malformed),
    Untrue(Untrue),
}

impl From<Malformed> for Flaw {
    fn from(e: Malformed) -> Self {
        Self::Malformed(e)
    }
}

impl From<Untrue> for Flaw {
    fn from(e: Untrue) -> Self {
        Self::Untrue(e)
    }
}

/// Checks an `etcdserverpb.RangeResponse` against its request.
pub(in crate::source::live) fn page(request: &RangeRequest, message: &[u8]) -> Result<(), Flaw> {
    let Header { revision, .. } = header(message)?;
    // The store's own revision, also where the request names an older one (etcd
    // `server/storage/mvcc/kvstore_txn.go`: `rangeKeys`).
    if revision < 1 {
        return Err(Untrue::Revision(revision).into());
    }
    if revision < request.revision {
        return Err(Untrue::WentBack { before: request.revision, now: revision }.into());
    }
    let at = if request.revision > 0 { request.revision } else { revision };
    let (mut more, mut counted) = (false, 0);
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            3 => more = field.varint().is_some_and(|v| v != 0),
            4 => counted = field.int64().unwrap_or_default(),
            _ => {}
        }
    }
    let mut before: Option<&[u8]> = None;
    let mut sent = 0u64;
    for entry in entries(message) {
        let entry = entry?;
        sent += 1;
        match before {
            Some(last) if entry.key == last => return Err(Untrue::Repeated(last.to_vec()).into()),
            Some(last) if entry.key < last => {
                let (before, key) = (last.to_vec(), entry.key.to_vec());
                return Err(Untrue::Order { before, key }.into());
            }
            _ => {}
        }
        if !request.holds(entry.key) {
            return Err(Untrue::OutOfRange(entry.key.to_vec()).into());
        }
        written(&entry, at)?;
        before = Some(entry.key);
    }
    if more && sent == 0 {
        return Err(Untrue::More.into());
    }
    if request.limit > 0 && i64::try_from(sent).is_ok_and(|sent| sent > request.limit) {
        return Err(Untrue::Limit { sent, limit: request.limit }.into());
    }
    if u64::try_from(counted).map_or(true, |counted| counted < sent) {
        return Err(Untrue::Count { counted, sent }.into());
    }
    Ok(())
}

/// Checks the revisions of an entry that is read at `at`.
fn written(entry: &EntryRef<'_>, at: i64) -> Result<(), Untrue> {
    if entry.mod_revision > at {
        let (key, mod_revision) = (entry.key.to_vec(), entry.mod_revision);
        return Err(Untrue::Newer { key, mod_revision, at });
    }
    if entry.create_revision > entry.mod_revision || entry.mod_revision < 1 {
        return Err(Untrue::Created {
            key: entry.key.to_vec(),
            created: entry.create_revision,
            written: entry.mod_revision,
        });
    }
    Ok(())
}

/// Checks what a watch tells, one response after the other.
#[derive(Debug)]
pub(in crate::source::live) struct Watched {
    range: KeyRange,
    /// Where it began.
    from: i64,
    /// Revision of the newest event, one less than `from` before the first.
    at: i64,
    /// What that revision did to which keys, as hashes: it may have changed all of them.
    keys: HashSet<u64>,
    hash: RandomState,
}

impl Watched {
    /// A watch of `range` from revision `from` on.
    pub fn new(range: KeyRange, from: i64) -> Self {
        Self { range, from, at: from - 1, keys: HashSet::new(), hash: RandomState::new() }
    }

    /// Checks the next response.
    pub fn next(&mut self, frame: &Frame<'_>, message: &[u8]) -> Result<(), Flaw> {
        let compacted = frame.compact_revision;
        // A watch is refused if it begins before the compaction (etcd
        // `server/storage/mvcc/watcher_group.go`: `chooseAll`).
        if compacted != 0 && compacted <= self.from {
            return Err(Untrue::Compacted { from: self.from, compacted }.into());
        }
        for record in events(message) {
            let record = record?;
            let (key, now) = match &record {
                Record::Put(entry) => (entry.key, entry.mod_revision),
                Record::Delete { key, revision } => (*key, *revision),
            };
            if !self.range.contains(key) {
                return Err(Untrue::OutOfRange(key.to_vec()).into());
            }
            if now < self.from || now < self.at {
                return Err(Untrue::Past { after: self.at, revision: now }.into());
            }
            if now > self.at {
                // Every revision has written or deleted something.
                if self.range.start.is_empty() && self.range.end.is_none() && now > self.at + 1 {
                    return Err(Untrue::Gap { before: self.at, after: now }.into());
                }
                self.at = now;
                self.keys.clear();
            }
            if !self.keys.insert(self.hash.hash_one(key)) {
                return Err(Untrue::Repeated(key.to_vec()).into());
            }
            match &record {
                Record::Put(entry) => written(entry, frame.revision)?,
                Record::Delete { .. } if revision(&record) > frame.revision => {
                    let (key, mod_revision) = (key.to_vec(), now);
                    return Err(Untrue::Newer { key, mod_revision, at: frame.revision }.into());
                }
                Record::Delete { .. } => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(mut n: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while n >= 0x80 {
            out.push(u8::try_from(n & 0x7F).unwrap() | 0x80);
            n >>= 7;
        }
        out.push(u8::try_from(n).unwrap());
        out
    }

    fn number(field: u8, n: i64) -> Vec<u8> {
        [vec![field << 3], varint(n.cast_unsigned())].concat()
    }

    fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
        [vec![field << 3 | 2], varint(content.len() as u64), content.to_vec()].concat()
    }

    fn kv(key: &str, created: i64, written: i64) -> Vec<u8> {
        [bytes(1, key.as_bytes()), number(2, created), number(3, written)].concat()
    }

    fn said(revision: i64, rest: &[Vec<u8>]) -> Vec<u8> {
        [bytes(1, &[number(1, 7), number(3, revision)].concat()), rest.concat()].concat()
    }

    #[test]
    fn pages_that_no_etcd_sends() {
        let range = KeyRange { start: b"/a".to_vec(), end: Some(b"/c".to_vec()) };
        let request = RangeRequest { limit: 2, ..RangeRequest::new(&range, 9) };
        let check = |revision, parts: &[Vec<u8>]| page(&request, &said(revision, parts));
        let entry = |key, created, written| bytes(2, &kv(key, created, written));
        let good = [entry("/a", 2, 9), entry("/b", 3, 3)];
        let with = |count| [&good[..], &[number(4, count)]].concat();
        assert_eq!(check(12, &with(2)), Ok(()));
        assert_eq!(check(12, &[with(5), vec![number(3, 1)]].concat()), Ok(()));
        let lie = |revision, parts: &[Vec<u8>]| match check(revision, parts) {
            Err(Flaw::Untrue(untrue)) => untrue,
            other => panic!("{other:?}"),
        };
        let key = |k: &str| k.as_bytes().to_vec();
        assert_eq!(lie(0, &with(2)), Untrue::Revision(0));
        assert_eq!(page(&request, &[]), Err(Untrue::Revision(0).into()));
        assert_eq!(lie(-3, &with(2)), Untrue::Revision(-3));
        assert_eq!(lie(8, &with(2)), Untrue::WentBack { before: 9, now: 8 });
        assert_eq!(lie(12, &with(1)), Untrue::Count { counted: 1, sent: 2 });
        assert_eq!(lie(12, &with(-2)), Untrue::Count { counted: -2, sent: 2 });
        assert_eq!(lie(12, &[number(3, 1), number(4, 9)]), Untrue::More);
        let twice = [entry("/a", 2, 2), entry("/a", 2, 2), number(4, 2)];
        assert_eq!(lie(12, &twice), Untrue::Repeated(key("/a")));
        let wrong = [entry("/b", 2, 2), entry("/a", 2, 2), number(4, 2)];
        assert_eq!(lie(12, &wrong), Untrue::Order { before: key("/b"), key: key("/a") });
        for outside in ["/", "/c", "/d"] {
            let parts = [entry(outside, 2, 2), number(4, 1)];
            assert_eq!(lie(12, &parts), Untrue::OutOfRange(key(outside)));
        }
        let newer = Untrue::Newer { key: key("/a"), mod_revision: 10, at: 9 };
        assert_eq!(lie(12, &[entry("/a", 2, 10), number(4, 1)]), newer);
        let created = Untrue::Created { key: key("/a"), created: 5, written: 4 };
        assert_eq!(lie(12, &[entry("/a", 5, 4), number(4, 1)]), created);
        let three = [entry("/a", 2, 2), entry("/a1", 2, 2), entry("/b", 2, 2), number(4, 3)];
        assert_eq!(lie(12, &three), Untrue::Limit { sent: 3, limit: 2 });
        assert!(matches!(check(12, &[vec![0x12, 9]]), Err(Flaw::Malformed(_))));
    }

    #[test]
    fn watches_that_no_etcd_sends() {
        let put = |key, written| bytes(11, &bytes(2, &kv(key, 2, written)));
        let gone = |key: &str, at| {
            let kv = [bytes(1, key.as_bytes()), number(3, at)].concat();
            bytes(11, &[number(1, 1), bytes(2, &kv)].concat())
        };
        let tell = |revision, parts: &[Vec<u8>]| {
            let mut watched = Watched::new(KeyRange::prefix(b"/a"), 5);
            let message = said(revision, parts);
            watched.next(&Frame::read(&message).unwrap(), &message)
        };
        let good = [put("/a1", 5), put("/a2", 5), gone("/a1", 6), put("/a1", 8)];
        assert_eq!(tell(8, &good), Ok(()));
        assert_eq!(tell(0, &[number(4, 1), number(5, 7)]), Ok(()));
        let lie = |revision, parts: &[Vec<u8>]| match tell(revision, parts) {
            Err(Flaw::Untrue(untrue)) => untrue,
            other => panic!("{other:?}"),
        };
        let key = |k: &str| k.as_bytes().to_vec();
        assert_eq!(lie(9, &[put("/b", 6)]), Untrue::OutOfRange(key("/b")));
        assert_eq!(lie(9, &[put("/a", 4)]), Untrue::Past { after: 4, revision: 4 });
        let back = [put("/a", 7), gone("/a", 6)];
        assert_eq!(lie(9, &back), Untrue::Past { after: 7, revision: 6 });
        assert_eq!(lie(9, &[put("/a", 7), put("/a", 7)]), Untrue::Repeated(key("/a")));
        let newer = Untrue::Newer { key: key("/a"), mod_revision: 10, at: 9 };
        assert_eq!(lie(9, &[put("/a", 10)]), newer);
        assert_eq!(lie(9, &[gone("/a", 10)]), newer);
        let compacted = Untrue::Compacted { from: 5, compacted: 5 };
        assert_eq!(lie(0, &[number(4, 1), number(5, 5)]), compacted);
        let mut all = Watched::new(KeyRange { start: Vec::new(), end: None }, 5);
        let mut next = |parts: &[Vec<u8>]| {
            let message = said(9, parts);
            all.next(&Frame::read(&message).unwrap(), &message)
        };
        assert_eq!(next(&[put("/a", 5), put("/b", 6)]), Ok(()));
        assert_eq!(next(&[put("/c", 6), put("/b", 7)]), Ok(()));
        assert_eq!(next(&[put("/c", 9)]), Err(Untrue::Gap { before: 7, after: 9 }.into()));
    }
}

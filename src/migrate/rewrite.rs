//! A whole snapshot → a new snapshot with other envelopes. Revisions, versions, leases and every
//! bucket but `key` stay as they were. Values that are stored unencrypted, or are to be, lie in the
//! new file as plaintext.

use std::io::{Seek, Write};
use std::ops::ControlFlow;

use crate::bolt::write::{WriteError, Writer};
use crate::bolt::{PageDamage, PageSet};
use crate::mvcc::{NotedRecord, Revision, State, Store, key_value, record_key};
use crate::proto::{Fields, Wire, put_varint};

/// Why a snapshot cannot be rewritten.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// Part of the input cannot be read, so the output would lack it.
    #[error("the input is damaged at page {}: {}", .0.page, .0.what)]
    Damaged(PageDamage),
    /// The output cannot be written.
    #[error("the new file cannot be written")]
    Write(#[from] WriteError),
    /// The input is no etcd database.
    #[error("the input has no bucket `key`")]
    NoKeys,
}

/// What became of a value.
pub enum Fate {
    /// It stays as it is.
    Keep,
    /// It gets another envelope.
    Replace(Vec<u8>),
    /// It should get another envelope, but cannot be read; it stays as it is.
    Unreadable(String),
}

/// Counts of a rewrite.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records in the new file, superseded revisions and deletions included.
    pub records: u64,
    /// Those of them that are writes and deletions of a key: what a reader of the history sees.
    /// The others are markers.
    pub events: u64,
    /// Records with another envelope than before.
    pub rewritten: u64,
    /// Records that were left out because they were superseded.
    pub dropped: u64,
    /// Values that could not be read: etcd key, revision, reason.
    pub unreadable: Vec<(Vec<u8>, i64, String)>,
}

/// Writes `store` anew. `decide` sees each value with its etcd key. With `drop_history` only
/// the live records remain, and the file says that it is compacted to its current revision.
///
/// # Errors
/// See [`RewriteError`]; the output is then incomplete and must be thrown away.
pub fn rewrite<W: Write + Seek>(
    store: &Store<'_>,
    out: W,
    drop_history: bool,
    decide: &mut dyn FnMut(&[u8], &[u8]) -> Fate,
) -> Result<(W, Counts), RewriteError> {
    if !store.has_keys() {
        return Err(RewriteError::NoKeys);
    }
    let db = store.db();
    let (newest, found) = store.records(&mut |_| {});
    refuse(&found)?;
    let mut writer = Writer::new(out, db.page_size())?;
    let mut counts = Counts::default();
    let mut damage = Vec::new();
    let mut seen = PageSet::default();
    for (name, bucket) in db.buckets(&mut seen, &mut damage) {
        let mut rows: Vec<(&[u8], &[u8])> = Vec::new();
        // The sink never breaks.
        let _ = db.walk(bucket, &mut seen, &mut damage, &mut |_, element| {
            rows.push((element.key, element.value));
            ControlFlow::Continue(())
        });
        refuse(&damage)?;
        let mut to = writer.bucket(name);
        if name == b"key" {
            let all = rows.len() as u64;
            if drop_history {
                rows = live_only(&rows);
            }
            counts.dropped = all - rows.len() as u64;
            for (key, record) in rows {
                let new = recrypt(key, record, &mut counts, decide);
                to.put(key, new.as_deref().unwrap_or(record))?;
                counts.records += 1;
                counts.events += u64::from(is_event(key, record));
            }
        } else if name == b"meta" && drop_history {
            // etcd takes the current revision from here when the newest record was a deletion.
            let compacted = revision_key(newest);
            let is_mark = |k: &[u8]| matches!(k, b"finishedCompactRev" | b"scheduledCompactRev");
            let mut rows: Vec<_> = rows.into_iter().filter(|(k, _)| !is_mark(k)).collect();
            rows.push((b"finishedCompactRev", &compacted));
            rows.push((b"scheduledCompactRev", &compacted));
            rows.sort_unstable();
            for (key, value) in rows {
                to.put(key, value)?;
            }
        } else {
            for (key, value) in rows {
                to.put(key, value)?;
            }
        }
        to.finish()?;
    }
    let txid = db.meta().txid;
    Ok((writer.finish(txid)?, counts))
}

fn refuse(damage: &[PageDamage]) -> Result<(), RewriteError> {
    damage.first().map_or(Ok(()), |first| Err(RewriteError::Damaged(first.clone())))
}

/// A revision as etcd stores it, sub revision 0.
fn revision_key(main: i64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[8] = b'_';
    key
}

/// The records that make up the newest state, in revision order. Records that are no data (the
/// marker of `snapshot restore --bump-revision`) stay.
fn live_only<'a>(rows: &[(&'a [u8], &'a [u8])]) -> Vec<(&'a [u8], &'a [u8])> {
    let mut state = State::new(rows.len());
    for &(key, record) in rows {
        if let (Some(revision), Some(etcd_key)) = (Revision::parse(key), record_key(record)) {
            state.apply(etcd_key, NotedRecord { revision, record, page: 0, note: () });
        }
    }
    let live: hashbrown::HashSet<_> =
        state.into_records(false).map(|held| (held.revision.main, held.revision.sub)).collect();
    let is_live = |key: &[u8]| {
        Revision::parse(key).is_none_or(|r| !r.tombstone && live.contains(&(r.main, r.sub)))
    };
    rows.iter().filter(|(key, _)| is_live(key)).copied().collect()
}

/// The record with another envelope, or `None` where it stays.
fn recrypt(
    key: &[u8],
    record: &[u8],
    counts: &mut Counts,
    decide: &mut dyn FnMut(&[u8], &[u8]) -> Fate,
) -> Option<Vec<u8>> {
    let revision = Revision::parse(key).filter(|r| !r.tombstone)?;
    let entry = key_value(record).ok().filter(|e| !e.key.is_empty())?;
    match decide(entry.key, entry.stored()) {
        Fate::Keep => None,
        Fate::Replace(value) => {
            counts.rewritten += 1;
            Some(with_value(record, &value))
        }
        Fate::Unreadable(reason) => {
            counts.unreadable.push((entry.key.to_vec(), revision.main, reason));
            None
        }
    }
}

/// Whether a record is a write or a deletion of some key.
fn is_event(key: &[u8], record: &[u8]) -> bool {
    Revision::parse(key).is_some() && key_value(record).is_ok_and(|e| !e.key.is_empty())
}

/// A `KeyValue` with another value; every other field stays byte for byte.
fn with_value(record: &[u8], value: &[u8]) -> Vec<u8> {
    const VALUE: u32 = 5;
    let mut out = Vec::with_capacity(record.len() + value.len());
    let put = |out: &mut Vec<u8>| {
        out.push(0x2A);
        put_varint(out, value.len() as u64);
        out.extend(value);
    };
    let mut written = false;
    let mut fields = Fields::new(record);
    let mut start = 0;
    while let Some(Ok(field)) = fields.next() {
        let end = fields.offset();
        if field.number == VALUE {
            // The last one counts; all of them are replaced by one.
            if !written && matches!(field.value, Wire::Bytes(_)) {
                put(&mut out);
                written = true;
            }
        } else {
            if field.number > VALUE && !written {
                put(&mut out);
                written = true;
            }
            out.extend(&record[start..end]);
        }
        start = end;
    }
    if !written {
        put(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::bolt::Db;

    fn record(key: &str, rev: u8, value: &str) -> Vec<u8> {
        let mut r = vec![0x0A, u8::try_from(key.len()).unwrap()];
        r.extend(key.as_bytes());
        r.extend([0x10, rev, 0x18, rev, 0x20, 1]);
        if !value.is_empty() {
            r.extend([0x2A, u8::try_from(value.len()).unwrap()]);
            r.extend(value.as_bytes());
        }
        r.extend([0x30, 9]);
        r
    }

    fn key(main: i64, tombstone: bool) -> Vec<u8> {
        let mut k = revision_key(main).to_vec();
        k.extend(tombstone.then_some(b't'));
        k
    }

    fn input() -> Vec<u8> {
        let mut w = Writer::new(Cursor::new(vec![]), 4096).unwrap();
        let mut b = w.bucket(b"key");
        b.put(&key(2, false), &record("/a", 2, "old")).unwrap();
        b.put(&key(3, false), &record("/b", 3, "gone")).unwrap();
        b.put(&key(4, false), &record("/a", 4, "new")).unwrap();
        b.put(&key(5, true), &[0x0A, 2, b'/', b'b']).unwrap();
        b.finish().unwrap();
        let mut m = w.bucket(b"meta");
        m.put(b"consistent_index", &[0, 0, 0, 0, 0, 0, 0, 9]).unwrap();
        m.put(b"term", &[0, 0, 0, 0, 0, 0, 0, 2]).unwrap();
        m.finish().unwrap();
        w.finish(3).unwrap().into_inner()
    }

    fn run(drop_history: bool) -> (Counts, Vec<(i64, String, String, i64)>, i64, i64) {
        let data = input();
        let store = Store::open(Db::open(&data).unwrap());
        let mut decide = |_: &[u8], v: &[u8]| {
            if v == b"gone" {
                Fate::Unreadable("no key".into())
            } else {
                Fate::Replace([b"enc:", v].concat())
            }
        };
        let (out, counts) =
            rewrite(&store, Cursor::new(vec![]), drop_history, &mut decide).unwrap();
        let out = out.into_inner();
        let store = Store::open(Db::open(&out).unwrap());
        let mut rows = vec![];
        let (newest, damage) = store.records(&mut |s| {
            let e = key_value(s.record).unwrap();
            rows.push((
                s.revision.main,
                String::from_utf8_lossy(e.key).into_owned(),
                String::from_utf8_lossy(e.stored()).into_owned(),
                e.lease,
            ));
        });
        assert_eq!(damage, vec![]);
        assert_eq!(store.bookkeeping.consistent_index, Some(9));
        (counts, rows, newest, store.bookkeeping.compacted())
    }

    #[test]
    fn history_keeps_its_revisions_leases_and_deletions() {
        let (counts, rows, newest, compacted) = run(false);
        let row = |r, k: &str, v: &str, l| (r, k.to_owned(), v.to_owned(), l);
        assert_eq!(
            rows,
            [
                row(2, "/a", "enc:old", 9),
                row(3, "/b", "gone", 9),
                row(4, "/a", "enc:new", 9),
                row(5, "/b", "", 0)
            ]
        );
        assert_eq!((counts.records, counts.rewritten, counts.dropped), (4, 2, 0));
        assert_eq!(counts.events, 4);
        assert_eq!(counts.unreadable, [(b"/b".to_vec(), 3, "no key".to_owned())]);
        assert_eq!((newest, compacted), (5, 0));
    }

    #[test]
    fn without_history_the_current_revision_stays() {
        let (counts, rows, newest, compacted) = run(true);
        assert_eq!(rows, [(4, "/a".to_owned(), "enc:new".to_owned(), 9)]);
        assert_eq!((counts.records, counts.dropped), (1, 3));
        assert_eq!((newest, compacted), (5, 5));
    }

    #[test]
    fn an_absent_value_is_put_in_its_place() {
        let without = record("/a", 2, "");
        assert_eq!(with_value(&without, b"x"), record("/a", 2, "x"));
    }
}

use super::request::{Op, Request, decode};
use super::*;
use crate::proto::put_varint;

/// A message of number fields.
fn numbers(fields: &[(u32, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, value) in fields {
        put_varint(&mut out, u64::from(*number) << 3);
        put_varint(&mut out, *value);
    }
    out
}

/// A message of bytes fields.
fn parts(fields: &[(u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, bytes) in fields {
        put_varint(&mut out, u64::from(*number) << 3 | 2);
        put_varint(&mut out, bytes.len() as u64);
        out.extend(*bytes);
    }
    out
}

/// Writes segments as etcd does.
#[derive(Default)]
struct Encoder {
    crc: u32,
    out: Vec<u8>,
}

impl Encoder {
    fn record(&mut self, kind: u64, data: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, data);
        self.raw(kind, data);
    }

    fn raw(&mut self, kind: u64, data: &[u8]) {
        let mut record = numbers(&[(1, kind), (2, u64::from(self.crc))]);
        if !data.is_empty() {
            record.extend(parts(&[(3, data)]));
        }
        let padding = (8 - record.len() % 8) % 8;
        let mut length = record.len() as u64;
        if padding > 0 {
            length |= (0x80 | padding as u64) << 56;
        }
        self.out.extend(length.to_le_bytes());
        self.out.extend(&record);
        self.out.resize(self.out.len() + padding, 0);
    }

    fn entry(&mut self, term: u64, index: u64, data: &[u8]) {
        let mut entry = numbers(&[(1, 0), (2, term), (3, index)]);
        entry.extend(parts(&[(4, data)]));
        self.record(frame::ENTRY, &entry);
    }

    fn commit(&mut self, term: u64, commit: u64) {
        self.record(frame::STATE, &numbers(&[(1, term), (2, 1), (3, commit)]));
    }

    /// Ends a segment and begins the next with the checksum carried over.
    fn cut(&mut self) -> Vec<u8> {
        let done = std::mem::take(&mut self.out);
        self.raw(frame::CRC, &[]);
        self.record(frame::METADATA, &numbers(&[(1, 7), (2, 8)]));
        done
    }
}

fn begin() -> Encoder {
    let mut e = Encoder::default();
    e.raw(frame::CRC, &[]);
    e.record(frame::METADATA, &numbers(&[(1, 7), (2, 8)]));
    e.record(frame::SNAPSHOT, &[]);
    e
}

fn segment(data: &[u8]) -> Segment<'_> {
    Segment { name: "0000000000000000-0000000000000000.wal", data }
}

fn indexes(log: &Log<'_>) -> Vec<(u64, u64)> {
    log.effective().map(|e| (e.term, e.index)).collect()
}

#[test]
fn the_first_frame_is_as_published() {
    let mut e = Encoder::default();
    e.raw(frame::CRC, &[]);
    assert_eq!(e.out, [4, 0, 0, 0, 0, 0, 0, 0x84, 8, 4, 0x10, 0, 0, 0, 0, 0]);
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c::crc32c_append(crc32c::crc32c(b"12345"), b"6789"), 0xe306_9283);
}

#[test]
fn names() {
    assert_eq!(parse_name("000000000000000a-00000000000000ff.wal"), Some((10, 255)));
    for bad in [
        "0.tmp",
        "a-b.wal",
        "000000000000000a-00000000000000ff.wal.broken",
        "+00000000000000a-00000000000000ff.wal",
    ] {
        assert_eq!(parse_name(bad), None, "{bad}");
    }
}

#[test]
fn segments_chain_and_end_in_zeros() {
    let mut e = begin();
    e.entry(1, 1, b"");
    let first = e.cut();
    e.entry(1, 2, b"");
    e.commit(1, 2);
    e.out.resize(e.out.len() + 4096, 0);
    let names = ["0000000000000000-0000000000000000.wal", "0000000000000001-0000000000000002.wal"];
    let segments =
        [Segment { name: names[0], data: &first }, Segment { name: names[1], data: &e.out }];
    let log = Log::read(&segments);
    assert_eq!(log.breaks, []);
    assert_eq!(indexes(&log), [(1, 1), (1, 2)]);
    assert_eq!(log.hard_state.commit, 2);
    // The second alone begins in the middle of the chain.
    let log = Log::read(&segments[1..]);
    assert_eq!((log.breaks.len(), indexes(&log)), (0, vec![(1, 2)]));
    // Swapped contents do not fit together.
    let wrong = [segments[0], Segment { name: names[1], data: &first }];
    assert_eq!(Log::read(&wrong).breaks.len(), 1);
    let apart =
        [segments[0], Segment { name: "0000000000000005-0000000000000002.wal", data: &e.out }];
    let log = Log::read(&apart);
    assert_eq!(log.breaks.len(), 1);
    assert!(log.breaks[0].what.contains("missing"));
}

#[test]
fn a_later_term_overwrites() {
    let mut e = begin();
    for (term, index) in [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3)] {
        e.entry(term, index, b"");
    }
    let log = Log::read(&[segment(&e.out)]);
    assert_eq!(indexes(&log), [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(log.entries.len(), 6, "replaced entries are still there to be looked at");
}

#[test]
fn a_changed_byte_is_told_and_the_rest_read() {
    let mut e = begin();
    e.entry(1, 1, b"");
    let at = e.out.len();
    e.entry(1, 2, &[0xAA; 40]);
    e.entry(1, 3, b"");
    let mut data = e.out.clone();
    let last = data.iter().rposition(|b| *b == 0xAA).unwrap();
    data[last] ^= 1;
    let log = Log::read(&[segment(&data)]);
    assert_eq!(indexes(&log), [(1, 1), (1, 3)]);
    let torn = false;
    let what = "checksum mismatch".to_owned();
    assert_eq!(log.breaks, [Break { segment: 0, offset: at, what, torn }]);
}

/// The checksum of a record does not cover its type.
#[test]
fn a_record_taken_for_one_of_another_type_is_told() {
    let mut e = Encoder::default();
    e.raw(frame::CRC, &[]);
    let mut at = vec![e.out.len()];
    e.record(frame::METADATA, &numbers(&[(1, 7), (2, 8)]));
    e.record(frame::SNAPSHOT, &[]);
    at.push(e.out.len());
    e.commit(2, 1);
    at.push(e.out.len());
    e.entry(2, 1, b"");
    e.entry(2, 2, b"");
    e.commit(2, 2);
    assert_eq!(Log::read(&[segment(&e.out)]).breaks, []);
    let told = |at: usize, kind: u64, what: &str| {
        let mut data = e.out.clone();
        // The length, and the tag of the first field.
        data[at + 9] = u8::try_from(kind).unwrap();
        let log = Log::read(&[segment(&data)]);
        assert!(log.breaks.iter().any(|b| !b.torn && b.what.contains(what)), "{:?}", log.breaks);
    };
    told(at[0], frame::SNAPSHOT, "whose it is");
    told(at[0], frame::STATE, "older than the one before");
    told(at[1], frame::METADATA, "another member's");
    told(at[1], 7, "unknown record type 7");
    // What it says of the vote is taken for the number of a term, 1, and the commit index for
    // the entry's own.
    told(at[2], frame::METADATA, "another member's");
    let log = {
        let mut data = e.out.clone();
        data[at[1] + 9] = 2;
        Log::read(&[segment(&data)]).entries[0].kind
    };
    assert_eq!(log, EntryKind::Other(2));
}

#[test]
fn terms_only_rise() {
    let mut e = begin();
    e.entry(3, 1, b"");
    e.entry(2, 2, b"");
    let log = Log::read(&[segment(&e.out)]);
    assert!(log.breaks.len() == 1 && log.breaks[0].what.contains("earlier term"));
    // A leader's older entry may take the place of a later one that was never committed.
    let mut e = begin();
    for (term, index) in [(1, 1), (3, 2), (2, 2), (4, 3)] {
        e.entry(term, index, b"");
    }
    assert_eq!(Log::read(&[segment(&e.out)]).breaks, []);
}

#[test]
fn a_torn_last_write_is_no_damage() {
    let mut e = begin();
    e.entry(1, 1, b"");
    let at = e.out.len();
    e.entry(1, 2, &[0xAA; 2000]);
    // A sector that never reached the disk.
    let mut data = e.out.clone();
    data[1024..1536].fill(0);
    data.resize(data.len() + 512, 0);
    let log = Log::read(&[segment(&data)]);
    assert_eq!(indexes(&log), [(1, 1)]);
    assert!(log.breaks.len() == 1 && log.breaks[0].torn && log.breaks[0].offset == at);
    // Cut anywhere in the last frame: the same; before it, nothing is wrong but what is missing.
    for len in at + 1..e.out.len() - 7 {
        let log = Log::read(&[segment(&e.out[..len])]);
        assert_eq!(indexes(&log), [(1, 1)], "{len}");
        assert!(log.breaks.iter().all(|b| b.torn), "{len}: {:?}", log.breaks);
    }
}

#[test]
fn a_length_that_no_write_has_is_damage() {
    let mut e = begin();
    e.entry(1, 1, b"");
    let at = e.out.len();
    e.entry(1, 2, &[0xAA; 2000]);
    e.entry(1, 3, b"");
    for beyond in [false, true] {
        let mut data = e.out.clone();
        data.resize(if beyond { 1 << 20 } else { 32 << 20 }, 0);
        data[at + 3] |= 1;
        let log = Log::read(&[segment(&data)]);
        assert_eq!(indexes(&log), [(1, 1)]);
        assert!(log.breaks.len() == 1 && !log.breaks[0].torn, "{beyond}: {:?}", log.breaks);
        assert_eq!(log.breaks[0].offset, at);
    }
}

proptest::proptest! {
    #[test]
    fn noise_is_survived(noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600), at in 0usize..600) {
        let mut e = begin();
        for i in 0..20 {
            e.entry(1, i, &[1; 20]);
        }
        let mut data = e.out;
        let at = at.min(data.len());
        let end = (at + noise.len()).min(data.len());
        data[at..end].copy_from_slice(&noise[..end - at]);
        let log = Log::read(&[segment(&data)]);
        for entry in &log.entries {
            let _ = decode(entry.data);
        }
        let _ = decode(&noise);
    }
}

fn put_message(key: &[u8], value: &[u8]) -> Vec<u8> {
    parts(&[(1, key), (2, value)])
}

#[test]
fn requests() {
    let header = parts(&[(100, &numbers(&[(1, 5)]))]);
    let put = [header.clone(), parts(&[(4, &put_message(b"k", b"v"))])].concat();
    assert!(matches!(decode(&put), Ok(Request::Put(p)) if p.key == b"k" && p.value == b"v"));
    assert!(matches!(decode(b""), Ok(Request::Nothing)));
    let compact = parts(&[(7, &numbers(&[(1, 9)]))]);
    assert!(matches!(decode(&compact), Ok(Request::Compact(9))));
    // A request of the old store, where this one has messages.
    let old =
        [numbers(&[(1, 5)]), parts(&[(2, b"PUT"), (3, b"/0/version"), (4, b"3.5.0")])].concat();
    assert!(matches!(decode(&old), Ok(Request::Legacy)));
    assert!(matches!(decode(&parts(&[(2, &old)])), Ok(Request::Legacy)));
    assert!(decode(b"\x22\x05ab").is_err());
    assert!(decode(&parts(&[(3, b"/text that is no message")])).is_err());
    // Deeper than anyone nests.
    let mut deep = parts(&[(2, &parts(&[(2, &put_message(b"k", b"v"))]))]);
    for _ in 0..100 {
        deep = parts(&[(2, &parts(&[(4, &deep)]))]);
    }
    assert!(decode(&parts(&[(6, &deep)])).is_err());
}

#[test]
fn transactions_with_nested_ones() {
    let inner = parts(&[(2, &parts(&[(2, &put_message(b"in", b"1"))]))]);
    let range = parts(&[(1, &parts(&[(1, b"k")]))]);
    let compare = [numbers(&[(1, 0), (2, 2)]), parts(&[(3, b"k")]), numbers(&[(6, 4)])].concat();
    let txn = parts(&[
        (1, &compare),
        (2, &parts(&[(4, &inner)])),
        (2, &parts(&[(3, &parts(&[(1, b"a"), (2, b"b")]))])),
        (3, &range),
    ]);
    let message = parts(&[(6, &txn)]);
    let Ok(Request::Txn(txn)) = decode(&message) else { panic!("no transaction") };
    let Op::Txn(inner) = &txn.success[0] else { panic!("no transaction inside") };
    assert!(matches!(inner.success[..], [Op::Put(put)] if put.key == b"in" && put.value == b"1"));
    assert_eq!(txn.compares[0].target, request::Compared::Mod(4));
    assert!(matches!(txn.success[1], Op::Delete(s) if s.key == b"a" && s.end == b"b"));
    assert!(matches!(txn.failure[0], Op::Range(0)));
}

mod machine {
    use super::super::replay::Machine;
    use super::super::request::{Compare, Compared, Op, Put, Relation, Request, Span, Txn};

    fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Put<'a> {
        Put { key, value, ..Put::default() }
    }

    fn key(key: &[u8]) -> Span<'_> {
        Span { key, end: b"" }
    }

    fn machine<'a>() -> Machine<'a> {
        Machine::new(1, -1)
    }

    #[test]
    fn one_revision_for_each_request_that_changes_something() {
        let mut m = machine();
        m.apply(&Request::Put(put(b"a", b"1")));
        m.apply(&Request::Delete(key(b"missing")));
        m.apply(&Request::Put(put(b"a", b"2")));
        let all = Span { key: b"a", end: b"\0" };
        m.apply(&Request::Put(put(b"b", b"")));
        m.apply(&Request::Delete(all));
        m.apply(&Request::Put(put(b"a", b"3")));
        let seen: Vec<_> =
            m.changes.iter().map(|c| (c.revision.main, c.revision.sub, c.live.is_some())).collect();
        assert_eq!(
            seen,
            [(2, 0, true), (3, 0, true), (4, 0, true), (5, 0, false), (5, 1, false), (6, 0, true)]
        );
        let live = m.keys[&b"a"[..]];
        assert_eq!((live.create_revision, live.version, m.revision), (6, 1, 6));
    }

    /// A crafted database may say that it is at the last revision there is.
    #[test]
    fn revisions_do_not_overflow() {
        let mut m = Machine::new(i64::MAX, -1);
        m.apply(&Request::Put(put(b"a", b"1")));
        m.apply(&Request::Delete(key(b"a")));
        assert_eq!(m.revision, i64::MAX);
    }

    #[test]
    fn transactions() {
        let mut m = machine();
        m.apply(&Request::Put(put(b"k", b"v")));
        let compare = |target, relation| Compare { span: key(b"k"), target, relation };
        let txn = |compares: Vec<Compare<'static>>| {
            Request::Txn(Txn {
                compares,
                success: vec![
                    Op::Put(put(b"k", b"yes")),
                    Op::Delete(key(b"k")),
                    Op::Put(put(b"k", b"again")),
                ],
                failure: vec![Op::Range(0)],
            })
        };
        m.apply(&txn(vec![compare(Compared::Mod(9), Relation::Equal)]));
        assert_eq!(m.revision, 2, "the comparison fails, and reading changes nothing");
        m.apply(&txn(vec![
            compare(Compared::Mod(2), Relation::Equal),
            compare(Compared::Version(0), Relation::Greater),
            compare(Compared::Value(b"w"), Relation::Less),
            compare(Compared::Lease(1), Relation::NotEqual),
        ]));
        let live = m.keys[&b"k"[..]];
        assert_eq!((m.revision, live.version, live.create_revision), (3, 1, 3));
        assert_eq!(m.changes.last().unwrap().revision.sub, 2);
        // A missing key: numbers are 0, a value is never equal nor different.
        let missing = |target, relation| Compare { span: key(b"x"), target, relation };
        m.apply(&txn(vec![missing(Compared::Value(b""), Relation::Equal)]));
        m.apply(&txn(vec![missing(Compared::Value(b""), Relation::NotEqual)]));
        assert_eq!(m.revision, 3);
        m.apply(&txn(vec![missing(Compared::Create(0), Relation::Equal)]));
        assert_eq!(m.revision, 4);
        // Reading a future revision fails the whole transaction, but only in a nested one.
        let reading =
            || Txn { success: vec![Op::Put(put(b"z", b"")), Op::Range(99)], ..Txn::default() };
        m.apply(&Request::Txn(Txn { success: vec![Op::Txn(reading())], ..Txn::default() }));
        assert_eq!(m.revision, 4);
        m.apply(&Request::Txn(reading()));
        assert_eq!(m.revision, 5);
    }

    #[test]
    fn what_etcd_refuses_changes_nothing() {
        let mut m = machine();
        let leased = Put { lease: 5, ..put(b"l", b"v") };
        m.apply(&Request::Put(leased));
        m.apply(&Request::Put(Put { ignore_value: true, ..put(b"none", b"") }));
        assert_eq!(m.revision, 1);
        m.apply(&Request::LeaseGrant(5));
        m.apply(&Request::Put(leased));
        m.apply(&Request::Put(Put { ignore_value: true, ignore_lease: true, ..put(b"l", b"") }));
        assert_eq!((m.keys[&b"l"[..]].value, m.keys[&b"l"[..]].lease), (&b"v"[..], 5));
        m.apply(&Request::Alarm { raise: true, member: 1, kind: 1 });
        m.apply(&Request::Put(put(b"full", b"")));
        m.apply(&Request::Delete(key(b"nothing")));
        assert_eq!(m.revision, 3);
        m.apply(&Request::LeaseRevoke(5));
        assert_eq!((m.revision, m.keys.len()), (4, 0), "deleting still works");
        m.apply(&Request::LeaseRevoke(5));
        m.apply(&Request::Alarm { raise: false, member: 1, kind: 1 });
        m.apply(&Request::Put(put(b"k", b"")));
        assert_eq!(m.revision, 5);
        m.apply(&Request::Compact(99));
        assert_eq!(m.compacted, -1);
        m.apply(&Request::Compact(5));
        assert_eq!(m.compacted, 5);
    }
}

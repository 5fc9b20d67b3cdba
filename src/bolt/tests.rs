use std::io::Cursor;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::write::{WriteError, Writer};
use super::*;

/// A file with one bucket `key` of `n` rows whose values have `len` bytes.
fn file(page_size: usize, n: usize, len: usize) -> Vec<u8> {
    let mut w = Writer::new(Cursor::new(Vec::new()), page_size).unwrap();
    w.bucket(b"empty").finish().unwrap();
    let mut b = w.bucket(b"key");
    for i in 0..n {
        b.put(format!("k{i:08}").as_bytes(), &vec![b'v'; len]).unwrap();
    }
    b.finish().unwrap();
    w.finish(7).unwrap().into_inner()
}

/// Keys of bucket `key`, and damage.
fn rows(data: &[u8]) -> (Vec<Vec<u8>>, Vec<PageDamage>) {
    let db = match Db::open(data) {
        Ok(db) => db,
        Err(e) => return (vec![], vec![PageDamage { page: 0, what: e.to_string() }]),
    };
    let (mut seen, mut damage, mut keys) = (PageSet::default(), vec![], vec![]);
    if let Some(bucket) = db.bucket(b"key", &mut seen, &mut damage) {
        let _ = db.walk(bucket, &mut seen, &mut damage, &mut |_, e| {
            keys.push(e.key.to_vec());
            ControlFlow::Continue(())
        });
    }
    (keys, damage)
}

/// Keys of bucket `key`, read in the order of the file.
fn scattered(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let db = Db::open(data).ok()?;
    let (mut seen, mut damage, mut keys) = (PageSet::default(), vec![], vec![]);
    let bucket = db.bucket(b"key", &mut seen, &mut damage)?;
    let leaves = db.leaves(bucket, seen).filter(|_| damage.is_empty())?;
    let half = leaves.len() / 2;
    for range in [0..half, half..leaves.len()] {
        leaves.read(range, &mut |_, e| {
            keys.push(e.key.to_vec());
            Some(())
        })?;
    }
    Some(keys)
}

fn put_u64(data: &mut [u8], at: usize, v: u64) {
    data[at..at + 8].copy_from_slice(&v.to_le_bytes());
}

/// A meta page with the fields of the published vectors, and its checksum.
fn vector(txid: u64, freelist: u64) -> u64 {
    let mut body = vec![0u8; 56];
    body[..4].copy_from_slice(&0xED0C_DAEDu32.to_le_bytes());
    body[4..8].copy_from_slice(&2u32.to_le_bytes());
    body[8..12].copy_from_slice(&4096u32.to_le_bytes());
    for (at, v) in [(16, 3), (32, freelist), (40, 4), (48, txid)] {
        put_u64(&mut body, at, v);
    }
    meta::fnv1a(&body)
}

#[test]
fn meta_checksums() {
    assert_eq!(vector(0, 2), 0x0751_6e11_4689_fdee);
    assert_eq!(vector(1, 2), 0x264c_351a_5179_480f);
    assert_eq!(vector(2, NO_FREELIST), 0xc759_801d_1f87_7de6);
}

#[test]
fn every_page_size_and_shape_reads_back() {
    for page_size in [1024, 4096, 16384, 65536] {
        for (n, len) in [(0, 0), (1, 0), (3, 10), (1000, 100), (20, 10_000), (2, 300_000)] {
            let (keys, damage) = rows(&file(page_size, n, len));
            assert_eq!((keys.len(), damage), (n, vec![]), "{page_size} {n} {len}");
        }
    }
}

#[test]
fn the_writer_refuses_what_a_reader_could_not_find() {
    let mut w = Writer::new(Cursor::new(Vec::new()), 4096).unwrap();
    let mut b = w.bucket(b"key");
    b.put(b"b", b"").unwrap();
    assert!(matches!(b.put(b"b", b""), Err(WriteError::Order)));
    assert!(matches!(b.put(b"a", b""), Err(WriteError::Order)));
    assert!(matches!(b.put(b"", b""), Err(WriteError::Length)));
}

#[test]
fn either_meta_page_may_be_damaged_but_not_both() {
    let good = file(4096, 10, 10);
    for page in [0, 4096] {
        let mut data = good.clone();
        data[page + 16 + 48] ^= 1;
        assert_eq!(Db::open(&data).unwrap().metas()[page / 4096], Err(MetaError::Checksum));
        assert_eq!(rows(&data).0.len(), 10);
    }
    let mut data = good.clone();
    data[16 + 48] ^= 1;
    data[4096 + 16 + 48] ^= 1;
    assert!(matches!(Db::open(&data), Err(BoltError::NoMeta { .. })));
    // The larger transaction wins only when its checksum holds.
    let mut data = good;
    put_u64(&mut data, 4096 + 16 + 48, u64::MAX);
    assert_eq!(Db::open(&data).unwrap().meta().txid, 7);
}

#[test]
fn crafted_trees_end_and_are_reported() {
    // Two leaves under a branch: pages 2 (empty bucket), 3, 4 (leaves), 5 (branch), 6 (buckets).
    let good = file(4096, 60, 100);
    assert_eq!(Db::open(&good).unwrap().meta().high_water_mark, 7);
    let element = |page: usize, i: usize| page * 4096 + 16 + i * 16;
    let mut cases: Vec<(&str, Vec<u8>, usize)> = Vec::new();
    let mut case = |name, rows, edit: &dyn Fn(&mut [u8])| {
        let mut data = good.clone();
        edit(&mut data);
        cases.push((name, data, rows));
    };
    let first_leaf = rows(&good).0.len() - {
        let page = Db::open(&good).unwrap().page(4).unwrap();
        page.count
    };
    let second_leaf = 60 - first_leaf;
    case("child is itself", second_leaf, &|d| put_u64(d, element(5, 0) + 8, 5));
    case("child beyond the mark", second_leaf, &|d| put_u64(d, element(5, 0) + 8, 99));
    case("child is a meta page", second_leaf, &|d| put_u64(d, element(5, 0) + 8, 1));
    case("same child twice", first_leaf, &|d| put_u64(d, element(5, 1) + 8, 3));
    case("zeroed leaf", first_leaf, &|d| d[4 * 4096..5 * 4096].fill(0));
    case("leaf with another number", second_leaf, &|d| d[3 * 4096] = 9);
    case("leaf of no type", second_leaf, &|d| d[3 * 4096 + 8] = 3);
    case("huge overflow", second_leaf, &|d| d[3 * 4096 + 12..3 * 4096 + 16].fill(0xFF));
    case("count of 65535", second_leaf, &|d| d[3 * 4096 + 10..3 * 4096 + 12].fill(0xFF));
    case("data before the table's end", 59, &|d| d[element(3, 0) + 4..element(3, 0) + 8].fill(0));
    case("data beyond the page", 59, &|d| d[element(3, 0) + 12..element(3, 0) + 16].fill(0xFF));
    case("empty key", 59, &|d| d[element(3, 0) + 8..element(3, 0) + 12].fill(0));
    for (name, data, expected) in cases {
        let (keys, damage) = rows(&data);
        assert_eq!(keys.len(), expected, "{name}");
        assert_eq!(damage.len(), 1, "{name}: {damage:?}");
        assert_eq!(scattered(&data), None, "{name}");
    }
    assert_eq!(scattered(&good), Some(rows(&good).0));
}

#[test]
fn leaves_are_read_as_they_lie() {
    let good = file(1024, 400, 60);
    let ordered = rows(&good).0;
    assert_eq!(scattered(&good).unwrap(), ordered);
    // Two leaves change places; the branch element of each is the only one that names it.
    let mut data = good.clone();
    let (a, b) = (4u64, 9u64);
    let at = |id: u64| usize::try_from(id).unwrap() * 1024;
    data[at(a)..at(a) + 1024].copy_from_slice(&good[at(b)..at(b) + 1024]);
    data[at(b)..at(b) + 1024].copy_from_slice(&good[at(a)..at(a) + 1024]);
    put_u64(&mut data, at(a), a);
    put_u64(&mut data, at(b), b);
    let wrong = data.clone();
    for page in Db::open(&good).unwrap().data().chunks(1024).enumerate() {
        let (n, page) = page;
        let count = if page[8] == 1 { usize::from(page[10]) } else { 0 };
        for element in (0..count).map(|i| n * 1024 + 16 + i * 16 + 8) {
            match Endian::Little.u64(&good, element).unwrap() {
                id if id == a => put_u64(&mut data, element, b),
                id if id == b => put_u64(&mut data, element, a),
                _ => {}
            }
        }
    }
    assert_eq!(rows(&data), (ordered.clone(), vec![]));
    let mut keys = scattered(&data).unwrap();
    assert_ne!(keys, ordered);
    keys.sort();
    assert_eq!(keys, ordered);
    // Where the branch pages say otherwise, keys are out of order.
    assert!(!rows(&wrong).1.is_empty());
    assert_eq!(scattered(&wrong), None);
}

#[test]
fn inline_buckets_are_bounded_by_their_own_length() {
    // A bucket list whose only bucket is a page image: header, one element, key and value.
    let mut image = vec![0u8; 16];
    image[8] = 2;
    image[10] = 1;
    image.extend(0u32.to_le_bytes());
    image.extend(16u32.to_le_bytes());
    image.extend(1u32.to_le_bytes());
    image.extend(1u32.to_le_bytes());
    image.extend(b"kv");
    let build = |image: &[u8]| {
        let mut value = vec![0u8; 16];
        value.extend(image);
        let mut page = vec![0u8; 4096];
        page[0] = 2;
        page[8] = 2;
        page[10] = 1;
        page[16] = 1;
        page[20..24].copy_from_slice(&16u32.to_le_bytes());
        page[24..28].copy_from_slice(&3u32.to_le_bytes());
        page[28..32].copy_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
        page[32..35].copy_from_slice(b"key");
        page[35..35 + value.len()].copy_from_slice(&value);
        // Metas of an empty file, pointed at page 2.
        let mut data =
            Writer::new(Cursor::new(vec![]), 4096).unwrap().finish(1).unwrap().into_inner();
        data[2 * 4096..3 * 4096].copy_from_slice(&page);
        data
    };
    assert_eq!(rows(&build(&image)), (vec![b"k".to_vec()], vec![]));
    for len in 0..image.len() {
        let (keys, damage) = rows(&build(&image[..len]));
        assert_eq!((keys.len(), damage.len()), (0, 1), "{len}");
    }
}

#[test]
fn text_and_emptiness_are_no_databases() {
    assert_eq!(Db::open(&[]).unwrap_err(), BoltError::TooShort(0));
    assert_eq!(Db::open(&[b'x'; 10_000]).unwrap_err(), BoltError::NotBolt);
}

proptest! {
    #![proptest_config(crate::testing::cases(200))]

    /// Whatever happens to one page, the rows of the others are read and the damage is told.
    #[test]
    fn one_overwritten_page(page in 2usize..40, noise in proptest::collection::vec(any::<u8>(), 64)) {
        let good = file(1024, 400, 60);
        let pages = good.len() / 1024;
        let page = 2 + page % (pages - 2);
        let mut data = good.clone();
        for (i, b) in data[page * 1024..(page + 1) * 1024].iter_mut().enumerate() {
            *b = noise[i % noise.len()].wrapping_add(u8::try_from(i % 251).unwrap());
        }
        let (keys, damage) = rows(&data);
        prop_assert!(keys.len() <= 400);
        let kind = Db::open(&good).unwrap().page(page as u64).unwrap();
        if kind.kind == PageKind::Leaf && kind.count > 0 {
            prop_assert!(!damage.is_empty());
        }
    }

    /// Whatever is changed in a page: either way of reading finds the same, or the fast one none.
    #[test]
    fn the_fast_way_hides_nothing(page in 2usize..60, at in 0usize..300, byte in any::<u8>()) {
        let mut data = file(1024, 400, 60);
        let pages = data.len() / 1024;
        data[(2 + page % (pages - 2)) * 1024 + at] = byte;
        let (mut keys, damage) = rows(&data);
        if let Some(mut found) = scattered(&data) {
            prop_assert!(damage.is_empty(), "{damage:?}");
            found.sort();
            keys.sort();
            prop_assert_eq!(found, keys);
        }
    }

    /// A file cut anywhere is no panic and no hang.
    #[test]
    fn any_length(len in 0usize..60_000) {
        let good = file(1024, 400, 60);
        let len = len.min(good.len());
        let _ = rows(&good[..len]);
    }
}

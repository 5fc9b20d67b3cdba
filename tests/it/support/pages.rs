//! Where each record of a database lies, by a reader of its own: no check that is not needed for
//! an undamaged file, and none of the library's code.

use std::collections::BTreeMap;
use std::ops::Range;

pub const PAGE: usize = 4096;

fn number<const N: usize>(data: &[u8], at: usize) -> usize {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&data[at..at + N]);
    usize::try_from(u64::from_le_bytes(wide)).unwrap()
}

/// Bytes without which one record cannot be read.
#[derive(Clone)]
pub struct Needs {
    /// The header of its leaf page, its row in the page's table, its bytes.
    pub parts: [Range<usize>; 3],
    pub tombstone: bool,
}

impl Needs {
    /// Whether a change of `damage` can make it unreadable.
    pub fn touches(&self, damage: &Range<usize>) -> bool {
        self.parts.iter().any(|p| p.start < damage.end && damage.start < p.end)
    }
}

/// The newest record of each etcd key, deleted ones included.
pub fn newest_records(data: &[u8]) -> BTreeMap<Vec<u8>, Needs> {
    // Both metas of an undamaged snapshot name the same root.
    let mut found = BTreeMap::new();
    for (name, at) in leaves(data, number::<8>(data, 16 + 16)) {
        if name == b"key" {
            let root = number::<8>(data, at);
            if root == 0 {
                image(data, at + 16, &mut |needs, key, value| add(&mut found, needs, key, value));
            } else {
                tree(data, root, &mut |needs, key, value| add(&mut found, needs, key, value));
            }
        }
    }
    found
}

/// Later calls have newer revisions.
fn add(found: &mut BTreeMap<Vec<u8>, Needs>, mut needs: Needs, key: &[u8], value: &[u8]) {
    needs.tombstone = key.len() == 18 && key[17] == b't';
    // KeyValue.key is the first field, and shorter than 128 bytes.
    assert_eq!(value[0], 0x0A);
    assert!(value[1] < 128);
    found.insert(value[2..2 + usize::from(value[1])].to_vec(), needs);
}

/// Keys and offsets of values of a small tree.
fn leaves(data: &[u8], root: usize) -> Vec<(Vec<u8>, usize)> {
    let mut all = Vec::new();
    tree(data, root, &mut |needs, key, _| {
        all.push((key.to_vec(), needs.parts[2].start + key.len()));
    });
    all
}

fn tree(data: &[u8], page: usize, sink: &mut dyn FnMut(Needs, &[u8], &[u8])) {
    let at = page * PAGE;
    if number::<2>(data, at + 8) == 1 {
        for i in 0..number::<2>(data, at + 10) {
            tree(data, number::<8>(data, at + 16 + 16 * i + 8), sink);
        }
    } else {
        image(data, at, sink);
    }
}

fn image(data: &[u8], at: usize, sink: &mut dyn FnMut(Needs, &[u8], &[u8])) {
    for i in 0..number::<2>(data, at + 10) {
        let row = at + 16 + 16 * i;
        let start = row + number::<4>(data, row + 4);
        let middle = start + number::<4>(data, row + 8);
        let end = middle + number::<4>(data, row + 12);
        let parts = [at..at + 16, row..row + 16, start..end];
        sink(Needs { parts, tombstone: false }, &data[start..middle], &data[middle..end]);
    }
}

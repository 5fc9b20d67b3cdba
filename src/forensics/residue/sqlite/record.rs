//! Rows of kine's table as `SQLite` stores them: records, recognised in bytes.

use std::ops::Range;

use crate::envelope::ENCRYPTED_PREFIX;
use crate::forensics::carve::is_plain_object;

/// A row's record.
pub(super) struct Row<'a> {
    /// Where its header begins.
    pub(super) at: usize,
    pub(super) name: &'a [u8],
    /// The row's number, where it still stands before the record.
    pub(super) id: Option<i64>,
    pub(super) deleted: bool,
    pub(super) create_revision: i64,
    pub(super) prev_revision: i64,
    pub(super) value: Range<usize>,
    pub(super) old_value: Range<usize>,
}

impl Row<'_> {
    /// Counts places from where `data` begins in its file.
    pub(super) fn shifted(mut self, base: usize) -> Self {
        self.at += base;
        for range in [&mut self.value, &mut self.old_value] {
            *range = range.start + base..range.end + base;
        }
        self
    }
}

/// A record around a key that seems to begin at `key_at`: its header ends there.
pub(super) fn row(data: &[u8], key_at: usize) -> Option<Row<'_>> {
    /// Nine columns of at least one byte, and the header's own length.
    const SHORTEST: usize = 10;
    const LONGEST: usize = 40;
    let starts = || (SHORTEST..=LONGEST).filter_map(|len| Some((len, key_at.checked_sub(len)?)));
    let whole = |(len, at): (usize, usize)| {
        let sized = usize::from(data[at]) == len && data[at + 1] == 0;
        let row = sized.then(|| record(data, at, at + 2, key_at)).flatten()?;
        let id = number_before(data, at, row.old_value.end - at);
        Some(Row { id, ..row })
    };
    // A freed cell loses its first four bytes: the header's length, and perhaps one more.
    let freed = |(_, at): (usize, usize)| {
        let row = record(data, at, at + 2, key_at)?;
        let text = std::str::from_utf8(row.name).ok()?;
        let plain = data.get(row.value.start..)?;
        let is_object = is_plain_object(plain) || plain.starts_with(ENCRYPTED_PREFIX);
        (!text.chars().any(char::is_control) && is_object).then_some(row)
    };
    starts().find_map(whole).or_else(|| starts().find_map(freed))
}

/// Reads a record from `at` on, of whose header the kinds of all columns but the first begin at
/// `kinds_at`, and end at `key_at`.
fn record(data: &[u8], at: usize, kinds_at: usize, key_at: usize) -> Option<Row<'_>> {
    let mut header = data.get(kinds_at..key_at)?;
    let mut kinds = [0u64; 8];
    for kind in &mut kinds {
        *kind = varint(&mut header)?;
    }
    let [name, numbers @ .., value, old_value] = kinds;
    // The key is text.
    if !header.is_empty() || name < 13 || name % 2 == 0 {
        return None;
    }
    let mut from = key_at;
    let mut take = |kind: u64| {
        let len = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            blob => (blob - 12) / 2,
        };
        let len = usize::try_from(len).ok().filter(|l| *l < 64 << 20)?;
        let range = from..from.checked_add(len)?;
        from = range.end;
        Some(range)
    };
    let name = data.get(take(name)?)?;
    let mut read = [0i64; 5];
    for (n, kind) in read.iter_mut().zip(numbers) {
        let range = take(kind).filter(|_| kind < 10)?;
        *n = number(kind, data.get(range)?);
    }
    let [_created, deleted, create_revision, prev_revision, _lease] = read;
    let (value, old_value) = (take(value)?, take(old_value)?);
    let deleted = deleted != 0;
    Some(Row { at, name, id: None, deleted, create_revision, prev_revision, value, old_value })
}

/// The row's number that stands before a record of this length in a cell of a table's leaf page:
/// the length as a varint, then the number as one.
fn number_before(data: &[u8], at: usize, length: usize) -> Option<i64> {
    const LONGEST: usize = 9;
    let read = |from: usize, to: usize| {
        let mut rest = data.get(from..to)?;
        varint(&mut rest).filter(|_| rest.is_empty())
    };
    (1..=LONGEST).find_map(|id_len| {
        let id_at = at.checked_sub(id_len)?;
        let id = read(id_at, at)?;
        let is_length = |len: usize| {
            let from = id_at.checked_sub(len)?;
            (read(from, id_at)? == length as u64).then_some(())
        };
        (1..=LONGEST).find_map(is_length)?;
        i64::try_from(id).ok().filter(|id| *id > 0)
    })
}

/// A signed number of up to eight bytes; 8 and 9 are the numbers 0 and 1 themselves.
fn number(kind: u64, bytes: &[u8]) -> i64 {
    if kind == 9 {
        return 1;
    }
    let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    bytes.iter().fold(if negative { -1 } else { 0 }, |n, b| (n << 8) | i64::from(*b))
}

/// `SQLite`'s varint: big-endian, at most nine bytes.
pub(super) fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for i in 0..9 {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        if i == 8 {
            return Some((n << 8) | u64::from(*byte));
        }
        n = (n << 7) | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_and_numbers() {
        assert_eq!(varint(&mut &[0x7F][..]), Some(127));
        assert_eq!(varint(&mut &[0x81, 0x00][..]), Some(128));
        assert_eq!(varint(&mut &[0xFF; 9][..]), Some(u64::MAX));
        assert_eq!(varint(&mut &[0x81][..]), None);
        assert_eq!(number(8, &[]), 0);
        assert_eq!(number(9, &[]), 1);
        assert_eq!(number(2, &[0x01, 0x00]), 256);
        assert_eq!(number(1, &[0xFF]), -1);
    }

    #[test]
    fn a_row_s_number_stands_behind_the_length() {
        for (before, length, id) in [
            (&[5, 7][..], 5, Some(7)),
            (&[0x81, 0x00, 0x83, 0x01], 128, Some(385)),
            (&[0xFF, 4, 7], 5, None),
            (&[7], 5, None),
            (&[5, 0], 5, None),
            (&[], 5, None),
        ] {
            let data = [before, &[9; 5]].concat();
            assert_eq!(number_before(&data, before.len(), length), id, "{before:?}");
        }
    }

    #[test]
    fn crafted_bytes_do_no_harm() {
        let key = b"/registry/secrets/ns/name";
        let types = [0, 2 * 25 + 13, 9, 9, 1, 1, 8, 0xFF, 0xFF];
        for len in 10..41u8 {
            let mut data = vec![len];
            data.extend(types.iter().chain(&[0xFF; 40]).take(usize::from(len) - 1));
            let at = data.len();
            data.extend(key);
            for end in at..=data.len() {
                let _ = row(&data[..end], at);
            }
        }
    }
}

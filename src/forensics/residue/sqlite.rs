//! Plaintext in the bytes of a kine database: rows that `SQLite` deleted but did not overwrite.
//!
//! `SQLite` (<https://sqlite.org/fileformat2.html>) keeps the content of freed pages and of freed
//! cells in pages in use; its write-ahead log and journal hold older images of pages. A row of
//! kine's table is known by its record header: nine columns, of which the second is the key.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use memchr::memmem::Finder;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Bytes, Finding, Place, Sink};
use crate::forensics::Targets;
use crate::forensics::carve::is_plain_object;

/// Which file of a database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The database itself.
    Database,
    /// `-wal`: frames of a header and a page.
    Wal,
    /// `-journal` and anything else.
    Other,
}

/// Rows that a query returns: what they hold is told as rows, wherever their bytes lie.
#[derive(Default)]
pub struct KnownRows {
    whole: HashSet<[u8; 32]>,
    /// Without their values, for records of which not all is at hand.
    outlines: HashSet<[u8; 32]>,
}

impl KnownRows {
    /// Adds a row.
    pub fn add(&mut self, row: &crate::source::kine::Row<'_>) {
        // A row that creates its key has no revision of creation; the reader fills in its own.
        let create = if row.created { 0 } else { row.create_revision };
        self.whole.insert(digest(row.name, create, row.prev_revision, row.value.0));
        self.outlines.insert(digest(row.name, create, row.prev_revision, &[]));
    }

    fn has(&self, row: &Row<'_>, value: &[u8]) -> bool {
        self.whole.contains(&digest(row.name, row.create_revision, row.prev_revision, value))
    }

    /// Whether it may be one of them. kine writes no two rows that supersede the same.
    fn has_alike(&self, row: &Row<'_>) -> bool {
        self.outlines.contains(&digest(row.name, row.create_revision, row.prev_revision, &[]))
    }
}

fn digest(name: &[u8], create_revision: i64, prev_revision: i64, value: &[u8]) -> [u8; 32] {
    let mut sha = Sha256::new();
    for part in [name, &create_revision.to_be_bytes(), &prev_revision.to_be_bytes(), value] {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    sha.finalize().into()
}

/// A row's record.
struct Row<'a> {
    /// Where its header begins.
    at: usize,
    name: &'a [u8],
    create_revision: i64,
    prev_revision: i64,
    value: Range<usize>,
    old_value: Range<usize>,
}

/// Where pages lie in a file, and which of them are free.
struct Pages<'a> {
    data: &'a [u8],
    file: File,
    size: usize,
    free: HashSet<usize>,
    /// In a log, the frames that hold each page, ascending, from 0.
    frames: HashMap<usize, Vec<usize>>,
    /// In a log, the frames that end a transaction, ascending, from 0.
    commits: Vec<usize>,
}

/// Looks through one file of a kine database.
pub fn examine_kine(
    file: File,
    name: &str,
    data: &[u8],
    targets: &Targets,
    known: &KnownRows,
    sink: &mut Sink<'_>,
) {
    let pages = Pages::new(file, data);
    let mut hits: Vec<usize> = targets
        .needles()
        .iter()
        .filter(|n| !n.is_empty())
        .flat_map(|n| Finder::new(n).into_owned().find_iter(data).collect::<Vec<_>>())
        .collect();
    hits.sort_unstable();
    hits.dedup();
    for key_at in hits {
        let Some(row) = row(data, key_at) else { continue };
        let Some(found) = targets.locate(row.name) else { continue };
        let end = pages.end_of_payload(&row);
        let (place, location, active) = pages.describe(name, row.at);
        let payload = pages.payload(&row, end);
        let part = |range: &Range<usize>| {
            payload.get(range.start - row.at..(range.end - row.at).min(payload.len()))
        };
        let is_whole = row.value.end - row.at <= payload.len();
        let is_known = match part(&row.value).filter(|_| is_whole) {
            Some(value) => known.has(&row, value),
            None => known.has_alike(&row),
        };
        if active && is_known {
            continue;
        }
        for (range, revision) in [(&row.value, None), (&row.old_value, Some(row.prev_revision))] {
            let Some(bytes) = part(range).filter(|b| is_plain_object(b)) else { continue };
            let finding = Finding {
                place,
                location: location.clone(),
                key: Some(row.name.to_vec()),
                resource: found.resource.clone().into_owned(),
                revision: revision.filter(|r| *r > 0),
                size: bytes.len() as u64,
                partial: bytes.len() < range.len(),
            };
            let all = 0..bytes.len();
            sink(finding, Bytes::new(bytes, 0, std::slice::from_ref(&all)));
        }
    }
}

/// A record around a key that seems to begin at `key_at`: its header ends there.
fn row(data: &[u8], key_at: usize) -> Option<Row<'_>> {
    /// Nine columns of at least one byte, and the header's own length.
    const SHORTEST: usize = 10;
    const LONGEST: usize = 40;
    let starts = || (SHORTEST..=LONGEST).filter_map(|len| Some((len, key_at.checked_sub(len)?)));
    let whole = |(len, at): (usize, usize)| {
        let sized = usize::from(data[at]) == len && data[at + 1] == 0;
        sized.then(|| record(data, at, at + 2, key_at)).flatten()
    };
    // A freed cell loses its first four bytes: the header's length, and perhaps one more.
    let freed = |(_, at): (usize, usize)| {
        let row = record(data, at, at + 2, key_at)?;
        let text = std::str::from_utf8(row.name).ok()?;
        let plain = data.get(row.value.start..)?;
        (!text.chars().any(char::is_control) && is_plain_object(plain)).then_some(row)
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
    let [_created, _deleted, create_revision, prev_revision, _lease] = read;
    let (value, old_value) = (take(value)?, take(old_value)?);
    Some(Row { at, name, create_revision, prev_revision, value, old_value })
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
fn varint(from: &mut &[u8]) -> Option<u64> {
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

impl<'a> Pages<'a> {
    const WAL_HEADER: usize = 32;
    const FRAME_HEADER: usize = 24;

    fn new(file: File, data: &'a [u8]) -> Self {
        let u32_at = |at: usize| {
            let bytes = data.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_be_bytes(bytes) as usize)
        };
        let size = match file {
            File::Database => data.get(16..18).map(|b| match u16::from_be_bytes([b[0], b[1]]) {
                1 => 65_536,
                n => usize::from(n),
            }),
            File::Wal => u32_at(8),
            File::Other => None,
        };
        let size = size.filter(|s| s.is_power_of_two() && (512..=65_536).contains(s)).unwrap_or(0);
        let mut pages = Self {
            data,
            file,
            size,
            free: HashSet::new(),
            frames: HashMap::new(),
            commits: Vec::new(),
        };
        if file == File::Wal && size > 0 {
            let frame = size + Self::FRAME_HEADER;
            for (number, at) in (Self::WAL_HEADER..data.len()).step_by(frame).enumerate() {
                // Page number, then the size of the database where a transaction ends, else 0.
                let (Some(page), Some(after)) = (u32_at(at), u32_at(at + 4)) else { break };
                pages.frames.entry(page).or_default().push(number);
                pages.commits.extend((after != 0).then_some(number));
            }
        }
        if file == File::Database && size > 0 {
            // Trunks: the next one, a count, and that many leaves.
            let mut trunk = u32_at(32).unwrap_or(0);
            while trunk > 0 && pages.free.insert(trunk) {
                let at = (trunk - 1).saturating_mul(size);
                let count = u32_at(at.saturating_add(4)).unwrap_or(0).min(size / 4);
                pages.free.extend((0..count).filter_map(|i| u32_at(at + 8 + 4 * i)));
                trunk = u32_at(at).unwrap_or(0);
            }
        }
        pages
    }

    /// Page or frame number, from 1, and where the page begins.
    fn page_of(&self, at: usize) -> Option<(usize, usize)> {
        match self.file {
            _ if self.size == 0 => None,
            File::Database => Some((at / self.size + 1, at / self.size * self.size)),
            File::Wal => {
                let frame = at.checked_sub(Self::WAL_HEADER)? / (self.size + Self::FRAME_HEADER);
                let start = Self::WAL_HEADER
                    + frame * (self.size + Self::FRAME_HEADER)
                    + Self::FRAME_HEADER;
                Some((frame + 1, start))
            }
            File::Other => None,
        }
    }

    /// The bytes of a record of which its own page holds those up to `end`, and a chain of others
    /// the rest. Shorter than it should be where the chain breaks.
    fn payload(&self, row: &Row<'_>, end: usize) -> Zeroizing<Vec<u8>> {
        let len = (row.old_value.end - row.at).min(self.data.len());
        let here = self.data.get(row.at..end.max(row.at)).unwrap_or_default();
        // Never moved, which would leave copies behind.
        let mut payload = Zeroizing::new(Vec::with_capacity(len));
        payload.extend_from_slice(&here[..here.len().min(len)]);
        let Some((frame, _)) = self.page_of(row.at).filter(|_| payload.len() < len) else {
            return payload;
        };
        let mut link = end;
        // Every page of the chain adds something, so it ends.
        while payload.len() < len {
            let next = self.data.get(link..link + 4).and_then(|b| b.try_into().ok());
            let next = next.map_or(0, |b| u32::from_be_bytes(b) as usize);
            let start = if next == 0 { None } else { self.start_of(next, frame) };
            let Some(start) = start else { break };
            let Some(page) = self.data.get(start + 4..start + self.size) else { break };
            let missing = len - payload.len();
            payload.extend_from_slice(&page[..page.len().min(missing)]);
            link = start;
        }
        payload
    }

    /// Where a page begins; in a log, as the transaction of a frame saw it.
    fn start_of(&self, page: usize, frame: usize) -> Option<usize> {
        match self.file {
            File::Database => (page - 1).checked_mul(self.size),
            File::Wal => {
                let frame = frame - 1;
                let commit = self.commits.partition_point(|c| *c < frame);
                let last = self.commits.get(commit).copied().unwrap_or(usize::MAX);
                let images = self.frames.get(&page)?;
                let image = images[..images.partition_point(|f| *f <= last)].last()?;
                let at = image.checked_mul(self.size + Self::FRAME_HEADER)?;
                at.checked_add(Self::WAL_HEADER + Self::FRAME_HEADER)
            }
            File::Other => None,
        }
    }

    /// Where the part of a record ends that lies in its own page.
    fn end_of_payload(&self, row: &Row<'_>) -> usize {
        let Some((_, start)) = self.page_of(row.at) else {
            return self.data.len();
        };
        let page_end = (start + self.size).min(self.data.len());
        let payload = row.old_value.end - row.at;
        // kine reserves no bytes at the end of pages.
        let usable = self.size;
        let local = if payload <= usable - 35 {
            payload
        } else {
            let least = (usable - 12) * 32 / 255 - 23;
            let some = least + (payload - least) % (usable - 4);
            if some <= usable - 35 { some } else { least }
        };
        (row.at + local).min(page_end)
    }

    /// What kind of place, where, and whether a page in use lists the record as one of its own.
    fn describe(&self, name: &str, at: usize) -> (Place, String, bool) {
        let Some((page, start)) = self.page_of(at) else {
            return (Place::LeftoverFile, format!("{name} offset {at}"), false);
        };
        let active = self.is_cell(start, at);
        let offset = at.saturating_sub(start);
        match self.file {
            File::Wal => (Place::Wal, format!("{name} frame {page} offset {offset}"), active),
            _ if self.free.contains(&page) => {
                (Place::FreePage, format!("page {page} offset {offset}"), false)
            }
            _ => (Place::PageSlack, format!("page {page} offset {offset}"), active),
        }
    }

    /// Whether one of the page's cells has its record at `at`.
    fn is_cell(&self, start: usize, at: usize) -> bool {
        const LEAF: u8 = 0x0D;
        // The first page of the file begins with the file's header.
        let header = if self.file == File::Database && start == 0 { 100 } else { 0 };
        let Some(page) = self.data.get(start..(start + self.size).min(self.data.len())) else {
            return false;
        };
        let Some(head) = page.get(header..header + 8).filter(|h| h[0] == LEAF) else {
            return false;
        };
        let count = usize::from(u16::from_be_bytes([head[3], head[4]]));
        let pointers = page.get(header + 8..).unwrap_or_default();
        pointers.chunks_exact(2).take(count).any(|p| {
            let cell = usize::from(u16::from_be_bytes([p[0], p[1]]));
            let Some(mut rest) = page.get(cell..) else { return false };
            let before = rest.len();
            // Length of the payload, then the row's number.
            varint(&mut rest).and_then(|_| varint(&mut rest)).is_some()
                && start + cell + (before - rest.len()) == at
        })
    }
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

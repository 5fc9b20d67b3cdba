//! Guesses where a page of keys may end.
//!
//! etcd counts all keys of a range request however few it returns (etcd
//! `server/storage/mvcc/index.go`: `Revisions`), so pages that each ask for "everything from here"
//! cost a server time that grows with the square of the number of keys. A request that ends near
//! the page's last key does not. A wrong guess costs one more request and never an entry.

use crate::source::KeyRange;

/// Bytes of a key that are read as a number.
const WINDOW: usize = 8;
/// Empty pages in a row after which the guess is given up for one request.
const PATIENCE: u32 = 6;

/// How far ahead of a key the end of a page lies: `width` at the bytes after `offset`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stride {
    guess: Option<(usize, u64)>,
    empty: u32,
}

impl Stride {
    /// Where a page that begins at `range.start` should end; `None` is the range's own end.
    pub fn end(&self, range: &KeyRange) -> Option<Vec<u8>> {
        let (offset, width) = self.guess.filter(|_| self.empty < PATIENCE)?;
        let mut end = range.start.clone();
        end.resize(offset, 0);
        let prefix = end.clone();
        let end = match window(&range.start, offset).checked_add(width) {
            Some(at) => {
                end.extend_from_slice(&at.to_be_bytes());
                end
            }
            // Past all keys that begin alike.
            None => KeyRange::prefix(&prefix).end?,
        };
        let inside = range.end.as_ref().is_none_or(|last| end < *last);
        (end > range.start && inside).then_some(end)
    }

    /// Learns from a page of `entries` entries that was cut off at `limit` between two keys.
    pub fn cut(&mut self, first: &[u8], last: &[u8], entries: usize, limit: i64) {
        self.empty = 0;
        let offset = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let distance = window(last, offset).saturating_sub(window(first, offset));
        let wanted = u128::from(distance) * u128::try_from(limit).unwrap_or(1);
        let width = wanted / u128::try_from(entries.max(1)).unwrap_or(1);
        self.guess = Some((offset, u64::try_from(width).unwrap_or(u64::MAX).max(1)));
    }

    /// Learns from a page that reached its end with `entries` entries of `limit`.
    pub fn reached(&mut self, entries: usize, limit: i64) {
        self.empty = if entries == 0 { self.empty + 1 } else { 0 };
        let limit = usize::try_from(limit).unwrap_or(1);
        let bits = match entries {
            0 => 4,
            n if n < limit / 4 => 2,
            n if n < limit / 2 => 1,
            _ => return,
        };
        self.guess = self.guess.and_then(|(offset, width)| {
            if width.leading_zeros() >= bits {
                Some((offset, width << bits))
            } else {
                // The bytes after this place are passed as a whole: count at the one before.
                Some((offset.checked_sub(1)?, (width >> 8).max(1) << bits))
            }
        });
    }
}

fn window(key: &[u8], offset: usize) -> u64 {
    let mut bytes = [0; WINDOW];
    let rest = key.get(offset..).unwrap_or_default();
    let len = rest.len().min(WINDOW);
    bytes[..len].copy_from_slice(&rest[..len]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Walks `keys` as the reader does: keys seen in order, requests, keys that a server counts.
    fn walk(keys: &BTreeSet<Vec<u8>>, limit: usize) -> (Vec<Vec<u8>>, usize, usize) {
        let mut range = KeyRange::prefix(b"/registry/secrets/");
        let mut stride = Stride::default();
        let (mut seen, mut requests, mut counted) = (Vec::new(), 0, 0);
        let wanted = i64::try_from(limit).unwrap();
        loop {
            let bound = stride.end(&range);
            let end = bound.clone().or_else(|| range.end.clone()).unwrap();
            let all: Vec<_> = keys.range(range.start.clone()..end).cloned().collect();
            requests += 1;
            counted += all.len();
            assert!(requests < 10_000, "no progress");
            let page = &all[..all.len().min(limit)];
            seen.extend_from_slice(page);
            if all.len() > limit {
                stride.cut(&page[0], &page[limit - 1], limit, wanted);
                range.start.clone_from(&page[limit - 1]);
                range.start.push(0);
            } else if let Some(bound) = bound {
                stride.reached(page.len(), wanted);
                range.start = bound;
            } else {
                return (seen, requests, counted);
            }
        }
    }

    #[test]
    fn no_guess_loses_a_key_and_most_are_near() {
        let mut sets: Vec<BTreeSet<Vec<u8>>> = Vec::new();
        let numbered = |n: usize| {
            (0..n)
                .map(|i| format!("/registry/secrets/ns-{:03}/secret-{i:06}", i % 500).into_bytes())
        };
        sets.push(numbered(20_000).collect());
        // One large namespace between small ones with unlike names.
        let mut uneven: BTreeSet<Vec<u8>> = numbered(50).collect();
        for i in 0..10_000u64 {
            let name = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            uneven.insert(format!("/registry/secrets/big/{name:016x}").into_bytes());
            uneven.insert(format!("/registry/secrets/zz-{:05}/token", i % 3000).into_bytes());
        }
        sets.push(uneven);
        sets.push(["a", "b", "c"].map(|n| format!("/registry/secrets/{n}").into_bytes()).into());
        for keys in &sets {
            let (seen, requests, counted) = walk(keys, 500);
            assert_eq!(seen, keys.iter().cloned().collect::<Vec<_>>());
            let pages = keys.len() / 500 + 1;
            assert!(requests < 3 * pages + 40, "{requests} requests for {pages} pages");
            let naive = keys.len() * pages / 2;
            assert!(pages < 20 || counted < naive / 2, "{counted} counted, naively {naive}");
        }
    }
}

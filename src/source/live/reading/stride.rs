//! Guesses where a page of keys may end.
//!
//! etcd counts all keys of a range request however few it returns (etcd
//! `server/storage/mvcc/index.go`: `Revisions`), so pages that each ask for "everything from here"
//! cost a server time that grows with the square of the number of keys. A request that ends near
//! the page's last key does not. A wrong guess costs one more request and never an entry.
//!
//! Names count up in digits and letters, so a guess is the start of a key, counted up at one
//! place with the carries that people use: after `09` comes `10`.

use crate::source::KeyRange;

/// Empty pages in a row after which the guess is given up for one request.
const PATIENCE: u32 = 12;
/// Steps at one place before counting goes on at the one before.
const RADIX: u64 = 10;

/// How far ahead of a key the end of a page lies: that many steps at the byte at this offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stride {
    guess: Option<(usize, u64)>,
    empty: u32,
    number: u32,
    /// Where all pages end; empty for the end of all keys.
    last: Vec<u8>,
}

impl Stride {
    /// For the pages of `range`.
    pub fn new(range: &KeyRange) -> Self {
        Self { last: range.end.clone().unwrap_or_default(), ..Self::default() }
    }

    /// Whether there is a guess.
    pub fn is_known(&self) -> bool {
        self.guess.is_some()
    }

    /// Which guess this is: changes whenever the guess does.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Where a page that begins at `range.start` should end; `None` is the range's own end.
    pub fn end(&self, range: &KeyRange) -> Option<Vec<u8>> {
        let (offset, steps) = self.guess.filter(|_| self.empty < PATIENCE)?;
        let end = match range.start.split_last() {
            // Another guess ended before this place: it knew nothing of the names that follow.
            Some((last, before)) if before.len() < offset && *last != 0 => {
                ahead(&range.start, before.len(), 1)
            }
            _ => ahead(&range.start, offset, steps),
        }?;
        let inside = range.end.as_ref().is_none_or(|last| end < *last);
        (end > range.start && inside).then_some(end)
    }

    /// Learns from a page of `entries` entries that was cut off between two keys; pages should
    /// have `aim` entries.
    pub fn cut(&mut self, first: &[u8], last: &[u8], entries: u64, aim: u64) {
        self.empty = 0;
        let offset = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let place = |key: &[u8]| key.get(offset).map_or(0, |b| rank(*b));
        let passed = place(last).saturating_sub(place(first)).max(1);
        self.set(offset, passed.saturating_mul(aim) / entries.max(1));
    }

    /// Learns how many entries there are up to a guess, which ended at `end`.
    pub fn reached(&mut self, end: &[u8], entries: u64, aim: u64) {
        self.empty = if entries == 0 { self.empty + 1 } else { 0 };
        let Some((offset, steps)) = self.guess else { return };
        // Beyond this, one page's number says little.
        let wanted = match entries {
            0 if self.empty > 1 => return self.climb(end, offset),
            0 => steps * 8,
            n if n < aim / 2 => (steps * aim).div_ceil(n).min(steps * 4),
            n if n <= aim + aim / 2 => return,
            n if steps > 1 => steps * aim / n,
            // Half of the steps of the next place are often enough.
            n if n > 4 * aim => return self.set(offset + 1, RADIX * aim / n),
            _ => return,
        };
        self.set(offset, wanted);
    }

    /// Nothing followed, twice: probably the end of a namespace or of names of one kind. The next
    /// is found by counting up at the namespace's last place, then at places ever nearer to its
    /// first, each time half of the way.
    fn climb(&mut self, end: &[u8], offset: usize) {
        let Some(slash) = end.iter().take(offset + 1).rposition(|b| *b == b'/') else { return };
        // One further than the next name, so that it is within.
        let above = ahead(end, slash.saturating_sub(1), 2);
        if self.empty == 2 && above.is_some_and(|above| self.last.is_empty() || above < self.last) {
            return self.set(slash.saturating_sub(1), 2);
        }
        let inside = offset - slash;
        self.set(slash + inside.div_ceil(2), 2);
    }

    fn set(&mut self, mut offset: usize, mut steps: u64) {
        self.number += 1;
        while steps > RADIX && offset > 0 {
            offset -= 1;
            steps /= RADIX;
        }
        self.guess = Some((offset, steps.max(1)));
    }
}

/// Place of a byte among those that names are made of.
fn rank(byte: u8) -> u64 {
    u64::from(match byte {
        b'0'..=b'9' => byte - b'0' + 2,
        b'a'..=b'z' => byte - b'a' + 12,
        b'A'..=b'Z' => byte - b'A' + 12,
        0..b'0' => 1,
        _ => 38,
    })
}

/// The start of `key` counted up by `steps` at `offset`; `None` past all keys.
fn ahead(key: &[u8], offset: usize, mut steps: u64) -> Option<Vec<u8>> {
    let mut end = key.to_vec();
    // A key that ends before this place is followed by those with digits there.
    end.resize((offset + 1).max(end.len()), b'0');
    end.truncate(offset + 1);
    for index in (0..=offset).rev() {
        let byte = end.get_mut(index)?;
        let (first, radix) = match byte {
            b'0'..=b'9' => (b'0', 10),
            b'a'..=b'z' => (b'a', 26),
            b'A'..=b'Z' => (b'A', 26),
            255 => continue,
            _ => {
                *byte += 1;
                end.truncate(index + 1);
                return Some(end);
            }
        };
        let sum = u64::from(*byte - first) + steps;
        *byte = first + u8::try_from(sum % radix).ok()?;
        steps = sum / radix;
        if steps == 0 {
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Walks `keys` as the reader does, one page after the other: keys in order, requests, keys
    /// that a server counts.
    fn walk(keys: &BTreeSet<Vec<u8>>, aim: usize) -> (Vec<Vec<u8>>, usize, usize) {
        let (goal, limit) = (u64::try_from(aim).unwrap(), 2 * aim);
        let all = KeyRange::prefix(b"/registry/secrets/");
        let mut stride = Stride::new(&all);
        let (mut seen, mut requests, mut counted) = (Vec::new(), 0, 0);
        let mut parts = vec![(all, keys.len(), None)];
        while let Some((mut range, count, mut guess)) = parts.pop() {
            if count > limit
                && let Some(end) = stride.end(&range)
            {
                let rest = KeyRange { start: end.clone(), end: range.end.replace(end) };
                parts.push((rest, keys.len() - seen.len(), None));
                guess = Some(stride.number());
            }
            let end = range.end.clone().unwrap();
            let all: Vec<_> = keys.range(range.start..end.clone()).cloned().collect();
            requests += 1;
            counted += all.len();
            assert!(requests < 10_000, "no progress");
            let page = &all[..all.len().min(limit)];
            seen.extend_from_slice(page);
            if all.len() > limit {
                if guess.is_none() || all.len() > 4 * aim {
                    stride.cut(&page[0], &page[limit - 1], u64::try_from(limit).unwrap(), goal);
                }
                let start = [&page[limit - 1][..], &[0]].concat();
                let left = KeyRange { start, end: Some(end) };
                parts.push((left, all.len() - limit, None));
            } else if guess == Some(stride.number()) {
                stride.reached(&end, u64::try_from(all.len()).unwrap(), goal);
            }
        }
        (seen, requests, counted)
    }

    #[test]
    fn keys_are_counted_up_as_names_are() {
        let up = |key: &str, offset, steps| {
            ahead(key.as_bytes(), offset, steps).map(|k| String::from_utf8(k).unwrap())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(up("/ns-013/a", 5, 1), some("/ns-02"));
        assert_eq!(up("/ns-097/a", 5, 4), some("/ns-13"));
        assert_eq!(up("/ns-997/a", 5, 1), some("/ns."));
        assert_eq!(up("/az", 2, 1), some("/ba"));
        assert_eq!(up("/a", 4, 3), some("/a003"));
        assert_eq!(ahead(b"\xff\xff", 1, 1), None);
        assert_eq!(ahead(b"a\xff", 1, 1), Some(b"b\xff".to_vec()));
    }

    #[test]
    fn no_guess_loses_a_key_and_most_are_near() {
        let mut sets: Vec<BTreeSet<Vec<u8>>> = Vec::new();
        let numbered = |n: usize| {
            (0..n)
                .map(|i| format!("/registry/secrets/ns-{:03}/secret-{i:06}", i % 500).into_bytes())
        };
        sets.push(numbered(50_000).collect());
        let random = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // One large namespace between small ones with unlike names.
        let mut uneven: BTreeSet<Vec<u8>> = numbered(50).collect();
        for i in 0..20_000u64 {
            uneven.insert(format!("/registry/secrets/big/{:016x}", random(i)).into_bytes());
            uneven.insert(format!("/registry/secrets/zz-{:05}/token", i % 3000).into_bytes());
        }
        sets.push(uneven);
        // Namespaces of several pages each, numbered ones and others.
        let wide = |namespaces: u64, ns: &dyn Fn(u64) -> String| {
            let key = |i: u64| format!("/registry/secrets/{}/secret-{i:07}", ns(i % namespaces));
            (0..200_000).map(|i| key(i).into_bytes()).collect::<BTreeSet<_>>()
        };
        sets.push(wide(40, &|ns| format!("ns-{ns:03}")));
        sets.push(wide(130, &|ns| format!("ns-{ns:03}")));
        sets.push(wide(40, &|ns| format!("{:x}", random(ns + 1))));
        sets.push(wide(40, &|ns| {
            let team = ["payments", "shop", "logistics", "data-platform", "a"][(ns % 5) as usize];
            format!("{team}-{}-{}", ["prod", "test"][(ns / 5 % 2) as usize], random(ns) % 1000)
        }));
        // Namespaces of every size with long names.
        let mut long = BTreeSet::new();
        for i in 0..30_000u64 {
            let n = random(i) >> 40;
            let ns = 63 - (n | 1).leading_zeros().min(62);
            let key =
                format!("/registry/secrets/team-{ns}/sh.helm.release.v1.application-{n}.v{i}");
            long.insert(key.into_bytes());
        }
        sets.push(long);
        let binary = |i: u64| [b"/registry/secrets/", &random(i).to_be_bytes()[..]].concat();
        sets.push((0..30_000).map(binary).collect());
        sets.push(["a", "b", "c"].map(|n| format!("/registry/secrets/{n}").into_bytes()).into());
        for (set, keys) in sets.iter().enumerate() {
            let (seen, requests, counted) = walk(keys, 500);
            assert_eq!(seen, keys.iter().cloned().collect::<Vec<_>>());
            let pages = keys.len() / 500 + 1;
            assert!(requests < 2 * pages + 10, "set {set}: {requests} requests, {pages} pages");
            // Of keys that are no names, only order is expected.
            let most = if set == 7 { keys.len() * pages } else { 7 * keys.len() };
            assert!(counted < most, "set {set}: {counted} counted of {} keys", keys.len());
        }
    }
}

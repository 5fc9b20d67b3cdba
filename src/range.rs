//! Ranges of etcd keys.

/// A half-open range of etcd keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key, inclusive.
    pub start: Vec<u8>,
    /// End, exclusive; `None` is "to the last key".
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys that begin with `prefix` (etcd `client/v3/op.go`: `getPrefix`).
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.last_mut() {
            if *last < 0xFF {
                *last += 1;
                return Self { start: prefix.to_vec(), end: Some(end) };
            }
            end.pop();
        }
        Self { start: prefix.to_vec(), end: None }
    }

    /// The prefix that all keys in the range and no others begin with, if there is one.
    #[must_use]
    pub fn as_prefix(&self) -> Option<&[u8]> {
        (*self == Self::prefix(&self.start)).then_some(&self.start)
    }

    /// Exactly one key.
    #[must_use]
    pub fn single(key: &[u8]) -> Self {
        let mut end = key.to_vec();
        end.push(0);
        Self { start: key.to_vec(), end: Some(end) }
    }

    /// What both ranges hold; `None` for nothing.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let start = self.start.clone().max(other.start.clone());
        let end = match (&self.end, &other.end) {
            (Some(a), Some(b)) => Some(a.clone().min(b.clone())),
            (Some(e), None) | (None, Some(e)) => Some(e.clone()),
            (None, None) => None,
        };
        end.as_ref().is_none_or(|end| start < *end).then_some(Self { start, end })
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.end.as_deref().is_none_or(|end| key < end)
    }
}

/// Sorts ranges and joins those that touch or overlap, so that no entry is read twice.
#[must_use]
pub fn merge_ranges(mut ranges: Vec<KeyRange>) -> Vec<KeyRange> {
    ranges.sort_by(|a, b| a.start.cmp(&b.start));
    let mut merged: Vec<KeyRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end.as_deref().is_none_or(|end| range.start.as_slice() <= end) => {
                if last.end.is_some() && (range.end.is_none() || range.end > last.end) {
                    last.end = range.end;
                }
            }
            _ => merged.push(range),
        }
    }
    merged
}

//! A part of a listing, the same in every run: which one a location belongs to is in its name
//! alone, so that what comes or goes meanwhile moves nothing else to another part.

use std::fmt;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// One of several parts, counted from 0 as the pods of an indexed Job are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    of: u32,
}

impl Shard {
    /// `None` unless `index` is below `of`.
    #[must_use]
    pub fn new(index: u32, of: u32) -> Option<Self> {
        (index < of).then_some(Self { index, of })
    }

    /// Which part, from 0.
    #[must_use]
    pub fn index(self) -> u32 {
        self.index
    }

    /// How many there are.
    #[must_use]
    pub fn of(self) -> u32 {
        self.of
    }

    /// Whether a location belongs to it.
    #[must_use]
    pub fn takes(self, location: &Path) -> bool {
        let digest = Sha256::digest(location.as_os_str().as_encoded_bytes());
        let number = digest.iter().take(8).fold(0u64, |n, byte| n << 8 | u64::from(*byte));
        number % u64::from(self.of) == u64::from(self.index)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_location_is_in_one_part_and_no_part_is_empty() {
        let parts: Vec<_> = (0..3).map(|i| Shard::new(i, 3).unwrap()).collect();
        let mut sizes = [0; 3];
        for n in 0..200 {
            let path = format!("s3://bucket/etcd/snapshot-{n}");
            let taking: Vec<_> =
                parts.iter().filter(|p| p.takes(Path::new(&path))).map(|p| p.index()).collect();
            let [one] = taking[..] else { panic!("{path}: {taking:?}") };
            sizes[one as usize] += 1;
        }
        assert!(sizes.iter().all(|n| (40..100).contains(n)), "{sizes:?}");
        assert!(Shard::new(0, 1).unwrap().takes(Path::new("/any")));
        assert_eq!((Shard::new(3, 3), Shard::new(0, 0)), (None, None));
    }
}

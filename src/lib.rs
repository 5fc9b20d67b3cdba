//! `atrest` tells the truth about Kubernetes encryption at rest in etcd, and acts on it.
//!
//! The rooms, what each knows and which it calls: `docs/architecture.md`. Data flows one way:
//! entries come from a [`source`], [`envelope`] tells how each value is stored, [`transform`]
//! reads it with the keys of a [`config`], [`storage`] turns it into an object; [`scan`],
//! [`export`], [`forensics`] and [`migrate`] are made of that.
//!
//! A snapshot, scanned by the prefixes of its values:
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use atrest::resource::{Scope, Selector};
//! use atrest::scan::{Counts, Judged};
//! use atrest::source::snapshot::{Snapshot, SnapshotOptions};
//! use atrest::source::{Query, Source as _};
//!
//! # fn scan(file: &std::path::Path) -> Result<Counts, Box<dyn std::error::Error>> {
//! let scope = Scope::new("/registry");
//! let ranges = scope.ranges(&[Selector::parse("secrets")?]);
//! let query = Query { ranges, revision: None, ordered: false };
//! let mut counts = Counts::default();
//! let visit = Snapshot::open(file, &SnapshotOptions::default())?.visit(&query, &mut |entry| {
//!     let resource = scope.locate(entry.key).resource;
//!     counts.add(&resource, &Judged::by_prefix(entry.stored(), []), entry.stored().len() as u64);
//!     ControlFlow::Continue(())
//! })?;
//! assert!(visit.damage.is_empty(), "a count of what could be read is no count of all");
//! for (group, tally) in counts.groups() {
//!     println!("{} {}: {}", group.resource, group.provider, tally.entries);
//! }
//! # Ok(counts)
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #     let packed = std::fs::read("fixtures/corpus/p6-mixed.db.zst")?;
//! #     let file = tempfile::NamedTempFile::new()?;
//! #     std::fs::write(file.path(), zstd::decode_all(&*packed)?)?;
//! #     assert!(scan(file.path())?.totals().entries > 0);
//! #     Ok(())
//! # }
//! ```

#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "live")]
pub mod apiserver;
pub mod bolt;
pub mod chain;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod entry;
pub mod envelope;
pub mod export;
#[cfg(feature = "cli")]
pub mod exporter;
pub mod forensics;
pub mod hex;
pub mod jobs;
pub mod kms;
pub mod migrate;
pub mod mvcc;
pub mod objects;
pub mod pasted;
#[cfg(feature = "cli")]
pub mod posture;
pub mod profile;
pub mod proto;
mod random;
pub mod range;
#[cfg(feature = "remote")]
pub mod remote;
pub mod report;
pub mod resource;
pub mod restore;
pub mod scan;
pub mod secret;
#[cfg(feature = "cli")]
pub mod serve;
pub mod source;
pub mod storage;
pub mod temporary;
pub mod transform;
pub mod visible;
pub mod wal;
mod yaml_tree;

#[cfg(test)]
mod testing {
    use proptest::test_runner::Config;

    /// As many cases as are worth it in every run of the tests; `PROPTEST_CASES` asks for more in
    /// proportion to its default of 256.
    pub fn cases(few: u32) -> Config {
        let config = Config::default();
        Config { cases: few * config.cases.div_ceil(256), ..config }
    }
}

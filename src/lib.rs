//! `atrest` tells the truth about Kubernetes encryption at rest in etcd, and acts on it.
//!
//! The rooms, what each knows and which it calls: `docs/architecture.md`. Data flows one way:
//! entries come from a [`source`], [`envelope`] tells how each value is stored, [`transform`]
//! reads it with the keys of a [`config`], [`storage`] turns it into an object; [`scan`],
//! [`export`], [`forensics`] and [`migrate`] are made of that.
//!
//! What the program can do is in [`jobs`]: options, an open source and an observer in, an outcome
//! back. A snapshot, scanned by the prefixes of its values:
//!
//! ```
//! use atrest::jobs::{Silent, scan};
//! use atrest::resource::Sought;
//! use atrest::scan::Counts;
//! use atrest::source::snapshot::{Snapshot, SnapshotOptions};
//! use atrest::{Scope, Selection, Selector};
//!
//! # fn scan(file: &std::path::Path) -> Result<Counts, Box<dyn std::error::Error>> {
//! let selection = Selection {
//!     scope: Scope::new("/registry"),
//!     resources: vec![Selector::parse("secrets")?],
//!     namespaces: Vec::new(),
//! };
//! let options = scan::Options {
//!     selection: &selection,
//!     sought: Sought::new(&selection, true),
//!     revision: None,
//!     transformers: None,
//!     verify: false,
//!     list: false,
//! };
//! let mut snapshot = Snapshot::open(file, &SnapshotOptions::default())?;
//! let outcome = scan::run(&mut snapshot, &options, &mut Silent)?;
//! assert!(outcome.visit.damage.is_empty(), "a count of what could be read is no count of all");
//! for (group, tally) in outcome.counts.groups() {
//!     println!("{} {}: {}", group.resource, group.provider, tally.entries);
//! }
//! # Ok(outcome.counts)
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

pub mod agefile;
#[cfg(feature = "live")]
#[doc(hidden)]
pub mod apiserver;
pub mod archive;
#[doc(hidden)]
pub mod bolt;
#[doc(hidden)]
pub mod certificate;
#[doc(hidden)]
pub mod chain;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod config;
pub mod entry;
pub mod envelope;
pub mod export;
#[cfg(feature = "cli")]
mod exporter;
pub mod forensics;
#[doc(hidden)]
pub mod hex;
pub mod jobs;
pub mod kms;
pub mod migrate;
#[doc(hidden)]
pub mod mvcc;
pub mod objects;
#[cfg(feature = "cli")]
mod pasted;
#[cfg(feature = "cli")]
mod posture;
pub mod profile;
#[doc(hidden)]
pub mod proto;
mod random;
pub mod range;
#[cfg(feature = "remote")]
#[doc(hidden)]
pub mod remote;
#[cfg(feature = "cli")]
mod report;
pub mod resource;
pub mod restore;
pub mod scan;
pub mod secret;
#[cfg(feature = "cli")]
mod serve;
pub mod source;
pub mod storage;
pub mod temporary;
pub mod transform;
#[doc(hidden)]
pub mod visible;
#[doc(hidden)]
pub mod wal;
mod yaml_tree;

// The front door: what most programs begin with. Rooms that are hidden are for the tests.
pub use config::{ConfigSet, EncryptionConfig};
pub use entry::{Entry, EntryRef};
pub use envelope::Envelope;
pub use jobs::{Observer, Silent};
pub use objects::{Hollow, NotShown, Objects, Shown};
#[cfg(feature = "cli")]
pub use posture::Posture;
pub use range::KeyRange;
pub use resource::{Scope, Selection, Selector};
pub use source::{Query, Source, SourceError};
pub use transform::Transformers;

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

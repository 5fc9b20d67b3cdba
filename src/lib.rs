//! `atrest` tells the truth about Kubernetes encryption at rest in etcd, and acts on it.
//!
//! Data flows one way; calls go down this line only:
//!
//! ```text
//! source → entry → envelope → transform → storage → scan / export / migrate / forensics → report
//! ```
//!
//! | room | what it knows |
//! | --- | --- |
//! | [`source`] | where entries come from: etcd, snapshot, data directory, kine |
//! | [`bolt`], [`mvcc`] | bbolt pages; etcd's key space in them |
//! | [`wal`] | etcd's write-ahead log and what its requests do |
//! | [`entry`] | one stored entry: exact bytes and revisions |
//! | [`resource`] | etcd key ↔ resource, namespace, name |
//! | [`pasted`] | what people copy out of other tools → stored bytes |
//! | [`envelope`] | value prefix → provider, version, key name |
//! | [`config`] | `EncryptionConfiguration`: validation, which providers serve a resource |
//! | [`kms`] | KMS plugins: unwrapping data keys |
//! | [`transform`] | decrypting and encrypting values; providers in order, staleness |
//! | [`secret`] | key material and plaintext: wiped, without `Debug` |
//! | [`temporary`] | files of them that go when the program ends, however it does |
//! | [`profile`] | an API server's manifest → where it keeps its objects |
//! | [`proto`] | bounded protobuf wire reading |
//! | [`storage`] | decrypted bytes ↔ objects as kubectl prints them |
//! | [`restore`] | objects → what an empty cluster accepts, in what order |
//! | [`scan`] | entries → counts and findings |
//! | [`report`] | findings → table, JSON, CSV, Prometheus |
//! | [`jobs`] | what the program can do: options → outcome, told to an observer |
//! | `cli` | the only room that prints, prompts or reads the environment |
//!
//! `envelope`, `config`, `transform`, `storage`, `bolt`, `mvcc` and `wal` are synchronous and
//! pure. tokio appears in `cli`, `source::live`, `kms` and `migrate` only.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod bolt;
pub mod cli;
pub mod config;
pub mod entry;
pub mod envelope;
pub mod export;
pub mod forensics;
pub mod jobs;
pub mod kms;
pub mod migrate;
pub mod mvcc;
pub mod pasted;
pub mod profile;
pub mod proto;
pub mod report;
pub mod resource;
pub mod restore;
pub mod scan;
pub mod secret;
pub mod source;
pub mod storage;
pub mod temporary;
pub mod transform;
pub mod wal;

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

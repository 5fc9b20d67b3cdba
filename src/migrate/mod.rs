//! Re-encryption: of a live etcd, and of snapshot files.

pub mod rewrite;

//! Re-encryption: of a live etcd, and of snapshot files.

pub mod apply;
pub mod plan;
pub mod rewrite;
pub mod servers;
pub mod throttle;

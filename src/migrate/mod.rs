//! Re-encryption: of a live etcd, and of snapshot files.

#[cfg(feature = "live")]
pub mod apply;
#[cfg(feature = "live")]
pub mod followed;
pub mod latest;
pub mod plan;
pub mod rewrite;
pub mod servers;
#[cfg(feature = "live")]
pub mod throttle;
#[cfg(feature = "live")]
pub mod via_api;

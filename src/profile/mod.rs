//! What an API server was told about its storage: flags of a static pod, or `OpenShift`'s
//! configuration file. Pure: texts go in, names of files come out.

mod mounts;
mod server;

pub use mounts::Mounts;
pub use server::{ApiServer, ManifestError, Rancher, openshift_config, pod, rancher_config};

#[cfg(test)]
mod tests;

//! What an API server was told about its storage, and where its distribution keeps that: flags of
//! pods and processes, settings of k3s and RKE2, units, argument files.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `find` | each distribution's places, and what counts where they differ |
//! | `rancher` | the settings of k3s and RKE2, in the order in which they count |
//! | `server` | manifests and flags of a kube-apiserver |
//! | `flags`, `shell` | flags of a command line; a shell's line as a shell takes it apart |
//! | `mounts` | from a path in a container to the path on its host |
//! | `process`, `unit` | what runs, by `/proc`; what systemd starts |
//! | `host` | files of a machine or of its mounted disk |

mod find;
mod flags;
mod found;
mod host;
mod mounts;
mod places;
mod process;
mod rancher;
mod server;
mod shell;
mod unit;

pub use find::{find, present};
pub use flags::Flags;
pub use found::{Datastore, Found, Setting, Sourced};
pub use host::{Host, ProfileError};
pub use mounts::Mounts;
pub use places::Distribution;
pub use process::{Process, running};
pub use server::{ApiServer, ManifestError, Override, openshift_config, pod, program};

pub use shell::words as shell_words;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_find;

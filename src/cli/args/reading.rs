//! With what values are read.

use std::path::PathBuf;

use clap::Args;

use super::{Group, Shared};

/// Configurations to judge by and to decrypt with.
#[derive(Clone, Debug, Args)]
pub struct Reading {
    /// `EncryptionConfiguration`; the first decides what is current, all are tried for reading
    #[arg(long, value_name = "FILE", help_heading = "Reading")]
    encryption_config: Vec<PathBuf>,
}

impl Group for Reading {
    fn put(&self, shared: &mut Shared) {
        shared.encryption_config.clone_from(&self.encryption_config);
    }
}

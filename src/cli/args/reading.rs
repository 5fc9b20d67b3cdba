//! With what values are read.

use std::path::PathBuf;

use clap::Args;

use super::{Group, Hidden, Shared};
use crate::cli::inside;

/// Configurations to judge by and to decrypt with.
#[derive(Clone, Debug, Args)]
pub struct Reading {
    /// `EncryptionConfiguration`, or what holds one; the first decides what is current, all are
    /// tried for reading
    ///
    /// The file itself, a Secret or config map, RKE's cluster.rkestate or cluster.yml, a Talos
    /// machine configuration or secrets.yaml, a tar archive with one of these inside, or
    /// etcd:NAMESPACE/NAME for a Secret or config map in the source itself.
    #[arg(long, value_name = "FILE", help_heading = "Reading")]
    encryption_config: Vec<PathBuf>,
}

impl Group for Reading {
    fn put(&self, shared: &mut Shared) {
        shared.encryption_config.clone_from(&self.encryption_config);
    }
}

/// Configurations, those that lie in the source among them.
#[derive(Clone, Debug, Args)]
pub struct ReadingInside {
    #[command(flatten)]
    reading: Reading,

    /// k3s and RKE2: the server token, which opens the configuration that the source itself holds
    #[arg(long, value_name = "TOKEN", help_heading = "Reading")]
    token: Option<Hidden>,

    /// As --token, from a file such as /var/lib/rancher/k3s/server/token
    #[arg(long, value_name = "FILE", help_heading = "Reading", conflicts_with = "token")]
    token_file: Option<PathBuf>,
}

impl Group for ReadingInside {
    fn put(&self, shared: &mut Shared) {
        self.reading.put(shared);
        shared.token.clone_from(&self.token);
        shared.token_file.clone_from(&self.token_file);
        let bootstrap = PathBuf::from(inside::BOOTSTRAP);
        let given = self.token.is_some() || self.token_file.is_some();
        if given && !shared.encryption_config.contains(&bootstrap) {
            shared.encryption_config.push(bootstrap);
        }
    }
}

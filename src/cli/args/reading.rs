//! With what values are read.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Group, Hidden, Shared};
use crate::cli::{duration, inside};

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

/// Configurations to decrypt with.
#[derive(Clone, Debug, Args)]
pub struct Decrypting {
    #[command(flatten)]
    reading: Reading,

    #[command(flatten)]
    unwrapping: Unwrapping,
}

impl Group for Decrypting {
    fn put(&self, shared: &mut Shared) {
        self.reading.put(shared);
        self.unwrapping.put(shared);
    }
}

/// What unwraps data keys where KMS plugins are not asked.
#[derive(Clone, Debug, Args)]
struct Unwrapping {
    /// Unwrap data keys of the KMS provider NAME with a shell's command, not its plugin: wrapped
    /// key on stdin, key on stdout (repeatable)
    #[arg(long, value_name = "NAME=COMMAND", value_parser = kms_exec, help_heading = "Reading")]
    kms_exec: Vec<KmsExec>,

    /// How long one run of --kms-exec may take [default: the timeout of the configuration]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "kms_exec", help_heading = "Reading")]
    kms_timeout: Option<Duration>,

    /// Take data keys from what `kms escrow` wrote, where it has them, and ask nobody for these
    /// (repeatable)
    #[arg(long, value_name = "FILE", requires = "identity", help_heading = "Reading")]
    kms_escrow: Vec<PathBuf>,

    #[command(flatten)]
    identities: Identities,
}

impl Group for Unwrapping {
    fn put(&self, shared: &mut Shared) {
        shared.kms_exec.clone_from(&self.kms_exec);
        shared.kms_timeout = self.kms_timeout;
        shared.kms_escrow.clone_from(&self.kms_escrow);
        self.identities.put(shared);
    }
}

/// What opens files that age encrypted.
#[derive(Clone, Debug, Args)]
pub struct Identities {
    /// age identity that opens an encrypted backup, or --kms-escrow, as `age-keygen` writes it
    /// (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "Reading")]
    identity: Vec<PathBuf>,
}

impl Group for Identities {
    fn put(&self, shared: &mut Shared) {
        shared.identity.clone_from(&self.identity);
    }
}

/// `--kms-exec NAME=COMMAND`
#[derive(Clone, Debug)]
pub struct KmsExec {
    /// The KMS provider's name.
    pub name: String,
    /// The command, as a shell takes it.
    pub command: String,
}

fn kms_exec(text: &str) -> Result<KmsExec, &'static str> {
    let (name, command) = text.split_once('=').ok_or("write NAME='command …'")?;
    if name.is_empty() || command.trim().is_empty() {
        return Err("write NAME='command …'");
    }
    Ok(KmsExec { name: name.to_owned(), command: command.to_owned() })
}

/// Configurations to decrypt with, those that lie in the source among them.
#[derive(Clone, Debug, Args)]
pub struct ReadingInside {
    #[command(flatten)]
    reading: Decrypting,

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

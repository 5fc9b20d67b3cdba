//! `atrest kms`: do the plugins answer, what depends on their keys, and what to keep for the day
//! that one is gone.

mod check;

use super::Ctx;
use super::args::Shared;
use super::failure::{Exit, Failure};

/// `kms` and its subcommands.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Ask every KMS plugin of the configuration for its health, its key and a round trip
    Check(check::Args),
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        match &self.command {
            Command::Check(args) => args.shared(),
        }
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        Command::Check(args) => check::run(ctx, args),
    }
}

//! `atrest kms`: do the plugins answer, what depends on their keys, and what to keep for the day
//! that one is gone.

mod check;
mod escrow;
mod needs;

use super::args::Shared;
use super::failure::{Exit, Failure};
use super::{Ctx, inside, nothing, open};
use crate::config::ConfigSet;
use crate::jobs::kms::uses::Reading;
use crate::resource::{Selection, Selector};
use crate::source::Source;

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
    /// Count what depends on which KMS key and data key, and say what breaks without it
    Needs(needs::Args),
    /// Keep the unwrapped data keys in a file, encrypted to age recipients, for the day when the
    /// KMS key is gone
    Escrow(escrow::Args),
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        match &self.command {
            Command::Check(args) => args.shared(),
            Command::Needs(args) => args.shared(),
            Command::Escrow(args) => args.shared(),
        }
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        Command::Check(args) => check::run(ctx, args),
        Command::Needs(args) => needs::run(ctx, args),
        Command::Escrow(args) => escrow::run(ctx, args),
    }
}

/// The configurations that say which plugins there are.
fn configured(ctx: &Ctx) -> Result<ConfigSet, Failure> {
    inside::configs(ctx)?.ok_or_else(|| {
        Failure::usage("no configuration says which KMS plugins there are")
            .hint("give it with --encryption-config FILE or --profile")
    })
}

/// What these commands read: a plugin is needed for whatever it encrypted.
fn everything(ctx: &Ctx) -> Selection {
    Selection { scope: open::scope(ctx), resources: vec![Selector::All], namespaces: Vec::new() }
}

/// Whether anything lies where was looked.
fn is_there(
    ctx: &Ctx,
    source: &mut dyn Source,
    selection: &Selection,
    reading: &Reading,
) -> Result<(), Failure> {
    if reading.any {
        return Ok(());
    }
    nothing::check(ctx, source, selection, &nothing::sought(ctx, selection))
}

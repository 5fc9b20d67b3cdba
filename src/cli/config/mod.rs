//! `atrest config`: validate a configuration, say which provider serves a resource, create one,
//! produce the next step of a key rotation.

mod check;
mod explain;
mod new;
pub mod rotate;
pub mod write;

use super::Ctx;
use super::args::Shared;
use super::failure::{Exit, Failure};

/// `config` and its subcommands.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Validate a configuration with the API server's own rules
    Check(check::Args),
    /// Say which entry serves a resource, what it writes with and what it can read
    Explain(explain::Args),
    /// Create a configuration with a fresh key, in a file that only you can read
    New(new::Args),
    /// Write the next file of a key rotation; comments and formatting stay
    Rotate(Box<rotate::Args>),
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        match &self.command {
            Command::Check(args) => args.shared(),
            Command::Explain(args) => args.shared(),
            Command::New(args) => args.shared(),
            Command::Rotate(args) => args.shared(),
        }
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        Command::Check(args) => check::run(ctx, args),
        Command::Explain(args) => explain::run(ctx, args),
        Command::New(args) => new::run(ctx, args),
        Command::Rotate(args) => rotate::run(ctx, args),
    }
}

/// Writes a JSON document to stdout.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    use std::io::Write as _;
    super::ui::print(|out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        writeln!(out)
    })
}

/// Writes text to stdout.
fn print_text(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    super::ui::print(|out| out.write_all(text.as_bytes()))
}

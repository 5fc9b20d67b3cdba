//! `atrest scan`.

use super::Ctx;
use super::failure::{Exit, Failure};
use super::open::{self, Selection};

/// Options of `scan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One row per entry
    #[arg(long)]
    pub list: bool,
}

/// Runs the command.
pub fn run(ctx: &Ctx, _args: &Args) -> Result<Exit, Failure> {
    let _selection = Selection::new(ctx, None)?;
    let _source = open::source(ctx)?;
    Ok(Exit::Ok)
}

//! `atrest completion`.

use clap_complete::Shell;

use super::failure::{Exit, Failure};
use super::ui;

/// Options of `completion`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell to write a completion script for
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "atrest", &mut script);
    ui::print(|out| std::io::Write::write_all(out, &script))?;
    Ok(Exit::Ok)
}

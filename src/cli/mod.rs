//! The only room that prints, prompts or reads the environment.

pub mod args;
pub mod duration;
pub mod failure;
pub mod open;
pub mod ui;

mod scan;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use args::Global;
use failure::{Exit, Failure};
use ui::Ui;

/// Tells the truth about Kubernetes encryption at rest in etcd, and acts on it.
#[derive(Debug, Parser)]
#[command(name = "atrest", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report how every entry is stored: plaintext, or under which provider and key
    Scan(scan::Args),
}

/// What every command gets.
pub struct Ctx {
    /// The options that all commands share.
    pub global: Global,
    /// Where messages and results go.
    pub ui: Ui,
}

/// The command line as clap sees it, for completions, the manual page and tests.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the process's arguments.
#[must_use]
pub fn run() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(e) => return usage(&e),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    let ui = Ui::new(&cli.global);
    let mut ctx = Ctx { global: cli.global, ui };
    let result = dispatch(&mut ctx, cli.command);
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            ctx.ui.failure(&failure);
            failure.exit.into()
        }
    }
}

fn dispatch(ctx: &mut Ctx, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Scan(args) => scan::run(ctx, &args),
    }
}

/// clap prints `error: …` itself and exits 2; help and version exit 0.
fn usage(e: &clap::Error) -> ExitCode {
    // Nothing is left to report to when the terminal itself is gone.
    let _ = e.print();
    if e.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() }
}

//! The only room that prints, prompts or reads the environment.

pub mod args;
pub mod config;
pub mod duration;
pub mod failure;
pub mod interrupt;
pub mod observer;
pub mod open;
pub mod profile;
pub mod progress;
pub mod target;
pub mod ui;

mod completion;
mod decode;
mod encode;
mod export;
mod get;
mod history;
mod keys;
mod man;
mod migrate;
mod object;
mod residue;
mod rewrite;
mod scan;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use args::Global;
use failure::{Exit, Failure};
use ui::Ui;

/// Tells the truth about Kubernetes encryption at rest in etcd, and acts on it.
#[derive(Debug, Parser)]
#[command(name = "atrest", version, long_version = LONG_VERSION, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What `--version` says; `-V` says the first line's number alone.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("ATREST_COMMIT"),
    "\ndate: ",
    env!("ATREST_COMMIT_DATE"),
    "\ntarget: ",
    env!("ATREST_TARGET"),
    "\nfeatures: ",
    env!("ATREST_FEATURES"),
);

#[derive(Debug, Subcommand)]
enum Command {
    /// Report how every entry is stored: plaintext, or under which provider and key
    Scan(scan::Args),
    /// Show entries as objects, decrypted with the configuration
    Get(get::Args),
    /// Show a stored value from stdin as an object
    Decode(decode::Args),
    /// Turn a manifest into the bytes that etcd holds, encrypted with the configuration
    Encode(encode::Args),
    /// Decrypt and write objects as manifests for `kubectl apply`
    Export(export::Args),
    /// Write a snapshot file anew, with other encryption
    Rewrite(rewrite::Args),
    /// List every revision of a key or prefix that is still held, deletions included
    History(history::Args),
    /// Count what each key is needed for, and say whether it may leave the configuration
    Keys(keys::Args),
    /// Re-encrypt what is not stored as the configuration says; without --apply, only a plan
    Migrate(migrate::Args),
    /// Find plaintext that still lies outside the live state, and say what removes it
    Residue(residue::Args),
    /// Validate, explain, create and rotate encryption configurations
    Config(config::Args),
    /// Write a completion script for a shell
    Completion(completion::Args),
    /// Write the manual page
    Man(man::Args),
    /// Print the version, as --version does
    Version,
}

/// Which options stood on the command line, as opposed to the environment.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // each is one option
pub struct Given {
    /// `--endpoints`
    pub endpoints: bool,
    /// `--cacert`
    pub cacert: bool,
    /// `--cert`
    pub cert: bool,
    /// `--key`, which `decode` takes as the etcd key
    pub key: bool,
}

impl Given {
    fn new(matches: &clap::ArgMatches) -> Self {
        let inner = matches.subcommand().map(|(_, m)| m);
        let given = |id: &str| {
            [Some(matches), inner]
                .into_iter()
                .flatten()
                .any(|m| m.value_source(id) == Some(clap::parser::ValueSource::CommandLine))
        };
        Self {
            endpoints: given("endpoints"),
            cacert: given("cacert"),
            cert: given("cert"),
            key: given("key"),
        }
    }
}

/// What every command gets.
pub struct Ctx {
    /// Which options stood on the command line.
    pub given: Given,
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
    // As in etcdctl, a variable that is set to nothing is not set.
    let command = command().mut_args(|arg| match arg.get_env() {
        Some(name) if std::env::var_os(name).is_some_and(|v| v.is_empty()) => {
            arg.env(None::<&'static str>)
        }
        _ => arg,
    });
    let matches = match command.try_get_matches() {
        Ok(matches) => matches,
        Err(e) => return usage(&e),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    interrupt::watch();
    let ui = Ui::new(&cli.global);
    let given = Given::new(&matches);
    let mut ctx = Ctx { global: cli.global, given, ui };
    // What is only generated has nothing to do with this machine.
    let profile =
        !matches!(cli.command, Command::Completion(_) | Command::Man(_) | Command::Version);
    let result = one_source(&ctx)
        .and_then(|()| if profile { profile::apply(&mut ctx) } else { Ok(()) })
        .and_then(|()| dispatch(&mut ctx, cli.command));
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
        Command::Get(args) => get::run(ctx, &args),
        Command::Decode(args) => decode::run(ctx, &args),
        Command::Encode(args) => encode::run(ctx, &args),
        Command::Export(args) => export::run(ctx, &args),
        Command::Rewrite(args) => rewrite::run(ctx, &args),
        Command::History(args) => history::run(ctx, &args),
        Command::Keys(args) => keys::run(ctx, &args),
        Command::Migrate(args) => migrate::run(ctx, &args),
        Command::Residue(args) => residue::run(ctx, &args),
        Command::Config(args) => config::run(ctx, &args),
        Command::Completion(args) => completion::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Version => {
            ui::print(|out| writeln!(out, "atrest {LONG_VERSION}"))?;
            Ok(Exit::Ok)
        }
    }
}

/// A file and a server at once is a mistake, but an endpoint in the environment is no request.
fn one_source(ctx: &Ctx) -> Result<(), Failure> {
    let g = &ctx.global;
    if g.snapshot.as_deref().is_some_and(|p| p.as_os_str() == "-") {
        return Err(Failure::usage("--snapshot does not read stdin")
            .hint("save it to a file first; the pages of a database are not read in order"));
    }
    let file = g.snapshot.is_some() || g.data_dir.is_some() || g.kine.is_some();
    if ctx.given.endpoints && file {
        return Err(Failure::usage(
            "--endpoints cannot be used together with --snapshot, --data-dir or --kine",
        ));
    }
    Ok(())
}

/// Every part of a source that could not be read, on stderr.
fn report_damage(ctx: &Ctx, damage: &[crate::source::Damage]) {
    for d in damage {
        ctx.ui.warn(&format!("cannot read {}: {}", d.location, d.what));
    }
}

/// clap prints `error: …` itself and exits 2; help and version exit 0, if anyone gets them.
fn usage(e: &clap::Error) -> ExitCode {
    match e.print() {
        _ if e.use_stderr() => Exit::Usage.into(),
        Ok(()) => Exit::Ok.into(),
        Err(_) => Exit::Failed.into(),
    }
}

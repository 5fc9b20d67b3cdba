//! The only room that prints, prompts or reads the environment.

pub mod args;
pub mod config;
pub mod configuration;
mod credentials;
mod datastore;
pub mod duration;
mod ending;
pub mod escrow;
pub mod failure;
pub mod inside;
pub mod interrupt;
pub mod nothing;
pub mod observer;
pub mod open;
pub mod profile;
pub mod progress;
pub mod remote;
pub mod stdin;
pub mod ui;

mod apiserver;
mod backups;
mod completion;
mod decode;
mod delete_unreadable;
mod diff;
mod doctor;
mod encode;
mod export;
mod exporter;
mod get;
mod help;
mod here;
mod history;
mod keys;
mod kms;
mod lost;
mod man;
mod migrate;
mod posture;
mod residue;
mod restore;
mod rewrite;
mod rotate;
mod scan;
mod scrub;
mod serve;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::agefile::Unlock;
use crate::kms::Unwrap;
use crate::kms::escrow::Escrow;
use args::{Given, Shared};
use failure::{Exit, Failure};
use ui::Ui;

/// Tells the truth about Kubernetes encryption at rest in etcd, and acts on it.
#[derive(Debug, Parser)]
#[command(
    name = "atrest",
    version,
    long_version = LONG_VERSION,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Options of a command may also stand before it: atrest --snapshot FILE scan"
)]
pub struct Cli {
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
    /// What `export --restore` would do
    Restore(restore::Args),
    /// Compare two sources object by object
    Diff(diff::Args),
    /// Write a snapshot file anew, with other encryption
    Rewrite(rewrite::Args),
    /// List every revision of a key or prefix that is still held, deletions included
    History(history::Args),
    /// Count what each key is needed for, and say whether it may leave the configuration
    Keys(keys::Args),
    /// Ask KMS plugins, and say what depends on their keys
    Kms(kms::Args),
    /// Re-encrypt what is not stored as the configuration says; without --apply, only a plan
    Migrate(migrate::Args),
    /// Follow a rotation of an encryption key to its end; without --apply, only say how far it is
    Rotate(Box<rotate::Args>),
    /// Judge every backup below a directory: readable, plaintext, keys that it needs
    Backups(backups::Args),
    /// Find plaintext that still lies outside the live state, and say what removes it
    Residue(residue::Args),
    /// Remove the old plaintext from the databases of an etcd cluster, member by member; without
    /// --apply, only a plan
    Scrub(Box<scrub::Args>),
    /// List entries that no key reads, and how to delete them; without --apply, nothing is changed
    DeleteUnreadable(delete_unreadable::Args),
    /// Publish the counts for Prometheus, for as long as it runs
    Exporter(exporter::Args),
    /// Say where each Secret came from, who uses and who reads it, and what is wrong with that
    Posture(posture::Args),
    /// Serve a source as a read-only Kubernetes API, for kubectl and other clients
    Serve(serve::Args),
    /// Validate, explain, create and rotate encryption configurations
    Config(config::Args),
    /// Check every layer of a control-plane node that encryption at rest rests on
    Doctor(doctor::Args),
    /// Show what --profile finds, and where each value comes from
    Profile(profile::Args),
    /// Write a completion script for a shell
    Completion(completion::Args),
    /// Write the manual page
    Man(man::Args),
    /// Print the version, as --version does
    Version,
}

/// What every command gets.
pub struct Ctx {
    /// Which options stood on the command line.
    pub given: Given,
    /// The options that the command shares with others.
    pub global: Shared,
    /// Where messages and results go.
    pub ui: Ui,
    /// What unwraps KMS data keys, from when it is first needed.
    pub kms: Arc<OnceLock<Arc<dyn Unwrap>>>,
    /// Data keys that no KMS is asked for.
    pub escrow: Option<Arc<Escrow>>,
    /// Opens what age encrypted.
    pub unlock: Unlock,
    /// What was fetched from elsewhere.
    pub remote: remote::Remotes,
}

impl Ctx {
    fn new(global: Shared, given: Given) -> Self {
        let ui = Ui::new(&global);
        let (kms, remote, unlock) = (Arc::default(), remote::Remotes::default(), Unlock::default());
        Self { global, given, ui, kms, escrow: None, unlock, remote }
    }
}

/// The command line as clap sees it, for completions, the manual page and tests.
#[must_use]
pub fn command() -> clap::Command {
    help::dressed(Cli::command())
}

/// Runs the program with the process's arguments.
#[must_use]
pub fn run() -> ExitCode {
    // Before anything else: a password may stand in the environment.
    let hardened = crate::secret::harden();
    completion::answer();
    let command = without_empty_variables(command());
    let mut built = command.clone();
    built.build();
    let arranged = args::arrange(&built, std::env::args_os());
    let parsed = command
        .try_get_matches_from(arranged.words)
        .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => return usage(&e, &built, &arranged.command),
    };
    let mut matches = &matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    interrupt::watch();
    let global = cli.command.shared();
    if let Err(error) = hardened {
        Ui::new(&global).warn(&format!("core dumps cannot be disabled: {error}"));
    }
    let mut ctx = Ctx::new(global, Given::new(matches));
    if datastore::url(&ctx).is_some() {
        datastore::forget_variables(&mut ctx);
    }
    let result = profile::apply(&mut ctx)
        .and_then(|()| one_source(&ctx))
        .and_then(|()| escrow::apply(&mut ctx))
        .and_then(|()| dispatch(&mut ctx, cli.command))
        .inspect(|_| escrow::tell_unused(&ctx));
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            ctx.ui.failure(&failure);
            failure.exit.into()
        }
    }
}

/// As in etcdctl, a variable that is set to nothing is not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_env() {
        Some(name) if std::env::var_os(name).is_some_and(|v| v.is_empty()) => {
            arg.env(None::<&'static str>)
        }
        _ => arg,
    });
    command.mut_subcommands(without_empty_variables)
}

impl Command {
    /// The options that are not the command's own.
    fn shared(&self) -> Shared {
        match self {
            Self::Scan(args) => args.shared(),
            Self::Get(args) => args.shared(),
            Self::Decode(args) => args.shared(),
            Self::Encode(args) => args.shared(),
            Self::Export(args) => args.shared(),
            Self::Restore(args) => args.shared(),
            Self::Diff(args) => args.shared(),
            Self::Rewrite(args) => args.shared(),
            Self::History(args) => args.shared(),
            Self::Keys(args) => args.shared(),
            Self::Kms(args) => args.shared(),
            Self::Migrate(args) => args.shared(),
            Self::Rotate(args) => args.shared(),
            Self::Backups(args) => args.shared(),
            Self::Residue(args) => args.shared(),
            Self::Scrub(args) => args.shared(),
            Self::DeleteUnreadable(args) => args.shared(),
            Self::Exporter(args) => args.shared(),
            Self::Posture(args) => args.shared(),
            Self::Serve(args) => args.shared(),
            Self::Config(args) => args.shared(),
            Self::Profile(args) => args.shared(),
            Self::Doctor(args) => args.shared(),
            // What is only generated has nothing to do with this machine.
            Self::Completion(_) | Self::Man(_) | Self::Version => Shared::default(),
        }
    }
}

fn dispatch(ctx: &mut Ctx, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Scan(args) if args.watch => watch::run(ctx, &args),
        Command::Scan(args) => scan::run(ctx, &args),
        Command::Get(args) => get::run(ctx, &args),
        Command::Decode(args) => decode::run(ctx, &args),
        Command::Encode(args) => encode::run(ctx, &args),
        Command::Export(args) => export::run(ctx, &args),
        Command::Restore(args) => restore::run(ctx, &args),
        Command::Diff(args) => diff::run(ctx, &args),
        Command::Rewrite(args) => rewrite::run(ctx, &args),
        Command::History(args) => history::run(ctx, &args),
        Command::Keys(args) => keys::run(ctx, &args),
        Command::Kms(args) => kms::run(ctx, &args),
        Command::Migrate(args) => migrate::run(ctx, &args),
        Command::Rotate(args) => rotate::run(ctx, &args),
        Command::Backups(args) => backups::run(ctx, &args),
        Command::Residue(args) => residue::run(ctx, &args),
        Command::Scrub(args) => scrub::run(ctx, &args),
        Command::DeleteUnreadable(args) => delete_unreadable::run(ctx, &args),
        Command::Exporter(args) => exporter::run(ctx, &args),
        Command::Posture(args) => posture::run(ctx, &args),
        Command::Serve(args) => serve::run(ctx, &args),
        Command::Config(args) => config::run(ctx, &args),
        Command::Profile(args) => profile::run(ctx, &args),
        Command::Doctor(args) => doctor::run(ctx, &args),
        Command::Completion(args) => completion::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Version => {
            ui::print(|out| writeln!(out, "atrest {LONG_VERSION}"))?;
            Ok(Exit::Ok)
        }
    }
}

/// Options that this source does not honour. Variables of the environment are no request.
fn one_source(ctx: &Ctx) -> Result<(), Failure> {
    let g = &ctx.global;
    if g.snapshot.as_deref().is_some_and(|p| p.as_os_str() == "-") {
        return Err(Failure::usage("--snapshot does not read stdin")
            .hint("save it to a file first; the pages of a database are not read in order"));
    }
    if !g.takes_source {
        return Ok(());
    }
    if ctx.given.has("endpoints") && g.is_file() {
        return Err(Failure::usage(
            "--endpoints cannot be used together with --snapshot, --data-dir or --kine",
        ));
    }
    if datastore::url(ctx).is_some() {
        datastore::check(ctx)?;
    } else if let Some(name) = ctx.given.connection().filter(|_| g.is_file()) {
        return Err(Failure::usage(format!(
            "--{name} says how to connect to an etcd, but a file is read"
        )));
    }
    if g.skip_hash_check && g.snapshot.is_none() {
        return Err(Failure::usage("--skip-hash-check goes with --snapshot only"));
    }
    if g.salvage && g.snapshot.is_none() && g.data_dir.is_none() {
        return Err(Failure::usage("--salvage goes with --snapshot or --data-dir only"));
    }
    lost::check(ctx)
}

/// clap prints `error: …` itself and exits 2; help and version exit 0, if anyone gets them.
fn usage(e: &clap::Error, program: &clap::Command, command: &[String]) -> ExitCode {
    if let Some(failure) = not_taken(e, program, command) {
        Ui::new(&Shared::default()).failure(&failure);
        return Exit::Usage.into();
    }
    match e.print() {
        _ if e.use_stderr() => Exit::Usage.into(),
        Ok(()) => Exit::Ok.into(),
        Err(_) => Exit::Failed.into(),
    }
}

/// An option of other commands, which this one does not honour.
fn not_taken(e: &clap::Error, program: &clap::Command, command: &[String]) -> Option<Failure> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(option))) =
        (e.kind(), e.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    if command.is_empty() || !args::known(program).contains_key(option) {
        return None;
    }
    let command = command.join(" ");
    let hint = match (command.as_str(), option.as_str()) {
        ("migrate", "--snapshot" | "--data-dir" | "--kine" | "--revision") => {
            "migrate writes to a live etcd; `atrest rewrite` makes a re-encrypted copy of a snapshot"
                .to_owned()
        }
        _ => format!("`atrest {command} --help` lists what it takes"),
    };
    Some(Failure::usage(format!("`atrest {command}` does not take {option}")).hint(hint))
}

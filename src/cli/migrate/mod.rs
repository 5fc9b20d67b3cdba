//! `atrest migrate`: what is not stored as the configuration says, rewritten.

mod all_objects;
pub mod servers;
mod words;

use std::path::PathBuf;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::{Ctx, apiserver, configuration, ending, here, interrupt, nothing, open, ui};
use crate::apiserver::Client;
use crate::config::ConfigSet;
use crate::jobs::migrate::{self as job, Options, Writer};
use crate::report::Format;
use crate::report::migrate::Report;
use crate::source::live::Live;
pub use words::conclude;

/// How entries are rewritten.
#[derive(Clone, Debug, clap::Args)]
pub struct Writing {
    /// Where to save a snapshot of the member before writing; the file must not exist [default:
    /// `atrest-backup-TIME.db` in the working directory]
    #[arg(long, value_name = "FILE", conflicts_with = "no_backup")]
    pub backup: Option<PathBuf>,

    /// Write without a backup
    #[arg(long)]
    pub no_backup: bool,

    /// The quota that etcd was started with, bytes, for members older than 3.6, which do not tell
    #[arg(long, value_name = "BYTES")]
    pub quota_backend_bytes: Option<u64>,

    /// Entries to rewrite in a second, at most
    #[arg(long, value_name = "N", value_parser = args::rate)]
    pub qps: Option<f64>,

    /// Transactions at once, at most [default: 128; 4 of several entries; 16 with --via-api]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub concurrency: Option<u32>,
}

/// Options of `migrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --apply nothing is written. Entries that are current are never touched, so a run that was
stopped at any moment is continued by running again. What changes in the cluster meanwhile is
never overwritten.")]
#[allow(clippy::struct_excessive_bools)] // flags are what a command line has
pub struct Args {
    /// Write: re-encrypt every selected entry that is not current
    #[arg(long)]
    pub apply: bool,

    #[command(flatten)]
    writing: Writing,

    /// The configuration of another API server, which must be byte for byte the same
    #[arg(long, value_name = "FILE")]
    pub confirm_config: Vec<PathBuf>,

    /// Read what no provider reads with whichever configured secret fits, whatever its name
    #[arg(long)]
    pub try_keys: bool,

    /// Entries in one transaction, at most 128. Entries that share one have the same revision, of
    /// which clients of a running API server can miss some: more than 1 needs --no-apiserver
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=128))]
    pub batch: u64,

    /// Ask every running API server which configuration it has loaded, and write nothing unless it
    /// is this one (Kubernetes 1.34 and later say so)
    #[arg(long)]
    pub confirm_apiserver: bool,

    /// API servers before 1.34 do not say what they have loaded: write a made-up Secret or config
    /// map to etcd under the new key for a moment, and see whether each can read it
    #[arg(long, requires = "confirm_apiserver", conflicts_with_all = ["via_api", "storage_version_migration"])]
    pub canary: bool,

    /// Have the API server write each stale object anew, instead of writing to etcd; etcd is only
    /// read
    #[arg(long, conflicts_with_all = ["no_apiserver", "batch"])]
    pub via_api: bool,

    /// Have the cluster migrate by itself: make a `StorageVersionMigration` for each resource of
    /// which objects are stale, follow it, and look in etcd afterwards
    #[arg(long, conflicts_with_all = ["via_api", "no_apiserver", "batch", "qps", "concurrency", "namespace", "progress"])]
    pub storage_version_migration: bool,

    /// Where etcd is out of reach: have every object of the resources stored anew through the API
    /// server, as nobody knows which need it
    #[arg(long)]
    pub all_objects: bool,

    /// With --all-objects: note here how far it has come, and go on from there
    #[arg(long, value_name = "FILE", requires = "all_objects")]
    pub progress: Option<PathBuf>,

    /// No API server runs on this etcd; refused when etcd knows better
    #[arg(long)]
    pub no_apiserver: bool,

    #[command(flatten)]
    source: args::Etcd,

    #[command(flatten)]
    selection: args::Selection,

    #[command(flatten)]
    allow_empty: args::AllowEmpty,

    #[command(flatten)]
    reading: args::ReadingInside,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Html]), default_value = "table", help_heading = "Output")]
    pub write_out: Format,

    #[command(flatten)]
    apiserver: args::ApiServer,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.source, &self.selection, &self.allow_empty, &self.reading, &self.output])
    }
}

impl Writing {
    /// Where the backup goes: the file that was asked for, or one named for the time in the
    /// working directory.
    pub fn place(&self) -> Option<PathBuf> {
        if self.no_backup {
            return None;
        }
        let name =
            || jiff::Timestamp::now().strftime("atrest-backup-%Y%m%dT%H%M%SZ.db").to_string();
        Some(self.backup.clone().unwrap_or_else(|| name().into()))
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let client = writer(args)?;
    if let Some(client) = client.as_ref().filter(|_| args.all_objects) {
        return all_objects::run(ctx, args, client);
    }
    let Some(configs) = crate::cli::inside::configs(ctx)? else {
        return Err(Failure::usage("migrate needs the configuration to write with")
            .hint("give the API server's file with --encryption-config"));
    };
    confirm(&configs, &args.confirm_config)?;
    let transformers = open::transformers(ctx, &configs)?.try_keys(args.try_keys);
    let selection = open::selection(ctx, Some(configs.resources()))?;
    ending::damage(ctx, &open::unexamined(ctx, &selection));
    let mut live = open::live(ctx)?;
    nothing::look(ctx, &mut live, &selection)?;
    here::tell(ctx, Some(&configs));
    // A canary is removed whatever ends the run.
    let watched = args.canary.then(interrupt::tell);
    let servers =
        servers::known(ctx, args, &mut live, (&configs, &transformers), watched.as_ref())?;
    // From here on the first signal ends the run in good order, the second at once.
    let stop = interrupt::tell();
    let options = Options {
        selection: &selection,
        configured: configs.resources(),
        transformers: &transformers,
        apply: args.apply,
        backup: args.writing.place(),
        quota: args.writing.quota_backend_bytes,
        writer: match &client {
            Some(client) if args.storage_version_migration => Writer::Cluster(client),
            Some(client) => Writer::Api(client),
            None => Writer::Etcd { batch: usize::try_from(args.batch).unwrap_or(1) },
        },
        concurrency: args.writing.concurrency,
        qps: args.writing.qps,
        servers: Some(&servers),
        stop: &stop,
    };
    let outcome = perform(ctx, &mut live, &options)?;
    let report = Report {
        outcome: &outcome,
        config: open::config_wire(&configs),
        applied: args.apply,
        apply: "--apply",
        qps: args.writing.qps,
        servers: &servers,
    };
    ui::print(|out| report.write(args.write_out, ctx.ui.color, out))?;
    Ok(conclude(ctx, args.apply, &outcome))
}

/// Plans and, if so wanted, rewrites, and tells what is met.
pub fn perform(ctx: &Ctx, live: &mut Live, options: &Options<'_>) -> Result<job::Outcome, Failure> {
    let mut remark = |remark: &job::Remark<'_>| words::tell(ctx, remark);
    job::run(live, options, &mut Told::new(&ctx.ui), &mut remark).map_err(words::refused)
}

/// The API server that is to write, where one is; and options that do not go together.
fn writer(args: &Args) -> Result<Option<Client>, Failure> {
    if args.batch > 1 && !args.no_apiserver {
        return Err(Failure::usage(
            "--batch above 1 gives several entries one revision, of which clients of a running \
             API server can miss some",
        )
        .hint("leave --batch out; or stop every API server and say --no-apiserver"));
    }
    // Said before anything is looked at.
    let is_writer = args.via_api || args.storage_version_migration;
    if args.all_objects && !is_writer {
        return Err(Failure::usage("--all-objects is for writing through an API server")
            .hint("say --via-api or --storage-version-migration, too"));
    }
    is_writer.then(|| apiserver::client(&args.apiserver)).transpose()
}

/// Whether the other API servers have the same configuration.
fn confirm(configs: &ConfigSet, others: &[PathBuf]) -> Result<(), Failure> {
    let ours = configs.current();
    for path in others {
        let theirs = configuration::load(&configuration::read(path)?)?;
        if theirs.first().is_none_or(|theirs| theirs.sha256 != ours.sha256) {
            return Err(Failure::new(format!("{} differs from {}", path.display(), ours.location))
                .hint(
                    "give every API server the same configuration and restart it before migrating",
                ));
        }
    }
    Ok(())
}

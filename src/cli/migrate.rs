//! `atrest migrate`: what is not stored as the configuration says, rewritten.

mod checks;
mod servers;

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::args::{self, Shared};
use super::failure::{self, Exit, Failure};
use super::open::{self, Selection};
use super::progress::Progress;
use super::{Ctx, apiserver, ending, interrupt, nothing, ui};
use crate::config::ConfigSet;
use crate::entry::Entry;
use crate::migrate::apply::{MAX_OPS, Outcome, Pace, Stop, apply};
use crate::migrate::plan::{Plan, Planner, Share, Written};
use crate::migrate::via_api;
use crate::report::migrate::{Database, Known, Report};
use crate::report::{Format, table};
use crate::scan::{Causes, GroupKey};
use crate::source::live::{Kv, Live};
use crate::source::{EtcdError, Source as _, SourceError, SourceInfo, Visit, Wish};
use crate::transform::Transformers;

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
    #[arg(long, value_name = "N", value_parser = rate)]
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

    /// Have the API server write each stale object anew, instead of writing to etcd; etcd is only
    /// read
    #[arg(long, conflicts_with_all = ["no_apiserver", "batch"])]
    pub via_api: bool,

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
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json]), default_value = "table", help_heading = "Output")]
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

fn rate(text: &str) -> Result<f64, String> {
    let n = text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.001);
    n.ok_or_else(|| format!("`{text}` is not a number of entries in a second"))
}

/// Passes over the resources: entries that others write meanwhile with an old configuration come
/// up in the next one.
const PASSES: usize = 3;
/// Entries that are judged together by several threads.
const BATCH_ENTRIES: usize = 4096;
const BATCH_BYTES: usize = 16 << 20;

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    checks::options(args)?;
    let Some(configs) = crate::cli::inside::configs(ctx)? else {
        return Err(Failure::usage("migrate needs the configuration to write with")
            .hint("give the API server's file with --encryption-config"));
    };
    checks::confirm(&configs, &args.confirm_config)?;
    let transformers = open::transformers(ctx, &configs)?.try_keys(args.try_keys);
    let selection = open::selection(ctx, Some(configs.resources()))?;
    ending::damage(ctx, &open::unexamined(ctx, &selection));
    let mut live = open::live(ctx)?;
    nothing::look(ctx, &mut live, &selection)?;
    let servers = servers::known(ctx, args, &mut live, &selection, &transformers)?;
    let servers = servers::loaded(ctx, args, &configs, servers)?;
    // From here on the first signal ends the run in good order, the second at once.
    let interrupted = interrupt::tell();

    let way = Way {
        apply: args.apply,
        writing: &args.writing,
        batch: args.batch,
        via_api: args.via_api.then_some(&args.apiserver),
        servers: Some(&servers),
    };
    let job = Job { ctx, selection: &selection, transformers: &transformers, interrupted };
    let done = job.perform(&mut live, &configs, &way)?;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // whole seconds of a positive, finite rate
    let seconds = args.writing.qps.map(|q| (done.planned as f64 / q).ceil() as u64);
    let report = Report {
        source: &done.info,
        visit: &done.visit,
        config: open::config_wire(&configs),
        applied: args.apply,
        apply: "--apply",
        interrupted: done.interrupted,
        groups: &done.groups,
        written_by: &done.written_by,
        planned: done.planned,
        current: done.current,
        outcome: &done.outcome,
        remaining: done.remaining,
        database: done.database,
        backup: done.backup,
        seconds,
        servers: &servers,
    };
    ui::print(|out| report.write(args.write_out, ctx.ui.color, out))?;
    Ok(conclude(ctx, args.apply, &done.outcome, done.remaining))
}

/// What is to be done, and how.
pub struct Way<'a> {
    /// Write; otherwise only a plan is made.
    pub apply: bool,
    /// How.
    pub writing: &'a Writing,
    /// Entries in one transaction.
    pub batch: u64,
    /// The API server that writes in our place.
    pub via_api: Option<&'a args::ApiServer>,
    /// What is known of the API servers, where somebody is to be warned of it.
    pub servers: Option<&'a Known>,
}

/// What was planned and, if so, done.
pub struct Performed {
    info: SourceInfo,
    visit: Visit,
    groups: BTreeMap<GroupKey, Share>,
    written_by: BTreeMap<String, Written>,
    planned: u64,
    current: u64,
    /// What was done.
    pub outcome: Outcome,
    /// Entries that are not current now.
    pub remaining: u64,
    database: Option<Database>,
    /// Where the backup is.
    pub backup: Option<String>,
    interrupted: bool,
}

/// What went wrong, on stderr, and the exit code.
pub fn conclude(ctx: &Ctx, applied: bool, outcome: &Outcome, remaining: u64) -> Exit {
    let mut causes = Causes::default();
    outcome.failed.iter().for_each(|f| causes.add(&f.key, &f.reason));
    for line in causes.lines("failed:") {
        let all = if line.contains(" more") { "; -w json names them all" } else { "" };
        ctx.ui.warn(&format!("{line}{all}"));
    }
    match &outcome.stop {
        Some(Stop::Interrupted) => {
            ctx.ui.note("interrupted; run it again to continue");
            return Exit::Interrupted;
        }
        Some(stop) => {
            let failure = match stop {
                Stop::NoSpace => checks::no_space(),
                stop => {
                    const AGAIN: &str = "nothing is half-written; run it again to continue";
                    let advice = match stop {
                        Stop::Source(SourceError::Etcd(EtcdError::Denied {
                            wish: Wish::Write,
                            ..
                        })) => Some(failure::grant_to_write(open::scope(ctx).bases())),
                        Stop::Source(e) => failure::hint(e),
                        _ => None,
                    };
                    let hint = advice.map_or(AGAIN.to_owned(), |hint| format!("{hint}; {AGAIN}"));
                    Failure::new("the migration stopped").because(stop).hint(hint)
                }
            };
            ctx.ui.failure(&failure);
            return Exit::Failed;
        }
        None => {}
    }
    if !outcome.failed.is_empty() {
        return Exit::Partial;
    }
    if applied && remaining > 0 {
        ctx.ui.warn(&format!(
            "{} not current: somebody still writes with another configuration",
            table::entries(remaining)
        ));
        return Exit::Partial;
    }
    Exit::Ok
}

/// What is to be rewritten.
pub struct Job<'a> {
    /// Where messages go.
    pub ctx: &'a Ctx,
    /// Which entries.
    pub selection: &'a Selection,
    /// What reads and writes them.
    pub transformers: &'a Transformers,
    /// Somebody wants it to end.
    pub interrupted: Arc<AtomicBool>,
}

const VALUES_REMAIN: &str = "the values as they were before remain in etcd's history and files; \
     `atrest residue` finds them and says what removes them";

impl Job<'_> {
    /// Looks at everything that must hold, plans and, if so wanted, rewrites.
    pub fn perform(
        &self,
        live: &mut Live,
        configs: &ConfigSet,
        way: &Way<'_>,
    ) -> Result<Performed, Failure> {
        let ctx = self.ctx;
        let (plan, visit) = self.plan(live, &HashSet::new()).map_err(checks::no_plan)?;
        if let Some(warning) = checks::elsewhere(live, self.selection, configs, self.transformers)?
        {
            ctx.ui.warn(&warning);
        }
        let alarms = checks::alarms(ctx, live, way.apply)?;
        ending::notes(ctx, &visit);
        let written_by = plan
            .self_test()
            .map_err(|e| Failure::new(format!("the write provider cannot be used: {e}")))?;
        let quota = way.writing.quota_backend_bytes;
        let database = checks::database(live, &plan, &written_by, quota);
        if !plan.items.is_empty() {
            checks::quota(ctx, database.as_ref(), way.apply)?;
            checks::unencrypted(ctx, &plan, &written_by);
            checks::nonces(ctx, &plan, &written_by);
            let warning = way.servers.and_then(|s| servers::every_api_server(&written_by, s));
            if let Some(warning) = warning {
                ctx.ui.warn(&warning);
            }
        }
        let planned = plan.items.len() as u64;
        let mut done = Performed {
            info: live.info(),
            visit,
            groups: plan.groups.clone(),
            written_by,
            planned,
            current: plan.current,
            outcome: Outcome { failed: plan.unreadable.clone(), ..Outcome::default() },
            remaining: plan.remaining(planned),
            database,
            backup: None,
            interrupted: false,
        };
        if way.apply && !plan.items.is_empty() {
            if alarms {
                return Err(checks::no_space());
            }
            if let Some(path) = checks::backup_path(way.writing) {
                checks::backup(ctx, live, &path, &self.interrupted)?;
                done.backup = Some(path.display().to_string());
            }
            done.remaining = self.apply(live, plan, way, &mut done.outcome)?;
            if done.outcome.written > 0 {
                ctx.ui.note(VALUES_REMAIN);
            }
        }
        done.interrupted = self.interrupted.load(Ordering::Relaxed);
        Ok(done)
    }

    /// Looks at every selected entry.
    fn plan(&self, live: &mut Live, except: &HashSet<Vec<u8>>) -> Result<(Plan, Visit), Stop> {
        let query = self.selection.query(None, true);
        let progress = Progress::entries(&self.ctx.ui, || live.estimate(&query));
        let mut planner = Planner::new(self.transformers);
        let mut batch: Vec<(Entry, String)> = Vec::new();
        let mut bytes = 0;
        let visit = live.visit(&query, &mut |entry| {
            if let Some(location) = self.selection.locate(entry.key)
                && !location.internal
            {
                bytes += entry.stored().len();
                batch.push((entry.to_entry(), location.resource.into_owned()));
            }
            if batch.len() >= BATCH_ENTRIES || bytes >= BATCH_BYTES {
                progress.advance(batch.len() as u64);
                planner.add(&batch);
                batch.clear();
                bytes = 0;
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        planner.add(&batch);
        progress.advance(batch.len() as u64);
        progress.finish();
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Stop::Interrupted);
        }
        Ok((planner.finish(except), visit.map_err(Stop::Source)?))
    }

    /// Rewrites, and looks again for what others wrote meanwhile; returns how many entries are
    /// not current in the end.
    fn apply(
        &self,
        live: &mut Live,
        mut plan: Plan,
        way: &Way<'_>,
        outcome: &mut Outcome,
    ) -> Result<u64, Failure> {
        let kv = live.kv()?;
        let mut failed: HashSet<Vec<u8>> = HashSet::new();
        for pass in 1.. {
            let total = plan.items.len() as u64;
            let progress = Progress::entries(&self.ctx.ui, || Some(total));
            let done = self.write(&kv, &plan, way, &|n| progress.advance(n))?;
            progress.finish();
            let left = total - done.written.min(total);
            let left = left.saturating_sub(done.already + done.deleted);
            failed.extend(done.failed.iter().map(|f| f.key.clone()));
            outcome.add(done);
            if outcome.stop.is_some() {
                return Ok(plan.remaining(left));
            }
            match self.plan(live, &failed) {
                Ok((next, _)) => plan = next,
                Err(stop) => {
                    // What was not written is known all the same.
                    outcome.stop = Some(stop);
                    return Ok(plan.remaining(left));
                }
            }
            if plan.items.is_empty() || pass >= PASSES {
                break;
            }
        }
        Ok(plan.remaining(plan.items.len() as u64))
    }
}

impl Job<'_> {
    /// One pass over a plan.
    fn write(
        &self,
        kv: &Kv,
        plan: &Plan,
        way: &Way<'_>,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<Outcome, Failure> {
        let several = way.batch > 1;
        let usual = if way.via_api.is_some() { 16 } else { 128 };
        let Writing { concurrency, qps, .. } = *way.writing;
        let concurrency = concurrency.unwrap_or(if several { 4 } else { usual });
        let Some(api) = way.via_api else {
            let batch = usize::try_from(way.batch).unwrap_or(MAX_OPS);
            let pace = Pace { concurrency, qps, batch };
            return Ok(apply(kv, plan, pace, &self.interrupted, advance));
        };
        let clients = apiserver::clients(api)?;
        let Some(client) = clients.first() else {
            return Err(Failure::usage("no API server is named"));
        };
        let pace = via_api::Pace { concurrency, qps };
        let scope = &self.selection.scope;
        Ok(via_api::run(kv, client, plan, scope, pace, &self.interrupted, advance))
    }
}

/// Which keys the values get, for sentences.
fn writers(written_by: &BTreeMap<String, Written>) -> String {
    let mut names: Vec<String> = written_by.values().map(|w| w.by.to_string()).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

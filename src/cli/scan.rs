//! `atrest scan`.

use std::time::SystemTime;

use clap::ValueEnum;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::open::{self, Selection};
use super::{Ctx, ending, here, nothing, ui};
use crate::config::ConfigSet;
use crate::jobs::scan::{self as job, Options, Outcome};
use crate::report::Format;
use crate::report::scan::{KeyReads, Report};
use crate::report::table;
use crate::scan::{Causes, Totals};
use crate::source::SourceInfo;

/// Options of `scan`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // flags are what a command line has
pub struct Args {
    /// One row per entry
    #[arg(long)]
    pub list: bool,

    /// Also decrypt every entry (needs --encryption-config)
    #[arg(long)]
    pub verify: bool,

    /// Read what no provider reads with whichever configured secret fits, whatever its name
    #[arg(long, requires = "verify")]
    pub try_keys: bool,

    /// Exit 3 when an entry has one of these states
    #[arg(long, value_name = "STATUS[,…]", value_delimiter = ',')]
    pub fail_on: Vec<FailOn>,

    /// Stay on the live etcd and follow what changes: a live view on a terminal, otherwise a JSON
    /// line per change of counts
    #[arg(long, conflicts_with_all = ["list", "fail_on"])]
    pub watch: bool,

    /// With --watch: exit when nothing is left to rewrite
    #[arg(long, requires = "watch")]
    pub until_done: bool,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    tempo: args::Tempo,

    #[command(flatten)]
    selection: args::Selection,

    #[command(flatten)]
    allow_empty: args::AllowEmpty,

    #[command(flatten)]
    revision: args::Revision,

    #[command(flatten)]
    reading: args::ReadingInside,

    /// Output format [default: table]
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Jsonl, Format::Csv, Format::Prometheus, Format::Html]), help_heading = "Output")]
    pub write_out: Option<Format>,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[
            &self.source,
            &self.tempo,
            &self.selection,
            &self.allow_empty,
            &self.revision,
            &self.reading,
            &self.output,
        ])
    }

    fn format(&self) -> Format {
        self.write_out.unwrap_or(Format::Table)
    }

    /// Whether every entry is reported, and not their counts alone.
    fn lists(&self) -> bool {
        self.list || self.format() == Format::Jsonl
    }
}

/// States that `--fail-on` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Stored unencrypted
    Plaintext,
    /// Stored encrypted
    Encrypted,
    /// What the API server would write now
    Current,
    /// Readable, but the API server would rewrite it
    Stale,
    /// No configured provider can read it, or what it reads is no object
    Unreadable,
    /// Current or stale: that could not be decided
    Unknown,
    /// Holds another object than its key says (with --verify)
    Misplaced,
}

impl FailOn {
    fn count(self, totals: &Totals) -> u64 {
        match self {
            Self::Plaintext => totals.plaintext,
            Self::Encrypted => totals.encrypted,
            Self::Current => totals.current,
            // What is not known to be current may be stale.
            Self::Stale => totals.stale + totals.unknown,
            Self::Unreadable => totals.unreadable,
            Self::Unknown => totals.unknown,
            Self::Misplaced => totals.misplaced,
        }
    }

    fn needs_config(self) -> bool {
        !matches!(self, Self::Plaintext | Self::Encrypted)
    }
}

/// Runs the command.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<Exit, Failure> {
    let configs = super::inside::configs(ctx)?;
    says_something(args, configs.is_some())?;
    let selection = open::selection(ctx, configs.as_ref().map(ConfigSet::resources))?;
    let mut source = open::source(ctx)?;
    let transformers = configs.as_ref().map(|set| open::transformers(ctx, set)).transpose()?;
    let transformers = transformers.map(|t| t.try_keys(args.try_keys));
    let options = Options {
        selection: &selection,
        sought: nothing::sought(ctx, &selection),
        revision: ctx.global.revision,
        transformers: transformers.as_ref(),
        verify: args.verify,
        list: args.lists(),
    };
    let mut elsewhere = open::elsewhere(ctx, &selection);
    let told = &mut Told::new(&ctx.ui);
    let mut outcome = job::run_all(source.as_mut(), &mut elsewhere, &options, told)?;
    let read: Vec<_> = outcome.also.iter().flat_map(|also| &also.resources).collect();
    ctx.global.overrides.retain(|o| !read.contains(&&o.resource));
    tell_elsewhere(ctx, &outcome);
    let ctx = &*ctx;
    outcome.visit.damage.extend(open::unexamined(ctx, &selection));
    ending::end(ctx, [&outcome.visit], || {
        let info = source.info();
        nothing::check(ctx, source.as_mut(), &selection, &outcome.sought)?;
        drop(source);
        something_to_fail_on(ctx, args, &selection, &outcome)?;
        report(ctx, args, &info, &selection, configs.as_ref(), &outcome)?;
        tell_causes(ctx, args, &outcome);
        here::tell(ctx, configs.as_ref());
        let totals = outcome.counts.totals();
        Ok(if args.fail_on.iter().any(|f| f.count(&totals) > 0) {
            Exit::Found
        } else if totals.unreadable > 0 || totals.misplaced > 0 {
            Exit::Partial
        } else {
            Exit::Ok
        })
    })
}

/// Options that mean nothing without others are not ignored.
fn says_something(args: &Args, with_config: bool) -> Result<(), Failure> {
    if let Some(f) = args.fail_on.iter().find(|f| f.needs_config() && !with_config) {
        let word = f.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
        return Err(Failure::usage(format!(
            "--fail-on {word} says nothing without a configuration"
        ))
        .hint("give the API server's file with --encryption-config"));
    }
    if args.verify && !with_config {
        return Err(verify_needs_keys());
    }
    if args.fail_on.contains(&FailOn::Misplaced) && !args.verify {
        return Err(Failure::usage("--fail-on misplaced says nothing without reading the values")
            .hint("add --verify"));
    }
    Ok(())
}

/// `--verify` without a configuration.
pub(super) fn verify_needs_keys() -> Failure {
    Failure::usage("--verify needs keys to decrypt with")
        .hint("give the API server's file with --encryption-config")
}

/// No entry was examined: then none has the state that `--fail-on` asks for, and nothing follows
/// from that.
fn something_to_fail_on(
    ctx: &Ctx,
    args: &Args,
    selection: &Selection,
    outcome: &Outcome,
) -> Result<(), Failure> {
    if outcome.counts.totals().entries > 0 || args.fail_on.is_empty() || ctx.global.allow_empty {
        return Ok(());
    }
    let words = selection.words();
    Err(Failure::new(format!("no entry of {words} was examined, so --fail-on has nothing to say"))
        .hint("name what is there with --resource; or --allow-empty, if empty is fine"))
}

fn report(
    ctx: &Ctx,
    args: &Args,
    info: &SourceInfo,
    selection: &Selection,
    configs: Option<&ConfigSet>,
    outcome: &Outcome,
) -> Result<(), Failure> {
    let reads = |set: &ConfigSet| KeyReads::of(&outcome.reads, set);
    let report = Report {
        source: info,
        visit: &outcome.visit,
        config: configs.map(open::config_wire),
        reads: configs.map(reads).unwrap_or_default(),
        counts: &outcome.counts,
        also: &outcome.also,
        left_behind: &outcome.left_behind,
        looked_for: selection.words(),
        verified: args.verify,
        entries: outcome.entries.as_deref(),
        timestamp: now(),
    };
    ui::print(|out| report.write(args.format(), ctx.ui.color, out))
}

/// Seconds since the epoch.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// What is wrong with what lies in another etcd, or does not lie there yet.
fn tell_elsewhere(ctx: &Ctx, outcome: &Outcome) {
    for (resources, why) in &outcome.unread {
        let what = crate::chain::chain(why);
        ctx.ui.warn(&format!("{} in another etcd: {what}", resources.join(", ")));
    }
    for (resource, entries) in &outcome.left_behind {
        ctx.ui.warn(&format!(
            "{} of {resource} in this etcd, left from before the API server kept them in another one: they are not counted, and nothing encrypts or removes them",
            table::entries(*entries)
        ));
    }
}

/// What is wrong with entries, a line for each cause.
fn tell_causes(ctx: &Ctx, args: &Args, outcome: &Outcome) {
    let tell = |what: &str, causes: &Causes| {
        for line in causes.lines(what) {
            let more = !args.lists() && line.contains(" more");
            ctx.ui.warn(&format!("{line}{}", if more { "; --list names each" } else { "" }));
        }
    };
    tell("unreadable:", &outcome.unreadable);
    open::advise(ctx, |is| outcome.unreadable.any(is));
    tell("current or stale, unknown:", &outcome.unknown);
    for line in outcome.no_objects.lines("no object:") {
        ctx.ui.warn(&format!("{line}; the prefix says no more, --verify does"));
    }
    for f in &outcome.misplaced {
        let key = table::visible(&String::from_utf8_lossy(&f.key));
        if let Some(misplaced) = &f.judged.misplaced {
            ctx.ui.warn(&format!("misplaced: {key}: {misplaced}"));
        }
    }
    let more = outcome.counts.misplaced.saturating_sub(outcome.misplaced.len() as u64);
    if more > 0 {
        ctx.ui.warn(&format!(
            "and {} more that are misplaced; --list names each",
            table::count(more)
        ));
    }
}

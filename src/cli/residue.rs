//! `atrest residue`.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::ValueEnum;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::inside::NO_KEYS;
use super::observer::Told;
use super::open::{self, Selection};
use super::{Ctx, ending, nothing, ui};
use crate::config::ConfigSet;
use crate::forensics::Targets;
use crate::forensics::residue;
use crate::jobs::residue::{self as job, Options, Outcome, Recover, Recovered, Unexamined};
use crate::report::residue::Report;
use crate::report::{Format, table};
use crate::resource::Selector;
use crate::source::live::LiveOptions;

/// Options of `residue`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // flags are what a command line has
pub struct Args {
    /// Show every finding in the table, not the first 20
    #[arg(long)]
    pub list: bool,

    /// Exit 3 when plaintext was found: anywhere (plaintext), or outside the live state (residue)
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub fail_on: Vec<FailOn>,

    /// Write what was found below this directory, one file per object and revision, mode 0600
    #[arg(long, value_name = "DIR")]
    pub recover: Option<PathBuf>,

    /// Recovered objects without what the server fills in, for applying to another cluster
    #[arg(long, requires = "recover")]
    pub clean: bool,

    /// Replace existing files
    #[arg(long, requires = "recover")]
    pub force: bool,

    /// Search a snapshot of every member of the live etcd, free pages included, not what it serves
    #[arg(long)]
    pub every_member: bool,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    selection: args::Selection,

    #[command(flatten)]
    allow_empty: args::AllowEmpty,

    #[command(flatten)]
    reading: args::ReadingInside,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Jsonl, Format::Html]), default_value = "table", help_heading = "Output")]
    pub write_out: Format,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.source, &self.selection, &self.allow_empty, &self.reading, &self.output])
    }
}

/// What `--fail-on` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Live or left behind
    Plaintext,
    /// Left behind
    Residue,
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let configs = super::inside::configs(ctx)?;
    let configured = || configs.as_ref().map(ConfigSet::resources);
    let selection = open::selection(ctx, configured())?;
    let elsewhere = open::unexamined(ctx, &selection.judged(configured()));
    let (targets, resources) = targets(ctx, configs.as_ref(), selection.clone());
    let recover = match &args.recover {
        Some(dir) => {
            let keys = configs.as_ref().map(|set| open::transformers(ctx, set)).transpose()?;
            let keys = keys.ok_or(NO_KEYS);
            Some(Recover { dir, force: args.force, clean: args.clean, keys })
        }
        None => None,
    };
    let options = Options {
        targets,
        selection: &selection,
        sought: nothing::sought(ctx, &selection),
        salvage: ctx.global.salvage,
        recover,
        members: args.every_member.then(|| members(ctx)).transpose()?,
    };
    let mut outcome = job::run(open::files(ctx)?, options, &mut Told::new(&ctx.ui))?;
    outcome.visit.damage.extend(elsewhere);
    tell_recovered(ctx, args, &outcome);
    if !args.every_member && outcome.not_examined.contains(&Unexamined::Pages) {
        ctx.ui.note("--every-member searches a snapshot of each member, free pages included");
    }
    for (name, file) in &outcome.leftovers {
        let size = table::bytes(file.size);
        ctx.ui.note(&format!("{name} is {}, {size}; it is searched too", file.what));
    }
    ending::end(ctx, [&outcome.visit], || {
        is_there(ctx, &selection, &outcome)?;
        report(ctx, args, &resources, &outcome)
    })
}

/// How each member is reached.
fn members(ctx: &Ctx) -> Result<LiveOptions, Failure> {
    if ctx.global.is_file() || super::datastore::url(ctx).is_some() {
        return Err(Failure::usage("--every-member is about a live etcd")
            .hint("leave it out, or give --endpoints instead of the file"));
    }
    open::live_options(ctx)
}

fn report(
    ctx: &Ctx,
    args: &Args,
    resources: &[String],
    outcome: &Outcome,
) -> Result<Exit, Failure> {
    let (live, revision) = (outcome.head.sum(), outcome.visit.revision);
    let remedy = residue::remedy(live, &outcome.all, revision, outcome.examined);
    let report = Report { outcome, resources, remedy: &remedy, list: args.list };
    ui::print(|out| report.write(args.write_out, ctx.ui.color, out))?;
    let residue = outcome.all.sum() > 0;
    let matched = args.fail_on.iter().any(|f| match f {
        FailOn::Plaintext => residue || live > 0,
        FailOn::Residue => residue,
    });
    if matched {
        return Ok(Exit::Found);
    }
    let with_keys = !ctx.global.encryption_config.is_empty();
    let unread = outcome.recovered.as_ref().is_some_and(|r| tell_unread(ctx, r, with_keys));
    Ok(if unread { Exit::Partial } else { Exit::Ok })
}

/// What was written, and what read it.
fn tell_recovered(ctx: &Ctx, args: &Args, outcome: &Outcome) {
    let (Some(dir), Some(written)) = (&args.recover, &outcome.recovered) else { return };
    let mut text = table::counted(written.objects, "object", "different objects or revisions");
    if written.parts > 0 {
        text += " and ";
        text += &table::counted(written.parts, "part of one", "parts");
    }
    ctx.ui.note(&format!("{text} written to {}", dir.display()));
    for ((by, place), n) in &written.decrypted {
        let records = table::counted(*n, "encrypted record", "encrypted records");
        ctx.ui.note(&format!("{records} from {place} decrypted with {by}"));
    }
    if written.broken > 0 {
        let records =
            table::counted(written.broken, "encrypted record is", "encrypted records are");
        ctx.ui.note(&format!("{records} overwritten in part, which no key can decrypt"));
    }
}

/// Says which encrypted records could not be read, and whether that makes the recovery partial:
/// without keys it is of plaintext, unless there was none.
fn tell_unread(ctx: &Ctx, written: &Recovered, with_keys: bool) -> bool {
    let partial = with_keys || written.objects + written.parts == 0;
    for line in written.unread.lines("not recovered:") {
        if partial {
            ctx.ui.warn(&line);
        } else {
            ctx.ui.note(&line);
        }
    }
    partial && !written.unread.is_empty()
}

/// Whether what was asked for is there: live, as a finding, or as encrypted records that are not
/// live, of which what is asked can be answered too.
fn is_there(ctx: &Ctx, selection: &Selection, outcome: &Outcome) -> Result<(), Failure> {
    let (mut seen, mut or_lost) = (outcome.seen.clone(), outcome.seen_or_lost.clone());
    let recovered = outcome.recovered.is_some();
    if ctx.global.allow_empty || !outcome.visit.damage.is_empty() {
        return Ok(());
    }
    if !outcome.live {
        elsewhere(ctx, selection, outcome)?;
    }
    if seen.is_complete() || recovered && or_lost.is_complete() {
        return Ok(());
    }
    // What a configuration does not encrypt may be selected, and was not looked for.
    let mut source = open::source(ctx)?;
    source.visit(&selection.query(None, false), &mut |entry| {
        if let Some(location) = selection.locate(entry.key) {
            seen.saw(&location);
            or_lost.saw(&location);
        }
        if seen.is_complete() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if !seen.is_complete() && outcome.lost > 0 && !recovered {
        ctx.ui.note(&format!(
            "{} of what is no longer live lie there; --recover DIR with --encryption-config decrypts them",
            table::counted(outcome.lost, "encrypted record", "encrypted records")
        ));
    }
    nothing::check(ctx, source.as_mut(), selection, &or_lost)
}

/// Where nothing lives under the prefix and other prefixes have entries, a verdict about the
/// prefix is not what was asked for, whatever lies there from before.
///
/// # Errors
/// When nothing else is to be told.
fn elsewhere(ctx: &Ctx, selection: &Selection, outcome: &Outcome) -> Result<(), Failure> {
    let mut source = open::source(ctx)?;
    let Some(failure) = nothing::elsewhere(ctx, source.as_mut(), selection)? else {
        return Ok(());
    };
    if outcome.all.sum() == 0 && outcome.recovered.is_none() {
        return Err(failure);
    }
    ctx.ui.warn(&format!(
        "nothing is live under {}; {}, which was not searched: name it with --prefix",
        selection.scope.base(),
        failure.causes.join(", ")
    ));
    Ok(())
}

/// What is looked for, and in words what is listed: without `--resource`, what the configuration
/// encrypts.
pub fn targets(
    ctx: &Ctx,
    configs: Option<&ConfigSet>,
    selection: Selection,
) -> (Targets, Vec<String>) {
    let Selection { scope, resources, namespaces } = selection;
    let words = |selectors: &[Selector]| selectors.iter().map(ToString::to_string).collect();
    let Some(set) = configs else {
        let words = words(&resources);
        return (Targets::new(scope, resources, namespaces), words);
    };
    let config = &set.current().config;
    let encrypted = |s: &Selector| match s {
        Selector::Exact(name) => !config.serving(name).writes_plaintext(),
        // A wildcard covers resources of which each has its own answer; the configuration is
        // asked again for each key.
        Selector::Group(_) | Selector::All => true,
    };
    let mut configured = set.resources();
    configured.retain(encrypted);
    if ctx.global.all_resources || !ctx.global.resource.is_empty() {
        let words = words(&resources);
        let targets = Targets::new(scope, resources, namespaces);
        return (targets.configured(configured, config.clone()), words);
    }
    if configured.is_empty() {
        ctx.ui.note(
            "the configuration encrypts nothing; looking for plaintext of secrets (--resource names others)",
        );
        let secrets = vec![Selector::Exact("secrets".to_owned())];
        return (Targets::new(scope, secrets, namespaces), vec!["secrets".to_owned()]);
    }
    let words = words(&configured);
    (Targets::new(scope, Vec::new(), namespaces).configured(configured, config.clone()), words)
}

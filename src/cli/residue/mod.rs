//! `atrest residue`.

mod recover;
mod search;

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::ValueEnum;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::open::Selection;
use super::{Ctx, nothing, open, ui};
use crate::config::ConfigSet;
use crate::forensics::Targets;
use crate::forensics::residue::{self, Bytes, Finding, Totals};
use crate::report::Format;
use crate::report::residue::Report;
use crate::resource::Selector;
use recover::Recovery;

/// Options of `residue`.
#[derive(Debug, clap::Args)]
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

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    selection: args::Selection,

    #[command(flatten)]
    allow_empty: args::AllowEmpty,

    #[command(flatten)]
    reading: args::ReadingInside,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Jsonl]), default_value = "table", help_heading = "Output")]
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

/// Collects what a search brings.
struct Found<'r> {
    targets: &'r Targets,
    findings: Vec<Finding>,
    /// Of what was asked for.
    totals: Totals,
    /// Of everything.
    all: Totals,
    recovery: Option<&'r mut Recovery>,
}

impl Found<'_> {
    fn take(&mut self, finding: Finding, bytes: Bytes<'_>) {
        self.all.add(finding.place);
        // What has lost its key may be anybody's.
        if !finding.key.as_deref().is_none_or(|key| self.targets.lists(key)) {
            return;
        }
        self.totals.add(finding.place);
        if let Some(recovery) = &mut self.recovery {
            recovery.take(&finding, bytes);
        }
        self.findings.push(finding);
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let format = args.write_out;
    let configs = crate::cli::inside::configs(ctx)?;
    let selection = open::selection(ctx, configs.as_ref().map(ConfigSet::resources))?;
    let judged = selection.judged(configs.as_ref().map(ConfigSet::resources));
    let elsewhere = open::unexamined(ctx, &judged);
    let (targets, resources) = targets(ctx, configs.as_ref(), selection.clone());

    let mut recovery = match &args.recover {
        Some(dir) => Some(recovery(ctx, dir, args, &targets)?),
        None => None,
    };
    let mut found = Found {
        targets: &targets,
        findings: Vec::new(),
        totals: Totals::default(),
        all: Totals::default(),
        recovery: recovery.as_mut(),
    };
    let mut searched = search::search(ctx, &targets, &mut found)?;
    searched.visit.damage.extend(elsewhere);
    let Found { findings, totals, all, .. } = found;
    if let (Some(recovery), Some(dir)) = (&mut recovery, &args.recover) {
        recovery.finish()?;
        ctx.ui.note(&recovery.summary(dir));
    }
    for note in &searched.visit.notes {
        ctx.ui.note(note);
    }
    is_there(ctx, &selection, &searched, &findings)?;
    let remedy =
        residue::remedy(searched.head.sum(), &all, searched.visit.revision, searched.examined);
    let report = Report {
        source: &searched.info,
        visit: &searched.visit,
        resources: &resources,
        head: searched.head,
        findings: &findings,
        totals,
        elsewhere: all.sum() - totals.sum(),
        remedy: &remedy,
        not_examined: &searched.not_examined,
        list: args.list,
    };
    ui::print(|out| report.write(format, ctx.ui.color, out))?;
    super::report_damage(ctx, &searched.visit.damage);

    let residue = all.sum() > 0;
    let matched = args.fail_on.iter().any(|f| match f {
        FailOn::Plaintext => residue || searched.head.sum() > 0,
        FailOn::Residue => residue,
    });
    if matched {
        return Ok(Exit::Found);
    }
    if !searched.visit.damage.is_empty() {
        return Ok(Exit::Partial);
    }
    Ok(Exit::Ok)
}

/// Whether what was asked for is there, live or as a finding.
fn is_there(
    ctx: &Ctx,
    selection: &Selection,
    searched: &search::Searched,
    findings: &[Finding],
) -> Result<(), Failure> {
    let mut sought = nothing::sought(ctx, selection);
    for key in findings.iter().filter_map(|f| f.key.as_deref()) {
        if let Some(location) = selection.locate(key) {
            sought.saw(&location);
        }
    }
    if ctx.global.allow_empty || sought.is_complete() || !searched.visit.damage.is_empty() {
        return Ok(());
    }
    let mut source = open::source(ctx)?;
    source.visit(&selection.query(None, false), &mut |entry| {
        if let Some(location) = selection.locate(entry.key) {
            sought.saw(&location);
        }
        if sought.is_complete() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    nothing::check(ctx, source.as_mut(), selection, &sought)
}

/// What is looked for, and in words what is listed: without `--resource`, what the configuration
/// encrypts.
fn targets(ctx: &Ctx, configs: Option<&ConfigSet>, selection: Selection) -> (Targets, Vec<String>) {
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

fn recovery(
    ctx: &Ctx,
    dir: &std::path::Path,
    args: &Args,
    targets: &Targets,
) -> Result<Recovery, Failure> {
    let recovery = Recovery::new(dir, args.force, args.clean, targets.scope().clone())?;
    for remark in recovery.remarks() {
        ctx.ui.warn(&remark);
    }
    Ok(recovery)
}

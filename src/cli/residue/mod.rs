//! `atrest residue`.

mod recover;
mod search;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::ValueEnum;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::open::Selection;
use super::{Ctx, ending, nothing, open, ui};
use crate::config::ConfigSet;
use crate::forensics::Targets;
use crate::forensics::residue::{self, Bytes, Finding, Totals};
use crate::report::residue::Report;
use crate::report::{Format, table};
use crate::resource::{Selector, Sought};
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
    /// Encrypted values, which are no residue.
    encrypted: u64,
    /// Keys of encrypted values: they are there, and were examined.
    keys: BTreeSet<Vec<u8>>,
    recovery: Option<&'r mut Recovery>,
}

impl<'r> Found<'r> {
    fn new(targets: &'r Targets, recovery: Option<&'r mut Recovery>) -> Self {
        Self {
            targets,
            findings: Vec::new(),
            totals: Totals::default(),
            all: Totals::default(),
            encrypted: 0,
            keys: BTreeSet::new(),
            recovery,
        }
    }

    fn take(&mut self, finding: Finding, bytes: Bytes<'_>) {
        if finding.encrypted {
            let Some(key) = finding.key.as_deref().filter(|key| self.targets.lists(key)) else {
                return;
            };
            self.encrypted += 1;
            if !self.keys.contains(key) {
                self.keys.insert(key.to_vec());
            }
            if let Some(recovery) = &mut self.recovery {
                recovery.take(&finding, bytes);
            }
            return;
        }
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
    let (mut targets, resources) = targets(ctx, configs.as_ref(), selection.clone());
    let mut recovery = None;
    if let Some(dir) = &args.recover {
        targets = targets.with_encrypted();
        recovery = Some(self::recovery(ctx, dir, args, &targets, configs.as_ref())?);
    }
    let mut found = Found::new(&targets, recovery.as_mut());
    let mut searched = search::search(ctx, &targets, &mut found)?;
    searched.visit.damage.extend(elsewhere);
    let Found { findings, totals, all, keys, .. } = found;
    if let (Some(recovery), Some(dir)) = (&mut recovery, &args.recover) {
        recovery.finish()?;
        ctx.ui.note(&recovery.summary(dir));
        recovery.attribution().iter().for_each(|line| ctx.ui.note(line));
    }
    ending::notes(ctx, &searched.visit);
    is_there(ctx, &selection, &searched, &targets, &findings, &keys)?;
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
    ending::damage(ctx, &searched.visit.damage);

    let residue = all.sum() > 0;
    let matched = args.fail_on.iter().any(|f| match f {
        FailOn::Plaintext => residue || searched.head.sum() > 0,
        FailOn::Residue => residue,
    });
    if matched {
        return Ok(Exit::Found);
    }
    let unread = recovery.as_ref().is_some_and(|recovery| tell_unread(ctx, recovery));
    if unread || !searched.visit.damage.is_empty() {
        return Ok(Exit::Partial);
    }
    Ok(Exit::Ok)
}

/// Says which encrypted records could not be read, and whether that makes the recovery partial:
/// without keys it is of plaintext, unless there was none.
fn tell_unread(ctx: &Ctx, recovery: &Recovery) -> bool {
    let partial = recovery.has_keys() || recovery.objects + recovery.parts == 0;
    for line in recovery.unread().lines("not recovered:") {
        if partial {
            ctx.ui.warn(&line);
        } else {
            ctx.ui.note(&line);
        }
    }
    partial && !recovery.unread().is_empty()
}

/// Whether what was asked for is there, live or as a finding.
fn is_there(
    ctx: &Ctx,
    selection: &Selection,
    searched: &search::Searched,
    targets: &Targets,
    findings: &[Finding],
    encrypted: &BTreeSet<Vec<u8>>,
) -> Result<(), Failure> {
    let mut sought = nothing::sought(ctx, selection);
    let plain = findings.iter().filter_map(|f| f.key.as_deref());
    for key in plain.chain(encrypted.iter().map(Vec::as_slice)) {
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
    if !sought.is_complete() && searched.examined.pages && !targets.wants_encrypted() {
        drop(source);
        return lies_encrypted(ctx, selection, sought, targets);
    }
    nothing::check(ctx, source.as_mut(), selection, &sought)
}

/// Nothing of it is live, and no plaintext lies anywhere; but where encrypted records do, it was
/// there, and what is asked can be answered.
fn lies_encrypted(
    ctx: &Ctx,
    selection: &Selection,
    mut sought: Sought,
    targets: &Targets,
) -> Result<(), Failure> {
    let targets = targets.clone().with_encrypted();
    let mut found = Found::new(&targets, None);
    search::search(ctx, &targets, &mut found)?;
    for location in found.keys.iter().filter_map(|key| selection.locate(key)) {
        sought.saw(&location);
    }
    if found.encrypted > 0 {
        ctx.ui.note(&format!(
            "{} of what is no longer live lie there; --recover DIR with --encryption-config decrypts them",
            table::counted(found.encrypted, "encrypted record", "encrypted records")
        ));
    }
    if sought.is_complete() {
        return Ok(());
    }
    nothing::check(ctx, open::source(ctx)?.as_mut(), selection, &sought)
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
    configs: Option<&ConfigSet>,
) -> Result<Recovery, Failure> {
    let transformers = configs.map(|set| open::transformers(ctx, set)).transpose()?;
    let recovery = Recovery::new(dir, args.force, args.clean, targets.scope().clone())?;
    let mut recovery = recovery.decrypting(transformers);
    open::source(ctx)?.visit(targets.query(), &mut |entry| {
        recovery.lives(entry);
        ControlFlow::Continue(())
    })?;
    for remark in recovery.remarks() {
        ctx.ui.warn(&remark);
    }
    Ok(recovery)
}

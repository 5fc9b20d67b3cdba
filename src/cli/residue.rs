//! `atrest residue`.

use clap::ValueEnum;

use super::failure::{Exit, Failure};
use super::open::Selection;
use super::{Ctx, open, ui};
use crate::bolt::Db;
use crate::config::ConfigSet;
use crate::entry::EntryRef;
use crate::envelope::Envelope;
use crate::forensics::Targets;
use crate::forensics::residue::{self, Bytes, Examined, Finding, Totals};
use crate::report::Format;
use crate::report::residue::Report;
use crate::resource::Selector;
use crate::source::snapshot::{Snapshot, SnapshotOptions};
use crate::source::{Damage, SourceInfo, Visit};

/// Options of `residue`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show every finding in the table, not the first 20
    #[arg(long)]
    pub list: bool,

    /// Exit 3 when plaintext was found: anywhere (plaintext), or outside the live state (residue)
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub fail_on: Vec<FailOn>,
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
#[derive(Default)]
struct Found {
    findings: Vec<Finding>,
    totals: Totals,
}

impl Found {
    fn take(&mut self, finding: Finding, _bytes: Bytes<'_>) {
        self.totals.add(finding.place);
        self.findings.push(finding);
    }
}

/// What a search says beside its findings.
struct Searched {
    info: SourceInfo,
    visit: Visit,
    head_plaintext: u64,
    examined: Examined,
    not_examined: Vec<String>,
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let format = Format::choose(
        ctx.global.write_out.as_deref(),
        &[Format::Table, Format::Json, Format::Jsonl],
    )
    .map_err(Failure::usage)?;
    let configs = open::configs(ctx)?;
    let selection = Selection::new(ctx, configs.as_ref().map(ConfigSet::resources))?;
    let (targets, resources) = targets(ctx, configs.as_ref(), selection);

    let mut found = Found::default();
    let searched = search(ctx, &targets, &mut found)?;
    for note in &searched.visit.notes {
        ctx.ui.note(note);
    }
    let remedy = residue::remedy(
        searched.head_plaintext,
        &found.totals,
        searched.visit.revision,
        searched.examined,
    );
    let report = Report {
        source: &searched.info,
        visit: &searched.visit,
        resources: &resources,
        head_plaintext: searched.head_plaintext,
        findings: &found.findings,
        totals: found.totals,
        remedy: &remedy,
        not_examined: &searched.not_examined,
        list: args.list,
    };
    let mut out = ui::stdout();
    report
        .write(format, ctx.ui.color, &mut out)
        .and_then(|()| std::io::Write::flush(&mut out))
        .map_err(|e| ui::write_failure(&e))?;
    super::report_damage(ctx, &searched.visit.damage);

    let residue = !found.findings.is_empty();
    let matched = args.fail_on.iter().any(|f| match f {
        FailOn::Plaintext => residue || searched.head_plaintext > 0,
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

/// What is looked for, and in words: without `--resource`, what the configuration encrypts.
fn targets(ctx: &Ctx, configs: Option<&ConfigSet>, selection: Selection) -> (Targets, Vec<String>) {
    let Selection { scope, mut resources, namespaces } = selection;
    let named = ctx.global.all_resources || !ctx.global.resource.is_empty();
    let config = configs.map(|set| &set.current().config).filter(|_| !named);
    let Some(config) = config else {
        let words = resources.iter().map(ToString::to_string).collect();
        return (Targets::new(scope, resources, namespaces), words);
    };
    let encrypted = |s: &Selector| match s {
        Selector::Exact(name) => !config.serving(name).writes_plaintext(),
        // A wildcard covers resources of which each has its own answer; the configuration is
        // asked again for each key.
        Selector::Group(_) | Selector::All => true,
    };
    resources.retain(encrypted);
    if resources.is_empty() {
        ctx.ui.note(
            "the configuration encrypts nothing; looking for plaintext of secrets (--resource names others)",
        );
        let secrets = vec![Selector::Exact("secrets".to_owned())];
        return (Targets::new(scope, secrets, namespaces), vec!["secrets".to_owned()]);
    }
    let words = resources.iter().map(ToString::to_string).collect();
    (Targets::new(scope, resources, namespaces).encrypted_by(config.clone()), words)
}

fn search(ctx: &Ctx, targets: &Targets, found: &mut Found) -> Result<Searched, Failure> {
    let g = &ctx.global;
    if let Some(path) = &g.snapshot {
        let options = SnapshotOptions { skip_hash_check: g.skip_hash_check, salvage: g.salvage };
        return snapshot(Snapshot::open(path, &options)?, targets, found);
    }
    let _ = |entry: EntryRef<'_>| Envelope::of(entry.stored()).is_plaintext();
    Err(Failure::new("no source is available in this build"))
}

fn snapshot(mut file: Snapshot, targets: &Targets, found: &mut Found) -> Result<Searched, Failure> {
    use crate::source::Source as _;
    let bytes = file.bytes().clone();
    let db = Db::open(&bytes).map_err(|e| Failure::new("cannot open the database").because(&e))?;
    let searched = residue::examine(&db, targets, &|_| None, &mut |f, b| found.take(f, b));
    let damage =
        |d: crate::bolt::PageDamage| Damage { location: format!("page {}", d.page), what: d.what };
    Ok(Searched {
        info: file.info(),
        visit: Visit {
            revision: searched.revision,
            damage: searched.damage.into_iter().map(damage).collect(),
            notes: file.verify()?,
            ..Visit::default()
        },
        head_plaintext: searched.head_plaintext,
        examined: Examined { pages: true, ..Examined::default() },
        not_examined: vec![
            "the write-ahead logs of the members: search each with --data-dir".to_owned(),
        ],
    })
}

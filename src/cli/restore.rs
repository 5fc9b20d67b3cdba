//! `atrest export --restore` and `atrest restore plan`.

use std::path::Path;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::{Ctx, ending, nothing, open, ui};
use crate::export::Tree;
use crate::jobs::restore::{self as job, Outcome};
use crate::objects::Objects;
use crate::report::restore::{Report, explain};
use crate::report::{Format, table};
use crate::resource::Selector;
use crate::restore::{Minor, Options as Rules, Reason, apply_script};
use crate::scan::Causes;
use crate::source::Source;
use crate::storage;

/// What the new cluster is and keeps.
#[derive(Clone, Debug, clap::Args)]
pub struct Choices {
    /// The Kubernetes release of the new cluster, 1.20 to 1.37, the default
    #[arg(long = "for", value_name = "VERSION")]
    pub target: Option<Minor>,

    /// Keep what ownerReferences said, in an annotation
    #[arg(long)]
    pub keep_owners: bool,

    /// Keep cluster IPs and node ports of Services
    #[arg(long)]
    pub keep_ips: bool,
}

impl Choices {
    fn target(&self) -> Minor {
        self.target.unwrap_or(Minor::NEWEST)
    }

    /// The options among those given that only a restore honours.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            (self.target.is_some(), "--for"),
            (self.keep_owners, "--keep-owners"),
            (self.keep_ips, "--keep-ips"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }
}

/// The options of `export` that a restore honours.
#[derive(Debug)]
pub struct Exporting<'a> {
    /// What the new cluster is and keeps.
    pub choices: &'a Choices,
    /// Of the manifests.
    pub format: Format,
    /// `--include-misplaced`
    pub include_misplaced: bool,
    /// `--force`
    pub force: bool,
    /// `--explain`
    pub explain: bool,
}

/// Options of `restore`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What `export --restore` would write, leave out and convert, in what order, and why
    Plan(PlanArgs),
}

/// Options of `restore plan`.
#[derive(Debug, clap::Args)]
struct PlanArgs {
    #[command(flatten)]
    choices: Choices,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    selection: args::Selection,

    #[command(flatten)]
    allow_empty: args::AllowEmpty,

    #[command(flatten)]
    revision: args::Revision,

    #[command(flatten)]
    reading: args::Decrypting,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Html]), default_value = "table", help_heading = "Output")]
    write_out: Format,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        let Command::Plan(a) = &self.command;
        Shared::of(&[&a.source, &a.selection, &a.allow_empty, &a.revision, &a.reading, &a.output])
    }
}

/// Runs `restore`.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        Command::Plan(plan) => self::plan(ctx, plan),
    }
}

fn plan(ctx: &Ctx, args: &PlanArgs) -> Result<Exit, Failure> {
    let reader = super::inside::objects(ctx)?;
    let mut source = open::source(ctx)?;
    let choices = &args.choices;
    let options = options(ctx, choices, &reader)?;
    let outcome = judge(ctx, &options, source.as_mut(), &mut |_, _, _, _| Ok(()))?;
    let source = source.info();
    let report = Report { source: &source, target: choices.target(), outcome: &outcome };
    ui::print(|out| report.write(args.write_out, ctx.ui.color, out))?;
    tell(ctx, choices, &outcome);
    Ok(exit(&outcome))
}

/// `export --restore`: writes the steps and their script below `dir`.
pub fn export(ctx: &Ctx, args: &Exporting<'_>, dir: &Path) -> Result<Exit, Failure> {
    let (choices, format) = (args.choices, args.format);
    let reader = super::inside::objects(ctx)?;
    let mut source = open::source(ctx)?;
    let tree = empty_tree(ctx, dir, args.force)?;
    let extension = if format == Format::Json { ".json" } else { ".yaml" };
    let options = job::Options {
        include_misplaced: args.include_misplaced,
        ..options(ctx, choices, &reader)?
    };
    let mut outcome = judge(ctx, &options, source.as_mut(), &mut |step, location, key, json| {
        let text = zeroize::Zeroizing::new(match format {
            Format::Json => format!("{json:#}\n"),
            _ => storage::yaml::to_string(json),
        });
        let (namespace, name) = location.exactly(key);
        let mut directories = vec![step.directory().as_bytes(), location.resource.as_bytes()];
        directories.extend(namespace);
        tree.write(&directories, name, extension, text.as_bytes()).map(drop)
    })?;
    let steps = outcome.steps();
    tree.write_script("apply.sh", apply_script(&steps, choices.target()).as_bytes())
        .and_then(|_| tree.sync())?;
    let mut causes = Causes::default();
    outcome.unreadable.iter().for_each(|(name, why)| causes.add(named(name).as_bytes(), why));
    for line in causes.lines("cannot export") {
        ctx.ui.warn(&line);
    }
    tell(ctx, choices, &outcome);
    if args.explain {
        ui::print(|out| explain(&outcome, ctx.ui.color, out))?;
    }
    outcome.changed.clear();
    ctx.ui.note(&format!(
        "{} written to {}, {} left out{}",
        table::counted(outcome.objects(), "object", "objects"),
        dir.display(),
        table::count(outcome.left_out.len() as u64),
        if args.explain { "" } else { " (--explain says why)" },
    ));
    if outcome.objects() > 0 {
        let script = shell_word(&dir.join("apply.sh"));
        ctx.ui.note(&format!("apply them: sh {script}"));
    } else {
        ctx.ui.warn("nothing is exported");
    }
    Ok(exit(&outcome))
}

/// A directory in which nothing lies: whatever else was in a step would be applied with it.
fn empty_tree(ctx: &Ctx, dir: &Path, force: bool) -> Result<Tree, Failure> {
    let occupied = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !force {
        return Err(Failure::new(format!("{} is not empty", dir.display())).hint(
            "choose an empty directory: whatever else lies in a step would be applied with it",
        ));
    }
    if occupied {
        ctx.ui.warn(&format!(
            "{} is not empty: what lies in its steps already will be applied, too",
            dir.display()
        ));
    }
    let tree = Tree::open(dir, force)?;
    if tree.is_open_to_others() {
        ctx.ui.warn("others can look into the output directory; the files themselves are private");
    }
    Ok(tree)
}

fn options<'o>(
    ctx: &Ctx,
    choices: &Choices,
    reader: &'o Objects,
) -> Result<job::Options<'o>, Failure> {
    let rules = Rules {
        target: choices.target(),
        keep_owners: choices.keep_owners,
        keep_ips: choices.keep_ips,
    };
    // A cluster is more than its Secrets: without a choice, it is all of it.
    let selection = open::selection(ctx, Some(vec![Selector::All]))?;
    let revision = ctx.global.revision;
    Ok(job::Options { selection, revision, rules, reader, include_misplaced: false })
}

fn judge(
    ctx: &Ctx,
    options: &job::Options<'_>,
    source: &mut dyn Source,
    write: &mut job::Write<'_>,
) -> Result<Outcome, Failure> {
    nothing::look(ctx, source, &options.selection)?;
    job::run(source, options, write, &mut Told::new(&ctx.ui)).map_err(|e| match e {
        job::Error::Source(e) => e.into(),
        job::Error::Export(e) => e.into(),
    })
}

fn named(name: &job::Name) -> String {
    let object = match &name.namespace {
        Some(namespace) => format!("{} {namespace}/{}", name.resource, name.name),
        None => format!("{} {}", name.resource, name.name),
    };
    table::visible(&object)
}

/// What must be known whatever the report says.
fn tell(ctx: &Ctx, choices: &Choices, outcome: &Outcome) {
    let target = choices.target();
    ending::notes(ctx, &outcome.visit);
    ending::damage(ctx, &outcome.visit.damage);
    for (name, why) in &outcome.impossible {
        ctx.ui.warn(&format!("{} cannot be converted: {why}", named(name)));
    }
    for (name, parts) in &outcome.lost {
        let parts = parts.join(", ");
        ctx.ui.warn(&format!("{}: lost in conversion: {parts}", named(name)));
    }
    for (name, fields) in &outcome.incomplete {
        let fields = fields.join(", ");
        ctx.ui.warn(&format!(
            "{}: fields newer than this program are missing: {fields}",
            named(name)
        ));
    }
    let addresses = |r: &Reason| matches!(r, Reason::ServiceAddress | Reason::NodePort);
    if outcome.changed.iter().any(|(_, reasons)| reasons.iter().any(addresses)) {
        ctx.ui.note("cluster IPs and node ports are removed; --keep-ips keeps them");
    }
    for (api_version, n) in &outcome.needs_enabling {
        ctx.ui.warn(&format!(
            "{} at {api_version}: Kubernetes {target} serves it only with --runtime-config={api_version}=true",
            table::counted(*n, "object", "objects"),
        ));
    }
    for (resource, n) in &outcome.undefined {
        ctx.ui.note(&format!(
            "{} of {resource}: the source does not define them, so the new cluster must serve them already",
            table::counted(*n, "object", "objects"),
        ));
    }
}

fn exit(outcome: &Outcome) -> Exit {
    if outcome.is_whole() { Exit::Ok } else { Exit::Partial }
}

/// A path as a shell takes it for one word.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

//! `atrest export`.

use std::path::PathBuf;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::restore::Exporting;
use super::{Ctx, ending, lost, nothing, open, ui};
use crate::export::Tree;
use crate::jobs::export::{self as job, Destination, Error, Form, Options, Outcome};
use crate::report::{Format, table};

/// Options of `export`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // flags are what a command line has
pub struct Args {
    /// Write one file per object below this directory: GROUP/RESOURCE/NAMESPACE/NAME.yaml
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Strip what the server fills in, for applying to another cluster
    #[arg(long)]
    pub clean: bool,

    /// Read what no provider reads with whichever configured secret fits, whatever its name
    #[arg(long)]
    pub try_keys: bool,

    /// Also write objects that are not what their etcd key says, under that key's name
    #[arg(long)]
    pub include_misplaced: bool,

    /// Replace existing files
    #[arg(long, requires = "out")]
    pub force: bool,

    /// Keep metadata.managedFields, which kubectl hides as well
    #[arg(long)]
    pub show_managed_fields: bool,

    /// Write what an empty cluster accepts, in numbered steps, and `DIR/apply.sh` to apply them
    #[arg(long, requires = "out", conflicts_with_all = ["show_managed_fields", "lost"])]
    pub restore: bool,

    /// Say what is left out, changed or converted, and why
    #[arg(long, requires = "restore")]
    pub explain: bool,

    #[command(flatten)]
    pub choices: super::restore::Choices,

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
    lost: args::Lost,

    #[command(flatten)]
    reading: args::ReadingInside,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Yaml, Format::Json]), default_value = "yaml", help_heading = "Output")]
    pub write_out: Format,

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
            &self.lost,
            &self.reading,
            &self.output,
        ])
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    if let Some(dir) = args.out.as_deref().filter(|_| args.restore) {
        let exporting = Exporting {
            choices: &args.choices,
            format: args.write_out,
            include_misplaced: args.include_misplaced,
            force: args.force,
            explain: args.explain,
        };
        return super::restore::export(ctx, &exporting, dir);
    }
    if let Some(option) = args.choices.given() {
        return Err(Failure::usage(format!("{option} is for --restore"))
            .hint("atrest export --restore --out DIR, or atrest restore plan"));
    }
    let objects = super::inside::objects(ctx)?
        .managed_fields(args.show_managed_fields)
        .try_keys(args.try_keys);
    let selection = open::selection(ctx, objects.resources())?;
    let mut source = lost::source(ctx, || selection.ranges(), false)?;
    nothing::look(ctx, source.as_mut(), &selection)?;
    let options = Options {
        selection: &selection,
        revision: ctx.global.revision,
        form: if args.write_out == Format::Json { Form::Json } else { Form::Yaml },
        clean: args.clean,
        include_misplaced: args.include_misplaced,
    };
    let mut out = ui::stdout();
    let target = match &args.out {
        Some(dir) => Destination::Tree(Tree::open(dir, args.force)?),
        None => Destination::Stream(&mut out),
    };
    let told = &mut Told::new(&ctx.ui);
    let outcome =
        job::run(source.as_mut(), &objects, &options, target, told).map_err(|e| match e {
            Error::Source(e) => lost::advised(ctx, e),
            Error::Write(e) => e.into(),
            Error::Stream(e) => ui::write_failure(&e),
        })?;
    ending::end(ctx, [&outcome.visit], || {
        tell(ctx, args, &outcome);
        Ok(if outcome.is_whole() { Exit::Ok } else { Exit::Partial })
    })
}

/// What was written and what was not, and why.
fn tell(ctx: &Ctx, args: &Args, outcome: &Outcome) {
    for line in outcome.causes.lines("cannot export") {
        ctx.ui.warn(&line);
    }
    // A cause says in the end how the value is stored.
    let why = |cause: &str| cause.rsplit_once(" (").map_or(cause.len(), |(why, _)| why.len());
    open::advise(ctx, |is| outcome.causes.any(|cause| is(&cause[..why(cause)])));
    for (key, found) in &outcome.misplaced {
        let key = table::visible(&String::from_utf8_lossy(key));
        ctx.ui.warn(&format!("misplaced: {key}: {found}"));
    }
    if let Some(dir) = &args.out {
        let written = table::counted(outcome.written, "object", "objects");
        ctx.ui.note(&format!("{written} written to {}", dir.display()));
        if args.clean {
            // As they are stored they need not be served, and not in this order.
            ctx.ui
                .note("for another cluster: export --restore writes what it accepts, and a script");
        }
    }
    if outcome.failed > 0 {
        ctx.ui.warn(&format!("{} could not be exported", table::entries(outcome.failed)));
    }
    if outcome.left_out > 0 {
        ctx.ui.warn(&format!(
            "{} left out: they are not the objects that their keys say; --include-misplaced writes them as well",
            table::entries(outcome.left_out)
        ));
    }
}

//! `atrest keys`.

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::{Ctx, ending, nothing, open, ui};
use crate::config::ConfigSet;
use crate::jobs::keys::{self as job, Options, Outcome};
use crate::report::Format;
use crate::report::keys::Report;
use crate::scan::judge_with;

/// Options of `keys`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    selection: args::Selection,

    #[command(flatten)]
    allow_empty: args::AllowEmpty,

    #[command(flatten)]
    revision: args::Revision,

    #[command(flatten)]
    reading: args::ReadingInside,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Jsonl, Format::Csv, Format::Html]), default_value = "table", help_heading = "Output")]
    pub write_out: Format,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[
            &self.source,
            &self.selection,
            &self.allow_empty,
            &self.revision,
            &self.reading,
            &self.output,
        ])
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let configs = super::inside::configs(ctx)?;
    let configured = || configs.as_ref().map(ConfigSet::resources);
    let selection = open::selection(ctx, configured())?;
    let transformers = configs.as_ref().map(|set| open::transformers(ctx, set)).transpose()?;
    let judge = judge_with(transformers.as_ref(), false);
    let kms = open::kms(ctx);
    let mut source = open::source(ctx)?;
    let options = Options {
        selection: &selection,
        sought: nothing::sought(ctx, &selection),
        configs: configs.as_ref(),
        judge: judge.as_ref(),
        plugins: kms.as_ref(),
        transformers: transformers.as_ref(),
        revision: ctx.global.revision,
        unexamined: open::unexamined(ctx, &selection.judged(configured())),
    };
    let outcome = job::run(source.as_mut(), &options, &mut Told::new(&ctx.ui))?;
    ending::end(ctx, [&outcome.visit], || {
        nothing::check(ctx, source.as_mut(), &selection, &outcome.sought)?;
        warn_of_plugins(ctx, &outcome);
        warn_of_missing(ctx, &outcome);
        let report = Report {
            source: &source.info(),
            visit: &outcome.visit,
            config: configs.as_ref().map(open::config_wire),
            keys: &outcome.keys,
        };
        ui::print(|out| report.write(args.write_out, ctx.ui.color, out))?;
        if super::datastore::url(ctx).is_some() {
            ctx.ui.note(
                "only the rows that the server shows were examined: not what it has deleted and not overwritten, its logs, replicas and backups",
            );
        }
        if outcome.has_unneeded() {
            ctx.ui.note("what nothing needs here, backups taken earlier may still need");
        }
        Ok(Exit::Ok)
    })
}

fn warn_of_missing(ctx: &Ctx, outcome: &Outcome) {
    for missing in &outcome.missing {
        let key = missing.name.provider.with_key(missing.name.key.as_deref());
        let reads = missing.reads.as_deref().map_or_else(String::new, |words| {
            format!("; {words}: the API server needs it under the name that is stored")
        });
        ctx.ui.warn(&format!("{key} is needed by live entries and in no configuration{reads}"));
    }
}

fn warn_of_plugins(ctx: &Ctx, outcome: &Outcome) {
    for (name, said) in &outcome.plugins {
        if let Err(why) = said {
            ctx.ui.warn(&format!(
                "which key ID the KMS provider `{name}` writes with is not known: {why}"
            ));
        }
    }
}

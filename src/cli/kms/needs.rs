//! `atrest kms needs`.

use std::path::PathBuf;

use crate::cli::args::{self, Shared};
use crate::cli::failure::{Exit, Failure};
use crate::cli::observer::Told;
use crate::cli::{Ctx, ending, inside, open, ui};
use crate::jobs::backups;
use crate::jobs::kms::needs::{self as job, Options, Outcome};
use crate::jobs::kms::uses::{Extent, sum};
use crate::report::Format;
use crate::report::kms::needs::Report;
use crate::report::table;
use crate::resource::Selection;

/// Options of `kms needs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nothing is decrypted. With --encryption-config the plugins are asked which key they write with.")]
pub struct Args {
    /// Backups below this directory count too (repeatable)
    #[arg(long, value_name = "DIR")]
    backups: Vec<PathBuf>,

    /// Show every data key in the table, not the first 20
    #[arg(long)]
    list: bool,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    allow_empty: args::AllowEmpty,

    #[command(flatten)]
    revision: args::Revision,

    #[command(flatten)]
    reading: args::ReadingInside,

    #[command(flatten)]
    format: args::TableOrJson,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        let groups: [&dyn args::Group; 6] = [
            &self.source,
            &self.prefix,
            &self.allow_empty,
            &self.revision,
            &self.reading,
            &self.output,
        ];
        Shared { reads_several: !self.backups.is_empty(), ..Shared::of(&groups) }
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let configs = inside::configs(ctx)?;
    let selection = super::everything(ctx);
    let opened = open::files(ctx)?;
    let mut told = Told::new(&ctx.ui);
    let backups = judged(ctx, args, &selection, &mut told)?;
    let kms = open::kms(ctx);
    let options = Options {
        place: Extent {
            scope: &selection.scope,
            revision: ctx.global.revision,
            configs: configs.as_ref(),
        },
        kms: kms.as_ref(),
        backups: &backups,
        salvage: ctx.global.salvage,
    };
    let mut outcome = job::run(opened, &options, &mut told)?;
    let opened = outcome.opened.take();
    let judged = selection.judged(configs.as_ref().map(crate::config::ConfigSet::resources));
    outcome.reading.visit.damage.extend(open::unexamined(ctx, &judged));
    ending::end(ctx, [&outcome.reading.visit], || {
        if !outcome.reading.any {
            let source = opened.map_or_else(|| open::source(ctx), |o| Ok(o.into_source()));
            super::is_there(ctx, source?.as_mut(), &selection, &outcome.reading)?;
        }
        let report = Report {
            outcome: &outcome,
            config: configs.as_ref().map(open::config_wire),
            backups: (!args.backups.is_empty()).then_some(&backups),
            list: args.list,
        };
        ui::print(|out| report.write(args.format.write_out, ctx.ui.color, out))?;
        if report.is_cut() && args.format.write_out == Format::Table {
            ctx.ui.note("--list shows every data key");
        }
        Ok(tell(ctx, &outcome, &backups))
    })
}

fn judged(
    ctx: &Ctx,
    args: &Args,
    selection: &Selection,
    told: &mut Told<'_>,
) -> Result<Vec<backups::Backup>, Failure> {
    if args.backups.is_empty() {
        return Ok(Vec::new());
    }
    // Keys are counted over everything; nothing else is asked for.
    let selection = Selection { resources: Vec::new(), ..selection.clone() };
    let outcome = crate::cli::backups::judged(ctx, &args.backups, selection, told)?;
    let is_one = |b: &backups::Backup| b.kind != backups::Kind::NotABackup || b.error.is_some();
    let found: Vec<_> = outcome.backups.into_iter().filter(is_one).collect();
    if found.is_empty() {
        ctx.ui.warn("no backup lies below --backups");
    }
    Ok(found)
}

/// What must be known beside the tables.
fn tell(ctx: &Ctx, outcome: &Outcome, backups: &[backups::Backup]) -> Exit {
    let mut partial = false;
    if ctx.global.revision.is_some() {
        ctx.ui.note(
            "what files still hold of older values was not counted: without --revision it is",
        );
    }
    for plugin in &outcome.plugins {
        let name = &plugin.name.name;
        if let Some(Err(why)) = &plugin.now {
            ctx.ui.warn(&format!(
                "which key ID the KMS provider `{name}` writes with is not known: {why}"
            ));
        }
        let damaged = sum(&plugin.malformed);
        if damaged.entries > 0 {
            partial = true;
            ctx.ui.warn(&format!(
                "{} under `{name}` {} damaged: no key reads them",
                table::counted(damaged.entries, "live value", "live values"),
                if damaged.entries == 1 { "is" } else { "are" }
            ));
        }
    }
    for backup in backups {
        if let Some(why) = &backup.error {
            partial = true;
            ctx.ui.warn(&format!("cannot read {}: {why}", backup.location.display()));
        }
    }
    if !outcome.reading.all {
        partial = true;
    }
    if partial { Exit::Partial } else { Exit::Ok }
}

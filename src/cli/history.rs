//! `atrest history`.

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::lost::Beside;
use super::observer::Told;
use super::{Ctx, ending, lost, nothing, open, ui};
use crate::jobs::history::{self as job, Options, Outcome};
use crate::report::history::Report;
use crate::report::{Format, table};
use crate::resource::NamedKey;
use crate::source::Source;

/// Options of `history`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An etcd key, an object as RESOURCE/NAMESPACE/NAME, or the beginning of either
    #[arg(value_name = "KEY|PREFIX", required = true)]
    pub keys: Vec<String>,

    /// Show the values of data keys that changed, not only their names and lengths
    #[arg(long)]
    pub reveal: bool,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    namespaces: args::Namespaces,

    #[command(flatten)]
    allow_empty: args::AllowEmpty,

    #[command(flatten)]
    revision: args::Revision,

    #[command(flatten)]
    lost: args::Lost,

    #[command(flatten)]
    reading: args::ReadingInside,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Jsonl, Format::Csv]), default_value = "table", help_heading = "Output")]
    pub write_out: Format,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[
            &self.source,
            &self.prefix,
            &self.namespaces,
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
    let keys = open::keys(ctx, &args.keys)?;
    let objects = super::inside::objects(ctx)?.managed_fields(false);
    let Beside { mut source, records, damage } = lost::beside(ctx, &keys)?;
    let options = Options {
        keys: &keys,
        scope: &open::scope(ctx),
        namespaces: &ctx.global.namespace,
        revision: ctx.global.revision,
        reveal: args.reveal,
        lost: records.as_deref(),
    };
    let mut outcome = job::run(source.as_mut(), &objects, &options, &mut Told::new(&ctx.ui))
        .map_err(|e| lost::advised(ctx, e))?;
    for part in damage {
        if !outcome.visit.damage.contains(&part) {
            outcome.visit.damage.push(part);
        }
    }
    ending::end(ctx, [&outcome.visit], || {
        let whole = tell_unread(ctx, &outcome);
        not_there(ctx, source.as_mut(), &outcome.missing(&keys))?;
        let info = source.info();
        let report = Report { source: &info, visit: &outcome.visit, revisions: &outcome.revisions };
        ui::print(|out| report.write(args.write_out, ctx.ui.color, out))?;
        for line in outcome.no_objects.lines("unreadable:") {
            ctx.ui.warn(&line);
        }
        Ok(if whole && !outcome.has_unreadable() { Exit::Ok } else { Exit::Partial })
    })
}

/// What could not be compared. Without keys, nobody expects it to be. Returns whether the result
/// is whole.
fn tell_unread(ctx: &Ctx, outcome: &Outcome) -> bool {
    if outcome.unread == 0 {
        return true;
    }
    let what = format!(
        "the data of {} could not be read, and so not be compared",
        table::counted(outcome.unread, "revision", "revisions")
    );
    let without_keys = ctx.global.encryption_config.is_empty();
    if without_keys {
        ctx.ui.note(&format!("{what}; --encryption-config decrypts"));
    } else {
        ctx.ui.warn(&what);
    }
    without_keys
}

/// The KEYs of which nothing is held.
fn not_there(ctx: &Ctx, source: &mut dyn Source, missing: &[&NamedKey]) -> Result<(), Failure> {
    if missing.is_empty() || ctx.global.allow_empty {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|t| table::visible(&t.text)).collect();
    let failure = Failure::new(format!("no revision of {} is held", names.join(", "))).hint(
        "compaction forgets keys that were deleted; `atrest residue --recover DIR` reads what is left of them in files, decrypted with --encryption-config, and `history --lost` shows it",
    );
    Err(missing.iter().fold(failure, |failure, key| nothing::near(ctx, source, key, failure)))
}

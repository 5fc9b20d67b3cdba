//! `atrest kms check`.

use crate::cli::args::{self, Shared};
use crate::cli::failure::{Exit, Failure};
use crate::cli::observer::Told;
use crate::cli::{Ctx, ending, open, ui};
use crate::jobs::kms::check::{self as job, Outcome};
use crate::jobs::kms::uses::{self, Extent};
use crate::kms::Plugins;
use crate::report::kms::check::Report;
use crate::report::table;
use crate::source::Source;

/// Options of `kms check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Where a source is named (--endpoints, --snapshot, --data-dir, --kine, --profile), the key IDs of its
live entries are compared with those that the plugins write with now. Exit 1 if a plugin cannot be
used.")]
pub struct Args {
    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    allow_empty: args::AllowEmpty,

    #[command(flatten)]
    revision: args::Revision,

    #[command(flatten)]
    reading: args::Reading,

    #[command(flatten)]
    identities: args::Identities,

    #[command(flatten)]
    format: args::TableOrJson,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[
            &self.source,
            &self.prefix,
            &self.allow_empty,
            &self.revision,
            &self.reading,
            &self.identities,
            &self.output,
        ])
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let configs = super::configured(ctx)?;
    if uses::configured(&configs).is_empty() {
        let location = &configs.current().location;
        return Err(Failure::new(format!("{} names no KMS provider", table::visible(location)))
            .hint("`atrest config explain RESOURCE` says what it encrypts with"));
    }
    let g = &ctx.global;
    let named = g.is_file() || !g.endpoints.is_empty();
    let mut source = named.then(|| open::source(ctx)).transpose()?;
    let selection = super::everything(ctx);
    let place = Extent { scope: &selection.scope, revision: g.revision, configs: Some(&configs) };
    let mut told = Told::new(&ctx.ui);
    let with = source.as_mut().map(|source| (source.as_mut() as &mut dyn Source, place));
    let outcome = job::run(&configs, &Plugins::new(), with, &mut told)?;
    let report = Report { outcome: &outcome, config: open::config_wire(&configs) };
    let visit = outcome.source.iter().map(|(_, reading)| &reading.visit);
    ending::end(ctx, visit.collect::<Vec<_>>(), || {
        if let (Some(source), Some((_, reading))) = (&mut source, &outcome.source) {
            super::is_there(ctx, source.as_mut(), &selection, reading)?;
        }
        ui::print(|out| report.write(args.format.write_out, ctx.ui.color, out))?;
        Ok(tell(ctx, &outcome, named))
    })
}

/// What must be known beside the tables.
fn tell(ctx: &Ctx, outcome: &Outcome, named: bool) -> Exit {
    let mut failed = false;
    for c in &outcome.plugins {
        if let Some(why) = c.why() {
            failed = true;
            ctx.ui.warn(&format!("KMS provider `{}`: {why}", c.name.name));
        }
    }
    for u in &outcome.unconfigured {
        let entries = table::entries(u.key_ids.iter().map(|k| k.entries).sum());
        let name = &u.name.name;
        ctx.ui
            .warn(&format!("no configuration has the KMS provider `{name}`, which {entries} need"));
    }
    if outcome.malformed > 0 {
        ctx.ui.warn(&format!(
            "{} that KMS encrypted are damaged: no key reads them",
            table::counted(outcome.malformed, "live value", "live values")
        ));
    }
    if !named {
        ctx.ui.note("no source was named, so which key IDs live entries need was not looked at");
    }
    match (failed, outcome.malformed) {
        (true, _) => Exit::Failed,
        (false, 0) => Exit::Ok,
        (false, _) => Exit::Partial,
    }
}

//! `atrest kms escrow`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use crate::agefile::Unlock;
use crate::cli::args::{self, Shared};
use crate::cli::failure::{Exit, Failure};
use crate::cli::observer::Told;
use crate::cli::{Ctx, ending, open, ui};
use crate::envelope::Version;
use crate::jobs::kms::escrow::{self as job, Error, Options, Outcome, Plugin};
use crate::jobs::kms::uses::Extent;
use crate::kms::escrow::{Recipient, opens_what_is_for};
use crate::report::kms::escrow::Report;
use crate::report::table;

/// Options of `kms escrow`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Whoever has the file and an identity of a recipient reads every value under these data keys from any
copy of etcd's data, without the KMS: guard the identity as you would the keys. The file is for the
day when the KMS key is gone. It is no substitute for rotation, and it ages: API servers make new
data keys when they start and when the key changes, with KMS v1 for every write.")]
pub struct Args {
    /// age recipient, age1…, whose identity will open the file (repeatable)
    #[arg(long, value_name = "RECIPIENT", required = true)]
    to: Vec<String>,

    /// The file to write, with mode 0600, whole or not at all [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Replace an existing file
    #[arg(long, requires = "out")]
    force: bool,

    /// Write it as text
    #[arg(long)]
    armor: bool,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    prefix: args::Prefix,

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
        let groups: [&dyn args::Group; 5] =
            [&self.source, &self.prefix, &self.revision, &self.reading, &self.output];
        Shared { makes_escrow: true, ..Shared::of(&groups) }
    }

    /// The file, if it is not stdout.
    fn file(&self) -> Option<&Path> {
        self.out.as_deref().filter(|path| *path != Path::new("-"))
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let recipients = recipients(args)?;
    if args.file().is_none() && !args.armor && std::io::stdout().is_terminal() {
        return Err(Failure::usage("what is written is no text, and stdout is a terminal")
            .hint("give --out FILE, or --armor for text"));
    }
    let configs = super::configured(ctx)?;
    let selection = super::everything(ctx);
    let mut source = open::source(ctx)?;
    let check_with = checking(ctx, args, &recipients)?;
    let kms = open::kms(ctx);
    let options = Options {
        place: Extent {
            scope: &selection.scope,
            revision: ctx.global.revision,
            configs: Some(&configs),
        },
        proxy_namespace: ctx.global.proxy_namespace.as_deref().unwrap_or_default().as_bytes(),
        kms: kms.as_ref(),
        recipients: &recipients,
        armor: args.armor,
        out: args.file().map(|path| (path, args.force)),
        check_with,
    };
    let outcome = match job::run(source.as_mut(), &options, &mut Told::new(&ctx.ui)) {
        Ok(outcome) => outcome,
        Err(Error::Nothing(reading)) => {
            super::is_there(ctx, source.as_mut(), &selection, &reading)?;
            ending::notes(ctx, &reading.visit);
            ending::damage(ctx, &reading.visit.damage);
            return Err(Failure::new(
                "nothing here depends on a KMS data key: there is nothing to keep",
            ));
        }
        Err(error) => return Err(failed(ctx, args, error)),
    };
    ending::end(ctx, [&outcome.reading.visit], || {
        let report = Report {
            outcome: &outcome,
            recipients: recipients.len(),
            armor: args.armor,
            out: args.file(),
        };
        ui::print(|out| match &outcome.bytes {
            Some(bytes) => out.write_all(bytes),
            None => report.write(args.format.write_out, ctx.ui.color, out),
        })?;
        Ok(tell(ctx, &outcome))
    })
}

fn recipients(args: &Args) -> Result<Vec<Recipient>, Failure> {
    args.to.iter().map(|text| Recipient::parse(text)).collect::<Result<_, _>>().map_err(|e| {
        Failure::usage(format!("--to: {e}"))
            .hint("give the line that `age-keygen -y FILE` prints, age1…")
    })
}

/// What the file is opened with again.
fn checking<'c>(
    ctx: &'c Ctx,
    args: &Args,
    to: &[Recipient],
) -> Result<Option<&'c Unlock>, Failure> {
    let unlock = &ctx.unlock;
    if !unlock.is_given() || opens_what_is_for(unlock, to) {
        return Ok(Some(unlock).filter(|u| u.is_given()));
    }
    if unlock.was_used() {
        ctx.ui.note("the file is not checked: no --identity is of one of its recipients");
        return Ok(None);
    }
    Err(Failure::usage("no --identity is of one of the recipients, so nothing can be checked")
        .hint(format!("give the secret half of {} with --identity FILE, or none", args.to[0])))
}

fn failed(ctx: &Ctx, args: &Args, error: Error) -> Failure {
    let file = args.file().map_or_else(|| "stdout".to_owned(), |path| path.display().to_string());
    match error {
        Error::Source(e) => e.into(),
        Error::NoneUnwrapped(plugins) => {
            lacking(ctx, &plugins);
            Failure::new("none of the data keys could be unwrapped; no file is written").hint(
                "`atrest kms check` asks the plugins; --kms-exec unwraps data keys without them",
            )
        }
        Error::Write(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            Failure::new(format!("{file} exists already"))
                .hint("give another --out, or --force to replace it")
        }
        Error::Write(e) => Failure::new(format!("cannot write {file}")).because(&e),
        e => Failure::new(format!("cannot write {file}")).because(&e),
    }
}

/// What could not be kept, and why. Returns whether there is such.
fn lacking(ctx: &Ctx, plugins: &[Plugin]) -> bool {
    let mut any = false;
    for plugin in plugins {
        let name = &plugin.name.name;
        for (why, (keys, tally)) in &plugin.missing {
            any = true;
            ctx.ui.warn(&format!(
                "{} of `{name}`, which {} and {} need, {} not kept: {why}",
                table::counted(*keys, "data key", "data keys"),
                table::counted(tally.entries, "live entry", "live entries"),
                table::counted(tally.history, "superseded revision", "superseded revisions"),
                if *keys == 1 { "is" } else { "are" },
            ));
        }
        if plugin.malformed.entries > 0 {
            any = true;
            ctx.ui.warn(&format!(
                "{} under `{name}` cannot be read with any key: damaged",
                table::counted(plugin.malformed.entries, "live value", "live values"),
            ));
        }
    }
    any
}

/// What must be known beside the result.
fn tell(ctx: &Ctx, outcome: &Outcome) -> Exit {
    let lacking = lacking(ctx, &outcome.plugins);
    let each = outcome.plugins.iter().any(|p| p.name.version == Version::V1 && p.kept.0 > 0);
    ctx.ui.warn(
        "whoever has it and an identity of a recipient reads every value under these data keys, from any copy of etcd's data, without the KMS: guard the identity as the keys themselves",
    );
    ctx.ui.note(if each {
        "it is no substitute for rotation, and it ages: with KMS v1 every write makes a new data key"
    } else {
        "it is no substitute for rotation, and it ages: API servers make a new data key when they start and when the KMS key changes"
    });
    if !outcome.checked {
        ctx.ui.note("whether it opens was not checked: --identity FILE would have done so");
    }
    if lacking || !outcome.reading.all { Exit::Partial } else { Exit::Ok }
}

//! `atrest rewrite`: a snapshot file with other envelopes.

use std::path::{Path, PathBuf};

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::{Ctx, configuration, open, ui};
use crate::config::ConfigSet;
use crate::jobs::rewrite as job;
use crate::migrate::rewrite::Counts;
use crate::report::{Format, table};
use crate::scan::Causes;
use crate::source::snapshot::SnapshotOptions;

/// Options of `rewrite`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes a new snapshot file for `etcdutl snapshot restore`, in which every value is stored as an
API server with the new configuration would store it. Revisions, versions, leases and all other
data stay as they are. The input is not changed.")]
pub struct Args {
    /// The new snapshot file; it must not exist
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,

    /// The configuration to write with; --encryption-config gives those to read with
    #[arg(long, value_name = "FILE")]
    pub write_config: PathBuf,

    /// Leave superseded revisions and deletions out
    #[arg(long)]
    pub drop_history: bool,

    /// Copy values that cannot be read as they are, instead of giving up
    #[arg(long)]
    pub keep_unreadable: bool,

    #[command(flatten)]
    source: args::SnapshotFile,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    reading: args::ReadingInside,

    #[command(flatten)]
    pub format: args::TableOrJson,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.source, &self.prefix, &self.reading, &self.output])
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let format = args.format.write_out;
    let Some(input) = &ctx.global.snapshot else {
        return Err(Failure::usage("rewrite reads a snapshot file: give one with --snapshot"));
    };
    if args.out.exists() {
        return Err(Failure::new(format!("{} exists already", args.out.display()))
            .hint("choose another name; nothing is overwritten"));
    }
    let new = one_config(ctx, &args.write_config)?;
    let writer = open::transformers(ctx, &new)?;
    // What the new configuration reads needs no old one.
    let old = crate::cli::inside::configs(ctx)?.unwrap_or_else(|| new.clone());
    let reader = open::transformers(ctx, &old)?;

    let options = SnapshotOptions { skip_hash_check: ctx.global.skip_hash_check, salvage: false };
    let mut snapshot = open::snapshot(ctx, input, &options)?;
    let options = job::Options {
        out: &args.out,
        scope: open::scope(ctx),
        reader: &reader,
        writer: &writer,
        drop_history: args.drop_history,
        keep_unreadable: args.keep_unreadable,
    };
    let counts = job::run(&mut snapshot, &options, &mut Told::new(&ctx.ui))
        .map_err(|e| refused(ctx, &args.out, e))?;
    report_unreadable(ctx, &counts);
    ui::print(|out| report(format, args, &counts, out))?;
    Ok(if counts.unreadable.is_empty() { Exit::Ok } else { Exit::Partial })
}

/// Why there is no new file.
fn refused(ctx: &Ctx, out: &Path, error: job::Error) -> Failure {
    match error {
        job::Error::Source(e) => e.into(),
        job::Error::Write(e) => Failure::new(format!("cannot write {}", out.display())).because(&e),
        job::Error::Unreadable(counts) => {
            report_unreadable(ctx, &counts);
            Failure::new(format!(
                "{} cannot be read; no file is written",
                values(counts.unreadable.len() as u64)
            ))
            .hint("give the configuration that has their keys as another --encryption-config, or copy them as they are with --keep-unreadable")
        }
        other => Failure::new(other.to_string()).because(&other),
    }
}

fn values(n: u64) -> String {
    table::counted(n, "value", "values")
}

fn one_config(ctx: &Ctx, path: &Path) -> Result<ConfigSet, Failure> {
    let content = configuration::read(path)?;
    if let Some(warning) = &content.exposed {
        ctx.ui.warn(warning);
    }
    ConfigSet::new(configuration::load(&content)?)
        .ok_or_else(|| Failure::new(format!("{} holds no configuration", path.display())))
}

fn report_unreadable(ctx: &Ctx, counts: &Counts) {
    let mut causes = Causes::default();
    for (key, revision, reason) in &counts.unreadable {
        let value = [key, format!(" at revision {revision}").as_bytes()].concat();
        causes.add(&value, reason);
    }
    for line in causes.lines("cannot read") {
        ctx.ui.warn(&line);
    }
}

fn report(
    format: Format,
    args: &Args,
    counts: &Counts,
    out: &mut impl std::io::Write,
) -> std::io::Result<()> {
    if format == Format::Json {
        let document = serde_json::json!({
            "schema": "atrest.rewrite/v1",
            "out": args.out.to_string_lossy(),
            "records": counts.records,
            "rewritten": counts.rewritten,
            "dropped": counts.dropped,
            "unreadable": counts.unreadable.len(),
        });
        writeln!(out, "{document:#}")
    } else {
        writeln!(
            out,
            "{}: {} of {} rewritten, {} left out, {} unreadable",
            args.out.display(),
            table::count(counts.rewritten),
            values(counts.records),
            table::count(counts.dropped),
            table::count(counts.unreadable.len() as u64)
        )?;
        writeln!(out, "restore it with: etcdutl snapshot restore {}", args.out.display())
    }
}

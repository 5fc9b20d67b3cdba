//! `atrest backups`.

mod results;
mod state;

use std::path::PathBuf;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::{Ctx, open, ui};
use crate::agefile::Unlock;
use crate::config::ConfigSet;
use crate::jobs::backups::{self as job, Earlier, Kind, Options, Outcome, Shard};
use crate::report::Format;
use crate::report::backups::Report;
use crate::report::table;
use crate::resource::Selection;
use crate::transform::Transformers;

use self::state::Kept;

/// Options of `backups`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Snapshots, packed or not, data directories, kine databases, archives of Velero and
rancher-backup, and what Gardener keeps, are found by their content.
With --encryption-config every value is decrypted, and what no key reads is counted.
In a pod of an indexed Job, JOB_COMPLETION_INDEX and JOB_COMPLETIONS say which --shard it is.")]
pub struct Args {
    /// Directories with backups, or single ones; also s3://, gs://, az:// and https:// addresses
    #[arg(required_unless_present = "summarize", value_name = "LOCATION")]
    locations: Vec<PathBuf>,

    /// Skip what this file says was judged before and has not changed since, and write it anew
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Judge one part of N, counted from 0: the same files in every run
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<Shard>,

    /// Also put the report, as JSON, into this directory or below this address
    #[arg(long, value_name = "LOCATION")]
    results: Option<PathBuf>,

    /// Judge nothing, and add up what --results or -w json of earlier runs wrote
    #[arg(long, value_name = "RESULTS", num_args = 1.., conflicts_with_all = ["locations", "state", "shard", "results"])]
    summarize: Vec<PathBuf>,

    #[command(flatten)]
    selection: args::Selection,

    #[command(flatten)]
    reading: args::Decrypting,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Jsonl, Format::Csv, Format::Html]), default_value = "table", help_heading = "Output")]
    write_out: Format,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        let groups: [&dyn args::Group; 3] = [&self.selection, &self.reading, &self.output];
        Shared { reads_several: self.summarize.is_empty(), ..Shared::of(&groups) }
    }
}

/// What is here, and what is elsewhere.
#[cfg(feature = "remote")]
fn places(
    locations: &[PathBuf],
) -> Result<(Vec<PathBuf>, Option<(crate::remote::Remote, Vec<crate::remote::Address>)>), Failure> {
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for location in locations {
        match crate::remote::Address::of(location) {
            Some(address) => there.push(address.map_err(|e| Failure::from(&e))?),
            None => here.push(location.clone()),
        }
    }
    let elsewhere = if there.is_empty() { None } else { Some((super::remote::access()?, there)) };
    Ok((here, elsewhere))
}

/// As with the feature: addresses are known, and refused.
#[cfg(not(feature = "remote"))]
fn places(locations: &[PathBuf]) -> Result<(Vec<PathBuf>, ()), Failure> {
    if let Some(remote) = locations.iter().find(|l| l.to_string_lossy().contains("://")) {
        return Err(Failure::usage(format!("{} is not a directory", remote.display()))
            .hint("this build reads directories: copy the backups into one"));
    }
    Ok((locations.to_vec(), ()))
}

/// `I/N`.
fn shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    let (index, of) = parts.ok_or_else(|| format!("`{text}` is not I/N, such as 0/3"))?;
    Shard::new(index, of).ok_or_else(|| format!("of {of} parts the last is {}", i64::from(of) - 1))
}

/// The part that a pod of an indexed Job is for.
fn of_job(ctx: &Ctx) -> Result<Option<Shard>, Failure> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(index) = variable("JOB_COMPLETION_INDEX") else { return Ok(None) };
    let Some(of) = variable("JOB_COMPLETIONS") else {
        ctx.ui.warn("JOB_COMPLETION_INDEX is set but JOB_COMPLETIONS is not: everything is judged");
        return Ok(None);
    };
    shard(&format!("{index}/{of}")).map(Some).map_err(|e| {
        Failure::usage(format!("JOB_COMPLETION_INDEX and JOB_COMPLETIONS: {e}"))
            .hint("set JOB_COMPLETIONS to the Job's completions, or give --shard I/N")
    })
}

/// Judges every backup at `locations`, paths and addresses, by what is selected.
///
/// # Errors
/// When an address is none, or a location cannot be listed.
pub fn judged(
    ctx: &Ctx,
    locations: &[PathBuf],
    selection: Selection,
    told: &mut Told<'_>,
) -> Result<Outcome, Failure> {
    let unlock = ctx.unlock.clone();
    let how = How { selection, transformers: None, shard: None, unlock, earlier: None };
    judge(locations, how, &mut |_| (), told)
}

struct How<'a> {
    selection: Selection,
    transformers: Option<&'a Transformers>,
    shard: Option<Shard>,
    unlock: Unlock,
    earlier: Option<&'a Earlier>,
}

fn judge(
    locations: &[PathBuf],
    how: How<'_>,
    each: &mut dyn FnMut(&job::Backup),
    told: &mut Told<'_>,
) -> Result<Outcome, Failure> {
    let (locations, elsewhere) = places(locations)?;
    #[cfg(not(feature = "remote"))]
    let () = elsewhere;
    let options = Options {
        locations,
        #[cfg(feature = "remote")]
        elsewhere: elsewhere.as_ref().map(|(remote, addresses)| (remote, addresses.clone())),
        selection: how.selection,
        transformers: how.transformers,
        shard: how.shard,
        unlock: how.unlock,
        earlier: how.earlier,
    };
    job::run(&options, each, told).map_err(|error| match &error {
        job::Error::List { cause, .. } => {
            Failure::new(error.to_string()).because(cause).hint("check the path")
        }
        #[cfg(feature = "remote")]
        job::Error::Remote(e) => e.into(),
    })
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let (outcome, missing) = if args.summarize.is_empty() {
        args.results.as_deref().map(results::check).transpose()?;
        (look(ctx, args)?, Vec::new())
    } else {
        const HONOURED: [&str; 6] =
            ["summarize", "write-out", "quiet", "no-progress", "color", "help"];
        if let Some(name) = ctx.given.first_but(&HONOURED) {
            return Err(Failure::usage(format!("--{name} changes nothing that was judged before"))
                .hint("leave it out"));
        }
        results::read(&args.summarize)?
    };
    let nothing = |b: &job::Backup| b.kind == Kind::NotABackup && b.error.is_none();
    // A part may have no backup of all that there are.
    if outcome.shard.is_none() && outcome.backups.iter().all(nothing) {
        let files = table::counted(outcome.backups.len() as u64, "file", "files");
        return Err(Failure::new(format!("no backup among {files}"))
            .hint("give the directory that etcd snapshots are saved to"));
    }
    let locations = if args.summarize.is_empty() { &args.locations } else { &args.summarize };
    let locations: Vec<_> = locations.iter().map(|l| shown(l)).collect();
    let report = Report { outcome: &outcome, locations: &locations.join(", "), missing: &missing };
    ui::print(|out| report.write(args.write_out, ctx.ui.color, out))?;
    if let Some(place) = &args.results {
        ctx.ui.note(&format!("the report is in {}", results::put(place, &outcome)?));
    }
    let sealed = outcome.backups.iter().filter(|b| b.kind == Kind::Age).count();
    if sealed > 0 && !ctx.unlock.is_given() && args.summarize.is_empty() {
        ctx.ui.note(&format!(
            "--identity FILE opens what age encrypted: {}",
            table::counted(sealed as u64, "file", "files")
        ));
    }
    if !missing.is_empty() {
        ctx.ui.warn(&format!("{} is missing: its backups are not judged", report.not_judged()));
    }
    let bad = |b: &job::Backup| {
        b.error.is_some() || b.totals.is_some_and(|t| t.unreadable > 0 || t.misplaced > 0)
    };
    let partial = !missing.is_empty() || outcome.backups.iter().any(bad);
    Ok(if partial { Exit::Partial } else { Exit::Ok })
}

/// Judges what is to be judged.
fn look(ctx: &Ctx, args: &Args) -> Result<Outcome, Failure> {
    let configs = super::inside::configs(ctx)?;
    let transformers = configs.as_ref().map(|set| open::transformers(ctx, set)).transpose()?;
    let selection = open::selection(ctx, configs.as_ref().map(ConfigSet::resources))?;
    let shard = match args.shard {
        Some(shard) => Some(shard),
        None => of_job(ctx)?,
    };
    let state = args.state.as_deref().map(|path| Kept::open(ctx, path, configs.as_ref()));
    let (mut kept, earlier) = state.transpose()?.unzip();
    let how = How {
        selection,
        transformers: transformers.as_ref(),
        shard,
        unlock: ctx.unlock.clone(),
        earlier: earlier.as_ref(),
    };
    let mut kept_so_far = Ok(());
    let mut each = |backup: &job::Backup| {
        if let (Some(kept), Ok(())) = (&mut kept, &kept_so_far) {
            kept_so_far = kept.add(backup);
        }
    };
    let outcome = judge(&args.locations, how, &mut each, &mut Told::new(&ctx.ui))?;
    kept_so_far?;
    if let Some(kept) = &kept {
        kept.finish(&outcome.backups)?;
    }
    if outcome.skipped > 0 {
        ctx.ui.note(&format!(
            "{} had been judged before and did not change",
            table::counted(outcome.skipped, "file", "files")
        ));
    }
    if let Some(shard) = outcome.shard {
        ctx.ui.note(&format!(
            "shard {shard}: {} of {} files",
            table::count(outcome.backups.len() as u64),
            table::count(outcome.listed)
        ));
    }
    Ok(outcome)
}

/// A location without what is secret in it.
#[cfg(feature = "remote")]
fn shown(location: &std::path::Path) -> String {
    match crate::remote::Address::of(location) {
        Some(Ok(address)) => address.shown().to_owned(),
        _ => location.display().to_string(),
    }
}

/// As with the feature.
#[cfg(not(feature = "remote"))]
fn shown(location: &std::path::Path) -> String {
    location.display().to_string()
}

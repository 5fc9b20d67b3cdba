//! `atrest backups`.

use std::path::PathBuf;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::{Ctx, open, ui};
use crate::config::ConfigSet;
use crate::jobs::backups::{self as job, Kind, Options};
use crate::report::Format;
use crate::report::backups::Report;
use crate::resource::Selection;
use crate::transform::Transformers;

/// Options of `backups`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Snapshots, packed or not, data directories and kine databases are found by their content.
With --encryption-config every value is decrypted, and what no key reads is counted.")]
pub struct Args {
    /// Directories with backups, or single ones; also s3://, gs://, az:// and https:// addresses
    #[arg(required = true, value_name = "LOCATION")]
    locations: Vec<PathBuf>,

    #[command(flatten)]
    selection: args::Selection,

    #[command(flatten)]
    reading: args::Decrypting,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Jsonl]), default_value = "table", help_heading = "Output")]
    write_out: Format,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.selection, &self.reading, &self.output])
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

/// Judges every backup at `locations`, paths and addresses, by what is selected; with
/// `transformers`, values are decrypted too.
///
/// # Errors
/// When an address is none, or a location cannot be listed.
pub fn judged(
    locations: &[PathBuf],
    selection: Selection,
    transformers: Option<&Transformers>,
    told: &mut Told<'_>,
) -> Result<job::Outcome, Failure> {
    let (locations, elsewhere) = places(locations)?;
    let options = Options {
        locations,
        #[cfg(feature = "remote")]
        elsewhere: elsewhere.as_ref().map(|(remote, addresses)| (remote, addresses.clone())),
        selection,
        transformers,
    };
    job::run(&options, told).map_err(|error| match &error {
        job::Error::List { cause, .. } => {
            Failure::new(error.to_string()).because(cause).hint("check the path")
        }
        #[cfg(feature = "remote")]
        job::Error::Remote(e) => e.into(),
    })
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let configs = super::inside::configs(ctx)?;
    let transformers = configs.as_ref().map(|set| open::transformers(ctx, set)).transpose()?;
    let selection = open::selection(ctx, configs.as_ref().map(ConfigSet::resources))?;
    let told = &mut Told::new(&ctx.ui);
    let outcome = judged(&args.locations, selection, transformers.as_ref(), told)?;
    if outcome.backups.iter().all(|b| b.kind == Kind::NotABackup && b.error.is_none()) {
        return Err(Failure::new(format!(
            "no backup among {}",
            crate::report::table::counted(outcome.backups.len() as u64, "file", "files")
        ))
        .hint("give the directory that etcd snapshots are saved to"));
    }
    let report = Report { outcome: &outcome, verified: transformers.is_some() };
    ui::print(|out| report.write(args.write_out, ctx.ui.color, out))?;
    let bad = |b: &job::Backup| {
        b.error.is_some() || b.totals.is_some_and(|t| t.unreadable > 0 || t.misplaced > 0)
    };
    Ok(if outcome.backups.iter().any(bad) { Exit::Partial } else { Exit::Ok })
}

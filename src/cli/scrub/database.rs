//! `atrest scrub --kine FILE`: the old plaintext removed from a database that no server has open.

use std::path::{Path, PathBuf};

use super::{Args, directory, give_receipt, interrupted, stopped};
use crate::cli::failure::{Exit, Failure};
use crate::cli::observer::Told;
use crate::cli::{Ctx, interrupt, ui};
use crate::forensics::Targets;
use crate::jobs::scrub::Progress;
use crate::jobs::scrub::database::{self as job, Options, Outcome, Stop};
use crate::report::scrub::database::{Report, receipt, receipt_page};

/// The database that is given; none where an etcd is.
///
/// # Errors
/// When it is on a server, or options about members of an etcd are given with it.
pub fn given(ctx: &Ctx, args: &Args) -> Result<Option<PathBuf>, Failure> {
    let Some(kine) = &ctx.global.kine else { return Ok(None) };
    let Some(file) = kine.file() else {
        return Err(Failure::usage("scrub takes kine's SQLite file, not a database on a server"));
    };
    let of_members = [
        ("--compact-now", args.compact_now),
        ("--free-disk", !args.free_disk.is_empty()),
        ("--member-data-dir", !args.member_data_dir.is_empty()),
        ("--settle", args.settle.is_some()),
    ];
    if let Some((name, _)) = of_members.into_iter().find(|(_, given)| *given) {
        return Err(Failure::usage(format!(
            "{name} is about the members of an etcd, but a file is scrubbed"
        )));
    }
    Ok(Some(file.to_owned()))
}

/// Runs the command on the database.
///
/// # Errors
/// When it cannot be read, or a receipt not written.
pub fn run(
    ctx: &Ctx,
    args: &Args,
    path: &Path,
    (targets, resources): (&Targets, &[String]),
) -> Result<Exit, Failure> {
    let stop = interrupt::tell();
    let options = Options { path, targets, apply: args.apply, stop: &stop };
    let receipts = if args.apply { Some(directory(args)?) } else { None };
    let outcome = job::run(&options, &mut Told::new(&ctx.ui))?;
    let ended = matches!(outcome.progress, Progress::Scrubbed | Progress::Left)
        || outcome.progress == Progress::Clean && outcome.stop.is_none();
    if let (Some(directory), true) = (&receipts, ended) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        give_receipt(
            directory,
            &name,
            [
                ("json", &|out| receipt(&outcome, resources, out)),
                ("html", &|out| receipt_page(&outcome, resources, out)),
            ],
        )?;
    }
    let shown = receipts.as_ref().map(|d| d.display().to_string());
    let report =
        Report { outcome: &outcome, applied: args.apply, resources, receipts: shown.as_deref() };
    ui::print(|out| report.write(args.format.write_out, ctx.ui.color, out))?;
    Ok(conclude(ctx, args, &outcome))
}

fn conclude(ctx: &Ctx, args: &Args, outcome: &Outcome) -> Exit {
    let Some(stop) = &outcome.stop else {
        return if outcome.progress == Progress::Left { Exit::Partial } else { Exit::Ok };
    };
    if matches!(stop, Stop::Interrupted) {
        return interrupted(ctx);
    }
    // A server that runs is no news before anything is to be done.
    stopped(ctx, args, &stop.to_string(), advice(stop), matches!(stop, Stop::Open(_)))
}

fn advice(stop: &Stop) -> &'static str {
    match stop {
        Stop::Interrupted => "run it again to continue",
        Stop::Open(_) => "stop it first: on k3s `systemctl stop k3s`",
        Stop::Live(_) => {
            "re-encrypt them first, with the server running: on k3s `k3s secrets-encrypt reencrypt`"
        }
        Stop::Damaged(_) => "`sqlite3 FILE .recover` rebuilds what is left of it",
        Stop::NoRoom { .. } => {
            "make room on that disk first; TMPDIR may lead the temporary copy to another one"
        }
        Stop::Failed { .. } => "nothing is half done; run it again to continue",
    }
}

//! `atrest scrub`: the old plaintext removed, member by member, or from kine's file.

mod database;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{self, Shared};
use super::config::write::write;
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::{Ctx, duration, inside, interrupt, open, residue, ui};
use crate::config::ConfigSet;
use crate::jobs::scrub::{self as job, Member, Options, Progress, Stop};
use crate::report::scrub::{Report, receipt, receipt_page};

/// How long members may take unless an option says otherwise.
const SETTLE: Duration = Duration::from_mins(2);

/// Options of `scrub`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --apply nothing is changed. Ending it at any moment is safe: run it again to continue, and
members that are clean already are left alone. With --kine the server must be stopped; no backup is
made, which would hold the plaintext.")]
pub struct Args {
    /// Remove what is found: compact, then defragment one member after the other, the leader last
    #[arg(long)]
    pub apply: bool,

    /// Compact although an API server does it by itself, up to the revision of five minutes before
    #[arg(long)]
    pub compact_now: bool,

    /// Where to write a receipt for each member, or the database; the directory is made [default:
    /// `atrest-scrub-TIME` in the working directory]
    #[arg(long, value_name = "DIR", requires = "apply")]
    pub receipts: Option<PathBuf>,

    /// Room on the disk of a member, as you have seen it there, bytes (repeatable)
    #[arg(long, value_name = "MEMBER=BYTES", value_parser = free)]
    pub free_disk: Vec<(String, u64)>,

    /// The data directory of a member that runs on this machine: its disk is looked at (repeatable)
    #[arg(long, value_name = "MEMBER=DIR", value_parser = place)]
    pub member_data_dir: Vec<(String, PathBuf)>,

    /// How long members may take to be well again after each step [default: 2m]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub settle: Option<Duration>,

    #[command(flatten)]
    source: args::EtcdOrKine,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    resources: args::Resources,

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
        Shared::of(&[&self.source, &self.prefix, &self.resources, &self.reading, &self.output])
    }
}

fn free(text: &str) -> Result<(String, u64), String> {
    let parsed =
        text.split_once('=').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is not MEMBER=BYTES"))
}

fn place(text: &str) -> Result<(String, PathBuf), String> {
    let parsed = text.split_once('=').map(|(name, dir)| (name.to_owned(), dir.into()));
    parsed.ok_or_else(|| format!("`{text}` is not MEMBER=DIR"))
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let configs = inside::configs(ctx)?;
    let selection = open::selection(ctx, configs.as_ref().map(ConfigSet::resources))?;
    let (targets, resources) = residue::targets(ctx, configs.as_ref(), selection);
    if let Some(path) = database::given(ctx, args)? {
        return database::run(ctx, args, &path, (&targets, &resources));
    }
    let stop = interrupt::tell();
    let data_dirs: BTreeMap<_, _> = args.member_data_dir.iter().cloned().collect();
    let options = Options {
        connection: open::live_options(ctx)?,
        targets: &targets,
        apply: args.apply,
        compact_now: args.compact_now,
        free: args.free_disk.iter().cloned().collect(),
        data_dirs: data_dirs.clone(),
        settle: args.settle.unwrap_or(SETTLE),
        stop: &stop,
    };
    let receipts = if args.apply { Some(directory(args)?) } else { None };
    let mut unwritten = None;
    let mut finished = |member: &Member| {
        let Some(directory) = &receipts else { return };
        let json: Writes<'_> = &|out| receipt(member, &resources, out);
        let page: Writes<'_> = &|out| receipt_page(member, &resources, out);
        let forms = [("json", json), ("html", page)];
        if let Err(failure) = give_receipt(directory, &member.name, forms) {
            unwritten.get_or_insert(failure);
        }
    };
    let outcome = job::run(&options, &mut Told::new(&ctx.ui), &mut finished)?;
    let wal: Vec<Vec<String>> =
        outcome.members.iter().map(|m| rotating(m, data_dirs.get(&m.name))).collect();
    let shown = receipts.as_ref().map(|d| d.display().to_string());
    let report = Report {
        outcome: &outcome,
        applied: args.apply,
        resources: &resources,
        wal: &wal,
        receipts: shown.as_deref(),
    };
    ui::print(|out| report.write(args.format.write_out, ctx.ui.color, out))?;
    if let Some(failure) = unwritten {
        ctx.ui.failure(&failure);
        return Ok(Exit::Failed);
    }
    Ok(conclude(ctx, args, &outcome))
}

fn conclude(ctx: &Ctx, args: &Args, outcome: &job::Outcome) -> Exit {
    let Some(stop) = &outcome.stop else {
        let left = |m: &Member| matches!(m.progress, Progress::Left | Progress::Unknown);
        return if outcome.members.iter().any(left) { Exit::Partial } else { Exit::Ok };
    };
    if matches!(stop, Stop::Interrupted) {
        return interrupted(ctx);
    }
    // A file whose room is not known is no news before anything is to be done.
    stopped(ctx, args, &stop.to_string(), advice(stop), matches!(stop, Stop::Room { .. }))
}

fn interrupted(ctx: &Ctx) -> Exit {
    ctx.ui.note("interrupted; run it again to continue");
    Exit::Interrupted
}

/// Tells what a run ended for, or what it would end for.
fn stopped(ctx: &Ctx, args: &Args, why: &str, hint: &'static str, is_no_news: bool) -> Exit {
    if args.apply {
        ctx.ui.failure(&Failure::new(why).hint(hint));
        return Exit::Failed;
    }
    let text = format!("{why}: --apply would refuse; {hint}");
    if is_no_news {
        ctx.ui.note(&text);
        return Exit::Ok;
    }
    ctx.ui.warn(&text);
    Exit::Partial
}

fn advice(stop: &Stop) -> &'static str {
    match stop {
        Stop::Interrupted => "run it again to continue",
        Stop::Unhealthy { .. } => {
            "bring the member back first; nothing else was touched, run it again then"
        }
        Stop::Alarm(_) => {
            "`etcdctl alarm list` names the member; repair it and disarm the alarm first"
        }
        Stop::Live(_) => "re-encrypt them first: atrest migrate --apply",
        Stop::Damaged { .. } => {
            "repair the member first: remove it from the cluster and add it anew"
        }
        Stop::Room { .. } => {
            "`df -B1` on that machine says it: --free-disk MEMBER=BYTES; or --member-data-dir MEMBER=DIR where the member runs here"
        }
        Stop::NoRoom { .. } => "make room on that disk first",
        Stop::Compactor(_) => {
            "it does so within about ten minutes: run it again then, or --compact-now"
        }
        Stop::Failed { .. } => {
            "see the member's log; nothing is half done, run it again to continue"
        }
    }
}

/// Where the receipts go.
fn directory(args: &Args) -> Result<PathBuf, Failure> {
    let name = || jiff::Timestamp::now().strftime("atrest-scrub-%Y%m%dT%H%M%SZ").to_string();
    let path = args.receipts.clone().unwrap_or_else(|| name().into());
    std::fs::create_dir_all(&path)
        .map_err(|e| Failure::new(format!("cannot make {}", path.display())).because(&e))?;
    Ok(path)
}

/// Writes a receipt in one form.
type Writes<'w> = &'w dyn Fn(&mut dyn std::io::Write) -> std::io::Result<()>;

/// Writes it in every form, each by the ending of its file's name.
fn give_receipt(
    directory: &Path,
    name: &str,
    forms: [(&str, Writes<'_>); 2],
) -> Result<(), Failure> {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    let name: String = name.chars().map(safe).collect();
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%6fZ");
    for (extension, form) in forms {
        let mut bytes = Vec::new();
        let path = directory.join(format!("{name}-{time}.{extension}"));
        form(&mut bytes)
            .map_err(|e| Failure::new(format!("cannot write {}", path.display())).because(&e))?;
        write(&path, bytes, false)?;
    }
    Ok(())
}

/// How a member's write-ahead log is rotated, and looked at afterwards.
fn rotating(member: &Member, data_dir: Option<&PathBuf>) -> Vec<String> {
    let to = &member.endpoint;
    let dir = data_dir.map_or("DATA_DIR".to_owned(), |d| d.display().to_string());
    vec![
        "# restart it with --snapshot-count=100 --max-wals=1 beside its own options, then:"
            .to_owned(),
        format!(
            "for i in $(seq 160); do head -c 1000000 /dev/zero | tr '\\0' x | etcdctl --endpoints {to} put atrest-filler; done"
        ),
        format!("etcdctl --endpoints {to} del atrest-filler"),
        "# wait a minute, stop it, and look:".to_owned(),
        format!("atrest residue --data-dir {dir} --fail-on residue"),
        "# start it with its own options".to_owned(),
    ]
}

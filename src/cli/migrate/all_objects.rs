//! `migrate --via-api --all-objects`: where only the API server is within reach.

use std::io;
use std::path::Path;

use super::Args;
use crate::apiserver::Client;
use crate::chain::chain;
use crate::cli::failure::{Exit, Failure};
use crate::cli::inside::SCHEME;
use crate::cli::observer::Told;
use crate::cli::{Ctx, inside, interrupt, open, ui};
use crate::config::ConfigSet;
use crate::jobs::migrate::whole::progress::{About, Progress};
use crate::jobs::migrate::whole::{self as job, Error, Options, Outcome};
use crate::migrate::apply::Stop;
use crate::report::all_objects::Report;
use crate::report::table;
use crate::resource::Selection;
use crate::scan::Causes;
use crate::temporary;

/// Options that say something about etcd, or about reading what it holds.
const OF_ETCD: [&str; 17] = [
    "prefix",
    "proxy-namespace",
    "backup",
    "quota-backend-bytes",
    "confirm-config",
    "confirm-apiserver",
    "try-keys",
    "kms-exec",
    "kms-timeout",
    "kms-escrow",
    "identity",
    "token",
    "token-file",
    "endpoints",
    "profile",
    "manifest",
    "root",
];
const ANOTHER: &str = "name another file with --progress, or delete that one";
const AGAIN: &str = "run it again to continue";

/// Runs it.
pub fn run(ctx: &Ctx, args: &Args, client: &Client) -> Result<Exit, Failure> {
    check(ctx)?;
    let configs = inside::configs(ctx)?;
    let selection = open::selection(ctx, configs.as_ref().map(ConfigSet::resources))?;
    let about = About {
        server: client.server().to_owned(),
        config: configs.as_ref().map(|c| c.current().sha256.clone()),
        resources: selection.resources.iter().map(ToString::to_string).collect(),
        namespaces: selection.namespaces.clone(),
    };
    let mut progress = resume(ctx, args.progress.as_deref(), about)?;
    // From here on the first signal ends the run in good order, the second at once.
    let stop = interrupt::tell();
    let options = Options {
        client,
        resources: &selection.resources,
        namespaces: &selection.namespaces,
        concurrency: args.writing.concurrency,
        qps: args.writing.qps,
        stop: &stop,
    };
    let by_cluster = args.storage_version_migration;
    let migrator = by_cluster.then(|| job::migrator(client, &stop)).transpose();
    let migrator = migrator.map_err(super::words::refused)?;
    let (path, mut told) = (args.progress.as_deref(), Told::new(&ctx.ui));
    let plan = job::plan(&options, &progress, &mut told).map_err(|e| refused(&e, path))?;
    found(ctx, &selection, &plan.outcome)?;
    let outcome = if let Some(migrator) = migrator.filter(|_| args.apply) {
        job::by_cluster(&options, &migrator, plan, &mut told)
    } else if args.apply {
        let mut note = |progress: &Progress| match path {
            Some(path) => temporary::write(path, &progress.write()?, true),
            None => Ok(()),
        };
        job::apply(&options, plan, &mut progress, &mut note, &mut told)
            .map_err(|e| refused(&e, path))?
    } else {
        plan.outcome
    };
    if let Some(path) = path.filter(|_| args.apply && outcome.stop.is_none())
        && !progress.has_failures()
    {
        // Whoever rotates again must not go on with what belongs to this time.
        forget(path)?;
    }
    let report = Report {
        outcome: &outcome,
        server: client.server(),
        config: configs.as_ref().map(open::config_wire),
        applied: args.apply,
        by_cluster,
        apply: "--apply",
        qps: args.writing.qps,
    };
    ui::print(|out| report.write(args.write_out, ctx.ui.color, out))?;
    Ok(conclude(ctx, args, &outcome))
}

/// What is said of etcd is not honoured here, and so refused.
fn check(ctx: &Ctx) -> Result<(), Failure> {
    let etcds = OF_ETCD.into_iter().find(|name| ctx.given.has(name));
    if let Some(name) = etcds.or_else(|| ctx.given.connection()) {
        return Err(Failure::usage(format!(
            "--{name} is about what lies in etcd, which --all-objects does not look at"
        ))
        .hint("leave it out; or leave --all-objects out, and etcd says which objects are stale"));
    }
    let inside = |path: &std::path::PathBuf| path.to_string_lossy().starts_with(SCHEME);
    if ctx.global.encryption_config.iter().any(inside) {
        return Err(Failure::usage("the configuration lies in etcd, which is not looked at")
            .hint("give the configuration in a file"));
    }
    Ok(())
}

/// How far an earlier run has come, or the beginning.
fn resume(ctx: &Ctx, path: Option<&Path>, about: About) -> Result<Progress, Failure> {
    let begun = || jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let Some(path) = path else { return Ok(Progress::new(about, begun())) };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Progress::new(about, begun())),
        Err(e) => return Err(Failure::new(format!("cannot read {}", path.display())).because(&e)),
    };
    let progress = Progress::read(&bytes).map_err(|e| {
        Failure::new(format!("{} cannot be used", path.display())).because(&e).hint(ANOTHER)
    })?;
    if progress.about != about {
        let text = format!(
            "{} is of a run with another server, configuration or selection",
            path.display()
        );
        return Err(Failure::usage(text).hint(ANOTHER));
    }
    ctx.ui.note(&format!(
        "this goes on with the run that began at {}: objects that it dealt with are left alone",
        table::visible(&progress.begun)
    ));
    Ok(progress)
}

fn forget(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(format!("cannot remove {}", path.display())).because(&e))
        }
        _ => Ok(()),
    }
}

fn refused(error: &Error, progress: Option<&Path>) -> Failure {
    match error {
        Error::Interrupted => {
            Failure { exit: Exit::Interrupted, ..Failure::new(error.to_string()) }
        }
        Error::Note(_) => {
            let path = progress.unwrap_or(Path::new("")).display();
            Failure::new(format!("{error} in {path}")).because(error).hint(AGAIN)
        }
        error => Failure::new(error.to_string()).because(error),
    }
}

/// Nothing found is not all well.
fn found(ctx: &Ctx, selection: &Selection, outcome: &Outcome) -> Result<(), Failure> {
    let named = !ctx.global.resource.is_empty();
    let absent: Vec<String> =
        outcome.absent.iter().map(|s| table::visible(&s.to_string())).collect();
    let mut missing = Vec::new();
    if !absent.is_empty() {
        let text = format!("no resource {} that it can store anew", absent.join(", "));
        if named {
            missing.push(text);
        } else {
            ctx.ui.note(&format!("the API server serves {text}"));
        }
    }
    missing.extend(
        outcome.no_namespaces.iter().map(|n| format!("no namespace `{}`", table::visible(n))),
    );
    for (what, reason) in &outcome.silent {
        ctx.ui.warn(&format!("{} was not examined: {reason}", table::visible(what)));
    }
    if !missing.is_empty() && !ctx.global.allow_empty {
        return Err(Failure::new(format!("the API server has {}", missing.join(", ")))
            .hint("--allow-empty, if empty is fine"));
    }
    if outcome.shares.is_empty() && !outcome.silent.is_empty() {
        return Err(Failure::new(format!("nothing of {} can be listed", selection.names())));
    }
    if outcome.planned() + outcome.before() == 0 {
        ctx.ui.note(&format!("no object of {}", selection.names()));
    }
    Ok(())
}

/// What went wrong, on stderr, and the exit code.
fn conclude(ctx: &Ctx, args: &Args, outcome: &Outcome) -> Exit {
    let mut causes = Causes::default();
    for failed in &outcome.failed {
        let place = String::from_utf8_lossy(&failed.key);
        causes.add(format!("{} {place}", failed.resource).as_bytes(), &failed.reason);
    }
    for line in causes.lines("failed:") {
        let all = if line.contains(" more") { "; -w json names them all" } else { "" };
        ctx.ui.warn(&format!("{line}{all}"));
    }
    let again = if args.storage_version_migration {
        "what was begun goes on; run it again to follow it"
    } else if args.progress.is_some() {
        AGAIN
    } else {
        "run again, it begins anew"
    };
    match &outcome.stop {
        Some(Stop::Interrupted) => {
            ctx.ui.note(&format!("interrupted; {again}"));
            return Exit::Interrupted;
        }
        Some(stop) => {
            ctx.ui.failure(
                &Failure::new(format!("the migration stopped: {}", chain(stop))).hint(again),
            );
            return Exit::Failed;
        }
        None => {}
    }
    if args.apply && outcome.written() == 0 && outcome.current() > 0 {
        ctx.ui.warn(
            "the API server stored nothing anew: every object was current to it, or it has not \
             loaded the new configuration; which, cannot be known from here",
        );
    }
    if !outcome.failed.is_empty() || !outcome.silent.is_empty() {
        return Exit::Partial;
    }
    Exit::Ok
}

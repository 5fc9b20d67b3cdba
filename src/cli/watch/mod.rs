//! `atrest scan --watch`: one scan, then what changes.

mod view;

use std::ops::ControlFlow;
use std::sync::Arc;

use self::view::{Shown, View};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::open::{self, Selection};
use super::{Ctx, ending, interrupt, nothing, scan};
use crate::config::ConfigSet;
use crate::jobs::watch::{self as job, Options, Outcome, State};
use crate::report::{Format, table};
use crate::scan::judge_with;
use crate::source::Source as _;
use crate::source::live::Live;

/// Runs the command.
pub fn run(ctx: &Ctx, args: &scan::Args) -> Result<Exit, Failure> {
    can_be_watched(ctx, args)?;
    let configs = super::inside::configs(ctx)?;
    if configs.is_none() && args.verify {
        return Err(scan::verify_needs_keys());
    }
    let configured = || configs.as_ref().map(ConfigSet::resources);
    let selection = open::selection(ctx, configured())?;
    // "Done" is a verdict; the view alone is of what was asked for.
    let judged = if args.until_done { selection.judged(configured()) } else { selection.clone() };
    let transformers = configs.as_ref().map(|set| open::transformers(ctx, set)).transpose()?;
    let transformers = transformers.map(|t| t.try_keys(args.try_keys));
    let judge = judge_with(transformers.as_ref(), args.verify);
    if args.until_done && judged_beyond(ctx, &selection, &judged) {
        ctx.ui.note(
            "--until-done waits for everything that is served, not only for what was asked for",
        );
    }
    let unexamined = open::unexamined(ctx, &judged);
    ending::damage(ctx, &unexamined);
    let etcd = open::live_options(ctx)?;
    let mut live = Live::connect(&etcd)?;
    nothing::look(ctx, &mut live, &selection)?;
    let shown = Shown {
        info: live.info(),
        looked_for: selection.words(),
        config: configs.as_ref().map(open::config_wire),
        verified: args.verify,
        color: ctx.ui.color,
    };
    let options = Options {
        selection: &selection,
        judged: &judged,
        judge: judge.as_ref(),
        with_status: configs.is_some(),
        until_done: args.until_done,
    };
    let mut first = Some(live);
    let mut connect = || first.take().map_or_else(|| Live::connect(&etcd), Ok);
    let outcome = follow(ctx, &mut connect, &options, View::new(ctx, args.write_out, shown))?;
    let exit = ended(ctx, &outcome);
    // Nothing is left of what can be seen from here.
    Ok(if exit == Exit::Ok && !unexamined.is_empty() { Exit::Partial } else { exit })
}

/// Options that mean something else than following an etcd.
fn can_be_watched(ctx: &Ctx, args: &scan::Args) -> Result<(), Failure> {
    if ctx.global.is_file() {
        return Err(Failure::usage("--watch follows a live etcd, not a file")
            .hint("name the etcd with --endpoints"));
    }
    if ctx.global.revision.is_some() {
        return Err(Failure::usage("--watch follows what is written now; --revision is the past"));
    }
    let writes = |f: &Format| matches!(f, Format::Table | Format::Json | Format::Jsonl);
    match args.write_out.filter(|f| !writes(f)) {
        None => Ok(()),
        Some(other) => Err(Failure::usage(format!(
            "--watch does not write `{}`; it writes table, json, jsonl",
            other.as_str()
        ))),
    }
}

/// Whether more is judged than was asked for.
fn judged_beyond(ctx: &Ctx, selection: &Selection, judged: &Selection) -> bool {
    !selection.namespaces.is_empty()
        || !ctx.global.resource.is_empty() && judged.resources.len() > selection.resources.len()
}

fn follow(
    ctx: &Ctx,
    connect: &mut dyn FnMut() -> Result<Live, crate::source::SourceError>,
    options: &Options<'_>,
    mut view: View,
) -> Result<Outcome, Failure> {
    let stop = Arc::default();
    let mut failed = None;
    let mut told = Told::above(&ctx.ui, view.bar());
    let mut show = |state: &State| {
        // An interrupt before there is anything to show ends the program.
        interrupt::tell_by(&stop);
        match view.show(state) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    };
    let result = job::run(connect, options, &mut show, &stop, &mut told);
    view.close();
    let outcome = result?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    view.last(&outcome.state)?;
    Ok(outcome)
}

/// What must be known of the end.
fn ended(ctx: &Ctx, outcome: &Outcome) -> Exit {
    if !outcome.done {
        return Exit::Interrupted;
    }
    let totals = outcome.state.judged();
    if totals.unreadable > 0 {
        let entries = table::entries(totals.unreadable);
        ctx.ui.warn(&format!("{entries} cannot be read with this configuration"));
    }
    if totals.misplaced > 0 {
        let hold = if totals.misplaced == 1 { "holds" } else { "hold" };
        let entries = table::entries(totals.misplaced);
        ctx.ui.warn(&format!("{entries} {hold} another object than the key says"));
    }
    if totals.unreadable + totals.misplaced > 0 { Exit::Partial } else { Exit::Ok }
}
